//! What becomes of a run whose process dies while a tool works for it: what must be done once is
//! not done again, what bears a key is done again by the same one, and a client that lost its
//! connection by that has not called it off.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::stage::{Stage, results, says, wants};
use crate::support::Script;
use crate::support::client::{self, wire};
use crate::support::gateway::KEY;
use crate::support::upstream::Request;

/// An agent with one tool, whose calls do this to the world.
fn sections(store: &Path, effect: &str) -> String {
    format!(
        "[store]\nurl = \"sqlite:{}\"\n[agent_engine]\nlease_ttl = \"1s\"\n[tools.pay]\n\
         kind = \"http\"\nmethod = \"POST\"\nurl = \"{{tools}}/pay\"\neffect = \"{effect}\"\n\
         input = {{ type = \"object\" }}\n[agents.payer]\nroute = \"fast\"\n\
         instructions = \"Pay.\"\ntools = [\"pay\"]\n",
        store.join("state.db").display(),
    )
}

fn pays(request: &Request) -> Script {
    if results(request) == 0 { wants(request, &[("pay", "{}")]) } else { says(request, "Paid.") }
}

/// The first call is taken in and never answered.
fn silent_once() -> impl Fn(&Request) -> Script + Send + 'static {
    let calls = AtomicUsize::new(0);
    move |_| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => Script::default().stall(),
        _ => Script::json(200, r#"{"paid":true}"#),
    }
}

/// A run whose process has died between the arrival of its call and what came of it; another one
/// is there.
async fn died(effect: &str) -> (TempDir, Stage, String) {
    let folder = tempfile::tempdir().unwrap();
    let sections = sections(folder.path(), effect);
    let stage = Stage::new(&sections, pays, silent_once()).await;
    let run = stage.begin("payer", "Pay.").await;
    stage.tools.asked(1).await;
    (folder, stage.crash(&sections).await, run)
}

async fn kinds(stage: &Stage, run: &str) -> Vec<String> {
    let journal = stage.journal(run.rsplit('/').next().unwrap()).await;
    journal.into_iter().map(|(kind, _)| kind).collect()
}

#[tokio::test]
async fn what_must_be_done_once_and_was_under_way_is_left_to_a_person() {
    let (_folder, stage, run) = died("once").await;
    let waiting = stage.in_state(&run, "waiting_human").await;
    let open = waiting["pending"]["unknown_outcomes"].as_array().unwrap().clone();
    assert_eq!((open.len(), &open[0]["tool"]), (1, &json!("pay")), "{waiting:#}");
    assert_eq!(kinds(&stage, &run).await.last().unwrap(), "tool.unknown");
    let letters = stage.get("/v1/agents/dlq").await;
    assert_eq!(letters["data"][0]["kind"], "unknown_outcome", "{letters}");
    assert_eq!((stage.tools.requests().len(), stage.model.requests().len()), (1, 1));
    let known = json!({"seq": open[0]["seq"], "outcome": "done", "result": {"paid": true}});
    let resolved = stage.post(&format!("{run}/resolve"), KEY, &known).await;
    assert_eq!(resolved.status, 200, "{}", resolved.text());
    let over = stage.in_state(&run, "completed").await;
    assert_eq!(over["result"]["text"], "Paid.", "{over:#}");
    assert_eq!(stage.tools.requests().len(), 1);
}

#[tokio::test]
async fn what_bears_a_key_and_was_under_way_is_done_again_by_the_same_one() {
    let (_folder, stage, run) = died("idempotent").await;
    stage.in_state(&run, "completed").await;
    let calls = stage.tools.requests();
    let keys: Vec<_> = calls.iter().map(|it| it.header("idempotency-key").unwrap()).collect();
    assert_eq!((keys.len(), keys[0]), (2, keys[1]));
    assert_eq!(stage.model.requests().len(), 2, "what was answered is not asked again");
}

#[tokio::test]
async fn a_client_that_lost_its_process_has_not_called_its_run_off() {
    for stream in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let sections = sections(folder.path(), "idempotent");
        let stage = Stage::new(&sections, pays, silent_once()).await;
        let asked: Value = json!({"model": "agent/payer", "stream": stream,
            "messages": [{"role": "user", "content": "Pay."}]});
        let _client = client::send(stage.gateway.address, &wire(&asked.to_string())).await;
        stage.tools.asked(1).await;
        let stage = stage.crash(&sections).await;
        let runs = stage.get("/v1/agents/runs?agent=payer").await;
        let run = format!("/v1/agents/runs/{}", runs["data"][0]["id"].as_str().unwrap());
        let over = stage.in_state(&run, "completed").await;
        assert_eq!(over["result"]["text"], "Paid.", "{over:#}");
        let kinds = kinds(&stage, &run).await;
        assert!(kinds.iter().any(|kind| kind == "run.resumed"), "{kinds:?}");
        assert!(!kinds.iter().any(|kind| kind == "run.cancel_requested"), "{kinds:?}");
    }
}
