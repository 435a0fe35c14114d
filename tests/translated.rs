//! What becomes of a call whose target speaks another API than its client.

use http::{HeaderValue, Method};
use serde_json::{Value, json};
use switchpoint::provider::catalog::find;

use crate::providers::section;
use crate::support::client::{Answer, CHAT, chat, open, post, request};
use crate::support::gateway::{KEY, route};
use crate::support::replies::REPLY;
use crate::support::{Gateway, Script, Upstream};

const OTHER: &str = "sk-test-other";

fn message(content: &Value, stop: &str) -> Script {
    let body = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5",
        "content": content, "stop_reason": stop, "stop_sequence": null,
        "usage": {"input_tokens": 9, "output_tokens": 3},
    });
    Script::json(200, &body.to_string())
}

fn words() -> Script {
    message(&json!([{"type": "text", "text": "Hello."}]), "end_turn")
}

/// A gateway before an upstream that speaks Anthropic's API, with these lines in its route.
async fn claude(scripts: Vec<Script>, route: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::start([("claude-sonnet-4-5", scripts)]).await;
    let sections = format!(
        "[providers.claude]\nkind = \"anthropic\"\nbase_url = \"http://{}\"\napi_key = \"sk-claude\"\n\
         [routes.fast]\ntargets = [\"claude/claude-sonnet-4-5\"]\n{route}\n\
         [keys.other]\nsecret = \"{OTHER}\"\n",
        upstream.address
    );
    let gateway = Gateway::start("", &sections).await;
    (upstream, gateway)
}

fn question(more: &Value) -> String {
    let mut question = json!({"model": "fast", "messages": [{"role": "user", "content": "Hi"}]});
    for (name, value) in more.as_object().unwrap() {
        question[name] = value.clone();
    }
    question.to_string()
}

fn call(id: &str) -> Value {
    json!({"role": "assistant", "content": null, "tool_calls": [{
        "id": id, "type": "function", "function": {"name": "look", "arguments": "{}"},
    }]})
}

fn turn(id: &str) -> Value {
    let user = json!({"role": "user", "content": "Look."});
    json!([user, call(id), {"role": "tool", "tool_call_id": id, "content": "seen"}])
}

fn look() -> Value {
    json!([{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}])
}

#[tokio::test]
async fn fields_that_the_target_cannot_take_are_named_to_the_client_and_in_the_record() {
    let (upstream, gateway) = claude(vec![words()], "").await;
    let reply = chat(&gateway, question(&json!({"seed": 7, "frequency_penalty": 0.5}))).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    let dropped = reply.headers["x-switchpoint-dropped"].to_str().unwrap();
    assert_eq!(dropped, "seed,frequency_penalty");
    assert_eq!(gateway.record().await["dropped"], json!(["seed", "frequency_penalty"]));
    let asked: Value = serde_json::from_slice(&upstream.only_request().body).unwrap();
    assert!(asked.get("seed").is_none());
}

#[tokio::test]
async fn a_strict_route_refuses_a_lossy_call_before_anything_is_spent() {
    let (upstream, gateway) = claude(vec![words()], "strict = true").await;
    let reply = chat(&gateway, question(&json!({"seed": 7}))).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("unsupported")));
    assert!(reply.text().contains("`seed`"), "{}", reply.text());
    assert!(upstream.requests().is_empty());
    assert_eq!(chat(&gateway, question(&json!({}))).await.status, 200);
}

#[tokio::test]
async fn a_tool_call_that_stands_alone_is_completed_or_refused_as_the_route_says() {
    let user = json!({"role": "user", "content": "Never mind."});
    let broken = json!({"messages": [user, call("call_1"), user], "tools": look()});
    let (upstream, gateway) = claude(vec![words()], "tool_pairs = \"strict\"").await;
    let reply = chat(&gateway, question(&broken)).await;
    assert_eq!(reply.status, 400);
    assert!(reply.text().contains("messages[1]") && reply.text().contains("call_1"));
    assert!(upstream.requests().is_empty());

    let (upstream, gateway) = claude(vec![words()], "").await;
    assert_eq!(chat(&gateway, question(&broken)).await.status, 200);
    let asked = upstream.only_request();
    assert!(asked.text().contains("this call was not answered"), "{}", asked.text());
}

