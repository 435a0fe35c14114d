//! Gives a stream back to its client: events untouched, keep-alives in silence, a proper end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use tokio::time::{Instant, Sleep};

use super::ask::Answer;
use super::call::Call;
use super::flow::{Flow, Step};
use super::onward::Resumed;
use super::pipeline::Walk;
use super::reply::outcome_of;
use super::snapshot::Target;
use super::{Body, Gateway, shadow};
use crate::canon::Outcome;
use crate::config::{OnBreak, OnDisconnect};
use crate::dialect::ClientSide;
use crate::dialect::passage::{Passage, last_data};
use crate::error::{Error, Kind};
use crate::provider::{Cause, Failure};

/// Behind the finish of an answer, how long its usage and `[DONE]` are waited for.
const FINISH_WAIT: Duration = Duration::from_secs(1);
/// Bytes that come within this time of the last ones are gathered, so that a fast stream costs one
/// write a window and not one an event. A token on its own leaves at once.
const WINDOW: Duration = Duration::from_millis(2);
/// So much is not held for the window.
const GATHERED: usize = 32 * 1024;
/// Behind `[DONE]`, how long the end of the response is waited for, to use the connection again.
const DONE_WAIT: Duration = Duration::from_millis(100);

/// A stream on its way to a client. It is pulled, so a slow client slows its provider.
pub(super) struct Relay {
    phase: Phase,
    /// What is said besides the upstream's own events.
    said: VecDeque<Bytes>,
    timer: Pin<Box<Sleep>>,
    keepalive: Duration,
    /// How this client is spoken to.
    client: &'static dyn ClientSide,
    last_sent: Instant,
    gateway: Arc<Gateway>,
    /// Ready when open streams have to end; made when first waited for.
    ending: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

enum Phase {
    /// The client has its head already, the upstream is still silent.
    Waiting(Walk),
    /// A stream has broken, and another target is to go on.
    Resuming(Box<Resumed>),
    Live(Live),
    /// Only `said` is left. The call is settled when the last of it was taken.
    Ending(Option<Box<Call>>),
}

struct Live {
    call: Box<Call>,
    flow: Box<Flow>,
    idle: Duration,
    total: Instant,
    first_data: Instant,
    last_data: Instant,
    finished: Option<Instant>,
    /// What is ready is being given, until nothing is.
    giving: bool,
    pace: Pace,
    /// The client has been given some of it.
    gave: bool,
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
enum Turn {
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
struct Broken {
    failure: Failure,
    error: Error,
    event: Option<Bytes>,
}

// === impl Relay ===

impl Relay {
    /// The reply for a stream whose first content is there.
    pub(super) fn of(mut call: Box<Call>, flow: Box<Flow>) -> Response<Body> {
        let stream_type = HeaderValue::from_static(call.client().stream_type());
        let head = call.respond(StatusCode::OK, stream_type);
        let gateway = Arc::clone(&call.gateway);
        let keepalive = call.house.config.server.keepalive;
        let keepalive = (keepalive, call.client());
        let relay = Self::new(Phase::Live(Live::new(call, flow)), gateway, keepalive);
        reply(head, relay)
    }

