//! The doors: who is let in, how, for how long, and how the gateway itself goes out.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{Method, Request, Version};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::support::client::{self, CHAT, chat, get, open_chat, post, raw, send, wire};
use crate::support::gateway::{ADMIN_KEY, KEY, provider, route};
use crate::support::replies::{REPLY, ask, ask_stream, word};
use crate::support::tls::{Authority, Proxy, SecureUpstream};
use crate::support::{Gateway, PATIENCE, Script, Upstream, until};

async fn upstream() -> Upstream {
    let stuck = Script::stream_head().chunks([word("One")]).stall();
    Upstream::start([("served", [Script::json(200, REPLY)]), ("stuck", [stuck])]).await
}

async fn gateway(server: &str, upstream: &Upstream) -> Gateway {
    Gateway::start(server, &provider("up", upstream)).await
}

/// One chat by HTTP/2 over whatever stream; its status.
async fn chat_h2(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> u16 {
    let (mut sender, connection) =
        http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        let _ = connection.await;
    });
    let body = Full::new(Bytes::from(ask("up/served")));
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("https://gateway.test{CHAT}"))
        .header("authorization", format!("Bearer {KEY}"))
        .body(body)
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    let (head, body) = response.into_parts();
    assert_eq!(body.collect().await.unwrap().to_bytes(), REPLY);
    head.status.as_u16()
}

