//! What people answer, at whichever run they do: also at one that is at work, and of several answers
//! the first holds.

use serde_json::{Value, json};

use super::below::{mind, shop, team, work};
use super::stage::Stage;
use crate::support::Gate;
use crate::support::gateway::KEY;

/// Has `worker` ask its user.
fn asks() -> Value {
    work(&json!([[["ask", {"question": "Which one?"}]], "Asked."]))
}

#[tokio::test]
async fn what_runs_below_ask_is_shown_and_answered_at_a_run_that_is_at_work_beside_them() {
    let gate = Gate::shut();
    let stage = Stage::new(&team(""), mind, shop(&gate)).await;
    let turns = json!([[["look", {}], asks(), asks()], "All."]);
    let path = stage.begin("boss", &turns.to_string()).await;
    let inputs = loop {
        let run = stage.get(&path).await;
        let inputs = run["pending"]["inputs"].as_array().unwrap().clone();
        if inputs.len() == 2 {
            assert_eq!(run["state"], "running", "{run:#}");
            break inputs;
        }
        tokio::task::yield_now().await;
    };
    // One right behind the other.
    for asked in inputs {
        let body = json!({"request_id": asked["request_id"], "values": "The red one."});
        let answered = stage.post(&format!("{path}/input"), KEY, &body).await;
        assert_eq!(answered.status, 200, "{}", answered.text());
    }
    gate.open();
    let run = stage.in_state(&path, "completed").await;
    assert_eq!((&run["result"]["text"], &run["pending"]["inputs"]), (&json!("All."), &json!([])));
}

#[tokio::test]
async fn a_chat_is_told_all_that_a_run_and_those_below_it_wait_for() {
    let payer = "[agents.payer]\nroute = \"fast\"\ninstructions = \"Pay.\"\ntools = [\"pay\"]\n\
        delegates = [\"worker\"]\n";
    let stage = Stage::new(&team(payer), mind, shop(&Gate::shut())).await;
    let turns = json!([[["pay", {}], asks()], "All."]);
    let told = stage.chat("payer", &turns.to_string()).await;
    let said = told["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(said.contains("Which one?"), "{told}");
    assert!(said.contains("needs the approval of a person before it goes on: pay."), "{told}");
}