    /// The reply for a stream that has been silent for `keepalive`; attempts go on inside it.
    pub(super) fn committed_early(
        walk: Walk,
        gateway: Arc<Gateway>,
        (head, client): (Response<()>, &'static dyn ClientSide),
    ) -> Response<Body> {
        let keepalive = gateway.snapshot().config.server.keepalive;
        let mut relay = Self::new(Phase::Waiting(walk), gateway, (keepalive, client));
        relay.said.push_back(Bytes::from_static(client.keep_alive()));
        reply(head, relay)
    }

    fn new(
        phase: Phase,
        gateway: Arc<Gateway>,
        (keepalive, client): (Duration, &'static dyn ClientSide),
    ) -> Self {
        let now = Instant::now();
        gateway.telemetry.metrics.streams_open.inc();
        Self {
            phase,
            said: VecDeque::new(),
            timer: Box::pin(tokio::time::sleep_until(now + keepalive)),
            keepalive,
            client,
            last_sent: now,
            gateway,
            ending: None,
        }
    }

    /// The next bytes for the client; `None` at the end.
    pub(super) fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        loop {
            if let Some(bytes) = self.said.pop_front() {
                return self.give(bytes);
            }
            let turn = match &mut self.phase {
                Phase::Waiting(walk) => match walk.as_mut().poll(context) {
                    Poll::Ready((call, answer)) => begin(call, answer),
                    Poll::Pending => Turn::Wait(Instant::now() + Duration::from_hours(1)),
                },
                Phase::Resuming(resumed) => match resumed.walk.as_mut().poll(context) {
                    Poll::Ready((call, answer)) => {
                        begin_again(call, answer, resumed.carried.take())
                    }
                    Poll::Pending => Turn::Wait(Instant::now() + Duration::from_hours(1)),
                },
                Phase::Live(live) => live.turn(self.last_sent, context),
                Phase::Ending(call) => {
                    // The client has everything; now the call is over.
                    *call = None;
                    return Poll::Ready(None);
                }
            };
            match turn {
                Turn::Give(bytes) => return self.give(bytes),
                Turn::Begin(live) => self.phase = Phase::Live(*live),
                Turn::End(outcome, error) => self.end(outcome, error),
                Turn::Broken(broken) => self.broke(*broken),
                Turn::Refuse(call, error) => self.refuse(call, error),
                Turn::Say(mut call, bytes) => {
                    call.ends(Outcome::Ok);
                    self.said.push_back(bytes);
                    self.phase = Phase::Ending(Some(call));
                }
                Turn::Wait(until) => ready!(self.poll_waiting(until, context)),
            }
        }
    }

    fn give(&mut self, bytes: Bytes) -> Poll<Option<Bytes>> {
        self.last_sent = Instant::now();
        Poll::Ready(Some(bytes))
    }

    /// Waits for `until`, for the time of a keep-alive, or for the end of all streams.
    fn poll_waiting(&mut self, until: Instant, context: &mut Context<'_>) -> Poll<()> {
        let keepalive = self.last_sent + self.keepalive;
        let next = until.min(keepalive);
        if next < self.timer.deadline() {
            self.timer.as_mut().reset(next);
        }
        // The timer may stand for a moment that has moved on since; then it is set anew.
        while self.timer.as_mut().poll(context).is_ready() {
            let now = Instant::now();
            if now >= until {
                return Poll::Ready(());
            }
            if now >= keepalive {
                self.said.push_back(Bytes::from_static(self.client.keep_alive()));
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(next);
        }
        let gateway = &self.gateway;
        let ending = self.ending.get_or_insert_with(|| {
            let mut ending = gateway.ending();
            Box::pin(async move {
                let _ = ending.wait_for(|ending| *ending).await;
            })
        });
        if ending.as_mut().poll(context).is_ready() {
            let error = Error::new(Kind::Overloaded, "The gateway is shutting down; try again.");
            self.end(Outcome::UpstreamTruncated, Some(error));
            return Poll::Ready(());
        }
        Poll::Pending
    }

    /// Another target goes on, or the client is told.
    fn broke(&mut self, broken: Broken) {
        let Broken { failure, error, event } = broken;
        let outcome = failure.outcome;
        let phase = std::mem::replace(&mut self.phase, Phase::Ending(None));
        let Phase::Live(mut live) = phase else { return };
        live.call.broke_off(&failure);
        if let Some(mut onward) = live.flow.onward.take()
            && onward.may_resume(&live.call, &live.flow, live.gave)
        {
            let Live { call, flow, gave, .. } = live;
            let resumed = onward.resume((call, flow), (failure, error), gave);
            self.phase = Phase::Resuming(Box::new(resumed));
            return;
        }
        self.phase = Phase::Live(live);
        self.say_broken(outcome, (error, event));
    }

    fn say_broken(&mut self, outcome: Outcome, (error, event): (Error, Option<Bytes>)) {
        match event {
            Some(event) => {
                self.said.push_back(event);
                self.end(outcome, None);
            }
            None => self.end(outcome, Some(error)),
        }
    }

    fn end(&mut self, outcome: Outcome, error: Option<Error>) {
        let phase = std::mem::replace(&mut self.phase, Phase::Ending(None));
        if let Phase::Live(live) = phase {
            let verbatim = live.flow.passage.is_verbatim();
            let mut call = live.settle(outcome);
            if let Some(error) = error.as_ref().filter(|_| !verbatim) {
                call.keep_failure(error);
            }
            match error {
                Some(error) => self.refuse(call, error),
                None => self.phase = Phase::Ending(Some(call)),
            }
        } else if let Some(error) = error {
            // Dropping a walk settles its call.
            self.said.push_back(self.client.write_error_event(&error).into());
        }
    }

    /// The head said 200 long ago, so the error goes the way of the events.
    fn refuse(&mut self, mut call: Box<Call>, mut error: Error) {
        let outcome = outcome_of(error.kind);
        call.ends(outcome);
        // The attempt under way, if there is one, had its head before it failed.
        call.attempt_ended(outcome, StatusCode::OK.as_u16());
        error.attempts = call.attempts().to_vec();
        self.said.push_back(self.client.write_error_event(&error).into());
        self.phase = Phase::Ending(Some(call));
    }
}

fn reply(head: Response<()>, relay: Relay) -> Response<Body> {
    let mut response = head.map(|()| Body::stream(relay));
    let headers = response.headers_mut();
    headers.insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache"));
    // Proxies on the way must not gather the events.
    headers.insert("x-accel-buffering", http::HeaderValue::from_static("no"));
    response
}

impl Drop for Relay {
    /// Left to itself a stream ends here when its client goes away.
    fn drop(&mut self) {
        self.gateway.telemetry.metrics.streams_open.dec();
        if let Phase::Live(live) = std::mem::replace(&mut self.phase, Phase::Ending(None)) {
            if live.drains() {
                return live.drain();
            }
            let whole = live.flow.passage.sight().done && live.flow.ready.is_empty();
            drop(live.settle(if whole { Outcome::Ok } else { Outcome::ClientClosed }));
        }
    }
}

/// A silent upstream has come to an answer, or to none.
fn begin(mut call: Box<Call>, answer: Result<Answer, Error>) -> Turn {
    let stream_type = HeaderValue::from_static(call.client().stream_type());
    call.respond(StatusCode::OK, stream_type.clone());
    match answer {
        Ok(Answer::Stream(flow)) => Turn::Begin(Box::new(Live::new(call, flow))),
        Ok(Answer::Whole { content_type, body }) if content_type == stream_type => {
            Turn::Say(call, body)
        }
        Ok(Answer::Whole { .. } | Answer::Bytes(_)) => {
            let text = "The provider answered a stream with a whole reply.";
            Turn::Refuse(call, Error::new(Kind::UpstreamError, text))
        }
        Err(error) => Turn::Refuse(call, error),
    }
}

/// Another target has come to an answer behind a broken stream, or none has.
fn begin_again(
    mut call: Box<Call>,
    answer: Result<Answer, Error>,
    carried: Option<Passage>,
) -> Turn {
    let Some(before) = carried else { return begin(call, answer) };
    match answer {
        Ok(Answer::Stream(mut flow)) => {
            // The upstream of before has nothing more to say; what it said goes on here.
            let seam = flow.passage.carry_on(before);
            flow.ready.clear();
            if !seam.is_empty() {
                flow.ready.push_back(seam.into());
            }
            let mut live = Live::new(call, flow);
            live.gave = true;
            Turn::Begin(Box::new(live))
        }
        Err(error) => {
            // The client has the beginning of the response.
            call.keep_failure(&error);
            begin(call, Err(error))
        }
        other => begin(call, other),
    }
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
    fn new(mut call: Box<Call>, mut flow: Box<Flow>) -> Self {
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
            total: limits.map_or(call.started + hour, |limits| call.end(&limits)),
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

    fn turn(&mut self, last_sent: Instant, context: &mut Context<'_>) -> Turn {
        loop {
            if self.giving
                && let Some(next) = self.give()
            {
                return next;
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

    /// Only what reaches the client counts as progress: comments do not.
    fn note_progress(&mut self, release: Instant) {
        if self.flow.ready.is_empty() {
            return;
        }
        self.last_data = Instant::now();
        if self.finished.is_none() && self.flow.passage.sight().finished {
            self.finished = Some(self.last_data);
            // Before the client has the end, since its next question may need it.
            self.call.keep(self.flow.passage.keepsakes());
        }
        self.keep_response();
        let quick = self.last_data < release && !self.flow.passage.sight().finished;
        if quick && self.pace == Pace::Calm && self.flow.watch(false) {
            self.pace = Pace::Polled;
        }
        let gathered = self.flow.ready.iter().map(Bytes::len).sum::<usize>() >= GATHERED;
        self.giving = gathered || self.last_data >= release || self.flow.passage.sight().done;
    }

    /// Ends an answer that has outgrown what its caller has left.
    fn stay_within_budget(&mut self) {
        let sight = self.flow.passage.sight();
        if sight.finished {
            return;
        }
        if let Some(error) = self.call.outgrows(sight.deltas) {
            self.last = Some(Turn::End(Outcome::BudgetExceeded, Some(error)));
            self.giving = true;
        }
    }

    /// Keeps the response when its last event has passed, before the client has it.
    fn keep_response(&mut self) {
        if let Some(last) = self.flow.passage.last_word() {
            self.call.keep_response(&last, self.flow.passage.is_verbatim());
        }
    }

    /// How long the silent upstream is still waited for.
    fn patience(&mut self) -> Turn {
        if self.finished.is_none() && self.flow.passage.sight().finished {
            self.finished = Some(Instant::now());
        }
        if self.flow.passage.sight().ends_short() {
            return self.ended(Step::Ended);
        }
        let now = Instant::now();
        let until = match self.finished {
            Some(since) => {
                since + if self.flow.passage.sight().done { DONE_WAIT } else { FINISH_WAIT }
            }
            None => (self.last_data + self.idle).min(self.total),
        };
        if now < until {
            return Turn::Wait(until);
        }
        if self.finished.is_some() {
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
            Step::Cut(cause) => tracing::debug!(%cause, "an upstream's stream broke"),
            Step::Ended | Step::Data => {}
        }
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
        let event = shown.then(|| {
            let redact = |target: &Target| target.provider.redact_event(&event);
            self.call.target().and_then(redact).unwrap_or(event)
        });
        if let Some(said) = event.as_deref().and_then(last_data) {
            self.call.keep_response(&said, true);
        }
        broken(failure, error, event)
    }

    /// Whether the answer is read to its end although its client has left.
    fn drains(&self) -> bool {
        let wishes = self.call.wishes();
        wishes.is_some_and(|wishes| wishes.on_disconnect == OnDisconnect::Drain)
            && !self.flow.passage.sight().done
    }

    /// Reads it, for the sake of its usage. The client has left all the same.
    fn drain(self) {
        let Self { mut call, flow, .. } = self;
        let gateway = Arc::clone(&call.gateway);
        let Some(place) = gateway.drains.acquire() else { return };
        gateway.tasks.spawn(async move {
            shadow::drain(&mut call, flow).await;
            call.ends(Outcome::ClientClosed);
            drop((call, place));
        });
    }

    /// The call with all that its stream has told.
    fn settle(self, outcome: Outcome) -> Box<Call> {
        let Self { mut call, flow, first_data, last_data, .. } = self;
        let sight = flow.passage.sight();
        call.usage(sight.usage, sight.deltas);
        call.malformed(sight.malformed);
        call.ends(outcome);
        if let (Some(target), Some(gaps @ 1..)) = (call.target(), sight.deltas.checked_sub(1)) {
            let gap = (last_data - first_data) / u32::try_from(gaps).unwrap_or(u32::MAX);
            target.meters.token_gap(&call.gateway.telemetry.metrics, gap);
        }
        call
    }
}
