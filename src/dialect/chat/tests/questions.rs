//! Questions: read in full, and written for each kind of server.

use serde_json::{Value, json};

use super::{CODEC, ask, body, fixture};
use crate::canon::{
    CacheMark, ChatRequest, Content, Dialect, Effort, Extras, Format, Media, MediaKind, Message,
    Opaque, Part, Reasoning, Role, Source, Thinking, Tool, ToolCall, ToolChoice, ToolResult,
};
use crate::dialect::{
    Aim, CacheInjection, ClientSide, Documents, EffortField, JsonMode, Thoughts, Traits,
    UpstreamSide,
};

fn question(messages: Vec<Message>) -> ChatRequest {
    ChatRequest { model: "m".into(), messages, ..ChatRequest::default() }
}

fn user(content: Content) -> ChatRequest {
    question(vec![Message::new(Role::User, vec![Part::new(content)])])
}

fn thought(text: &str, state: Option<Opaque>) -> Part {
    let reasoning = Reasoning { text: text.into(), ..Reasoning::default() };
    Part { opaque: state, ..Part::new(Content::Reasoning(reasoning)) }
}

fn call(id: &str) -> Part {
    let arguments = r#"{"x":1}"#.into();
    let call = ToolCall { id: id.into(), name: "look".into(), arguments, custom: false };
    Part::new(Content::ToolCall(call))
}

fn result(id: &str, parts: Vec<Part>) -> Part {
    let result = ToolResult { id: id.into(), name: None, parts, is_error: false, custom: false };
    Part::new(Content::ToolResult(result))
}

#[test]
fn a_full_question_is_read_and_comes_back_for_openai() {
    let bytes = fixture("dialects/chat/question.json");
    let request = CODEC.read_request(&bytes).unwrap();
    let roles: Vec<Role> = request.messages.iter().map(|message| message.role).collect();
    let (a, t) = (Role::Assistant, Role::Tool);
    assert_eq!(roles, [Role::Developer, Role::User, a, t, t, Role::User]);
    let asked = &request.messages[1];
    assert_eq!(asked.name.as_deref(), Some("ann"));
    let kinds: Vec<Option<MediaKind>> = asked
        .parts
        .iter()
        .map(|part| match &part.content {
            Content::Media(media) => Some(media.kind),
            _ => None,
        })
        .collect();
    let (image, audio) = (Some(MediaKind::Image), Some(MediaKind::Audio));
    let file = Some(MediaKind::Document);
    assert_eq!(kinds, [None, image, image, audio, file, file]);
    let Content::ToolResult(custom) = &request.messages[4].parts[0].content else { panic!() };
    assert!(custom.custom, "the result of a custom tool's call");
    assert_eq!(request.sampling.max_tokens, Some(500));
    assert_eq!(request.sampling.logprobs, Some(2));
    assert_eq!(request.reasoning.as_ref().unwrap().effort, Some(Effort::Low));
    assert!(request.include_usage);
    let extras: Vec<&String> = request.extras.fields.keys().collect();
    assert_eq!(extras, ["store", "prediction"]);
    let written = ask(&request, &Traits::NONE);
    assert_eq!(written.dropped, Vec::<String>::new());
    let asked: Value = serde_json::from_slice(&bytes).unwrap();
    let answer = body(&written);
    for (name, value) in asked.as_object().unwrap() {
        assert_eq!(answer[name], *value, "{name}");
    }
    assert_eq!(answer.as_object().unwrap().len(), asked.as_object().unwrap().len());
}

#[test]
fn the_same_question_is_always_the_same_bytes() {
    let request = CODEC.read_request(&fixture("dialects/chat/question.json")).unwrap();
    assert_eq!(ask(&request, &Traits::NONE).body, ask(&request, &Traits::NONE).body);
}

