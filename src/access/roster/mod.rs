//! The keys that were made at run time, found without a lock, and the users, teams and orgs that
//! keys belong to.
//!
//! Digests lie in many small maps, each of which is replaced whole when something in it changes. A
//! key's accounts are made when it is first used, and looked for anew when the world around it has
//! changed.

mod key;
mod world;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use arc_swap::ArcSwap;
use jiff::Timestamp;

pub use self::key::{Key, Mark};
pub(super) use self::world::World;
use super::account::{Account, Accounts, Moment, Scope};
use super::{Principal, invalid};
use crate::config::entry::{Kind, People, Terms};
use crate::config::{self, Config};
use crate::error::{Error, Kind as Fault};

/// A change copies one map, which so has some hundred keys where there are many.
const SHARDS: usize = 256;

type Digest = [u8; 32];
type Shard = HashMap<Digest, Arc<Key>>;

/// All that was made at run time, and what is counted of everybody.
#[derive(Debug)]
pub struct Roster {
    pub accounts: Arc<Accounts>,
    shards: Vec<ArcSwap<Shard>>,
    world: ArcSwap<World>,
    index: Mutex<Index>,
}

/// The same by name. Locked by changes and lists, and by the first call of a key.
#[derive(Debug, Default)]
struct Index {
    keys: BTreeMap<Arc<str>, Arc<Key>>,
    members: BTreeMap<(Kind, Arc<str>), Member>,
    file: Arc<world::File>,
}

/// A user, team or org made at run time.
#[derive(Debug, Clone)]
pub struct Member {
    pub terms: Terms,
    pub created_at: SystemTime,
    pub changed_at: SystemTime,
    pub version: i64,
}

/// One that was made or changed, as it is to be from now on.
#[derive(Debug, Clone)]
pub struct Record {
    pub kind: Kind,
    pub id: Arc<str>,
    /// None where they cannot be read, and then nobody is let in by it.
    pub terms: Option<Terms>,
    pub created_at: SystemTime,
    pub changed_at: SystemTime,
    /// Since when a key is revoked, or another is gone.
    pub ended_at: Option<SystemTime>,
    pub secrets: Vec<Mark>,
    /// It may have spent something that its account does not know of.
    pub has_past: bool,
    /// Which change made it so.
    pub version: i64,
}

// === impl Roster ===

impl Roster {
    pub fn new(accounts: Arc<Accounts>) -> Self {
        Self {
            accounts,
            shards: (0..SHARDS).map(|_| ArcSwap::default()).collect(),
            world: ArcSwap::default(),
            index: Mutex::default(),
        }
    }

    /// Whose digest this is, if the key was made at run time and may still be used.
    pub(super) fn find(
        &self,
        digest: &Digest,
        now: Timestamp,
    ) -> Result<Option<Arc<Principal>>, Error> {
        let shard = self.shard(digest).load();
        let Some(key) = shard.get(digest) else { return Ok(None) };
        key.check(digest, now)?;
        match key.ready() {
            Some(ready) if ready.epoch == self.world.load().epoch => Ok(Some(ready)),
            _ => self.prepare(digest).map(Some),
        }
    }

    /// The key of this name, if it may still be used, whichever of its secrets is shown.
    pub(super) fn recognise(&self, id: &str) -> Result<Arc<Principal>, Error> {
        let gone = || Error::new(Fault::KeyRevoked, "This API key was revoked or removed.");
        let index = self.lock();
        let key = index.keys.get(id).filter(|key| key.is_live()).ok_or_else(gone)?;
        let world = self.world.load_full();
        match key.ready() {
            Some(ready) if ready.epoch == world.epoch => Ok(ready),
            _ => key.prepare((&world, &self.accounts), Moment::now()),
        }
    }

    /// Who there is besides keys.
    pub(super) fn world(&self) -> Arc<World> {
        self.world.load_full()
    }

    /// Looks for the accounts of a key.
    #[cold]
    fn prepare(&self, digest: &Digest) -> Result<Arc<Principal>, Error> {
        let _index = self.lock();
        let world = self.world.load_full();
        // As it is now: the one that was found before may have been changed since.
        let Some(key) = self.shard(digest).load().get(digest).cloned() else {
            return Err(invalid());
        };
        match key.ready() {
            Some(ready) if ready.epoch == world.epoch => Ok(ready),
            _ => key.prepare((&world, &self.accounts), Moment::now()),
        }
    }

