//! Cuts spans from the record of a finished call: one for the call, and one below it for each
//! attempt and for each guard that asked somebody.

use std::time::{Duration, SystemTime};

use serde_json::json;

use super::conventions::{self as names, Names};
use super::protobuf::{Message, Value};
use crate::canon::{
    Attempt, CacheUse, CallRecord, Consultation, GuardNote, Money, Outcome, Purpose, Sampling,
    Skipped, Task, Trace, Usage, UsageSource, span_of_attempt, span_of_guard,
};

// Fields of `Span`.
pub(super) const TRACE_ID: u64 = 1;
pub(super) const SPAN_ID: u64 = 2;
pub(super) const TRACE_STATE: u64 = 3;
pub(super) const PARENT_ID: u64 = 4;
const NAME: u64 = 5;
pub(super) const KIND: u64 = 6;
pub(super) const START: u64 = 7;
pub(super) const END: u64 = 8;
pub(super) const ATTRIBUTE: u64 = 9;
const EVENT: u64 = 11;
pub(super) const LINK: u64 = 13;
pub(super) const STATUS: u64 = 15;
pub(super) const FLAGS: u64 = 16;
/// Of `Status`.
pub(super) const CODE: u64 = 3;
pub(super) const ERROR: u64 = 2;
/// Of `ScopeSpans`.
pub(super) const SPAN: u64 = 2;

// Kinds of span.
pub(super) const INTERNAL: u64 = 1;
const SERVER: u64 = 2;
pub(super) const CLIENT: u64 = 3;

/// In the flags: the trace is kept; it is known whether the parent is remote; and it is.
pub(super) const SAMPLED: u32 = 0x1;
pub(super) const HAS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Writes all spans of a call, each as one `ScopeSpans.spans`.
pub(super) fn cut(buffer: &mut Vec<u8>, record: &CallRecord, trace: &Trace, names: &'static Names) {
    let cut = Cut { record, trace, names };
    let mut spans = Message(buffer);
    spans.message(SPAN, |span| cut.call(span));
    let mut others = Money::default();
    for (place, attempt) in record.attempts.iter().enumerate() {
        let last = place + 1 == record.attempts.len();
        let cost = if last {
            // The whole cost is known, and what the others cost.
            record.cost.map(|all| Money::from_nanos(all.nanos().saturating_sub(others.nanos())))
        } else {
            others = others.saturating_add(attempt.cost.unwrap_or_default());
            attempt.cost
        };
        spans.message(SPAN, |span| cut.attempt(span, attempt, last, cost));
    }
    for consultation in &record.consulted {
        spans.message(SPAN, |span| cut.guard(span, consultation));
    }
}

struct Cut<'a> {
    record: &'a CallRecord,
    trace: &'a Trace,
    names: &'static Names,
}

// === impl Cut ===

