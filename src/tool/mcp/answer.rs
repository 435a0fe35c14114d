//! What an MCP server says, as an answer of ours or as a failure.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use rmcp::ServiceError;
use rmcp::model::{
    CallToolResult, ContentBlock, ErrorCode, ErrorData, RequestId, Resource, ResourceContents,
    ServerJsonRpcMessage,
};
use rmcp::service::ClientInitializeError;
use rmcp::transport::DynamicTransportError;
use rmcp::transport::streamable_http_client::{HttpStatusError, StreamableHttpError};
use serde_json::Value;

use super::http::Lost;
use crate::canon::{Content, Media, MediaKind, Part, Source};
use crate::tool::{Answer, Failure, FailureKind, Sent};

/// What a call is told whose answer was not read to its end.
const TOO_LONG: &str = "the answer is longer than `max_result` allows";
/// What one is told whose answer is none.
const NOT_MCP: &str = "the server answered something that is not MCP";
/// What rmcp says of calls that were on their way when a session was lost.
const SESSION_LOST: &str = "session was re-initialized";

/// A result as our tools give it.
pub(super) fn answer(result: CallToolResult, longest: usize) -> Answer {
    let raw = serde_json::to_vec(&result).unwrap_or_default();
    let truncated = raw.len() > longest;
    let mut raw = Bytes::from(raw);
    raw.truncate(longest);
    let mut parts: Vec<Part> = result.content.into_iter().map(part).collect();
    let value = match result.structured_content {
        Some(value) => {
            // The text is for those who cannot read the value, and not every server writes it.
            if parts.is_empty() {
                parts.push(Part::text(value.to_string()));
            }
            Some(value)
        }
        None => match &parts[..] {
            [only] => only.as_text().and_then(|text| serde_json::from_str(text).ok()),
            _ => None,
        },
    };
    let is_error = result.is_error.unwrap_or(false);
    Answer { parts, value, raw, truncated, is_error, wire: None }
}

fn part(block: ContentBlock) -> Part {
    match block {
        ContentBlock::Text(text) => Part::text(text.text),
        ContentBlock::Image(image) => media(MediaKind::Image, &image.mime_type, image.data),
        ContentBlock::Audio(audio) => media(MediaKind::Audio, &audio.mime_type, audio.data),
        ContentBlock::Resource(embedded) => resource(embedded.resource),
        ContentBlock::ResourceLink(link) => linked(&link),
        // A kind that came later is for those who know it.
        other => Part::text(serde_json::to_string(&other).unwrap_or_default()),
    }
}

fn media(kind: MediaKind, media_type: &str, data: String) -> Part {
    Part::new(Content::Media(Media::new(kind, Source::base64(media_type, data))))
}

fn resource(contents: ResourceContents) -> Part {
    match contents {
        ResourceContents::TextResourceContents { uri, text, .. } => {
            Part::text(format!("{uri}\n\n{text}"))
        }
        ResourceContents::BlobResourceContents { uri, mime_type, blob, .. } => {
            let media_type = mime_type.unwrap_or_default();
            if media_type.starts_with("image/") {
                return media(MediaKind::Image, &media_type, blob);
            }
            let size = blob.len() / 4 * 3;
            Part::text(format!("{uri} ({media_type}, about {size} bytes that are no text)"))
        }
        _ => Part::text("a resource of a kind that is not known here"),
    }
}

fn linked(link: &Resource) -> Part {
    let Resource { uri, name, description, mime_type, .. } = link;
    let mut text = format!("{name}: {uri}");
    if let Some(kind) = mime_type {
        let _ = write!(text, " ({kind})");
    }
    if let Some(description) = description {
        let _ = write!(text, "\n{description}");
    }
    Part::text(text)
}

/// Why a call came to nothing.
pub(super) fn failure(error: ServiceError) -> Failure {
    match error {
        ServiceError::McpError(error) => said(&error),
        ServiceError::TransportSend(error) => undelivered(&error),
        ServiceError::Timeout { timeout } => {
            let message = format!("the server said nothing for {}", seconds(timeout));
            Failure::new(FailureKind::Timeout, message).sent(Sent::Maybe)
        }
        ServiceError::Cancelled { .. } => {
            Failure::new(FailureKind::Cancelled, "the call was cancelled").sent(Sent::Maybe)
        }
        ServiceError::UnexpectedResponse => {
            let message = "the server answered something else than a result";
            Failure::new(FailureKind::BadOutput, message).sent(Sent::Maybe)
        }
        _ => Failure::new(FailureKind::Unreachable, "the server has gone").sent(Sent::Maybe),
    }
}

/// In place of an answer that was not read to its end.
pub(super) fn too_long(id: RequestId) -> ServerJsonRpcMessage {
    ServerJsonRpcMessage::error(ErrorData::internal_error(TOO_LONG, None), Some(id))
}

