//! Routes by kind of work: named by the client, or told by examples or by a model, once for each
//! conversation, and never in the way of an answer.

use std::time::Duration;

use tokio::time::Instant;

use serde_json::{Value, json};

use super::{ask_with, body, count, counted, well};
use crate::support::client::chat;
use crate::support::gateway::route;
use crate::support::replies::{REPLY, ask};
use crate::support::upstream::Request;
use crate::support::{Gateway, Script, Upstream};

/// A route by task before `up/coder` for code, `up/writer` for what is creative, and `up/usual`.
fn auto(classifier: &str) -> String {
    let routes = ["coder", "writer", "usual"].map(|name| {
        let cap = if name == "coder" { "max_output_tokens = 50" } else { "" };
        route(name, &[&format!("up/{name}")], cap)
    });
    format!(
        "[routes.auto]\nstrategy = \"task\"\ndefault = \"usual\"\n\
         tasks = {{ code = \"coder\", creative = \"writer\" }}\n{classifier}\n{}",
        routes.concat()
    )
}

fn says(text: &str) -> String {
    json!({"model": "auto", "messages": [{"role": "user", "content": text}]}).to_string()
}

fn turn(first: &str, more: &str) -> String {
    let message = |role: &str, text: &str| json!({"role": role, "content": text});
    let messages = [message("user", first), message("assistant", "Yes?"), message("user", more)];
    json!({"model": "auto", "messages": messages}).to_string()
}

#[tokio::test]
async fn a_client_names_the_kind_of_work_by_a_header_or_by_the_model() {
    let upstream = Upstream::start(well(&["coder", "writer", "usual"])).await;
    let gateway = Gateway::before(&upstream, &auto("")).await;
    let reply = ask_with(&gateway, &[("x-switchpoint-task", "code")], ask("auto")).await;
    assert_eq!((reply.status, reply.header("x-switchpoint-model")), (200, Some("coder")));
    assert_eq!(reply.header("x-switchpoint-task"), Some("code"));
    assert_eq!(reply.header("x-switchpoint-route"), Some("auto"));
    let reply = chat(&gateway, ask("auto/creative")).await;
    assert_eq!(reply.header("x-switchpoint-model"), Some("writer"));
    assert_eq!(reply.header("x-switchpoint-task"), Some("creative"));
    // A kind that has no route of its own.
    let reply = ask_with(&gateway, &[("x-switchpoint-task", "translation")], ask("auto")).await;
    assert_eq!(reply.header("x-switchpoint-model"), Some("usual"));
    assert_eq!(reply.header("x-switchpoint-task"), Some("translation"));
    for (task, by) in [("code", "header"), ("creative", "alias"), ("translation", "header")] {
        let labels = [format!("task=\"{task}\""), format!("by=\"{by}\"")];
        let labels = labels.each_ref().map(String::as_str);
        assert_eq!(counted(&gateway, "switchpoint_tasks_total", &labels).await, 1, "{task}");
    }
    assert_eq!(gateway.recorded(3).await[0]["task"], "code");
}

#[tokio::test]
async fn a_kind_of_work_that_there_is_not_is_the_clients_mistake() {
    let upstream = Upstream::start(well(&["coder", "writer", "usual"])).await;
    let gateway = Gateway::before(&upstream, &auto("")).await;
    let reply = ask_with(&gateway, &[("x-switchpoint-task", "cooking")], ask("auto")).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("invalid_request")));
    assert!(reply.text().contains("`cooking`"), "{}", reply.text());
    assert_eq!(chat(&gateway, ask("auto/cooking")).await.status, 404);
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn the_limits_that_count_are_those_of_the_route_for_the_task() {
    let upstream = Upstream::answering(|request| classified(request, "code")).await;
    let gateway = Gateway::before(&upstream, &(auto(BY_MODEL) + JUDGE)).await;
    let reply = chat(&gateway, says("Fix this function.")).await;
    assert_eq!(reply.header("x-switchpoint-model"), Some("coder"));
    let asked = body(upstream.requests().last().unwrap());
    let most = asked.get("max_tokens").or_else(|| asked.get("max_completion_tokens"));
    assert_eq!(most, Some(&50.into()), "{asked}");
}

