//! What becomes of a call whose target speaks another API than its client.

use serde_json::{Value, json};

use crate::support::client::{CHAT, chat, post};
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
