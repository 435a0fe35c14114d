//! What a client of each dialect makes of an answer, and complains of what its SDK would choke on.

use serde_json::{Value, json};

use super::wire::Wire;
use crate::support::client::Answer;

/// The code of an error that has none of ours.
pub(super) const OWN_WORDS: &str = "as the provider says it";

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Client {
    Chat,
    Responses,
    Messages,
    Gemini,
}

/// One answer, read to its end.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) status: u16,
    pub(super) text: String,
    /// It has come to its proper end.
    pub(super) whole: bool,
    /// The code of the error that it says.
    pub(super) error: Option<String>,
    /// How often a stream has begun.
    pub(super) starts: usize,
}

impl Client {
    pub(super) const ALL: [Self; 4] = [Self::Chat, Self::Responses, Self::Messages, Self::Gemini];

    /// Whether this upstream speaks the same.
    pub(super) fn speaks(self, wire: Wire) -> bool {
        matches!((self, wire), (Self::Chat, Wire::Chat) | (Self::Messages, Wire::Messages))
    }

    /// Path and body of a question.
    pub(super) fn asks(self, model: &str, stream: bool) -> (String, String) {
        let messages = json!([{"role": "user", "content": "Hi"}]);
        let (path, body) = match self {
            Self::Chat => (
                "/v1/chat/completions",
                json!({"model": model, "stream": stream, "messages": messages}),
            ),
            Self::Responses => {
                ("/v1/responses", json!({"model": model, "stream": stream, "input": "Hi"}))
            }
            Self::Messages => (
                "/v1/messages",
                json!({"model": model, "stream": stream, "max_tokens": 99, "messages": messages}),
            ),
            Self::Gemini => {
                let method =
                    if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
                let body = json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]});
                return (format!("/v1beta/models/{model}:{method}"), body.to_string());
            }
        };
        (path.to_owned(), body.to_string())
    }

    /// Reads an answer; an error tells what no client could read.
    pub(super) fn reads(self, answer: &Answer) -> Result<Seen, String> {
        let mut seen = Seen { status: answer.status, ..Seen::default() };
        let text = str::from_utf8(&answer.body).map_err(|error| error.to_string())?;
        let streams = answer.header("content-type") == Some("text/event-stream");
        if !streams {
            let body: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
            seen.starts = 1;
            self.whole(&body, &mut seen);
            return Ok(seen);
        }
        let mut ended = false;
        for data in text.split("\n\n").filter_map(data) {
            if ended {
                return Err(format!("`{data}` comes behind the end"));
            }
            if data == "[DONE]" {
                ended = true;
                continue;
            }
            let event: Value =
                serde_json::from_str(data).map_err(|error| format!("{error}: {data}"))?;
            self.event(&event, &mut seen);
        }
        if self == Self::Gemini {
            seen.starts = 1;
        }
        if self == Self::Chat {
            if ended && seen.error.is_some() {
                return Err("[DONE] behind an error".to_owned());
            }
            seen.whole &= ended;
        }
        Ok(seen)
    }

    fn whole(self, body: &Value, seen: &mut Seen) {
        if let Some(code) = code(body) {
            seen.error = Some(code);
            return;
        }
        let text = match self {
            Self::Chat => &body["choices"][0]["message"]["content"],
            Self::Responses => &body["output"][0]["content"][0]["text"],
            Self::Messages => &body["content"][0]["text"],
            Self::Gemini => &body["candidates"][0]["content"]["parts"][0]["text"],
        };
        seen.text = text.as_str().unwrap_or_default().to_owned();
        seen.whole = match self {
            Self::Chat => body["choices"][0]["finish_reason"].is_string(),
            Self::Responses => body["status"] == "completed" || body["status"] == "incomplete",
            Self::Messages => body["stop_reason"].is_string(),
            Self::Gemini => body["candidates"][0]["finishReason"].is_string(),
        };
    }

    fn event(self, event: &Value, seen: &mut Seen) {
        let kind = event["type"].as_str().unwrap_or_default();
        if let Some(code) = code(event) {
            seen.error = Some(code);
            return;
        }
        let text = match self {
            Self::Chat => &event["choices"][0]["delta"]["content"],
            Self::Responses if kind == "response.output_text.delta" => &event["delta"],
            Self::Messages => &event["delta"]["text"],
            Self::Gemini => &event["candidates"][0]["content"]["parts"][0]["text"],
            Self::Responses => &Value::Null,
        };
        seen.text.push_str(text.as_str().unwrap_or_default());
        seen.starts += usize::from(match self {
            Self::Chat => event["choices"][0]["delta"]["role"].is_string(),
            Self::Responses => kind == "response.created",
            Self::Messages => kind == "message_start",
            Self::Gemini => false,
        });
        seen.whole |= match self {
            Self::Chat => event["choices"][0]["finish_reason"].is_string(),
            Self::Responses => matches!(kind, "response.completed" | "response.incomplete"),
            Self::Messages => kind == "message_stop",
            Self::Gemini => event["candidates"][0]["finishReason"].is_string(),
        };
    }
}

/// The data of an event; comments and names are none.
fn data(event: &str) -> Option<&str> {
    event.lines().find_map(|line| line.strip_prefix("data: "))
}

/// The code of the error that this is, if it is one.
fn code(body: &Value) -> Option<String> {
    let error = match body["type"].as_str() {
        Some("error") if body["error"].is_null() => body,
        Some("response.failed") => &body["response"]["error"],
        _ => &body["error"],
    };
    if error.is_null() {
        return None;
    }
    let ours = [&error["details"][0]["metadata"]["code"], &error["code"]];
    let found = ours.into_iter().find_map(Value::as_str);
    Some(found.unwrap_or(OWN_WORDS).to_owned())
}
