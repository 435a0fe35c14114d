//! Questions as Converse is to be asked them.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{CODEC, call, thought};
use crate::canon::{
    CacheMark, ChatRequest, Content, Dialect, Effort, Extras, Foreign, Format, Media, MediaKind,
    Message, Opaque, Part, Role, Sampling, Source, Thinking, Tool, ToolChoice, ToolResult,
};
use crate::dialect::{Aim, CacheInjection, Traits, UpstreamSide, Written};

const SONNET: &str = "us.anthropic.claude-sonnet-4-5-20250929-v1:0";
const NOVA: &str = "us.amazon.nova-2-lite-v1:0";
const LLAMA: &str = "us.meta.llama3-3-70b-instruct-v1:0";

fn written(request: &ChatRequest, model: &str) -> Written {
    CODEC.write_request(request, &Aim { model, traits: &Traits::NONE, cache: None }).unwrap()
}

fn body(request: &ChatRequest, model: &str) -> Value {
    serde_json::from_slice(&written(request, model).body).unwrap()
}

fn refused(request: &ChatRequest) -> String {
    let aim = Aim { model: SONNET, traits: &Traits::NONE, cache: None };
    CODEC.write_request(request, &aim).unwrap_err().to_string()
}

fn marked(mut part: Part, mark: CacheMark) -> Part {
    part.cache = Some(mark);
    part
}

fn message(role: Role, parts: Vec<Part>) -> Message {
    Message::new(role, parts)
}

fn result(id: &str, parts: Vec<Part>, is_error: bool) -> Part {
    Part::new(Content::ToolResult(ToolResult {
        id: id.into(),
        name: None,
        parts,
        is_error,
        custom: false,
    }))
}

fn medium(kind: MediaKind, media_type: &str, name: Option<&str>) -> Part {
    let source = Source::Base64 { media_type: media_type.into(), data: "QUJD".into() };
    let mut medium = Media::new(kind, source);
    medium.name = name.map(str::to_owned);
    Part::new(Content::Media(medium))
}

fn weather(strict: Option<bool>) -> Tool {
    Tool::Function {
        name: "weather".into(),
        description: Some("Tells the weather.".into()),
        schema: Some(json!({"type": "object", "properties": {"city": {"type": "string"}}})),
        strict,
        cache: Some(CacheMark::Long),
    }
}

fn ask(text: &str) -> ChatRequest {
    ChatRequest {
        messages: vec![message(Role::User, vec![Part::text(text)])],
        ..Default::default()
    }
}

/// A question with most of what a question can have.
fn rich() -> ChatRequest {
    ChatRequest {
        messages: vec![
            message(Role::System, vec![marked(Part::text("Be brief."), CacheMark::Short)]),
            message(
                Role::User,
                vec![
                    Part::text("What is this?"),
                    medium(MediaKind::Image, "image/jpeg", None),
                    marked(
                        medium(MediaKind::Document, "application/pdf", Some("Größe: 1_2.pdf")),
                        CacheMark::Short,
                    ),
                    Part::text("  \n"),
                ],
            ),
            message(
                Role::Assistant,
                vec![
                    thought("Look.", false, Some("sig")),
                    thought("", true, Some("cmVk")),
                    Part::text("I look."),
                    call("call:1", "weather", "{\"city\":\"Bern\"}"),
                    call("b", "weather", ""),
                ],
            ),
            message(
                Role::Tool,
                vec![marked(result("call:1", vec![Part::text("Rain")], false), CacheMark::Long)],
            ),
            message(Role::Tool, vec![result("b", vec![Part::text("No city")], true)]),
            message(Role::User, vec![Part::text("And?")]),
        ],
        tools: vec![weather(Some(true))],
        tool_choice: Some(ToolChoice::Auto),
        sampling: Sampling {
            max_tokens: Some(9000),
            temperature: Some(0.5),
            top_p: Some(0.9),
            top_k: Some(5),
            stop: vec!["END".into()],
            seed: Some(7),
            choices: Some(2),
            ..Sampling::default()
        },
        reasoning: Some(Thinking { budget: Some(2000), ..Thinking::default() }),
        user: Some("u".into()),
        service_tier: Some("flex".into()),
        metadata: Some(Map::from_iter([("team".to_owned(), json!("a b"))])),
        extras: Extras {
            dialect: Some(Dialect::Messages),
            fields: Map::from_iter([
                ("anthropic_beta".to_owned(), json!(["context-1m-2025-08-07", "x-1"])),
                ("guardrailConfig".to_owned(), json!({"guardrailIdentifier": "g"})),
                ("container".to_owned(), json!("c")),
            ]),
        },
        ..ChatRequest::default()
    }
}

