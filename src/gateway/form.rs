//! The form of an answer: events, or one JSON text. Its label says so, but some servers label events
//! as JSON, JSON as events, or either as plain text; then its first byte tells.

use std::future::poll_fn;

use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout_at};

use super::ask::JSON;
use super::snapshot::Limits;
use crate::net::client::Reply;
use crate::provider::{Cause, Failure};

const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// What an answer says it is.
pub(super) struct Label {
    pub(super) content_type: HeaderValue,
    /// A stream in AWS's framing.
    pub(super) is_binary: bool,
}

// === impl Label ===

impl Label {
    pub(super) fn of(reply: &Reply) -> Self {
        let content_type = reply.headers.get(CONTENT_TYPE).cloned().unwrap_or(JSON);
        let is_binary = content_type.as_bytes().starts_with(b"application/vnd.amazon.eventstream");
        Self { content_type, is_binary }
    }

    pub(super) fn says_events(&self) -> bool {
        self.is_binary || is_events(&self.content_type)
    }

    /// Whether this is a stream of events, all of it or its beginning.
    fn is_events(&self, body: &[u8]) -> bool {
        match body.trim_ascii_start().first() {
            Some(b'{' | b'[') => self.is_binary,
            // `:`, `data`, `event`, `error`, `id`, `retry`.
            Some(b':' | b'd' | b'e' | b'i' | b'r') => true,
            _ => self.says_events(),
        }
    }

    /// Waits for the beginning of an answer to a question for a stream, and says whether it is one.
    pub(super) async fn streams(
        &self,
        reply: &mut Reply,
        limits: &Limits,
        sent: Instant,
        end: Instant,
    ) -> Result<bool, Box<Failure>> {
        if self.is_binary {
            return Ok(true);
        }
        let (due, late) = if self.says_events() {
            (sent + limits.first_token, Cause::FirstTokenTimeout)
        } else {
            (Instant::now() + limits.idle, Cause::IdleTimeout)
        };
        let first =
            timeout_at(due.min(end), poll_fn(|context| reply.body.poll_first(context))).await;
        let first = first.map_err(|_| Failure::of(late, reply.status))?;
        let first = first.map_err(|_| Failure::truncated(reply.status))?;
        Ok(self.is_events(first.as_slice()))
    }

    /// What a whole answer is in truth: its content type, and its body without what belongs to
    /// streams.
    pub(super) fn mended(self, body: Bytes) -> (HeaderValue, Bytes) {
        if self.is_events(&body) {
            return (EVENTS, body);
        }
        let is_json = self.content_type.as_bytes().starts_with(JSON.as_bytes());
        (if is_json { self.content_type } else { JSON }, without_done(body))
    }
}

/// Whether a content type is that of events.
pub(super) fn is_events(content_type: &HeaderValue) -> bool {
    content_type.as_bytes().starts_with(EVENTS.as_bytes())
}

/// JSON without the end of a stream, which some servers put behind it.
fn without_done(body: Bytes) -> Bytes {
    let json = body.trim_ascii_end().strip_suffix(b"[DONE]").map(<[u8]>::trim_ascii_end);
    match json.and_then(|json| json.strip_suffix(b"data:")) {
        Some(json) => body.slice(..json.len()),
        None => body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mended(label: &'static str, body: &'static str) -> (String, String) {
        let content_type = HeaderValue::from_static(label);
        let label = Label { content_type, is_binary: false };
        let (content_type, body) = label.mended(Bytes::from_static(body.as_bytes()));
        let text = String::from_utf8(body.to_vec()).unwrap();
        (content_type.to_str().unwrap().to_owned(), text)
    }

    #[test]
    fn an_answer_is_what_it_begins_with_whatever_its_label_says() {
        let (json, events) = ("application/json", "text/event-stream");
        for label in [json, events, "text/plain; charset=utf-8", "text/readystream"] {
            for body in ["data: {}\n\n", "\n: hi\n\n", "event: x\ndata: {}\n\n", "id: 1\n"] {
                assert_eq!(mended(label, body), (events.into(), body.into()), "{label}");
            }
            for body in ["{}", "\r\n [{}]\n"] {
                assert_eq!(mended(label, body), (json.into(), body.into()), "{label}");
            }
            let ended = "{\"a\":\"data: [DONE]\"}\n\ndata: [DONE]\n\n";
            assert_eq!(mended(label, ended).1.trim_end(), "{\"a\":\"data: [DONE]\"}", "{label}");
        }
        assert_eq!(
            mended("application/json; charset=utf-8", "{}").0,
            "application/json; charset=utf-8"
        );
        assert_eq!(mended(events, "").0, events);
    }
}
