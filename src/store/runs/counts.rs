//! How much waits: for a turn, for people, for somebody to look at it.

use super::rows::natural;
use crate::store::database::{Database, Fault, Row, values};
use crate::store::{Failure, Store};

/// What waits, of everybody. Times are milliseconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunCounts {
    /// Runs that have not begun, by agent: how many, and since when the first of them.
    pub queued: Vec<(String, u64, u64)>,
    /// Approvals that nobody has decided, by agent and tool, the same way.
    pub approvals: Vec<(String, String, u64, u64)>,
    /// Runs that wait, by agent and state.
    pub waiting: Vec<(String, String, u64)>,
    /// Letters that are open, by kind.
    pub letters: Vec<(String, u64)>,
    /// What the whole database takes.
    pub bytes: u64,
}

// === impl Store ===

impl Store {
    pub async fn run_counts(&self) -> Result<RunCounts, Failure> {
        let now = self.now();
        self.read.run(move |database| count(database, now)).await
    }
}

// === The statements ===

fn count(database: &mut Database, now: i64) -> Result<RunCounts, Fault> {
    let since = |row: &Row<'_>| Ok((row.get(0)?, natural(row, 1)?, natural(row, 2)?));
    let queued = "SELECT agent, count(*), min(created_at) FROM runs WHERE state = 'queued'
        GROUP BY agent";
    let approvals = "SELECT agent, tool, count(*), min(created_at) FROM approvals
        WHERE state = 'pending' AND expires_at > $1 GROUP BY agent, tool";
    let waiting = "SELECT agent, state, count(*) FROM runs
        WHERE finished_at IS NULL AND state NOT IN ('queued', 'running') GROUP BY agent, state";
    let size = database.backend().size();
    let letters = "SELECT kind, count(*) FROM letters WHERE state = 'open' GROUP BY kind";
    let of_tool =
        |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, natural(row, 2)?, natural(row, 3)?));
    let of_state = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, natural(row, 2)?));
    let of_kind = |row: &Row<'_>| Ok((row.get(0)?, natural(row, 1)?));
    Ok(RunCounts {
        queued: database.query(queued, &[], since)?,
        approvals: database.query(approvals, values![now], of_tool)?,
        waiting: database.query(waiting, &[], of_state)?,
        letters: database.query(letters, &[], of_kind)?,
        bytes: database.first(size, &[], |row| natural(row, 0))?.unwrap_or_default(),
    })
}
