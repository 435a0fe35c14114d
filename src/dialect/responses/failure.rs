//! How a stream of this API ends that fails: with events that go on counting and name the response.

use serde_json::{Value, json};

use crate::canon::{Event, Start};
use crate::error::Error;

/// How far a stream is that passes as it is.
#[derive(Debug, Default)]
pub(in crate::dialect) struct Count {
    start: Option<Start>,
    /// Events that have passed: they are numbered from 0.
    pub(in crate::dialect) passed: u64,
}

// === impl Count ===

impl Count {
    /// Notes what one event of the stream has told.
    pub(in crate::dialect) fn note(&mut self, events: &[Event]) {
        self.passed += 1;
        if let (None, Some(Event::Start(start))) = (&self.start, events.first()) {
            self.start = Some(start.clone());
        }
    }

    /// `response.failed`, with this number.
    pub(in crate::dialect) fn failed(&self, number: u64, code: &str, message: &str) -> Vec<u8> {
        let (id, created, model) = match &self.start {
            Some(start) => (start.id.as_str(), start.created, start.model.as_str()),
            None => ("resp_failed", None, ""),
        };
        let response = json!({
            "id": id, "object": "response", "created_at": created.unwrap_or(0), "status": "failed",
            "error": {"code": code, "message": message},
            "incomplete_details": null, "model": model, "output": [], "usage": null,
        });
        line(&json!({
            "type": "response.failed", "sequence_number": number, "response": response,
        }))
    }

    /// What ends the stream with an error of ours. The libraries stop at `error`; Codex looks for
    /// `response.failed` alone.
    pub(in crate::dialect) fn ended(&self, error: &Error) -> Vec<u8> {
        let failed = self.failed(self.passed, code(error), &error.message);
        [failed, said(error, self.passed + 1)].concat()
    }
}

/// The event `error`, with this number.
pub(super) fn said(error: &Error, number: u64) -> Vec<u8> {
    let param = error.upstream.as_deref().and_then(|said| said.param.as_deref());
    line(&json!({
        "type": "error", "sequence_number": number,
        "code": code(error), "message": error.message, "param": param,
    }))
}

pub(super) fn code(error: &Error) -> &str {
    let upstream = error.upstream.as_deref();
    upstream.and_then(|said| said.code.as_deref()).unwrap_or_else(|| error.kind.code())
}

fn line(event: &Value) -> Vec<u8> {
    let kind = event["type"].as_str().unwrap_or_default();
    format!("event: {kind}\ndata: {event}\n\n").into_bytes()
}

/// Whether an event's data are those of `response.failed`.
pub(in crate::dialect) fn says_failed(data: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Kind<'a> {
        #[serde(rename = "type", borrow)]
        kind: std::borrow::Cow<'a, str>,
    }
    serde_json::from_slice::<Kind<'_>>(data).is_ok_and(|event| event.kind == "response.failed")
}
