//! A free-text tool, through every dialect and back.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{FORMAT, Unwrapper, as_function, unwrap};
use crate::canon::{
    ChatRequest, Content, Dialect, Event, Message, Part, Role, Tool, ToolCall, ToolChoice,
    ToolResult,
};
use crate::dialect::fold::Fold;
use crate::dialect::{Aim, ClientSide, Context, Traits, chat, responses, upstream};

#[test]
fn a_custom_tool_becomes_a_function_with_one_string_and_its_grammar_in_words() {
    let tool = Tool::Custom {
        name: "apply_patch".into(),
        description: Some("Edits files.".into()),
        format: Some(json!({"type": "grammar", "syntax": "lark", "definition": "start: \"x\""})),
    };
    let Some(Tool::Function { name, description, schema, .. }) = as_function(&tool) else {
        panic!("no function");
    };
    assert_eq!(name, "apply_patch");
    assert!(description.unwrap().ends_with("lark grammar:\nstart: \"x\""));
    assert_eq!(schema.unwrap()["required"], json!(["input"]));
}

#[test]
fn a_conversation_with_arguments_that_were_cut_goes_on_everywhere() {
    let cut = "{\"city\": \"Par";
    let function = json!({"name": "f", "arguments": cut});
    let calls = json!([{"id": "c", "type": "function", "function": function}]);
    let body = json!({"messages": [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": null, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c", "content": "Error: no JSON"},
    ]});
    let request = chat::CODEC.read_request(body.to_string().as_bytes()).unwrap();
    let aim = Aim { model: "m", traits: &Traits::NONE, cache: None };
    let told = json!({"INVALID_JSON": cut});
    for (target, place) in [
        (Dialect::Messages, "/messages/1/content/0/input"),
        (Dialect::Converse, "/messages/1/content/0/toolUse/input"),
        (Dialect::Gemini, "/contents/1/parts/0/functionCall/args"),
        (Dialect::Cohere, "/messages/1/tool_calls/0/function/arguments"),
    ] {
        let written = upstream(target).write_request(&request, &aim).unwrap();
        let body: Value = serde_json::from_slice(&written.body).unwrap();
        let mut input = body.pointer(place).unwrap().clone();
        if let Some(text) = input.as_str() {
            input = serde_json::from_str(text).unwrap();
        }
        assert_eq!(input, told, "{target:?}");
        assert!(written.dropped.is_empty(), "{target:?}");
    }
}

