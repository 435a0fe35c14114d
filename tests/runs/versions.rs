//! What an agent is: its versions and labels, its prompts, and runs that go on with what they began
//! with, whatever the config says by then.

use std::path::Path;

use http::StatusCode;
use serde_json::{Value, json};

use super::stage::{OPERATOR, Stage, found, results, says, texts, wants};
use crate::support::Script;
use crate::support::client;
use crate::support::gateway::{ADMIN_KEY, KEY};
use crate::support::upstream::Request;

/// An agent of three versions, whose label is here.
fn labelled(store: &Path, stable: u32) -> String {
    format!(
        "[store]\nurl = \"sqlite:{}\"\n[agents.support]\nroute = \"fast\"\nversion = 1\n\
         instructions = \"One.\"\n[agents.support.versions.2]\ninstructions = \"Two.\"\n\
         [agents.support.versions.3]\ninstructions = \"Three.\"\n\
         [agents.support.rollout]\nlabels = {{ stable = {stable} }}\n",
        store.join("state.db").display()
    )
}

/// Says what its prompt is.
fn echo(request: &Request) -> Script {
    says(request, &texts(request)[0])
}

async fn said(stage: &Stage, agent: &str) -> Value {
    stage.chat(agent, "Who are you?").await["choices"][0]["message"]["content"].clone()
}

async fn moves(stage: &Stage, key: &str, version: &Value) -> client::Answer {
    let body = json!({"label": "stable", "version": version});
    stage.post("/v1/agents/support/labels", key, &body).await
}

#[tokio::test]
async fn a_label_is_moved_by_operators_and_stays_there_until_the_file_says_something_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = |stable| labelled(folder.path(), stable);
    let stage = Stage::new(&file(1), echo, found).await;
    assert_eq!(said(&stage, "support@stable").await, "One.");
    assert_eq!(moves(&stage, KEY, &json!("2")).await.status, StatusCode::FORBIDDEN);
    assert_eq!(said(&stage, "support@stable").await, "One.");
    let moved = moves(&stage, OPERATOR, &json!("2")).await;
    assert_eq!((moved.status, &moved.json()["labels"]), (200, &json!({"stable": "2"})));
    assert_eq!(said(&stage, "support@stable").await, "Two.");
    let versions = stage.get("/v1/agents/support/versions").await;
    let labels: Vec<&Value> =
        versions["data"].as_array().unwrap().iter().map(|row| &row["labels"]).collect();
    assert_eq!(labels, [&json!([]), &json!(["stable"]), &json!([])], "{versions}");
    assert_eq!(stage.get("/v1/agents/support").await["labels"]["stable"], "2");
    let path = "/admin/audit?what=agent.label";
    let audit = client::get(stage.gateway.admin, path, ADMIN_KEY).await;
    assert!(audit.text().contains("agent:support"), "{}", audit.text());
    // The file says what it said before.
    stage.reload(&file(1)).await;
    assert_eq!(said(&stage, "support@stable").await, "Two.");
    let stage = stage.restart(&file(1)).await;
    assert_eq!(said(&stage, "support@stable").await, "Two.");
    stage.reload(&file(3)).await;
    assert_eq!(said(&stage, "support@stable").await, "Three.");
    moves(&stage, OPERATOR, &json!(2)).await;
    assert_eq!(said(&stage, "support@stable").await, "Two.");
    moves(&stage, OPERATOR, &Value::Null).await;
    assert_eq!(said(&stage, "support@stable").await, "Three.", "it is the file's again");
    for wrong in [json!("9"), json!(["2"])] {
        assert_eq!(moves(&stage, OPERATOR, &wrong).await.status, 400);
    }
    let body = json!({"label": "2", "version": "1"});
    assert_eq!(stage.post("/v1/agents/support/labels", OPERATOR, &body).await.status, 400);
}

