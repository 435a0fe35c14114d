//! Brings a database to the form this program knows: numbered steps, forward only.

use super::Failure;
use super::database::{Alone, Backend, Database, Fault, values};

/// One step. It is written for SQLite; `SPELLED` says what Postgres has in the place of some words,
/// and where that is not enough, it has a text of its own.
struct Step {
    sqlite: &'static str,
    postgres: Option<&'static str>,
}

/// Each step once, in order: what has shipped is never edited, only followed.
const STEPS: &[Step] = &[
    Step {
        sqlite: include_str!("migrations/0001_objects.sql"),
        postgres: Some(include_str!("migrations/0001_objects.postgres.sql")),
    },
    Step { sqlite: include_str!("migrations/0002_ledger.sql"), postgres: None },
    Step { sqlite: include_str!("migrations/0003_keys.sql"), postgres: None },
    Step {
        sqlite: include_str!("migrations/0004_nodes.sql"),
        postgres: Some(include_str!("migrations/0004_nodes.postgres.sql")),
    },
    Step { sqlite: include_str!("migrations/0005_directory.sql"), postgres: None },
    Step { sqlite: include_str!("migrations/0006_runs.sql"), postgres: None },
    Step { sqlite: include_str!("migrations/0007_agent_labels.sql"), postgres: None },
    Step { sqlite: include_str!("migrations/0008_audit_waiting.sql"), postgres: None },
    Step { sqlite: include_str!("migrations/0009_deliveries.sql"), postgres: None },
    Step { sqlite: include_str!("migrations/0010_calls_of_some.sql"), postgres: None },
    Step {
        sqlite: include_str!("migrations/0011_calls_with_attempts.sql"),
        postgres: Some(include_str!("migrations/0011_calls_with_attempts.postgres.sql")),
    },
    Step { sqlite: include_str!("migrations/0012_bytes_of_runs.sql"), postgres: None },
    Step { sqlite: include_str!("migrations/0013_turns.sql"), postgres: None },
    Step { sqlite: include_str!("migrations/0014_calls_of_users.sql"), postgres: None },
    Step { sqlite: include_str!("migrations/0015_nodes_of_calls.sql"), postgres: None },
];

/// In this order.
const SPELLED: &[(&str, &str)] = &[
    ("INTEGER PRIMARY KEY AUTOINCREMENT", "BIGSERIAL PRIMARY KEY"),
    (" INTEGER", " BIGINT"),
    (" BLOB", " BYTEA"),
    (") STRICT, WITHOUT ROWID;", ");"),
    (") STRICT;", ");"),
];

/// Takes the steps that the database has not taken, all or none.
pub(super) fn migrate(database: &mut Database, now: i64) -> Result<(), Failure> {
    match database.transaction(|database| take(database, now))? {
        None => Ok(()),
        Some(version) => {
            let known = STEPS.len();
            Err(Failure::new(format!(
                "the database has version {version} and this program knows {known}: start the \
                 newer program that wrote it, or restore a copy from before"
            )))
        }
    }
}

/// A version that is too new, if the database has one.
pub(super) fn take(database: &mut Database, now: i64) -> Result<Option<i64>, Fault> {
    // Several replicas may start at once.
    database.alone(Alone::Migrate)?;
    let table = "CREATE TABLE IF NOT EXISTS migrations (
        version INTEGER PRIMARY KEY, applied_at INTEGER NOT NULL) STRICT;";
    let backend = database.backend();
    database.batch(&spelled(table, backend))?;
    let query = "SELECT coalesce(max(version), 0) FROM migrations";
    let version = database.first(query, &[], |row| row.get(0))?.unwrap_or(0);
    let taken = usize::try_from(version).unwrap_or_default();
    let Some(missing) = STEPS.get(taken..) else { return Ok(Some(version)) };
    for (version, step) in (version + 1..).zip(missing) {
        match step.postgres.filter(|_| backend == Backend::Postgres) {
            Some(own) => database.batch(own)?,
            None => database.batch(&spelled(step.sqlite, backend))?,
        }
        let note = "INSERT INTO migrations (version, applied_at) VALUES ($1, $2)";
        database.execute(note, values![version, now])?;
    }
    Ok(None)
}

fn spelled(text: &str, backend: Backend) -> String {
    let words = SPELLED.iter().filter(|_| backend == Backend::Postgres);
    words.fold(text.to_owned(), |text, (sqlite, postgres)| text.replace(sqlite, postgres))
}
