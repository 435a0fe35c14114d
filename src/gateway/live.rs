//! One stream that is being passed on: what the upstream has sent, how long it is waited for, how
//! it ends.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use tokio::time::Instant;

use super::call::Call;
use super::flow::{Flow, Step};
use super::reply::outcome_of;
use super::shadow;
use super::snapshot::Target;
use crate::canon::Outcome;
use crate::config::{OnBreak, OnDisconnect};
use crate::dialect::passage::last_data;
use crate::error::{Error, Kind};
use crate::provider::{Cause, Failure};

/// Behind the finish of an answer, how long its usage and `[DONE]` are waited for, unless more of it
/// comes after all.
const FINISH_WAIT: Duration = Duration::from_secs(1);
/// Bytes that come within this time of the last ones are gathered, so that a fast stream costs one
/// write a window and not one an event. A token on its own leaves at once.
const WINDOW: Duration = Duration::from_millis(2);
/// So much is not held for the window.
const GATHERED: usize = 32 * 1024;
/// Behind `[DONE]`, how long the end of the response is waited for, to use the connection again.
const DONE_WAIT: Duration = Duration::from_millis(100);

/// A stream that is being passed on.
pub(super) struct Live {
    pub(super) call: Box<Call>,
    pub(super) flow: Box<Flow>,
    idle: Duration,
    total: Instant,
    first_data: Instant,
    last_data: Instant,
    finished: Option<Instant>,
    /// What is ready is being given, until nothing is.
    giving: bool,
    pace: Pace,
    /// The client has been given some of it.
    pub(super) gave: bool,
    /// What comes behind that, when the upstream has come to its end.
    last: Option<Turn>,
}

/// How an upstream's events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pace {
    /// One by one: its socket is watched.
    Calm,
    /// Some came within the window of those before: its socket is polled, once a window.
    Polled,
}

/// What a phase asks for next.
pub(super) enum Turn {
    Give(Bytes),
    /// The stream ends, with the call's outcome and perhaps an error event.
    End(Outcome, Option<Error>),
    /// The upstream has broken its answer off: another target may go on. Else this is said, or the
    /// upstream's own event passed on.
    Broken(Box<Broken>),
    /// All of the stream is there already.
    Say(Box<Call>, Bytes),
    /// No target answered.
    Refuse(Box<Call>, Error),
    Begin(Box<Live>),
    Wait(Instant),
}

/// How an answer has ended before its end.
pub(super) struct Broken {
    pub(super) failure: Failure,
    pub(super) error: Error,
    pub(super) event: Option<Bytes>,
}

fn broken(failure: Failure, error: Error, event: Option<Bytes>) -> Turn {
    // How it ended is the same for every cause that lies with the upstream, but for a silence.
    let outcome = match failure.cause {
        Cause::IdleTimeout | Cause::Cut => failure.outcome,
        _ => Outcome::UpstreamError,
    };
    let failure = Failure { outcome, ..failure };
    Turn::Broken(Box::new(Broken { failure, error, event }))
}

// === impl Live ===

impl Live {
    pub(super) fn new(mut call: Box<Call>, mut flow: Box<Flow>) -> Self {
        if flow.passage.sight().finished {
            call.keep(flow.passage.keepsakes());
        }
        if let Some(last) = flow.passage.last_word() {
            call.keep_response(&last, flow.passage.is_verbatim());
        }
        let now = Instant::now();
        let limits = call.target().map(|target| target.limits);
        let hour = Duration::from_hours(1);
        Self {
            idle: limits.map_or(hour, |limits| limits.idle),
            total: limits.map_or_else(
                || call.started + call.bearings.timeout.unwrap_or(hour * 24),
                |limits| call.end(&limits),
            ),
            call,
            flow,
            first_data: now,
            last_data: now,
            finished: None,
            giving: true,
            gave: false,
            pace: Pace::Calm,
            last: None,
        }
    }