#[tokio::test]
async fn sessions_are_shared_out_by_weight_and_stay_with_their_version() {
    let sections = "[agents.support]\nroute = \"fast\"\nversion = 1\ninstructions = \"One.\"\n\
        [agents.support.versions.2]\ninstructions = \"Two.\"\n\
        [agents.support.rollout]\nweights = { 1 = 50, 2 = 50 }\n";
    let stage = Stage::new(sections, echo, found).await;
    let ask = async |session: &str| {
        let headers = [("x-switchpoint-session", session)];
        let answer = stage.chat_in("support", "Hi.", &headers).await;
        answer.header("x-switchpoint-agent-version").unwrap().to_owned()
    };
    let sessions: Vec<String> = (0..12).map(|number| format!("s{number}")).collect();
    let mut first = Vec::new();
    for session in &sessions {
        first.push(ask(session).await);
    }
    assert!(first.iter().any(|it| it == "1") && first.iter().any(|it| it == "2"), "{first:?}");
    // All new ones go by the second version from now on.
    stage.reload(&sections.replace("1 = 50, 2 = 50", "1 = 0, 2 = 100")).await;
    for (session, version) in sessions.iter().zip(&first) {
        assert_eq!(&ask(session).await, version);
    }
    assert_eq!(ask("new").await, "2");
}

#[tokio::test]
async fn calls_of_one_key_without_a_session_are_shared_out_by_weight_too() {
    let sections = "[agents.support]\nroute = \"fast\"\nversion = 1\ninstructions = \"One.\"\n\
        [agents.support.versions.2]\ninstructions = \"Two.\"\n\
        [agents.support.rollout]\nweights = { 1 = 50, 2 = 50 }\n";
    let stage = Stage::new(sections, echo, found).await;
    let mut drawn = std::collections::BTreeSet::new();
    for _ in 0..30 {
        drawn.insert(said(&stage, "support").await.to_string());
    }
    assert_eq!(drawn.len(), 2, "{drawn:?}");
}

/// An agent that pays when a person lets it; `tools` is who can be called.
fn payer(store: &Path, instructions: &str, pay: &str) -> String {
    format!(
        "[store]\nurl = \"sqlite:{}\"\n{pay}[agents.payer]\nroute = \"fast\"\n\
         instructions = \"{instructions}\"\ntools = [{}]\n",
        store.join("state.db").display(),
        if pay.is_empty() { "" } else { "\"pay\"" },
    )
}

const PAY: &str = "[tools.pay]\nkind = \"http\"\nmethod = \"POST\"\nurl = \"{tools}/pay\"\n\
    effect = \"once\"\napproval = {}\ninput = { type = \"object\" }\n";

fn pays(request: &Request) -> Script {
    if results(request) == 0 { wants(request, &[("pay", "{}")]) } else { says(request, "Paid.") }
}

async fn approve(stage: &Stage) {
    let pending = stage.get("/v1/agents/approvals?state=pending").await;
    let id = pending["data"][0]["id"].as_str().unwrap();
    let path = format!("/v1/agents/approvals/{id}");
    let answer = stage.post(&path, KEY, &json!({"decision": "approve"})).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[tokio::test]
async fn a_run_goes_on_with_the_prompt_that_it_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::new(&payer(folder.path(), "First.", PAY), pays, found).await;
    let run = stage.begin("payer", "Pay.").await;
    stage.in_state(&run, "waiting_approval").await;
    // Another text under the same version, and then a version of its own.
    stage.reload(&payer(folder.path(), "Second.", PAY)).await;
    let published = payer(folder.path(), "Second.", PAY) + "version = 2\n";
    stage.reload(&published).await;
    approve(&stage).await;
    let over = stage.in_state(&run, "completed").await;
    assert_eq!(over["version"], "1", "{over:#}");
    let prompts: Vec<String> =
        stage.model.requests().iter().map(|request| texts(request).swap_remove(0)).collect();
    assert_eq!(prompts, ["First.", "First."]);
    stage.begin("payer", "Pay.").await;
    stage.model.asked(3).await;
    assert_eq!(texts(&stage.model.requests()[2])[0], "Second.");
}

#[tokio::test]
async fn a_run_whose_tool_is_gone_waits_for_it_and_goes_on_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let whole = payer(folder.path(), "Pay.", PAY);
    let stage = Stage::new(&whole, pays, found).await;
    let run = stage.begin("payer", "Pay.").await;
    stage.in_state(&run, "waiting_approval").await;
    let stage = stage.restart(&payer(folder.path(), "Pay.", "")).await;
    approve(&stage).await;
    let waiting = stage.in_state(&run, "waiting_human").await;
    let why = waiting["pending"]["escalated"].as_str().unwrap();
    assert!(why.starts_with("definition_unavailable") && why.contains("pay"), "{waiting}");
    assert_eq!(stage.tools.requests().len(), 0);
    stage.reload(&whole).await;
    let resumed = stage.post(&format!("{run}/resume"), KEY, &json!({})).await;
    assert!(resumed.status < 300, "{}", resumed.text());
    let over = stage.in_state(&run, "completed").await;
    assert_eq!(over["result"]["text"], "Paid.", "{over}");
    assert_eq!(stage.tools.requests().len(), 1);
}

