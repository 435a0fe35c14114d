//! The calls that ended: noted at once, taken in a little later, kept for as long as is asked.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::database::{Alone, Database, Fault, Row, values};
use super::entries::ADD_SPENT;
use super::import::settle_vanished;
use super::journal::Record;
use super::rows::CallRow;
use super::{Failure, STEP, Store, millis, time};
use crate::canon::Purpose;
use crate::config::Unit;

/// Sums by hour are kept at least this long, and so is when something was spent.
const SUMS: u64 = 400;
/// So long what was spent is kept by the minute; then by the quarter of an hour, in which windows
/// begin in every time zone.
const FINE: u64 = 2;
/// So long a call may be open on a node that nothing is heard of.
const FORSAKEN: u64 = 1;
const DAY: Duration = Duration::from_hours(24);
/// In milliseconds.
const MINUTE: i64 = 60_000;
/// Longer than any call takes, in milliseconds.
const LONGEST: i64 = 2 * 24 * 60 * MINUTE;
/// Who spends, and the column of their names.
const HOLDERS: [(&str, &str); 4] =
    [("key", "key"), ("user", "\"user\""), ("team", "team"), ("org", "org")];

/// What one node has spent of an account in one minute, or in a step of the further past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    pub node: Arc<str>,
    pub at: SystemTime,
    pub amount: u64,
}

// === impl Store ===

impl Store {
    /// Notes how a call is to stand in the ledger if the process ends before it does: `internal`
    /// and `estimated`, with the usage, cost and charges of this row.
    pub fn append_open(&self, row: CallRow) {
        self.journal.append(Record::Open(Box::new(row)));
    }

    /// Notes a call that ended. When this returns, no end of the process loses it, unless the
    /// journal is not healthy.
    pub fn append_settled(&self, row: CallRow) {
        self.journal.append(Record::Settled(Box::new(row)));
    }

    /// Records that are noted and not in the database yet.
    pub fn ledger_pending(&self) -> u64 {
        self.journal.pending()
    }

    /// Whether the journal takes what it is given. Otherwise calls wait in memory.
    pub fn is_ledger_healthy(&self) -> bool {
        self.journal.is_healthy()
    }

    /// Calls that neither the journal nor the database has yet: the end of the process loses them.
    pub fn ledger_unwritten(&self) -> usize {
        self.journal.unwritten()
    }

    /// Records for which there was no room any more.
    pub fn ledger_lost(&self) -> u64 {
        self.journal.lost()
    }

    /// What an account has spent, such as `key:ci`, by the minutes in which it was counted, the
    /// oldest first, and by the node that counted it: who shares this store by that name is in
    /// [`Store::node`]. A minute that has begun before `from` is in; of one that ends after `to` what
    /// was counted before is.
    pub async fn spent(
        &self,
        account: &str,
        unit: Unit,
        (from, to): (SystemTime, Option<SystemTime>),
    ) -> Result<Vec<Spent>, Failure> {
        let (account, from) = (account.to_owned(), millis(from).div_euclid(MINUTE));
        let end = to.map(millis);
        let to = end.map_or(i64::MAX, |end| end.div_euclid(MINUTE));
        let query = "SELECT minute, amount, node FROM spent
            WHERE account = $1 AND unit = $2 AND minute >= $3 AND minute < $4
            ORDER BY minute, node";
        let line = |row: &Row<'_>| {
            let (minute, amount) = (row.get::<i64>(0)?, row.get::<i64>(1)?);
            let amount = u64::try_from(amount).unwrap_or_default();
            Ok(Spent { node: row.get(2)?, at: time(minute.saturating_mul(MINUTE)), amount })
        };
        let read = move |database: &mut Database| {
            let mut spent =
                database.query(query, values![&account, unit.name(), from, to], line)?;
            if let Some(end) = end {
                spent.extend(in_minute(database, &account, unit, end)?);
            }
            Ok(spent)
        };
        self.read.run(read).await
    }

    /// The name under which this process writes what was spent. It lies with the journal, and so
    /// outlives the process.
    pub fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// Deletes calls older than so many days, if there is an end to their keeping, step by step
    /// between the writes of others, and says how many. Sums and windows stay for more than a year.
    pub async fn retain(&self, days: Option<u64>) -> Result<u64, Failure> {
        let days = days.unwrap_or(u64::MAX);
        let now = (self.rules.now)();
        let before = |days: u64| {
            let age = DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX));
            now.checked_sub(age).map_or(0, millis)
        };
        let (calls, sums) = (before(days), before(days.max(SUMS)));
        let (own, long_ago) = (Arc::clone(&self.node), before(FORSAKEN));
        let settle = move |database: &mut Database| settle_vanished(database, &own, long_ago);
        while self.write.run(settle.clone()).await? {}
        let mut deleted = 0;
        loop {
            let step = self.write.run(move |database| delete_calls(database, calls)).await?;
            deleted += step;
            if step < u64::from(STEP) {
                break;
            }
        }
        while self.write.run(move |database| delete_sums(database, sums)).await? > 0 {}
        for (before, width) in [(before(FINE), 15), (sums, i64::MAX)] {
            let before = before / MINUTE;
            while self.write.run(move |database| coarsen(database, before, width)).await? > 0 {}
        }
        Ok(deleted)
    }
}

