//! The responses API remembers what was said, for its owner alone, whoever answered.

mod background;
mod conversation;
mod keeping;
mod library;
mod other_doors;

use std::fmt::Write as _;

use http::Method;
use serde_json::{Value, json};

use crate::support::client::{Answer, open, request};
use crate::support::gateway::{KEY, provider};
use crate::support::replies::{REPLY, answer};
use crate::support::{Gateway, Script, Upstream};

const RESPONSES: &str = "/v1/responses";
const OTHER_KEY: &str = "sk-test-other";

/// A target of each way in which such a question is asked: as it is, as chat, as messages.
const TARGETS: [&str; 3] = ["oai/verbatim", "chat/chat", "claude/claude"];

/// Providers of all three ways, two of the first, and a second key.
fn sections(upstream: &Upstream) -> String {
    let verbatim = |name| {
        provider(name, upstream).replace("kind = \"openai-compatible\"", "kind = \"openai\"")
    };
    let claude = provider("claude", upstream).replace("openai-compatible", "anthropic");
    let claude = claude.replace("/v1\"", "\"");
    let chat = provider("chat", upstream);
    let mut sections = [verbatim("oai"), verbatim("oai2"), chat, claude].concat();
    let _ = writeln!(sections, "[keys.other]\nsecret = \"{OTHER_KEY}\"\n");
    sections
}

/// The same with a store that lasts.
fn lasting(upstream: &Upstream, folder: &tempfile::TempDir) -> String {
    let file = folder.path().join("state.db");
    format!("[store]\nurl = \"sqlite:{}\"\n\n{}", file.display(), sections(upstream))
}

/// An upstream whose models `verbatim`, `chat` and `claude` answer, whole and streamed.
async fn house() -> (Upstream, Gateway) {
    let upstream = Upstream::start(answers()).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    (upstream, gateway)
}

fn answers() -> Vec<(&'static str, Vec<Script>)> {
    let says = |number: u8| response(&number.to_string(), "Hello there.");
    let numbers = 1..50;
    vec![
        ("verbatim", numbers.clone().map(|number| whole(&says(number))).collect()),
        ("verbatim?stream", numbers.map(|number| streamed(&says(number + 50))).collect()),
        ("chat", vec![Script::json(200, REPLY)]),
        ("chat?stream", vec![Script::stream(answer())]),
        ("claude", vec![claude_says("Hello there.")]),
        ("claude?stream", vec![claude_streams("Hello there.")]),
    ]
}

/// A response of a provider that speaks this API: a thought without content, and a text.
fn response(number: &str, text: &str) -> Value {
    let thought = json!({"type": "reasoning", "id": format!("rs_up{number}"), "summary": []});
    let said = json!({
        "type": "message", "id": format!("msg_up{number}"), "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}],
    });
    response_of(number, &json!([thought, said]))
}

fn response_of(number: &str, output: &Value) -> Value {
    json!({
        "id": format!("resp_up{number}"), "object": "response", "created_at": 1_760_000_000,
        "status": "completed", "model": "served", "error": null, "output": output,
        "x_new_field": [1, 2.50],
        "usage": {
            "input_tokens": 11, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 15,
        },
    })
}

fn whole(body: &Value) -> Script {
    Script::json(200, &body.to_string())
}

fn event(kind: &str, mut fields: Value) -> String {
    fields["type"] = json!(kind);
    format!("event: {kind}\ndata: {fields}\n\n")
}

/// The stream that brings this response.
fn streamed(response: &Value) -> Script {
    Script::stream(events_of(response))
}

fn events_of(response: &Value) -> Vec<String> {
    let mut begun = response.clone();
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    let mut events = vec![event("response.created", json!({"response": begun}))];
    for (place, item) in response["output"].as_array().unwrap().iter().enumerate() {
        let at = json!({"output_index": place, "item": item});
        let mut opened = at.clone();
        if item["type"] == "message" {
            opened["item"]["content"] = json!([]);
        }
        events.push(event("response.output_item.added", opened));
        if let Some(text) = item["content"][0]["text"].as_str() {
            let about = |name: &str, value: Value| {
                json!({
                    "item_id": item["id"], "output_index": place, "content_index": 0, name: value,
                })
            };
            let empty = json!({"type": "output_text", "text": "", "annotations": []});
            events.push(event("response.content_part.added", about("part", empty)));
            events.push(event("response.output_text.delta", about("delta", json!(text))));
            let done = about("part", item["content"][0].clone());
            events.push(event("response.content_part.done", done));
        }
        events.push(event("response.output_item.done", at));
    }
    events.push(event("response.completed", json!({"response": response})));
    events
}

fn claude_answers(content: &Value) -> Script {
    whole(&json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "served",
        "content": content, "stop_reason": "end_turn", "stop_sequence": null,
        "usage": {"input_tokens": 11, "output_tokens": 4},
    }))
}

fn claude_says(text: &str) -> Script {
    claude_answers(&json!([{"type": "text", "text": text}]))
}

fn claude_streams(text: &str) -> Script {
    Script::stream(claude_events(text))
}

fn claude_events(text: &str) -> Vec<String> {
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "served", "content": [],
        "stop_reason": null, "stop_sequence": null,
        "usage": {"input_tokens": 11, "output_tokens": 1},
    });
    let delta = json!({"type": "text_delta", "text": text});
    let stop = json!({"stop_reason": "end_turn", "stop_sequence": null});
    vec![
        event("message_start", json!({"message": message})),
        event(
            "content_block_start",
            json!({"index": 0, "content_block": {"type": "text", "text": ""}}),
        ),
        event("content_block_delta", json!({"index": 0, "delta": delta})),
        event("content_block_stop", json!({"index": 0})),
        event("message_delta", json!({"delta": stop, "usage": {"output_tokens": 4}})),
        event("message_stop", json!({})),
    ]
}

fn chat_says(text: &str) -> Script {
    Script::json(200, &REPLY.replace("Hello there.", text))
}

async fn asks(gateway: &Gateway, method: Method, path: &str, key: &str) -> Answer {
    open(gateway.address, request(method, path, key, "".into())).await.whole().await
}

async fn create(gateway: &Gateway, body: &Value) -> Answer {
    let request = request(Method::POST, RESPONSES, KEY, body.to_string().into());
    open(gateway.address, request).await.whole().await
}

/// Creates a response, which must succeed.
async fn created(gateway: &Gateway, body: Value) -> Value {
    let answer = create(gateway, &body).await;
    assert_eq!(answer.status, 200, "{body}: {answer:?}");
    if body["stream"] == true { answer.last_event()["response"].clone() } else { answer.json() }
}

async fn fetch(gateway: &Gateway, id: &Value) -> Answer {
    asks(gateway, Method::GET, &path(id), KEY).await
}

fn path(id: &Value) -> String {
    format!("{RESPONSES}/{}", id.as_str().unwrap())
}

/// Whether these texts stand in this order.
#[track_caller]
fn assert_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let Some((_, behind)) = rest.split_once(part) else { panic!("no {part:?} in {rest}") };
        rest = behind;
    }
}
