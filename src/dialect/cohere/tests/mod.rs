//! Cohere held against what it sends and takes.

mod questions;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{CODEC, PLAN};
use crate::canon::{
    ChatResponse, Choice, Content, Dialect, Event, Finish, FinishReason, Opaque, Part, Reasoning,
    ToolCall, Usage,
};
use crate::dialect::UpstreamSide;
use crate::dialect::fold::{Fold, unfold};
use crate::dialect::row::tests::{assert_in_order, recordings};
use crate::dialect::sse::Decoder;

const ANSWER: &[u8] = include_bytes!("../../../../tests/fixtures/dialects/cohere/answer.json");
const STREAM: &[u8] = include_bytes!("../../../../tests/fixtures/dialects/cohere/answer.sse");

fn thought(text: &str, plan: bool) -> Part {
    let reasoning = Reasoning { text: text.into(), ..Reasoning::default() };
    let opaque = plan.then(|| Opaque { dialect: Dialect::Cohere, data: json!(PLAN) });
    Part { content: Content::Reasoning(reasoning), cache: None, opaque }
}

fn call(id: &str, name: &str, arguments: &str) -> Part {
    Part::new(Content::ToolCall(ToolCall {
        id: id.into(),
        name: name.into(),
        arguments: arguments.into(),
        custom: false,
    }))
}

/// Reads a stream in pieces of so many bytes and checks that its events keep the rules.
fn read(body: &[u8], size: usize) -> Vec<Event> {
    let (mut decoder, mut reader, mut events) = (Decoder::default(), CODEC.reader(), Vec::new());
    for piece in body.chunks(size) {
        decoder.buffer().extend_from_slice(piece);
        while let Some(frame) = decoder.next_frame() {
            if let Some(data) = decoder.data(&frame) {
                reader.read(decoder.event(&frame), &data, &mut events).unwrap();
            }
            decoder.discard(frame.range.end);
        }
    }
    reader.end(&mut events);
    assert_in_order(&events);
    events
}

fn fold(events: &[Event]) -> ChatResponse {
    let mut fold = Fold::default();
    for event in events {
        fold.add(event);
    }
    fold.finish().unwrap()
}

#[test]
fn a_whole_answer_keeps_all_it_says() {
    let answer = CODEC.read_response(ANSWER).unwrap();
    let choice = &answer.choices[0];
    assert_eq!(answer.id, "f201af17");
    assert_eq!(choice.parts[0], thought("I will look.", true));
    assert_eq!(choice.parts[1], thought("Hm.", false));
    let Content::Text { text, citations } = &choice.parts[2].content else { panic!("{choice:#?}") };
    assert_eq!((text.as_str(), citations.len()), ("It rains in Zürich.", 1));
    assert_eq!((citations[0].start, citations[0].end), (Some(3), Some(8)));
    assert_eq!(citations[0].url.as_deref(), Some("https://weather.example"));
    assert_eq!(citations[0].quote.as_deref(), Some("Rain all day."));
    assert_eq!(choice.parts[3], call("weather_1", "weather", "{\"city\":\"Zürich\"}"));
    assert_eq!(choice.parts[4], call("time_1", "time", "{}"));
    assert_eq!(choice.finish.reason, FinishReason::ToolCalls);
    assert_eq!(choice.logprobs.as_ref().unwrap()["content"][0]["logprob"], -0.25);
    let usage = answer.usage.unwrap();
    assert_eq!((usage.input, usage.cache_read, usage.output), (557, 992, 103));
}

#[test]
fn the_same_answer_streamed_is_the_same_answer_in_any_chunking() {
    let whole = CODEC.read_response(ANSWER).unwrap();
    for size in [1, 2, 7, 64, STREAM.len()] {
        assert_eq!(fold(&read(STREAM, size)), whole, "in pieces of {size}");
    }
}

#[test]
fn a_stream_that_failed_or_was_cut_has_no_end() {
    let failed = b"data: {\"type\":\"message-start\",\"id\":\"1\"}\n\ndata: {\"type\":\"message-end\",\"delta\":{\"finish_reason\":\"ERROR\",\"error\":\"out of luck\"}}\n\n";
    let Some(Event::Failed(failure)) = read(failed, 9).pop() else { panic!("no failure") };
    assert_eq!((failure.message.as_str(), failure.status), ("out of luck", Some(502)));
    let refused = b"data: {\"message\":\"too many tokens\"}\n\n";
    let Some(Event::Failed(failure)) = read(refused, 9).pop() else { panic!("no failure") };
    assert_eq!(failure.message, "too many tokens");
    let cut = read(&STREAM[..STREAM.len() - 300], 9);
    assert!(!cut.contains(&Event::End));
    let body = b"{\"message\":{\"content\":[]},\"finish_reason\":\"ERROR\"}";
    assert!(CODEC.read_response(body).is_err());
}

