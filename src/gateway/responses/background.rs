//! Responses that are made while nobody waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::detached::Log;
use super::stored::{Maker, Stored};
use super::{Gateway, Keeping};
use crate::canon::Owner;
use crate::error::{Error, Kind};
use crate::gateway::agents::RUN;

/// A whole response and who made it, or what went wrong.
type Done = Result<(Bytes, Option<Maker>), Error>;

/// The responses under way, and how to end one: dropping its sender.
///
/// What stands in the store is changed while the lock is held, so that of two who end a response
/// only the first has a word in it.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Jobs(Mutex<HashMap<(Owner, String), Job>>);

#[derive(Debug)]
struct Job {
    _end: oneshot::Sender<()>,
    /// What it has said, where that can be followed.
    log: Option<Arc<Log>>,
}

// === impl Jobs ===

impl Jobs {
    /// Ready when the job is to end before its time.
    pub(super) fn enter(
        &self,
        owner: &Owner,
        id: &str,
        log: Option<Arc<Log>>,
    ) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.held().insert((owner.clone(), id.to_owned()), Job { _end: sender, log });
        receiver
    }

    pub(super) fn is_running(&self, owner: &Owner, id: &str) -> bool {
        self.held().contains_key(&(owner.clone(), id.to_owned()))
    }

    /// What a job that is under way has said.
    pub(super) fn log(&self, owner: &Owner, id: &str) -> Option<Arc<Log>> {
        self.held().get(&(owner.clone(), id.to_owned()))?.log.clone()
    }

    /// Does `act` if the job has not ended.
    fn during(&self, owner: &Owner, id: &str, act: impl FnOnce()) {
        let held = self.held();
        if held.contains_key(&(owner.clone(), id.to_owned())) {
            act();
        }
    }

    /// Ends the job and does `act`, unless it has ended; says whether it did.
    pub(super) fn end(&self, owner: &Owner, id: &str, act: impl FnOnce()) -> bool {
        let mut held = self.held();
        let job = held.remove(&(owner.clone(), id.to_owned()));
        if job.is_some() {
            act();
        }
        job.is_some()
    }

    fn held(&self) -> MutexGuard<'_, HashMap<(Owner, String), Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// Has `work` answer in the background; gives the response as it stands now. `work` ends with
    /// the whole response and who made it, or with what went wrong.
    pub(in crate::gateway) async fn respond_later(
        self: &Arc<Self>,
        keeping: Keeping,
        id: String,
        created: u64,
        model: &str,
        work: impl Future<Output = Done> + Send + 'static,
    ) -> Value {
        let response = begun(&keeping, &id, created, model);
        let mut stored = keeping.stored(response.clone(), None);
        let owner = keeping.owner.clone();
        self.put_begun(&owner, id.clone(), &stored).await;
        let cancelled = self.jobs.enter(&owner, &id, None);
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move {
            stored.response["status"] = json!("in_progress");
            let put = |stored: &Stored| gateway.put_response(&owner, id.clone(), stored);
            gateway.jobs.during(&owner, &id, || put(&stored));
            let done = tokio::select! {
                done = work => done,
                _ = cancelled => return,
                () = gateway.until_end() => {
                    Err(Error::new(Kind::Overloaded, "The gateway was shut down; ask again."))
                }
            };
            let goes_on = keeping.goes_on() && (done.is_err() || !keeping.is_left_to_client());
            if !goes_on {
                conclude(&mut stored, done);
            }
            gateway.jobs.end(&owner, &id, || put(&stored));
        });
        response
    }
}

impl Gateway {
    /// Keeps a response that has failed after its beginning.
    pub(in crate::gateway) fn keep_failure(
        &self,
        keeping: &Keeping,
        id: String,
        created: u64,
        model: &str,
        error: &Error,
    ) {
        let mut stored = keeping.stored(begun(keeping, &id, created, model), None);
        stored.response["background"] = json!(keeping.asked()["background"] == true);
        stored.fail(error);
        self.put_response(&keeping.owner, id, &stored);
    }
}

/// The response before anything was answered.
pub(super) fn begun(keeping: &Keeping, id: &str, created: u64, model: &str) -> Value {
    let question = keeping.asked();
    let or = |name: &str, default: Value| question.get(name).cloned().unwrap_or(default);
    let mut metadata = or("metadata", json!({}));
    if let Some((run, _)) = &keeping.run {
        metadata[RUN] = json!(run.to_string());
    }
    json!({
        "id": id, "object": "response", "created_at": created, "status": "queued",
        "background": true, "error": null, "incomplete_details": null, "model": model,
        "output": [], "usage": null,
        "instructions": question["instructions"], "metadata": metadata,
        "previous_response_id": keeping.previous,
        "parallel_tool_calls": or("parallel_tool_calls", json!(true)),
        "tool_choice": or("tool_choice", json!("auto")),
        "tools": or("tools", json!([])),
    })
}

/// The end of a response, under the id that was given out.
pub(super) fn conclude(stored: &mut Stored, done: Done) {
    let answer = done.and_then(|(body, maker)| {
        let answer = serde_json::from_slice::<Value>(&body).ok().filter(Value::is_object);
        let error = || Error::new(Kind::UpstreamError, "The answer is no JSON object.");
        answer.map(|answer| (answer, maker)).ok_or_else(error)
    });
    match answer {
        Ok((mut response, maker)) => {
            for given in ["id", "created_at", "background", "previous_response_id"] {
                response[given] = stored.response[given].take();
            }
            stored.response = response;
            stored.maker = maker;
        }
        Err(error) => stored.fail(&error),
    }
}
