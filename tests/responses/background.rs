//! A response that is made while nobody waits comes to an end that can be looked up.

use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    TARGETS, answers, asks, assert_order, create, created, fetch, lasting, path, sections,
};
use crate::support::client::{chat, open, request};
use crate::support::gateway::KEY;
use crate::support::{Gateway, PATIENCE, Script, Upstream, until, within};

/// The models of `answers`, each of which takes its time.
fn slow(wait: Duration) -> Vec<(&'static str, Vec<Script>)> {
    let scripts = answers().into_iter();
    scripts
        .map(|(name, scripts)| {
            let late = |script: Script| {
                let mut late = Script::default().wait(wait);
                late.0.extend(script.0);
                late
            };
            (name, scripts.into_iter().map(late).collect())
        })
        .collect()
}

/// The response, when it is no longer being made.
async fn settled(gateway: &Gateway, id: &Value) -> Value {
    let began = Instant::now();
    loop {
        let now = fetch(gateway, id).await.json();
        if !matches!(now["status"].as_str(), Some("queued" | "in_progress")) {
            return now;
        }
        assert!(began.elapsed() < PATIENCE, "{now}");
    }
}

async fn begin(gateway: &Gateway, model: &str) -> Value {
    created(gateway, json!({"model": model, "input": "Hi", "background": true})).await
}

#[tokio::test]
async fn it_is_queued_at_once_then_under_way_then_done_under_the_same_id() {
    for target in TARGETS {
        let upstream = Upstream::start(slow(Duration::from_millis(300))).await;
        let gateway = Gateway::start("", &sections(&upstream)).await;
        let queued = begin(&gateway, target).await;
        assert_eq!((&queued["status"], &queued["background"]), (&json!("queued"), &json!(true)));
        upstream.asked(1).await;
        assert!(!upstream.only_request().text().contains("background"));
        assert_eq!(fetch(&gateway, &queued["id"]).await.json()["status"], "in_progress");
        let done = settled(&gateway, &queued["id"]).await;
        assert_eq!(done["status"], "completed", "{done}");
        for field in ["id", "created_at", "background"] {
            assert_eq!(done[field], queued[field], "{field}");
        }
        assert_eq!(done["usage"]["total_tokens"], 15);
        assert!(done["output"].to_string().contains("Hello there."), "{done}");
        let record = gateway.record().await;
        assert_eq!((&record["outcome"], &record["input_tokens"]), (&json!("ok"), &json!(11)));
        assert_eq!(gateway.stop().len(), 1);
    }
}

#[tokio::test]
async fn one_whose_id_is_told_is_in_the_store() {
    let upstream = Upstream::start([("verbatim", [Script::stream_head().stall()])]).await;
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start("", &lasting(&upstream, &folder)).await;
    let other = Gateway::start("", &lasting(&upstream, &folder)).await;
    for _ in 0..20 {
        let id = begin(&gateway, TARGETS[0]).await["id"].clone();
        // Who did not begin it takes it for one whose process has ended.
        let found = fetch(&other, &id).await;
        assert_eq!((found.status, &found.json()["id"]), (200, &id), "{}", found.text());
    }
}

