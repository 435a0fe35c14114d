//! What an agent does by itself, as sure as it is, and where a person comes in.

use super::*;
use crate::support::until;

const CAREFUL: &str = r#"
[agents.careful]
route = "fast"
instructions = "Act."
tools = ["act", "look"]
confidence = {}
"#;

#[tokio::test]
async fn an_agent_does_what_it_is_sure_of_and_people_decide_about_the_rest() {
    let house = House::new(CAREFUL, |request| match asked(request).as_str() {
        _ if !results(request).is_empty() => says("Done."),
        "missing" => wants(&[("act", json!({}))]),
        sure => wants(&[("act", json!({"confidence": sure.parse::<f64>().unwrap()}))]),
    })
    .await;
    let bands = [
        ("0.95", "completed", false),
        ("0.901", "completed", false),
        ("0.9", "completed", true),
        ("0.8", "completed", true),
        ("0.7", "completed", true),
        ("0.699", "waiting_approval", false),
        ("0.6", "waiting_approval", false),
        ("0.5", "waiting_approval", false),
        ("missing", "waiting_approval", false),
        ("0.499", "waiting_human", false),
        ("0.4", "waiting_human", false),
    ];
    let mut acted = 0;
    for (sure, state, is_reviewed) in bands {
        let path = house.begin("careful", json!({"input": sure, "wait": "10s"})).await;
        let run = house.get(&path).await;
        assert_eq!(run["state"], state, "{sure}: {run:#}");
        acted += usize::from(state == "completed");
        assert_eq!(house.touched("/act"), acted, "{sure}");
        let kinds = house.kinds(&path).await;
        assert_eq!(kinds.contains(&"review".to_owned()), is_reviewed, "{sure}: {kinds:?}");
    }
    let escalated = "switchpoint_agent_escalations_total";
    assert_eq!(house.gateway.metric(escalated, &["careful"]).await.to_string(), "2");
}

