//! How long and how often: limits of answers, time limits of clients, pauses, and budgets of
//! retries.

use std::time::Duration;

use tokio::time::Instant;

use serde_json::{Value, json};

use super::{ask_with, asked, body, count, counted, well};
use crate::support::client::{chat, post};
use crate::support::gateway::{KEY, route};
use crate::support::replies::{REPLY, answer, ask, ask_stream, role, word};
use crate::support::{Gateway, Script, Upstream};

const BUSY: &str = r#"{"error":{"message":"Overloaded.","type":"overloaded_error"}}"#;

#[tokio::test]
async fn an_answer_gets_no_more_tokens_than_its_route_allows() {
    let upstream = Upstream::start(well(&["m"])).await;
    let gateway =
        Gateway::before(&upstream, &route("r", &["up/m"], "max_output_tokens = 50")).await;
    for (wanted, given) in [(Some(999), 50), (None, 50), (Some(50), 50), (Some(7), 7)] {
        let mut question: Value = serde_json::from_str(&ask("r")).unwrap();
        if let Some(wanted) = wanted {
            question["max_tokens"] = wanted.into();
        }
        assert_eq!(chat(&gateway, question.to_string()).await.status, 200);
        let asked = body(upstream.requests().last().unwrap());
        let most = asked.get("max_tokens").or_else(|| asked.get("max_completion_tokens"));
        assert_eq!(most, Some(&given.into()), "{wanted:?}: {asked}");
    }
}

#[tokio::test]
async fn a_client_that_names_a_time_waits_no_longer_and_makes_nobody_unwell() {
    let silent = Script::default().stall();
    let begun = Script::stream_head().chunks([role(), word("Hel")]).stall();
    let upstream = Upstream::start([
        (
            "m".to_owned(),
            (0..7).map(|_| silent.clone()).chain([Script::json(200, REPLY)]).collect(),
        ),
        ("m?stream".to_owned(), vec![begun]),
        ("n".to_owned(), vec![Script::json(200, REPLY)]),
    ])
    .await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/m", "up/n"], "")).await;
    for written in ["200ms", "0.2", "200ms", "200ms", "200ms", "200ms", "200ms"] {
        let started = Instant::now();
        let reply = ask_with(&gateway, &[("x-switchpoint-timeout", written)], ask("r")).await;
        assert_eq!(
            (reply.status, &reply.json()["error"]["code"]),
            (504, &json!("upstream_timeout"))
        );
        assert!(started.elapsed() < Duration::from_secs(5));
    }
    // Nobody else was asked when the time was over.
    assert_eq!(count(&upstream, "n"), 0);
    let reply = chat(&gateway, ask("r")).await;
    assert_eq!((reply.status, reply.header("x-switchpoint-model")), (200, Some("m")));
    let reply = ask_with(&gateway, &[("x-switchpoint-timeout", "300ms")], ask_stream("r")).await;
    assert_eq!(reply.last_event()["error"]["code"], "upstream_timeout", "{}", reply.text());
    let reply = ask_with(&gateway, &[("x-switchpoint-timeout", "1e19")], ask("up/n")).await;
    assert_eq!(reply.status, 200);
    let reply = ask_with(&gateway, &[("x-switchpoint-timeout", "soon")], ask("r")).await;
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (400, &json!("invalid_request")));
}

#[tokio::test]
async fn a_client_that_asks_again_itself_gets_fewer_attempts_and_never_less_than_two() {
    let names = ["a", "b", "c", "d"];
    let failing = names.map(|name| (name, [Script::json(503, BUSY)]));
    for (retries, attempts) in [(None, 4), (Some("1"), 3), (Some("2"), 2), (Some("9"), 2)] {
        let upstream = Upstream::start(failing.clone()).await;
        let routes = route("r", &["up/a", "up/b", "up/c", "up/d"], "attempts = 4");
        let gateway = Gateway::before(&upstream, &routes).await;
        let headers = retries.map(|count| ("x-stainless-retry-count", count));
        let reply = ask_with(&gateway, headers.as_slice(), ask("r")).await;
        assert_eq!(reply.status, 503, "{}", reply.text());
        assert_eq!(asked(&upstream), names[..attempts], "{retries:?}");
    }
}

