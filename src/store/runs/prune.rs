//! Lets go of runs that are long over.

use super::blobs;
use super::rows::{json, whole};
use crate::store::database::{Alone, Database, Fault, Row, values};
use crate::store::{Failure, STEP, Store};

/// A definition is put there before the run that needs it: for so many milliseconds it may be alone.
const ALONE: i64 = 3_600_000;
/// What belongs to a run and goes with it.
const BELONGINGS: [&str; 4] = ["events", "signals", "approvals", "deliveries"];
/// Letters that go with it, open or not: what they are about goes with it, too. Others stay until
/// they are settled.
const ABOUT_IT: &str = "kind IN ('run', 'webhook')";

// === impl Store ===

impl Store {
    /// Lets go of runs that are over since before these times, in milliseconds since 1970: of those
    /// that ended well, and of the others; step by step between the writes of others. Says how many.
    /// A run whose root is not over stays. What agents were goes with the last run that was so.
    pub async fn prune_runs(&self, completed: u64, failed: u64) -> Result<u64, Failure> {
        let before = (whole(completed), whole(failed));
        let mut pruned = 0;
        loop {
            let step = self.write.run(move |database| prune(database, before)).await?;
            if step == 0 {
                let alone = self.now() - ALONE;
                self.write.run(move |database| forget_definitions(database, alone)).await?;
                self.write.run(forget_letters).await?;
                return Ok(pruned);
            }
            pruned += step;
        }
    }
}

// === The statements ===

/// The oldest runs that have so many entries together, at least one.
fn prune(database: &mut Database, (completed, failed): (i64, i64)) -> Result<u64, Fault> {
    database.alone(Alone::Retain)?;
    let over = "SELECT position, last_seq FROM runs
        WHERE finished_at < CASE WHEN state = 'completed' THEN CAST($1 AS BIGINT)
            ELSE CAST($2 AS BIGINT) END
            AND finished_at < $3
            AND NOT EXISTS (SELECT 1 FROM runs AS roots
                WHERE roots.id = runs.root AND roots.finished_at IS NULL)
        ORDER BY finished_at LIMIT $4";
    let read = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<i64>(1)?));
    let newest = completed.max(failed);
    let over = database.query(over, values![completed, failed, newest, STEP], read)?;
    let mut entries = 0;
    let takes = over.into_iter().enumerate().take_while(|(number, (_, last))| {
        entries += last;
        *number == 0 || entries <= i64::from(STEP)
    });
    let runs: Vec<i64> = takes.map(|(_, (position, _))| position).collect();
    if runs.is_empty() {
        return Ok(0);
    }
    let (listed, numbers) = (json(&runs), database.backend().numbers("$1"));
    for table in BELONGINGS {
        let delete = format!("DELETE FROM {table} WHERE run IN ({numbers})");
        database.execute(&delete, values![&listed])?;
    }
    let settled = format!("(state <> 'open' OR {ABOUT_IT})");
    let letters = format!("DELETE FROM letters WHERE run IN ({numbers}) AND {settled}");
    database.execute(&letters, values![&listed])?;
    blobs::forget(database, &listed)?;
    let sessions = format!(
        "DELETE FROM sessions WHERE head IN (SELECT id FROM runs WHERE position IN ({numbers}))"
    );
    database.execute(&sessions, values![&listed])?;
    database.execute(&format!("DELETE FROM runs WHERE position IN ({numbers})"), values![&listed])
}

/// Those that no run has had since.
fn forget_definitions(database: &mut Database, since: i64) -> Result<u64, Fault> {
    database.alone(Alone::Retain)?;
    let delete = "DELETE FROM definitions WHERE created_at < $1
        AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.definition = definitions.hash)";
    database.execute(delete, values![since])
}

/// Those that were settled after their run had gone.
fn forget_letters(database: &mut Database) -> Result<u64, Fault> {
    database.alone(Alone::Retain)?;
    let delete = "DELETE FROM letters WHERE state <> 'open'
        AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.position = letters.run)";
    database.execute(delete, &[])
}
