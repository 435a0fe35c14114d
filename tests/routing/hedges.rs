//! A slow target is raced by the next one: the faster answer counts, and both are accounted.

use std::time::Duration;

use serde_json::{Value, json};

use super::{ask_poorly, asked, count, need, poor, tokens, used};
use crate::support::client::chat;
use crate::support::gateway::route;
use crate::support::replies::{REPLY, answer, ask, ask_stream, shown};
use crate::support::script::Step;
use crate::support::{Gateway, Script, Upstream, until};

const HEDGE: &str = "hedge = { after = \"50ms\", max_extra_cost = 1.0 }";
const FAILED: &str = r#"{"error":{"message":"Internal.","type":"server_error"}}"#;

fn late(milliseconds: u64, script: Script) -> Script {
    let Script(steps) = script;
    let wait = Step::Wait(Duration::from_millis(milliseconds));
    Script([vec![wait], steps].concat())
}

/// Two targets, each as it answers whole and as it streams.
async fn pair(a: [Script; 2], b: [Script; 2]) -> Upstream {
    let [a, a_stream] = a;
    let [b, b_stream] = b;
    let scripts = [("a", a), ("a?stream", a_stream), ("b", b), ("b?stream", b_stream)];
    Upstream::start(scripts.map(|(name, script)| (name, [script]))).await
}

fn good() -> [Script; 2] {
    [Script::json(200, REPLY), Script::stream(answer())]
}

fn stalls() -> [Script; 2] {
    [Script::default().stall(), Script::stream_head().stall()]
}

#[tokio::test]
async fn the_second_target_answers_when_the_first_is_slow_and_the_first_is_called_off() {
    for (body, expected) in [(ask("r"), REPLY.to_owned()), (ask_stream("r"), shown())] {
        let upstream = pair(stalls(), good()).await;
        let gateway = Gateway::before(&upstream, &route("r", &["up/a", "up/b"], HEDGE)).await;
        let reply = chat(&gateway, body).await;
        assert_eq!((reply.status, reply.text()), (200, expected.as_str()));
        assert_eq!(reply.header("x-switchpoint-model"), Some("b"));
        assert_eq!(reply.header("x-switchpoint-attempts"), Some("2"));
        let first = || upstream.connections()[0].ended.is_some_and(|(_, by_peer)| by_peer);
        until("the loser is called off", first).await;
        let record = gateway.record().await;
        assert_eq!((&record["outcome"], &record["model"]), (&json!("ok"), &json!("b")));
        let failed = &record["failed"][0];
        assert_eq!((&failed["model"], &failed["outcome"]), (&json!("a"), &json!("client_closed")));
        // What it was asked it has read, by estimate.
        let input = failed["input_tokens"].as_u64().unwrap();
        assert!(input > 0 && failed["output_tokens"] == 0, "{record}");
        assert_eq!(tokens(&gateway, "a", "input").await, input);
    }
}

#[tokio::test]
async fn the_first_target_wins_when_it_is_still_the_faster_one() {
    for stream in [false, true] {
        let [whole, streamed] = good();
        let upstream = pair([late(150, whole), late(150, streamed)], stalls()).await;
        let gateway = Gateway::before(&upstream, &route("r", &["up/a", "up/b"], HEDGE)).await;
        let reply = chat(&gateway, if stream { ask_stream("r") } else { ask("r") }).await;
        assert_eq!((reply.status, reply.header("x-switchpoint-model")), (200, Some("a")));
        let second = || upstream.connections()[1].ended.is_some_and(|(_, by_peer)| by_peer);
        until("the loser is called off", second).await;
        let record = gateway.record().await;
        assert_eq!((&record["model"], &record["attempts"]), (&json!("a"), &json!(2)));
        assert_eq!(record["failed"][0]["model"], "b");
    }
}

