//! A config on trial: who tries it, what promotes it, and what takes it back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::support::client::{CHAT, chat, open, request};
use crate::support::gateway::KEY;
use crate::support::replies::{self, ask as question, ask_stream, shown};
use crate::support::until;

/// An upstream whose model `broken` fails.
async fn shaky() -> Upstream {
    Upstream::answering(|request| match request.model.as_str() {
        "broken" => Script::json(500, r#"{"error":{"message":"no"}}"#),
        _ => Script::json(200, REPLY),
    })
    .await
}

fn leading_to(upstream: &Upstream, model: &str) -> String {
    let route = route("fast", &[&format!("up/{model}")], "attempts = 1");
    config("", &(provider("up", upstream) + &route))
}

async fn start(upstream: &Upstream) -> Gateway {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), leading_to(upstream, "old")).unwrap();
    Gateway::run(folder, "").await
}

/// Puts a config that leads to `model` on trial.
async fn try_out(gateway: &Gateway, text: &str, terms: Value) -> Value {
    let body = json!({"text": text, "canary": terms});
    let state = order(gateway, "/admin/config/apply", &body).await;
    assert!(state["canary"].is_object(), "{state:#}");
    state
}

/// How many requests the upstream had for each model.
fn asked(upstream: &Upstream) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for request in upstream.requests() {
        *counts.entry(request.model).or_default() += 1;
    }
    counts
}

async fn generation(gateway: &Gateway, number: u64) -> Value {
    look(gateway, &format!("/admin/config/generations/{number}")).await
}

#[tokio::test]
async fn the_share_of_calls_that_was_ordered_tries_a_config_and_all_places_show_it() {
    let upstream = shaky().await;
    let gateway = start(&upstream).await;
    let terms = json!({"share": "25%", "for": "1h", "rollback_on": "error_rate > 0.02"});
    let state = try_out(&gateway, &leading_to(&upstream, "new"), terms).await;
    let trial = &state["canary"];
    assert_eq!((&state["generation"], &trial["generation"]), (&json!(1), &json!(2)));
    assert_eq!((&trial["share"], &trial["sticky"]), (&json!(0.25), &json!("session")));
    for _ in 0..100 {
        assert_eq!(chat(&gateway, question("fast")).await.status, 200);
    }
    let expected = [("new".to_owned(), 25), ("old".to_owned(), 75)];
    assert_eq!(asked(&upstream), BTreeMap::from(expected));
    let records = gateway.recorded(100).await;
    for record in &records {
        let went = if record["model"] == "new" { 2 } else { 1 };
        assert_eq!(record["generation"], went, "{record}");
    }
    let trial = state_when_counted(&gateway, 100.0).await;
    assert_eq!(trial["canary"]["requests"], 25.0);
    assert_eq!(gateway.metric("switchpoint_canary_generation", &[]).await.to_string(), "2");
    let tried = gateway
        .metric("switchpoint_canary_calls_total", &["side=\"canary\"", "outcome=\"ok\""])
        .await;
    assert_eq!(tried.to_string(), "25");
    let rows = history(&gateway).await;
    assert_eq!(rows[0], entry(2, "apply", "admin", "canary"));
    let explained = explanations(&gateway).await;
    assert_eq!(explained, BTreeSet::from([(1, false), (2, true)]));
    assert_eq!(file(&gateway), leading_to(&upstream, "old"), "not before it is promoted");
}

/// The figures once so many calls are in them.
async fn state_when_counted(gateway: &Gateway, calls: f64) -> Value {
    let all = |state: &Value| {
        let requests = |side: &str| state["canary"][side]["requests"].as_f64().unwrap_or(0.0);
        requests("canary") + requests("baseline") >= calls
    };
    becomes(gateway, "all calls are counted", all).await["canary"].clone()
}

/// By which generations explanations went, and whether they said that it is on trial.
async fn explanations(gateway: &Gateway) -> BTreeSet<(u64, bool)> {
    let mut seen = BTreeSet::new();
    for _ in 0..8 {
        let told = post(gateway.address, "/v1/explain", KEY, question("fast")).await.json();
        seen.insert((told["generation"].as_u64().unwrap(), told["canary"].as_bool().unwrap()));
    }
    seen
}

