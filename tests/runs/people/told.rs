//! Hooks: who is told what people have to do, and how runs end.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use ring::hmac;

use super::*;
use crate::support::until;

const SECRET: &str = "hook-secret-0123456789";

fn hooks(desk: &Upstream) -> String {
    let base = desk.base();
    format!(
        r#"
[hooks.desk]
url = "{base}/desk"
secret = "{SECRET}"
events = ["approval.requested", "run.escalated", "input.requested"]
[hooks.ends]
url = "{base}/ends"
secret = "{SECRET}"
events = ["run.ended"]
[agents.buyer]
route = "fast"
instructions = "Buy."
tools = ["pay"]
[agents.careful]
route = "fast"
instructions = "Act."
tools = ["act"]
confidence = {{}}
"#
    )
}

fn mind(request: &Request) -> Script {
    match asked(request).as_str() {
        _ if !results(request).is_empty() => says("Done."),
        "pay" => wants(&[("pay", json!({"to": "bob", "amount": 5}))]),
        "doubt" => wants(&[("act", json!({"confidence": 0.1}))]),
        _ => says("Hello."),
    }
}

/// What was sent, once it is known to be from the gateway.
fn verified(request: &Request) -> Value {
    let header = |name| request.header(name).unwrap();
    let signed =
        format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), request.text());
    let signature = header("webhook-signature").strip_prefix("v1,").unwrap();
    let signature = BASE64_STANDARD.decode(signature).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(&key, signed.as_bytes(), &signature).unwrap();
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    assert_eq!(body["id"], header("webhook-id"));
    body
}

#[tokio::test]
async fn an_approval_is_told_signed_until_it_is_heard_and_waits_through_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let deaf = Upstream::answering(|_| Script::json(503, "{}")).await;
    let kept = store(&folder.path().join("runs.db"))
        .replace("lease_ttl", "public_url = \"https://gateway.example.com\"\nlease_ttl");
    let agents = |desk| format!("{}{kept}", hooks(desk));
    let house = House::new(&agents(&deaf), mind).await;
    let path = house.begin("buyer", json!({"input": "pay", "user": "ann"})).await;
    house.in_state(&path, "waiting_approval").await;
    deaf.asked(1).await;
    let first = verified(&deaf.requests()[0]);
    // What is under way when a process dies is made again later, when nobody can be at it.
    let metric = "switchpoint_agent_webhook_deliveries_total";
    while house.gateway.metric(metric, &["retried"]).await < 1.0 {
        tokio::task::yield_now().await;
    }
    let desk = Upstream::answering(|_| Script::json(200, "{}")).await;
    let house = house.crash(&agents(&desk)).await;
    desk.asked(1).await;
    let told = verified(&desk.requests()[0]);
    assert_eq!(told["id"], first["id"], "the same news");
    assert_eq!(told["type"], "approval.requested");
    let data = &told["data"];
    let approval = house.pending().await;
    assert_eq!(data["run"]["id"], path.rsplit('/').next().unwrap());
    assert_eq!(data["run"]["url"], format!("https://gateway.example.com{path}"));
    assert_eq!(data["tool"], "pay");
    assert_eq!((&data["risk"], &data["effect"]), (&json!("high"), &json!("once")));
    assert_eq!(data["args"].to_string(), r#"{"amount":5,"to":"bob"}"#, "canonical");
    assert_eq!(data["args_hash"], approval["args_hash"]);
    assert!(data["expires_at"].is_string());
    let place = format!(
        "https://gateway.example.com/v1/agents/approvals/{}",
        approval["id"].as_str().unwrap()
    );
    assert_eq!(data["decision_url"], place);
    for secret in [KEY, LEAD, SECRET, "sk-upstream"] {
        assert!(!desk.requests()[0].text().contains(secret));
    }
    let decided = house.decide(LEAD, &approval, json!({"decision": "approve"})).await;
    assert_eq!(decided.status, 200, "{}", decided.text());
    house.in_state(&path, "completed").await;
    assert_eq!(house.touched("/pay"), 1);
    desk.asked(2).await;
    let told: Vec<_> = desk.requests().iter().map(verified).collect();
    assert_eq!(told[1]["type"], "run.ended");
    assert_eq!(told[1]["data"]["state"], "completed");
    assert_eq!(told[1]["data"]["answer"], "Done.");
    while house.gateway.metric(metric, &["delivered"]).await < 2.0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(desk.requests().len(), 2, "each once");
}

#[tokio::test]
async fn an_escalation_is_told_with_its_reason_and_where_the_run_is() {
    let desk = Upstream::answering(|_| Script::json(200, "{}")).await;
    let house = House::new(&hooks(&desk), mind).await;
    let path = house.begin("careful", json!({"input": "doubt"})).await;
    house.in_state(&path, "waiting_human").await;
    desk.asked(1).await;
    let told = verified(&desk.requests()[0]);
    assert_eq!(told["type"], "run.escalated");
    assert_eq!(told["data"]["reason"], "it is not sure enough to act");
    assert_eq!(told["data"]["run"]["url"], path);
}

#[tokio::test]
async fn a_run_may_have_a_hook_of_its_own() {
    let desk = Upstream::answering(|_| Script::json(200, "{}")).await;
    let house =
        House::new(&hooks(&desk).replace("events = [\"run.ended\"]", "events = []"), mind).await;
    let wrong = json!({"input": "hello", "webhook": "https://example.com/hook"});
    let answer = house.send(KEY, "/v1/agents/buyer/runs", &wrong, &[]).await;
    assert_eq!(answer.status, 400, "nothing to sign with: {}", answer.text());
    let wrong = json!({"input": "hello", "webhook": "desks"});
    assert_eq!(house.send(KEY, "/v1/agents/buyer/runs", &wrong, &[]).await.status, 400);
    let path = house.begin("buyer", json!({"input": "hello", "webhook": "ends"})).await;
    desk.asked(1).await;
    let sent = &desk.requests()[0];
    assert!(sent.path.ends_with("/ends"));
    let told = verified(sent);
    assert_eq!(told["data"]["run"]["url"], path);
    assert_eq!(told["data"]["answer"], "Hello.");
}

#[tokio::test]
async fn a_hook_of_a_client_leads_nowhere_inside() {
    let desk = Upstream::answering(|_| Script::json(200, "{}")).await;
    let engine = "[agent_engine]\nwebhook_secret = \"another-secret-0123\"\n";
    let house = House::new(&format!("{}{engine}", hooks(&desk)), mind).await;
    for address in ["169.254.169.254", "127.0.0.1:9", "10.0.0.1"] {
        let webhook = format!("http://{address}/latest");
        house.begin("careful", json!({"input": "hello", "webhook": webhook})).await;
    }
    let inner = format!("{}/inner", desk.base());
    house.begin("careful", json!({"input": "hello", "webhook": inner})).await;
    let metric = "switchpoint_agent_webhook_deliveries_total";
    while house.gateway.metric(metric, &["hook=\"run\"", "failed"]).await < 4.0 {
        tokio::task::yield_now().await;
    }
    desk.asked(4).await;
    assert!(desk.requests().iter().all(|request| request.path.ends_with("/ends")));
    let letters = house.get("/v1/agents/dlq").await;
    let letters = letters["data"].as_array().unwrap();
    assert_eq!(letters.len(), 4);
    let is_refused = |letter: &Value| {
        letter["kind"] == "webhook"
            && letter["error"].as_str().unwrap().contains("must not be reached")
    };
    assert!(letters.iter().all(is_refused), "{letters:#?}");
    until("nobody inside was called", || desk.requests().len() == 4).await;
}
