//! Who may call. A `Caller` exists only where a key or a token was verified.

pub mod account;
mod tab;
mod token;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ipnet::IpNet;
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::config::{self, Config, Role};
use crate::error::{Error, Kind};
use account::Scope;
pub use tab::{Tab, Tabs};
pub use token::{Tokens, Visitor};

/// The virtual keys of one configuration, by the digest of their secret. The map is keyed afresh
/// in each process, and whole digests are compared, so its timing tells nothing of a secret.
#[derive(Debug, Default)]
pub struct Access {
    keys: HashMap<[u8; 32], Arc<Key>>,
}

#[derive(Debug)]
struct Key {
    name: Arc<str>,
    /// Whose is what its calls leave behind.
    owner: Arc<str>,
    team: Option<Arc<str>>,
    user: Option<Arc<str>>,
    org: Option<Arc<str>>,
    /// What it may call; `None` is everything, an empty list nothing.
    routes: Option<Vec<String>>,
    /// Who may answer it, likewise.
    models: Option<Vec<String>>,
    tags: BTreeMap<String, String>,
    expires: Option<Timestamp>,
    ips: Option<Vec<IpNet>>,
    /// What it may do on the admin listener.
    role: Option<Role>,
    /// What its calls are counted in: its own account and those of its user, team and org.
    tab: Tab,
}

/// Who is calling: proof that a key was shown and is known.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Key>);

// === impl Access ===

impl Access {
    pub fn build(config: &Config, tabs: &Tabs) -> Self {
        let keys = config.keys.iter().filter_map(|(name, key)| {
            let digest = match (&key.hash, &key.secret) {
                (Some(hash), _) => *hash,
                (None, Some(secret)) => digest(secret.expose()),
                (None, None) => return None,
            };
            Some((digest, Arc::new(Key::of(name, key, (config, tabs)))))
        });
        Self { keys: keys.collect() }
    }

    /// Whether there is no key at all, so that nobody could call.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Verifies the key in a request's headers. `from`: the client's address; a call that did not
    /// come over the network has none.
    pub fn admit(&self, headers: &HeaderMap, from: Option<IpAddr>) -> Result<Caller, Error> {
        let token = token(headers)?;
        let Some(key) = self.keys.get(&digest(token)) else {
            return Err(Error::new(Kind::InvalidKey, "This API key is not known to the gateway."));
        };
        key.check(from)?;
        Ok(Caller(Arc::clone(key)))
    }
}

// === impl Key ===

impl Key {
    fn of(name: &str, key: &config::Key, (config, tabs): (&Config, &Tabs)) -> Self {
        let of_user = || config.users.get(key.user.as_ref()?)?.team.as_ref();
        let team = key.team.as_ref().or_else(of_user);
        let org = team.and_then(|team| config.teams.get(team)?.org.as_ref());
        let holders = [
            (Scope::Key, Some(name)),
            (Scope::User, key.user.as_deref()),
            (Scope::Team, team.map(String::as_str)),
            (Scope::Org, org.map(String::as_str)),
        ];
        let name: Arc<str> = name.into();
        Self {
            owner: Arc::clone(&name),
            name,
            team: team.map(|team| team.as_str().into()),
            user: key.user.as_deref().map(Into::into),
            org: org.map(|org| org.as_str().into()),
            routes: key.routes.clone(),
            models: key.models.clone(),
            tags: key.tags.clone(),
            expires: key.expires,
            ips: key.ips.clone(),
            role: key.role,
            tab: tabs.tab(&holders),
        }
    }

    /// Whether it is good now and from this address.
    fn check(&self, from: Option<IpAddr>) -> Result<(), Error> {
        if self.expires.is_some_and(|expires| expires <= Timestamp::now()) {
            return Err(Error::new(Kind::ExpiredKey, "This API key has expired."));
        }
        if let (Some(ips), Some(from)) = (&self.ips, from)
            && !ips.iter().any(|network| network.contains(&from.to_canonical()))
        {
            let message = format!("This API key may not be used from {from}.");
            return Err(Error::new(Kind::NotAllowed, message));
        }
        Ok(())
    }
}

fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token.as_bytes()).into()
}

/// The key that a request shows, in any of the places where SDKs put it.
fn token(headers: &HeaderMap) -> Result<&str, Error> {
    let text = |name: &str| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let bearer = text(AUTHORIZATION.as_str()).map(|value| match value.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => "",
    });
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
    /// The name of the key in the config, or of the issuer of a token.
    pub fn key(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Whose is what its calls leave behind: of those who show tokens, each has their own.
    pub fn owner(&self) -> &Arc<str> {
        &self.0.owner
    }

    /// What they may do on the admin listener.
    pub fn role(&self) -> Option<Role> {
        self.0.role
    }

    pub fn team(&self) -> Option<&Arc<str>> {
        self.0.team.as_ref()
    }

    pub fn user(&self) -> Option<&Arc<str>> {
        self.0.user.as_ref()
    }

    pub fn org(&self) -> Option<&Arc<str>> {
        self.0.org.as_ref()
    }

    /// All that the key marks its calls with.
    pub fn tags(&self) -> &BTreeMap<String, String> {
        &self.0.tags
    }

    /// What the key marks its calls with.
    pub fn tag(&self, name: &str) -> Option<&str> {
        self.0.tags.get(name).map(String::as_str)
    }

    /// What its calls are counted in.
    pub fn tab(&self) -> &Tab {
        &self.0.tab
    }

    /// Whether the key may call `name`, a route or `provider/model`.
    pub fn may_call(&self, name: &str) -> bool {
        covers(self.0.routes.as_deref(), name)
    }

    /// Whether a provider's model may answer it, whatever the route.
    pub fn may_use(&self, provider: &str, model: &str) -> bool {
        let models = self.0.models.as_deref();
        models.is_none() || covers(models, &format!("{provider}/{model}"))
    }
}

/// Whether one of these names or patterns with a trailing `*` is meant; no list covers all.
fn covers(patterns: Option<&[String]>, name: &str) -> bool {
    let Some(patterns) = patterns else { return true };
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;
    use proptest::prelude::*;

    fn made(key: &config::Key) -> Key {
        let config = Config::discover(&[]);
        Key::of("ci", key, (&config, &Tabs::default()))
    }

    fn access() -> Access {
        let key = config::Key {
            hash: Some(digest("sk-good")),
            routes: Some(vec!["fast".into(), "openai/*".into()]),
            ..config::Key::default()
        };
        Access { keys: [(digest("sk-good"), Arc::new(made(&key)))].into() }
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
        fn no_bytes_are_ever_taken_for_a_key(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert("authorization", value);
                prop_assert_eq!(access().admit(&headers, None).unwrap_err().kind, Kind::InvalidKey);
            }
        }
    }
}
