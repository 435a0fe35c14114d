//! The calls that ended: noted at once, taken in a little later, kept for as long as is asked.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::journal::{Position, Record};
use super::rows::CallRow;
use super::{Failure, STEP, Store, millis};
use crate::canon::{Purpose, Usage};
use crate::config::Unit;

/// The most that one row may add to a sum: a provider that counts beyond this counts nonsense, and
/// sums are to stay numbers of 64 bits.
const MOST: u64 = 1_000_000_000_000_000;
/// Sums by hour are kept at least this long, and so is when something was spent.
const SUMS: u64 = 400;
/// So long what was spent is kept by the minute; then by the quarter of an hour, in which windows
/// begin in every time zone.
const FINE: u64 = 2;
const DAY: Duration = Duration::from_hours(24);
/// In milliseconds.
const MINUTE: i64 = 60_000;
/// Longer than any call takes, in milliseconds.
const LONGEST: i64 = 2 * 24 * 60 * MINUTE;
/// Who spends, by the column of their names.
const HOLDERS: [&str; 4] = ["key", "user", "team", "org"];

// === impl Store ===

impl Store {
    /// Notes how a call is to stand in the ledger if the process ends before it does: `internal`
    /// and `estimated`, with the usage, cost and charges of this row.
    pub fn append_open(&self, row: &CallRow) {
        self.journal.append(&Record::Open(Cow::Borrowed(row)));
    }

    /// Notes a call that ended. When this returns, no end of the process loses it, unless the
    /// journal is not healthy.
    pub fn append_settled(&self, row: &CallRow) {
        self.journal.append(&Record::Settled(Cow::Borrowed(row)));
    }

    /// Records that are noted and not in the database yet.
    pub fn ledger_pending(&self) -> u64 {
        self.journal.pending()
    }

    /// Whether the journal takes what it is given. Otherwise calls wait in memory.
    pub fn is_ledger_healthy(&self) -> bool {
        self.journal.is_healthy()
    }

    /// Records for which there was no room any more.
    pub fn ledger_lost(&self) -> u64 {
        self.journal.lost()
    }

