//! Delegates that work at the same time.

use serde_json::json;
use tempfile::TempDir;

use super::below::{has, mind, shop, stored, team, work};
use super::stage::Stage;
use crate::support::{Gate, until};

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
    let middle = json!([[has("middle", &both)], "All."]);
    let agent = "[agents.middle]\nroute = \"fast\"\ninstructions = \"I ask.\"\n\
                 delegates = [\"worker\"]\n";
    let team = team(agent).replace(
        "[\"look\", \"buy\"]\ndelegates = [\"worker\"]",
        "[\"look\", \"buy\"]\ndelegates = [\"worker\", \"middle\"]",
    );
    for turns in [both, middle] {
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
