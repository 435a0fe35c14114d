//! Errors as Google's APIs spell them.

use serde_json::{Value, json};

use crate::canon::Attempt;
use crate::error::Error;

/// Whose codes stand in an error's details.
const DOMAIN: &str = "switchpoint";

pub(super) fn write(error: &Error) -> Vec<u8> {
    value(error).to_string().into_bytes()
}

/// The same as the last event of a stream.
pub(super) fn write_event(error: &Error) -> Vec<u8> {
    format!("data: {}\n\n", value(error)).into_bytes()
}

/// The same as the last element of an array that has begun.
pub(super) fn write_element(error: &Error) -> Vec<u8> {
    format!(",\r\n{}]", value(error)).into_bytes()
}

/// The same as an array of its own.
pub(super) fn write_array(error: &Error) -> Vec<u8> {
    format!("[{}]", value(error)).into_bytes()
}

fn value(error: &Error) -> Value {
    let mut metadata = json!({ "code": error.kind.code() });
    if let Some(code) = error.upstream.as_deref().and_then(|said| said.code.as_deref()) {
        metadata["upstream_code"] = json!(code);
    }
    // Google's error details hold texts and nothing else.
    if !error.attempts.is_empty() {
        let attempts: Vec<String> = error.attempts.iter().map(attempt).collect();
        metadata["attempts"] = json!(attempts.join("; "));
    }
    let info = json!({
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": error.kind.code().to_ascii_uppercase(),
        "domain": DOMAIN,
        "metadata": metadata,
    });
    let mut details = vec![info];
    if let Some(wait) = error.retry_after {
        details.push(json!({
            "@type": "type.googleapis.com/google.rpc.RetryInfo",
            "retryDelay": format!("{}s", wait.as_secs()),
        }));
    }
    json!({ "error": {
        "code": error.status(),
        "message": error.message,
        "status": error.kind.google_status(),
        "details": details,
    }})
}

fn attempt(attempt: &Attempt) -> String {
    let Attempt { provider, model, outcome, status, elapsed, usage: _, cost: _, leg: _ } = attempt;
    format!("{provider}/{model}: {} ({status}, {} ms)", outcome.name(), elapsed.as_millis())
}
