//! Who may call. A `Caller` exists only where a key or a token was verified.

pub mod account;
pub mod roster;
mod known;
mod tab;
mod token;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::config::{self, CacheMode, Config, Role, Secret};
use crate::error::{Error, Kind};
use account::Scope;
pub use known::CallerRef;
use roster::{Roster, World};
pub use tab::{Tab, Tabs};
pub use token::{Tokens, Visitor};

/// Everybody who may call: the keys of one configuration, by the digest of their secret, and those
/// made at run time. Maps are keyed afresh in each process, and whole digests are compared, so
/// their timing tells nothing of a secret.
#[derive(Debug, Default)]
pub struct Access {
    keys: HashMap<[u8; 32], Arc<Principal>>,
    roster: Arc<Roster>,
}

/// Who calls with a key.
#[derive(Debug)]
struct Principal {
    id: Arc<str>,
    /// Whose is what its calls leave behind.
    owner: Arc<str>,
    user: Option<Arc<str>>,
    team: Option<Arc<str>>,
    org: Option<Arc<str>>,
    /// What is written for the key.
    terms: Arc<config::Key>,
    /// What its calls are counted in: its own account and those of its user, team and org.
    tab: Tab,
    /// In which state of the world that was found.
    epoch: u64,
}

/// Who is calling: proof that a key was shown and is known.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Principal>);

// === impl Access ===

impl Access {
    pub fn build(config: &Config, tabs: &Tabs, roster: &Arc<Roster>) -> Self {
        let world = World::of_file(config, &roster.accounts);
        let keys = config.keys.iter().filter_map(|(name, key)| {
            let digest = match (&key.hash, &key.secret) {
                (Some(hash), _) => *hash,
                (None, Some(secret)) => digest(secret.expose()),
                (None, None) => return None,
            };
            let terms = Arc::new(config::Key { secret: None, ..key.clone() });
            let own = tabs.tab(&[(Scope::Key, Some(name))]);
            // The config was checked, so they all exist.
            let principal = world.principal(&name.as_str().into(), &terms, own).ok()?;
            Some((digest, Arc::new(principal)))
        });
        Self { keys: keys.collect(), roster: Arc::clone(roster) }
    }

    /// Verifies the key in a request's headers. `from`: the client's address; a call that did not
    /// come over the network has none.
    pub fn admit(&self, headers: &HeaderMap, from: Option<IpAddr>) -> Result<Caller, Error> {
        let digest = digest(token(headers)?);
        let principal = match self.keys.get(&digest) {
            Some(principal) => Arc::clone(principal),
            None => self.roster.find(&digest, Timestamp::now())?.ok_or_else(invalid)?,
        };
        principal.check(from)?;
        Ok(Caller(principal))
    }

    /// Whoever this was, if they may still call. Nothing is shown that would prove it: it is for
    /// work that was begun when it was proven.
    pub fn recognise(&self, known: &CallerRef) -> Result<Caller, Error> {
        let of_file = self.keys.values().find(|principal| *principal.id == *known.key);
        let principal = match of_file {
            Some(principal) => Arc::clone(principal),
            None => self.roster.recognise(&known.key)?,
        };
        principal.check(None)?;
        Ok(Caller(principal))
    }
}

// === impl Principal ===

impl Principal {
    /// Whether it is good now and from this address.
    fn check(&self, from: Option<IpAddr>) -> Result<(), Error> {
        let key = &self.terms;
        if key.expires.is_some_and(|expires| expires <= Timestamp::now()) {
            return Err(Error::new(Kind::ExpiredKey, "This API key has expired."));
        }
        if let (Some(ips), Some(from)) = (&key.ips, from)
            && !ips.iter().any(|network| network.contains(&from.to_canonical()))
        {
            let message = format!("This API key may not be used from {from}.");
            return Err(Error::new(Kind::NotAllowed, message));
        }
        Ok(())
    }
}

fn invalid() -> Error {
    Error::new(Kind::InvalidKey, "This API key is not known to the gateway.")
}

/// What a secret is recognised by.
pub fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// A secret of 192 random bits, behind a prefix that secret scanners can know. `None`: the system
/// gives no random numbers, without which nothing here is safe.
pub fn new_secret() -> Option<Secret> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).ok()?;
    Some(Secret::new(format!("sk-sp-{}", URL_SAFE_NO_PAD.encode(bytes))))
}

/// What `Authorization` shows by the scheme `Bearer`, whatever its case (RFC 9110, section 11.1).
pub fn bearer(value: &str) -> &str {
    match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => "",
    }
}

/// The key that a request shows, in any of the places where SDKs put it.
fn token(headers: &HeaderMap) -> Result<&str, Error> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let bearer = text(AUTHORIZATION.as_str()).map(bearer);
    let token =
        bearer.or_else(|| ["x-api-key", "api-key", "x-goog-api-key"].into_iter().find_map(text));
    match token {
        Some("") => Err(Error::new(
            Kind::InvalidKey,
            "The credentials cannot be read; send `Authorization: Bearer YOUR_KEY`.",
        )),
        Some(token) => Ok(token),
        None => Err(Error::new(
            Kind::MissingKey,
            "No API key was sent; send `Authorization: Bearer YOUR_KEY`.",
        )),
    }
}

// === impl Caller ===

impl Caller {
    /// The name of the key in the config, the id it was given, or the issuer of a token.
    pub fn key(&self) -> &Arc<str> {
        &self.0.id
    }

