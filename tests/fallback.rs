//! When a target fails before its first content the next one answers, and never after.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::net::TcpListener;

use crate::support::client::{self, CHAT, chat, open_chat};
use crate::support::gateway::{provider, route};
use crate::support::replies::{REPLY, answer, ask, ask_stream, event, role, shown, word};
use crate::support::{Gateway, Script, Upstream, until};

const LIMITS: &str = r#"timeouts = { connect = "500ms", headers = "300ms", first_token = "600ms", idle = "300ms", total = "20s" }"#;

const OVERLOADED: &str =
    r#"{"error":{"message":"Overloaded, try later.","type":"overloaded_error"}}"#;

/// What goes wrong before any content, whether a stream was asked for or not.
fn faults() -> Vec<(String, Script)> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let mut faults = vec![
        ("reset", Script::default().reset()),
        ("close", Script::default().close()),
        ("half-a-head", Script::raw("HTTP/1.1 200 OK\r\ncontent-ty").close()),
        ("not-http", Script::raw("SSH-2.0-OpenSSH_9.9\r\n").close()),
        ("bad-status", Script::raw("HTTP/1.1 2x0 OK\r\n\r\n").close()),
        ("short-body", Script::raw(format!("{head}content-length: 500\r\n\r\n{{\"id\":1")).close()),
        (
            "bad-chunk",
            Script::raw(format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n")).close(),
        ),
        ("error-with-200", Script::json(200, OVERLOADED)),
        ("silent", Script::default().stall()),
        ("silent-in-the-head", Script::raw("HTTP/1.1 200 OK\r\n").stall()),
        (
            "silent-body",
            Script::raw(format!("{head}content-length: 500\r\n\r\n{{\"id\":1")).stall(),
        ),
    ]
    .into_iter()
    .map(|(name, script)| (name.to_owned(), script))
    .collect::<Vec<_>>();
    let statuses = [401, 402, 403, 404, 405, 408, 409, 410, 413, 425, 429, 500, 502, 503, 504, 529];
    // Longer than these tests take: who asks to be left alone is so to their end.
    let headers = [("content-type", "application/json"), ("retry-after", "60")];
    faults.extend(statuses.map(|status| {
        let headers = if status == 429 { &headers[..] } else { &headers[..1] };
        (format!("status-{status}"), Script::reply(status, headers, OVERLOADED))
    }));
    faults
}

