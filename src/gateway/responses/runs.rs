//! Responses that runs of agents give: they go on when this process has ended, and somebody else
//! may be at work on them.

use std::future::poll_fn;
use std::task::Poll;

use serde_json::{Value, json};

use super::background::{begun, conclude};
use super::stored::Stored;
use super::{Gateway, Keeping};
use crate::cache::Next;
use crate::canon::{ChatRequest, Owner, RunId, RunState, Surface};
use crate::dialect::fold::Fold;
use crate::error::{Error, Kind};
use crate::gateway::agents::{Frame, Performance, RUN, Show};

impl Keeping {
    /// A run gives the response.
    pub(in crate::gateway) fn set_run(&mut self, performance: &Performance) {
        self.run = Some((performance.run, performance.report.clone()));
    }

    /// Whether the run that gives it is not over: then somebody else goes on with both.
    pub(super) fn goes_on(&self) -> bool {
        self.run.as_ref().is_some_and(|(_, report)| !report.borrow().state.is_over())
    }

    /// Whether it is the turn of its client, whose next response it is that the run goes on in.
    pub(super) fn is_left_to_client(&self) -> bool {
        let of = self.run.as_ref().map(|(_, report)| report.borrow().state);
        of == Some(RunState::WaitingClient)
    }
}

impl Stored {
    /// The run that gives it, if one does.
    pub(super) fn run(&self) -> Option<RunId> {
        RunId::parse(self.response["metadata"][RUN].as_str()?)
    }
}

impl Gateway {
    /// The run that has given, or gives, this response.
    pub(in crate::gateway) async fn run_of(
        &self,
        owner: &Owner,
        id: &str,
    ) -> Result<Option<RunId>, Error> {
        Ok(self.previous(owner, id).await?.run())
    }

    /// Keeps a response that a run will give when somebody takes it up.
    pub(in crate::gateway) async fn respond_by_run(
        &self,
        keeping: &Keeping,
        id: &str,
        created: u64,
        model: &str,
    ) -> Value {
        let response = begun(keeping, id, created, model);
        let stored = keeping.stored(response.clone(), None);
        self.put_begun(&keeping.owner, id.to_owned(), &stored).await;
        response
    }

    /// How a response stands that nobody here is at work on: as its run stands.
    pub(super) async fn as_its_run_stands(
        &self,
        owner: &Owner,
        id: &str,
        run: RunId,
        mut stored: Stored,
    ) -> Stored {
        // Who runs agents may not have begun yet.
        if self.conductor().is_none() {
            return stored;
        }
        let state = match self.store().run(Some(owner), run).await {
            Ok(row) => row.map(|row| row.state),
            Err(error) => {
                tracing::debug!(%run, %error, "a run could not be asked how it stands");
                return stored;
            }
        };
        if let Some(state) = state.filter(|state| !state.is_over() && !state.is_waiting()) {
            // Whoever works at it, and wherever.
            stored.response["status"] = json!(unfinished(state));
            return stored;
        }
        // What came before, the responses before it have.
        let since = stored.response["created_at"].as_u64().unwrap_or_default() * 1000;
        match self.rejoin(run, since, Some(owner.clone())).await {
            Ok(Some(performance)) => {
                if self.take_in_run(&mut stored, id, performance).await {
                    self.put_response(owner, id.to_owned(), &stored);
                }
            }
            Ok(None) => {
                let message = "The run that gave this response is not known any more.";
                stored.fail(&Error::new(Kind::Internal, message));
            }
            // Another replica may be at work on it.
            Err(error) => tracing::debug!(%run, %error, "a run could not be asked how it stands"),
        }
        stored
    }

    /// Takes over what the run has said, if it says nothing more for now; whether it has ended.
    async fn take_in_run(&self, stored: &mut Stored, id: &str, performance: Performance) -> bool {
        let frame = Frame {
            id: id.strip_prefix("resp_").unwrap_or(id).to_owned(),
            created: stored.response["created_at"].as_u64().unwrap_or_default(),
            model: stored.response["model"].as_str().unwrap_or_default().to_owned(),
            background: stored.response["background"] == true,
            request: ChatRequest {
                metadata: stored.response["metadata"].as_object().cloned(),
                ..ChatRequest::default()
            },
            ..Frame::default()
        };
        let show = Show::new(&performance, Surface::Responses, frame);
        let (mut follower, mut fold) = (performance.follower, Fold::default());
        let heard = loop {
            let next = poll_fn(|context| {
                Poll::Ready(match follower.poll_next(context) {
                    Poll::Ready(next) => Some(next),
                    Poll::Pending => None,
                })
            });
            match next.await {
                Some(Next::Events(events)) => events.iter().for_each(|event| fold.add(event)),
                Some(Next::End) => break fold.finish().map_err(|_| broken()),
                Some(Next::Failed(error)) => break Err(error.map_or_else(broken, |error| *error)),
                None => {
                    stored.response["status"] = json!(unfinished(show.report.borrow().state));
                    return false;
                }
            }
        };
        let asked = stored.response.clone();
        conclude(stored, show.concluded(heard).map(|body| (body.into(), None)));
        // What the answer repeats of its question stands there already.
        for field in ["instructions", "tools", "tool_choice", "parallel_tool_calls"] {
            stored.response[field] = asked[field].clone();
        }
        // What it waits for can be another thing next time.
        !stored.is_unfinished()
    }
}

/// What this API calls a run that is not over.
fn unfinished(state: RunState) -> &'static str {
    if state == RunState::Queued { "queued" } else { "in_progress" }
}

fn broken() -> Error {
    Error::new(Kind::StreamTruncated, "The run broke off.")
}
