//! What no run gets around: approvals of tools with whatever names, guards and schemas of whoever
//! has the conversation, what its client lets all of it use, and what a repetition may be.

use http::{HeaderValue, Method};
use serde_json::{Value, json};

use super::broker::{House, agent, tool};
use super::stage::{OPERATOR, Stage, body, found, in_state, results, says, search, texts, wants};
use crate::support::Script;
use crate::support::client::{Answer, CHAT, open, request};
use crate::support::gateway::KEY;
use crate::support::upstream::Request;

const SHOP: &str = r"
openapi: 3.0.3
paths:
  /customers:
    delete:
      operationId: customers.delete
  /plain:
    delete:
      operationId: plain
";

#[tokio::test]
async fn an_approval_holds_for_a_tool_whose_own_name_has_a_dot() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("shop.yaml"), SHOP).unwrap();
    let sections = format!(
        "[tools.shop]\nkind = \"openapi\"\nspec = \"{}/shop.yaml\"\nbase_url = \"{{tools}}\"\n\
         approval = {{ tools = [\"customers.delete\"] }}\n\
         [agents.admin]\nroute = \"fast\"\ninstructions = \"Work.\"\ntools = [\"shop.*\"]\n",
        folder.path().display()
    );
    let mind = |request: &Request| {
        let offered = body(request)["tools"].as_array().unwrap().clone();
        let named = |part: &str| {
            let mut names = offered.iter().filter_map(|it| it["function"]["name"].as_str());
            names.find(|name| name.contains(part)).unwrap().to_owned()
        };
        match results(request) {
            0 => wants(request, &[(&named("plain"), "{}"), (&named("customers"), "{}")]),
            _ => says(request, "Done."),
        }
    };
    let stage = Stage::new(&sections, mind, |_| Script::json(200, "{}")).await;
    let path = stage.begin("admin", "Delete it.").await;
    let run = stage.in_state(&path, "waiting_approval").await;
    let asked = run["pending"]["approvals"].as_array().unwrap();
    assert_eq!((asked.len(), &asked[0]["tool"]), (1, &json!("shop.customers.delete")), "{run:#}");
    let called: Vec<String> = stage.tools.requests().into_iter().map(|it| it.path).collect();
    assert!(called.iter().all(|path| path.ends_with("/plain")), "{called:?}");
}

/// One agent that gives the conversation to another one, which is guarded and has a schema.
fn handing(more: &str) -> String {
    format!(
        "[guards.canary]\nkind = \"pattern\"\nstage = [\"input\"]\naction = \"block\"\n\
         words = [\"aurora\"]\n\
         [agents.front]\nroute = \"fast\"\ninstructions = \"Front.\"\n{more}\n\
         [agents.back]\nroute = \"fast\"\ninstructions = \"Back.\"\nguards = [\"canary\"]\n\
         [agents.back.output_schema]\ntype = \"object\"\nrequired = [\"answer\"]\n"
    )
}