#[tokio::test]
async fn thoughts_that_a_client_drops_go_back_to_their_provider_and_to_no_other_keys_calls() {
    let thought = json!([
        {"type": "thinking", "thinking": "I should look.", "signature": "c2lnbmVk"},
        {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}},
    ]);
    let (upstream, gateway) = claude(vec![message(&thought, "tool_use"), words()], "").await;
    let more = json!({"tools": look(), "reasoning_effort": "high", "max_tokens": 20_000});
    let reply = chat(&gateway, question(&more)).await.json();
    assert_eq!(reply["choices"][0]["message"]["tool_calls"][0]["id"], "toolu_1");

    // The client sends the call and its result, and nothing of the thoughts.
    let mut more = more;
    more["messages"] = turn("toolu_1");
    assert_eq!(chat(&gateway, question(&more)).await.status, 200);
    let asked: Value = serde_json::from_slice(&upstream.requests()[1].body).unwrap();
    let said = &asked["messages"][1]["content"];
    assert_eq!(said, &thought, "{asked}");

    let reply = post(gateway.address, CHAT, OTHER, question(&more)).await;
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert!(!upstream.requests()[2].text().contains("c2lnbmVk"));
}

/// A question of Anthropic's API, with these headers.
async fn messages(gateway: &Gateway, betas: &str, body: &Value) -> Answer {
    let mut asked = request(Method::POST, "/v1/messages", KEY, body.to_string().into());
    asked.headers_mut().insert("anthropic-beta", HeaderValue::from_str(betas).unwrap());
    open(gateway.address, asked).await.whole().await
}

#[tokio::test]
async fn a_question_that_stays_in_its_api_keeps_its_betas_however_it_is_put() {
    // What a route changes is put into words anew.
    let (upstream, gateway) = claude(vec![words()], "max_output_tokens = 8000").await;
    let thought = json!({"type": "thinking", "thinking": "x", "signature": ""});
    let ask = |more: Value| {
        let mut body = json!({"model": "fast", "max_tokens": 9000, "messages": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [thought, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "c"}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let edits = json!([{"type": "clear_thinking_20251015", "keep": "all"}, {"type": "clear_tool_uses_20250919"}]);
    let more = json!({"context_management": {"edits": edits}});
    let betas = "context-management-2025-06-27,interleaved-thinking-2025-05-14";
    let answer = messages(&gateway, betas, &ask(more)).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(
        answer.header("request-id").is_some_and(|id| answer.header("x-request-id") == Some(id))
    );
    let asked = upstream.requests().pop().unwrap();
    assert_eq!(asked.header("anthropic-beta"), Some(betas));
    // Nobody thinks, so there are no thoughts to be cleared.
    let body: Value = serde_json::from_slice(&asked.body).unwrap();
    let kept = json!({"edits": [{"type": "clear_tool_uses_20250919"}]});
    assert_eq!((&body["context_management"], body.get("thinking")), (&kept, None), "{body:#}");
    assert!(answer.header("x-switchpoint-dropped").unwrap().contains("context_management.edits"));
}

/// A gateway before a server that speaks OpenAI's API.
async fn other(scripts: Vec<Script>) -> (Upstream, Gateway) {
    let upstream = Upstream::start([("m", scripts)]).await;
    let gateway = Gateway::before(&upstream, &route("fast", &["up/m"], "")).await;
    (upstream, gateway)
}

fn sent(upstream: &Upstream) -> Value {
    serde_json::from_slice(&upstream.requests().pop().unwrap().body).unwrap()
}

#[tokio::test]
async fn what_only_anthropic_takes_gives_way_where_another_answers() {
    let (upstream, gateway) = other(vec![Script::json(200, REPLY)]).await;
    let loose = json!({"type": "object", "required": ["a"], "additionalProperties": false,
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}}});
    let body = json!({"model": "fast", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}],
        "system": [{"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1;"}, {"type": "text", "text": "Be kind."}],
        "tools": [{"name": "w", "strict": true, "input_schema": loose}],
        "output_config": {"format": {"type": "json_schema", "schema": loose}}});
    let answer = messages(&gateway, "x", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("x-switchpoint-dropped").unwrap().contains("strict"));
    let asked = sent(&upstream);
    assert_eq!(asked["messages"][0]["content"], "Be kind.", "{asked:#}");
    assert!(asked["tools"][0]["function"].get("strict").is_none(), "{asked:#}");
    assert!(asked["response_format"]["json_schema"].get("strict").is_none(), "{asked:#}");
    // A thread is refused in the words at which the SDKs send the conversation.
    let thread = json!({"model": "fast", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}],
        "thread": {"type": "continue", "previous_message_id": "msg_1"}});
    let refused = messages(&gateway, "message-threads-2026-08-12", &thread).await;
    let error = &refused.json()["error"];
    assert_eq!((refused.status, &error["type"]), (400, &json!("invalid_request_error")), "{error}");
    assert_eq!(error["details"]["error_code"], "thread_unsupported_request", "{error}");
}

