//! Brings a database to the form this program knows: numbered steps, forward only.

use rusqlite::{Connection, TransactionBehavior};

use super::Failure;
use super::sqlite::failed;

/// Each step once, in order: what has shipped is never edited, only followed.
const STEPS: &[&str] = &[
    include_str!("migrations/0001_objects.sql"),
    include_str!("migrations/0002_ledger.sql"),
    include_str!("migrations/0003_keys.sql"),
];

/// Takes the steps that the database has not taken, all or none.
pub(super) fn migrate(connection: &mut Connection, now: i64) -> Result<(), Failure> {
    // Immediate, so that a file that cannot be written is known at the start.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
    let table = "CREATE TABLE IF NOT EXISTS migrations (
        version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT";
    transaction.execute(table, []).map_err(failed)?;
    let query = "SELECT coalesce(max(version), 0) FROM migrations";
    let version: i64 = transaction.query_one(query, [], |row| row.get(0)).map_err(failed)?;
    let taken = usize::try_from(version).unwrap_or_default();
    let Some(missing) = STEPS.get(taken..) else {
        let known = STEPS.len();
        return Err(Failure::new(format!(
            "the database has version {version} and this program knows {known}: start the newer \
             program that wrote it, or restore a copy from before"
        )));
    };
    for (version, step) in (version + 1..).zip(missing) {
        transaction.execute_batch(step).map_err(failed)?;
        let note = "INSERT INTO migrations (version, applied_at) VALUES (?1, ?2)";
        transaction.execute(note, [version, now]).map_err(failed)?;
    }
    transaction.commit().map_err(failed)
}
