//! Answers: whole and streamed, ordinary and odd.

use serde_json::{Value, json};

use super::{CODEC, context, events, fixture, read_stream, write_stream, write_whole};
use crate::canon::{
    ChatRequest, ChatResponse, Choice, Citation, Content, Dialect, Event, Finish, FinishReason,
    Opaque, Part, Reasoning, ToolCall, Usage,
};
use crate::dialect::chat::with_call_types;
use crate::dialect::fold::unfold;
use crate::dialect::{ClientSide, UpstreamSide};

fn calls(response: &ChatResponse) -> Vec<&ToolCall> {
    let parts = response.choices.iter().flat_map(|choice| &choice.parts);
    parts
        .filter_map(|part| match &part.content {
            Content::ToolCall(call) => Some(call),
            _ => None,
        })
        .collect()
}

fn text(response: &ChatResponse) -> String {
    response.choices.iter().flat_map(|c| &c.parts).filter_map(Part::as_text).collect()
}

fn thought(text: &str, state: Option<Opaque>) -> Part {
    let reasoning = Reasoning { text: text.into(), ..Reasoning::default() };
    Part { opaque: state, ..Part::new(Content::Reasoning(reasoning)) }
}

fn call(id: &str, name: &str, arguments: &str) -> Content {
    let (id, name, arguments) = (id.into(), name.into(), arguments.into());
    Content::ToolCall(ToolCall { id, name, arguments, custom: false })
}

#[test]
fn every_odd_stream_is_read_as_its_description_says() {
    let expected: Value = serde_json::from_slice(&fixture("streams/expect.json")).unwrap();
    for (name, expect) in expected.as_object().unwrap() {
        let stream = fixture(&format!("streams/{name}"));
        let read = read_stream(&stream, 64);
        assert_eq!(read, read_stream(&stream, 1), "{name}: pieces change it");
        match expect["ends"].as_str().unwrap() {
            "ok" => check_odd(name, expect, &read.unwrap()),
            "error" => assert!(matches!(read, Err(Some(_))), "{name}: {read:?}"),
            _ => assert!(!events(&stream, 64).contains(&Event::End), "{name}"),
        }
    }
}

fn check_odd(name: &str, expect: &Value, response: &ChatResponse) {
    if let Some(content) = expect["content"].as_str() {
        assert_eq!(text(response), content, "{name}");
    }
    if let Some(tokens) = expect["input_tokens"].as_u64() {
        assert_eq!(response.usage.unwrap().input_total(), tokens, "{name}");
        assert_eq!(response.usage.unwrap().output, expect["output_tokens"], "{name}");
    }
    let wanted = expect["calls"].as_array().cloned().unwrap_or_default();
    let found = calls(response);
    assert_eq!(found.len(), wanted.len(), "{name}");
    for (found, wanted) in found.iter().zip(wanted) {
        if wanted["id"].is_string() {
            assert_eq!(wanted["id"], found.id, "{name}");
        }
        assert_eq!(wanted["name"], found.name, "{name}");
        let arguments = serde_json::from_str::<Value>(&found.arguments);
        if wanted.get("broken").is_some() {
            assert!(arguments.is_err(), "{name}");
        } else {
            assert_eq!(wanted["arguments"], arguments.unwrap(), "{name}");
        }
    }
    // And a client gets them in order.
    write_stream(response, &ChatRequest { include_usage: true, ..ChatRequest::default() });
}

