//! A second target is asked the same for comparison, and its caller never feels it.

use std::time::Duration;

use tokio::time::Instant;

use super::{ask_at, asked, body, count};
use crate::support::client::chat;
use crate::support::gateway::route;
use crate::support::replies::{REPLY, answer, ask, ask_stream, shown};
use crate::support::{Gateway, Script, Upstream, until};

fn shadow(more: &str) -> String {
    route("r", &["up/a"], &format!("shadow = {{ target = \"up/shade\"{more} }}"))
}

async fn pair(shade: Script) -> Upstream {
    let good = [Script::json(200, REPLY)];
    let streamed = [Script::stream(answer())];
    Upstream::start([("a", good), ("a?stream", streamed), ("shade", [shade])]).await
}

#[tokio::test]
async fn a_shadow_is_asked_the_same_and_recorded_apart() {
    let upstream = pair(Script::json(200, REPLY)).await;
    let gateway = Gateway::before(&upstream, &shadow("")).await;
    let reply = chat(&gateway, ask("r")).await;
    assert_eq!((reply.text(), reply.header("x-switchpoint-model")), (REPLY, Some("a")));
    upstream.asked(2).await;
    let requests = upstream.requests();
    let messages = requests.iter().map(|request| body(request)["messages"].clone());
    let messages: Vec<_> = messages.collect();
    assert_eq!(messages[0], messages[1]);
    let records = gateway.recorded(2).await;
    let by_purpose = |purpose: Option<&str>| {
        let found = records.iter().find(|record| record["purpose"].as_str() == purpose);
        found.unwrap_or_else(|| panic!("{records:#?}"))
    };
    let shade = by_purpose(Some("shadow"));
    assert_eq!((&shade["model"], &shade["key"]), (&"shade".into(), &"test".into()));
    assert_eq!((&shade["input_tokens"], &shade["outcome"]), (&11.into(), &"ok".into()));
    assert_eq!(by_purpose(None)["model"], "a");
}

#[tokio::test]
async fn a_shadow_that_fails_or_hangs_is_not_felt() {
    for shade in [Script::json(500, "{}"), Script::default().stall(), Script::default().reset()] {
        let upstream = pair(shade).await;
        let gateway = Gateway::before(&upstream, &shadow("")).await;
        let started = Instant::now();
        for _ in 0..5 {
            let reply = chat(&gateway, ask("r")).await;
            assert_eq!((reply.status, reply.text()), (200, REPLY));
            assert_eq!(chat(&gateway, ask_stream("r")).await.text(), shown());
        }
        assert!(started.elapsed() < Duration::from_secs(5));
        assert_eq!(count(&upstream, "a"), 10);
    }
}

#[tokio::test]
async fn no_more_shadows_hang_at_once_than_are_allowed() {
    let upstream = pair(Script::default().stall()).await;
    let gateway = Gateway::before(&upstream, &shadow(", concurrency = 2")).await;
    for _ in 0..6 {
        assert_eq!(chat(&gateway, ask("r")).await.status, 200);
    }
    until("two shadows hang", || count(&upstream, "shade") == 2).await;
    assert_eq!(chat(&gateway, ask("r")).await.status, 200);
    assert_eq!(count(&upstream, "shade"), 2);
}

#[tokio::test]
async fn a_sample_of_the_calls_has_a_shadow() {
    let upstream = pair(Script::json(200, REPLY)).await;
    let gateway = Gateway::before(&upstream, &shadow(", sample = 0.25, concurrency = 1000")).await;
    for _ in 0..200 {
        chat(&gateway, ask("r")).await;
    }
    let records = gateway.stop();
    let shades = records.iter().filter(|record| record["purpose"] == "shadow").count();
    // 50 are expected; five times what chance makes of that is 31.
    assert!((19..=81).contains(&shades), "{shades} of 200");
}

#[tokio::test]
async fn shadows_spend_no_more_tokens_in_an_hour_than_are_allowed() {
    let upstream = pair(Script::json(200, REPLY)).await;
    // The question has some 15 tokens, and its answer 4.
    let gateway = Gateway::before(&upstream, &shadow(", tokens_per_hour = 50")).await;
    for calls in 1..=6 {
        assert_eq!(chat(&gateway, ask("r")).await.status, 200);
        // Each shadow is over before the next call, so that its answer counts too.
        until("the shadow is over", || {
            let shades = gateway.records().iter().filter(|one| one["purpose"] == "shadow").count();
            count(&upstream, "shade") == shades && count(&upstream, "a") == calls
        })
        .await;
    }
    let shades = count(&upstream, "shade");
    assert!((1..=3).contains(&shades), "{shades}");
}

#[tokio::test]
async fn what_is_only_counted_has_no_shadow() {
    let upstream = pair(Script::json(200, REPLY)).await;
    let gateway = Gateway::before(&upstream, &shadow("")).await;
    let counted = ask_at(&gateway, "/v1/messages/count_tokens", &[], ask("r")).await;
    assert_eq!(counted.status, 200, "{}", counted.text());
    assert_eq!(chat(&gateway, ask("r")).await.status, 200);
    until("the call's own shadow comes", || count(&upstream, "shade") > 0).await;
    assert_eq!(asked(&upstream).len(), 2);
}

#[tokio::test]
async fn what_a_shadow_is_asked_counts_among_the_bodies_that_are_held() {
    let upstream = pair(Script::default().stall()).await;
    let gateway = Gateway::before(&upstream, &shadow("")).await;
    assert_eq!(chat(&gateway, ask("r")).await.status, 200);
    until("the shadow hangs", || count(&upstream, "shade") == 1).await;
    let held = gateway.metric("switchpoint_body_bytes", &[]).await;
    assert!(held > 0.0, "the shadow's question is held by nobody");
}