/// Reads to the end, and how long that took.
async fn until_closed(mut stream: TcpStream) -> (String, Duration) {
    let (began, mut answer) = (Instant::now(), Vec::new());
    let read = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("stays open");
    // A reset is an end too.
    drop(read);
    (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
}

#[tokio::test]
async fn one_port_in_clear_speaks_http1_and_http2() {
    let upstream = upstream().await;
    let gateway = gateway("", &upstream).await;
    assert_eq!(chat(&gateway, ask("up/served")).await.status, 200);
    let stream = TcpStream::connect(gateway.address).await.unwrap();
    assert_eq!(chat_h2(stream).await, 200);
}

#[tokio::test]
async fn one_port_with_tls_speaks_what_alpn_chose_and_a_renewed_certificate_is_shown() {
    let (upstream, authority) = (upstream().await, Authority::new());
    let (cert, key) = (authority.path("cert.pem"), authority.path("key.pem"));
    let tls = format!("tls = {{ cert = {cert:?}, key = {key:?} }}\nhead_timeout = \"300ms\"");
    let gateway = gateway(&tls, &upstream).await;

    let stream = authority.connect(gateway.address, &["h2", "http/1.1"]).await;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    assert_eq!(chat_h2(stream).await, 200);

    let mut stream = authority.connect(gateway.address, &["http/1.1"]).await;
    let head = wire(&ask("up/served"));
    stream.write_all(&head).await.unwrap();
    let mut start = [0; 15];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");

    // One that never begins its handshake holds nothing for long.
    let (_, took) = until_closed(TcpStream::connect(gateway.address).await.unwrap()).await;
    assert!(took < Duration::from_secs(5), "{took:?}");

    let shown = |stream: &tokio_rustls::client::TlsStream<TcpStream>| {
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = shown(&stream);
    authority.issue();
    until("the certificate is read again", || {
        gateway.output().iter().any(|line| line.contains("the certificate was read again"))
    })
    .await;
    let began = Instant::now();
    while shown(&authority.connect(gateway.address, &["h2"]).await) == first {
        assert!(began.elapsed() < PATIENCE, "the old certificate is still shown");
    }
}

#[tokio::test]
async fn a_slow_head_is_left_even_when_it_drips() {
    let upstream = upstream().await;
    let gateway = gateway("head_timeout = \"300ms\"", &upstream).await;
    let (_, took) = until_closed(send(gateway.address, b"POST /v1/chat").await).await;
    assert!((200..5000).contains(&took.as_millis()), "{took:?}");

    let began = Instant::now();
    let mut stream = send(gateway.address, b"GET / HTTP/1.1\r\nx-slow: ").await;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut byte = [0; 1];
    loop {
        tokio::select! {
            _ = ticks.tick() => if stream.write_all(b"a").await.is_err() { break },
            _ = stream.read(&mut byte) => break,
        }
        assert!(began.elapsed() < PATIENCE, "a dripping head is waited for");
    }
    assert_eq!(chat(&gateway, ask("up/served")).await.status, 200);
}

#[tokio::test]
async fn a_slow_body_is_refused_and_an_idle_connection_closed() {
    let upstream = upstream().await;
    let gateway = gateway("body_timeout = \"300ms\"\nidle_timeout = \"400ms\"", &upstream).await;
    let mut request = wire(&ask("up/served"));
    request.truncate(request.len() - 10);
    let (answer, took) = until_closed(send(gateway.address, &request).await).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("too slowly"), "{answer}");
    assert!((250..5000).contains(&took.as_millis()), "{took:?}");

    let (answer, took) = until_closed(send(gateway.address, &wire(&ask("up/served"))).await).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!((300..5000).contains(&took.as_millis()), "{took:?}");
    let (_, took) = until_closed(TcpStream::connect(gateway.address).await.unwrap()).await;
    assert!((300..5000).contains(&took.as_millis()), "{took:?}");
}

#[tokio::test]
async fn a_body_that_drips_is_refused_once_its_time_is_over() {
    let upstream = upstream().await;
    let gateway = gateway("body_timeout = \"300ms\"", &upstream).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n");
    let began = Instant::now();
    let mut stream =
        send(gateway.address, format!("{head}content-length: 900\r\n\r\n{{\"").as_bytes()).await;
    let (mut ticks, mut answer) = (tokio::time::interval(Duration::from_millis(20)), [0; 12]);
    loop {
        tokio::select! {
            _ = ticks.tick() => if stream.write_all(b"a").await.is_err() { break },
            _ = stream.read_exact(&mut answer) => break,
        }
        assert!(began.elapsed() < PATIENCE, "a dripping body is waited for");
    }
    assert_eq!(&answer, b"HTTP/1.1 400");
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_refused_before_it_is_there() {
    let upstream = upstream().await;
    let gateway = gateway("max_body = \"1KiB\"", &upstream).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n");
    let declared = format!("{head}content-length: 900000000\r\n\r\n");
    let answer = raw(gateway.address, declared.as_bytes()).await;
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("invalid_request"), "{answer}");

    let piece = format!("400\r\n{{\"x\":\"{}\r\n", "a".repeat(0x400 - 6));
    let chunked = format!("{head}transfer-encoding: chunked\r\n\r\n{piece}400\r\n");
    let answer = raw(gateway.address, &[chunked.as_bytes(), &[b'a'; 0x400]].concat()).await;
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&answer));
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn bodies_of_every_door_count_together() {
    let upstream = upstream().await;
    let gateway = gateway("max_body = \"1KiB\"\nbody_budget = \"1KiB\"", &upstream).await;
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n");
    let begun = format!("{head}content-length: 1000\r\n\r\n{{\"x\":\"{}", "a".repeat(800));
    let slow = send(gateway.address, begun.as_bytes()).await;
    while gateway.metric("switchpoint_body_bytes", &[]).await < 800.0 {
        tokio::task::yield_now().await;
    }
    let body = json!({"input": "a".repeat(500)}).to_string();
    for path in ["/v1/agents/none/runs", "/mcp", CHAT] {
        let answer = post(gateway.address, path, KEY, body.clone()).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{path}");
    }
    drop(slow);
}

