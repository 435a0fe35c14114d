//! One way to speak to either database: the same statements, values and rows.
//!
//! A statement is written once, with `$1`, `$2` for its values. Where the two differ there is a
//! piece of [`Backend`] to put in.

use std::collections::HashSet;
use std::fmt;

use rusqlite::OptionalExtension as _;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, ErrorCode};

use super::postgres::Remote;
pub(super) use super::value::{Cell, Readable, Value, row, values};
use super::{Failure, sqlite};

/// Rows that SQLite is given with one statement: to begin and end one costs as much as a narrow row.
const TOGETHER: usize = 16;

/// One connection.
pub(super) enum Database {
    Sqlite(Connection),
    Postgres(Box<Remote>),
}

/// What the two spell differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Sqlite,
    Postgres,
}

/// One row of an answer.
pub(super) enum Row<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

/// Work of which only one process at a time may do a kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alone {
    Migrate = 1,
    Retain = 2,
    /// What is read by position, and so must become visible in its order.
    Audit = 3,
    /// The same of what runs are told.
    Signal = 4,
    /// Turns of tools are counted and taken.
    Turn = 5,
}

/// What can go wrong with a statement.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    /// In words that are not all the server's.
    #[error("{told}")]
    Refused { code: Box<str>, told: String },
    #[error("the database does not answer")]
    Silent,
    #[error("column {0} holds something else")]
    Odd(usize),
    /// The end of a transaction, which may have come to pass nevertheless.
    #[error("the end of a transaction is not known: {0}")]
    Unsure(Box<Fault>),
    /// Ours, and nothing of the database's.
    #[error("what was to be done there panicked")]
    Panicked,
}

// === impl Database ===

