//! Counts the tokens of a batch once: when its end is first seen, or the file of its answers.
//!
//! A batch that was not counted has a mark in the store, and whoever takes the mark away counts.
//! The gateway looks at such batches itself, should nobody else.

mod follow;
pub(super) mod manifest;

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::ask::Answer;
use super::call::Call;
use crate::canon::{Outcome, Owner, Surface, Usage};
use crate::dialect::batch::{self, Tally};
use crate::store::{Draft, Failure, ObjectKind};

const MARK: ObjectKind = ObjectKind::Unmetered;

/// What a batch says of its end.
#[derive(Debug, Deserialize)]
struct Batch {
    id: String,
    status: String,
    model: Option<String>,
    #[serde(default)]
    usage: Value,
    output_file_id: Option<String>,
}

/// What is counted while the answers of a batch pass.
#[derive(Debug)]
pub(super) struct Metering {
    tally: Tally,
    owner: Owner,
    batch: String,
}

/// Notes that a new batch is to be counted.
pub(super) async fn begin(call: &Call, owner: &Owner, id: &str) -> Result<(), Failure> {
    mark(call, owner, id, "").await?;
    match &call.caller {
        Some(caller) => follow::begin(&call.gateway, caller, id).await,
        None => Ok(()),
    }
}

async fn mark(call: &Call, owner: &Owner, id: &str, batch: &str) -> Result<(), Failure> {
    let value = Bytes::copy_from_slice(batch.as_bytes());
    let draft = Draft { id: id.to_owned(), value, expires_at: None };
    call.gateway.store().put(owner, MARK, draft).await
}

/// Counts a batch that has come to its end, or has the file of its answers counted.
pub(super) async fn look(call: &mut Call, owner: &Owner, body: &[u8]) -> Result<(), Failure> {
    let Ok(batch) = serde_json::from_slice::<Batch>(body) else { return Ok(()) };
    if !matches!(batch.status.as_str(), "completed" | "failed" | "expired" | "cancelled") {
        return Ok(());
    }
    let store = call.gateway.store().clone();
    let usage = batch::read_usage(&batch.usage).filter(|usage| usage.total() > 0);
    match (usage, &batch.output_file_id) {
        (Some(usage), _) => {
            if store.delete(owner, MARK, &batch.id).await? {
                count(call, usage, batch.model.as_deref());
            }
        }
        (None, Some(file)) if store.get(owner, MARK, &batch.id).await?.is_some() => {
            mark(call, owner, file, &batch.id).await?;
        }
        (None, Some(_)) => {}
        // It has ended without an answer, and so has used nothing.
        (None, None) => drop(store.delete(owner, MARK, &batch.id).await?),
    }
    Ok(())
}

/// Counts along while the content of a file goes to its client, where that is a batch's answers
/// which were not counted.
pub(super) async fn watch(mut call: Box<Call>, file: &str, answer: &mut Answer) -> Box<Call> {
    let Some(owner) = call.owner() else { return call };
    let found = call.gateway.store().get(&owner, MARK, file).await;
    // Counted is what can be: the mark stays for the next time.
    let Ok(Some(found)) = found else { return call };
    let batch = String::from_utf8_lossy(&found.value).into_owned();
    let mut metering = Metering { tally: Tally::default(), owner, batch };
    match answer {
        Answer::Whole { body, .. } => {
            metering.feed(body);
            call = metering.settle(call).await;
        }
        Answer::Bytes(incoming) => incoming.metering = Some(Box::new(metering)),
        Answer::Stream(_) => {}
    }
    call
}

fn count(call: &mut Call, usage: Usage, model: Option<&str>) {
    let provider = call.target().map(|target| Arc::clone(&target.provider));
    if let (Some(provider), Some(model)) = (provider, model) {
        call.chain = Some(Arc::new(call.house.account(&provider, model)));
    }
    call.counts_as(Surface::Batches);
    call.usage(Some(usage), 0);
}

// === impl Metering ===

impl Metering {
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.tally.feed(bytes);
    }

    /// Counts what has passed: all of the file has.
    pub(super) async fn settle(self, mut call: Box<Call>) -> Box<Call> {
        let Self { tally, owner, batch } = self;
        let Some((usage, model)) = tally.finish() else { return call };
        match call.gateway.store().delete(&owner, MARK, &batch).await {
            Ok(true) => count(&mut call, usage, model.as_deref()),
            Ok(false) => {}
            Err(cause) => tracing::error!(%cause, "a batch could not be counted"),
        }
        call
    }

    /// The same behind the back of a client who has everything.
    pub(super) fn settle_later(self, mut call: Box<Call>) {
        call.ends(Outcome::Ok);
        let tasks = call.gateway.tasks.clone();
        tasks.spawn(async move { drop(self.settle(call).await) });
    }
}
