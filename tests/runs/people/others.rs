//! Agents that ask agents or give the conversation away, and who is let begin how many runs.

use super::*;
use crate::support::until;

const TEAM: &str = r#"
[agents.manager]
route = "fast"
instructions = "You manage."
delegates = ["researcher", "buyer"]
handoffs = ["billing"]
tools = ["look"]
max_handoffs = 2
[agents.researcher]
description = "Finds things out."
route = "fast"
instructions = "You search."
[agents.buyer]
route = "fast"
instructions = "You buy."
tools = ["pay"]
[agents.billing]
description = "Knows invoices."
route = "fast"
instructions = "You bill."
handoffs = ["manager"]
"#;

fn instructed(request: &Request) -> String {
    messages(request)[0]["content"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_manager_has_work_done_and_gives_the_conversation_away_with_what_matters() {
    let house = House::new(TEAM, |request| match instructed(request).as_str() {
        "You search." => says(&format!("Found: {}", asked(request))),
        "You bill." => says("Billing here."),
        _ => match results(request).len() {
            0 => wants(&[
                ("delegate_researcher", json!({"input": "one"})),
                ("delegate_researcher", json!({"input": "two"})),
            ]),
            _ => wants(&[("handoff_billing", json!({"reason": "It is about an invoice."}))]),
        },
    })
    .await;
    let path = house.begin("manager", json!({"input": "My invoice?", "wait": "10s"})).await;
    let run = house.in_state(&path, "completed").await;
    assert_eq!(run["result"]["text"], "Billing here.");
    let root = run["id"].as_str().unwrap();
    let tree = house.get(&format!("/v1/agents/runs?root={root}")).await;
    let tree = tree["data"].as_array().unwrap();
    let children: Vec<_> = tree.iter().filter(|it| it["parent"] == run["id"]).collect();
    assert_eq!((tree.len(), children.len()), (3, 2), "{tree:#?}");
    assert!(children.iter().all(|it| it["agent"] == "researcher" && it["state"] == "completed"));
    let requests = house.model.requests();
    let last = requests.last().unwrap().text();
    for told in ["My invoice?", "It is about an invoice.", "Found: one", "Found: two"] {
        assert!(last.contains(told), "{told}: {last}");
    }
    let journal = house.journal(&path).await;
    let (_, handoff) = journal.iter().find(|(kind, _)| kind == "handoff").unwrap();
    assert_eq!((&handoff["from"], &handoff["to"]), (&json!("manager"), &json!("billing")));
}

#[tokio::test]
async fn agents_that_only_give_the_conversation_to_one_another_are_stopped() {
    let house = House::new(TEAM, |request| {
        let body = request.text();
        let turn = body.matches("hands over").count() + body.len();
        let _ = turn;
        match instructed(request).as_str() {
            _ if !body.contains("\"tools\"") || body.contains("\"tool_choice\":\"none\"") => {
                says("Enough.")
            }
            "You manage." => wants(&[("handoff_billing", json!({"reason": "yours"}))]),
            _ => wants(&[("handoff_manager", json!({"reason": "no, yours"}))]),
        }
    })
    .await;
    let path = house.begin("manager", json!({"input": "Whose is it?"})).await;
    let run = house.in_state(&path, "incomplete").await;
    assert_eq!(run["stop_reason"], "max_handoffs", "{run:#}");
    let kinds = house.kinds(&path).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "handoff").count(), 2, "{kinds:?}");
    assert_eq!(run["result"]["text"], "Enough.");
}

fn delegator(request: &Request) -> Script {
    match (instructed(request).as_str(), results(request).as_slice()) {
        ("You buy.", []) => wants(&[("pay", json!({"amount": 5}))]),
        ("You buy.", _) => says("Bought."),
        (_, []) => wants(&[("delegate_buyer", json!({"input": "Buy it."}))]),
        (_, [result]) => says(result),
        _ => says("Again?"),
    }
}