#[test]
fn a_wrong_type_is_refused_by_its_path() {
    for (question, path) in [
        (json!({ "messages": 1 }), "messages"),
        (json!({}), "messages"),
        (json!({ "messages": [{ "role": "user", "content": 1 }] }), "messages[0].content"),
        (json!({ "messages": [{ "role": "king", "content": "" }] }), "messages[0].role"),
        (json!({ "messages": [{ "content": "" }] }), "messages[0].role"),
        (json!({ "messages": [{ "role": "tool", "content": "" }] }), "messages[0].tool_call_id"),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }),
            "messages[0].content[0].image_url.url",
        ),
        (
            json!({ "messages": [{ "role": "assistant", "tool_calls": [{ "id": "a" }] }] }),
            "messages[0].tool_calls[0].function.name",
        ),
        (json!({ "messages": [], "temperature": "hot" }), "temperature"),
        (json!({ "messages": [], "max_tokens": -1 }), "max_tokens"),
        (json!({ "messages": [], "tools": [{ "type": "function" }] }), "tools[0].function.name"),
        (json!({ "messages": [], "tool_choice": "some" }), "tool_choice"),
        (json!({ "messages": [], "reasoning_effort": "huge" }), "reasoning_effort"),
        (
            json!({ "messages": [], "response_format": { "type": "json_schema" } }),
            "response_format.json_schema.schema",
        ),
    ] {
        let misread = CODEC.read_request(question.to_string().as_bytes()).unwrap_err();
        assert!(misread.to_string().contains(&format!("`{path}`")), "{path}: {misread}");
    }
    assert!(CODEC.read_request(b"{").is_err() && CODEC.read_request(b"[]").is_err());
}

#[test]
fn a_server_is_told_to_think_in_its_own_words() {
    const HIGH: &[&str] = &["low", "high", "max"];
    const ROW: &[(&str, &[&str])] = &[("another", &["high"]), ("", HIGH)];
    let ask = |field: EffortField, thinking: Thinking| {
        let request = ChatRequest { reasoning: Some(thinking), ..question(Vec::new()) };
        let mut written = body(&ask(&request, &Traits { effort: field, ..Traits::NONE }));
        let written = written.as_object_mut().unwrap();
        written.retain(|name, _| name != "model" && name != "messages");
        json!(written)
    };
    let effort = |effort| Thinking { effort: Some(effort), ..Thinking::default() };
    let budget = Thinking { budget: Some(9000), ..Thinking::default() };
    for (field, thinking, wanted) in [
        (EffortField::Effort(ROW), effort(Effort::Medium), json!({ "reasoning_effort": "low" })),
        (EffortField::Effort(ROW), effort(Effort::Minimal), json!({ "reasoning_effort": "low" })),
        (EffortField::Effort(ROW), effort(Effort::None), json!({ "reasoning_effort": "low" })),
        (EffortField::Effort(ROW), effort(Effort::Max), json!({ "reasoning_effort": "max" })),
        (EffortField::Effort(ROW), budget.clone(), json!({ "reasoning_effort": "low" })),
        (EffortField::Effort(&[("", &["none"])]), effort(Effort::High), json!({})),
        (EffortField::Unknown, effort(Effort::Low), json!({})),
        (EffortField::Reasoning, budget.clone(), json!({ "reasoning": { "max_tokens": 9000 } })),
        (
            EffortField::Reasoning,
            effort(Effort::Max),
            json!({ "reasoning": { "effort": "xhigh" } }),
        ),
        (
            EffortField::Thinking(HIGH),
            effort(Effort::High),
            json!({ "thinking": { "type": "enabled" }, "reasoning_effort": "high" }),
        ),
        (
            EffortField::Thinking(&[]),
            effort(Effort::None),
            json!({ "thinking": { "type": "disabled" } }),
        ),
        (
            EffortField::EnableThinking,
            budget,
            json!({ "enable_thinking": true, "thinking_budget": 9000 }),
        ),
        (EffortField::EnableThinking, effort(Effort::None), json!({ "enable_thinking": false })),
    ] {
        assert_eq!(ask(field, thinking.clone()), wanted, "{field:?} {thinking:?}");
    }
}

