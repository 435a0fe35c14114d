//! Promises of the Responses codec: real answers are read, and what is written is read again.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::stream::Reader;
use super::{CODEC, read, write};
use crate::canon::{
    ChatRequest, ChatResponse, Choice, Citation, Content, Delta, Dialect, Event, Finish,
    FinishReason, Opaque, Opening, Part, Reasoning, Role, Tool, ToolCall, Usage,
};
use crate::dialect::fold::{Fold, unfold};
use crate::dialect::sse::Decoder;
use crate::dialect::{Aim, ClientSide, Context, ReadStream, Traits, UpstreamSide, portable_id};

const ID: &str = "0123456789abcdef0123456789abcdef";

fn context(request: &ChatRequest) -> Context<'_> {
    Context { id: ID, created: 7, model: "m", input_estimate: 0, previous: None, request }
}

fn aim(model: &str) -> Aim<'_> {
    Aim { model, traits: &Traits::NONE, cache: None }
}

/// All events of a stream that comes in pieces of `size` bytes.
pub(super) fn events(body: &[u8], size: usize) -> Vec<Event> {
    let (mut decoder, mut reader, mut events) = (Decoder::default(), Reader::default(), Vec::new());
    for piece in body.chunks(size) {
        decoder.buffer().extend_from_slice(piece);
        while let Some(frame) = decoder.next_frame() {
            if let Some(data) = decoder.data(&frame) {
                reader.read(decoder.event(&frame), data.trim_ascii(), &mut events).unwrap();
            }
        }
    }
    reader.end(&mut events);
    assert_in_order(&events);
    events
}

/// The rules of a stream of ours.
fn assert_in_order(events: &[Event]) {
    let (mut open, mut finished) = (false, false);
    for (place, event) in events.iter().enumerate() {
        assert_eq!(place == 0, matches!(event, Event::Start(_)), "{events:?}");
        match event {
            Event::Open { .. } => {
                assert!(!std::mem::replace(&mut open, true) && !finished, "{events:?}");
            }
            Event::Delta { .. } => assert!(open, "{events:?}"),
            Event::Close { .. } => assert!(std::mem::take(&mut open), "{events:?}"),
            Event::Finish { .. } => assert!(!open && !std::mem::replace(&mut finished, true)),
            Event::End => assert!(finished && place == events.len() - 1),
            Event::Start(_) | Event::Usage(_) | Event::Failed(_) | Event::Aside(_) => {}
        }
    }
}

pub(super) fn fold(events: &[Event]) -> ChatResponse {
    let mut fold = Fold::default();
    for event in events {
        fold.add(event);
    }
    fold.finish().unwrap()
}

fn streamed(response: &ChatResponse, request: &ChatRequest) -> Vec<u8> {
    let mut writer = CODEC.writer(&context(request));
    let mut out = Vec::new();
    for event in &unfold(response) {
        writer.write(event, &mut out);
    }
    assert_valid(&out);
    out
}

/// The sequence that the official libraries accept.
fn assert_valid(body: &[u8]) {
    let text = std::str::from_utf8(body).unwrap();
    let (mut open, mut items): (Option<(String, u64)>, u64) = (None, 0);
    let mut last = String::new();
    for (number, event) in text.split_terminator("\n\n").enumerate() {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        let kind = data["type"].as_str().unwrap();
        assert_eq!(name, format!("event: {kind}"));
        assert_eq!(data["sequence_number"], number);
        match kind {
            "response.created" => assert_eq!(number, 0),
            "response.in_progress" => assert_eq!(number, 1),
            "response.output_item.added" => {
                assert_eq!(data["output_index"], items);
                let id = data["item"]["id"].as_str().unwrap().to_owned();
                assert!(open.replace((id, items)).is_none());
            }
            "response.output_item.done" => {
                let (id, index) = open.take().unwrap();
                assert_eq!(
                    (&data["item"]["id"], &data["output_index"]),
                    (&json!(id), &json!(index))
                );
                items += 1;
            }
            "response.completed" | "response.incomplete" | "response.failed" => {
                assert!(open.is_none());
                assert_eq!(data["response"]["output"].as_array().unwrap().len() as u64, items);
            }
            _ => {
                let (id, index) = open.as_ref().unwrap();
                assert_eq!((&data["item_id"], &data["output_index"]), (&json!(id), &json!(index)));
            }
        }
        kind.clone_into(&mut last);
    }
    assert!(matches!(
        last.as_str(),
        "response.completed" | "response.incomplete" | "response.failed"
    ));
}

