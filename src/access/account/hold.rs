//! What a call holds of its accounts while it runs: all of it or nothing, and given back by
//! whatever road the call ends.

use std::sync::{Arc, MutexGuard};

use smallvec::SmallVec;

use super::refusal::Found;
use super::share::Inquiry;
use super::state::State;
use super::{Account, Crossed, Denial, Moment, Refusal};
use crate::config::Unit;

/// A key, its user, team and org, a route, a model and a provider.
type Held = SmallVec<[Arc<Account>; 8]>;

/// What a call may use at most; and what it has used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// As they count in budgets, and so weighted.
    pub tokens: u64,
    /// What they cost, in nano-dollars.
    pub nanos: u64,
    /// Whether that is known. What is free is.
    pub priced: bool,
}

/// Leave to use so much. Dropped without being settled it is as if the call had never been.
#[derive(Debug)]
#[must_use = "what is not settled is given back at once"]
pub struct Hold {
    accounts: Held,
    held: Demand,
    began: Moment,
}

/// Takes one request, one place and so much of every account, if all of them allow it. A refusal
/// changes nothing, and is the one that the caller has to wait for longest.
pub fn reserve(
    accounts: &[Arc<Account>],
    demand: Demand,
    now: Moment,
) -> Result<Hold, Box<Refusal>> {
    attempt(accounts, demand, now, Inquiry::default()).map_err(|denial| denial.refusal)
}

/// The same of accounts that are shared with other replicas, by what is known of them.
pub fn attempt(
    accounts: &[Arc<Account>],
    demand: Demand,
    now: Moment,
    inquiry: Inquiry,
) -> Result<Hold, Denial> {
    let accounts = sorted(accounts);
    let mut states = lock(&accounts);
    let mut found = Found::default();
    for (account, state) in accounts.iter().zip(&mut states) {
        let clocks = (now.wall, account.nanos(now));
        state.advance(clocks);
        let view = account.view(inquiry, now);
        state.objections(demand, (now.wall, view), found.of(account));
    }
    found.verdict()?;
    for (account, state) in accounts.iter().zip(&mut states) {
        state.take(demand, account.nanos(now));
        account.list(state);
    }
    drop(states);
    Ok(Hold { accounts, held: demand, began: now })
}

/// Counts what was begun long ago, whatever the accounts still allow.
pub fn impose(accounts: &[Arc<Account>], now: Moment) -> Hold {
    let (accounts, held) = (sorted(accounts), Demand { priced: true, ..Demand::default() });
    let mut states = lock(&accounts);
    for (account, state) in accounts.iter().zip(&mut states) {
        state.advance((now.wall, account.nanos(now)));
        state.take(held, account.nanos(now));
        account.list(state);
    }
    drop(states);
    Hold { accounts, held, began: now }
}

/// Everybody locks in the same order, so nobody waits for one who waits for him.
fn sorted(accounts: &[Arc<Account>]) -> Held {
    let mut accounts: Held = accounts.iter().map(Arc::clone).collect();
    accounts.sort_unstable_by_key(|account| account.number);
    accounts.dedup_by_key(|account| account.number);
    accounts
}

fn lock(accounts: &[Arc<Account>]) -> SmallVec<[MutexGuard<'_, State>; 8]> {
    accounts.iter().map(|account| account.lock()).collect()
}

// === impl Demand ===

impl Demand {
    pub(super) fn of(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Tokens => self.tokens,
            Unit::Usd => self.nanos,
        }
    }
}

// === impl Hold ===

impl Hold {
    /// What is held.
    pub fn reserved(&self) -> Demand {
        self.held
    }

    /// In which accounts.
    pub fn accounts(&self) -> &[Arc<Account>] {
        &self.accounts
    }

    /// Holds more, as when an answer outgrows what was expected of it. Refused by budgets only,
    /// and then nothing changes: limits by time count it, but break off no answer.
    pub fn grow(&mut self, tokens: u64, nanos: u64, now: Moment) -> Result<(), Box<Refusal>> {
        let more = Demand { tokens, nanos, priced: true };
        self.attempt_to_grow(more, now, Inquiry::default()).map_err(|denial| denial.refusal)
    }

    /// The same in accounts that are shared with other replicas, by what is known of them.
    pub fn attempt_to_grow(
        &mut self,
        more: Demand,
        now: Moment,
        inquiry: Inquiry,
    ) -> Result<(), Denial> {
        let mut states = lock(&self.accounts);
        let mut found = Found::default();
        for (account, state) in self.accounts.iter().zip(&mut states) {
            state.advance((now.wall, account.nanos(now)));
            let view = account.view(inquiry, now);
            state.budget_objections(more, (now.wall, view), found.of(account));
        }
        found.verdict()?;
        for (account, state) in self.accounts.iter().zip(&mut states) {
            let clocks = (account.nanos(self.began), account.nanos(now));
            state.take_more(self.held.tokens, more, clocks);
        }
        drop(states);
        self.held.tokens = self.held.tokens.saturating_add(more.tokens);
        self.held.nanos = self.held.nanos.saturating_add(more.nanos);
        Ok(())
    }

    /// Puts what was used in the place of what was held: in the windows of now for budgets, and
    /// where the call began for limits. The soft thresholds that this has crossed.
    pub fn settle(mut self, tokens: u64, nanos: u64, now: Moment) -> Vec<Crossed> {
        let used = Demand { tokens, nanos, priced: true };
        let mut crossed = Vec::new();
        for account in std::mem::take(&mut self.accounts) {
            let clocks = (now.wall, account.nanos(now));
            let mut state = account.lock();
            state.advance(clocks);
            let places = state.settle(self.held, used, account.nanos(self.began), clocks);
            account.list(&mut state);
            let told = |place: usize| Crossed::of(&account, &state.purses[place]);
            crossed.extend(places.into_iter().map(told));
        }
        crossed
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        for account in &self.accounts {
            account.lock().give_back(self.held, account.nanos(self.began));
        }
    }
}