#[tokio::test]
async fn what_a_delegate_asks_people_is_asked_by_the_run_that_began_it() {
    let house = House::new(TEAM, delegator).await;
    let told = house.chat("manager", "Buy one.").await.json();
    assert_eq!(told["x_agent"]["status"], "waiting_child", "{told}");
    let shown = &told["x_agent"]["approvals"][0];
    assert_eq!((&shown["tool"], &shown["agent"]), (&json!("pay"), &json!("buyer")), "{told}");
    let said = told["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(said.contains("pay of `buyer`"), "{said}");
    let path = format!("/v1/agents/runs/{}", told["x_agent"]["run_id"].as_str().unwrap());
    let pending = house.pending().await;
    assert_eq!(house.get(&path).await["pending"]["approvals"][0]["id"], pending["id"]);
    assert_eq!(shown["id"], pending["id"]);
    let decided = house.decide(LEAD, &pending, json!({"decision": "approve"})).await;
    assert_eq!(decided.status, 200, "{}", decided.text());
    let run = house.in_state(&path, "completed").await;
    assert_eq!(run["result"]["text"], "Bought.");
    assert_eq!(house.touched("/pay"), 1);
}

#[tokio::test]
async fn a_run_that_is_called_off_takes_all_that_it_began_with_it() {
    let house = House::new(TEAM, delegator).await;
    let path = house.begin("manager", json!({"input": "Buy one."})).await;
    house.in_state(&path, "waiting_child").await;
    let pending = house.pending().await;
    let cancelled = house.send(KEY, &format!("{path}/cancel"), &json!({}), &[]).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    let run = house.in_state(&path, "cancelled").await;
    let tree = house.get(&format!("/v1/agents/runs?root={}", run["id"].as_str().unwrap())).await;
    let states: Vec<_> = tree["data"].as_array().unwrap().iter().map(|it| &it["state"]).collect();
    assert_eq!(states, ["cancelled", "cancelled"]);
    let late = house.decide(LEAD, &pending, json!({"decision": "approve"})).await;
    assert_eq!(code(&late), (409, "already_decided".to_owned()));
    assert_eq!(house.touched("/pay"), 0);
}

#[tokio::test]
async fn a_run_that_is_called_off_leaves_no_call_of_a_delegates_tool() {
    let tools = Upstream::answering(|_| Script::default().stall()).await;
    let agents = TEAM.replace("tools = [\"pay\"]", "tools = [\"look\"]");
    let house = House::with(tools, &agents, |request| match instructed(request).as_str() {
        "You buy." => wants(&[("look", json!({}))]),
        _ => wants(&[("delegate_buyer", json!({"input": "Buy it."}))]),
    })
    .await;
    let path = house.begin("manager", json!({"input": "Buy one."})).await;
    house.tools.asked(1).await;
    assert_eq!(house.send(KEY, &format!("{path}/cancel"), &json!({}), &[]).await.status, 200);
    let run = house.in_state(&path, "cancelled").await;
    until("its call is called off", || house.tools.open_connections() == 0).await;
    let tree = house.get(&format!("/v1/agents/runs?root={}", run["id"].as_str().unwrap())).await;
    let rows = tree["data"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["state"] == "cancelled"), "{tree:#}");
    while house.gateway.metric("switchpoint_agent_runs_active", &[RUNNING]).await > 0.0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_user_begins_only_so_many_runs_and_is_told_when_the_next_one_may_be() {
    let agents = r#"
[agents.plain]
route = "fast"
instructions = "Answer."
budget = { user_runs = "2/m" }
"#;
    let house = House::new(agents, |_| says("Hello.")).await;
    let ask = |user: &'static str| {
        let body = json!({"model": "agent/plain", "user": user,
            "messages": [{"role": "user", "content": "Hi"}]});
        let house = &house;
        async move { house.send(KEY, CHAT, &body, &[]).await }
    };
    for _ in 0..2 {
        assert_eq!(ask("ann").await.status, 200);
    }
    let refused = ask("ann").await;
    assert_eq!(code(&refused), (429, "rate_limited".to_owned()));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    // A minute, and the thousandth of it up to which what was counted leaves late.
    assert!((1..=61).contains(&wait), "{wait}");
    assert_eq!(house.model.requests().len(), 2, "no model was asked");
    let runs = house.get("/v1/agents/runs").await;
    assert_eq!(runs["data"].as_array().unwrap().len(), 2, "and no run begun");
    assert_eq!(ask("bob").await.status, 200);
}

#[tokio::test]
async fn a_paused_agent_begins_nothing_after_a_restart_either() {
    let folder = tempfile::tempdir().unwrap();
    let agents = format!(
        "{}{TEAM}[keys.operator]\nsecret = \"sk-operator-key\"\nrole = \"operator\"\n",
        store(&folder.path().join("runs.db"))
    );
    let house = House::new(&agents, |_| says("Hello.")).await;
    let operator = "sk-operator-key";
    let door = |what| format!("/v1/agents/manager/{what}");
    let paused = house.send(operator, &door("pause"), &json!({}), &[]).await;
    assert_eq!(paused.status, 200, "{}", paused.text());
    let path = house.begin("manager", json!({"input": "Hi"})).await;
    assert_eq!(house.get(&path).await["state"], "queued");
    let house = house.crash(&agents).await;
    assert_eq!(house.get(&path).await["state"], "queued");
    let other = house.begin("researcher", json!({"input": "Hi", "wait": "10s"})).await;
    house.in_state(&other, "completed").await;
    assert_eq!(house.get(&path).await["state"], "queued", "others go on, it does not");
    assert_eq!(house.send(operator, &door("resume"), &json!({}), &[]).await.status, 200);
    house.in_state(&path, "completed").await;
}