/// In place of an answer that is none.
pub(super) fn not_mcp(id: RequestId) -> ServerJsonRpcMessage {
    ServerJsonRpcMessage::error(ErrorData::internal_error(NOT_MCP, None), Some(id))
}

/// An error in the protocol's own form.
fn said(error: &ErrorData) -> Failure {
    let message = error.message.clone().into_owned();
    if message.contains(SESSION_LOST) {
        let message = "the server has lost the session";
        return Failure::new(FailureKind::Unreachable, message).sent(Sent::Maybe);
    }
    if message == TOO_LONG || message == NOT_MCP {
        return Failure::new(FailureKind::BadOutput, message).sent(Sent::Maybe);
    }
    match error.code {
        // It was read, found wrong, and left.
        ErrorCode::INVALID_PARAMS | ErrorCode::METHOD_NOT_FOUND | ErrorCode::INVALID_REQUEST => {
            Failure::new(FailureKind::Soft, message).sent(Sent::Refused)
        }
        _ => Failure::new(FailureKind::Soft, message).sent(Sent::Maybe),
    }
}

/// A message that could not be brought, or whose answer could not be fetched.
fn undelivered(error: &DynamicTransportError) -> Failure {
    if let Some(error) = error.error.downcast_ref::<StreamableHttpError<Lost>>() {
        return over_http(error);
    }
    Failure::new(FailureKind::Unreachable, "the server has gone").sent(Sent::Maybe)
}

fn over_http(error: &StreamableHttpError<Lost>) -> Failure {
    match error {
        StreamableHttpError::Client(Lost::Unsent(_)) => {
            Failure::new(FailureKind::Unreachable, "the server cannot be reached")
        }
        StreamableHttpError::Client(Lost::Forbidden(_)) => {
            Failure::new(FailureKind::Refused, "its address must not be reached from here")
        }
        StreamableHttpError::Client(Lost::Unknown(why)) => {
            Failure::new(FailureKind::Auth, why.clone())
        }
        StreamableHttpError::HttpStatus(status) => refused(status),
        StreamableHttpError::AuthRequired(_) | StreamableHttpError::InsufficientScope(_) => {
            let message = "the server does not accept the credentials of this gateway";
            Failure::new(FailureKind::Auth, message).sent(Sent::Refused)
        }
        // It knows the session no more, so it has done nothing in it.
        StreamableHttpError::SessionExpired | StreamableHttpError::ReinitializationFailed(_) => {
            let message = "the server has lost the session";
            Failure::new(FailureKind::Unreachable, message).sent(Sent::Refused)
        }
        StreamableHttpError::ResponseBodyTooLarge { .. } => {
            Failure::new(FailureKind::BadOutput, TOO_LONG).sent(Sent::Maybe)
        }
        StreamableHttpError::UnexpectedContentType(_) | StreamableHttpError::Deserialize(_) => {
            Failure::new(FailureKind::BadOutput, NOT_MCP).sent(Sent::Maybe)
        }
        _ => Failure::new(FailureKind::Unreachable, "the connection broke").sent(Sent::Maybe),
    }
}

fn refused(status: &HttpStatusError) -> Failure {
    let wait = status.retry_after.as_deref().and_then(|it| it.parse().ok());
    let message = format!("the server answered with HTTP {}", status.status);
    let (kind, sent) = match status.status {
        429 => (FailureKind::RateLimited, Sent::Refused),
        401 | 403 => (FailureKind::Auth, Sent::Refused),
        status @ 400..=499 => (FailureKind::Status(status), Sent::Refused),
        status => (FailureKind::Status(status), Sent::Maybe),
    };
    Failure::new(kind, message).sent(sent).retry_after(wait.map(Duration::from_secs))
}

/// Why there is no session. Nothing of the call was sent.
pub(super) fn no_session(error: &ClientInitializeError) -> Failure {
    let over_http = match error {
        ClientInitializeError::TransportError { error, .. } => {
            error.error.downcast_ref::<StreamableHttpError<Lost>>().map(over_http)
        }
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => Some(no_session(fallback)),
        _ => None,
    };
    let message = "the server does not answer as an MCP server does";
    let failure = over_http.unwrap_or_else(|| Failure::new(FailureKind::Unreachable, message));
    failure.sent(Sent::Never)
}

/// A failure as operators read it.
pub(super) fn in_words(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::TransportError { error, context } => {
            format!("{context}: {}", error.error)
        }
        ClientInitializeError::LegacyFallbackFailed { fallback, .. } => in_words(fallback),
        ClientInitializeError::ConnectionClosed(_) => "it ended".to_owned(),
        ClientInitializeError::JsonRpcError(error) => error.message.clone().into_owned(),
        _ => "it does not speak MCP".to_owned(),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs_f64())
}

/// A schema for what a person must say, as it goes to our users.
pub(super) fn as_value(schema: &impl serde::Serialize) -> Value {
    serde_json::to_value(schema).unwrap_or_default()
}
