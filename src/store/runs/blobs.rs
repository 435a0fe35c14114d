//! Results that were too long to be shown whole, each kept once however many runs have it.

use crate::canon::Owner;
use crate::store::database::{Database, Fault, values};
use crate::store::{Failure, Store};

// === impl Store ===

impl Store {
    /// A result that was too long to be shown whole; only to the owner of a run that has it.
    pub async fn run_blob(&self, owner: &Owner, hash: &str) -> Result<Option<Vec<u8>>, Failure> {
        let (owner, hash) = (owner.clone(), hash.to_owned());
        let query = "SELECT bytes FROM blobs WHERE hash = $1 AND EXISTS (
            SELECT 1 FROM run_blobs JOIN runs ON runs.position = run_blobs.run
            WHERE run_blobs.hash = $1 AND runs.owner = $2)";
        let read = move |database: &mut Database| {
            database.first(query, values![&hash, owner.as_str()], |row| row.get(0))
        };
        self.read.run(read).await
    }
}

// === The statements ===

pub(super) fn keep(
    database: &mut Database,
    run: i64,
    blobs: &[(String, Vec<u8>)],
) -> Result<(), Fault> {
    let has = "INSERT INTO run_blobs (run, hash) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    let keep = "INSERT INTO blobs (hash, bytes, runs) VALUES ($1, $2, 1)
        ON CONFLICT (hash) DO UPDATE SET runs = blobs.runs + 1";
    for (hash, bytes) in blobs {
        if database.execute(has, values![run, hash])? > 0 {
            database.execute(keep, values![hash, &bytes[..]])?;
        }
    }
    Ok(())
}

/// Runs, by a list of positions as JSON, have theirs no more; what no run has is gone.
pub(super) fn forget(database: &mut Database, runs: &str) -> Result<(), Fault> {
    let numbers = database.backend().numbers("$1");
    let fewer = format!(
        "UPDATE blobs SET runs = runs - (SELECT count(*) FROM run_blobs
            WHERE run_blobs.hash = blobs.hash AND run_blobs.run IN ({numbers}))
        WHERE hash IN (SELECT hash FROM run_blobs WHERE run IN ({numbers}))"
    );
    database.execute(&fewer, values![runs])?;
    let gone = format!("DELETE FROM run_blobs WHERE run IN ({numbers})");
    database.execute(&gone, values![runs])?;
    database.execute("DELETE FROM blobs WHERE runs = 0", values![]).map(|_| ())
}
