//! What it costs a worker to note a call in the ledger.
//!
//! Run by `cargo bench --bench ledger`.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use divan::{Bencher, black_box};
use switchpoint::canon::{Attempt, Leg, Money, Outcome, Usage, UsageSource};
use switchpoint::config::{self, StoreUrl};
use switchpoint::store::{CallRow, Store};

fn main() {
    divan::main();
}

#[divan::bench(threads = [1, 2])]
fn append_settled(bencher: Bencher) {
    let Ok(folder) = tempfile::tempdir() else { return };
    let file = StoreUrl::Sqlite(folder.path().join("state.db"));
    let Ok(store) = Store::open(&config::Store::at(file)) else { return };
    let row = row();
    bencher.bench(|| store.append_settled(black_box(row.clone())));
}

/// The same id each time: the database takes one in, and the journal all of them.
fn row() -> CallRow {
    let attempt = Attempt {
        provider: "groq".into(),
        model: "llama-3.3-70b".into(),
        outcome: Outcome::Ok,
        status: 200,
        elapsed: Duration::from_millis(90),
        usage: None,
        cost: None,
        leg: Leg::default(),
    };
    CallRow {
        id: "0198a1b2-0000-7000-8000-000000000000".to_owned(),
        at: SystemTime::UNIX_EPOCH,
        surface: "chat".into(),
        stream: true,
        key: Some("ci".into()),
        team: Some("search".into()),
        user: None,
        org: None,
        route: Some("fast".into()),
        agent: None,
        task: None,
        provider: Some("groq".into()),
        model: Some("llama-3.3-70b".into()),
        outcome: Outcome::Ok,
        status: 200,
        usage: Usage { input: 10, output: 5, ..Usage::default() },
        usage_source: UsageSource::Provider,
        cost: Some(Money::from_nanos(7)),
        counted: 15,
        settled_at: SystemTime::UNIX_EPOCH,
        duration: Duration::from_millis(1480),
        first_token: Some(Duration::from_millis(210)),
        generation: 7,
        cache: "miss".into(),
        purpose: "client".into(),
        tags: BTreeMap::new(),
        attempts: vec![attempt],
    }
}
