//! Keeps a credential that runs out: renewed ahead of its end, by one fetch at a time.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::AuthFault;
use crate::net::tasks::Tasks;

/// How long before its end a credential is renewed, if it lives long enough.
const AHEAD: Duration = Duration::from_mins(5);
/// How long a failed fetch speaks for those that would follow it.
const REST: Duration = Duration::from_secs(1);
/// A credential of this age is not doubted.
const YOUNG: Duration = Duration::from_mins(1);

/// Where credentials come from.
pub(super) trait Issuer: fmt::Debug + Send + Sync + 'static {
    type Credential: Send + Sync + 'static;

    fn issue(&self) -> impl Future<Output = Result<Issued<Self::Credential>, AuthFault>> + Send;
}

/// A credential and how long it is good for, if that ends.
#[derive(Debug)]
pub(super) struct Issued<T> {
    pub(super) credential: T,
    pub(super) lifetime: Option<Duration>,
}

/// Hands out the credential of one issuer.
pub(super) struct Keeper<I: Issuer>(Arc<Shared<I>>);

struct Shared<I: Issuer> {
    issuer: I,
    state: Mutex<State<I::Credential>>,
    /// Held by the one who fetches.
    gate: Arc<tokio::sync::Mutex<()>>,
    /// Not those of the process: a shutdown has no reason to wait for a fetch.
    tasks: Tasks,
}

struct State<T> {
    held: Option<Held<T>>,
    /// The last fetch failed, then.
    fault: Option<(Instant, AuthFault)>,
}

struct Held<T> {
    credential: Arc<T>,
    since: Instant,
    lifetime: Option<Duration>,
}

// === impl Keeper ===

impl<I: Issuer> Keeper<I> {
    pub(super) fn new(issuer: I) -> Self {
        Self(Arc::new(Shared {
            issuer,
            state: Mutex::new(State { held: None, fault: None }),
            gate: Arc::default(),
            tasks: Tasks::default(),
        }))
    }

    /// The credential. Waits only while none is valid, and then for one fetch with all others;
    /// one that nears its end is renewed in the background.
    pub(super) async fn credential(&self) -> Result<Arc<I::Credential>, AuthFault> {
        let valid = self.0.lock().valid(Instant::now());
        if let Some((credential, due)) = valid {
            if due {
                self.renew();
            }
            return Ok(credential);
        }
        self.renew();
        // Whoever fetches holds the gate: when it opens, the outcome is known.
        drop(self.0.gate.lock().await);
        self.0.outcome()
    }

    /// The credential as far as it is known.
    pub(super) fn held(&self) -> Option<Arc<I::Credential>> {
        self.0.lock().held.as_ref().map(|held| Arc::clone(&held.credential))
    }

    /// What was shown has been refused: it is fetched anew before it is shown again, unless it is
    /// so young that another would fare no better.
    pub(super) fn doubt(&self) {
        let mut state = self.0.lock();
        state.held.take_if(|held| held.since.elapsed() > YOUNG);
    }

    /// Starts a fetch, unless one is under way or has just failed. It is a task of its own, so
    /// that it goes on when the call that asked for it is given up.
    fn renew(&self) {
        let Ok(gate) = Arc::clone(&self.0.gate).try_lock_owned() else { return };
        let now = Instant::now();
        if !self.0.lock().wants(now) {
            return;
        }
        let shared = Arc::clone(&self.0);
        self.0.tasks.spawn(async move {
            let issued = shared.issuer.issue().await;
            shared.lock().settle(issued, now);
            drop(gate);
        });
    }
}

impl<I: Issuer> Shared<I> {
    fn lock(&self) -> MutexGuard<'_, State<I::Credential>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn outcome(&self) -> Result<Arc<I::Credential>, AuthFault> {
        let state = self.lock();
        if let Some((credential, _)) = state.valid(Instant::now()) {
            return Ok(credential);
        }
        let fault = state.fault.as_ref().map(|(_, fault)| fault.clone());
        Err(fault.unwrap_or_else(|| AuthFault("the credential was lost on its way".to_owned())))
    }
}

// === impl State ===

impl<T> State<T> {
    /// The credential while it is good, and whether it is time to renew it.
    fn valid(&self, now: Instant) -> Option<(Arc<T>, bool)> {
        let held = self.held.as_ref()?;
        let credential = Arc::clone(&held.credential);
        let Some(lifetime) = held.lifetime else { return Some((credential, false)) };
        let age = now.saturating_duration_since(held.since);
        // Issuers repeat a token that is young enough, so a short one is not due at once.
        let due = age >= lifetime.saturating_sub(AHEAD.min(lifetime / 2));
        (age < lifetime).then_some((credential, due))
    }

    /// Whether a fetch makes sense: none has just succeeded or failed.
    fn wants(&self, now: Instant) -> bool {
        let rested =
            self.fault.as_ref().is_none_or(|(then, _)| now.saturating_duration_since(*then) > REST);
        rested && self.valid(now).is_none_or(|(_, due)| due)
    }

    /// Lifetimes count from before the fetch began, which errs on the safe side.
    fn settle(&mut self, issued: Result<Issued<T>, AuthFault>, began: Instant) {
        match issued {
            Ok(Issued { credential, lifetime }) if lifetime != Some(Duration::ZERO) => {
                let credential = Arc::new(credential);
                self.held = Some(Held { credential, since: began, lifetime });
                self.fault = None;
            }
            Ok(_) => {
                let fault = "the credential that was issued has expired; check the clock";
                self.fault = Some((Instant::now(), AuthFault(fault.to_owned())));
            }
            Err(fault) => {
                let now = Instant::now();
                // Otherwise the calls that wait for it say so.
                if self.valid(now).is_some() {
                    tracing::warn!(fault = %fault, "cannot renew a credential as yet: {fault}");
                }
                self.fault = Some((now, fault));
            }
        }
    }
}

impl<I: Issuer> fmt::Debug for Keeper<I> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Keeper({:?})", self.0.issuer)
    }
}

#[cfg(test)]
mod tests;
