//! Keeps an issuer's public keys: fetched when first needed, by one fetch at a time, renewed in
//! the background, and good for a while when the issuer is away.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::fetch::Source;
use super::jws::Key;
use crate::error::{Error, Kind};
use crate::net::tasks::Tasks;

/// From this age on keys are renewed when they are used.
const FRESH: Duration = Duration::from_mins(10);
/// Older ones are not trusted: what the issuer has withdrawn meanwhile is not known.
const STALE: Duration = Duration::from_hours(1);
/// So long nobody can make the gateway ask again.
const REST: Duration = Duration::from_secs(10);
/// The same while there are no keys at all, and so nothing can be verified.
const FIRST_REST: Duration = Duration::from_secs(1);

/// The keys that an issuer had at one time.
#[derive(Debug)]
pub(super) struct Keys {
    pub(super) all: Vec<Key>,
    /// What stood in the set: as long as it is the same, what was proven stays proven.
    pub(super) digest: [u8; 32],
}

/// Hands out the keys of one issuer.
pub(super) struct Keyring(Arc<Shared>);

struct Shared {
    source: Source,
    state: Mutex<State>,
    /// Held by the one who fetches.
    gate: Arc<tokio::sync::Mutex<()>>,
    /// Not those of the process: a shutdown has no reason to wait for a fetch.
    tasks: Tasks,
}

#[derive(Default)]
struct State {
    /// The keys, and when they were asked for.
    held: Option<(Arc<Keys>, Instant)>,
    tried: Option<Instant>,
}

// === impl Keyring ===

impl Keyring {
    pub(super) fn new(source: Source) -> Self {
        let (state, gate, tasks) = Default::default();
        Self(Arc::new(Shared { source, state, gate, tasks }))
    }

    /// Goes on with what `other` holds, if that is the same issuer's.
    pub(super) fn inherit(&mut self, other: &Self) {
        if self.0.source.is_like(&other.0.source) {
            self.0 = Arc::clone(&other.0);
        }
    }

    /// The keys. Waits only while there are none that can be trusted, and then for one fetch with
    /// all others.
    pub(super) async fn keys(&self) -> Result<Arc<Keys>, Error> {
        let now = Instant::now();
        if let Some((keys, age)) = self.0.held(now).filter(|(_, age)| *age < STALE) {
            if age >= FRESH {
                self.renew(REST);
            }
            return Ok(keys);
        }
        self.renew(if self.0.held(now).is_some() { REST } else { FIRST_REST });
        self.fetched().await;
        match self.0.held(Instant::now()) {
            Some((keys, age)) if age < STALE => Ok(keys),
            Some(_) => Err(Error::new(
                Kind::InvalidKey,
                "This token cannot be verified: its issuer has not been reached for an hour; use \
                 an API key, or ask the operator.",
            )),
            None => {
                let mut error = Error::new(
                    Kind::Overloaded,
                    "This token cannot be verified: its issuer cannot be reached; try again.",
                );
                error.retry_after = Some(FIRST_REST);
                Err(error)
            }
        }
    }

    /// The keys once more, for a token by a key that is not among `known`: newer ones, if there
    /// are and if asking again is not too soon.
    pub(super) async fn newer(&self, known: &Arc<Keys>) -> Option<Arc<Keys>> {
        self.renew(REST);
        self.fetched().await;
        let (keys, _) = self.0.held(Instant::now())?;
        (keys.digest != known.digest).then_some(keys)
    }

    /// Whoever fetches holds the gate: when it opens, the outcome is known.
    pub(super) async fn fetched(&self) {
        drop(self.0.gate.lock().await);
    }

    /// Starts a fetch, unless one is under way or was lately. It is a task of its own, so that it
    /// goes on when the call that asked for it is given up.
    fn renew(&self, rest: Duration) {
        let Ok(gate) = Arc::clone(&self.0.gate).try_lock_owned() else { return };
        let now = Instant::now();
        {
            let mut state = self.0.lock();
            if state.tried.is_some_and(|tried| now.saturating_duration_since(tried) < rest) {
                return;
            }
            state.tried = Some(now);
        }
        let shared = Arc::clone(&self.0);
        self.0.tasks.spawn(async move {
            let fetched = shared.source.fetch().await;
            shared.settle(fetched.and_then(|set| Keys::read(&set)), now);
            drop(gate);
        });
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, now: Instant) -> Option<(Arc<Keys>, Duration)> {
        let state = self.lock();
        let (keys, since) = state.held.as_ref()?;
        Some((Arc::clone(keys), now.saturating_duration_since(*since)))
    }

    /// Ages count from before the fetch began, which errs on the safe side.
    fn settle(&self, fetched: Result<Keys, String>, began: Instant) {
        let issuer = self.source.issuer();
        match fetched {
            Ok(keys) => {
                let mut state = self.lock();
                let old = state.held.replace((Arc::new(keys), began));
                let new = state.held.as_ref().map(|(keys, _)| keys);
                if old.as_ref().map(|(keys, _)| keys.digest) != new.map(|keys| keys.digest) {
                    let count = new.map_or(0, |keys| keys.all.len());
                    tracing::info!(issuer, keys = count, "an issuer's keys are new");
                }
            }
            Err(fault) => {
                tracing::warn!(issuer, %fault, "cannot fetch the keys of an issuer: {fault}");
            }
        }
    }
}

// === impl Keys ===

impl Keys {
    /// A set without a key that can be used is no better than none.
    fn read(set: &[u8]) -> Result<Self, String> {
        let all = Key::read_all(set).ok_or("what it sent is not a set of keys")?;
        if all.is_empty() {
            return Err("no key in its set can prove a signature".to_owned());
        }
        Ok(Self { all, digest: Sha256::digest(set).into() })
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Keyring({})", self.0.source.issuer())
    }
}
