//! What a run of an agent tells: spans for its trace, which are the same for a collector and for
//! whoever asks for them, and lines for the log.

use std::io;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::{Value as Json, json};

use super::conventions::{self as names, Fact, Names, RunStep};
use super::log::{Format, Log};
use super::protobuf::{Message, Value};
use super::spans;

/// One step of a run. Times are milliseconds since 1970.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSpan {
    pub step: RunStep,
    /// The agent, tool or model.
    pub of: String,
    pub trace: u128,
    pub state: Option<Box<str>>,
    pub id: u64,
    /// 0 where it has none.
    pub parent: u64,
    /// The span that it goes on from.
    pub link: Option<u64>,
    pub from: u64,
    pub to: u64,
    pub facts: Vec<(Fact, Told)>,
    /// What went wrong.
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    Text(String),
    Whole(u64),
    Fraction(f64),
    Flag(bool),
    List(Vec<String>),
}

/// What the log says of a run: that something has happened, and never what was said.
#[derive(Debug, Default, Serialize)]
pub struct RunLine<'a> {
    pub run_id: &'a str,
    pub agent: &'a str,
    pub version: &'a str,
    /// How many calls of models there were.
    pub step: u32,
    pub event: &'static str,
    pub outcome: &'a str,
    pub trace_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
}

#[derive(Serialize)]
struct Line<'a> {
    time: &'a str,
    level: &'static str,
    message: &'static str,
    #[serde(flatten)]
    of_run: &'a RunLine<'a>,
}

// === impl RunSpan ===

impl RunSpan {
    /// As `ScopeSpans.spans`.
    pub(super) fn cut(&self, buffer: &mut Vec<u8>, names: &'static Names) {
        Message(buffer).message(spans::SPAN, |span| {
            span.bytes(spans::TRACE_ID, &self.trace.to_be_bytes());
            span.bytes(spans::SPAN_ID, &self.id.to_be_bytes());
            if let Some(state) = &self.state {
                span.bytes(spans::TRACE_STATE, state.as_bytes());
            }
            if self.parent != 0 {
                span.bytes(spans::PARENT_ID, &self.parent.to_be_bytes());
            }
            spans::name(span, self.step.operation(), &self.of);
            span.varint(spans::KIND, self.kind());
            span.fixed32(spans::FLAGS, spans::SAMPLED | spans::HAS_REMOTE);
            span.fixed64(spans::START, nanos(self.from));
            span.fixed64(spans::END, nanos(self.to));
            spans::text(span, names.kind, self.step.kind());
            spans::text(span, names.operation, self.step.operation());
            for (fact, told) in &self.facts {
                attribute(span, names.fact(*fact), told);
            }
            if let Some(before) = self.link {
                span.message(spans::LINK, |link| self.link(link, before));
            }
            if let Some(error) = &self.error {
                spans::text(span, names::ERROR_TYPE, error);
                span.message(spans::STATUS, |status| status.varint(spans::CODE, spans::ERROR));
            }
        });
    }

    /// `Span.Link`.
    fn link(&self, link: &mut Message<'_>, before: u64) {
        link.bytes(1, &self.trace.to_be_bytes());
        link.bytes(2, &before.to_be_bytes());
    }

    fn kind(&self) -> u64 {
        if self.step == RunStep::Model { spans::CLIENT } else { spans::INTERNAL }
    }

