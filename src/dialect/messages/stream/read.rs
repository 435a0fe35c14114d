//! Reads a streamed answer.
//!
//! Blocks follow one another, but some hosts let them overlap or forget to end one: the oldest open
//! block speaks, younger ones wait until it is closed.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::canon::{
    Content, Delta, Dialect, Event, Finish, FinishReason, Foreign, Opening, Part, Reasoning, Start,
    ToolCall,
};
use crate::dialect::messages::usage::Counts;
use crate::dialect::messages::{block, citation, error, finish, response};
use crate::dialect::{Misread, ReadStream};

/// Reads one stream.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each seen or not")]
#[derive(Debug, Default)]
pub(in crate::dialect::messages) struct Reader {
    blocks: VecDeque<Block>,
    counts: Counts,
    started: bool,
    called: bool,
    finished: bool,
    ended: bool,
}

/// A block that has begun.
#[derive(Debug)]
struct Block {
    index: u64,
    kind: Kind,
    /// Fields that only this dialect knows.
    rest: Map<String, Value>,
    closed: bool,
    /// What it has to say while an older block is open.
    waiting: Vec<Event>,
}

#[derive(Debug)]
enum Kind {
    Text,
    Thinking,
    Redacted,
    /// With the input it began with, until some arrives in pieces.
    Call {
        input: Option<String>,
    },
    /// Whole only at its end: the input that arrived in pieces.
    Foreign {
        input: String,
    },
}

/// One event; all that a common delta has is read without a copy.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(default)]
    index: u64,
    #[serde(borrow, default)]
    delta: Option<Piece<'a>>,
    #[serde(default)]
    content_block: Option<Value>,
    #[serde(default)]
    message: Option<Opened>,
    #[serde(default)]
    usage: Option<Counts>,
    #[serde(default)]
    error: Option<Value>,
}

/// What `message_start` says.
#[derive(Deserialize)]
struct Opened {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    usage: Option<Value>,
}

/// A delta. What is empty is absent.
#[derive(Deserialize)]
struct Piece<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
    #[serde(borrow, default)]
    partial_json: Cow<'a, str>,
    #[serde(borrow, default)]
    thinking: Cow<'a, str>,
    #[serde(borrow, default)]
    signature: Cow<'a, str>,
    #[serde(default)]
    citation: Option<Value>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(default)]
    stop_sequence: Option<String>,
}

impl ReadStream for Reader {
    fn read(
        &mut self,
        name: Option<&[u8]>,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        if self.ended || data == b"[DONE]" {
            return Ok(());
        }
        let wire: Wire<'_> = serde_json::from_slice(data)?;
        match (wire.kind.as_ref(), name) {
            ("message_start", _) => self.start(wire, events),
            // What comes after the reason to end is no answer any more.
            ("content_block_start" | "content_block_delta", _) if self.finished => {}
            ("content_block_start", _) => return self.open(wire, events),
            ("content_block_delta", _) => return self.delta(wire, data, events),
            ("content_block_stop", _) => self.close(wire.index, events),
            ("message_delta", _) => self.message_delta(wire, events),
            ("message_stop", _) => self.stop(events),
            ("error", _) | (_, Some(b"error")) => {
                let failure = match &wire.error {
                    Some(failure) => error::read_failure(failure),
                    None => error::read_failure(&serde_json::from_slice(data)?),
                };
                self.ended = true;
                events.push(Event::Failed(failure));
            }
            // `ping`, and whatever comes to be.
            _ => {}
        }
        Ok(())
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        if self.finished && !self.ended {
            self.ended = true;
            events.push(Event::End);
        }
    }
}

// === impl Reader ===

