//! What is read of irregular streams, and a judge of what is written.

use serde_json::{Value, json};

use super::super::tests::{context, events, fold, keeps_the_rules};
use crate::canon::{
    ChatRequest, Content, Delta, Dialect, Event, Finish, FinishReason, Opening, Start, Surface,
    Usage,
};
use crate::dialect::messages::CODEC;
use crate::dialect::{ClientSide, UpstreamSide, client, upstream};

/// A stream as the API's SDKs read it: every event is named as its type says, and in its place.
pub(in crate::dialect::messages) fn accepts(stream: &[u8]) -> Result<Vec<Value>, String> {
    let text = std::str::from_utf8(stream).map_err(|error| error.to_string())?;
    let (mut state, mut index, mut seen) = ("begin", 0, Vec::new());
    for frame in text.split_terminator("\n\n") {
        let lines: Vec<&str> = frame.lines().collect();
        let [name, data] = lines[..] else { return Err(format!("not two lines: {frame}")) };
        let name = name.strip_prefix("event: ").ok_or("no event line")?;
        let data = data.strip_prefix("data: ").ok_or("no data line")?;
        let event: Value = serde_json::from_str(data).map_err(|error| error.to_string())?;
        let here = event["index"].as_u64().is_none_or(|at| at == index);
        state = match (state, name) {
            (_, "ping") => state,
            ("begin", "message_start") if is_message(&event["message"]) => "between",
            ("between", "content_block_start") | ("inside", "content_block_delta") if here => {
                "inside"
            }
            ("inside", "content_block_stop") if here => {
                index += 1;
                "between"
            }
            ("between", "message_delta") if is_last(&event) => "told",
            ("told", "message_stop") => "over",
            _ => return Err(format!("{name} after {state}: {event}")),
        };
        if event["type"] != name {
            return Err(format!("{name} is called {}", event["type"]));
        }
        seen.push(event);
    }
    if state == "over" { Ok(seen) } else { Err(format!("the stream stops in state {state}")) }
}

fn is_message(message: &Value) -> bool {
    message["id"].is_string()
        && message["role"] == "assistant"
        && message["content"] == json!([])
        && message["usage"]["input_tokens"].is_u64()
        && message["usage"]["output_tokens"].is_u64()
}

fn is_last(event: &Value) -> bool {
    event["delta"]["stop_reason"].is_string() && event["usage"]["output_tokens"].is_u64()
}

fn sse(events: &[Value]) -> Vec<u8> {
    let frame = |event: &Value| {
        format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap_or_default())
    };
    events.iter().map(frame).collect::<String>().into_bytes()
}

fn start() -> Value {
    json!({"type": "message_start", "message": {"id": "msg_1", "model": "m", "usage": {"input_tokens": 9, "output_tokens": 1}}})
}

fn block(index: u64, block: &Value) -> Value {
    json!({"type": "content_block_start", "index": index, "content_block": block})
}

fn call(index: u64) -> Value {
    let (id, name) = (format!("t{index}"), format!("f{index}"));
    block(index, &json!({"type": "tool_use", "id": id, "name": name, "input": {}}))
}

fn input(index: u64, json: &str) -> Value {
    json!({"type": "content_block_delta", "index": index, "delta": {"type": "input_json_delta", "partial_json": json}})
}

fn stop(index: u64) -> Value {
    json!({"type": "content_block_stop", "index": index})
}

fn done(reason: &str) -> [Value; 2] {
    [
        json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": {"output_tokens": 7}}),
        json!({"type": "message_stop"}),
    ]
}

fn calls(stream: &[Value]) -> Vec<(String, String)> {
    let (events, _) = events(&sse(stream), 40);
    keeps_the_rules(&events).unwrap();
    let parts = fold(&events).unwrap().choices.remove(0).parts;
    let call = |content| match content {
        Content::ToolCall(call) => Some((call.name, call.arguments)),
        _ => None,
    };
    parts.into_iter().filter_map(|part| call(part.content)).collect()
}

fn pair(name: &str, arguments: &str) -> (String, String) {
    (name.to_owned(), arguments.to_owned())
}

#[test]
fn overlapping_blocks_are_told_one_after_the_other() {
    let [delta, end] = done("tool_use");
    let stream = [
        start(),
        call(0),
        call(1),
        input(1, "{\"b\":"),
        input(0, "{\"a\":1}"),
        input(1, "2}"),
        stop(1),
        stop(0),
        delta,
        end,
    ];
    assert_eq!(calls(&stream), [pair("f0", "{\"a\":1}"), pair("f1", "{\"b\":2}")]);
}