#[tokio::test]
async fn one_call_too_many_is_told_when_to_come_back() {
    let upstream = upstream().await;
    let gateway = gateway("max_in_flight = 1", &upstream).await;
    let mut stuck = open_chat(&gateway, ask_stream("up/stuck")).await;
    stuck.read_until("One").await;
    let refused = chat(&gateway, ask("up/served")).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.json()["error"]["code"], "overloaded");
    assert!(gateway.metric("switchpoint_shed_total", &[]).await >= 1.0);
    for path in ["/v1/agents/none/runs", "/v1/tools/none/call"] {
        let refused = post(gateway.address, path, KEY, "{}").await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{path}");
    }
    for path in ["/v1/models", "/v1/me/usage", "/v1/tools"] {
        assert_eq!(get(gateway.address, path, KEY).await.status, 200, "looking is free");
    }
    let ended = post(gateway.address, "/v1/agents/runs/none/cancel", KEY, "{}").await;
    assert_eq!(ended.status, 404, "and so is what ends something");
    drop(stuck);
    until("the stream's record is written", || !gateway.records().is_empty()).await;
    let began = Instant::now();
    while chat(&gateway, ask("up/served")).await.status != 200 {
        assert!(began.elapsed() < PATIENCE, "the permit never came back");
    }
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_counted() {
    let upstream = upstream().await;
    let gateway = gateway("max_connections = 2", &upstream).await;
    let held = [send(gateway.address, b"").await, send(gateway.address, b"").await];
    let (answer, _) = until_closed(send(gateway.address, b"").await).await;
    assert_eq!(answer, "");
    assert!(gateway.metric("switchpoint_shed_total", &[]).await >= 1.0);
    drop(held);
    let began = Instant::now();
    while gateway.metric("switchpoint_connections_open", &[]).await > 0.0 {
        assert!(began.elapsed() < PATIENCE, "closed connections still count");
    }
    assert_eq!(chat(&gateway, ask("up/served")).await.status, 200);
}

#[tokio::test]
async fn a_provider_behind_tls_is_called_by_the_protocol_it_chose() {
    let authority = Authority::new();
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["http/1.1"][..], Version::HTTP_11),
        (&[][..], Version::HTTP_11),
    ] {
        let upstream = SecureUpstream::start(&authority, protocols).await;
        let gateway = Gateway::start("", &upstream.section(&authority.path("ca.pem"), "")).await;
        for _ in 0..3 {
            let answer = chat(&gateway, ask("up/served")).await;
            assert_eq!((answer.status, answer.text()), (200, REPLY), "{protocols:?}");
        }
        assert_eq!(upstream.versions(), [version; 3], "{protocols:?}");
    }
}

#[tokio::test]
async fn calls_that_come_at_once_share_the_connection_that_the_first_one_opens() {
    let authority = Authority::new();
    let limits = route("r", &["up/served"], "timeouts = { connect = \"40s\" }");
    for protocol in ["h2", "http/1.1"] {
        let upstream = SecureUpstream::start(&authority, &[protocol]).await;
        let sections = upstream.section(&authority.path("ca.pem"), "") + &limits;
        let gateway = Gateway::start("workers = 1", &sections).await;
        let answers = join_all((0..60).map(|_| chat(&gateway, ask("r")))).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        assert_eq!(upstream.versions().len(), 60);
        assert_eq!(upstream.connections() == 1, protocol == "h2", "{protocol}");
    }
}

#[tokio::test]
async fn a_provider_that_nobody_vouches_for_is_not_called() {
    let (authority, other) = (Authority::new(), Authority::new());
    let upstream = SecureUpstream::start(&authority, &["h2"]).await;
    let gateway = Gateway::start("", &upstream.section(&other.path("ca.pem"), "")).await;
    let answer = chat(&gateway, ask("up/served")).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], "upstream_unavailable");
    assert!(upstream.versions().is_empty());
}

#[tokio::test]
async fn a_provider_is_reached_through_its_proxy() {
    let (authority, proxy) = (Authority::new(), Proxy::start().await);
    let upstream = SecureUpstream::start(&authority, &["h2", "http/1.1"]).await;
    let more = format!("proxy = \"http://{}\"", proxy.address);
    let gateway = Gateway::start("", &upstream.section(&authority.path("ca.pem"), &more)).await;
    assert_eq!(chat(&gateway, ask("up/served")).await.status, 200);
    let heads = proxy.heads();
    let target = format!("CONNECT {} HTTP/1.1\r\n", upstream.address);
    assert!(heads.len() == 1 && heads[0].starts_with(&target), "{heads:?}");
    assert!(!heads[0].contains("sk-upstream"), "the provider's key is not for the proxy");
}

