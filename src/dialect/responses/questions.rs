//! Questions of the Responses codec: any that it can say is the same after it was written and
//! read, and the fixtures go home as they came.

use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{CODEC, read};
use crate::canon::{
    ChatRequest, Citation, Content, Dialect, Effort, Extras, Foreign, Format, Media, MediaKind,
    Message, Opaque, Part, Reasoning, Role, Sampling, Source, Thinking, Tool, ToolCall, ToolChoice,
    ToolResult,
};
use crate::dialect::{Aim, Traits, UpstreamSide, Written};

const REQUEST: &[u8] = include_bytes!("../../../tests/fixtures/dialects/responses/request.json");

const WORDS: &str = "[a-zé\"\\\\\n😀 ]{1,9}";

fn write(request: &ChatRequest) -> Written {
    let aim = Aim { model: "gpt-5.4", traits: &Traits::NONE, cache: None };
    CODEC.write_request(request, &aim).unwrap()
}

fn media() -> impl Strategy<Value = Part> {
    let source = prop_oneof![
        "https://[a-z]{1,9}\\.example/[a-z]{0,5}"
            .prop_map(|url| Source::Url { url, media_type: None }),
        "[A-Za-z0-9+/]{4,8}"
            .prop_map(|data| Source::Base64 { media_type: "image/png".into(), data }),
        "file-[a-z]{1,5}".prop_map(|id| Source::File { dialect: Dialect::Responses, id }),
    ];
    let image = (source.clone(), of(prop_oneof![Just("low".to_owned()), Just("high".to_owned())]))
        .prop_map(|(source, detail)| Media { detail, ..Media::new(MediaKind::Image, source) });
    // Beside a document's data the API wants a name.
    let document = (source, "[a-z]{1,5}\\.pdf").prop_map(|(source, name)| Media {
        name: Some(name),
        ..Media::new(MediaKind::Document, source)
    });
    prop_oneof![image, document].prop_map(|media| Part::new(Content::Media(media)))
}

fn heard() -> impl Strategy<Value = Vec<Part>> {
    vec(prop_oneof![WORDS.prop_map(Part::text), media()], 1..4)
}

fn cited() -> impl Strategy<Value = Citation> {
    ("https://[a-z]{1,9}\\.example", WORDS, 0_u64..9).prop_map(|(url, title, start)| Citation {
        url: Some(url),
        title: Some(title),
        start: Some(start),
        end: Some(start + 1),
        ..Citation::default()
    })
}

fn said() -> impl Strategy<Value = Part> {
    let text = (WORDS, vec(cited(), 0..2))
        .prop_map(|(text, citations)| Part::new(Content::Text { text, citations }));
    let thought = (WORDS, any::<bool>()).prop_map(|(text, redacted)| {
        let told = json!([{ "type": "summary_text", "text": text }]);
        let summary = if redacted { json!([]) } else { told };
        let data = json!({
            "type": "reasoning", "id": "rs_1", "summary": summary, "encrypted_content": "gA==",
        });
        let text = if redacted { String::new() } else { text };
        let thought = Reasoning { text, summary: !redacted, redacted, ..Reasoning::default() };
        let opaque = Some(Opaque { dialect: Dialect::Responses, data });
        Part { opaque, ..Part::new(Content::Reasoning(thought)) }
    });
    let foreign = WORDS.prop_map(|query| {
        let value =
            json!({ "type": "web_search_call", "id": "ws_1", "action": { "query": query } });
        Part::new(Content::Foreign(Foreign { dialect: Dialect::Responses, value }))
    });
    prop_oneof![text, WORDS.prop_map(|text| Part::new(Content::Refusal(text))), thought, foreign,]
}

/// What the model said and called, and what the tools answered.
fn turn() -> impl Strategy<Value = Vec<Message>> {
    let one = (
        any::<bool>(),
        WORDS,
        prop_oneof![WORDS.prop_map(|text| vec![Part::text(text)]), vec(media(), 1..3)],
    );
    (vec(said(), 1..4), vec(one, 0..3)).prop_map(|(mut parts, calls)| {
        let mut results = Vec::new();
        for (place, (custom, words, shown)) in calls.into_iter().enumerate() {
            let (id, name) = (format!("call_{place}"), format!("tool_{place}"));
            let arguments = if custom { words } else { json!({ "a": words }).to_string() };
            let result =
                ToolResult { id: id.clone(), name: None, parts: shown, is_error: false, custom };
            results.push(Part::new(Content::ToolResult(result)));
            parts.push(Part::new(Content::ToolCall(ToolCall { id, name, arguments, custom })));
        }
        let answered = (!results.is_empty()).then(|| Message::new(Role::Tool, results));
        [Message::new(Role::Assistant, parts)].into_iter().chain(answered).collect()
    })
}

fn messages() -> impl Strategy<Value = Vec<Message>> {
    let system = of(WORDS.prop_map(|text| Message::new(Role::System, vec![Part::text(text)])));
    let role = prop_oneof![Just(Role::User), Just(Role::Developer)];
    let heard = (role, heard()).prop_map(|(role, parts)| Message::new(role, parts)).boxed();
    (system, vec((heard.clone(), turn()), 0..3), heard).prop_map(|(system, turns, last)| {
        let turns = turns.into_iter().flat_map(|(heard, turn)| [vec![heard], turn].concat());
        system.into_iter().chain(turns).chain([last]).collect()
    })
}

