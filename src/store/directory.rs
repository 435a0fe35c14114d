//! What was made at run time: keys, users, teams, orgs, and what was added to budgets. A change and
//! the note of who made it are one.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::audit::{self, Audit};
use super::database::{Database, Fault, Row, values};
use super::{Failure, Store, millis, time};
use crate::config::Unit;

/// Entries that are read at once.
const PAGE: usize = 2000;
/// So long the same request makes the same only once.
const ONCE: Duration = Duration::from_hours(24);

/// A key, user, team or org. The secrets of keys themselves are nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryRow {
    pub kind: String,
    pub id: String,
    /// As in the config file, as JSON.
    pub settings: String,
    pub created_at: SystemTime,
    pub changed_at: SystemTime,
    /// Since when a key is revoked, or another gone.
    pub ended_at: Option<SystemTime>,
    /// The change that made it so. Of one that is to be put: the change before, 0 if there is none.
    pub version: i64,
    pub secrets: Vec<SecretRow>,
}

/// What one secret of a key is recognised by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRow {
    /// In hex.
    pub digest: String,
    /// As long as the key, if there is none.
    pub valid_until: Option<SystemTime>,
}

/// What was added to a budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopUpRow {
    pub scope: String,
    pub name: String,
    pub unit: String,
    /// The budget's window as it is written.
    pub window: String,
    pub amount: u64,
    pub made_at: SystemTime,
}

/// A change that is to be made, and how it is told.
#[derive(Debug, Clone)]
pub struct Change {
    pub audit: Audit,
    pub act: Act,
    pub once: Option<Once>,
}

#[derive(Debug, Clone)]
pub enum Act {
    Put(EntryRow),
    TopUp(TopUpRow),
}

/// What a client has asked to have done once.
#[derive(Debug, Clone)]
pub struct Once {
    pub token: String,
    /// The digest of the request.
    pub request: String,
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done(News),
    /// Somebody else has changed it in the meantime. Nothing was done.
    Stale,
    /// The same request has made this before.
    Replayed(String),
    /// Another request has been made under the same token.
    Clash,
}

/// What has changed since somebody looked, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct News {
    pub entries: Vec<EntryRow>,
    pub top_ups: Vec<TopUpRow>,
    /// From where to look the next time.
    pub version: i64,
    /// There is more already.
    pub has_more: bool,
}

// === impl Store ===

impl Store {
    /// Makes a change, if what it changes is still as it was, and says what is new since `known`.
    pub async fn change(&self, change: Change, known: i64) -> Result<Outcome, Failure> {
        self.write.run(move |database| make(database, &change, known)).await
    }

    pub async fn news(&self, known: i64) -> Result<News, Failure> {
        self.read.run(move |database| news(database, known)).await
    }

    /// Who of this scope has ever spent something, such as `key`.
    pub async fn spenders(&self, scope: &'static str) -> Result<HashSet<String>, Failure> {
        // `;` comes behind `:`.
        let (from, to) = (format!("{scope}:"), format!("{scope};"));
        let query = "SELECT DISTINCT account FROM spent WHERE account >= $1 AND account < $2";
        let read = move |database: &mut Database| {
            let name = |row: &Row<'_>| {
                let account: String = row.get(0)?;
                Ok(account.strip_prefix(&*from).unwrap_or_default().to_owned())
            };
            Ok(database.query(query, values![&from, &to], name)?.into_iter().collect())
        };
        self.read.run(read).await
    }
}

// === The statements ===

/// All or none, as it runs in one transaction; what stands in the way is told before anything is
/// written.
fn make(database: &mut Database, change: &Change, known: i64) -> Result<Outcome, Fault> {
    database.alone(super::database::Alone::Audit)?;
    if let Some(once) = &change.once
        && let Some((request, id)) = made_before(database, &change.audit, once)?
    {
        let is_same = request == once.request;
        return Ok(if is_same { Outcome::Replayed(id) } else { Outcome::Clash });
    }
    if let Act::Put(row) = &change.act
        && stands_at(database, row)? != row.version
    {
        return Ok(Outcome::Stale);
    }
    let version = audit::note(database, &change.audit)?;
    match &change.act {
        Act::Put(row) => put(database, row, version)?,
        Act::TopUp(row) => top_up(database, row, version)?,
    }
    if let Some(once) = &change.once {
        let (kind, id) = match &change.act {
            Act::Put(row) => (&row.kind, &row.id),
            Act::TopUp(row) => (&row.scope, &row.name),
        };
        let insert = "INSERT INTO creates (who, token, request, kind, id, at)
            VALUES ($1, $2, $3, $4, $5, $6)";
        let (who, at) = (&change.audit.who, millis(change.audit.at));
        let values = values![who, &once.token, &once.request, kind, id, at];
        database.execute(insert, values)?;
    }
    news(database, known).map(Outcome::Done)
}

fn made_before(
    database: &mut Database,
    audit: &Audit,
    once: &Once,
) -> Result<Option<(String, String)>, Fault> {
    let oldest = millis(audit.at).saturating_sub(i64::try_from(ONCE.as_millis()).unwrap_or(0));
    database.execute("DELETE FROM creates WHERE at < $1", values![oldest])?;
    let query = "SELECT request, id FROM creates WHERE who = $1 AND token = $2";
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    database.first(query, values![&audit.who, &once.token], read)
}

