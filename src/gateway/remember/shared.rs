//! The answers that replicas remember for one another, behind those in memory. A store that is away
//! costs nothing but hits.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Asking;
use crate::cache::{Digest, Entry, Scope, key};
use crate::error::{Error, Kind};
use crate::gateway::Gateway;
use crate::gateway::call::Call;
use crate::store::Failure;
use crate::store::shared::Values;

const PREFIX: &str = "switchpoint/cache";

impl Asking {
    /// The answer that another replica has put there. It is in memory from here on.
    pub(super) async fn fetch(&self, call: &Call) -> Option<Arc<Entry>> {
        let values = call.gateway.answers.get().filter(|_| self.leave.read)?;
        let scope = Scope { tenant: self.tenant.clone(), route: call.route_name().to_string() };
        let fetched = Box::pin(values.get(&name(&scope, &self.digest))).await;
        let bytes = call.gateway.shared_answer("get", fetched)??;
        let entry: Entry = serde_json::from_slice(&bytes).ok()?;
        let is_good = entry.is_good(self.remembering.terms.ttl, SystemTime::now());
        if !is_good || entry.scope != scope {
            return None;
        }
        let entry = Arc::new(entry);
        call.gateway.cache.exact.put(self.digest, Arc::clone(&entry), bytes.len());
        Some(entry)
    }
}

impl Gateway {
    /// Where the answers of all replicas are kept.
    pub fn remember_in(&self, values: Values) {
        self.answers.get_or_init(|| values);
    }

    /// Puts an answer where other replicas find it.
    pub(super) fn share_answer(
        self: &Arc<Self>,
        (digest, scope): (&Digest, &Scope),
        (written, ttl): (Vec<u8>, Duration),
    ) {
        if self.answers.get().is_none() {
            return;
        }
        let (gateway, name) = (Arc::clone(self), name(scope, digest));
        self.tasks.spawn(async move {
            if let Some(values) = gateway.answers.get() {
                let put = values.put(&name, &written, ttl).await;
                gateway.shared_answer("put", put);
            }
        });
    }

    /// Forgets the answers of a scope, here and in the store that replicas share. What others have
    /// in memory they have until it is too old.
    pub async fn forget_answers(&self, scope: &Scope) -> Result<usize, Error> {
        let here = self.cache.purge(scope);
        let Some(values) = self.answers.get() else { return Ok(here) };
        let part = |name: &str| if name.is_empty() { "*".to_owned() } else { short(name) };
        let pattern = format!("{PREFIX}/{}/{}/*", part(&scope.route), part(&scope.tenant));
        let there = Box::pin(values.forget(&pattern)).await.map_err(|error| {
            let message = format!("Forgotten here, and not in the shared store: {error}.");
            Error::new(Kind::Overloaded, message)
        })?;
        Ok(here.max(there))
    }

    fn shared_answer<T>(&self, what: &str, answer: Result<T, Failure>) -> Option<T> {
        let failed = |error: &Failure| {
            tracing::debug!(%error, what, "the shared store has no answers");
            self.telemetry.metrics.cache_shared_failures.with_label_values(&[what]).inc();
        };
        answer.inspect_err(failed).ok()
    }
}

/// What is called by a name that its scope can be found by.
fn name(scope: &Scope, digest: &Digest) -> String {
    format!("{PREFIX}/{}/{}/{}", short(&scope.route), short(&scope.tenant), hex(digest))
}

/// Of any length and with any letters, it stands here as 16 digits.
fn short(name: &str) -> String {
    hex(&key::of_parts([name.as_bytes()])[..8])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
