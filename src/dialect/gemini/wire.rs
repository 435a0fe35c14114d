//! What of an answer is read piece by piece, as Gemini spells it.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::Value;

use crate::dialect::legible::{list, object, text, tokens};

/// One `GenerateContentResponse`: a whole answer, or one event of a stream.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Chunk<'a> {
    #[serde(borrow)]
    pub(super) candidates: Option<Vec<Candidate<'a>>>,
    pub(super) prompt_feedback: Option<PromptFeedback>,
    #[serde(default, deserialize_with = "object")]
    pub(super) usage_metadata: Option<UsageMetadata>,
    #[serde(borrow)]
    pub(super) model_version: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) response_id: Option<Text<'a>>,
    pub(super) error: Option<Value>,
}

/// Borrowed where it holds no escapes; `Option<Cow>` alone would always copy.
#[derive(Debug, Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Candidate<'a> {
    #[serde(borrow)]
    pub(super) content: Option<Content<'a>>,
    #[serde(borrow)]
    pub(super) finish_reason: Option<Text<'a>>,
    pub(super) finish_message: Option<String>,
    pub(super) index: Option<u32>,
    pub(super) grounding_metadata: Option<Value>,
    pub(super) citation_metadata: Option<Value>,
    pub(super) url_context_metadata: Option<Value>,
    pub(super) logprobs_result: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Content<'a> {
    #[serde(borrow)]
    pub(super) parts: Option<Vec<Piece<'a>>>,
}

/// A part. What stands in none of these fields is read once more as it is.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Piece<'a> {
    #[serde(borrow)]
    pub(super) text: Option<Text<'a>>,
    pub(super) thought: Option<bool>,
    #[serde(borrow)]
    pub(super) thought_signature: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) function_call: Option<Call<'a>>,
    #[serde(borrow)]
    pub(super) inline_data: Option<Blob<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Call<'a> {
    #[serde(borrow)]
    pub(super) id: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) name: Option<Text<'a>>,
    pub(super) args: Option<Value>,
    pub(super) partial_args: Option<Vec<PartialArg>>,
    pub(super) will_continue: Option<bool>,
}

/// A piece of a call's arguments, streamed.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartialArg {
    pub(super) json_path: String,
    pub(super) string_value: Option<String>,
    pub(super) number_value: Option<Value>,
    pub(super) bool_value: Option<bool>,
    /// The text goes on in the next piece with this path.
    pub(super) will_continue: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Blob<'a> {
    #[serde(borrow)]
    pub(super) mime_type: Option<Text<'a>>,
    #[serde(borrow)]
    pub(super) data: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PromptFeedback {
    pub(super) block_reason: Option<String>,
    pub(super) block_reason_message: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UsageMetadata {
    #[serde(default, deserialize_with = "tokens")]
    pub(super) prompt_token_count: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    pub(super) cached_content_token_count: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    pub(super) tool_use_prompt_token_count: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    pub(super) candidates_token_count: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    pub(super) thoughts_token_count: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    pub(super) total_token_count: Option<u64>,
    #[serde(default, deserialize_with = "list")]
    pub(super) prompt_tokens_details: Option<Vec<Modality>>,
    #[serde(default, deserialize_with = "list")]
    pub(super) cache_tokens_details: Option<Vec<Modality>>,
    #[serde(default, deserialize_with = "list")]
    pub(super) candidates_tokens_details: Option<Vec<Modality>>,
    #[serde(default, deserialize_with = "text")]
    pub(super) service_tier: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Modality {
    #[serde(default)]
    pub(super) modality: Value,
    #[serde(default, deserialize_with = "tokens")]
    pub(super) token_count: Option<u64>,
}

impl Text<'_> {
    /// The text, unless it is empty.
    pub(super) fn filled(text: Option<&Self>) -> Option<&str> {
        text.map(|text| text.0.as_ref()).filter(|text| !text.is_empty())
    }
}