const TIER: &str = "x-vertex-ai-llm-shared-request-type";

#[tokio::test]
async fn vertex_is_told_the_tier_in_a_header_whatever_the_client_speaks() {
    let reply = json!({"candidates": [{"content": {"role": "model", "parts": [{"text": "Yes."}]},
        "finishReason": "STOP", "index": 0}]});
    let upstream =
        Upstream::start([("gemini-3-flash", [Script::json(200, &reply.to_string())])]).await;
    let base = format!("http://{}", upstream.address);
    let sections =
        section(find("vertex").unwrap(), &base) + &route("fast", &["p/gemini-3-flash"], "");
    let gateway = Gateway::start("", &sections).await;
    for (tier, told) in [("flex", Some("flex")), ("priority", Some("priority")), ("auto", None)] {
        let answer = chat(&gateway, question(&json!({"service_tier": tier}))).await;
        assert_eq!((answer.status, answer.header("x-switchpoint-dropped")), (200, None), "{tier}");
        let asked = upstream.requests().pop().unwrap();
        assert_eq!(asked.header(TIER), told, "{tier}");
        assert!(asked.path.starts_with("/v1beta1/projects/"), "{}", asked.path);
        assert!(!asked.text().contains("serviceTier"), "{}", asked.text());
    }
    let body =
        json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}], "serviceTier": "flex"});
    let door = "/v1beta/models/fast:generateContent";
    let answer = post(gateway.address, door, KEY, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = upstream.requests().pop().unwrap();
    assert_eq!(asked.header(TIER), Some("flex"));
    assert!(!asked.text().contains("serviceTier"), "{}", asked.text());
    let other = chat(&gateway, question(&json!({"service_tier": "scale"}))).await;
    assert_eq!(other.header("x-switchpoint-dropped"), Some("service_tier"));
}

#[tokio::test]
async fn pictures_have_the_type_that_all_know() {
    let (upstream, gateway) = claude(vec![words()], "").await;
    for written in ["image/jpg", "image/JPG", "IMAGE/JPEG"] {
        let url = format!("data:{written};base64,/9j/4A==");
        let picture = json!([{"type": "image_url", "image_url": {"url": url}}]);
        let asked = json!({"messages": [{"role": "user", "content": picture}]});
        let answer = chat(&gateway, question(&asked)).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let source = &sent(&upstream)["messages"][0]["content"][0]["source"];
        assert_eq!(source["media_type"], "image/jpeg", "{written}");
    }
}

#[tokio::test]
async fn turns_that_come_in_pieces_keep_their_results() {
    let (upstream, gateway) = other(vec![Script::json(200, REPLY)]).await;
    let model = |part: Value| json!({"role": "model", "parts": [part]});
    let asked = json!({"tools": [{"functionDeclarations": [{"name": "w"}]}], "contents": [
        {"role": "user", "parts": [{"text": "q"}]},
        model(json!({"functionCall": {"id": "c1", "name": "w", "args": {}}})),
        model(json!({"functionCall": {"id": "c2", "name": "w", "args": {}}})),
        model(json!({"text": ""})),
        {"role": "user", "parts": [
            {"functionResponse": {"id": "c1", "name": "w", "response": {"r": "REAL1"}}},
            {"functionResponse": {"id": "c2", "name": "w", "response": {"r": "REAL2"}}}]}]});
    // Some put the name of a model with a slash where the word `models` belongs.
    for path in ["/v1beta/models/fast:generateContent", "/v1beta/up/m:generateContent"] {
        let answer = post(gateway.address, path, KEY, asked.to_string()).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let sent = sent(&upstream);
        let messages = sent["messages"].as_array().unwrap();
        let roles: Vec<&str> = messages.iter().filter_map(|it| it["role"].as_str()).collect();
        assert_eq!(roles, ["user", "assistant", "tool", "tool"], "{sent:#}");
        assert!(sent.to_string().contains("REAL1") && sent.to_string().contains("REAL2"));
    }
}

