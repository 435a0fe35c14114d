//! Who changed what. Rows are only added, each sealed by a hash over it and the one before.

use std::fmt::Write as _;
use std::time::SystemTime;

use sha2::{Digest, Sha256};

use super::database::{Alone, Database, Fault, Row, Value, values};
use super::{Failure, Position, Store, millis, time};

/// Rows of one answer.
const PAGE: u32 = 1000;
const COLUMNS: &str = "position, at, who, what, subject, before, after, hash";

/// One change that someone made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Audit {
    pub at: SystemTime,
    pub who: String,
    /// A word for it, such as `key.rotate`.
    pub what: String,
    /// What was changed, such as `key:ci`; empty where that goes without saying.
    pub subject: String,
    pub before: Option<String>,
    pub after: Option<String>,
}

/// Which changes are wanted; all, where nothing is said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    pub who: Option<String>,
    pub what: Option<String>,
    pub subject: Option<String>,
    pub from: Option<SystemTime>,
    /// Not in any more.
    pub to: Option<SystemTime>,
}

/// Whether all rows are as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AuditCheck {
    /// How many are.
    pub rows: u64,
    /// The first that is not, or before which one is missing.
    pub broken_at: Option<Position>,
}

struct Sealed {
    position: i64,
    change: Audit,
    hash: String,
}

/// How far the rows have been found to be sound.
#[derive(Default)]
struct Trail {
    rows: u64,
    last: i64,
    hash: String,
}

// === impl Store ===

impl Store {
    /// Notes a change.
    pub async fn audit(&self, change: Audit) -> Result<(), Failure> {
        let note = move |database: &mut Database| note(database, &change).map(|_| ());
        self.write.run(note).await
    }

    /// Seals what was noted together with something else, and says how much that was.
    pub async fn seal_audit(&self) -> Result<u64, Failure> {
        let waits = "SELECT 1 FROM audit_waiting LIMIT 1";
        let look = move |database: &mut Database| database.first(waits, &[], |_| Ok(()));
        let mut sealed = 0;
        while self.read.run(look).await?.is_some() {
            sealed += self.write.run(seal_waiting).await?;
        }
        Ok(sealed)
    }

    /// Changes, the newest first, at most `limit` or a thousand after `after`.
    pub async fn audits(
        &self,
        filter: &AuditFilter,
        after: Option<Position>,
        limit: u32,
    ) -> Result<Vec<(Position, Audit)>, Failure> {
        self.seal_audit().await?;
        let after = after.map_or(i64::MAX, |position| position.0);
        let (filter, limit) = (filter.clone(), limit.clamp(1, PAGE));
        let read = move |database: &mut Database| {
            let rows = find(database, &filter, after, limit)?;
            Ok(rows.into_iter().map(|row| (Position(row.position), row.change)).collect())
        };
        self.read.run(read).await
    }

    /// Goes through all changes, and looks whether one was altered, or taken out from before another
    /// one.
    pub async fn verify_audit(&self) -> Result<AuditCheck, Failure> {
        self.seal_audit().await?;
        let mut trail = Trail::default();
        loop {
            let after = trail.last;
            let page = self.read.run(move |database| following(database, after)).await?;
            let is_last = page.len() < PAGE as usize;
            let broken_at = page.into_iter().find_map(|row| trail.follow(row));
            if is_last || broken_at.is_some() {
                return Ok(AuditCheck { rows: trail.rows, broken_at });
            }
        }
    }
}

// === impl Trail ===

impl Trail {
    /// Goes on by a row; its place, if it does not belong there.
    fn follow(&mut self, row: Sealed) -> Option<Position> {
        let Sealed { position, change, hash } = row;
        if position != self.last + 1 || seal(&self.hash, position, &change) != hash {
            return Some(Position(position));
        }
        *self = Self { rows: self.rows + 1, last: position, hash };
        None
    }
}

// === impl Position ===

impl Position {
    pub fn number(self) -> i64 {
        self.0
    }
}

impl From<i64> for Position {
    fn from(number: i64) -> Self {
        Self(number)
    }
}

// === The statements ===

/// Notes a change and says in which place. Nobody else does, up to the end of the transaction, so
/// that places become visible in their order.
pub(super) fn note(database: &mut Database, change: &Audit) -> Result<i64, Fault> {
    database.alone(Alone::Audit)?;
    let last = "SELECT position, hash FROM audit ORDER BY position DESC LIMIT 1";
    let read = |row: &Row<'_>| Ok((row.get::<i64>(0)?, row.get::<String>(1)?));
    let (last, hash) = database.first(last, &[], read)?.unwrap_or_default();
    let position = last + 1;
    // As it will be read.
    let change = &Audit { at: time(millis(change.at)), ..change.clone() };
    let hash = seal(&hash, position, change);
    let Audit { at, who, what, subject, before, after } = change;
    let insert = format!("INSERT INTO audit ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)");
    let row = values![position, millis(*at), who, what, subject, before, after, hash];
    database.execute(&insert, row)?;
    Ok(position)
}