impl Cut<'_> {
    /// The call itself, as its client saw it.
    fn call(&self, span: &mut Message<'_>) {
        let record = self.record;
        let route = record.route.as_deref().unwrap_or_default();
        let (from, to) = (self.moment(Duration::ZERO), self.moment(record.duration));
        // A run's own call comes in by no door.
        let kind = if record.purpose == Purpose::Agent { INTERNAL } else { SERVER };
        self.open(span, record.id.span(), self.trace.parent, kind);
        name(span, names::operation(record.surface), route);
        span.fixed64(START, from);
        span.fixed64(END, to);
        text(span, self.names.kind, names::CHAIN);
        let mut id = [0; 36];
        text(span, names::CALL, record.id.encode(&mut id));
        text(span, names::SURFACE, record.surface.name());
        text(span, names::ROUTE, route);
        text(span, names::OUTCOME, record.outcome.name());
        whole(span, names::STATUS_CODE, record.status.into());
        for (name, value) in [
            (names::KEY, &record.key),
            (names::TEAM, &record.team),
            (names::ORG, &record.org),
            (names::USER, &record.user),
        ] {
            text(span, name, value.as_deref().unwrap_or_default());
        }
        text(span, names::TASK, record.task.map(Task::name).unwrap_or_default());
        text(span, names::TASK_BY, record.task_by.unwrap_or_default());
        text(span, names::CACHE, record.cache.map(CacheUse::name).unwrap_or_default());
        if record.purpose != Purpose::Client {
            text(span, names::PURPOSE, record.purpose.name());
        }
        span.attribute(ATTRIBUTE, names::ATTEMPTS, Value::Whole(record.attempts.len() as u64));
        whole(span, names::TOKENS, record.usage_of_all().total());
        if let Some(cost) = record.cost {
            span.attribute(ATTRIBUTE, names::COST, Value::Fraction(cost.usd()));
        }
        if let Some(first_token) = record.first_token {
            let seconds = Value::Fraction(first_token.as_secs_f64());
            span.attribute(ATTRIBUTE, names::FIRST_TOKEN, seconds);
        }
        let overhead = u64::try_from(record.overhead.as_micros()).unwrap_or(u64::MAX);
        whole(span, names::OVERHEAD, overhead);
        whole(span, names::GENERATION, record.generation);
        self.remarks(span);
        ended(span, record.outcome);
    }

    /// What is said of some calls only.
    fn remarks(&self, span: &mut Message<'_>) {
        let record = self.record;
        if !record.dropped.is_empty() {
            let dropped = record.dropped.iter().map(AsRef::as_ref);
            span.attribute_list(ATTRIBUTE, names::DROPPED, dropped);
        }
        if !record.skipped.is_empty() {
            let named = record.skipped.iter().map(|skipped| {
                let Skipped { provider, model, reason } = skipped;
                format!("{provider}/{model}: {reason}")
            });
            let named: Vec<String> = named.collect();
            let named = named.iter().map(String::as_str);
            span.attribute_list(ATTRIBUTE, names::SKIPPED, named);
        }
        if !record.guards.is_empty() {
            let said = record.guards.iter();
            let said: Vec<String> = said
                .map(|note| format!("{}: {} {}", note.guard, note.stage, note.result()))
                .collect();
            span.attribute_list(ATTRIBUTE, names::GUARDS, said.iter().map(String::as_str));
            // What was found without asking anybody took no time of its own.
            let asked = |note: &GuardNote| {
                let consulted = record.consulted.iter();
                consulted
                    .map(|it| &it.note)
                    .any(|it| it.guard == note.guard && it.stage == note.stage)
            };
            let found = record.guards.iter().filter(|note| !note.is_clean() && !asked(note));
            found.for_each(|note| self.result(span, note, record.duration));
        }
        if record.attempts.is_empty() {
            self.shown(span);
        }
        for (mark, value) in &record.tags {
            text(span, &format!("{}{mark}", names::TAG), value);
        }
    }

    /// One request to one provider.
    fn attempt(&self, span: &mut Message<'_>, attempt: &Attempt, last: bool, cost: Option<Money>) {
        let (record, call) = (self.record, self.record.id.span());
        let surface = record.surface;
        self.open(span, span_of_attempt(call, &attempt.leg), call, CLIENT);
        name(span, names::operation(surface), &attempt.model);
        span.fixed64(START, self.moment(attempt.leg.began));
        span.fixed64(END, self.moment(attempt.leg.began + attempt.elapsed));
        text(span, self.names.kind, names::kind(surface));
        text(span, self.names.operation, names::operation(surface));
        text(span, self.names.provider, attempt.leg.system);
        text(span, self.names.request_model, &attempt.model);
        text(span, names::PROVIDER, &attempt.provider);
        whole(span, names::STATUS_CODE, attempt.status.into());
        if let Some((host, port)) = &attempt.leg.server {
            text(span, names::SERVER, host);
            whole(span, names::PORT, (*port).into());
        }
        self.exchange(span, last && attempt.outcome == Outcome::Ok);
        if record.stream {
            span.attribute(ATTRIBUTE, self.names.stream, Value::Flag(true));
        }
        let usage = if last { Some(record.usage) } else { attempt.usage };
        if let Some(usage) = usage.filter(|usage| usage.total() > 0) {
            self.usage(span, &usage, cost);
            let source = if last { record.usage_source } else { UsageSource::Estimated };
            text(span, names::USAGE_SOURCE, source.name());
        }
        if last && attempt.outcome == Outcome::Ok {
            text(span, self.names.response_model, &attempt.model);
        }
        if let (true, Some(finish)) = (last, record.finish) {
            let reasons = std::iter::once(finish.traced_as());
            span.attribute_list(ATTRIBUTE, self.names.finish_reasons, reasons);
            text(span, self.names.finish_reason, finish.traced_as());
        }
        if last {
            self.shown(span);
        }
        if let (true, true, Some(first)) = (last, record.stream, record.first_token) {
            let seconds = first.saturating_sub(attempt.leg.began).as_secs_f64();
            span.attribute(ATTRIBUTE, self.names.first_chunk, Value::Fraction(seconds));
        }
        ended(span, attempt.outcome);
    }

    fn exchange(&self, span: &mut Message<'_>, answered: bool) {
        let Some(exchange) = self.record.exchange.as_deref() else { return };
        self.sampling(span, &exchange.sampling);
        let response = exchange.response.as_deref().filter(|_| answered);
        text(span, self.names.response, response.unwrap_or_default());
    }

    /// How the answer was to be drawn.
    fn sampling(&self, span: &mut Message<'_>, sampling: &Sampling) {
        whole(span, self.names.max_tokens, sampling.max_tokens.unwrap_or_default());
        for (name, number) in [
            (self.names.temperature, sampling.temperature),
            (self.names.top_p, sampling.top_p),
            // A fraction by the conventions.
            (
                self.names.top_k,
                sampling.top_k.and_then(|most| u32::try_from(most).ok()).map(f64::from),
            ),
            (self.names.frequency_penalty, sampling.frequency_penalty),
            (self.names.presence_penalty, sampling.presence_penalty),
        ] {
            if let Some(number) = number {
                span.attribute(ATTRIBUTE, name, Value::Fraction(number));
            }
        }
        if let Some(seed) = sampling.seed {
            // As the protocol spells negative numbers, too.
            span.attribute(ATTRIBUTE, self.names.seed, Value::Whole(seed.cast_unsigned()));
        }
        // One is what is had without asking.
        let choices = sampling.choices.filter(|wanted| *wanted > 1);
        whole(span, self.names.choices, choices.unwrap_or_default().into());
        if !sampling.stop.is_empty() {
            let stops = sampling.stop.iter().map(String::as_str);
            span.attribute_list(ATTRIBUTE, self.names.stop, stops);
        }
        if !self.names.parameters.is_empty() {
            text(span, self.names.parameters, &parameters(sampling));
        }
    }

    /// A guard that asked somebody.
    fn guard(&self, span: &mut Message<'_>, consultation: &Consultation) {
        let Consultation { note, kind, number, began, elapsed } = consultation;
        let (call, end) = (self.record.id.span(), *began + *elapsed);
        self.open(span, span_of_guard(call, *number), call, CLIENT);
        name(span, names::APPLY_GUARDRAIL, &note.guard);
        span.fixed64(START, self.moment(*began));
        span.fixed64(END, self.moment(end));
        text(span, self.names.kind, names::GUARDRAIL);
        text(span, self.names.operation, names::APPLY_GUARDRAIL);
        Finding::of(note, self.record.generation).tell(span, ATTRIBUTE);
        text(span, names::GUARD_KIND, kind);
        whole(span, names::GUARD_BYTES, note.scanned_bytes);
        if let Some(score) = note.score {
            span.attribute(ATTRIBUTE, names::GUARD_SCORE, Value::Fraction(score.into()));
        }
        self.result(span, note, end);
        if let Some(failure) = &note.failure {
            text(span, names::GUARD_FAILURE, failure);
            text(span, names::ERROR_TYPE, note.action);
            span.message(STATUS, |status| status.varint(CODE, ERROR));
        }
    }

    /// `Span.Event`, with what a guard has said.
    fn result(&self, span: &mut Message<'_>, note: &GuardNote, after: Duration) {
        span.message(EVENT, |event| {
            event.fixed64(1, self.moment(after));
            event.bytes(2, names::GUARD_EVENT.as_bytes());
            Finding::of(note, self.record.generation).tell(event, 3);
        });
    }

    /// What was asked and answered; by the attempt that answered, or by the call where nobody did.
    fn shown(&self, span: &mut Message<'_>) {
        const JSON: &str = "application/json";
        let Some(shown) = self.record.shown.as_deref() else { return };
        let names = [
            (self.names.input, self.names.input_type, names::INPUT_HASH, &shown.question),
            (self.names.output, self.names.output_type, names::OUTPUT_HASH, &shown.answer),
        ];
        for (name, kind, hash, content) in names {
            let Some(content) = content.as_deref() else { continue };
            if shown.in_full {
                text(span, name, content);
                text(span, kind, JSON);
            } else {
                text(span, hash, content);
            }
        }
    }

    fn usage(&self, span: &mut Message<'_>, usage: &Usage, cost: Option<Money>) {
        let mut always = |name, count| span.attribute(ATTRIBUTE, name, Value::Whole(count));
        always(self.names.input_tokens, usage.input_total());
        always(self.names.output_tokens, usage.output);
        always(self.names.total_tokens, usage.total());
        whole(span, self.names.cache_read_tokens, usage.cache_read);
        let written = usage.cache_write + usage.cache_write_long;
        whole(span, self.names.cache_write_tokens, written);
        whole(span, self.names.cache_creation_tokens, written);
        whole(span, self.names.reasoning_tokens, usage.reasoning);
        if let Some(cost) = cost {
            span.attribute(ATTRIBUTE, self.names.cost, Value::Fraction(cost.usd()));
        }
    }

    /// What every span begins with.
    fn open(&self, span: &mut Message<'_>, id: u64, parent: u64, kind: u64) {
        span.bytes(TRACE_ID, &self.trace.id.to_be_bytes());
        span.bytes(SPAN_ID, &id.to_be_bytes());
        if let Some(state) = &self.trace.state {
            span.bytes(TRACE_STATE, state.as_bytes());
        }
        if parent != 0 {
            span.bytes(PARENT_ID, &parent.to_be_bytes());
        }
        span.varint(KIND, kind);
        let remote = if self.trace.is_remote && kind == SERVER { IS_REMOTE } else { 0 };
        span.fixed32(FLAGS, SAMPLED | HAS_REMOTE | remote);
    }

    /// Nanoseconds since 1970, so long after the call's arrival.
    fn moment(&self, after: Duration) -> u64 {
        let since = self.record.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from((since + after).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// What a guard has said, as the conventions have it.
struct Finding<'a> {
    note: &'a GuardNote,
    generation: u64,
}

impl<'a> Finding<'a> {
    fn of(note: &'a GuardNote, generation: u64) -> Self {
        Self { note, generation }
    }

    /// As attributes of a span or an event, whichever has them in this field.
    fn tell(&self, message: &mut Message<'_>, field: u64) {
        let Self { note, generation } = self;
        let found: Vec<&str> = note.found.keys().map(String::as_str).collect();
        for (name, value) in [
            (names::GUARD, &*note.guard),
            (names::GUARD_POLICY, &format!("guards.{}", note.guard)),
            (names::GUARD_VERSION, &generation.to_string()),
            (names::GUARD_SOURCE, note.stage),
            (names::GUARD_RESULT, note.result()),
            (names::GUARD_FOUND, &found.join(",")),
        ] {
            if !value.is_empty() {
                message.attribute(field, name, Value::Text(value));
            }
        }
    }
}

/// How an answer was to be drawn, as JSON in the words of the chat API; empty where nothing was said.
fn parameters(sampling: &Sampling) -> String {
    let all = json!({
        "max_tokens": sampling.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "seed": sampling.seed,
        "frequency_penalty": sampling.frequency_penalty,
        "presence_penalty": sampling.presence_penalty,
        "n": sampling.choices,
        "stop": Some(&sampling.stop).filter(|stop| !stop.is_empty()),
    });
    let said = all.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
    let said: serde_json::Map<_, _> =
        said.map(|(name, value)| (name.clone(), value.clone())).collect();
    if said.is_empty() { String::new() } else { serde_json::Value::Object(said).to_string() }
}

/// `{operation} {of what}`, as the conventions want it.
pub(super) fn name(span: &mut Message<'_>, operation: &str, of: &str) {
    span.message(NAME, |name| {
        name.0.extend_from_slice(operation.as_bytes());
        if !of.is_empty() {
            name.0.push(b' ');
            name.0.extend_from_slice(of.as_bytes());
        }
    });
}

/// Nothing is said of what is empty.
pub(super) fn text(span: &mut Message<'_>, name: &str, value: &str) {
    if !value.is_empty() {
        span.attribute(ATTRIBUTE, name, Value::Text(value));
    }
}

/// Nothing is said of 0.
fn whole(span: &mut Message<'_>, name: &str, value: u64) {
    if value != 0 {
        span.attribute(ATTRIBUTE, name, Value::Whole(value));
    }
}

/// A client that has left made no error.
fn ended(span: &mut Message<'_>, outcome: Outcome) {
    if outcome == Outcome::Ok {
        return;
    }
    text(span, names::ERROR_TYPE, outcome.name());
    if outcome != Outcome::ClientClosed {
        span.message(STATUS, |status| status.varint(CODE, ERROR));
    }
}
