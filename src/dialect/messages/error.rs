//! Errors as Anthropic's API spells them, read and written.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::abroad::NO_THREAD;
use crate::canon::{Attempt, StreamFailure};
use crate::error::{Error, Kind};

/// The API's error types and the statuses they come with.
const TYPES: &[(&str, u16)] = &[
    ("invalid_request_error", 400),
    ("authentication_error", 401),
    ("billing_error", 402),
    ("permission_error", 403),
    ("not_found_error", 404),
    ("conflict_error", 409),
    ("request_too_large", 413),
    ("rate_limit_error", 429),
    ("api_error", 500),
    ("timeout_error", 504),
    ("overloaded_error", 529),
];

/// The body of an error answer. Beside the API's fields stand our stable code and, where there
/// were any, the attempts; the SDKs ignore them.
pub(super) fn write(error: &Error) -> Vec<u8> {
    let mut fields = json!({
        "type": kind(error),
        "message": spoken(error),
        "code": error.kind.code(),
    });
    if let Some(upstream) = error.upstream.as_deref() {
        for (name, value) in [("param", &upstream.param), ("upstream_code", &upstream.code)] {
            if let Some(value) = value {
                fields[name] = json!(value);
            }
        }
    }
    if error.upstream.as_ref().is_some_and(|it| it.code.as_deref() == Some(NO_THREAD)) {
        // By which the SDKs know to send the conversation.
        fields["details"] = json!({ "error_code": NO_THREAD, "unsupported": ["thread"] });
    }
    if !error.attempts.is_empty() {
        fields["attempts"] = error.attempts.iter().map(write_attempt).collect();
    }
    json!({ "type": "error", "error": fields }).to_string().into_bytes()
}

/// In the words by which clients of this API know that they must make the conversation shorter.
fn spoken(error: &Error) -> Cow<'_, str> {
    const LONG: &str = "prompt is too long";
    if error.kind != Kind::ContextTooLong || error.message.contains(LONG) {
        return Cow::Borrowed(&error.message);
    }
    format!("{LONG}: {}", error.message).into()
}

/// The same as the last event of a stream.
pub(super) fn write_event(error: &Error) -> Vec<u8> {
    [b"event: error\ndata: ", write(error).as_slice(), b"\n\n"].concat()
}

/// What the upstream called it, if it is a word of this API; the status mirrored from it; our own.
fn kind(error: &Error) -> &str {
    let upstream = error.upstream.as_deref().and_then(|upstream| upstream.kind.as_deref());
    let known = upstream.filter(|kind| TYPES.iter().any(|(known, _)| known == kind));
    let by_status = || {
        let status = error.status?;
        TYPES.iter().find(|(_, known)| *known == status).map(|(kind, _)| *kind)
    };
    known.or_else(by_status).unwrap_or_else(|| error.kind.anthropic_type())
}

fn write_attempt(attempt: &Attempt) -> Value {
    json!({
        "provider": attempt.provider.as_ref(),
        "model": attempt.model.as_ref(),
        "outcome": attempt.outcome.name(),
        "status": attempt.status,
        "ms": u64::try_from(attempt.elapsed.as_millis()).unwrap_or(u64::MAX),
    })
}

/// The sentence in an error, an object or a string.
pub(super) fn message(error: &Value) -> String {
    let text = error.get("message").unwrap_or(error);
    text.as_str().map_or_else(|| text.to_string(), str::to_owned)
}

/// Reads the `error` field of an event.
pub(super) fn read_failure(error: &Value) -> StreamFailure {
    let kind = error.get("type").and_then(Value::as_str);
    let known = TYPES.iter().find(|(name, _)| Some(*name) == kind);
    StreamFailure {
        message: message(error),
        kind: kind.map(str::to_owned),
        code: error.get("code").and_then(Value::as_str).map(str::to_owned),
        status: known.map(|(_, status)| *status),
    }
}
