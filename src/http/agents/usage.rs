//! What runs have used, summed from the ledger: by agent, user, day and what else calls have.

use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::{Answer, Asked, Door, away, told};
use crate::canon::Purpose;
use crate::config::{point_in_time, suggestion};
use crate::error::Error;
use crate::store::{Column, Filter, Reach, UsageRow};

/// What the latest calls have to be taken in.
const CATCH_UP: Duration = Duration::from_secs(2);

/// What can be grouped by. A run's user is whom its client named, and pays nothing.
const GROUPS: [(&str, Column); 8] = [
    ("agent", Column::Agent),
    ("user", Column::EndUser),
    ("day", Column::Day),
    ("run", Column::Run),
    ("key", Column::Key),
    ("team", Column::Team),
    ("provider", Column::Provider),
    ("model", Column::Model),
];
/// And chosen by.
const CHOICES: [(&str, Column); 4] = [
    ("agent", Column::Agent),
    ("user", Column::EndUser),
    ("run", Column::Run),
    ("day", Column::Day),
];
const QUERY: &[&str] = &["group_by", "from", "to", "agent", "user", "run", "day"];

pub(super) async fn sums(door: Door, asked: Asked) -> Answer {
    let query = asked.query(QUERY)?;
    let groups = groups(query.field("group_by").unwrap_or("agent"))?;
    let time = |name: &str| {
        let written = query.field(name).map(|written| point_in_time(&written.replace(' ', "+")));
        written.transpose().map_err(|problem| Error::invalid(format!("`{name}`: {problem}.")))
    };
    let mut filter = Filter { from: time("from")?, to: time("to")?, equal: Vec::new() };
    filter.equal.push((Column::Purpose, Purpose::Agent.name().to_owned()));
    let chosen = CHOICES.iter().filter_map(|(name, column)| Some((*column, query.field(name)?)));
    filter.equal.extend(chosen.map(|(column, value)| (column, value.to_owned())));
    let store = door.gateway.store();
    let is_whole = matches!(timeout(CATCH_UP, store.flush()).await, Ok(Ok(())));
    let columns: Vec<Column> = groups.iter().map(|(_, column)| *column).collect();
    let rows = store.usage(&reach(&asked), &columns, &filter).await;
    let rows = rows.map_err(|failure| away(&failure))?;
    let data: Vec<Value> = rows.iter().map(|row| line(&groups, row)).collect();
    let mut shown = json!({"object": "list", "data": data});
    if !is_whole {
        // The latest calls may be missing.
        shown["degraded"] = json!(true);
    }
    told(&shown)
}

fn groups(written: &str) -> Result<Vec<(&'static str, Column)>, Error> {
    let names = written.split(',').map(str::trim).filter(|name| !name.is_empty());
    let find = |name: &str| {
        let found = GROUPS.iter().find(|(known, _)| *known == name).copied();
        found.ok_or_else(|| {
            let hint = suggestion(name, GROUPS.iter().map(|(known, _)| *known));
            Error::invalid(format!("`group_by` cannot be {name:?}{hint}"))
        })
    };
    names.map(find).collect()
}

/// Users of one issuer of tokens share the name of a key, and know nothing of one another.
fn reach(asked: &Asked) -> Reach {
    let caller = &asked.caller;
    if asked.sees_all() {
        return Reach::All;
    }
    match caller.user().filter(|_| caller.owner() != caller.key()) {
        Some(user) => Reach::User(user.clone()),
        None => Reach::Key(caller.key().clone()),
    }
}

fn line(groups: &[(&'static str, Column)], row: &UsageRow) -> Value {
    let group = groups.iter().zip(&row.group);
    let mut shown: Map<String, Value> =
        group.map(|((name, _), value)| ((*name).to_owned(), json!(value))).collect();
    let usage = &row.usage;
    let sums = [
        ("model_calls", json!(row.calls)),
        ("estimated_calls", json!(row.estimated)),
        ("unpriced_calls", json!(row.unpriced)),
        ("input_tokens", json!(usage.input_total())),
        ("output_tokens", json!(usage.output)),
        ("total_tokens", json!(usage.total())),
        ("cost_usd", json!(row.cost.usd())),
    ];
    shown.extend(sums.map(|(name, sum)| (name.to_owned(), sum)));
    Value::Object(shown)
}
