//! A worker that panics in the middle of a call takes nothing along: the call is settled, recorded
//! and given back like any other. There is no way to have the program panic from outside, so here
//! the gateway is called without its doors, by tasks that do.

use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use switchpoint::access::account::Moment;
use switchpoint::canon::{Outcome, Relay, Surface, UsageSource};
use switchpoint::config::Config;
use switchpoint::gateway::{Arrival, Ask, Gateway, Snapshot};
use switchpoint::net::client::Client;
use switchpoint::net::patience::Pulse;
use switchpoint::provider::catalog::CATALOG;
use switchpoint::store::{CallRow, Filter, Reach, Store};
use switchpoint::telemetry::{Format, Log, Telemetry};
use tokio::task::JoinSet;

use super::apis::Api;
use super::{key, store};
use crate::support::gateway::{config, provider};
use crate::support::{Script, Upstream};

fn gateway(folder: &Path, upstream: &Upstream) -> Arc<Gateway> {
    let budget = key("ci", "budget = [{ tokens = 1_000_000, window = \"none\" }]");
    let sections = [store(folder), provider("up", upstream), budget].concat();
    let path = folder.join("config.toml");
    std::fs::write(&path, config("", &sections)).unwrap();
    let kinds: Vec<&str> = CATALOG.iter().map(|kind| kind.id).collect();
    let config = Config::load(&path, &kinds).unwrap();
    let store = Store::open(&config.store).unwrap();
    let client = Client::new(1);
    let snapshot = Snapshot::build(config, 1, (&client, Arc::default(), Arc::default())).unwrap();
    let log = Log::start(Format::Text, false, Box::new(std::io::sink())).unwrap();
    Gateway::new(snapshot, client, store, Telemetry::new(log).unwrap())
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_static("Bearer sk-ci"));
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    headers
}

fn arrival<B>(
    gateway: &Gateway,
    (surface, relay): (Surface, Option<Relay>),
    body: B,
) -> Arrival<B> {
    let ask =
        Ask { surface, model: None, stream: None, relay, filed: None, explains: false, id: None };
    let (permit, busy) = (gateway.gauge.acquire(), Pulse::default().busy());
    Arrival { ask, headers: headers(), body, permit, busy }
}

/// Takes the beginning of the answer, and panics.
async fn panic_at_the_answer(gateway: Arc<Gateway>, body: String) {
    let arrival = arrival(&gateway, (Surface::Chat, None), Full::new(Bytes::from(body)));
    let mut body = gateway.answer(arrival).await.into_body();
    body.frame().await.unwrap().unwrap();
    panic!("as a worker might");
}

/// A form whose file never comes to its end.
struct Endless(usize);

impl Body for Endless {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        const HEAD: &str = "--b1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nup/m\r\n\
            --b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
        self.0 += 1;
        assert!(self.0 < 64, "as a worker might");
        let piece = if self.0 == 1 { Bytes::from(HEAD) } else { Bytes::from(vec![7; 64 * 1024]) };
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }
}

async fn panic_at_the_question(gateway: Arc<Gateway>) {
    let what = (Surface::Transcriptions, Some(Relay::Transcription));
    let mut arrival = arrival(&gateway, what, Endless(0));
    let form = HeaderValue::from_static("multipart/form-data; boundary=b1");
    arrival.headers.insert("content-type", form);
    let _ = gateway.answer(arrival).await;
}

async fn rows(gateway: &Gateway) -> Vec<CallRow> {
    gateway.store().flush().await.unwrap();
    let nothing = Filter::default();
    gateway.store().calls(&Reach::All, &nothing, (None, 100)).await.unwrap().0
}

#[tokio::test]
async fn a_panic_in_the_middle_of_a_call_leaves_nothing_reserved_and_nothing_uncounted() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::answering(|request| match &*request.variant {
        "stream" => {
            let events = Api::Chat.events((11, 4));
            Script::stream_head().chunks(&events[..2]).stall()
        }
        _ => Api::Chat.whole((11, 4)),
    })
    .await;
    let gateway = gateway(folder.path(), &upstream);
    let mut workers = JoinSet::new();
    for stream in [true, false] {
        let (_, body) = Api::Chat.question("up/m", "Hi", stream);
        workers.spawn(panic_at_the_answer(Arc::clone(&gateway), body.to_string()));
    }
    workers.spawn(panic_at_the_question(Arc::clone(&gateway)));
    while let Some(ended) = workers.join_next().await {
        assert!(ended.unwrap_err().is_panic());
    }
    let rows = rows(&gateway).await;
    assert_eq!(rows.len(), 3, "{rows:?}");
    let of = |stream: bool, surface: &str| {
        let found = rows.iter().find(|row| row.stream == stream && row.surface == surface);
        found.unwrap_or_else(|| panic!("{rows:?}"))
    };
    let (whole, streamed) = (of(false, "chat"), of(true, "chat"));
    // All of it was there already.
    assert_eq!((whole.counted, whole.outcome), (15, Outcome::Ok));
    assert_eq!(streamed.outcome, Outcome::Internal);
    assert_eq!(of(false, "transcriptions").outcome, Outcome::Internal);
    assert!(streamed.counted > 1 && streamed.usage_source == UsageSource::Estimated);
    assert_eq!(of(false, "transcriptions").counted, 0);
    let caller = gateway.snapshot().access.admit(&headers(), None).unwrap();
    let status = caller.tab().accounts[0].status(Moment::now()).remove(0);
    assert_eq!((status.reserved.value, status.used.value), (0, 15 + streamed.counted));
    assert_eq!((caller.tab().accounts[0].in_flight(), gateway.gauge.in_flight()), (0, 0));
}
