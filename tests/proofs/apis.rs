//! Questions as each door takes them, and answers as each API gives them, with any usage.

use serde_json::{Value, json};

use crate::support::Script;
use crate::support::replies::{DONE, event, finish, role, word};

/// An API that a client or a provider speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    Chat,
    Responses,
    Messages,
    Gemini,
}

/// Tokens of a question and of its answer.
pub(super) type Used = (u64, u64);

// === impl Api ===

impl Api {
    pub(super) const ALL: [Self; 4] = [Self::Chat, Self::Responses, Self::Messages, Self::Gemini];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Gemini => "gemini",
        }
    }

    /// The one that a provider is asked by at this path.
    pub(super) fn at(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        match path {
            _ if path.ends_with("/responses") => Self::Responses,
            _ if path.ends_with("/messages") => Self::Messages,
            _ if path.contains("enerateContent") => Self::Gemini,
            _ => Self::Chat,
        }
    }

    /// The config's section of a provider that speaks it, at this address.
    pub(super) fn provider(self, address: std::net::SocketAddr) -> String {
        let (kind, path) = match self {
            Self::Chat => ("openai-compatible", "/v1"),
            Self::Responses => ("openai", "/v1"),
            Self::Messages => ("anthropic", ""),
            Self::Gemini => ("gemini", ""),
        };
        let name = self.name();
        format!(
            "[providers.{name}]\nkind = \"{kind}\"\nbase_url = \"http://{address}{path}\"\n\
             api_key = \"sk-upstream-{name}\"\n\n"
        )
    }

    /// The path and the body of a question.
    pub(super) fn question(self, model: &str, text: &str, stream: bool) -> (String, Value) {
        let said = json!([{"role": "user", "content": text}]);
        match self {
            Self::Chat => (
                "/v1/chat/completions".to_owned(),
                json!({"model": model, "max_tokens": 50, "stream": stream, "messages": said}),
            ),
            Self::Messages => (
                "/v1/messages".to_owned(),
                json!({"model": model, "max_tokens": 50, "stream": stream, "messages": said}),
            ),
            Self::Responses => (
                "/v1/responses".to_owned(),
                json!({"model": model, "max_output_tokens": 50, "stream": stream, "input": text}),
            ),
            Self::Gemini => {
                let method =
                    if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
                let contents = json!([{"role": "user", "parts": [{"text": text}]}]);
                let most = json!({"maxOutputTokens": 50});
                (
                    format!("/v1beta/models/{model}:{method}"),
                    json!({"contents": contents, "generationConfig": most}),
                )
            }
        }
    }

    /// A whole answer that has used so much.
    pub(super) fn whole(self, used: Used) -> Script {
        let (input, output) = used;
        let body = match self {
            Self::Chat => json!({
                "id": "chatcmpl-1", "object": "chat.completion", "created": 1_760_000_000,
                "model": "served", "usage": openai(used), "choices": [{"index": 0,
                    "message": {"role": "assistant", "content": "Hello there."},
                    "finish_reason": "stop"}],
            }),
            Self::Responses => response(used),
            Self::Messages => json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": "served",
                "content": [{"type": "text", "text": "Hello there."}],
                "stop_reason": "end_turn", "stop_sequence": null,
                "usage": {"input_tokens": input, "output_tokens": output},
            }),
            Self::Gemini => gemini("Hello there.", Some("STOP"), used),
        };
        Script::json(200, &body.to_string())
    }

    /// The events of a streamed answer: its beginning, two words, and its end with the usage.
    pub(super) fn events(self, used: Used) -> Vec<String> {
        let (input, output) = used;
        match self {
            Self::Chat => {
                let usage = event(&format!(r#""choices":[],"usage":{}"#, openai(used)));
                let end = [finish(), usage, DONE.to_owned()].concat();
                vec![role(), word("Hello"), word(" there."), end]
            }
            Self::Messages => {
                let begun = json!({"type": "message_start", "message": {
                    "id": "msg_1", "type": "message", "role": "assistant", "model": "served",
                    "content": [], "stop_reason": null, "stop_sequence": null,
                    "usage": {"input_tokens": input, "output_tokens": 1}}});
                let open = json!({"type": "content_block_start", "index": 0,
                    "content_block": {"type": "text", "text": ""}});
                let delta = |text: &str| {
                    named(&json!({"type": "content_block_delta", "index": 0,
                        "delta": {"type": "text_delta", "text": text}}))
                };
                let closed = json!({"type": "content_block_stop", "index": 0});
                let last = json!({"type": "message_delta", "usage": {"output_tokens": output},
                    "delta": {"stop_reason": "end_turn", "stop_sequence": null}});
                let end =
                    [closed, last, json!({"type": "message_stop"})].each_ref().map(named).concat();
                vec![
                    [begun, open].each_ref().map(named).concat(),
                    delta("Hello"),
                    delta(" there."),
                    end,
                ]
            }
            Self::Gemini => {
                let said = |text, stop, output| {
                    format!("data: {}\n\n", gemini(text, stop, (input, output)))
                };
                vec![
                    String::new(),
                    said("Hello", None, 1),
                    said(" there.", None, 2),
                    said("", Some("STOP"), output),
                ]
            }
            Self::Responses => responses(used),
        }
    }

    pub(super) fn stream(self, used: Used) -> Script {
        Script::stream(self.events(used).into_iter().filter(|event| !event.is_empty()))
    }
}

fn openai((input, output): Used) -> Value {
    json!({"prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output})
}

fn named(event: &Value) -> String {
    format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())
}

fn gemini(text: &str, stop: Option<&str>, (input, output): Used) -> Value {
    let mut candidate =
        json!({"index": 0, "content": {"role": "model", "parts": [{"text": text}]}});
    if let Some(stop) = stop {
        candidate["finishReason"] = json!(stop);
    }
    json!({"candidates": [candidate], "modelVersion": "served", "responseId": "r1",
        "usageMetadata": {"promptTokenCount": input, "candidatesTokenCount": output,
            "totalTokenCount": input + output}})
}

/// A whole response.
pub(super) fn response((input, output): Used) -> Value {
    json!({
        "id": "resp_up1", "object": "response", "created_at": 1_760_000_000,
        "status": "completed", "model": "served", "error": null,
        "output": [{"type": "message", "id": "msg_up1", "role": "assistant", "status": "completed",
            "content": [{"type": "output_text", "text": "Hello there.", "annotations": []}]}],
        "usage": {
            "input_tokens": input, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": input + output,
        },
    })
}

fn responses(used: Used) -> Vec<String> {
    let whole = response(used);
    let mut begun = whole.clone();
    (begun["status"], begun["output"], begun["usage"]) =
        (json!("in_progress"), json!([]), Value::Null);
    let mut item = whole["output"][0].clone();
    (item["status"], item["content"]) = (json!("in_progress"), json!([]));
    let part = json!({"type": "output_text", "text": "", "annotations": []});
    let at = |kind: &str, number: u32, mut fields: Value| {
        fields["type"] = json!(kind);
        fields["sequence_number"] = json!(number);
        named(&fields)
    };
    let in_part = |mut fields: Value| {
        fields["item_id"] = json!("msg_up1");
        fields["output_index"] = json!(0);
        fields["content_index"] = json!(0);
        fields
    };
    let said = |number, text| {
        at("response.output_text.delta", number, in_part(json!({"delta": text, "logprobs": []})))
    };
    let done = &whole["output"][0];
    let text = in_part(json!({"text": "Hello there.", "logprobs": []}));
    vec![
        [
            at("response.created", 0, json!({"response": begun})),
            at("response.output_item.added", 1, json!({"output_index": 0, "item": item})),
            at("response.content_part.added", 2, in_part(json!({"part": part}))),
        ]
        .concat(),
        said(3, "Hello"),
        said(4, " there."),
        [
            at("response.output_text.done", 5, text),
            at("response.content_part.done", 6, in_part(json!({"part": done["content"][0]}))),
            at("response.output_item.done", 7, json!({"output_index": 0, "item": done})),
            at("response.completed", 8, json!({"response": whole})),
        ]
        .concat(),
    ]
}