/// The version of what it takes the place of. Users, teams and orgs that are gone take no place.
fn stands_at(database: &mut Database, row: &EntryRow) -> Result<i64, Fault> {
    let query = "SELECT version FROM entries
        WHERE kind = $1 AND id = $2 AND (kind = 'key' OR ended_at IS NULL)";
    let found = database.first(query, values![&row.kind, &row.id], |row| row.get(0))?;
    Ok(found.unwrap_or(0))
}

fn put(database: &mut Database, row: &EntryRow, version: i64) -> Result<(), Fault> {
    let put = "INSERT INTO entries
            (kind, id, settings, created_at, changed_at, ended_at, version)
        VALUES ($1, $2, $3, $4, $5, $6, $7)
        ON CONFLICT (kind, id) DO UPDATE SET settings = excluded.settings,
            created_at = excluded.created_at, changed_at = excluded.changed_at,
            ended_at = excluded.ended_at, version = excluded.version";
    let EntryRow { kind, id, settings, created_at, changed_at, ended_at, secrets, .. } = row;
    let (created, changed, ended) =
        (millis(*created_at), millis(*changed_at), ended_at.map(millis));
    database.execute(put, values![kind, id, settings, created, changed, ended, version])?;
    if kind != "key" {
        return Ok(());
    }
    database.execute("DELETE FROM secrets WHERE key = $1", values![id])?;
    let insert = "INSERT INTO secrets (key, digest, valid_until) VALUES ($1, $2, $3)";
    for SecretRow { digest, valid_until } in secrets {
        database.execute(insert, values![id, digest, valid_until.map(millis)])?;
    }
    Ok(())
}

fn top_up(database: &mut Database, row: &TopUpRow, version: i64) -> Result<(), Fault> {
    let insert = "INSERT INTO topups (version, scope, name, unit, label, amount, made_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let TopUpRow { scope, name, unit, window, amount, made_at } = row;
    let amount = i64::try_from(*amount).unwrap_or(i64::MAX);
    let values = values![version, scope, name, unit, window, amount, millis(*made_at)];
    database.execute(insert, values).map(|_| ())
}

/// What is behind `known`. What is changed while this reads moves behind its end, and comes again.
fn news(database: &mut Database, known: i64) -> Result<News, Fault> {
    let newest = "SELECT coalesce(max(position), 0) FROM audit";
    let newest: i64 = database.first(newest, &[], |row| row.get(0))?.unwrap_or(0);
    if newest <= known {
        return Ok(News { version: known, ..News::default() });
    }
    let query = format!(
        "SELECT kind, id, settings, created_at, changed_at, ended_at, version FROM entries
         WHERE version > $1 ORDER BY version LIMIT {PAGE}"
    );
    let mut entries = database.query(&query, values![known], entry)?;
    let has_more = entries.len() == PAGE;
    let last = entries.last().filter(|_| has_more).map(|last| last.version);
    let version = last.unwrap_or(newest);
    add_secrets(database, known, newest, &mut entries)?;
    let query = "SELECT scope, name, unit, label, amount, made_at FROM topups
        WHERE version > $1 AND version <= $2 ORDER BY version";
    let top_ups = database.query(query, values![known, version], topped_up)?;
    Ok(News { entries, top_ups, version, has_more })
}

/// Also of entries that have moved behind the newest since they were read: such a key is not to be
/// without secrets until it is read again.
fn add_secrets(
    database: &mut Database,
    known: i64,
    newest: i64,
    entries: &mut [EntryRow],
) -> Result<(), Fault> {
    let Some(last) = entries.last().map(|last| last.version) else { return Ok(()) };
    let query = "SELECT secrets.key, secrets.digest, secrets.valid_until FROM secrets
        JOIN entries ON entries.kind = 'key' AND entries.id = secrets.key
        WHERE entries.version > $1 AND (entries.version <= $2 OR entries.version > $3)
        ORDER BY secrets.digest";
    let read = |row: &Row<'_>| {
        let valid_until = row.get::<Option<i64>>(2)?.map(time);
        Ok((row.get::<String>(0)?, SecretRow { digest: row.get(1)?, valid_until }))
    };
    let mut secrets: HashMap<String, Vec<SecretRow>> = HashMap::new();
    for (key, secret) in database.query(query, values![known, last, newest], read)? {
        secrets.entry(key).or_default().push(secret);
    }
    for entry in entries.iter_mut().filter(|entry| entry.kind == "key") {
        entry.secrets = secrets.remove(&entry.id).unwrap_or_default();
    }
    Ok(())
}

fn entry(row: &Row<'_>) -> Result<EntryRow, Fault> {
    Ok(EntryRow {
        kind: row.get(0)?,
        id: row.get(1)?,
        settings: row.get(2)?,
        created_at: time(row.get(3)?),
        changed_at: time(row.get(4)?),
        ended_at: row.get::<Option<i64>>(5)?.map(time),
        version: row.get(6)?,
        secrets: Vec::new(),
    })
}

fn topped_up(row: &Row<'_>) -> Result<TopUpRow, Fault> {
    Ok(TopUpRow {
        scope: row.get(0)?,
        name: row.get(1)?,
        unit: row.get(2)?,
        window: row.get(3)?,
        amount: u64::try_from(row.get::<i64>(4)?).unwrap_or_default(),
        made_at: time(row.get(5)?),
    })
}

// === impl TopUpRow ===

impl TopUpRow {
    pub fn is_of(&self, unit: Unit) -> bool {
        self.unit == unit.name()
    }
}