impl Database {
    /// How many rows it changed.
    pub(super) fn execute(&mut self, sql: &str, values: &[Value<'_>]) -> Result<u64, Fault> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                bind(&mut statement, values)?;
                Ok(statement.raw_execute()? as u64)
            }
            Self::Postgres(remote) => remote.execute(sql, values),
        }
    }

    /// Each row of the answer, read by `read`.
    pub(super) fn query<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        match self {
            Self::Sqlite(connection) => {
                let mut statement = connection.prepare_cached(sql)?;
                bind(&mut statement, values)?;
                let (mut rows, mut found) = (statement.raw_query(), Vec::new());
                while let Some(row) = rows.next()? {
                    found.push(read(&Row::Sqlite(row))?);
                }
                Ok(found)
            }
            Self::Postgres(remote) => {
                let rows = remote.query(sql, values)?;
                rows.iter().map(|row| read(&Row::Postgres(row))).collect()
            }
        }
    }

    /// The first row, if there is one.
    pub(super) fn first<T>(
        &mut self,
        sql: &str,
        values: &[Value<'_>],
        read: impl FnMut(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Option<T>, Fault> {
        Ok(self.query(sql, values, read)?.into_iter().next())
    }

    /// Puts in as many rows as there are values for, `width` each, several with one statement, which
    /// `head` and `tail` stand around.
    pub(super) fn insert(
        &mut self,
        statement: (&str, &str),
        width: usize,
        values: &[Value<'_>],
    ) -> Result<(), Fault> {
        match self {
            Self::Sqlite(connection) => {
                insert_each(connection, statement, width, values, |_, _| Ok(()))
            }
            Self::Postgres(_) => self.with_rows(statement, width, values, |_| Ok(())).map(|_| ()),
        }
    }

    /// The same for calls, of which the first value is their id: whether each of them is new, in
    /// their order. One whose id is there already is left as it is.
    pub(super) fn insert_calls(
        &mut self,
        head: &str,
        width: usize,
        values: &[Value<'_>],
    ) -> Result<Vec<bool>, Fault> {
        const ONCE: &str = "ON CONFLICT (id) DO NOTHING";
        if let Self::Sqlite(connection) = self {
            return insert_counted(connection, (head, ONCE), width, values);
        }
        let tail = format!("{ONCE} RETURNING id");
        let found = self.with_rows((head, &tail), width, values, |row| row.get(0))?;
        let mut found: HashSet<String> = found.into_iter().collect();
        let ids = values.chunks_exact(width).map(|row| match row.first() {
            Some(Value::Text(id)) => id,
            _ => "",
        });
        // One that stands there twice is new once.
        Ok(ids.map(|id| found.remove(id)).collect())
    }

    /// One statement, or several, with rows of these values between its head and its tail.
    pub(super) fn with_rows<T>(
        &mut self,
        (head, tail): (&str, &str),
        width: usize,
        values: &[Value<'_>],
        mut read: impl FnMut(&Row<'_>) -> Result<T, Fault>,
    ) -> Result<Vec<T>, Fault> {
        let mut found = Vec::new();
        let mut rest = values;
        while rest.len() >= width {
            // A few sizes only, so that each is prepared once.
            let fits = |rows: &usize| rest.len() >= rows * width;
            let rows = [64, 16, 4].into_iter().find(fits).unwrap_or(1);
            let (now, later) = rest.split_at(rows * width);
            let row = |row: usize| {
                let places: Vec<String> =
                    (1..=width).map(|place| format!("${}", row * width + place)).collect();
                format!("({})", places.join(", "))
            };
            let rows: Vec<String> = (0..rows).map(row).collect();
            let sql = format!("{head} {} {tail}", rows.join(", "));
            found.extend(self.query(&sql, now, &mut read)?);
            rest = later;
        }
        Ok(found)
    }

    /// Several statements without values.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), Fault> {
        match self {
            Self::Sqlite(connection) => Ok(connection.execute_batch(sql)?),
            Self::Postgres(remote) => remote.batch(sql),
        }
    }

    /// Whether a transaction is on the disk before it ends, not only safe from the end of the
    /// process. A server sees to it by itself.
    pub(super) fn sync(&mut self, is_full: bool) -> Result<(), Fault> {
        match self {
            Self::Sqlite(connection) => {
                let mode = if is_full { "FULL" } else { "NORMAL" };
                Ok(connection.pragma_update(None, "synchronous", mode)?)
            }
            Self::Postgres(_) => Ok(()),
        }
    }

    /// All of `work` or none of it.
    pub(super) fn transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        // SQLite is to say at once that a file cannot be written.
        self.batch(if self.backend() == Backend::Sqlite { "BEGIN IMMEDIATE" } else { "BEGIN" })?;
        let outcome = work(self).and_then(|value| {
            self.batch("COMMIT").map_err(Fault::at_the_end)?;
            Ok(value)
        });
        if outcome.is_err() {
            // It fails where the failure has ended the transaction already.
            let _ = self.batch("ROLLBACK");
        }
        outcome
    }

    /// Waits until no other process does the same, to the end of the transaction. A file has one
    /// writer as it is.
    pub(super) fn alone(&mut self, kind: Alone) -> Result<(), Fault> {
        /// So that locks of ours are nobody else's in a database that is shared.
        const OURS: i64 = 0x5357_5054_0000;
        if self.backend() == Backend::Postgres {
            let lock = "SELECT 1 FROM (SELECT pg_advisory_xact_lock($1)) AS held";
            self.query(lock, values![OURS + kind as i64], |_| Ok(()))?;
        }
        Ok(())
    }

    /// The time of a database that several processes use, who need not agree on theirs, in
    /// milliseconds since 1970; `own`, where there is only one.
    pub(super) fn clock(&mut self, own: i64) -> Result<i64, Fault> {
        if self.backend() == Backend::Sqlite {
            return Ok(own);
        }
        let clock = "SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)";
        Ok(self.first(clock, &[], |row| row.get(0))?.unwrap_or(own))
    }

    /// Wakes all who listen to this channel, when the transaction is committed. Those on one file
    /// have to look.
    pub(super) fn notify(&mut self, channel: &str) -> Result<(), Fault> {
        if self.backend() == Backend::Postgres {
            let notify = "SELECT 1 FROM (SELECT pg_notify($1, '')) AS told";
            self.query(notify, values![channel], |_| Ok(()))?;
        }
        Ok(())
    }

    pub(super) fn backend(&self) -> Backend {
        match self {
            Self::Sqlite(_) => Backend::Sqlite,
            Self::Postgres(_) => Backend::Postgres,
        }
    }
}

/// Several with one statement, and the rest one by one, so that two are prepared. `note` is told of
/// the rows of each, and how many of them changed anything.
fn insert_each(
    connection: &Connection,
    (head, tail): (&str, &str),
    width: usize,
    values: &[Value<'_>],
    mut note: impl FnMut(&[Value<'_>], usize) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let row = format!("({})", vec!["?"; width].join(", "));
    // What fails ends the transaction, so none has to remember how to take back its own rows.
    let head = head.replacen("INSERT", "INSERT OR ROLLBACK", 1);
    let mut rest = values;
    for rows in [TOGETHER, 1] {
        if rest.len() < rows * width {
            continue;
        }
        let rows_of = vec![row.as_str(); rows].join(", ");
        let mut statement = connection.prepare_cached(&format!("{head} {rows_of} {tail}"))?;
        while let Some((now, later)) =
            rest.split_at_checked(rows * width).filter(|_| !rest.is_empty())
        {
            for (place, value) in (1..).zip(now) {
                statement.raw_bind_parameter(place, value)?;
            }
            note(now, statement.raw_execute()?)?;
            rest = later;
        }
    }
    Ok(())
}

/// Whether each call is new. What a statement returns SQLite returns by a trigger, which takes
/// longer than to count.
fn insert_counted(
    connection: &Connection,
    statement: (&str, &str),
    width: usize,
    values: &[Value<'_>],
) -> Result<Vec<bool>, Fault> {
    let newest = "SELECT coalesce(max(position), 0) FROM calls";
    let mut newest: i64 = connection.query_row(newest, [], |row| row.get(0))?;
    let mut is_new = Vec::with_capacity(values.len() / width);
    insert_each(connection, statement, width, values, |rows, count| {
        if count == rows.len() / width {
            is_new.resize(is_new.len() + count, true);
        } else {
            // Some are there already, or stand here twice.
            let mut seen = HashSet::new();
            for row in rows.chunks_exact(width) {
                let position = position(connection, row.first())?;
                is_new.push(position.is_some_and(|it| it > newest && seen.insert(it)));
            }
        }
        if count > 0 {
            newest = connection.last_insert_rowid();
        }
        Ok(())
    })?;
    Ok(is_new)
}

/// Where the call of this id stands.
fn position(connection: &Connection, id: Option<&Value<'_>>) -> Result<Option<i64>, Fault> {
    let mut query = connection.prepare_cached("SELECT position FROM calls WHERE id = ?")?;
    Ok(query.query_row([id], |row| row.get(0)).optional()?)
}

/// `$3` is the third value, wherever it stands; SQLite would count them as they come.
fn bind(statement: &mut rusqlite::Statement<'_>, values: &[Value<'_>]) -> Result<(), Fault> {
    for index in 1..=statement.parameter_count() {
        let name = statement.parameter_name(index).and_then(|name| name.strip_prefix('$'));
        let number = name.and_then(|name| name.parse::<usize>().ok()).unwrap_or(index);
        let value = number.checked_sub(1).and_then(|at| values.get(at)).unwrap_or(&Value::Null);
        statement.raw_bind_parameter(index, value)?;
    }
    Ok(())
}

// === impl Backend ===

impl Backend {
    /// The UTC day of so many seconds since 1970, as 2026-11-21.
    pub(super) fn day(self, seconds: &str) -> String {
        match self {
            Self::Sqlite => format!("date({seconds}, 'unixepoch')"),
            Self::Postgres => {
                format!("to_char(to_timestamp({seconds}) AT TIME ZONE 'UTC', 'YYYY-MM-DD')")
            }
        }
    }

    /// Behind rows that are to be taken, so that one of two who take them does.
    pub(super) fn unheld(self) -> &'static str {
        match self {
            // A file has one writer as it is.
            Self::Sqlite => "",
            Self::Postgres => "FOR UPDATE SKIP LOCKED",
        }
    }

    /// The numbers of a JSON list, as a query.
    pub(super) fn numbers(self, list: &str) -> String {
        match self {
            Self::Sqlite => format!("SELECT value FROM json_each({list})"),
            Self::Postgres => {
                let list = format!("CAST(CAST({list} AS TEXT) AS jsonb)");
                format!("SELECT CAST(jsonb_array_elements_text({list}) AS BIGINT)")
            }
        }
    }

    /// Whether a JSON list of texts has this one.
    pub(super) fn has(self, list: &str, text: &str) -> String {
        match self {
            Self::Sqlite => {
                format!("EXISTS (SELECT 1 FROM json_each({list}) WHERE value = {text})")
            }
            Self::Postgres => {
                format!("CAST({list} AS jsonb) @> to_jsonb(CAST({text} AS TEXT))")
            }
        }
    }

    /// The members of a JSON object of texts, as rows of `key` and `value`.
    pub(super) fn members(self, object: &str) -> String {
        match self {
            Self::Sqlite => format!("json_each({object})"),
            Self::Postgres => format!("jsonb_each_text(CAST({object} AS jsonb))"),
        }
    }

    /// Bytes that the whole database takes.
    pub(super) fn size(self) -> &'static str {
        match self {
            Self::Sqlite => {
                "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
            }
            Self::Postgres => "SELECT pg_database_size(current_database())",
        }
    }

    /// One member of such an object, or nothing.
    pub(super) fn member(self, object: &str, name: &str) -> String {
        match self {
            Self::Sqlite => format!("json_extract({object}, '$.{name}')"),
            Self::Postgres => format!("(CAST({object} AS jsonb) ->> '{name}')"),
        }
    }
}

// === impl Row ===

impl Row<'_> {
    pub(super) fn get<T: Readable>(&self, at: usize) -> Result<T, Fault> {
        let cell = match self {
            Self::Sqlite(row) => match row.get_ref(at)? {
                ValueRef::Null => Cell::Null,
                ValueRef::Integer(number) => Cell::Integer(number),
                ValueRef::Real(_) => return Err(Fault::Odd(at)),
                ValueRef::Text(text) => Cell::Text(String::from_utf8_lossy(text).into_owned()),
                ValueRef::Blob(bytes) => Cell::Bytes(bytes.to_owned()),
            },
            Self::Postgres(row) => row.try_get(at)?,
        };
        T::read(cell).ok_or(Fault::Odd(at))
    }
}

// === impl Fault ===

impl Fault {
    /// Whether the connection is of no use any more.
    pub(super) fn is_gone(&self) -> bool {
        match self {
            // It never came to an answer, unless the fault is in what we sent or read.
            Self::Postgres(error) => match error.as_db_error() {
                Some(told) => is_leaving(told.code().code()),
                None => error.is_closed() || Self::is_io(error),
            },
            Self::Refused { code, .. } => is_leaving(code),
            Self::Silent => true,
            Self::Unsure(fault) => fault.is_gone(),
            Self::Sqlite(_) | Self::Odd(_) | Self::Panicked => false,
        }
    }

    /// What it means for the end of a transaction. A disk that is full has taken nothing of it.
    pub(super) fn at_the_end(self) -> Self {
        match &self {
            Self::Sqlite(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => self,
            _ => Self::Unsure(Box::new(self)),
        }
    }

    fn is_io(error: &tokio_postgres::Error) -> bool {
        std::error::Error::source(error).is_some_and(<dyn std::error::Error>::is::<std::io::Error>)
    }

    /// Whether the same may well succeed at once: another process was in the way.
    pub(super) fn is_transient(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        error.code().is_some_and(|code| matches!(code.code(), "40001" | "40P01" | "55P03"))
    }
}

/// The server ends, starts, or has no room.
fn is_leaving(code: &str) -> bool {
    ["57P", "08", "53"].iter().any(|class| code.starts_with(class))
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        if fault.is_gone() {
            return Self::away(&fault.told());
        }
        match fault {
            Fault::Sqlite(error) => sqlite::failed(&error),
            fault => Self::new(fault.told()),
        }
    }
}

impl Fault {
    /// With its causes, which Postgres' errors do not tell by themselves. None repeats the address.
    pub(super) fn told(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let more = error.to_string();
            if !text.contains(&more) {
                text = format!("{text}: {more}");
            }
            cause = error.source();
        }
        text
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Database({:?})", self.backend())
    }
}
