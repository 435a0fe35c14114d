//! The accounts of the process: one for each name, which outlives each config.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::time::Instant;

use super::state::State;
use super::{Account, Scope};

/// Accounts are locked in the order of their numbers, so no two may ever have the same.
static NEXT: AtomicU64 = AtomicU64::new(0);

const SWEEP_AT_LEAST: usize = 64;

/// Whoever uses an account keeps it here; what nobody uses is swept.
#[derive(Debug, Default)]
struct Known {
    accounts: HashMap<(Scope, Arc<str>), Weak<Account>>,
    /// How many there may be before it is worth looking for those that nobody uses.
    sweep_at: usize,
}

/// Finds accounts by whose they are. Locked when a snapshot is built, not by calls.
#[derive(Debug)]
pub struct Accounts {
    known: Mutex<Known>,
    origin: Instant,
}

// === impl Accounts ===

impl Accounts {
    pub fn new(origin: Instant) -> Self {
        Self { known: Mutex::default(), origin }
    }

    /// The account of whoever has this name, as it is if somebody holds it; else a new one, which
    /// allows everything until terms are applied to it.
    pub fn account(&self, scope: Scope, name: &str) -> Arc<Account> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.accounts.len() >= known.sweep_at {
            known.accounts.retain(|_, account| account.strong_count() > 0);
            known.sweep_at = (known.accounts.len() * 2).max(SWEEP_AT_LEAST);
        }
        let name: Arc<str> = name.into();
        let slot = known.accounts.entry((scope, Arc::clone(&name))).or_default();
        if let Some(account) = slot.upgrade() {
            return account;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let state = Mutex::new(State::default());
        let account = Arc::new(Account { scope, name, number, origin: self.origin, state });
        *slot = Arc::downgrade(&account);
        account
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}
