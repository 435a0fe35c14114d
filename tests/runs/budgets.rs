//! What runs may use holds for all of them, however often they wait and are taken up again.

use http::{HeaderValue, Method};
use serde_json::{Value, json};

use super::broker::{House, agent, key, tool};
use super::stage::in_state;
use crate::support::Script;
use crate::support::client::{self, Answer, open, request};
use crate::support::gateway::KEY;
use crate::support::upstream::Request;

/// A result of so many bytes, and a little more.
fn result(length: usize) -> Script {
    Script::json(200, &json!({"text": "a".repeat(length)}).to_string())
}

async fn approve(house: &House, run: &Value) {
    let approval = run["pending"]["approvals"][0]["id"].as_str().unwrap();
    let path = format!("/v1/agents/approvals/{approval}");
    let body = json!({"decision": "approve"}).to_string();
    let mut asked = request(Method::POST, &path, KEY, body.into());
    asked.headers_mut().insert("if-match", HeaderValue::from_static("*"));
    let decided = open(house.gateway.address, asked).await.whole().await;
    assert_eq!(decided.status, 200, "{}", decided.text());
}

#[tokio::test]
async fn what_results_a_run_has_taken_in_is_known_after_it_has_waited() {
    let sections = format!(
        "{}{}{}",
        tool("look", "read", ""),
        tool("pay", "once", "approval = { when = \"true\" }"),
        agent("a", &["look", "pay"], "budget = { bytes = \"1KiB\" }"),
    );
    let house = House::new(&sections, |request| {
        result(if request.path.contains("/look") { 900 } else { 200 })
    })
    .await;
    let calls = json!([["look", {}], ["pay", {}], ["look", {"id": "more"}]]);
    let body = json!({"input": calls.to_string()});
    let begun = house.send(KEY, "/v1/agents/a/runs", &body).await;
    let path = format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap());
    let run = in_state(&house.gateway, &path, "waiting_approval").await;
    approve(&house, &run).await;
    let run = in_state(&house.gateway, &path, "incomplete").await;
    assert_eq!(run["stop_reason"], "budget", "{run:#}");
    assert_eq!((house.asked("/look").len(), house.asked("/pay").len()), (1, 1));
}

/// What `boss` has done by others, each piece as `mind` reads it.
fn pieces(pieces: &[Value]) -> Value {
    pieces.iter().map(|piece| json!(["delegate_a", {"input": piece.to_string()}])).collect()
}

#[tokio::test]
async fn what_a_delegate_may_use_is_no_more_after_it_has_waited() {
    let sections = format!(
        "{}{}{}{}",
        tool("look", "read", ""),
        tool("pay", "once", "approval = { when = \"true\" }"),
        agent("a", &["look", "pay"], "budget = { bytes = \"1KiB\" }"),
        agent("boss", &[], "delegates = [\"a\"]"),
    );
    let house = House::new(&sections, |request| {
        result(if request.path.contains("/look") { 900 } else { 200 })
    })
    .await;
    let work = json!([["look", {}], ["pay", {}], ["look", {"id": "more"}]]);
    let body = json!({"input": pieces(&[work]).to_string()});
    let begun = house.send(KEY, "/v1/agents/boss/runs", &body).await;
    let path = format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap());
    let run = in_state(&house.gateway, &path, "waiting_child").await;
    approve(&house, &run).await;
    let run = in_state(&house.gateway, &path, "completed").await;
    let root = run["id"].as_str().unwrap();
    let tree = house.get(&format!("/v1/agents/runs?root={root}")).await;
    let child = tree["data"].as_array().unwrap().iter().find(|it| it["agent"] == "a").unwrap();
    assert_eq!(child["stop_reason"], "budget", "{child:#}");
    assert_eq!((house.asked("/look").len(), house.asked("/pay").len()), (1, 1));
}

#[tokio::test]
async fn all_that_a_run_has_others_do_is_within_its_own_budget() {
    let sections = format!(
        "{}{}{}",
        tool("look", "read", ""),
        agent("a", &["look"], ""),
        agent("boss", &[], "delegates = [\"a\"]\nbudget = { tool_calls = 3 }"),
    );
    let house = House::new(&sections, |_| result(1)).await;
    let work = |name: &str| json!([["look", {"id": name}], ["look", {"id": "last"}]]);
    let run = house.run("boss", &pieces(&[work("one"), work("two")])).await;
    assert!(run["finished_at"].is_string(), "{run:#}");
    let looks = house.asked("/look").len();
    assert!((1..=3).contains(&looks), "{looks} of 3");
}

