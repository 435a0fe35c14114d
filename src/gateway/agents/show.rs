//! What a client is told of a run besides its answer: `x_agent`, headers, and the steps of a stream.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::commission::conversation;
use super::{GAP, Performance, Report};
use crate::canon::{
    CacheUse, ChatRequest, ChatResponse, Content, Delta, Event, RunId, RunState, Surface,
};
use crate::config::StreamMode;
use crate::dialect::responses::state;
use crate::dialect::sse::Decoder;
use crate::dialect::{ClientSide, Context, WriteStream};
use crate::error::Error;

static RUN_ID: HeaderName = HeaderName::from_static("x-switchpoint-run-id");
static ROUTE: HeaderName = HeaderName::from_static("x-switchpoint-route");
static VERSION: HeaderName = HeaderName::from_static("x-switchpoint-agent-version");
static FALLBACK_LEVEL: HeaderName = HeaderName::from_static("x-switchpoint-fallback-level");
static STEPS: HeaderName = HeaderName::from_static("x-switchpoint-agent-steps");
static CACHE: HeaderName = HeaderName::from_static("x-switchpoint-cache");
static COST_USD: HeaderName = HeaderName::from_static("x-switchpoint-cost-usd");

/// The name in a response's metadata of the run that it is of.
pub(in crate::gateway) const RUN: &str = "switchpoint_run_id";
const STOP_REASON: &str = "agent_stop_reason";

/// One run as it is shown to one client.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Show {
    pub(in crate::gateway) run: RunId,
    pub(in crate::gateway) version: Arc<str>,
    pub(in crate::gateway) report: watch::Receiver<Report>,
    pub(in crate::gateway) surface: Surface,
    /// The stream tells of each step.
    pub(in crate::gateway) steps: bool,
    pub(in crate::gateway) frame: Frame,
}

/// What a writer of answers must know besides.
#[derive(Debug, Clone, Default)]
pub(in crate::gateway) struct Frame {
    pub(in crate::gateway) id: String,
    pub(in crate::gateway) created: u64,
    pub(in crate::gateway) model: String,
    pub(in crate::gateway) input_estimate: u64,
    pub(in crate::gateway) previous: Option<String>,
    /// Its client need not wait for it.
    pub(in crate::gateway) background: bool,
    pub(in crate::gateway) request: ChatRequest,
}

/// A stream's writer that tells of its run, too.
struct Telling {
    inner: Box<dyn WriteStream>,
    show: Show,
    /// The end of the answer, until all of it is there.
    end: Option<Vec<u8>>,
    apart: Apart,
}

/// Takes away what sets the texts of an answer apart, where each has a place of its own.
#[derive(Debug, Default)]
struct Apart {
    /// Some text was told.
    told: bool,
    /// The next is another one.
    begins: bool,
}

// === impl Show ===

impl Show {
    pub(in crate::gateway) fn new(
        performance: &Performance,
        surface: Surface,
        frame: Frame,
    ) -> Self {
        let (run, version) = (performance.run, Arc::clone(&performance.version));
        let steps = performance.stream == StreamMode::Steps;
        let report = performance.report.clone();
        let mut show = Self { run, version, report, surface, steps, frame };
        if surface == Surface::Responses {
            let metadata = show.frame.request.metadata.get_or_insert_default();
            metadata.insert(RUN.to_owned(), run.to_string().into());
        }
        show
    }

