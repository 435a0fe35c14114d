//! Streams end rightly: complete, with an error that says so, or not at all for a client that left.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::client::{self, chat, open_chat, wire};
use crate::support::gateway::{provider, route};
use crate::support::replies::{
    DONE, REPLY, answer, ask, ask_stream, choice, event, finish, role, shown, usage, word,
};
use crate::support::script::Step;
use crate::support::{Gateway, Script, Upstream, until, within};

const KEEP_ALIVE: &str = ": ka\n\n";
const SECOND: Duration = Duration::from_secs(1);

fn limits(written: &str) -> String {
    format!("timeouts = {{ {written} }}")
}

fn said_usage(text: &str) -> serde_json::Value {
    let events = text
        .split("data: ")
        .filter_map(|event| serde_json::from_str::<serde_json::Value>(event).ok());
    events.filter(|event| event["usage"].is_object()).last().unwrap_or_default()["usage"].clone()
}

#[tokio::test]
async fn a_stream_cut_before_its_finish_ends_in_an_error_and_never_in_done() {
    // A reset throws away what was not read yet, so it waits until the beginning has been.
    let pause = Duration::from_millis(100);
    let begun = || Script::stream_head().chunks([role(), word("Hel")]).wait(pause);
    let upstream = Upstream::start([
        ("close", [begun().close()]),
        ("reset", [begun().reset()]),
        ("orderly", [begun().end()]),
        ("half-an-event", [begun().chunks(["data: {\"choices\":[{\"delta\":"]).end()]),
        ("garbled", [begun().then(Step::Send("zz\r\n".into())).close()]),
    ])
    .await;
    let gateway = Gateway::before(&upstream, "").await;
    for (place, model) in
        ["close", "reset", "orderly", "half-an-event", "garbled"].into_iter().enumerate()
    {
        let reply = chat(&gateway, ask_stream(&format!("up/{model}"))).await;
        assert_eq!(reply.status, 200);
        let begun = [role(), word("Hel")].concat();
        let rest = reply
            .text()
            .strip_prefix(&begun)
            .unwrap_or_else(|| panic!("{model}: {}", reply.text()));
        assert!(rest.starts_with("data: {\"error\":") && rest.ends_with("\n\n"), "{model}: {rest}");
        let error = &reply.last_event()["error"];
        assert_eq!(
            (&error["code"], &error["attempts"][0]["outcome"]),
            (&"stream_truncated".into(), &"upstream_truncated".into()),
            "{model}"
        );
        assert!(!rest.contains("[DONE]"), "{model}");
        let record = &gateway.recorded(place + 1).await[place];
        assert_eq!(record["outcome"], "upstream_truncated", "{model}");
        assert_eq!(
            (&record["usage_source"], &record["output_tokens"]),
            (&"estimated".into(), &1.into())
        );
    }
}