fn tools() -> impl Strategy<Value = Vec<Tool>> {
    let schema = of(WORDS).prop_map(|name| {
        let properties: Map<String, Value> =
            name.into_iter().map(|name| (name, json!({ "type": "string" }))).collect();
        json!({ "type": "object", "properties": properties })
    });
    let function = ("[a-z_]{1,9}", of(WORDS), schema, of(any::<bool>())).prop_map(
        |(name, description, schema, strict)| Tool::Function {
            name,
            description,
            schema: Some(schema),
            strict,
            cache: None,
        },
    );
    let format = of(Just(json!({ "type": "text" })));
    let custom = ("[a-z]{1,9}", of(WORDS), format)
        .prop_map(|(name, description, format)| Tool::Custom { name, description, format });
    let hosted = Just(Tool::Hosted(Foreign {
        dialect: Dialect::Responses,
        value: json!({ "type": "web_search", "filters": null }),
    }));
    vec(prop_oneof![3 => function, 1 => custom, 1 => hosted], 0..4)
}

fn choice() -> impl Strategy<Value = ToolChoice> {
    prop_oneof![
        Just(ToolChoice::Auto),
        Just(ToolChoice::None),
        Just(ToolChoice::Required),
        "[a-z_]{1,9}".prop_map(ToolChoice::Named),
        (vec("[a-z_]{1,9}", 1..3), any::<bool>())
            .prop_map(|(names, required)| ToolChoice::Among { names, required }),
    ]
}

fn format() -> impl Strategy<Value = Format> {
    let schema =
        ("[a-z]{1,9}", of(WORDS), of(any::<bool>())).prop_map(|(name, description, strict)| {
            let schema = json!({ "type": "object", "properties": { "z": {}, "a": {} } });
            Format::JsonSchema { name, description, schema, strict }
        });
    prop_oneof![Just(Format::Text), Just(Format::JsonObject), schema]
}

fn sampling() -> impl Strategy<Value = Sampling> {
    let share = (0_u32..=8).prop_map(|eighths| f64::from(eighths) / 8.0);
    (of(16_u64..9000), of(share.clone()), of(share), of(0_u32..20)).prop_map(
        |(max_tokens, temperature, top_p, logprobs)| Sampling {
            max_tokens,
            temperature,
            top_p,
            logprobs,
            ..Sampling::default()
        },
    )
}

fn thinking() -> impl Strategy<Value = Thinking> {
    let effort = (0..Effort::ALL.len()).prop_map(|place| Effort::ALL[place].0);
    let summary = of(prop_oneof![Just("auto".to_owned()), Just("detailed".to_owned())]);
    (effort, summary).prop_map(|(effort, summary)| Thinking {
        effort: Some(effort),
        budget: None,
        visible: summary.is_some().then_some(true),
        summary,
    })
}

fn account() -> impl Strategy<Value = ChatRequest> {
    let metadata = of(vec(("[a-z]{1,5}", WORDS), 0..3)).prop_map(|pairs| {
        pairs.map(|pairs| pairs.into_iter().map(|(name, value)| (name, value.into())).collect())
    });
    let word = || of("[a-z]{1,6}".prop_map(String::from));
    (metadata, word(), word(), word(), word(), any::<bool>()).prop_map(
        |(metadata, user, service_tier, cache_key, verbosity, stream)| ChatRequest {
            stream,
            verbosity,
            user,
            metadata,
            service_tier,
            cache_key,
            ..ChatRequest::default()
        },
    )
}

prop_compose! {
    fn question()(
        messages in messages(),
        tools in tools(),
        choice in of(choice()),
        parallel in of(any::<bool>()),
        format in format(),
        sampling in sampling(),
        reasoning in of(thinking()),
        account in account(),
        truncation in of(Just(json!("auto"))),
    ) -> ChatRequest {
        let mut fields = Map::new();
        fields.insert("store".to_owned(), json!(false));
        fields.extend(truncation.map(|value| ("truncation".to_owned(), value)));
        ChatRequest {
            model: "gpt-5.4".into(),
            messages,
            tools,
            tool_choice: choice,
            parallel_tool_calls: parallel,
            format,
            sampling,
            reasoning,
            include_usage: true,
            extras: Extras { dialect: Some(Dialect::Responses), fields },
            ..account
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn a_question_is_the_same_after_it_was_written(question in question()) {
        let written = write(&question);
        prop_assert!(written.dropped.is_empty(), "{:?}", written.dropped);
        prop_assert_eq!(read::read(&written.body).unwrap(), question);
    }
}

#[test]
fn a_rich_question_goes_home_as_it_came() {
    let request = read::read(REQUEST).unwrap();
    let written = write(&request);
    assert!(written.dropped.is_empty(), "{:?}", written.dropped);
    let expected: Value = serde_json::from_slice(REQUEST).unwrap();
    let home: Value = serde_json::from_slice(&written.body).unwrap();
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&home[name], value, "{name}");
    }
    assert_eq!(home.as_object().unwrap().len(), expected.as_object().unwrap().len());
    assert_eq!(read::read(&written.body).unwrap(), request);
}