#[test]
fn a_citation_stands_for_the_text_that_bears_it() {
    let cited = json!({
        "type": "web_search_result_location", "url": "https://a.example", "title": "A",
        "cited_text": "q", "encrypted_index": "x",
    });
    let text = |said: &str| json!({"type": "text", "text": said});
    let delta = |delta: Value| json!({"type": "content_block_delta", "index": 1, "delta": delta});
    let [finish, end] = done("end_turn");
    let stream = [
        start(),
        block(0, &text("Añb ")),
        stop(0),
        block(1, &text("")),
        delta(json!({"type": "citations_delta", "citation": cited})),
        delta(json!({"type": "text_delta", "text": "Low "})),
        delta(json!({"type": "text_delta", "text": "tide"})),
        stop(1),
        finish,
        end,
    ];
    let answer = fold(&events(&sse(&stream), 40).0).unwrap();
    let bears = json!({"type": "text", "text": "Low tide", "citations": [cited]});
    let whole = json!({"id": "msg_1", "content": [text("Añb "), bears], "stop_reason": "end_turn"});
    let whole = CODEC.read_response(whole.to_string().as_bytes()).unwrap();
    assert_eq!(whole.choices, answer.choices);
    let request = ChatRequest::default();
    for (surface, place, span) in [
        (Surface::Chat, "/choices/0/message/annotations/0/url_citation", (4, 12)),
        // There each text has its own places,
        (Surface::Responses, "/output/0/content/1/annotations/0", (0, 8)),
    ] {
        let written = client(surface).write_response(&answer, &context(&request));
        let written: Value = serde_json::from_slice(&written).unwrap();
        let cited = written.pointer(place).unwrap();
        assert_eq!((&cited["start_index"], &cited["end_index"]), (&json!(span.0), &json!(span.1)));
        if surface == Surface::Responses {
            // which are those of the answer to everybody else.
            let read = upstream(Dialect::Responses).read_response(written.to_string().as_bytes());
            let parts = &read.unwrap().choices[0].parts;
            let Content::Text { citations, .. } = &parts[1].content else { panic!("{parts:?}") };
            assert_eq!((citations[0].start, citations[0].end), (Some(4), Some(12)));
        }
    }
    let written = client(Surface::Generate).write_response(&answer, &context(&request));
    let written: Value = serde_json::from_slice(&written).unwrap();
    let support = "/candidates/0/groundingMetadata/groundingSupports/0/segment";
    let bytes = json!({"startIndex": 5, "endIndex": 13, "text": "Low tide"});
    assert_eq!(written.pointer(support), Some(&bytes));
}

#[test]
fn a_block_that_is_never_stopped_ends_with_the_answer() {
    let [delta, end] = done("tool_use");
    let stream = [start(), call(0), input(0, "{\"a\":1}"), call(1), delta, end];
    assert_eq!(calls(&stream), [pair("f0", "{\"a\":1}"), pair("f1", "{}")]);
}

#[test]
fn input_that_comes_with_the_start_of_a_call_is_not_lost() {
    let [delta, end] = done("tool_use");
    let whole = json!({"type": "tool_use", "name": "f", "input": {"a": 1}});
    let stream = [start(), block(0, &whole), stop(0), delta, end];
    assert_eq!(calls(&stream), [pair("f", "{\"a\":1}")]);
}

#[test]
fn a_second_block_with_the_index_of_the_first_is_another() {
    let [delta, end] = done("tool_use");
    let stream = [start(), call(0), input(0, "{\"a\":1}"), call(0), input(0, "{}"), delta, end];
    assert_eq!(calls(&stream), [pair("f0", "{\"a\":1}"), pair("f0", "{}")]);
}

#[test]
fn events_without_a_usable_index_belong_to_the_block_at_hand() {
    let [delta, end] = done("tool_use");
    for odd in [Value::Null, json!(-1)] {
        let at = |mut event: Value| {
            event["index"] = odd.clone();
            event
        };
        let stream = [
            start(),
            at(call(0)),
            at(input(0, "{\"a\":1}")),
            at(stop(0)),
            at(call(1)),
            at(input(1, "{\"b\":2}")),
            at(stop(1)),
            delta.clone(),
            end.clone(),
        ];
        assert_eq!(calls(&stream), [pair("f0", "{\"a\":1}"), pair("f1", "{\"b\":2}")]);
    }
}