/// Notes changes as part of a transaction, without waiting for anybody: whoever reads them next, or
/// has the time, seals them.
pub(super) fn wait(database: &mut Database, changes: &[Audit]) -> Result<(), Fault> {
    let mut written = Vec::with_capacity(changes.len() * 6);
    for Audit { at, who, what, subject, before, after } in changes {
        written.extend_from_slice(values![millis(*at), who, what, subject, before, after]);
    }
    let insert = "INSERT INTO audit_waiting (at, who, what, subject, before, after) VALUES";
    database.insert((insert, ""), 6, &written)?;
    Ok(())
}

/// A page of what waits.
fn seal_waiting(database: &mut Database) -> Result<u64, Fault> {
    database.alone(Alone::Audit)?;
    let waiting = format!(
        "SELECT position, at, who, what, subject, before, after FROM audit_waiting
            ORDER BY position LIMIT {PAGE}"
    );
    let read = |row: &Row<'_>| Ok((row.get::<i64>(0)?, change(row)?));
    let waiting = database.query(&waiting, &[], read)?;
    for (_, change) in &waiting {
        note(database, change)?;
    }
    // Those that came to be seen only since have lower positions, perhaps.
    let positions: Vec<i64> = waiting.iter().map(|(position, _)| *position).collect();
    let listed = serde_json::to_string(&positions).unwrap_or_default();
    let numbers = database.backend().numbers("$1");
    let delete = format!("DELETE FROM audit_waiting WHERE position IN ({numbers})");
    database.execute(&delete, values![&listed])
}

fn find(
    database: &mut Database,
    filter: &AuditFilter,
    after: i64,
    limit: u32,
) -> Result<Vec<Sealed>, Fault> {
    let mut values: Vec<Value<'_>> = vec![Value::from(after)];
    let mut conditions = vec!["position < $1".to_owned()];
    let texts = [("who", &filter.who), ("what", &filter.what), ("subject", &filter.subject)];
    for (column, wanted) in texts {
        if let Some(wanted) = wanted {
            values.push(Value::from(wanted));
            conditions.push(format!("{column} = ${}", values.len()));
        }
    }
    for (comparison, wanted) in [(">=", filter.from), ("<", filter.to)] {
        if let Some(wanted) = wanted {
            values.push(Value::from(millis(wanted)));
            conditions.push(format!("at {comparison} ${}", values.len()));
        }
    }
    let conditions = conditions.join(" AND ");
    let query = format!(
        "SELECT {COLUMNS} FROM audit WHERE {conditions} ORDER BY position DESC LIMIT {limit}"
    );
    database.query(&query, &values, sealed)
}

fn following(database: &mut Database, after: i64) -> Result<Vec<Sealed>, Fault> {
    let query =
        format!("SELECT {COLUMNS} FROM audit WHERE position > $1 ORDER BY position LIMIT {PAGE}");
    database.query(&query, values![after], sealed)
}

fn sealed(row: &Row<'_>) -> Result<Sealed, Fault> {
    Ok(Sealed { position: row.get(0)?, change: change(row)?, hash: row.get(7)? })
}

/// Behind its position.
fn change(row: &Row<'_>) -> Result<Audit, Fault> {
    Ok(Audit {
        at: time(row.get(1)?),
        who: row.get(2)?,
        what: row.get(3)?,
        subject: row.get(4)?,
        before: row.get(5)?,
        after: row.get(6)?,
    })
}

/// In hex. Each field has its length before it, so that no two rows are the same bytes.
fn seal(before: &str, position: i64, change: &Audit) -> String {
    let mut hasher = Sha256::new();
    let mut add = |field: Option<&[u8]>| {
        let length = field.map_or(u64::MAX, |field| field.len() as u64);
        hasher.update(length.to_be_bytes());
        hasher.update(field.unwrap_or_default());
    };
    add(Some(before.as_bytes()));
    add(Some(&position.to_be_bytes()));
    add(Some(&millis(change.at).to_be_bytes()));
    for text in [&change.who, &change.what, &change.subject] {
        add(Some(text.as_bytes()));
    }
    for text in [&change.before, &change.after] {
        add(text.as_ref().map(String::as_bytes));
    }
    hex(&hasher.finalize())
}

/// In lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
