//! What a question becomes, target by target.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::tests::{call, hosted};
use super::read;
use crate::canon::{
    CacheMark, ChatRequest, Content, Dialect, Effort, Extras, Foreign, Format, Media, MediaKind,
    Message, Opaque, Part, Reasoning, Role, Sampling, Source, Thinking, Tool, ToolCall, ToolChoice,
    ToolResult,
};
use crate::dialect::messages::CODEC;
use crate::dialect::{Aim, CacheInjection, Inexpressible, Traits, UpstreamSide};

const QUESTION: &str = include_str!("../../../../tests/fixtures/dialects/messages/question.json");

fn aimed(
    request: &ChatRequest,
    model: &str,
    cache: Option<CacheInjection>,
) -> Result<(Value, Vec<String>), Inexpressible> {
    let aim = Aim { model, traits: &Traits::NONE, cache };
    let written = CODEC.write_request(request, &aim)?;
    let dropped = written.dropped.into_iter().map(std::borrow::Cow::into_owned).collect();
    Ok((serde_json::from_slice(&written.body).unwrap(), dropped))
}

fn written(request: &ChatRequest, model: &str) -> (Value, Vec<String>) {
    aimed(request, model, None).unwrap()
}

fn asked(text: &str) -> ChatRequest {
    ChatRequest {
        messages: vec![Message::new(Role::User, vec![Part::text(text)])],
        ..ChatRequest::default()
    }
}

fn function(name: &str) -> Tool {
    Tool::Function {
        name: name.to_owned(),
        description: None,
        schema: Some(json!({"type": "object"})),
        strict: None,
        cache: None,
    }
}

fn tool_call(id: &str, arguments: &str) -> Part {
    Part::new(Content::ToolCall(ToolCall {
        id: id.to_owned(),
        name: "f".to_owned(),
        arguments: arguments.to_owned(),
        custom: false,
    }))
}

fn result(id: &str, text: &str) -> Part {
    Part::new(Content::ToolResult(ToolResult {
        id: id.to_owned(),
        name: None,
        parts: vec![Part::text(text)],
        is_error: false,
        custom: false,
    }))
}

#[test]
fn a_rich_question_goes_home_as_it_came() {
    let question = read(QUESTION.as_bytes()).unwrap();
    assert!(question.stream && question.include_usage);
    let (body, dropped) = written(&question, "claude-sonnet-4-5");
    let expected: Value = serde_json::from_str(QUESTION).unwrap();
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&body[name], value, "{name}");
    }
    assert_eq!(dropped, Vec::<String>::new());
    // Not a byte of a schema's order is lost.
    let schema = body["output_config"]["format"]["schema"].to_string();
    assert!(schema.find("\"z\"") < schema.find("\"a\""));
}

#[test]
fn a_tool_with_fields_of_this_api_is_a_tool_for_every_other() {
    let question = read(QUESTION.as_bytes()).unwrap();
    let is_function = |tool: &&Tool| matches!(tool, Tool::Function { .. });
    assert_eq!(question.tools.iter().filter(is_function).count(), 2);
    assert_eq!(question.extras.fields["tools.defer_loading"], json!({"late": true}));
}

#[test]
fn a_wrong_field_is_named_by_its_path() {
    for (body, path) in [
        (json!({"model": "m"}), "messages"),
        (json!({"messages": [{"role": "user", "content": 3}]}), "messages[0].content"),
        (json!({"messages": [{"role": "tool", "content": ""}]}), "messages[0].role"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
            "messages[0].content[0].text",
        ),
        (json!({"messages": [], "max_tokens": "9"}), "max_tokens"),
        (json!({"messages": [], "tools": [{"description": "d"}]}), "tools[0].name"),
    ] {
        let error = read(body.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains(&format!("`{path}`")), "{error}");
    }
}

