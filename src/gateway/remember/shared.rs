//! The answers that replicas remember for one another, behind those in memory. A store that is away
//! costs nothing but hits.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::similar::Likeness;
use super::{Asking, Together};
use crate::cache::{Digest, Entry, Scope, key};
use crate::error::{Error, Kind};
use crate::gateway::Gateway;
use crate::gateway::call::Call;
use crate::store::Failure;

const PREFIX: &str = "switchpoint/cache";

impl Asking {
    /// The answer to this question that another replica has put there. It is in memory from here
    /// on.
    pub(super) async fn fetch(&self, call: &Call, digest: &Digest) -> Option<Arc<Entry>> {
        let together = call.gateway.answers.get().filter(|_| self.leave.read)?;
        let scope = Scope { tenant: self.tenant.clone(), route: call.route_name().to_string() };
        let fetched = Box::pin(together.values.get(&name(&scope, digest))).await;
        let bytes = call.gateway.shared_answer("get", fetched)??;
        let entry: Entry = serde_json::from_slice(&bytes).ok()?;
        let is_good = entry.is_good(self.remembering.terms.ttl, SystemTime::now());
        if !is_good || entry.scope != scope {
            return None;
        }
        let entry = Arc::new(entry);
        call.gateway.cache.exact.put(*digest, Arc::clone(&entry), bytes.len());
        Some(entry)
    }
}

/// An answer on its way to the other replicas.
pub(super) struct Shareable {
    pub(super) digest: Digest,
    pub(super) entry: Arc<Entry>,
    /// The entry.
    pub(super) written: Vec<u8>,
    /// How its question is found by others.
    pub(super) likeness: Option<Likeness>,
}

impl Gateway {
    /// Puts an answer where other replicas find it.
    pub(super) fn share_answer(self: &Arc<Self>, shareable: Shareable) {
        if self.answers.get().is_none() {
            return;
        }
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move {
            let Some(together) = gateway.answers.get() else { return };
            let Shareable { digest, entry, written, likeness } = shareable;
            let (name, ttl) = (name(&entry.scope, &digest), Duration::from_millis(entry.ttl));
            let put = together.values.put(&name, &written, ttl).await;
            // Who finds it finds an answer.
            let is_there = gateway.shared_answer("put", put).unwrap_or_default();
            if let Some(likeness) = likeness.filter(|_| is_there) {
                let told = together.tell_question(&likeness, (digest, entry.until())).await;
                gateway.shared_answer("tell", told);
            }
        });
    }

    /// Forgets the answers of a scope: here, in the store that replicas share, and in the memory of
    /// the others, as soon as they hear of it.
    pub async fn forget_answers(&self, scope: &Scope) -> Result<usize, Error> {
        let here = self.cache.purge(scope);
        let Some(together) = self.answers.get() else { return Ok(here) };
        let there = Box::pin(forget(together, scope)).await.map_err(|error| {
            let message = format!("Forgotten here, and not by the other replicas: {error}.");
            Error::new(Kind::Overloaded, message)
        })?;
        Ok(here.max(there))
    }

    pub(super) fn shared_answer<T>(&self, what: &str, answer: Result<T, Failure>) -> Option<T> {
        let failed = |error: &Failure| {
            tracing::debug!(%error, what, "the shared store has no answers");
            self.telemetry.metrics.cache_shared_failures.with_label_values(&[what]).inc();
        };
        answer.inspect_err(failed).ok()
    }
}

/// The others are told last, so that they do not fetch again what they have forgotten.
async fn forget(together: &Together, scope: &Scope) -> Result<usize, Failure> {
    let part = |name: &str| if name.is_empty() { "*".to_owned() } else { short(name) };
    let pattern = format!("{PREFIX}/{}/{}/*", part(&scope.route), part(&scope.tenant));
    let there = together.values.forget(&pattern).await?;
    together.tell_purge(scope).await?;
    Ok(there)
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
