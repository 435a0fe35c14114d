//! What holds for the whole dialect: recordings, fixtures, properties.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde_json::{Value, json};

use super::stream::Reader;
use super::{CODEC, request, response};
use crate::canon::{
    ChatRequest, ChatResponse, Choice, Citation, Content, Dialect, Event, Finish, FinishReason,
    Foreign, Opaque, Part, Reasoning, ToolCall, Usage,
};
use crate::dialect::fold::{Fold, unfold};
use crate::dialect::sse::Decoder;
use crate::dialect::{ClientSide, Context, ReadStream, UpstreamSide};
use crate::error::{Error, Kind};

pub(super) fn context(request: &ChatRequest) -> Context<'_> {
    Context {
        id: "0123456789abcdef0123456789abcdef",
        created: 1_700_000_000,
        model: "claude-sonnet-4-5",
        input_estimate: 12,
        previous: None,
        request,
    }
}

/// All events of a stream that arrives in pieces of this size, and how many made no sense.
pub(super) fn events(body: &[u8], size: usize) -> (Vec<Event>, usize) {
    let (mut decoder, mut reader) = (Decoder::default(), Reader::default());
    let (mut events, mut malformed) = (Vec::new(), 0);
    let mut note = |decoder: &Decoder, frame: &crate::dialect::sse::Frame| {
        let Some(data) = decoder.data(frame) else { return };
        malformed += usize::from(reader.read(decoder.event(frame), &data, &mut events).is_err());
    };
    for piece in body.chunks(size.max(1)) {
        decoder.buffer().extend_from_slice(piece);
        while let Some(frame) = decoder.next_frame() {
            note(&decoder, &frame);
            decoder.discard(frame.range.end);
        }
    }
    if let Some(frame) = decoder.last_frame() {
        note(&decoder, &frame);
    }
    reader.end(&mut events);
    (events, malformed)
}

pub(super) fn fold(events: &[Event]) -> Result<ChatResponse, String> {
    let mut fold = Fold::default();
    for event in events {
        fold.add(event);
    }
    fold.finish().map_err(|failure| format!("{failure:?}"))
}

pub(super) fn stream_of(response: &ChatResponse) -> Vec<u8> {
    let question = ChatRequest::default();
    let mut writer = CODEC.writer(&context(&question));
    let mut out = Vec::new();
    for event in unfold(response) {
        writer.write(&event, &mut out);
    }
    out
}

fn written(response: &ChatResponse) -> Vec<u8> {
    response::write(response, &context(&ChatRequest::default()))
}

/// The rules of a stream, checked; `Err` says which is broken.
pub(super) fn keeps_the_rules(events: &[Event]) -> Result<(), String> {
    let (mut open, mut finished, mut ended) = (false, false, false);
    for (place, event) in events.iter().enumerate() {
        let fits = match event {
            Event::Start(_) => place == 0,
            Event::Open { .. } => !std::mem::replace(&mut open, true) && !finished,
            Event::Delta { .. } => open,
            Event::Close { .. } => std::mem::replace(&mut open, false),
            Event::Finish { .. } => !open && !std::mem::replace(&mut finished, true),
            Event::Usage(_) | Event::Failed(_) | Event::Aside(_) => true,
            Event::End => {
                finished && place == events.len() - 1 && !std::mem::replace(&mut ended, true)
            }
        };
        if !fits {
            return Err(format!("event {place} is out of place: {event:?}"));
        }
    }
    Ok(())
}

// === recordings ===

struct Recording {
    name: String,
    facts: Value,
    body: Vec<u8>,
}

