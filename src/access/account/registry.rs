//! The accounts of the process: one for each name, which outlives each config.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use tokio::time::Instant;

use super::sharing::Sharing;
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
    sharing: OnceLock<Arc<Sharing>>,
}

// === impl Accounts ===

impl Accounts {
    pub fn new(origin: Instant) -> Self {
        Self { known: Mutex::default(), origin, sharing: OnceLock::new() }
    }

    /// So many replicas count together from here on. Before the first account is asked for.
    pub fn share_among(&self, replicas: u32) {
        self.sharing.get_or_init(|| Arc::new(Sharing::new(replicas)));
    }

    /// Those of which something may have to be told to the other replicas. They are in the list no
    /// more.
    pub fn take_listed(&self) -> Vec<Arc<Account>> {
        self.sharing.get().map(|sharing| sharing.take()).unwrap_or_default()
    }

    /// All that are in use.
    pub fn all(&self) -> Vec<Arc<Account>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.accounts.values().filter_map(Weak::upgrade).collect()
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
        let sharing = self.sharing.get().cloned();
        let replicas = sharing.as_ref().map(|sharing| sharing.replicas());
        let state = Mutex::new(State::among(replicas));
        let origin = self.origin;
        let account = Arc::new(Account { scope, name, number, origin, sharing, state });
        *slot = Arc::downgrade(&account);
        account
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new(Instant::now())
    }
}