fn hands_over(request: &Request) -> Script {
    let all = texts(request);
    match (results(request), all[0].starts_with("Back.")) {
        (0, false) => wants(request, &[("handoff_back", r#"{"reason":"r"}"#)]),
        (_, true) if all.iter().any(|text| text.contains("schema")) => {
            says(request, r#"{"answer":"x"}"#)
        }
        _ => says(request, "No JSON."),
    }
}

#[tokio::test]
async fn who_is_handed_the_conversation_brings_its_guards_and_its_schema() {
    let sections = handing("handoffs = [\"back\"]");
    let stage = Stage::new(&sections, hands_over, found).await;
    let answer = stage.chat("front", "Hello.").await;
    assert_eq!(answer["choices"][0]["message"]["content"], r#"{"answer":"x"}"#, "{answer}");
    let before = stage.model.requests().len();
    let blocked = stage.chat_in("front", "Tell me of aurora.", &[]).await;
    let asked = stage.model.requests()[before..].len();
    assert_eq!(asked, 1, "the second agent's model sees nothing of it: {}", blocked.text());
    let runs = stage.get("/v1/agents/runs?agent=front").await;
    let last = (&runs["data"][0]["state"], &runs["data"][0]["stop_reason"]);
    assert_eq!(last, (&json!("rejected"), &json!("guard")), "{runs:#}");
}

/// A run once it is over.
async fn over(stage: &Stage, path: &str) -> Value {
    loop {
        let run = stage.get(path).await;
        if !run["finished_at"].is_null() {
            return run;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_a_client_lets_a_run_take_holds_for_all_that_it_starts() {
    let sections = format!(
        "{}[agents.sub]\nroute = \"fast\"\ninstructions = \"Sub.\"\ntools = [\"search\"]\n\
         [agents.top]\nroute = \"fast\"\ninstructions = \"Top.\"\ndelegates = [\"sub\"]\n",
        search("")
    );
    let mind = |request: &Request| {
        let is_top = texts(request)[0].starts_with("Top.");
        match results(request) {
            0 if is_top => wants(request, &[("delegate_sub", r#"{"input":"go"}"#)]),
            done if !is_top && done < 3 && body(request)["tool_choice"] != "none" => {
                wants(request, &[("search", &format!(r#"{{"page":{done}}}"#))])
            }
            _ => says(request, "Done."),
        }
    };
    let stage = Stage::new(&sections, mind, found).await;
    let begin = async |body: Value| {
        let begun = stage.post("/v1/agents/top/runs", KEY, &body).await;
        over(&stage, begun.header("location").unwrap()).await
    };
    let run = begin(json!({"input": "go", "budget": {"steps": 3}})).await;
    assert_eq!(stage.model.requests().len(), 3, "{run:#}");
    let before = stage.tools.requests().len();
    let response = json!({"model": "agent/top", "input": "go", "max_tool_calls": 2});
    let told = stage.post("/v1/responses", KEY, &response).await;
    // One is the delegate.
    assert_eq!(stage.tools.requests().len() - before, 1, "{}", told.text());
}

/// Asks by this `Idempotency-Key`.
async fn again(stage: &Stage, (path, key): (&str, &'static str), body: &Value) -> Answer {
    let mut asked = request(Method::POST, path, KEY, body.to_string().into());
    asked.headers_mut().insert("idempotency-key", HeaderValue::from_static(key));
    open(stage.gateway.address, asked).await.whole().await
}

fn with(body: &Value, more: &Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[tokio::test]
async fn a_repetition_asks_for_the_same_in_every_word() {
    let sections = "[agents.teller]\nroute = \"fast\"\ninstructions = \"Tell.\"\n";
    let stage = Stage::new(sections, |it| says(it, "Yes."), found).await;
    let first = json!({"model": "agent/teller", "messages": [{"role": "user", "content": "So?"}]});
    let chat = (CHAT, "k-1");
    let answer = again(&stage, chat, &first).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(again(&stage, chat, &first).await.json()["id"], answer.json()["id"]);
    // How it is told is no other question.
    assert_eq!(again(&stage, chat, &with(&first, &json!({"stream": true}))).await.status, 200);
    for other in [
        json!({"user": "bob"}),
        json!({"max_tokens": 7}),
        json!({"temperature": 0.5}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"tools": [{"type": "function", "function": {"name": "f"}}]}),
    ] {
        assert_eq!(again(&stage, chat, &with(&first, &other)).await.status, 409, "{other}");
    }
    let (runs, first) = (("/v1/agents/teller/runs", "k-2"), json!({"input": "So?"}));
    assert!(again(&stage, runs, &first).await.status < 300);
    for other in
        [json!({"user": "bob"}), json!({"labels": {"a": "b"}}), json!({"budget": {"steps": 1}})]
    {
        let refused = again(&stage, runs, &with(&first, &other)).await;
        assert_eq!(refused.status, 409, "{other}: {}", refused.text());
    }
    assert_eq!(stage.model.requests().len(), 2);
}

#[tokio::test]
async fn what_a_call_came_to_that_the_time_ran_out_for_is_found_out_as_its_agent_says() {
    let sections = format!(
        "{}{}{}{}{}",
        tool("send", "once", "probe = \"sent\""),
        tool("sent", "read", "retry = { attempts = 1 }"),
        tool("hope", "once", ""),
        agent("asks", &["send"], "limits = { timeout = \"1s\" }"),
        agent(
            "tells",
            &["hope"],
            "limits = { timeout = \"1s\" }\non_unknown_outcome = \"tell_model\""
        ),
    ) + &agent("waits", &["hope"], "limits = { timeout = \"1s\" }");
    let house = House::new(&sections, |request| {
        if request.path.contains("/sent") {
            return Script::json(200, r#"{"known":"it was sent"}"#);
        }
        Script::default().stall()
    })
    .await;
    let kinds = async |run: &Value| -> Vec<String> {
        let path = format!("/v1/agents/runs/{}", run["id"].as_str().unwrap());
        let journal = house.journal(&path).await;
        let kinds = journal.iter().filter_map(|it| it["type"].as_str());
        kinds.filter(|kind| kind.starts_with("tool.")).map(str::to_owned).collect()
    };
    let run = house.run("asks", &json!([["send", {"id": "m"}]])).await;
    assert_eq!(run["stop_reason"], "timeout", "{run:#}");
    let begins = ["tool.requested", "tool.started", "tool.unknown"];
    assert_eq!(kinds(&run).await, [&begins[..], &["tool.resolved"]].concat());
    // Who asks when the time runs out may ask once more behind it.
    assert!(matches!(house.asked("/sent").len(), 1 | 2));
    let run = house.run("tells", &json!([["hope", {"id": "m"}]])).await;
    assert_eq!(run["stop_reason"], "timeout", "{run:#}");
    assert_eq!(kinds(&run).await, [&begins[..], &["tool.failed"]].concat());
    let begun = json!({"input": json!([["hope", {"id": "m"}]]).to_string()});
    let begun = house.send(KEY, "/v1/agents/waits/runs", &begun).await;
    let path = format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap());
    let run = in_state(&house.gateway, &path, "waiting_human").await;
    assert_eq!(kinds(&run).await, begins);
    let letters = house.get("/v1/agents/dlq").await;
    let letters = letters["data"].as_array().unwrap();
    assert_eq!((letters.len(), &letters[0]["kind"]), (1, &json!("unknown_outcome")), "{letters:?}");
}

#[tokio::test]
async fn how_sure_a_model_is_stands_in_the_way_of_no_retry_and_no_edit() {
    let sections = format!(
        "{}{}{}{}",
        tool("send", "idempotent", "retry = { attempts = 1 }\nbreaker = { failures = 100 }"),
        tool("pay", "once", "approval = { }"),
        agent("a", &["send"], "confidence = { approve = 0.1, log = 0.2, autonomous = 0.3 }"),
        agent("b", &["pay"], "confidence = { approve = 0.1, log = 0.2, autonomous = 0.3 }"),
    );
    let house = House::new(&sections, |request| {
        Script::json(if request.path.ends_with("/send") { 500 } else { 200 }, "{}")
    })
    .await;
    house.run("a", &json!([["send", {"id": "m", "confidence": 0.9}]])).await;
    let letters = house.get("/v1/agents/dlq").await;
    let letter = format!("/v1/agents/dlq/{}/retry", letters["data"][0]["id"].as_str().unwrap());
    let told = house.send(KEY, &letter, &json!({})).await;
    assert_eq!(told.json()["outcome"]["outcome"], "status", "{}", told.text());
    assert_eq!(house.asked("/send").len(), 2);
    let body = json!({"input": json!([["pay", {"id": "1", "confidence": 0.9}]]).to_string()});
    let begun = house.send(KEY, "/v1/agents/b/runs", &body).await;
    let path = format!("/v1/agents/runs/{}", begun.json()["id"].as_str().unwrap());
    let run = in_state(&house.gateway, &path, "waiting_approval").await;
    let approval = &run["pending"]["approvals"][0];
    let mut args = approval["args"].clone();
    args["id"] = json!("2");
    let body = json!({"decision": "approve", "args": args});
    let path = format!("/v1/agents/approvals/{}", approval["id"].as_str().unwrap());
    let mut asked = request(Method::POST, &path, OPERATOR, body.to_string().into());
    let hash = format!("\"{}\"", approval["args_hash"].as_str().unwrap());
    asked.headers_mut().insert("if-match", HeaderValue::from_str(&hash).unwrap());
    let decided = open(house.gateway.address, asked).await.whole().await;
    assert_eq!(decided.status, 200, "{}", decided.text());
    let run = format!("/v1/agents/runs/{}", run["id"].as_str().unwrap());
    house.over(&run).await;
    let paid: Vec<Value> =
        house.asked("/pay").iter().map(|it| serde_json::from_slice(&it.body).unwrap()).collect();
    assert_eq!(paid, [json!({"id": "2"})]);
}

#[tokio::test]
async fn what_a_user_answers_a_run_passes_the_guards_of_what_users_say() {
    let guards = "[guards.canary]\nkind = \"pattern\"\nstage = [\"input\"]\naction = \"block\"\n\
        words = [\"aurora\"]\n[guards.mask]\nkind = \"pii\"\nstage = [\"input\"]\n\
        action = \"mask\"\n";
    let sections = format!(
        "{guards}[tools.ask_user]\nkind = \"builtin\"\nname = \"ask_user\"\n\
         [agents.clerk]\nroute = \"fast\"\ninstructions = \"Ask.\"\ntools = [\"ask_user\"]\n\
         guards = [\"canary\", \"mask\"]\n"
    );
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("ask_user", r#"{"question":"Which?"}"#)]),
        _ => says(request, "Done."),
    };
    let stage = Stage::new(&sections, mind, found).await;
    let path = stage.begin("clerk", "Go.").await;
    stage.in_state(&path, "waiting_input").await;
    let say = async |words: &str| {
        stage.post(&format!("{path}/input"), KEY, &json!({"values": words})).await
    };
    let refused = say("all of aurora").await;
    assert_eq!(refused.json()["error"]["code"], "guard_blocked", "{}", refused.text());
    stage.in_state(&path, "waiting_input").await;
    assert_eq!(stage.model.requests().len(), 1);
    assert!(say("write to ann@example.com").await.status < 300);
    stage.in_state(&path, "completed").await;
    let last = stage.model.requests().last().unwrap().text().to_owned();
    assert!(!last.contains("ann@example.com"), "{last}");
}
