//! The shapes of whole answers and of their streamed pieces, with what each server adds.
//!
//! Both have one shape: a choice has its content in `message` or in `delta`. Fields are read as
//! loosely as can be, for what one server leaves out another sends empty, null or in another type.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor, value};
use serde_json::Value;

#[derive(serde::Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow, default)]
    pub id: Said<'a>,
    #[serde(borrow, default)]
    pub model: Said<'a>,
    #[serde(default)]
    pub created: Value,
    #[serde(borrow, default)]
    pub service_tier: Said<'a>,
    #[serde(borrow, default)]
    pub choices: Option<Vec<Choice<'a>>>,
    #[serde(default)]
    pub usage: Value,
    /// Groq's.
    #[serde(default)]
    pub x_groq: Value,
    #[serde(default)]
    pub error: Value,
    /// Perplexity's: the URLs that the answer's `[1]` mean, and more of the same pages.
    #[serde(default)]
    pub citations: Value,
    #[serde(default)]
    pub search_results: Value,
}

#[derive(serde::Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default)]
    pub index: Option<i64>,
    #[serde(borrow, default)]
    pub delta: Option<Message<'a>>,
    #[serde(borrow, default)]
    pub message: Option<Message<'a>>,
    #[serde(borrow, default)]
    pub finish_reason: Said<'a>,
    #[serde(borrow, default)]
    pub native_finish_reason: Said<'a>,
    /// The stop sequence that was met (vLLM), or a token's number.
    #[serde(borrow, default)]
    pub stop_reason: Said<'a>,
    #[serde(default)]
    pub logprobs: Value,
    /// Moonshot's.
    #[serde(default)]
    pub usage: Value,
    /// OpenRouter's.
    #[serde(default)]
    pub error: Value,
}

#[derive(Default, serde::Deserialize)]
pub(super) struct Message<'a> {
    #[serde(borrow, default)]
    pub content: Said<'a>,
    #[serde(borrow, default)]
    pub refusal: Said<'a>,
    #[serde(borrow, default)]
    pub reasoning_content: Said<'a>,
    #[serde(borrow, default)]
    pub reasoning: Said<'a>,
    #[serde(default)]
    pub reasoning_details: Value,
    #[serde(borrow, default)]
    pub tool_calls: Option<Vec<Call<'a>>>,
    #[serde(borrow, default)]
    pub function_call: Option<Function<'a>>,
    #[serde(default)]
    pub audio: Value,
    #[serde(default)]
    pub images: Value,
    #[serde(default)]
    pub annotations: Value,
    #[serde(default)]
    pub x_citations: Value,
    #[serde(default)]
    pub extra_content: Value,
}

#[derive(serde::Deserialize)]
pub(super) struct Call<'a> {
    #[serde(borrow, default)]
    pub id: Said<'a>,
    #[serde(default)]
    pub index: Option<i64>,
    #[serde(borrow, default)]
    pub function: Option<Function<'a>>,
    #[serde(borrow, default)]
    pub custom: Option<Custom<'a>>,
    #[serde(default)]
    pub extra_content: Value,
}

#[derive(Default, serde::Deserialize)]
pub(super) struct Function<'a> {
    #[serde(borrow, default)]
    pub name: Said<'a>,
    #[serde(borrow, default)]
    pub arguments: Said<'a>,
}

#[derive(serde::Deserialize)]
pub(super) struct Custom<'a> {
    #[serde(borrow, default)]
    pub name: Said<'a>,
    #[serde(borrow, default)]
    pub input: Said<'a>,
}

/// A text, mostly; whatever else a server may put in its place.
#[derive(Debug, Default)]
pub(super) enum Said<'a> {
    #[default]
    Nothing,
    Text(Cow<'a, str>),
    /// A list or an object.
    Other(Value),
}

// === impl Said ===

impl Said<'_> {
    /// The text; empty if it is none.
    pub(super) fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Nothing | Self::Other(_) => "",
        }
    }

    /// The text, or the JSON text of what stands in its place.
    pub(super) fn json(&self) -> Cow<'_, str> {
        match self {
            Self::Other(value) => value.to_string().into(),
            Self::Nothing | Self::Text(_) => self.text().into(),
        }
    }

    pub(super) fn list(&self) -> &[Value] {
        match self {
            Self::Other(Value::Array(list)) => list,
            Self::Nothing | Self::Text(_) | Self::Other(_) => &[],
        }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Said<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Listener)
    }
}

struct Listener;

impl<'de> Visitor<'de> for Listener {
    type Value = Said<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a text")
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Said<'de>, E> {
        Ok(Said::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Said<'de>, E> {
        Ok(Said::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_unit<E: Error>(self) -> Result<Said<'de>, E> {
        Ok(Said::Nothing)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Said<'de>, E> {
        Ok(Said::Nothing)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Said<'de>, E> {
        Ok(Said::Nothing)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Said<'de>, E> {
        Ok(Said::Nothing)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Said<'de>, E> {
        Ok(Said::Nothing)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Said<'de>, A::Error> {
        Value::deserialize(value::SeqAccessDeserializer::new(list)).map(Said::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Said<'de>, A::Error> {
        Value::deserialize(value::MapAccessDeserializer::new(map)).map(Said::Other)
    }
}
