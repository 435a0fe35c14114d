//! Writes an answer for a client of this API, event by event.
//!
//! Each item is announced, filled and closed before the next; the last event holds all of them
//! once more. Codex reads `response.output_item.done` and `response.completed` and no others.

use serde_json::{Map, Value, json};

use super::line::Json::{Number, Raw, Text};
use super::line::{Json, Lines, json, object};
use super::parts::{Call, Message, Place, Thought, Whole};
use crate::canon::{
    Delta, Dialect, Event, Finish, FinishReason, Foreign, Media, MediaKind, Opening, Source, Start,
    Usage,
};
use crate::dialect::responses::content::moved;
use crate::dialect::responses::echo::echo;
use crate::dialect::responses::hosted::Hosted;
use crate::dialect::responses::item::Sealed;
use crate::dialect::responses::{failure, usage};
use crate::dialect::{Context, WriteStream, sse};
use crate::error::Error;

/// Writes one stream.
#[derive(Debug)]
pub(crate) struct Writer {
    call: String,
    created: u64,
    model: String,
    tier: Option<String>,
    /// What every response object repeats of the question.
    echo: Map<String, Value>,
    names: Names,
    lines: Lines,
    /// Items that are done, as JSON.
    items: Vec<Vec<u8>>,
    open: Open,
    /// How many characters the parts before the one at hand have, and with it.
    spoken: (u64, u64),
    finish: Option<Finish>,
    usage: Option<Usage>,
    started: bool,
    ended: bool,
}

/// What the question says of how parts are to be shown.
#[derive(Debug)]
pub(super) struct Names {
    /// Tools that the client runs and has items for.
    pub(super) hosted: Vec<&'static Hosted>,
    /// Thoughts are wanted as summaries.
    summaries: bool,
}

/// What this API's clients know of tiers.
const TIERS: [&str; 5] = ["auto", "default", "flex", "scale", "priority"];

/// The item at hand.
#[derive(Debug)]
enum Open {
    Nothing,
    Message(Message),
    Thought(Thought),
    Call(Call),
    Whole(Whole),
}

// === impl Writer ===

impl Writer {
    pub(crate) fn new(context: &Context<'_>) -> Self {
        let request = context.request;
        let summary = request.reasoning.as_ref().is_some_and(|thinking| thinking.summary.is_some());
        Self {
            call: context.id.to_owned(),
            created: context.created,
            model: context.model.to_owned(),
            tier: request.service_tier.clone(),
            echo: echo(context),
            names: Names {
                hosted: request.tools.iter().filter_map(Hosted::of).collect(),
                summaries: summary,
            },
            lines: Lines::default(),
            items: Vec::new(),
            open: Open::Nothing,
            spoken: (0, 0),
            finish: None,
            usage: None,
            started: false,
            ended: false,
        }
    }

    /// The whole answer, all events having been written.
    pub(crate) fn into_response(self) -> Vec<u8> {
        let (status, details, error) = self.outcome();
        self.response(status, &details, &error)
    }

    fn start(&mut self, start: &Start, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        self.created = start.created.unwrap_or(self.created);
        if !start.model.is_empty() {
            self.model.clone_from(&start.model);
        }
        if let Some(tier) =
            start.service_tier.as_ref().filter(|tier| TIERS.contains(&tier.as_str()))
        {
            self.tier = Some(tier.clone());
        }
        let response = self.response("in_progress", &Value::Null, &Value::Null);
        self.lines.event(out, "created", &[("response", Raw(&response))]);
        self.lines.event(out, "in_progress", &[("response", Raw(&response))]);
    }

    fn place(&self, prefix: &str) -> Place {
        let index = self.items.len();
        Place { id: format!("{prefix}_{}_{index}", self.call), index: index as u64 }
    }

