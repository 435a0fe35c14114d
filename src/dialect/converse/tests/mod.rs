//! Converse held against what Bedrock sends and takes.

mod questions;
mod wire;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::CODEC;
use crate::canon::{
    ChatResponse, Choice, Content, Dialect, Event, Finish, FinishReason, Media, MediaKind, Opaque,
    Part, Reasoning, Source, ToolCall, Usage,
};
use crate::dialect::UpstreamSide;
use crate::dialect::fold::{Fold, unfold};
use crate::dialect::row::tests::{assert_in_order, recordings};
use crate::dialect::sse::Decoder;

const ANSWER: &[u8] = include_bytes!("../../../../tests/fixtures/dialects/converse/answer.json");

fn thought(text: &str, redacted: bool, state: Option<&str>) -> Part {
    let reasoning = Reasoning { text: text.into(), redacted, ..Reasoning::default() };
    let opaque = state.map(|state| Opaque { dialect: Dialect::Converse, data: json!(state) });
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

#[test]
fn a_whole_answer_keeps_all_it_says() {
    let answer = CODEC.read_response(ANSWER).unwrap();
    let parts = &answer.choices[0].parts;
    assert_eq!(parts.len(), 7, "the empty text is left out: {parts:#?}");
    assert_eq!(parts[0], thought("Look it up.", false, Some("EqQBCkgIBRAB")));
    assert_eq!(parts[1], thought("", true, Some("RXRrRUNrZ0k=")));
    assert_eq!(parts[2], Part::text("I will look."));
    let Content::Text { text, citations } = &parts[3].content else { panic!("{parts:#?}") };
    assert_eq!(text, "It rains.");
    assert_eq!(citations[0].url.as_deref(), Some("https://weather.example/today"));
    assert_eq!(citations[0].title.as_deref(), Some("Weather.pdf"));
    assert_eq!(citations[0].quote.as_deref(), Some("Rain all day."));
    assert_eq!(parts[4], call("tooluse_1", "weather", "{\"city\":\"Zürich\",\"days\":2}"));
    for part in &parts[5..] {
        assert!(
            matches!(&part.content, Content::Foreign(block) if block.dialect == Dialect::Converse)
        );
    }
    let finish = &answer.choices[0].finish;
    assert_eq!(finish.reason, FinishReason::ToolCalls);
    assert_eq!(finish.stop_sequence.as_deref(), Some("END"));
    assert_eq!(answer.service_tier.as_deref(), Some("priority"));
    let usage = answer.usage.unwrap();
    assert_eq!((usage.input, usage.cache_read), (12, 1000));
    assert_eq!((usage.cache_write, usage.cache_write_long, usage.output), (100, 200, 40));
    assert_eq!(usage.total(), 1352);
}

/// Reads a stream in pieces of so many bytes and checks that its events keep the rules.
fn read_bytes(body: &[u8], size: usize) -> Vec<Event> {
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

fn read(events: &[(&str, Value)]) -> Vec<Event> {
    read_bytes(&wire::lines(events), 64)
}

fn fold(events: &[Event]) -> ChatResponse {
    let mut fold = Fold::default();
    for event in events {
        fold.add(event);
    }
    fold.finish().unwrap()
}

#[test]
fn a_stream_without_starts_and_stops_is_read_all_the_same() {
    let events = read(&[
        ("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": ""}})),
        (
            "contentBlockDelta",
            json!({"contentBlockIndex": 1, "delta": {"reasoningContent": {"text": "Hm"}}}),
        ),
        (
            "contentBlockDelta",
            json!({"contentBlockIndex": 1, "delta": {"reasoningContent": {"signature": "sig"}}}),
        ),
        ("contentBlockDelta", json!({"contentBlockIndex": 2, "delta": {"text": "So"}, "p": "abc"})),
        (
            "contentBlockStart",
            json!({"contentBlockIndex": 3, "start": {"toolUse": {"toolUseId": "a", "name": "f"}}}),
        ),
        ("contentBlockDelta", json!({"contentBlockIndex": 3, "delta": {"toolUse": {"input": ""}}})),
        ("messageStop", json!({"stopReason": "tool_use"})),
    ]);
    assert_eq!(events.last(), Some(&Event::End));
    let parts = fold(&events).choices.remove(0).parts;
    assert_eq!(parts, [thought("Hm", false, Some("sig")), Part::text("So"), call("a", "f", "{}")]);
}

