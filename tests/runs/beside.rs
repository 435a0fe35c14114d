//! Delegates that work at the same time.

use serde_json::json;
use tempfile::TempDir;

use super::below::{has, mind, shop, stored, team, work};
use super::stage::{OPERATOR, Stage, post};
use crate::support::database::Schema;
use crate::support::{Gate, until};

/// One agent between `boss` and `worker`.
fn middle() -> String {
    let agent = "[agents.middle]\nroute = \"fast\"\ninstructions = \"I ask.\"\n\
                 delegates = [\"worker\"]\n";
    team(agent).replace(
        "[\"look\", \"buy\"]\ndelegates = [\"worker\"]",
        "[\"look\", \"buy\"]\ndelegates = [\"worker\", \"middle\"]",
    )
}

#[tokio::test]
async fn delegates_go_on_beside_one_another_in_another_process_and_end_at_once() {
    let folder = TempDir::new().unwrap();
    let sections = stored(folder.path(), "") + &team("");
    let stage = Stage::new(&sections, mind, shop(&Gate::shut())).await;
    let look = |name: &str| work(&json!([[["look", {"q": name}]], "Worked."]));
    let path = stage.begin("boss", &json!([[look("a"), look("b"), look("c")]]).to_string()).await;
    until("all of them look", || stage.touched("look") == 3).await;
    let stage = stage.crash(&sections).await;
    until("all of them look again", || stage.touched("look") == 6).await;
    stage.tell(&path, "cancel").await;
    stage.in_state(&path, "cancelled").await;
    let children = stage.below(&path).await;
    assert!(children.iter().all(|child| child["state"] == "cancelled"), "{children:#?}");
    assert_eq!((children.len(), stage.touched("look")), (3, 6));
}

#[tokio::test]
async fn what_waited_for_a_person_goes_on_while_others_beside_it_are_still_at_work() {
    let pays = work(&json!([[["pay", {}]], [["note", {}]], "Paid."]));
    let looks = work(&json!([[["look", {}]], "Looked."]));
    let both = json!([[pays, looks], "Both."]);
    let deeper = json!([[has("middle", &both)], "All."]);
    let team = middle();
    for turns in [both, deeper] {
        let gate = Gate::shut();
        let stage = Stage::new(&team, mind, shop(&gate)).await;
        let path = stage.begin("boss", &turns.to_string()).await;
        until("it looks", || stage.touched("look") == 1).await;
        let asks = stage.asks_below(&path).await;
        stage.approve(&stage.get(&asks).await).await;
        until("it goes on", || stage.touched("note") == 1).await;
        stage.in_state(&asks, "completed").await;
        gate.open();
        stage.in_state(&path, "completed").await;
        assert_eq!((stage.touched("pay"), stage.touched("look")), (1, 1));
    }
}

#[tokio::test]
async fn what_another_replica_is_told_reaches_whoever_works_at_the_runs_above() {
    let pays = work(&json!([[["pay", {}]], [["note", {}]], "Paid."]));
    let looks = work(&json!([[["look", {}]], "Looked."]));
    let both = json!([[pays, looks], "Both."]);
    let deeper = json!([[has("middle", &both)], "All."]);
    for (name, turns) in [("told_child", both), ("told_deeper", deeper)] {
        let Some(schema) = Schema::new(name).await else { return };
        // What is told is heard at once, and not when a lease ends.
        let sections = |replica: &str| {
            format!(
                "[store]\nurl = \"{}\"\njournal = \"{}\"\n[agent_engine]\nlease_ttl = \"10m\"\n{}",
                schema.url(None),
                schema.journal(replica).display(),
                middle()
            )
        };
        let gate = Gate::shut();
        let stage = Stage::new(&sections("one"), mind, shop(&gate)).await;
        let path = stage.begin("boss", &turns.to_string()).await;
        until("it looks", || stage.touched("look") == 1).await;
        let asks = stage.asks_below(&path).await;
        let approval = stage.get(&asks).await["pending"]["approvals"][0]["id"].clone();
        let other = stage.beside(&sections("other")).await;
        let door = format!("/v1/agents/approvals/{}", approval.as_str().unwrap());
        let decided = post(&other, &door, OPERATOR, &json!({"decision": "approve"})).await;
        assert_eq!(decided.status, 200, "{}", decided.text());
        until("it goes on", || stage.touched("note") == 1).await;
        gate.open();
        stage.in_state(&path, "completed").await;
        assert_eq!((stage.touched("pay"), stage.touched("look")), (1, 1));
    }
}