#[tokio::test]
async fn one_that_fails_says_so() {
    let refusal = Script::json(400, r#"{"error":{"message":"Not like that.","type":"x"}}"#);
    let upstream =
        Upstream::start([("verbatim", [refusal]), ("chat", [Script::default().close()])]).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    for (target, message) in [(TARGETS[0], "Not like that."), (TARGETS[1], "broke its answer off")]
    {
        let failed = settled(&gateway, &begin(&gateway, target).await["id"]).await;
        assert_eq!(failed["status"], "failed");
        assert!(failed["error"]["code"].is_string(), "{failed}");
        assert_order(failed["error"]["message"].as_str().unwrap(), &[message]);
    }
    let records = gateway.recorded(2).await;
    assert!(records.iter().all(|record| record["outcome"] != "ok"), "{records:?}");
}

#[tokio::test]
async fn one_that_is_cancelled_ends_its_call_and_stays_so() {
    let silent = Script::default().stall();
    let upstream =
        Upstream::start(["verbatim", "chat", "claude"].map(|name| (name, [silent.clone()]))).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    for (place, target) in TARGETS.into_iter().enumerate() {
        let id = begin(&gateway, target).await["id"].clone();
        upstream.asked(place + 1).await;
        let cancel = format!("{}/cancel", path(&id));
        let cancelled = asks(&gateway, Method::POST, &cancel, KEY).await;
        assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
        within(Duration::from_secs(1), "the upstream is left", || upstream.busy() == 0).await;
        assert_eq!(gateway.recorded(place + 1).await[place]["outcome"], "client_closed");
        assert_eq!(fetch(&gateway, &id).await.json()["status"], "cancelled");
        // To cancel it twice changes nothing.
        let again = asks(&gateway, Method::POST, &cancel, KEY).await;
        assert_eq!((again.status, &again.json()["status"]), (200, &json!("cancelled")));
    }
    assert_eq!(gateway.stop().len(), 3);
}

#[tokio::test]
async fn however_early_it_is_cancelled_it_stays_so_beyond_a_restart() {
    let upstream = Upstream::start([("verbatim", [Script::default().stall()])]).await;
    let folder = tempfile::tempdir().unwrap();
    let sections = lasting(&upstream, &folder);
    let gateway = Gateway::start("", &sections).await;
    let mut ids = Vec::new();
    for _ in 0..20 {
        let id = begin(&gateway, TARGETS[0]).await["id"].clone();
        asks(&gateway, Method::POST, &format!("{}/cancel", path(&id)), KEY).await;
        ids.push(id);
    }
    assert_eq!(gateway.recorded(20).await.len(), 20);
    gateway.stop();
    let gateway = Gateway::start("", &sections).await;
    for id in ids {
        assert_eq!(fetch(&gateway, &id).await.json()["status"], "cancelled");
    }
}

#[tokio::test]
async fn one_that_is_deleted_ends_its_call_and_does_not_come_back() {
    let upstream = Upstream::start([("verbatim", [Script::default().stall()])]).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    let id = begin(&gateway, TARGETS[0]).await["id"].clone();
    upstream.asked(1).await;
    assert_eq!(asks(&gateway, Method::DELETE, &path(&id), KEY).await.status, 200);
    within(Duration::from_secs(1), "the upstream is left", || upstream.busy() == 0).await;
    gateway.record().await;
    assert_eq!(fetch(&gateway, &id).await.status, 404);
}

#[tokio::test]
async fn what_cannot_be_is_refused_before_anybody_is_asked() {
    let upstream = Upstream::start(answers()).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    let unkept = json!({"model": TARGETS[0], "input": "Hi", "background": true, "store": false});
    assert_eq!(create(&gateway, &unkept).await.status, 400);
    assert!(upstream.requests().is_empty());
    // One that was waited for cannot be cancelled.
    let id = created(&gateway, json!({"model": TARGETS[0], "input": "Hi"})).await["id"].clone();
    let cancel = format!("{}/cancel", path(&id));
    assert_eq!(asks(&gateway, Method::POST, &cancel, KEY).await.status, 400);
    // In other APIs the word means nothing.
    let body =
        r#"{"model":"chat/chat","messages":[{"role":"user","content":"Hi"}],"background":true}"#;
    assert_eq!(chat(&gateway, body).await.json()["object"], "chat.completion");
}

#[tokio::test]
async fn a_stream_in_the_background_is_a_stream_that_is_kept() {
    let upstream = Upstream::start(answers()).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    for target in TARGETS {
        let body = json!({"model": target, "input": "Hi", "background": true, "stream": true});
        let given = created(&gateway, body).await;
        assert_eq!(given["status"], "completed", "{given}");
        assert_eq!(fetch(&gateway, &given["id"]).await.json(), given);
        assert!(!upstream.requests().pop().unwrap().text().contains("background"));
    }
}

#[tokio::test]
async fn a_conversation_goes_on_from_one_when_it_is_done() {
    let upstream = Upstream::start(slow(Duration::from_millis(300))).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    let first = begin(&gateway, TARGETS[0]).await;
    let next = json!({
        "model": TARGETS[0], "input": "And?", "background": true,
        "previous_response_id": first["id"],
    });
    assert_eq!(create(&gateway, &next).await.status, 400);
    settled(&gateway, &first["id"]).await;
    let second = created(&gateway, next).await;
    let second = settled(&gateway, &second["id"]).await;
    assert_eq!(second["previous_response_id"], first["id"]);
    // Its provider is told its own thoughts by their ids.
    let asked = upstream.requests().pop().unwrap();
    assert_order(asked.text(), &["Hi", "rs_up1", "Hello there.", "And?"]);
}

#[tokio::test]
async fn whoever_asked_need_not_stay_connected() {
    let upstream = Upstream::start(slow(Duration::from_millis(300))).await;
    let gateway = Gateway::start("idle_timeout = \"1s\"", &sections(&upstream)).await;
    let body = json!({"model": TARGETS[1], "input": "Hi", "background": true}).to_string();
    let asked = request(Method::POST, super::RESPONSES, KEY, body.into());
    // The connection is closed as soon as the answer is read.
    let queued = open(gateway.address, asked).await.whole().await.json();
    assert_eq!(settled(&gateway, &queued["id"]).await["status"], "completed");
}

#[tokio::test]
async fn a_drain_waits_for_it_as_for_a_stream() {
    let upstream = Upstream::start(slow(Duration::from_secs(1))).await;
    let folder = tempfile::tempdir().unwrap();
    let sections = lasting(&upstream, &folder);
    let mut gateway = Gateway::start("drain = \"30s\"", &sections).await;
    let id = begin(&gateway, TARGETS[0]).await["id"].clone();
    upstream.asked(1).await;
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().await.success());
    assert_eq!(gateway.stop().len(), 1);
    let gateway = Gateway::start("", &sections).await;
    assert_eq!(fetch(&gateway, &id).await.json()["status"], "completed");
}