#[test]
fn an_answer_of_openai_is_read_in_full() {
    let response = CODEC.read_response(&fixture("dialects/chat/answer.json")).unwrap();
    let citation = Citation {
        url: Some("https://example.com/tides".into()),
        title: Some("Tides".into()),
        start: Some(0),
        end: Some(9),
        ..Citation::default()
    };
    let said = Content::Text { text: "High tide is at noon.".into(), citations: vec![citation] };
    let first = Choice {
        parts: vec![Part::new(said), Part::new(call("call_tide", "tide", r#"{"port":"Oban"}"#))],
        finish: Finish {
            reason: FinishReason::ToolCalls,
            stop_sequence: None,
            ..Finish::default()
        },
        logprobs: Some(json!({ "content": [
            { "token": "High", "logprob": -0.25, "bytes": [72], "top_logprobs": [] },
        ] })),
    };
    let second = Choice {
        parts: vec![Part::new(Content::Refusal("I cannot say.".into()))],
        ..Choice::default()
    };
    assert_eq!(response.choices, [first, second]);
    assert_eq!(response.id, "chatcmpl-tide");
    assert_eq!(response.model, "gpt-5.4");
    assert_eq!(response.created, Some(1_795_226_400));
    assert_eq!(response.service_tier.as_deref(), Some("default"));
    let usage = Usage {
        input: 60,
        cache_read: 40,
        output: 30,
        reasoning: 12,
        audio_input: 5,
        ..Usage::default()
    };
    assert_eq!(response.usage, Some(usage));
    let read: Value = serde_json::from_slice(&fixture("dialects/chat/answer.json")).unwrap();
    let written: Value = serde_json::from_slice(&write_whole(&response)).unwrap();
    for field in ["id", "created", "model", "usage", "service_tier"] {
        assert_eq!(written[field], read[field], "{field}");
    }
    for choice in 0..2 {
        for field in ["content", "refusal", "annotations", "tool_calls"] {
            let at = |body: &Value| body["choices"][choice]["message"].get(field).cloned();
            assert_eq!(at(&written), at(&read), "{field}");
        }
    }
}

#[test]
fn a_stream_with_all_kinds_of_parts_is_written_piece_by_piece() {
    let state = Opaque { dialect: Dialect::Messages, data: json!("EqQB+/==") };
    let choice = Choice {
        parts: vec![
            thought("Hm.", Some(state)),
            Part::text("So"),
            Part::new(call("call_a", "look", r#"{"x":1}"#)),
        ],
        finish: Finish {
            reason: FinishReason::ToolCalls,
            stop_sequence: None,
            ..Finish::default()
        },
        logprobs: None,
    };
    let usage = Some(Usage { input: 3, output: 4, ..Usage::default() });
    let response = ChatResponse { choices: vec![choice], usage, ..ChatResponse::default() };
    let request = ChatRequest { include_usage: true, ..ChatRequest::default() };
    let written = write_stream(&response, &request);
    let expected = fixture("dialects/chat/answer.sse");
    assert_eq!(String::from_utf8(written).unwrap(), String::from_utf8(expected).unwrap());
}

#[test]
fn streamed_citations_are_numbered_in_their_lists() {
    let cited = |url: Option<&str>| Citation {
        url: url.map(str::to_owned),
        title: Some("Tides".into()),
        ..Citation::default()
    };
    let citations = vec![cited(Some("https://a.example")), cited(None), cited(Some("https://b"))];
    let said = Part::new(Content::Text { text: "High.".into(), citations });
    let choices = vec![Choice { parts: vec![said], ..Choice::default() }];
    let response = ChatResponse { choices, ..ChatResponse::default() };
    let written = String::from_utf8(write_stream(&response, &ChatRequest::default())).unwrap();
    let deltas = written.lines().filter_map(|line| {
        let event: Value = serde_json::from_str(line.strip_prefix("data: ")?).ok()?;
        Some(event["choices"][0]["delta"].clone())
    });
    let deltas: Vec<Value> = deltas.collect();
    let places = |field: &str| -> Vec<Option<u64>> {
        let entries = deltas.iter().filter_map(|delta| delta[field].as_array());
        entries.flatten().map(|entry| entry["index"].as_u64()).collect()
    };
    assert_eq!(places("annotations"), [Some(0), Some(1)]);
    assert_eq!(places("x_citations"), [Some(0)]);
}

#[test]
fn calls_that_do_not_say_their_type_are_functions() {
    let bare = r#"{"choices":[{"message":{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"},"index":0},{"id":"b","type":"custom","custom":{}}]}}],"x":1}"#;
    let mended = with_call_types(bare.into());
    let mended: Value = serde_json::from_slice(&mended).unwrap();
    let calls = &mended["choices"][0]["message"]["tool_calls"];
    assert_eq!((&calls[0]["type"], &calls[1]["type"]), (&json!("function"), &json!("custom")));
    assert_eq!((&calls[0]["index"], &mended["x"]), (&json!(0), &json!(1)));
    for whole in [
        r#"{"choices": [{"message": {"content": "\"arguments\""}}]}"#,
        r#"{"choices": [{"message": {"tool_calls": [{"type": "function", "function": {"arguments": ""}}]}}]}"#,
        r#"["arguments", {"choices": 1}]"#,
        r#"{"choices": ["arguments"], "x": {"arguments": 1}}"#,
    ] {
        assert_eq!(with_call_types(whole.into()), whole);
    }
}

#[test]
fn usage_is_streamed_last_wherever_it_came() {
    let choice = Choice { parts: vec![Part::text("a")], ..Choice::default() };
    let usage = Usage { input: 1, output: 1, ..Usage::default() };
    let response =
        ChatResponse { choices: vec![choice], usage: Some(usage), ..ChatResponse::default() };
    let mut events = unfold(&response);
    events.retain(|event| !matches!(event, Event::Usage(_)));
    let mut streams = Vec::new();
    for place in 1..events.len() {
        let mut events = events.clone();
        events.insert(place, Event::Usage(usage));
        let request = ChatRequest { include_usage: true, ..ChatRequest::default() };
        let mut writer = CODEC.writer(&context(&request));
        let mut out = Vec::new();
        for event in &events {
            writer.write(event, &mut out);
        }
        super::grammar::check_stream(&out, true);
        streams.push(out);
    }
    assert!(streams.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn each_servers_thoughts_are_found() {
    for message in [
        json!({ "content": "b", "reasoning_content": "a" }),
        json!({ "content": "b", "reasoning": "a" }),
        json!({ "content": "b", "reasoning_details": [{ "type": "reasoning.text", "text": "a" }] }),
        json!({ "content": "b", "reasoning": "a", "reasoning_details":
            [{ "type": "reasoning.text", "text": "a" }] }),
        json!({ "content": [
            { "type": "thinking", "thinking": [{ "type": "text", "text": "a" }] },
            { "type": "text", "text": "b" },
        ] }),
        json!({ "content": "b", "reasoning_text": "a", "reasoning_opaque": "s" }),
        json!({ "content": "b", "thinking_blocks": [{ "type": "thinking", "thinking": "a" }] }),
        json!({ "content": [
            { "type": "reasoning", "summary": [{ "type": "summary_text", "text": "a" }] },
            { "type": "text", "text": "b" },
        ] }),
    ] {
        let body = json!({ "choices": [{ "message": message, "finish_reason": "stop" }] });
        let response = CODEC.read_response(body.to_string().as_bytes()).unwrap();
        assert_eq!(response.choices[0].parts, [thought("a", None), Part::text("b")], "{body}");
    }
}

/// A stream of these deltas, ended.
fn told(deltas: &[Value]) -> Vec<u8> {
    let end = json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] });
    let chunk = |delta: &Value| json!({ "choices": [{ "delta": delta }] });
    let chunks = deltas.iter().map(chunk).chain([end]);
    let lines: Vec<String> = chunks.map(|chunk| format!("data: {chunk}\n\n")).collect();
    lines.concat().into_bytes()
}

#[test]
fn words_that_a_server_took_for_json_are_words_again() {
    let deltas =
        [json!("It costs $"), json!(6), json!("."), json!(0.5), json!(", or "), json!(6.0)];
    let stream = told(&deltas.map(|said| json!({ "content": said, "reasoning_content": said })));
    for size in [1, 7, stream.len()] {
        let response = read_stream(&stream, size).unwrap();
        let thoughts = response.choices[0].parts.iter().filter_map(|part| match &part.content {
            Content::Reasoning(thought) => Some(thought.text.as_str()),
            _ => None,
        });
        let said = "It costs $6.0.5, or 6.0";
        assert_eq!((text(&response), thoughts.collect::<String>()), (said.into(), said.into()));
    }
    for (content, said) in
        [(json!(42), "42"), (json!({"b": 6.0, "a": [1]}), r#"{"b":6.0,"a":[1]}"#)]
    {
        let body = json!({ "choices": [{ "message": { "content": content }, "stop_reason": 7 }] });
        let response = CODEC.read_response(body.to_string().as_bytes()).unwrap();
        assert_eq!(text(&response), said);
        assert_eq!(response.choices[0].finish.stop_sequence, None, "a token's number is no text");
    }
}

#[test]
fn a_call_is_found_though_a_field_beside_it_is_of_another_type() {
    let look = call("a", "look", "{}");
    let function = json!({ "name": "look", "arguments": {} });
    let called = |index: Value| json!([{ "id": "a", "index": index, "function": function }]);
    for (calls, expected) in [
        (called(json!("0")), vec![&look]),
        (called(json!(0.0)), vec![&look]),
        (called(json!([])), vec![&look]),
        (called(json!(0))[0].clone(), vec![&look]),
        (json!([null, called(json!(0))[0], ""]), vec![&look]),
        (json!(""), vec![]),
    ] {
        let message = json!({ "content": "so", "tool_calls": calls, "function_call": "" });
        let body = json!({ "choices": [{ "index": "0", "message": message }] });
        let whole = CODEC.read_response(body.to_string().as_bytes()).unwrap();
        let stream = told(&[message]);
        for response in [whole, read_stream(&stream, 1).unwrap(), read_stream(&stream, 64).unwrap()]
        {
            let parts: Vec<&Content> =
                response.choices[0].parts[1..].iter().map(|part| &part.content).collect();
            assert_eq!((text(&response).as_str(), &parts), ("so", &expected), "{body}");
        }
    }
}

#[test]
fn a_servers_own_thoughts_go_home_as_they_came() {
    let details = json!([
        { "type": "reasoning.text", "text": "a", "signature": "s+/=",
          "format": "anthropic-claude-v1", "index": 0 },
        { "type": "reasoning.encrypted", "data": "gAAA", "id": "rs_1",
          "format": "openai-responses-v1", "index": 1 },
    ]);
    let message = json!({ "content": "b", "reasoning": "a", "reasoning_details": details });
    let body = json!({ "choices": [{ "message": message, "finish_reason": "stop" }] });
    let response = CODEC.read_response(body.to_string().as_bytes()).unwrap();
    let written: Value = serde_json::from_slice(&write_whole(&response)).unwrap();
    assert_eq!(written["choices"][0]["message"]["reasoning_details"], details);
}

#[test]
fn sources_beside_the_answer_are_its_citations_and_said_once() {
    let chunk = |text: &str, finish: Value| {
        json!({
            "id": "1", "citations": ["https://a.example", "https://b.example"],
            "search_results": [{ "url": "https://b.example", "title": "B" }],
            "choices": [{ "index": 0, "delta": { "content": text }, "finish_reason": finish }],
        })
    };
    let (first, last) = (chunk("a[1]", Value::Null), chunk("", json!("stop")));
    let stream = format!("data: {first}\n\ndata: {last}\n\n");
    let response = read_stream(stream.as_bytes(), 50).unwrap();
    let Content::Text { citations, .. } = &response.choices[0].parts[0].content else { panic!() };
    assert_eq!(citations.len(), 2);
    assert_eq!(citations[1].title.as_deref(), Some("B"));
}

#[test]
fn sources_are_found_where_only_their_pages_are_told() {
    let page = json!({ "url": "https://a.example", "title": "A" });
    let linked = json!([{ "link": "https://a.example", "title": "A" }]);
    let fields =
        [("search_results", json!([page])), ("citations", json!([page])), ("web_search", linked)];
    for (name, sources) in fields {
        let choice = json!({ "message": { "content": "a[1]" }, "finish_reason": "stop" });
        let body = json!({ "choices": [choice], name: sources });
        let response = CODEC.read_response(body.to_string().as_bytes()).unwrap();
        let Content::Text { citations, .. } = &response.choices[0].parts[0].content else {
            panic!("{name}")
        };
        let found: Vec<_> =
            citations.iter().map(|it| (it.url.as_deref(), it.title.as_deref())).collect();
        assert_eq!(found, [(Some("https://a.example"), Some("A"))], "{name}");
    }
}

#[test]
fn an_answer_ends_for_the_reason_that_its_server_has_its_own_word_for() {
    for (word, reason) in [
        ("max_output_tokens", FinishReason::Length),
        ("LENGTH", FinishReason::Length),
        ("MAX_TOKENS", FinishReason::Length),
        ("content_filter: SAFETY", FinishReason::ContentFilter),
        ("CONTENT_FILTER", FinishReason::ContentFilter),
        ("PROHIBITED_CONTENT", FinishReason::ContentFilter),
        ("recitation", FinishReason::ContentFilter),
        ("guardrail_intervened", FinishReason::ContentFilter),
        ("function_call_filter: MALFORMED_FUNCTION_CALL", FinishReason::Malformed),
        ("eos", FinishReason::Stop),
        // Nobody has called anything.
        ("tool_calls", FinishReason::Stop),
    ] {
        let choice = json!({ "message": { "content": "a" }, "finish_reason": word });
        let body = json!({ "choices": [choice] });
        let response = CODEC.read_response(body.to_string().as_bytes()).unwrap();
        assert_eq!(response.choices[0].finish.reason, reason, "{word}");
    }
}

#[test]
fn a_piece_that_is_almost_json_takes_no_words_along() {
    let chunk = |fields: &str| format!("data: {{\"choices\":[{{\"delta\":{{{fields}}}}}]}}\n\n");
    let piece = |arguments: &str| {
        let called = r#""tool_calls":[{"index":0,"id":"c","function":{"name":"look","arguments":"#;
        chunk(&format!("{called}{arguments}}}}}]"))
    };
    let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
    let stream = [
        chunk(r#""content":"A\ud83d""#),
        chunk(r#""content":"\ude00""#),
        chunk(r#""content":" ?","content":" B""#),
        chunk(r#""content":" C\ud83d D","odd":NaN"#),
        piece(r#""{\"city\": \"Paris \ud83d""#),
        piece(r#""\ude00\"}""#),
        end.to_owned(),
    ];
    let response = read_stream(stream.concat().as_bytes(), 9).unwrap();
    assert_eq!(text(&response), "A😀 B C\u{fffd} D");
    assert_eq!(calls(&response)[0].arguments, r#"{"city": "Paris 😀"}"#);
    let whole = r#"{"choices":[{"message":{"content":"A\ud83d","content":"B\ud83d"},"finish_reason":"stop"}]}"#;
    assert_eq!(text(&CODEC.read_response(whole.as_bytes()).unwrap()), "B");
}

#[test]
fn zeros_behind_the_usage_are_no_news_and_every_name_of_it_is_read() {
    let counted = |usages: &[Value]| {
        let chunk = |usage: &Value| {
            format!(
                "data: {}\n\n",
                json!({ "choices": [{ "delta": { "content": "a" } }], "usage": usage })
            )
        };
        let end = "data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
        let stream: String = usages.iter().map(chunk).collect::<String>() + end;
        read_stream(stream.as_bytes(), 64).unwrap().usage.unwrap()
    };
    let real = json!({ "prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18 });
    let zeros = json!({ "prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0 });
    let named = json!({ "input_tokens": 11, "output_tokens": 7, "total_tokens": 18 });
    for usages in [vec![real.clone(), zeros], vec![named], vec![real]] {
        let usage = counted(&usages);
        assert_eq!((usage.input, usage.output), (11, 7), "{usages:?}");
    }
    // Perplexity counts what its research thinks beside what it says.
    let deep = json!({ "prompt_tokens": 33, "completion_tokens": 70, "total_tokens": 103, "reasoning_tokens": 900 });
    let usage = counted(&[deep]);
    assert_eq!((usage.input, usage.output, usage.reasoning), (33, 970, 900));
}

#[test]
fn what_an_answer_fails_with_is_an_error_and_no_answer() {
    for body in [
        json!({ "error": { "message": "too busy", "code": 503 } }),
        json!({ "choices": [{ "message": { "content": "a" }, "finish_reason": "error",
            "error": { "message": "too busy", "code": 503 } }] }),
        json!({ "choices": [{ "message": { "content": "a" }, "finish_reason": "network_error" }] }),
        json!({ "choices": [{ "message": { "tool_calls": [{ "id": "a", "function": {} }] },
            "finish_reason": "tool_calls" }] }),
        json!({ "choices": [] }),
    ] {
        assert!(CODEC.read_response(body.to_string().as_bytes()).is_err(), "{body}");
        let stream = format!("data: {body}\n\ndata: [DONE]\n\n");
        if body["choices"] != json!([]) {
            let Err(Some(failure)) = read_stream(stream.as_bytes(), 9) else { panic!("{body}") };
            assert!(!failure.message.is_empty());
            if body.to_string().contains("503") {
                assert_eq!(failure.status, Some(503));
            }
        }
    }
}

#[test]
fn an_answer_without_a_reason_ends_by_what_is_in_it() {
    let function = json!({ "name": "look", "arguments": "{}" });
    for (message, reason) in [
        (json!({ "content": "a" }), FinishReason::Stop),
        (json!({ "tool_calls": [{ "id": "a", "function": function }] }), FinishReason::ToolCalls),
        (json!({ "function_call": function }), FinishReason::ToolCalls),
    ] {
        let body = json!({ "choices": [{ "message": message, "finish_reason": "" }] });
        let response = CODEC.read_response(body.to_string().as_bytes()).unwrap();
        assert_eq!(response.choices[0].finish.reason, reason, "{body}");
    }
}

#[test]
fn text_that_comes_inside_a_call_follows_it() {
    let delta = |delta: Value| {
        format!("data: {}\n\n", json!({ "id": "1", "choices": [{ "index": 0, "delta": delta }] }))
    };
    let piece = |arguments: &str| {
        json!({ "tool_calls": [{ "index": 0, "id": "a", "function":
            { "name": "look", "arguments": arguments } }] })
    };
    let stream = [
        delta(piece("{\"x\":")),
        delta(json!({ "content": "late" })),
        delta(piece("1}")),
        "data: {\"choices\":[{\"index\":0,\"finish_reason\":\"tool_calls\"}]}\n\n".into(),
        "data: [DONE]\n\n".into(),
    ]
    .concat();
    let response = read_stream(stream.as_bytes(), 33).unwrap();
    let parts: Vec<&Content> = response.choices[0].parts.iter().map(|part| &part.content).collect();
    assert_eq!(parts[0], &call("a", "look", r#"{"x":1}"#));
    assert_eq!(response.choices[0].parts[1].as_text(), Some("late"));
}

#[test]
fn nothing_follows_a_failure_though_another_answer_was_under_way() {
    let nameless = json!({"choices": [{"index": 0, "delta": {"tool_calls": [{"id": "a"}]}}]});
    let other = json!({"choices": [{"index": 1, "delta": {"content": "so"}}]});
    let finish = json!({"choices": [{"index": 1, "finish_reason": "stop"}]});
    let stream = format!("data: {nameless}\n\ndata: {other}\n\ndata: {finish}\n\ndata: [DONE]\n\n");
    let events = events(stream.as_bytes(), 7);
    assert!(matches!(events.last(), Some(Event::Failed(_))), "{events:?}");
}

#[test]
fn done_without_any_reason_is_no_end_and_no_answer() {
    let said = json!({"choices": [{"index": 0, "delta": {"content": "so"}}]});
    let counted = json!({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}});
    let whole = format!("data: {said}\n\ndata: {counted}\n\ndata: [DONE]\n\n");
    assert_eq!(events(whole.as_bytes(), 7).last(), Some(&Event::End), "the usage was told");
    let with_each = json!({"choices": [{"index": 0, "delta": {"content": "so"}}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1}});
    for stream in [pieces(&[said]), pieces(&[]), pieces(&[with_each])] {
        let events = events(stream.as_bytes(), 7);
        let ends = |event: &Event| matches!(event, Event::Finish { .. } | Event::End);
        assert!(!events.iter().any(ends), "{events:?}");
    }
}

fn pieces(pieces: &[Value]) -> String {
    let pieces = pieces.iter().map(|piece| format!("data: {piece}\n\n"));
    pieces.chain(["data: [DONE]\n\n".to_owned()]).collect()
}

#[test]
fn what_comes_behind_a_reason_to_end_is_a_part_of_the_answer() {
    let piece = |delta: Value, reason: Value| json!({"choices": [{"index": 0, "delta": delta, "finish_reason": reason}]});
    let say = |text: &str, reason: Value| piece(json!({"content": text}), reason);
    let ask = |index: u64| {
        let function = json!({"name": "look", "arguments": format!("{{\"at\":{index}}}")});
        let call = json!({"index": index, "id": format!("c{index}"), "function": function});
        piece(json!({"tool_calls": [call]}), json!("tool_calls"))
    };
    for (stream, said, called) in [
        (pieces(&[say("a", json!("stop")), say("b", json!("stop"))]), "ab", 0),
        (pieces(&[say("", json!("stop")), say("a", Value::Null), say("b", json!(""))]), "ab", 0),
        (pieces(&[say("a", json!("null")), say("b", json!("stop"))]), "ab", 0),
        (pieces(&[ask(0), ask(1)]), "", 2),
    ] {
        let response = read_stream(stream.as_bytes(), 11).expect(&stream);
        assert_eq!((text(&response).as_str(), calls(&response).len()), (said, called), "{stream}");
    }
    let cut = pieces(&[say("a", json!("")), say("b", json!("null"))]);
    assert!(read_stream(cut.as_bytes(), 11).is_err(), "it never said why it ends");
}

#[test]
fn what_is_said_once_more_whole_at_the_end_is_said_once() {
    let stream = pieces(&[
        json!({"choices": [{"index": 0, "delta": {"content": "ab"}}]}),
        json!({"choices": [{"index": 0, "delta": {"content": "cd"}}]}),
        json!({"object": "chat.completion", "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": "abcd"}}]}),
    ]);
    assert_eq!(text(&read_stream(stream.as_bytes(), 9).unwrap()), "abcd");
}