#[tokio::test]
async fn an_interim_answer_while_a_body_is_sent_does_not_end_the_sending() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let up = format!(
        "[providers.up]\nkind = \"openai-compatible\"\nbase_url = \"http://{}/v1\"\n",
        listener.local_addr().unwrap()
    );
    let gateway = Gateway::start("", &up).await;
    let messages = json!([{"role": "user", "content": "x".repeat(16 << 20)}]);
    let body = json!({"messages": messages, "model": "up/a"}).to_string();
    let served = async {
        let (mut upstream, _) = listener.accept().await.unwrap();
        let mut taken = Vec::with_capacity(1 << 20);
        upstream.read_buf(&mut taken).await.unwrap();
        upstream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await.unwrap();
        while !taken.ends_with(b"}") {
            taken.clear();
            upstream.read_buf(&mut taken).await.unwrap();
        }
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
        let reply = format!("{head}{}\r\n\r\n{REPLY}", REPLY.len());
        upstream.write_all(reply.as_bytes()).await.unwrap();
        upstream
    };
    let (answer, _upstream) = tokio::join!(chat(&gateway, body), served);
    assert_eq!((answer.status, answer.text()), (200, REPLY));
}

#[tokio::test]
async fn a_proxy_with_tls_is_told_nothing_in_clear_for_an_upstream_without() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = proxy.local_addr().unwrap();
    let up = format!(
        "[providers.up]\nkind = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
         proxy = \"https://{address}\"\n"
    );
    let gateway = Gateway::start("", &up).await;
    let first = async {
        let (mut stream, _) = proxy.accept().await.unwrap();
        stream.read_u8().await.unwrap()
    };
    let (first, answer) = tokio::join!(first, chat(&gateway, ask("up/a")));
    assert_eq!(first, 22, "a record of TLS's handshake");
    assert!(answer.status > 500, "{answer:?}");
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = upstream().await;
    let location = format!("{}/chat/completions", elsewhere.base());
    let moved = Script::reply(307, &[("location", &location)], "");
    let upstream = Upstream::start([("moved", [moved])]).await;
    let gateway = Gateway::before(&upstream, "").await;
    let answer = chat(&gateway, ask("up/moved")).await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(elsewhere.requests().is_empty(), "the key would have gone with it");
}

#[tokio::test]
async fn every_admin_route_is_closed_without_the_key() {
    let upstream = upstream().await;
    let gateway = gateway("", &upstream).await;
    for (method, path) in [
        (Method::GET, "/admin/config"),
        (Method::POST, "/admin/config/reload"),
        (Method::DELETE, "/admin/config"),
        (Method::GET, "/admin"),
        (Method::GET, "/"),
        (Method::GET, "/admin/no-such-thing"),
    ] {
        for (value, status, code) in [
            (None, 401, "missing_key"),
            (Some("junk".to_owned()), 401, "invalid_key"),
            (Some("Bearer ".to_owned()), 401, "invalid_key"),
            (Some(format!("Basic {ADMIN_KEY}")), 401, "invalid_key"),
            (Some(format!("Bearer {ADMIN_KEY}x")), 401, "invalid_key"),
            (Some(format!("Bearer {KEY}")), 403, "not_allowed"),
        ] {
            let mut request = client::request(method.clone(), path, "", Bytes::new());
            let header = value
                .as_ref()
                .map(|value| ("authorization".parse().unwrap(), value.parse().unwrap()));
            request.headers_mut().extend(header.map(|(name, value)| (Some(name), value)));
            let answer = client::open(gateway.admin, request).await.whole().await;
            assert_eq!(answer.status, status, "{method} {path} {value:?}");
            assert_eq!(answer.json()["error"]["code"], code, "{method} {path} {value:?}");
        }
    }
    assert_eq!(gateway.metric("switchpoint_config_generation", &[]).await.to_string(), "1");
    assert_eq!(get(gateway.admin, "/admin/config", ADMIN_KEY).await.status, 200);
    assert_eq!(post(gateway.admin, CHAT, ADMIN_KEY, ask("up/served")).await.status, 404);
    assert_eq!(post(gateway.address, CHAT, ADMIN_KEY, ask("up/served")).await.status, 401);
}
