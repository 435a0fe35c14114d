//! Who has limits or budgets, and the accounts in which their calls are counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::account::{Account, Accounts, Moment, Scope};
use crate::config::{Budget, Config, Limits};

/// What a call is counted in, and what must be known of it for that.
#[derive(Debug, Clone, Default)]
pub struct Tab {
    /// Of those that have limits or budgets.
    pub accounts: Vec<Arc<Account>>,
    /// Tokens or money are limited, and not only calls.
    pub measured: bool,
    /// There are budgets.
    pub budgeted: bool,
}

/// Everybody in a config who has limits or budgets.
#[derive(Debug, Default)]
pub struct Tabs(BTreeMap<(Scope, String), Tab>);

// === impl Tabs ===

impl Tabs {
    /// Finds the accounts; changes nothing in them.
    pub fn find(config: &Config, accounts: &Accounts) -> Self {
        let tabs = terms(config).map(|((scope, name), (limits, budgets))| {
            let tab = Tab::of(limits, budgets, || accounts.account(scope, name));
            ((scope, name.to_owned()), tab)
        });
        Self(tabs.collect())
    }

    /// Puts the config's terms in force. Not before all of it is accepted.
    pub fn apply(&self, config: &Config, now: Moment) {
        self.apply_beside(config, &Self::default(), now);
    }

    /// The same only for those who have no terms among `others`.
    pub fn apply_beside(&self, config: &Config, others: &Self, now: Moment) {
        for ((scope, name), (limits, budgets)) in terms(config) {
            let holder = (scope, name.to_owned());
            let tab = self.0.get(&holder).filter(|_| !others.0.contains_key(&holder));
            for account in tab.iter().flat_map(|tab| &tab.accounts) {
                account.apply(limits, budgets, now);
            }
        }
    }

    /// What a call is counted in that concerns all of these.
    pub fn tab(&self, holders: &[(Scope, Option<&str>)]) -> Tab {
        let named = holders.iter().filter_map(|(scope, name)| Some((*scope, (*name)?.to_owned())));
        named.filter_map(|holder| self.0.get(&holder)).fold(Tab::default(), |mut all, tab| {
            all.add(tab);
            all
        })
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.0.values().flat_map(|tab| &tab.accounts)
    }

    /// The accounts of one kind of holder.
    pub fn of(&self, scope: Scope) -> impl Iterator<Item = &Arc<Account>> {
        let tabs = self.0.iter().filter(move |((known, _), _)| *known == scope);
        tabs.flat_map(|(_, tab)| &tab.accounts)
    }
}

type Term<'a> = ((Scope, &'a str), (&'a Limits, &'a [Budget]));

/// What is written for each of those for whom something is.
fn terms(config: &Config) -> impl Iterator<Item = Term<'_>> {
    const NONE: &[Budget] = &[];
    let keys = config.keys.iter().map(|(name, it)| (Scope::Key, name, &it.limits, &*it.budget));
    let users = config.users.iter().map(|(name, it)| (Scope::User, name, &it.limits, &*it.budget));
    let teams = config.teams.iter().map(|(name, it)| (Scope::Team, name, &it.limits, &*it.budget));
    let orgs = config.orgs.iter().map(|(name, it)| (Scope::Org, name, &it.limits, &*it.budget));
    let routes = config.routes.iter().map(|(name, it)| (Scope::Route, name, &it.limits, NONE));
    let models = config.models.iter().map(|(name, it)| (Scope::Model, name, &it.limits, NONE));
    let providers =
        config.providers.iter().map(|(name, it)| (Scope::Provider, name, &it.limits, NONE));
    let all = keys.chain(users).chain(teams).chain(orgs).chain(routes).chain(models);
    all.chain(providers)
        .filter(|(_, _, limits, budgets)| !limits.is_empty() || !budgets.is_empty())
        .map(|(scope, name, limits, budgets)| ((scope, name.as_str()), (limits, budgets)))
}

// === impl Tab ===

impl Tab {
    /// Of whoever has these terms, if there are any.
    pub(super) fn of(
        limits: &Limits,
        budgets: &[Budget],
        account: impl FnOnce() -> Arc<Account>,
    ) -> Self {
        if limits.is_empty() && budgets.is_empty() {
            return Self::default();
        }
        Self {
            accounts: vec![account()],
            measured: !limits.tokens.is_empty() || !budgets.is_empty(),
            budgeted: !budgets.is_empty(),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.accounts.extend(other.accounts.iter().cloned());
        self.measured |= other.measured;
        self.budgeted |= other.budgeted;
    }

    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }
}