impl Reader {
    fn start(&mut self, wire: Wire<'_>, events: &mut Vec<Event>) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let Some(message) = wire.message else {
            events.push(Event::Start(Start::default()));
            return;
        };
        let usage = message.usage.unwrap_or_default();
        let service_tier = usage["service_tier"].as_str().map(response::read_tier);
        events.push(Event::Start(Start {
            id: message.id.unwrap_or_default(),
            model: message.model.unwrap_or_default(),
            created: None,
            service_tier,
        }));
        if let Ok(counts) = serde_json::from_value::<Counts>(usage) {
            self.counts.update(counts);
            events.push(Event::Usage(self.counts.usage()));
        }
    }

    /// A stream whose first event was lost still begins.
    fn begin(&mut self, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.started, true) {
            events.push(Event::Start(Start::default()));
        }
    }

    fn open(&mut self, wire: Wire<'_>, events: &mut Vec<Event>) -> Result<(), Misread> {
        self.begin(events);
        let Some(content) = wire.content_block else {
            return Err(Misread::new("`content_block` is missing."));
        };
        // A second block with the index of one that is open: that one is over.
        self.close(wire.index, events);
        self.begin_block(wire.index, content, events)
    }

    fn begin_block(
        &mut self,
        index: u64,
        content: Value,
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        let (part, rest) = begun(content, index)?;
        let mut first = Vec::new();
        let (kind, opening) = match part.content {
            Content::Text { text, citations } => {
                first.extend(filled(&text).map(Delta::Text));
                first.extend(citations.into_iter().map(Delta::Citation));
                (Kind::Text, Some(Opening::Text))
            }
            Content::Reasoning(Reasoning { redacted: true, .. }) => {
                (Kind::Redacted, Some(Opening::Reasoning { summary: false, redacted: true }))
            }
            Content::Reasoning(reasoning) => {
                first.extend(filled(&reasoning.text).map(Delta::Reasoning));
                (Kind::Thinking, Some(Opening::Reasoning { summary: false, redacted: false }))
            }
            Content::ToolCall(ToolCall { id, name, arguments, .. }) => {
                self.called = true;
                let opening = Opening::ToolCall { id, name, custom: false };
                (Kind::Call { input: filled(&arguments) }, Some(opening))
            }
            Content::Media(media) => (Kind::Text, Some(Opening::Media(media))),
            Content::Foreign(_) | Content::Refusal(_) | Content::ToolResult(_) => {
                (Kind::Foreign { input: String::new() }, None)
            }
        };
        let place = self.blocks.len();
        self.blocks.push_back(Block { index, kind, rest, closed: false, waiting: Vec::new() });
        if let Some(part) = opening {
            self.say(place, Event::Open { choice: 0, part }, events);
        }
        for delta in first {
            self.say(place, Event::Delta { choice: 0, delta }, events);
        }
        Ok(())
    }

    /// Passes an event of a block on, or keeps it until the block's turn has come.
    fn say(&mut self, place: usize, event: Event, events: &mut Vec<Event>) {
        match self.blocks.get_mut(place) {
            Some(block) if place > 0 => block.waiting.push(event),
            _ => events.push(event),
        }
    }

    fn delta(
        &mut self,
        wire: Wire<'_>,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        let Some(piece) = wire.delta else { return Err(Misread::new("`delta` is missing.")) };
        let is_meant = |block: &Block| block.index == wire.index && !block.closed;
        if !self.blocks.iter().any(is_meant) {
            // Its start was lost; text and thoughts can be told without it.
            let content = match piece.kind.as_ref() {
                "text_delta" => json!({ "type": "text", "text": "" }),
                "thinking_delta" => json!({ "type": "thinking", "thinking": "" }),
                _ => return Err(Misread::new("A delta belongs to no open block.")),
            };
            self.begin(events);
            self.begin_block(wire.index, content, events)?;
        }
        let Some(place) = self.blocks.iter().position(is_meant) else { return Ok(()) };
        let Some(block) = self.blocks.get_mut(place) else { return Ok(()) };
        if let Kind::Foreign { input } = &mut block.kind {
            if piece.kind == "input_json_delta" {
                input.push_str(&piece.partial_json);
            } else {
                block.merge(serde_json::from_slice(data)?);
            }
        } else if let Some(delta) = block.take(piece) {
            self.say(place, Event::Delta { choice: 0, delta }, events);
        }
        Ok(())
    }

    fn close(&mut self, index: u64, events: &mut Vec<Event>) {
        let Some(place) =
            self.blocks.iter().position(|block| block.index == index && !block.closed)
        else {
            return;
        };
        let last = self.blocks.get_mut(place).map(Block::finish).unwrap_or_default();
        for event in last {
            self.say(place, event, events);
        }
        // The front may be closed now, and those behind it long since.
        while self.blocks.front().is_some_and(|block| block.closed) {
            self.blocks.pop_front();
            if let Some(next) = self.blocks.front_mut() {
                events.append(&mut next.waiting);
            }
        }
    }

    fn close_all(&mut self, events: &mut Vec<Event>) {
        while let Some(index) =
            self.blocks.iter().find(|block| !block.closed).map(|block| block.index)
        {
            self.close(index, events);
        }
    }

    fn message_delta(&mut self, wire: Wire<'_>, events: &mut Vec<Event>) {
        self.begin(events);
        if let Some(counts) = wire.usage {
            self.counts.update(counts);
            events.push(Event::Usage(self.counts.usage()));
        }
        let Some(delta) = wire.delta else { return };
        if let Some(reason) = &delta.stop_reason {
            self.finish(finish::read(reason, delta.stop_sequence), events);
        }
    }

    fn finish(&mut self, finish: Finish, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.finished, true) {
            self.close_all(events);
            events.push(Event::Finish { choice: 0, finish });
        }
    }

    fn stop(&mut self, events: &mut Vec<Event>) {
        self.begin(events);
        // The upstream says that this is all, and forgot to say why.
        let reason = if self.called { FinishReason::ToolCalls } else { FinishReason::Stop };
        self.finish(Finish { reason, stop_sequence: None }, events);
        self.ended = true;
        events.push(Event::End);
    }
}

