//! What the ledger, the budgets and the doors promise together, whatever way a call ends.

mod apis;
mod canaries;
mod counters;
mod doors;
mod edges;
mod endings;
mod ends;
mod panic;
mod peers;
mod restarts;

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::client;
use crate::support::gateway::Gateway;

/// A key whose secret is `sk-` and its name.
fn key(name: &str, more: &str) -> String {
    format!("[keys.{name}]\nsecret = \"sk-{name}\"\n{more}\n\n")
}

/// Where the gateways of one test keep what outlives them.
fn store(folder: &Path) -> String {
    format!("[store]\nurl = \"sqlite:{}\"\n\n", folder.join("state.db").display())
}

/// The budgets that bind a key, as it is told.
async fn budgets(gateway: &Gateway, key: &str) -> Vec<Value> {
    let answer = client::get(gateway.address, "/v1/me/usage", &format!("sk-{key}")).await;
    let told = answer.json();
    told["budgets"].as_array().unwrap_or_else(|| panic!("{told}")).clone()
}

/// The budget of a key's own, of so many.
async fn budget(gateway: &Gateway, key: &str) -> Value {
    budgets(gateway, key).await.remove(0)
}

/// Waits until no call of the key holds anything, and gives its first budget.
async fn settled(gateway: &Gateway, key: &str) -> Value {
    let began = Instant::now();
    loop {
        let budget = budget(gateway, key).await;
        if budget["reserved"] == json!(0) || budget["reserved"] == json!(0.0) {
            return budget;
        }
        assert!(began.elapsed() < crate::support::PATIENCE, "it stays reserved: {budget}");
    }
}

/// One row of the ledger.
#[derive(Debug, Clone)]
struct Row {
    key: String,
    team: String,
    org: String,
    route: String,
    outcome: String,
    source: String,
    purpose: String,
    counted: u64,
    /// In nano-dollars.
    cost: u64,
    /// Tokens of attempts that others took the place of: always by estimate.
    beside: u64,
}

/// Every row of a store, which a gateway may be writing.
fn ledger(folder: &Path) -> Vec<Row> {
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = Connection::open_with_flags(folder.join("state.db"), read_only).unwrap();
    let query = "SELECT ifnull(key, ''), ifnull(team, ''), ifnull(org, ''), ifnull(route, ''),
        outcome, usage_source, purpose, counted, ifnull(cost, 0),
        (SELECT ifnull(sum(number.value), 0) FROM json_each(attempts) AS attempt,
            json_each(attempt.value, '$[5]') AS number WHERE number.key < 5) FROM calls";
    let mut statement = database.prepare(query).unwrap();
    let rows = statement.query_map([], |row| {
        Ok(Row {
            key: row.get(0)?,
            team: row.get(1)?,
            org: row.get(2)?,
            route: row.get(3)?,
            outcome: row.get(4)?,
            source: row.get(5)?,
            purpose: row.get(6)?,
            counted: row.get::<_, i64>(7)?.unsigned_abs(),
            cost: row.get::<_, i64>(8)?.unsigned_abs(),
            beside: row.get::<_, i64>(9)?.unsigned_abs(),
        })
    });
    rows.unwrap().map(Result::unwrap).collect()
}

/// What each account has spent by the ledger: tokens and nano-dollars. Shadows are the gateway's.
fn sums(rows: &[Row]) -> BTreeMap<String, (u64, u64)> {
    let mut sums = BTreeMap::<String, (u64, u64)>::new();
    for row in rows.iter().filter(|row| row.purpose != "shadow") {
        for (scope, name) in [("key", &row.key), ("team", &row.team), ("org", &row.org)] {
            let sum = sums.entry(format!("{scope} {name}")).or_default();
            *sum = (sum.0 + row.counted, sum.1 + row.cost);
        }
    }
    sums
}
