//! Thoughts come back to who thought them, whatever of them a client keeps.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CLAUDE, before, events, sent};
use crate::support::client::post;
use crate::support::gateway::KEY;
use crate::support::{Gateway, Script};

/// A turn of Claude's that thinks and calls.
fn turn() -> Value {
    json!([
        {"type": "thinking", "thinking": "I should look. ", "signature": "c2lnbmVk"},
        {"type": "text", "text": "Let me see."},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {},
            "caller": {"type": "direct"}},
    ])
}

fn whole() -> Script {
    let body = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": CLAUDE,
        "content": turn(), "stop_reason": "tool_use", "stop_sequence": null,
        "usage": {"input_tokens": 9, "output_tokens": 3},
    });
    Script::json(200, &body.to_string())
}

/// The same, each event by itself, so that the end comes after the last of what is said.
fn streamed() -> Script {
    let mut events = vec![json!({"type": "message_start", "message": {
        "id": "msg_1", "type": "message", "role": "assistant", "model": CLAUDE, "content": [],
        "stop_reason": null, "usage": {"input_tokens": 9, "output_tokens": 1},
    }})];
    for (index, block) in turn().as_array().unwrap().iter().enumerate() {
        let mut opened = block.clone();
        let deltas = match block["type"].as_str() {
            Some("thinking") => {
                (opened["thinking"], opened["signature"]) = (json!(""), json!(""));
                vec![
                    json!({"type": "thinking_delta", "thinking": "I should "}),
                    json!({"type": "thinking_delta", "thinking": "look. "}),
                    json!({"type": "signature_delta", "signature": "c2lnbmVk"}),
                ]
            }
            Some("text") => {
                opened["text"] = json!("");
                vec![json!({"type": "text_delta", "text": "Let me see."})]
            }
            _ => vec![json!({"type": "input_json_delta", "partial_json": "{}"})],
        };
        events
            .push(json!({"type": "content_block_start", "index": index, "content_block": opened}));
        let deltas = deltas.into_iter();
        events.extend(
            deltas.map(
                |delta| json!({"type": "content_block_delta", "index": index, "delta": delta}),
            ),
        );
        events.push(json!({"type": "content_block_stop", "index": index}));
    }
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": "tool_use"},
        "usage": {"output_tokens": 3}}));
    events.push(json!({"type": "message_stop"}));
    let line =
        |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
    let pieces = events.iter().map(line);
    Script::stream_head().chunks(pieces).paced(Duration::from_millis(4)).end()
}

/// A door, what is asked there, and how the answer's call and its result are sent back.
struct Door {
    path: &'static str,
    asked: Value,
    /// What of an answer the client keeps.
    keeps: fn(&[Value]) -> Value,
    /// The next question: this one with what was kept.
    next: fn(&mut Value, Value),
}

fn chat() -> Door {
    Door {
        path: "/v1/chat/completions",
        asked: json!({"model": "fast", "messages": [{"role": "user", "content": "Look."}],
            "reasoning_effort": "high", "max_tokens": 20_000,
            "tools": [{"type": "function", "function": {"name": "look"}}]}),
        keeps: |events| {
            let said = |event: &Value| {
                let choice = &event["choices"][0];
                let call = ["delta", "message"].map(|name| choice[name]["tool_calls"][0].clone());
                call.into_iter().find(Value::is_object)
            };
            let mut call =
                json!({"type": "function", "function": {"name": "look", "arguments": "{}"}});
            let pieces: Vec<Value> = events.iter().filter_map(said).collect();
            for name in ["id", "extra_content"] {
                let told = pieces.iter().find(|piece| !piece[name].is_null());
                call[name] = told.map(|piece| piece[name].clone()).unwrap_or_default();
            }
            call
        },
        next: |asked, call| {
            let id = call["id"].clone();
            let messages = asked["messages"].as_array_mut().unwrap();
            messages.push(json!({"role": "assistant", "content": "Let me see.",
                "tool_calls": [call]}));
            messages.push(json!({"role": "tool", "tool_call_id": id, "content": "seen"}));
        },
    }
}

