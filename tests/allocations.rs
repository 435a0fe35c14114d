//! A call that passes verbatim costs the same memory whatever the size of its body.

// Clippy lets tests unwrap only below a `cfg(test)` it can see.
#![cfg(test)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use allocation_counter::AllocationInfo;
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

const REPLY: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
     content-length: 15\r\n\r\n{\"choices\":[0]}";

/// An upstream on a thread of its own, whose allocations are not counted. It reads each body into
/// the same small buffer.
fn upstream() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buffer[..1]) {
                    Ok(1) => head.push(buffer[0]),
                    _ => return,
                }
            }
            let head = String::from_utf8(head).unwrap();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            let mut left: usize = length.unwrap().parse().unwrap();
            while left > 0 {
                let most = left.min(buffer.len());
                left -= stream.read(&mut buffer[..most]).unwrap();
            }
            stream.write_all(REPLY.as_bytes()).unwrap();
        }
    });
    address
}

/// `more` is further sections of the config.
fn gateway(upstream: SocketAddr, more: &str) -> Arc<Gateway> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let text = format!(
        "[providers.up]\nkind = \"openai-compatible\"\nbase_url = \"http://{upstream}/v1\"\n\
         [keys.test]\nsecret = \"sk-test\"\n{more}"
    );
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path, &["openai-compatible"]).unwrap();
    let client = Client::new(1);
    let snapshot = Snapshot::build(config, 1, (&client, Arc::default(), Arc::default())).unwrap();
    let log = Log::start(Format::Json, true, Box::new(std::io::sink())).unwrap();
    let store = Store::open(&config::Store::at(StoreUrl::Memory)).unwrap();
    Gateway::new(snapshot, client, store, Telemetry::new(log).unwrap())
}

fn body(size: usize) -> Bytes {
    let text = "x".repeat(size);
    let body = format!(r#"{{"model":"up/m","messages":[{{"role":"user","content":"{text}"}}]}}"#);
    Bytes::from(body)
}

/// What one call allocates, from its arrival to the last byte of its reply.
fn cost(runtime: &tokio::runtime::Runtime, gateway: &Arc<Gateway>, body: Bytes) -> AllocationInfo {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", "Bearer sk-test".parse().unwrap());
    let arrival = Arrival {
        ask: Ask {
            surface: Surface::Chat,
            model: None,
            stream: None,
            relay: None,
            filed: None,
            explains: false,
            id: None,
        },
        headers,
        body: Full::new(body),
        permit: gateway.gauge.acquire(),
        busy: Pulse::default().busy(),
    };
    let mut status = 0;
    let info = allocation_counter::measure(|| {
        runtime.block_on(async {
            let response = gateway.answer(arrival).await;
            status = response.status().as_u16();
            response.into_body().collect().await.unwrap();
        });
    });
    assert_eq!(status, 200);
    info
}

#[test]
fn what_a_call_allocates_does_not_grow_with_its_body() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let gateway = gateway(upstream(), "");
    // The first calls open the connection and make what is made once.
    for _ in 0..3 {
        cost(&runtime, &gateway, body(1024));
    }
    let [small, middle, large] =
        [1 << 10, 1 << 20, 8 << 20].map(|size| cost(&runtime, &gateway, body(size)));
    println!("1 KiB: {small:?}\n1 MiB: {middle:?}\n8 MiB: {large:?}");
    for larger in [middle, large] {
        // Only the buffer of the log grows at times, whatever the call.
        assert!(larger.bytes_total <= small.bytes_total + 16 * 1024, "{larger:?} after {small:?}");
        assert!(larger.count_total <= small.count_total + 4, "{larger:?} after {small:?}");
    }
}

#[test]
fn a_guard_that_is_not_for_a_call_allocates_nothing_for_it() {
    const GUARDS: &str = "[guards.personal]\nkind = \"pii\"\nstage = [\"input\", \"output\"]\n\
        action = \"mask\"\n[guards.attack]\nkind = \"injection\"\n\
        stage = [\"input\"]\naction = \"block\"\n\
        [keys.guarded]\nsecret = \"sk-guarded\"\nguards = [\"personal\", \"attack\"]\n";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Of several calls the cheapest: at times a buffer of the log grows, whatever the call.
    let [without, beside] = ["", GUARDS].map(|guards| {
        let gateway = gateway(upstream(), guards);
        let costs = (0..20).map(|_| cost(&runtime, &gateway, body(1024)));
        let costs: Vec<_> = costs.map(|cost| (cost.count_total, cost.bytes_total)).collect();
        costs.into_iter().min().unwrap()
    });
    assert_eq!(beside, without);
}
