//! Secrets of tools that change while a run is under way: the next call shows what holds then, and
//! nobody is told either.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::stage::{Stage, found, results, says, wants};
use crate::support::upstream::Request;
use crate::support::{Script, Upstream, until};

const FIRST: &str = "canary-first-secret-1";
const SECOND: &str = "canary-second-secret-2";

/// An agent with one tool, which only reads, and is shown so who asks.
fn sections(tool: &str) -> String {
    format!(
        "[secrets]\nrefresh = \"1h\"\n\n[agents.clerk]\nroute = \"fast\"\ninstructions = \"Look.\"\ntools = [\"look\"]\n\n\
         [tools.look]\nkind = \"http\"\nmethod = \"GET\"\nurl = \"{{tools}}/look\"\n\
         effect = \"read\"\nretry = {{ attempts = 1 }}\n{tool}\n"
    )
}

/// Has the tool called twice, one call behind the other.
fn twice(request: &Request) -> Script {
    match results(request) {
        0 | 1 => wants(request, &[("look", "{}")]),
        _ => says(request, "Done."),
    }
}

fn bearers(server: &Upstream) -> Vec<String> {
    let requests = server.requests().into_iter();
    requests.map(|it| it.header("authorization").unwrap_or_default().to_owned()).collect()
}

/// All that the run has left, and all that was said of it.
async fn everything(stage: &Stage, run: &str) -> String {
    let asked = stage.model.requests().iter().map(|it| it.text().to_owned()).collect::<String>();
    let journal = format!("{:?}", stage.journal(run).await);
    let view = stage.get(&format!("/v1/agents/runs/{run}/steps")).await;
    format!("{asked}{journal}{view}{}", stage.gateway.output().join("\n"))
}

fn id(answer: &Value) -> String {
    answer["x_agent"]["run_id"].as_str().unwrap().to_owned()
}

fn assert_hidden(said: &str) {
    for secret in [FIRST, SECOND] {
        assert!(!said.contains(secret), "{said}");
        let encoded = BASE64_STANDARD.encode(secret);
        assert!(!said.contains(encoded.trim_end_matches('=')), "{said}");
    }
}

#[tokio::test]
async fn a_secret_that_changes_in_its_file_between_two_calls_of_a_run_is_shown_with_the_second() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, format!("{FIRST}\n")).unwrap();
    let place = format!("file:{}", path.display());
    let rotate = move |request: &Request| {
        std::fs::write(&path, format!("{SECOND}\n")).unwrap();
        // It repeats what it was shown, as it is and in the Base64 of something longer.
        let shown = request.header("authorization").unwrap();
        let encoded = BASE64_STANDARD.encode(format!("you said: {shown}!"));
        let body =
            json!({"shown": shown, "encoded": encoded, "tenant": request.header("x-tenant")});
        Script::json(200, &body.to_string())
    };
    let auth = format!("auth = {{ kind = \"bearer\", token = \"{place}\" }}");
    let tool = format!("{auth}\nheaders = {{ x-tenant = \"{place}\" }}");
    let stage = Stage::new(&sections(&tool), twice, rotate).await;
    let answer = stage.chat("clerk", "Look.").await;
    assert_eq!(answer["choices"][0]["message"]["content"], "Done.", "{answer}");
    assert_eq!(bearers(&stage.tools), [format!("Bearer {FIRST}"), format!("Bearer {SECOND}")]);
    let tenants: Vec<_> = stage.tools.requests();
    let tenants: Vec<_> = tenants.iter().map(|it| it.header("x-tenant").unwrap()).collect();
    assert_eq!(tenants, [FIRST, SECOND]);
    assert_hidden(&everything(&stage, &id(&answer)).await);
}

#[tokio::test]
async fn a_secret_whose_file_is_away_for_a_moment_stays_as_it_was_shown_last() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    std::fs::write(&path, FIRST).unwrap();
    let auth = format!(
        "auth = {{ kind = \"header\", name = \"authorization\", value = \"file:{}\" }}",
        path.display()
    );
    let stage = Stage::new(&sections(&auth), twice, move |request: &Request| {
        std::fs::write(
            &path,
            if request.header("authorization") == Some(FIRST) { "" } else { SECOND },
        )
        .unwrap();
        found(request)
    })
    .await;
    stage.chat("clerk", "Look.").await;
    assert_eq!(bearers(&stage.tools), [FIRST, FIRST]);
}

/// A Vault that keeps one secret under one name.
async fn vault(kept: &Arc<Mutex<&'static str>>) -> Upstream {
    let kept = Arc::clone(kept);
    Upstream::answering(move |_| {
        let body = json!({"data": {"data": {"key": *kept.lock().unwrap()}, "metadata": {}}});
        Script::json(200, &body.to_string())
    })
    .await
}

#[tokio::test]
async fn a_secret_of_a_manager_that_is_refused_is_asked_for_again_within_the_same_call() {
    let kept = Arc::new(Mutex::new(FIRST));
    let vault = vault(&kept).await;
    let auth = "auth = { kind = \"bearer\", token = \"vault:secret/shop#key\" }";
    let manager =
        format!("[secrets.vault]\naddress = \"http://{}\"\ntoken = \"hvs.test\"\n", vault.address);
    let sections = sections(auth) + &manager;
    let valid = Arc::clone(&kept);
    let stage = Stage::new(&sections, twice, move |request: &Request| {
        let mut valid = valid.lock().unwrap();
        if request.header("authorization") != Some(&format!("Bearer {valid}")) {
            return Script::json(401, "{}");
        }
        *valid = SECOND;
        found(request)
    })
    .await;
    let answer = stage.chat("clerk", "Look.").await;
    let shown = [FIRST, FIRST, SECOND].map(|secret| format!("Bearer {secret}"));
    assert_eq!(bearers(&stage.tools), shown);
    let steps = stage.journal(&id(&answer)).await;
    assert!(!steps.iter().any(|(name, _)| name == "tool.failed"), "{steps:#?}");
    // At the start, for the first call, and when it was refused: what is young is not asked for.
    assert_eq!(vault.requests().len(), 3);
    assert_hidden(&everything(&stage, &id(&answer)).await);
}

#[tokio::test]
async fn a_manager_that_is_away_leaves_tools_the_secrets_that_are_known() {
    let is_away = Arc::new(Mutex::new(false));
    let seen = Arc::clone(&is_away);
    let vault = Upstream::answering(move |_| {
        let body = json!({"data": {"data": {"key": FIRST}, "metadata": {}}});
        if *seen.lock().unwrap() {
            Script::json(503, "{}")
        } else {
            Script::json(200, &body.to_string())
        }
    })
    .await;
    let auth = "auth = { kind = \"bearer\", token = \"vault:secret/shop#key\" }";
    let manager =
        format!("[secrets.vault]\naddress = \"http://{}\"\ntoken = \"hvs.test\"\n", vault.address);
    let stage = Stage::new(&(sections(auth) + &manager), twice, found).await;
    *is_away.lock().unwrap() = true;
    stage.chat("clerk", "Look.").await;
    assert_eq!(bearers(&stage.tools), [format!("Bearer {FIRST}"), format!("Bearer {FIRST}")]);
    let failed = stage.gateway.metric("switchpoint_secret_fetches_total", &["failed"]).await;
    assert!((failed - 1.0).abs() < f64::EPSILON, "it is left alone for a while: {failed}");
    let is_told = || stage.gateway.output().join("\n").contains("a secret stays as it was known");
    until("that is told", is_told).await;
}
