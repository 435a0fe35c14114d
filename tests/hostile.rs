//! Ten thousand requests that nobody honest sends: each ends in a 4xx or a closed connection.

use std::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::client::{CHAT, chat, wire};
use crate::support::gateway::{KEY, provider};
use crate::support::replies::{REPLY, ask};
use crate::support::{Gateway, PATIENCE, Script, Upstream};

const REQUESTS: usize = 10_000;
/// What the process may have grown by, in bytes: buffers and pages kept by the allocator.
const GROWTH: usize = 16 * 1024 * 1024;

fn head(more: &str) -> String {
    format!("POST {CHAT} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n{more}\r\n")
}

fn chunked(body: &str) -> Vec<u8> {
    (head("transfer-encoding: chunked\r\n") + body).into_bytes()
}

/// Bodies that are no request.
fn bodies() -> Vec<Vec<u8>> {
    let deep = |open: &str, count| format!(r#"{{"model":"up/x","messages":{}"#, open.repeat(count));
    let mut bodies: Vec<Vec<u8>> = [
        "",
        "{",
        "}",
        "null",
        "[]",
        "\"x\"",
        "{}",
        "{]",
        "{\"model\":}",
        "{'model':'x'}",
        r#"{"model":"up/served","model":"up/other"}"#,
        r#"{"model":"up/served","mod\u0065l":"up/other"}"#,
        r#"{"model":"up/served"} {"model":"up/served"}"#,
        r#"{"model":"up/served",}"#,
        r#"{"model":7}"#,
        r#"{"model":null}"#,
        r#"{"model":["x"]}"#,
        r#"{"model":""}"#,
        r#"{"model":"nobody/x"}"#,
        r#"{"model":"up/served","n":01}"#,
        r#"{"model":"up/served","n":1e}"#,
        r#"{"model":"up/served","x":"\q"}"#,
        r#"{"model":"up/served","x":"\ud800"#,
        "{\"model\":\"up/\u{0}\"}",
        "{\"model\":\"a\nb\"}",
        r#"{"model":"up/served","stream":true,"stream":false}"#,
        "\u{feff}{\"model\":\"x\"}",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    bodies.push(deep("[", 100_000).into_bytes());
    bodies.push(deep("{\"a\":", 50_000).into_bytes());
    bodies.push(format!(r#"{{"model":"{}"}}"#, "m".repeat(100_000)).into_bytes());
    bodies.push(b"{\"model\":\"up/\xff\xfe\",\"messages\":[]}".to_vec());
    bodies.push(b"{\"model\":\"up/served\",\"x\":\"\xc3\x28\"}".to_vec());
    bodies.push(vec![0; 4096]);
    bodies
}

/// Messages that are no HTTP, or not what they say they are.
fn messages() -> Vec<Vec<u8>> {
    let body = ask("up/served");
    let length = body.len();
    let mut messages: Vec<Vec<u8>> = [
        head(&format!("content-length: {}\r\n", length - 9)) + &body,
        head("content-length: -1\r\n") + &body,
        head("content-length: 1e3\r\n") + &body,
        head("content-length: 99999999999999999999999\r\n") + &body,
        head(&format!("content-length: {length}\r\ncontent-length: 3\r\n")) + &body,
        head(&format!("content-length: {length}, 3\r\n")) + &body,
        head("content-length: 6\r\ntransfer-encoding: chunked\r\n") + "0\r\n\r\nG",
        head("transfer-encoding: chunked\r\ncontent-length: 6\r\n") + "0\r\n\r\nG",
        head("transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n") + &body,
        head("transfer-encoding: gzip\r\n") + &body,
        head("transfer-encoding: chunked, identity\r\n") + &body,
        head("transfer-encoding: xchunked\r\n") + &body,
        head("transfer-encoding : chunked\r\n") + &body,
        head(&format!("x-long: {}\r\n", "a".repeat(600_000))),
        head(&"x-many: 1\r\n".repeat(2_000)),
        head("x-fold: a\r\n b\r\ncontent-length: 2\r\n") + "{}",
        head("x\u{0}y: 1\r\n"),
        head("x: a\u{0}b\r\n"),
        head("bad header name: 1\r\n"),
        head(": empty\r\n"),
        "GET http://other.test/v1/models HTTP/1.1\r\nhost: other.test\r\n\r\n".to_owned(),
        "CONNECT other.test:443 HTTP/1.1\r\nhost: other.test:443\r\n\r\n".to_owned(),
        "BREW /v1/chat/completions HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /v1/models/%00%ff%2e%2e HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /v1/../admin/config HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /v1/models\u{0} HTTP/1.1\r\nhost: a\r\n\r\n".to_owned(),
        "GET /v1/models HTTP/9.9\r\nhost: a\r\n\r\n".to_owned(),
        "GET /v1/models HTTP/1.1\n\n\n".to_owned(),
        "GET\r\n\r\n".to_owned(),
        format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(300_000)),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot frames at all, not at all".to_owned(),
    ]
    .map(String::into_bytes)
    .to_vec();
    for size in ["zz", "-1", "ffffffffffffffffff", "0x5", " ", "5;a=\u{0}", "5\n", ""] {
        messages.push(chunked(&format!("{size}\r\n{{}}\r\n0\r\n\r\n")));
    }
    messages.push(chunked("2\r\n{}X0\r\n\r\n"));
    messages.push(chunked(&format!("1\r\n{{\r\n1;{}\r\n}}\r\n0\r\n\r\n", "e".repeat(100_000))));
    messages.push(chunked(&format!("2\r\n{{}}\r\n0\r\n{}\r\n", "t: 1\r\n".repeat(5_000))));
    messages.push(vec![0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]);
    messages.push(vec![0xff; 1000]);
    messages
}

fn all() -> Vec<Vec<u8>> {
    let with_length = |body: Vec<u8>| {
        let head = head(&format!("content-length: {}\r\n", body.len()));
        [head.into_bytes(), body].concat()
    };
    let fixed = bodies().into_iter().map(with_length).chain(messages());
    let mut all: Vec<_> = fixed.collect();
    // Beside them, a good request with some of its bytes replaced, removed or cut off.
    let good = wire(&ask("up/served"));
    let mutation = (0..good.len(), 1..8_usize, any::<[u8; 8]>(), 0..3_u8);
    let mut runner = TestRunner::deterministic();
    while all.len() < 1_000 {
        let (at, count, bytes, how) = mutation.new_tree(&mut runner).unwrap().current();
        let mut message = good.clone();
        let end = (at + count).min(message.len());
        match how {
            0 => drop(message.splice(at..end, bytes[..end - at].iter().copied())),
            1 => drop(message.drain(at..end)),
            _ => message.truncate(at),
        }
        all.push(message);
    }
    all
}

/// Sends it, says that nothing more will come, and reads what comes back.
async fn provoke(gateway: &Gateway, message: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    // It may be refused, and the connection closed, before all of it is sent.
    let _ = stream.write_all(message).await;
    let _ = stream.shutdown().await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("stays open");
    answer
}

fn status(answer: &[u8]) -> Option<u16> {
    let text = answer.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    str::from_utf8(text).ok()?.parse().ok()
}

#[tokio::test]
async fn ten_thousand_hostile_requests_end_in_a_refusal_and_cost_nothing() {
    let upstream = Upstream::start([("served", [Script::json(200, REPLY)])]).await;
    let gateway = Gateway::start("", &provider("up", &upstream)).await;
    let (messages, over) = (all(), AtomicBool::new(false));
    let fixed = bodies().len() + self::messages().len();
    let honest = async {
        let mut calls = 0;
        while !over.load(Ordering::Relaxed) {
            let answer = chat(&gateway, ask("up/served")).await;
            assert_eq!((answer.status, answer.text()), (200, REPLY));
            calls += 1;
        }
        calls
    };
    let hostile = async |from: usize| {
        let mut sent = 0;
        for (place, message) in messages.iter().enumerate().skip(from).step_by(8) {
            let answer = provoke(&gateway, message).await;
            // What was cut or changed in a harmless place is still a good request.
            let mutated = place >= fixed && status(&answer) == Some(200);
            let refused = answer.is_empty() || status(&answer).is_some_and(|s| s / 100 == 4);
            let preface = message.starts_with(b"PRI") && !answer.starts_with(b"HTTP/");
            assert!(
                refused || preface || mutated,
                "{:?}\nwas answered with\n{:?}",
                String::from_utf8_lossy(&message[..message.len().min(400)]),
                String::from_utf8_lossy(&answer[..answer.len().min(400)]),
            );
            sent += 1;
        }
        sent
    };
    let round = async || {
        let all = tokio::join!(
            hostile(0),
            hostile(1),
            hostile(2),
            hostile(3),
            hostile(4),
            hostile(5),
            hostile(6),
            hostile(7)
        );
        all.0 + all.1 + all.2 + all.3 + all.4 + all.5 + all.6 + all.7
    };
    let rounds = async {
        let mut sent = round().await;
        // Buffers and tables have their size now.
        let before = gateway.resident();
        while sent < REQUESTS {
            sent += round().await;
        }
        over.store(true, Ordering::Relaxed);
        (before, gateway.resident())
    };
    let (calls, (before, after)) = tokio::join!(honest, rounds);
    println!("{calls} honest calls; {before} bytes before, {after} after");
    assert!(calls > 10, "honest calls had no turn");
    assert!(after <= before + GROWTH, "{before} bytes before, {after} after");
}