#[tokio::test]
async fn what_is_left_after_the_grace_has_failed() {
    let upstream = Upstream::start([("verbatim", [Script::default().stall()])]).await;
    let folder = tempfile::tempdir().unwrap();
    let sections = lasting(&upstream, &folder);
    let mut gateway = Gateway::start("drain = \"200ms\"", &sections).await;
    let id = begin(&gateway, TARGETS[0]).await["id"].clone();
    upstream.asked(1).await;
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().await.success());
    assert_eq!(gateway.stop().len(), 1);
    let gateway = Gateway::start("", &sections).await;
    let failed = fetch(&gateway, &id).await.json();
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&json!("failed"), &json!("overloaded"))
    );
}

#[tokio::test]
async fn one_whose_gateway_died_has_failed() {
    let upstream = Upstream::start([("verbatim", [Script::default().stall()])]).await;
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start("", &lasting(&upstream, &folder)).await;
    let id = begin(&gateway, TARGETS[0]).await["id"].clone();
    upstream.asked(1).await;
    // What a gateway finds that was not told to stop: the file as it is now.
    let database = rusqlite::Connection::open(folder.path().join("state.db")).unwrap();
    let query = "SELECT count(*) FROM objects WHERE kind = 'response'";
    let rows = || database.query_row(query, [], |row| row.get::<_, i64>(0));
    until("it is written", || rows().unwrap() == 1).await;
    let later = tempfile::tempdir().unwrap();
    let copy = later.path().join("state.db").display().to_string();
    database.execute("VACUUM INTO ?1", [copy]).unwrap();
    let second = Gateway::start("", &lasting(&upstream, &later)).await;
    let failed = fetch(&second, &id).await.json();
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&json!("failed"), &json!("internal"))
    );
    // Whatever was answered before is as it was.
    assert_eq!(fetch(&gateway, &id).await.json()["status"], "in_progress");
}

