//! A call's place in a trace: taken from its client, handed on to whom it asks. And whom it did
//! not ask.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use super::arrival::Question;
use super::call::Call;
use super::chain::Chain;
use super::measure;
use super::snapshot::Target;
use crate::canon::{Exchange, Leg, Passed, Skipped, Trace, baggage_of, span_of_attempt};
use crate::config::Capture;
use crate::route::plan::Skip;

pub(super) const PARENT: HeaderName = HeaderName::from_static("traceparent");
const STATE: HeaderName = HeaderName::from_static("tracestate");
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// So many targets that were not asked are named.
const MOST_SKIPPED: usize = 32;
/// An answer says what it is called at its beginning.
const MOST_LOOKS: u8 = 8;

pub(super) type Headers = [(HeaderName, HeaderValue)];

impl Call {
    /// Joins the trace of its client, or begins one; nothing where traces are not wanted.
    pub(super) fn join_trace(&mut self, headers: &HeaderMap) {
        if self.gateway.telemetry.traces.is_some() {
            self.set_trace(trace_in(headers));
        }
    }

    /// The same, by what its client has said.
    pub(super) fn set_trace(&mut self, given: Option<Trace>) {
        if self.gateway.telemetry.traces.is_some() {
            self.record.trace = given.or_else(|| Some(Trace::begin(self.record.id)));
        }
    }

    /// Notes how its answer is to be drawn, where that is told of.
    pub(super) fn traces_question(&mut self, question: &Question) {
        let traces = self.gateway.telemetry.traces.as_ref();
        let Some(traces) = traces.filter(|_| self.record.trace.is_some()) else { return };
        let mut sampling = question.sampling();
        sampling.max_tokens = measure::most(self, question);
        // They are words of the client's own.
        if traces.capture() != Capture::Full {
            sampling.stop.clear();
        }
        self.record.exchange = Some(Box::new(Exchange { sampling, ..Exchange::default() }));
    }

    /// Notes what its answer is called, where that is told of.
    pub(super) fn traces_answer(&mut self, response: impl FnOnce() -> Option<String>) {
        let exchange = self.record.exchange.as_mut();
        let is_wanted = |it: &&mut Box<Exchange>| it.response.is_none() && it.looks < MOST_LOOKS;
        if let Some(exchange) = exchange.filter(is_wanted) {
            exchange.looks += 1;
            exchange.response = response();
        }
    }

    /// It is made for another call, and so is a part of that one's trace.
    pub(super) fn belongs_to(&mut self, other: &Self) {
        let below = |trace: &Trace| trace.below(other.record.id.span());
        self.record.trace = other.record.trace.as_ref().map(below);
    }

    /// Notes who is not asked, and why.
    pub(super) fn skips(&mut self, chain: &Chain, skipped: &[(u16, Skip)]) {
        let room = MOST_SKIPPED.saturating_sub(self.record.skipped.len());
        let named = skipped.iter().take(room).filter_map(|(place, skip)| {
            let target = chain.targets.get(usize::from(*place))?;
            let (provider, model) = (target.provider.name.clone(), target.model.clone());
            Some(Skipped { provider, model, reason: skip.reason() })
        });
        self.record.skipped.extend(named);
    }

    /// What a trace tells of the attempt that left then for the target at `place`.
    pub(super) fn leg(&self, place: usize, since: Instant) -> Leg {
        let target = self.chain.as_ref().and_then(|chain| chain.targets.get(place));
        let traced = target.filter(|_| self.record.trace.is_some());
        let server = traced.and_then(|target| target.provider.server());
        Leg {
            place: u16::try_from(place).unwrap_or(u16::MAX),
            began: since - self.started,
            system: target.map_or("", |target| target.provider.system()),
            server: server.map(|(host, port)| (host.into(), port)),
        }
    }

    /// The headers of a request to `target`, with its own span as the parent of what happens there.
    pub(super) fn with_parent<'a>(
        &self,
        target: &Target,
        headers: Cow<'a, Headers>,
    ) -> Cow<'a, Headers> {
        let (Some(trace), Some(traces)) = (&self.record.trace, &self.gateway.telemetry.traces)
        else {
            return headers;
        };
        let chain = self.chain.as_ref();
        let place = chain.and_then(|chain| {
            chain.targets.iter().position(|known| std::ptr::eq(&raw const *known, target))
        });
        let since = place.and_then(|place| Some((place, self.departure(place)?)));
        let Some((place, since)) = since else { return headers };
        let span = span_of_attempt(self.record.id.span(), &self.leg(place, since));
        let sampled = traces.samples(trace, self.record.route.as_deref());
        let Ok(parent) = HeaderValue::from_bytes(&trace.parent_of_next(span, sampled)) else {
            return headers;
        };
        let is_ours = |name: &HeaderName| *name == PARENT || *name == STATE;
        let mut headers: Vec<_> =
            headers.iter().filter(|(name, _)| !is_ours(name)).cloned().collect();
        headers.push((PARENT, parent));
        let state = trace.state.as_deref().and_then(|state| HeaderValue::from_str(state).ok());
        headers.extend(state.map(|state| (STATE, state)));
        Cow::Owned(headers)
    }
}

/// The trace that a client's headers name. A state that comes in several headers is one list.
pub fn trace_in(headers: &HeaderMap) -> Option<Trace> {
    let parent = headers.get(PARENT)?.to_str().ok()?;
    Trace::read(parent, list(headers, &STATE).as_deref())
}

/// What a client wants those to know who are called for it.
pub fn baggage_in(headers: &HeaderMap) -> Option<Box<str>> {
    list(headers, &BAGGAGE).as_deref().and_then(baggage_of)
}

/// All of it, to be handed on as it is.
pub fn passed_in(headers: &HeaderMap) -> Passed {
    let parent = headers.get(PARENT).and_then(|parent| parent.to_str().ok());
    let (state, baggage) = (list(headers, &STATE), list(headers, &BAGGAGE));
    Passed::read(parent, state.as_deref(), baggage.as_deref())
}

/// A list that may come in several headers.
pub(super) fn list(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    headers.contains_key(name).then(|| {
        let texts = headers.get_all(name).iter().filter_map(|text| text.to_str().ok());
        texts.collect::<Vec<_>>().join(",")
    })
}