    fn context(&self) -> Context<'_> {
        let Frame { id, created, model, input_estimate, previous, request, .. } = &self.frame;
        Context {
            id,
            created: *created,
            model,
            input_estimate: *input_estimate,
            previous: previous.as_deref(),
            request,
        }
    }

    pub(super) fn writer(&self, client: &dyn ClientSide) -> Box<dyn WriteStream> {
        let inner = client.writer(&self.context());
        Box::new(Telling { inner, show: self.clone(), end: None, apart: Apart::default() })
    }

    /// A whole answer in the client's words.
    pub(in crate::gateway) fn write(
        &self,
        client: &dyn ClientSide,
        response: &ChatResponse,
    ) -> Vec<u8> {
        let mut response = Cow::Borrowed(response);
        if self.has_places() {
            part_texts(response.to_mut());
        }
        let body = client.write_response(&response, &self.context());
        let Ok(Value::Object(fields)) = serde_json::from_slice(&body) else { return body };
        let mut answer = Value::Object(fields);
        self.mark(&mut answer);
        if self.surface == Surface::Responses {
            match self.broke_off() {
                Some(status) => answer["status"] = json!(status),
                None if self.goes_on() => answer["status"] = json!("in_progress"),
                None => {}
            }
        }
        answer.to_string().into_bytes()
    }

    /// Whether each text of an answer has a place of its own in this API.
    fn has_places(&self) -> bool {
        matches!(self.surface, Surface::Responses | Surface::Messages)
    }

    /// What the responses API calls the end of a run that has ended otherwise than its answer.
    fn broke_off(&self) -> Option<&'static str> {
        match self.report.borrow().state {
            RunState::Cancelled => Some("cancelled"),
            RunState::Failed | RunState::Expired => Some("failed"),
            _ => None,
        }
    }

    /// What was said is not all: nobody but its client waits for the end, and the run rests until
    /// somebody else has done something. What the client itself is to do, a response ends with.
    fn goes_on(&self) -> bool {
        let state = self.report.borrow().state;
        self.surface == Surface::Responses
            && self.frame.background
            && state.is_waiting()
            && state != RunState::WaitingClient
    }

    /// Puts what is told of the run into a whole answer.
    fn mark(&self, answer: &mut Value) {
        let report = self.report.borrow();
        answer["x_agent"] = self.told(&report);
        if self.frame.background {
            answer["background"] = json!(true);
        }
        if let Some(id) = conversation(&self.frame.request)
            && self.surface == Surface::Responses
        {
            answer["conversation"] = json!({"id": id});
        }
        if self.surface == Surface::Responses
            && let (Some(reason), Some(metadata)) =
                (report.reason, answer["metadata"].as_object_mut())
        {
            metadata.insert(STOP_REASON.to_owned(), reason.into());
        }
    }

    fn told(&self, report: &Report) -> Value {
        json!({
            "run_id": self.run.to_string(),
            "version": &*self.version,
            "status": report.state.name(),
            "stop_reason": report.reason,
            "steps": report.steps,
            "model_calls": report.model_calls,
            "tool_calls": report.tool_calls,
            "cost_usd": report.cost.map(crate::canon::Money::usd),
            "fallback_level": report.fallback_level,
            "degraded": report.degraded,
            "degraded_tools": report.degraded_tools,
            "confidence": report.confidence.map(|sure| f64::from(sure) / 1000.0),
            "approvals": report.approvals,
        })
    }

    /// Adds what the head of a reply says of the run; of one that is over, all.
    pub(super) fn dress(&self, headers: &mut HeaderMap, is_over: bool) {
        let mut say = |name: &HeaderName, value: &str| {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        };
        say(&RUN_ID, &self.run.to_string());
        say(&VERSION, &self.version);
        let model = &self.frame.model;
        say(&ROUTE, model.split('@').next().unwrap_or(model));
        if is_over {
            let report = self.report.borrow();
            say(&STEPS, &report.steps.to_string());
            say(&FALLBACK_LEVEL, &report.fallback_level.to_string());
            if report.recalled {
                say(&CACHE, CacheUse::Hit.name());
            }
            if let Some(cost) = report.cost {
                say(&COST_USD, &cost.to_string());
            }
        }
    }

    /// A piece of a chat that has nothing of the answer in it.
    fn step(&self, text: &str, out: &mut Vec<u8>) {
        let piece = json!({
            "id": format!("chatcmpl-{}", self.frame.id),
            "object": "chat.completion.chunk",
            "created": self.frame.created,
            "model": self.frame.model,
            "choices": [{"index": 0, "delta": {}, "logprobs": null, "finish_reason": null}],
            "x_agent": {"run_id": self.run.to_string(), "event": text},
        });
        out.extend_from_slice(format!("data: {piece}\n\n").as_bytes());
    }

    /// The last events of a stream, with what is told of the run in the one that ends the answer.
    fn mark_end(&self, end: &[u8], out: &mut Vec<u8>) {
        if !end.starts_with(b"data:") && !end.starts_with(b"event:") {
            // Not every stream of Google's is one of events.
            out.extend_from_slice(end);
            return;
        }
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(end);
        while let Some(frame) = decoder.next_frame() {
            let marked = decoder.data(&frame).and_then(|data| self.marked(&data));
            if marked.is_some() && self.goes_on() {
                continue;
            }
            let Some(data) = marked else {
                out.extend_from_slice(decoder.bytes(frame.range));
                continue;
            };
            if let Some(name) = decoder.event(&frame) {
                let name = data["type"].as_str().map_or(name, str::as_bytes);
                out.extend_from_slice(&[b"event: ", name, b"\n"].concat());
            }
            out.extend_from_slice(format!("data: {data}\n\n").as_bytes());
        }
    }

    /// The data of an event that ends an answer, marked.
    fn marked(&self, data: &[u8]) -> Option<Value> {
        let mut event: Value = serde_json::from_slice(data).ok()?;
        // Where each API says that its answer is over.
        let reasons = [
            &event["choices"][0]["finish_reason"],
            &event["delta"]["stop_reason"],
            &event["candidates"][0]["finishReason"],
        ];
        if reasons.iter().any(|reason| reason.is_string()) {
            event["x_agent"] = self.told(&self.report.borrow());
            return Some(event);
        }
        let ends = ["completed", "incomplete", "failed"];
        let status = event["response"]["status"].as_str().unwrap_or_default();
        if !ends.contains(&status) {
            return None;
        }
        self.mark(&mut event["response"]);
        if let Some(status) = self.broke_off() {
            event["response"]["status"] = json!(status);
            event["type"] = json!(state::end_of(status));
        }
        Some(event)
    }
}