    pub(super) fn turn(&mut self, last_sent: Instant, context: &mut Context<'_>) -> Turn {
        loop {
            if self.giving
                && let Some(next) = self.give()
            {
                return next;
            }
            if self.flow.passage.is_stopped() {
                let next = self.give();
                return next.unwrap_or(Turn::End(Outcome::GuardBlocked, None));
            }
            let release = last_sent + WINDOW;
            let gathering = !self.flow.ready.is_empty();
            if (gathering || self.pace == Pace::Polled) && Instant::now() < release {
                // The upstream is not even looked at: what it sends waits in the socket.
                return Turn::Wait(release);
            }
            match self.flow.poll_step(context) {
                Poll::Ready(Step::Data) => {
                    self.note_progress(release);
                    self.stay_within_budget();
                }
                Poll::Ready(step) => {
                    self.last = Some(self.ended(step));
                    self.giving = true;
                }
                Poll::Pending if gathering => self.giving = true,
                Poll::Pending if self.pace == Pace::Polled => {
                    // A window without anything: from here on the next event is awaited.
                    self.pace = Pace::Calm;
                    self.flow.watch(true);
                }
                Poll::Pending => return self.patience(),
            }
        }
    }

    /// The next of what is being given; `None` when that was all.
    fn give(&mut self) -> Option<Turn> {
        let next = self.flow.ready.pop_front().map(Turn::Give);
        if next.is_some() && !std::mem::replace(&mut self.gave, true) {
            self.let_go();
        }
        let next = next.or_else(|| self.last.take());
        self.giving = next.is_some();
        next
    }

    /// Who begins anew cannot any more, and so the question is not kept for that.
    fn let_go(&mut self) {
        let wishes = self.call.wishes();
        if wishes.is_some_and(|wishes| wishes.on_break == OnBreak::Restart) {
            self.flow.onward = None;
        }
    }

    /// Ends an answer that has outgrown what its caller has left.
    fn stay_within_budget(&mut self) {
        if let Some(error) = self.call.outgrows(self.flow.passage.sight()) {
            self.last = Some(Turn::End(Outcome::BudgetExceeded, Some(error)));
            self.giving = true;
        }
    }

    /// What the answer leaves behind is kept before the client has the end, since its next question
    /// may need it.
    fn note_finish(&mut self) {
        if self.finished.is_none() && self.flow.passage.sight().finished {
            self.finished = Some(Instant::now());
            self.call.keep(self.flow.passage.keepsakes());
        }
    }

    /// Only what reaches the client counts as progress: comments do not.
    fn note_progress(&mut self, release: Instant) {
        if self.flow.ready.is_empty() {
            return;
        }
        self.last_data = Instant::now();
        self.note_finish();
        self.keep_response();
        let quick = self.last_data < release && !self.flow.passage.sight().finished;
        if quick && self.pace == Pace::Calm && self.flow.watch(false) {
            self.pace = Pace::Polled;
        }
        let gathered = self.flow.ready.iter().map(Bytes::len).sum::<usize>() >= GATHERED;
        self.giving = gathered || self.last_data >= release || self.flow.passage.sight().done;
    }

    /// Keeps the response when its last event has passed, before the client has it.
    fn keep_response(&mut self) {
        if let Some(last) = self.flow.passage.last_word() {
            self.call.keep_response(&last, self.flow.passage.is_verbatim());
        }
    }

    /// How long the silent upstream is still waited for.
    fn patience(&mut self) -> Turn {
        // Some dialects have nothing to say before the end of all.
        self.note_finish();
        if self.flow.passage.sight().ends_short() {
            return self.ended(Step::Ended);
        }
        let now = Instant::now();
        let sight = self.flow.passage.sight();
        // Guards that are asked about the whole of it take their own time.
        let finished = self.finished.filter(|_| !self.flow.passage.is_withheld());
        let until = match finished {
            Some(since) if sight.done => since.max(self.last_data) + DONE_WAIT,
            Some(since) if !sight.resumed => since.max(self.last_data) + FINISH_WAIT,
            _ => (self.last_data + self.idle).min(self.total),
        };
        if now < until {
            return Turn::Wait(until);
        }
        if finished.is_some() {
            return self.ended(Step::Ended);
        }
        if now >= self.total {
            let text = "The answer took longer than the route allows.";
            return Turn::End(Outcome::Timeout, Some(Error::new(Kind::UpstreamTimeout, text)));
        }
        let text = "The provider fell silent in the middle of its answer.";
        let error = Error::new(Kind::UpstreamTimeout, text);
        broken(Failure::of(Cause::IdleTimeout, StatusCode::OK.as_u16()), error, None)
    }