#[tokio::test]
async fn a_trouble_that_passes_is_waited_out() {
    let upstream = Upstream::start([(
        "a",
        [Script::json(503, BUSY), Script::json(503, BUSY), Script::json(200, REPLY)],
    )])
    .await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/a"], "")).await;
    let reply = chat(&gateway, ask("r")).await;
    assert_eq!((reply.status, reply.text()), (200, REPLY));
    assert_eq!(asked(&upstream), ["a", "a", "a"]);
    // A gateway there tries less often itself when it is told that it was asked before.
    let requests = upstream.requests();
    let told: Vec<_> = requests.iter().map(|it| it.header("x-gateway-attempt")).collect();
    assert_eq!(told, [None, Some("1"), Some("2")]);
    let labels = ["provider=\"up\"", "reason=\"overloaded\""];
    assert_eq!(counted(&gateway, "switchpoint_retries_total", &labels).await, 2);
    assert!(gateway.metric("switchpoint_fallbacks_total", &[]).await < 1.0, "no other target");
}

#[tokio::test]
async fn nobody_is_asked_again_before_the_time_that_he_named() {
    let limited = Script::reply(429, &[("retry-after-ms", "1200")], BUSY);
    let upstream = Upstream::start([("a", [limited, Script::json(200, REPLY)])]).await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/a"], "")).await;
    let started = Instant::now();
    let reply = chat(&gateway, ask("r")).await;
    assert_eq!((reply.status, reply.text()), (200, REPLY));
    assert!(started.elapsed() >= Duration::from_millis(1200), "{:?}", started.elapsed());
    assert_eq!(asked(&upstream), ["a", "a"]);
}

#[tokio::test]
async fn who_names_no_time_is_left_alone_for_one_that_the_client_is_told() {
    let upstream = Upstream::start([("a", [Script::json(429, BUSY)])]).await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/a"], "attempts = 1")).await;
    for attempts in ["1", "0"] {
        let reply = chat(&gateway, ask("r")).await;
        assert_eq!((reply.status, reply.header("x-switchpoint-attempts")), (429, Some(attempts)));
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=30).contains(&wait), "{wait}");
    }
}

#[tokio::test]
async fn who_limits_its_rate_is_asked_again_later_each_time_and_then_another_one_is() {
    let limited = Script::reply(429, &[("retry-after", "1")], BUSY);
    let upstream = Upstream::start([
        ("a", vec![limited.clone(), limited]),
        ("b", vec![Script::json(200, REPLY)]),
    ])
    .await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/a"], "attempts = 3")).await;
    let reply = chat(&gateway, ask("r")).await;
    assert_eq!(reply.status, 429, "{}", reply.text());
    let came: Vec<Instant> = upstream.requests().iter().map(|request| request.at).collect();
    assert_eq!(came.len(), 3, "as often as its route allows");
    let gaps: Vec<Duration> = came.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.iter().all(|gap| *gap >= Duration::from_secs(1)), "{gaps:?}");
    assert!(gaps[1] > gaps[0], "{gaps:?}");
    let labels = ["provider=\"up\"", "reason=\"rate_limited\""];
    assert_eq!(counted(&gateway, "switchpoint_retries_total", &labels).await, 2);

    let routes = route("r", &["up/a", "up/b"], "attempts = 3");
    let gateway = Gateway::before(&upstream, &routes).await;
    let reply = chat(&gateway, ask("r")).await;
    assert_eq!((reply.status, reply.header("x-switchpoint-model")), (200, Some("b")));
}

