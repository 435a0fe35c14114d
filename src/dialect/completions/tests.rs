//! What the older API's clients are promised.

use serde_json::{Value, json};

use super::CODEC;
use crate::canon::{ChatRequest, ChatResponse, Choice, Part, Usage};
use crate::dialect::fold::unfold;
use crate::dialect::{ClientSide, Context};

fn context(request: &ChatRequest) -> Context<'_> {
    Context { id: "00ff", created: 7, model: "m", input_estimate: 3, previous: None, request }
}

fn answer() -> ChatResponse {
    let logprobs = json!({ "content": [
        { "token": "é", "logprob": -0.5, "top_logprobs": [{ "token": "e", "logprob": -1.5 }] },
        { "token": "b", "logprob": -0.25, "top_logprobs": [] },
    ] });
    let choice =
        Choice { parts: vec![Part::text("éb")], logprobs: Some(logprobs), ..Choice::default() };
    let usage = Some(Usage { input: 2, output: 1, ..Usage::default() });
    ChatResponse { choices: vec![choice], usage, ..ChatResponse::default() }
}

#[test]
fn a_prompt_becomes_one_message_and_the_sampling_stays() {
    let body = json!({
        "model": "m", "prompt": ["Say hi"], "max_tokens": 5, "stop": "\n", "n": 2, "logprobs": 3,
        "suffix": "", "echo": false, "best_of": 1, "stream": true,
        "stream_options": { "include_usage": true },
    });
    let request = CODEC.read_request(body.to_string().as_bytes()).unwrap();
    assert_eq!(request.messages.len(), 1);
    assert_eq!(request.messages[0].text(), "Say hi");
    assert_eq!(request.sampling.stop, ["\n"]);
    let sampling = &request.sampling;
    assert_eq!(
        (sampling.max_tokens, sampling.choices, sampling.logprobs),
        (Some(5), Some(2), Some(3))
    );
    assert!(request.stream && request.include_usage);
    assert_eq!(request.extras.dialect, None);
}

#[test]
fn what_a_chat_cannot_do_is_refused_by_its_name() {
    for (field, value) in [
        ("suffix", json!("end")),
        ("echo", json!(true)),
        ("best_of", json!(2)),
        ("prompt", json!([1, 2])),
        ("prompt", json!(["a", "b"])),
        ("prompt", Value::Null),
    ] {
        let mut body = json!({ "model": "m", "prompt": "x" });
        body[field] = value;
        let misread = CODEC.read_request(body.to_string().as_bytes()).unwrap_err();
        assert!(misread.to_string().contains(field), "{misread}");
    }
}

#[test]
fn answers_go_back_as_text_completions() {
    let request = ChatRequest::default();
    let body = CODEC.write_response(&answer(), &context(&request));
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body["object"], "text_completion");
    assert_eq!(body["id"], "cmpl-00ff");
    assert_eq!(body["choices"][0]["text"], "éb");
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        body["choices"][0]["logprobs"],
        json!({
            "tokens": ["é", "b"], "token_logprobs": [-0.5, -0.25],
            "top_logprobs": [{ "e": -1.5 }, {}], "text_offset": [0, 1],
        })
    );
    assert_eq!(body["usage"]["total_tokens"], 3);
}

#[test]
fn streams_have_text_then_a_finish_then_usage_if_asked_then_done() {
    for include_usage in [false, true] {
        let request = ChatRequest { include_usage, ..ChatRequest::default() };
        let mut writer = CODEC.writer(&context(&request));
        let mut out = Vec::new();
        for event in unfold(&answer()) {
            writer.write(&event, &mut out);
        }
        let out = String::from_utf8(out).unwrap();
        let mut events: Vec<&str> = out
            .split_terminator("\n\n")
            .map(|event| event.strip_prefix("data: ").unwrap())
            .collect();
        assert_eq!(events.pop(), Some("[DONE]"));
        let events: Vec<Value> =
            events.into_iter().map(|event| serde_json::from_str(event).unwrap()).collect();
        let text: String =
            events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
        assert_eq!(text, "éb");
        let finishes =
            events.iter().filter(|event| event["choices"][0]["finish_reason"] == "stop").count();
        assert_eq!(finishes, 1);
        let last = events.last().unwrap();
        assert_eq!(last["choices"] == json!([]), include_usage);
        assert_eq!(last["usage"]["total_tokens"] == 3, include_usage);
    }
}
