//! Who belongs to whom: users, teams and orgs of the file and those made at run time, together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::access::Principal;
use crate::access::account::{Account, Accounts, Moment, Scope};
use crate::access::tab::Tab;
use crate::config::entry::{Kind, Terms};
use crate::config::{self, Config};
use crate::error::{Error, Kind as Fault};

type Names<T> = BTreeMap<Arc<str>, T>;

/// What the file says of them.
#[derive(Debug, Default)]
pub(in crate::access) struct File {
    keys: BTreeSet<Arc<str>>,
    members: Vec<(Arc<str>, Terms)>,
}

/// All of them, as they are now. Replaced whole.
#[derive(Debug, Default)]
pub(in crate::access) struct World {
    /// Rises with each change.
    pub(in crate::access) epoch: u64,
    users: Names<Member>,
    teams: Names<Member>,
    orgs: Names<Member>,
    file: Arc<File>,
}

#[derive(Debug)]
struct Member {
    /// The team of a user, the org of a team.
    belongs_to: Option<Arc<str>>,
    tab: Tab,
}

// === impl File ===

impl File {
    pub(in crate::access) fn of(config: &Config) -> Self {
        let name = |name: &String| -> Arc<str> { name.as_str().into() };
        let users = config.users.iter().map(|(id, it)| (name(id), Terms::User(it.clone().into())));
        let teams = config.teams.iter().map(|(id, it)| (name(id), Terms::Team(it.clone().into())));
        let orgs = config.orgs.iter().map(|(id, it)| (name(id), Terms::Org(it.clone().into())));
        Self {
            keys: config.keys.keys().map(name).collect(),
            members: users.chain(teams).chain(orgs).collect(),
        }
    }
}

// === impl World ===

impl World {
    /// Whom the file names is as the file says. Puts the terms of the others in force.
    pub(super) fn build<'a>(
        epoch: u64,
        file: &Arc<File>,
        made: impl Iterator<Item = (&'a Arc<str>, &'a Terms)>,
        accounts: &Accounts,
    ) -> Self {
        let mut world = Self { epoch, file: Arc::clone(file), ..Self::default() };
        for (id, terms) in &file.members {
            world.add(id, terms, accounts);
        }
        for (id, terms) in made {
            if !world.add(id, terms, accounts) {
                continue;
            }
            let (limits, budgets) = terms.limits();
            world
                .accounts(terms.kind(), id)
                .for_each(|account| account.apply(limits, budgets, Moment::now()));
        }
        world
    }

    /// As the file alone says.
    pub(in crate::access) fn of_file(config: &Config, accounts: &Accounts) -> Self {
        Self::build(0, &Arc::new(File::of(config)), std::iter::empty(), accounts)
    }

    /// Whether the name was free.
    fn add(&mut self, id: &Arc<str>, terms: &Terms, accounts: &Accounts) -> bool {
        let (names, scope, belongs_to) = match terms {
            Terms::User(user) => (&mut self.users, Scope::User, user.team.as_deref()),
            Terms::Team(team) => (&mut self.teams, Scope::Team, team.org.as_deref()),
            Terms::Org(_) => (&mut self.orgs, Scope::Org, None),
            Terms::Key(_) => return false,
        };
        if names.contains_key(id) {
            return false;
        }
        let (limits, budgets) = terms.limits();
        let tab = Tab::of(limits, budgets, || accounts.account(scope, id));
        names.insert(Arc::clone(id), Member { belongs_to: belongs_to.map(Into::into), tab });
        true
    }

    /// Who calls with a key of these terms, which has a tab of its own.
    pub(in crate::access) fn principal(
        &self,
        id: &Arc<str>,
        terms: &Arc<config::Key>,
        mut tab: Tab,
    ) -> Result<Principal, Error> {
        if self.epoch > 0 && self.file.keys.contains(id) {
            let message = "This API key's name belongs to another key in the config file.";
            return Err(Error::new(Fault::NotAllowed, message));
        }
        let user = terms.user.as_deref().map(|name| find(&self.users, name, "user")).transpose()?;
        let of_user = user.as_ref().and_then(|(_, user)| user.belongs_to.as_deref());
        let team = terms.team.as_deref().or(of_user);
        let team = team.map(|name| find(&self.teams, name, "team")).transpose()?;
        let org = team.as_ref().and_then(|(_, team)| team.belongs_to.as_deref());
        let org = org.map(|name| find(&self.orgs, name, "org")).transpose()?;
        for (_, member) in [&user, &team, &org].into_iter().flatten() {
            tab.add(&member.tab);
        }
        let name = |found: Option<(&Arc<str>, &Member)>| found.map(|(name, _)| Arc::clone(name));
        Ok(Principal {
            id: Arc::clone(id),
            owner: Arc::clone(id),
            user: name(user),
            team: name(team),
            org: name(org),
            terms: Arc::clone(terms),
            tab,
            epoch: self.epoch,
        })
    }

    pub(super) fn team_of(&self, key: &config::Key) -> Option<Arc<str>> {
        let own = key.team.as_deref().map(Arc::from);
        own.or_else(|| self.team_of_user(key.user.as_deref()?))
    }

    pub(super) fn team_of_user(&self, user: &str) -> Option<Arc<str>> {
        self.users.get(user)?.belongs_to.clone()
    }

    fn of(&self, kind: Kind) -> Option<&Names<Member>> {
        match kind {
            Kind::Key => None,
            Kind::User => Some(&self.users),
            Kind::Team => Some(&self.teams),
            Kind::Org => Some(&self.orgs),
        }
    }

    pub(in crate::access) fn has(&self, kind: Kind, name: &str) -> bool {
        self.of(kind).is_some_and(|names| names.contains_key(name))
    }

    pub(super) fn names(&self, kind: Kind) -> Vec<String> {
        self.of(kind).into_iter().flat_map(BTreeMap::keys).map(ToString::to_string).collect()
    }

    /// At most one.
    pub(super) fn accounts(&self, kind: Kind, name: &str) -> impl Iterator<Item = Arc<Account>> {
        let member = self.of(kind).and_then(|names| names.get(name));
        member.map(|member| member.tab.accounts.clone()).into_iter().flatten()
    }

    pub(super) fn all_accounts(&self, kinds: &[Kind]) -> impl Iterator<Item = Arc<Account>> {
        let members = kinds.iter().filter_map(|kind| self.of(*kind)).flat_map(BTreeMap::values);
        members.flat_map(|member| member.tab.accounts.iter().cloned())
    }
}

/// Nobody is let in for somebody who is gone: whose limits would hold?
fn find<'a>(
    names: &'a Names<Member>,
    name: &str,
    kind: &str,
) -> Result<(&'a Arc<str>, &'a Member), Error> {
    names.get_key_value(name).ok_or_else(|| {
        let message = format!("The {kind} that this API key belongs to does not exist any more.");
        Error::new(Fault::NotAllowed, message)
    })
}
