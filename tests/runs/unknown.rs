//! What becomes of a call of which nobody knows whether it happened: its server is gone before it
//! has answered.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::broker::{House, agent, tool};
use super::stage::in_state;
use crate::support::gateway::KEY;
use crate::support::{Script, until};

/// The first call of `send` is not answered; asked what became of it, `sent` answers with `found`.
async fn house(found: u16, terms: &str) -> House {
    house_of(Script::default().close(), found, terms).await
}

async fn house_of(first: Script, found: u16, terms: &str) -> House {
    let sections = format!(
        "{}{}{}",
        tool("send", "once", "probe = \"sent\""),
        tool("sent", "read", "retry = { attempts = 1 }"),
        agent("a", &["send"], terms),
    );
    let sends = AtomicUsize::new(0);
    House::new(&sections, move |request| {
        if request.path.contains("/sent") {
            return Script::json(found, r#"{"known":"it was sent"}"#);
        }
        match sends.fetch_add(1, Ordering::SeqCst) {
            0 => first.clone(),
            _ => Script::json(200, r#"{"sent":"now"}"#),
        }
    })
    .await
}

fn calls() -> Value {
    json!([["send", {"id": "m1"}]])
}

#[tokio::test]
async fn a_tool_that_can_tell_what_became_of_a_call_is_asked_first() {
    let house = house(200, "").await;
    let run = house.run("a", &calls()).await;
    assert_eq!(run["state"], "completed", "{run:#}");
    assert_eq!((house.asked("/send").len(), house.asked("/sent").len()), (1, 1));
    assert!(house.shown()[0].contains("it was sent"), "{:?}", house.shown());
}

#[tokio::test]
async fn where_that_tool_does_not_know_a_person_is_asked() {
    for found in [404, 500] {
        let house = house(found, "").await;
        let body = json!({"input": calls().to_string()});
        let begun = house.send(KEY, "/v1/agents/a/runs", &body).await;
        let path = format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap());
        in_state(&house.gateway, &path, "waiting_human").await;
        // What is not found may be under way still: nothing is sent again.
        assert_eq!((house.asked("/send").len(), house.asked("/sent").len()), (1, 1), "{found}");
    }
}

#[tokio::test]
async fn an_agent_whose_model_is_told_asks_nobody() {
    let house = house(200, "on_unknown_outcome = \"tell_model\"").await;
    let run = house.run("a", &calls()).await;
    assert_eq!(run["state"], "completed", "{run:#}");
    assert_eq!((house.asked("/send").len(), house.asked("/sent").len()), (1, 0));
    assert!(house.shown()[0].contains("unknown_outcome"), "{:?}", house.shown());
}

/// A run that waits for somebody to say what became of its call, and the letter about it.
async fn waiting(house: &House) -> (String, String) {
    let body = json!({"input": calls().to_string()});
    let begun = house.send(KEY, "/v1/agents/a/runs", &body).await;
    let path = format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap());
    in_state(&house.gateway, &path, "waiting_human").await;
    let letters = letters(house).await;
    assert_eq!((letters.len(), &letters[0]["state"]), (1, &json!("open")), "{letters:#?}");
    (path, format!("/v1/agents/dlq/{}", letters[0]["id"].as_str().unwrap()))
}

async fn letters(house: &House) -> Vec<Value> {
    house.get("/v1/agents/dlq").await["data"].as_array().unwrap().clone()
}

#[tokio::test]
async fn its_letter_is_closed_when_somebody_says_what_became_of_it() {
    let house = house(500, "").await;
    let (path, letter) = waiting(&house).await;
    let seq = &house.get(&path).await["pending"]["unknown_outcomes"][0]["seq"];
    let body = json!({"seq": seq, "outcome": "done", "result": "by hand"});
    let resolved = house.send(KEY, &format!("{path}/resolve"), &body).await;
    assert_eq!(resolved.status, 200, "{}", resolved.text());
    house.over(&path).await;
    assert_eq!(letters(&house).await[0]["state"], "settled");
    assert_eq!(house.get("/v1/agents/dlq?state=open").await["data"], json!([]));
    let retried = house.send(KEY, &format!("{letter}/retry"), &json!({})).await;
    assert_eq!((retried.status, house.asked("/send").len()), (404, 1), "{}", retried.text());
}

#[tokio::test]
async fn a_run_that_waits_for_it_makes_the_call_of_a_letter_that_is_tried_again() {
    let house = house(500, "").await;
    let (path, letter) = waiting(&house).await;
    let retried = house.send(KEY, &format!("{letter}/retry"), &json!({})).await;
    assert_eq!(retried.status, 200, "{}", retried.text());
    let run = retried.json()["outcome"]["result"]["run"].as_str().unwrap().to_owned();
    assert!(path.ends_with(&run), "{run}");
    let run = house.over(&path).await;
    assert_eq!(run["state"], "completed", "{run:#}");
    let keys: Vec<_> = house.asked("/send");
    let keys: Vec<_> = keys.iter().map(|it| it.header("idempotency-key").unwrap()).collect();
    assert_eq!((keys.len(), keys.first()), (2, keys.last()));
    assert!(house.shown()[0].contains("now"), "{:?}", house.shown());
    assert_eq!(letters(&house).await[0]["state"], "settled");
}

