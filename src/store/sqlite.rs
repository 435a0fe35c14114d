//! Opens the database, and says in words what SQLite objects to.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::Failure;

/// Statements that are kept ready; each kind of work has a few.
const PREPARED: usize = 128;
/// How long another process, such as a backup, may hold the file.
const PATIENCE: Duration = Duration::from_secs(2);

/// The one connection that writes.
pub(super) fn writer(path: Option<&Path>) -> Result<Connection, Failure> {
    let Some(path) = path else {
        let connection = Connection::open_in_memory().map_err(|error| failed(&error))?;
        connection.set_prepared_statement_cache_capacity(PREPARED);
        return Ok(connection);
    };
    // Made by us, so that nobody else can read it; SQLite gives its further files the same mode.
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Failure::new(error.to_string()))?;
    let connection = open(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    // Readers and the writer do not wait for one another. What was answered survives the process;
    // a power cut may take the last moments, and never the file.
    connection.pragma_update(None, "journal_mode", "WAL").map_err(|error| failed(&error))?;
    connection.pragma_update(None, "synchronous", "NORMAL").map_err(|error| failed(&error))?;
    Ok(connection)
}

pub(super) fn reader(path: &Path) -> Result<Connection, Failure> {
    open(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// Without URIs, so that a path is a path. Each connection has one thread, so SQLite need not lock.
fn open(path: &Path, access: OpenFlags) -> Result<Connection, Failure> {
    let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(|error| failed(&error))?;
    connection.set_prepared_statement_cache_capacity(PREPARED);
    connection.busy_timeout(PATIENCE).map_err(|error| failed(&error))?;
    Ok(connection)
}

pub(super) fn failed(error: &rusqlite::Error) -> Failure {
    Failure::new(match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "the file is locked by another process".to_owned()
        }
        Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied) => {
            "the file or its folder is read-only".to_owned()
        }
        Some(ErrorCode::NotADatabase) => "the file is no SQLite database".to_owned(),
        Some(ErrorCode::DatabaseCorrupt) => "the file is damaged".to_owned(),
        Some(ErrorCode::DiskFull) => "the disk is full".to_owned(),
        _ => error.to_string(),
    })
}
