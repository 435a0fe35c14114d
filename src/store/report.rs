//! What can be asked of the ledger: pages of calls, one call, sums. Each answer has a bound.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, Row, params_from_iter};

use super::rows::{CallRow, Column, Filter, Reach, UsageRow};
use super::{Failure, Store, millis, time};
use crate::canon::{Attempt, Money, Outcome, Usage, UsageSource};

/// Calls of one page.
const PAGE: u32 = 1000;
/// Lines of one report.
const LINES: u32 = 10_000;

const CALLS: &str =
    "SELECT position, id, at, surface, stream, key, team, user, org, route, agent, task,
    provider, model, outcome, status, input, cache_read, cache_write, cache_write_long, output,
    reasoning, audio_input, audio_output, usage_source, cost, counted,
    settled_at, duration_ms, first_token_ms, generation, cache, purpose, tags FROM calls";

const SUMS: &str = "ifnull(sum(calls), 0), ifnull(sum(estimated), 0), ifnull(sum(unpriced), 0),
    ifnull(sum(input), 0), ifnull(sum(cache_read), 0), ifnull(sum(cache_write), 0),
    ifnull(sum(cache_write_long), 0), ifnull(sum(output), 0), ifnull(sum(reasoning), 0),
    ifnull(sum(audio_input), 0), ifnull(sum(audio_output), 0), ifnull(sum(cost), 0) FROM usage";

/// Where the next page begins, as text in `next`. It stays true while calls are added and deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    at: i64,
    position: i64,
}

/// All calls of a filter, the newest first, a page at a time.
pub struct Export {
    store: Store,
    reach: Reach,
    filter: Filter,
    after: Option<Cursor>,
    has_ended: bool,
}

/// Conditions on a table, and the values of their question marks.
struct Where {
    table: Table,
    conditions: Vec<String>,
    values: Vec<Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Table {
    Calls,
    Usage,
}

// === impl Store ===

impl Store {
    /// Calls, the newest first, at most `limit` or a thousand, and where the next page begins.
    pub async fn calls(
        &self,
        reach: &Reach,
        filter: &Filter,
        (after, limit): (Option<Cursor>, u32),
    ) -> Result<(Vec<CallRow>, Option<Cursor>), Failure> {
        let mut which = Where::new(reach, Table::Calls);
        which.choose(filter);
        if let Some(Cursor { at, position }) = after {
            which.add("(at, position) < (?, ?)", [Value::from(at), Value::from(position)]);
        }
        let limit = limit.clamp(1, PAGE);
        let order = format!("ORDER BY at DESC, position DESC LIMIT {}", limit + 1);
        self.read.run(move |database| page(database, &which, (&order, limit as usize))).await
    }

    /// One call; `None` if there is none, and if it is another's.
    pub async fn call(&self, reach: &Reach, id: &str) -> Result<Option<CallRow>, Failure> {
        let mut which = Where::new(reach, Table::Calls);
        which.add("id = ?", [Value::from(id.to_owned())]);
        let found = self.read.run(move |database| page(database, &which, ("", 1))).await?;
        Ok(found.0.into_iter().next())
    }

    /// Sums of whole hours, the dearest first, at most ten thousand lines.
    pub async fn usage(
        &self,
        reach: &Reach,
        groups: &[Column],
        filter: &Filter,
    ) -> Result<Vec<UsageRow>, Failure> {
        let mut which = Where::new(reach, Table::Usage);
        which.choose(filter);
        let groups = groups.to_vec();
        let order = "ORDER BY sum(cost) DESC, sum(calls) DESC";
        self.read.run(move |database| sums(database, &groups, (&which, order))).await
    }

    /// The same a page at a time, in the order of the groups: lines behind those whose groups were
    /// `after`, and behind which the next page begins.
    pub async fn usage_page(
        &self,
        reach: &Reach,
        groups: &[Column],
        (filter, after): (&Filter, Option<&[String]>),
    ) -> Result<(Vec<UsageRow>, Option<Vec<String>>), Failure> {
        let mut which = Where::new(reach, Table::Usage);
        which.choose(filter);
        let (groups, after) = (groups.to_vec(), after.map(<[String]>::to_vec));
        let read = move |database: &Connection| {
            let names: Vec<String> = groups.iter().map(|column| bare(*column)).collect();
            let names = names.join(", ");
            let behind = after.filter(|after| !after.is_empty()).map(|after| {
                which.values.extend(after.iter().cloned().map(Value::from));
                let marks = vec!["?"; after.len()].join(", ");
                format!("HAVING ({names}) > ({marks})")
            });
            let order = if groups.is_empty() { "" } else { "ORDER BY" };
            let order = format!("{} {order} {names}", behind.unwrap_or_default());
            let rows = sums(database, &groups, (&which, &order))?;
            let is_full = rows.len() == LINES as usize;
            let last = rows.last().filter(|_| is_full).map(|row| {
                row.group.iter().map(|value| value.clone().unwrap_or_default()).collect()
            });
            Ok((rows, last))
        };
        self.read.run(read).await
    }