// === The statements ===

/// What an account has spent in the minute in which `end` lies, before that.
fn in_minute(
    database: &mut Database,
    account: &str,
    unit: Unit,
    end: i64,
) -> Result<Vec<Spent>, Fault> {
    let (scope, name) = account.split_once(':').unwrap_or_default();
    let holder = HOLDERS.iter().find(|(holder, _)| *holder == scope);
    let Some((_, holder)) = holder else { return Ok(Vec::new()) };
    let amount = match unit {
        Unit::Tokens => "counted",
        Unit::Usd => "coalesce(cost, 0)",
    };
    // Only the newest are looked at, by their index.
    let query = format!(
        "SELECT node, CAST(sum({amount}) AS BIGINT) FROM calls WHERE {holder} = $1
            AND at >= $2 AND settled_at >= $3 AND settled_at < $4 AND purpose <> $5
            AND {amount} > 0 GROUP BY node ORDER BY node"
    );
    let begun = end.div_euclid(MINUTE) * MINUTE;
    let values = values![name, begun - LONGEST, begun, end, Purpose::Shadow.name()];
    let spent = |row: &Row<'_>| {
        let amount = u64::try_from(row.get::<i64>(1)?).unwrap_or_default();
        Ok(Spent { node: row.get(0)?, at: time(begun), amount })
    };
    database.query(&query, values, spent)
}

fn delete_calls(database: &mut Database, before: i64) -> Result<u64, Fault> {
    database.alone(Alone::Retain)?;
    let calls = "DELETE FROM calls WHERE position IN (
        SELECT position FROM calls WHERE at < $1 ORDER BY at, position LIMIT $2)";
    database.execute(calls, values![before, STEP])
}

/// One hour at a time, for these rows have no short name.
fn delete_sums(database: &mut Database, before: i64) -> Result<u64, Fault> {
    let hour = "DELETE FROM usage WHERE hour = (SELECT min(hour) FROM usage) AND hour < $1";
    database.execute(hour, values![before / 3_600_000])
}

/// Puts some of what was spent before a minute together in steps so wide; the widest is all of
/// the past. Nothing is forgotten, for what is prepaid is never given back.
fn coarsen(database: &mut Database, before: i64, width: i64) -> Result<u64, Fault> {
    database.alone(Alone::Retain)?;
    let oldest = "SELECT min(minute) FROM spent
        WHERE minute > 0 AND minute % $1 != 0 AND minute < $2";
    let oldest = database.first(oldest, values![width, before], |row| row.get(0))?;
    let Some(minute) = oldest.flatten() else { return Ok(0) };
    let into: i64 = minute - i64::rem_euclid(minute, width);
    let merge = format!(
        "INSERT INTO spent (account, unit, minute, node, amount)
        SELECT account, unit, CAST($1 AS BIGINT), node, amount FROM spent WHERE minute = $2
        {ADD_SPENT}"
    );
    database.execute(&merge, values![into, minute])?;
    database.execute("DELETE FROM spent WHERE minute = $1", values![minute])
}