#[tokio::test]
async fn an_answer_stands_where_it_is_sure_enough_and_goes_to_a_person_where_it_is_not() {
    let house = House::new(CAREFUL, |request| says(&asked(request))).await;
    let answers = [
        (r#"{"confidence":0.95}"#, json!(0.95), "completed", false),
        (r#"{"confidence":0.8}"#, json!(0.8), "completed", true),
        // There is no call that a person could let.
        (r#"{"confidence":0.6}"#, json!(0.6), "waiting_human", true),
        (r#"{"confidence":0.4}"#, json!(0.4), "waiting_human", true),
        (r#"{"text":"Yes."}"#, Value::Null, "completed", false),
        ("Yes.", Value::Null, "completed", false),
    ];
    for (text, sure, state, is_reviewed) in answers {
        let told = house.chat("careful", text).await.json();
        let said = told["choices"][0]["message"]["content"].as_str().unwrap();
        let run = &told["x_agent"];
        assert_eq!((&run["status"], &run["confidence"]), (&json!(state), &sure), "{told}");
        assert_eq!(said == text, state == "completed", "{said}");
        let path = format!("/v1/agents/runs/{}", run["run_id"].as_str().unwrap());
        let kinds = house.kinds(&path).await;
        assert_eq!(kinds.contains(&"review".to_owned()), is_reviewed, "{text}: {kinds:?}");
    }
    let escalated = "switchpoint_agent_escalations_total";
    assert_eq!(house.gateway.metric(escalated, &["reason=\"confidence\""]).await.to_string(), "2");
}

#[tokio::test]
async fn what_only_reads_is_done_however_sure_its_model_is() {
    let house = House::new(CAREFUL, |request| match results(request).as_slice() {
        [] => wants(&[("look", json!({}))]),
        _ => says("Done."),
    })
    .await;
    let told = house.chat("careful", "Go.").await.json();
    assert_eq!(told["x_agent"]["status"], "completed", "{told}");
    assert_eq!((house.touched("/look"), &told["x_agent"]["confidence"]), (1, &Value::Null));
}

#[tokio::test]
async fn a_run_is_as_sure_as_its_least_sure_step() {
    let house = House::new(CAREFUL, |request| match results(request).len() {
        0 => wants(&[("act", json!({"confidence": 0.95}))]),
        1 => wants(&[("act", json!({"confidence": 0.8, "again": true}))]),
        2 => wants(&[("act", json!({"confidence": 0.99, "once": "more"}))]),
        _ => says("Done."),
    })
    .await;
    let told = house.chat("careful", "Go.").await.json();
    assert_eq!(told["x_agent"]["status"], "completed", "{told}");
    assert_eq!(told["x_agent"]["confidence"], 0.8);
    // What only the gateway has asked for is not the tool's.
    let sent = house.tools.requests();
    assert!(sent.iter().all(|request| !request.text().contains("confidence")));
}

#[tokio::test]
async fn whoever_is_handed_a_run_is_told_why_and_has_the_last_word_or_lets_it_go_on() {
    let house = House::new(CAREFUL, |request| match results(request).as_slice() {
        [] => wants(&[("act", json!({"confidence": 0.1}))]),
        [result] => says(&format!("I was told: {result}")),
        _ => says("Again?"),
    })
    .await;
    let told = house.chat("careful", "Go.").await.json();
    let said = told["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(said.contains("A person has to look at this: it is not sure enough to act"), "{said}");
    assert_eq!(told["choices"][0]["finish_reason"], "stop");
    assert_eq!(told["x_agent"]["status"], "waiting_human");
    let path = format!("/v1/agents/runs/{}", told["x_agent"]["run_id"].as_str().unwrap());
    let input = format!("{path}/input");
    let answer = json!({"values": {"answer": "It is settled."}});
    assert_eq!(house.send(KEY, &input, &answer, &[]).await.status, 200);
    let run = house.in_state(&path, "completed").await;
    assert_eq!(run["pending"]["escalated"], Value::Null);
    assert_eq!(house.model.requests().len(), 1, "its model is not asked any more");
    assert_eq!(code(&house.send(KEY, &input, &answer, &[]).await).0, 409, "it is over");

    let path = house.begin("careful", json!({"input": "Go."})).await;
    house.in_state(&path, "waiting_human").await;
    let words = json!({"values": "Leave it, and say so."});
    assert_eq!(house.send(KEY, &format!("{path}/input"), &words, &[]).await.status, 200);
    let run = house.in_state(&path, "completed").await;
    let text = run["result"]["text"].as_str().unwrap();
    assert!(text.contains("A person says instead: Leave it, and say so."), "{text}");
    assert_eq!(house.touched("/act"), 0);
}

#[tokio::test]
async fn what_nobody_takes_on_in_time_ends() {
    let agents = format!("{CAREFUL}limits = {{ wait = \"1s\" }}\n");
    let house = House::new(&agents, |_| wants(&[("act", json!({"confidence": 0.1}))])).await;
    let path = house.begin("careful", json!({"input": "Go."})).await;
    let run = house.in_state(&path, "expired").await;
    assert_eq!(run["stop_reason"], "unanswered");
    assert_eq!(house.touched("/act"), 0);
}

const BUYER: &str = r#"
[agents.buyer]
route = "fast"
instructions = "Buy."
tools = ["pay", "look"]
"#;

/// Pays what its user says, one after the other.
fn payer(request: &Request) -> Script {
    let amounts: Vec<u64> = serde_json::from_str(&asked(request)).unwrap();
    match amounts.get(results(request).len()) {
        Some(amount) => wants(&[("pay", json!({"to": "bob", "amount": amount}))]),
        None => says("Paid."),
    }
}

#[tokio::test]
async fn an_approval_is_decided_once_by_whoever_may_about_what_they_have_seen() {
    let house = House::new(BUYER, payer).await;
    let path = house.begin("buyer", json!({"input": "[5]"})).await;
    house.in_state(&path, "waiting_approval").await;
    let approval = house.pending().await;
    let approve = json!({"decision": "approve"});
    let wrong_role = house.decide(CLERK, &approval, approve.clone()).await;
    assert_eq!(code(&wrong_role), (403, "not_allowed".to_owned()), "{}", wrong_role.text());
    assert_eq!(code(&house.decide(KEY, &approval, approve.clone()).await).0, 403);
    let tried = "switchpoint_agent_security_events_total";
    let kind = ["kind=\"approval_not_allowed\""];
    assert!((house.gateway.metric(tried, &kind).await - 2.0).abs() < 0.1);
    let mut other = approval.clone();
    other["args_hash"] = json!("0".repeat(64));
    assert_eq!(code(&house.decide(LEAD, &other, approve.clone()).await).0, 412);
    let wrong = json!({"decision": "approve", "args": {"amount": 5000}});
    assert_eq!(house.decide(LEAD, &approval, wrong).await.status, 400, "its schema holds");
    assert_eq!(house.touched("/pay"), 0);
    let edited = json!({"decision": "approve", "args": {"to": "bob", "amount": 4}});
    let decided = house.decide(LEAD, &approval, edited).await;
    assert_eq!(decided.status, 200, "{}", decided.text());
    let decided = decided.json();
    assert_eq!(decided["decided_by"], "lead", "by the key, whatever the body says");
    assert_eq!(decided["args"], json!({"to": "bob", "amount": 4}));
    assert_ne!(decided["args_hash"], approval["args_hash"], "of what was let pass");
    assert_eq!(code(&house.decide(LEAD, &approval, approve.clone()).await).0, 409);
    house.in_state(&path, "completed").await;
    let paid = house.tools.only_request();
    assert_eq!(paid.text(), r#"{"to":"bob","amount":4}"#);
    assert_ne!(
        paid.header("idempotency-key"),
        wanted_key(&house, &path).await.as_deref(),
        "it is another call"
    );

    let path = house.begin("buyer", json!({"input": "[5]"})).await;
    house.in_state(&path, "waiting_approval").await;
    let approval = house.pending().await;
    let decided = house.decide(LEAD, &approval, approve).await.json();
    assert_eq!(decided["args_hash"], approval["args_hash"]);
    house.in_state(&path, "completed").await;
    let paid = house.tools.requests().pop().unwrap();
    assert_eq!(paid.header("idempotency-key"), wanted_key(&house, &path).await.as_deref());
}

/// The key of the only call that the model of a run has wanted, as it wanted it.
async fn wanted_key(house: &House, path: &str) -> Option<String> {
    let journal = house.journal(path).await;
    let wanted = journal.iter().find(|(kind, _)| kind == "tool.requested");
    wanted.and_then(|(_, it)| it["key"].as_str().map(str::to_owned))
}

#[tokio::test]
async fn what_nobody_lets_pass_in_time_is_denied() {
    let agents = BUYER.replace("tools = [\"pay\"", "tools = [\"slow\"")
        + r#"
[tools.slow]
kind = "http"
method = "POST"
url = "http://127.0.0.1:1/pay"
effect = "once"
approval = { expires = "1s" }
"#;
    let house = House::new(&agents, |request| match results(request).as_slice() {
        [] => wants(&[("slow", json!({}))]),
        [result] => says(result),
        _ => says("Again?"),
    })
    .await;
    let path = house.begin("buyer", json!({"input": "Go."})).await;
    let run = house.in_state(&path, "completed").await;
    let text = run["result"]["text"].as_str().unwrap();
    assert!(text.contains("denied") && text.contains("in time"), "{text}");
}

#[tokio::test]
async fn a_decision_may_hold_for_the_rest_of_its_run_and_no_longer() {
    let house = House::new(BUYER, payer).await;
    let path = house.begin("buyer", json!({"input": "[5, 6, 500, 7]"})).await;
    house.in_state(&path, "waiting_approval").await;
    let approval = house.pending().await;
    let refused = json!({"decision": "deny", "remember": "run"});
    assert_eq!(house.decide(LEAD, &approval, refused).await.status, 400);
    let remember = json!({"decision": "approve", "remember": "run"});
    assert_eq!(house.decide(LEAD, &approval, remember).await.status, 200);
    house.in_state(&path, "completed").await;
    assert_eq!(house.touched("/pay"), 3, "500 is more than the schema takes");
    let journal = house.journal(&path).await;
    let passed: Vec<_> = journal.iter().filter(|(kind, _)| kind == "tool.approved").collect();
    assert_eq!(passed.len(), 3);
    assert!(passed.iter().all(|(_, it)| it["approval"] == approval["id"] && it["by"] == "lead"));

    let next = house.begin("buyer", json!({"input": "[8]"})).await;
    house.in_state(&next, "waiting_approval").await;
}

/// A shop's keys, and those of another team.
const TEAMS: &str = r#"
[teams.shop]
[teams.other]
[keys.seller]
secret = "sk-seller"
team = "shop"
[keys.colleague]
secret = "sk-colleague"
team = "shop"
[keys.stranger]
secret = "sk-stranger"
team = "other"
tags = { role = "clerk" }
"#;

#[tokio::test]
async fn a_colleague_without_the_role_is_refused_and_a_stranger_learns_of_nothing() {
    let house = House::new(&format!("{BUYER}{TEAMS}"), payer).await;
    let body = json!({"input": "[5]"});
    let begun = house.send("sk-seller", "/v1/agents/buyer/runs", &body, &[]).await;
    assert_eq!(begun.status, 202, "{}", begun.text());
    let deadline = Instant::now() + PATIENCE;
    let list = "/v1/agents/approvals?state=pending";
    let approval = loop {
        let pending = client::get(house.gateway.address, list, LEAD).await.json();
        if let Some(approval) = pending["data"].get(0) {
            break approval.clone();
        }
        assert!(Instant::now() < deadline, "nobody is asked");
        tokio::task::yield_now().await;
    };
    let approve = json!({"decision": "approve"});
    let path = format!("/v1/agents/approvals/{}", approval["id"].as_str().unwrap());
    // The lead of the gateway has no team; a clerk without one is none of the shop's people.
    for (key, status) in
        [("sk-seller", 403), ("sk-colleague", 403), ("sk-stranger", 404), (CLERK, 404), (KEY, 404)]
    {
        let decided = house.decide(key, &approval, approve.clone()).await;
        assert_eq!(decided.status, status, "{key}: {}", decided.text());
        let seen = client::get(house.gateway.address, &path, key).await.status;
        let expected = if key == "sk-seller" { 200 } else { status };
        assert_eq!(seen, expected, "{key} looks at it");
    }
    assert_eq!(house.touched("/pay"), 0);
    assert_eq!(house.decide(LEAD, &approval, approve).await.status, 200);
}

#[tokio::test]
async fn who_may_not_decide_cannot_at_the_door_of_the_run_either() {
    let house = House::new(&format!("{BUYER}{TEAMS}"), payer).await;
    let responses = "/v1/responses";
    let asked = json!({"model": "agent/buyer", "input": "[5]"});
    let told = house.send("sk-seller", responses, &asked, &[]).await.json();
    let items = told["output"].as_array().unwrap_or_else(|| panic!("{told:#}"));
    let wanted = items.iter().find(|item| item["type"] == "mcp_approval_request").unwrap();
    let next = json!({"model": "agent/buyer", "previous_response_id": told["id"], "input": [{
        "type": "mcp_approval_response", "approval_request_id": wanted["id"], "approve": true,
    }]});
    let refused = house.send("sk-seller", responses, &next, &[]).await;
    assert_eq!(code(&refused), (403, "not_allowed".to_owned()), "{}", refused.text());
    // For all others there is no such response.
    for key in ["sk-colleague", "sk-stranger", LEAD] {
        let unknown = house.send(key, responses, &next, &[]).await;
        assert_eq!(unknown.status, 400, "{key}: {}", unknown.text());
    }
    assert_eq!(house.touched("/pay"), 0);
    let list = client::get(house.gateway.address, "/v1/agents/approvals?state=pending", LEAD).await;
    let approval = list.json()["data"][0].clone();
    assert_eq!(house.decide(LEAD, &approval, json!({"decision": "approve"})).await.status, 200);
}

const CLERKS: &str = r#"
[tools.order]
kind = "http"
method = "GET"
url = "http://127.0.0.1:1/orders/{order_id}"
effect = "read"
[tools.order.input]
type = "object"
required = ["order_id"]
additionalProperties = false
[tools.order.input.properties.order_id]
type = "string"
description = "like ORD-1"
[tools.ask_user]
kind = "builtin"
name = "ask_user"
[agents.clerk]
route = "fast"
instructions = "Look orders up."
tools = ["order", "ask_user"]
[agents.hasty]
route = "fast"
instructions = "Look orders up."
tools = ["order", "ask_user"]
limits = { wait = "1s" }
"#;

#[tokio::test]
async fn what_a_call_lacks_its_user_is_asked_for_by_a_form() {
    let tools = Upstream::answering(|_| Script::json(200, r#"{"place":"Bonn"}"#)).await;
    let agents = CLERKS.replace("http://127.0.0.1:1", &tools.base());
    let house = House::with(tools, &agents, |request| match results(request).as_slice() {
        [] => wants(&[("order", json!({}))]),
        [result] => says(result),
        _ => says("Again?"),
    })
    .await;
    let told = house.chat("clerk", "Where is it?").await.json();
    let question = told["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(question.contains("order_id (like ORD-1)"), "{question}");
    assert_eq!(told["choices"][0]["finish_reason"], "stop");
    assert_eq!(told["x_agent"]["status"], "waiting_input");
    assert_eq!(house.touched("/orders/"), 0);
    let path = format!("/v1/agents/runs/{}", told["x_agent"]["run_id"].as_str().unwrap());
    let asked = &house.get(&path).await["pending"]["inputs"][0];
    assert_eq!(asked["schema"]["required"], json!(["order_id"]), "{asked:#}");
    assert_eq!(asked["schema"]["properties"]["order_id"]["type"], "string");
    let given = json!({"request_id": asked["request_id"], "values": {"order_id": "ORD-7"}});
    assert_eq!(house.send(KEY, &format!("{path}/input"), &given, &[]).await.status, 200);
    let run = house.in_state(&path, "completed").await;
    assert!(run["result"]["text"].as_str().unwrap().contains("Bonn"), "{run:#}");
    assert!(house.tools.only_request().path.ends_with("/orders/ORD-7"));
}

#[tokio::test]
async fn a_user_who_was_asked_twice_in_vain_is_asked_no_more() {
    let house = House::new(CLERKS, |_| wants(&[("order", json!({}))])).await;
    let path = house.begin("hasty", json!({"input": "Where is it?"})).await;
    until("two questions were asked", || house.model.requests().len() >= 3).await;
    house.in_state(&path, "waiting_human").await;
    let kinds = house.kinds(&path).await;
    let asked = kinds.iter().filter(|kind| *kind == "input.requested").count();
    assert_eq!(asked, 2, "{kinds:?}");
}