    /// All calls of a filter, for a file.
    pub fn export(&self, reach: Reach, filter: Filter) -> Export {
        Export { store: self.clone(), reach, filter, after: None, has_ended: false }
    }
}

// === impl Export ===

impl Export {
    /// The next calls; `None` at the end. After a failure the same page can be asked for again.
    pub async fn next(&mut self) -> Result<Option<Vec<CallRow>>, Failure> {
        if self.has_ended {
            return Ok(None);
        }
        let page = (self.after, PAGE);
        let (rows, next) = self.store.calls(&self.reach, &self.filter, page).await?;
        self.has_ended = next.is_none();
        self.after = next;
        Ok((!rows.is_empty()).then_some(rows))
    }
}

impl fmt::Debug for Export {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Export").field("filter", &self.filter).finish_non_exhaustive()
    }
}

// === impl Cursor ===

impl fmt::Display for Cursor {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.at, self.position)
    }
}

impl FromStr for Cursor {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let parse = || {
            let (at, position) = text.split_once('-')?;
            Some(Self { at: at.parse().ok()?, position: position.parse().ok()? })
        };
        parse().ok_or_else(|| Failure::new("is no place to go on from".to_owned()))
    }
}

// === impl Where ===

impl Where {
    fn new(reach: &Reach, table: Table) -> Self {
        let mut which = Self { table, conditions: Vec::new(), values: Vec::new() };
        match reach {
            Reach::All => {}
            Reach::Key(key) => which.equal(Column::Key, key),
            Reach::Team(team) => which.equal(Column::Team, team),
        }
        which
    }

    fn add<const N: usize>(&mut self, condition: impl Into<String>, values: [Value; N]) {
        self.conditions.push(condition.into());
        self.values.extend(values);
    }

    fn choose(&mut self, filter: &Filter) {
        let (at, unit) = match self.table {
            Table::Calls => ("at", 1),
            Table::Usage => ("hour", 3_600_000),
        };
        if let Some(from) = filter.from {
            self.add(format!("{at} >= ?"), [Value::from(millis(from) / unit)]);
        }
        if let Some(to) = filter.to {
            // The hour in which it ends is in.
            let end = millis(to).saturating_add(unit - 1) / unit;
            self.add(format!("{at} < ?"), [Value::from(end)]);
        }
        for (column, value) in &filter.equal {
            self.equal(*column, value);
        }
    }

    fn equal(&mut self, column: Column, value: &str) {
        let condition = match (column, self.table) {
            (Column::Day, Table::Calls) => "date(at / 1000, 'unixepoch') = ?".to_owned(),
            (Column::Day, Table::Usage) => "date(hour * 3600, 'unixepoch') = ?".to_owned(),
            (Column::Tag, table) => format!(
                "EXISTS (SELECT 1 FROM json_each({}.tags) AS one
                    WHERE one.key || '=' || one.value = ?)",
                table.name()
            ),
            (column, table) => format!("{}.{} = ?", table.name(), column.name()),
        };
        self.add(condition, [Value::from(value.to_owned())]);
    }

    fn text(&self) -> String {
        if self.conditions.is_empty() {
            return String::new();
        }
        format!("WHERE {}", self.conditions.join(" AND "))
    }
}

// === impl Table ===

impl Table {
    fn name(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Usage => "usage",
        }
    }
}

fn page(
    connection: &Connection,
    which: &Where,
    (order, limit): (&str, usize),
) -> rusqlite::Result<(Vec<CallRow>, Option<Cursor>)> {
    let query = format!("{CALLS} {} {order}", which.text());
    let mut statement = connection.prepare_cached(&query)?;
    let found = statement.query_map(params_from_iter(&which.values), call)?;
    let mut found: Vec<(i64, CallRow)> = found.collect::<Result<_, _>>()?;
    let is_more = found.len() > limit;
    found.truncate(limit);
    for (position, row) in &mut found {
        row.attempts = attempts(connection, *position)?;
    }
    let last = found.last().filter(|_| is_more);
    let next = last.map(|(position, row)| Cursor { at: millis(row.at), position: *position });
    Ok((found.into_iter().map(|(_, row)| row).collect(), next))
}

fn attempts(connection: &Connection, call: i64) -> rusqlite::Result<Vec<Attempt>> {
    let query = "SELECT provider, model, outcome, status, ms, input, output, cost FROM attempts
        WHERE call = ? ORDER BY number";
    let mut statement = connection.prepare_cached(query)?;
    let attempt = |row: &Row<'_>| {
        Ok(Attempt {
            provider: row.get(0)?,
            model: row.get(1)?,
            outcome: outcome(&row.get::<_, String>(2)?),
            status: row.get(3)?,
            elapsed: Duration::from_millis(count(row, 4)?),
            usage: used(row)?,
            cost: money(row, 7)?,
        })
    };
    statement.query_map([call], attempt)?.collect()
}