#[test]
fn a_picture_in_a_stream_is_put_together_from_its_pieces() {
    let bytes = |data: &str| json!({"image": {"source": {"bytes": data}}});
    let events = read(&[
        ("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": "So"}})),
        (
            "contentBlockStart",
            json!({"contentBlockIndex": 1, "start": {"image": {"format": "png"}}}),
        ),
        ("contentBlockDelta", json!({"contentBlockIndex": 1, "delta": bytes("YQ==")})),
        ("contentBlockDelta", json!({"contentBlockIndex": 1, "delta": bytes("Yg==")})),
        ("contentBlockStop", json!({"contentBlockIndex": 1})),
        ("messageStop", json!({"stopReason": "end_turn"})),
    ]);
    assert_in_order(&events);
    let source = Source::Base64 { media_type: "image/png".into(), data: "YWI=".into() };
    let picture = Part::new(Content::Media(Media::new(MediaKind::Image, source)));
    assert_eq!(fold(&events).choices.remove(0).parts, [Part::text("So"), picture]);
}

#[test]
fn a_citation_stands_for_the_text_that_bears_it() {
    let source = json!({"title": "A", "location": {"web": {"url": "https://a.example"}}});
    let content = json!([{"text": "No. "}, {"citationsContent": {
        "content": [{"text": "Ça va."}], "citations": [source],
    }}]);
    let body = json!({"output": {"message": {"content": content}}, "stopReason": "end_turn"});
    let whole = CODEC.read_response(body.to_string().as_bytes()).unwrap();
    let delta =
        |index, delta| ("contentBlockDelta", json!({"contentBlockIndex": index, "delta": delta}));
    let events = read(&[
        delta(0, json!({"text": "No. "})),
        delta(1, json!({"citation": source})),
        delta(1, json!({"text": "Ça va."})),
        ("contentBlockStart", json!({"contentBlockIndex": 2, "start": {}})),
        ("messageStop", json!({"stopReason": "end_turn"})),
    ]);
    assert_in_order(&events);
    for mut answer in [whole, fold(&events)] {
        let parts = answer.choices.remove(0).parts;
        let Content::Text { text, citations } = &parts[1].content else { panic!("{parts:#?}") };
        assert_eq!((text.as_str(), citations.len()), ("Ça va.", 1));
        assert_eq!((citations[0].start, citations[0].end), (Some(4), Some(10)));
    }
}

#[test]
fn calls_that_overlap_are_told_apart() {
    let start = |index: u64, id: &str| json!({"contentBlockIndex": index, "start": {"toolUse": {"toolUseId": id, "name": "f"}}});
    let input = |index: u64, text: &str| json!({"contentBlockIndex": index, "delta": {"toolUse": {"input": text}}});
    let events = read(&[
        ("messageStart", json!({"role": "assistant"})),
        ("contentBlockStart", start(0, "a")),
        ("contentBlockStart", start(1, "b")),
        ("contentBlockDelta", input(1, "{\"n\":")),
        ("contentBlockDelta", input(0, "{\"n\":1}")),
        ("contentBlockDelta", input(1, "2}")),
        ("contentBlockStart", start(1, "c")),
        ("contentBlockStop", json!({"contentBlockIndex": 0})),
        ("contentBlockStop", json!({"contentBlockIndex": 1})),
        ("metadata", json!({"usage": {"inputTokens": 3, "outputTokens": 4, "totalTokens": 7}})),
        ("messageStop", json!({"stopReason": "tool_use"})),
    ]);
    let answer = fold(&events);
    let expected = [call("a", "f", "{\"n\":1}"), call("b", "f", "{\"n\":2}"), call("c", "f", "{}")];
    assert_eq!(answer.choices[0].parts, expected);
    assert_eq!(answer.usage.unwrap().total(), 7);
}

