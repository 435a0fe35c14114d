//! Questions as Cohere is to be asked them.

use serde_json::{Map, Value, json};

use super::{CODEC, call, thought};
use crate::canon::{
    CacheMark, ChatRequest, Content, Dialect, Effort, Extras, Format, Media, MediaKind, Message,
    Part, Role, Sampling, Source, Thinking, Tool, ToolChoice, ToolResult,
};
use crate::dialect::{Aim, Traits, UpstreamSide, Written};

const REASONING: &str = "command-a-reasoning-08-2025";
const PLAIN: &str = "command-r7b-12-2024";

fn written(request: &ChatRequest, model: &str) -> Written {
    CODEC.write_request(request, &Aim { model, traits: &Traits::NONE, cache: None }).unwrap()
}

fn body(request: &ChatRequest, model: &str) -> Value {
    serde_json::from_slice(&written(request, model).body).unwrap()
}

fn tool(name: &str) -> Tool {
    let schema = Some(json!({"type": "object", "properties": {"b": {}, "a": {}}}));
    let description = Some("Looks.".into());
    Tool::Function { name: name.into(), description, schema, strict: Some(true), cache: None }
}

fn ask(text: &str) -> ChatRequest {
    let said = Message::new(Role::User, vec![Part::text(text)]);
    ChatRequest { messages: vec![said], ..ChatRequest::default() }
}

fn medium(kind: MediaKind, source: Source) -> Part {
    Part::new(Content::Media(Media::new(kind, source)))
}

fn rich() -> ChatRequest {
    let picture = Source::Base64 { media_type: "image/png".into(), data: "QUJD".into() };
    let mut cached = Part::text("Be brief.");
    cached.cache = Some(CacheMark::Short);
    let result = Content::ToolResult(ToolResult {
        id: "weather_1".into(),
        name: None,
        parts: vec![Part::text("no such city")],
        is_error: true,
        custom: false,
    });
    ChatRequest {
        stream: true,
        messages: vec![
            Message::new(Role::Developer, vec![cached]),
            Message::new(
                Role::User,
                vec![
                    Part::text("What is this?"),
                    medium(MediaKind::Image, picture),
                    medium(MediaKind::Document, Source::Text("Rain.".into())),
                ],
            ),
            Message::new(
                Role::Assistant,
                vec![
                    thought("I will look.", true),
                    thought("Hm.", false),
                    Part::text("Well."),
                    call("weather_1", "weather", "{\"city\": \"Bern\"}"),
                ],
            ),
            Message::new(Role::Tool, vec![Part::new(result)]),
        ],
        tools: vec![tool("weather"), tool("time")],
        tool_choice: Some(ToolChoice::Named("time".into())),
        sampling: Sampling {
            max_tokens: Some(50),
            temperature: Some(1.5),
            top_p: Some(1.0),
            top_k: Some(3),
            stop: vec!["END".into()],
            seed: Some(-1),
            frequency_penalty: Some(-0.5),
            presence_penalty: Some(0.5),
            logprobs: Some(2),
            ..Sampling::default()
        },
        reasoning: Some(Thinking { effort: Some(Effort::Low), ..Thinking::default() }),
        user: Some("u".into()),
        extras: Extras {
            dialect: Some(Dialect::Chat),
            fields: Map::from_iter([
                ("safety_mode".to_owned(), json!("STRICT")),
                ("store".to_owned(), json!(true)),
            ]),
        },
        ..ChatRequest::default()
    }
}

#[test]
fn a_rich_question_is_written_as_the_fixture_says() {
    let fixture = include_bytes!("../../../../tests/fixtures/dialects/cohere/request.json");
    let fixture: Value = serde_json::from_slice(fixture).unwrap();
    assert_eq!(body(&rich(), REASONING), fixture, "{:#}", body(&rich(), REASONING));
    assert_eq!(
        written(&rich(), REASONING).dropped,
        [
            "cache_control",
            "store",
            "frequency_penalty",
            "temperature",
            "seed",
            "top_logprobs",
            "user"
        ]
    );
    assert_eq!(written(&rich(), REASONING), written(&rich(), REASONING));
}

#[test]
fn a_model_that_does_not_think_is_neither_asked_to_nor_given_thoughts() {
    let said = body(&rich(), PLAIN);
    assert!(said.get("thinking").is_none());
    assert_eq!(said["messages"][2]["content"], "Well.");
    assert_eq!(said["messages"][2]["tool_plan"], "I will look.");
    assert!(written(&rich(), PLAIN).dropped.contains(&"reasoning_effort".into()));
}

#[test]
fn a_schema_is_kept_unless_tools_are_there() {
    let mut request = ask("?");
    let schema = json!({"type": "object", "required": ["a"]});
    request.format = Format::JsonSchema {
        name: "A".into(),
        description: None,
        schema: schema.clone(),
        strict: Some(true),
    };
    let format = json!({"type": "json_object", "json_schema": schema});
    assert_eq!(body(&request, PLAIN)["response_format"], format);
    request.tools = vec![tool("a")];
    let instruction = Message::new(Role::System, vec![Part::text("Be brief.")]);
    request.messages.insert(0, instruction);
    let said = body(&request, PLAIN);
    assert!(said.get("response_format").is_none());
    assert_eq!(written(&request, PLAIN).dropped, ["response_format"]);
    let wish = said["messages"][1]["content"].as_str().unwrap();
    assert!(wish.contains(r#""required":["a"]"#), "{wish}");
    assert_eq!(said["messages"][2]["role"], "user");
}

#[test]
fn what_cannot_be_said_at_all_is_refused_and_named() {
    let aim = Aim { model: PLAIN, traits: &Traits::NONE, cache: None };
    let refused =
        |request: &ChatRequest| CODEC.write_request(request, &aim).unwrap_err().to_string();
    let mut request = ask("?");
    let pdf = Source::Base64 { media_type: "application/pdf".into(), data: "QUJD".into() };
    request.messages[0].parts.push(medium(MediaKind::Document, pdf));
    assert!(refused(&request).contains("messages[0].content"));
}
