//! Batches that nobody fetches are looked at until their end was seen, so that they are counted.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::access::{Caller, CallerRef};
use crate::canon::{Owner, Relay};
use crate::gateway::{Gateway, objects};
use crate::store::{Draft, Failure, Object, ObjectKind};

/// Providers let go of a batch's answers after so long at the latest.
const LONGEST: Duration = Duration::from_hours(30 * 24);
/// Batches read in one step.
const PAGE: u32 = 100;

/// A batch that was not counted yet.
#[derive(Debug, Serialize, Deserialize)]
struct Followed {
    caller: CallerRef,
    batch: String,
}

/// All of them are the gateway's, whoever has made them.
fn ours() -> Owner {
    Owner::new("gateway:batches")
}

fn name(owner: &str, batch: &str) -> String {
    format!("{owner}/{batch}")
}

/// Has a new batch looked at.
pub(super) async fn begin(gateway: &Gateway, caller: &Caller, batch: &str) -> Result<(), Failure> {
    let followed = Followed { caller: CallerRef::of(caller), batch: batch.to_owned() };
    let Ok(value) = serde_json::to_vec(&followed) else { return Ok(()) };
    let id = name(&followed.caller.owner, batch);
    let draft = Draft { id, value: value.into(), expires_at: None };
    gateway.store().put(&ours(), ObjectKind::Followed, draft).await
}

impl Gateway {
    /// Looks at the batches that were not counted, again and again.
    pub async fn follow_batches(self: Arc<Self>) {
        loop {
            // No config is held while it waits.
            let pause = self.snapshot().config.server.batch_poll;
            tokio::time::sleep(pause).await;
            if let Err(cause) = self.look_at_batches().await {
                tracing::warn!(%cause, "batches cannot be looked at");
            }
        }
    }

    async fn look_at_batches(self: &Arc<Self>) -> Result<(), Failure> {
        let mut after = None;
        loop {
            let page = self.store().list(&ours(), ObjectKind::Followed, after, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.position);
            for object in page {
                self.look_at_batch(&object).await?;
            }
        }
    }

    async fn look_at_batch(self: &Arc<Self>, object: &Object) -> Result<(), Failure> {
        if self.follow_batch(object).await? {
            self.store().delete(&ours(), ObjectKind::Followed, &object.id).await?;
        }
        Ok(())
    }

    /// Looks at one batch, and says whether that was for the last time.
    async fn follow_batch(self: &Arc<Self>, object: &Object) -> Result<bool, Failure> {
        let Ok(followed) = serde_json::from_slice::<Followed>(&object.value) else {
            return Ok(true);
        };
        let Followed { caller, batch } = &followed;
        let owner = Owner::new(&*caller.owner);
        let mark = || self.store().get(&owner, super::MARK, batch);
        if mark().await?.is_none() {
            return Ok(true);
        }
        let age = SystemTime::now().duration_since(object.created_at).unwrap_or_default();
        if age > LONGEST {
            tracing::warn!(batch, key = caller.key, "what a batch has used was never told");
            self.store().delete(&owner, super::MARK, batch).await?;
            return Ok(true);
        }
        objects::look_again(self, caller, Relay::Batch, batch).await;
        if mark().await?.is_none() {
            return Ok(true);
        }
        if let Some(file) = objects::answers_of(self, &owner, batch).await? {
            objects::look_again(self, caller, Relay::FileContent, &file).await;
        }
        Ok(mark().await?.is_none())
    }
}
