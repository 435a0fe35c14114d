//! What providers refuse, and what they answer instead of what was asked for.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use switchpoint::dialect::openai::family::prefers_responses;

use super::{before, events, sent};
use crate::support::client::{open, post, request};
use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::{REPLY, role, says};
use crate::support::{Gateway, Script, Upstream};

const CHAT: &str = "/v1/chat/completions";
const MESSAGES: &str = "/v1/messages";

/// An answer of the responses API that calls a tool.
fn response() -> Script {
    let call = json!({"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "look",
        "arguments": "{}", "status": "completed"});
    let body = json!({"id": "resp_1", "object": "response", "created_at": 17, "model": "served",
        "status": "completed", "output": [call],
        "usage": {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}});
    Script::json(200, &body.to_string())
}

fn asked(more: &Value) -> String {
    let mut asked = json!({"model": "fast", "max_tokens": 2000,
        "messages": [{"role": "user", "content": "Hi"}]});
    let fields = asked.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    asked.to_string()
}

fn with_tool() -> Value {
    json!({"tools": [{"type": "function", "function": {"name": "look", "parameters": {
        "type": "object", "properties": {}}}}]})
}

#[tokio::test]
async fn a_model_that_thinks_and_calls_tools_by_the_newer_api_is_asked_by_it() {
    let tool = json!({"tools": [{"name": "look", "input_schema": {"type": "object"}}]});
    let (upstream, gateway) = before("openai", "gpt-5.5", vec![response()]).await;
    let answer = post(gateway.address, MESSAGES, KEY, asked(&tool)).await;
    assert_eq!(answer.json()["content"][0]["name"], "look", "{}", answer.text());
    assert_eq!(upstream.requests()[0].path, "/responses");

    let (upstream, gateway) = before("openai", "gpt-5.5", vec![response()]).await;
    let answer = post(gateway.address, CHAT, KEY, asked(&with_tool())).await;
    let call = &answer.json()["choices"][0]["message"]["tool_calls"][0];
    assert_eq!(call["function"]["name"], "look", "{}", answer.text());
    assert_eq!(upstream.requests()[0].path, "/responses");

    // What chat completions take passes as it is.
    let mut unthinking = with_tool();
    unthinking["reasoning_effort"] = json!("none");
    for (model, more) in [("gpt-5.5", json!({})), ("gpt-5.5", unthinking), ("gpt-5.2", with_tool())]
    {
        let (upstream, gateway) = before("openai", model, vec![Script::json(200, REPLY)]).await;
        assert_eq!(post(gateway.address, CHAT, KEY, asked(&more)).await.status, 200);
        assert_eq!(upstream.requests()[0].path, "/chat/completions", "{model}");
    }
}

#[tokio::test]
async fn models_that_only_have_the_newer_api_answer_every_client() {
    for (path, place) in [(CHAT, "/choices/0/message/tool_calls/0"), (MESSAGES, "/content/0")] {
        let (upstream, gateway) = before("openai", "gpt-5-codex", vec![response()]).await;
        let answer = post(gateway.address, path, KEY, asked(&json!({}))).await;
        assert!(answer.json().pointer(place).is_some(), "{}", answer.text());
        assert_eq!(upstream.requests()[0].path, "/responses");
    }
}