#[tokio::test]
async fn a_run_whose_route_is_gone_waits_for_it_and_goes_on_when_it_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let other = "[routes.other]\ntargets = [\"up/m\"]\n";
    let with = |route: &str| payer(folder.path(), "Pay.", PAY).replace("\"fast\"", route);
    let whole = format!("{}{other}", with("\"other\""));
    let stage = Stage::new(&whole, pays, found).await;
    let run = stage.begin("payer", "Pay.").await;
    stage.in_state(&run, "waiting_approval").await;
    stage.reload(&with("\"fast\"")).await;
    approve(&stage).await;
    let waiting = stage.in_state(&run, "waiting_human").await;
    let why = waiting["pending"]["escalated"].as_str().unwrap();
    assert!(why.starts_with("definition_unavailable") && why.contains("other"), "{waiting}");
    stage.reload(&whole).await;
    stage.post(&format!("{run}/resume"), KEY, &json!({})).await;
    stage.in_state(&run, "completed").await;
    assert_eq!(stage.tools.requests().len(), 1);
}

#[tokio::test]
async fn the_guards_of_an_agent_hold_for_its_waiting_runs_when_the_agent_is_gone() {
    const CALM: &str = "[guards.calm]\nkind = \"pattern\"\nwords = [\"something\"]\n\
        stage = [\"tool_results\"]\naction = \"block\"\n";
    let folder = tempfile::tempdir().unwrap();
    let whole = payer(folder.path(), "Pay.", PAY);
    let (rest, _) = whole.split_once("[agents.payer]").unwrap();
    let guarded = format!("{whole}guards = [\"calm\"]\n{CALM}");
    let stage = Stage::new(&guarded, pays, found).await;
    let run = stage.begin("payer", "Pay.").await;
    stage.in_state(&run, "waiting_approval").await;
    stage.reload(&format!("{rest}{CALM}")).await;
    approve(&stage).await;
    let over = stage.in_state(&run, "rejected").await;
    assert_eq!(over["stop_reason"], "guard", "{over}");
    assert_eq!(stage.model.requests().len(), 1, "what the tool gave nobody was shown");
    // One that is gone as well is waited for.
    stage.reload(&guarded).await;
    let run = stage.begin("payer", "Pay.").await;
    stage.in_state(&run, "waiting_approval").await;
    stage.reload(rest).await;
    approve(&stage).await;
    let waiting = stage.in_state(&run, "waiting_human").await;
    let why = waiting["pending"]["escalated"].as_str().unwrap();
    assert!(why.starts_with("definition_unavailable") && why.contains("calm"), "{waiting}");
    stage.reload(&format!("{rest}{CALM}")).await;
    stage.post(&format!("{run}/resume"), KEY, &json!({})).await;
    stage.in_state(&run, "rejected").await;
    assert_eq!(stage.model.requests().len(), 2);
}