#[test]
fn a_hosted_tool_goes_out_as_the_block_that_whole_answers_have() {
    let events = read(&[
        (
            "contentBlockStart",
            json!({"contentBlockIndex": 0, "start": {"toolUse": {"toolUseId": "s", "name": "nova_code_interpreter", "type": "server_tool_use"}}}),
        ),
        (
            "contentBlockDelta",
            json!({"contentBlockIndex": 0, "delta": {"toolUse": {"input": "{\"snippet\":\"1\"}"}}}),
        ),
        ("contentBlockStop", json!({"contentBlockIndex": 0})),
        (
            "contentBlockStart",
            json!({"contentBlockIndex": 1, "start": {"toolResult": {"toolUseId": "s", "type": "r", "status": "success"}}}),
        ),
        (
            "contentBlockDelta",
            json!({"contentBlockIndex": 1, "delta": {"toolResult": [{"json": {"stdOut": "1"}}]}}),
        ),
        ("contentBlockStop", json!({"contentBlockIndex": 1})),
        ("messageStop", json!({"stopReason": "end_turn"})),
    ]);
    let parts = fold(&events).choices.remove(0).parts;
    let blocks: Vec<Value> = parts
        .into_iter()
        .filter_map(|part| match part.content {
            Content::Foreign(block) => Some(block.value),
            _ => None,
        })
        .collect();
    assert_eq!(blocks[0]["toolUse"]["input"], json!({"snippet": "1"}));
    assert_eq!(blocks[1]["toolResult"]["content"], json!([{"json": {"stdOut": "1"}}]));
}

#[test]
fn an_exception_in_a_stream_is_a_failure_with_its_status_and_ends_it() {
    let events = read(&[
        ("messageStart", json!({"role": "assistant"})),
        ("error", json!({"__type": "throttlingException", "message": "Too many tokens."})),
        ("messageStop", json!({"stopReason": "end_turn"})),
    ]);
    let Some(Event::Failed(failure)) = events.last() else { panic!("{events:#?}") };
    assert_eq!(failure.status, Some(429));
    assert_eq!(failure.message, "Too many tokens.");
    let events = read(&[(
        "modelStreamErrorException",
        json!({"originalStatusCode": 529, "originalMessage": "Overloaded"}),
    )]);
    let Some(Event::Failed(failure)) = events.last() else { panic!("{events:#?}") };
    assert_eq!((failure.status, failure.message.as_str()), (Some(529), "Overloaded"));
}

#[test]
fn a_call_without_a_name_fails_the_answer_and_is_not_made_up() {
    let mut reader = CODEC.reader();
    let mut events = Vec::new();
    let input = b"{\"contentBlockIndex\":0,\"delta\":{\"toolUse\":{\"input\":\"{}\"}}}";
    assert!(reader.read(None, input, &mut events).is_err());
    reader.read(None, b"{\"stopReason\":\"tool_use\"}", &mut events).unwrap();
    reader.end(&mut events);
    assert!(matches!(events.last(), Some(Event::Failed(_))), "{events:#?}");
    assert_in_order(&events);
}

#[test]
fn a_stream_that_was_cut_has_no_end() {
    let events = read(&[
        ("messageStart", json!({"role": "assistant"})),
        ("contentBlockDelta", json!({"contentBlockIndex": 0, "delta": {"text": "Half of"}})),
    ]);
    assert!(!events.contains(&Event::End));
    assert!(!events.iter().any(|event| matches!(event, Event::Finish { .. })));
}

fn any_part() -> impl Strategy<Value = Part> {
    let state = || proptest::option::of("[A-Za-z0-9+/=]{1,9}");
    prop_oneof![
        "\\PC{1,12}".prop_map(Part::text),
        ("\\PC{1,12}", state()).prop_map(|(text, state)| thought(&text, false, state.as_deref())),
        "[A-Za-z0-9+/=]{1,9}".prop_map(|state| thought("", true, Some(&state))),
        ("[a-z_0-9]{1,9}", "[a-z]{1,5}", "\\PC{0,9}").prop_map(|(id, name, value)| call(
            &id,
            &name,
            &json!({ "value": value }).to_string()
        )),
    ]
}

