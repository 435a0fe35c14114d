//! Rich fixtures, true to Google's documentation, and what must come of them.

use std::time::Duration;

use serde_json::{Value, json};

use super::{context, events, fold, written};
use crate::canon::{
    ChatRequest, ChatResponse, Choice, Citation, Content, Delta, Dialect, Effort, Event, Finish,
    FinishReason, Foreign, Format, Media, MediaKind, Message, Opaque, Part, Reasoning, Role,
    Source, Thinking, Tool, ToolCall, ToolChoice, ToolResult, Usage,
};
use crate::dialect::fold::unfold;
use crate::dialect::gemini::{ARRAY, CODEC, COUNT, write_count};
use crate::dialect::{Aim, ClientSide, Inexpressible, Traits, UpstreamSide, Written};
use crate::error::{Error, Kind};

const REQUEST: &[u8] = include_bytes!("../../../../tests/fixtures/dialects/gemini/request.json");
const RESPONSE: &[u8] = include_bytes!("../../../../tests/fixtures/dialects/gemini/response.json");

fn ask(request: &ChatRequest, model: &str) -> Result<(Value, Written), Inexpressible> {
    let aim = Aim { model, traits: &Traits { model_in_path: true, ..Traits::NONE }, cache: None };
    let written = CODEC.write_request(request, &aim)?;
    Ok((serde_json::from_slice(&written.body).unwrap(), written))
}

fn call(id: &str, name: &str, arguments: &str) -> ToolCall {
    ToolCall { id: id.into(), name: name.into(), arguments: arguments.into(), custom: false }
}

fn result(id: &str, text: &str) -> Message {
    let result = ToolResult {
        id: id.into(),
        name: None,
        parts: vec![Part::text(text)],
        is_error: false,
        custom: false,
    };
    Message::new(Role::Tool, vec![Part::new(Content::ToolResult(result))])
}

/// A history with one call that was made by another provider's model.
fn history(arguments: &str, text: &str) -> ChatRequest {
    let made = Part::new(Content::ToolCall(call("call_1", "look_up", arguments)));
    let messages = vec![
        Message::new(Role::User, vec![Part::text("hi")]),
        Message::new(Role::Assistant, vec![Part::text(""), made]),
        result("call_1", text),
    ];
    ChatRequest { messages, ..ChatRequest::default() }
}