/// A stream of two halves with a while between them.
fn halting(name: &'static str, wait: Duration) -> (&'static str, Vec<Script>) {
    let script = answers().into_iter().find(|(known, _)| *known == name).unwrap().1.remove(0);
    let mut halting = Script::default();
    for (place, step) in script.0.into_iter().enumerate() {
        halting = if place == 5 { halting.wait(wait) } else { halting };
        halting = halting.then(step);
    }
    (name, vec![halting])
}

/// Begins a stream in the background, leaves it after its first words, and says its id.
async fn leave(gateway: &Gateway, model: &str) -> Value {
    let body = json!({"model": model, "input": "Hi", "background": true, "stream": true});
    let asked = request(Method::POST, super::RESPONSES, KEY, body.to_string().into());
    let mut stream = open(gateway.address, asked).await;
    let seen = stream.read_until("response.output_item.added").await;
    let (_, rest) = seen.split_once("\"id\":\"resp_").unwrap();
    json!(format!("resp_{}", rest.split_once('"').unwrap().0))
}

fn numbers(events: &str) -> Vec<u64> {
    let data = events.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = data.map(|data| serde_json::from_str::<Value>(data).unwrap());
    events.filter_map(|event| event["sequence_number"].as_u64()).collect()
}

#[tokio::test]
async fn a_stream_in_the_background_goes_on_when_its_client_leaves() {
    let wait = Duration::from_millis(500);
    let names = ["verbatim?stream", "chat?stream", "claude?stream"];
    let upstream = Upstream::start(names.map(|name| halting(name, wait))).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    for (place, target) in TARGETS.into_iter().enumerate() {
        let id = leave(&gateway, target).await;
        assert_eq!(fetch(&gateway, &id).await.json()["status"], "in_progress");
        let done = settled(&gateway, &id).await;
        assert_eq!(done["status"], "completed", "{done}");
        assert!(done.to_string().contains("Hello there."), "{done}");
        assert_eq!(gateway.recorded(place + 1).await[place]["outcome"], "ok");
    }
}

#[tokio::test]
async fn a_stream_in_the_background_is_joined_again_behind_the_last_event_that_was_seen() {
    let wait = Duration::from_millis(500);
    let upstream = Upstream::start([halting("chat?stream", wait)]).await;
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start("", &lasting(&upstream, &folder)).await;
    let id = leave(&gateway, TARGETS[1]).await;
    let join = |query: &str| format!("{}?stream=true{query}", path(&id));
    // As it is made, and as it was.
    let whole = asks(&gateway, Method::GET, &join(""), KEY).await;
    assert_eq!(whole.last_event()["type"], "response.completed");
    let all = numbers(whole.text());
    assert!(all.len() > 4 && all.is_sorted(), "{all:?}");
    let late = asks(&gateway, Method::GET, &join("&starting_after=2"), KEY).await;
    assert_eq!(numbers(late.text()), all[3..]);
    settled(&gateway, &id).await;
    let theirs = asks(&gateway, Method::GET, &join(""), super::OTHER_KEY).await;
    assert_eq!(theirs.status, 404);
    gateway.stop();
    let gateway = Gateway::start("", &lasting(&upstream, &folder)).await;
    let late = asks(&gateway, Method::GET, &join("&starting_after=2"), KEY).await;
    assert_eq!(numbers(late.text()), all[3..]);
    asks(&gateway, Method::DELETE, &path(&id), KEY).await;
    assert_eq!(asks(&gateway, Method::GET, &join(""), KEY).await.status, 404);
}

#[tokio::test]
async fn a_stream_in_the_background_can_be_cancelled() {
    let stalls = Duration::from_mins(1);
    let upstream = Upstream::start([halting("verbatim?stream", stalls)]).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    let id = leave(&gateway, TARGETS[0]).await;
    let cancel = format!("{}/cancel", path(&id));
    let cancelled = asks(&gateway, Method::POST, &cancel, KEY).await;
    assert_eq!((cancelled.status, &cancelled.json()["status"]), (200, &json!("cancelled")));
    assert_eq!(gateway.record().await["outcome"], "client_closed");
    assert_eq!(fetch(&gateway, &id).await.json()["status"], "cancelled");
}
