//! Promises for every value and for any bytes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{context, events, fold, written};
use crate::canon::{
    ChatRequest, ChatResponse, Choice, Content, Dialect, Effort, Extras, Finish, FinishReason,
    Foreign, Format, Media, MediaKind, Message, Opaque, Part, Reasoning, Role, Sampling, Source,
    Thinking, Tool, ToolCall, ToolChoice, ToolResult, Usage,
};
use crate::dialect::fold::unfold;
use crate::dialect::gemini::CODEC;
use crate::dialect::{Aim, ClientSide, Traits, UpstreamSide};

const REQUEST: &[u8] = include_bytes!("../../../../tests/fixtures/dialects/gemini/request.json");
const RESPONSE: &[u8] = include_bytes!("../../../../tests/fixtures/dialects/gemini/response.json");

fn words() -> impl Strategy<Value = String> {
    "[a-zäß日😀\"\\\\\n ]{1,12}"
}

fn state() -> impl Strategy<Value = Opaque> {
    prop_oneof![
        "[A-Za-z0-9+/]{8}=="
            .prop_map(|text| Opaque { dialect: Dialect::Gemini, data: json!(text) }),
        words().prop_map(|text| Opaque {
            dialect: Dialect::Messages,
            data: json!({ "signature": text })
        }),
    ]
}

fn own_state() -> impl Strategy<Value = Opaque> {
    "[A-Za-z0-9+/]{8}==".prop_map(|text| Opaque { dialect: Dialect::Gemini, data: json!(text) })
}

fn content() -> impl Strategy<Value = Content> {
    let media = |kind, media_type: &'static str| {
        let data = "[A-Za-z0-9+/]{8}";
        data.prop_map(move |data| {
            Content::Media(Media::new(kind, Source::Base64 { media_type: media_type.into(), data }))
        })
    };
    prop_oneof![
        words().prop_map(|text| Content::Text { text, citations: Vec::new() }),
        words().prop_map(|text| Content::Reasoning(Reasoning { text, ..Reasoning::default() })),
        media(MediaKind::Image, "image/png"),
        media(MediaKind::Audio, "audio/L16;rate=24000"),
        "[a-z]{1,8}".prop_map(|code| Content::Foreign(Foreign {
            dialect: Dialect::Gemini,
            value: json!({ "executableCode": { "code": code } }),
        })),
        ("[A-Za-z0-9_-]{1,40}", "[a-z_]{1,8}", words()).prop_map(|(id, name, text)| {
            let arguments = json!({ "text": text, "list": [1, 2.5, null] }).to_string();
            Content::ToolCall(ToolCall { id, name, arguments, custom: false })
        }),
    ]
}

fn part(state: impl Strategy<Value = Opaque>) -> impl Strategy<Value = Part> {
    (content(), proptest::option::of(state)).prop_map(|(content, opaque)| {
        let opaque = opaque.filter(|_| !matches!(content, Content::Foreign(_)));
        Part { content, cache: None, opaque }
    })
}

/// Whether two parts would be one to whoever reads them.
fn alike(left: &Part, right: &Part) -> bool {
    left.opaque.is_none()
        && right.opaque.is_none()
        && std::mem::discriminant(&left.content) == std::mem::discriminant(&right.content)
        && !matches!(left.content, Content::ToolCall(_) | Content::Foreign(_))
}

fn answer() -> impl Strategy<Value = ChatResponse> {
    let choice = proptest::collection::vec(part(state()), 1..5).prop_map(|mut parts| {
        parts.dedup_by(|right, left| alike(left, right));
        let called = parts.iter().any(|part| matches!(part.content, Content::ToolCall(_)));
        let reason = if called { FinishReason::ToolCalls } else { FinishReason::Stop };
        Choice {
            parts,
            finish: Finish { reason, stop_sequence: None, ..Finish::default() },
            logprobs: None,
        }
    });
    let usage = (0_u64..99, 0_u64..99, 0_u64..99, 0_u64..99).prop_map(
        |(input, cache_read, spoken, reasoning)| Usage {
            input,
            cache_read,
            output: spoken + reasoning,
            reasoning,
            ..Usage::default()
        },
    );
    (proptest::collection::vec(choice, 1..3), usage).prop_map(|(choices, usage)| ChatResponse {
        id: "r1".into(),
        model: "m".into(),
        choices,
        usage: Some(usage),
        ..ChatResponse::default()
    })
}