    fn begin(&mut self, part: &Opening, out: &mut Vec<u8>) {
        self.start(&Start::default(), out);
        let refusal = matches!(part, Opening::Refusal);
        self.spoken.0 = self.spoken.1;
        if let (Open::Message(message), Opening::Text | Opening::Refusal | Opening::Audio { .. }) =
            (&mut self.open, part)
            && message.takes_more()
        {
            message.begin(refusal, &mut self.lines, out);
            return;
        }
        self.close_item(out);
        self.open = match part {
            Opening::Text | Opening::Refusal | Opening::Audio { .. } => {
                let mut message = Message::new(self.place("msg"), &mut self.lines, out);
                message.begin(refusal, &mut self.lines, out);
                Open::Message(message)
            }
            Opening::Reasoning { summary, redacted } => {
                let summary = *summary || self.names.summaries;
                Open::Thought(Thought::new(self.place("rs_sp"), summary, *redacted))
            }
            Opening::ToolCall { id, name, custom } => {
                let place = self.place(Call::prefix(name, *custom, &self.names));
                Open::Call(Call::new(place, id, name, *custom, &self.names, &mut self.lines, out))
            }
            Opening::Media(Media {
                kind: MediaKind::Image,
                source: Source::Base64 { media_type, data },
                ..
            }) => {
                let place = self.place("ig");
                Open::Whole(Whole::image(place, media_type, data))
            }
            Opening::Foreign(Foreign { dialect: Dialect::Responses, value }) => {
                Open::Whole(Whole::new(self.place("item"), value.clone()))
            }
            // Pictures elsewhere and other APIs' blocks have no item here.
            Opening::Media(_) | Opening::Foreign(_) => Open::Nothing,
        };
    }

    fn add(&mut self, delta: &Delta, out: &mut Vec<u8>) {
        match (&mut self.open, delta) {
            (
                Open::Message(message),
                Delta::Text(text) | Delta::Refusal(text) | Delta::Transcript(text),
            ) => {
                if matches!(delta, Delta::Text(_)) {
                    self.spoken.1 += text.chars().count() as u64;
                }
                message.add(text, &mut self.lines, out);
            }
            (Open::Message(message), Delta::Citation(citation)) => {
                // Here its place is one in its part.
                let here = moved(citation, |place| place.saturating_sub(self.spoken.0));
                message.cite(&here, &mut self.lines, out);
            }
            (Open::Message(message), Delta::Logprobs(logprobs)) => message.add_logprobs(logprobs),
            (Open::Message(message), Delta::Opaque(opaque)) => {
                message.opaque = Some(opaque.clone());
            }
            (Open::Thought(thought), Delta::Reasoning(text)) => {
                thought.add(text, &mut self.lines, out);
            }
            (Open::Thought(thought), Delta::Opaque(opaque)) => thought.keep(opaque),
            (Open::Call(call), Delta::Arguments(text)) => call.add(text, &mut self.lines, out),
            (Open::Call(call), Delta::Opaque(opaque)) => call.opaque = Some(opaque.clone()),
            (Open::Whole(whole), Delta::Opaque(opaque)) => whole.keep(opaque),
            _ => {}
        }
    }

    /// A part has ended. A message stays open for more words.
    fn close_part(&mut self, out: &mut Vec<u8>) {
        match &mut self.open {
            Open::Message(message) => message.close_part(&mut self.lines, out),
            _ => self.close_item(out),
        }
    }

    fn close_item(&mut self, out: &mut Vec<u8>) {
        let (item, opaque) = match std::mem::replace(&mut self.open, Open::Nothing) {
            Open::Nothing => return,
            Open::Message(message) => message.close(&mut self.lines, out),
            Open::Thought(thought) => (thought.close(&mut self.lines, out), None),
            Open::Call(call) => call.close(&mut self.lines, out),
            Open::Whole(whole) => (whole.close(&mut self.lines, out), None),
        };
        self.items.push(item);
        // Another provider's state of words or calls travels in an item of its own behind them.
        if let Some(opaque) = opaque.filter(|opaque| opaque.dialect != Dialect::Responses) {
            let place = self.place("rs_sp");
            let state = Sealed::Belongs(opaque).seal();
            let item = json!({"id": place.id, "type": "reasoning", "summary": [], "encrypted_content": state});
            self.items.push(Whole::new(place, item).close(&mut self.lines, out));
        }
    }

