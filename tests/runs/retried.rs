//! A run that was given up and is tried again: also what it had begun goes on where it was left.

use serde_json::{Value, json};
use tempfile::TempDir;

use super::below::{has, mind, shop, stored, team, work};
use super::stage::{OPERATOR, Stage};
use crate::support::client::get;
use crate::support::gateway::KEY;
use crate::support::{Gate, until};

/// One more between the two.
const CHIEF: &str = "[agents.chief]\nroute = \"fast\"\ninstructions = \"Chief.\"\n\
    delegates = [\"boss\"]\n";

/// A run whose process has died twice while something below it was looking: nobody goes on with it.
async fn given_up(agent: &str, turns: &Value, gate: &Gate) -> (TempDir, Stage, String) {
    let folder = TempDir::new().unwrap();
    let sections = stored(folder.path(), "max_takeovers = 1") + &team(CHIEF);
    let mut stage = Stage::new(&sections, mind, shop(gate)).await;
    let path = stage.begin(agent, &turns.to_string()).await;
    for looks in 1..3 {
        until("it looks", || stage.touched("look") == looks).await;
        stage = stage.crash(&sections).await;
    }
    stage.in_state(&path, "failed").await;
    (folder, stage, path)
}

/// The run that goes on with what the only letter is about.
async fn retry(stage: &Stage) -> String {
    retry_by(stage, KEY).await
}

/// The same, by the wish of somebody else.
async fn retry_by(stage: &Stage, key: &str) -> String {
    let letters = stage.get("/v1/agents/dlq").await["data"].as_array().unwrap().clone();
    let open: Vec<_> = letters.iter().filter(|it| it["state"] == "open").collect();
    assert_eq!((open.len(), &open[0]["kind"]), (1, &json!("run")), "{letters:#?}");
    let path = format!("/v1/agents/dlq/{}/retry", open[0]["id"].as_str().unwrap());
    let tried = stage.post(&path, key, &json!({})).await;
    assert_eq!(tried.status, 200, "{}", tried.text());
    let run = tried.json()["outcome"]["result"]["run"].as_str().unwrap().to_owned();
    format!("/v1/agents/runs/{run}")
}

fn tokens(usage: &Value) -> u64 {
    usage["total_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn a_retried_run_carries_on_what_another_agent_was_doing_for_it() {
    let gate = Gate::shut();
    let does = work(&json!([[["note", {}]], [["look", {}]], "Worked."]));
    let (_folder, stage, path) = given_up("boss", &json!([[does], "All."]), &gate).await;
    let asked = stage.model.requests().len();
    assert_eq!(asked, 3, "the boss, and the worker twice");
    let again = retry(&stage).await;
    until("it looks again", || stage.touched("look") == 3).await;
    gate.open();
    let run = stage.in_state(&again, "completed").await;
    assert_eq!(run["result"]["text"], "All.", "{run:#}");
    assert_eq!((stage.touched("note"), stage.model.requests().len()), (1, asked + 2));
    let told = stage.model.requests().last().unwrap().text().to_owned();
    assert!(told.contains("Worked."), "{told}");
    let child = &stage.below(&again).await[0];
    assert_eq!((&child["state"], &child["agent"]), (&json!("completed"), &json!("worker")));
    assert_ne!(child["id"], stage.below(&path).await[0]["id"]);
    // Each has paid what it asked for itself, and knows what was spent before.
    let turn = 15;
    assert_eq!((tokens(&run["usage"]), tokens(&run["source"]["usage"])), (2 * turn, 3 * turn));
    assert_eq!(run["tool_calls"], json!(0), "the calls were wanted before: {run:#}");
    let first = stage.get(&path).await;
    assert_eq!(tokens(&first["usage"]), 3 * turn, "{first:#}");
}

#[tokio::test]
async fn a_retried_run_carries_on_what_is_under_way_however_deep_and_however_often() {
    let gate = Gate::shut();
    let does = work(&json!([[["note", {}]], [["look", {}]], "Worked."]));
    let turns = json!([[has("boss", &json!([[does], "Managed."]))], "All."]);
    let (folder, mut stage, _) = given_up("chief", &turns, &gate).await;
    let sections = stored(folder.path(), "max_takeovers = 1") + &team(CHIEF);
    let asked = stage.model.requests().len();
    let second = retry(&stage).await;
    for looks in 3..5 {
        until("it looks again", || stage.touched("look") == looks).await;
        stage = stage.crash(&sections).await;
    }
    stage.in_state(&second, "failed").await;
    let third = retry(&stage).await;
    until("it looks once more", || stage.touched("look") == 5).await;
    gate.open();
    let run = stage.in_state(&third, "completed").await;
    assert_eq!(run["result"]["text"], "All.", "{run:#}");
    assert_eq!((stage.touched("note"), stage.model.requests().len()), (1, asked + 3));
    let below = stage.below(&third).await;
    assert_eq!(below.len(), 2, "{below:#?}");
    assert!(below.iter().all(|it| it["state"] == "completed"), "{below:#?}");
    let spent = (tokens(&run["usage"]), tokens(&run["source"]["usage"]));
    assert_eq!(spent, (3 * 15, 4 * 15), "{run:#}");
}

#[tokio::test]
async fn what_another_agent_was_let_do_is_done_once_by_whoever_carries_it_on() {
    let gate = Gate::shut();
    let does = work(&json!([[["pay", {}]], [["look", {}]], "Worked."]));
    let folder = TempDir::new().unwrap();
    let sections = stored(folder.path(), "max_takeovers = 1") + &team("");
    let mut stage = Stage::new(&sections, mind, shop(&gate)).await;
    let path = stage.begin("boss", &json!([[does], "All."]).to_string()).await;
    let asks = stage.asks_below(&path).await;
    stage.approve(&get(stage.gateway.address, &asks, OPERATOR).await.json()).await;
    for looks in 1..3 {
        until("it looks", || stage.touched("look") == looks).await;
        stage = stage.crash(&sections).await;
    }
    stage.in_state(&path, "failed").await;
    let again = retry(&stage).await;
    until("it looks again", || stage.touched("look") == 3).await;
    gate.open();
    stage.in_state(&again, "completed").await;
    assert_eq!(stage.touched("pay"), 1);
}

#[tokio::test]
async fn a_run_that_an_operator_has_tried_again_stays_with_whom_it_was_for() {
    let gate = Gate::shut();
    let (_folder, stage, path) =
        given_up("worker", &json!([[["look", {}]], "Worked."]), &gate).await;
    let again = retry_by(&stage, OPERATOR).await;
    gate.open();
    // Who asks is whoever the first one was for.
    let run = stage.in_state(&again, "completed").await;
    assert_eq!(run["owner"], stage.get(&path).await["owner"], "{run:#}");
}
