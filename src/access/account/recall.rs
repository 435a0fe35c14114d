//! What replicas that are gone have used of a budget, as the ledger knows it, told again to a
//! shared store that may have forgotten it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::sharing::Kind;
use super::{Account, Moment, purse};
use crate::config::{Unit, Window};
use crate::store::Spent;
use crate::store::shared::{Recalled, Used};

/// The ledger knows when something was spent to the minute.
const MINUTE: Duration = Duration::from_mins(1);

/// A budget that counts together with those of other replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedBudget {
    pub unit: Unit,
    /// What was spent since counts.
    pub from: Timestamp,
    /// Of a window that rolls, its length.
    period: Option<Duration>,
    key: String,
    window: i64,
    life: Option<Duration>,
}

impl Account {
    /// None where nobody else counts.
    pub fn shared_budgets(&self, now: Moment) -> Vec<SharedBudget> {
        if self.sharing.is_none() {
            return Vec::new();
        }
        let mut state = self.lock();
        state.advance((now.wall, self.nanos(now)));
        let budget = |purse: &purse::Purse| {
            let (unit, window) = (purse.budget.unit, &purse.budget.window);
            SharedBudget {
                unit,
                from: purse.begins(now.wall),
                period: match window {
                    Window::Rolling(period) => Some(*period),
                    Window::Never | Window::Calendar(..) => None,
                },
                key: format!("{}{}", self.shared_name(), Kind::Budget(unit, window.clone()).name()),
                window: purse.number(),
                life: purse.life(now.wall),
            }
        };
        state.purses.iter().map(budget).collect()
    }
}

// === impl SharedBudget ===

impl SharedBudget {
    /// What each of these nodes has used of it, by what they spent in which minute.
    pub fn recalled(&self, spent: &[Spent], now: Timestamp) -> Vec<Recalled> {
        let mut by_node: BTreeMap<&str, Vec<(Timestamp, u64)>> = BTreeMap::new();
        for Spent { node, at, amount } in spent {
            let Ok(at) = (*at).try_into() else { continue };
            by_node.entry(node).or_default().push((at, *amount));
        }
        let recalled = |(node, spent): (&str, Vec<(Timestamp, u64)>)| Recalled {
            node: node.to_owned(),
            key: self.key.clone(),
            window: self.window,
            used: self.used(&spent, now),
            life: self.life,
        };
        by_node.into_iter().map(recalled).collect()
    }

    fn used(&self, spent: &[(Timestamp, u64)], now: Timestamp) -> Used {
        let Some(period) = self.period else {
            return Used::In(spent.iter().fold(0, |sum, (_, amount)| sum.saturating_add(*amount)));
        };
        let left = |at: Timestamp| {
            let end = at.checked_add(period + MINUTE).unwrap_or(Timestamp::MAX);
            Duration::try_from(end.duration_since(now)).ok()
        };
        Used::Rolling(spent.iter().filter_map(|(at, it)| Some((left(*at)?, *it))).collect())
    }
}