#[test]
fn arguments_of_another_shape_are_not_lost() {
    assert_eq!(unwrap(r#"{"x": 1, "input": "a\"b"}"#), "a\"b");
    assert_eq!(unwrap("*** Begin Patch"), "*** Begin Patch");
    assert_eq!(unwrap(r#"{"other": 1}"#), r#"{"other": 1}"#);
    assert_eq!(unwrap(r#"{"input":"\ud83dx\ud83d\ud83d\ude00\u00e9\/"}"#), "\u{fffd}x\u{fffd}😀é/");
    assert_eq!(unwrap(r#"{ "input" : "😀\n" , "y": 2}"#), "😀\n");
}

proptest! {
    #[test]
    fn the_text_comes_out_whole_in_any_pieces(text in "\\PC*[\\n\\t\"\\\\]?\\PC*", cut in 1_usize..7) {
        let wrapped = serde_json::to_string(&json!({ "input": text })).unwrap();
        let mut unwrapper = Unwrapper::default();
        let mut out = String::new();
        let characters: Vec<char> = wrapped.chars().collect();
        for piece in characters.chunks(cut) {
            unwrapper.feed(&piece.iter().collect::<String>(), &mut out);
        }
        unwrapper.finish(&mut out);
        prop_assert_eq!(out, text);
    }

    #[test]
    fn no_text_breaks_it(text in "\\{\"input\":\"(\\\\.{0,6}|\\PC){0,20}") {
        unwrap(&text);
    }
}

/// Every dialect without custom tools; many who follow OpenAI have none either.
const WITHOUT: [Dialect; 5] =
    [Dialect::Chat, Dialect::Messages, Dialect::Gemini, Dialect::Converse, Dialect::Cohere];

fn patching() -> Tool {
    Tool::Custom {
        name: "apply_patch".into(),
        description: Some("Edits files.".into()),
        format: Some(json!({"type": "grammar", "syntax": "lark", "definition": "start: \"x\""})),
    }
}

fn context(request: &ChatRequest) -> Context<'_> {
    let id = "0123456789abcdef0123456789abcdef";
    Context { id, created: 1, model: "m", input_estimate: 1, previous: None, request }
}

/// A question with an earlier call of the tool, which must now be called again.
fn question(text: &str) -> ChatRequest {
    let call = ToolCall {
        id: "c1".into(),
        name: "apply_patch".into(),
        arguments: text.into(),
        custom: true,
    };
    let result = ToolResult {
        id: "c1".into(),
        name: None,
        parts: vec![Part::text("done")],
        is_error: false,
        custom: true,
    };
    let message = |role, content| Message { role, parts: vec![Part::new(content)], name: None };
    ChatRequest {
        messages: vec![
            Message { role: Role::User, parts: vec![Part::text("Edit.")], name: None },
            message(Role::Assistant, Content::ToolCall(call)),
            message(Role::Tool, Content::ToolResult(result)),
        ],
        tools: vec![patching()],
        tool_choice: Some(ToolChoice::Named("apply_patch".into())),
        ..ChatRequest::default()
    }
}

/// Where each dialect has the tool's schema, the earlier call's arguments and the tool that must
/// be called.
fn places(dialect: Dialect) -> [&'static str; 3] {
    match dialect {
        Dialect::Messages => {
            ["/tools/0/input_schema", "/messages/1/content/0/input", "/tool_choice/name"]
        }
        Dialect::Gemini => [
            "/tools/0/functionDeclarations/0/parametersJsonSchema",
            "/contents/1/parts/0/functionCall/args",
            "/toolConfig/functionCallingConfig/allowedFunctionNames/0",
        ],
        Dialect::Converse => [
            "/toolConfig/tools/0/toolSpec/inputSchema/json",
            "/messages/1/content/0/toolUse/input",
            "/toolConfig/toolChoice/tool/name",
        ],
        // Cohere cannot be told which one; there is but one.
        Dialect::Cohere => [
            "/tools/0/function/parameters",
            "/messages/1/tool_calls/0/function/arguments",
            "/tools/0/function/name",
        ],
        Dialect::Chat | Dialect::Responses => [
            "/tools/0/function/parameters",
            "/messages/1/tool_calls/0/function/arguments",
            "/tool_choice/function/name",
        ],
    }
}

#[test]
fn every_dialect_without_custom_tools_is_given_functions_and_the_exact_text() {
    let text = " *** Begin \"Patch\"\n+é😀\\ \n";
    for dialect in WITHOUT {
        let model = match dialect {
            Dialect::Converse => "anthropic.claude-sonnet-4-5-20250929-v1:0",
            Dialect::Messages => "claude-sonnet-4-5",
            Dialect::Gemini => "gemini-2.5-flash",
            Dialect::Chat | Dialect::Cohere | Dialect::Responses => "m",
        };
        let aim = Aim { model, traits: &Traits::FOLLOWER, cache: None };
        let written = upstream(dialect).write_request(&question(text), &aim).unwrap();
        assert!(written.dropped.contains(&FORMAT.into()), "{dialect:?}: {:?}", written.dropped);
        let body: Value = serde_json::from_slice(&written.body).unwrap();
        let [schema, call, name] =
            places(dialect).map(|place| body.pointer(place).unwrap_or_else(|| panic!("{body}")));
        assert_eq!(schema["properties"]["input"]["type"], "string", "{dialect:?}");
        assert_eq!(name, "apply_patch", "{dialect:?}");
        let arguments = match call {
            Value::String(json) => serde_json::from_str(json).unwrap(),
            value => value.clone(),
        };
        assert_eq!(arguments, json!({ "input": text }), "{dialect:?}");
        assert!(body.to_string().contains("lark grammar"), "{dialect:?}");
        assert!(body.to_string().contains("done"), "{dialect:?}");
    }
}

/// What a provider streams when its model calls the function, an event a line: its name, if it has
/// one, and its data. That with `PIECE` comes once for each piece of the arguments.
fn script(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Chat | Dialect::Responses => {
            r#"
{"id":"1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c1","type":"function","function":{"name":"apply_patch","arguments":""}}]}}]}
{"id":"1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":PIECE}}]}}]}
{"id":"1","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}"#
        }
        Dialect::Messages => {
            r#"
message_start {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"usage":{"input_tokens":1,"output_tokens":1}}}
content_block_start {"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"c1","name":"apply_patch","input":{}}}
content_block_delta {"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":PIECE}}
content_block_stop {"type":"content_block_stop","index":0}
message_delta {"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":2}}
message_stop {"type":"message_stop"}"#
        }
        // The arguments are an object here, and come whole.
        Dialect::Gemini => {
            r#"
{"candidates":[{"index":0,"content":{"role":"model","parts":[{"functionCall":{"id":"c1","name":"apply_patch","args":PIECE}}]},"finishReason":"STOP"}]}"#
        }
        Dialect::Converse => {
            r#"
messageStart {"role":"assistant"}
contentBlockStart {"contentBlockIndex":0,"start":{"toolUse":{"toolUseId":"c1","name":"apply_patch"}}}
contentBlockDelta {"contentBlockIndex":0,"delta":{"toolUse":{"input":PIECE}}}
contentBlockStop {"contentBlockIndex":0}
messageStop {"stopReason":"tool_use"}
metadata {"usage":{"inputTokens":1,"outputTokens":1,"totalTokens":2}}"#
        }
        Dialect::Cohere => {
            r#"
{"type":"message-start","id":"1","delta":{"message":{"role":"assistant"}}}
{"type":"tool-call-start","index":0,"delta":{"message":{"tool_calls":{"id":"c1","type":"function","function":{"name":"apply_patch","arguments":""}}}}}
{"type":"tool-call-delta","index":0,"delta":{"message":{"tool_calls":{"function":{"arguments":PIECE}}}}}
{"type":"tool-call-end","index":0}
{"type":"message-end","delta":{"finish_reason":"TOOL_CALL"}}"#
        }
    }
}