/// A stream brings the signature of a text or sound behind it, in a part of its own.
fn streamed(mut answer: ChatResponse) -> ChatResponse {
    for choice in &mut answer.choices {
        let mut parts: Vec<Part> = Vec::new();
        for mut part in std::mem::take(&mut choice.parts) {
            let empty = match &part.content {
                Content::Text { .. } | Content::Media(Media { kind: MediaKind::Audio, .. }) => {
                    Some(Part::text(""))
                }
                Content::Reasoning(_) => Some(Part::new(Content::Reasoning(Reasoning::default()))),
                _ => None,
            };
            let behind = empty.zip(part.opaque.clone());
            if behind.is_some() {
                part.opaque = None;
            }
            match (parts.last_mut().map(|last| &mut last.content), &part.content) {
                (Some(Content::Text { text, .. }), Content::Text { text: more, .. })
                    if !text.is_empty() && part.opaque.is_none() =>
                {
                    text.push_str(more);
                }
                (Some(Content::Reasoning(thought)), Content::Reasoning(more))
                    if !thought.text.is_empty() =>
                {
                    thought.text.push_str(&more.text);
                }
                (
                    Some(Content::Media(Media {
                        kind: MediaKind::Audio,
                        source: Source::Base64 { data, .. },
                        ..
                    })),
                    Content::Media(Media {
                        kind: MediaKind::Audio,
                        source: Source::Base64 { data: more, .. },
                        ..
                    }),
                ) => data.push_str(more),
                _ => parts.push(part),
            }
            parts.extend(behind.map(|(empty, opaque)| Part { opaque: Some(opaque), ..empty }));
        }
        choice.parts = parts;
    }
    answer
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let numbers = (
        proptest::option::of(0_u64..9),
        proptest::option::of(-2.0..2.0),
        proptest::option::of(-9_i64..9),
    );
    (numbers, proptest::collection::vec("[a-z]{1,3}", 0..4), proptest::option::of(0_u32..5))
        .prop_map(|((count, float, seed), stop, few)| Sampling {
            max_tokens: count,
            temperature: float,
            top_p: float,
            top_k: count,
            stop,
            seed,
            frequency_penalty: float,
            presence_penalty: float,
            choices: few,
            logprobs: few,
            logit_bias: None,
        })
}

fn choice() -> impl Strategy<Value = Option<ToolChoice>> {
    let two = || vec!["f".to_owned(), "g".to_owned()];
    prop_oneof![
        Just(None),
        Just(Some(ToolChoice::Auto)),
        Just(Some(ToolChoice::None)),
        Just(Some(ToolChoice::Required)),
        Just(Some(ToolChoice::Named("f".into()))),
        any::<bool>().prop_map(move |required| Some(ToolChoice::Among { names: two(), required })),
    ]
}

fn settings() -> impl Strategy<Value = ChatRequest> {
    let schema = json!({ "type": "object", "properties": { "b": { "type": "string" }, "a": { "$ref": "#/$defs/A" } }, "$defs": { "A": { "type": "integer" } } });
    let tool = Tool::Function {
        name: "f".into(),
        description: Some("d".into()),
        schema: Some(schema.clone()),
        strict: None,
        cache: None,
    };
    let hosted =
        Tool::Hosted(Foreign { dialect: Dialect::Gemini, value: json!({ "googleSearch": {} }) });
    let formats = prop_oneof![
        Just(Format::Text),
        Just(Format::JsonObject),
        Just(Format::JsonSchema {
            name: "response".into(),
            description: None,
            schema,
            strict: None
        }),
    ];
    let thinking = prop_oneof![
        Just(None),
        (1024_u64..9000).prop_map(|budget| Some(Thinking {
            budget: Some(budget),
            visible: Some(true),
            ..Thinking::default()
        })),
    ];
    let audio = prop_oneof![Just(None), Just(Some(json!({ "format": "pcm16", "voice": "Kore" })))];
    let tools = prop_oneof![Just(Vec::new()), Just(vec![tool.clone(), hosted, tool])];
    (sampling(), choice(), formats, thinking, audio, tools).prop_map(
        |(sampling, tool_choice, format, reasoning, audio, tools)| ChatRequest {
            extras: Extras { dialect: Some(Dialect::Gemini), ..Extras::default() },
            tools,
            tool_choice,
            format,
            sampling,
            reasoning,
            audio,
            ..ChatRequest::default()
        },
    )
}

fn question() -> impl Strategy<Value = ChatRequest> {
    let turn =
        (words(), proptest::collection::vec(part(own_state()), 1..4), words(), any::<bool>());
    let turns = proptest::collection::vec(turn, 1..4);
    (settings(), words(), turns).prop_map(|(mut request, system, turns)| {
        request.messages.push(Message::new(Role::System, vec![Part::text(system)]));
        for (asked, mut parts, told, is_error) in turns {
            // What follows unsigned is read as more of it.
            parts.dedup_by(|right, left| {
                let thought = matches!(right.content, Content::Reasoning(_));
                let opaque = right.opaque.clone().filter(|_| !thought);
                alike(left, &Part { opaque, ..right.clone() })
            });
            request.messages.push(Message::new(Role::User, vec![Part::text(asked)]));
            let results = parts.iter().filter_map(|part| match &part.content {
                Content::ToolCall(call) => Some(Part::new(Content::ToolResult(ToolResult {
                    id: call.id.clone(),
                    name: Some(call.name.clone()),
                    parts: vec![Part::text(told.clone())],
                    is_error,
                    custom: false,
                }))),
                _ => None,
            });
            let results: Vec<Part> = results.collect();
            request.messages.push(Message::new(Role::Assistant, parts));
            if !results.is_empty() {
                request.messages.push(Message::new(Role::Tool, results));
            }
        }
        request
    })
}

