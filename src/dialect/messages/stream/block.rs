//! A block of a streamed answer while it is open.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::canon::{Citation, Delta, Dialect, Event, Foreign, Opening, Part};
use crate::dialect::Misread;
use crate::dialect::messages::{block, citation};

/// A block that has begun.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) index: i64,
    pub(super) kind: Kind,
    /// Fields that only this dialect knows.
    pub(super) rest: Map<String, Value>,
    pub(super) closed: bool,
    /// What it has to say while an older block is open.
    pub(super) waiting: Vec<Event>,
}

#[derive(Debug)]
pub(super) enum Kind {
    Text(Words),
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

/// What a text has said so far.
#[derive(Debug, Default)]
pub(super) struct Words {
    pub(super) characters: u64,
    /// They are told when it is known how long the text is that they stand for.
    pub(super) citations: Vec<Citation>,
}

/// A text in the event's own bytes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

fn text_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cow<'de, str>, D::Error> {
    let text = Option::<Text<'de>>::deserialize(deserializer)?;
    Ok(text.map(|text| text.0).unwrap_or_default())
}

/// A delta. What is empty is absent.
#[derive(Deserialize)]
pub(super) struct Piece<'a> {
    #[serde(rename = "type", borrow, default, deserialize_with = "text_or_null")]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub(super) text: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub(super) partial_json: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub(super) thinking: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text_or_null")]
    pub(super) signature: Cow<'a, str>,
    #[serde(default)]
    pub(super) citation: Option<Value>,
    #[serde(default)]
    pub(super) stop_reason: Option<String>,
    #[serde(default)]
    pub(super) stop_sequence: Option<String>,
    #[serde(default)]
    pub(super) stop_details: Option<Value>,
}

// === impl Block ===

impl Block {
    /// What a piece adds; what only its end can tell is kept.
    pub(super) fn take(&mut self, piece: Piece<'_>) -> Option<Delta> {
        match &mut self.kind {
            Kind::Text(words) => {
                words.citations.extend(piece.citation.map(citation::read));
                words.characters += piece.text.chars().count() as u64;
                filled(&piece.text).map(Delta::Text)
            }
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
    pub(super) fn merge(&mut self, mut event: Value) {
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

    /// The events that end the block; so many characters were `spoken` before it and, then, with it.
    pub(super) fn finish(&mut self, spoken: &mut u64) -> Vec<Event> {
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
            Kind::Text(words) => {
                let start = *spoken;
                *spoken += words.characters;
                events.extend(words.citations.drain(..).map(|mut citation| {
                    citation::stands_for(&mut citation, start, *spoken);
                    Event::Delta { choice: 0, delta: Delta::Citation(citation) }
                }));
                block::own(rest)
            }
        };
        events
            .extend(opaque.map(|opaque| Event::Delta { choice: 0, delta: Delta::Opaque(opaque) }));
        events.push(Event::Close { choice: 0 });
        events
    }
}

/// A block as it begins, which may lack what its deltas bring, and its fields without a common
/// meaning.
pub(super) fn begun(mut content: Value, index: i64) -> Result<(Part, Map<String, Value>), Misread> {
    let Some(fields) = content.as_object_mut() else {
        return Err(Misread::new("`content_block` must be an object."));
    };
    let (taken, whole): (&[&str], _) = match fields.get("type").and_then(Value::as_str) {
        Some("text") => {
            if fields.get("text").is_none_or(Value::is_null) {
                fields.insert("text".to_owned(), json!(""));
            }
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

pub(super) fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