/// What can only go wrong with a stream.
fn stream_faults() -> Vec<(String, Script)> {
    let open = || Script::stream_head().chunks([role()]);
    let error = format!("data: {OVERLOADED}\n\n");
    [
        ("silent-stream", Script::stream_head().stall()),
        ("silent-after-role", open().stall()),
        (
            "only-comments",
            Script::stream_head()
                .chunks(vec![": wait\n\n"; 200])
                .paced(Duration::from_millis(20))
                .stall(),
        ),
        ("cut-stream", Script::stream_head().close()),
        ("cut-after-role", open().close()),
        ("reset-after-role", open().reset()),
        ("empty-stream", Script::stream_head().end()),
        ("done-alone", Script::stream(["data: [DONE]\n\n"])),
        ("in-band-error", open().chunks([&error]).end()),
        ("named-error", open().chunks([format!("event: error\n{error}")]).end()),
        (
            "error-beside-choices",
            open().chunks([event(r#""choices":[],"error":{"message":"no"}"#)]).end(),
        ),
        (
            "garbled-chunk",
            open().chunks(["x"]).then(crate::support::script::Step::Send("zz\r\n".into())).close(),
        ),
    ]
    .map(|(name, script)| (name.to_owned(), script))
    .into()
}

/// An upstream with all faults and two targets that work, and a route for each fault.
async fn house() -> (Upstream, Gateway) {
    let good = [
        ("good".to_owned(), vec![Script::json(200, REPLY)]),
        ("good-stream".to_owned(), vec![Script::stream(answer())]),
    ];
    let scripts =
        faults().into_iter().chain(stream_faults()).map(|(name, script)| (name, vec![script]));
    let upstream = Upstream::start(scripts.chain(good)).await;
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut sections = provider("up", &upstream);
    let _ = write!(
        sections,
        "[providers.gone]\nkind = \"openai-compatible\"\nbase_url = \"http://{closed}/v1\"\n"
    );
    let names = faults().into_iter().chain(stream_faults()).map(|(name, _)| format!("up/{name}"));
    for target in names.chain(["gone/refused".to_owned()]) {
        let name = target.split_once('/').unwrap().1;
        sections.push_str(&route(name, &[&target, "up/good"], LIMITS));
        sections.push_str(&route(
            &format!("stream-of-{name}"),
            &[&target, "up/good-stream"],
            LIMITS,
        ));
    }
    let gateway = Gateway::start("", &sections).await;
    (upstream, gateway)
}

#[tokio::test]
async fn the_next_target_answers_whatever_befalls_the_first_before_content() {
    let (_upstream, gateway) = house().await;
    let whole = faults().into_iter().map(|(name, _)| (name, false));
    let streams = faults().into_iter().chain(stream_faults()).map(|(name, _)| (name, true));
    let refused = [("refused".to_owned(), false), ("refused".to_owned(), true)];
    let mut calls = 0;
    for (name, stream) in whole.chain(streams).chain(refused) {
        let (body, expected) = if stream {
            (ask_stream(&format!("stream-of-{name}")), shown())
        } else {
            (ask(&name), REPLY.to_owned())
        };
        let started = tokio::time::Instant::now();
        let reply = chat(&gateway, body).await;
        assert_eq!((reply.status, reply.text()), (200, expected.as_str()), "{name}");
        // Who asked to be left alone is not asked again by the next call.
        let attempts = if stream && name == "status-429" { "1" } else { "2" };
        assert_eq!(reply.header("x-switchpoint-attempts"), Some(attempts), "{name}");
        assert!(started.elapsed() < Duration::from_millis(1600), "{name}: {:?}", started.elapsed());
        calls += 1;
    }
    let records = gateway.stop();
    assert_eq!(records.len(), calls);
    let once = records.iter().filter(|record| record["attempts"] == 1).count();
    assert_eq!(once, 1, "the second call of the limited target");
    assert!(records.iter().all(|record| record["outcome"] == "ok"));
}

#[tokio::test]
async fn nothing_falls_back_once_content_has_been_passed_on() {
    let upstream = Upstream::start([
        ("breaks", [Script::stream_head().chunks([role(), word("Hel")]).reset()]),
        ("good", [Script::stream(answer())]),
    ])
    .await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/breaks", "up/good"], "")).await;
    let reply = chat(&gateway, ask_stream("r")).await;
    assert!(reply.text().starts_with(&[role(), word("Hel")].concat()), "{}", reply.text());
    assert_eq!(reply.last_event()["error"]["code"], "stream_truncated");
    assert!(!reply.text().contains("[DONE]"));
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_request_that_no_target_would_take_is_refused_with_the_upstreams_words() {
    for status in [400, 422] {
        let said = r#"{"error":{"message":"`top_q` is unknown.","type":"invalid_request_error","param":"top_q","code":"unknown_parameter"}}"#;
        let upstream = Upstream::start([
            ("picky", [Script::json(status, said)]),
            ("good", [Script::json(200, REPLY)]),
        ])
        .await;
        let gateway = Gateway::before(&upstream, &route("r", &["up/picky", "up/good"], "")).await;
        for body in [ask("r"), ask_stream("r")] {
            let reply = chat(&gateway, body).await;
            assert_eq!(reply.status, status);
            let error = &reply.json()["error"];
            assert_eq!(error["message"], "`top_q` is unknown.");
            assert_eq!(
                (&error["param"], &error["code"]),
                (&"top_q".into(), &"invalid_request".into())
            );
            assert_eq!(error["upstream_code"], "unknown_parameter");
        }
        assert!(upstream.requests().iter().all(|request| request.model == "picky"));
    }
}

#[tokio::test]
async fn rate_limits_everywhere_become_a_429_with_the_shortest_wait_and_the_trail() {
    let limited = |wait| [Script::reply(429, &[("retry-after", wait)], OVERLOADED)];
    let upstream =
        Upstream::start([("a", limited("7")), ("b", limited("3")), ("c", limited("5"))]).await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/a", "up/b", "up/c"], "")).await;
    for asked in 0..2 {
        let reply = chat(&gateway, ask("r")).await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, Some("3")));
        assert_eq!(upstream.requests().len(), 3, "who wants to be left alone is left alone");
        if asked == 1 {
            continue;
        }
        let error = &reply.json()["error"];
        assert_eq!(
            (&error["code"], &error["type"]),
            (&"rate_limited".into(), &"rate_limit_error".into())
        );
        let trail = error["attempts"].as_array().unwrap();
        let models: Vec<_> =
            trail.iter().map(|attempt| attempt["model"].as_str().unwrap()).collect();
        assert_eq!(models, ["a", "b", "c"]);
        assert!(trail.iter().all(|attempt| attempt["status"] == 429 && attempt["ms"].is_u64()));
        assert!(!reply.text().contains("sk-upstream"));
    }
    let record = &gateway.recorded(2).await[0];
    assert_eq!((&record["outcome"], &record["model"]), (&"rate_limited".into(), &"c".into()));
    let failed: Vec<_> = record["failed"].as_array().unwrap().iter().collect();
    assert_eq!(failed.iter().map(|attempt| &attempt["model"]).collect::<Vec<_>>(), ["a", "b"]);
    assert!(failed.iter().all(|attempt| attempt["status"] == 429));
}

#[tokio::test]
async fn when_every_target_fails_the_status_is_that_of_the_last_failures_class() {
    let upstream = Upstream::start([
        ("401", [Script::json(401, OVERLOADED)]),
        ("404", [Script::json(404, OVERLOADED)]),
        ("500", [Script::json(500, OVERLOADED)]),
        ("silent", [Script::default().stall()]),
        ("cut", [Script::default().close()]),
    ])
    .await;
    let names = ["401", "404", "500", "silent", "cut"];
    let routes: String =
        names.map(|name| route(&format!("r{name}"), &[&format!("up/{name}")], LIMITS)).concat();
    let gateway = Gateway::before(&upstream, &routes).await;
    let expected = [
        (502, "upstream_error"),
        (404, "model_not_found"),
        (502, "upstream_error"),
        (504, "upstream_timeout"),
        (502, "upstream_error"),
    ];
    for (name, (status, code)) in names.into_iter().zip(expected) {
        for body in [ask(&format!("r{name}")), ask_stream(&format!("r{name}"))] {
            let reply = chat(&gateway, body).await;
            assert_eq!(
                (reply.status, &reply.json()["error"]["code"]),
                (status, &code.into()),
                "{name}"
            );
            assert_eq!(reply.json()["error"]["attempts"][0]["model"], name);
        }
    }
}

#[tokio::test]
async fn the_second_key_is_tried_when_the_first_is_refused_or_limited() {
    for status in [401, 402, 403, 429] {
        let upstream =
            Upstream::start([("m", [Script::json(status, OVERLOADED), Script::json(200, REPLY)])])
                .await;
        let base = upstream.base();
        let sections = format!(
            "[providers.up]\nkind = \"openai\"\nbase_url = \"{base}\"\napi_keys = [\"sk-one\", \"sk-two\"]\n"
        );
        let gateway = Gateway::start("", &sections).await;
        assert_eq!(chat(&gateway, ask("up/m")).await.text(), REPLY);
        let keys: BTreeSet<_> = upstream
            .requests()
            .iter()
            .map(|request| request.header("authorization").unwrap().to_owned())
            .collect();
        assert_eq!(keys.len(), 2, "{status}: {keys:?}");
    }
}

#[tokio::test]
async fn a_body_of_thirty_mebibytes_reaches_the_second_target_unchanged() {
    let upstream = Upstream::start([
        ("a", [Script::json(503, OVERLOADED)]),
        ("b", [Script::json(200, REPLY)]),
    ])
    .await;
    let gateway = Gateway::before(&upstream, &route("r", &["up/a", "up/b"], "")).await;
    let noise: String = (0..30 << 20)
        .map(|at: u32| char::from(b'a' + u8::try_from(at * 7 % 26).unwrap()))
        .collect();
    let body = |model: &str| {
        format!(r#"{{"model":"{model}","messages":[{{"role":"user","content":"{noise}"}}]}}"#)
    };
    assert_eq!(chat(&gateway, body("r")).await.text(), REPLY);
    let requests = upstream.requests();
    assert_eq!(requests.len(), 2);
    assert!(requests[0].body == body("a").as_bytes(), "the first target got another body");
    assert!(requests[1].body == body("b").as_bytes(), "the second target got another body");
}

#[tokio::test]
async fn a_stale_connection_is_replaced_once_without_anyone_noticing() {
    let good = || Script::json(200, REPLY);
    for end in [Script::default().close(), Script::default().reset()] {
        let upstream = Upstream::start([("m", [good(), end, good()])]).await;
        let gateway = Gateway::start("workers = 1", &provider("up", &upstream)).await;
        for _ in 0..2 {
            let reply = chat(&gateway, ask("up/m")).await;
            assert_eq!((reply.text(), reply.header("x-switchpoint-attempts")), (REPLY, Some("1")));
        }
        let connections: Vec<_> =
            upstream.requests().iter().map(|request| request.connection).collect();
        assert_eq!(connections, [0, 0, 1]);
    }
}

#[tokio::test]
async fn a_fresh_connection_that_closes_is_not_tried_again_in_secret() {
    let upstream = Upstream::start([("m", [Script::default().close()])]).await;
    let gateway = Gateway::start("workers = 1", &provider("up", &upstream)).await;
    let reply = chat(&gateway, ask("up/m")).await;
    assert_eq!(reply.status, 502);
    let trail = reply.json()["error"]["attempts"].as_array().unwrap().len();
    assert_eq!(upstream.requests().len(), trail);
}

#[tokio::test]
async fn what_a_provider_was_at_work_on_is_not_sent_again_in_secret() {
    let held = || Script::default().wait(Duration::from_millis(700));
    for end in [held().close(), held().reset()] {
        let script = [Script::json(200, REPLY), end];
        let upstream = Upstream::start([("m", script)]).await;
        let more =
            format!("{}{}", provider("up", &upstream), route("r", &["up/m"], "attempts = 1"));
        let gateway = Gateway::start("workers = 1", &more).await;
        assert_eq!(chat(&gateway, ask("r")).await.text(), REPLY);
        let reply = chat(&gateway, ask("r")).await;
        assert_eq!((reply.status, reply.header("x-switchpoint-attempts")), (502, Some("1")));
        assert_eq!(upstream.requests().len(), 2);
    }
}

#[tokio::test]
async fn clients_are_told_where_asking_again_is_of_no_use() {
    let dead = || Script::json(401, r#"{"error":{"message":"no"}}"#);
    let broken = || Script::json(500, r#"{"error":{"message":"no"}}"#);
    let limited = Script::reply(429, &[("x-should-retry", "false")], "{}");
    let scripts = [("dead", dead()), ("broken", broken()), ("limited", limited)];
    let upstream = Upstream::start(scripts.map(|(name, script)| (name, [script]))).await;
    let routes = route("both", &["up/broken", "up/dead"], "attempts = 2");
    let gateway = Gateway::before(&upstream, &routes).await;
    for (model, says, requests) in
        [("up/limited", Some("false"), 1), ("both", None, 3), ("up/dead", Some("false"), 1)]
    {
        let before = upstream.requests().len();
        let reply = chat(&gateway, ask(model)).await;
        assert_eq!(reply.header("x-should-retry"), says, "{model}");
        assert_eq!(upstream.requests().len() - before, requests, "{model}");
    }
}

#[tokio::test]
async fn connections_that_the_peer_closed_while_idle_are_not_used() {
    let upstream = Upstream::start([("m", [Script::json(200, REPLY)])]).await;
    upstream.close_idle(Duration::from_millis(20));
    let gateway = Gateway::start("workers = 1", &provider("up", &upstream)).await;
    for _ in 0..5 {
        assert_eq!(chat(&gateway, ask("up/m")).await.text(), REPLY);
        until("the upstream closes", || upstream.open_connections() == 0).await;
    }
    assert_eq!(upstream.requests().len(), 5);
}

#[tokio::test]
async fn every_call_is_recorded_exactly_once_by_whatever_road_it_ends() {
    let upstream = Upstream::start([
        ("good", vec![Script::json(200, REPLY)]),
        ("stream", vec![Script::stream(answer())]),
        ("cut", vec![Script::stream_head().chunks([word("a")]).close()]),
        ("fails", vec![Script::json(500, OVERLOADED)]),
        ("silent", vec![Script::default().stall()]),
        ("open", vec![Script::stream_head().chunks([word("a")]).stall()]),
    ])
    .await;
    let gateway = Gateway::before(&upstream, &route("slow", &["up/silent"], LIMITS)).await;
    let mut expected = Vec::new();
    for (body, outcome) in [
        (ask("up/good"), "ok"),
        (ask_stream("up/stream"), "ok"),
        (ask_stream("up/cut"), "upstream_truncated"),
        (ask("up/fails"), "upstream_error"),
        (ask("slow"), "timeout"),
        (ask_stream("slow"), "timeout"),
        (ask("nowhere"), "refused"),
        ("{".to_owned(), "refused"),
        (r#"{"model":"a","model":"b"}"#.to_owned(), "refused"),
    ] {
        chat(&gateway, body).await;
        expected.push(outcome);
    }
    assert_eq!(client::post(gateway.address, CHAT, "", ask("up/good")).await.status, 401);
    assert_eq!(client::post(gateway.address, CHAT, "wrong", ask("up/good")).await.status, 401);
    expected.extend(["refused", "refused"]);
    // A client that leaves in the middle of its own request, and one that leaves a stream.
    let whole = client::wire(&ask("up/good"));
    drop(client::send(gateway.address, &whole[..whole.len() - 9]).await);
    let mut open = open_chat(&gateway, ask_stream("up/open")).await;
    open.next().await.unwrap();
    drop(open);
    expected.extend(["client_closed", "client_closed"]);
    // And a stream that outlives the gateway.
    let mut last = open_chat(&gateway, ask_stream("up/open")).await;
    last.next().await.unwrap();
    gateway.recorded(expected.len()).await;
    expected.push("upstream_truncated");
    let records = gateway.stop();
    let mut outcomes: Vec<_> =
        records.iter().map(|record| record["outcome"].as_str().unwrap()).collect();
    outcomes.sort_unstable();
    expected.sort_unstable();
    assert_eq!(outcomes, expected, "{records:#?}");
    let ids: BTreeSet<_> = records.iter().map(|record| record["id"].to_string()).collect();
    assert_eq!(ids.len(), records.len());
}

#[tokio::test]
async fn what_is_said_of_our_account_inside_a_stream_stays_with_us() {
    let told = |message: &str| {
        let error = format!(r#"data: {{"error":{{"message":"{message}","type":"t"}}}}"#) + "\n\n";
        let began = Script::stream_head().chunks([role(), word("Hel")]);
        [began.wait(Duration::from_millis(50)).chunks([error]).end()]
    };
    let upstream = Upstream::start([
        ("account", told("Your API key of organization org-4711 is out of credit.")),
        ("other", told("The moon is in the wrong place.")),
    ])
    .await;
    let gateway = Gateway::start("", &provider("up", &upstream)).await;
    let reply = chat(&gateway, ask_stream("up/account")).await;
    assert!(reply.text().starts_with(&[role(), word("Hel")].concat()), "{}", reply.text());
    assert_eq!(reply.last_event()["error"]["code"], "upstream_error");
    assert!(!reply.text().contains("org-4711"), "{}", reply.text());
    let reply = chat(&gateway, ask_stream("up/other")).await;
    assert!(reply.text().contains("The moon is in the wrong place."), "{}", reply.text());
}
