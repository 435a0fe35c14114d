//! Signed tokens of an identity provider (OIDC), taken in the place of a key: proven once, and
//! known by their digest until they end.

mod claims;
mod fetch;
mod jws;
mod keyring;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use moka::sync::Cache;

use self::claims::Identity;
use self::fetch::Source;
use self::jws::Claimed;
use self::keyring::{Keyring, Keys};
use super::account::{Account, Accounts, Moment, Scope};
use super::roster::{Roster, World};
use super::{Caller, CallerRef, Principal, Tab, digest};
use crate::config::entry::Kind;
use crate::config::{self, Algorithm, Config, Oidc};
use crate::error::{self, Error};
use crate::net::client::Client;

/// Tokens that are known by their digest; another one is proven again.
const MOST_TOKENS: u64 = 50_000;
/// Users whose limits and budgets are counted in this process. One who was not here for longest
/// makes room: what was spent of budgets stands in the ledger.
const MOST_USERS: u64 = 100_000;
/// No token is remembered for longer, however long it is good.
const REMEMBERED: Duration = Duration::from_hours(1);

/// The issuers of one configuration, and the tokens that were proven under it.
pub struct Tokens {
    issuers: BTreeMap<String, Issuer>,
    /// By the SHA-256 of all of the token.
    passes: Cache<[u8; 32], Arc<Pass>>,
    seats: Cache<Arc<str>, Arc<Seat>>,
    accounts: Arc<Accounts>,
    /// Of the config whose terms are brought into force.
    generation: AtomicU64,
}

struct Issuer {
    name: Arc<str>,
    oidc: Oidc,
    keyring: Keyring,
}

/// What a token that was proven comes to.
struct Pass {
    caller: Caller,
    seat: Option<Arc<Seat>>,
    issuer: String,
    /// Counted from the beginning of 1970.
    until: Duration,
    /// Of the keys that it was proven by.
    keys: [u8; 32],
}

/// Where one user's calls are counted.
struct Seat {
    account: Arc<Account>,
    /// Of the config under which it was first needed.
    first: u64,
    /// Of the config whose terms are in force.
    generation: AtomicU64,
}

/// Somebody who has shown a token.
#[derive(Debug)]
pub struct Visitor {
    pub caller: Caller,
    /// Their own account, which may not know yet what was spent before.
    pub account: Option<Arc<Account>>,
    /// Nothing was counted in it under an earlier config.
    pub is_new: bool,
}

// === impl Tokens ===

