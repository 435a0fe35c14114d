//! What it costs a call to be counted in all of its accounts.
//!
//! Run by `cargo bench --bench accounts`.
#![expect(clippy::unwrap_used, reason = "a benchmark stops at the first surprise")]

use std::path::Path;
use std::sync::{Arc, LazyLock};

use divan::{Bencher, black_box};
use switchpoint::access::account::{Account, Accounts, Demand, Moment, Scope, reserve};
use switchpoint::config::Config;

const TERMS: &str = r#"
[orgs.any]
limits = { requests = "100M/h", tokens = "1000000M/h" }
budget = [{ tokens = 900_000_000_000_000, window = "1d", timezone = "Europe/Berlin", soft = 0.8 }, { usd = 900_000.0, window = "30d" }]
"#;

static ACCOUNTS: LazyLock<Accounts> = LazyLock::new(Accounts::default);

fn main() {
    divan::main();
}

/// A key, its team and its organisation, each with two limits and two budgets.
fn hierarchy() -> [Arc<Account>; 3] {
    let config = Config::parse(TERMS, Path::new(""), &[]).unwrap();
    let org = &config.orgs["any"];
    [(Scope::Key, "k"), (Scope::Team, "t"), (Scope::Org, "o")].map(|(scope, name)| {
        let account = ACCOUNTS.account(scope, name);
        account.apply(&org.limits, &org.budget, Moment::now());
        account
    })
}

fn call(accounts: &[Arc<Account>], now: Moment) {
    let demand = Demand { tokens: 1200, nanos: 3400, priced: true };
    if let Ok(hold) = reserve(black_box(accounts), black_box(demand), now) {
        black_box(hold.settle(700, 2000, now));
    }
}

/// At one instant: the arithmetic and the locks.
#[divan::bench(threads = [1, 2])]
fn reserve_and_settle(bencher: Bencher) {
    let (accounts, now) = (hierarchy(), Moment::now());
    bencher.bench(|| call(&accounts, now));
}

/// With the time that passes, as calls come and limits fill.
#[divan::bench(threads = [1, 2])]
fn with_both_clocks_read(bencher: Bencher) {
    let accounts = hierarchy();
    bencher.bench(|| call(&accounts, Moment::now()));
}

/// Growing once on the way.
#[divan::bench]
fn grow(bencher: Bencher) {
    let (accounts, now) = (hierarchy(), Moment::now());
    let demand = Demand { tokens: 1200, nanos: 3400, priced: true };
    let mut hold = reserve(&accounts, demand, now).ok();
    bencher.bench_local(|| hold.as_mut().map(|hold| hold.grow(1, 1, black_box(now)).is_ok()));
}