    /// Takes over what the file says of users, teams and orgs, and whose names are the file's.
    pub fn adopt(&self, config: &Config) {
        let mut index = self.lock();
        index.file = Arc::new(world::File::of(config));
        self.rebuild(&index);
    }

    /// Takes over what was made, changed or ended. The accounts that may have a past.
    pub fn take(&self, records: Vec<Record>) -> Vec<Arc<Account>> {
        let mut index = self.lock();
        let (keys, members): (Vec<_>, Vec<_>) =
            records.into_iter().partition(|record| record.kind == Kind::Key);
        let mut to_seed = Vec::new();
        if !members.is_empty() {
            let names: Vec<_> = members.iter().map(|it| (it.kind, Arc::clone(&it.id))).collect();
            for record in members {
                index.take_member(record);
            }
            self.rebuild(&index);
            let world = self.world.load();
            to_seed.extend(names.iter().flat_map(|(kind, id)| world.accounts(*kind, id)));
        }
        to_seed.extend(self.take_keys(&mut index, keys));
        to_seed
    }

    fn take_keys(&self, index: &mut Index, records: Vec<Record>) -> Vec<Arc<Account>> {
        let world = self.world.load_full();
        let mut shards: HashMap<usize, Shard> = HashMap::new();
        let mut to_seed = Vec::new();
        for record in records {
            let (id, has_past) = (Arc::clone(&record.id), record.has_past);
            let old = index.keys.get(&id).cloned();
            for mark in old.iter().flat_map(|key| &key.secrets) {
                self.copy(&mut shards, &mark.digest).remove(&mark.digest);
            }
            let Some(key) = Key::of(record).map(Arc::new) else {
                index.keys.remove(&id);
                continue;
            };
            if let Some(ready) = old.and_then(|old| old.ready()) {
                // The old one holds the account until the new one does.
                key.inherit(ready);
            }
            if key.is_live()
                && (key.ready().is_some() || (has_past && !key.terms.budget.is_empty()))
            {
                let ready = key.prepare_unseeded((&world, &self.accounts), Moment::now());
                let own = ready.iter().flat_map(|ready| &ready.tab.accounts);
                to_seed.extend(own.filter(|it| it.scope == Scope::Key).cloned());
            }
            for mark in &key.secrets {
                self.copy(&mut shards, &mark.digest).insert(mark.digest, Arc::clone(&key));
            }
            index.keys.insert(id, key);
        }
        for (place, shard) in shards {
            self.shards[place].store(Arc::new(shard));
        }
        to_seed
    }

