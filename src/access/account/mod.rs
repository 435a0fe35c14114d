//! What keys, users, teams and others may still use, and have used. Only arithmetic: no I/O, and
//! the time is given.
//!
//! An account keeps everything that is counted for one of them behind one lock. A call holds
//! what it may need at most in all of its accounts before anything is sent ([`reserve`]), and
//! settles with the truth. What is reserved belongs to no window, so that a call which crosses
//! the end of one is counted in the window in which it is settled.

mod headers;
mod hold;
mod purse;
mod recall;
mod refusal;
mod registry;
mod share;
mod sharing;
mod slide;
mod state;
mod status;
mod window;

pub use headers::{Rate, rates};
pub use hold::{Demand, Hold, attempt, impose, reserve};
pub use purse::was_put_back;
pub use recall::SharedBudget;
pub use refusal::{Denial, Dimension, Refusal};
pub use registry::Accounts;
pub use share::{Inquiry, Why};
pub use sharing::{Said, Wish};
pub use status::{
    Amount, BudgetStatus, Crossed, Left, is_ample, is_past_soft, least_millionths, least_share,
    left,
};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;

use crate::config::{Budget, Limits, Unit};
use sharing::Sharing;
use state::State;

/// Whose account it is: one of the levels at which usage is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    Key,
    User,
    Team,
    Org,
    Route,
    Model,
    Provider,
    /// Its runs: all, or those of one user.
    Agent,
}

/// A point in time by the calendar, for budgets, and by a clock that is never put back, for
/// limits.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    pub wall: Timestamp,
    pub steady: Instant,
}

/// A budget that does not know yet what was spent in its window before it began to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unseeded {
    /// Its place in the config.
    pub budget: usize,
    pub unit: Unit,
    pub from: Timestamp,
    pub since: Timestamp,
}

/// Everything counted for one key, user, team, org, route, model or provider.
#[derive(Debug)]
pub struct Account {
    pub scope: Scope,
    pub name: Arc<str>,
    /// The order in which accounts are locked.
    number: u64,
    /// From where the steady clock is counted.
    origin: Instant,
    /// Where replicas count together.
    sharing: Option<Arc<Sharing>>,
    state: Mutex<State>,
}

// === impl Scope ===

impl Scope {
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::User => "user",
            Self::Team => "team",
            Self::Org => "org",
            Self::Route => "route",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Agent => "agent",
        }
    }
}

// === impl Moment ===

impl Moment {
    pub fn now() -> Self {
        Self { wall: Timestamp::now(), steady: Instant::now() }
    }
}

// === impl Account ===

impl Account {
    /// Puts these terms in force. What has been used and is held stays as it is, so that a new
    /// limit is one for what has been used already.
    pub fn apply(&self, limits: &Limits, budgets: &[Budget], now: Moment) {
        let steady = self.nanos(now);
        self.lock().apply(limits, budgets, (now.wall, steady));
    }

    /// Of each budget how much is used, held and left, in the order of the config.
    pub fn status(&self, now: Moment) -> Vec<BudgetStatus> {
        let mut state = self.lock();
        state.advance((now.wall, self.nanos(now)));
        let reserved = |purse: &purse::Purse| state.reserved_of(purse);
        let status = |purse: &purse::Purse| BudgetStatus::of(self, purse, reserved(purse));
        state.purses.iter().map(status).collect()
    }

    /// Calls that hold something now.
    pub fn in_flight(&self) -> u64 {
        self.lock().in_flight
    }

    /// The budgets that do not know yet what was spent before they began to count.
    pub fn unseeded(&self) -> Vec<Unseeded> {
        let state = self.lock();
        let unseeded = state.purses.iter().enumerate().filter_map(|(budget, purse)| {
            let (from, since) = purse.unseeded()?;
            Some(Unseeded { budget, unit: purse.budget.unit, from, since })
        });
        unseeded.collect()
    }

    /// Tells a budget what was spent before it began to count, each with the time at which it
    /// was settled. The first time only: whether it was the first.
    pub fn seed(self: &Arc<Self>, budget: usize, past: &[(Timestamp, u64)], now: Moment) -> bool {
        let mut state = self.lock();
        self.list(&mut state);
        state.purses.get_mut(budget).is_some_and(|purse| purse.seed(past, now.wall))
    }

    /// Adds to what a budget allows: until its window ends, and for good if it has none or
    /// rolls. Whether there is such a budget.
    pub fn top_up(&self, budget: usize, amount: u64, now: Moment) -> bool {
        let mut state = self.lock();
        state.advance((now.wall, self.nanos(now)));
        state.purses.get_mut(budget).map(|purse| purse.top_up(amount)).is_some()
    }

    /// The same for what was added at `made`, maybe by another process: nothing, if the window of
    /// that time has ended.
    pub fn top_up_as_of(
        &self,
        unit: Unit,
        window: &str,
        amount: u64,
        made: Timestamp,
        now: Moment,
    ) -> bool {
        let mut state = self.lock();
        state.advance((now.wall, self.nanos(now)));
        let is_meant = |budget: &Budget| budget.unit == unit && budget.label == window;
        let purse = state.purses.iter_mut().find(|purse| is_meant(&purse.budget));
        purse.is_some_and(|purse| {
            let is_of_now = purse.began_by(made);
            if is_of_now {
                purse.top_up(amount);
            }
            is_of_now
        })
    }

    /// Nobody leaves a state half changed, so a lock is good even if its holder panicked.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn nanos(&self, now: Moment) -> u64 {
        let since = now.steady.saturating_duration_since(self.origin);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests;