fn responses() -> Door {
    Door {
        path: "/v1/responses",
        asked: json!({"model": "fast", "input": [{"role": "user", "content": "Look."}],
            "reasoning": {"effort": "high"}, "max_output_tokens": 20_000, "store": false,
            "tools": [{"type": "function", "name": "look"}]}),
        keeps: |events| {
            let last = events.last().unwrap();
            let response = if last["response"].is_object() { &last["response"] } else { last };
            let output = response["output"].as_array().unwrap();
            output.iter().find(|item| item["type"] == "function_call").unwrap().clone()
        },
        next: |asked, call| {
            let id = call["call_id"].clone();
            let input = asked["input"].as_array_mut().unwrap();
            input.push(json!({"role": "assistant", "content": "Let me see."}));
            input.push(call);
            input.push(json!({"type": "function_call_output", "call_id": id, "output": "seen"}));
        },
    }
}

fn google(keeps: fn(&[Value]) -> Value) -> Door {
    Door {
        path: "/v1beta/models/fast",
        asked: json!({"contents": [{"role": "user", "parts": [{"text": "Look."}]}],
            "generationConfig": {"maxOutputTokens": 20_000,
                "thinkingConfig": {"thinkingBudget": 2000, "includeThoughts": true}},
            "tools": [{"functionDeclarations": [{"name": "look"}]}]}),
        keeps,
        next: |asked, call| {
            let contents = asked["contents"].as_array_mut().unwrap();
            contents.push(json!({"role": "model", "parts": [{"text": "Let me see."}, call]}));
            contents.push(json!({"role": "user", "parts": [
                {"functionResponse": {"name": "look", "response": {"output": "seen"}}},
            ]}));
        },
    }
}

fn google_call(events: &[Value]) -> Value {
    let parts = events.iter().filter_map(|it| it["candidates"][0]["content"]["parts"].as_array());
    parts.flatten().find(|part| part["functionCall"].is_object()).unwrap().clone()
}