    /// As OTLP has it in JSON.
    fn shown(&self) -> Json {
        let names = &names::GEN_AI;
        let mut attributes = vec![json!({"key": names.operation,
            "value": {"stringValue": self.step.operation()}})];
        let told = self.facts.iter().map(|(fact, told)| (names.fact(*fact), told));
        attributes.extend(told.map(|(name, told)| json!({"key": name, "value": told.shown()})));
        let mut span = json!({
            "traceId": format!("{:032x}", self.trace),
            "spanId": format!("{:016x}", self.id),
            "name": format!("{} {}", self.step.operation(), self.of),
            "kind": self.kind(),
            "startTimeUnixNano": nanos(self.from).to_string(),
            "endTimeUnixNano": nanos(self.to).to_string(),
        });
        if self.parent != 0 {
            span["parentSpanId"] = json!(format!("{:016x}", self.parent));
        }
        if let Some(state) = &self.state {
            span["traceState"] = json!(state);
        }
        if let Some(before) = self.link {
            span["links"] = json!([{"traceId": format!("{:032x}", self.trace),
                "spanId": format!("{before:016x}")}]);
        }
        if let Some(error) = &self.error {
            attributes.push(json!({"key": names::ERROR_TYPE, "value": {"stringValue": error}}));
            span["status"] = json!({"code": spans::ERROR});
        }
        span["attributes"] = Json::Array(attributes);
        span
    }

    /// What a collector would be sent, as JSON.
    pub fn document(spans: &[Self]) -> Json {
        let of_process = |name, value| json!({"key": name, "value": {"stringValue": value}});
        let (name, version) = (env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
        let resource = [(names::SERVICE_NAME, name), (names::SERVICE_VERSION, version)];
        json!({"resourceSpans": [{
            "resource": {"attributes": resource.map(|(name, value)| of_process(name, value))},
            "scopeSpans": [{
                "scope": {"name": name, "version": version},
                "spans": spans.iter().map(Self::shown).collect::<Vec<_>>(),
            }],
        }]})
    }
}

fn attribute(span: &mut Message<'_>, name: &str, told: &Told) {
    let field = spans::ATTRIBUTE;
    match told {
        Told::Text(text) => span.attribute(field, name, Value::Text(text)),
        Told::Whole(number) => span.attribute(field, name, Value::Whole(*number)),
        Told::Fraction(number) => span.attribute(field, name, Value::Fraction(*number)),
        Told::Flag(flag) => span.attribute(field, name, Value::Flag(*flag)),
        Told::List(texts) => span.attribute_list(field, name, texts.iter().map(String::as_str)),
    }
}

fn nanos(millis: u64) -> u64 {
    millis.saturating_mul(1_000_000)
}

// === impl Told ===

impl Told {
    fn shown(&self) -> Json {
        let text = |text: &String| json!({"stringValue": text});
        match self {
            Self::Text(said) => text(said),
            Self::Whole(number) => json!({"intValue": number.to_string()}),
            Self::Fraction(number) => json!({"doubleValue": number}),
            Self::Flag(flag) => json!({"boolValue": flag}),
            Self::List(texts) => {
                json!({"arrayValue": {"values": texts.iter().map(text).collect::<Vec<_>>()}})
            }
        }
    }
}

// === impl Log ===

impl Log {
    /// Writes one line about a run, where calls have lines too.
    pub fn run(&self, of_run: &RunLine<'_>) {
        if !self.tells_of_calls() {
            return;
        }
        let time = humantime::format_rfc3339_micros(SystemTime::now()).to_string();
        let line = Line { time: &time, level: "INFO", message: "run", of_run };
        self.append(|buffer| match self.format() {
            Format::Json => serde_json::to_writer(&mut *buffer, &line).map_err(io::Error::from),
            Format::Text => of_run.write_text(&time, buffer),
        });
    }
}

// === impl RunLine ===

impl RunLine<'_> {
    fn write_text(&self, time: &str, buffer: &mut dyn io::Write) -> io::Result<()> {
        let Self { run_id, agent, version, step, event, outcome, .. } = self;
        write!(
            buffer,
            "{time}  INFO run {run_id} {agent}@{version} step={step} {event} {outcome}"
        )?;
        let more = [("tool", self.tool), ("call", self.call_id), ("model", self.model)];
        for (name, value) in more {
            if let Some(value) = value {
                write!(buffer, " {name}={value}")?;
            }
        }
        match self.duration_ms {
            Some(millis) => write!(buffer, " {millis}ms"),
            None => Ok(()),
        }
    }
}
