//! The statements that take calls into the tables: a whole batch in a few of them, each call once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use super::database::{Database, Fault, Row, Value, row, values};
use super::journal::Position;
use super::millis;
use super::rows::CallRow;
use crate::canon::{Money, Usage};
use crate::config::Unit;

/// The most that one row may add to a sum: a provider that counts beyond this counts nonsense, and
/// sums are to stay numbers of 64 bits.
const MOST: u64 = 1_000_000_000_000_000;
/// Where a sum stops to grow.
pub(super) const FULL: i64 = 1 << 62;
/// In milliseconds.
const MINUTE: i64 = 60_000;
const HOUR: i64 = 3_600_000;

/// Bytes of one name in a sum: a client may have made it up, and an index has bounds.
const LONGEST: usize = 128;

/// What is summed up by hour.
#[derive(Default)]
struct Sums([i64; 12]);

/// Puts calls that ended into all tables, and into none those that are there already.
pub(super) fn settle(database: &mut Database, node: &str, rows: &[&CallRow]) -> Result<(), Fault> {
    let is_new = insert(database, node, rows)?;
    let new: Vec<&CallRow> =
        rows.iter().zip(is_new).filter_map(|(row, is_new)| is_new.then_some(*row)).collect();
    charge(database, node, &new)?;
    add(database, &new)
}

/// Whether each of them is new.
fn insert(database: &mut Database, node: &str, rows: &[&CallRow]) -> Result<Vec<bool>, Fault> {
    let insert = r#"INSERT INTO calls (id, at, surface, stream, key, team, "user", org, route,
        agent, task, provider, model, outcome, status, input, cache_read, cache_write,
        cache_write_long, output, reasoning, audio_input, audio_output, usage_source, cost,
        counted, settled_at, duration_ms, first_token_ms, generation, cache, purpose, tags,
        attempts, node) VALUES"#;
    let mut written = Vec::with_capacity(rows.len() * 35);
    for row in rows {
        let CallRow { id, surface, stream, key, team, user, org, route, agent, .. } = *row;
        let CallRow { task, provider, model, outcome, status, cache, purpose, .. } = *row;
        let [input, read, write, write_long, output, reasoning, heard, said] = tokens(&row.usage);
        let cost = row.cost.map(|cost| bounded(cost.nanos()));
        written.extend(row![id, millis(row.at), surface, *stream, key, team, user]);
        written.extend(row![org, route, agent, task, provider, model]);
        written.extend(row![outcome.name(), *status, input, read, write, write_long]);
        written.extend(row![output, reasoning, heard, said]);
        written.extend(row![row.usage_source.name(), cost, bounded(row.counted)]);
        written.extend(row![millis(row.settled_at), whole(row.duration)]);
        written.extend(row![row.first_token.map(whole), bounded(row.generation)]);
        written.extend(row![cache, purpose, row.tags(), row.tried(), node]);
    }
    database.insert_calls(insert, 35, &written)
}

/// Everybody in whose name they were made has spent it.
fn charge(database: &mut Database, node: &str, new: &[&CallRow]) -> Result<(), Fault> {
    let mut spent: BTreeMap<(&str, &str, &str, i64), i64> = BTreeMap::new();
    for row in new.iter().filter(|row| row.is_charged()) {
        let minute = millis(row.settled_at).div_euclid(MINUTE);
        let holders =
            [("key", &row.key), ("user", &row.user), ("team", &row.team), ("org", &row.org)];
        let amounts = [(Unit::Tokens, row.counted), (Unit::Usd, row.cost.map_or(0, Money::nanos))];
        for (scope, name) in holders {
            let Some(name) = name else { continue };
            for (unit, amount) in amounts.into_iter().filter(|(_, amount)| *amount > 0) {
                let place = (scope, &**name, unit.name(), minute);
                let sum = spent.entry(place).or_default();
                *sum = sum.saturating_add(bounded(amount)).min(FULL);
            }
        }
    }
    let mut written = Vec::with_capacity(spent.len() * 5);
    for ((scope, name, unit, minute), amount) in spent {
        let account = format!("{scope}:{name}");
        written.extend(row![account, unit, minute, node, amount]);
    }
    let insert = "INSERT INTO spent (account, unit, minute, node, amount) VALUES";
    database.insert((insert, ADD_SPENT), 5, &written)?;
    Ok(())
}

