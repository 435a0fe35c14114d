//! What a budget and a limit promise.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::*;
use crate::config::Config;

mod budgets;
mod limits;
mod shares;
mod threads;

/// A house of accounts with a clock of its own.
struct House {
    accounts: Accounts,
    start: Moment,
}

impl House {
    fn new() -> Self {
        let start =
            Moment { wall: "2026-11-21T10:00:00Z".parse().unwrap(), steady: Instant::now() };
        Self { accounts: Accounts::new(start.steady), start }
    }

    fn after(&self, time: Duration) -> Moment {
        let wall = self.start.wall + SignedDuration::try_from(time).unwrap();
        Moment { wall, steady: self.start.steady + time }
    }

    /// An account under the terms of this TOML.
    fn account(&self, scope: Scope, name: &str, terms: &str) -> Arc<Account> {
        let account = self.accounts.account(scope, name);
        change(&account, terms, self.start);
        account
    }

    fn key(&self, terms: &str) -> [Arc<Account>; 1] {
        [self.account(Scope::Key, "ci", terms)]
    }
}

fn change(account: &Account, terms: &str, now: Moment) {
    let text = format!("[orgs.any]\n{terms}");
    let config = Config::parse(&text, Path::new("x.toml"), &[]).unwrap();
    let org = &config.orgs["any"];
    account.apply(&org.limits, &org.budget, now);
}

fn tokens(tokens: u64) -> Demand {
    Demand { tokens, nanos: 0, priced: true }
}

fn nanos(nanos: u64) -> Demand {
    Demand { tokens: 0, nanos, priced: true }
}

/// Used and reserved, of the first budget.
fn standing(account: &Account, now: Moment) -> (u64, u64) {
    let status = account.status(now);
    (status[0].used.value, status[0].reserved.value)
}

const SECOND: Duration = Duration::from_secs(1);
