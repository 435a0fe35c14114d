//! SIGTERM ends nobody's answer that could still be finished in time.

use std::time::Duration;

use http::Method;
use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::client::{Answer, CHAT, Opened, chat, get, open, open_chat, request};
use crate::support::gateway::{KEY, provider};
use crate::support::replies::{DONE, answer, ask_stream, finish, role, shown, word};
use crate::support::{Gateway, PATIENCE, Script, Upstream, until};

const STREAMS: usize = 500;

/// A stream that goes on for some seconds after its first word.
fn slow() -> Script {
    let began = Script::stream_head().chunks([role(), word("One")]);
    let more = |script: Script, _| script.wait(Duration::from_millis(200)).chunks([word("more")]);
    (0..20).fold(began, more).chunks([finish(), DONE.to_owned()]).end()
}

async fn upstream() -> Upstream {
    let endless = Script::stream_head().chunks([role(), word("One")]).stall();
    Upstream::start([("slow", [slow()]), ("endless", [endless]), ("quick", [quick()])]).await
}

fn quick() -> Script {
    Script::stream(answer())
}

async fn gateway(upstream: &Upstream, server: &str) -> Gateway {
    Gateway::start(server, &provider("up", upstream)).await
}

/// Opens many streams at once, each at its first content.
async fn streams(gateway: &Gateway, model: &str, count: usize) -> Vec<Opened> {
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let request = request(Method::POST, CHAT, KEY, ask_stream(model).into());
        opening.spawn(open(gateway.address, request));
    }
    opening.join_all().await
}

async fn ends(streams: Vec<Opened>) -> Vec<Answer> {
    let mut reading = JoinSet::new();
    for stream in streams {
        reading.spawn(stream.whole());
    }
    reading.join_all().await
}

/// Waits until the drain has begun and the listener is gone.
async fn refused(gateway: &Gateway) {
    let began = Instant::now();
    while TcpStream::connect(gateway.address).await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "new connections are still accepted");
    }
}

#[tokio::test]
async fn five_hundred_open_streams_all_finish_within_the_grace() {
    let _ = rlimit::increase_nofile_limit(u64::MAX);
    let upstream = upstream().await;
    let mut gateway = gateway(&upstream, "drain = \"30s\"").await;
    let streams = streams(&gateway, "up/slow", STREAMS).await;
    gateway.signal(Signal::TERM);
    refused(&gateway).await;
    let ready = get(gateway.admin, "/readyz", "").await;
    assert_eq!((ready.status, ready.json()["status"].as_str()), (503, Some("draining")));
    assert_eq!(get(gateway.admin, "/healthz", "").await.status, 200);

    let answers = ends(streams).await;
    assert_eq!(answers.len(), STREAMS);
    for answer in &answers {
        assert!(answer.status == 200 && answer.text().ends_with(DONE), "{answer:?}");
    }
    assert!(gateway.ended().await.success());
    let records = gateway.recorded(STREAMS).await;
    assert_eq!(records.len(), STREAMS);
    assert!(records.iter().all(|record| record["outcome"] == "ok"));
}

#[tokio::test]
async fn a_second_signal_ends_the_grace_and_each_stream_is_told() {
    let upstream = upstream().await;
    let mut gateway = gateway(&upstream, "drain = \"300s\"").await;
    let mut streams = streams(&gateway, "up/endless", 20).await;
    for stream in &mut streams {
        stream.read_until("One").await;
    }
    gateway.signal(Signal::TERM);
    refused(&gateway).await;
    gateway.signal(Signal::TERM);
    for answer in ends(streams).await {
        let event = answer.last_event();
        assert!(event["error"]["code"].is_string(), "{event}");
    }
    assert!(gateway.ended().await.success());
    assert_eq!(gateway.recorded(20).await.len(), 20);
}

#[tokio::test]
async fn what_is_left_after_the_grace_is_told_and_recorded_once() {
    let upstream = upstream().await;
    let mut gateway = gateway(&upstream, "drain = \"200ms\"").await;
    let mut stream = open_chat(&gateway, ask_stream("up/endless")).await;
    stream.read_until("One").await;
    // Idle connections hold nothing up.
    let _idle = TcpStream::connect(gateway.address).await.unwrap();
    gateway.signal(Signal::TERM);
    let answer = stream.whole().await;
    let error = &answer.last_event()["error"];
    assert!(error["code"].is_string(), "{answer:?}");
    assert!(gateway.ended().await.success());
    let records = gateway.recorded(1).await;
    assert_eq!(records.len(), 1);
    let outcome = &records[0]["outcome"];
    assert_eq!(
        (outcome, &error["attempts"][0]["outcome"]),
        (&json!("upstream_truncated"), outcome)
    );
}

#[tokio::test]
async fn while_the_drain_is_delayed_calls_are_still_taken_but_readiness_says_no() {
    let upstream = upstream().await;
    let mut gateway = gateway(&upstream, "drain = \"30s\"\ndrain_delay = \"300s\"").await;
    gateway.signal(Signal::TERM);
    until("the drain begins", || gateway.output().iter().any(|line| line.contains("draining")))
        .await;
    let began = Instant::now();
    while get(gateway.address, "/readyz", "").await.status != 503 {
        assert!(began.elapsed() < PATIENCE, "still ready");
    }
    let answer = chat(&gateway, ask_stream("up/quick")).await;
    assert_eq!(answer.text(), shown());
    gateway.signal(Signal::TERM);
    assert!(gateway.ended().await.success());
}

#[tokio::test]
async fn calls_that_have_no_answer_after_the_grace_are_told_and_recorded() {
    let silent = Script::default().stall();
    let upstream = Upstream::start([("silent", vec![silent; 8])]).await;
    let store = tempfile::tempdir().unwrap();
    let path = store.path().join("s.db");
    let sections =
        format!("[store]\nurl = \"sqlite:{}\"\n{}", path.display(), provider("up", &upstream));
    let mut gateway = Gateway::start("drain = \"200ms\"", &sections).await;
    let said = json!([{"role": "user", "content": "Hi"}]);
    let asked = [
        (CHAT, json!({"model": "up/silent", "messages": said})),
        (CHAT, json!({"model": "up/silent", "messages": said, "stream": true})),
        ("/v1/messages", json!({"model": "up/silent", "messages": said, "max_tokens": 9})),
        ("/v1/responses", json!({"model": "up/silent", "input": "Hi"})),
    ];
    let mut waiting = JoinSet::new();
    for (path, body) in &asked {
        let request = request(Method::POST, path, KEY, body.to_string().into());
        let address = gateway.address;
        waiting.spawn(async move { open(address, request).await.whole().await });
    }
    upstream.asked(asked.len()).await;
    gateway.signal(Signal::TERM);
    for answer in waiting.join_all().await {
        assert_eq!(answer.status, 503, "{answer:?}");
        assert!(answer.text().contains("shutting down"), "{}", answer.text());
    }
    assert!(gateway.ended().await.success());
    let records = gateway.recorded(asked.len()).await;
    assert_eq!(records.len(), asked.len());
    for record in &records {
        assert_eq!(record["outcome"], "upstream_truncated", "{record}");
        assert_eq!(record["attempts"], 1, "{record}");
    }
    let rows = rusqlite::Connection::open(path).unwrap();
    let count = "SELECT count(*) FROM calls WHERE outcome = 'upstream_truncated'";
    let noted: u32 = rows.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(noted as usize, asked.len());
}