fn any_answer() -> impl Strategy<Value = ChatResponse> {
    let usage = (0..9_u64, 0..9_u64, 0..9_u64, 0..9_u64, 0..9_u64).prop_map(|counts| Usage {
        input: counts.0,
        cache_read: counts.1,
        cache_write: counts.2,
        cache_write_long: counts.3,
        output: counts.4,
        ..Usage::default()
    });
    let reason = prop_oneof![
        Just(FinishReason::Stop),
        Just(FinishReason::ToolCalls),
        Just(FinishReason::Length),
        Just(FinishReason::ContextFull),
        Just(FinishReason::ContentFilter),
        Just(FinishReason::Malformed),
    ];
    let parts = proptest::collection::vec(any_part(), 0..5);
    (parts, reason, proptest::option::of("[a-z]{1,4}"), usage).prop_map(
        |(parts, reason, stop_sequence, usage)| ChatResponse {
            choices: vec![Choice {
                parts,
                finish: Finish { reason, stop_sequence, ..Finish::default() },
                logprobs: None,
            }],
            usage: Some(usage),
            ..ChatResponse::default()
        },
    )
}

proptest! {
    #[test]
    fn an_answer_is_read_as_it_was_meant(answer in any_answer()) {
        let body = wire::write_response(&answer).to_string();
        prop_assert_eq!(CODEC.read_response(body.as_bytes()).unwrap(), answer);
    }

    #[test]
    fn a_stream_folds_to_the_answer_it_was_cut_from(answer in any_answer(), size in 1..99_usize) {
        let body = wire::lines(&wire::write_stream(&unfold(&answer)));
        prop_assert_eq!(fold(&read_bytes(&body, size)), answer);
    }

    #[test]
    fn no_bytes_break_the_readers(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = CODEC.read_response(&bytes);
        let mut reader = CODEC.reader();
        let mut events = Vec::new();
        let _ = reader.read(None, &bytes, &mut events);
        let _ = reader.read(Some(&bytes), &bytes, &mut events);
        reader.end(&mut events);
    }

    #[test]
    fn no_damage_to_an_answer_breaks_the_readers(at in 0..ANSWER.len(), byte in any::<u8>(), cut in 0..ANSWER.len()) {
        let mut body = ANSWER.to_vec();
        body[at] = byte;
        let _ = CODEC.read_response(&body);
        let _ = CODEC.read_response(&body[..cut]);
    }

    #[test]
    fn events_in_any_order_keep_the_rules(order in proptest::collection::vec(0..9_usize, 0..24)) {
        let mut reader = CODEC.reader();
        let mut events = Vec::new();
        for at in order {
            let data = wire::ODD[at];
            let _ = reader.read(None, data.as_bytes(), &mut events);
        }
        reader.end(&mut events);
        assert_in_order(&events);
    }
}

#[test]
fn every_recorded_answer_is_read() {
    let Some(recordings) = recordings("bedrock-converse") else {
        println!("SWITCHPOINT_RECORDINGS is not set; nothing was read");
        return;
    };
    assert!(!recordings.is_empty());
    for (facts, body) in recordings {
        let id = facts["id"].as_str().unwrap_or_default();
        let has = |feature: &str| {
            facts["features"].as_array().into_iter().flatten().any(|known| known == feature)
        };
        if facts["status"] != 200 {
            assert!(CODEC.read_response(&body).is_err(), "{id}");
            continue;
        }
        let answer = if has("stream") {
            let events = read_bytes(&wire::transcode(&body, 7), 13);
            assert_eq!(events.last(), Some(&Event::End), "{id}");
            fold(&events)
        } else {
            let total =
                serde_json::from_slice::<Value>(&body).unwrap()["usage"]["totalTokens"].clone();
            let answer = CODEC.read_response(&body).unwrap_or_else(|error| panic!("{id}: {error}"));
            assert_eq!(json!(answer.usage.unwrap().total()), total, "{id}");
            answer
        };
        let parts = &answer.choices[0].parts;
        let any = |wanted: fn(&Content) -> bool| parts.iter().any(|part| wanted(&part.content));
        assert_eq!(has("tool"), any(|it| matches!(it, Content::ToolCall(_))), "{id}");
        if has("redacted") {
            assert!(
                any(|it| matches!(it, Content::Reasoning(thought) if thought.redacted)),
                "{id}"
            );
        }
        if has("servertool") {
            assert!(any(|it| matches!(it, Content::Foreign(_))), "{id}");
        }
        let reason = answer.choices[0].finish.reason;
        assert_eq!(has("fin-max_tokens"), reason == FinishReason::Length, "{id}");
        let body = wire::write_response(&answer).to_string();
        let mut again = CODEC.read_response(body.as_bytes()).unwrap();
        again.service_tier.clone_from(&answer.service_tier);
        assert_eq!(again, answer, "{id}");
    }
}