#[test]
fn a_text_that_is_null_is_none() {
    let [delta, end] = done("end_turn");
    let null = json!({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": null}});
    let stream = [start(), block(0, &json!({"type": "text", "text": null})), null, delta, end];
    let (events, malformed) = events(&sse(&stream), 40);
    assert_eq!(malformed, 0);
    assert!(fold(&events).is_ok());
}

#[test]
fn a_delta_is_read_without_a_copy() {
    let piece: super::block::Piece<'_> =
        serde_json::from_str(r#"{"type":"text_delta","text":"hi"}"#).unwrap();
    assert!(matches!(piece.text, std::borrow::Cow::Borrowed("hi")));
}

#[test]
fn a_stream_that_is_cut_has_no_end() {
    let stream = [start(), block(0, &json!({"type": "text", "text": ""}))];
    let (events, _) = events(&sse(&stream), 40);
    assert!(!events.contains(&Event::End));
    assert!(fold(&events).is_err());
}

#[test]
fn an_answer_that_finished_needs_no_last_word() {
    let [delta, _] = done("end_turn");
    let (events, _) = events(&sse(&[start(), delta]), 40);
    assert_eq!(events.last(), Some(&Event::End));
}

#[test]
fn an_error_in_the_stream_is_a_failure_with_its_status() {
    let error = json!({"type": "error", "error": {"type": "overloaded_error", "message": "busy"}});
    let (events, _) = events(&sse(&[start(), error]), 40);
    let Some(Event::Failed(failure)) = events.last() else { panic!("{events:?}") };
    assert_eq!((failure.message.as_str(), failure.status), ("busy", Some(529)));
}

#[test]
fn counts_of_a_stream_replace_and_are_not_added() {
    let last = json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"input_tokens": 11, "output_tokens": 7, "cache_read_input_tokens": 3}});
    let (events, _) = events(&sse(&[start(), last]), 40);
    let expected = Usage { input: 11, cache_read: 3, output: 7, ..Usage::default() };
    assert_eq!(fold(&events).unwrap().usage, Some(expected));
}

fn write(events: &[Event]) -> Vec<Value> {
    let question = ChatRequest::default();
    let mut writer = CODEC.writer(&context(&question));
    let mut out = Vec::new();
    for event in events {
        writer.write(event, &mut out);
    }
    accepts(&out).unwrap()
}

fn text(text: &str) -> [Event; 3] {
    [
        Event::Open { choice: 0, part: Opening::Text },
        Event::Delta { choice: 0, delta: Delta::Text(text.to_owned()) },
        Event::Close { choice: 0 },
    ]
}

#[test]
fn usage_is_told_last_wherever_it_came() {
    let usage = Event::Usage(Usage { input: 5, cache_read: 6, output: 7, ..Usage::default() });
    let finish = Event::Finish { choice: 0, finish: Finish::default() };
    let start = Event::Start(Start::default());
    let [open, delta, close] = text("hi");
    let body = [start.clone(), open, delta, close];
    let before = [&body[..], &[usage.clone(), finish.clone(), Event::End]].concat();
    let after = [&body[..], &[finish, usage, Event::End]].concat();
    let seen = write(&before);
    assert_eq!(seen, write(&after));
    let last = &seen[seen.len() - 2]["usage"];
    assert_eq!(
        (last["input_tokens"].as_u64(), last["cache_read_input_tokens"].as_u64()),
        (Some(5), Some(6))
    );
    assert_eq!(seen[0]["message"]["usage"]["input_tokens"], 12, "the estimate comes first");
}

#[test]
fn a_stream_that_forgets_its_start_and_its_closes_is_still_in_order() {
    let [open, delta, _] = text("hi");
    let call = Opening::ToolCall { id: "a:b".into(), name: "f".into(), custom: true };
    let seen = write(&[
        open,
        delta,
        Event::Open { choice: 0, part: call },
        Event::Delta { choice: 0, delta: Delta::Arguments("say \"hi\"\n".to_owned()) },
        Event::Open { choice: 1, part: Opening::Text },
        Event::End,
    ]);
    let json: String =
        seen.iter().filter_map(|event| event["delta"]["partial_json"].as_str()).collect();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), json!({"input": "say \"hi\"\n"}));
    assert_eq!(seen[seen.len() - 2]["delta"]["stop_reason"], "tool_use");
}

#[test]
fn nothing_at_all_is_still_a_message() {
    let finish = Finish { reason: FinishReason::Length, stop_sequence: None, ..Finish::default() };
    let seen =
        write(&[Event::Start(Start::default()), Event::Finish { choice: 0, finish }, Event::End]);
    assert_eq!(seen.len(), 3);
}
