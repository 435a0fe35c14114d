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
use super::flow::Flow;
use super::live::{Broken, Live, Turn};
use super::onward::Resumed;
use super::pipeline::Walk;
use super::pipeline::shutting_down;
use super::reply::outcome_of;
use super::{Body, Gateway};
use crate::canon::Outcome;
use crate::dialect::ClientSide;
use crate::dialect::passage::Passage;
use crate::error::{Error, Kind};

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
    /// The client has been given more than keep-alives.
    begun: bool,
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

impl Phase {
    /// A piece of the answer goes to the client.
    fn says(&mut self, piece: &Bytes) {
        if let Self::Live(live) = self {
            live.call.says(piece);
        }
    }
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
        (head, (keepalive, client)): (Response<()>, (Duration, &'static dyn ClientSide)),
    ) -> Response<Body> {
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
            begun: false,
            gateway,
            ending: None,
        }
    }

    /// Keeps for the call's trace what the client is given.
    pub(super) fn tapes(&mut self, bytes: &Bytes) {
        match &mut self.phase {
            Phase::Live(live) => live.call.tapes(bytes),
            Phase::Ending(Some(call)) => call.tapes(bytes),
            Phase::Ending(None) | Phase::Waiting(_) | Phase::Resuming(_) => {}
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
                Turn::Give(bytes) => {
                    self.begun = true;
                    self.phase.says(&bytes);
                    return self.give(bytes);
                }
                Turn::Begin(live) => self.phase = Phase::Live(*live),
                Turn::End(outcome, error) => self.end(outcome, error),
                Turn::Broken(broken) => self.broke(*broken),
                Turn::Refuse(call, error) => self.refuse(call, error, None),
                Turn::Say(mut call, bytes) => {
                    call.ends(Outcome::Ok);
                    call.says(&bytes);
                    self.said.push_back(bytes);
                    self.phase = Phase::Ending(Some(call));
                }
                Turn::Wait(until) => ready!(self.poll_waiting(until, context)),
            }
        }
    }

    /// `event` says it in the place at which the stream is, where its dialect counts events.
    fn say_error(&mut self, error: &Error, event: Option<Vec<u8>>) {
        let lone = || {
            if self.begun {
                self.client.write_error_event(error)
            } else {
                self.client.write_lone_error(error)
            }
        };
        let event = event.unwrap_or_else(lone);
        self.said.push_back(event.into());
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
        let ending = self.ending.get_or_insert_with(|| Box::pin(gateway.until_end()));
        if ending.as_mut().poll(context).is_ready() {
            self.end(Outcome::UpstreamTruncated, Some(shutting_down()));
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
            && onward.prepare_to_resume(&live.call, &live.flow, live.gave)
        {
            let Live { call, flow, gave, .. } = live;
            let resumed = onward.resume(call, flow, failure, error, gave);
            self.phase = Phase::Resuming(Box::new(resumed));
            return;
        }
        self.phase = Phase::Live(live);
        self.say_broken(outcome, error, event);
    }

    fn say_broken(&mut self, outcome: Outcome, error: Error, event: Option<Bytes>) {
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
            let passage = &live.flow.passage;
            let verbatim = passage.is_verbatim();
            let event = error.as_ref().and_then(|error| passage.write_error(error));
            let mut call = live.settle(outcome);
            if let Some(error) = error.as_ref().filter(|_| !verbatim) {
                call.keep_failure(error);
            }
            match error {
                Some(error) => self.refuse(call, error, event),
                None => self.phase = Phase::Ending(Some(call)),
            }
        } else if let Some(error) = error {
            // Dropping a walk settles its call.
            self.say_error(&error, None);
        }
    }

    /// The head said 200 long ago, so the error goes the way of the events.
    fn refuse(&mut self, mut call: Box<Call>, mut error: Error, event: Option<Vec<u8>>) {
        let outcome = call.ends(outcome_of(error.kind));
        // The attempt under way, if there is one, had its head before it failed.
        call.attempt_ended(outcome, StatusCode::OK.as_u16());
        error.attempts = call.attempts().to_vec();
        self.say_error(&error, event);
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
            if live.drains() && !std::thread::panicking() {
                return live.drain();
            }
            let passage = &live.flow.passage;
            let whole = passage.sight().done && live.flow.ready.is_empty();
            let outcome = match passage.is_stopped() {
                true => Outcome::GuardBlocked,
                false if whole => Outcome::Ok,
                false => self.gateway.abandoned(),
            };
            drop(live.settle(outcome));
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