#[test]
fn a_limit_is_always_sent_and_a_budget_stays_below_it() {
    let mut request = asked("hi");
    for (model, limit) in [
        ("claude-3-haiku-20240307", 4096),
        ("claude-opus-4-1", 32_000),
        ("claude-sonnet-4-5", 64_000),
        ("claude-opus-5-5", 64_000),
        ("kimi-k2", 8192),
    ] {
        assert_eq!(written(&request, model).0["max_tokens"], limit, "{model}");
    }
    request.reasoning = Some(Thinking { budget: Some(50_000), ..Thinking::default() });
    request.sampling.max_tokens = Some(4000);
    let (body, _) = written(&request, "claude-sonnet-4-5");
    assert_eq!(body["thinking"], json!({"type": "enabled", "budget_tokens": 3000}));
    request.sampling.max_tokens = Some(1000);
    let (body, dropped) = written(&request, "claude-sonnet-4-5");
    assert_eq!((body.get("thinking"), dropped), (None, vec!["reasoning_effort".to_owned()]));
}

#[test]
fn effort_is_said_as_each_family_takes_it() {
    let mut request = asked("hi");
    for (effort, model, thinking, said) in [
        (Effort::High, "claude-3-5-sonnet-20241022", Value::Null, Value::Null),
        (
            Effort::Low,
            "claude-opus-4-5",
            json!({"type": "enabled", "budget_tokens": 2048}),
            Value::Null,
        ),
        (Effort::Highest, "claude-opus-4-6", json!({"type": "adaptive"}), json!("high")),
        (Effort::Highest, "claude-opus-4-7", json!({"type": "adaptive"}), json!("xhigh")),
        (Effort::Minimal, "claude-opus-5-5", json!({"type": "adaptive"}), json!("low")),
        (Effort::None, "claude-opus-4-6", Value::Null, Value::Null),
        (Effort::None, "claude-opus-5", json!({"type": "disabled"}), Value::Null),
        (Effort::None, "claude-haiku-5-5", json!({"type": "disabled"}), Value::Null),
        (Effort::None, "claude-sonnet-5-5", json!({"type": "between_tools"}), Value::Null),
        (Effort::None, "claude-opus-5-5", Value::Null, json!("low")),
    ] {
        request.reasoning = Some(Thinking { effort: Some(effort), ..Thinking::default() });
        let (body, _) = written(&request, model);
        assert_eq!(body["thinking"], thinking, "{effort:?} on {model}");
        assert_eq!(body["output_config"]["effort"], said, "{effort:?} on {model}");
    }
}

#[test]
fn a_budget_of_nothing_is_no_thinking() {
    let mut request = asked("hi");
    request.reasoning = Some(Thinking { budget: Some(0), ..Thinking::default() });
    for (model, thinking) in [
        ("claude-haiku-4-5", Value::Null),
        ("claude-opus-4-7", Value::Null),
        ("claude-opus-5", json!({"type": "disabled"})),
    ] {
        let (body, dropped) = written(&request, model);
        assert_eq!((&body["thinking"], dropped.len()), (&thinking, 0), "{model}");
        assert_eq!(body.get("output_config"), None, "{model}");
    }
}

