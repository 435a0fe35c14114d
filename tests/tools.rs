//! Tools of one API's clients, called by another API's model.

use serde_json::{Value, json};

use crate::support::client::post;
use crate::support::gateway::KEY;
use crate::support::{Gateway, Script, Upstream};

const PATCH: &str = "*** Begin Patch\n+ \"é😀\" \\ \n*** End Patch";

/// What Claude streams when it calls `apply_patch` as a function: characters beyond ASCII escaped,
/// and cut anywhere.
fn calls() -> Script {
    let escaped = json!({ "input": PATCH }).to_string();
    let escaped = escaped.replace('é', "\\u00e9").replace('😀', "\\ud83d\\ude00");
    let letters: Vec<char> = escaped.chars().collect();
    let pieces = letters.chunks(3).map(|piece| {
        let delta =
            json!({"type": "input_json_delta", "partial_json": piece.iter().collect::<String>()});
        json!({"type": "content_block_delta", "index": 0, "delta": delta})
    });
    let head = [
        json!({"type": "message_start", "message": {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "id": "toolu_1", "name": "apply_patch", "input": {}}}),
    ];
    let tail = [
        json!({"type": "content_block_stop", "index": 0}),
        json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}}),
        json!({"type": "message_stop"}),
    ];
    let events = head.into_iter().chain(pieces).chain(tail);
    Script::stream(
        events
            .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap())),
    )
}

/// The data of a stream's events.
fn events(stream: &str) -> Vec<Value> {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

#[tokio::test]
async fn codex_edits_files_with_claude_by_its_own_free_text_tool() {
    let upstream = Upstream::start([("claude-sonnet-4-5", [calls()])]).await;
    let section = format!(
        "[providers.p]\nkind = \"anthropic\"\nbase_url = \"http://{}\"\napi_key = \"k\"\n",
        upstream.address
    );
    let gateway = Gateway::start("", &section).await;
    let grammar = json!({"type": "grammar", "syntax": "lark", "definition": "start: begin"});
    let question = json!({
        "model": "p/claude-sonnet-4-5", "stream": true,
        "input": [
            {"role": "user", "content": "Edit it."},
            {"type": "custom_tool_call", "call_id": "c0", "name": "apply_patch", "input": PATCH},
            {"type": "custom_tool_call_output", "call_id": "c0", "output": "Failed; again."},
        ],
        "tools": [{"type": "custom", "name": "apply_patch", "format": grammar}],
    });
    let reply = post(gateway.address, "/v1/responses", KEY, question.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(reply.header("x-switchpoint-dropped"), Some("tools.custom.format"));

    let asked: Value = serde_json::from_slice(&upstream.only_request().body).unwrap();
    assert_eq!(asked["messages"][1]["content"][0]["input"], json!({ "input": PATCH }));
    assert_eq!(asked["tools"][0]["input_schema"]["required"], json!(["input"]));

    let seen = events(reply.text());
    let of = |kind: &str| seen.iter().filter(|event| event["type"] == kind).collect::<Vec<_>>();
    let deltas = of("response.custom_tool_call_input.delta");
    let text: String = deltas.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(text, PATCH);
    assert!(deltas.len() > 9, "it comes as it is made");
    let item = &of("response.completed")[0]["response"]["output"][0];
    assert_eq!((&item["type"], &item["input"]), (&json!("custom_tool_call"), &json!(PATCH)));
}
