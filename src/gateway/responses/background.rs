//! Responses that are made while nobody waits.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::stored::Stored;
use super::{Gateway, Keeping};
use crate::canon::Owner;
use crate::dialect::responses::state;
use crate::error::Error;

/// The responses under way. Dropping a sender ends one.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Jobs(Mutex<HashMap<(Owner, String), oneshot::Sender<()>>>);

// === impl Jobs ===

impl Jobs {
    /// Ready when the job is to end before its time.
    fn enter(&self, owner: &Owner, id: &str) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        self.held().insert((owner.clone(), id.to_owned()), sender);
        receiver
    }

    /// Whether there was one to cancel.
    pub(super) fn cancel(&self, owner: &Owner, id: &str) -> bool {
        self.held().remove(&(owner.clone(), id.to_owned())).is_some()
    }

    fn held(&self) -> std::sync::MutexGuard<'_, HashMap<(Owner, String), oneshot::Sender<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gateway {
    /// Has `work` answer in the background; gives the response as it stands now. `work` ends with
    /// the whole response, or with what went wrong.
    pub(in crate::gateway) fn respond_later(
        self: &Arc<Self>,
        keeping: Keeping,
        (id, created, model): (String, u64, &str),
        work: impl Future<Output = Result<Vec<u8>, Error>> + Send + 'static,
    ) -> Value {
        let question: Value =
            serde_json::from_slice(&keeping.question.to_bytes()).unwrap_or_default();
        let or = |name: &str, default: Value| question.get(name).cloned().unwrap_or(default);
        let response = json!({
            "id": id, "object": "response", "created_at": created, "status": "queued",
            "background": true, "error": null, "incomplete_details": null, "model": model,
            "output": [], "usage": null,
            "instructions": question["instructions"], "metadata": question["metadata"],
            "previous_response_id": keeping.previous,
            "parallel_tool_calls": or("parallel_tool_calls", json!(true)),
            "tool_choice": or("tool_choice", json!("auto")),
            "tools": or("tools", json!([])),
        });
        let mut stored = Stored {
            input: state::items(&question["input"]),
            response: response.clone(),
            previous: keeping.previous.clone(),
            provider: None,
        };
        let owner = keeping.owner;
        self.put_response(&owner, id.clone(), &stored);
        let cancelled = self.jobs.enter(&owner, &id);
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move {
            stored.response["status"] = json!("in_progress");
            gateway.put_response(&owner, id.clone(), &stored);
            let done = tokio::select! {
                done = work => done,
                _ = cancelled => return,
            };
            stored.response = concluded(stored.response, done);
            // Whoever cancelled in the meantime has had the last word.
            if gateway.jobs.cancel(&owner, &id) {
                gateway.put_response(&owner, id, &stored);
            }
        });
        response
    }
}

/// The response at its end, under the id that was given out.
fn concluded(begun: Value, done: Result<Vec<u8>, Error>) -> Value {
    let answer = done.and_then(|body| {
        serde_json::from_slice::<Value>(&body)
            .map_err(|_| Error::new(crate::error::Kind::UpstreamError, "The answer is no JSON."))
    });
    match answer {
        Ok(mut response) => {
            response["id"] = begun["id"].clone();
            response["background"] = json!(true);
            response
        }
        Err(error) => {
            let mut failed = begun;
            failed["status"] = json!("failed");
            failed["error"] = json!({"code": error.kind.code(), "message": error.message});
            failed
        }
    }
}
