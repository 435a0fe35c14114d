//! What secrets that other systems keep are at the moment, for tools: whoever calls one does not wait
//! for the next round in which all secrets are fetched.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::config::{self, Manager, Reference, Secret};
use crate::net::client::Client;
use crate::net::tasks::Tasks;
use crate::provider::secrets::{Managers, Round};
use crate::telemetry::{Counters, Gauges, Metrics};
use crate::tool::{Keeper, Looked};

/// How long what was fetched is taken for what is kept, unless the config has it fetched more often.
const LIFE: Duration = Duration::from_secs(10);
/// How long a fetch may take; who cannot wait so long goes by what is known.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks for single secrets when they are needed, and outlives configs.
#[derive(Debug)]
pub(super) struct Fresh(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    client: Client,
    fetches: Counters,
    up: Gauges,
    settings: Mutex<config::Secrets>,
    known: Mutex<BTreeMap<Reference, Known>>,
    /// Held by the one who fetches.
    managers: Arc<tokio::sync::Mutex<Option<Managers>>>,
    /// A shutdown has no reason to wait for a fetch.
    tasks: Tasks,
}

/// What a fetch came to, and when it began.
#[derive(Debug, Clone)]
struct Known {
    at: Instant,
    secret: Option<Secret>,
}

// === impl Fresh ===

impl Fresh {
    pub(super) fn new(client: &Client, metrics: &Metrics, settings: &config::Secrets) -> Self {
        Self(Arc::new(Shared {
            client: client.clone(),
            fetches: metrics.secret_fetches.clone(),
            up: metrics.secrets_up.clone(),
            settings: Mutex::new(settings.clone()),
            known: Mutex::default(),
            managers: Arc::default(),
            tasks: Tasks::default(),
        }))
    }

    /// Asks as `settings` say from now on.
    pub(super) fn follow(&self, settings: &config::Secrets) {
        settings.clone_into(&mut self.0.settings());
    }
}

impl Keeper for Fresh {
    fn now(&self, reference: &Reference, since: Option<Instant>) -> Looked<'_> {
        let reference = reference.clone();
        Box::pin(async move {
            if let Some(known) = self.0.known(&reference, since) {
                return known.secret;
            }
            let managers = Arc::clone(&self.0.managers).lock_owned().await;
            // Others may have waited for the same.
            if let Some(known) = self.0.known(&reference, since) {
                return known.secret;
            }
            let (shared, wanted) = (Arc::clone(&self.0), reference.clone());
            // A task of its own, so that it ends when whoever asked has given up.
            self.0.tasks.spawn(async move {
                let mut managers = managers;
                shared.fetch(&wanted, &mut managers).await;
            });
            drop(self.0.managers.lock().await);
            self.0.lock().get(&reference)?.secret.clone()
        })
    }
}

// === impl Shared ===

impl Shared {
    /// What is known, if it is young enough and not doubted.
    fn known(&self, reference: &Reference, since: Option<Instant>) -> Option<Known> {
        let life = LIFE.min(self.settings().refresh);
        let known = self.lock().get(reference).cloned()?;
        let stands = known.at.elapsed() < life && since.is_none_or(|since| since <= known.at);
        stands.then_some(known)
    }

    async fn fetch(&self, reference: &Reference, managers: &mut Option<Managers>) {
        let (at, settings) = (Instant::now(), self.settings().clone());
        if managers.as_ref().is_none_or(|opened| *opened.settings() != settings) {
            *managers = None;
        }
        let managers = managers.get_or_insert_with(|| Managers::new(settings, self.client.clone()));
        let mut round = Round::default();
        let fetched = timeout(PATIENCE, managers.fetch(reference, &mut round)).await;
        let fetched = fetched.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
        self.tell(reference.manager, fetched.is_ok());
        let secret = match fetched {
            Ok(secret) => Some(secret),
            Err(fault) => {
                tracing::warn!(secret = %reference, %fault, "a secret stays as it was known");
                self.lock().get(reference).and_then(|known| known.secret.clone())
            }
        };
        self.lock().insert(reference.clone(), Known { at, secret });
    }

    fn tell(&self, manager: Manager, answered: bool) {
        let outcome = if answered { "fetched" } else { "failed" };
        self.fetches.with_label_values(&[manager.prefix(), outcome]).inc();
        self.up.with_label_values(&[manager.prefix()]).set(f64::from(u8::from(answered)));
    }

    fn settings(&self) -> MutexGuard<'_, config::Secrets> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Reference, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