#[tokio::test]
async fn a_prompt_is_never_edited_and_rolled_back_by_its_label() {
    let folder = tempfile::tempdir().unwrap();
    let prompts = folder.path().join("prompts");
    std::fs::create_dir(&prompts).unwrap();
    std::fs::write(prompts.join("1.md"), "Old words.").unwrap();
    std::fs::write(prompts.join("2.md"), "New words.").unwrap();
    let sections = |prod: u32| {
        format!(
            "[prompts.support]\ndir = \"{}\"\nlabels = {{ prod = {prod} }}\n[agents.support]\n\
             route = \"fast\"\nprompt = \"support@prod\"\n",
            prompts.display()
        )
    };
    let stage = Stage::new(&sections(2), echo, found).await;
    assert_eq!(said(&stage, "support").await, "New words.");
    stage.reload(&sections(1)).await;
    assert_eq!(said(&stage, "support").await, "Old words.", "rolled back");
    let digest = |text: &str| {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(text.as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
    };
    let lock = format!("1 sha256:{}\n2 sha256:{}\n", digest("Old words."), digest("New words."));
    std::fs::write(prompts.join("prompts.lock"), lock).unwrap();
    stage.reload(&sections(2)).await;
    assert_eq!(said(&stage, "support").await, "New words.");
    std::fs::write(prompts.join("2.md"), "Other words.").unwrap();
    let refused = stage.try_reload(&sections(2)).await;
    assert!(refused.status >= 400, "{}", refused.text());
    assert!(refused.text().contains("2.md"), "{}", refused.text());
    assert_eq!(said(&stage, "support").await, "New words.");
}

#[tokio::test]
async fn which_prompt_an_agent_and_each_of_its_runs_go_by_is_shown_by_name_version_and_digest() {
    let folder = tempfile::tempdir().unwrap();
    let prompts = folder.path().join("prompts");
    std::fs::create_dir(&prompts).unwrap();
    std::fs::write(prompts.join("1.md"), "Old words.").unwrap();
    std::fs::write(prompts.join("2.md"), "New words.").unwrap();
    let sections = |prod: u32| {
        format!(
            "[prompts.support]\ndir = \"{}\"\nlabels = {{ prod = {prod} }}\n[agents.support]\n\
             route = \"fast\"\nversion = 1\nprompt = \"support@prod\"\n\
             [agents.support.versions.2]\ninstructions = \"Plain words.\"\n",
            prompts.display()
        )
    };
    let known = |name: Option<&str>, version: Option<u32>, text: &str| {
        use sha2::Digest as _;
        let digest = sha2::Sha256::digest(text.as_bytes());
        let digest = digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
        json!({"name": name, "version": version, "sha256": digest})
    };
    let (old, new) = (
        known(Some("support"), Some(1), "Old words."),
        known(Some("support"), Some(2), "New words."),
    );
    let stage = Stage::new(&sections(1), echo, found).await;
    let run = stage.begin("support", "Who are you?").await;
    assert_eq!(stage.in_state(&run, "completed").await["prompt"], old);
    assert_eq!(stage.get("/v1/agents/support").await["prompt"], old);
    stage.reload(&sections(2)).await;
    assert_eq!(stage.get("/v1/agents/support").await["prompt"], new);
    let versions = stage.get("/v1/agents/support/versions").await;
    let shown: Vec<&Value> =
        versions["data"].as_array().unwrap().iter().map(|row| &row["prompt"]).collect();
    assert_eq!(shown, [&new, &known(None, None, "Plain words.")], "{versions}");
    assert_eq!(stage.get(&run).await["prompt"], old, "a run keeps its own");
}

#[tokio::test]
async fn a_run_that_failed_is_played_again_without_asking_anybody_or_asked_anew_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let pay = PAY.replace("approval = {}\n", "");
    // It fails behind its only call.
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("pay", "{}")]),
        _ => Script::json(400, r#"{"error":{"message":"No.","type":"invalid_request_error"}}"#),
    };
    let stage = Stage::new(&payer(folder.path(), "First.", &pay), mind, found).await;
    let run = stage.begin("payer", "Pay.").await;
    let failed = stage.in_state(&run, "failed").await;
    stage.reload(&(payer(folder.path(), "Second.", &pay) + "version = 2\n")).await;
    let asked = || (stage.model.requests().len(), stage.tools.requests().len());
    assert_eq!(asked(), (2, 1));
    let again = async |how: Value| {
        let made = stage.post(&format!("{run}/replay"), KEY, &how).await;
        assert_eq!(made.status, 202, "{}", made.text());
        let place = made.header("location").unwrap().to_owned();
        (stage.in_state(&place, "failed").await, place)
    };
    let (played, place) = again(json!({"mode": "recorded"})).await;
    assert_eq!(asked(), (2, 1), "nobody is asked");
    assert_eq!(played["stop_reason"], failed["stop_reason"], "{played:#}");
    let journal = async |run: &str| stage.journal(run.rsplit('/').next().unwrap()).await;
    let (first, second) = (journal(&run).await, journal(&place).await);
    assert_eq!(first[1..], second[1..], "the same entries");

    let (live, _) = again(json!({"mode": "live"})).await;
    assert_eq!((&live["version"], asked()), (&json!("1"), (4, 1)), "it pays no more: {live:#}");
    let requests = stage.model.requests();
    assert_eq!(texts(&requests[2]), texts(&requests[0]), "the same question");
    assert_eq!(texts(&requests[2])[0], "First.");
    assert!(texts(&requests[3]).last().unwrap().contains("played again"), "{requests:?}");
}
