//! What is kept of a call for its owner's next one: by owner, kind and id, bounded and expiring.
//!
//! The newest stands in memory too, so that it is there at once; the store follows, and outlives a
//! restart.

use std::task::{Context, Waker};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use moka::sync::Cache;

use crate::canon::Owner;
use crate::dialect::keepsake::Keepsake;
use crate::error::{Error, Kind};
use crate::net::tasks::Tasks;
use crate::store::{Draft, Failure, ObjectKind, Store};

/// Bytes in memory.
const MEMORY: u64 = 64 * 1024 * 1024;
/// How long what is in the store already stays in memory besides.
const RECENT: Duration = Duration::from_hours(1);
/// What another replica has just put there is looked for so often, and after so long.
const LOOKS: u32 = 5;
const LOOK: Duration = Duration::from_millis(60);
/// Whoever goes on with a conversation after this does so without its thoughts.
const KEEPSAKE: Duration = Duration::from_hours(24);
/// Calls of one conversation whose keepsakes are looked for.
const MOST_CALLS: usize = 1000;
/// When a store that could not be used is worth another try.
const AGAIN: Duration = Duration::from_secs(1);
/// As long as OpenAI keeps a response.
pub(super) const RESPONSE: Duration = Duration::from_hours(30 * 24);

type Key = (Owner, ObjectKind, String);

/// What one owner put in no other can take out, or learn of.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    recent: Cache<Key, Bytes>,
    store: Store,
    tasks: Tasks,
}

// === impl Shelf ===

impl Shelf {
    pub(super) fn new(store: Store, tasks: Tasks) -> Self {
        let weigh = |(_, _, id): &Key, value: &Bytes| {
            u32::try_from(id.len() + value.len()).unwrap_or(u32::MAX)
        };
        let recent =
            Cache::builder().max_capacity(MEMORY).weigher(weigh).time_to_live(RECENT).build();
        Self { recent, store, tasks }
    }

    /// Puts something there for so long. It can be taken at once.
    pub(super) fn put(
        &self,
        owner: &Owner,
        kind: ObjectKind,
        id: String,
        value: Bytes,
        lifetime: Duration,
    ) {
        let mut writing = Box::pin(self.shelve(owner, kind, id, value, lifetime));
        // Handed in before anyone can put or delete the same again, so that the store has them in
        // the order in which they were.
        if writing.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending() {
            self.tasks.spawn(writing);
        }
    }

    /// The same, and it is in the store when this returns, so that it is there although this process
    /// ends, and for other replicas; or nothing can be put there now.
    pub(super) async fn put_first(
        &self,
        owner: &Owner,
        kind: ObjectKind,
        id: String,
        value: Bytes,
        lifetime: Duration,
    ) {
        self.shelve(owner, kind, id, value, lifetime).await;
    }

    /// Puts it where it can be taken at once; the store follows.
    fn shelve(
        &self,
        owner: &Owner,
        kind: ObjectKind,
        id: String,
        value: Bytes,
        lifetime: Duration,
    ) -> impl Future<Output = ()> + Send + use<> {
        self.recent.insert((owner.clone(), kind, id.clone()), value.clone());
        let draft = Draft { id, value, expires_at: Some(SystemTime::now() + lifetime) };
        put(self.store.clone(), owner.clone(), kind, draft)
    }

    /// The error says that nobody can tell now whether it is there.
    pub(super) async fn get(
        &self,
        owner: &Owner,
        kind: ObjectKind,
        id: &str,
    ) -> Result<Option<Bytes>, Error> {
        if let Some(value) = self.recent.get(&(owner.clone(), kind, id.to_owned())) {
            return Ok(Some(value));
        }
        let object = self.store.get(owner, kind, id).await.map_err(|cause| unusable(&cause))?;
        Ok(object.map(|object| object.value))
    }

    /// Waits a little until it is there: another replica writes it behind what it has said of it.
    pub(super) async fn await_written(&self, owner: &Owner, kind: ObjectKind, id: &str) {
        for _ in 0..LOOKS {
            if !self.store.is_shared() || !matches!(self.get(owner, kind, id).await, Ok(None)) {
                return;
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it was there.
    pub(super) async fn delete(
        &self,
        owner: &Owner,
        kind: ObjectKind,
        id: &str,
    ) -> Result<bool, Error> {
        let stored = self.store.delete(owner, kind, id).await.map_err(|cause| unusable(&cause))?;
        let recent = self.recent.remove(&(owner.clone(), kind, id.to_owned())).is_some();
        Ok(stored || recent)
    }

    /// Keeps what a provider will want back and the client may not carry.
    pub(super) fn keep(&self, owner: &Owner, keepsakes: Vec<Keepsake>) {
        for keepsake in keepsakes {
            let Ok(value) = serde_json::to_vec(&keepsake) else { continue };
            self.put(owner, ObjectKind::Opaque, keepsake.call, value.into(), KEEPSAKE);
        }
    }

    /// What is kept with these calls, of the last of them if there are many; the store is asked
    /// once.
    pub(super) async fn keepsakes(&self, owner: &Owner, mut calls: Vec<String>) -> Vec<Keepsake> {
        calls.drain(..calls.len().saturating_sub(MOST_CALLS));
        let mut found = Vec::new();
        calls.retain(|call| {
            let recent = self.recent.get(&(owner.clone(), ObjectKind::Opaque, call.clone()));
            found.extend(recent.clone());
            recent.is_none()
        });
        if !calls.is_empty() {
            match self.store.get_all(owner, ObjectKind::Opaque, calls).await {
                Ok(objects) => found.extend(objects.into_iter().map(|object| object.value)),
                Err(cause) => tracing::warn!(%cause, "what was kept could not be looked up"),
            }
        }
        found.iter().filter_map(|value| serde_json::from_slice(value).ok()).collect()
    }
}

/// What is answered where the store cannot say what it keeps.
pub(super) fn unusable(cause: &Failure) -> Error {
    tracing::error!(%cause, "what is kept cannot be looked up or changed");
    let mut error = Error::new(
        Kind::Overloaded,
        "The gateway's store cannot be used at the moment; try again.",
    );
    error.retry_after = Some(AGAIN);
    error
}

async fn put(store: Store, owner: Owner, kind: ObjectKind, draft: Draft) {
    if let Err(cause) = store.put(&owner, kind, draft).await {
        tracing::warn!(%cause, "something is kept in memory only");
    }
}
