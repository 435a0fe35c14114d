//! The two APIs that the scripted upstreams of the matrix speak, piece by piece.

use serde_json::{Value, json};

use crate::support::Script;
use crate::support::replies::{DONE, choice, finish, role, usage, word};

/// What an upstream speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wire {
    Chat,
    Messages,
}

impl Wire {
    /// The section of a provider at this address.
    pub(super) fn provider(self, name: &str, address: &str) -> String {
        let (kind, path) = match self {
            Self::Chat => ("openai-compatible", "/v1"),
            Self::Messages => ("anthropic", ""),
        };
        format!(
            "[providers.{name}]\nkind = \"{kind}\"\nbase_url = \"http://{address}{path}\"\n\
             api_key = \"sk-upstream-{name}\"\n\n"
        )
    }

    /// What opens a stream and says nothing yet.
    pub(super) fn preamble(self) -> String {
        let message = json!({"type": "message_start", "message": {
            "id": "msg_1", "type": "message", "role": "assistant", "model": "served",
            "content": [], "stop_reason": null, "stop_sequence": null,
            "usage": {"input_tokens": 11, "output_tokens": 1},
        }});
        match self {
            Self::Chat => role(),
            Self::Messages => named(&message),
        }
    }

    /// What keeps a connection open.
    pub(super) fn ping(self) -> String {
        match self {
            Self::Chat => ": wait\n\n".to_owned(),
            Self::Messages => named(&json!({"type": "ping"})),
        }
    }

    /// The first `count` tokens of `t0 t1 t2 …`.
    pub(super) fn tokens(self, count: usize) -> Vec<String> {
        let texts = (0..count).map(|at| format!("t{at} "));
        match self {
            Self::Chat => texts.map(|text| word(&text)).collect(),
            Self::Messages => {
                let block = json!({"type": "text", "text": ""});
                let open =
                    json!({"type": "content_block_start", "index": 0, "content_block": block});
                let delta = |text| {
                    let delta = json!({"type": "text_delta", "text": text});
                    json!({"type": "content_block_delta", "index": 0, "delta": delta})
                };
                std::iter::once(named(&open)).chain(texts.map(|text| named(&delta(text)))).collect()
            }
        }
    }

    /// Why the answer ends.
    pub(super) fn finish(self, filtered: bool) -> Vec<String> {
        match self {
            Self::Chat if filtered => vec![choice("{}", r#""content_filter""#), usage()],
            Self::Chat => vec![finish(), usage()],
            Self::Messages => {
                let reason = if filtered { "refusal" } else { "end_turn" };
                let delta = json!({"stop_reason": reason, "stop_sequence": null});
                let usage = json!({"output_tokens": 4});
                vec![
                    named(&json!({"type": "content_block_stop", "index": 0})),
                    named(&json!({"type": "message_delta", "delta": delta, "usage": usage})),
                ]
            }
        }
    }

    /// The last event of all.
    pub(super) fn end(self) -> String {
        match self {
            Self::Chat => DONE.to_owned(),
            Self::Messages => named(&json!({"type": "message_stop"})),
        }
    }

    /// The events of a whole stream.
    pub(super) fn answer(self, filtered: bool) -> Vec<String> {
        let events = [vec![self.preamble()], self.tokens(2), self.finish(filtered)];
        events.concat().into_iter().chain([self.end()]).collect()
    }

    /// A whole answer with these tokens.
    pub(super) fn whole(self, count: usize, filtered: bool) -> String {
        let text = text(count);
        let reply = match self {
            Self::Chat => json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1_760_000_000,
                "model": "served", "choices": [{
                    "index": 0, "message": {"role": "assistant", "content": text},
                    "finish_reason": if filtered { "content_filter" } else { "stop" },
                }],
                "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15},
            }),
            Self::Messages => json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": "served",
                "content": [{"type": "text", "text": text}], "stop_sequence": null,
                "stop_reason": if filtered { "refusal" } else { "end_turn" },
                "usage": {"input_tokens": 11, "output_tokens": 4},
            }),
        };
        reply.to_string()
    }

    /// An error as it stands in a body.
    pub(super) fn error(self, kind: &str, code: Option<&str>, message: &str) -> String {
        let error = match self {
            Self::Chat => json!({"error": {"message": message, "type": kind, "code": code}}),
            Self::Messages => {
                json!({"type": "error", "error": {"type": kind, "message": message}})
            }
        };
        error.to_string()
    }

    /// An error as an event.
    pub(super) fn error_event(self) -> String {
        let body = self.error("overloaded_error", None, "Overloaded.");
        match self {
            Self::Chat => format!("data: {body}\n\n"),
            Self::Messages => format!("event: error\ndata: {body}\n\n"),
        }
    }

    /// Who answers rightly, whole and as a stream.
    pub(super) fn healthy(self, stream: bool) -> Script {
        if stream {
            Script::stream(self.answer(false))
        } else {
            Script::json(200, &self.whole(2, false))
        }
    }
}

fn named(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())
}

/// What `count` tokens say.
pub(super) fn text(count: usize) -> String {
    (0..count).fold(String::new(), |text, at| text + &format!("t{at} "))
}
