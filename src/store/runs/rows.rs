//! How rows of runs are written and read.

use super::{EventRow, RunRow, Totals};
use crate::canon::{Owner, RunId, RunState};
use crate::store::database::{Database, Fault, Row, values};

/// Of a run, as `run` reads them.
pub(super) const COLUMNS: &str = r#"id, root, parent, agent, version, definition, owner, key,
    "user", session, trigger, labels, state, reason, steps, tool_calls, tokens_in, tokens_out, cost,
    created_at, started_at, finished_at, last_seq, epoch, takeovers, bytes"#;

/// Whose is what belongs to a run.
pub(super) struct Whose {
    /// Its position.
    pub run: i64,
    pub owner: String,
    pub agent: String,
}

pub(super) fn run(row: &Row<'_>) -> Result<RunRow, Fault> {
    let labels: String = row.get(11)?;
    let state: String = row.get(12)?;
    Ok(RunRow {
        id: id(row, 0)?,
        root: id(row, 1)?,
        parent: maybe_id(row, 2)?,
        agent: row.get(3)?,
        version: row.get(4)?,
        definition: row.get(5)?,
        owner: owner(row, 6)?,
        key: row.get(7)?,
        user: row.get(8)?,
        session: row.get(9)?,
        trigger: row.get(10)?,
        labels: serde_json::from_str(&labels).map_err(|_| Fault::Odd(11))?,
        state: RunState::parse(&state).ok_or(Fault::Odd(12))?,
        reason: row.get(13)?,
        totals: Totals {
            steps: small(row, 14)?,
            tool_calls: small(row, 15)?,
            tokens_in: natural(row, 16)?,
            tokens_out: natural(row, 17)?,
            cost: natural(row, 18)?,
            bytes: natural(row, 25)?,
        },
        created_at: natural(row, 19)?,
        started_at: maybe(row, 20)?,
        finished_at: maybe(row, 21)?,
        last_seq: natural(row, 22)?,
        epoch: natural(row, 23)?,
        takeovers: small(row, 24)?,
    })
}

/// `seq, at, kind, data`.
pub(super) fn event(row: &Row<'_>) -> Result<EventRow, Fault> {
    Ok(EventRow {
        seq: natural(row, 0)?,
        at: natural(row, 1)?,
        kind: row.get(2)?,
        data: row.get(3)?,
    })
}

/// What belongs to a run is found by this.
pub(super) fn position(database: &mut Database, run: RunId) -> Result<Option<i64>, Fault> {
    let query = "SELECT position FROM runs WHERE id = $1";
    database.first(query, values![run.to_string()], |row| row.get(0))
}

pub(super) fn id(row: &Row<'_>, at: usize) -> Result<RunId, Fault> {
    parsed(&row.get::<String>(at)?, at)
}

pub(super) fn maybe_id(row: &Row<'_>, at: usize) -> Result<Option<RunId>, Fault> {
    row.get::<Option<String>>(at)?.map(|text| parsed(&text, at)).transpose()
}

fn parsed(text: &str, at: usize) -> Result<RunId, Fault> {
    RunId::parse(text).ok_or(Fault::Odd(at))
}

pub(super) fn owner(row: &Row<'_>, at: usize) -> Result<Owner, Fault> {
    Ok(Owner::new(row.get::<String>(at)?))
}

pub(super) fn natural(row: &Row<'_>, at: usize) -> Result<u64, Fault> {
    u64::try_from(row.get::<i64>(at)?).map_err(|_| Fault::Odd(at))
}

pub(super) fn small(row: &Row<'_>, at: usize) -> Result<u32, Fault> {
    u32::try_from(row.get::<i64>(at)?).map_err(|_| Fault::Odd(at))
}

pub(super) fn maybe(row: &Row<'_>, at: usize) -> Result<Option<u64>, Fault> {
    let number: Option<i64> = row.get(at)?;
    number.map(|number| u64::try_from(number).map_err(|_| Fault::Odd(at))).transpose()
}

/// As databases count.
pub(super) fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Texts as JSON.
pub(super) fn json(texts: &impl serde::Serialize) -> String {
    serde_json::to_string(texts).unwrap_or_default()
}
