//! Labels of agents that were moved at run time, for all replicas.

use super::LabelRow;
use super::rows;
use crate::store::database::{Database, Row, values};
use crate::store::{Failure, Store};

// === impl Store ===

impl Store {
    /// The labels of an agent that were moved, by name.
    pub async fn agent_labels(&self, agent: &str) -> Result<Vec<LabelRow>, Failure> {
        let agent = agent.to_owned();
        let query = "SELECT label, version, file, moved_by, at FROM agent_labels WHERE agent = $1
            ORDER BY label";
        let label = |row: &Row<'_>| {
            let (label, version, file) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(LabelRow { label, version, file, by: row.get(3)?, at: rows::natural(row, 4)? })
        };
        self.read.run(move |database| database.query(query, values![&agent], label)).await
    }

    /// Moves a label; the time is this moment. It is on the disk when this returns.
    pub async fn move_label(&self, agent: &str, label: LabelRow) -> Result<(), Failure> {
        let (agent, now) = (agent.to_owned(), self.now());
        let put = "INSERT INTO agent_labels (agent, label, version, file, moved_by, at)
            VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (agent, label) DO UPDATE SET version = excluded.version,
                file = excluded.file, moved_by = excluded.moved_by, at = excluded.at";
        let put = move |database: &mut Database| {
            let LabelRow { label, version, file, by, .. } = &label;
            database.execute(put, values![&agent, label, version, file, by, now])
        };
        self.write.run_durable(put).await.map(|_| ())
    }

    /// Lets a label be where the config has it.
    pub async fn reset_label(&self, agent: &str, label: &str) -> Result<(), Failure> {
        let (agent, label) = (agent.to_owned(), label.to_owned());
        let delete = "DELETE FROM agent_labels WHERE agent = $1 AND label = $2";
        let delete =
            move |database: &mut Database| database.execute(delete, values![&agent, &label]);
        self.write.run_durable(delete).await.map(|_| ())
    }
}