#[tokio::test]
async fn a_key_is_charged_for_what_a_step_may_say_and_not_for_what_its_model_could() {
    let terms = "limits = { tokens = \"5000/h\" }\nagents = [\"a\"]";
    let sections = format!(
        "{}[models.\"up/m\"]\ncontext = 200000\nmax_output = 64000\n{}{}",
        key("few", FEW, terms),
        tool("look", "read", ""),
        agent("a", &["look"], "budget = { output_tokens = 1000 }"),
    );
    let house = House::new(&sections, |_| result(1)).await;
    let calls = json!([["look", {}], ["look", {"id": "more"}]]).to_string();
    let body = json!({"input": calls, "wait": "30s"});
    let run = house.send(FEW, "/v1/agents/a/runs", &body).await.json();
    assert_eq!((&run["state"], &run["steps"]), (&json!("completed"), &json!(3)), "{run:#}");
    let most = |request: &Request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        body["max_tokens"].as_u64().or_else(|| body["max_completion_tokens"].as_u64())
    };
    assert!(house.model.requests().iter().all(|it| most(it) == Some(1000)));
}

const FEW: &str = "sk-few-key";

/// A key with these terms, and an agent that looks as often as it is told.
async fn house_of(terms: &str) -> House {
    let sections = format!(
        "{}{}{}",
        key("few", FEW, &format!("{terms}\nagents = [\"a\"]")),
        tool("look", "read", ""),
        agent("a", &["look"], "budget = { output_tokens = 1000 }"),
    );
    House::new(&sections, |_| result(1)).await
}

fn looks(times: usize) -> String {
    let calls: Vec<Value> = (0..times).map(|id| json!(["look", {"id": id.to_string()}])).collect();
    json!(calls).to_string()
}

async fn begin(house: &House, times: usize) -> Answer {
    house.send(FEW, "/v1/agents/a/runs", &json!({"input": looks(times), "wait": "30s"})).await
}

#[tokio::test]
async fn a_key_that_has_no_room_for_any_call_begins_no_run() {
    for (terms, wanted) in [
        ("limits = { requests = \"1/h\" }", "rate_limited"),
        ("budget = [{ tokens = 15, window = \"1d\" }]", "budget_exceeded"),
    ] {
        let house = house_of(terms).await;
        let body = json!({"model": "fast", "messages": [{"role": "user", "content": "[]"}], "max_tokens": 1});
        let spent = house.send(FEW, "/v1/chat/completions", &body).await;
        assert_eq!(spent.status, 200, "{terms}: {}", spent.text());
        let begun = begin(&house, 0).await;
        let code = &begun.json()["error"]["code"];
        assert_eq!((begun.status, code), (429, &json!(wanted)), "{terms}");
        assert!(begun.header("retry-after").is_some(), "{:?}", begun.headers);
        let runs = client::get(house.gateway.address, "/v1/agents/runs", FEW).await.json();
        assert_eq!((&runs["data"], house.turns()), (&json!([]), 1), "{terms}");
    }
}

#[tokio::test]
async fn a_run_whose_key_may_call_again_soon_waits_for_that() {
    let house = house_of("limits = { requests = \"1/s\" }").await;
    let run = begin(&house, 1).await.json();
    assert_eq!((&run["state"], &run["steps"]), (&json!("completed"), &json!(2)), "{run:#}");
    assert_eq!(house.turns(), 2);
}

/// What a key is told in a chat that its own limits stop.
async fn refused(house: &House, input: String) -> Answer {
    let messages = json!([{"role": "user", "content": input}]);
    let body = json!({"model": "agent/a", "messages": messages});
    let answer = house.send(FEW, "/v1/chat/completions", &body).await;
    let code = &answer.json()["error"]["code"];
    assert_eq!((answer.status, code), (429, &json!("rate_limited")), "{}", answer.text());
    answer
}

#[tokio::test]
async fn a_run_whose_key_may_not_call_for_long_ends_and_says_why() {
    let house = house_of("limits = { requests = \"1/h\" }").await;
    let answer = refused(&house, looks(1)).await;
    assert!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
    let runs = client::get(house.gateway.address, "/v1/agents/runs", FEW).await.json();
    assert_eq!(runs["data"][0]["stop_reason"], "rate_limited", "{runs:#}");
}

#[tokio::test]
async fn who_asks_for_more_than_its_key_ever_may_is_told_of_no_wait() {
    let house = house_of("limits = { tokens = \"500/m\" }").await;
    let answer = refused(&house, looks(0)).await;
    assert_eq!(answer.header("retry-after"), None, "{}", answer.text());
}

#[tokio::test]
async fn an_agent_says_no_more_than_its_key_has_left() {
    let house = house_of("budget = [{ tokens = 900, window = \"1d\" }]").await;
    let run = begin(&house, 1).await.json();
    assert_eq!((&run["state"], &run["steps"]), (&json!("completed"), &json!(2)), "{run:#}");
}

#[tokio::test]
async fn a_run_that_its_keys_budget_stops_says_that_it_is_the_keys() {
    let house = house_of("budget = [{ tokens = 900, window = \"none\" }]").await;
    let run = begin(&house, 9).await.json();
    assert_eq!(run["stop_reason"], "budget", "{run:#}");
    let hits = "switchpoint_agent_limit_hits_total";
    let by_key = house.gateway.metric(hits, &["limit=\"key\""]).await;
    assert!((by_key - house.gateway.metric(hits, &[]).await).abs() < 0.1 && by_key > 0.0);
}