    /// The upstream has nothing more to say. A finished answer is completed with what it lacks.
    fn ended(&mut self, step: Step) -> Turn {
        match step {
            Step::Failed(event) => return self.failed(event),
            // Who has followed a run may know why it broke off.
            Step::Cut(_) if self.call.chain.is_none() && self.flow.told.is_some() => {
                let error = self.flow.told.take().map(|told| *told);
                let outcome = error.as_ref().map(|error| outcome_of(error.kind));
                return Turn::End(outcome.unwrap_or(Outcome::Internal), error);
            }
            Step::Cut(cause) => tracing::debug!(%cause, "an upstream's stream broke"),
            Step::Ended | Step::Data => {}
        }
        if self.flow.close() {
            return Turn::Wait(Instant::now());
        }
        // Its last event may have come without the empty line that ends one, and so only now.
        self.note_finish();
        self.keep_response();
        let passage = &mut self.flow.passage;
        if !passage.sight().done || passage.sight().ends_short() {
            let last = passage.complete(self.call.usage_asked, self.call.input_estimate());
            if !passage.sight().finished {
                let text = "The provider broke its answer off; what was received is not complete.";
                let error = Error::new(Kind::StreamTruncated, text);
                return broken(Failure::of(Cause::Cut, StatusCode::OK.as_u16()), error, None);
            }
            self.keep_response();
            if !last.is_empty() {
                return Turn::Give(last.into());
            }
        }
        Turn::End(Outcome::Ok, None)
    }

    /// The upstream has reported a failure inside its stream. Where it speaks its client's
    /// language it has said so itself, and the client may know it.
    fn failed(&mut self, event: Bytes) -> Turn {
        let unknown = || Failure::of(Cause::ErrorInBody, StatusCode::OK.as_u16());
        let failure = self.flow.failure(&self.call, &event).unwrap_or_else(unknown);
        let error = super::flow::reported(&self.call, failure.message.clone());
        let shown = failure.confided.is_none() && self.flow.passage.is_verbatim();
        let event = shown.then(|| self.flow.passage.failed(event)).map(|event| {
            let redact = |target: &Target| target.provider.redact_event(&event);
            self.call.target().and_then(redact).unwrap_or(event)
        });
        if let Some(said) = event.as_deref().and_then(last_data) {
            self.call.keep_response(&said, true);
        }
        broken(failure, error, event)
    }

    /// Whether the answer is read to its end although its client has left.
    pub(super) fn drains(&self) -> bool {
        let wanted = self.is_to_be_drained() || self.flow.is_followed();
        let passage = &self.flow.passage;
        wanted && !passage.sight().done && !passage.is_stopped()
    }

    /// Whether its route wants that, for the sake of its usage.
    fn is_to_be_drained(&self) -> bool {
        let wishes = self.call.wishes();
        wishes.is_some_and(|wishes| wishes.on_disconnect == OnDisconnect::Drain)
    }

    /// Reads it on. The client has left all the same.
    pub(super) fn drain(self) {
        let gateway = Arc::clone(&self.call.gateway);
        let Some(place) = gateway.drains.acquire() else {
            return drop(self.settle(Outcome::ClientClosed));
        };
        let wanted = self.is_to_be_drained();
        let Self { mut call, flow, .. } = self;
        gateway.tasks.spawn(async move {
            if wanted {
                shadow::drain(&mut call, flow).await;
            } else {
                shadow::drain_for_others(&mut call, flow).await;
            }
            call.ends(Outcome::ClientClosed);
            drop((call, place));
        });
    }

    /// The call with all that its stream has told.
    pub(super) fn settle(self, outcome: Outcome) -> Box<Call> {
        let Self { mut call, flow, first_data, last_data, .. } = self;
        let sight = flow.passage.sight();
        call.streamed(sight);
        call.malformed(sight.malformed);
        call.ends(outcome);
        if let (Some(target), Some(gaps @ 1..)) = (call.target(), sight.deltas.checked_sub(1)) {
            let gap = (last_data - first_data) / u32::try_from(gaps).unwrap_or(u32::MAX);
            target.meters.token_gap(&call.gateway.telemetry.metrics, gap);
        }
        if outcome == Outcome::GuardBlocked {
            call.end_answered();
        }
        call
    }
}
