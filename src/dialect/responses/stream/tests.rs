//! Streams of servers that say less of their items than OpenAI does, or something else each time.

use serde_json::{Value, json};

use crate::canon::{Content, Part, Usage};
use crate::dialect::UpstreamSide;
use crate::dialect::responses::CODEC;
use crate::dialect::responses::tests::{call, events, fold, told};

fn event(kind: &str, fields: &Value) -> Value {
    let mut event = fields.clone();
    event["type"] = json!(format!("response.{kind}"));
    event
}

fn completed(output: &Value) -> Value {
    event("completed", &json!({"response": {"status": "completed", "output": output}}))
}

/// The parts of such a stream, which are the same however it is cut.
fn parts(lines: &[Value]) -> Vec<Part> {
    let stream = told(lines);
    let whole = fold(&events(&stream, stream.len()));
    for size in [1, 7] {
        assert_eq!(fold(&events(&stream, size)), whole, "in pieces of {size}");
    }
    whole.choices.into_iter().flat_map(|choice| choice.parts).collect()
}

#[test]
fn arguments_without_a_call_go_to_the_calls_in_their_order() {
    let (paris, london) = (r#"{"city":"Paris"}"#, r#"{"city":"London"}"#);
    let item = |call: &str, text: &str| json!({"type": "function_call", "call_id": call, "name": "f", "arguments": text});
    let added = |call: &str| event("output_item.added", &json!({"item": item(call, "")}));
    let told = |text: &str| event("function_call_arguments.done", &json!({"arguments": text}));
    let delta = |text: &str| event("function_call_arguments.delta", &json!({"delta": text}));
    let done =
        |call: &str, text: &str| event("output_item.done", &json!({"item": item(call, text)}));
    let ends = [
        done("a", paris),
        done("b", london),
        completed(&json!([item("a", paris), item("b", london)])),
    ];
    for begins in [
        vec![added("a"), added("b"), told(paris), told(london)],
        vec![added("a"), delta(paris), added("b"), delta(london), told(paris), told(london)],
        vec![added("a"), added("b")],
        vec![],
    ] {
        let stream = [begins.as_slice(), &ends].concat();
        let expected = [call("a", "f", paris, false), call("b", "f", london, false)];
        assert_eq!(parts(&stream), expected, "{begins:?}");
    }
}

#[test]
fn ids_that_change_with_each_event_are_those_of_the_item_in_their_place() {
    let message = |id: &str, text: &str| {
        json!({"type": "message", "id": id, "role": "assistant",
            "content": [{"type": "output_text", "text": text}]})
    };
    let f = |id: &str, text: &str| json!({"type": "function_call", "id": id, "call_id": "c", "name": "f", "arguments": text});
    let at = |index: u64, kind: &str, mut fields: Value| {
        fields["output_index"] = json!(index);
        event(kind, &fields)
    };
    let stream = [
        at(0, "output_item.added", json!({"item": message("x1", "")})),
        at(0, "output_text.delta", json!({"item_id": "x2", "delta": "hel"})),
        at(0, "output_text.delta", json!({"item_id": "x3", "delta": "lo"})),
        at(0, "output_text.done", json!({"item_id": "x4", "text": "hello"})),
        at(0, "output_item.done", json!({"item": message("x5", "hello")})),
        at(1, "output_item.added", json!({"item": f("y1", "")})),
        at(1, "function_call_arguments.delta", json!({"item_id": "y2", "delta": "{\"x\":"})),
        at(1, "function_call_arguments.delta", json!({"item_id": "y3", "delta": "1}"})),
        at(1, "function_call_arguments.done", json!({"item_id": "y4", "arguments": "{\"x\":1}"})),
        at(1, "output_item.done", json!({"item": f("y5", "{\"x\":1}")})),
        completed(&json!([message("x6", "hello"), f("y6", "{\"x\":1}")])),
    ];
    let [said, called] = &parts(&stream)[..] else { panic!("{:?}", parts(&stream)) };
    assert_eq!(said.as_text(), Some("hello"));
    assert_eq!(called.content, call("c", "f", r#"{"x":1}"#, false).content);
}

#[test]
fn arguments_that_are_an_object_are_its_json() {
    let f = json!({"type": "function_call", "id": "f", "call_id": "c", "name": "f",
        "arguments": {"x": 1}});
    let added = event("output_item.added", &json!({"output_index": "0", "item": f}));
    let done = event(
        "function_call_arguments.done",
        &json!({"item_id": "f", "output_index": 0.0, "arguments": {"x": 1}}),
    );
    let end = event("output_item.done", &json!({"output_index": 0, "item": f}));
    let expected = call("c", "f", r#"{"x":1}"#, false).content;
    for mut stream in [vec![added.clone(), done], vec![added, end], vec![]] {
        stream.push(completed(&json!([f])));
        let found: Vec<Content> = parts(&stream).into_iter().map(|part| part.content).collect();
        assert_eq!(found, std::slice::from_ref(&expected), "{stream:?}");
    }
    let whole = json!({"status": "completed", "output": [f]});
    let whole = CODEC.read_response(whole.to_string().as_bytes()).unwrap();
    assert_eq!(whole.choices[0].parts[0].content, expected);
}

#[test]
fn usage_is_read_in_the_words_of_chat_completions_too() {
    let expected = Some(Usage { input: 7, cache_read: 4, output: 5, ..Usage::default() });
    for usage in [
        json!({"prompt_tokens": 11, "completion_tokens": 5, "total_tokens": 16,
            "prompt_tokens_details": {"cached_tokens": 4}}),
        json!({"input_tokens": 11.0, "output_tokens": 4.2, "total_tokens": "16",
            "input_tokens_details": {"cached_tokens": 4.0}}),
        json!({"input_tokens": -1, "output_tokens": 5, "total_tokens": 16,
            "input_tokens_details": {"cached_tokens": 4},
            "output_tokens_details": {"reasoning_tokens": -1}}),
        json!({"input_tokens": 11, "output_tokens": 1e300, "total_tokens": 16,
            "input_tokens_details": {"cached_tokens": 4}, "output_tokens_details": "none"}),
    ] {
        assert_eq!(super::super::usage::read(&usage), expected, "{usage}");
    }
}