#[tokio::test]
async fn a_config_whose_calls_fail_is_taken_back_by_itself_and_the_history_says_why() {
    let upstream = shaky().await;
    let gateway = start(&upstream).await;
    let terms = json!({"share": "50%", "for": "1h", "rollback_on": "error_rate > 0.02",
        "min_requests": 4});
    try_out(&gateway, &leading_to(&upstream, "broken"), terms).await;
    let mut calls = 0;
    while !state(&gateway).await["canary"].is_null() {
        chat(&gateway, question("fast")).await;
        calls += 1;
        assert!(calls < 1000, "it is never taken back");
    }
    let broken = asked(&upstream)["broken"];
    assert!(broken >= 4, "judged after {broken}");
    for _ in 0..10 {
        assert_eq!(chat(&gateway, question("fast")).await.status, 200);
    }
    assert_eq!(asked(&upstream)["broken"], broken);
    let told = becomes_state(&gateway, 2, "rolled_back").await;
    assert!(told["why"].as_str().unwrap().starts_with("error_rate > 0.02 (error_rate = 1.0"));
    assert_eq!(state(&gateway).await["generation"], 1);
    let ended = gateway.metric("switchpoint_canaries_total", &["rolled_back"]).await;
    assert_eq!(ended.to_string(), "1");
    let told =
        || gateway.output().iter().any(|line| line.contains("the trial of a config is over"));
    until("it is written", told).await;
    let trail = look(&gateway, "/admin/audit?what=config.rolled_back").await;
    assert_eq!(trail["data"][0]["who"], "canary", "{trail:#}");
}

async fn becomes_state(gateway: &Gateway, number: u64, wanted: &str) -> Value {
    let began = tokio::time::Instant::now();
    loop {
        let told = generation(gateway, number).await;
        if told["state"] == wanted {
            return told;
        }
        assert!(began.elapsed() < PATIENCE, "{number} never was {wanted}: {told:#}");
    }
}

#[tokio::test]
async fn a_config_that_did_well_is_promoted_at_its_end_and_written() {
    let upstream = shaky().await;
    let gateway = start(&upstream).await;
    std::fs::write(gateway.folder().join("next.toml"), leading_to(&upstream, "new")).unwrap();
    let arguments = [
        "apply",
        "next.toml",
        "--canary",
        "50%",
        "--for",
        "2s",
        "--rollback-on",
        "error_rate > 0.02",
        "--min-requests",
        "2",
        "--wait",
    ];
    let calls = async {
        becomes(&gateway, "the trial", |state| !state["canary"].is_null()).await;
        for _ in 0..4 {
            assert_eq!(chat(&gateway, question("fast")).await.status, 200);
        }
    };
    let ((done, said), ()) = tokio::join!(command(&gateway, &arguments), calls);
    assert!(done && said.contains("generation 2 is on trial until"), "{said}");
    assert!(said.contains("generation 2 is live: 2 calls have tried it"), "{said}");
    assert_eq!(file(&gateway), leading_to(&upstream, "new"));
    assert_eq!(state(&gateway).await["generation"], 2);
    assert_eq!(generation(&gateway, 1).await["state"], "past");
}

#[tokio::test]
async fn a_config_that_too_few_calls_have_tried_is_not_promoted() {
    let upstream = shaky().await;
    let gateway = start(&upstream).await;
    for (number, condition) in [(2, json!("error_rate > 0.02")), (3, Value::Null)] {
        let terms = json!({"share": "50%", "for": "100ms", "rollback_on": condition});
        try_out(&gateway, &leading_to(&upstream, "new"), terms).await;
        let told = becomes_state(&gateway, number, "rolled_back").await;
        assert_eq!(told["why"], "0 calls have tried it, of 20 that it takes to tell");
    }
}

