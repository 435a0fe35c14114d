//! What can be asked of the ledger: pages of calls, one call, sums. Each answer has a bound.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use super::database::{Backend, Database, Fault, Row, Value};
use super::rows::{CallRow, Column, Filter, Reach, UsageRow};
use super::spelling::attempts;
use super::{Failure, Store, millis, time};
use crate::canon::{Money, Outcome, Usage, UsageSource};

/// Calls of one page.
const PAGE: u32 = 1000;
/// Lines of one report.
const LINES: u32 = 10_000;

const CALLS: &str = r#"SELECT position, id, at, surface, stream, key, team, "user", org, route, agent, task,
    provider, model, outcome, status, input, cache_read, cache_write, cache_write_long, output,
    reasoning, audio_input, audio_output, usage_source, cost, counted,
    settled_at, duration_ms, first_token_ms, generation, cache, purpose, tags, attempts FROM calls"#;

/// What is summed by hour, in the order in which a line of a report is read.
const SUMMED: [&str; 12] = [
    "calls",
    "estimated",
    "unpriced",
    "input",
    "cache_read",
    "cache_write",
    "cache_write_long",
    "output",
    "reasoning",
    "audio_input",
    "audio_output",
    "cost",
];

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

/// Conditions on a table, and their values.
struct Where {
    table: Table,
    conditions: Vec<Condition>,
    values: Vec<Value<'static>>,
}

/// Each uses the values from a place on.
#[derive(Debug, Clone, Copy)]
enum Condition {
    From,
    To,
    /// A page goes on behind a time and a position.
    Behind,
    Id,
    Equal(Column),
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
            which.add(Condition::Behind, [at.into(), position.into()]);
        }
        let limit = limit.clamp(1, PAGE);
        let order = format!("ORDER BY at DESC, position DESC LIMIT {}", limit + 1);
        self.read.run(move |database| page(database, &which, &order, limit as usize)).await
    }

    /// One call; `None` if there is none, and if it is another's.
    pub async fn call(&self, reach: &Reach, id: &str) -> Result<Option<CallRow>, Failure> {
        let mut which = Where::new(reach, Table::Calls);
        which.add(Condition::Id, [id.to_owned().into()]);
        let found = self.read.run(move |database| page(database, &which, "", 1)).await?;
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
        self.read.run(move |database| sums(database, &groups, &which, order)).await
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
        let groups = groups.to_vec();
        let first = which.values.len() + 1;
        which.values.extend(after.into_iter().flatten().cloned().map(Value::from));
        let marks: Vec<String> =
            (first..=which.values.len()).map(|number| format!("${number}")).collect();
        let read = move |database: &mut Database| {
            let order = in_order(&groups, &marks, database.backend());
            let rows = sums(database, &groups, &which, &order)?;
            let last =
                rows.last().filter(|row| rows.len() == LINES as usize && !row.group.is_empty());
            let last = last.map(|row| row.group.iter().cloned().map(Option::unwrap_or_default));
            let last = last.map(Iterator::collect);
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
            Reach::User(user) => which.equal(Column::User, user),
            Reach::Team(team) => which.equal(Column::Team, team),
        }
        which
    }

    fn add<const N: usize>(&mut self, condition: Condition, values: [Value<'static>; N]) {
        self.conditions.push(condition);
        self.values.extend(values);
    }

    fn choose(&mut self, filter: &Filter) {
        let unit = self.table.unit();
        if let Some(from) = filter.from {
            self.add(Condition::From, [(millis(from) / unit).into()]);
        }
        if let Some(to) = filter.to {
            // The hour in which it ends is in.
            let end = millis(to).saturating_add(unit - 1) / unit;
            self.add(Condition::To, [end.into()]);
        }
        for (column, value) in &filter.equal {
            self.equal(*column, value);
        }
    }

    fn equal(&mut self, column: Column, value: &str) {
        self.add(Condition::Equal(column), [value.to_owned().into()]);
    }

    fn text(&self, backend: Backend) -> String {
        let (mut text, mut next) = (String::new(), 1);
        for condition in &self.conditions {
            let (written, used) = condition.text(self.table, backend, next);
            text += if next == 1 { "WHERE " } else { " AND " };
            text += &written;
            next += used;
        }
        text
    }
}

// === impl Condition ===

impl Condition {
    /// As it is written when its first value has this number, and how many values it has.
    fn text(self, table: Table, backend: Backend, next: usize) -> (String, usize) {
        let time = table.time();
        let text = match self {
            Self::From => format!("{time} >= ${next}"),
            Self::To => format!("{time} < ${next}"),
            Self::Behind => {
                return (format!("(at, position) < (${next}, ${})", next + 1), 2);
            }
            Self::Id => format!("id = ${next}"),
            Self::Equal(Column::Day) => format!("{} = ${next}", table.day(backend)),
            Self::Equal(Column::Tag) => {
                let members = backend.members(&format!("{}.tags", table.name()));
                format!(
                    "EXISTS (SELECT 1 FROM {members} AS one
                        WHERE one.key || '=' || one.value = ${next})"
                )
            }
            Self::Equal(column @ (Column::Run | Column::EndUser)) => {
                let tags = format!("{}.tags", table.name());
                format!("{} = ${next}", backend.member(&tags, column.name()))
            }
            Self::Equal(column) => {
                format!("{}.\"{}\" = ${next}", table.name(), column.name())
            }
        };
        (text, 1)
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

