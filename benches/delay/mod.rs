//! How much later the first token of a stream comes for guards, through the whole gateway.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt, Full};
use switchpoint::canon::Surface;
use switchpoint::config::{self, Config, StoreUrl};
use switchpoint::gateway::{Arrival, Ask, Gateway, Snapshot};
use switchpoint::net::client::Client;
use switchpoint::net::patience::Pulse;
use switchpoint::store::Store;
use switchpoint::telemetry::{Format, Log, Telemetry};
use tokio::time::Instant;

const CALLS: usize = 400;
/// Which guards, and whether the question has something for them.
const CASES: [(&str, &str, bool); 5] = [
    ("none", "", false),
    ("pii in the question, nothing to find", "\"pii_in\"", false),
    ("pii in the question, masked and restored", "\"pii_in\"", true),
    ("pii and secrets in the answer", "\"pii_out\", \"secrets_out\"", false),
    ("all of these", "\"pii_in\", \"pii_out\", \"secrets_out\"", true),
];
const GUARDS: &str = r#"
[guards.pii_in]
kind = "pii"
stage = ["input"]
action = "mask"
[guards.pii_out]
kind = "pii"
stage = ["output"]
action = "mask"
[guards.secrets_out]
kind = "secrets"
stage = ["output"]
action = "mask"
"#;

/// Prints the median time to the first bytes of a stream, for questions of 1 and 16 KiB.
pub(crate) fn tell() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return };
    crate::say("first bytes of a stream, median in microseconds: question of 1 KiB, of 16 KiB");
    for (name, guards, full) in CASES {
        let Some(gateway) = gateway(upstream(), guards) else { return };
        let [small, large] = [1, 16].map(|size| {
            let question = question(size * 1024, full);
            let mut times: Vec<u128> =
                (0..CALLS).map(|_| runtime.block_on(first(&gateway, question.clone()))).collect();
            times.sort_unstable();
            times[CALLS / 2]
        });
        crate::say(&format!("  {name:42} {small:5} {large:5}"));
    }
}

/// Microseconds from the arrival of a call to its first bytes. Its stream is read to the end.
async fn first(gateway: &Arc<Gateway>, body: Bytes) -> u128 {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", http::HeaderValue::from_static("Bearer sk-bench"));
    let ask = Ask {
        surface: Surface::Chat,
        model: None,
        stream: None,
        relay: None,
        filed: None,
        explains: false,
        id: None,
    };
    let (permit, busy) = (gateway.gauge.acquire(), Pulse::default().busy());
    let arrival = Arrival { ask, headers, body: Full::new(body), permit, busy };
    let start = Instant::now();
    let mut body = gateway.answer(arrival).await.into_body();
    let _ = body.frame().await;
    let took = start.elapsed().as_micros();
    let _ = body.collect().await;
    took
}

fn question(size: usize, full: bool) -> Bytes {
    let sentence = if full {
        "Write to alice@example.org or pay with 4111 1111 1111 1111 by Friday. "
    } else {
        "The ferry company had run the same boats for sixty years when it met. "
    };
    let text = sentence.repeat(size / sentence.len());
    let message = serde_json::json!([{"role": "user", "content": text}]);
    serde_json::json!({"model": "up/m", "stream": true, "messages": message}).to_string().into()
}

fn gateway(upstream: SocketAddr, guards: &str) -> Option<Arc<Gateway>> {
    let text = format!(
        "[server]\nguards = [{guards}]\n[providers.up]\nkind = \"openai-compatible\"\n\
         base_url = \"http://{upstream}/v1\"\n[keys.bench]\nsecret = \"sk-bench\"\n{GUARDS}"
    );
    let config = Config::parse(&text, Path::new("bench.toml"), &["openai-compatible"]).ok()?;
    let client = Client::new(1);
    let parts = (&client, Arc::default(), Arc::default());
    let snapshot = Snapshot::build(config, 1, parts).ok()?;
    let log = Log::start(Format::Json, true, Box::new(std::io::sink())).ok()?;
    let store = Store::open(&config::Store::at(StoreUrl::Memory)).ok()?;
    Some(Gateway::new(snapshot, client, store, Telemetry::new(log).ok()?))
}

/// A stream of a few words, all at once, to whatever is asked.
fn upstream() -> SocketAddr {
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let Ok(listener) = TcpListener::bind(nowhere) else { return nowhere };
    let address = listener.local_addr().unwrap_or(nowhere);
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            std::thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let words = ["The ", "first ", "words ", "to [EMAIL", "_1] ", "come ", "here."];
    let piece = |delta: serde_json::Value, reason: Option<&str>| {
        let choices = serde_json::json!([{"index": 0, "delta": delta, "finish_reason": reason}]);
        format!("data: {}\n\n", serde_json::json!({"id": "c", "model": "m", "choices": choices}))
    };
    let words = words.iter().map(|word| piece(serde_json::json!({"content": word}), None));
    let events: String = words
        .chain([piece(serde_json::json!({}), Some("stop")), "data: [DONE]\n\n".to_owned()])
        .collect();
    let answer = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n{events}",
        events.len()
    );
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let (mut seen, mut wanted) = (Vec::new(), None);
        while wanted.is_none_or(|wanted| seen.len() < wanted) {
            let count = stream.read(&mut buffer).ok().filter(|count| *count > 0)?;
            seen.extend_from_slice(&buffer[..count]);
            let head = seen.windows(4).position(|window| window == b"\r\n\r\n");
            wanted = wanted.or_else(|| Some(head? + 4 + length(&seen[..head?])));
        }
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

fn length(head: &[u8]) -> usize {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    length.and_then(|length| length.trim().parse().ok()).unwrap_or(0)
}
