//! What our tools give, in the words of the Model Context Protocol.

use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Value, json};

use crate::canon::{Content, Media, MediaKind, Part, Source};
use crate::error::Error;
use crate::tool::{Failure, Output};

pub(super) fn result(output: Output) -> CallToolResult {
    let blocks = output.parts.into_iter().filter_map(block).collect();
    let mut result = CallToolResult::success(blocks);
    result.structured_content = output.value.filter(Value::is_object);
    result
}

/// A failure is for the model: it may do better, or something else.
pub(super) fn failed(failure: &Failure) -> CallToolResult {
    let retry_after = failure.retry_after.map(|wait| wait.as_secs_f64());
    refused(failure.kind.name(), &failure.message, retry_after)
}

pub(super) fn erred(error: &Error) -> CallToolResult {
    let retry_after = error.retry_after.map(|wait| wait.as_secs_f64());
    refused(error.kind.code(), &error.message, retry_after)
}

pub(super) fn refused(kind: &str, message: &str, retry_after: Option<f64>) -> CallToolResult {
    let mut error = json!({"type": kind, "message": message});
    if let Some(retry_after) = retry_after {
        error["retry_after"] = json!(retry_after);
    }
    CallToolResult::error(vec![ContentBlock::text(json!({"error": error}).to_string())])
}

/// `None` for what only models have.
pub(crate) fn block(part: Part) -> Option<ContentBlock> {
    match part.content {
        Content::Text { text, .. } | Content::Refusal(text) => Some(ContentBlock::text(text)),
        Content::Media(media) => Some(medium(media)),
        Content::Reasoning(_)
        | Content::ToolCall(_)
        | Content::ToolResult(_)
        | Content::Foreign(_) => None,
    }
}

fn medium(media: Media) -> ContentBlock {
    match (media.kind, media.source) {
        (MediaKind::Image, Source::Base64 { media_type, data }) => {
            ContentBlock::image(data, media_type)
        }
        (MediaKind::Audio, Source::Base64 { media_type, data }) => {
            ContentBlock::audio(data, media_type)
        }
        (_, Source::Url { url, .. }) => ContentBlock::text(url),
        (_, Source::Text(text)) => ContentBlock::text(text),
        (_, Source::Base64 { media_type, .. }) => {
            ContentBlock::text(format!("[{media_type}, which cannot be shown here]"))
        }
        (_, Source::File { id, .. }) => ContentBlock::text(id),
    }
}
