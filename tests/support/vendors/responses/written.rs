//! OpenAI's Responses API: what is answered, whole and as the events of a stream.

use serde_json::{Value, json};

use super::super::Answer;
use super::super::model::{FRESH, READ, Reply, WHOLE};
use super::super::shape::{each, text};
use super::state;

/// The items of an answer.
pub(super) fn items(reply: &Reply, sealed: bool, summed: bool) -> Vec<Value> {
    let mut items = Vec::new();
    if let Some(thought) = &reply.thought {
        let summary =
            if summed { json!([{"type": "summary_text", "text": thought}]) } else { json!([]) };
        let id = reply.id("rs_", 0);
        let mut item = json!({"id": id, "type": "reasoning", "summary": summary});
        if sealed {
            item["encrypted_content"] = json!(state(&item["summary"]));
        }
        items.push(item);
    }
    let part =
        json!({"type": "output_text", "text": reply.text, "annotations": [], "logprobs": []});
    items.push(json!({
        "id": reply.id("msg_", 0), "type": "message", "status": "completed", "role": "assistant",
        "content": [part],
    }));
    items.extend(reply.calls.iter().enumerate().map(|(at, (name, arguments))| {
        json!({
            "id": reply.id("fc_", at), "type": "function_call", "status": "completed",
            "call_id": reply.id("call_", at), "name": name, "arguments": arguments.to_string(),
        })
    }));
    items
}

pub(super) fn whole(body: &Value, reply: &Reply, items: &[Value]) -> Value {
    let (input, output) = (FRESH + READ, reply.output());
    let or = |name: &str, other: Value| {
        body.get(name).filter(|value| !value.is_null()).cloned().unwrap_or(other)
    };
    json!({
        "id": reply.id("resp_", WHOLE), "object": "response", "created_at": 1_760_000_000, "status": "completed",
        "background": false, "error": null, "incomplete_details": null,
        "instructions": body["instructions"], "max_output_tokens": body["max_output_tokens"],
        "model": body["model"], "output": items, "parallel_tool_calls": or("parallel_tool_calls", json!(true)),
        "previous_response_id": null, "reasoning": or("reasoning", json!({"effort": null, "summary": null})),
        "service_tier": "default", "store": or("store", json!(true)), "temperature": or("temperature", json!(1.0)),
        "text": or("text", json!({"format": {"type": "text"}})), "tool_choice": or("tool_choice", json!("auto")),
        "tools": or("tools", json!([])), "top_p": or("top_p", json!(1.0)), "truncation": "disabled",
        "usage": {
            "input_tokens": input, "input_tokens_details": {"cached_tokens": READ},
            "output_tokens": output, "output_tokens_details": {"reasoning_tokens": reply.reasoning()},
            "total_tokens": input + output,
        },
        "user": null, "metadata": or("metadata", json!({})),
    })
}

pub(super) fn stream(whole: &Value, items: &[Value]) -> Answer {
    let mut begun = whole.clone();
    begun["status"] = json!("in_progress");
    begun["output"] = json!([]);
    begun["usage"] = Value::Null;
    let mut events = vec![
        json!({"type": "response.created", "response": begun}),
        json!({"type": "response.in_progress", "response": begun}),
    ];
    for (at, item) in items.iter().enumerate() {
        events.push(
            json!({"type": "response.output_item.added", "output_index": at, "item": opened(item)}),
        );
        match text(item, "type") {
            "reasoning" => summaries(&mut events, at, item),
            "message" => message(&mut events, at, item),
            _ => call(&mut events, at, item),
        }
        events.push(json!({"type": "response.output_item.done", "output_index": at, "item": item}));
    }
    events.push(json!({"type": "response.completed", "response": whole}));
    for (at, event) in events.iter_mut().enumerate() {
        event["sequence_number"] = json!(at);
    }
    Answer::named(&events)
}

/// An item before anything is in it.
fn opened(item: &Value) -> Value {
    let mut item = item.clone();
    match text(&item, "type") {
        "reasoning" => item["summary"] = json!([]),
        "message" => item["content"] = json!([]),
        _ => item["arguments"] = json!(""),
    }
    if !item["status"].is_null() {
        item["status"] = json!("in_progress");
    }
    item
}

fn summaries(events: &mut Vec<Value>, at: usize, item: &Value) {
    let event = |kind: &str, name: &str, value: Value| {
        json!({
            "type": format!("response.reasoning_summary_{kind}"), "item_id": item["id"],
            "output_index": at, "summary_index": 0, name: value,
        })
    };
    for (_, part) in each(item.get("summary"), "") {
        let empty = json!({"type": "summary_text", "text": ""});
        events.push(event("part.added", "part", empty));
        let pieces = Reply::pieces(text(part, "text")).into_iter();
        events.extend(pieces.map(|piece| event("text.delta", "delta", json!(piece))));
        events.push(event("text.done", "text", part["text"].clone()));
        events.push(event("part.done", "part", part.clone()));
    }
}

fn message(events: &mut Vec<Value>, at: usize, item: &Value) {
    let event = |kind: &str, name: &str, value: Value| {
        json!({
            "type": format!("response.{kind}"), "item_id": item["id"], "output_index": at,
            "content_index": 0, name: value,
        })
    };
    let part = &item["content"][0];
    let mut empty = part.clone();
    empty["text"] = json!("");
    events.push(event("content_part.added", "part", empty));
    for piece in Reply::pieces(text(part, "text")) {
        let mut delta = event("output_text.delta", "delta", json!(piece));
        delta["logprobs"] = json!([]);
        // Padding against those who measure encrypted streams.
        delta["obfuscation"] = json!("x2Bq");
        events.push(delta);
    }
    let mut done = event("output_text.done", "text", part["text"].clone());
    done["logprobs"] = json!([]);
    events.push(done);
    events.push(event("content_part.done", "part", part.clone()));
}

fn call(events: &mut Vec<Value>, at: usize, item: &Value) {
    let event = |kind: &str, name: &str, value: Value| {
        json!({
            "type": format!("response.function_call_arguments.{kind}"), "item_id": item["id"],
            "output_index": at, name: value,
        })
    };
    let pieces = Reply::pieces(text(item, "arguments")).into_iter();
    events.extend(pieces.map(|piece| event("delta", "delta", json!(piece))));
    let mut done = event("done", "arguments", item["arguments"].clone());
    done["name"] = item["name"].clone();
    events.push(done);
}
