//! Reads a streamed answer.
//!
//! Blocks follow one another, but some hosts let them overlap or forget to end one: the oldest open
//! block speaks, younger ones wait until it is closed.

use std::borrow::Cow;
use std::collections::VecDeque;

use serde::Deserialize;
use serde_json::{Value, json};

use super::block::{Block, Kind, Piece, Words, begun, filled};
use crate::canon::{
    Content, Delta, Event, Finish, FinishReason, Opening, Part, Reasoning, Start, ToolCall,
};
use crate::dialect::fold::unfold_part;
use crate::dialect::legible::{integer, object};
use crate::dialect::messages::block::own;
use crate::dialect::messages::usage::Counts;
use crate::dialect::messages::{error, finish, response};
use crate::dialect::{Misread, ReadStream};

/// Reads one stream.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each seen or not")]
#[derive(Debug, Default)]
pub(in crate::dialect::messages) struct Reader {
    blocks: VecDeque<Block>,
    counts: Counts,
    started: bool,
    /// How many characters its texts have, as far as they are closed.
    spoken: u64,
    /// Some block has begun.
    said: bool,
    called: bool,
    finished: bool,
    ended: bool,
}

/// One event; all that a common delta has is read without a copy.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(rename = "type", borrow, default)]
    kind: Cow<'a, str>,
    #[serde(default, deserialize_with = "integer")]
    index: Option<i64>,
    #[serde(borrow, default)]
    delta: Option<Piece<'a>>,
    #[serde(default)]
    content_block: Option<Value>,
    #[serde(default)]
    message: Option<Opened>,
    #[serde(default, deserialize_with = "object")]
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
            ("content_block_stop", _) => {
                let index = self.meant(wire.index);
                self.close(index, events);
            }
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
            // What it says of the answer, before there is any, holds a place.
            self.counts.update(counts.of_question());
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
        let index = wire.index.unwrap_or(0);
        self.close(index, events);
        self.begin_block(index, content, events)
    }

    /// The block that an event speaks of; without an index it is the youngest that is open.
    fn meant(&self, index: Option<i64>) -> i64 {
        let open = self.blocks.iter().rev().find(|block| !block.closed);
        index.or_else(|| open.map(|block| block.index)).unwrap_or(0)
    }

    fn begin_block(
        &mut self,
        index: i64,
        content: Value,
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        let (part, mut rest) = begun(content, index)?;
        self.said = true;
        let mut first = Vec::new();
        let (kind, opening) = match part.content {
            Content::Text { text, citations } => {
                first.extend(filled(&text).map(Delta::Text));
                let characters = text.chars().count() as u64;
                (Kind::Text(Words { characters, citations }), Some(Opening::Text))
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
                // Who calls is known from the start, and is to be told there.
                first.extend(own(std::mem::take(&mut rest)).map(Delta::Opaque));
                let opening = Opening::ToolCall { id, name, custom: false };
                (Kind::Call { input: filled(&arguments) }, Some(opening))
            }
            Content::Media(media) => (Kind::Text(Words::default()), Some(Opening::Media(media))),
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
        let index = self.meant(wire.index);
        let is_meant = |block: &Block| block.index == index && !block.closed;
        if !self.blocks.iter().any(is_meant) {
            // Its start was lost; text and thoughts can be told without it.
            let content = match piece.kind.as_ref() {
                "text_delta" => json!({ "type": "text", "text": "" }),
                "thinking_delta" => json!({ "type": "thinking", "thinking": "" }),
                _ => return Err(Misread::new("A delta belongs to no open block.")),
            };
            self.begin(events);
            self.begin_block(index, content, events)?;
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

    fn close(&mut self, index: i64, events: &mut Vec<Event>) {
        let Some(place) =
            self.blocks.iter().position(|block| block.index == index && !block.closed)
        else {
            return;
        };
        let spoken = &mut self.spoken;
        let last = self.blocks.get_mut(place).map(|block| block.finish(spoken)).unwrap_or_default();
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
            self.finish(finish::read(reason, delta.stop_sequence, delta.stop_details), events);
        }
    }

    fn finish(&mut self, finish: Finish, events: &mut Vec<Event>) {
        if !std::mem::replace(&mut self.finished, true) {
            self.close_all(events);
            if let Some(text) = finish::explanation(&finish) {
                unfold_part(0, &Part::new(Content::Refusal(text.to_owned())), events);
            }
            events.push(Event::Finish { choice: 0, finish });
        }
    }

    fn stop(&mut self, events: &mut Vec<Event>) {
        self.begin(events);
        if !self.finished && !self.said {
            // Neither an answer nor a reason why there is none.
            self.ended = true;
            return;
        }
        // The upstream says that this is all, and forgot to say why.
        let reason = if self.called { FinishReason::ToolCalls } else { FinishReason::Stop };
        self.finish(Finish { reason, stop_sequence: None, ..Finish::default() }, events);
        self.ended = true;
        events.push(Event::End);
    }
}
