//! The shapes of whole answers and of their streamed pieces, with what each server adds.
//!
//! Both have one shape: a choice has its content in `message` or in `delta`. Fields are read as
//! loosely as can be, for what one server leaves out another sends empty, null or in another type.

use serde_json::Value;

use crate::dialect::legible::{Said, integer, list, object};

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
    /// Z.ai's.
    #[serde(default)]
    pub web_search: Value,
}

#[derive(serde::Deserialize)]
pub(super) struct Choice<'a> {
    #[serde(default, deserialize_with = "integer")]
    pub index: Option<i64>,
    #[serde(borrow, default, deserialize_with = "object")]
    pub delta: Option<Message<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
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
    /// GitHub Copilot's.
    #[serde(borrow, default)]
    pub reasoning_text: Said<'a>,
    #[serde(default)]
    pub reasoning_details: Value,
    /// LiteLLM's, with Anthropic's blocks.
    #[serde(default)]
    pub thinking_blocks: Value,
    #[serde(borrow, default, deserialize_with = "list")]
    pub tool_calls: Option<Vec<Call<'a>>>,
    #[serde(borrow, default, deserialize_with = "object")]
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
    #[serde(default, deserialize_with = "integer")]
    pub index: Option<i64>,
    #[serde(borrow, default, deserialize_with = "object")]
    pub function: Option<Function<'a>>,
    #[serde(borrow, default, deserialize_with = "object")]
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