    /// The map of a digest as it is to be.
    fn copy<'a>(&self, shards: &'a mut HashMap<usize, Shard>, digest: &Digest) -> &'a mut Shard {
        let place = usize::from(digest[0]) % SHARDS;
        shards.entry(place).or_insert_with(|| Shard::clone(&self.shards[place].load()))
    }

    fn rebuild(&self, index: &Index) {
        let epoch = self.world.load().epoch + 1;
        let members = index.members.iter().map(|((_, id), member)| (id, &member.terms));
        let world = World::build(epoch, &index.file, members, &self.accounts);
        self.world.store(Arc::new(world));
    }

    fn shard(&self, digest: &Digest) -> &ArcSwap<Shard> {
        &self.shards[usize::from(digest[0]) % SHARDS]
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Roster {
    fn default() -> Self {
        Self::new(Arc::default())
    }
}

// === What is asked of it by name ===

impl Roster {
    pub fn key(&self, id: &str) -> Option<Arc<Key>> {
        self.lock().keys.get(id).cloned()
    }

    pub fn member(&self, kind: Kind, id: &str) -> Option<Member> {
        self.lock().members.get(&(kind, id.into())).cloned()
    }

    /// Hands over the keys behind `after`, by id, until `take` wants no more.
    pub fn keys_after(&self, after: &str, mut take: impl FnMut(&Arc<Key>) -> bool) {
        let index = self.lock();
        let from = index.keys.range(Arc::from(after)..);
        for (_, key) in from.skip_while(|(id, _)| ***id == *after) {
            if !take(key) {
                return;
            }
        }
    }

    /// The same for users, teams or orgs.
    pub fn members_after(
        &self,
        kind: Kind,
        after: &str,
        mut take: impl FnMut(&Arc<str>, &Member) -> bool,
    ) {
        let index = self.lock();
        let from = index.members.range((kind, Arc::from(after))..);
        for ((other, id), member) in from.skip_while(|((_, id), _)| **id == *after) {
            if *other != kind || !take(id, member) {
                return;
            }
        }
    }

    /// Who of those made at run time belongs to this user, team or org.
    pub fn belongs_to(&self, kind: Kind, name: &str) -> Option<(Kind, Arc<str>)> {
        let index = self.lock();
        let is = |named: &Option<String>| named.as_deref() == Some(name);
        let key = index.keys.values().find(|key| match kind {
            _ if !key.is_live() => false,
            Kind::User => is(&key.terms.user),
            Kind::Team => is(&key.terms.team),
            Kind::Key | Kind::Org => false,
        });
        let member = index.members.iter().find(|(_, member)| match (&member.terms, kind) {
            (Terms::User(user), Kind::Team) => is(&user.team),
            (Terms::Team(team), Kind::Org) => is(&team.org),
            _ => false,
        });
        let key = key.map(|key| (Kind::Key, Arc::clone(&key.id)));
        key.or_else(|| member.map(|((kind, id), _)| (*kind, Arc::clone(id))))
    }

    /// The team of keys and users with these terms; a team is its own.
    pub fn team_of(&self, id: &str, terms: &Terms) -> Option<String> {
        match terms {
            Terms::Key(key) => self.team_of_key(key).map(|team| team.to_string()),
            Terms::User(user) => user.team.clone(),
            Terms::Team(_) => Some(id.to_owned()),
            Terms::Org(_) => None,
        }
    }

    /// A key's own team, or its user's.
    pub fn team_of_key(&self, key: &config::Key) -> Option<Arc<str>> {
        self.world.load().team_of(key)
    }

    pub fn team_of_user(&self, user: &str) -> Option<Arc<str>> {
        self.world.load().team_of_user(user)
    }

    /// The account of somebody who has limits or budgets, made if it has to be.
    pub fn account(&self, kind: Kind, id: &str) -> Option<Arc<Account>> {
        let index = self.lock();
        let world = self.world.load_full();
        if kind != Kind::Key {
            return world.accounts(kind, id).next();
        }
        let key = index.keys.get(id)?;
        let ready = match key.ready() {
            Some(ready) if ready.epoch == world.epoch => ready,
            _ => key.prepare((&world, &self.accounts), Moment::now()).ok()?,
        };
        ready.tab.accounts.iter().find(|account| account.scope == Scope::Key).cloned()
    }

    /// Accounts of users, teams or orgs.
    pub fn accounts_of(&self, kind: Kind) -> Vec<Arc<Account>> {
        self.world.load().all_accounts(&[kind]).collect()
    }

    /// Accounts of everybody made at run time who has been met, and of all users, teams and orgs.
    pub fn all_accounts(&self) -> Vec<Arc<Account>> {
        let index = self.lock();
        let ready = index.keys.values().filter_map(|key| key.ready());
        let own = ready.filter_map(|ready| {
            ready.tab.accounts.iter().find(|account| account.scope == Scope::Key).cloned()
        });
        own.chain(self.world.load().all_accounts(&Kind::ALL)).collect()
    }
}

impl People for Roster {
    fn has(&self, kind: Kind, name: &str) -> bool {
        match kind {
            Kind::Key => self.lock().keys.contains_key(name),
            _ => self.world.load().has(kind, name),
        }
    }

    fn names(&self, kind: Kind) -> Vec<String> {
        self.world.load().names(kind)
    }
}

// === impl Index ===

impl Index {
    fn take_member(&mut self, record: Record) {
        let name = (record.kind, record.id);
        let Record { created_at, changed_at, version, .. } = record;
        match record.terms.filter(|_| record.ended_at.is_none()) {
            Some(terms) => {
                self.members.insert(name, Member { terms, created_at, changed_at, version });
            }
            None => {
                self.members.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests;