#[test]
fn a_schema_that_a_server_does_not_take_is_told_to_the_model() {
    let schema = json!({ "type": "object", "properties": { "b": {}, "a": {} } });
    let format = Format::JsonSchema {
        name: "n".into(),
        description: None,
        schema: schema.clone(),
        strict: Some(true),
    };
    let system = Message::new(Role::System, vec![Part::text("Be brief.")]);
    let ask_user = Message::new(Role::User, vec![Part::text("Hi")]);
    let request = ChatRequest { format, ..question(vec![system, ask_user]) };
    let written = body(&ask(&request, &Traits { json: JsonMode::ObjectOnly, ..Traits::NONE }));
    assert_eq!(written["response_format"], json!({ "type": "json_object" }));
    assert_eq!(written["messages"][0]["content"], "Be brief.");
    let told = written["messages"][1]["content"].as_str().unwrap();
    assert!(told.contains(&schema.to_string()), "{told}");
    assert_eq!(written["messages"][2]["role"], "user");
}

#[test]
fn thoughts_go_back_only_as_the_server_takes_them() {
    let own = Opaque {
        dialect: Dialect::Chat,
        data: json!({ "type": "reasoning.text", "format": "anthropic-claude-v1", "signature": "s" }),
    };
    let strange = Opaque { dialect: Dialect::Messages, data: json!("sig") };
    let parts = vec![thought("a", Some(own)), thought("b", Some(strange)), call("call_1")];
    let request = question(vec![Message::new(Role::Assistant, parts)]);
    let message = |thoughts| {
        body(&ask(&request, &Traits { thoughts, ..Traits::NONE }))["messages"][0].clone()
    };
    let none = message(Thoughts::Unknown);
    assert_eq!(none.as_object().unwrap().len(), 3, "{none}");
    assert_eq!(message(Thoughts::Field("reasoning_content"))["reasoning_content"], "ab");
    let details = message(Thoughts::Details);
    assert_eq!(details["reasoning_details"].as_array().unwrap().len(), 1);
    assert_eq!(details["reasoning_details"][0]["signature"], "s");
    assert_eq!(details["reasoning_details"][0]["text"], "a");
    let parts = message(Thoughts::Parts);
    assert_eq!(parts["content"][0]["type"], "thinking");
    assert!(![none, details].iter().any(|message| message.to_string().contains("\"sig\"")));
}

#[test]
fn a_clients_replay_restores_the_state_it_was_given() {
    for state in [json!("EqQB+/=="), json!({ "id": "rs_1", "x": [1] })] {
        for dialect in [Dialect::Messages, Dialect::Gemini, Dialect::Responses] {
            let state = Some(Opaque { dialect, data: state.clone() });
            let mut summary = thought("sum", state.clone());
            let mut withheld = thought("", state.clone());
            if let Content::Reasoning(reasoning) = &mut summary.content {
                reasoning.summary = true;
            }
            if let Content::Reasoning(reasoning) = &mut withheld.content {
                reasoning.redacted = true;
            }
            let told = thought("text", state.clone());
            let signed = thought("", state.clone());
            let mut call = call("call_1");
            call.opaque.clone_from(&state);
            let parts = vec![told, summary, withheld, signed, Part::text("so"), call];
            let choice = crate::canon::Choice { parts: parts.clone(), ..Default::default() };
            let response =
                crate::canon::ChatResponse { choices: vec![choice], ..Default::default() };
            let written: Value = serde_json::from_slice(&super::write_whole(&response)).unwrap();
            let replay = json!({ "messages": [written["choices"][0]["message"]] });
            let read = CODEC.read_request(replay.to_string().as_bytes()).unwrap();
            assert_eq!(read.messages[0].parts, parts, "{written}");
        }
    }
}

#[test]
fn state_of_a_call_is_found_among_the_thoughts_too() {
    let replay = json!({ "messages": [{
        "role": "assistant", "content": null,
        "tool_calls": [{ "id": "call_1", "function": { "name": "look", "arguments": "{}" } }],
        "reasoning_details": [{ "type": "reasoning.encrypted", "id": "call_1", "data": "sig",
            "format": "switchpoint.gemini" }],
    }] });
    let read = CODEC.read_request(replay.to_string().as_bytes()).unwrap();
    let state = Opaque { dialect: Dialect::Gemini, data: json!("sig") };
    assert_eq!(read.messages[0].parts.len(), 1);
    assert_eq!(read.messages[0].parts[0].opaque, Some(state));
}