#[tokio::test]
async fn a_session_stays_with_the_config_that_it_came_to_first_and_so_does_a_key() {
    let upstream = shaky().await;
    let gateway = start(&upstream).await;
    let served = async |header: (&'static str, String)| {
        let mut asked = request(http::Method::POST, CHAT, KEY, question("fast").into());
        asked.headers_mut().insert(header.0, header.1.parse().unwrap());
        let answer = open(gateway.address, asked).await.whole().await;
        answer.header("x-switchpoint-model").unwrap().to_owned()
    };
    try_out(&gateway, &leading_to(&upstream, "new"), json!({"share": "50%", "for": "1h"})).await;
    let mut sides = BTreeSet::new();
    for session in 0..12 {
        let name = || ("x-switchpoint-session", format!("session-{session}"));
        let first = served(name()).await;
        for _ in 0..3 {
            assert_eq!(served(name()).await, first);
        }
        sides.insert(first);
    }
    assert_eq!(sides.len(), 2, "both were tried");
    order(&gateway, "/admin/config/abort", &Value::Null).await;
    let terms = json!({"share": "50%", "for": "1h", "sticky": "key"});
    try_out(&gateway, &leading_to(&upstream, "new"), terms).await;
    let first = served(("x-none", String::new())).await;
    for _ in 0..5 {
        assert_eq!(served(("x-none", String::new())).await, first);
    }
}

#[tokio::test]
async fn a_trial_is_ended_by_hand_or_by_a_change_of_the_file() {
    let upstream = shaky().await;
    let gateway = start(&upstream).await;
    let text = leading_to(&upstream, "new");
    let terms = || json!({"share": "10%", "for": "1h"});
    try_out(&gateway, &text, terms()).await;
    let (status, told) = ask(&gateway, "/admin/config/apply", &json!({"text": text})).await;
    assert_eq!(status, 409, "{told}");
    let (done, said) = command(&gateway, &["rollback"]).await;
    assert!(done && said.starts_with("generation 1 is served"), "{said}");
    assert_eq!(generation(&gateway, 2).await["state"], "aborted");
    try_out(&gateway, &text, terms()).await;
    let (done, said) = command(&gateway, &["promote"]).await;
    assert!(done && said.starts_with("generation 3 is served"), "{said}");
    assert_eq!(file(&gateway), text);
    try_out(&gateway, &leading_to(&upstream, "newer"), terms()).await;
    let by_hand = leading_to(&upstream, "by-hand");
    std::fs::write(gateway.folder().join("config.toml"), by_hand).unwrap();
    becomes(&gateway, "the change by hand", |state| state["generation"] == 5).await;
    assert_eq!(generation(&gateway, 4).await["state"], "replaced");
    for path in ["/admin/config/promote", "/admin/config/abort"] {
        assert_eq!(ask(&gateway, path, &Value::Null).await.0, 409, "{path}");
    }
}

#[tokio::test]
async fn terms_that_make_no_sense_are_refused() {
    let upstream = shaky().await;
    let gateway = start(&upstream).await;
    for (terms, complaint) in [
        (json!({"share": "101%"}), "`share`"),
        (json!({}), "`share`"),
        (json!({"share": "5%", "for": "soon"}), "`canary.for`"),
        (json!({"share": "5%", "sticky": "team"}), "`canary.sticky`"),
        (json!({"share": "5%", "rollback_on": "errors > 1"}), "`canary.rollback_on`"),
        (json!({"share": "5%", "rolback_on": "error_rate > 1"}), "rollback_on"),
    ] {
        let body = json!({"text": leading_to(&upstream, "new"), "canary": terms});
        let (status, told) = ask(&gateway, "/admin/config/apply", &body).await;
        let message = told["error"]["message"].as_str().unwrap();
        assert!(status == 400 && message.contains(complaint), "{terms}: {message}");
    }
}

/// A config in which everything names `n`: the key's tag, the target, the classifier, and a header.
fn storm(upstream: &Upstream, n: usize) -> String {
    let up = provider("up", upstream) + &format!("headers = {{ x-config = \"{n}\" }}\n\n");
    let key = format!("[keys.storm]\nsecret = \"sk-storm\"\ntags = {{ config = \"{n}\" }}\n\n");
    let auto = "[routes.fast]\nstrategy = \"task\"\ntasks = { code = \"work\" }\n\
                default = \"work\"\nclassifier = { kind = \"model\", route = \"judge\" }\n\n";
    let targets = [("work", format!("up/work-{n}")), ("judge", format!("up/judge-{n}"))];
    let routes: String =
        targets.iter().map(|(name, target)| route(name, &[target], "attempts = 1")).collect();
    config("", &(up + &key + auto + &routes))
}

async fn stormy() -> Upstream {
    Upstream::answering(|request| {
        if request.model.starts_with("judge") {
            return Script::json(200, &REPLY.replace("Hello there.", "code"));
        }
        let streams = String::from_utf8_lossy(&request.body).contains("\"stream\":true");
        if streams { Script::stream(replies::answer()) } else { Script::json(200, REPLY) }
    })
    .await
}