pub(super) fn call(id: &str, name: &str, arguments: &str, custom: bool) -> Part {
    let (id, name, arguments) = (id.into(), name.into(), arguments.into());
    Part::new(Content::ToolCall(ToolCall { id, name, arguments, custom }))
}

fn answer(parts: Vec<Part>) -> ChatResponse {
    let calls = parts.iter().any(|part| matches!(part.content, Content::ToolCall(_)));
    let reason = if calls { FinishReason::ToolCalls } else { FinishReason::Stop };
    ChatResponse {
        id: format!("resp_{ID}"),
        model: "m".into(),
        created: Some(7),
        choices: vec![Choice {
            parts,
            finish: Finish { reason, stop_sequence: None, ..Finish::default() },
            logprobs: None,
        }],
        usage: Some(Usage { input: 3, cache_read: 4, output: 9, reasoning: 2, ..Usage::default() }),
        service_tier: None,
    }
}

#[test]
fn a_question_of_codex_goes_out_as_it_came_in() {
    let body = json!({
        "model": "gpt-5.6", "instructions": "Be brief.", "stream": true, "store": false,
        "input": [
            {"type": "message", "role": "user", "content": [
                {"type": "input_text", "text": "look", "prompt_cache_breakpoint": {"mode": "explicit"}},
                {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "low"}]},
            {"type": "reasoning", "id": "rs_9f", "summary": [{"type": "summary_text", "text": "s"}], "encrypted_content": "gAAA"},
            {"type": "message", "role": "assistant", "id": "msg_1", "phase": "commentary", "content": [{"type": "output_text", "text": "so", "annotations": []}]},
            {"type": "custom_tool_call", "call_id": "c1", "name": "apply_patch", "input": "*** Begin"},
            {"type": "function_call", "call_id": "c2", "name": "find", "namespace": "mcp", "arguments": "{}"},
            {"type": "local_shell_call", "call_id": "c3", "status": "completed", "action": {"type": "exec", "command": ["ls"], "env": {}}},
            {"type": "web_search_call", "id": "ws_1", "status": "completed"},
            {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": "https://a/b.png"}]},
            {"type": "local_shell_call_output", "id": "c3", "output": "a.txt"},
        ],
        "tools": [
            {"type": "custom", "name": "apply_patch", "format": {"type": "grammar", "syntax": "lark", "definition": "start: x"}},
            {"type": "namespace", "name": "mcp", "tools": [{"type": "function", "name": "find", "parameters": {"type": "object"}, "strict": true}]},
            {"type": "local_shell"}, {"type": "web_search"},
        ],
        "tool_choice": {"type": "custom", "name": "apply_patch"},
        "text": {"verbosity": "low", "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}},
        "reasoning": {"effort": "high", "summary": "auto", "context": "all_turns"},
        "include": ["reasoning.encrypted_content", "file_search_call.results"],
        "prompt_cache_key": "k", "max_output_tokens": 100, "parallel_tool_calls": false,
    });
    let request = read::read(body.to_string().as_bytes()).unwrap();
    assert_eq!(
        request.messages.iter().map(|message| message.role).collect::<Vec<_>>(),
        [Role::System, Role::User, Role::Assistant, Role::Tool]
    );
    let written = write::write(&request, &aim("gpt-5.6")).unwrap();
    assert!(written.dropped.is_empty(), "{:?}", written.dropped);
    assert_eq!(read::read(&written.body).unwrap(), request);
    let again: Value = serde_json::from_slice(&written.body).unwrap();
    for place in [1, 2, 4, 5, 6, 7] {
        assert_eq!(again["input"][place], body["input"][place], "{place}");
    }
    for name in ["tool_choice", "text", "reasoning", "store", "stream", "instructions"] {
        assert_eq!(again[name], body[name], "{name}");
    }
    assert_eq!(write::write(&request, &aim("gpt-5.6")).unwrap(), written);
}

#[test]
fn a_tier_is_told_only_by_a_word_that_clients_know() {
    for (said, told) in [("on_demand", Value::Null), ("flex", json!("flex"))] {
        let tier = Some(said.to_owned());
        let answer = ChatResponse { service_tier: tier, ..answer(vec![Part::text("a")]) };
        let request = ChatRequest::default();
        let whole: Value =
            serde_json::from_slice(&CODEC.write_response(&answer, &context(&request))).unwrap();
        assert_eq!(whole["service_tier"], told);
        let stream = streamed(&answer, &request);
        assert_eq!(String::from_utf8(stream).unwrap().contains(said), told == said);
    }
}

#[test]
fn an_annotation_that_cites_nothing_is_no_citation() {
    let file = json!({"type": "file", "file": {"hash": "x", "content": []}});
    let message = json!({"role": "assistant", "content": "a", "annotations": [file]});
    let body = json!({"choices": [{"message": message, "finish_reason": "stop"}]});
    let upstream = crate::dialect::upstream(Dialect::Chat);
    let read = upstream.read_response(body.to_string().as_bytes()).unwrap();
    let request = ChatRequest::default();
    let whole: Value =
        serde_json::from_slice(&CODEC.write_response(&read, &context(&request))).unwrap();
    assert_eq!(whole["output"][0]["content"][0]["annotations"], json!([]));
}

#[test]
fn a_source_is_not_called_by_what_it_says() {
    let cited = Citation { quote: Some("Rain all day.".into()), ..Citation::default() };
    let text = Content::Text { text: "a".into(), citations: vec![cited] };
    let answer = answer(vec![Part::new(text)]);
    let whole = CODEC.write_response(&answer, &context(&ChatRequest::default()));
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(whole["output"][0]["content"][0]["annotations"][0]["filename"], "");
}

#[test]
fn a_wrong_field_is_named() {
    for (body, named) in [
        (json!({"input": [{"role": "user", "content": 7}]}), "input[0].content"),
        (json!({"input": [{"type": "function_call", "call_id": "c"}]}), "input[0].name"),
        (json!({"input": [{"type": "item_reference", "id": "x"}]}), "input[0]"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"tools": [{"type": "function"}]}), "tools[0]"),
    ] {
        let misread = read::read(body.to_string().as_bytes()).unwrap_err();
        assert!(misread.to_string().contains(named), "{misread}");
    }
}

