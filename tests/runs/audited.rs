//! What people decide about runs, and who is kept from an agent, stands in the audit trail.

use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::stage::{OPERATOR, Stage, found, results, says, wants};
use crate::support::client::{self, CHAT, open, request};
use crate::support::gateway::ADMIN_KEY;
use crate::support::upstream::Request;
use crate::support::{PATIENCE, Script};

const NARROW: &str = "sk-narrow-key";

/// Rows of the trail, the oldest first.
async fn audit(stage: &Stage, query: &str) -> Vec<Value> {
    let path = format!("/admin/audit?{query}");
    let answer = client::get(stage.gateway.admin, &path, ADMIN_KEY).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut rows = answer.json()["data"].as_array().unwrap().clone();
    rows.reverse();
    rows
}

#[tokio::test]
async fn a_key_for_one_agent_sees_and_runs_that_one_and_its_wish_for_another_is_noted() {
    let agent = |name: &str| {
        format!("[agents.{name}]\nroute = \"fast\"\ninstructions = \"Help.\"\ntools = []\n")
    };
    let key = format!("[keys.narrow]\nsecret = \"{NARROW}\"\nagents = [\"support\"]\n");
    let sections = format!("{key}{}{}", agent("support"), agent("finance"));
    let stage = Stage::new(&sections, |it| says(it, "Yes."), found).await;
    let listed = async |path: &str, name: &str| -> Vec<String> {
        let told = client::get(stage.gateway.address, path, NARROW).await.json();
        let all = told["data"].as_array().unwrap().iter();
        all.map(|it| it[name].as_str().unwrap().to_owned()).collect()
    };
    let mut models = listed("/v1/models", "id").await;
    models.retain(|id| id.starts_with("agent/"));
    assert_eq!(models, ["agent/support"]);
    assert_eq!(listed("/v1/agents", "name").await, ["support"]);
    let ask = async |agent: &str| {
        let body = json!({"model": format!("agent/{agent}"),
            "messages": [{"role": "user", "content": "Hi."}]});
        let asked = request(Method::POST, CHAT, NARROW, body.to_string().into());
        open(stage.gateway.address, asked).await.whole().await
    };
    assert_eq!(ask("support").await.status, 200);
    let refused = ask("finance").await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(refused.json()["error"]["code"], "agent_not_allowed");
    assert_eq!(stage.model.requests().len(), 1, "only for the one that it may run");
    // It is noted behind the answer.
    let deadline = Instant::now() + PATIENCE;
    let rows = loop {
        let rows = audit(&stage, "what=agent.refused").await;
        if !rows.is_empty() || Instant::now() > deadline {
            break rows;
        }
    };
    assert_eq!(rows.len(), 1, "{rows:#?}");
    let told = (&rows[0]["who"], &rows[0]["subject"]);
    assert_eq!(told, (&json!("narrow"), &json!("agent:finance")), "{rows:#?}");
}

const PAYER: &str = "[tools.pay]\nkind = \"http\"\nmethod = \"POST\"\nurl = \"{tools}/pay\"\n\
    effect = \"once\"\napproval = {}\ninput = { type = \"object\" }\n[agents.payer]\n\
    route = \"fast\"\ninstructions = \"Pay.\"\ntools = [\"pay\"]\n";

fn pays(request: &Request) -> Script {
    let pay = [("pay", r#"{"cents":900}"#)];
    if results(request) == 0 { wants(request, &pay) } else { says(request, "Done.") }
}

/// SHA-256 of a JSON text, in hex.
fn digest(text: &str) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(text.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn what_was_denied_or_edited_stands_in_the_trail_as_it_was_decided_and_the_trail_holds() {
    let stage = Stage::new(PAYER, pays, found).await;
    let decided = async |body: Value| {
        let run = stage.begin("payer", "Pay.").await;
        let waiting = stage.in_state(&run, "waiting_approval").await;
        let approval = waiting["pending"]["approvals"][0]["id"].as_str().unwrap();
        let path = format!("/v1/agents/approvals/{approval}");
        let answer = stage.post(&path, OPERATOR, &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        stage.in_state(&run, "completed").await;
        audit(&stage, &format!("subject=run:{}", run.rsplit('/').next().unwrap())).await
    };
    let kinds = |rows: &[Value]| -> Vec<String> {
        rows.iter().map(|row| row["what"].as_str().unwrap().to_owned()).collect()
    };
    let (asked, edited) = (digest(r#"{"cents":900}"#), digest(r#"{"cents":5}"#));
    let rows = decided(json!({"decision": "deny", "comment": "too dear"})).await;
    assert_eq!(kinds(&rows), ["approval.asked", "approval.decided"], "{rows:#?}");
    let about = &rows[1]["after"];
    assert_eq!((&rows[1]["who"], &about["decision"]), (&json!("operator"), &json!("denied")));
    assert_eq!((&about["tool"], &about["args_sha256"]), (&json!("pay"), &json!(asked)));
    assert!(stage.tools.requests().is_empty());

    let rows = decided(json!({"decision": "approve", "args": {"cents": 5}})).await;
    assert_eq!(kinds(&rows), ["approval.asked", "approval.decided", "tool.call"], "{rows:#?}");
    let about = &rows[1]["after"];
    assert_eq!((&rows[1]["who"], &about["decision"]), (&json!("operator"), &json!("edited")));
    assert_eq!(
        (&about["args_sha256"], &about["edited_args_sha256"]),
        (&json!(asked), &json!(edited))
    );
    let call = &rows[2]["after"];
    assert_eq!((&call["decision"], &call["outcome"]), (&json!("edited"), &json!("ok")));
    assert_eq!(call["args_sha256"], edited, "what was done is what was let pass");
    assert_eq!(stage.tools.only_request().text(), r#"{"cents":5}"#);
    let verdict = client::get(stage.gateway.admin, "/admin/audit/verify", ADMIN_KEY).await.json();
    assert_eq!((&verdict["ok"], &verdict["rows"]), (&json!(true), &json!(5)), "{verdict}");
}
