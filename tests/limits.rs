//! Nobody is waited for longer than agreed: slow upstreams, slow readers, clients that left.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::support::client::{self, chat, wire};
use crate::support::gateway::route;
use crate::support::replies::{REPLY, ask, ask_stream, role, word};
use crate::support::script::Step;
use crate::support::{Gateway, Script, Upstream, until, within};

const SECOND: Duration = Duration::from_secs(1);

fn limits(written: &str) -> String {
    format!("timeouts = {{ {written} }}")
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
async fn a_client_that_leaves_before_its_question_has_left_is_charged_nothing() {
    let mute = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = mute.local_addr().unwrap();
    let sections = format!(
        "[providers.up]\nkind = \"openai-compatible\"\nbase_url = \"https://{address}/v1\"\n"
    ) + &route("r", &["up/m"], "");
    let gateway = Gateway::start("", &sections).await;
    for (place, body) in [ask("r"), ask_stream("r")].iter().enumerate() {
        let stream = client::send(gateway.address, &wire(body)).await;
        let _connection = mute.accept().await.unwrap();
        drop(stream);
        let record = gateway.recorded(place + 1).await[place].clone();
        let told = (&record["outcome"], &record["usage_source"], &record["input_tokens"]);
        assert_eq!(told, (&"client_closed".into(), &"none".into(), &0.into()), "{record}");
    }
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
    let idle = gateway.resident();
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
    let held = gateway.resident().saturating_sub(idle);
    assert!(held < 32 << 20, "the gateway holds {held} bytes");
    drop(stream);
    assert_eq!(gateway.record().await["outcome"], "client_closed");
}