/// More for a minute in which something was spent already.
pub(super) const ADD_SPENT: &str = "ON CONFLICT (account, unit, minute, node) DO UPDATE SET
    amount = CASE WHEN spent.amount < 4611686018427387904 THEN spent.amount
        ELSE 4611686018427387904 END + excluded.amount";

/// Adds calls to the sums of their hours. In one order, so that two processes that add to the same
/// never wait for one another.
fn add(database: &mut Database, new: &[&CallRow]) -> Result<(), Fault> {
    let mut sums: BTreeMap<(i64, [Cow<'_, str>; 13]), Sums> = BTreeMap::new();
    for row in new {
        let name = |name| Cow::Borrowed(cut(Option::<&str>::unwrap_or_default(name)));
        let names = [
            name(row.key.as_deref()),
            name(row.team.as_deref()),
            name(row.user.as_deref()),
            name(row.org.as_deref()),
            name(row.route.as_deref()),
            name(row.agent.as_deref()),
            name(row.task.as_deref()),
            name(row.provider.as_deref()),
            name(row.model.as_deref()),
            Cow::Borrowed(&*row.surface),
            Cow::Borrowed(row.outcome.name()),
            Cow::Borrowed(&*row.purpose),
            row.tags(),
        ];
        sums.entry((millis(row.at) / HOUR, names)).or_default().add(row);
    }
    let mut written = Vec::with_capacity(sums.len() * 26);
    for ((hour, names), Sums(sums)) in sums {
        written.push(Value::from(hour));
        written.extend(names.into_iter().map(Value::from));
        written.extend(sums.into_iter().map(Value::from));
    }
    let insert = r#"INSERT INTO usage (hour, key, team, "user", org, route, agent, task, provider,
        model, surface, outcome, purpose, tags, calls, estimated, unpriced, input, cache_read,
        cache_write, cache_write_long, output, reasoning, audio_input, audio_output, cost) VALUES"#;
    let add = r#"ON CONFLICT (hour, key, team, "user", org, route, agent, task, provider, model,
            surface, outcome, purpose, tags)
        DO UPDATE SET calls = usage.calls + excluded.calls,
            estimated = usage.estimated + excluded.estimated,
            unpriced = usage.unpriced + excluded.unpriced, input = usage.input + excluded.input,
            cache_read = usage.cache_read + excluded.cache_read,
            cache_write = usage.cache_write + excluded.cache_write,
            cache_write_long = usage.cache_write_long + excluded.cache_write_long,
            output = usage.output + excluded.output,
            reasoning = usage.reasoning + excluded.reasoning,
            audio_input = usage.audio_input + excluded.audio_input,
            audio_output = usage.audio_output + excluded.audio_output,
            cost = usage.cost + excluded.cost"#;
    database.insert((insert, add), 26, &written)?;
    Ok(())
}

/// Keeps calls that have begun on this node, except those that have ended already; and no longer
/// those that have ended by now.
pub(super) fn open(database: &mut Database, node: &str, rows: &[&CallRow]) -> Result<(), Fault> {
    let last: BTreeMap<&str, &CallRow> = rows.iter().map(|row| (row.id.as_str(), *row)).collect();
    let mut written = Vec::with_capacity(last.len() * 4);
    for (id, row) in last {
        let text = serde_json::to_string(row).unwrap_or_default();
        written.extend(row![id, node, millis(row.at), text]);
    }
    let insert = "INSERT INTO opens (id, node, at, row) VALUES";
    let replace = "ON CONFLICT (id) DO UPDATE SET row = excluded.row";
    database.insert((insert, replace), 4, &written)?;
    let ended = "DELETE FROM opens WHERE node = $1
        AND EXISTS (SELECT 1 FROM calls WHERE calls.id = opens.id)";
    database.execute(ended, values![node])?;
    Ok(())
}

