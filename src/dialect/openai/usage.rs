//! How OpenAI and those who follow it count tokens: one reading, one writing.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::canon::Usage;
use crate::dialect::legible::{object, tokens};

/// OpenAI's usage object with the variations of those who follow it.
#[derive(Debug, Deserialize)]
pub(super) struct Counts {
    #[serde(default, deserialize_with = "tokens")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    completion_tokens: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    total_tokens: Option<u64>,
    #[serde(default, deserialize_with = "object")]
    prompt_tokens_details: Option<PromptDetails>,
    #[serde(default, deserialize_with = "object")]
    completion_tokens_details: Option<CompletionDetails>,
    /// DeepSeek's, Moonshot's and Mistral's own places for what was read from their caches.
    #[serde(default, deserialize_with = "tokens")]
    prompt_cache_hit_tokens: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    cached_tokens: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    num_cached_tokens: Option<u64>,
    /// Perplexity's: beside the completion where they are more than that.
    #[serde(default, deserialize_with = "tokens")]
    reasoning_tokens: Option<u64>,
    /// The names of OpenAI's newer API.
    #[serde(default, deserialize_with = "tokens")]
    input_tokens: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    output_tokens: Option<u64>,
}

#[expect(clippy::struct_field_names, reason = "the names are the API's")]
#[derive(Debug, Default, Deserialize)]
struct PromptDetails {
    #[serde(default, deserialize_with = "tokens")]
    cached_tokens: Option<u64>,
    #[serde(default, alias = "cache_creation_tokens", deserialize_with = "tokens")]
    cache_write_tokens: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    audio_tokens: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct CompletionDetails {
    #[serde(default, deserialize_with = "tokens")]
    reasoning_tokens: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    audio_tokens: Option<u64>,
}

/// The classes of a usage object; `None` for what is none.
pub fn count(value: &Value) -> Option<Usage> {
    Counts::deserialize(value).ok()?.classes()
}

impl Counts {
    pub(super) fn classes(self) -> Option<Usage> {
        let output = self.completion_tokens.or(self.output_tokens).unwrap_or(0);
        let rest = self.total_tokens.map(|total| total.saturating_sub(output));
        let prompt = self.prompt_tokens.or(self.input_tokens).or(rest)?;
        // xAI and Gemini count reasoning beside the completion, and Gemini nowhere but in the total.
        let output =
            self.total_tokens.map_or(output, |total| output.max(total.saturating_sub(prompt)));
        let beside = self.reasoning_tokens.filter(|reasoning| *reasoning > output).unwrap_or(0);
        let output = output.saturating_add(beside);
        let read = self.prompt_tokens_details.unwrap_or_default();
        let written = self.completion_tokens_details.unwrap_or_default();
        let cache_read = read
            .cached_tokens
            .or(self.prompt_cache_hit_tokens)
            .or(self.cached_tokens)
            .or(self.num_cached_tokens)
            .unwrap_or(0)
            .min(prompt);
        let cache_write = read.cache_write_tokens.unwrap_or(0).min(prompt - cache_read);
        let input = prompt - cache_read - cache_write;
        let reasoning = written.reasoning_tokens.or(self.reasoning_tokens);
        let reasoning = reasoning.unwrap_or(0).min(output);
        Some(Usage {
            input,
            cache_read,
            cache_write,
            cache_write_long: 0,
            output,
            reasoning,
            audio_input: read.audio_tokens.unwrap_or(0).min(input),
            audio_output: written.audio_tokens.unwrap_or(0).min(output - reasoning),
        })
    }
}

/// The usage object of an answer.
pub fn write_usage(usage: &Usage) -> Value {
    let mut read = json!({ "cached_tokens": usage.cache_read, "audio_tokens": usage.audio_input });
    let cache_write = usage.cache_write + usage.cache_write_long;
    if cache_write > 0 {
        // OpenAI and OpenRouter call it so; it is counted in `prompt_tokens`.
        read["cache_write_tokens"] = json!(cache_write);
    }
    json!({
        "prompt_tokens": usage.input_total(),
        "completion_tokens": usage.output,
        "total_tokens": usage.total(),
        "prompt_tokens_details": read,
        "completion_tokens_details": {
            "reasoning_tokens": usage.reasoning,
            "audio_tokens": usage.audio_output,
        },
    })
}