#[test]
fn a_rich_question_is_written_as_the_fixture_says() {
    let fixture: Value = serde_json::from_slice(include_bytes!(
        "../../../../tests/fixtures/dialects/converse/request.json"
    ))
    .unwrap();
    assert_eq!(body(&rich(), SONNET), fixture, "{:#}", body(&rich(), SONNET));
    let dropped = written(&rich(), SONNET).dropped;
    assert_eq!(dropped, ["top_p", "seed", "n", "temperature", "top_k", "x-1", "container", "user"]);
}

#[test]
fn the_same_question_gives_the_same_bytes() {
    assert_eq!(written(&rich(), SONNET), written(&rich(), SONNET));
}

#[test]
fn another_models_state_and_blocks_stay_behind() {
    let foreign = |dialect| {
        let value = json!({"type": "web_search_call", "x": 1});
        Part::new(Content::Foreign(Foreign { dialect, value }))
    };
    let mut alien = thought("Secret.", false, None);
    alien.opaque = Some(Opaque { dialect: Dialect::Gemini, data: json!("g") });
    let parts =
        vec![alien, foreign(Dialect::Responses), foreign(Dialect::Converse), Part::text("Hi")];
    let request = ChatRequest {
        messages: vec![message(Role::User, vec![Part::text("?")]), message(Role::Assistant, parts)],
        ..ChatRequest::default()
    };
    let said = body(&request, SONNET)["messages"][1]["content"].clone();
    assert_eq!(said, json!([{"type": "web_search_call", "x": 1}, {"text": "Hi"}]));
    assert_eq!(written(&request, SONNET).dropped, ["web_search_call", "reasoning"]);
    assert_eq!(written(&request, LLAMA).dropped, ["web_search_call", "reasoning"]);
}

#[test]
fn anthropics_own_signatures_are_good_for_claude_on_bedrock_only() {
    let mut signed = thought("Hm", false, None);
    signed.opaque = Some(Opaque { dialect: Dialect::Messages, data: json!("sig") });
    let mut redacted = thought("", true, None);
    redacted.opaque = Some(Opaque { dialect: Dialect::Messages, data: json!({"data": "red"}) });
    let request = ChatRequest {
        messages: vec![
            message(Role::User, vec![Part::text("?")]),
            message(Role::Assistant, vec![signed, redacted, Part::text("Hi")]),
        ],
        ..ChatRequest::default()
    };
    let said = body(&request, SONNET)["messages"][1]["content"].clone();
    assert_eq!(said[0]["reasoningContent"]["reasoningText"]["signature"], "sig");
    assert_eq!(said[1]["reasoningContent"]["redactedContent"], "cmVk");
    let said = body(&request, NOVA)["messages"][1]["content"].clone();
    assert_eq!(said, json!([{"text": "Hi"}]));
}

#[test]
fn a_user_speaks_first_and_nobody_twice() {
    let request = ChatRequest {
        messages: vec![
            message(Role::Assistant, vec![Part::text("Hello")]),
            message(Role::Assistant, vec![Part::text("there")]),
            message(Role::User, vec![Part::text(" ")]),
            message(Role::Assistant, vec![Part::text("again ")]),
            message(Role::Developer, vec![Part::text("Be kind.")]),
        ],
        ..ChatRequest::default()
    };
    let body = body(&request, LLAMA);
    assert_eq!(body["messages"].as_array().unwrap().len(), 2);
    assert_eq!(body["messages"][0]["role"], "user");
    let said = json!([{"text": "Hello"}, {"text": "there"}, {"text": "again"}]);
    assert_eq!(body["messages"][1], json!({"role": "assistant", "content": said}));
    assert_eq!(body["system"], json!([{"text": "Be kind."}]));
}

#[test]
fn tools_that_were_called_are_declared_though_the_client_no_longer_does() {
    let mut request = rich();
    request.tools = Vec::new();
    let tools = body(&request, SONNET)["toolConfig"]["tools"].clone();
    assert_eq!(tools.as_array().unwrap().len(), 1);
    assert_eq!(tools[0]["toolSpec"]["name"], "weather");
}