    fn end(&mut self, out: &mut Vec<u8>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.start(&Start::default(), out);
        self.close_item(out);
        let (status, details, error) = self.outcome();
        let response = self.response(status, &details, &error);
        self.lines.event(out, status, &[("response", Raw(&response))]);
    }

    /// The answer's status, why it is incomplete, and what failed.
    fn outcome(&self) -> (&'static str, Value, Value) {
        let incomplete = |reason| ("incomplete", json!({ "reason": reason }), Value::Null);
        match self.finish.as_ref().map(|finish| finish.reason) {
            None | Some(FinishReason::Stop | FinishReason::ToolCalls) => {
                ("completed", Value::Null, Value::Null)
            }
            Some(FinishReason::Length | FinishReason::ContextFull | FinishReason::Pause) => {
                incomplete("max_output_tokens")
            }
            Some(FinishReason::ContentFilter | FinishReason::Refusal) => {
                incomplete("content_filter")
            }
            Some(FinishReason::Malformed) => {
                let message = "The model wrote a tool call that cannot be read.";
                ("failed", Value::Null, json!({"code": "server_error", "message": message}))
            }
        }
    }

    fn response(&self, status: &str, details: &Value, error: &Value) -> Vec<u8> {
        let id = format!("resp_{}", self.call);
        let output = [b"[", self.items.join(&b","[..]).as_slice(), b"]"].concat();
        let (error, details) = (json(error), json(details));
        let usage = json(&self.usage.as_ref().map(usage::write));
        let tier = json(&self.tier);
        let mut fields: Vec<(&str, Json<'_>)> = vec![
            ("id", Text(&id)),
            ("object", Text("response")),
            ("created_at", Number(self.created)),
            ("status", Text(status)),
            ("error", Raw(&error)),
            ("incomplete_details", Raw(&details)),
            ("model", Text(&self.model)),
            ("output", Raw(&output)),
            ("service_tier", Raw(&tier)),
            ("usage", Raw(&usage)),
        ];
        let echo: Vec<(&String, Vec<u8>)> =
            self.echo.iter().map(|(name, value)| (name, json(value))).collect();
        fields.extend(echo.iter().map(|(name, value)| (name.as_str(), Raw(value))));
        object(&fields)
    }
}

impl WriteStream for Writer {
    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        match event {
            // This API gives one answer.
            Event::Open { choice, .. }
            | Event::Delta { choice, .. }
            | Event::Close { choice }
            | Event::Finish { choice, .. }
                if *choice > 0 => {}
            Event::Start(start) => self.start(start, out),
            Event::Open { part, .. } => self.begin(part, out),
            Event::Delta { delta, .. } => self.add(delta, out),
            Event::Close { .. } => self.close_part(out),
            Event::Finish { finish, .. } => {
                self.close_item(out);
                self.finish = Some(finish.clone());
            }
            Event::Usage(usage) => self.usage = Some(*usage),
            Event::Failed(failure) => {
                let code = failure.code.as_deref().unwrap_or("server_error");
                let error = json!({"code": code, "message": failure.message});
                let response = self.response("failed", &Value::Null, &error);
                self.ended = true;
                self.lines.event(out, "failed", &[("response", Raw(&response))]);
            }
            Event::Aside(text) => sse::comment(text, out),
            Event::End => self.end(out),
        }
    }

    fn write_error(&self, error: &Error) -> Option<Vec<u8>> {
        if self.ended {
            return None;
        }
        let told = json!({"code": failure::code(error), "message": error.message});
        let response = self.response("failed", &Value::Null, &told);
        let (mut out, mut lines) = (Vec::new(), self.lines.clone());
        lines.event(&mut out, "failed", &[("response", Raw(&response))]);
        out.extend(failure::said(error, lines.sequence));
        Some(out)
    }
}
