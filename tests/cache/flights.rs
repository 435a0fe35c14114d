//! Identical questions at the same time wait for one answer, streams included.

use serde_json::json;
use tokio::task::JoinSet;

use super::{MESSAGES, counted, open_at, question, remembering, said, told};
use crate::support::client::{Answer, CHAT, open_chat, post};
use crate::support::gateway::KEY;
use crate::support::replies::{DONE, REPLY, finish, role, usage, word};
use crate::support::{Gate, Gateway, Script, Upstream, until};

/// A stream that goes on behind its first word when the gate is open.
fn gated(gate: &Gate) -> Script {
    let rest = [word(" there."), finish(), usage(), DONE.to_owned()];
    Script::stream_head().chunks([role(), word("Hello")]).gate(gate).chunks(rest).end()
}

/// Waits until so many calls are in flight.
async fn in_flight(gateway: &Gateway, calls: u32) {
    while gateway.metric("switchpoint_in_flight", &[]).await < f64::from(calls) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_thousand_identical_calls_at_once_are_asked_for_once() {
    for stream in [false, true] {
        let gate = Gate::shut();
        let whole = Script::default().gate(&gate).then_all(Script::json(200, REPLY));
        let upstream = Upstream::start([("a", [whole]), ("a?stream", [gated(&gate)])]).await;
        let gateway = Gateway::before(&upstream, &remembering("")).await;
        let mut calls = JoinSet::new();
        for number in 0..1000 {
            let body = question(&json!({ "stream": stream }));
            calls.spawn(post(gateway.address, [CHAT, MESSAGES][number % 2], KEY, body));
        }
        in_flight(&gateway, 1000).await;
        gate.open();
        let answers = calls.join_all().await;
        for answer in &answers {
            assert!(matches!(told(answer), "miss" | "hit"));
            assert!(answer.text().contains("there."), "{}", answer.text());
        }
        assert_eq!(answers.iter().filter(|answer| told(answer) == "miss").count(), 1);
        assert_eq!(upstream.requests().len(), 1);
        assert_eq!(counted(&gateway, "switchpoint_attempts_total", &[]).await, 1);
    }
}

#[tokio::test]
async fn who_joins_late_is_given_all_of_it_while_it_goes_on() {
    let gate = Gate::shut();
    let upstream = Upstream::start([("a?stream", [gated(&gate)])]).await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    let body = question(&json!({"stream": true}));
    let mut first = open_chat(&gateway, body.clone()).await;
    first.read_until("Hello").await;
    let mut second = open_chat(&gateway, body.clone()).await;
    second.read_until("Hello").await;
    let mut third = open_at(&gateway, MESSAGES, KEY, &[], body).await;
    third.read_until("Hello").await;
    gate.open();
    assert!(first.whole().await.text().contains("there."));
    assert!(second.whole().await.text().ends_with(DONE));
    assert!(third.whole().await.text().contains("message_stop"));
    assert_eq!(upstream.requests().len(), 1);
    let records = gateway.recorded(3).await;
    let tokens: u64 = records.iter().filter_map(|one| one["input_tokens"].as_u64()).sum();
    assert_eq!(tokens, 11, "{records:#?}");
}

#[tokio::test]
async fn an_answer_goes_on_without_whoever_asked_first_as_long_as_somebody_waits() {
    for before_content in [false, true] {
        let gate = Gate::shut();
        let script = if before_content {
            Script::stream_head().gate(&gate).chunks([role(), word("Hello there."), finish()]).end()
        } else {
            gated(&gate)
        };
        let upstream = Upstream::start([("a?stream", [script])]).await;
        let gateway = Gateway::before(&upstream, &remembering("")).await;
        let body = question(&json!({"stream": true}));
        let address = gateway.address;
        let mut lead = JoinSet::new();
        lead.spawn(post(address, CHAT, KEY, body.clone()));
        upstream.asked(1).await;
        let mut follow = JoinSet::new();
        follow.spawn(post(address, CHAT, KEY, body));
        in_flight(&gateway, 2).await;
        drop(lead);
        while gateway.metric("switchpoint_connections_open", &[]).await > 1.0 {
            tokio::task::yield_now().await;
        }
        gate.open();
        let answer = follow.join_next().await.unwrap().unwrap();
        assert_eq!((told(&answer), &*said(&answer)), ("hit", "Hello there."));
        assert_eq!(upstream.requests().len(), 1);
    }
}

#[tokio::test]
async fn an_answer_that_nobody_waits_for_is_broken_off() {
    let upstream = Upstream::start([("a?stream", [gated(&Gate::shut())])]).await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    let body = question(&json!({"stream": true}));
    let mut first = open_chat(&gateway, body.clone()).await;
    first.read_until("Hello").await;
    let mut second = open_chat(&gateway, body).await;
    second.read_until("Hello").await;
    drop((first, second));
    until("the upstream is left", || upstream.open_connections() == 0).await;
    let records = gateway.recorded(2).await;
    assert!(records.iter().all(|one| one["outcome"] == "client_closed"), "{records:#?}");
}

#[tokio::test]
async fn when_whoever_asked_has_got_nothing_one_of_those_who_wait_asks() {
    let gate = Gate::shut();
    let broken = Script::default().gate(&gate).reset();
    let upstream = Upstream::start([("a", [broken, Script::json(200, REPLY)])]).await;
    let sections = remembering("").replace("cache =", "attempts = 1\ncache =");
    let gateway = Gateway::before(&upstream, &sections).await;
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let (address, body) = (gateway.address, question(&json!({})));
        calls.spawn(async move { post(address, CHAT, KEY, body).await });
    }
    in_flight(&gateway, 10).await;
    gate.open();
    let answers = calls.join_all().await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 9);
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn when_two_have_asked_to_no_avail_all_are_told() {
    let gates = [Gate::shut(), Gate::shut()];
    let broken = |gate| Script::default().gate(gate).reset();
    let upstream = Upstream::start([("a", gates.each_ref().map(broken))]).await;
    let sections = remembering("").replace("cache =", "attempts = 1\ncache =");
    let gateway = Gateway::before(&upstream, &sections).await;
    let mut calls = JoinSet::new();
    for _ in 0..10 {
        let (address, body) = (gateway.address, question(&json!({})));
        calls.spawn(async move { post(address, CHAT, KEY, body).await });
    }
    in_flight(&gateway, 10).await;
    gates[0].open();
    until("another one asks", || upstream.requests().len() == 2).await;
    gates[1].open();
    let answers = calls.join_all().await;
    assert!(answers.iter().all(|answer| answer.status >= 500), "{answers:?}");
    assert_eq!(upstream.requests().len(), 2);
}