#[test]
fn ids_of_calls_and_results_meet_in_the_length_that_a_server_takes() {
    for id in ["call_1", "abcDEF123", "functions.look:0"] {
        let messages = vec![
            Message::new(Role::Assistant, vec![call(id)]),
            Message::new(Role::Tool, vec![result(id, vec![Part::text("ok")])]),
        ];
        for short_ids in [false, true] {
            let written =
                body(&ask(&question(messages.clone()), &Traits { short_ids, ..Traits::NONE }));
            let id = written["messages"][0]["tool_calls"][0]["id"].as_str().unwrap();
            assert_eq!(written["messages"][1]["tool_call_id"], id);
            assert!(!short_ids || id.len() == 9 && id.bytes().all(|b| b.is_ascii_alphanumeric()));
        }
    }
}

#[test]
fn what_a_tool_shows_follows_all_results_of_the_turn() {
    let source = Source::Url { url: "https://a.example/x.png".into(), media_type: None };
    let image = Part::new(Content::Media(Media::new(MediaKind::Image, source)));
    let messages = vec![
        Message::new(Role::Assistant, vec![call("a"), call("b")]),
        Message::new(
            Role::Tool,
            vec![result("a", vec![image]), result("b", vec![Part::text("2")])],
        ),
        Message::new(Role::User, vec![Part::text("And?")]),
    ];
    let written = body(&ask(&question(messages), &Traits::NONE));
    let roles: Vec<&str> = written["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["assistant", "tool", "tool", "user", "user"]);
    assert_eq!(written["messages"][3]["content"][0]["type"], "image_url");
}

#[test]
fn whatever_is_left_out_is_named() {
    let mut fields = serde_json::Map::new();
    fields.insert("top_a".into(), json!(1));
    fields.insert("store".into(), json!(true));
    let mut part = Part::text("x");
    part.cache = Some(CacheMark::Long);
    let request = ChatRequest {
        tools: vec![Tool::Hosted(crate::canon::Foreign {
            dialect: Dialect::Messages,
            value: json!({ "type": "web_search_20250305", "name": "web_search" }),
        })],
        extras: Extras { dialect: Some(Dialect::Messages), fields },
        verbosity: Some("low".into()),
        metadata: Some(serde_json::Map::new()),
        sampling: crate::canon::Sampling { top_k: Some(4), seed: Some(1), ..Default::default() },
        ..question(vec![Message::new(Role::User, vec![part])])
    };
    let traits = Traits { refused: &["top_k", "seed", "verbosity"], ..Traits::NONE };
    let written = ask(&request, &traits);
    let mut dropped = written.dropped.clone();
    dropped.sort();
    assert_eq!(
        dropped,
        ["cache_control", "metadata", "seed", "top_a", "top_k", "verbosity", "web_search_20250305"]
    );
    let kept = body(&written);
    assert!(kept.get("seed").is_none() && kept.get("tools").is_none());
    let kept = ask(&request, &Traits { cache_control: true, ..traits });
    assert_eq!(body(&kept)["messages"][0]["content"][0]["cache_control"]["ttl"], "1h");
}

#[test]
fn breakpoints_are_set_for_a_client_that_sets_none_and_only_then() {
    let (cached, lifetime) = (CacheMark::Short, CacheMark::Long);
    let cache = Some(CacheInjection { system: true, tools: true, messages: true, lifetime });
    let traits = Traits { cache_control: true, ..Traits::NONE };
    let tool = json!([{ "type": "function", "function": { "name": "look" } }]);
    let question = json!({ "tools": tool, "messages": [
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "1" },
        { "role": "user", "content": "2" },
        { "role": "assistant", "content": "3" },
        { "role": "user", "content": [{ "type": "text", "text": "4" }] },
    ] });
    let mut request = CODEC.read_request(question.to_string().as_bytes()).unwrap();
    let marks = |request: &ChatRequest, traits: &Traits| {
        let written = CODEC.write_request(request, &Aim { model: "m", traits, cache }).unwrap();
        let body = body(&written);
        let messages = body["messages"].as_array().unwrap().clone();
        let places: Vec<usize> =
            (0..messages.len()).filter(|at| messages[*at].to_string().contains("\"1h\"")).collect();
        (body["tools"][0]["cache_control"]["ttl"] == "1h", places)
    };
    assert_eq!(marks(&request, &traits), (true, vec![0, 2, 4]));
    assert_eq!(marks(&request, &Traits::NONE), (false, vec![]));
    request.messages[1].parts[0].cache = Some(cached);
    assert_eq!(marks(&request, &traits), (false, vec![]));
}