/// Some of the calls that have begun on this node and not ended; `None` when there are no more.
pub(super) fn orphans(database: &mut Database, node: &str) -> Result<Option<Vec<CallRow>>, Fault> {
    let query = "SELECT id, row FROM opens WHERE node = $1 LIMIT 500";
    let found: Vec<(String, String)> =
        database.query(query, values![node], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok((!found.is_empty()).then_some(legible(database, &found)?))
}

/// A node that has not ended a call since `before` and is not this one, if there is such a node.
pub(super) fn vanished(
    database: &mut Database,
    node: &str,
    before: i64,
) -> Result<Option<String>, Fault> {
    let query = "SELECT node FROM opens WHERE node <> $1 AND at < $2 LIMIT 1";
    database.first(query, values![node, before], |row| row.get(0))
}

/// Some of the calls of a node that have begun before `before`.
pub(super) fn forsaken(
    database: &mut Database,
    node: &str,
    before: i64,
) -> Result<Vec<CallRow>, Fault> {
    let query = "SELECT id, row FROM opens WHERE node = $1 AND at < $2 LIMIT 500";
    let read = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?));
    let found = database.query(query, values![node, before], read)?;
    legible(database, &found)
}

fn legible(database: &mut Database, found: &[(String, String)]) -> Result<Vec<CallRow>, Fault> {
    let mut rows = Vec::with_capacity(found.len());
    for (id, text) in found {
        if let Ok(row) = serde_json::from_str(text) {
            rows.push(row);
            continue;
        }
        tracing::error!(call = %id, "a call that was cut off cannot be read; it is left out");
        database.execute("DELETE FROM opens WHERE id = $1", values![id])?;
    }
    Ok(rows)
}

/// How far this node's journal has been taken in.
pub(super) fn position(database: &mut Database, node: &str) -> Result<Position, Fault> {
    let query = r#"SELECT segment, "offset" FROM journal WHERE node = $1"#;
    let read = |row: &Row<'_>| {
        let (segment, offset) = (row.get::<i64>(0)?, row.get::<i64>(1)?);
        let (segment, offset) = (segment.cast_unsigned(), offset.cast_unsigned());
        Ok(Position { segment, offset })
    };
    Ok(database.first(query, values![node], read)?.unwrap_or_default())
}

pub(super) fn advance(
    database: &mut Database,
    node: &str,
    Position { segment, offset }: Position,
) -> Result<(), Fault> {
    let put = r#"INSERT INTO journal (node, segment, "offset") VALUES ($1, $2, $3)
        ON CONFLICT (node) DO UPDATE SET segment = excluded.segment, "offset" = excluded."offset""#;
    let (segment, offset) = (segment.cast_signed(), offset.cast_signed());
    database.execute(put, values![node, segment, offset])?;
    Ok(())
}

/// Gives this node what was noted before nodes had names.
pub(super) fn adopt(database: &mut Database, node: &str) -> Result<(), Fault> {
    database.execute("UPDATE opens SET node = $1 WHERE node = ''", values![node])?;
    let journal = "UPDATE journal SET node = $1
        WHERE node = '' AND NOT EXISTS (SELECT 1 FROM journal WHERE node = $1)";
    database.execute(journal, values![node])?;
    Ok(())
}

// === impl Sums ===

impl Sums {
    fn add(&mut self, row: &CallRow) {
        let estimated = row.usage_source == crate::canon::UsageSource::Estimated;
        let [input, read, write, write_long, output, reasoning, heard, said] = tokens(&row.usage);
        let cost = row.cost.map_or(0, |cost| bounded(cost.nanos()));
        // A call that asked nobody has no price because it has none.
        let unpriced = row.cost.is_none() && !row.attempts.is_empty();
        let (estimated, unpriced) = (estimated.into(), unpriced.into());
        let more = [
            1, estimated, unpriced, input, read, write, write_long, output, reasoning, heard, said,
            cost,
        ];
        for (sum, more) in self.0.iter_mut().zip(more) {
            *sum = sum.saturating_add(more);
        }
    }
}

fn cut(name: &str) -> &str {
    name.get(..name.floor_char_boundary(LONGEST)).unwrap_or_default()
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