#[test]
fn a_choice_of_tools_is_kept_as_far_as_the_family_goes() {
    let choose = |choice, model| {
        let mut request = ask("?");
        request.tools = vec![weather(None)];
        request.tool_choice = Some(choice);
        let written = written(&request, model);
        let body: Value = serde_json::from_slice(&written.body).unwrap();
        (body["toolConfig"].clone(), written.dropped)
    };
    let named = || ToolChoice::Named("weather".into());
    assert_eq!(choose(named(), SONNET).0["toolChoice"], json!({"tool": {"name": "weather"}}));
    assert_eq!(choose(ToolChoice::Required, NOVA).0["toolChoice"], json!({"any": {}}));
    let (config, dropped) = choose(named(), "mistral.mistral-large-2407-v1:0");
    assert_eq!(config["toolChoice"], json!({"any": {}}));
    assert_eq!(dropped, ["cache_control", "tool_choice"]);
    let (config, dropped) = choose(ToolChoice::Required, LLAMA);
    assert!(config.get("toolChoice").is_none());
    assert!(dropped.contains(&"tool_choice".into()));
    assert_eq!(choose(ToolChoice::None, SONNET).0, Value::Null);
    let none = ToolChoice::Among { names: Vec::new(), required: false };
    assert_eq!(choose(none, SONNET).0, Value::Null);
}

#[test]
fn each_family_is_asked_to_think_in_its_own_words() {
    let think = |effort, model| {
        let mut request = ask("?");
        request.sampling.max_tokens = Some(30_000);
        request.reasoning = Some(Thinking { effort: Some(effort), ..Thinking::default() });
        let written = written(&request, model);
        let body: Value = serde_json::from_slice(&written.body).unwrap();
        (body["additionalModelRequestFields"].clone(), written.dropped)
    };
    let budget = json!({"thinking": {"type": "enabled", "budget_tokens": 8192}});
    assert_eq!(think(Effort::Medium, SONNET).0, budget);
    assert_eq!(think(Effort::None, SONNET).0, Value::Null);
    for model in ["anthropic.claude-opus-4-7", "us.anthropic.claude-opus-4-8"] {
        assert_eq!(think(Effort::None, model), (Value::Null, Vec::new()), "{model}");
    }
    let off = json!({"thinking": {"type": "disabled"}});
    assert_eq!(think(Effort::None, "anthropic.claude-opus-5"), (off, Vec::new()));
    let least = json!({"output_config": {"effort": "low"}});
    let named = vec!["reasoning_effort".into()];
    assert_eq!(think(Effort::None, "anthropic.claude-opus-5-5"), (least, named));
    let adaptive = json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "xhigh"}});
    assert_eq!(think(Effort::Highest, "anthropic.claude-opus-4-7").0, adaptive);
    let nova = json!({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}});
    assert_eq!(think(Effort::High, NOVA), (nova, vec!["max_tokens".into()]));
    let qwen = json!({"reasoning_config": "low"});
    assert_eq!(think(Effort::Minimal, "qwen.qwen3-32b-v1:0").0, qwen);
    let open = json!({"reasoning_effort": "medium"});
    assert_eq!(think(Effort::Medium, "openai.gpt-oss-120b-1:0").0, open);
    assert_eq!(think(Effort::High, LLAMA), (Value::Null, vec!["reasoning_effort".into()]));
}

#[test]
fn claude_is_not_asked_to_think_where_it_would_refuse() {
    let mut request = ask("?");
    request.tools = vec![weather(None)];
    request.tool_choice = Some(ToolChoice::Required);
    request.reasoning = Some(Thinking { effort: Some(Effort::High), ..Thinking::default() });
    assert_eq!(written(&request, SONNET).dropped, ["reasoning_effort"]);
    request.tool_choice = None;
    request.messages.extend([
        message(Role::Assistant, vec![call("a", "weather", "{}")]),
        message(Role::Tool, vec![result("a", vec![Part::text("1")], false)]),
    ]);
    assert_eq!(written(&request, SONNET).dropped, ["reasoning_effort"]);
    request.messages.push(message(Role::User, vec![Part::text("Go on")]));
    assert!(written(&request, SONNET).dropped.is_empty());
}

#[test]
fn a_budget_of_thought_leaves_room_for_the_answer() {
    let mut request = ask("?");
    request.reasoning = Some(Thinking { budget: Some(100_000), ..Thinking::default() });
    for (limit, budget) in
        [(None, json!(48_000)), (Some(8000), json!(6000)), (Some(500), Value::Null)]
    {
        request.sampling.max_tokens = limit;
        let thinking = &body(&request, SONNET)["additionalModelRequestFields"]["thinking"];
        assert_eq!(thinking["budget_tokens"], budget, "{limit:?}");
    }
}