    /// What an account has spent, such as `key:ci`, by the minutes in which it was counted, the
    /// oldest first. A minute that has begun before `from` is in; of one that ends after `to` what
    /// was counted before is.
    pub async fn spent(
        &self,
        account: &str,
        unit: Unit,
        (from, to): (SystemTime, Option<SystemTime>),
    ) -> Result<Vec<(SystemTime, u64)>, Failure> {
        let (account, from) = (account.to_owned(), millis(from).div_euclid(MINUTE));
        let end = to.map(millis);
        let to = end.map_or(i64::MAX, |end| end.div_euclid(MINUTE));
        let query = "SELECT minute, amount FROM spent
            WHERE account = ? AND unit = ? AND minute >= ? AND minute < ? ORDER BY minute";
        let read = move |database: &Connection| {
            let mut statement = database.prepare_cached(query)?;
            let line = |row: &rusqlite::Row<'_>| {
                let (minute, amount) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?);
                let at = super::time(minute.saturating_mul(MINUTE));
                Ok((at, u64::try_from(amount).unwrap_or_default()))
            };
            let lines = statement.query_map(params![account, unit.name(), from, to], line)?;
            let mut spent: Vec<_> = lines.collect::<Result<_, _>>()?;
            if let Some(end) = end {
                let begun = in_minute(database, (&account, unit), end)?;
                spent.extend((begun > 0).then(|| (super::time(to.saturating_mul(MINUTE)), begun)));
            }
            Ok(spent)
        };
        self.read.run(read).await
    }

    /// Deletes calls older than so many days, step by step between the writes of others, and says
    /// how many. Sums and windows stay for more than a year.
    pub async fn retain(&self, days: u64) -> Result<u64, Failure> {
        let now = (self.rules.now)();
        let before = |days: u64| {
            let age = DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX));
            now.checked_sub(age).map_or(0, millis)
        };
        let (calls, sums) = (before(days), before(days.max(SUMS)));
        let mut deleted = 0;
        loop {
            let step = self.write.run(move |database| delete_calls(database, calls)).await?;
            deleted += step as u64;
            if step < STEP as usize {
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

/// Keeps a call that has begun, unless it has ended already.
pub(super) fn open(connection: &Connection, row: &CallRow) -> rusqlite::Result<()> {
    let text = serde_json::to_string(row).unwrap_or_default();
    let insert = "INSERT OR REPLACE INTO opens (id, row)
        SELECT :id, :row WHERE NOT EXISTS (SELECT 1 FROM calls WHERE id = :id)";
    connection.prepare_cached(insert)?.execute(named_params! {":id": row.id, ":row": text})?;
    Ok(())
}

/// What an account has spent in the minute in which `end` lies, before that.
fn in_minute(
    connection: &Connection,
    (account, unit): (&str, Unit),
    end: i64,
) -> rusqlite::Result<u64> {
    let (scope, name) = account.split_once(':').unwrap_or_default();
    let amount = match unit {
        Unit::Tokens => "counted",
        Unit::Usd => "ifnull(cost, 0)",
    };
    let Some(holder) = HOLDERS.into_iter().find(|holder| *holder == scope) else { return Ok(0) };
    // No call takes days, and so only the newest are looked at.
    let query = format!(
        "SELECT coalesce(sum({amount}), 0) FROM calls WHERE {holder} = ? AND at >= ?
            AND settled_at >= ? AND settled_at < ? AND purpose != ?"
    );
    let begun = end.div_euclid(MINUTE) * MINUTE;
    let values = params![name, begun - LONGEST, begun, end, Purpose::Shadow.name()];
    let sum: i64 = connection.prepare_cached(&query)?.query_row(values, |row| row.get(0))?;
    Ok(u64::try_from(sum).unwrap_or_default())
}

/// Some of the calls that have begun and not ended; `None` when there are no more.
pub(super) fn orphans(connection: &Connection) -> rusqlite::Result<Option<Vec<CallRow>>> {
    let mut statement = connection.prepare_cached("SELECT id, row FROM opens LIMIT 500")?;
    let found = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let found: Vec<(String, String)> = found.collect::<Result<_, _>>()?;
    let mut rows = Vec::with_capacity(found.len());
    for (id, text) in &found {
        if let Ok(row) = serde_json::from_str(text) {
            rows.push(row);
            continue;
        }
        tracing::error!(call = %id, "a call that was cut off cannot be read; it is left out");
        connection.execute("DELETE FROM opens WHERE id = ?", [id])?;
    }
    Ok((!found.is_empty()).then_some(rows))
}

pub(super) fn position(connection: &Connection) -> rusqlite::Result<Position> {
    let query = "SELECT segment, offset FROM journal";
    let read = |row: &rusqlite::Row<'_>| {
        let (segment, offset) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?);
        let (segment, offset) = (segment.cast_unsigned(), offset.cast_unsigned());
        Ok(Position { segment, offset })
    };
    Ok(connection.query_row(query, [], read).optional()?.unwrap_or_default())
}

pub(super) fn advance(connection: &Connection, position: Position) -> rusqlite::Result<()> {
    let replace = "INSERT OR REPLACE INTO journal (one, segment, offset) VALUES (1, ?, ?)";
    let Position { segment, offset } = position;
    let place = [segment.cast_signed(), offset.cast_signed()];
    connection.prepare_cached(replace)?.execute(place)?;
    Ok(())
}

/// Puts a call that ended into all tables, or into none if it is there already.
pub(super) fn settle(connection: &Connection, row: &CallRow) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM opens WHERE id = ?")?.execute([&row.id])?;
    let tags = row.tags();
    if !insert(connection, row, &tags)? {
        return Ok(());
    }
    let call = connection.last_insert_rowid();
    let attempt = "INSERT INTO attempts
        (call, number, provider, model, outcome, status, ms, input, output, cost)
        VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    for (number, tried) in row.attempts.iter().enumerate() {
        let (number, ms) = (bounded(number as u64), whole(tried.elapsed));
        let (provider, model, outcome) = (&tried.provider, &tried.model, tried.outcome.name());
        let input = tried.usage.map(|usage| bounded(usage.input_total()));
        let output = tried.usage.map(|usage| bounded(usage.output));
        let (status, cost) = (tried.status, tried.cost.map(|cost| bounded(cost.nanos())));
        let values =
            params![call, number, provider, model, outcome, status, ms, input, output, cost];
        connection.prepare_cached(attempt)?.execute(values)?;
    }
    charge(connection, row)?;
    add(connection, row, &tags)
}

