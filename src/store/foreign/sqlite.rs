//! A file of somebody else's SQLite, read through a connection that can do nothing else.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, Statement, params_from_iter};
use serde_json::{Number, Value as Json};

use super::{Access, Ask, Gathered, Patience, Refusal, Table, distinct, hexadecimal, linear};

/// After how many steps of SQLite's machine it is asked whether somebody still waits. One step of
/// a model's may take long.
const STEPS: i32 = 1000;
const CHOSEN_STEPS: i32 = 10;
/// How long somebody who writes may hold the file.
const BUSY: Duration = Duration::from_secs(2);
/// The longest text of a statement, and in one of a model's the longest value and the most
/// columns: together they bound what one row can take of memory.
const LONGEST_SQL: i32 = 100_000;
pub(super) const LONGEST_VALUE: usize = 1 << 20;
const MOST_COLUMNS: i32 = 128;
/// Of LIKE and GLOB, which try it at every place of a text in one step.
const LONGEST_PATTERN: i32 = 128;
/// In statements of the operator's.
const LONGEST_OWN_VALUE: i32 = 64 << 20;

/// Opened when it is first asked, and then kept open.
pub(super) struct File {
    path: PathBuf,
    chosen: Option<Connection>,
    reader: Option<Connection>,
    writer: Option<Connection>,
}

// === impl File ===

impl File {
    pub(super) fn at(path: PathBuf) -> Self {
        Self { path, chosen: None, reader: None, writer: None }
    }

    pub(super) fn ask(&mut self, ask: &Ask, patience: &Patience) -> Result<Table, Refusal> {
        let (path, access) = (&self.path, ask.access);
        let place = match access {
            Access::Chosen => &mut self.chosen,
            Access::Read => &mut self.reader,
            Access::Write => &mut self.writer,
        };
        let connection = match place {
            Some(connection) => connection,
            None => place.insert(open(path, access).map_err(|error| away(path, &error))?),
        };
        let watch = patience.clone();
        let steps = if access == Access::Chosen { CHOSEN_STEPS } else { STEPS };
        connection.progress_handler(steps, Some(move || watch.is_over())).map_err(told)?;
        if access == Access::Write {
            return change(connection, ask);
        }
        let mut statement = connection.prepare(&ask.sql).map_err(told)?;
        if !statement.readonly() {
            return Err(Refusal::Statement("only queries are allowed here".to_owned()));
        }
        run(&mut statement, ask)
    }
}

fn open(path: &Path, access: Access) -> Result<Connection, Error> {
    let mode = match access {
        Access::Write => OpenFlags::SQLITE_OPEN_READ_WRITE,
        Access::Chosen | Access::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let mut connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    // Nothing in the file may call what reaches out of it, and no other file is brought in.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
    connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, LONGEST_SQL)?;
    if access == Access::Chosen {
        let longest = i32::try_from(LONGEST_VALUE).unwrap_or(i32::MAX);
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, longest)?;
        connection.set_limit(Limit::SQLITE_LIMIT_COLUMN, MOST_COLUMNS)?;
        connection.set_limit(Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LONGEST_PATTERN)?;
        linear::replace_functions(&connection)?;
    } else {
        connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, LONGEST_OWN_VALUE)?;
    }
    if access != Access::Write {
        connection.authorizer(Some(only_queries))?;
    }
    Ok(connection)
}

/// What is not named here is refused while the statement is still being read: every change, PRAGMA,
/// ATTACH, transactions.
fn only_queries(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Select | AuthAction::Read { .. } | AuthAction::Recursive => {
            Authorization::Allow
        }
        AuthAction::Function { function_name } => {
            let is_refused = REFUSED.iter().any(|it| function_name.eq_ignore_ascii_case(it));
            if is_refused { Authorization::Deny } else { Authorization::Allow }
        }
        _ => Authorization::Deny,
    }
}

/// What brings code in, and what takes minutes in one step where its arguments are long.
const REFUSED: [&str; 4] = ["load_extension", "json_patch", "jsonb_patch", "unhex"];