#[test]
fn a_forced_tool_comes_before_thoughts_where_it_can_be_forced_at_all() {
    let mut request = ask("?");
    request.tools = vec![weather(None)];
    request.tool_choice = Some(ToolChoice::Required);
    let opus = body(&request, "anthropic.claude-opus-5");
    let off = json!({"thinking": {"type": "disabled"}});
    assert_eq!(opus["additionalModelRequestFields"], off);
    assert_eq!(opus["toolConfig"]["toolChoice"], json!({"any": {}}));
    for model in ["anthropic.claude-opus-5-5", "global.anthropic.claude-fable-5-1"] {
        let written = written(&request, model);
        let body: Value = serde_json::from_slice(&written.body).unwrap();
        assert_eq!(body["toolConfig"].get("toolChoice"), None, "{model}");
        assert_eq!(written.dropped, ["tool_choice"], "{model}");
    }
}

#[test]
fn a_turn_of_documents_has_a_text_beside_them() {
    let pdf = medium(MediaKind::Document, "application/pdf", None);
    let mut request = ask("?");
    request.messages[0].parts = vec![pdf.clone()];
    let blocks = body(&request, SONNET)["messages"][0]["content"].clone();
    assert!(blocks[0].get("document").is_some());
    assert_eq!(blocks[1], json!({"text": "…"}));
    request.messages.push(message(Role::User, vec![Part::text("What is it?")]));
    let blocks = body(&request, SONNET)["messages"][0]["content"].clone();
    assert_eq!(blocks.as_array().unwrap().len(), 2, "the next message has one");
}

#[test]
fn an_answers_schema_is_native_where_the_family_has_it_and_named_where_not() {
    let mut request = ask("?");
    let schema = json!({"type": "object", "properties": {"a": {"type": "object"}}});
    request.format = Format::JsonSchema {
        name: "Answer".into(),
        description: Some("An answer.".into()),
        schema,
        strict: None,
    };
    let format = body(&request, SONNET)["outputConfig"]["textFormat"].clone();
    let named = &format["structure"]["jsonSchema"];
    assert_eq!((&format["type"], &named["name"]), (&json!("json_schema"), &json!("Answer")));
    let schema: Value = serde_json::from_str(named["schema"].as_str().unwrap()).unwrap();
    assert_eq!(schema["additionalProperties"], false);
    assert_eq!(schema["properties"]["a"]["additionalProperties"], false);
    // Elsewhere the model is asked in words.
    let told = |request: &ChatRequest, model| {
        let written = written(request, model);
        assert_eq!(written.dropped, ["response_format"], "{model}");
        let body: Value = serde_json::from_slice(&written.body).unwrap();
        body["system"][0]["text"].as_str().unwrap().to_owned()
    };
    for model in [LLAMA, NOVA] {
        let wish = told(&request, model);
        assert!(wish.contains(r#""properties":{"a""#), "{wish}");
    }
    request.format = Format::JsonObject;
    assert!(told(&request, SONNET).contains("JSON object"));
}

#[test]
fn breakpoints_are_four_at_most_and_ours_only_where_the_client_sets_none() {
    let count = |body: &[u8]| std::str::from_utf8(body).unwrap().matches("cachePoint").count();
    let many = (0..6).map(|_| marked(Part::text("a"), CacheMark::Short)).collect();
    let mut request = ask("?");
    request.messages.push(message(Role::User, many));
    let thinned = written(&request, SONNET);
    assert_eq!((count(&thinned.body), thinned.dropped), (4, vec!["cache_control".into()]));
    let injection =
        CacheInjection { system: true, tools: true, messages: true, lifetime: CacheMark::Short };
    let inject = |request: &ChatRequest, model| {
        let aim = Aim { model, traits: &Traits::NONE, cache: Some(injection) };
        count(&CODEC.write_request(request, &aim).unwrap().body)
    };
    assert_eq!(inject(&request, SONNET), 4, "the client's stay alone");
    let mut request = ask("?");
    request.messages.insert(0, message(Role::System, vec![Part::text("Be brief.")]));
    assert_eq!(inject(&request, SONNET), 2);
    assert_eq!(inject(&request, LLAMA), 0);
}

#[test]
fn references_are_written_out_for_a_family_that_does_not_follow_them() {
    let schema = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}},
        "$defs": {"A": {"type": "string"}}});
    let with = |schema: &Value| {
        let schema = Some(schema.clone());
        let (name, description) = ("f".to_owned(), None);
        let mut request = ask("?");
        request.tools =
            vec![Tool::Function { name, description, schema, strict: None, cache: None }];
        request
    };
    let path = "/toolConfig/tools/0/toolSpec/inputSchema/json/properties/a";
    let written_out = json!({"type": "string"});
    assert_eq!(body(&with(&schema), NOVA).pointer(path), Some(&written_out));
    let kept = json!({"$ref": "#/$defs/A"});
    assert_eq!(body(&with(&schema), SONNET).pointer(path), Some(&kept));
    // The root itself is an object that says so, with any family.
    let root = "/toolConfig/tools/0/toolSpec/inputSchema/json";
    let object = json!({"type": "object", "properties": {"b": {}}});
    let referring = json!({"$ref": "#/$defs/A", "$defs": {"A": object}});
    for (model, schema) in [(NOVA, json!({})), (SONNET, json!({})), (SONNET, referring)] {
        let body = body(&with(&schema), model);
        let root = body.pointer(root).unwrap();
        assert_eq!((root.get("$ref"), &root["type"]), (None, &json!("object")), "{schema}");
    }
    let endless = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
    let aim = Aim { model: NOVA, traits: &Traits::NONE, cache: None };
    let said = CODEC.write_request(&with(&endless), &aim).unwrap_err().to_string();
    assert!(said.contains("tools.f"), "{said}");
}