#[tokio::test]
async fn a_run_asks_who_limits_its_rate_once_more_before_it_goes_on_to_the_next() {
    let limited = Script::reply(429, &[("retry-after", "1")], BUSY);
    let answers = || Script::stream(answer());
    // How often the first one is asked, by the config, the attempts of the route and its answers.
    let cases = [
        ("", 3, vec![limited.clone(); 9], &["a", "a", "b"][..]),
        ("", 3, vec![limited.clone(), answers()], &["a", "a"]),
        ("limits = { rate_limit_tries = 3 }", 9, vec![limited.clone(); 9], &["a", "a", "a", "b"]),
        ("limits = { rate_limit_tries = 1 }", 3, vec![limited.clone(); 9], &["a", "b"]),
        // Something is left for the next one, who is not kept waiting for long either.
        ("limits = { rate_limit_tries = 9 }", 3, vec![limited.clone(); 9], &["a", "a", "b"]),
        ("", 3, vec![Script::reply(429, &[("retry-after", "9")], BUSY)], &["a", "b"]),
        ("", 3, vec![limited, Script::json(500, BUSY)], &["a", "a", "b"]),
    ];
    let cases = cases.map(|(more, attempts, first, order)| async move {
        let attempts = format!("attempts = {attempts}");
        let first = first.into_iter().chain([answers()]).collect();
        let upstream = Upstream::start([("a?stream", first), ("b?stream", vec![answers()])]).await;
        let agent = format!("[agents.x]\nroute = \"r\"\ninstructions = \"Help.\"\n{more}\n");
        let sections = route("r", &["up/a", "up/b"], &attempts) + &agent;
        let gateway = Gateway::before(&upstream, &sections).await;
        let reply = chat(&gateway, ask("agent/x")).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(asked(&upstream), order, "{more}");
        let came: Vec<Instant> = upstream.requests().iter().map(|request| request.at).collect();
        let again = order.iter().filter(|name| **name == "a").count();
        let gaps: Vec<Duration> = came[..again].windows(2).map(|it| it[1] - it[0]).collect();
        assert!(gaps.iter().all(|gap| *gap >= Duration::from_secs(1)), "{gaps:?}");
        assert!(gaps.is_sorted_by(|gap, next| gap < next), "{gaps:?}");
        let labels = ["provider=\"up\"", "reason=\"rate_limited\""];
        let retries = gateway.metric("switchpoint_retries_total", &labels).await;
        assert_eq!(format!("{retries:.0}").replace('-', ""), gaps.len().to_string());
    });
    futures_util::future::join_all(cases).await;
}

#[tokio::test]
async fn who_wants_to_be_left_alone_for_long_is_not_waited_for() {
    let limited = Script::reply(429, &[("retry-after", "30")], BUSY);
    let upstream = Upstream::start([("a", [limited])]).await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/a"], "")).await;
    let started = Instant::now();
    for _ in 0..2 {
        let reply = chat(&gateway, ask("r")).await;
        let wait: u64 = reply.header("retry-after").unwrap().parse().unwrap();
        assert_eq!((reply.status, (29..=30).contains(&wait)), (429, true), "{wait}");
    }
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(asked(&upstream), ["a"]);
}

#[tokio::test]
async fn all_calls_together_retry_no_more_than_the_gateway_allows() {
    // A conflict says nothing of anybody's health, so nothing else keeps the calls away.
    let upstream = Upstream::start([("a", [Script::json(409, BUSY)])]).await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/a"], "attempts = 3")).await;
    let started = Instant::now();
    let calls = (0..30).map(|_| chat(&gateway, ask("r")));
    for reply in futures_util::future::join_all(calls).await {
        assert_eq!(reply.status, 502, "{}", reply.text());
    }
    assert!(started.elapsed() < Duration::from_secs(9), "the budget is of ten seconds");
    let retries = counted(&gateway, "switchpoint_retries_total", &[]).await;
    assert_eq!(retries, 10);
    assert_eq!(asked(&upstream).len(), 40);
}

#[tokio::test]
async fn a_text_completion_gets_no_more_tokens_than_its_route_allows() {
    let upstream = Upstream::start(well(&["m"])).await;
    let sections = route("r", &["up/m"], "max_output_tokens = 50");
    let gateway = Gateway::before(&upstream, &sections).await;
    for (wanted, given) in [(Some(999), 50), (None, 50), (Some(7), 7)] {
        let mut question = json!({"model": "r", "prompt": "Once upon a time"});
        if let Some(wanted) = wanted {
            question["max_tokens"] = wanted.into();
        }
        let question = question.to_string();
        let reply = post(gateway.address, "/v1/completions", KEY, question).await;
        assert_eq!(reply.status, 200);
        let asked = body(upstream.requests().last().unwrap());
        assert_eq!((&asked["max_tokens"], &asked["model"]), (&json!(given), &json!("m")));
    }
}
