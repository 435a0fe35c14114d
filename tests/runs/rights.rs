//! What a run may do is what its key may, at each step and whoever works at it; and what was given up
//! is gone on with when its people say so.

use std::path::Path;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::stage::{OPERATOR, Stage, body, found, in_state, results, says, search, wants};
use crate::support::client::{self, open, request};
use crate::support::gateway::{ADMIN_KEY, KEY};
use crate::support::replies::{DONE, finish, role, usage, word};
use crate::support::upstream::Request;
use crate::support::{Gate, PATIENCE, Script, until};

const SMALL: &str = "sk-small-key";

#[tokio::test]
async fn tools_that_a_key_may_not_use_are_not_even_shown_to_the_models_of_its_runs() {
    let sections = format!(
        "[keys.small]\nsecret = \"{SMALL}\"\ntools = [\"look\"]\n{}[tools.look]\nkind = \"http\"\n\
         method = \"GET\"\nurl = \"{{tools}}/look\"\neffect = \"read\"\n[tools.ask_user]\nkind = \"builtin\"\n\
         name = \"ask_user\"\n[agents.reader]\nroute = \"fast\"\ninstructions = \"Read.\"\n\
         planner = \"plan_then_act\"\ntools = [\"search\", \"look\", \"ask_user\"]\n",
        search(""),
    );
    // It knows the name nevertheless, and another that there is not.
    let mind = |request: &Request| {
        let last = super::stage::texts(request).pop().unwrap();
        if last.contains("Before you begin") {
            return says(request, r#"["Search."]"#);
        }
        match results(request) {
            0 => wants(request, &[("search", r#"{"q":"x"}"#), ("searc", "{}")]),
            _ => says(request, "I cannot."),
        }
    };
    let stage = Stage::new(&sections, mind, found).await;
    let asked = json!({
        "model": "agent/reader", "messages": [{"role": "user", "content": "Search."}],
    });
    let asked = request(http::Method::POST, client::CHAT, SMALL, asked.to_string().into());
    let answer = open(stage.gateway.address, asked).await.whole().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let requests = stage.model.requests();
    assert_eq!(requests.len(), 3);
    let said = String::from_utf8(requests[0].body.to_vec()).unwrap();
    assert!(said.contains("`look`") && !said.contains("`search`"), "the plan: {said}");
    for asked in &requests[1..] {
        let tools = body(asked)["tools"].as_array().unwrap().clone();
        let names: Vec<&Value> = tools.iter().map(|tool| &tool["function"]["name"]).collect();
        assert_eq!(names, ["ask_user", "look"]);
    }
    let told: Vec<String> = super::stage::texts(&requests[2]);
    assert!(told.iter().any(|it| it.contains("not_allowed")), "{told:?}");
    let unknown = told.iter().find(|it| it.contains("unknown_tool")).unwrap();
    assert!(!unknown.contains("`search`"), "{unknown}");
    assert!(stage.tools.requests().is_empty());
    // Whoever may use all is shown all.
    stage.chat("reader", "Search.").await;
    let shown = body(&stage.model.requests()[4])["tools"].as_array().unwrap().len();
    assert_eq!(shown, 3);
}

/// An agent that pays when a person lets it, for those who may run it.
fn payer(store: &Path, keys: &str) -> String {
    format!(
        "[store]\nurl = \"sqlite:{}\"\n[agent_engine]\nlease_ttl = \"1s\"\n[tools.pay]\n\
         kind = \"http\"\nmethod = \"POST\"\nurl = \"{{tools}}/pay\"\neffect = \"once\"\n\
         approval = {{}}\ninput = {{ type = \"object\" }}\n[agents.payer]\nroute = \"fast\"\n\
         instructions = \"Pay.\"\ntools = [\"pay\"]\naccess = {{ keys = [{keys}] }}\n",
        store.join("state.db").display(),
    )
}

fn pays(request: &Request) -> Script {
    if results(request) == 0 { wants(request, &[("pay", "{}")]) } else { says(request, "Paid.") }
}

async fn audits(stage: &Stage, what: &str) -> Vec<Value> {
    let path = format!("/admin/audit?what={what}");
    let answer = client::get(stage.gateway.admin, &path, ADMIN_KEY).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["data"].as_array().unwrap().clone()
}

/// The path of the approval that is waited for, and the approval.
async fn pending(stage: &Stage) -> (String, Value) {
    let mut pending = stage.get("/v1/agents/approvals?state=pending").await;
    let approval = pending["data"][0].take();
    (format!("/v1/agents/approvals/{}", approval["id"].as_str().unwrap()), approval)
}

#[tokio::test]
async fn whoever_takes_a_run_over_asks_anew_whether_its_key_may_run_it() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::new(&payer(folder.path(), "\"*\""), pays, found).await;
    let run = stage.begin("payer", "Pay.").await;
    stage.in_state(&run, "waiting_approval").await;
    let (approval, _) = pending(&stage).await;
    // The next process has another word for who may.
    let stage = stage.crash(&payer(folder.path(), "\"operator\"")).await;
    let approved = stage.post(&approval, OPERATOR, &json!({"decision": "approve"})).await;
    assert_eq!(approved.status, 200, "{}", approved.text());
    let ended = stage.in_state(&run, "failed").await;
    assert_eq!(ended["stop_reason"], "denied", "{ended}");
    assert!(stage.tools.requests().is_empty(), "nothing was paid");

    // Its letter goes on with it where it was left, as soon as that is allowed.
    let letters = stage.get("/v1/agents/dlq").await;
    let letter = &letters["data"][0];
    assert_eq!(letter["kind"], "run", "{letters}");
    let retry = format!("/v1/agents/dlq/{}/retry", letter["id"].as_str().unwrap());
    stage.reload(&payer(folder.path(), "\"*\"")).await;
    let retried = stage.post(&retry, KEY, &json!({})).await;
    assert_eq!(retried.status, 200, "{}", retried.text());
    let outcome = &retried.json()["outcome"];
    assert_eq!(outcome["outcome"], "done", "{outcome}");
    let again = format!("/v1/agents/runs/{}", outcome["result"]["run"].as_str().unwrap());
    // What was let pass, though the run never heard of it, is not asked anew.
    let over = stage.in_state(&again, "completed").await;
    assert_eq!((&over["trigger"], &over["result"]["text"]), (&json!("retry"), &json!("Paid.")));
    assert_eq!(stage.tools.requests().len(), 1, "what was let pass is done, once");
    assert_eq!(stage.model.requests().len(), 2, "what was answered is not asked again");
    assert_eq!(stage.get("/v1/agents/approvals?state=pending").await["data"], json!([]));
    let rows = audits(&stage, "approval.kept").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!(
        (&rows[0]["who"], &rows[0]["after"]["decided_by"]),
        (&json!("test"), &json!("operator"))
    );
    let new = outcome["result"]["run"].as_str().unwrap();
    assert_eq!(rows[0]["subject"], format!("run:{new}"));
    let rows = audits(&stage, "approval.decided").await;
    assert_eq!((rows.len(), &rows[0]["who"]), (1, &json!("operator")), "{rows:?}");
    let rows = audits(&stage, "dlq.retry").await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let subject = format!("letter:{}", letter["id"].as_str().unwrap());
    assert_eq!((&rows[0]["subject"], &rows[0]["who"]), (&json!(subject), &json!("test")));
    let rows = audits(&stage, "dlq.retried").await;
    assert!(rows[0].to_string().contains(again.rsplit('/').next().unwrap()), "{rows:?}");
    let deadline = Instant::now() + PATIENCE;
    let (metric, labels) = ("switchpoint_agent_runs_total", ["trigger=\"retry\""]);
    while stage.gateway.metric(metric, &labels).await < 1.0 {
        assert!(Instant::now() < deadline, "it is counted");
    }
}

#[tokio::test]
async fn a_retry_that_comes_to_nothing_stands_in_the_audit_trail_too() {
    let folder = tempfile::tempdir().unwrap();
    let stage = Stage::new(&payer(folder.path(), "\"*\""), pays, found).await;
    let run = stage.begin("payer", "Pay.").await;
    stage.in_state(&run, "waiting_approval").await;
    let (approval, _) = pending(&stage).await;
    stage.reload(&payer(folder.path(), "\"operator\"")).await;
    stage.post(&approval, OPERATOR, &json!({"decision": "deny"})).await;
    stage.in_state(&run, "failed").await;
    let letters = stage.get("/v1/agents/dlq").await;
    let retry = format!("/v1/agents/dlq/{}/retry", letters["data"][0]["id"].as_str().unwrap());
    // Who is not let run it brings it no further.
    let retried = stage.post(&retry, KEY, &json!({})).await.json();
    let again =
        format!("/v1/agents/runs/{}", retried["outcome"]["result"]["run"].as_str().unwrap());
    let ended = in_state(&stage.gateway, &again, "failed").await;
    assert_eq!(ended["stop_reason"], "denied", "{ended}");
    assert_eq!(audits(&stage, "dlq.retry").await.len(), 1);
    assert_eq!(audits(&stage, "dlq.retried").await.len(), 1);
    let open = stage.get("/v1/agents/dlq").await;
    let open = open["data"].as_array().unwrap().iter().filter(|it| it["state"] == "open").count();
    assert_eq!(open, 1, "the new one has a letter of its own");
}

#[tokio::test]
async fn what_was_let_pass_until_a_time_that_is_over_is_asked_anew_by_a_retry() {
    let folder = tempfile::tempdir().unwrap();
    let short = |keys| {
        payer(folder.path(), keys).replace("approval = {}", "approval = { expires = \"2s\" }")
    };
    let stage = Stage::new(&short("\"*\""), pays, found).await;
    let run = stage.begin("payer", "Pay.").await;
    stage.in_state(&run, "waiting_approval").await;
    let (approval, asked) = pending(&stage).await;
    stage.reload(&short("\"operator\"")).await;
    let approved = stage.post(&approval, OPERATOR, &json!({"decision": "approve"})).await;
    assert_eq!(approved.status, 200, "{}", approved.text());
    stage.in_state(&run, "failed").await;
    stage.reload(&short("\"*\"")).await;
    let expires = humantime::parse_rfc3339(asked["expires_at"].as_str().unwrap()).unwrap();
    until("its time is over", || std::time::SystemTime::now() > expires).await;
    let letters = stage.get("/v1/agents/dlq").await;
    let retry = format!("/v1/agents/dlq/{}/retry", letters["data"][0]["id"].as_str().unwrap());
    let retried = stage.post(&retry, KEY, &json!({})).await.json();
    let new = retried["outcome"]["result"]["run"].as_str().unwrap();
    stage.in_state(&format!("/v1/agents/runs/{new}"), "waiting_approval").await;
    let (_, anew) = pending(&stage).await;
    assert_eq!(anew["run_id"], *new);
    assert_eq!(anew["args_hash"], asked["args_hash"], "the same, asked anew");
    assert!(stage.tools.requests().is_empty());
    assert!(audits(&stage, "approval.kept").await.is_empty());
}

#[tokio::test]
async fn a_call_that_was_let_pass_and_failed_is_tried_again_without_asking() {
    let folder = tempfile::tempdir().unwrap();
    let sections = payer(folder.path(), "\"*\"")
        .replace("effect = \"once\"", "effect = \"idempotent\"\nretry = { attempts = 1 }");
    let tries = std::sync::atomic::AtomicU32::new(0);
    let tool = move |_: &Request| match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
        0 => Script::json(500, "{}"),
        _ => Script::json(200, r#"{"paid":true}"#),
    };
    let stage = Stage::new(&sections, pays, tool).await;
    let run = stage.begin("payer", "Pay.").await;
    stage.in_state(&run, "waiting_approval").await;
    let (approval, _) = pending(&stage).await;
    stage.post(&approval, OPERATOR, &json!({"decision": "approve"})).await;
    stage.in_state(&run, "completed").await;
    let letters = stage.get("/v1/agents/dlq").await;
    let letter = &letters["data"][0];
    assert_eq!((&letter["kind"], &letter["payload"]["tool"]), (&json!("tool"), &json!("pay")));
    let retry = format!("/v1/agents/dlq/{}/retry", letter["id"].as_str().unwrap());
    let retried = stage.post(&retry, KEY, &json!({})).await.json();
    assert_eq!(retried["outcome"], json!({"outcome": "done", "result": {"paid": true}}));
    let keys: Vec<_> = stage.tools.requests();
    let keys: Vec<_> = keys.iter().map(|it| it.header("idempotency-key").unwrap()).collect();
    assert_eq!((keys.len(), keys[0]), (2, keys[1]), "the same call");
    assert_eq!(stage.get("/v1/agents/approvals?state=pending").await["data"], json!([]));
}

#[tokio::test]
async fn a_run_that_is_called_off_before_its_turn_never_begins() {
    let gate = Gate::shut();
    let waits = gate.clone();
    let mind = move |request: &Request| {
        let script = Script::stream_head().chunks([role(), word("Wait.")]).gate(&waits);
        assert_eq!(super::stage::texts(request).pop().unwrap(), "hold");
        script.chunks([finish(), usage(), DONE.to_owned()]).end()
    };
    let sections = "[agent_engine]\nworkers = 1\n[agents.plain]\nroute = \"fast\"\n\
        instructions = \"Answer.\"\n";
    let stage = Stage::new(sections, mind, found).await;
    let first = stage.begin("plain", "hold").await;
    stage.model.asked(1).await;
    let second = stage.begin("plain", "second").await;
    stage.in_state(&second, "queued").await;
    let cancelled = stage.post(&format!("{second}/cancel"), KEY, &json!({})).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    gate.open();
    stage.in_state(&first, "completed").await;
    stage.in_state(&second, "cancelled").await;
    assert_eq!(stage.model.requests().len(), 1);
}

#[tokio::test]
async fn the_tools_of_an_agent_are_told_to_whoever_may_run_it_and_to_its_model() {
    let sections = format!(
        "{}[tools.pay]\nkind = \"http\"\nmethod = \"POST\"\nurl = \"{{tools}}/pay\"\n\
         version = \"3\"\ndescription = \"Pays somebody.\"\neffect = \"once\"\nrisk = \"high\"\n\
         approval = {{}}\nlimits = {{ user = \"2/m\", run = 4 }}\n\
         input = {{ type = \"object\" }}\noutput = {{ type = \"object\" }}\n\
         [tools.others]\nkind = \"builtin\"\nname = \"search_tools\"\n\
         [agents.payer]\nroute = \"fast\"\ninstructions = \"Pay.\"\n\
         tools = [\"pay\", \"search\", \"others\"]\n\
         [agents.reader]\nroute = \"fast\"\ninstructions = \"Read.\"\ntools = [\"search\"]\n",
        search("description = \"Finds pages.\""),
    );
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("others", "{}"), ("others", r#"{"query":"pay somebody"}"#)]),
        _ => says(request, "I see."),
    };
    let stage = Stage::new(&sections, mind, found).await;
    let names = |list: &Value| -> Vec<String> {
        let mut names: Vec<_> =
            list.as_array().unwrap().iter().map(|it| it["name"].clone()).collect();
        names.sort_by_key(ToString::to_string);
        names.iter().map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    let listed = stage.get("/v1/tools?agent=payer").await["data"].clone();
    assert_eq!(names(&listed), ["others", "pay", "search"]);
    let pay = listed.as_array().unwrap().iter().find(|it| it["name"] == "pay").unwrap();
    assert_eq!(
        (&pay["kind"], &pay["version"], &pay["effect"]),
        (&json!("http"), &json!("3"), &json!("once"))
    );
    assert_eq!((&pay["high_risk"], &pay["needs_approval"]), (&json!(true), &json!(true)));
    assert_eq!(pay["limits"]["user"], json!([{"calls": 2, "seconds": 60}]), "{pay}");
    assert_eq!((&pay["limits"]["run"], &pay["health"]["state"]), (&json!(4), &json!("available")));
    let schemas = (&pay["input_schema"]["type"], &pay["output_schema"]["type"]);
    assert_eq!(schemas, (&json!("object"), &json!("object")), "{pay}");
    assert_eq!(names(&stage.get("/v1/tools?agent=reader").await["data"]), ["search"]);
    let nobody = client::get(stage.gateway.address, "/v1/tools?agent=paier", KEY).await;
    assert_eq!(nobody.status, 404, "{}", nobody.text());

    stage.chat("payer", "What can you do?").await;
    let asked = stage.model.requests().pop().unwrap();
    let told: Vec<Value> = super::stage::messages(&asked)
        .iter()
        .filter(|it| it["role"] == "tool")
        .map(|it| serde_json::from_str(it["content"].as_str().unwrap()).unwrap())
        .collect();
    assert_eq!(names(&told[0]["tools"]), ["others", "pay", "search"], "the same, {told:?}");
    assert_eq!(names(&told[1]["tools"]), ["pay"], "{told:?}");
    assert_eq!(told[1]["tools"][0]["input_schema"]["type"], "object");
}