#[tokio::test]
async fn tools_that_come_as_items_of_the_conversation_are_offered_to_other_models() {
    let (upstream, gateway) = other(vec![Script::json(200, REPLY)]).await;
    let tools = json!([{"type": "namespace", "name": "functions", "description": "", "tools": [
        {"type": "function", "name": "wait", "parameters": {"type": "object", "properties": {}}}]}]);
    let body = json!({"model": "fast", "input": [
        {"type": "additional_tools", "role": "developer", "tools": tools},
        {"role": "user", "content": "Wait."}]});
    let answer = post(gateway.address, "/v1/responses", KEY, body.to_string()).await;
    assert_eq!(
        (answer.status, answer.header("x-switchpoint-dropped")),
        (200, None),
        "{}",
        answer.text()
    );
    let asked = sent(&upstream);
    let name = asked["tools"][0]["function"]["name"].as_str().unwrap();
    assert!(name.starts_with("functions") && name.ends_with("wait"), "{asked:#}");
    assert_eq!(asked["messages"].as_array().unwrap().len(), 1, "{asked:#}");
}

#[tokio::test]
async fn a_question_that_is_too_long_is_told_in_the_words_that_clients_look_for() {
    let long = r#"{"error":{"message":"The input is too big.","type":"invalid_request_error","code":"context_length_exceeded"}}"#;
    let (_upstream, gateway) = other(vec![Script::json(400, long)]).await;
    let body =
        json!({"model": "fast", "max_tokens": 9, "messages": [{"role": "user", "content": "a"}]});
    let answer = messages(&gateway, "x", &body).await;
    let error = &answer.json()["error"];
    assert_eq!((answer.status, &error["code"]), (400, &json!("context_too_long")), "{error}");
    assert!(error["message"].as_str().unwrap().starts_with("prompt is too long: "), "{error}");
    let answer = post(gateway.address, CHAT, KEY, body.to_string()).await;
    let error = &answer.json()["error"];
    assert_eq!(error["upstream_code"], "context_length_exceeded", "{error}");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.contains("context_length_exceeded") && message.contains("maximum context length")
    );
}

#[tokio::test]
async fn a_search_of_the_web_is_the_providers_own_whichever_api_asks_for_it() {
    let url = "https://news.example/rust";
    let found =
        json!({"type": "web_search_result", "url": url, "title": "Rust", "encrypted_content": "e"});
    let cited = json!({"type": "web_search_result_location", "url": url, "title": "Rust",
        "cited_text": "It is.", "encrypted_index": "i"});
    let said = json!([
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "rust"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]},
        {"type": "text", "text": "It is.", "citations": [cited]},
    ]);
    let (upstream, gateway) = claude(vec![message(&said, "end_turn")], "").await;
    let near = json!({"type": "approximate", "approximate": {"country": "CH"}});
    let asked =
        json!({"web_search_options": {"search_context_size": "low", "user_location": near}});
    let answer = chat(&gateway, question(&asked)).await;
    let dropped = Some("web_search.search_context_size");
    assert_eq!((answer.status, answer.header("x-switchpoint-dropped")), (200, dropped));
    let tool = json!({"type": "web_search_20250305", "name": "web_search",
        "user_location": {"type": "approximate", "country": "CH"}});
    assert_eq!(sent(&upstream)["tools"], json!([tool]));
    let message = &answer.json()["choices"][0]["message"];
    assert_eq!(message["content"], "It is.");
    assert_eq!(message["annotations"][0]["url_citation"]["url"], url, "{message:#}");
    // The same, to another who answers chat completions without searching.
    let response = json!({"id": "resp_1", "object": "response", "created_at": 1_760_000_000,
        "status": "completed", "model": "gpt-4.1", "output": [{"type": "message", "id": "msg_1",
        "role": "assistant", "status": "completed", "content": [
            {"type": "output_text", "text": "It is.", "annotations": []}]}],
        "usage": {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}});
    let upstream = Upstream::start([("gpt-4.1", [Script::json(200, &response.to_string())])]).await;
    let openai = section(find("openai").unwrap(), &format!("http://{}/v1", upstream.address));
    let gateway = Gateway::start("", &(openai + &route("fast", &["p/gpt-4.1"], ""))).await;
    let body = json!({"model": "fast", "max_tokens": 99, "tools": [tool],
        "messages": [{"role": "user", "content": "Hi"}]});
    let answer = messages(&gateway, "x", &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let asked = upstream.only_request();
    assert_eq!(asked.path, "/v1/responses");
    assert_eq!(sent(&upstream)["tools"][0]["type"], "web_search", "{}", asked.text());
}