fn call(row: &Row<'_>) -> rusqlite::Result<(i64, CallRow)> {
    let source = UsageSource::parse(&row.get::<_, String>(24)?).unwrap_or(UsageSource::Estimated);
    let call = CallRow {
        id: row.get(1)?,
        at: time(row.get(2)?),
        surface: row.get::<_, String>(3)?.into(),
        stream: row.get(4)?,
        key: row.get::<_, Option<Arc<str>>>(5)?,
        team: row.get(6)?,
        user: row.get(7)?,
        org: row.get(8)?,
        route: row.get(9)?,
        agent: row.get(10)?,
        task: row.get::<_, Option<String>>(11)?.map(Into::into),
        provider: row.get(12)?,
        model: row.get(13)?,
        outcome: outcome(&row.get::<_, String>(14)?),
        status: row.get(15)?,
        usage: tokens(row, 16)?,
        usage_source: source,
        cost: money(row, 25)?,
        counted: count(row, 26)?,
        settled_at: time(row.get(27)?),
        duration: Duration::from_millis(count(row, 28)?),
        first_token: row
            .get::<_, Option<i64>>(29)?
            .map(|millis| Duration::from_millis(millis.cast_unsigned())),
        generation: count(row, 30)?,
        cache: row.get::<_, String>(31)?.into(),
        purpose: row.get::<_, String>(32)?.into(),
        tags: serde_json::from_str(&row.get::<_, String>(33)?).unwrap_or_default(),
        attempts: Vec::new(),
    };
    Ok((row.get(0)?, call))
}

fn sums(
    connection: &Connection,
    groups: &[Column],
    (which, order): (&Where, &str),
) -> rusqlite::Result<Vec<UsageRow>> {
    let columns: String = groups.iter().map(|column| grouped(*column) + ", ").collect();
    let tags = groups.contains(&Column::Tag);
    let tags = if tags { "LEFT JOIN json_each(usage.tags) AS tag" } else { "" };
    let numbers: Vec<String> = (1..=groups.len()).map(|number| number.to_string()).collect();
    let by = if groups.is_empty() { "" } else { "GROUP BY" };
    let query = format!(
        "SELECT {columns}{SUMS} {tags} {} {by} {} {order} LIMIT {LINES}",
        which.text(),
        numbers.join(", ")
    );
    let mut statement = connection.prepare_cached(&query)?;
    let width = groups.len();
    let line = |row: &Row<'_>| {
        Ok(UsageRow {
            group: (0..width).map(|at| row.get(at)).collect::<Result<_, _>>()?,
            calls: count(row, width)?,
            estimated: count(row, width + 1)?,
            unpriced: count(row, width + 2)?,
            usage: tokens(row, width + 3)?,
            cost: Money::from_nanos(count(row, width + 11)?),
        })
    };
    statement.query_map(params_from_iter(&which.values), line)?.collect()
}

fn grouped(column: Column) -> String {
    format!("nullif({}, '')", bare(column))
}

/// A column by which sums are put in order; empty where calls have none.
fn bare(column: Column) -> String {
    match column {
        Column::Day => "date(hour * 3600, 'unixepoch')".to_owned(),
        Column::Tag => "coalesce(tag.key || '=' || tag.value, '')".to_owned(),
        column => format!("usage.{}", column.name()),
    }
}

/// One that this program does not know was written by a newer one.
fn outcome(name: &str) -> Outcome {
    Outcome::parse(name).unwrap_or(Outcome::Internal)
}

fn tokens(row: &Row<'_>, at: usize) -> rusqlite::Result<Usage> {
    Ok(Usage {
        input: count(row, at)?,
        cache_read: count(row, at + 1)?,
        cache_write: count(row, at + 2)?,
        cache_write_long: count(row, at + 3)?,
        output: count(row, at + 4)?,
        reasoning: count(row, at + 5)?,
        audio_input: count(row, at + 6)?,
        audio_output: count(row, at + 7)?,
    })
}

/// Of an attempt in whose place another came.
fn used(row: &Row<'_>) -> rusqlite::Result<Option<Usage>> {
    let Some(_) = row.get::<_, Option<i64>>(5)? else { return Ok(None) };
    Ok(Some(Usage { input: count(row, 5)?, output: count(row, 6)?, ..Usage::default() }))
}

fn money(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Money>> {
    let nanos = row.get::<_, Option<i64>>(at)?;
    Ok(nanos.map(|nanos| Money::from_nanos(nanos.cast_unsigned())))
}

fn count(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at).map(|number| u64::try_from(number).unwrap_or_default())
}
