//! What the holder of an account is shown of its budgets.

use std::fmt;
use std::sync::Arc;

use jiff::Zoned;
use serde::{Serialize, Serializer};

use super::purse::Purse;
use super::{Account, Demand, Moment, Scope};
use crate::canon::Money;
use crate::config::Unit;

/// So many tokens, or so many nano-dollars, which are shown as USD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amount {
    pub unit: Unit,
    pub value: u64,
}

/// One budget as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BudgetStatus {
    pub scope: Scope,
    pub unit: Unit,
    pub limit: Amount,
    pub used: Amount,
    /// Held by calls in flight.
    pub reserved: Amount,
    pub left: Amount,
    /// As it was written.
    pub window: String,
    /// In RFC 3339, by the budget's time zone.
    pub resets_at: Option<String>,
}

/// A soft threshold that was crossed, told once in each window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossed {
    pub scope: Scope,
    pub name: Arc<str>,
    pub used: Amount,
    pub limit: Amount,
    pub soft_permille: u32,
    pub window: String,
    pub resets_at: Option<Zoned>,
}

const MILLION: u32 = 1_000_000;

/// What is neither used nor held: the least of all budgets, `None` where there is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    pub tokens: Option<u64>,
    pub nanos: Option<u64>,
}

/// What a call by these accounts could hold at most.
pub fn left(accounts: &[Arc<Account>], now: Moment) -> Left {
    let mut least = Left::default();
    each_purse(accounts, now, |purse, reserved| {
        let left = purse.left(reserved);
        let slot = match purse.budget.unit {
            Unit::Tokens => &mut least.tokens,
            Unit::Usd => &mut least.nanos,
        };
        *slot = Some(slot.map_or(left, |other| other.min(left)));
    });
    least
}

/// Whether so much would fit in so many times over, of tokens and money.
pub fn is_ample(accounts: &[Arc<Account>], demand: Demand, times: u64, now: Moment) -> bool {
    accounts.iter().all(|account| {
        let mut state = account.lock();
        state.advance((now.wall, account.nanos(now)));
        let tokens = demand.tokens.saturating_mul(times);
        let paced = state.token_rates.iter().all(|meter| meter.remaining() >= tokens);
        let fits = |purse: &Purse| {
            let (asked, reserved) =
                (demand.of(purse.budget.unit), state.reserved(purse.budget.unit));
            purse.left(reserved) >= asked.saturating_mul(times)
        };
        paced && state.purses.iter().all(fits)
    })
}

/// The smallest share of a budget that is neither used nor held, from 1 to 0; 1 without a budget.
pub fn least_share(accounts: &[Arc<Account>], now: Moment) -> f64 {
    f64::from(least_millionths(accounts, now)) / f64::from(MILLION)
}

/// The same in millionths.
pub fn least_millionths(accounts: &[Arc<Account>], now: Moment) -> u32 {
    let mut least = MILLION;
    each_purse(accounts, now, |purse, reserved| {
        let share = u128::from(purse.left(reserved)) * u128::from(MILLION);
        let share = share / u128::from(purse.limit().max(1));
        least = least.min(u32::try_from(share).unwrap_or(MILLION));
    });
    least
}

/// Whether more than a soft threshold of some budget is used.
pub fn is_past_soft(accounts: &[Arc<Account>], now: Moment) -> bool {
    let mut past = false;
    each_purse(accounts, now, |purse, _| past |= purse.is_beyond_soft());
    past
}

fn each_purse(accounts: &[Arc<Account>], now: Moment, mut look: impl FnMut(&Purse, u64)) {
    for account in accounts {
        let mut state = account.lock();
        state.advance((now.wall, account.nanos(now)));
        for purse in &state.purses {
            look(purse, state.reserved_of(purse));
        }
    }
}

/// In RFC 3339, with the offset of its zone.
pub(super) fn instant(at: &Zoned) -> String {
    at.timestamp().display_with_offset(at.offset()).to_string()
}

// === impl Amount ===

impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.unit {
            Unit::Tokens => write!(formatter, "{} tokens", self.value),
            Unit::Usd => write!(formatter, "{} USD", Money::from_nanos(self.value)),
        }
    }
}

impl Serialize for Amount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.unit {
            Unit::Tokens => serializer.serialize_u64(self.value),
            Unit::Usd => {
                // By way of its digits, to be the fraction that is nearest to it.
                let digits = Money::from_nanos(self.value).to_string();
                serializer.serialize_f64(digits.parse().unwrap_or_default())
            }
        }
    }
}

// === impl BudgetStatus, Crossed ===

impl BudgetStatus {
    pub(super) fn of(account: &Account, purse: &Purse, reserved: u64) -> Self {
        let unit = purse.budget.unit;
        let amount = |value| Amount { unit, value };
        Self {
            scope: account.scope,
            unit,
            limit: amount(purse.limit()),
            used: amount(purse.used()),
            reserved: amount(reserved),
            left: amount(purse.left(reserved)),
            window: purse.budget.label.clone(),
            resets_at: purse.resets_at().as_ref().map(instant),
        }
    }
}

impl Crossed {
    pub(super) fn of(account: &Account, purse: &Purse) -> Self {
        let amount = |value| Amount { unit: purse.budget.unit, value };
        Self {
            scope: account.scope,
            name: Arc::clone(&account.name),
            used: amount(purse.used()),
            limit: amount(purse.limit()),
            soft_permille: purse.budget.soft_permille.unwrap_or_default(),
            window: purse.budget.label.clone(),
            resets_at: purse.resets_at(),
        }
    }
}
