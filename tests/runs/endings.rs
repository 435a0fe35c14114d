//! How an answer ends whose run does not end well after its first words, and what is said beside
//! calls for others.

use serde_json::{Value, json};

use super::doors::{RESPONSES, events};
use super::stage::{Stage, found, post, results, says, search};
use crate::support::client::{self, CHAT, open, request};
use crate::support::gateway::{ADMIN_KEY, KEY};
use crate::support::replies::{self, word};
use crate::support::upstream::Request;
use crate::support::{Gate, Script};

const AGENT: &str =
    "[agents.a]\nroute = \"fast\"\ninstructions = \"Help.\"\ntools = [\"search\"]\n";

/// Says a word and wants these called.
fn says_and_wants(request: &Request, calls: &[&str]) -> Script {
    let streams = super::stage::body(request)["stream"] == true;
    assert!(streams, "runs ask for streams");
    let calls: Vec<_> = calls.iter().map(|name| (*name, *name, r#"{"q":"x"}"#)).collect();
    let mut events = replies::calls(&calls);
    events.insert(1, word("Let me look."));
    Script::stream(events)
}

/// Looks something up, and then there is no model any more.
async fn failing() -> Stage {
    let mind = |request: &Request| match results(request) {
        0 => says_and_wants(request, &["search"]),
        _ => Script::json(500, "{}"),
    };
    Stage::new(&format!("{}{AGENT}", search("")), mind, found).await
}

fn doors() -> [(&'static str, Value); 4] {
    let messages = json!([{"role": "user", "content": "Where?"}]);
    let google = json!({"contents": [{"role": "user", "parts": [{"text": "Where?"}]}]});
    [
        (CHAT, json!({"model": "agent/a", "messages": messages, "stream": true})),
        (RESPONSES, json!({"model": "agent/a", "input": "Where?", "stream": true})),
        (
            "/v1/messages",
            json!({"model": "agent/a", "messages": messages, "max_tokens": 100, "stream": true}),
        ),
        ("/v1beta/models/agent/a:streamGenerateContent?alt=sse", google),
    ]
}

#[tokio::test]
async fn a_run_that_fails_after_its_first_words_ends_its_stream_with_an_error() {
    let stage = failing().await;
    for (path, body) in doors() {
        let stream = stage.post(path, KEY, &body).await;
        let text = stream.text();
        assert!(text.contains("Let me look."), "{path}: {text}");
        for success in ["[DONE]", "finish_reason\":\"", "end_turn", "STOP", "response.completed"] {
            assert!(!text.contains(success), "{path}: {success}: {text}");
        }
        let end = events(text).pop().unwrap();
        let is_error = end["error"].is_object() || end["type"] == "error";
        assert!(is_error, "{path}: {text}");
        assert!(stream.header("x-switchpoint-run-id").is_some());
    }
    let metrics = client::get(stage.gateway.admin, "/metrics", ADMIN_KEY).await;
    let calls = metrics.text().lines().filter(|line| {
        line.starts_with("switchpoint_requests_total") && !line.contains("agent_turn")
    });
    let well: Vec<_> = calls.filter(|line| line.contains("outcome=\"ok\"")).collect();
    assert!(well.is_empty(), "{well:#?}");
}

#[tokio::test]
async fn the_response_of_a_run_that_fails_after_its_first_words_has_failed() {
    let stage = failing().await;
    for background in [false, true] {
        let body = json!({
            "model": "agent/a", "input": "Where?", "stream": true, "background": background,
        });
        let stream = stage.post(RESPONSES, KEY, &body).await;
        let events = events(stream.text());
        let failed = events.iter().find(|event| event["type"] == "response.failed").unwrap();
        let response = &failed["response"];
        assert_eq!(
            (&response["status"], &response["x_agent"]["status"]),
            (&json!("failed"), &json!("failed")),
            "{failed:#}"
        );
        let path = format!("{RESPONSES}/{}", response["id"].as_str().unwrap());
        let kept = stage.get(&path).await;
        let is_background = json!(background);
        assert_eq!(
            (&kept["status"], &kept["error"]["code"], &kept["background"], &kept["model"]),
            (&json!("failed"), &json!("upstream_unavailable"), &is_background, &json!("agent/a")),
            "{kept:#}"
        );
        if background {
            let joined = format!("{path}?stream=true");
            let joined = client::get(stage.gateway.address, &joined, KEY).await;
            assert!(joined.text().contains("response.failed"));
        }
    }
}

#[tokio::test]
async fn the_stream_of_a_response_whose_run_is_cancelled_says_so() {
    let gate = Gate::shut();
    let held = gate.clone();
    let mind = |request: &Request| says_and_wants(request, &["search"]);
    let tools = move |_: &Request| Script::default().gate(&held);
    let stage = Stage::new(&format!("{}{AGENT}", search("")), mind, tools).await;
    let body = json!({"model": "agent/a", "input": "Where?", "stream": true});
    let asked = request(http::Method::POST, RESPONSES, KEY, body.to_string().into());
    let mut stream = open(stage.gateway.address, asked).await;
    stream.read_until("Let me look.").await;
    stage.tools.asked(1).await;
    let runs = stage.get("/v1/agents/runs").await;
    let path = format!("/v1/agents/runs/{}", runs["data"][0]["id"].as_str().unwrap());
    post(&stage.gateway, &format!("{path}/cancel"), KEY, &json!({})).await;
    let rest = stream.whole().await;
    let end = events(rest.text()).pop().unwrap();
    assert_eq!(
        (&end["type"], &end["response"]["status"]),
        (&json!("response.incomplete"), &json!("cancelled")),
        "{}",
        rest.text()
    );
    let kept = stage.get(&format!("{RESPONSES}/{}", end["response"]["id"].as_str().unwrap())).await;
    assert_eq!(kept["status"], "cancelled", "{kept:#}");
    gate.open();
}

#[tokio::test]
async fn what_is_said_beside_calls_for_the_client_and_others_is_in_every_answer() {
    let mind = |request: &Request| match results(request) {
        0 => says_and_wants(request, &["search", "mine"]),
        _ => says(request, "It is in Bonn."),
    };
    let stage = Stage::new(&format!("{}{AGENT}", search("")), mind, found).await;
    for streamed in [false, true] {
        let body = json!({
            "model": "agent/a", "stream": streamed,
            "messages": [{"role": "user", "content": "Where?"}],
            "tools": [{"type": "function", "function": {
                "name": "mine", "parameters": {"type": "object", "properties": {}},
            }}],
        });
        let answer = stage.post(CHAT, KEY, &body).await;
        assert_eq!(answer.text().matches("Let me look.").count(), 1, "{}", answer.text());
        assert!(answer.text().contains("\"mine\""), "{}", answer.text());
        if !streamed {
            let choice = &answer.json()["choices"][0];
            assert_eq!(
                (&choice["finish_reason"], &choice["message"]["content"]),
                (&json!("tool_calls"), &json!("Let me look."))
            );
        }
    }
}