const EMBED: &str = "[routes.embed]\ntargets = [\"up/embedder\"]\n";
const BY_EXAMPLES: &str = "classifier = { kind = \"examples\", route = \"embed\", min_score = 0.8, \
                           examples = { code = [\"fix this function\", \"debug it\"], creative = [\"write a poem\"] } }";

/// Vectors of two dimensions: what has to do with code, and what with poems.
fn embedded(request: &Request) -> Script {
    if request.model != "embedder" {
        return Script::json(200, REPLY);
    }
    let asked = body(request);
    let texts = match &asked["input"] {
        Value::Array(texts) => texts.clone(),
        text => vec![text.clone()],
    };
    let vector = |text: &Value| {
        let text = text.as_str().unwrap();
        let code = text.contains("function") || text.contains("debug");
        let poem = text.contains("poem");
        // What is neither is as near to one as to the other.
        if code == poem { json!([0.7, 0.7]) } else { json!([f64::from(code), f64::from(poem)]) }
    };
    let data = texts
        .iter()
        .enumerate()
        .map(|(at, text)| json!({"object": "embedding", "index": at, "embedding": vector(text)}));
    let data: Vec<Value> = data.collect();
    let usage = json!({"prompt_tokens": 5, "total_tokens": 5});
    let body = json!({"object": "list", "data": data, "model": "embedder", "usage": usage});
    Script::json(200, &body.to_string())
}

#[tokio::test]
async fn the_nearest_example_tells_the_kind_of_work_once_for_each_conversation() {
    let upstream = Upstream::answering(embedded).await;
    let gateway = Gateway::before(&upstream, &(auto(BY_EXAMPLES) + EMBED)).await;
    let first = "This function is wrong.";
    for (body, embedded) in [
        // The examples, and the question.
        (says(first), 2),
        (turn(first, "Now write a poem."), 2),
        (turn(first, "And another poem."), 2),
        (says("debug this"), 3),
    ] {
        let reply = chat(&gateway, body).await;
        assert_eq!(reply.header("x-switchpoint-model"), Some("coder"), "{}", reply.text());
        assert_eq!(reply.header("x-switchpoint-task"), Some("code"));
        assert_eq!(count(&upstream, "embedder"), embedded);
    }
    let reply = chat(&gateway, says("A poem, please.")).await;
    assert_eq!(reply.header("x-switchpoint-model"), Some("writer"));
    let labels = ["task=\"code\"", "by=\"examples\""];
    assert_eq!(counted(&gateway, "switchpoint_tasks_total", &labels).await, 4);
}

#[tokio::test]
async fn what_is_near_to_no_example_goes_to_the_default() {
    let upstream = Upstream::answering(embedded).await;
    let gateway = Gateway::before(&upstream, &(auto(BY_EXAMPLES) + EMBED)).await;
    let reply = chat(&gateway, says("How are you?")).await;
    assert_eq!((reply.status, reply.header("x-switchpoint-model")), (200, Some("usual")));
    assert_eq!(reply.header("x-switchpoint-task"), None);
    let labels = ["task=\"none\"", "by=\"default\""];
    assert_eq!(counted(&gateway, "switchpoint_tasks_total", &labels).await, 1);
}

const JUDGE: &str = "[routes.judge]\ntargets = [\"up/judge\"]\n";
const BY_MODEL: &str =
    "classifier = { kind = \"model\", route = \"judge\", timeout = \"400ms\", ttl = \"1h\" }";

fn classified(request: &Request, word: &str) -> Script {
    if request.model != "judge" {
        return Script::json(200, REPLY);
    }
    let mut reply: Value = serde_json::from_str(REPLY).unwrap();
    reply["choices"][0]["message"]["content"] = word.into();
    Script::json(200, &reply.to_string())
}