#[tokio::test]
async fn a_call_that_is_held_back_when_it_is_tried_again_is_as_unknown_as_before() {
    let breaker = "breaker = { failures = 1, cooldown = \"1h\" }";
    let sections = format!("{}{}", tool("send", "once", breaker), agent("a", &["send"], ""));
    let house = House::new(&sections, |_| Script::default().close()).await;
    let (path, letter) = waiting(&house).await;
    let retried = house.send(KEY, &format!("{letter}/retry"), &json!({})).await;
    assert_eq!(retried.status, 200, "{}", retried.text());
    let seq = until_unknown(&house, &path, 2).await;
    let states: Vec<_> = letters(&house).await.iter().map(|it| it["state"].clone()).collect();
    assert_eq!(states.iter().filter(|state| **state == "open").count(), 1, "{states:?}");
    let body = json!({"seq": seq, "outcome": "retry"});
    house.send(KEY, &format!("{path}/resolve"), &body).await;
    let seq = until_unknown(&house, &path, 3).await;
    let body = json!({"seq": seq, "outcome": "done", "result": "by hand"});
    house.send(KEY, &format!("{path}/resolve"), &body).await;
    let run = house.over(&path).await;
    assert_eq!((&run["state"], house.asked("/send").len()), (&json!("completed"), 1), "{run:#}");
    assert!(house.shown()[0].contains("by hand"), "{:?}", house.shown());
}

#[tokio::test]
async fn the_next_turn_is_told_what_nobody_knows_of_a_call_that_was_called_off() {
    let sections = format!("{}{}", tool("send", "once", ""), agent("a", &["send"], ""));
    let house = House::new(&sections, |_| Script::default().stall()).await;
    let body = json!({"input": calls().to_string(), "session_id": "s"});
    let begun = house.send(KEY, "/v1/agents/a/runs", &body).await;
    let path = format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap());
    until("the tool is called", || house.asked("/send").len() == 1).await;
    let cancelled = house.send(KEY, &format!("{path}/cancel"), &json!({})).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    in_state(&house.gateway, &path, "cancelled").await;
    let body = json!({"input": "And now?", "session_id": "s", "wait": "5s"});
    house.send(KEY, "/v1/agents/a/runs", &body).await;
    let shown = house.shown();
    assert!(shown[0].contains("unknown_outcome"), "{shown:?}");
    assert!(shown[0].contains("Do not try again"), "{shown:?}");
}

/// Which entry says that nobody knows it, as soon as that was said so often.
async fn until_unknown(house: &House, path: &str, times: usize) -> Value {
    loop {
        let journal = house.journal(path).await;
        let said = journal.iter().filter(|row| row["type"] == "tool.unknown").count();
        let run = house.get(path).await;
        if said == times && run["state"] == "waiting_human" {
            return run["pending"]["unknown_outcomes"][0]["seq"].clone();
        }
        assert_ne!(run["state"], "completed", "{run:#}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_that_refuses_a_call_that_is_tried_again_says_what_became_of_it() {
    let house = house_then(409).await;
    let (path, letter) = waiting(&house).await;
    house.send(KEY, &format!("{letter}/retry"), &json!({})).await;
    let run = house.over(&path).await;
    assert_eq!((&run["state"], house.asked("/send").len()), (&json!("completed"), 2), "{run:#}");
    assert!(house.shown()[0].contains("409"), "{:?}", house.shown());
}

/// The first call of `send` is not answered, the others are with this status.
async fn house_then(status: u16) -> House {
    let sections = format!("{}{}", tool("send", "once", ""), agent("a", &["send"], ""));
    let sends = AtomicUsize::new(0);
    let answers =
        move |_: &crate::support::upstream::Request| match sends.fetch_add(1, Ordering::SeqCst) {
            0 => Script::default().close(),
            _ => Script::json(status, "{}"),
        };
    House::new(&sections, answers).await
}

#[tokio::test]
async fn of_words_that_are_said_of_it_at_the_same_moment_one_holds() {
    let house = house(500, "").await;
    let (path, _) = waiting(&house).await;
    let seq = house.get(&path).await["pending"]["unknown_outcomes"][0]["seq"].clone();
    let says = async |outcome: &str| {
        let body = json!({"seq": seq, "outcome": outcome});
        house.send(KEY, &format!("{path}/resolve"), &body).await.status
    };
    let (a, b, c) = tokio::join!(says("done"), says("failed"), says("retry"));
    let mut said = [a, b, c];
    said.sort_unstable();
    assert_eq!(said, [200, 409, 409]);
}

#[tokio::test]
async fn a_success_that_cannot_be_read_may_have_happened_and_is_not_repeated() {
    let house = house_of(Script::json(200, r#"{"sent": "no"#), 200, "").await;
    let run = house.run("a", &calls()).await;
    assert_eq!(run["state"], "completed", "{run:#}");
    assert_eq!((house.asked("/send").len(), house.asked("/sent").len()), (1, 1));
    assert!(house.shown()[0].contains("it was sent"), "{:?}", house.shown());
}

#[tokio::test]
async fn one_that_is_under_way_when_its_run_is_cancelled_is_left_to_people() {
    let house = house_of(Script::default().stall(), 500, "").await;
    let begun = house.send(KEY, "/v1/agents/a/runs", &json!({"input": calls().to_string()})).await;
    let path = format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap());
    until("the call is under way", || house.asked("/send").len() == 1).await;
    house.send(KEY, &format!("{path}/cancel"), &json!({})).await;
    let run = house.over(&path).await;
    assert_eq!(run["state"], "cancelled");
    assert_eq!(
        run["pending"]["unknown_outcomes"],
        json!([]),
        "its letter is what is left: {run:#}"
    );
    let letters = letters(&house).await;
    assert_eq!(
        (letters.len(), &letters[0]["kind"]),
        (1, &json!("unknown_outcome")),
        "{letters:#?}"
    );
}
