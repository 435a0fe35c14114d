//! Reads Cohere's streams.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::PLAN;
use super::response::{Counts, End, Logprob, is_of_text, read_citation, read_end, write_logprobs};
use crate::canon::{Delta, Dialect, Event, Finish, Opening, Start, StreamFailure};
use crate::dialect::legible::object;
use crate::dialect::row::{self, Row};
use crate::dialect::{Misread, ReadStream};

pub(super) struct Reader {
    row: Row<Key>,
    started: bool,
    /// A call has come without its name: the answer is not whole.
    lost_call: bool,
    ended: bool,
}

/// Content and calls are counted apart; the plan is one.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Key {
    Plan,
    Text(u64),
    Thought(u64),
    Call(u64),
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: Option<String>,
    id: Option<String>,
    index: Option<u64>,
    delta: Option<Piece>,
    logprobs: Option<Logprob>,
    /// Of an error.
    message: Option<String>,
}

#[derive(Deserialize)]
struct Piece {
    message: Option<Message>,
    finish_reason: Option<String>,
    #[serde(default, deserialize_with = "object")]
    usage: Option<Counts>,
    error: Option<Value>,
}

#[derive(Default, Deserialize)]
struct Message {
    tool_plan: Option<String>,
    #[serde(default, deserialize_with = "one")]
    content: Option<Content>,
    #[serde(default, deserialize_with = "one")]
    tool_calls: Option<Call>,
    #[serde(default, deserialize_with = "one")]
    citations: Option<Value>,
}

#[derive(Deserialize)]
struct Content {
    #[serde(rename = "type")]
    kind: Option<String>,
    text: Option<String>,
    thinking: Option<String>,
}

#[derive(Deserialize)]
struct Call {
    id: Option<String>,
    function: Option<Function>,
}

#[derive(Deserialize)]
struct Function {
    name: Option<String>,
    arguments: Option<String>,
}

/// Reads an object, or the last of a list, which the first event has empty where the others have
/// an object.
struct One<T>(PhantomData<T>);

fn one<'de, D: Deserializer<'de>, T: Deserialize<'de>>(input: D) -> Result<Option<T>, D::Error> {
    input.deserialize_any(One(PhantomData))
}

// === impl One ===

impl<'de, T: Deserialize<'de>> Visitor<'de> for One<T> {
    type Value = Option<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or a list of objects")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(item) = list.next_element()? {
            found = Some(item);
        }
        Ok(found)
    }
}

// === impl Reader ===

impl Reader {
    pub(super) fn new() -> Self {
        Self { row: Row::new(Dialect::Cohere), started: false, lost_call: false, ended: false }
    }

    fn say(&mut self, key: Key, delta: Delta, events: &mut Vec<Event>) {
        if !self.row.has(key) {
            let part = match key {
                Key::Text(_) | Key::Call(_) => Opening::Text,
                Key::Plan | Key::Thought(_) => {
                    Opening::Reasoning { summary: false, redacted: false }
                }
            };
            self.row.start(key, part, events);
            if key == Key::Plan {
                self.row.keep(key, PLAN);
            }
        }
        self.row.add(key, delta, events);
    }

    fn read_content(&mut self, index: u64, content: Content, events: &mut Vec<Event>) {
        let Content { kind, text, thinking } = content;
        let filled = |text: &String| !text.is_empty();
        // Some versions send a thought as a text of another type.
        let (text, thinking) = match kind.as_deref() {
            Some("thinking") => (None, thinking.or(text)),
            _ => (text, thinking),
        };
        if let Some(thought) = thinking.filter(filled) {
            self.say(Key::Thought(index), Delta::Reasoning(thought), events);
        }
        if let Some(text) = text.filter(filled) {
            self.say(Key::Text(index), Delta::Text(text), events);
        }
    }

    fn start_call(
        &mut self,
        index: u64,
        call: Option<Call>,
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        let Some(Call { id, function: Some(Function { name: Some(name), arguments }) }) = call
        else {
            self.lost_call = true;
            return Err(Misread::new("A tool call begins without its name."));
        };
        let id = id.unwrap_or_else(|| format!("{name}_{index}"));
        self.row.start(Key::Call(index), Opening::ToolCall { id, name, custom: false }, events);
        self.add_arguments(index, arguments, events)
    }