    /// When something was, in units of so many milliseconds.
    fn time(self) -> &'static str {
        match self {
            Self::Calls => "at",
            Self::Usage => "hour",
        }
    }

    fn unit(self) -> i64 {
        match self {
            Self::Calls => 1,
            Self::Usage => 3_600_000,
        }
    }

    fn day(self, backend: Backend) -> String {
        match self {
            Self::Calls => backend.day("at / 1000"),
            Self::Usage => backend.day("hour * 3600"),
        }
    }
}

fn page(
    database: &mut Database,
    which: &Where,
    order: &str,
    limit: usize,
) -> Result<(Vec<CallRow>, Option<Cursor>), Fault> {
    let query = format!("{CALLS} {} {order}", which.text(database.backend()));
    let mut found = database.query(&query, &which.values, call)?;
    let is_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().filter(|_| is_more);
    let next = last.map(|(position, row)| Cursor { at: millis(row.at), position: *position });
    Ok((found.into_iter().map(|(_, row)| row).collect(), next))
}

fn call(row: &Row<'_>) -> Result<(i64, CallRow), Fault> {
    let source = UsageSource::parse(&row.get::<String>(24)?).unwrap_or(UsageSource::Estimated);
    let call = CallRow {
        id: row.get(1)?,
        at: time(row.get(2)?),
        surface: row.get::<String>(3)?.into(),
        stream: row.get(4)?,
        key: row.get::<Option<Arc<str>>>(5)?,
        team: row.get(6)?,
        user: row.get(7)?,
        org: row.get(8)?,
        route: row.get(9)?,
        agent: row.get(10)?,
        task: row.get::<Option<String>>(11)?.map(Into::into),
        provider: row.get(12)?,
        model: row.get(13)?,
        outcome: outcome(&row.get::<String>(14)?),
        status: row.get(15)?,
        usage: tokens(row, 16)?,
        usage_source: source,
        cost: money(row, 25)?,
        counted: count(row, 26)?,
        settled_at: time(row.get(27)?),
        duration: Duration::from_millis(count(row, 28)?),
        first_token: row
            .get::<Option<i64>>(29)?
            .map(|millis| Duration::from_millis(millis.cast_unsigned())),
        generation: count(row, 30)?,
        cache: row.get::<String>(31)?.into(),
        purpose: row.get::<String>(32)?.into(),
        tags: serde_json::from_str(&row.get::<String>(33)?).unwrap_or_default(),
        attempts: attempts::read(&row.get::<String>(34)?),
    };
    Ok((row.get(0)?, call))
}

fn sums(
    database: &mut Database,
    groups: &[Column],
    which: &Where,
    order: &str,
) -> Result<Vec<UsageRow>, Fault> {
    let backend = database.backend();
    let columns = groups.iter().map(|column| grouped(*column, backend));
    // Sums of Postgres are wider than what they sum up.
    let sums = SUMMED.map(|column| format!("CAST(coalesce(sum({column}), 0) AS BIGINT)"));
    let columns: Vec<String> = columns.chain(sums).collect();
    let tags = if groups.contains(&Column::Tag) {
        format!("LEFT JOIN {} AS tag ON true", backend.members("usage.tags"))
    } else {
        String::new()
    };
    let numbers: Vec<String> = (1..=groups.len()).map(|number| number.to_string()).collect();
    let by = if groups.is_empty() { "" } else { "GROUP BY" };
    let query = format!(
        "SELECT {} FROM usage {tags} {} {by} {} {order} LIMIT {LINES}",
        columns.join(", "),
        which.text(backend),
        numbers.join(", ")
    );
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
    database.query(&query, &which.values, line)
}

/// Behind these groups, and by them; where calls have none, it is empty.
fn in_order(groups: &[Column], marks: &[String], backend: Backend) -> String {
    if groups.is_empty() {
        return String::new();
    }
    let whole = |column: &Column| format!("coalesce({}, '')", grouped(*column, backend));
    let names = groups.iter().map(whole).collect::<Vec<_>>().join(", ");
    if marks.is_empty() {
        return format!("ORDER BY {names}");
    }
    format!("HAVING ({names}) > ({}) ORDER BY {names}", marks.join(", "))
}

fn grouped(column: Column, backend: Backend) -> String {
    match column {
        Column::Day => Table::Usage.day(backend),
        Column::Tag => "tag.key || '=' || tag.value".to_owned(),
        Column::Run | Column::EndUser => backend.member("usage.tags", column.name()),
        column => format!("nullif(usage.\"{}\", '')", column.name()),
    }
}

/// One that this program does not know was written by a newer one.
fn outcome(name: &str) -> Outcome {
    Outcome::parse(name).unwrap_or(Outcome::Internal)
}

fn tokens(row: &Row<'_>, at: usize) -> Result<Usage, Fault> {
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
fn money(row: &Row<'_>, at: usize) -> Result<Option<Money>, Fault> {
    let nanos = row.get::<Option<i64>>(at)?;
    Ok(nanos.map(|nanos| Money::from_nanos(nanos.cast_unsigned())))
}

fn count(row: &Row<'_>, at: usize) -> Result<u64, Fault> {
    row.get::<i64>(at).map(|number| u64::try_from(number).unwrap_or_default())
}