#[test]
fn only_the_allowed_tools_are_offered_where_a_choice_among_them_is_unknown() {
    let tool = |name: &str| Tool::Function {
        name: name.into(),
        description: None,
        schema: None,
        strict: None,
        cache: None,
    };
    let choice = ToolChoice::Among { names: vec!["b".into()], required: true };
    let request = ChatRequest {
        tools: vec![tool("a"), tool("b")],
        tool_choice: Some(choice),
        ..question(Vec::new())
    };
    let written = body(&ask(&request, &Traits::FOLLOWER));
    assert_eq!(written["tools"].as_array().unwrap().len(), 1);
    assert_eq!(written["tool_choice"], "required");
    let written = body(&ask(&request, &Traits::NONE));
    assert_eq!(written["tools"].as_array().unwrap().len(), 2);
    assert_eq!(written["tool_choice"]["allowed_tools"]["tools"][0]["function"]["name"], "b");
}

#[test]
fn what_makes_no_sense_without_it_is_refused_by_name() {
    let url = || Source::Url { url: "https://a.example/a".into(), media_type: None };
    let file = Source::File { dialect: Dialect::Messages, id: "f".into() };
    for (media, traits) in [
        (Media::new(MediaKind::Image, url()), Traits { image_urls: false, ..Traits::NONE }),
        (Media::new(MediaKind::Audio, url()), Traits::NONE),
        (Media::new(MediaKind::Document, url()), Traits::NONE),
        (Media::new(MediaKind::Image, file), Traits::NONE),
    ] {
        let request = user(Content::Media(media));
        assert!(
            CODEC
                .write_request(&request, &Aim { model: "m", traits: &traits, cache: None })
                .is_err()
        );
    }
    let media = Media::new(MediaKind::Document, url());
    let traits = Traits { documents: Documents::DocumentUrl, ..Traits::NONE };
    let written = body(&ask(&user(Content::Media(media)), &traits));
    assert_eq!(written["messages"][0]["content"][0]["document_url"], "https://a.example/a");
}

#[test]
fn lists_of_texts_are_joined_where_only_strings_are_taken() {
    let parts = vec![Part::text("a"), Part::text("b")];
    let request = question(vec![Message::new(Role::System, parts)]);
    let written = body(&ask(&request, &Traits { flat_text: true, ..Traits::NONE }));
    assert_eq!(written["messages"][0]["content"], "a\n\nb");
}

#[test]
fn the_older_function_fields_are_read_as_tools() {
    let old = json!({
        "functions": [{ "name": "look", "parameters": { "type": "object" } }],
        "function_call": { "name": "look" },
        "messages": [
            { "role": "assistant", "content": null,
              "function_call": { "name": "look", "arguments": "{}" } },
            { "role": "function", "name": "look", "content": "1" },
        ],
    });
    let request = CODEC.read_request(old.to_string().as_bytes()).unwrap();
    assert_eq!(request.tool_choice, Some(ToolChoice::Named("look".into())));
    assert_eq!(request.tools.len(), 1);
    let Content::ToolCall(call) = &request.messages[0].parts[0].content else { panic!() };
    let Content::ToolResult(result) = &request.messages[1].parts[0].content else { panic!() };
    assert_eq!(call.id, result.id);
}