#[test]
fn reads_a_question_with_all_its_fields() {
    let request = CODEC.read_request(REQUEST).unwrap();
    let roles: Vec<Role> = request.messages.iter().map(|message| message.role).collect();
    assert_eq!(
        roles,
        [Role::System, Role::User, Role::Assistant, Role::Tool, Role::Assistant, Role::User]
    );
    let said = &request.messages[2].parts;
    assert_eq!(
        said[0].content,
        Content::Reasoning(Reasoning {
            text: "I should look it up.".into(),
            ..Reasoning::default()
        })
    );
    let Content::ToolCall(first) = &said[1].content else { panic!() };
    assert_eq!(first.arguments, r#"{"city":"Paris","days":2}"#);
    assert_eq!(said[1].opaque_for(Dialect::Gemini), Some(&json!("EqUCCqICAb4+9vsh")));
    let results: Vec<(&str, bool, String)> = request.messages[3]
        .parts
        .iter()
        .map(|part| {
            let Content::ToolResult(result) = &part.content else { panic!() };
            (result.id.as_str(), result.is_error, result.parts[0].as_text().unwrap().to_owned())
        })
        .collect();
    assert_eq!(
        results,
        [
            (first.id.as_str(), false, r#"{"temperature":21}"#.to_owned()),
            ("given", true, "no such city".to_owned())
        ]
    );
    let film = &request.messages[1].parts[3];
    let Content::Media(Media {
        kind: MediaKind::Video,
        source: Source::File { dialect: Dialect::Gemini, .. },
        ..
    }) = &film.content
    else {
        panic!()
    };
    assert!(matches!(
        &request.messages[4].parts[0].content,
        Content::Foreign(Foreign { dialect: Dialect::Gemini, .. })
    ));
    assert_eq!(request.messages[4].parts[2].as_text(), Some(""));
}

#[test]
fn reads_the_settings_of_a_question() {
    let request = CODEC.read_request(REQUEST).unwrap();
    let Tool::Function { schema: Some(schema), .. } = &request.tools[0] else { panic!() };
    assert_eq!(schema["properties"]["days"]["type"], json!(["integer", "null"]));
    assert!(
        matches!(&request.tools[2], Tool::Hosted(Foreign { value, .. }) if *value == json!({"googleSearch": {}}))
    );
    assert_eq!(
        request.tool_choice,
        Some(ToolChoice::Among { names: vec!["look_up".into(), "now".into()], required: true })
    );
    let sampling = &request.sampling;
    assert_eq!((sampling.top_k, sampling.seed, sampling.logprobs), (Some(40), Some(7), Some(3)));
    assert_eq!((sampling.frequency_penalty, sampling.choices), (Some(-0.5), Some(2)));
    assert!(
        matches!(&request.format, Format::JsonSchema { schema, .. } if schema["type"] == "object")
    );
    assert_eq!(
        request.reasoning,
        Some(Thinking { budget: Some(1024), visible: Some(true), ..Thinking::default() })
    );
    let kept: Vec<&str> = request.extras.fields.keys().map(String::as_str).collect();
    assert_eq!(
        kept,
        [
            "toolConfig.retrievalConfig",
            "safetySettings",
            "generationConfig.mediaResolution",
            "cachedContent"
        ]
    );
}

#[test]
fn a_question_goes_home_as_it_came() {
    let request = CODEC.read_request(REQUEST).unwrap();
    let (body, written) = ask(&request, "gemini-2.5-flash").unwrap();
    assert!(written.dropped.is_empty(), "{:?}", written.dropped);
    let came: Value = serde_json::from_slice(REQUEST).unwrap();
    for field in ["safetySettings", "cachedContent", "toolConfig"] {
        assert_eq!(body[field], came[field]);
    }
    assert_eq!(body["generationConfig"]["mediaResolution"], "MEDIA_RESOLUTION_LOW");
    assert_eq!(
        body["generationConfig"]["thinkingConfig"],
        came["generationConfig"]["thinkingConfig"]
    );
    assert_eq!(body["contents"][1]["parts"][1]["thoughtSignature"], "EqUCCqICAb4+9vsh");
    assert_eq!(body["contents"][0]["parts"][3], came["contents"][0]["parts"][3]);
    assert_eq!(body["contents"][3], came["contents"][3]);
    let functions = body["tools"][0]["functionDeclarations"].as_array().unwrap();
    assert_eq!(functions[0]["parametersJsonSchema"]["required"], json!(["city"]));
    assert_eq!(body["tools"][1], json!({"googleSearch": {}}));
    assert_eq!(CODEC.read_request(&written.body).unwrap(), request);
    assert_eq!(ask(&request, "gemini-2.5-flash").unwrap().1, written);
    assert_eq!(COUNT.read_request(REQUEST).unwrap(), request);
    let inner =
        format!(r#"{{"generateContentRequest":{}}}"#, std::str::from_utf8(REQUEST).unwrap());
    assert_eq!(COUNT.read_request(inner.as_bytes()).unwrap(), request);
    assert_eq!(write_count(3), br#"{"totalTokens":3}"#);
}

#[test]
fn reads_an_answer_with_all_its_fields() {
    let answer = CODEC.read_response(RESPONSE).unwrap();
    let first = &answer.choices[0];
    let calls: Vec<&ToolCall> = first
        .parts
        .iter()
        .filter_map(|part| match &part.content {
            Content::ToolCall(call) => Some(call),
            _ => None,
        })
        .collect();
    assert_eq!(calls[0].id, "call_b36LacjwM668nsEP2tbsgQQ_1");
    assert!(calls[1].id.starts_with("call_") && calls[1].id.len() == 37);
    let cited: Vec<(Option<u64>, Option<u64>)> = first
        .parts
        .iter()
        .filter_map(|part| match &part.content {
            Content::Text { citations, .. } => {
                Some(citations.iter().map(|citation| (citation.start, citation.end)))
            }
            _ => None,
        })
        .flatten()
        .collect();
    assert_eq!(cited, [(Some(0), Some(10)), (None, None)]);
    assert_eq!(first.logprobs.as_ref().unwrap()["content"][0]["top_logprobs"][1]["token"], "A");
    assert_eq!(first.finish.reason, FinishReason::ToolCalls);
    assert_eq!(answer.choices[1].finish.reason, FinishReason::Length);
    let expected = Usage {
        input: 45,
        cache_read: 60,
        output: 50,
        reasoning: 30,
        audio_input: 20,
        ..Usage::default()
    };
    assert_eq!(answer.usage, Some(expected));
    assert_eq!(answer.service_tier.as_deref(), Some("default"));
    let request = ChatRequest::default();
    let written = CODEC.write_response(&answer, &context(&request));
    assert_eq!(CODEC.read_response(&written).unwrap(), answer);
    let came: Value = serde_json::from_slice(RESPONSE).unwrap();
    let written: Value = serde_json::from_slice(&written).unwrap();
    assert!(
        written["candidates"][0]["groundingMetadata"] == came["candidates"][0]["groundingMetadata"]
    );
}

#[test]
fn streamed_arguments_become_one_call_each() {
    let stream = concat!(
        r#"data: {"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","willContinue":true},"thoughtSignature":"AB=="}]}}],"responseId":"r"}"#,
        "\n\n",
        r#"data: {"candidates":[{"content":{"parts":[{"functionCall":{"partialArgs":[{"jsonPath":"$.a['b']","stringValue":"Bo","willContinue":true}],"willContinue":true}}]}}]}"#,
        "\n\n",
        r#"data: {"candidates":[{"content":{"parts":[{"functionCall":{"partialArgs":[{"jsonPath":"$.a['b']","stringValue":"ston"},{"jsonPath":"$.n[1]","numberValue":2}],"willContinue":true}}]}}]}"#,
        "\n\n",
        r#"data: {"candidates":[{"content":{"parts":[{"functionCall":{}}]}}]}"#,
        "\n\n",
        r#"data: {"candidates":[{"content":{"parts":[{"functionCall":{"name":"g"}}]},"finishReason":"STOP"}]}"#,
        "\n\n",
    );
    for size in [1, 9, 4096] {
        let answer = fold(&events(stream.as_bytes(), size).unwrap());
        let parts = &answer.choices[0].parts;
        assert_eq!(
            parts[0].content,
            Content::ToolCall(call("call_r_1", "f", r#"{"a":{"b":"Boston"},"n":[null,2]}"#))
        );
        assert_eq!(parts[0].opaque_for(Dialect::Gemini), Some(&json!("AB==")));
        assert_eq!(parts[1].content, Content::ToolCall(call("call_r_2", "g", "{}")));
    }
    let cut = stream.replace("ston\"}", "ston\",\"willContinue\":true}");
    assert!(matches!(events(cut.as_bytes(), 64).unwrap().last(), Some(Event::Failed(_))));
}

#[test]
fn a_stream_that_is_cut_or_fails_has_no_end() {
    let piece = r#"data: {"candidates":[{"content":{"parts":[{"text":"a"}]}}]}"#;
    assert!(!events(format!("{piece}\n\n").as_bytes(), 5).unwrap().contains(&Event::End));
    let failing = format!(
        "{piece}\n\ndata: {{\"error\":{{\"code\":503,\"message\":\"busy\",\"status\":\"UNAVAILABLE\"}}}}\n\n"
    );
    let read = events(failing.as_bytes(), 5).unwrap();
    let Some(Event::Failed(failure)) = read.last() else { panic!("{read:?}") };
    assert_eq!((failure.status, failure.kind.as_deref()), (Some(503), Some("UNAVAILABLE")));
    assert!(CODEC.read_response(b"[{\"error\":{\"message\":\"no\"}}]").is_err());
    assert!(CODEC.read_response(b"{}").is_err());
}

#[test]
fn a_prompt_that_is_blocked_is_an_answer_that_refuses() {
    let body = br#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4},"responseId":"r"}"#;
    let answer = CODEC.read_response(body).unwrap();
    assert_eq!(answer.choices[0].finish.reason, FinishReason::ContentFilter);
    assert!(
        matches!(&answer.choices[0].parts[0].content, Content::Refusal(text) if text.contains("SAFETY"))
    );
}

#[test]
fn effort_is_said_as_each_family_understands_it() {
    let asked = |effort, model| {
        let reasoning = Some(Thinking { effort: Some(effort), ..Thinking::default() });
        let (body, written) =
            ask(&ChatRequest { reasoning, ..ChatRequest::default() }, model).unwrap();
        let mut config = body["generationConfig"]["thinkingConfig"].clone();
        if let Some(fields) = config.as_object_mut() {
            let shown = fields.remove("includeThoughts");
            assert_eq!(shown, (effort != Effort::None).then_some(json!(true)));
        }
        (config, written.dropped.len())
    };
    assert_eq!(asked(Effort::Low, "gemini-2.5-flash"), (json!({"thinkingBudget": 2048}), 0));
    assert_eq!(asked(Effort::None, "gemini-2.5-flash"), (json!({"thinkingBudget": 0}), 0));
    assert_eq!(asked(Effort::None, "gemini-2.5-pro"), (json!({"thinkingBudget": 128}), 1));
    assert_eq!(
        asked(Effort::Medium, "gemini-3-pro-preview"),
        (json!({"thinkingLevel": "high"}), 0)
    );
    assert_eq!(
        asked(Effort::Minimal, "models/gemini-3.5-flash"),
        (json!({"thinkingLevel": "minimal"}), 0)
    );
    assert_eq!(asked(Effort::Highest, "gemini-3"), (json!({"thinkingLevel": "high"}), 0));
    assert_eq!(asked(Effort::High, "gemini-2.0-flash"), (Value::Null, 1));
    assert_eq!(asked(Effort::Max, "gemini-flash-latest"), (json!({"thinkingBudget": 24576}), 0));
}

#[test]
fn calls_from_elsewhere_get_the_documented_signature_only_where_one_is_demanded() {
    let request = history(r#"{"a":1}"#, "21");
    let (body, _) = ask(&request, "gemini-3-flash-preview").unwrap();
    assert_eq!(
        body["contents"][1]["parts"][0]["thoughtSignature"],
        "skip_thought_signature_validator"
    );
    assert_eq!(body["contents"][1]["parts"].as_array().unwrap().len(), 1);
    let (body, _) = ask(&request, "gemini-2.5-flash").unwrap();
    assert_eq!(body["contents"][1]["parts"][0].get("thoughtSignature"), None);
    assert_eq!(
        body["contents"][2]["parts"][0]["functionResponse"],
        json!({"id": "call_1", "name": "look_up", "response": {"output": "21"}})
    );
}

#[test]
fn a_result_keeps_the_name_that_its_client_has_for_it() {
    for said in [json!("21"), json!("{\"a\":1}"), json!(21), json!({"a": 1}), json!([1, "x"])] {
        let response = json!({"result": said});
        let body = json!({"contents": [
            {"role": "model", "parts": [{"functionCall": {"name": "f", "args": {}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": response}}]},
        ]});
        let request = CODEC.read_request(body.to_string().as_bytes()).unwrap();
        let (written, _) = ask(&request, "gemini-3-flash-preview").unwrap();
        let result = &written["contents"][1]["parts"][0]["functionResponse"]["response"];
        assert_eq!(*result, response);
    }
}

#[test]
fn results_that_hold_references_are_passed_as_text() {
    let response = |text| {
        ask(&history("{}", text), "gemini-2.5-flash").unwrap().0["contents"][2]["parts"][0]["functionResponse"]["response"].clone()
    };
    assert_eq!(response(r#"{"a": [1]}"#), json!({"a": [1]}));
    let schema = r##"{"a": {"$ref": "#/x"}}"##;
    assert_eq!(response(schema), json!({"output": schema}));
}

#[test]
fn what_cannot_be_said_is_refused_with_its_place() {
    let refused =
        |request: &ChatRequest| ask(request, "gemini-2.5-flash").unwrap_err().0.into_owned();
    let orphan =
        refused(&ChatRequest { messages: vec![result("call_9", "x")], ..ChatRequest::default() });
    assert!(orphan.contains("messages[0]") && orphan.contains("call_9"), "{orphan}");
    let source = Source::File { dialect: Dialect::Chat, id: "file-1".into() };
    let media = Part::new(Content::Media(Media::new(MediaKind::Document, source)));
    let foreign = refused(&ChatRequest {
        messages: vec![Message::new(Role::User, vec![media])],
        ..ChatRequest::default()
    });
    assert!(foreign.contains("another provider"), "{foreign}");
    let misread = CODEC.read_request(br#"{"contents":[{"parts":[{"text":1}]}]}"#).unwrap_err();
    assert!(misread.0.contains("contents[0].parts[0].text"), "{misread}");
}

#[test]
fn media_of_results_stand_behind_all_results_for_older_models() {
    let mut request = history("{}", "x");
    let source = Source::Base64 { media_type: "image/png".into(), data: "AA==".into() };
    if let Content::ToolResult(result) = &mut request.messages[2].parts[0].content {
        result.parts.push(Part::new(Content::Media(Media::new(MediaKind::Image, source))));
    }
    let (old, _) = ask(&request, "gemini-2.5-flash").unwrap();
    assert_eq!(old["contents"][3]["parts"][0]["inlineData"]["mimeType"], "image/png");
    let (new, _) = ask(&request, "gemini-3-pro-preview").unwrap();
    assert_eq!(
        new["contents"][2]["parts"][0]["functionResponse"]["parts"][0]["inlineData"]["data"],
        "AA=="
    );
}

#[test]
fn names_what_it_drops_and_nothing_else() {
    let mut request = history("{}", "x");
    request.parallel_tool_calls = Some(false);
    request.verbosity = Some("low".into());
    request.user = Some("u".into());
    request.extras.dialect = Some(Dialect::Chat);
    request.extras.fields =
        serde_json::from_value(json!({"prediction": {}, "stream_options": {}})).unwrap();
    let (_, written) = ask(&request, "gemini-2.5-flash").unwrap();
    assert_eq!(
        written.dropped,
        ["parallel_tool_calls", "verbosity", "user", "prediction", "stream_options"]
    );
}

#[test]
fn another_providers_state_travels_sealed_through_a_client_in_either_alphabet() {
    let state = Opaque { dialect: Dialect::Messages, data: json!("Eq>>>???+/=") };
    let mut thought =
        Part::new(Content::Reasoning(Reasoning { redacted: true, ..Reasoning::default() }));
    thought.opaque = Some(state);
    let mut answer = CODEC.read_response(RESPONSE).unwrap();
    answer.choices[0].parts.insert(0, thought.clone());
    let request = ChatRequest::default();
    let body: Value =
        serde_json::from_slice(&CODEC.write_response(&answer, &context(&request))).unwrap();
    let sealed = body["candidates"][0]["content"]["parts"][0].clone();
    let signature =
        sealed["thoughtSignature"].as_str().unwrap().replace('+', "-").replace('/', "_");
    let question = json!({"contents": [{"role": "model", "parts": [{"thought": true, "text": "", "thoughtSignature": signature}]}]});
    let read = CODEC.read_request(question.to_string().as_bytes()).unwrap();
    assert_eq!(read.messages[0].parts, [thought]);
    let (body, _) = ask(&read, "gemini-3-pro").unwrap();
    assert_eq!(body["contents"], json!([]));
}

#[test]
fn a_call_that_is_no_json_ends_the_answer_as_malformed() {
    let mut answer = CODEC.read_response(RESPONSE).unwrap();
    answer.choices.truncate(1);
    answer.choices[0].parts = vec![Part::new(Content::ToolCall(call("call_1", "f", "{\"a\":")))];
    let request = ChatRequest::default();
    let body: Value =
        serde_json::from_slice(&CODEC.write_response(&answer, &context(&request))).unwrap();
    assert_eq!(body["candidates"][0]["finishReason"], "MALFORMED_FUNCTION_CALL");
    assert_eq!(body["candidates"][0]["content"]["parts"], json!([]));
    let streamed = String::from_utf8(written(&unfold(&answer), false)).unwrap();
    assert!(
        streamed.contains("MALFORMED_FUNCTION_CALL") && !streamed.contains("functionCall\""),
        "{streamed}"
    );
}

#[test]
fn citations_from_elsewhere_become_grounding() {
    let citation = Citation {
        url: Some("https://a.example".into()),
        start: Some(1),
        end: Some(2),
        ..Citation::default()
    };
    // A page has an address; what has none is a document.
    let document = Citation { title: Some("ai.pdf".into()), ..Citation::default() };
    let text = Content::Text { text: "äöü".into(), citations: vec![citation, document] };
    let mut answer = CODEC.read_response(RESPONSE).unwrap();
    answer.choices.truncate(1);
    answer.choices[0].parts = vec![Part::new(text)];
    answer.choices[0].finish = Finish::default();
    let request = ChatRequest::default();
    let body: Value =
        serde_json::from_slice(&CODEC.write_response(&answer, &context(&request))).unwrap();
    let grounding = &body["candidates"][0]["groundingMetadata"];
    assert_eq!(
        grounding["groundingSupports"][0]["segment"],
        json!({"startIndex": 2, "endIndex": 4, "text": "ö"})
    );
    assert_eq!(grounding["groundingChunks"][0]["web"]["uri"], "https://a.example");
    assert_eq!(grounding["groundingChunks"][1], json!({"retrievedContext": {"title": "ai.pdf"}}));
}

#[test]
fn errors_are_spelled_as_google_does() {
    let mut error = Error::new(Kind::RateLimited, "Too many.");
    error.retry_after = Some(Duration::from_secs(3));
    let body: Value = serde_json::from_slice(&CODEC.write_error(&error)).unwrap();
    assert_eq!(body["error"]["code"], 429);
    assert_eq!(body["error"]["status"], "RESOURCE_EXHAUSTED");
    assert_eq!(body["error"]["details"][0]["metadata"]["code"], "rate_limited");
    assert_eq!(body["error"]["details"][1]["retryDelay"], "3s");
    let request = ChatRequest::default();
    let mut out = Vec::new();
    let mut writer = ARRAY.writer(&context(&request));
    writer.write(&Event::Start(crate::canon::Start::default()), &mut out);
    writer.write(&Event::Open { choice: 0, part: crate::canon::Opening::Text }, &mut out);
    writer.write(&Event::Delta { choice: 0, delta: Delta::Text("a".into()) }, &mut out);
    out.extend(ARRAY.write_error_event(&error));
    let array: Vec<Value> = serde_json::from_slice(&out).unwrap();
    assert_eq!(array[2]["error"]["code"], 429);
    let alone: Vec<Value> = serde_json::from_slice(&ARRAY.write_lone_error(&error)).unwrap();
    assert_eq!(alone[0]["error"]["code"], 429);
}

#[test]
fn no_field_is_put_in_the_place_of_another_by_a_dot_in_its_name() {
    for body in [
        json!({"contents": "hi", ".tools": [{"codeExecution": {}}]}),
        json!({"contents": "hi", "generationConfig.seed": 1}),
        json!({"contents": "hi", "generationConfig": {"thinkingConfig": {"a.b": 1}}}),
    ] {
        let misread = CODEC.read_request(body.to_string().as_bytes()).unwrap_err();
        assert!(misread.0.ends_with("is no field of this API."), "{misread}");
    }
}

#[test]
fn what_is_said_in_a_sound_is_the_text_of_an_answer_that_has_no_other() {
    let source = Source::Base64 { media_type: "audio/wav".into(), data: "UklGRg==".into() };
    let sound = Media { transcript: Some("Hello.".into()), ..Media::new(MediaKind::Audio, source) };
    let sound = Part::new(Content::Media(sound));
    for (parts, said) in
        [(vec![sound.clone()], "Hello."), (vec![sound, Part::text("As I said.")], "As I said.")]
    {
        let choices = vec![Choice { parts, ..Choice::default() }];
        let response = ChatResponse { choices, ..ChatResponse::default() };
        let request = ChatRequest::default();
        let whole = CODEC.write_response(&response, &context(&request));
        let (mut writer, mut stream) = (CODEC.writer(&context(&request)), Vec::new());
        for event in unfold(&response) {
            writer.write(&event, &mut stream);
        }
        let streamed = String::from_utf8(stream).unwrap();
        let frames = streamed.lines().filter_map(|line| line.strip_prefix("data: "));
        let frames = frames.map(|frame| serde_json::from_str(frame).unwrap());
        for answer in
            [vec![serde_json::from_slice(&whole).unwrap()], frames.collect::<Vec<Value>>()]
        {
            let parts = answer.iter().flat_map(|one| {
                one["candidates"][0]["content"]["parts"].as_array().cloned().unwrap_or_default()
            });
            let text: String =
                parts.filter_map(|part| part["text"].as_str().map(str::to_owned)).collect();
            assert_eq!(text, said);
        }
    }
}

#[test]
fn penalties_go_only_to_the_models_that_take_them() {
    let mut request = history("{}", "so");
    request.sampling.frequency_penalty = Some(0.5);
    request.sampling.presence_penalty = Some(0.0);
    let (body, written) = ask(&request, "gemini-2.0-flash").unwrap();
    assert_eq!(body["generationConfig"]["frequencyPenalty"], 0.5);
    assert!(written.dropped.is_empty());
    for model in ["gemini-2.5-flash", "gemini-3.8-pro", "tuned"] {
        let (body, written) = ask(&request, model).unwrap();
        assert!(body.get("generationConfig").is_none(), "{body}");
        assert_eq!(written.dropped, ["frequency_penalty"], "{model}");
    }
}

#[test]
fn instructions_alone_are_a_question() {
    let system = Message::new(Role::System, vec![Part::text("Say OK.")]);
    let request = ChatRequest { messages: vec![system], ..ChatRequest::default() };
    let (body, _) = ask(&request, "gemini-2.5-flash").unwrap();
    let asked = json!([{"role": "user", "parts": [{"text": "Say OK."}]}]);
    assert_eq!((&body["contents"], body.get("systemInstruction")), (&asked, None));
}

#[test]
fn a_text_without_a_letter_is_not_sent() {
    let say =
        |role, texts: &[&str]| Message::new(role, texts.iter().map(|it| Part::text(*it)).collect());
    let messages = vec![
        say(Role::System, &["", "Be brief."]),
        say(Role::User, &["a"]),
        say(Role::Assistant, &[""]),
        say(Role::User, &["", "b"]),
    ];
    let (body, _) =
        ask(&ChatRequest { messages, ..ChatRequest::default() }, "gemini-2.5-flash").unwrap();
    assert_eq!(body["systemInstruction"]["parts"], json!([{"text": "Be brief."}]));
    let parts = json!([{"text": "a"}, {"text": "b"}]);
    assert_eq!(body["contents"], json!([{"role": "user", "parts": parts}]));
    // But where it is all that is asked.
    let messages = vec![say(Role::System, &["Be brief."]), say(Role::User, &[""])];
    let (body, _) =
        ask(&ChatRequest { messages, ..ChatRequest::default() }, "gemini-2.5-flash").unwrap();
    assert_eq!(body["systemInstruction"]["parts"], json!([{"text": "Be brief."}]));
    assert_eq!(body["contents"], json!([{"role": "user", "parts": [{"text": ""}]}]));
}

/// A stream of candidates, each with a part and perhaps a reason.
fn candidates(pieces: &[(Value, Option<&str>)]) -> String {
    let event = |(part, reason): &(Value, Option<&str>)| {
        let content = json!({"role": "model", "parts": [part]});
        let candidate = json!({"index": 0, "content": content, "finishReason": reason});
        format!("data: {}\n\n", json!({"responseId": "r", "candidates": [candidate]}))
    };
    pieces.iter().map(event).collect()
}

#[test]
fn what_comes_behind_a_reason_to_end_is_a_part_of_the_answer() {
    let say = |text: &str| json!({"text": text});
    let call = |name: &str| json!({"functionCall": {"name": name, "args": {}}});
    let stop = Some("STOP");
    for (pieces, parts) in [
        (vec![(say("a"), stop), (say("b"), stop)], 1),
        (vec![(say("a"), stop), (say("b"), None)], 1),
        (vec![(call("look"), stop), (call("buy"), stop)], 2),
    ] {
        let stream = candidates(&pieces);
        let answer = fold(&events(stream.as_bytes(), 9).unwrap());
        assert_eq!(answer.choices[0].parts.len(), parts, "{stream}");
        if let Content::Text { text, .. } = &answer.choices[0].parts[0].content {
            assert_eq!(text, "ab", "{stream}");
        }
    }
}

#[test]
fn code_that_runs_is_not_the_end_of_its_answer() {
    let code = json!({"executableCode": {"language": "PYTHON", "code": "1+1"}});
    let result = json!({"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "2"}});
    let mut reader = CODEC.reader();
    for (part, ends) in [(code, false), (result, true)] {
        let event = candidates(&[(part, Some("STOP"))]);
        let data = event.strip_prefix("data: ").unwrap();
        reader.read(None, data.as_bytes(), &mut Vec::new()).unwrap();
        assert_eq!(reader.endings().is_some(), ends);
    }
}