    fn add_arguments(
        &mut self,
        index: u64,
        arguments: Option<String>,
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        let Some(text) = arguments.filter(|text| !text.is_empty()) else { return Ok(()) };
        if self.row.add(Key::Call(index), Delta::Arguments(text), events) {
            return Ok(());
        }
        self.lost_call = true;
        Err(Misread::new("A tool call's arguments have come without its name."))
    }

    fn cite(&mut self, index: u64, citation: Option<Value>, events: &mut Vec<Event>) {
        let Some(citation) = citation.filter(is_of_text) else { return };
        let index = citation.get("content_index").and_then(Value::as_u64).unwrap_or(index);
        self.say(Key::Text(index), Delta::Citation(read_citation(citation)), events);
    }

    fn end_message(&mut self, piece: Option<Piece>, events: &mut Vec<Event>) {
        let (reason, usage, error) = match piece {
            Some(piece) => (piece.finish_reason, piece.usage, piece.error),
            None => (None, None, None),
        };
        self.ended = true;
        self.row.finish(events);
        let reason = reason.unwrap_or_default();
        events.extend(usage.as_ref().and_then(Counts::read).map(Event::Usage));
        if self.lost_call {
            events.push(Event::Failed(row::lost_call()));
            return;
        }
        match (read_end(&reason), error) {
            (End::Finished(finish), None) => {
                let finish = Finish { reason: finish, stop_sequence: None, ..Finish::default() };
                events.extend([Event::Finish { choice: 0, finish }, Event::End]);
            }
            (end, error) => {
                let status = if let End::Failed(status) = end { status } else { 502 };
                let said = error.map(|error| match error {
                    Value::String(text) => text,
                    other => other.to_string(),
                });
                let message = said.unwrap_or_else(|| "The model did not finish its answer.".into());
                events.push(Event::Failed(StreamFailure {
                    message,
                    kind: Some(reason),
                    code: None,
                    status: Some(status),
                }));
            }
        }
    }

    fn read_said(&mut self, said: Said, events: &mut Vec<Event>) -> Result<(), Misread> {
        let Some(kind) = said.kind else {
            let message = said.message.ok_or_else(|| Misread::new("The event has no type."))?;
            self.fail(message, events);
            return Ok(());
        };
        let index = said.index.unwrap_or_default();
        if kind == "message-end" {
            self.begin(None, events);
            self.end_message(said.delta, events);
            return Ok(());
        }
        let id = said.id.filter(|_| kind == "message-start");
        self.begin(id, events);
        let message = said.delta.and_then(|delta| delta.message).unwrap_or_default();
        match kind.as_str() {
            "message-start" | "content-start" | "content-delta" | "tool-plan-delta" => {
                if let Some(plan) = message.tool_plan.filter(|plan| !plan.is_empty()) {
                    self.say(Key::Plan, Delta::Reasoning(plan), events);
                }
                if let Some(content) = message.content {
                    self.read_content(index, content, events);
                }
                if let Some(logprob) = said.logprobs.filter(|_| self.row.has(Key::Text(index))) {
                    let delta = Delta::Logprobs(write_logprobs(&[logprob]));
                    self.row.add(Key::Text(index), delta, events);
                }
            }
            "tool-call-start" => self.start_call(index, message.tool_calls, events)?,
            "tool-call-delta" => {
                let function = message.tool_calls.and_then(|call| call.function);
                let arguments = function.and_then(|function| function.arguments);
                self.add_arguments(index, arguments, events)?;
            }
            "tool-call-end" => self.row.stop(Key::Call(index), events),
            "citation-start" => self.cite(index, message.citations, events),
            // A text stays open behind its end, for the citations that may follow it.
            "content-end" => self.row.stop(Key::Thought(index), events),
            "error" => self.fail(said.message.unwrap_or_default(), events),
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, id: Option<String>, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.started, true) {
            events.push(Event::Start(Start { id: id.unwrap_or_default(), ..Start::default() }));
        }
    }

    fn fail(&mut self, message: String, events: &mut Vec<Event>) {
        self.ended = true;
        events.push(Event::Failed(StreamFailure { message, ..StreamFailure::default() }));
    }
}

impl ReadStream for Reader {
    fn read(
        &mut self,
        _name: Option<&[u8]>,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        if self.ended || data == b"[DONE]" {
            return Ok(());
        }
        let said: Said = serde_json::from_slice(data)?;
        self.read_said(said, events)
    }

    /// A message's end is the stream's; one that came without it was cut.
    fn end(&mut self, _events: &mut Vec<Event>) {}
}