/// The texts of an answer without what sets them apart.
fn part_texts(response: &mut ChatResponse) {
    for choice in &mut response.choices {
        let mut apart = Apart::default();
        for part in &mut choice.parts {
            apart.begin();
            if let Content::Text { text, .. } = &mut part.content
                && let Some(rest) = apart.bare(text)
            {
                *text = rest.to_owned();
            }
        }
    }
}

// === impl Apart ===

impl Apart {
    /// Another part of the answer begins.
    fn begin(&mut self) {
        self.begins = self.told;
    }

    /// A piece of text without the gap that it begins with, if it does.
    fn bare<'a>(&mut self, text: &'a str) -> Option<&'a str> {
        if text.is_empty() {
            return None;
        }
        self.told = true;
        std::mem::take(&mut self.begins).then(|| text.strip_prefix(GAP)).flatten()
    }

    /// The same of an event; `None` where nothing else is in it.
    fn of<'a>(&mut self, event: &'a Event) -> Option<Cow<'a, Event>> {
        match event {
            Event::Open { .. } => self.begin(),
            Event::Delta { choice, delta: Delta::Text(text) } => {
                if let Some(rest) = self.bare(text) {
                    let delta = Delta::Text(rest.to_owned());
                    return (!rest.is_empty())
                        .then(|| Cow::Owned(Event::Delta { choice: *choice, delta }));
                }
            }
            _ => {}
        }
        Some(Cow::Borrowed(event))
    }
}

// === impl Telling ===

impl Telling {
    fn tell(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            Event::Aside(text) if self.show.steps && self.show.surface == Surface::Chat => {
                self.show.step(text, out);
            }
            Event::Aside(_) => self.inner.write(event, out),
            Event::Finish { .. } => {
                // How the run stands is known for good when its answer has ended.
                self.inner.write(event, self.end.get_or_insert_default());
            }
            Event::End => {
                let mut end = self.end.take().unwrap_or_default();
                self.inner.write(event, &mut end);
                self.show.mark_end(&end, out);
            }
            _ => match &mut self.end {
                Some(end) => self.inner.write(event, end),
                None => self.inner.write(event, out),
            },
        }
    }
}

impl WriteStream for Telling {
    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        if !self.show.has_places() {
            self.tell(event, out);
        } else if let Some(event) = self.apart.of(event) {
            self.tell(&event, out);
        }
    }

    fn write_error(&self, error: &Error) -> Option<Vec<u8>> {
        let error = self.inner.write_error(error)?;
        let mut out = Vec::with_capacity(error.len());
        self.show.mark_end(&error, &mut out);
        Some(out)
    }
}