/// Cohere's body for an answer.
fn write_response(answer: &ChatResponse) -> Value {
    let choice = &answer.choices[0];
    let (mut content, mut calls, mut plan) = (Vec::new(), Vec::new(), String::new());
    for part in &choice.parts {
        match &part.content {
            Content::Text { text, .. } => content.push(json!({"type": "text", "text": text})),
            Content::Reasoning(thought) if part.opaque.is_some() => plan.push_str(&thought.text),
            Content::Reasoning(thought) => {
                content.push(json!({"type": "thinking", "thinking": thought.text}));
            }
            Content::ToolCall(call) => calls.push(json!({
                "id": call.id, "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            })),
            other => panic!("Cohere does not answer with {other:?}"),
        }
    }
    let message = json!({"content": content, "tool_calls": calls, "tool_plan": plan});
    let usage = write_usage(answer);
    let reason = write_reason(choice.finish.reason);
    json!({"id": answer.id, "message": message, "finish_reason": reason, "usage": usage})
}

fn write_usage(answer: &ChatResponse) -> Value {
    let usage = answer.usage.unwrap();
    json!({
        "tokens": {"input_tokens": usage.input_total(), "output_tokens": usage.output},
        "cached_tokens": usage.cache_read,
    })
}

fn write_reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Length => "MAX_TOKENS",
        FinishReason::ToolCalls => "TOOL_CALL",
        FinishReason::ContentFilter => "ERROR_TOXIC",
        FinishReason::ContextFull => "ERROR_LIMIT",
        _ => "COMPLETE",
    }
}

/// Cohere's stream for an answer.
fn write_stream(answer: &ChatResponse) -> Vec<u8> {
    use crate::canon::{Delta, Opening};
    let (mut index, mut plan, mut out) = (0_u64, false, Vec::new());
    for event in unfold(answer) {
        let data = match event {
            Event::Start(start) => json!({"type": "message-start", "id": start.id,
                "delta": {"message": {"content": [], "tool_calls": []}}}),
            Event::Open { part: Opening::ToolCall { id, name, .. }, .. } => {
                let call = json!({"id": id, "function": {"name": name, "arguments": ""}});
                json!({"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": call}}})
            }
            Event::Open { .. } => {
                plan = index == 0 && answer.choices[0].parts[0].opaque.is_some();
                continue;
            }
            Event::Delta { delta: Delta::Text(text), .. } => {
                json!({"type": "content-delta", "index": index, "delta": {"message": {"content": {"text": text}}}})
            }
            Event::Delta { delta: Delta::Reasoning(text), .. } if plan => {
                json!({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": text}}})
            }
            Event::Delta { delta: Delta::Reasoning(text), .. } => {
                json!({"type": "content-delta", "index": index, "delta": {"message": {"content": {"thinking": text}}}})
            }
            Event::Delta { delta: Delta::Arguments(text), .. } => {
                let call = json!({"function": {"arguments": text}});
                json!({"type": "tool-call-delta", "index": index, "delta": {"message": {"tool_calls": call}}})
            }
            Event::Close { .. } => {
                index += 1;
                json!({"type": "tool-call-end", "index": index - 1})
            }
            Event::Finish { finish, .. } => json!({"type": "message-end", "delta": {
                "finish_reason": write_reason(finish.reason), "usage": write_usage(answer)}}),
            _ => continue,
        };
        out.extend_from_slice(format!("event: x\ndata: {data}\n\n").as_bytes());
    }
    out
}

fn any_answer() -> impl Strategy<Value = ChatResponse> {
    let said = prop_oneof![
        "\\PC{1,12}".prop_map(Part::text),
        "\\PC{1,12}".prop_map(|text| thought(&text, false)),
    ];
    let plan = proptest::option::of("\\PC{1,12}".prop_map(|text| thought(&text, true)));
    let calls = ("[a-z_]{1,9}", "[a-z]{1,5}", "\\PC{0,9}")
        .prop_map(|(id, name, value)| call(&id, &name, &json!({ "value": value }).to_string()));
    let reason = prop_oneof![
        Just(FinishReason::Stop),
        Just(FinishReason::ToolCalls),
        Just(FinishReason::Length),
        Just(FinishReason::ContentFilter),
        Just(FinishReason::ContextFull),
    ];
    let said = proptest::collection::vec(said, 0..4);
    let calls = proptest::collection::vec(calls, 0..3);
    (plan, said, calls, reason, (0..9_u64, 0..9_u64, 0..9_u64)).prop_map(
        |(plan, said, calls, reason, counts)| ChatResponse {
            id: "1".into(),
            choices: vec![Choice {
                parts: plan.into_iter().chain(said).chain(calls).collect(),
                finish: Finish { reason, stop_sequence: None, ..Finish::default() },
                logprobs: None,
            }],
            usage: Some(Usage {
                input: counts.0,
                cache_read: counts.1,
                output: counts.2,
                ..Usage::default()
            }),
            ..ChatResponse::default()
        },
    )
}

proptest! {
    #[test]
    fn an_answer_is_read_as_it_was_meant(answer in any_answer()) {
        let body = write_response(&answer).to_string();
        prop_assert_eq!(CODEC.read_response(body.as_bytes()).unwrap(), answer);
    }

    #[test]
    fn a_stream_folds_to_the_answer_it_was_cut_from(answer in any_answer(), size in 1..99_usize) {
        prop_assert_eq!(fold(&read(&write_stream(&answer), size)), answer);
    }

    #[test]
    fn no_bytes_break_the_readers(
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        at in 0..ANSWER.len(),
        byte in any::<u8>(),
    ) {
        let _ = CODEC.read_response(&bytes);
        let mut body = ANSWER.to_vec();
        body[at] = byte;
        let _ = CODEC.read_response(&body);
        let mut reader = CODEC.reader();
        let mut events = Vec::new();
        let _ = reader.read(None, &bytes, &mut events);
        let _ = reader.read(None, &body, &mut events);
        reader.end(&mut events);
    }

    #[test]
    fn events_in_any_order_keep_the_rules(order in proptest::collection::vec(any::<proptest::sample::Index>(), 0..24)) {
        let all: Vec<&[u8]> = STREAM
            .split(|byte| *byte == b'\n')
            .filter_map(|line| line.strip_prefix(b"data: "))
            .collect();
        let mut reader = CODEC.reader();
        let mut events = Vec::new();
        for at in order {
            let _ = reader.read(None, all[at.index(all.len())], &mut events);
        }
        reader.end(&mut events);
        assert_in_order(&events);
    }
}

#[test]
fn every_recorded_answer_is_read() {
    let Some(recordings) = recordings("cohere") else {
        println!("SWITCHPOINT_RECORDINGS is not set; nothing was read");
        return;
    };
    assert!(!recordings.is_empty());
    for (facts, body) in recordings {
        let id = facts["id"].as_str().unwrap_or_default();
        let has = |feature: &str| {
            facts["features"].as_array().into_iter().flatten().any(|known| known == feature)
        };
        assert_eq!(facts["status"], 200, "{id}");
        let answer = if has("stream") {
            let events = read(&body, 11);
            assert_eq!(events.last(), Some(&Event::End), "{id}");
            fold(&events)
        } else {
            let said: Value = serde_json::from_slice(&body).unwrap();
            let tokens = &said["usage"]["tokens"];
            let count = |name: &str| tokens[name].as_f64().unwrap();
            let total = count("input_tokens") + count("output_tokens");
            let answer = CODEC.read_response(&body).unwrap_or_else(|error| panic!("{id}: {error}"));
            #[expect(clippy::cast_precision_loss, reason = "a small count")]
            let ours = answer.usage.unwrap().total() as f64;
            assert!((ours - total).abs() < 0.1, "{id}: {ours} of {total}");
            answer
        };
        let parts = &answer.choices[0].parts;
        let any = |wanted: fn(&Content) -> bool| parts.iter().any(|part| wanted(&part.content));
        assert!(!parts.is_empty(), "{id}");
        assert_eq!(has("tool"), any(|it| matches!(it, Content::ToolCall(_))), "{id}");
        assert_eq!(has("cached"), answer.usage.unwrap().cache_read > 0, "{id}");
        if has("reasoning") {
            assert!(any(|it| matches!(it, Content::Reasoning(_))), "{id}");
        }
        let reason = answer.choices[0].finish.reason;
        assert_eq!(has("fin-max_tokens"), reason == FinishReason::Length, "{id}");
        assert_eq!(has("tool"), reason == FinishReason::ToolCalls, "{id}");
    }
}
