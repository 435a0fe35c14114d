//! Whether a question is so plain that our own words for it hold all of it. A provider that is given
//! the bytes as they came may act on anything else that stands in them, so of all other questions
//! the bytes are a part of what makes them the same.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::canon::Dialect;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Plain,
    /// It says something that only its own dialect has words for, or in an unusual way.
    Odd,
    /// It says something twice, and who reads it decides what holds.
    Doubled,
}

/// The fields of a body whose values are held to the letter, if they can be read at all.
fn exact(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::Chat => &[
            "temperature",
            "top_p",
            "max_tokens",
            "max_completion_tokens",
            "n",
            "stop",
            "seed",
            "presence_penalty",
            "frequency_penalty",
            "parallel_tool_calls",
            "verbosity",
            "reasoning_effort",
            "service_tier",
        ],
        Dialect::Messages => &["temperature", "top_p", "top_k", "max_tokens", "stop_sequences"],
        Dialect::Responses => {
            &["instructions", "temperature", "top_p", "max_output_tokens", "parallel_tool_calls"]
        }
        Dialect::Gemini | Dialect::Converse | Dialect::Cohere => &[],
    }
}

/// Where the conversation stands.
pub(super) fn conversation(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Responses => "input",
        Dialect::Gemini => "contents",
        Dialect::Chat | Dialect::Messages | Dialect::Converse | Dialect::Cohere => "messages",
    }
}

/// `ignored` are fields that change no answer, `extras` those that are held whole beside it.
pub(super) fn shape(
    (dialect, body): (Dialect, &[u8]),
    ignored: &[&str],
    extras: &Map<String, Value>,
) -> Shape {
    let mut walk = Walk { dialect, ignored, extras, seen: Vec::new(), shape: Shape::Plain };
    let mut reader = serde_json::Deserializer::from_slice(body);
    match reader.deserialize_map(&mut walk) {
        Ok(()) => walk.shape,
        // A doubled name that was seen stays one, whatever follows.
        Err(_) if walk.shape == Shape::Doubled => Shape::Doubled,
        Err(_) => Shape::Odd,
    }
}

/// Whether one message is the user's words and nothing else.
pub(super) fn is_words(dialect: Dialect, message: &Value) -> bool {
    match dialect {
        Dialect::Chat => ChatMessage::deserialize(message).is_ok(),
        Dialect::Messages | Dialect::Responses => PlainMessage::deserialize(message).is_ok(),
        Dialect::Gemini => GeminiMessage::deserialize(message).is_ok(),
        Dialect::Converse | Dialect::Cohere => false,
    }
}

struct Walk<'a> {
    dialect: Dialect,
    ignored: &'a [&'a str],
    extras: &'a Map<String, Value>,
    seen: Vec<String>,
    shape: Shape,
}

impl Walk<'_> {
    /// A field whose value is not looked into.
    fn note(&mut self, name: &str) {
        let held = exact(self.dialect).contains(&name)
            || self.ignored.contains(&name)
            || self.extras.contains_key(name);
        if !held && self.shape == Shape::Plain {
            self.shape = Shape::Odd;
        }
    }
}

impl<'de> Visitor<'de> for &mut Walk<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a question")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if self.seen.contains(&name) {
                self.shape = Shape::Doubled;
            }
            match (self.dialect, name.as_str()) {
                (Dialect::Chat, "messages") => fits::<Vec<ChatMessage>, A>(&mut map)?,
                (Dialect::Messages, "messages") => fits::<Vec<PlainMessage>, A>(&mut map)?,
                (Dialect::Messages, "system") => fits::<Words<TextPart>, A>(&mut map)?,
                (Dialect::Responses, "input") => fits::<Words<PlainMessage>, A>(&mut map)?,
                (Dialect::Gemini, "contents") => fits::<Vec<GeminiMessage>, A>(&mut map)?,
                (Dialect::Gemini, "systemInstruction") => fits::<GeminiSystem, A>(&mut map)?,
                (Dialect::Gemini, "generationConfig") => fits::<GeminiSettings, A>(&mut map)?,
                _ => {
                    self.note(&name);
                    map.next_value::<IgnoredAny>()?;
                }
            }
            self.seen.push(name);
        }
        Ok(())
    }
}

/// Whether the next value can be read as such a one.
fn fits<'de, T: Deserialize<'de>, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<T>().map(|_| ())
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ChatRole {
    System,
    Developer,
    User,
    Assistant,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum PlainRole {
    User,
    Assistant,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum GeminiRole {
    User,
    Model,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum TextKind {
    Text,
}

#[expect(dead_code, reason = "that it can be read is all that is asked")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChatMessage {
    role: ChatRole,
    content: Words<TextPart>,
}

#[expect(dead_code, reason = "that it can be read is all that is asked")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainMessage {
    role: PlainRole,
    content: Words<TextPart>,
}

#[expect(dead_code, reason = "that it can be read is all that is asked")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TextPart {
    #[serde(rename = "type")]
    kind: TextKind,
    text: IgnoredAny,
}

#[expect(dead_code, reason = "that it can be read is all that is asked")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GeminiMessage {
    role: GeminiRole,
    parts: Vec<GeminiPart>,
}

#[expect(dead_code, reason = "that it can be read is all that is asked")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GeminiSystem {
    parts: Vec<GeminiPart>,
}

#[expect(dead_code, reason = "that it can be read is all that is asked")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GeminiPart {
    text: IgnoredAny,
}

#[expect(dead_code, reason = "that it can be read is all that is asked")]
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GeminiSettings {
    temperature: Option<IgnoredAny>,
    top_p: Option<IgnoredAny>,
    top_k: Option<IgnoredAny>,
    max_output_tokens: Option<IgnoredAny>,
    stop_sequences: Option<IgnoredAny>,
    seed: Option<IgnoredAny>,
}

/// A text, or a list of these.
struct Words<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Words<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Words<T> {
    type Value = Self;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("words")
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self, A::Error> {
        while list.next_element::<T>()?.is_some() {}
        Ok(self)
    }
}