/// How many letters the rest of a stream says.
fn said_behind(answer: &Answer) -> usize {
    assert!(answer.text().ends_with(DONE));
    answer.text().matches('x').count() - answer.text().matches("index").count()
}

#[tokio::test]
async fn who_reads_slowly_slows_nobody() {
    // More than sockets and windows hold.
    let words: Vec<String> = (0..4000).map(|_| word(&"x".repeat(1000))).collect();
    let rest = [words, vec![finish(), DONE.to_owned()]].concat();
    let gate = Gate::shut();
    let script =
        Script::stream_head().chunks([role(), word("Well")]).gate(&gate).chunks(rest).end();
    let upstream = Upstream::start([("a?stream", [script])]).await;
    let gateway = Gateway::before(&upstream, &remembering("")).await;
    let body = question(&json!({"stream": true}));
    let mut slow = open_chat(&gateway, body.clone()).await;
    slow.read_until("Well").await;
    let mut quick = open_chat(&gateway, body).await;
    quick.read_until("Well").await;
    gate.open();
    let quick = quick.whole().await;
    assert_eq!((told(&quick), said_behind(&quick)), ("hit", 4_000_000));
    assert_eq!(said_behind(&slow.whole().await), 4_000_000);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn who_reads_slowly_is_given_all_that_came_before_a_silence() {
    let words: Vec<String> = (0..8000).map(|_| word(&"x".repeat(1000))).collect();
    let gate = Gate::shut();
    let script =
        Script::stream_head().chunks([role(), word("Well")]).gate(&gate).chunks(words).stall();
    let upstream = Upstream::start([("a?stream", [script])]).await;
    let limits = "attempts = 1\ntimeouts = { idle = \"1s\" }\ncache =";
    let gateway = Gateway::before(&upstream, &remembering("").replace("cache =", limits)).await;
    let body = question(&json!({"stream": true}));
    let mut slow = open_chat(&gateway, body.clone()).await;
    slow.read_until("Well").await;
    let mut quick = open_chat(&gateway, body).await;
    quick.read_until("Well").await;
    gate.open();
    // The silence is over before the other one reads on.
    let quick = quick.whole().await;
    let slow = slow.whole().await;
    for told in [&quick, &slow] {
        let words = told.text().matches(&"x".repeat(1000)).count();
        assert_eq!(words, 8000, "{}", told.text().len());
    }
    assert!(slow.text().contains("upstream_timeout"));
    let records = gateway.recorded(2).await;
    let asked = records.iter().find(|record| record["cache"] == "miss").unwrap();
    assert_eq!(asked["outcome"], "timeout", "{records:#?}");
}

#[tokio::test]
async fn each_may_be_made_to_pay() {
    let gate = Gate::shut();
    let upstream = Upstream::start([("a?stream", [gated(&gate)])]).await;
    let sections = format!("[cache]\ncoalesce_charge = \"all\"\n{}", remembering(""));
    let gateway = Gateway::before(&upstream, &sections).await;
    let body = question(&json!({"stream": true}));
    let mut first = open_chat(&gateway, body.clone()).await;
    first.read_until("Hello").await;
    let mut second = open_chat(&gateway, body).await;
    second.read_until("Hello").await;
    gate.open();
    drop((first.whole().await, second.whole().await));
    let records = gateway.recorded(2).await;
    let tokens: Vec<_> = records.iter().map(|one| one["input_tokens"].clone()).collect();
    assert_eq!(tokens, [11, 11]);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn calls_do_not_wait_for_one_another_where_that_is_not_wanted() {
    let gate = Gate::shut();
    let upstream = Upstream::start([("a?stream", [gated(&gate)])]).await;
    let sections = format!("[cache]\ncoalesce = false\n{}", remembering(""));
    let gateway = Gateway::before(&upstream, &sections).await;
    let body = question(&json!({"stream": true}));
    let mut first = open_chat(&gateway, body.clone()).await;
    first.read_until("Hello").await;
    let mut second = open_chat(&gateway, body).await;
    second.read_until("Hello").await;
    assert_eq!(upstream.requests().len(), 2);
    gate.open();
    drop((first.whole().await, second.whole().await));
}
