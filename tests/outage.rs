//! A provider that is out for a minute, and a thousand streams that stall at once: in real time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, interval, timeout_at};

use crate::support::client::{chat, open_chat};
use crate::support::gateway::{provider, route};
use crate::support::replies::{REPLY, ask, ask_stream, role, word};
use crate::support::{Gateway, Script, Upstream, within};

const SECOND: Duration = Duration::from_secs(1);

/// An answer of a primary that is well takes so long that a burst of calls meets one probe.
const PRIMARY: Duration = Duration::from_millis(300);

/// A primary that can be out, and who stands in for it.
struct House {
    out: Arc<AtomicBool>,
    primary: Upstream,
    gateway: Gateway,
    _standby: Upstream,
}

impl House {
    async fn new(fault: Script) -> Self {
        let out = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&out);
        let primary = Upstream::answering(move |_| {
            // Without a connection to use again, requests are attempts.
            let well = || Script::json(200, REPLY).close().after(PRIMARY);
            if seen.load(Ordering::SeqCst) { fault.clone() } else { well() }
        })
        .await;
        let standby = Upstream::start([("m", [Script::json(200, REPLY)])]).await;
        let limits = r#"timeouts = { headers = "700ms", idle = "700ms", total = "20s" }"#;
        let sections =
            [provider("a", &primary), provider("b", &standby), route("r", &["a/m", "b/m"], limits)];
        let gateway = Gateway::start("", &sections.concat()).await;
        Self { out, primary, gateway, _standby: standby }
    }

    /// So many calls at once; who answered each, if somebody did.
    async fn calls(&self, count: usize) -> Vec<Option<String>> {
        let calls = (0..count).map(|_| async {
            let answer = chat(&self.gateway, ask("r")).await;
            let by = answer.header("x-switchpoint-provider").map(str::to_owned);
            by.filter(|_| answer.status == 200)
        });
        join_all(calls).await
    }
}

/// Whether tests may take their time; says so if not.
fn has_time(what: &str) -> bool {
    let has = std::env::var_os("SWITCHPOINT_TEST_SLOW").is_some_and(|value| value == "1");
    if !has {
        println!("SWITCHPOINT_TEST_SLOW is not 1: {what} was not tried");
    }
    has
}

/// One call a second through a minute without the primary, and on until it is used again.
async fn outage(name: &str, fault: Script) {
    let house = House::new(fault).await;
    let mut clock = interval(SECOND);
    for _ in 0..3 {
        clock.tick().await;
        assert_eq!(house.calls(1).await, [Some("a".to_owned())], "{name}: before");
    }
    let before = house.primary.requests().len();
    house.out.store(true, Ordering::SeqCst);
    let mut answered = 0;
    for _ in 0..60 {
        clock.tick().await;
        answered += house.calls(1).await.iter().flatten().count();
    }
    let attempts = house.primary.requests().len() - before;
    house.out.store(false, Ordering::SeqCst);
    let recovered = Instant::now();
    let back = loop {
        clock.tick().await;
        let asked = house.primary.requests().len();
        let by = house.calls(5).await;
        assert!(by.iter().all(Option::is_some), "{name}: {by:?}");
        let probes = house.primary.requests().len() - asked;
        assert!(probes <= 1, "{name}: {probes} probes at once");
        if by.contains(&Some("a".to_owned())) {
            break recovered.elapsed();
        }
        assert!(recovered.elapsed() < 12 * SECOND, "{name}: not back");
    };
    assert_eq!(house.calls(1).await, [Some("a".to_owned())], "{name}: after");
    println!("{name}: {answered} of 60 answered, {attempts} attempts, back after {back:?}");
    assert!(answered * 100 >= 60 * 99, "{name}: {answered} of 60 answered");
    assert!(attempts <= 12, "{name}: {attempts} attempts at the primary");
    assert!(back <= 10 * SECOND + PRIMARY, "{name}: back after {back:?}");
}

#[tokio::test]
async fn a_minute_without_the_primary_is_noticed_by_nobody_and_ends_with_one_probe() {
    if !has_time("an outage of a minute") {
        return;
    }
    let overloaded = r#"{"error":{"message":"Overloaded.","type":"overloaded_error"}}"#;
    tokio::join!(
        outage("503", Script::json(503, overloaded)),
        outage("reset", Script::default().reset()),
        outage("silence", Script::default().stall()),
    );
}

const STREAMS: usize = 1000;
const IDLE: Duration = Duration::from_secs(12);

/// How long the slowest of a hundred calls takes, by this many calls one after the other.
async fn slowest(gateway: &Gateway, calls: usize) -> Duration {
    let mut times = Vec::new();
    for _ in 0..calls {
        let started = Instant::now();
        assert_eq!(chat(gateway, ask("up/well")).await.text(), REPLY);
        times.push(started.elapsed());
    }
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

#[tokio::test]
async fn a_thousand_streams_that_stall_hold_nobody_up_and_are_closed_at_their_limit() {
    if !has_time("a thousand stalled streams") {
        return;
    }
    let upstream = Upstream::start([
        ("well", [Script::json(200, REPLY)]),
        ("stalls", [Script::stream_head().chunks([role(), word("Hel")]).stall()]),
    ])
    .await;
    let limits = format!("timeouts = {{ idle = \"{}s\" }}", IDLE.as_secs());
    let gateway = Gateway::before(&upstream, &route("r", &["up/stalls"], &limits)).await;
    // Others use the machine too, so the best of a few tries counts, before and during.
    let mut before = Duration::MAX;
    for _ in 0..3 {
        before = before.min(slowest(&gateway, 300).await);
    }
    let streams = (0..STREAMS).map(|_| async {
        let mut stream = open_chat(&gateway, ask_stream("r")).await;
        stream.read_until("Hel").await;
        (stream, Instant::now())
    });
    let streams = join_all(streams).await;
    assert_eq!(upstream.busy(), STREAMS);
    let (first, last) = (streams[0].1, Instant::now() + IDLE / 2);
    let mut added = Duration::MAX;
    while added > Duration::from_millis(20)
        && let Ok(during) = timeout_at(last, slowest(&gateway, 300)).await
    {
        added = added.min(during.saturating_sub(before));
    }
    println!(
        "{STREAMS} stalled streams, open within {:?}: {added:?} added to p99 {before:?}",
        last - IDLE / 2 - first
    );
    assert!(added <= Duration::from_millis(200), "{added:?} added to the p99");
    let ends = streams.into_iter().map(|(stream, since)| async move {
        let mut rest = Vec::new();
        let mut stream = stream;
        while let Some(piece) = stream.next_within(IDLE + 10 * SECOND).await {
            rest.extend_from_slice(&piece.bytes);
        }
        (since.elapsed(), String::from_utf8(rest).unwrap())
    });
    for (after, rest) in join_all(ends).await {
        assert!(rest.contains("upstream_timeout") && !rest.contains("[DONE]"), "{rest}");
        assert!(after + SECOND >= IDLE && after <= IDLE + 5 * SECOND, "closed after {after:?}");
    }
    within(5 * SECOND, "every socket is closed", || upstream.open_connections() <= 2).await;
    let records = gateway.recorded(STREAMS).await;
    let silent = records.iter().filter(|record| record["outcome"] == "timeout").count();
    assert_eq!(silent, STREAMS);
}