// === impl Block ===

impl Block {
    /// What a piece adds; what only its end can tell is kept.
    fn take(&mut self, piece: Piece<'_>) -> Option<Delta> {
        match &mut self.kind {
            Kind::Text => match piece.citation {
                Some(citation) => Some(Delta::Citation(citation::read(citation))),
                None => filled(&piece.text).map(Delta::Text),
            },
            Kind::Thinking => {
                if !piece.signature.is_empty() {
                    let signature = Value::String(piece.signature.into_owned());
                    self.rest.insert("signature".to_owned(), signature);
                }
                filled(&piece.thinking).map(Delta::Reasoning)
            }
            Kind::Call { input } => {
                let more = filled(&piece.partial_json)?;
                *input = None;
                Some(Delta::Arguments(more))
            }
            Kind::Redacted | Kind::Foreign { .. } => None,
        }
    }

    /// Adds the fields of a delta to a block of a kind that is not known: text to text, all else
    /// in its place.
    fn merge(&mut self, mut event: Value) {
        let Value::Object(delta) = event["delta"].take() else { return };
        for (name, value) in delta {
            match (self.rest.get_mut(&name), value) {
                (_, Value::Null) => {}
                // The delta's own type is not the block's.
                _ if name == "type" => {}
                (Some(Value::String(whole)), Value::String(more)) => whole.push_str(&more),
                (_, value) => {
                    self.rest.insert(name, value);
                }
            }
        }
    }

    /// The events that end the block.
    fn finish(&mut self) -> Vec<Event> {
        self.closed = true;
        let mut events = Vec::new();
        let rest = std::mem::take(&mut self.rest);
        let opaque = match &mut self.kind {
            Kind::Foreign { input } => {
                let value = whole(rest, input);
                let foreign = Foreign { dialect: Dialect::Messages, value };
                events.push(Event::Open { choice: 0, part: Opening::Foreign(foreign) });
                None
            }
            Kind::Call { input } => {
                if let Some(input) = input.take() {
                    events.push(Event::Delta { choice: 0, delta: Delta::Arguments(input) });
                }
                block::own(rest)
            }
            Kind::Thinking => block::unseal(rest, "signature"),
            Kind::Redacted => block::unseal(rest, "data"),
            Kind::Text => block::own(rest),
        };
        events
            .extend(opaque.map(|opaque| Event::Delta { choice: 0, delta: Delta::Opaque(opaque) }));
        events.push(Event::Close { choice: 0 });
        events
    }
}

/// A block as it begins, which may lack what its deltas bring, and its fields without a common
/// meaning.
fn begun(mut content: Value, index: u64) -> Result<(Part, Map<String, Value>), Misread> {
    let Some(fields) = content.as_object_mut() else {
        return Err(Misread::new("`content_block` must be an object."));
    };
    let (taken, whole): (&[&str], _) = match fields.get("type").and_then(Value::as_str) {
        Some("text") => {
            fields.entry("text").or_insert_with(|| json!(""));
            (&["text", "citations"], false)
        }
        Some("thinking") => (&["thinking"], false),
        Some("redacted_thinking") => (&[], false),
        Some("tool_use") => {
            if fields.get("id").and_then(Value::as_str).is_none_or(str::is_empty) {
                fields.insert("id".to_owned(), json!(format!("toolu_{index}")));
            }
            (&["id", "name", "input"], false)
        }
        _ => (&[], true),
    };
    let mut rest = fields.clone();
    rest.retain(|name, value| whole || !(taken.contains(&name.as_str()) || value.is_null()));
    Ok((block::read_block(content, "content_block")?, rest))
}

/// A block of a kind that is not known, with the input that arrived in pieces.
fn whole(mut block: Map<String, Value>, input: &str) -> Value {
    if !input.is_empty() {
        let parsed = serde_json::from_str(input);
        let input = parsed.unwrap_or_else(|_| Value::String(input.to_owned()));
        block.insert("input".to_owned(), input);
    }
    Value::Object(block)
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