#[tokio::test]
async fn a_finish_without_done_is_completed_within_a_second() {
    let finished =
        || Script::stream_head().chunks([role(), word("Hello"), word(" there."), finish()]);
    let upstream = Upstream::start([
        ("ends", [finished().end()]),
        ("closes", [finished().close()]),
        ("stays", [finished().stall()]),
        ("with-usage", [finished().chunks([usage()]).stall()]),
    ])
    .await;
    let gateway = Gateway::before(&upstream, "").await;
    for model in ["ends", "closes", "stays", "with-usage"] {
        let asks = [false, true].map(|asked| {
            let options = if asked { r#","stream_options":{"include_usage":true}"# } else { "" };
            (asked, format!(r#"{{"model":"up/{model}","stream":true{options}}}"#))
        });
        for (asked, body) in asks {
            let mut reply = open_chat(&gateway, body).await;
            let begun = reply.read_until("\"stop\"").await;
            let finished = Instant::now();
            let rest = reply.whole().await;
            assert!(
                finished.elapsed() < SECOND + Duration::from_millis(300),
                "{model}: {:?}",
                finished.elapsed()
            );
            let text = begun + rest.text();
            assert!(text.ends_with(DONE), "{model}: {text}");
            assert_eq!(text.matches("[DONE]").count(), 1);
            let usage = said_usage(&text);
            assert_eq!(
                usage["total_tokens"].as_u64().is_some_and(|total| total > 0),
                asked,
                "{model}: {text}"
            );
            assert_eq!(
                usage["estimated"] == true,
                asked && model != "with-usage",
                "{model}: {text}"
            );
        }
    }
    for record in gateway.stop() {
        assert_eq!(
            (&record["outcome"], record["output_tokens"].as_u64() > Some(0)),
            (&"ok".into(), true),
            "{record}"
        );
    }
}

#[tokio::test]
async fn usage_is_read_wherever_a_provider_puts_it() {
    let counts = r#""usage":{"prompt_tokens":11,"completion_tokens":4,"total_tokens":15}"#;
    let with_finish = event(&format!(
        r#""choices":[{{"index":0,"delta":{{}},"finish_reason":"stop"}}],{counts}"#
    ));
    let begun = || vec![role(), word("Hello")];
    let stream = |end: Vec<String>| [Script::stream([begun(), end].concat())];
    let upstream = Upstream::start([
        ("behind", stream(vec![finish(), usage(), DONE.into()])),
        ("with", stream(vec![with_finish, DONE.into()])),
        ("before", stream(vec![usage(), finish(), DONE.into()])),
        ("never", stream(vec![finish(), DONE.into()])),
    ])
    .await;
    let gateway = Gateway::before(&upstream, "").await;
    for (place, model) in ["behind", "with", "before", "never"].into_iter().enumerate() {
        assert!(chat(&gateway, ask_stream(&format!("up/{model}"))).await.text().ends_with(DONE));
        let record = &gateway.recorded(place + 1).await[place];
        let (source, output) = if model == "never" { ("estimated", 1) } else { ("provider", 4) };
        assert_eq!(
            (&record["usage_source"], &record["output_tokens"]),
            (&source.into(), &output.into()),
            "{model}"
        );
        assert_ne!(record["input_tokens"], 0);
    }
    assert!(gateway.metric("switchpoint_tokens_total", &["provider=\"up\""]).await > 0.0);
}

#[tokio::test]
async fn an_error_inside_a_stream_is_passed_on_and_is_the_last_word() {
    let error = "data: {\"error\":{\"message\":\"The model broke.\",\"code\":500}}\n\n";
    let script = Script::stream_head()
        .chunks([role(), word("a")])
        .wait(Duration::from_millis(100))
        .chunks([error, &word("b"), DONE])
        .end();
    let upstream = Upstream::start([("m", [script])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    let reply = chat(&gateway, ask_stream("up/m")).await;
    assert_eq!(reply.text(), [role(), word("a"), error.to_owned()].concat());
    assert_eq!(gateway.record().await["outcome"], "upstream_error");
}

#[tokio::test]
async fn silence_before_the_head_is_bridged_by_keep_alives_and_a_slow_answer_still_comes() {
    let late = Script::default().wait(Duration::from_millis(700));
    let late = Script([late.0, Script::stream(answer()).0].concat());
    let upstream = Upstream::start([
        ("late", [late]),
        (
            "fails",
            [Script::default()
                .wait(Duration::from_millis(400))
                .then(Step::Send("HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n".into()))],
        ),
    ])
    .await;
    let sections = provider("up", &upstream) + &route("r", &["up/fails", "up/late"], "");
    let gateway = Gateway::start("keepalive = \"200ms\"", &sections).await;
    let started = Instant::now();
    let reply = open_chat(&gateway, ask_stream("up/late")).await;
    let headed = started.elapsed();
    assert_eq!(
        (reply.status, reply.headers["content-type"].to_str().unwrap()),
        (200, "text/event-stream")
    );
    assert!(
        headed > Duration::from_millis(150) && headed < Duration::from_millis(600),
        "{headed:?}"
    );
    let text = reply.whole().await;
    let events = text.text().trim_start_matches(KEEP_ALIVE);
    assert_eq!(events, shown());
    assert!(text.text().matches(KEEP_ALIVE).count() >= 2);
    // After the head another target may still take over, and the last failure goes in-band.
    assert_eq!(
        chat(&gateway, ask_stream("r")).await.text().trim_start_matches(KEEP_ALIVE),
        shown()
    );
    let failed = chat(&gateway, ask_stream("up/fails")).await;
    assert_eq!(
        (failed.status, &failed.last_event()["error"]["code"]),
        (200, &"upstream_error".into())
    );
    let outcomes: Vec<_> =
        gateway.recorded(3).await.iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, ["ok", "ok", "upstream_error"]);
}

#[tokio::test]
async fn keep_alives_come_only_between_events_and_upstream_comments_never_pass() {
    let hello = word("Hello");
    let (left, right) = hello.split_at(40);
    let pause = Duration::from_millis(500);
    let script = Script::stream_head()
        .chunks([role(), word("A"), ": upstream\n\n".to_owned(), left.to_owned()])
        .wait(pause)
        .chunks([right.to_owned(), format!(": inside\nid: 7\nretry: 9\n{}", word("B"))])
        .wait(pause)
        .chunks([finish(), DONE.to_owned()])
        .end();
    let upstream = Upstream::start([("m", [script])]).await;
    let gateway = Gateway::start("keepalive = \"150ms\"", &provider("up", &upstream)).await;
    let reply = chat(&gateway, ask_stream("up/m")).await;
    let text = reply.text();
    assert!(text.matches(KEEP_ALIVE).count() >= 4, "{text}");
    let events = text.replace(KEEP_ALIVE, "").replace("retry: 9\n", "");
    assert_eq!(
        events,
        [role(), word("A"), word("Hello"), word("B"), finish(), DONE.into()].concat()
    );
}

#[tokio::test]
async fn each_limit_ends_its_phase_in_time_and_closes_the_upstreams_socket() {
    let comments =
        || Script::default().chunks(vec![": wait\n\n"; 400]).paced(Duration::from_millis(20));
    let begun = || Script::stream_head().chunks([role(), word("a")]);
    let with_comments = |script: Script| Script([script.0, comments().0].concat());
    let endless = begun().chunks(vec![word("a"); 400]).paced(Duration::from_millis(20));
    let cases = [
        ("headers", r#"headers = "300ms""#, Script::default().stall()),
        (
            "first",
            r#"first_token = "300ms""#,
            with_comments(Script::stream_head().chunks([role()])),
        ),
        ("idle", r#"idle = "300ms""#, with_comments(begun())),
        ("total", r#"total = "300ms""#, endless),
    ];
    let upstream =
        Upstream::start(cases.iter().map(|(name, _, script)| (*name, [script.clone()]))).await;
    let routes = cases.iter().map(|(name, limit, _)| {
        route(&format!("r-{name}"), &[&format!("up/{name}")], &limits(limit))
    });
    let gateway = Gateway::before(&upstream, &routes.collect::<String>()).await;
    for (place, (name, ..)) in cases.iter().enumerate() {
        let started = Instant::now();
        let reply = chat(&gateway, ask_stream(&format!("r-{name}"))).await;
        let elapsed = started.elapsed();
        assert!(
            elapsed >= Duration::from_millis(290) && elapsed < Duration::from_millis(1300),
            "{name}: {elapsed:?}"
        );
        let content = matches!(*name, "idle" | "total");
        assert_eq!(reply.status, if content { 200 } else { 504 }, "{name}");
        let error = if content { reply.last_event() } else { reply.json() };
        assert_eq!(error["error"]["code"], "upstream_timeout", "{name}");
        within(SECOND, "the socket is closed", || upstream.open_connections() == 0).await;
        assert_eq!(gateway.recorded(place + 1).await[place]["outcome"], "timeout", "{name}");
    }
}

#[tokio::test]
async fn a_connection_that_is_not_made_in_time_is_given_up() {
    // It accepts and then says nothing, so TLS never comes to be.
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap();
    let sections = format!(
        "[providers.up]\nkind = \"openai-compatible\"\nbase_url = \"https://{address}/v1\"\n"
    ) + &route("r", &["up/m"], &limits(r#"connect = "300ms""#));
    let gateway = Gateway::start("", &sections).await;
    let started = Instant::now();
    let reply = chat(&gateway, ask("r")).await;
    assert!(started.elapsed() < Duration::from_millis(1300), "{:?}", started.elapsed());
    assert_eq!((reply.status, &reply.json()["error"]["code"]), (504, &"upstream_timeout".into()));
}

#[tokio::test]
async fn the_total_limit_ends_a_whole_answer_that_drips() {
    let drip = Script::raw(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 999\r\n\r\n",
    );
    let drip = Script([drip.0, vec![Step::Send(" ".into()); 400]].concat())
        .paced(Duration::from_millis(20));
    let upstream = Upstream::start([("m", [drip])]).await;
    let gateway =
        Gateway::before(&upstream, &route("r", &["up/m"], &limits(r#"total = "300ms""#))).await;
    let started = Instant::now();
    assert_eq!(chat(&gateway, ask("r")).await.status, 504);
    assert!(started.elapsed() < Duration::from_millis(1300));
    within(SECOND, "the socket is closed", || upstream.open_connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_upstream_call_with_it() {
    let begun = Script::stream_head().chunks([role(), word("a")]).stall();
    let cases = [
        ("before-headers", ask_stream("r-before-headers"), Script::default().stall(), ""),
        (
            "before-token",
            ask_stream("r-before-token"),
            Script::stream_head().chunks([role()]).stall(),
            "",
        ),
        ("mid-stream", ask_stream("r-mid-stream"), begun, "\"a\""),
        ("whole", ask("r-whole"), Script::default().stall(), ""),
        (
            "whole-body",
            ask("r-whole-body"),
            Script::raw("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{").stall(),
            "",
        ),
    ];
    let scripts =
        cases.iter().map(|(name, _, script, _)| ((*name).to_owned(), vec![script.clone()]));
    let upstream =
        Upstream::start(scripts.chain([("spare".to_owned(), vec![Script::json(200, REPLY)])]))
            .await;
    let routes = cases
        .iter()
        .map(|(name, ..)| route(&format!("r-{name}"), &[&format!("up/{name}"), "up/spare"], ""));
    let gateway = Gateway::before(&upstream, &routes.collect::<String>()).await;
    for (place, (name, body, _, wait_for)) in cases.iter().enumerate() {
        let mut stream = client::send(gateway.address, &wire(body)).await;
        upstream.asked(place + 1).await;
        client::read_until(&mut stream, wait_for).await;
        until("the call is under way", || upstream.busy() == 1).await;
        drop(stream);
        within(SECOND, "the upstream call ends", || upstream.busy() == 0).await;
        let record = &gateway.recorded(place + 1).await[place];
        assert_eq!(record["outcome"], "client_closed", "{name}");
    }
    assert_eq!(upstream.open_connections(), 0);
    assert_eq!(upstream.requests().len(), cases.len(), "nothing is tried for nobody");
}

#[tokio::test]
async fn a_client_that_does_not_read_slows_its_upstream_down() {
    // More than the buffers of two connections can take, however far their kernel lets them grow.
    let many = 16_384;
    let piece = Script::default().chunks([word(&"x".repeat(16 * 1024))]).0.remove(0);
    let sent = many * 16 * 1024;
    let begun = Script::stream_head().chunks([role()]).0;
    let script = Script([begun, vec![piece; many]].concat());
    let upstream = Upstream::start([("m", [script])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    let mut stream = client::send(gateway.address, &wire(&ask_stream("up/m"))).await;
    client::read_until(&mut stream, "chatcmpl").await;
    let written = || upstream.connections()[0].written;
    let (mut before, mut since) = (0, Instant::now());
    // Still is what has not moved for a while: the buffers of both kernels are full.
    until("the upstream stands still", || {
        if written() != before {
            (before, since) = (written(), Instant::now());
        }
        since.elapsed() > Duration::from_millis(300)
    })
    .await;
    assert!(before < sent / 3, "{before} of {sent} bytes were pulled");
    let resident = gateway.resident();
    assert!(resident < 64 << 20, "the gateway holds {resident} bytes");
    drop(stream);
    assert_eq!(gateway.record().await["outcome"], "client_closed");
}

#[tokio::test]
async fn tokens_that_come_one_by_one_leave_one_by_one() {
    let words: Vec<_> = (0..12).map(|number| word(&format!("w{number}"))).collect();
    let gap = Duration::from_millis(100);
    let script = Script::stream_head()
        .chunks(words.clone())
        .paced(gap)
        .chunks([finish(), DONE.into()])
        .end();
    let upstream = Upstream::start([("m", [script])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    let pieces = open_chat(&gateway, ask_stream("up/m")).await.pieces().await;
    let arrivals: Vec<_> = words
        .iter()
        .map(|word| {
            pieces
                .iter()
                .find(|piece| piece.bytes == word.as_bytes())
                .expect("each in its own piece")
                .at
        })
        .collect();
    for pair in arrivals.windows(2) {
        let between = pair[1] - pair[0];
        assert!(between > gap / 2 && between < gap * 2, "{between:?}");
    }
}

#[tokio::test]
async fn every_answer_asked_for_is_waited_for() {
    let second = |reason: &str| {
        event(&format!(
            r#""choices":[{{"index":1,"delta":{{"content":"b"}},"finish_reason":{reason}}}]"#
        ))
    };
    let pieces = vec![
        choice(r#"{"content":"a"}"#, "\"stop\""),
        second("null"),
        second("\"stop\""),
        DONE.to_owned(),
    ];
    let cut = pieces[..2].to_vec();
    let upstream =
        Upstream::start([("m", [Script::stream(pieces.clone())]), ("cut", [Script::stream(cut)])])
            .await;
    let gateway = Gateway::before(&upstream, "").await;
    let body = |model: &str| format!(r#"{{"model":"up/{model}","n":2,"stream":true}}"#);
    assert_eq!(chat(&gateway, body("m")).await.text(), pieces.concat());
    assert_eq!(chat(&gateway, body("cut")).await.last_event()["error"]["code"], "stream_truncated");
}