async fn ask(gateway: &Gateway, door: &Door, asked: &Value, stream: bool) -> Vec<Value> {
    let (mut asked, mut path) = (asked.clone(), door.path.to_owned());
    if asked["contents"].is_array() {
        path += if stream { ":streamGenerateContent?alt=sse" } else { ":generateContent" };
    } else {
        asked["stream"] = json!(stream);
    }
    let answer = post(gateway.address, &path, KEY, asked.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    if stream { events(&answer) } else { vec![answer.json()] }
}

#[tokio::test]
async fn thoughts_come_back_at_every_door_whatever_of_a_call_its_client_keeps() {
    // Gemini's own clients keep the signature beside a call; some drop its id, others put there
    // what Google says is to stand where there is none.
    let doors = [
        chat(),
        responses(),
        google(google_call),
        google(|events| {
            let mut call = google_call(events);
            call["functionCall"].as_object_mut().unwrap().shift_remove("id");
            call
        }),
        google(|events| {
            let mut call = google_call(events);
            call["thoughtSignature"] = json!("skip_thought_signature_validator");
            call
        }),
    ];
    for (place, door) in doors.iter().enumerate() {
        for script in [whole(), streamed()] {
            let stream = script.0.len() > 1;
            let (upstream, gateway) = before("anthropic", CLAUDE, vec![script, whole()]).await;
            let said = ask(&gateway, door, &door.asked, stream).await;
            let mut next = door.asked.clone();
            (door.next)(&mut next, (door.keeps)(&said));
            ask(&gateway, door, &next, false).await;
            let asked = sent(&upstream, 1);
            let said = &asked["messages"][1]["content"];
            assert_eq!(*said, turn(), "{place} {stream} {asked}");
        }
    }
}

#[tokio::test]
async fn a_thought_that_its_client_carries_whole_keeps_its_signature() {
    let chat = Door {
        keeps: |events| events[0]["choices"][0]["message"].clone(),
        next: |asked, message| {
            let messages = asked["messages"].as_array_mut().unwrap();
            messages.push(message);
            messages.push(json!({"role": "tool", "tool_call_id": "toolu_1", "content": "seen"}));
        },
        ..chat()
    };
    let responses = Door {
        keeps: |events| events.last().unwrap()["response"]["output"].clone(),
        next: |asked, output| {
            let input = asked["input"].as_array_mut().unwrap();
            input.extend_from_slice(output.as_array().unwrap());
            input.push(
                json!({"type": "function_call_output", "call_id": "toolu_1", "output": "seen"}),
            );
        },
        ..responses()
    };
    // Google's own libraries keep each piece of a stream as a turn of its own.
    let google = Door {
        keeps: |events| events.iter().map(|it| it["candidates"][0]["content"].clone()).collect(),
        next: |asked, turns| {
            let contents = asked["contents"].as_array_mut().unwrap();
            contents.extend_from_slice(turns.as_array().unwrap());
            contents.push(json!({"role": "user", "parts": [
                {"functionResponse": {"name": "look", "response": {"output": "seen"}}},
            ]}));
        },
        ..google(google_call)
    };
    for (door, script) in [(chat, whole()), (responses, streamed()), (google, streamed())] {
        let stream = script.0.len() > 1;
        let (_upstream, gateway) = before("anthropic", CLAUDE, vec![script]).await;
        let said = ask(&gateway, &door, &door.asked, stream).await;
        let mut next = door.asked.clone();
        (door.next)(&mut next, (door.keeps)(&said));
        // One that has kept nothing.
        let (upstream, gateway) = before("anthropic", CLAUDE, vec![whole()]).await;
        ask(&gateway, &door, &next, false).await;
        let asked = sent(&upstream, 0);
        assert_eq!(asked["messages"][1]["content"], turn(), "{} {asked}", door.path);
    }
}

#[tokio::test]
async fn a_thought_that_its_client_trimmed_goes_back_as_it_was_or_not_at_all() {
    let (upstream, gateway) = before("anthropic", CLAUDE, vec![whole()]).await;
    let door = chat();
    let said = ask(&gateway, &door, &door.asked, false).await;
    let mut message = said[0]["choices"][0]["message"].clone();
    let text = &mut message["reasoning_details"][0]["text"];
    *text = json!(text.as_str().unwrap().trim());
    let mut next = door.asked.clone();
    let messages = next["messages"].as_array_mut().unwrap();
    messages.push(message);
    messages.push(json!({"role": "tool", "tool_call_id": "toolu_1", "content": "seen"}));
    ask(&gateway, &door, &next, false).await;
    assert_eq!(sent(&upstream, 1)["messages"][1]["content"], turn());

    // Another gateway has nothing of it.
    let (upstream, gateway) = before("anthropic", CLAUDE, vec![whole()]).await;
    ask(&gateway, &door, &next, false).await;
    let body = upstream.only_request();
    assert!(!body.text().contains("c2lnbmVk"), "{}", body.text());
}

#[tokio::test]
async fn thoughts_of_gemini_are_not_doubled_where_a_client_drops_their_signature() {
    let body = json!({"candidates": [{"content": {"role": "model", "parts": [
        {"text": "I should look.", "thought": true},
        {"functionCall": {"id": "call_1", "name": "look", "args": {}}, "thoughtSignature": "c2ln"},
    ]}, "finishReason": "STOP", "index": 0}], "modelVersion": "gemini-3-pro-preview"});
    let model = "gemini-3-pro-preview";
    let scripts = vec![Script::json(200, &body.to_string())];
    let (upstream, gateway) = before("gemini", model, scripts).await;
    let user = json!({"role": "user", "content": "Look."});
    let mut asked = json!({"model": "fast", "max_tokens": 9000, "messages": [user],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "tools": [{"name": "look", "input_schema": {"type": "object", "properties": {}}}]});
    let said = post(gateway.address, "/v1/messages", KEY, asked.to_string()).await.json();
    let mut kept = said["content"].as_array().unwrap().clone();
    kept.retain(|block| block["type"] != "redacted_thinking");
    let messages = asked["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": kept}));
    messages.push(json!({"role": "user", "content": [
        {"type": "tool_result", "tool_use_id": "call_1", "content": "seen"},
    ]}));
    let reply = post(gateway.address, "/v1/messages", KEY, asked.to_string()).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let parts = &sent(&upstream, 1)["contents"][1]["parts"];
    assert_eq!(parts.as_array().unwrap().len(), 2, "{parts}");
    assert_eq!(parts[1]["thoughtSignature"], "c2ln");
}
