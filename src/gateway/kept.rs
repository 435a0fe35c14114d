//! Keeps, by owner and tool call, what providers want back and clients do not carry.
//!
//! Bounded and expiring: the newest in memory, all of them in the store, so that a conversation
//! outlives a restart. An entry that is gone costs the thoughts of a turn, not the turn.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use moka::sync::Cache;

use crate::canon::Owner;
use crate::dialect::keepsake::Keepsake;
use crate::net::tasks::Tasks;
use crate::store::{Draft, ObjectKind, Store};

/// Whoever goes on with a conversation after this has to do without.
const LIFETIME: Duration = Duration::from_hours(24);
/// Bytes of entries in memory.
const MEMORY: u64 = 32 * 1024 * 1024;

type Key = (Owner, String);

/// The keepsakes of all owners. What one put in no other can take out.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    recent: Cache<Key, Arc<[u8]>>,
    store: Store,
}

// === impl Kept ===

impl Kept {
    pub(super) fn new(store: Store) -> Self {
        let weigh = |(_, call): &Key, value: &Arc<[u8]>| {
            u32::try_from(call.len() + value.len()).unwrap_or(u32::MAX)
        };
        let recent =
            Cache::builder().max_capacity(MEMORY).weigher(weigh).time_to_live(LIFETIME).build();
        Self { recent, store }
    }

    /// Puts in what an answer brought. Visible at once; the store follows.
    pub(super) fn put(&self, owner: &Owner, keepsakes: Vec<Keepsake>, tasks: &Tasks) {
        for keepsake in keepsakes {
            let Ok(value) = serde_json::to_vec(&keepsake) else { continue };
            let value: Arc<[u8]> = value.into();
            self.recent.insert((owner.clone(), keepsake.call.clone()), Arc::clone(&value));
            let expires_at = Some(SystemTime::now() + LIFETIME);
            let draft = Draft { id: keepsake.call, value: value.to_vec().into(), expires_at };
            tasks.spawn(store(self.store.clone(), owner.clone(), draft));
        }
    }

    /// What is kept with these calls.
    pub(super) async fn find(&self, owner: &Owner, calls: &[String]) -> Vec<Keepsake> {
        let mut found = Vec::new();
        for call in calls {
            let value = match self.recent.get(&(owner.clone(), call.clone())) {
                Some(value) => Some(value.to_vec().into()),
                None => self.stored(owner, call).await,
            };
            found.extend(value.and_then(|value| serde_json::from_slice(&value).ok()));
        }
        found
    }

    async fn stored(&self, owner: &Owner, call: &str) -> Option<bytes::Bytes> {
        match self.store.get(owner, ObjectKind::Opaque, call).await {
            Ok(object) => object.map(|object| object.value),
            Err(cause) => {
                tracing::warn!(%cause, "the state of a tool call could not be looked up");
                None
            }
        }
    }
}

async fn store(store: Store, owner: Owner, draft: Draft) {
    if let Err(cause) = store.put(&owner, ObjectKind::Opaque, draft).await {
        tracing::warn!(%cause, "the state of a tool call is kept in memory only");
    }
}