    /// Whose is what its calls leave behind: of those who show tokens, each has their own.
    pub fn owner(&self) -> &Arc<str> {
        &self.0.owner
    }

    pub fn team(&self) -> Option<&Arc<str>> {
        self.0.team.as_ref()
    }

    pub fn user(&self) -> Option<&Arc<str>> {
        self.0.user.as_ref()
    }

    /// See [`CallerRef::person`].
    pub fn person(&self) -> Arc<str> {
        CallerRef::of(self).person(None)
    }

    /// Whether it keeps the gateway, and is bound by nothing that is said of keys.
    pub fn operates(&self) -> bool {
        matches!(self.role(), Some(Role::Owner | Role::Operator))
    }

    pub fn org(&self) -> Option<&Arc<str>> {
        self.0.org.as_ref()
    }

    /// All that the key marks its calls with.
    pub fn tags(&self) -> &BTreeMap<String, String> {
        &self.0.terms.tags
    }

    /// What the key marks its calls with.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.0.terms.tags.get(name).map(String::as_str)
    }

    /// What its calls are counted in.
    pub fn tab(&self) -> &Tab {
        &self.0.tab
    }

    /// What its calls are guarded by, besides those of the server and the route.
    pub fn guards(&self) -> &[String] {
        &self.0.terms.guards
    }

    /// What the cache may do for its calls, if that is less than routes let it.
    pub fn cache(&self) -> Option<CacheMode> {
        self.0.terms.cache
    }

    /// What it may do on the admin listener, if anything.
    pub fn role(&self) -> Option<Role> {
        self.0.terms.role
    }

    /// Whether its key may run an agent. A key that says nothing of agents may run those that its
    /// routes name, as in `agent/*`.
    pub fn may_run_agent(&self, name: &str) -> bool {
        match self.0.terms.agents.as_deref() {
            None => self.0.terms.routes.is_none() || self.may_call(&format!("agent/{name}")),
            agents => covers(agents, name),
        }
    }

    /// The same for one that is for certain keys and users, too.
    pub fn may_run(&self, name: &str, keys: Option<&[String]>, users: Option<&[String]>) -> bool {
        let is_meant = users.is_none() || self.user().is_some_and(|user| covers(users, user));
        self.may_run_agent(name) && covers(keys, self.key()) && is_meant
    }

    pub fn may_use_tool(&self, name: &str) -> bool {
        covers(self.0.terms.tools.as_deref(), name)
    }

    /// Whether the key names it among its tools, and does not only leave it open.
    pub fn is_given_tool(&self, name: &str) -> bool {
        self.0.terms.tools.is_some() && self.may_use_tool(name)
    }

    /// Whether the key may call `name`, a route or `provider/model`.
    pub fn may_call(&self, name: &str) -> bool {
        covers(self.0.terms.routes.as_deref(), name)
    }

    /// Whether a provider's model may answer it, whatever the route.
    pub fn may_use(&self, provider: &str, model: &str) -> bool {
        let models = self.0.terms.models.as_deref();
        models.is_none() || covers(models, &format!("{provider}/{model}"))
    }
}

/// Whether one of these names or patterns with a trailing `*` is meant; no list covers all.
pub fn covers(patterns: Option<&[String]>, name: &str) -> bool {
    let Some(patterns) = patterns else { return true };
    patterns.iter().any(|pattern| config::means(pattern, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn access() -> Access {
        let key = config::Key {
            hash: Some(digest("sk-good")),
            routes: Some(vec!["fast".into(), "openai/*".into()]),
            ..config::Key::default()
        };
        let mut config = Config::discover(&[]);
        config.keys = [("ci".to_owned(), key)].into();
        Access::build(&config, &Tabs::default(), &Arc::default())
    }

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_str(value).unwrap());
        headers
    }

    #[test]
    fn takes_the_key_from_every_place_where_sdks_put_it() {
        for (name, value) in [
            ("authorization", "Bearer sk-good"),
            ("authorization", "bearer  sk-good"),
            ("x-api-key", "sk-good"),
            ("api-key", "sk-good"),
            ("x-goog-api-key", "sk-good"),
        ] {
            assert_eq!(
                &**access().admit(&headers(name, value), None).unwrap().key(),
                "ci",
                "{name}"
            );
        }
    }

    #[test]
    fn an_empty_or_odd_credential_never_falls_through_to_another() {
        for value in ["", "Bearer", "Bearer ", "Basic sk-good", "sk-good"] {
            let mut headers = headers("x-api-key", "sk-good");
            headers.insert("authorization", HeaderValue::from_str(value).unwrap());
            assert_eq!(
                access().admit(&headers, None).unwrap_err().kind,
                Kind::InvalidKey,
                "{value}"
            );
        }
        assert_eq!(access().admit(&HeaderMap::new(), None).unwrap_err().kind, Kind::MissingKey);
    }

    #[test]
    fn a_key_reaches_what_its_list_names_and_nothing_else() {
        let caller = access().admit(&headers("x-api-key", "sk-good"), None).unwrap();
        assert!(caller.may_call("fast") && caller.may_call("openai/gpt-5"));
        assert!(!caller.may_call("fast2") && !caller.may_call("groq/x"));
    }

    proptest! {
        #[test]
        fn no_other_words_are_ever_taken_for_a_key(words in "(Bearer |bearer )?[ -~]{0,64}") {
            let headers = headers("authorization", &words);
            prop_assert_eq!(access().admit(&headers, None).unwrap_err().kind, Kind::InvalidKey);
        }
    }
}