/// All of it or nothing.
fn change(connection: &mut Connection, ask: &Ask) -> Result<Table, Refusal> {
    let behavior = rusqlite::TransactionBehavior::Immediate;
    let transaction = connection.transaction_with_behavior(behavior).map_err(told)?;
    let mut statement = transaction.prepare(&ask.sql).map_err(told)?;
    let table = run(&mut statement, ask)?;
    drop(statement);
    transaction.commit().map_err(|error| match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::OperationInterrupted) => told(error),
        _ => Refusal::Unsure(error.to_string()),
    })?;
    Ok(table)
}

fn run(statement: &mut Statement<'_>, ask: &Ask) -> Result<Table, Refusal> {
    let values: Vec<_> = ask.values.iter().map(value).collect();
    let mut gathered = Gathered::new(ask);
    if statement.column_count() == 0 {
        let changed = statement.execute(params_from_iter(values)).map_err(told)?;
        gathered.table.changed = u64::try_from(changed).ok();
        return Ok(gathered.table);
    }
    let names = distinct(statement.column_names());
    let mut rows = statement.query(params_from_iter(values)).map_err(told)?;
    let mut has_room = true;
    while let Some(row) = rows.next().map_err(told)? {
        let cells = (0..names.len()).map(|at| row.get_ref(at)).collect::<Result<Vec<_>, _>>();
        let cells = cells.map_err(told)?;
        let size = names.iter().zip(&cells).map(|(name, cell)| name.len() + size(*cell)).sum();
        let object = || names.iter().cloned().zip(cells.iter().map(|it| shown(*it))).collect();
        has_room = has_room && gathered.take(object, size);
        // What changes rows goes on to its end, for it is done as it is stepped through.
        if !has_room && ask.access != Access::Write {
            break;
        }
    }
    Ok(gathered.table)
}

fn value(json: &Json) -> ToSqlOutput<'_> {
    match json {
        Json::Null => ToSqlOutput::Owned(Value::Null),
        Json::Bool(flag) => ToSqlOutput::Owned(Value::Integer((*flag).into())),
        Json::Number(number) => ToSqlOutput::Owned(match number.as_i64() {
            Some(whole) => Value::Integer(whole),
            None => number.as_f64().map_or(Value::Null, Value::Real),
        }),
        Json::String(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        Json::Array(_) | Json::Object(_) => ToSqlOutput::Owned(Value::Text(json.to_string())),
    }
}

fn shown(cell: ValueRef<'_>) -> Json {
    match cell {
        ValueRef::Null => Json::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => {
            Number::from_f64(number).map_or_else(|| number.to_string().into(), Json::Number)
        }
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(bytes) => hexadecimal(bytes).into(),
    }
}

fn size(cell: ValueRef<'_>) -> usize {
    match cell {
        ValueRef::Null => 4,
        ValueRef::Integer(_) | ValueRef::Real(_) => 8,
        ValueRef::Text(text) => text.len() + 2,
        ValueRef::Blob(bytes) => 2 * bytes.len() + 4,
    }
}

fn away(path: &Path, error: &Error) -> Refusal {
    tracing::warn!(path = %path.display(), %error, "a tool's database cannot be opened");
    Refusal::Away
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
fn told(error: Error) -> Refusal {
    match error.sqlite_error_code() {
        Some(ErrorCode::OperationInterrupted | ErrorCode::DatabaseBusy) => Refusal::Slow,
        Some(ErrorCode::AuthorizationForStatementDenied | ErrorCode::ReadOnly) => {
            Refusal::Statement("only queries are allowed here".to_owned())
        }
        _ => Refusal::Statement(match &error {
            Error::MultipleStatement => "only one statement is allowed".to_owned(),
            Error::SqliteFailure(_, Some(message)) => message.clone(),
            Error::SqlInputError { msg, .. } => msg.clone(),
            _ => error.to_string(),
        }),
    }
}
