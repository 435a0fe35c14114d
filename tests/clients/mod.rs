//! What clients really send and keep: parts of what they were given, long names, old fields.

mod followers;
mod odd;
mod thoughts;
mod truths;

use std::time::Duration;

use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::support::client::{Answer, get, open, post, request};
use crate::support::gateway::{KEY, provider};
use crate::support::replies::{REPLY, calls};
use crate::support::{Gateway, Script, Upstream};

const CLAUDE: &str = "claude-sonnet-4-5";

/// A provider of this kind before which the gateway stands, with a route to one of its models.
async fn before(kind: &str, model: &str, scripts: Vec<Script>) -> (Upstream, Gateway) {
    let upstream = Upstream::start([(model, scripts)]).await;
    let sections = format!(
        "[providers.up]\nkind = \"{kind}\"\nbase_url = \"http://{}\"\napi_key = \"k\"\n\
         [routes.fast]\ntargets = [\"up/{model}\"]\n",
        upstream.address
    );
    let gateway = Gateway::start("", &sections).await;
    (upstream, gateway)
}

fn sent(upstream: &Upstream, place: usize) -> Value {
    serde_json::from_slice(&upstream.requests()[place].body).unwrap()
}

/// The data of a stream's events.
fn events(answer: &Answer) -> Vec<Value> {
    let lines = answer.text().lines().filter_map(|line| line.strip_prefix("data: {"));
    lines.map(|line| serde_json::from_str(&format!("{{{line}")).unwrap()).collect()
}

fn response_events(end: &[Value]) -> Vec<String> {
    let response = json!({"id": "resp_up", "object": "response", "created_at": 17, "model": "gpt-5",
        "status": "in_progress", "output": []});
    let mut events = vec![
        json!({"type": "response.created", "sequence_number": 0, "response": response}),
        json!({"type": "response.output_item.added", "sequence_number": 1, "output_index": 0,
            "item": {"type": "message", "id": "msg_1", "role": "assistant", "content": []}}),
        json!({"type": "response.output_text.delta", "sequence_number": 2, "output_index": 0,
            "content_index": 0, "item_id": "msg_1", "delta": "Hel"}),
    ];
    events.extend_from_slice(end);
    let line =
        |event: &Value| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap());
    events.iter().map(line).collect()
}

const ASKED: &str = r#"{"model":"fast","input":"Hi","stream":true}"#;

#[tokio::test]
async fn a_response_that_fails_ends_in_the_providers_words_and_in_one_that_names_it() {
    let error = json!({"type": "error", "sequence_number": 3, "code": "server_error",
        "message": "It broke.", "param": null});
    let failed = json!({"type": "response.failed", "sequence_number": 4, "response": {
        "id": "resp_up", "object": "response", "status": "failed", "model": "gpt-5",
        "error": {"code": "server_error", "message": "It broke."}, "output": [], "mark": 7}});
    for told in [vec![error.clone(), failed.clone()], vec![error.clone()], vec![failed.clone()]] {
        let pieces = response_events(&told);
        let (said, end) = pieces.split_at(3);
        let script = Script::stream_head().chunks([said.concat()]).wait(Duration::from_millis(50));
        let script = script.chunks([end.concat()]).end();
        let (_upstream, gateway) = before("openai", "gpt-5", vec![script]).await;
        let answer = post(gateway.address, "/v1/responses", KEY, ASKED).await;
        let events = events(&answer);
        let last = events.last().unwrap();
        assert_eq!(last["type"], "response.failed", "{}", answer.text());
        let both = told.contains(&error);
        assert_eq!(last["sequence_number"], 4, "{last}");
        assert_eq!(events.contains(&error), both);
        assert_eq!(last["response"]["id"], "resp_up");
        assert_eq!(last["response"]["error"]["message"], "It broke.");
        assert_eq!(last["response"]["mark"] == 7, told.contains(&failed));
    }
}