#[tokio::test]
async fn a_model_tells_the_kind_of_work_on_the_bill_of_the_callers_key() {
    for word in ["code", " Code.\n", "\"code\""] {
        let upstream = Upstream::answering(move |request| classified(request, word)).await;
        let gateway = Gateway::before(&upstream, &(auto(BY_MODEL) + JUDGE)).await;
        let first = "Fix this.";
        for body in [says(first), turn(first, "And this."), turn(first, "And that.")] {
            let reply = chat(&gateway, body).await;
            assert_eq!(reply.header("x-switchpoint-model"), Some("coder"), "{word:?}");
        }
        assert_eq!(count(&upstream, "judge"), 1, "once for the conversation");
        let records = gateway.recorded(4).await;
        let classifier: Vec<_> =
            records.iter().filter(|record| record["purpose"] == "classifier").collect();
        assert_eq!(classifier.len(), 1, "{records:#?}");
        assert_eq!(
            (&classifier[0]["key"], &classifier[0]["model"]),
            (&json!("test"), &json!("judge"))
        );
        assert_eq!(classifier[0]["input_tokens"], 11);
    }
}

#[tokio::test]
async fn a_classifier_that_fails_hangs_or_talks_is_not_in_the_way() {
    let judges = [
        Script::default().stall(),
        Script::json(500, "{}"),
        Script::default().reset(),
        classified(&judged(), "I would rather not say"),
    ];
    for judge in judges {
        let upstream = Upstream::answering(move |request| match request.model.as_str() {
            "judge" => judge.clone(),
            _ => Script::json(200, REPLY),
        })
        .await;
        let gateway = Gateway::before(&upstream, &(auto(BY_MODEL) + JUDGE)).await;
        let started = Instant::now();
        let reply = chat(&gateway, says("Fix this.")).await;
        assert_eq!((reply.status, reply.header("x-switchpoint-model")), (200, Some("usual")));
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        let records = gateway.recorded(2).await;
        assert!(records.iter().any(|record| record["purpose"] == "classifier"), "{records:#?}");
    }
}

fn judged() -> Request {
    Request {
        method: String::new(),
        path: String::new(),
        headers: Vec::new(),
        body: bytes::Bytes::new(),
        model: "judge".to_owned(),
        at: tokio::time::Instant::now(),
        variant: String::new(),
        connection: 0,
    }
}

#[tokio::test]
async fn a_decision_is_forgotten_when_its_time_is_over() {
    let upstream = Upstream::answering(|request| classified(request, "code")).await;
    let forgets = BY_MODEL.replace("1h", "1ms");
    let gateway = Gateway::before(&upstream, &(auto(&forgets) + JUDGE)).await;
    for asked in 1..=3 {
        chat(&gateway, says("Fix this.")).await;
        assert_eq!(count(&upstream, "judge"), asked);
    }
}

#[tokio::test]
async fn what_nobody_names_is_told_by_rules() {
    let upstream = Upstream::start(well(&["coder", "writer", "usual"])).await;
    for classifier in ["", "classifier = { kind = \"rules\" }"] {
        let gateway = Gateway::before(&upstream, &auto(classifier)).await;
        for (text, task, model) in [
            ("Write a Python function that parses a CSV file and add unit tests.", "code", "coder"),
            ("Schreibe ein Gedicht \u{fc}ber den Herbst am Meer.", "creative", "writer"),
            ("Hello, how are you today?", "chat", "usual"),
        ] {
            let reply = chat(&gateway, says(text)).await;
            assert_eq!(reply.header("x-switchpoint-model"), Some(model), "{text}");
            assert_eq!(reply.header("x-switchpoint-task"), Some(task), "{text}");
        }
        let labels = ["task=\"code\"", "by=\"rules\""];
        assert_eq!(counted(&gateway, "switchpoint_tasks_total", &labels).await, 1);
    }
}