#[test]
fn a_custom_tool_called_as_a_function_streams_its_text() {
    let tool = Tool::Custom { name: "apply_patch".into(), description: None, format: None };
    let request = ChatRequest { tools: vec![tool], ..ChatRequest::default() };
    let wrapped = answer(vec![call("c1", "apply_patch", r#"{"input":"*** \"a\"\n"}"#, false)]);
    let plain = answer(vec![call("c1", "apply_patch", "*** \"a\"\n", true)]);
    assert_eq!(fold(&events(&streamed(&wrapped, &request), 64)), plain);
    let whole = CODEC.write_response(&wrapped, &context(&request));
    assert_eq!(CODEC.read_response(&whole).unwrap(), plain);
}

#[test]
fn a_shell_of_the_clients_is_called_by_its_own_item() {
    let request = read::read(br#"{"tools":[{"type":"local_shell"}]}"#).unwrap();
    let action = r#"{"type":"exec","command":["ls"],"env":{}}"#;
    let whole = CODEC.write_response(
        &answer(vec![call("c1", "local_shell", action, false)]),
        &context(&request),
    );
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(whole["output"][0]["type"], "local_shell_call");
    assert_eq!(whole["output"][0]["action"]["command"], json!(["ls"]));
}

#[test]
fn a_call_of_the_shell_that_is_no_json_is_not_lost() {
    let request = read::read(br#"{"tools":[{"type":"local_shell"}]}"#).unwrap();
    let response = answer(vec![call("c1", "local_shell", "ls -", false)]);
    let whole = fold(&events(&streamed(&response, &request), 30));
    assert_eq!(whole.choices[0].parts, response.choices[0].parts);
}

#[test]
fn state_of_another_provider_returns_with_the_next_question() {
    let state = |data| Some(Opaque { dialect: Dialect::Messages, data });
    let thought = Content::Reasoning(Reasoning { text: "hm".into(), ..Reasoning::default() });
    let blank = Content::Reasoning(Reasoning::default());
    let hidden = Content::Reasoning(Reasoning { redacted: true, ..Reasoning::default() });
    let parts = vec![
        Part { opaque: state(json!("sig")), ..Part::new(thought) },
        Part { opaque: state(json!("s2")), ..Part::new(blank) },
        Part { opaque: state(json!("s3")), ..Part::new(hidden) },
        Part { opaque: state(json!({"t": 1})), ..Part::text("so") },
        Part { opaque: state(json!("call")), ..call("c1", "f", "{}", false) },
    ];
    let response = answer(parts.clone());
    let request = ChatRequest::default();
    let whole: Value =
        serde_json::from_slice(&CODEC.write_response(&response, &context(&request))).unwrap();
    let next = json!({"input": whole["output"]});
    assert_eq!(read::read(next.to_string().as_bytes()).unwrap().messages[0].parts, parts);
}

/// A stream of bare data lines.
pub(super) fn told(lines: &[Value]) -> Vec<u8> {
    let events: Vec<String> = lines.iter().map(|line| format!("data: {line}\n\n")).collect();
    events.concat().into_bytes()
}

#[test]
fn irregular_calls_come_out_whole_and_one_after_the_other() {
    let done =
        json!({"type": "response.completed", "response": {"status": "completed", "output": []}});
    let added = |id: &str, call: &str, index: i64| {
        json!({"type": "response.output_item.added", "output_index": index,
        "item": {"type": "function_call", "id": id, "call_id": call, "name": "f", "arguments": ""}})
    };
    let delta = |id: &str, text: &str| json!({"type": "response.function_call_arguments.delta", "item_id": id, "output_index": 0, "delta": text});
    let finish = |id: &str, call: &str, text: &str| {
        json!({"type": "response.output_item.done", "output_index": 0,
        "item": {"type": "function_call", "id": id, "call_id": call, "name": "f", "arguments": text}})
    };
    let streams = [
        // Interleaved, all with index 0.
        vec![
            added("a", "c1", 0),
            added("b", "c2", 0),
            delta("a", "{\"x\""),
            delta("b", "{\"y\""),
            delta("a", ":1}"),
            delta("b", ":2}"),
            finish("a", "c1", "{\"x\":1}"),
            finish("b", "c2", "{\"y\":2}"),
            done.clone(),
        ],
        // Arguments only at the end.
        vec![
            added("a", "c1", -1),
            finish("a", "c1", "{\"x\":1}"),
            finish("b", "c2", "{\"y\":2}"),
            done.clone(),
        ],
        // Nothing is announced.
        vec![
            delta("a", "{\"x\":1}"),
            finish("a", "c1", ""),
            delta("b", "{\"y\":2}"),
            finish("b", "c2", ""),
            done,
        ],
        // All of it in the last event.
        vec![json!({"type": "response.completed", "response": {"status": "completed", "output": [
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"x\":1}"},
            {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{\"y\":2}"}]}})],
    ];
    for stream in streams {
        let response = fold(&events(&told(&stream), 1000));
        let expected = [call("c1", "f", "{\"x\":1}", false), call("c2", "f", "{\"y\":2}", false)];
        assert_eq!(response.choices[0].parts, expected, "{stream:?}");
    }
}

#[test]
fn a_cut_stream_has_no_end_and_a_failed_one_says_why() {
    let text = json!({"type": "response.output_text.delta", "delta": "a"});
    assert!(!events(&told(std::slice::from_ref(&text)), 9).contains(&Event::End));
    for failed in [
        json!({"type": "response.failed", "response": {"status": "failed", "error": {"code": "c", "message": "no"}}}),
        json!({"type": "error", "code": "c", "message": "no"}),
        json!({"type": "error", "error": {"code": "c", "message": "no"}}),
    ] {
        let events = events(&told(&[text.clone(), failed]), 9);
        let Some(Event::Failed(failure)) = events.last() else { panic!("{events:?}") };
        assert_eq!((failure.message.as_str(), failure.code.as_deref()), ("no", Some("c")));
    }
}

fn recordings() -> Vec<(PathBuf, Value, Vec<u8>)> {
    #[expect(
        clippy::disallowed_methods,
        reason = "where the recordings are is said to tests alone"
    )]
    let Ok(folder) = std::env::var("SWITCHPOINT_RECORDINGS") else {
        println!("SWITCHPOINT_RECORDINGS is not set: no recordings are read");
        return Vec::new();
    };
    let list = |path: &Path| std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let folders =
        list(Path::new(&folder)).filter(|path| path.to_string_lossy().ends_with("-responses"));
    let files = folders
        .flat_map(|path| list(&path))
        .filter(|path| path.extension().is_some_and(|kind| kind == "json"));
    let load = |path: PathBuf| {
        let facts = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let body = std::fs::read(path.with_extension("body")).unwrap();
        (path, facts, body)
    };
    files.map(load).collect()
}

/// A part under the id that it has after it was written.
fn known(part: &Part) -> Part {
    let mut part = part.clone();
    match &mut part.content {
        Content::ToolCall(call) => call.id = portable_id(&call.id).into_owned(),
        Content::ToolResult(result) => result.id = portable_id(&result.id).into_owned(),
        _ => {}
    }
    part
}

#[test]
fn what_servers_sent_is_read_and_written_without_loss() {
    let request = ChatRequest::default();
    for (path, facts, body) in recordings() {
        let has = |name: &str| facts["features"].as_array().unwrap().contains(&json!(name));
        if facts["status"] != 200 {
            assert!(CODEC.read_response(&body).is_err());
            continue;
        }
        let response = if has("stream") {
            let whole = events(&body, body.len());
            assert_eq!(events(&body, 7), whole);
            fold(&whole)
        } else {
            CODEC.read_response(&body).unwrap()
        };
        let choice = &response.choices[0];
        let some = |test: fn(&Content) -> bool| choice.parts.iter().any(|part| test(&part.content));
        assert!(
            !has("tool") || some(|content| matches!(content, Content::ToolCall(_))),
            "{path:?}"
        );
        assert!(
            !has("reasoning") || some(|content| matches!(content, Content::Reasoning(_))),
            "{path:?}"
        );
        if has("cached") {
            assert!(response.usage.unwrap().cache_read > 0, "{path:?}");
        }
        let again =
            CODEC.read_response(&CODEC.write_response(&response, &context(&request))).unwrap();
        assert_eq!(again.usage, response.usage, "{path:?}");
        let texts = |response: &ChatResponse| -> Vec<Content> {
            let parts = response.choices.iter().flat_map(|choice| &choice.parts);
            parts.map(|part| known(part).content).collect()
        };
        assert_eq!(texts(&again), texts(&response), "{path:?}");
        assert_eq!(
            texts(&fold(&events(&streamed(&response, &request), 99))),
            texts(&response),
            "{path:?}"
        );
        let asked = facts["request"]["body"].to_string();
        if facts["request"]["body"]["input"].is_array() {
            let asked = read::read(asked.as_bytes()).unwrap();
            let model = asked.model.clone();
            let written = CODEC.write_request(&asked, &aim(&model)).unwrap();
            let twice = read::read(&written.body).unwrap();
            let first = asked.messages.iter().flat_map(|message| &message.parts);
            let second = twice.messages.iter().flat_map(|message| &message.parts);
            assert!(second.map(known).eq(first.map(known)), "{path:?}");
        }
    }
}

fn part() -> impl Strategy<Value = Part> {
    let words = "[a-zé\"\\\\\n😀]{1,9}";
    let thought = (words, any::<bool>(), any::<bool>()).prop_map(|(text, summary, sealed)| {
        let opaque = sealed.then(|| Opaque { dialect: Dialect::Messages, data: json!(text) });
        let thought = Reasoning { text, summary, ..Reasoning::default() };
        Part { opaque, ..Part::new(Content::Reasoning(thought)) }
    });
    prop_oneof![
        words.prop_map(Part::text),
        words.prop_map(|text| Part::new(Content::Refusal(text))),
        thought,
        ("[a-z]{1,5}", words, any::<bool>())
            .prop_map(|(id, text, custom)| call(&id, &id, &text, custom)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn an_answer_is_the_same_after_it_was_written(parts in prop::collection::vec(part(), 0..6), size in 1_usize..200) {
        let (response, request) = (answer(parts), ChatRequest::default());
        let whole = CODEC.write_response(&response, &context(&request));
        let mut expected = response.clone();
        if expected.choices[0].parts.is_empty() {
            expected.choices[0].parts = Vec::new();
        }
        prop_assert_eq!(CODEC.read_response(&whole).unwrap(), expected.clone());
        prop_assert_eq!(fold(&events(&streamed(&response, &request), size)), expected);
    }

    #[test]
    fn no_bytes_break_a_reader(text in "\\PC{0,60}", cut in 0_usize..900, with in any::<u8>()) {
        let response = answer(vec![Part::text("a"), call("c", "f", "{}", false)]);
        let mut body = streamed(&response, &ChatRequest::default());
        let place = cut % body.len();
        body[place] = with;
        let mut reader = Reader::default();
        let mut events = Vec::new();
        for line in body.split(|byte| *byte == b'\n').chain([text.as_bytes()]) {
            let _ = reader.read(None, line.strip_prefix(b"data: ").unwrap_or(line), &mut events);
        }
        let _ = CODEC.read_response(&body);
        let _ = read::read(text.as_bytes());
    }
}

#[test]
fn a_thought_gives_way_to_words_that_come_before_it_is_done() {
    let stream = told(&[
        json!({"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning", "id": "rs_1", "summary": []}}),
        json!({"type": "response.reasoning_text.delta", "item_id": "rs_1", "delta": "hm"}),
        json!({"type": "response.output_text.delta", "item_id": "m", "output_index": 1, "delta": "so"}),
        json!({"type": "response.output_item.done", "output_index": 0, "item": {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}}),
        json!({"type": "response.completed", "response": {"status": "completed", "output": []}}),
    ]);
    let seen = events(&stream, 50);
    assert!(seen.contains(&Event::Open { choice: 0, part: Opening::Text }));
    assert!(seen.contains(&Event::Delta { choice: 0, delta: Delta::Text("so".into()) }));
    assert_eq!(fold(&seen).choices[0].parts.len(), 2);
}

const ANSWER: &[u8] = include_bytes!("../../../tests/fixtures/dialects/responses/answer.json");
const STREAM: &[u8] = include_bytes!("../../../tests/fixtures/dialects/responses/stream.sse");

#[test]
fn a_rich_answer_is_read_whole_and_written_as_it_was() {
    let response = CODEC.read_response(ANSWER).unwrap();
    let kinds: Vec<&str> = response.choices[0]
        .parts
        .iter()
        .map(|part| match &part.content {
            Content::Reasoning(thought) if thought.summary => "summary",
            Content::Foreign(_) => "foreign",
            Content::Text { citations, .. } if citations.len() == 1 => "cited",
            Content::Refusal(_) => "refusal",
            Content::ToolCall(ToolCall { custom, .. }) => ["call", "custom"][usize::from(*custom)],
            _ => "?",
        })
        .collect();
    assert_eq!(kinds, ["summary", "foreign", "cited", "refusal", "call", "custom"]);
    let usage = Usage { input: 20, cache_read: 100, output: 60, reasoning: 20, ..Usage::default() };
    assert_eq!(response.usage, Some(usage));
    let request = ChatRequest::default();
    let written: Value =
        serde_json::from_slice(&CODEC.write_response(&response, &context(&request))).unwrap();
    let expected: Value = serde_json::from_slice(ANSWER).unwrap();
    let without_ids = |answer: &Value| {
        let mut items = answer["output"].clone();
        for item in items.as_array_mut().unwrap() {
            item.as_object_mut().unwrap().shift_remove("id");
        }
        items
    };
    assert_eq!(without_ids(&written), without_ids(&expected));
    for field in ["status", "model", "usage", "service_tier", "created_at"] {
        assert_eq!(written[field], expected[field], "{field}");
    }
}

#[test]
fn a_rich_stream_folds_to_the_answer_it_streams() {
    let whole = CODEC.read_response(ANSWER).unwrap();
    for size in [1, 13, STREAM.len()] {
        assert_eq!(fold(&events(STREAM, size)), whole, "in pieces of {size}");
    }
}