/// A fixture with some of its bytes changed.
fn mutated(bytes: &'static [u8]) -> impl Strategy<Value = Vec<u8>> {
    let edits = proptest::collection::vec(
        (0..bytes.len(), prop_oneof![any::<u8>(), Just(b'"'), Just(b'{'), Just(b'0')]),
        1..6,
    );
    edits.prop_map(move |edits| {
        let mut bytes = bytes.to_vec();
        for (place, byte) in edits {
            bytes[place] = byte;
        }
        bytes
    })
}

/// A fixture in which one value stands where another belongs.
fn shuffled(bytes: &[u8], (from, to): (usize, usize)) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(bytes).unwrap();
    let mut places = Vec::new();
    walk(&value, String::new(), &mut places);
    let moved = value.pointer(&places[from % places.len()]).cloned().unwrap();
    *value.pointer_mut(&places[to % places.len()]).unwrap() = moved;
    value.to_string().into_bytes()
}

fn walk(value: &Value, place: String, places: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| walk(value, format!("{place}/{name}"), places));
        }
        Value::Array(items) => items
            .iter()
            .enumerate()
            .for_each(|(at, value)| walk(value, format!("{place}/{at}"), places)),
        _ => {}
    }
    places.push(place);
}

fn read_all(bytes: &[u8]) {
    let request = CODEC.read_request(bytes);
    let aim = Aim { model: "gemini-3-pro", traits: &Traits::NONE, cache: None };
    let _ = request.map(|request| CODEC.write_request(&request, &aim));
    if let Ok(answer) = CODEC.read_response(bytes) {
        let request = ChatRequest::default();
        CODEC.write_response(&answer, &context(&request));
        let mut writer = CODEC.writer(&context(&request));
        let mut out = Vec::new();
        for event in unfold(&answer) {
            writer.write(&event, &mut out);
        }
        assert!(events(&out, 99).is_ok());
    }
    let _ = events(bytes, 13);
}

proptest! {
    #[test]
    fn an_answer_is_the_same_after_it_was_written(answer in answer()) {
        let request = ChatRequest::default();
        let body = CODEC.write_response(&answer, &context(&request));
        prop_assert_eq!(CODEC.read_response(&body).unwrap(), answer);
    }

    #[test]
    fn an_answer_is_the_same_after_it_was_streamed_in_any_chunks(answer in answer(), size in 1_usize..90) {
        let bytes = written(&unfold(&answer), false);
        prop_assert_eq!(fold(&events(&bytes, size).unwrap()), streamed(answer.clone()));
        written(&unfold(&answer), true);
    }

    #[test]
    fn a_question_is_the_same_after_it_was_written(request in question()) {
        let aim = Aim { model: "gemini-2.5-flash", traits: &Traits { model_in_path: true, ..Traits::NONE }, cache: None };
        let written = CODEC.write_request(&request, &aim).unwrap();
        prop_assert!(written.dropped.is_empty(), "{:?}", written.dropped);
        let read = CODEC.read_request(&written.body).unwrap();
        prop_assert_eq!(&read.sampling, &request.sampling);
        prop_assert_eq!(read, request);
    }

    #[test]
    fn no_bytes_break_a_reader(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        read_all(&bytes);
    }

    #[test]
    fn no_change_of_a_question_breaks_the_reader(bytes in mutated(REQUEST), places in (0_usize..500, 0_usize..500)) {
        read_all(&bytes);
        read_all(&shuffled(REQUEST, places));
    }

    #[test]
    fn no_change_of_an_answer_breaks_the_reader(bytes in mutated(RESPONSE), places in (0_usize..500, 0_usize..500)) {
        read_all(&bytes);
        read_all(&shuffled(RESPONSE, places));
    }

    #[test]
    fn an_effort_is_one_of_the_known(effort in proptest::sample::select(Effort::ALL.to_vec()), model in "gemini-[0-9.]{0,4}(-pro|-flash|-flash-lite)?") {
        let reasoning = Some(Thinking { effort: Some(effort.0), ..Thinking::default() });
        let request = ChatRequest { reasoning, ..ChatRequest::default() };
        let aim = Aim { model: &model, traits: &Traits::NONE, cache: None };
        prop_assert!(CODEC.write_request(&request, &aim).is_ok());
    }
}