/// Everybody in whose name it was made has spent it.
fn charge(connection: &Connection, row: &CallRow) -> rusqlite::Result<()> {
    if !row.is_charged() {
        return Ok(());
    }
    let insert = "INSERT INTO spent (account, unit, minute, amount) VALUES (?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET amount = min(amount, 1 << 62) + excluded.amount";
    let minute = millis(row.settled_at).div_euclid(MINUTE);
    let holders = HOLDERS.into_iter().zip([&row.key, &row.user, &row.team, &row.org]);
    let amounts =
        [(Unit::Tokens, row.counted), (Unit::Usd, row.cost.map_or(0, crate::canon::Money::nanos))];
    for (scope, name) in holders {
        let Some(name) = name else { continue };
        for (unit, amount) in amounts.into_iter().filter(|(_, amount)| *amount > 0) {
            let values = params![format!("{scope}:{name}"), unit.name(), minute, bounded(amount)];
            connection.prepare_cached(insert)?.execute(values)?;
        }
    }
    Ok(())
}

fn insert(connection: &Connection, row: &CallRow, tags: &str) -> rusqlite::Result<bool> {
    let insert = "INSERT INTO calls (id, at, surface, stream, key, team, user, org, route, agent, task,
            provider, model, outcome, status, input, cache_read, cache_write, cache_write_long,
            output, reasoning, audio_input, audio_output, usage_source, cost, counted, settled_at,
            duration_ms, first_token_ms, generation, cache, purpose, tags)
        VALUES (:id, :at, :surface, :stream, :key, :team, :user, :org, :route, :agent, :task, :provider,
            :model, :outcome, :status, :input, :cache_read, :cache_write, :cache_write_long,
            :output, :reasoning, :audio_input, :audio_output, :usage_source, :cost, :counted,
            :settled_at, :duration_ms, :first_token_ms, :generation, :cache, :purpose, :tags)
        ON CONFLICT DO NOTHING";
    let [input, cache_read, cache_write, cache_write_long, output, reasoning, heard, said] =
        tokens(&row.usage);
    let count = connection.prepare_cached(insert)?.execute(named_params! {
        ":id": row.id, ":at": millis(row.at), ":surface": row.surface, ":stream": row.stream,
        ":key": row.key, ":team": row.team, ":user": row.user, ":org": row.org, ":route": row.route,
        ":agent": row.agent, ":task": row.task, ":provider": row.provider, ":model": row.model,
        ":outcome": row.outcome.name(), ":status": row.status, ":input": input,
        ":cache_read": cache_read, ":cache_write": cache_write,
        ":cache_write_long": cache_write_long, ":output": output, ":reasoning": reasoning,
        ":audio_input": heard, ":audio_output": said,
        ":usage_source": row.usage_source.name(), ":counted": bounded(row.counted),
        ":settled_at": millis(row.settled_at),
        ":cost": row.cost.map(|cost| bounded(cost.nanos())),
        ":duration_ms": whole(row.duration), ":first_token_ms": row.first_token.map(whole),
        ":generation": bounded(row.generation), ":cache": row.cache, ":purpose": row.purpose,
        ":tags": tags,
    })?;
    Ok(count > 0)
}

