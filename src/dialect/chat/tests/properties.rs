//! Whatever this dialect can express survives a trip through it, and no bytes can harm a reader.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{CODEC, ask, fixture, read_stream, write_stream, write_whole};
use crate::canon::{
    CacheMark, ChatRequest, ChatResponse, Choice, Citation, Content, Dialect, Effort, Extras,
    Finish, FinishReason, Format, Media, MediaKind, Message, Opaque, Part, Reasoning, Role,
    Sampling, Source, Thinking, Tool, ToolCall, ToolChoice, ToolResult, Usage,
};
use crate::dialect::{ClientSide, Traits, UpstreamSide};

fn word() -> impl Strategy<Value = String> {
    "[a-z]{1,8}"
}

fn text() -> impl Strategy<Value = String> {
    "[a-z \"\\\\\n\u{e9}\u{1F600}{}]{1,20}"
}

fn object() -> impl Strategy<Value = Value> {
    vec((word(), any::<i32>()), 0..4)
        .prop_map(|fields| fields.into_iter().map(|(name, value)| (name, json!(value))).collect())
}

fn state() -> impl Strategy<Value = Opaque> {
    let dialect =
        prop_oneof![Just(Dialect::Messages), Just(Dialect::Gemini), Just(Dialect::Cohere)];
    let data = prop_oneof![text().prop_map(Value::from), object()];
    (dialect, data).prop_map(|(dialect, data)| Opaque { dialect, data })
}

fn thought() -> impl Strategy<Value = Part> {
    (text(), 0..3, option::of(state()), state()).prop_map(|(text, kind, perhaps, state)| {
        let (summary, redacted) = (kind == 1, kind == 2);
        let text = if redacted { String::new() } else { text };
        let opaque = if redacted { Some(state) } else { perhaps };
        let reasoning = Reasoning { text, summary, redacted, ..Reasoning::default() };
        Part { opaque, ..Part::new(Content::Reasoning(reasoning)) }
    })
}

fn citation() -> impl Strategy<Value = Citation> {
    (option::of(word()), option::of(word()), option::of(word()), option::of(0..99_u64)).prop_map(
        |(url, title, quote, start)| Citation {
            url,
            title,
            quote,
            start,
            end: start.map(|start| start + 1),
            original: None,
        },
    )
}

fn said(state: impl Strategy<Value = Option<Opaque>>) -> impl Strategy<Value = Part> {
    (text(), vec(citation(), 0..3), state).prop_map(|(text, mut citations, opaque)| {
        // Those without an address have a field of their own, and so no place among the others.
        citations.sort_by_key(|cited| cited.url.is_none());
        Part { opaque, ..Part::new(Content::Text { text, citations }) }
    })
}

fn calls(most: usize) -> impl Strategy<Value = Vec<Part>> {
    let call = (word(), object(), any::<bool>(), text(), option::of(state()));
    vec(call, 0..most).prop_map(|calls| {
        let number = calls.into_iter().enumerate();
        number
            .map(|(index, (name, arguments, custom, text, opaque))| {
                let arguments = if custom { text } else { arguments.to_string() };
                let id = format!("call_{index}");
                let call = ToolCall { id, name, arguments, custom };
                Part { opaque, ..Part::new(Content::ToolCall(call)) }
            })
            .collect()
    })
}

fn reason(has_calls: bool) -> impl Strategy<Value = Finish> {
    let reasons = prop_oneof![
        Just(FinishReason::Stop),
        Just(FinishReason::Length),
        Just(FinishReason::ContextFull),
        Just(FinishReason::ContentFilter),
        Just(FinishReason::Refusal),
        Just(FinishReason::Pause),
        Just(FinishReason::Malformed),
    ];
    (reasons, option::of(word())).prop_map(move |(reason, stop_sequence)| {
        let reason = if has_calls { FinishReason::ToolCalls } else { reason };
        Finish { reason, stop_sequence, ..Finish::default() }
    })
}

fn choice() -> impl Strategy<Value = Choice> {
    let said = option::of(said(option::of(state())));
    let refusal = option::of(text());
    let parts = (vec(thought(), 0..3), said, refusal, calls(4));
    let logprobs = option::of(vec(word(), 1..3));
    (parts, reason(false), reason(true), logprobs).prop_map(|(parts, plain, called, tokens)| {
        let (mut list, said, refusal, calls) = parts;
        let finish = if calls.is_empty() { plain } else { called };
        list.extend(said);
        list.extend(refusal.map(|text| Part::new(Content::Refusal(text))));
        list.extend(calls);
        // A model that says nothing has none.
        let speaks = list.iter().any(|part| part.as_text().is_some());
        let logprobs = tokens.filter(|_| speaks).map(|tokens| {
            let token = |token| json!({ "token": token, "logprob": -0.5, "top_logprobs": [] });
            json!({ "content": tokens.into_iter().map(token).collect::<Vec<_>>() })
        });
        Choice { parts: list, finish, logprobs }
    })
}

