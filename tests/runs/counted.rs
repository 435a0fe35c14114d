//! What is counted of runs, by which labels.

use serde_json::json;

use super::stage::{OPERATOR, Stage, found, results, says, search, texts, wants};
use crate::support::client::CHAT;
use crate::support::gateway::KEY;
use crate::support::upstream::Request;
use crate::support::{PATIENCE, Script};

const AGENTS: &str = r#"
[models."up/m"]
price = { input = 3.0, output = 7.0 }
[tools.pay]
kind = "http"
method = "POST"
url = "{tools}/pay"
effect = "once"
approval = { }
[guards.words]
kind = "pattern"
stage = ["input"]
action = "block"
words = ["Aurora"]
[agents.reader]
route = "fast"
instructions = "Read."
planner = "plan_then_act"
tools = ["search"]
guards = ["words"]
[agents.payer]
route = "fast"
instructions = "Pay."
tools = ["pay"]
[agents.locked]
route = "fast"
instructions = "Nobody."
access = { keys = ["operator"] }
"#;

fn mind(request: &Request) -> Script {
    let last = texts(request).pop().unwrap();
    match results(request) {
        _ if last.contains("Before you begin") => says(request, r#"["Look."]"#),
        0 if last.contains("pay") => wants(request, &[("pay", "{}")]),
        0 => wants(request, &[("search", r#"{"q":"x"}"#), ("nothing", "{}")]),
        _ => says(request, "Here it is."),
    }
}

/// Waits until a metric is this, for what is counted now and then.
async fn becomes(stage: &Stage, name: &str, labels: &[&str], value: f64) {
    let deadline = tokio::time::Instant::now() + 2 * PATIENCE;
    loop {
        let now = stage.gateway.metric(name, labels).await;
        if (now - value).abs() < 0.1 {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{name} {labels:?} is {now}, not {value}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_runs_do_is_counted_by_route_purpose_key_and_guard() {
    let tries = std::sync::atomic::AtomicU32::new(0);
    let tool =
        move |request: &Request| match tries.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => Script::json(503, "{}"),
            _ => found(request),
        };
    let sections = search("retry = { attempts = 2, base = \"1ms\" }") + AGENTS;
    let stage = Stage::new(&sections, mind, tool).await;
    stage.chat("reader", "Find it.").await;
    let blocked = json!({"model": "agent/reader",
        "messages": [{"role": "user", "content": "About Aurora"}]});
    stage.post(CHAT, KEY, &blocked).await;
    let locked = json!({"model": "agent/locked", "messages": [{"role": "user", "content": "Hi"}]});
    assert_eq!(stage.post(CHAT, KEY, &locked).await.status, 403);
    let agent = "agent=\"reader\"";
    let (route, model) = ("route=\"fast\"", "model=\"m\"");
    for (name, labels, value) in [
        ("model_calls_total", vec![agent, route, model, "purpose=\"plan\"", "outcome=\"ok\""], 1.0),
        (
            "model_calls_total",
            vec![agent, route, model, "purpose=\"reason\"", "outcome=\"ok\""],
            2.0,
        ),
        ("model_latency_seconds_count", vec![agent, route, "purpose=\"reason\""], 2.0),
        ("tokens_total", vec![agent, "type=\"input\"", "task=\"\""], 33.0),
        ("tokens_total", vec![agent, "type=\"output\""], 12.0),
        (
            "guardrail_total",
            vec!["guardrail=\"words\"", "stage=\"input\"", "action=\"block\""],
            1.0,
        ),
        ("security_events_total", vec!["kind=\"unknown_tool\""], 1.0),
        ("security_events_total", vec!["kind=\"agent_not_allowed\""], 1.0),
        ("tool_retries_total", vec!["tool=\"search\"", "reason=\"status\""], 1.0),
    ] {
        becomes(&stage, &format!("switchpoint_agent_{name}"), &labels, value).await;
    }
    let cost = ("switchpoint_agent_cost_usd_total", ["key=\"test\""]);
    assert!(stage.gateway.metric(cost.0, &cost.1).await > 0.0, "by the key that pays");
    for phase in ["assemble", "policy", "journal", "sanitise"] {
        let name = "switchpoint_agent_step_overhead_seconds_count";
        let counted = stage.gateway.metric(name, &[&format!("phase=\"{phase}\"")]).await;
        assert!(counted > 0.0, "{phase}");
    }
    assert!(stage.gateway.metric("switchpoint_agent_journal_appends_total", &[]).await > 10.0);
}

#[tokio::test]
async fn a_run_that_waits_is_not_at_work_and_is_counted_by_what_it_waits_for() {
    let stage = Stage::new(&(search("") + AGENTS), mind, found).await;
    let run = stage.begin("payer", "pay").await;
    stage.in_state(&run, "waiting_approval").await;
    let active = "switchpoint_agent_runs_active";
    becomes(&stage, active, &["state=\"running\""], 0.0).await;
    becomes(&stage, active, &["agent=\"payer\"", "state=\"waiting_approval\""], 1.0).await;
    assert!(stage.gateway.metric(active, &["state=\"running\""]).await < 0.1, "it holds no task");
    let pending = ["agent=\"payer\"", "tool=\"pay\""];
    becomes(&stage, "switchpoint_agent_approvals_pending", &pending, 1.0).await;
    assert!(stage.gateway.metric("switchpoint_agent_store_bytes", &[]).await > 4096.0);
    let list = stage.get("/v1/agents/approvals?state=pending").await;
    let door = format!("/v1/agents/approvals/{}", list["data"][0]["id"].as_str().unwrap());
    let denied = stage.post(&door, OPERATOR, &json!({"decision": "deny"})).await;
    assert_eq!(denied.status, 200, "{}", denied.text());
    stage.in_state(&run, "completed").await;
    let waited = ["tool=\"pay\"", "decision=\"denied\""];
    becomes(&stage, "switchpoint_agent_approval_wait_seconds_count", &waited, 1.0).await;
    becomes(&stage, active, &[], 0.0).await;
}