/// Adds a call to the sums of its hour.
fn add(connection: &Connection, row: &CallRow, tags: &str) -> rusqlite::Result<()> {
    let upsert = "INSERT INTO usage (hour, key, team, user, org, route, agent, task, provider, model,
            surface, outcome, purpose, tags, calls, estimated, unpriced, input, cache_read,
            cache_write, cache_write_long, output, reasoning, audio_input, audio_output, cost)
        VALUES (:at / 3600000, ifnull(:key, ''), ifnull(:team, ''), ifnull(:user, ''),
            ifnull(:org, ''), ifnull(:route, ''), ifnull(:agent, ''), ifnull(:task, ''), ifnull(:provider, ''),
            ifnull(:model, ''), :surface, :outcome, :purpose, :tags, 1,
            :source = 'estimated', :cost IS NULL, :input, :cache_read, :cache_write,
            :cache_write_long, :output, :reasoning, :audio_input, :audio_output, ifnull(:cost, 0))
        ON CONFLICT DO UPDATE SET calls = calls + 1, estimated = estimated + excluded.estimated,
            unpriced = unpriced + excluded.unpriced, input = input + excluded.input,
            cache_read = cache_read + excluded.cache_read,
            cache_write = cache_write + excluded.cache_write,
            cache_write_long = cache_write_long + excluded.cache_write_long,
            output = output + excluded.output, reasoning = reasoning + excluded.reasoning,
            audio_input = audio_input + excluded.audio_input,
            audio_output = audio_output + excluded.audio_output, cost = cost + excluded.cost";
    let [input, cache_read, cache_write, cache_write_long, output, reasoning, heard, said] =
        tokens(&row.usage);
    connection.prepare_cached(upsert)?.execute(named_params! {
        ":at": millis(row.at), ":key": row.key, ":team": row.team, ":user": row.user,
        ":org": row.org, ":route": row.route, ":agent": row.agent, ":task": row.task,
        ":provider": row.provider, ":model": row.model, ":surface": row.surface, ":outcome": row.outcome.name(),
        ":purpose": row.purpose, ":tags": tags, ":source": row.usage_source.name(),
        ":cost": row.cost.map(|cost| bounded(cost.nanos())), ":input": input,
        ":cache_read": cache_read, ":cache_write": cache_write,
        ":cache_write_long": cache_write_long, ":output": output, ":reasoning": reasoning,
        ":audio_input": heard, ":audio_output": said,
    })?;
    Ok(())
}

fn delete_calls(connection: &Connection, before: i64) -> rusqlite::Result<usize> {
    let attempts = "DELETE FROM attempts WHERE call IN (
        SELECT position FROM calls WHERE at < ?1 ORDER BY at, position LIMIT ?2)";
    connection.prepare_cached(attempts)?.execute(params![before, STEP])?;
    let calls = "DELETE FROM calls WHERE position IN (
        SELECT position FROM calls WHERE at < ?1 ORDER BY at, position LIMIT ?2)";
    connection.prepare_cached(calls)?.execute(params![before, STEP])
}

/// One hour at a time, for these rows have no short name.
fn delete_sums(connection: &Connection, before: i64) -> rusqlite::Result<usize> {
    let hour = "DELETE FROM usage WHERE hour = (SELECT min(hour) FROM usage) AND hour < ?";
    connection.prepare_cached(hour)?.execute([before / 3_600_000])
}

/// Puts some of what was spent before a minute together in steps so wide; the widest is all of
/// the past. Nothing is forgotten, for what is prepaid is never given back.
fn coarsen(connection: &Connection, before: i64, width: i64) -> rusqlite::Result<usize> {
    let which = "minute > 0 AND minute % ?1 != 0 AND minute < ?2";
    let query = format!("SELECT min(minute) FROM spent WHERE {which}");
    let oldest: Option<i64> =
        connection.prepare_cached(&query)?.query_row([width, before], |row| row.get(0))?;
    let Some(minute) = oldest else { return Ok(0) };
    let into = minute - minute.rem_euclid(width);
    let merge = "INSERT INTO spent (account, unit, minute, amount)
        SELECT account, unit, ?1, amount FROM spent WHERE minute = ?2
        ON CONFLICT DO UPDATE SET amount = min(amount, 1 << 62) + excluded.amount";
    connection.prepare_cached(merge)?.execute([into, minute])?;
    connection.prepare_cached("DELETE FROM spent WHERE minute = ?")?.execute([minute])
}

/// In the order of the columns.
fn tokens(usage: &Usage) -> [i64; 8] {
    let Usage { input, cache_read, cache_write, cache_write_long, output, .. } = *usage;
    let Usage { reasoning, audio_input, audio_output, .. } = *usage;
    [input, cache_read, cache_write, cache_write_long, output, reasoning, audio_input, audio_output]
        .map(bounded)
}

fn bounded(number: u64) -> i64 {
    i64::try_from(number.min(MOST)).unwrap_or_default()
}

fn whole(duration: Duration) -> i64 {
    bounded(u64::try_from(duration.as_millis()).unwrap_or(MOST))
}