impl Tokens {
    /// The issuers of `config`; on failure says what is wrong with each.
    pub fn build(
        config: &Config,
        generation: u64,
        (client, accounts): (&Client, &Arc<Accounts>),
    ) -> Result<Self, Vec<(String, String)>> {
        let (mut issuers, mut problems) = (BTreeMap::new(), Vec::new());
        for (name, oidc) in &config.oidc {
            match Source::new(oidc, client) {
                Ok(source) => {
                    let known = format!("oidc:{name}").into();
                    let keyring = Keyring::new(source);
                    let issuer = Issuer { name: known, oidc: oidc.clone(), keyring };
                    issuers.insert(name.clone(), issuer);
                }
                Err(problem) => problems.push((format!("auth.oidc.{name}"), problem)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Self {
            issuers,
            passes: Cache::builder().max_capacity(MOST_TOKENS).time_to_live(REMEMBERED).build(),
            seats: Cache::new(MOST_USERS),
            accounts: Arc::clone(accounts),
            generation: AtomicU64::new(generation),
        })
    }

    /// From here on users have the terms of the config of this generation; of a config that is only
    /// tried, that is the one beside it, and what it says itself holds for new users alone.
    pub fn follow(&self, generation: u64) {
        self.generation.store(generation, Ordering::Release);
        // Whoever is known is looked at again, and so given the terms.
        self.passes.invalidate_all();
    }

    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Goes on with the keys and the users that `other` knows. What was proven is proven anew, for
    /// it may mean something else now.
    pub fn inherit(&mut self, other: &Self) {
        self.seats = other.seats.clone();
        for (name, issuer) in &mut self.issuers {
            if let Some(old) = other.issuers.get(name) {
                issuer.keyring.inherit(&old.keyring);
            }
        }
    }

    /// Verifies the token in a request's headers; `None` where what they show is none, or none are
    /// taken. `from`: the client's address, if there is one.
    pub async fn admit(
        &self,
        headers: &HeaderMap,
        from: Option<IpAddr>,
        house: (&Config, &Roster),
    ) -> Option<Result<Visitor, Error>> {
        let text = super::token(headers).ok().filter(|_| !self.issuers.is_empty())?;
        if !jws::is_like(text) {
            return None;
        }
        Some(self.verify(text, house).await.and_then(|visitor| {
            visitor.caller.0.check(from)?;
            Ok(visitor)
        }))
    }

    /// Whoever has shown a token before, under the terms that hold now; `None` for who was known
    /// by a key. Nobody is asked whether the token would still be good.
    pub fn recognise(
        &self,
        known: &CallerRef,
        config: &Config,
        roster: &Roster,
    ) -> Option<Result<Visitor, Error>> {
        let (name, user) = known.visitor()?;
        let Some((name, issuer)) = self.issuers.get_key_value(name) else {
            let message = "The issuer of the token is not known to the gateway any more.";
            return Some(Err(Error::new(error::Kind::KeyRevoked, message)));
        };
        if issuer.oidc.revoked.contains(user) {
            return Some(Err(claims::revoked()));
        }
        let world = roster.world();
        let team = known.team.clone().filter(|team| world.has(Kind::Team, team));
        let identity = Identity { user: user.to_owned(), team, role: known.role() };
        let found = self.caller(name, issuer, identity, config, &world);
        Some(found.and_then(|(caller, seat)| {
            caller.0.check(None)?;
            Ok(Pass::of(caller, seat, name).visitor(self.generation()))
        }))
    }

    async fn verify(
        &self,
        text: &str,
        (config, roster): (&Config, &Roster),
    ) -> Result<Visitor, Error> {
        let (digest, now) = (digest(text), now());
        let world = roster.world();
        if let Some(pass) = self.passes.get(&digest) {
            if pass.until > now
                && pass.caller.0.epoch == world.epoch
                && let Some(issuer) = self.issuers.get(&pass.issuer)
                && issuer.keyring.keys().await?.digest == pass.keys
            {
                return Ok(pass.visitor(self.generation()));
            }
            self.passes.invalidate(&digest);
        }
        let claimed = Claimed::read(text).ok_or_else(|| invalid("This token is malformed."))?;
        let issuer = claimed.issuer();
        let known = self.issuers.iter().find(|(_, known)| Some(&*known.oidc.issuer) == issuer);
        let Some((name, issuer)) = known else {
            return Err(invalid("The issuer of this token is not known to the gateway."));
        };
        let keys = issuer.prove(&claimed).await?;
        let until = claims::check(&claimed.claims, &issuer.oidc, now)?;
        let is_team = |team: &str| world.has(Kind::Team, team);
        let identity = claims::identify(&claimed.claims, &issuer.oidc, is_team)?;
        let (caller, seat) = self.caller(name, issuer, identity, config, &world)?;
        let pass = Arc::new(Pass { caller, seat, issuer: name.clone(), until, keys });
        self.passes.insert(digest, Arc::clone(&pass));
        Ok(pass.visitor(self.generation()))
    }

    /// Whoever this is, under the terms that hold for this issuer's users.
    fn caller(
        &self,
        name: &str,
        issuer: &Issuer,
        identity: Identity,
        config: &Config,
        world: &World,
    ) -> Result<(Caller, Option<Arc<Seat>>), Error> {
        let terms = issuer.oidc.key.as_ref().and_then(|key| config.keys.get(key));
        let terms = terms.cloned().unwrap_or_default();
        // No name in a config has a colon, so nobody passes for somebody of another issuer, nor for
        // a user of the config.
        let user = format!("{name}:{}", identity.user);
        let owner = format!("{}:{}", issuer.name, identity.user);
        let own = config::Key {
            user: None,
            team: identity.team.or_else(|| terms.team.clone()),
            role: identity.role,
            ..terms
        };
        let own = Arc::new(own);
        let user: Arc<str> = user.into();
        let seat =
            (!own.limits.is_empty() || !own.budget.is_empty()).then(|| self.seat(&user, &own));
        let tab = seat.as_ref().map_or_else(Tab::default, |seat| {
            Tab::of(&own.limits, &own.budget, || Arc::clone(&seat.account))
        });
        let principal = world.principal(&issuer.name, &own, tab)?;
        let principal = Principal { user: Some(user), owner: owner.into(), ..principal };
        Ok((Caller(Arc::new(principal)), seat))
    }

    /// The account of a user, with these terms in force.
    fn seat(&self, user: &Arc<str>, own: &config::Key) -> Arc<Seat> {
        let seat = self.seats.get_with(Arc::clone(user), || {
            let account = self.accounts.account(Scope::User, user);
            Arc::new(Seat { account, first: self.generation(), generation: AtomicU64::new(0) })
        });
        // A call that began under an older config must not bring its terms back.
        let generation = self.generation();
        if seat.generation.fetch_max(generation, Ordering::AcqRel) < generation {
            seat.account.apply(&own.limits, &own.budget, Moment::now());
        }
        seat
    }
}

// === impl Issuer ===

impl Issuer {
    /// The digest of the keys that prove the token.
    async fn prove(&self, claimed: &Claimed<'_>) -> Result<[u8; 32], Error> {
        if !claimed.header.is_credential() {
            return Err(invalid("This token is none that speaks for a user."));
        }
        let Some(algorithm) = claimed.header.algorithm(&self.oidc.algorithms) else {
            return Err(invalid("This token is signed in a way that is not taken here."));
        };
        let keys = self.keyring.keys().await?;
        if proves(&keys, claimed, algorithm) {
            return Ok(keys.digest);
        }
        match self.keyring.newer(&keys).await {
            Some(newer) if proves(&newer, claimed, algorithm) => Ok(newer.digest),
            _ => Err(invalid("The signature of this token is not that of a key of its issuer.")),
        }
    }
}

impl Pass {
    /// One that is good for this moment only.
    fn of(caller: Caller, seat: Option<Arc<Seat>>, issuer: &str) -> Self {
        Self { caller, seat, issuer: issuer.to_owned(), until: Duration::ZERO, keys: [0; 32] }
    }

    fn visitor(&self, generation: u64) -> Visitor {
        let seat = self.seat.as_ref();
        Visitor {
            caller: self.caller.clone(),
            account: seat.map(|seat| Arc::clone(&seat.account)),
            is_new: seat.is_some_and(|seat| seat.first == generation),
        }
    }
}

fn proves(keys: &Keys, claimed: &Claimed<'_>, algorithm: Algorithm) -> bool {
    let mut fitting = keys.all.iter().filter(|key| key.fits(&claimed.header, algorithm));
    fitting.any(|key| claimed.is_proven_by(key, algorithm))
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn invalid(message: &'static str) -> Error {
    Error::new(error::Kind::InvalidKey, message)
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_list().entries(self.issuers.keys()).finish()
    }
}

#[cfg(test)]
mod tests;