fn recordings() -> Vec<Recording> {
    let Some(folder) = std::env::var_os("SWITCHPOINT_RECORDINGS").map(PathBuf::from) else {
        println!("SWITCHPOINT_RECORDINGS is not set: no recordings are read");
        return Vec::new();
    };
    let list = |path: &Path| -> Vec<PathBuf> {
        std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let files = ["anthropic", "bedrock-invoke"].iter().flat_map(|name| list(&folder.join(name)));
    let facts = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: PathBuf| Recording {
        name: path.file_stem().unwrap().to_string_lossy().into_owned(),
        facts: serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap(),
        body: std::fs::read(path.with_extension("body")).unwrap(),
    };
    let is_message = |recording: &Recording| !recording.name.starts_with("testbedrock");
    facts.map(read).filter(is_message).collect()
}

impl Recording {
    fn has(&self, feature: &str) -> bool {
        self.facts["features"].as_array().unwrap().iter().any(|name| name == feature)
    }

    fn answer(&self) -> ChatResponse {
        let name = &self.name;
        if !self.has("stream") {
            return response::read(&self.body).unwrap_or_else(|error| panic!("{name}: {error}"));
        }
        let (whole, malformed) = events(&self.body, self.body.len());
        assert_eq!(malformed, 0, "{name}");
        keeps_the_rules(&whole).unwrap_or_else(|error| panic!("{name}: {error}"));
        for size in [1, 7, 64] {
            assert_eq!(events(&self.body, size).0, whole, "{name}: in pieces of {size}");
        }
        fold(&whole).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    fn check(&self) {
        let name = &self.name;
        if self.facts["status"] != 200 {
            assert!(response::read(&self.body).is_err(), "{name}");
            return;
        }
        let answer = compact(self.answer());
        let parts = &answer.choices[0].parts;
        let has = |is: fn(&Part) -> bool| parts.iter().any(is);
        let called = answer.choices[0].finish.reason == FinishReason::ToolCalls;
        assert_eq!(self.has("tool"), called, "{name}: tool calls");
        let calls = has(|part| matches!(part.content, Content::ToolCall(_)));
        assert!(!called || calls, "{name}: no call");
        if self.has("reasoning") {
            assert!(
                has(|part| matches!(part.content, Content::Reasoning(_)) && part.opaque.is_some()),
                "{name}: no thoughts"
            );
        }
        if self.has("servertool") {
            assert!(has(|part| matches!(part.content, Content::Foreign(_))), "{name}: no block");
        }
        let cited = |part: &Part| matches!(&part.content, Content::Text { citations, .. } if !citations.is_empty());
        assert_eq!(self.has("citations"), parts.iter().any(cited), "{name}: citations");
        self.check_usage(&answer);
        let again = response::read(&written(&answer)).unwrap();
        assert_eq!(again, answer, "{name}: written and read again");
        let (streamed, _) = events(&stream_of(&answer), 31);
        assert_eq!(fold(&streamed), Ok(as_streamed(answer)), "{name}: streamed and read again");
    }

    fn check_usage(&self, answer: &ChatResponse) {
        let last = |body: &str| -> Value {
            // One recording holds two answers.
            let first = body.split("message_stop").next().unwrap_or_default();
            let lines = first.lines().filter_map(|line| line.strip_prefix("data:"));
            let usage = lines.rev().find_map(|data| {
                let event: Value = serde_json::from_str(data).ok()?;
                event.get("usage").cloned()
            });
            usage.unwrap_or_default()
        };
        let told = match serde_json::from_slice::<Value>(&self.body) {
            Ok(message) => message["usage"].clone(),
            Err(_) => last(&String::from_utf8_lossy(&self.body)),
        };
        let usage = answer.usage.unwrap();
        let count = |name: &str| {
            let runs = told["iterations"].as_array().into_iter().flatten();
            let all: u64 = runs.filter_map(|run| run[name].as_u64()).sum();
            told[name].as_u64().map(|said| said.max(all))
        };
        assert_eq!(Some(usage.output), count("output_tokens"), "{}", self.name);
        if let Some(input) = count("input_tokens") {
            let cached = count("cache_read_input_tokens").unwrap_or(0)
                + count("cache_creation_input_tokens").unwrap_or(0);
            assert_eq!(usage.input_total(), input + cached, "{}", self.name);
        }
    }
}

/// Arguments without the white space between their tokens, as an object in a block has them.
fn compact(mut answer: ChatResponse) -> ChatResponse {
    for part in answer.choices.iter_mut().flat_map(|choice| &mut choice.parts) {
        if let Content::ToolCall(call) = &mut part.content
            && let Ok(value) = serde_json::from_str::<Value>(&call.arguments)
        {
            call.arguments = value.to_string();
        }
    }
    answer
}

/// What a stream of ours cannot say: for how long cache entries are kept, which the API says only
/// before it knows them.
fn as_streamed(mut answer: ChatResponse) -> ChatResponse {
    if let Some(usage) = &mut answer.usage {
        usage.cache_write += std::mem::take(&mut usage.cache_write_long);
    }
    answer
}

#[test]
fn every_recorded_answer_is_read_and_survives_being_written() {
    recordings().iter().for_each(Recording::check);
}

#[test]
fn every_recorded_question_survives_being_written() {
    for recording in recordings() {
        let body = &recording.facts["request"]["body"];
        if !body["messages"].is_array() {
            continue;
        }
        let name = &recording.name;
        let question = request::read(body.to_string().as_bytes())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let model = question.model.clone();
        let traits = crate::dialect::Traits::NONE;
        let aim = crate::dialect::Aim { model: &model, traits: &traits, cache: None };
        let sent =
            CODEC.write_request(&question, &aim).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(sent, CODEC.write_request(&question, &aim).unwrap(), "{name}");
        let again = request::read(&sent.body).unwrap();
        assert_eq!(again.messages, question.messages, "{name}");
        assert_eq!(again.tools, question.tools, "{name}");
        assert_eq!(again.extras, question.extras, "{name}");
        assert_eq!(again.format, question.format, "{name}");
    }
}

// === properties ===

fn text() -> impl Strategy<Value = String> {
    prop_oneof![Just("日本 \"so\"\n".to_owned()), Just(" \\ ".to_owned()), "[a-z😀é]{1,12}"]
}

fn data() -> impl Strategy<Value = Value> {
    prop_oneof![Just(json!({"q": ["日本", 1, null], "a": {"b": 1.5}})), Just(json!({}))]
}

fn own(data: Value) -> Opaque {
    Opaque { dialect: Dialect::Messages, data }
}

fn reasoning() -> impl Strategy<Value = Part> {
    let state = prop_oneof![
        Just(None),
        Just(Some(own(json!({ "signature": "EqQBCgIYAhIM/+==" })))),
        Just(Some(Opaque { dialect: Dialect::Responses, data: json!({"id": "rs_1"}) })),
        Just(Some(Opaque { dialect: Dialect::Gemini, data: json!("c2ln") })),
    ];
    let redacted = Just(own(json!({ "data": "EmwKAhgBEgy3va3p" }))).prop_map(|opaque| {
        let reasoning = Reasoning { redacted: true, ..Reasoning::default() };
        Part { opaque: Some(opaque), ..Part::new(Content::Reasoning(reasoning)) }
    });
    let shown = (prop_oneof![Just(String::new()), text()], state).prop_map(|(text, opaque)| {
        let reasoning = Reasoning { text, ..Reasoning::default() };
        Part { opaque, ..Part::new(Content::Reasoning(reasoning)) }
    });
    prop_oneof![4 => shown, 1 => redacted]
}

fn cited() -> impl Strategy<Value = Part> {
    let original = json!({
        "type": "char_location", "cited_text": "q", "document_index": 0,
        "document_title": "t", "start_char_index": 0, "end_char_index": 1,
    });
    let own = Citation {
        title: Some("t".to_owned()),
        quote: Some("q".to_owned()),
        original: Some(Opaque { dialect: Dialect::Messages, data: original }),
        ..Citation::default()
    };
    let other = Citation {
        url: Some("https://a.example/".to_owned()),
        quote: Some("q".to_owned()),
        ..Citation::default()
    };
    let citations = proptest::collection::vec(prop_oneof![Just(own), Just(other)], 0..3);
    (text(), citations).prop_map(|(text, citations)| Part::new(Content::Text { text, citations }))
}

pub(super) fn call() -> impl Strategy<Value = Part> {
    let caller =
        prop_oneof![Just(None), Just(Some(own(json!({ "caller": { "type": "direct" } }))))];
    ("toolu_[a-zA-Z0-9]{1,20}", "[a-z_]{1,10}", data(), caller).prop_map(
        |(id, name, input, opaque)| {
            let arguments = input.to_string();
            let call = ToolCall { id, name, arguments, custom: false };
            Part { opaque, ..Part::new(Content::ToolCall(call)) }
        },
    )
}

pub(super) fn hosted() -> impl Strategy<Value = Part> {
    let block = |value| Part::new(Content::Foreign(Foreign { dialect: Dialect::Messages, value }));
    prop_oneof![
        data().prop_map(move |input| block(
            json!({ "type": "server_tool_use", "id": "srvtoolu_1", "name": "s", "input": input })
        )),
        data().prop_map(move |result| block(
            json!({ "type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [result] })
        )),
    ]
}

fn usage() -> impl Strategy<Value = Usage> {
    (0..9000_u64, 0..900_u64, 0..90_u64, 0..90_u64, 0..900_u64, 0..90_u64).prop_map(
        |(input, cache_read, cache_write, cache_write_long, output, reasoning)| Usage {
            input,
            cache_read,
            cache_write,
            cache_write_long,
            output: output + reasoning,
            reasoning,
            ..Usage::default()
        },
    )
}

fn finish() -> impl Strategy<Value = Finish> {
    let reason = prop_oneof![
        Just(FinishReason::Length),
        Just(FinishReason::ContextFull),
        Just(FinishReason::Refusal),
        Just(FinishReason::Pause),
        Just(FinishReason::ToolCalls),
    ];
    prop_oneof![
        reason.prop_map(|reason| Finish { reason, stop_sequence: None, ..Finish::default() }),
        Just(Finish {
            reason: FinishReason::Stop,
            stop_sequence: Some("END".to_owned()),
            ..Finish::default()
        }),
    ]
}

prop_compose! {
    fn answer()(
        parts in proptest::collection::vec(
            prop_oneof![reasoning(), cited(), call(), hosted()], 0..6),
        finish in finish(),
        usage in usage(),
        tier in prop_oneof![Just(None), Just(Some("default".to_owned())), Just(Some("priority".to_owned()))],
    ) -> ChatResponse {
        let mut parts = parts;
        response::place_citations(&mut parts);
        ChatResponse {
            id: "msg_1".to_owned(),
            model: "claude-x".to_owned(),
            choices: vec![Choice { parts, finish, logprobs: None }],
            usage: Some(usage),
            service_tier: tier,
            ..ChatResponse::default()
        }
    }
}

fn mutated(body: &str, at: usize, byte: u8, cut: bool) -> Vec<u8> {
    let mut bytes = body.as_bytes().to_vec();
    let at = at % bytes.len();
    bytes[at] = byte;
    if cut {
        bytes.truncate(at);
    }
    bytes
}

const ANSWER: &str = include_str!("../../../tests/fixtures/dialects/messages/answer.json");
const QUESTION: &str = include_str!("../../../tests/fixtures/dialects/messages/question.json");
const STREAM: &str = include_str!("../../../tests/fixtures/dialects/messages/stream.sse");

proptest! {
    #[test]
    fn an_answer_that_is_written_and_read_is_the_same(answer in answer()) {
        prop_assert_eq!(response::read(&written(&answer)).unwrap(), answer);
    }

    #[test]
    fn an_answer_that_is_streamed_and_read_is_the_same(answer in answer(), size in 1_usize..200) {
        let stream = stream_of(&answer);
        super::stream::accepts(&stream).unwrap();
        let (events, malformed) = events(&stream, size);
        prop_assert_eq!(malformed, 0);
        prop_assert_eq!(keeps_the_rules(&events), Ok(()));
        prop_assert_eq!(fold(&events), Ok(as_streamed(answer)));
    }

    #[test]
    fn no_bytes_break_a_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = (response::read(&bytes), request::read(&bytes), events(&bytes, 9));
        let mut reader = Reader::default();
        let _ = reader.read(None, &bytes, &mut Vec::new());
    }

    #[test]
    fn no_damaged_body_breaks_a_reader(at in any::<usize>(), byte in any::<u8>(), cut in any::<bool>()) {
        let _ = response::read(&mutated(ANSWER, at, byte, cut));
        let _ = request::read(&mutated(QUESTION, at, byte, cut));
        let _ = events(&mutated(STREAM, at, byte, cut), 50);
    }

    #[test]
    fn no_order_of_events_breaks_the_rules(
        order in proptest::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let frames: Vec<&str> = STREAM.split_inclusive("\n\n").collect();
        let shuffled: String = order.iter().map(|at| *at.get(&frames)).collect();
        let (events, _) = events(shuffled.as_bytes(), 64);
        let rules = keeps_the_rules(&events);
        prop_assert!(rules.is_ok(), "{rules:?} in {shuffled}");
    }
}

// === fixtures ===

#[test]
fn a_rich_answer_is_read_whole_and_written_as_it_was() {
    let answer = response::read(ANSWER.as_bytes()).unwrap();
    let expected: Value = serde_json::from_str(ANSWER).unwrap();
    let written: Value = serde_json::from_slice(&written(&answer)).unwrap();
    assert_eq!(written, expected);
    let usage = answer.usage.unwrap();
    assert_eq!((usage.input, usage.cache_read, usage.total()), (21, 1800, 21 + 1800 + 250 + 503));
    assert_eq!((usage.cache_write, usage.cache_write_long, usage.reasoning), (150, 100, 120));
}

#[test]
fn a_rich_stream_folds_to_the_answer_it_streams() {
    let (events, malformed) = events(STREAM.as_bytes(), 13);
    assert_eq!(malformed, 0);
    keeps_the_rules(&events).unwrap();
    let answer = response::read(ANSWER.as_bytes()).unwrap();
    assert_eq!(fold(&events), Ok(answer));
}

#[test]
fn state_of_another_dialect_comes_back_on_the_part_it_came_with() {
    let state = Opaque { dialect: Dialect::Gemini, data: json!("CpYBAXLI") };
    let call = ToolCall {
        id: "call:1".to_owned(),
        name: "look".to_owned(),
        arguments: r#"{"a":1}"#.to_owned(),
        custom: false,
    };
    let part = Part { opaque: Some(state.clone()), ..Part::new(Content::ToolCall(call)) };
    let choice = Choice { parts: vec![part, Part::text("so")], ..Choice::default() };
    let answer = ChatResponse { choices: vec![choice], ..ChatResponse::default() };
    let streamed = fold(&events(&stream_of(&answer), 99).0).unwrap();
    for body in [written(&answer), written(&streamed)] {
        let message: Value = serde_json::from_slice(&body).unwrap();
        let turn = json!({ "role": "assistant", "content": message["content"] });
        let question = json!({ "model": "m", "messages": [turn] }).to_string();
        let read = request::read(question.as_bytes()).unwrap();
        let parts = &read.messages[0].parts;
        assert_eq!(parts[0].opaque.as_ref(), Some(&state));
        assert_eq!(parts.len(), 2);
    }
}

#[test]
fn a_call_that_was_cut_off_never_becomes_an_empty_one() {
    let call = ToolCall {
        id: "1".to_owned(),
        name: "write".to_owned(),
        arguments: r#"{"text":"Once up"#.to_owned(),
        custom: false,
    };
    let finish = Finish { reason: FinishReason::Length, stop_sequence: None, ..Finish::default() };
    let choice = Choice { parts: vec![Part::new(Content::ToolCall(call))], finish, logprobs: None };
    let answer = ChatResponse { choices: vec![choice], ..ChatResponse::default() };
    let body: Value = serde_json::from_slice(&written(&answer)).unwrap();
    assert_eq!(body["content"][0]["text"], r#"write({"text":"Once up)"#);
    assert_eq!(body["stop_reason"], "max_tokens");
}

#[test]
fn an_error_is_told_in_the_apis_words_beside_our_code() {
    let read =
        |error: &Error| -> Value { serde_json::from_slice(&CODEC.write_error(error)).unwrap() };
    let mut error = Error::new(Kind::RateLimited, "slow down");
    let body = read(&error);
    assert_eq!(body["type"], "error");
    assert_eq!(body["error"]["type"], "rate_limit_error");
    assert_eq!(body["error"]["code"], "rate_limited");
    error.upstream = Some(Box::new(crate::error::Upstream {
        kind: Some("overloaded_error".to_owned()),
        ..Default::default()
    }));
    assert_eq!(read(&error)["error"]["type"], "overloaded_error");
    let event = CODEC.write_error_event(&error);
    let (events, _) = events(&event, 10);
    assert!(matches!(&events[..], [Event::Failed(failure)] if failure.status == Some(529)));
}

#[test]
fn an_estimate_is_near_what_the_api_counted() {
    let (mut worst, mut checked) = (0, 0);
    for recording in recordings() {
        let body = recording.facts["request"]["body"].to_string();
        let whole = !body.contains("chars cut]") && recording.facts["status"] == 200;
        let Ok(question) = request::read(body.as_bytes()) else { continue };
        // Hosted tools bring prompts of their own, answers in a format another.
        let plain =
            question.tools.iter().all(|tool| matches!(tool, crate::canon::Tool::Function { .. }))
                && question.format == crate::canon::Format::Text
                && question.extras.fields.is_empty();
        if !whole || !plain || !recording.facts["request"]["body"]["messages"].is_array() {
            continue;
        }
        let Some(usage) = recording.answer().usage else { continue };
        let estimate = crate::dialect::estimate::tokens(&question, Dialect::Messages, None);
        let (counted, off) = (usage.input_total(), estimate.abs_diff(usage.input_total()));
        println!("{} counted {counted}, estimated {estimate}", recording.name);
        let redacted = recording.has("redacted") || body.contains("redacted_thinking");
        let percent = off * 100 / counted.max(1);
        if !redacted && off > 30 {
            worst = worst.max(percent);
        }
        checked += 1;
    }
    println!("{checked} estimates, the worst off by {worst} %");
}

/// An answer read from this body and written as a whole and as a stream, each read again.
fn told_again(body: &Value) -> [ChatResponse; 2] {
    let response = CODEC.read_response(body.to_string().as_bytes()).unwrap();
    let request = ChatRequest::default();
    let whole = CODEC.write_response(&response, &context(&request));
    let written: Value = serde_json::from_slice(&whole).unwrap();
    for field in ["content", "stop_details"] {
        assert_eq!(written.get(field), body.get(field));
    }
    let streamed = fold(&events(&stream_of(&response), 7).0).unwrap();
    let again = [CODEC.read_response(&whole).unwrap(), streamed];
    assert_eq!(again[0], response);
    assert_eq!(again[1].choices, response.choices);
    again
}

#[test]
fn who_calls_a_tool_and_why_the_model_declined_survive_every_way_of_writing() {
    let caller = json!({"type": "code_execution_20250825", "tool_id": "srvtoolu_1"});
    told_again(&json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "tool_use", "id": "toolu_1", "name": "f", "input": {"a": 1}, "caller": caller}],
        "stop_reason": "tool_use", "usage": {"input_tokens": 1, "output_tokens": 2},
    }));
    let [whole, _] = told_again(&json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m",
        "content": [{"type": "text", "text": "Well,"}], "stop_reason": "refusal",
        "stop_details": {"type": "refusal", "category": "cyber", "explanation": "Not this."},
        "usage": {"input_tokens": 1, "output_tokens": 2},
    }));
    let refusal = &whole.choices[0].parts[1].content;
    assert_eq!(refusal, &Content::Refusal("Not this.".into()));
}

#[test]
fn runs_that_the_totals_leave_out_are_counted() {
    let body = json!({"content": [], "usage": {
        "input_tokens": 181, "output_tokens": 8, "cache_read_input_tokens": 0,
        "iterations": [
            {"type": "compaction", "input_tokens": 100, "output_tokens": 83, "cache_read_input_tokens": 55_096},
            {"type": "message", "input_tokens": 181, "output_tokens": 8, "cache_read_input_tokens": 0},
        ],
    }});
    let read = CODEC.read_response(body.to_string().as_bytes()).unwrap();
    let expected = Usage { input: 281, cache_read: 55_096, output: 91, ..Usage::default() };
    assert_eq!(read.usage, Some(expected));
}