fn usage() -> impl Strategy<Value = Usage> {
    (0..999_u64, 0..99_u64, 0..99_u64, 0..999_u64, 0..99_u64).prop_map(
        |(input, read, write, output, part)| Usage {
            input: input + part,
            cache_read: read,
            cache_write: write,
            cache_write_long: 0,
            output: output + 2 * part,
            reasoning: part,
            audio_input: part,
            audio_output: part,
        },
    )
}

fn answer() -> impl Strategy<Value = ChatResponse> {
    (vec(choice(), 1..3), option::of(usage()), option::of(word()), 1..9_999_u64).prop_map(
        |(choices, usage, service_tier, created)| ChatResponse {
            id: "chatcmpl-1".into(),
            model: "model".into(),
            created: Some(created),
            choices,
            usage,
            service_tier,
        },
    )
}

fn media() -> impl Strategy<Value = Part> {
    let base64 =
        |media_type: &str| Source::Base64 { media_type: media_type.into(), data: "aGk=".into() };
    let url = Source::Url { url: "https://a.example/x".into(), media_type: None };
    let mut image = Media::new(MediaKind::Image, url.clone());
    image.detail = Some("low".into());
    let mut file = Media::new(MediaKind::Document, base64("application/pdf"));
    file.name = Some("a.pdf".into());
    let own = Source::File { dialect: Dialect::Chat, id: "file-1".into() };
    let all = vec![
        image,
        file,
        Media::new(MediaKind::Image, base64("image/png")),
        Media::new(MediaKind::Audio, base64("audio/mpeg")),
        Media::new(MediaKind::Audio, base64("audio/wav")),
        Media::new(MediaKind::Video, url),
        Media::new(MediaKind::Document, own),
    ];
    proptest::sample::select(all).prop_map(|media| Part::new(Content::Media(media)))
}

fn mark() -> impl Strategy<Value = Option<CacheMark>> {
    option::of(prop_oneof![Just(CacheMark::Short), Just(CacheMark::Long)])
}

fn marked(part: impl Strategy<Value = Part>) -> impl Strategy<Value = Part> {
    (part, mark()).prop_map(|(part, cache)| Part { cache, ..part })
}

fn message() -> impl Strategy<Value = Message> {
    let texts = || vec(marked(text().prop_map(Part::text)), 1..3);
    let role = prop_oneof![Just(Role::System), Just(Role::Developer)];
    let user = vec(prop_oneof![marked(text().prop_map(Part::text)), marked(media())], 1..4);
    let result = (word(), texts(), mark()).prop_map(|(id, mut parts, cache)| {
        for part in &mut parts {
            part.cache = None;
        }
        let result = ToolResult { id, name: None, parts, is_error: false, custom: false };
        vec![Part { cache, ..Part::new(Content::ToolResult(result)) }]
    });
    let turn = (texts(), calls(3)).prop_map(|(mut parts, calls)| {
        let stateless = calls.into_iter().map(|call| Part { opaque: None, ..call });
        parts.extend(stateless);
        parts
    });
    let named = |(parts, name)| Message { name, ..Message::new(Role::User, parts) };
    prop_oneof![
        (role, texts()).prop_map(|(role, parts)| Message::new(role, parts)),
        (user, option::of(word())).prop_map(named),
        turn.prop_map(|parts| Message::new(Role::Assistant, parts)),
        result.prop_map(|parts| Message::new(Role::Tool, parts)),
    ]
}

fn tool() -> impl Strategy<Value = Tool> {
    let function =
        (word(), option::of(text()), option::of(object()), any::<Option<bool>>(), mark());
    let function = function.prop_map(|(name, description, schema, strict, cache)| Tool::Function {
        name,
        description,
        schema,
        strict,
        cache,
    });
    let custom = (word(), option::of(text()), option::of(object()));
    let custom =
        custom.prop_map(|(name, description, format)| Tool::Custom { name, description, format });
    prop_oneof![function, custom]
}

fn tool_choice() -> impl Strategy<Value = ToolChoice> {
    prop_oneof![
        Just(ToolChoice::Auto),
        Just(ToolChoice::None),
        Just(ToolChoice::Required),
        word().prop_map(ToolChoice::Named),
        (vec(word(), 1..3), any::<bool>())
            .prop_map(|(names, required)| ToolChoice::Among { names, required }),
    ]
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let numbers = (option::of(0..9_u64), option::of(0.0..2.0), option::of(0.0..1.0));
    let rest =
        (vec(text(), 0..3), option::of(-9..9_i64), option::of(-2.0..2.0), option::of(1..4_u32));
    let logs = (option::of(0..5_u32), option::of(object()));
    (numbers, rest, logs).prop_map(|(numbers, rest, (logprobs, bias))| Sampling {
        max_tokens: numbers.0,
        temperature: numbers.1,
        top_p: numbers.2,
        top_k: numbers.0,
        stop: rest.0,
        seed: rest.1,
        frequency_penalty: rest.2,
        presence_penalty: rest.2,
        choices: rest.3,
        logprobs,
        logit_bias: bias.and_then(|bias| bias.as_object().cloned()),
    })
}