/// Names and data of the events.
fn stream(dialect: Dialect, pieces: &[String]) -> Vec<(&'static str, String)> {
    let said: Vec<String> = match dialect {
        Dialect::Gemini => vec![pieces.concat()],
        _ => pieces.iter().map(|piece| json!(piece).to_string()).collect(),
    };
    let mut events = Vec::new();
    for line in script(dialect).trim().lines() {
        let (name, data) = line.split_at(line.find('{').unwrap());
        if data.contains("PIECE") {
            events.extend(said.iter().map(|said| (name.trim(), data.replace("PIECE", said))));
        } else {
            events.push((name.trim(), data.to_owned()));
        }
    }
    events
}

/// Our own events of what a provider streams.
fn read(dialect: Dialect, pieces: &[String]) -> Vec<Event> {
    let mut reader = upstream(dialect).reader();
    let mut events = Vec::new();
    for (name, data) in stream(dialect, pieces) {
        let name = Some(name.as_bytes()).filter(|name| !name.is_empty());
        reader.read(name, data.as_bytes(), &mut events).unwrap();
    }
    reader.end(&mut events);
    events
}

fn fold(events: &[Event]) -> crate::canon::ChatResponse {
    let mut fold = Fold::default();
    for event in events {
        fold.add(event);
    }
    fold.finish().unwrap()
}

fn called(response: &crate::canon::ChatResponse) -> ToolCall {
    let mut calls = response.choices[0].parts.iter().filter_map(|part| match &part.content {
        Content::ToolCall(call) => Some(call.clone()),
        _ => None,
    });
    calls.next_back().unwrap()
}

/// The call that the client sees, in a stream and whole.
fn shown(client: &dyn ClientSide, home: Dialect, events: &[Event]) -> [ToolCall; 2] {
    let request = question("");
    let mut writer = client.writer(&context(&request));
    let mut out = Vec::new();
    for event in events {
        writer.write(event, &mut out);
    }
    let mut reader = upstream(home).reader();
    let mut seen = Vec::new();
    for line in str::from_utf8(&out).unwrap().lines() {
        if let Some(data) = line.strip_prefix("data: ") {
            reader.read(None, data.as_bytes(), &mut seen).unwrap();
        }
    }
    reader.end(&mut seen);
    let whole = client.write_response(&fold(events), &context(&request));
    [called(&fold(&seen)), called(&upstream(home).read_response(&whole).unwrap())]
}

/// The wrapped text as JSON, with every character beyond ASCII escaped where that is wanted.
fn wrapped(text: &str, escaped: bool) -> String {
    let plain = json!({ "input": text }).to_string();
    let mut out = String::new();
    for character in plain.chars() {
        if character.is_ascii() || !escaped {
            out.push(character);
        } else {
            let mut units = [0; 2];
            let units = character.encode_utf16(&mut units);
            out.extend(units.iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_call_comes_back_from_every_dialect_with_the_exact_text_at_any_chunking(
        text in "[\\PC\\n\\t\"\\\\é😀]{0,24}",
        escaped in any::<bool>(),
        cut in 1_usize..9,
    ) {
        let json: Vec<char> = wrapped(&text, escaped).chars().collect();
        let pieces: Vec<String> = json.chunks(cut).map(|piece| piece.iter().collect()).collect();
        for dialect in WITHOUT {
            let events = read(dialect, &pieces);
            let clients: [(&dyn ClientSide, _); 2] =
                [(&chat::CODEC, Dialect::Chat), (&responses::CODEC, Dialect::Responses)];
            for (client, home) in clients {
                for call in shown(client, home, &events) {
                    prop_assert_eq!(&call.arguments, &text, "{:?} to {:?}", dialect, home);
                    prop_assert!(call.custom && call.name == "apply_patch");
                }
            }
        }
    }
}