/// Reloads, trials and ways back, of each a few.
async fn rounds(gateway: &Gateway, upstream: &Upstream, count: usize) {
    let mut next = 0;
    let mut another = || {
        next += 1;
        storm(upstream, next)
    };
    for _ in 0..count {
        std::fs::write(gateway.folder().join("config.toml"), another()).unwrap();
        order(gateway, "/admin/config/reload", &Value::Null).await;
        let terms = json!({"share": "50%", "for": "1h", "rollback_on": "requests >= 6",
            "min_requests": 6});
        try_out(gateway, &another(), terms).await;
        becomes(gateway, "the way back by itself", |state| state["canary"].is_null()).await;
        for ending in ["/admin/config/promote", "/admin/config/abort"] {
            try_out(gateway, &another(), json!({"share": "50%", "for": "1h"})).await;
            state_when_counted(gateway, 4.0).await;
            order(gateway, ending, &Value::Null).await;
        }
        order(gateway, "/admin/config/apply", &json!({"text": another()})).await;
        order(gateway, "/admin/config/rollback", &json!({})).await;
    }
}

#[tokio::test]
async fn a_storm_of_reloads_trials_and_rollbacks_fails_no_call_and_mixes_no_two_configs() {
    const ROUNDS: usize = 6;
    let upstream = stormy().await;
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.toml"), storm(&upstream, 0)).unwrap();
    let gateway = Gateway::run(folder, "").await;
    let (over, calls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = async |who: usize| {
        while !over.load(Ordering::Relaxed) {
            // Each says something else, so that its kind of work is asked for.
            let n = calls.fetch_add(2, Ordering::Relaxed);
            let own = |body: String, n: usize| body.replace("Hi", &format!("Call {n} of {who}"));
            let whole = post(gateway.address, CHAT, "sk-storm", own(question("fast"), n)).await;
            assert_eq!((whole.status, whole.text()), (200, REPLY));
            let body = own(ask_stream("fast"), n + 1);
            let stream = post(gateway.address, CHAT, "sk-storm", body).await;
            assert_eq!((stream.status, stream.text()), (200, shown().as_str()));
        }
    };
    let changes = async {
        rounds(&gateway, &upstream, ROUNDS).await;
        over.store(true, Ordering::Relaxed);
    };
    tokio::join!(changes, load(1), load(2), load(3), load(4));
    let calls = calls.load(Ordering::Relaxed);
    for request in upstream.requests() {
        let (_, n) = request.model.rsplit_once('-').unwrap();
        assert_eq!(request.header("x-config"), Some(n), "{}", request.model);
    }
    let rows = all_calls(&gateway).await;
    assert_eq!(rows.iter().filter(|row| row["purpose"] == "client").count(), calls);
    let tried = consistent(&rows);
    println!("{calls} calls went by {tried} configs");
    assert!(tried > ROUNDS * 4, "{calls} calls went by {tried} configs");
}

/// How many generations the calls went by, of which each stands for one config, in all that was
/// done for its calls.
fn consistent(rows: &[Value]) -> usize {
    let mut configs = BTreeMap::new();
    let mut asked: BTreeMap<u64, [usize; 2]> = BTreeMap::new();
    for row in rows {
        assert_eq!(row["outcome"], "ok", "{row}");
        let generation = row["generation"].as_u64().unwrap();
        let (kind, n) = row["model"].as_str().unwrap().rsplit_once('-').unwrap();
        let known = configs.entry(generation).or_insert_with(|| n.to_owned());
        assert_eq!(known, n, "generation {generation} is one config: {row}");
        assert_eq!(row["tags"]["config"], n, "the key is of the same config: {row}");
        asked.entry(generation).or_default()[usize::from(kind == "judge")] += 1;
    }
    for (generation, [work, judge]) in asked {
        assert_eq!(work, judge, "generation {generation} asked for other's calls");
    }
    configs.len()
}

async fn all_calls(gateway: &Gateway) -> Vec<Value> {
    let (mut rows, mut after) = (Vec::new(), String::new());
    loop {
        let mut page = look(gateway, &format!("/admin/calls?limit=1000{after}")).await;
        rows.extend(page["data"].as_array_mut().map(std::mem::take).unwrap());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return rows,
        }
    }
}