fn format() -> impl Strategy<Value = Format> {
    let schema = (word(), option::of(text()), object(), any::<Option<bool>>());
    let schema = schema.prop_map(|(name, description, schema, strict)| Format::JsonSchema {
        name,
        description,
        schema,
        strict,
    });
    prop_oneof![Just(Format::Text), Just(Format::JsonObject), schema]
}

fn question() -> impl Strategy<Value = ChatRequest> {
    let efforts: Vec<Effort> = Effort::ALL.iter().map(|(effort, _)| *effort).collect();
    let effort = option::of(
        proptest::sample::select(efforts).prop_filter("said so", |effort| *effort != Effort::Max),
    );
    let tools = (vec(tool(), 0..3), option::of(tool_choice()), any::<Option<bool>>());
    let words = (option::of(word()), option::of(word()), option::of(word()), any::<bool>());
    (vec(message(), 0..5), tools, sampling(), format(), effort, words).prop_map(
        |(messages, (tools, choice, parallel), sampling, format, effort, words)| ChatRequest {
            extras: Extras { dialect: Some(Dialect::Chat), ..Extras::default() },
            model: "m".into(),
            stream: words.3,
            messages,
            tool_choice: choice.filter(|_| !tools.is_empty()),
            parallel_tool_calls: parallel.filter(|_| !tools.is_empty()),
            tools,
            format,
            sampling,
            reasoning: effort
                .map(|effort| Thinking { effort: Some(effort), ..Thinking::default() }),
            verbosity: words.0,
            user: words.1,
            cache_key: words.2.clone(),
            service_tier: words.2,
            include_usage: words.3,
            ..ChatRequest::default()
        },
    )
}

proptest! {
    #[test]
    fn a_question_is_the_same_after_the_trip(question in question()) {
        let traits = Traits { cache_control: true, refused: &[], ..Traits::NONE };
        let written = ask(&question, &traits);
        prop_assert!(written.dropped.is_empty(), "{:?}", written.dropped);
        let mut read = CODEC.read_request(&written.body).unwrap();
        // Whether a tool is custom is told by the call that its result answers.
        for part in read.messages.iter_mut().flat_map(|message| &mut message.parts) {
            if let Content::ToolResult(result) = &mut part.content {
                result.custom = false;
            }
        }
        prop_assert_eq!(read, question);
    }

    #[test]
    fn an_answer_is_the_same_after_the_trip(answer in answer()) {
        prop_assert_eq!(CODEC.read_response(&write_whole(&answer)), Ok(answer));
    }

    #[test]
    fn an_answer_is_the_same_after_it_was_streamed_in_any_pieces(
        answer in answer(), chunk in 1..200_usize,
    ) {
        let request = ChatRequest { include_usage: true, ..ChatRequest::default() };
        let stream = write_stream(&answer, &request);
        prop_assert_eq!(read_stream(&stream, chunk), Ok(answer));
    }

    #[test]
    fn no_bytes_make_a_reader_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = CODEC.read_request(&bytes);
        let _ = CODEC.read_response(&bytes);
        let _ = CODEC.reader().read(None, &bytes, &mut Vec::new());
    }

    #[test]
    fn no_change_to_a_body_makes_a_reader_panic(
        which in 0..2_usize, place in any::<prop::sample::Index>(), by in mutation(),
    ) {
        let name = ["question.json", "answer.json"][which];
        let mut value: Value =
            serde_json::from_slice(&fixture(&format!("dialects/chat/{name}"))).unwrap();
        replace(&mut value, place, by);
        let bytes = value.to_string().into_bytes();
        let _ = CODEC.read_request(&bytes);
        let _ = CODEC.read_response(&bytes);
        // The same as a piece of a stream, between others.
        let deltas = value.to_string().replace("\"message\"", "\"delta\"");
        let mut stream = fixture("dialects/chat/answer.sse");
        stream.splice(0..0, format!("data: {deltas}\n\n").into_bytes());
        let _ = read_stream(&stream, 300);
    }
}

fn mutation() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!("")),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        object(),
        text().prop_map(Value::from),
        Just(json!([{ "type": "text" }, null, 1, "x"])),
    ]
}

/// Puts another value into one of the places of a body.
fn replace(value: &mut Value, place: prop::sample::Index, by: Value) {
    let mut places = Vec::new();
    pointers(value, "", &mut places);
    let pointer = place.get(&places).clone();
    if let Some(found) = value.pointer_mut(&pointer) {
        *found = by;
    }
}

fn pointers(value: &Value, at: &str, into: &mut Vec<String>) {
    into.push(at.to_owned());
    match value {
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| pointers(value, &format!("{at}/{name}"), into));
        }
        Value::Array(list) => {
            let list = list.iter().enumerate();
            list.for_each(|(index, value)| pointers(value, &format!("{at}/{index}"), into));
        }
        _ => {}
    }
}