#[tokio::test]
async fn an_error_of_ours_goes_on_counting_a_responses_events() {
    let cut = Script::stream_head().chunks(response_events(&[])).close();
    let (_upstream, gateway) = before("openai", "gpt-5", vec![cut]).await;
    let answer = post(gateway.address, "/v1/responses", KEY, ASKED).await;
    let told = events(&answer);
    let [.., failed, error] = told.as_slice() else { panic!("{}", answer.text()) };
    assert_eq!((&failed["sequence_number"], &error["sequence_number"]), (&json!(3), &json!(4)));
    assert_eq!(failed["response"]["id"], "resp_up");
    assert_eq!(error["type"], "error");

    // The same where the words are ours.
    let started = json!({"type": "message_start", "message": {"id": "msg_1", "model": CLAUDE,
        "role": "assistant", "content": [], "usage": {"input_tokens": 1, "output_tokens": 1}}});
    let opened = json!({"type": "content_block_start", "index": 0,
        "content_block": {"type": "text", "text": "Hel"}});
    let pieces = [started, opened].map(|event| format!("data: {event}\n\n"));
    let cut = Script::stream_head().chunks(pieces).close();
    let (_upstream, gateway) = before("anthropic", CLAUDE, vec![cut]).await;
    let answer = post(gateway.address, "/v1/responses", KEY, ASKED).await;
    let told = events(&answer);
    let numbers: Vec<u64> = told.iter().filter_map(|it| it["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..told.len() as u64).collect::<Vec<_>>(), "{}", answer.text());
    let [first, .., failed, _] = told.as_slice() else { panic!("{}", answer.text()) };
    assert_eq!(failed["type"], "response.failed");
    assert_eq!(failed["response"]["id"], first["response"]["id"]);
}

#[tokio::test]
async fn sources_that_only_anthropic_has_are_read_to_other_models() {
    let (upstream, gateway) = before("openai", "gpt-4.1", vec![Script::json(200, REPLY)]).await;
    let result = json!({"type": "search_result", "source": "https://a.test", "title": "Rome",
        "content": [{"type": "text", "text": "It is warm."}], "citations": {"enabled": true}});
    let document = json!({"type": "document", "title": "Paris", "source": {"type": "content",
        "content": [{"type": "text", "text": "It is wet."}]}});
    let plain = json!({"type": "document", "title": "Oslo", "source": {"type": "text",
        "media_type": "text/plain", "data": "It is cold."}});
    let asked = json!({"model": "fast", "max_tokens": 99,
    "tools": [{"name": "search", "input_schema": {"type": "object"}}],
    "messages": [
        {"role": "user", "content": [document]},
        {"role": "assistant", "content": [
            {"type": "tool_use", "id": "toolu_1", "name": "search", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1",
            "content": [result, plain]}]},
    ]});
    let answer = post(gateway.address, "/v1/messages", KEY, asked.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("x-switchpoint-dropped"), Some("citations"));
    let asked = upstream.only_request();
    for words in ["Paris\\n\\nIt is wet.", "Rome\\nhttps://a.test\\n\\nIt is warm.", "It is cold."]
    {
        assert!(asked.text().contains(words), "{words}: {}", asked.text());
    }
}

#[tokio::test]
async fn a_tools_name_that_a_provider_refuses_is_another_one_there_and_its_own_here() {
    let long = format!("mcp__{}do_it", "a_server_with_a_long_name__".repeat(3));
    let asked = |stream| {
        json!({"model": "fast", "max_tokens": 99, "stream": stream,
        "tools": [{"name": long, "input_schema": {"type": "object"}}],
        "tool_choice": {"type": "tool", "name": long},
        "messages": [
            {"role": "user", "content": "Do it."},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "toolu_1", "name": long, "input": {}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": "done"}]},
        ]})
        .to_string()
    };
    let (upstream, gateway) = before("openai", "gpt-4.1", vec![Script::json(200, REPLY)]).await;
    post(gateway.address, "/v1/messages", KEY, asked(false)).await;
    let body = sent(&upstream, 0);
    let name = body["tools"][0]["function"]["name"].as_str().unwrap().to_owned();
    assert!(name.len() <= 64 && name.contains("do_it"), "{name}");
    assert_eq!(body["tool_choice"]["function"]["name"], name.as_str());
    assert_eq!(body["messages"][1]["tool_calls"][0]["function"]["name"], name.as_str());

    let called = json!({"id": "c", "object": "chat.completion", "model": "m", "choices": [{
        "index": 0, "finish_reason": "tool_calls", "message": {"role": "assistant",
        "tool_calls": [{"id": "c1", "type": "function",
            "function": {"name": name, "arguments": "{}"}}]}}]});
    let scripts =
        vec![Script::json(200, &called.to_string()), Script::stream(calls(&[("c1", &name, "{}")]))];
    let (_upstream, gateway) = before("openai", "gpt-4.1", scripts).await;
    let whole = post(gateway.address, "/v1/messages", KEY, asked(false)).await;
    assert_eq!(whole.json()["content"][0]["name"], long.as_str(), "{}", whole.text());
    let streamed = post(gateway.address, "/v1/messages", KEY, asked(true)).await;
    assert!(streamed.text().contains(&long), "{}", streamed.text());
    assert!(!streamed.text().contains(&name), "{}", streamed.text());
}

#[tokio::test]
async fn a_model_that_thinks_is_spared_what_it_refuses() {
    let (upstream, gateway) = before("openai", "gpt-5-mini", vec![Script::json(200, REPLY)]).await;
    let asked = r#"{"contents":[{"parts":[{"text":"Hi"}]}],
        "generationConfig":{"temperature":0.7,"stopSequences":["x"],"maxOutputTokens":50}}"#;
    let path = "/v1beta/models/fast:generateContent";
    let answer = post(gateway.address, path, KEY, asked).await;
    assert_eq!(answer.header("x-switchpoint-dropped"), Some("temperature,stop"));
    let body = sent(&upstream, 0);
    assert_eq!((&body["temperature"], &body["stop"]), (&Value::Null, &Value::Null));
    assert_eq!(body["max_completion_tokens"], 50);

    // What passes as it is passes with the limit under its newer name.
    let asked = r#"{"model":"fast","max_tokens":50,"messages":[{"role":"user","content":"Hi"}]}"#;
    post(gateway.address, "/v1/chat/completions", KEY, asked).await;
    let passed = asked.replace("max_tokens", "max_completion_tokens").replace("fast", "gpt-5-mini");
    assert_eq!(upstream.requests()[1].text(), passed);
}

#[tokio::test]
async fn a_path_that_is_not_there_is_refused_in_the_words_of_its_door() {
    let (_upstream, gateway) = before("openai", "gpt-5-mini", Vec::new()).await;
    for (path, status) in [("/v1/messages/batches", 404), ("/v1/messages", 405)] {
        let answer = get(gateway.address, path, KEY).await;
        assert_eq!((answer.status, &answer.json()["type"]), (status, &json!("error")), "{path}");
        assert!(answer.json()["error"]["type"].is_string());
    }
    for (path, status) in [
        ("/v1beta/files", 404),
        ("/v1beta/models/fast:generateContent", 405),
        ("/v1/models/fast:generateContent", 405),
    ] {
        let answer = get(gateway.address, path, KEY).await;
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"]), (status, &json!(status)), "{path} {error}");
        assert!(error["status"].is_string(), "{error}");
    }
    for (path, status) in [("/v1/nothing", 404), ("/v1/embeddings", 405)] {
        let answer = get(gateway.address, path, KEY).await;
        assert_eq!(answer.status, status);
        assert!(answer.json()["error"]["code"].is_string(), "{}", answer.text());
    }
    let mut asked = request(Method::GET, "/v1/nothing", KEY, "".into());
    asked.headers_mut().insert("anthropic-version", HeaderValue::from_static("2023-06-01"));
    let answer = open(gateway.address, asked).await.whole().await;
    assert_eq!(answer.json()["type"], "error", "{}", answer.text());
}

#[tokio::test]
async fn a_key_of_one_letter_takes_none_out_of_what_is_said() {
    let error = r#"{"error":{"message":"kick the bucket","type":"invalid_request_error"}}"#;
    let upstream = Upstream::start([("m", [Script::json(400, error)])]).await;
    let sections = provider("up", &upstream).replace("sk-up", "k");
    let gateway = Gateway::start("", &sections).await;
    let asked = r#"{"model":"up/m","messages":[{"role":"user","content":"Hi"}]}"#;
    let answer = post(gateway.address, "/v1/chat/completions", KEY, asked).await;
    assert!(answer.text().contains("kick the bucket"), "{}", answer.text());
}

#[tokio::test]
async fn googles_clients_are_made_vectors_by_whoever_makes_them() {
    let one = |text: &str| {
        json!({"model": "models/fast", "content": {"parts": [{"text": text}]},
            "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 2})
    };
    let batch = json!({"requests": [one("a long enough text"), one("b")]});
    let path = |method: &str| format!("/v1beta/models/fast:{method}");

    // Its own provider says nothing of tokens: that is an estimate, and said to be one.
    let body = r#"{"embeddings":[{"values":[0.5,0.25]},{"values":[1.5,2]}]}"#;
    let (upstream, gateway) =
        before("gemini", "gemini-embedding-001", vec![Script::json(200, body)]).await;
    let answer = post(gateway.address, &path("batchEmbedContents"), KEY, batch.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.json();
    assert_eq!(told["embeddings"][1]["values"], json!([1.5, 2.0]));
    assert!(told["usageMetadata"]["promptTokenCount"].as_u64().unwrap() > 0, "{told}");
    assert_eq!(gateway.record().await["usage_source"], "estimated");
    let asked = sent(&upstream, 0);
    assert_eq!(asked["requests"][1]["taskType"], "RETRIEVAL_QUERY");
    assert_eq!(asked["requests"][1]["model"], "models/gemini-embedding-001");

    let body = r#"{"object":"list","model":"m","data":[{"index":0,"embedding":[0.5,0.25]}],
        "usage":{"prompt_tokens":3,"total_tokens":3}}"#;
    let (upstream, gateway) =
        before("openai", "text-embedding-3-small", vec![Script::json(200, body)]).await;
    let answer = post(gateway.address, &path("embedContent"), KEY, one("a").to_string()).await;
    assert_eq!(answer.json()["embedding"]["values"], json!([0.5, 0.25]), "{}", answer.text());
    assert_eq!(answer.json()["usageMetadata"]["promptTokenCount"], 3);
    assert_eq!(answer.header("x-switchpoint-dropped"), Some("taskType"));
    let asked = sent(&upstream, 0);
    assert_eq!((&asked["input"], &asked["dimensions"]), (&json!(["a"]), &json!(2)));
    assert_eq!(asked["input_type"], Value::Null);

    let answer = post(gateway.address, &path("embedContent"), KEY, "{}").await;
    assert_eq!(
        (answer.status, &answer.json()["error"]["status"]),
        (400, &json!("INVALID_ARGUMENT"))
    );
}

#[tokio::test]
async fn tokens_are_counted_by_whoever_answers_the_question() {
    let responses = r#"{"model":"fast","input":"Hi","instructions":"Be brief."}"#;
    let google = r#"{"contents":[{"parts":[{"text":"Hi"}]}]}"#;
    let messages = r#"{"model":"fast","messages":[{"role":"user","content":"Hi"}]}"#;
    let counted = Script::json(200, r#"{"input_tokens":123}"#);
    let (upstream, gateway) = before("anthropic", CLAUDE, vec![counted]).await;
    let answer = post(gateway.address, "/v1/responses/input_tokens", KEY, responses).await;
    let expected = json!({"object": "response.input_tokens", "input_tokens": 123});
    assert_eq!(answer.json(), expected);
    let path = "/v1beta/models/fast:countTokens";
    let answer = post(gateway.address, path, KEY, google).await;
    assert_eq!(answer.json(), json!({"totalTokens": 123}));
    for (place, request) in upstream.requests().iter().enumerate() {
        assert_eq!(request.path, "/v1/messages/count_tokens");
        assert!(request.header("anthropic-version").is_some());
        let body = sent(&upstream, place);
        assert_eq!((&body["model"], &body["max_tokens"]), (&json!(CLAUDE), &Value::Null));
    }
    assert_eq!(gateway.recorded(2).await[1]["input_tokens"], 0);

    let counted = Script::json(200, r#"{"totalTokens":45}"#);
    let (upstream, gateway) = before("gemini", "gemini-2.5-flash", vec![counted]).await;
    let answer = post(gateway.address, "/v1/messages/count_tokens", KEY, messages).await;
    assert_eq!(answer.json(), json!({"input_tokens": 45}));
    let request = upstream.only_request();
    assert!(request.path.ends_with("/models/gemini-2.5-flash:countTokens"), "{}", request.path);
    let question = &sent(&upstream, 0)["generateContentRequest"];
    assert_eq!(question["model"], "models/gemini-2.5-flash");

    // Who cannot say leaves it to an estimate.
    let (_upstream, gateway) = before("anthropic", CLAUDE, vec![Script::json(404, "{}")]).await;
    let answer = post(gateway.address, "/v1/responses/input_tokens", KEY, responses).await;
    assert!(answer.json()["input_tokens"].as_u64().unwrap() > 0, "{}", answer.text());
}
