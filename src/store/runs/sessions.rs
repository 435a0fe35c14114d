//! Sessions of agents, and what the agents were.

use std::sync::Arc;

use super::rows;
use super::{NewRun, SessionRow};
use crate::canon::Owner;
use crate::store::database::{Database, Fault, Row, values};
use crate::store::{Failure, Store};

// === impl Store ===

impl Store {
    pub async fn session(&self, owner: &Owner, id: &str) -> Result<Option<SessionRow>, Failure> {
        let query = "SELECT id, agent, version, head, updated_at FROM sessions
            WHERE owner = $1 AND id = $2";
        let session = |row: &Row<'_>| {
            let (head, updated_at) = (rows::id(row, 3)?, rows::natural(row, 4)?);
            let (id, agent, version) = (row.get(0)?, row.get(1)?, row.get(2)?);
            Ok(SessionRow { id, agent, version, head, updated_at })
        };
        let (owner, id) = (owner.clone(), id.to_owned());
        let read = move |database: &mut Database| {
            database.first(query, values![owner.as_str(), &id], session)
        };
        self.read.run(read).await
    }

    /// Keeps what an agent is, under its hash; it is on the disk when this returns.
    pub async fn put_definition(&self, hash: &str, body: String) -> Result<(), Failure> {
        let (hash, now) = (hash.to_owned(), self.now());
        // Its age tells that a run is about to need it, so that it is not let go of before.
        let put = "INSERT INTO definitions (hash, body, created_at) VALUES ($1, $2, $3)
            ON CONFLICT (hash) DO UPDATE SET created_at = excluded.created_at
            WHERE definitions.created_at < excluded.created_at - 60000";
        let put = move |database: &mut Database| database.execute(put, values![&hash, &body, now]);
        self.write.run_durable(put).await.map(|_| ())
    }

    pub async fn definition(&self, hash: &str) -> Result<Option<Arc<str>>, Failure> {
        let hash = hash.to_owned();
        let query = "SELECT body FROM definitions WHERE hash = $1";
        let read =
            move |database: &mut Database| database.first(query, values![&hash], |row| row.get(0));
        self.read.run(read).await
    }
}

// === The statements ===

/// Makes a run the head of its session, unless another one than it knows of is that.
pub(super) fn lead(
    database: &mut Database,
    session: &str,
    run: &NewRun,
    now: i64,
) -> Result<bool, Fault> {
    let put = "INSERT INTO sessions (owner, id, agent, version, head, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (owner, id) DO UPDATE SET agent = excluded.agent, version = excluded.version,
            head = excluded.head, updated_at = excluded.updated_at
        WHERE sessions.head = $7";
    let (owner, head) = (run.owner.as_str(), run.id.to_string());
    let before = run.head.map(|head| head.to_string());
    let written = values![owner, session, &run.agent, &run.version, head, now, &before];
    Ok(database.execute(put, written)? > 0)
}