#[test]
fn thinking_is_read_as_what_all_apis_have_and_kept_where_they_have_not() {
    let ask = |fields: Value| {
        let mut body = json!({"model": "m", "messages": []});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        read(body.to_string().as_bytes()).unwrap()
    };
    let adaptive = json!({"type": "adaptive", "display": "summarized"});
    let request = ask(json!({"thinking": adaptive, "output_config": {"effort": "max"}}));
    let expected =
        Thinking { effort: Some(Effort::Max), visible: Some(true), ..Thinking::default() };
    assert_eq!((request.reasoning, request.extras.fields.len()), (Some(expected), 0));
    let off = json!({"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}});
    let request = ask(off);
    assert_eq!(request.reasoning.as_ref().unwrap().effort, Some(Effort::None));
    let (body, _) = written(&request_with_text(request), "claude-opus-5");
    assert_eq!(body["thinking"], json!({"type": "disabled"}));
    assert_eq!(body["output_config"], json!({"effort": "low"}));
    let between = json!({"type": "between_tools"});
    let request = ask(json!({ "thinking": between }));
    let (body, _) = written(&request_with_text(request), "claude-sonnet-5-5");
    assert_eq!(body["thinking"], between);
}

fn request_with_text(request: ChatRequest) -> ChatRequest {
    ChatRequest { messages: asked("hi").messages, ..request }
}

#[test]
fn what_thinking_forbids_is_left_out_and_named() {
    let mut request = asked("hi");
    request.reasoning = Some(Thinking { budget: Some(2048), ..Thinking::default() });
    request.sampling = Sampling {
        temperature: Some(0.2),
        top_p: Some(0.5),
        top_k: Some(3),
        ..Sampling::default()
    };
    let (body, dropped) = written(&request, "claude-sonnet-4-5");
    assert!(body.get("temperature").is_none() && body.get("top_k").is_none());
    assert_eq!(dropped, ["temperature", "top_p", "top_k"]);
    // A tool that must be called is worth more than thoughts.
    request.tools = vec![function("f")];
    request.tool_choice = Some(ToolChoice::Named("f".to_owned()));
    let (body, dropped) = written(&request, "claude-sonnet-4-5");
    assert_eq!(body["tool_choice"], json!({"type": "tool", "name": "f"}));
    assert_eq!((body.get("thinking"), &body["temperature"]), (None, &json!(0.2)));
    assert_eq!(dropped, ["reasoning_effort", "top_p"]);
    for model in ["claude-sonnet-5-5", "claude-fable-5-1", "claude-opus-5-5"] {
        let (body, dropped) = written(&request, model);
        assert_eq!(body["tool_choice"], json!({"type": "auto"}), "{model}");
        assert!(dropped.contains(&"tool_choice".to_owned()), "{model}");
    }
    for model in ["claude-fable-5", "claude-haiku-5-5", "claude-opus-5"] {
        let (body, dropped) = written(&request, model);
        assert_eq!(body["tool_choice"]["type"], "tool", "{model}");
        assert_ne!(body["thinking"]["type"], "adaptive", "{model}");
        assert!(dropped.contains(&"reasoning_effort".to_owned()), "{model}");
    }
}

#[test]
fn a_turn_that_lost_its_thoughts_goes_on_without_thinking() {
    let mut request = asked("hi");
    request.reasoning = Some(Thinking { budget: Some(2048), ..Thinking::default() });
    let mut turn = vec![tool_call("1", "{}")];
    request.messages.push(Message::new(Role::Assistant, turn.clone()));
    request.messages.push(Message::new(Role::Tool, vec![result("1", "ok")]));
    let (body, dropped) = written(&request, "claude-sonnet-4-5");
    assert_eq!((body.get("thinking"), dropped), (None, vec!["reasoning_effort".to_owned()]));
    let data = json!({"signature": "sig"});
    let thought = Part {
        opaque: Some(Opaque { dialect: Dialect::Messages, data }),
        ..Part::new(Content::Reasoning(Reasoning::default()))
    };
    turn.insert(0, thought);
    request.messages[1].parts = turn;
    let (body, _) = written(&request, "claude-sonnet-4-5");
    assert_eq!(body["thinking"]["type"], "enabled");
    let first = &body["messages"][1]["content"][0];
    assert_eq!(first, &json!({"type": "thinking", "thinking": "", "signature": "sig"}));
}

#[test]
fn messages_alternate_with_results_first_and_without_empty_text() {
    let mut request = asked("hi");
    let message = |role, parts| Message::new(role, parts);
    request.messages.insert(0, message(Role::System, vec![Part::text("Be brief.")]));
    request.messages.extend([
        message(Role::Assistant, vec![Part::text(" "), tool_call("a:1", ""), tool_call("b", "{}")]),
        message(Role::User, vec![Part::text("hurry")]),
        message(Role::Tool, vec![result("a:1", "one")]),
        message(Role::Tool, vec![result("b", "")]),
        message(Role::Developer, vec![Part::text("Be kind.")]),
        message(Role::Assistant, vec![Part::text("It is ")]),
    ]);
    let (body, _) = written(&request, "claude-sonnet-4-5");
    assert_eq!(body["system"], json!([{"type": "text", "text": "Be brief."}]));
    let messages = body["messages"].as_array().unwrap();
    let roles: Vec<&str> = messages.iter().map(|turn| turn["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    let results = &messages[2]["content"];
    assert_eq!(messages[1]["content"][0]["input"], json!({}));
    assert_eq!(results[0]["tool_use_id"], messages[1]["content"][0]["id"]);
    assert_eq!(results[1], json!({"type": "tool_result", "tool_use_id": "b"}));
    assert_eq!(results[2]["text"], "hurry");
    assert_eq!(results[3]["text"], "<system>\nBe kind.\n</system>");
    assert_eq!(messages[3]["content"][0]["text"], "It is");
    let (body, _) = written(&request, "claude-opus-5");
    assert_eq!(body["messages"][3]["role"], "system");
}

#[test]
fn instructions_alone_are_asked_as_a_question() {
    let request = ChatRequest {
        messages: vec![Message::new(Role::System, vec![Part::text("Say hi.")])],
        ..ChatRequest::default()
    };
    let (body, _) = written(&request, "claude-sonnet-4-5");
    assert_eq!(body["messages"][0]["role"], "user");
    assert!(aimed(&asked(" "), "claude-sonnet-4-5", None).is_err());
}

#[test]
fn a_schema_is_rewritten_to_what_the_api_knows() {
    let mut request = asked("hi");
    let schema = json!({
        "type": "object",
        "properties": {
            "n": {"type": "integer", "minimum": 1, "description": "A count"},
            "u": {"oneOf": [{"type": "string", "format": "uri"}, {"type": "string", "maxLength": 3}]},
            "minimum": {"type": "string"},
        },
        "required": ["n"],
    });
    request.format =
        Format::JsonSchema { name: "x".into(), description: None, schema, strict: None };
    let (body, dropped) = written(&request, "claude-sonnet-4-5");
    let expected = json!({
        "type": "object",
        "properties": {
            "n": {"type": "integer", "description": "A count\n\n{minimum: 1}"},
            "u": {"anyOf": [{"type": "string", "format": "uri"}, {"type": "string", "description": "{maxLength: 3}"}]},
            "minimum": {"type": "string"},
        },
        "required": ["n"],
        "additionalProperties": false,
    });
    assert_eq!(body["output_config"]["format"]["schema"], expected);
    assert_eq!(dropped, Vec::<String>::new());
    let (body, dropped) = written(&request, "claude-3-5-haiku-20241022");
    assert!(body["system"][0]["text"].as_str().unwrap().contains("\"minimum\":1"));
    assert_eq!(dropped, ["response_format"]);
}

#[test]
fn a_tools_schema_is_always_an_object_that_says_so() {
    let nested = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/X"}}});
    let referring = json!({"$ref": "#/$defs/X", "$defs": {"X": nested}});
    let referred = json!({"type": "object", "properties": {"a": {"$ref": "#/$defs/X"}},
        "$defs": {"X": nested}});
    for (given, sent) in [
        (None, json!({"type": "object"})),
        (Some(json!({})), json!({"type": "object"})),
        (Some(json!({"properties": {}})), json!({"properties": {}, "type": "object"})),
        (Some(referring), referred),
    ] {
        let (name, description) = ("f".to_owned(), None);
        let schema = given.clone();
        let tool = Tool::Function { name, description, schema, strict: None, cache: None };
        let (body, _) =
            written(&ChatRequest { tools: vec![tool], ..asked("hi") }, "claude-sonnet-4-5");
        assert_eq!(body["tools"][0]["input_schema"], sent, "{given:?}");
    }
}

#[test]
fn an_address_is_no_name_for_a_user() {
    let mut request = asked("hi");
    for user in ["ann@example.com", "+1 (415) 555-2671", "4155552671"] {
        request.user = Some(user.to_owned());
        let (body, dropped) = written(&request, "claude-sonnet-4-5");
        assert_eq!((body.get("metadata"), dropped), (None, vec!["user".to_owned()]), "{user}");
        // Its own clients are told by the API itself.
        let extras = Extras { dialect: Some(Dialect::Messages), ..Extras::default() };
        let own = ChatRequest { extras, ..request.clone() };
        assert_eq!(written(&own, "claude-sonnet-4-5").0["metadata"]["user_id"], user);
    }
    for user in ["u-17", "550e8400-e29b-41d4-a716-446655440000", "@ann", "1234"] {
        request.user = Some(user.to_owned());
        let (body, _) = written(&request, "claude-sonnet-4-5");
        assert_eq!(body["metadata"]["user_id"], user);
    }
}

#[test]
fn what_the_api_has_no_word_for_is_named() {
    let mut request = asked("hi");
    request.sampling = Sampling {
        seed: Some(1),
        frequency_penalty: Some(0.5),
        choices: Some(2),
        temperature: Some(1.5),
        stop: vec!["\n".to_owned(), "END".to_owned()],
        ..Sampling::default()
    };
    request.extras.dialect = Some(Dialect::Chat);
    request.extras.fields.insert("prediction".to_owned(), json!({}));
    let value = json!({"type": "image_generation"});
    request.tools.push(Tool::Hosted(Foreign { dialect: Dialect::Responses, value }));
    let (body, mut dropped) = written(&request, "claude-sonnet-4");
    dropped.sort();
    let expected = [
        "frequency_penalty",
        "n",
        "prediction",
        "seed",
        "stop",
        "temperature",
        "tools.image_generation",
    ];
    assert_eq!(dropped, expected);
    assert_eq!((&body["temperature"], &body["stop_sequences"]), (&json!(1.0), &json!(["END"])));
    assert!(body.get("prediction").is_none());
}

#[test]
fn a_text_file_goes_as_text_and_a_sound_is_refused() {
    let mut request = asked("hi");
    let source = |media_type: &str| Source::Base64 {
        media_type: media_type.to_owned(),
        data: "YSxiCg==".to_owned(),
    };
    let mut media = Media::new(MediaKind::Document, source("text/csv"));
    media.name = Some("t.csv".to_owned());
    request.messages[0].parts = vec![Part::new(Content::Media(media))];
    let (body, _) = written(&request, "claude-sonnet-4-5");
    let expected = json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a,b\n"}, "title": "t.csv"});
    assert_eq!(body["messages"][0]["content"][0], expected);
    let sound = Media::new(MediaKind::Audio, source("audio/wav"));
    request.messages[0].parts = vec![Part::new(Content::Media(sound))];
    assert!(aimed(&request, "claude-sonnet-4-5", None).is_err());
}

fn marks(body: &Value) -> usize {
    body.to_string().matches("cache_control").count()
}

const EVERYWHERE: CacheInjection =
    CacheInjection { system: true, tools: true, messages: true, lifetime: CacheMark::Long };

#[test]
fn breakpoints_are_set_only_for_a_client_that_set_none() {
    let mut request = asked("one");
    request.messages.insert(0, Message::new(Role::System, vec![Part::text("s")]));
    request.messages.push(Message::new(Role::Assistant, vec![Part::text("two")]));
    request.messages.push(Message::new(Role::User, vec![Part::text("three")]));
    request.tools = vec![function("a"), function("b")];
    let (body, _) = aimed(&request, "claude-sonnet-4-5", Some(EVERYWHERE)).unwrap();
    let long = json!({"type": "ephemeral", "ttl": "1h"});
    assert_eq!(marks(&body), 4);
    assert_eq!(body["tools"][1]["cache_control"], long);
    assert_eq!(body["system"][0]["cache_control"], long);
    assert_eq!(body["messages"][2]["content"][0]["cache_control"], long);
    request.messages[1].parts[0].cache = Some(CacheMark::Short);
    let (body, _) = aimed(&request, "claude-sonnet-4-5", Some(EVERYWHERE)).unwrap();
    assert_eq!(marks(&body), 1);
    assert_eq!(body["messages"][0]["content"][0]["cache_control"], json!({"type": "ephemeral"}));
}

#[test]
fn no_more_than_four_breakpoints_are_sent_and_the_latest_stay() {
    let mut request = asked("hi");
    let marked = |text: &str| Part { cache: Some(CacheMark::Short), ..Part::text(text) };
    request.messages[0].parts = ["a", "b", "c", "d"].map(marked).to_vec();
    request.messages.insert(0, Message::new(Role::System, vec![marked("s")]));
    let (body, dropped) = written(&request, "claude-sonnet-4-5");
    assert_eq!((marks(&body), dropped), (4, vec!["cache_control".to_owned()]));
    assert!(body["system"][0].get("cache_control").is_some());
    assert!(body["messages"][0]["content"][0].get("cache_control").is_none());
}

#[test]
fn on_vertex_the_model_stands_in_the_path() {
    let traits = Traits { model_in_path: true, ..Traits::NONE };
    let aim = Aim { model: "claude-sonnet-4-5@20250929", traits: &traits, cache: None };
    let body = CODEC.write_request(&asked("hi"), &aim).unwrap().body;
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["anthropic_version"], "vertex-2023-10-16");
    assert!(body.get("model").is_none());
    let version = body["anthropic_version"].as_str().unwrap();
    let member = format!("\"anthropic_version\":\"{version}\"");
    assert_eq!(member, crate::dialect::VERTEX_VERSION, "as on the verbatim path");
}

// === properties ===

fn marked(part: impl Strategy<Value = Part>) -> impl Strategy<Value = Part> {
    let cache = prop_oneof![
        8 => Just(None),
        1 => Just(Some(CacheMark::Short)),
        1 => Just(Some(CacheMark::Long)),
    ];
    (part, cache).prop_map(|(part, cache)| Part { cache, ..part })
}

fn text() -> impl Strategy<Value = Part> {
    "[a-z日😀\"\\\\]{1,9}".prop_map(Part::text)
}

fn media() -> impl Strategy<Value = Part> {
    let image = Source::Base64 { media_type: "image/png".into(), data: "iVBO".into() };
    let link = Source::Url { url: "https://a.example/b.png".into(), media_type: None };
    let file = Source::File { dialect: Dialect::Messages, id: "file_1".into() };
    let image = prop_oneof![Just(image), Just(link.clone()), Just(file.clone())]
        .prop_map(|source| Media::new(MediaKind::Image, source));
    let pdf = Source::Base64 { media_type: "application/pdf".into(), data: "JVBE".into() };
    let sources = prop_oneof![Just(pdf), Just(link), Just(file), Just(Source::Text("t".into()))];
    let document = (sources, any::<bool>()).prop_map(|(source, citable)| Media {
        citable,
        name: citable.then(|| "title".to_owned()),
        ..Media::new(MediaKind::Document, source)
    });
    prop_oneof![image, document].prop_map(|media| Part::new(Content::Media(media)))
}

fn results() -> impl Strategy<Value = Message> {
    let inner = proptest::collection::vec(marked(prop_oneof![text(), media()]), 0..3);
    let result = ("[a-z0-9_]{1,9}", inner, any::<bool>()).prop_map(|(id, parts, is_error)| {
        let result = ToolResult { id, name: None, parts, is_error, custom: false };
        Part::new(Content::ToolResult(result))
    });
    proptest::collection::vec(result, 1..3).prop_map(|parts| Message::new(Role::Tool, parts))
}

fn turn() -> impl Strategy<Value = Vec<Message>> {
    let user = proptest::collection::vec(marked(prop_oneof![text(), media()]), 1..3)
        .prop_map(|parts| Message::new(Role::User, parts));
    let assistant = proptest::collection::vec(prop_oneof![text(), call(), hosted()], 1..4)
        .prop_map(|parts| Message::new(Role::Assistant, parts));
    (prop::option::of(results()), user, assistant).prop_map(|(results, user, assistant)| {
        results.into_iter().chain([user, assistant]).collect()
    })
}

prop_compose! {
    fn question()(
        turns in proptest::collection::vec(turn(), 1..4),
        system in prop::option::of(text()),
        strict in prop_oneof![Just(None), Just(Some(true))],
        choice in prop_oneof![
            Just(None), Just(Some(ToolChoice::Auto)), Just(Some(ToolChoice::Required)),
            Just(Some(ToolChoice::Named("f".to_owned())))],
        budget in prop::option::of(1024..8000_u64),
        max_tokens in 9000..10_000_u64,
        user in prop::option::of("[a-z]{1,9}"),
        stop in proptest::collection::vec("[A-Z]{1,5}", 0..3),
        stream in any::<bool>(),
    ) -> ChatRequest {
        let system = system.map(|part| Message::new(Role::System, vec![part]));
        let last = Message::new(Role::User, vec![Part::text("go on")]);
        let tool = Tool::Function {
            name: "f".to_owned(),
            description: Some("does".to_owned()),
            schema: Some(json!({"type": "object", "properties": {"z": {}, "a": {}}})),
            strict,
            cache: None,
        };
        // A tool that must be called puts thinking aside.
        let free = !matches!(choice, Some(ToolChoice::Required | ToolChoice::Named(_)));
        ChatRequest {
            extras: Extras { dialect: Some(Dialect::Messages), ..Extras::default() },
            model: "claude-sonnet-4-5".to_owned(),
            stream,
            messages: system.into_iter().chain(turns.into_iter().flatten()).chain([last]).collect(),
            tools: vec![tool],
            parallel_tool_calls: choice.as_ref().map(|_| false),
            tool_choice: choice,
            sampling: Sampling { max_tokens: Some(max_tokens), stop, ..Sampling::default() },
            reasoning: budget.filter(|_| free).map(|budget| Thinking {
                budget: Some(budget),
                ..Thinking::default()
            }),
            user,
            include_usage: true,
            ..ChatRequest::default()
        }
    }
}

/// The marks that are left when only four may be.
fn few_marks(request: &ChatRequest) -> bool {
    let count = |parts: &[Part]| parts.iter().filter(|part| part.cache.is_some()).count();
    let nested = |part: &Part| match &part.content {
        Content::ToolResult(result) => count(&result.parts),
        _ => 0,
    };
    let marks = request
        .messages
        .iter()
        .map(|message| count(&message.parts) + message.parts.iter().map(nested).sum::<usize>());
    marks.sum::<usize>() <= 4
}

proptest! {
    #[test]
    fn a_question_that_is_written_and_read_is_the_same(question in question()) {
        prop_assume!(few_marks(&question));
        let aim = Aim { model: "claude-sonnet-4-5", traits: &Traits::NONE, cache: None };
        let sent = CODEC.write_request(&question, &aim).unwrap();
        prop_assert_eq!(&sent.dropped, &Vec::<std::borrow::Cow<'static, str>>::new());
        prop_assert_eq!(read(&sent.body).unwrap(), question);
    }
}