#[tokio::test]
async fn when_both_fail_each_was_asked_once() {
    for body in [ask("r"), ask_stream("r")] {
        let failed = || Script::json(500, FAILED);
        let upstream = pair([late(150, failed()), late(150, failed())], [failed(), failed()]).await;
        let more = format!("attempts = 2\n{HEDGE}");
        let gateway = Gateway::before(&upstream, &route("r", &["up/a", "up/b"], &more)).await;
        let reply = chat(&gateway, body).await;
        assert_eq!(reply.status, 502, "{}", reply.text());
        assert_eq!(asked(&upstream), ["a", "b"]);
        let record = gateway.record().await;
        assert_eq!(
            (&record["outcome"], &record["attempts"]),
            (&json!("upstream_error"), &json!(2))
        );
    }
}

#[tokio::test]
async fn a_quick_first_target_is_not_raced() {
    let upstream = pair(good(), good()).await;
    let more = "hedge = { after = \"5s\", max_extra_cost = 1.0 }";
    let gateway = Gateway::before(&upstream, &route("r", &["up/a", "up/b"], more)).await;
    for body in [ask("r"), ask_stream("r")] {
        assert_eq!(chat(&gateway, body).await.status, 200);
    }
    assert_eq!(asked(&upstream), ["a", "a"]);
}

#[tokio::test]
async fn second_requests_stay_within_what_they_may_cost() {
    let [whole, streamed] = good();
    let slow = [late(80, whole), late(80, streamed)];
    for (models, most) in [
        ("", 3),
        (
            "[models.\"up/a\"]\nprice = { input = 1, output = 1 }\n[models.\"up/b\"]\nprice = { input = 2, output = 2 }\n",
            1,
        ),
    ] {
        let upstream = pair(slow.clone(), good()).await;
        let more = "hedge = { after = \"20ms\", max_extra_cost = 0.1 }";
        let routes = route("r", &["up/a", "up/b"], more) + models;
        let gateway = Gateway::before(&upstream, &routes).await;
        for _ in 0..30 {
            assert_eq!(chat(&gateway, ask("r")).await.status, 200);
        }
        // A tenth of thirty calls; where they cost twice as much, half of that.
        let raced = count(&upstream, "b");
        assert!((1..=most).contains(&raced), "{raced} of 30");
    }
}

#[tokio::test]
async fn a_target_that_is_slower_than_it_usually_is_is_raced() {
    let quick = std::iter::repeat_n(Script::json(200, REPLY), 30);
    let stalls = quick.chain([Script::default().stall()]);
    let upstream = Upstream::start([
        ("a".to_owned(), stalls.collect::<Vec<_>>()),
        ("b".to_owned(), vec![Script::json(200, REPLY)]),
    ])
    .await;
    let more = "hedge = { after = \"p95\", max_extra_cost = 1.0 }";
    let gateway = Gateway::before(&upstream, &route("r", &["up/a", "up/b"], more)).await;
    // Until enough is known of the first target nobody is raced, and then only who is late.
    while count(&upstream, "a") <= 30 {
        assert_eq!(chat(&gateway, ask("r")).await.status, 200);
    }
    let records = gateway.recorded(31).await;
    let raced = |record: &Value| {
        record["model"] == "b" && record["failed"][0]["outcome"] == "client_closed"
    };
    assert!(records.iter().any(raced), "{records:?}");
}

#[tokio::test]
async fn nobody_is_raced_where_a_budget_has_no_room_for_both() {
    let need = need().await;
    for (tokens, winner) in [(need + 1, "a"), (2 * need, "b")] {
        for stream in [false, true] {
            let [whole, streamed] = good();
            let upstream = pair([late(300, whole), late(300, streamed)], good()).await;
            let sections = route("r", &["up/a", "up/b"], HEDGE) + &poor(tokens);
            let gateway = Gateway::before(&upstream, &sections).await;
            let reply = ask_poorly(&gateway, stream).await;
            assert_eq!((reply.status, reply.header("x-switchpoint-model")), (200, Some(winner)));
            assert_eq!(count(&upstream, "b") == 1, winner == "b");
            let used = used(&gateway).await;
            assert!((1..=tokens).contains(&used), "{used} of {tokens}");
        }
    }
}
