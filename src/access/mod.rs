//! Who may call. A `Caller` exists only where a key was verified.

pub mod account;

use std::collections::HashMap;
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

use crate::config;
use crate::error::{Error, Kind};

/// The virtual keys of one configuration, by the digest of their secret. The map is keyed afresh
/// in each process, and whole digests are compared, so its timing tells nothing of a secret.
#[derive(Debug, Default)]
pub struct Access {
    keys: HashMap<[u8; 32], Arc<Key>>,
}

#[derive(Debug)]
struct Key {
    name: Arc<str>,
    /// What it may call; `None` is everything, an empty list nothing.
    routes: Option<Vec<String>>,
}

/// Who is calling: proof that a key was shown and is known.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Key>);

// === impl Access ===

impl Access {
    pub fn build(keys: impl IntoIterator<Item = (String, config::Key)>) -> Self {
        let keys = keys.into_iter().filter_map(|(name, key)| {
            let digest = match (&key.hash, &key.secret) {
                (Some(hash), _) => *hash,
                (None, Some(secret)) => digest(secret.expose()),
                (None, None) => return None,
            };
            Some((digest, Arc::new(Key { name: name.into(), routes: key.routes })))
        });
        Self { keys: keys.collect() }
    }

    /// Whether there is no key at all, so that nobody could call.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Verifies the key in a request's headers.
    pub fn admit(&self, headers: &HeaderMap) -> Result<Caller, Error> {
        let token = token(headers)?;
        match self.keys.get(&digest(token)) {
            Some(key) => Ok(Caller(Arc::clone(key))),
            None => Err(Error::new(Kind::InvalidKey, "This API key is not known to the gateway.")),
        }
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
    /// The name of the key in the config.
    pub fn key(&self) -> &Arc<str> {
        &self.0.name
    }

    /// Whether the key may call `name`, a route or `provider/model`.
    pub fn may_call(&self, name: &str) -> bool {
        let Some(patterns) = &self.0.routes else { return true };
        patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        })
    }
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
        Access::build([("ci".to_owned(), key)])
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
            assert_eq!(&**access().admit(&headers(name, value)).unwrap().key(), "ci", "{name}");
        }
    }

    #[test]
    fn an_empty_or_odd_credential_never_falls_through_to_another() {
        for value in ["", "Bearer", "Bearer ", "Basic sk-good", "sk-good"] {
            let mut headers = headers("x-api-key", "sk-good");
            headers.insert("authorization", HeaderValue::from_str(value).unwrap());
            assert_eq!(access().admit(&headers).unwrap_err().kind, Kind::InvalidKey, "{value}");
        }
        assert_eq!(access().admit(&HeaderMap::new()).unwrap_err().kind, Kind::MissingKey);
    }

    #[test]
    fn a_key_reaches_what_its_list_names_and_nothing_else() {
        let caller = access().admit(&headers("x-api-key", "sk-good")).unwrap();
        assert!(caller.may_call("fast") && caller.may_call("openai/gpt-5"));
        assert!(!caller.may_call("fast2") && !caller.may_call("groq/x"));
    }

    proptest! {
        #[test]
        fn no_bytes_are_ever_taken_for_a_key(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut headers = HeaderMap::new();
                headers.insert("authorization", value);
                prop_assert_eq!(access().admit(&headers).unwrap_err().kind, Kind::InvalidKey);
            }
        }
    }
}