#[tokio::test]
async fn nobody_is_asked_for_thoughts_who_has_none() {
    let thinking = asked(&json!({"thinking": {"type": "enabled", "budget_tokens": 1024}}));
    let (upstream, gateway) = before("openai", "gpt-4.1", vec![Script::json(200, REPLY)]).await;
    let answer = post(gateway.address, MESSAGES, KEY, thinking.clone()).await;
    assert!(sent(&upstream, 0).get("reasoning_effort").is_none());
    assert_eq!(answer.header("x-switchpoint-dropped"), Some("reasoning_effort"));

    // Of this one nobody knows, until it says so.
    let refusal = r#"{"error":{"message":"\"llama3.2\" does not support thinking","type":"x"}}"#;
    let scripts =
        vec![Script::json(400, refusal), Script::json(200, REPLY), Script::json(200, REPLY)];
    let (upstream, gateway) = before("ollama", "llama3.2", scripts).await;
    for _ in 0..2 {
        let answer = post(gateway.address, MESSAGES, KEY, thinking.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let asks = |place| sent(&upstream, place).get("reasoning_effort").is_some();
    assert_eq!([asks(0), asks(1), asks(2)], [true, false, false]);
}

/// How much a target is asked to think, for this wish of a client of Anthropic's API, and what
/// that client is told of losses.
async fn effort((kind, model): (&str, &str), wish: &Value) -> (Value, Option<String>) {
    let newer = json!({"id": "resp_1", "object": "response", "created_at": 17, "model": "served",
        "status": "completed", "output": [{"type": "message", "id": "msg_1", "role": "assistant",
        "content": [{"type": "output_text", "text": "Hello.", "annotations": []}]}],
        "usage": {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}});
    let by_newer = kind == "openai" && prefers_responses(model);
    let reply = if by_newer { newer.to_string() } else { REPLY.to_owned() };
    let (upstream, gateway) = before(kind, model, vec![Script::json(200, &reply)]).await;
    let answer = post(gateway.address, MESSAGES, KEY, asked(wish)).await;
    assert_eq!(answer.status, 200, "{kind}/{model}: {}", answer.text());
    let sent = sent(&upstream, 0);
    let word = if by_newer { &sent["reasoning"]["effort"] } else { &sent["reasoning_effort"] };
    (word.clone(), answer.header("x-switchpoint-dropped").map(str::to_owned))
}

#[tokio::test]
async fn how_much_to_think_is_said_in_a_word_that_the_model_takes() {
    let off = json!({"thinking": {"type": "disabled"}});
    let most = json!({"thinking": {"type": "adaptive"}, "output_config": {"effort": "max"}});
    let lost = Some("reasoning_effort");
    for (target, wish, word, dropped) in [
        (("openai", "gpt-5"), &off, json!("minimal"), lost),
        (("openai", "o3"), &off, json!("low"), lost),
        (("azure", "gpt-5"), &off, json!("minimal"), lost),
        (("openai", "gpt-5.1"), &off, json!("none"), None),
        (("openai", "gpt-5-pro"), &off, json!("high"), lost),
        (("openai", "gpt-5"), &most, json!("high"), None),
        (("openai", "gpt-5.1"), &most, json!("high"), None),
        (("openai", "gpt-5.4"), &most, json!("xhigh"), None),
        (("openai", "gpt-5.4-pro"), &most, json!("xhigh"), None),
        (("groq", "openai/gpt-oss-120b"), &off, json!("low"), lost),
        (("groq", "qwen/qwen3-32b"), &off, json!("none"), None),
        (("groq", "qwen/qwen3-32b"), &most, Value::Null, lost),
        (("xai", "grok-4.5"), &off, json!("low"), lost),
        (("xai", "grok-4.3"), &off, json!("none"), None),
        (("xai", "grok-4"), &most, Value::Null, lost),
    ] {
        let (said, named) = effort(target, wish).await;
        assert_eq!((said, named.as_deref()), (word, dropped), "{target:?} {wish}");
    }
}

#[tokio::test]
async fn a_model_that_refuses_a_word_for_its_thoughts_is_asked_without() {
    let refusal = json!({"error": {"message": "Unsupported value: 'none'.", "code": "unsupported_value",
        "type": "invalid_request_error", "param": "reasoning_effort"}});
    let refusal = Script::json(400, &refusal.to_string());
    let reply = Script::json(200, REPLY);
    let scripts = vec![refusal.clone(), reply.clone(), refusal, reply];
    let (upstream, gateway) = before("openai", "gpt-5.2", scripts).await;
    for place in [0, 2] {
        let off = asked(&json!({"thinking": {"type": "disabled"}}));
        let answer = post(gateway.address, MESSAGES, KEY, off).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("x-switchpoint-dropped"), Some("reasoning_effort"));
        // It may take another word.
        assert_eq!(sent(&upstream, place)["reasoning_effort"], "none");
        assert_eq!(sent(&upstream, place + 1).get("reasoning_effort"), None);
    }
}

#[tokio::test]
async fn what_openai_calls_effort_is_said_to_others_as_they_know_it() {
    let off = json!({"reasoning_effort": "none"});
    let disabled = json!({"thinking": {"type": "disabled"}});
    for (kind, model, wanted) in [
        ("deepseek", "deepseek-v4-pro", &disabled),
        ("zai", "glm-5", &disabled),
        ("alibaba", "qwen3-max", &json!({"enable_thinking": false})),
    ] {
        let (upstream, gateway) = before(kind, model, vec![Script::json(200, REPLY)]).await;
        let answer = post(gateway.address, CHAT, KEY, asked(&off)).await;
        assert_eq!(answer.status, 200, "{kind}: {}", answer.text());
        let sent = sent(&upstream, 0);
        assert_eq!(sent.get("reasoning_effort"), None, "{kind}");
        let (name, value) = wanted.as_object().unwrap().iter().next().unwrap();
        assert_eq!(&sent[name], value, "{kind}");
    }
}

#[tokio::test]
async fn whether_to_stream_is_said_clearly_or_refused() {
    let (upstream, gateway) = before("openai", "gpt-4.1", vec![]).await;
    for unclear in [json!("true"), json!(1)] {
        let answer = post(gateway.address, CHAT, KEY, asked(&json!({"stream": unclear}))).await;
        assert_eq!(answer.status, 400);
        assert!(answer.text().contains("`stream` must be true or false"), "{}", answer.text());
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_client_gets_the_form_that_it_asked_for_whatever_the_server_sends() {
    let (_upstream, gateway) = before("openai", "gpt-4.1", vec![Script::json(200, REPLY)]).await;
    let answer = post(gateway.address, CHAT, KEY, asked(&json!({"stream": true}))).await;
    let said: String = events(&answer)
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["content"].as_str())
        .collect();
    assert_eq!(said, "Hello there.", "{}", answer.text());

    let (_upstream, gateway) =
        before("openai", "gpt-4.1", vec![Script::stream(says("Hello."))]).await;
    let answer = post(gateway.address, CHAT, KEY, asked(&json!({}))).await;
    let message = &answer.json()["choices"][0]["message"];
    assert_eq!(message["content"], "Hello.", "{}", answer.text());
}

#[tokio::test]
async fn a_call_that_a_model_did_not_get_right_is_no_empty_success() {
    let candidate = json!({"content": {}, "finishReason": "MALFORMED_FUNCTION_CALL", "index": 0});
    let body = json!({"candidates": [candidate], "usageMetadata": {"promptTokenCount": 3}});
    let streamed = format!("data: {body}\r\n\r\n");
    for (stream, script) in
        [(false, Script::json(200, &body.to_string())), (true, Script::stream([streamed]))]
    {
        let scripts = vec![script; 4];
        let (_upstream, gateway) = before("gemini", "gemini-2.5-flash", scripts).await;
        let answer = post(gateway.address, CHAT, KEY, asked(&json!({"stream": stream}))).await;
        assert_eq!(answer.status, 502, "{}", answer.text());
    }
}

#[tokio::test]
async fn what_a_stream_wrote_is_counted_by_its_length_where_nobody_says() {
    let long = "word ".repeat(800);
    let pieces = [
        role(),
        format!(
            "data: {}\n\n",
            json!({"choices": [{"index": 0, "delta": {"content": long}, "finish_reason": null}]})
        ),
        format!(
            "data: {}\n\n",
            json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        ),
    ];
    let (_upstream, gateway) = before("openai", "gpt-4.1", vec![Script::stream(pieces)]).await;
    let more = json!({"stream": true, "stream_options": {"include_usage": true}});
    let answer = post(gateway.address, CHAT, KEY, asked(&more)).await;
    let told = events(&answer);
    let usage = &told.last().unwrap()["usage"];
    assert_eq!(usage["completion_tokens"], 1000, "{}", answer.text());
}

#[tokio::test]
async fn what_a_whole_answer_says_is_counted_and_not_its_json() {
    // No encoding of this model's is known, so the rule of thumb counts: a token for seven letters.
    let said = "abcdefg ".repeat(100);
    let own = json!({"id": "x".repeat(4000), "object": "chat.completion", "created": 1,
        "model": "m", "choices": [{"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": said}}]});
    let (_upstream, gateway) =
        before("openai-compatible", "m", vec![Script::json(200, &own.to_string())]).await;
    let answer = post(gateway.address, CHAT, KEY, asked(&json!({}))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let record = gateway.record().await;
    assert_eq!(record["usage_source"], "estimated", "{record}");
    let counted = record["output_tokens"].as_u64().unwrap();
    assert!((90..130).contains(&counted), "{counted}");
}

#[tokio::test]
async fn a_compressed_body_is_refused_as_such() {
    let (upstream, gateway) = before("openai", "gpt-4.1", vec![]).await;
    let compressed = Bytes::from_static(b"\x1f\x8b\x08\x00\x00");
    let mut request = request(Method::POST, CHAT, KEY, compressed);
    request.headers_mut().insert("content-encoding", HeaderValue::from_static("gzip"));
    let answer = open(gateway.address, request).await.whole().await;
    assert_eq!(answer.status, 415);
    assert!(answer.text().contains("`content-encoding: gzip`"), "{}", answer.text());
    assert!(upstream.requests().is_empty());
}

/// A route that asks `bad` first and `good` next.
async fn beside(bad: Script, good: Script) -> (Upstream, Gateway) {
    let upstream = Upstream::start([("bad", vec![bad]), ("good", vec![good])]).await;
    let sections = format!(
        "{}{}",
        provider("up", &upstream).replace("openai-compatible", "openai"),
        route("fast", &["up/bad", "up/good"], "")
    );
    (upstream, Gateway::start("", &sections).await)
}

#[tokio::test]
async fn a_success_in_name_with_nothing_in_it_is_a_failure() {
    let vectors = r#"{"object":"list","data":[{"index":0,"embedding":[0.5]}],"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}"#;
    let embed = json!({"model": "fast", "input": "Hi"}).to_string();
    let broken = json!({"id": "x", "choices": [{"index": 0, "finish_reason": "error",
        "error": {"code": 502, "message": "It broke."}, "message": {"role": "assistant", "content": "Hel"}}]});
    for bad in [
        r#"{"object":"error","message":"EngineDeadError","code":500}"#,
        r#"{"detail":"down"}"#,
        "{}",
        "[]",
        r#"{"choices":null,"base_resp":{"status_code":1002}}"#,
        r#"{"choices": [ ]}"#,
        &broken.to_string(),
    ] {
        let (_upstream, gateway) = beside(Script::json(200, bad), Script::json(200, REPLY)).await;
        let answer = post(gateway.address, CHAT, KEY, asked(&json!({}))).await;
        assert_eq!(answer.json()["choices"][0]["message"]["content"], "Hello there.", "{bad}");
        assert_eq!(answer.header("x-switchpoint-attempts"), Some("2"), "{bad}");

        let (_upstream, gateway) = beside(Script::json(200, bad), Script::json(200, vectors)).await;
        let answer = post(gateway.address, "/v1/embeddings", KEY, embed.clone()).await;
        assert_eq!(answer.json()["data"][0]["embedding"][0], 0.5, "{bad}: {}", answer.text());
    }
    let failed = json!({"id": "resp_1", "object": "response", "status": "failed", "output": [],
        "error": {"code": "server_error", "message": "It broke."}});
    let (_upstream, gateway) = beside(Script::json(200, &failed.to_string()), response()).await;
    let question = json!({"model": "fast", "input": "Hi"}).to_string();
    let answer = post(gateway.address, "/v1/responses", KEY, question).await;
    assert_eq!(answer.json()["output"][0]["type"], "function_call", "{}", answer.text());
}

#[tokio::test]
async fn a_stream_whose_end_says_that_its_provider_broke_down_is_a_failure() {
    let ends = |reason: &str| {
        let choice = json!({"index": 0, "delta": {}, "finish_reason": reason});
        format!("data: {}\n\n", json!({"id": "x", "choices": [choice]}))
    };
    let more = json!({"stream": true});
    for reason in ["error", "network_error", "insufficient_system_resource", "abort"] {
        let bad = Script::stream([role(), ends(reason), "data: [DONE]\n\n".to_owned()]);
        let (_upstream, gateway) = beside(bad, Script::stream(says("Hello."))).await;
        let answer = post(gateway.address, CHAT, KEY, asked(&more)).await;
        assert_eq!(answer.header("x-switchpoint-attempts"), Some("2"), "{reason}");
    }
    // Once something was said it is told by an `error`, which is what clients look for.
    let plain = "event: error\ndata: {\"message\":\"It broke.\"}\n\n".to_owned();
    let engine = "data: {\"object\":\"error\",\"message\":\"It broke.\"}\n\n".to_owned();
    for bad in [plain, engine, ends("error")] {
        let said = json!({"id": "x", "choices": [{"index": 0, "delta": {"content": "Hel"}, "finish_reason": null}]});
        let begun = Script::stream_head().chunks([role(), format!("data: {said}\n\n")]);
        let script = begun.wait(Duration::from_millis(50)).chunks([bad.clone()]).end();
        let (_upstream, gateway) = beside(script, Script::stream(says("Hello."))).await;
        let answer = post(gateway.address, CHAT, KEY, asked(&more)).await;
        let last = events(&answer).pop().unwrap();
        let message = last["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains("broke"), "{bad}: {}", answer.text());
    }
}
