//! One key that was made at run time.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;

use super::{Digest, Record, World};
use crate::access::Principal;
use crate::access::account::{Account, Accounts, Moment, Scope};
use crate::access::tab::Tab;
use crate::config;
use crate::config::entry::Terms;
use crate::error::{Error, Kind as Fault};

/// A key and all its secrets' digests. Equal terms are the same terms.
#[derive(Debug)]
pub struct Key {
    pub id: Arc<str>,
    pub terms: Arc<config::Key>,
    pub created_at: SystemTime,
    pub changed_at: SystemTime,
    pub revoked_at: Option<SystemTime>,
    pub secrets: Box<[Mark]>,
    /// Which change made it so.
    pub version: i64,
    /// Who calls with it, once somebody has.
    ready: ArcSwapOption<Principal>,
}

/// What a secret is recognised by, and for how long it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    pub digest: Digest,
    /// As long as the key, if there is none.
    pub valid_until: Option<Timestamp>,
}

impl Key {
    pub(super) fn of(record: Record) -> Option<Self> {
        let Some(Terms::Key(terms)) = record.terms else { return None };
        Some(Self {
            id: record.id,
            terms,
            created_at: record.created_at,
            changed_at: record.changed_at,
            revoked_at: record.ended_at,
            secrets: record.secrets.into(),
            version: record.version,
            ready: ArcSwapOption::empty(),
        })
    }

    pub fn is_live(&self) -> bool {
        self.revoked_at.is_none()
    }

    /// Whether somebody with this secret may come in.
    pub(super) fn check(&self, digest: &Digest, now: Timestamp) -> Result<(), Error> {
        if !self.is_live() {
            return Err(Error::new(Fault::KeyRevoked, "This API key was revoked."));
        }
        let mark = self.secrets.iter().find(|mark| mark.digest == *digest);
        if mark.is_none_or(|mark| mark.valid_until.is_some_and(|until| until <= now)) {
            let message = "This API key was replaced by a newer one.";
            return Err(Error::new(Fault::ExpiredKey, message));
        }
        Ok(())
    }

    pub(super) fn ready(&self) -> Option<Arc<Principal>> {
        self.ready.load_full()
    }

    /// Keeps the account of what it takes the place of.
    pub(super) fn inherit(&self, ready: Arc<Principal>) {
        self.ready.store(Some(ready));
    }

    /// Finds its accounts. One that was never used has no past.
    pub(super) fn prepare(
        &self,
        around: (&World, &Accounts),
        now: Moment,
    ) -> Result<Arc<Principal>, Error> {
        let is_first = self.ready.load().is_none();
        let ready = self.prepare_unseeded(around, now)?;
        let own = ready.tab.accounts.iter().filter(|account| account.scope == Scope::Key);
        for account in own.filter(|_| is_first) {
            for unseeded in account.unseeded() {
                account.seed(unseeded.budget, &[], now);
            }
        }
        Ok(ready)
    }

    /// The same where the ledger knows more.
    pub(super) fn prepare_unseeded(
        &self,
        (world, accounts): (&World, &Accounts),
        now: Moment,
    ) -> Result<Arc<Principal>, Error> {
        let own = self.own_tab(accounts, now);
        let ready = Arc::new(world.principal(&self.id, &self.terms, own)?);
        self.ready.store(Some(Arc::clone(&ready)));
        Ok(ready)
    }

    fn own_tab(&self, accounts: &Accounts, now: Moment) -> Tab {
        let account = |scope, name: &str| -> Arc<Account> { accounts.account(scope, name) };
        let (limits, budgets) = (&self.terms.limits, &self.terms.budget);
        let tab = Tab::of(limits, budgets, || account(Scope::Key, &self.id));
        for account in &tab.accounts {
            account.apply(limits, budgets, now);
        }
        tab
    }
}