#[test]
fn what_cannot_be_said_at_all_is_refused_and_named() {
    let mut request = ask("?");
    let url = Source::Url { url: "https://example.org/a.png".into(), media_type: None };
    let picture = Part::new(Content::Media(Media::new(MediaKind::Image, url)));
    request.messages[0].parts.push(picture);
    assert!(refused(&request).contains("messages[0].content"), "{}", refused(&request));
    let s3 = Source::Url { url: "s3://bucket/film.mp4".into(), media_type: None };
    let mut request = ask("?");
    request.messages[0].parts.push(Part::new(Content::Media(Media::new(MediaKind::Video, s3))));
    let film = json!({"format": "mp4", "source": {"s3Location": {"uri": "s3://bucket/film.mp4"}}});
    assert_eq!(body(&request, NOVA)["messages"][0]["content"][1]["video"], film);
}

#[test]
fn documents_have_names_that_are_allowed_and_differ() {
    let mut request = ask("?");
    for name in [Some("a_b.pdf"), Some("a b pdf"), None, Some("%%")] {
        request.messages[0].parts.push(medium(MediaKind::Document, "application/pdf", name));
    }
    let blocks = body(&request, SONNET)["messages"][0]["content"].clone();
    let names: Vec<_> = (1..5).map(|at| blocks[at]["document"]["name"].clone()).collect();
    assert_eq!(names, ["a b pdf", "a b pdf (2)", "Document", "Document (2)"]);
}

fn any_message() -> impl Strategy<Value = Message> {
    let role =
        prop_oneof![Just(Role::System), Just(Role::User), Just(Role::Assistant), Just(Role::Tool)];
    let mark = prop_oneof![Just(None), Just(Some(CacheMark::Short)), Just(Some(CacheMark::Long))];
    (role, "[ a]{0,2}", mark).prop_map(|(role, text, mark)| {
        let mut part = match role {
            Role::Tool => result("a", vec![Part::text(text)], false),
            _ => Part::text(text),
        };
        part.cache = mark;
        message(role, vec![part])
    })
}

#[test]
fn what_is_left_out_is_named_once_however_often_it_occurs() {
    let search = Foreign { dialect: Dialect::Messages, value: json!({"type": "web_search"}) };
    let block = Part::new(Content::Foreign(search.clone()));
    let request = ChatRequest {
        messages: vec![message(Role::User, vec![block.clone(), Part::text("hi"), block])],
        tools: vec![Tool::Hosted(search)],
        ..ChatRequest::default()
    };
    assert_eq!(written(&request, SONNET).dropped, ["web_search"]);
}

proptest! {
    #[test]
    fn whatever_is_said_the_turns_alternate_and_no_text_is_blank(
        messages in proptest::collection::vec(any_message(), 0..8),
        model in prop_oneof![Just(SONNET), Just(NOVA), Just(LLAMA)],
    ) {
        let body = body(&ChatRequest { messages, ..ChatRequest::default() }, model);
        let turns = body["messages"].as_array().unwrap();
        for (place, turn) in turns.iter().enumerate() {
            let expected = if place % 2 == 0 { "user" } else { "assistant" };
            prop_assert_eq!(&turn["role"], expected);
            let blocks = turn["content"].as_array().unwrap();
            prop_assert!(!blocks.is_empty());
            prop_assert!(blocks[0].get("cachePoint").is_none());
            for block in blocks {
                let blank = block["text"].as_str().is_some_and(|text| text.trim().is_empty());
                prop_assert!(!blank);
            }
        }
        prop_assert!(!turns.is_empty());
    }
}
