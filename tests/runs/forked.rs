//! What a run that is made of another one needs to begin, and what it costs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::broker::{House, OPERATOR, agent, tool};
use super::stage::{Stage, found, messages, results, says, search, wants};
use crate::support::Script;
use crate::support::client::Answer;
use crate::support::gateway::KEY;
use crate::support::upstream::Request;

/// Asks for a run that is made of the one at `path`, and gives its status and its error's code.
async fn made(house: &House, path: &str, how: &str, body: &Value) -> (u16, Value) {
    let answer = house.send(KEY, &format!("{path}/{how}"), body).await;
    (answer.status, answer.json()["error"]["code"].clone())
}

fn path(run: &Value) -> String {
    format!("/v1/agents/runs/{}", run["id"].as_str().unwrap())
}

#[tokio::test]
async fn what_an_agent_needs_a_fork_of_its_run_needs_too() {
    let sections = format!(
        "{}{}",
        tool("look", "read", "retry = { attempts = 1 }"),
        agent("a", &["look"], "require_tools = [\"look\"]"),
    );
    let is_broken = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&is_broken);
    let house = House::new(&sections, move |_| {
        Script::json(if seen.load(Ordering::Relaxed) { 500 } else { 200 }, "{}")
    })
    .await;
    let run = path(&house.run("a", &json!([["look", {}]])).await);
    is_broken.store(true, Ordering::Relaxed);
    for call in 0..5 {
        house.call(OPERATOR, "look", json!({"id": call.to_string()})).await;
    }
    let missing = (503, json!("overloaded"));
    let begun = house.send(KEY, "/v1/agents/a/runs", &json!({"input": "[]"})).await;
    assert_eq!((begun.status, begun.json()["error"]["code"].clone()), missing);
    assert_eq!(made(&house, &run, "fork", &json!({"at_seq": 1})).await, missing);
    assert_eq!(made(&house, &run, "replay", &json!({"mode": "live"})).await, missing);
    // Where nothing is done, nothing is needed.
    assert_eq!(made(&house, &run, "replay", &json!({"mode": "recorded"})).await.0, 202);
    assert_eq!(house.get("/v1/agents/runs?agent=a").await["data"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn of_what_a_user_may_spend_a_day_a_fork_takes_what_it_asks_for_itself() {
    // A turn is 15 tokens, at a dollar for a million.
    let sections = format!(
        "[models.\"up/m\"]\nprice = {{ input = 1.0, output = 1.0 }}\n{}[agents.a]\n\
         route = \"fast\"\ninstructions = \"Work.\"\ntools = [\"search\"]\n\
         budget = {{ user_usd_per_day = 0.000065 }}\n",
        search("")
    );
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("search", "{}")]),
        _ => says(request, "Found."),
    };
    let stage = Stage::new(&sections, mind, found).await;
    let begin = async || {
        let body = json!({"input": "Find it.", "user": "ann", "wait": "30s"});
        stage.post("/v1/agents/a/runs", KEY, &body).await
    };
    let turns = || stage.model.requests().len();
    let first = begin().await.json();
    assert_eq!((&first["state"], turns()), (&json!("completed"), 2), "{first:#}");
    // All but its last turn is taken over, and was paid for.
    let steps = stage.journal(first["id"].as_str().unwrap()).await;
    let last = steps.iter().rposition(|(kind, _)| kind == "model.requested").unwrap();
    let (door, edit) = (format!("{}/fork", path(&first)), json!({"at_seq": last}));
    let fork = stage.post(&door, KEY, &edit).await;
    let fork = stage.in_state(fork.header("location").unwrap(), "completed").await;
    let usd = |run: &Value| (run["cost_usd"].as_f64().unwrap() * 1e6).round().to_string();
    assert_eq!(
        (usd(&first), usd(&fork), usd(&fork["source"])),
        ("30".into(), "15".into(), "15".into())
    );
    // Behind a question that the first one has asked, it asks that itself, and pays for it alone.
    let behind = json!({"at_seq": last + 1});
    let other = stage.post(&door, KEY, &behind).await;
    let other = stage.in_state(other.header("location").unwrap(), "completed").await;
    assert_eq!((usd(&other), turns()), ("15".into(), 4));
    // 60 of 65 are spent: with what the forks had taken over it would be all.
    let next = begin().await.json();
    assert_eq!((&next["state"], turns()), (&json!("completed"), 6), "{next:#}");
    let spent = |answer: &Answer| (answer.status, answer.json()["error"]["code"].clone());
    let refused = (429, json!("budget_exceeded"));
    assert_eq!(spent(&begin().await), refused);
    assert_eq!(spent(&stage.post(&door, KEY, &edit).await), refused);
    assert_eq!(turns(), 6);
}

#[tokio::test]
async fn what_a_model_has_called_is_done_by_a_fork_behind_its_answer() {
    let sections = format!(
        "{}[agents.a]\nroute = \"fast\"\ninstructions = \"Work.\"\ntools = [\"search\"]\n",
        search("")
    );
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("search", "{}"), ("search", "{\"q\":\"b\"}")]),
        2 => says(request, "Found."),
        count => says(request, &format!("{count} results?")),
    };
    let stage = Stage::new(&sections, mind, found).await;
    let body = json!({"input": "Find it.", "wait": "30s"});
    let first = stage.post("/v1/agents/a/runs", KEY, &body).await.json();
    assert_eq!(first["state"], "completed", "{first:#}");
    let steps = stage.journal(first["id"].as_str().unwrap()).await;
    let answered = steps.iter().position(|(kind, _)| kind == "model.completed").unwrap();
    // Behind the answer, and between the calls that it makes.
    for (at, calls) in [(answered + 1, 4), (answered + 2, 6)] {
        let edit = json!({ "at_seq": at });
        let fork = stage.post(&format!("{}/fork", path(&first)), KEY, &edit).await;
        let fork = stage.in_state(fork.header("location").unwrap(), "completed").await;
        assert_eq!(fork["result"]["text"], "Found.", "{fork:#}");
        assert_eq!(stage.tools.requests().len(), calls);
    }
    // What its user says there comes behind what they give.
    let edit = json!({"at_seq": answered + 1, "edit": "Shorter."});
    let fork = stage.post(&format!("{}/fork", path(&first)), KEY, &edit).await;
    stage.in_state(fork.header("location").unwrap(), "completed").await;
    let asked = messages(stage.model.requests().last().unwrap());
    let roles: Vec<_> = asked.iter().map(|it| it["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "tool", "user"], "{asked:#?}");
}
