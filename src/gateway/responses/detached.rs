//! A stream in the background: it goes on when its client leaves, and can be joined again.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use super::stored::Stored;
use super::{Gateway, Keeping, afar};
use crate::canon::Owner;
use crate::dialect::sse::Decoder;
use crate::error::{Error, Kind};
use crate::gateway::Body;
use crate::net::patience::Busy;
use crate::store::ObjectKind;

/// A stream with more bytes of events ends.
const LONGEST_STREAM: usize = 64 * 1024 * 1024;
/// One with more is not kept when it has ended: its response is.
const LONGEST_KEPT: usize = 4 * 1024 * 1024;
/// How often what was said is kept while a stream goes on: all of it is written each time.
const OFTEN: Duration = Duration::from_millis(300);
/// How long the events of a stream are kept behind its end.
pub(super) const KEPT: Duration = Duration::from_hours(24);

/// What a stream has said so far, for all who follow it.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Log(Mutex<Said>);

#[derive(Debug, Default)]
struct Said {
    events: Vec<(Option<u64>, Bytes)>,
    bytes: usize,
    ended: bool,
    waiting: Vec<Waker>,
}

/// One who follows a stream, each at a pace of its own.
pub(in crate::gateway) struct Follower {
    log: Arc<Log>,
    next: usize,
    /// The number of the event that was seen before.
    after: Option<u64>,
    /// Its connection is kept for it.
    _busy: Option<Busy>,
}

/// Cuts a stream into its events and numbers them.
#[derive(Default)]
pub(super) struct Cutter {
    decoder: Decoder,
    last: Option<u64>,
}

/// What is read of an event.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Event {
    sequence_number: Option<u64>,
    response: Option<Value>,
}

/// A stream whose response has an id.
struct Begun {
    id: String,
    stored: Stored,
    cancelled: oneshot::Receiver<()>,
    /// When what it has said was kept last, for those who ask another process, and whether it has
    /// said something since.
    kept: Option<Instant>,
    has_more: bool,
}

impl Gateway {
    /// Has `work` answer with a stream that does not end with its client, who gets it as it comes.
    pub(in crate::gateway) async fn detach(
        self: &Arc<Self>,
        keeping: Keeping,
        busy: Option<Busy>,
        work: impl Future<Output = Response<Body>> + Send + 'static,
    ) -> Response<Body> {
        let (sender, receiver) = oneshot::channel();
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move {
            let response = work.await;
            let kind = response.headers().get(CONTENT_TYPE);
            if !kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream")) {
                // Whoever has left does not read it either.
                drop(sender.send(response));
                return;
            }
            let (head, body) = response.into_parts();
            let log = Arc::<Log>::default();
            let follower = Follower { log: Arc::clone(&log), next: 0, after: None, _busy: busy };
            drop(sender.send(Response::from_parts(head, Body::followed(follower))));
            match gateway.follow(&keeping, body, &log).await {
                Some(id) => gateway.tell_from_afar((keeping.owner, id), log, None).await,
                None => log.end(),
            }
        });
        receiver.await.unwrap_or_else(|_| {
            let mut response = Response::new(Body::whole(Bytes::new(), None));
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            response
        })
    }

    /// Pulls a stream to its end, into `log`. The id of its response where its run goes on, and
    /// nobody tells of that yet.
    async fn follow(&self, keeping: &Keeping, body: Body, log: &Arc<Log>) -> Option<String> {
        let (mut body, mut cutter, mut begun) = (pin!(body), Cutter::default(), None);
        loop {
            let mut due = begun.as_ref().and_then(Begun::due);
            if due.is_some_and(|due| due <= Instant::now()) {
                self.keep_so_far(&keeping.owner, begun.as_mut(), log);
                due = None;
            }
            let frame = tokio::select! {
                biased;
                () = cancelled(&mut begun) => return None,
                frame = body.frame() => frame,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => continue,
            };
            let Some(data) = frame.and_then(|frame| frame.ok()?.into_data().ok()) else { break };
            for (number, event, response) in cutter.cut(data) {
                let first = response.filter(|_| begun.is_none());
                begun = match first {
                    Some(response) => self.begin(keeping, response, log).await,
                    None => begun,
                };
                // What keeps connections open is nothing said.
                let says = !event.starts_with(b":");
                begun = begun.map(|it| Begun { has_more: it.has_more || says, ..it });
                log.push(number, event);
            }
            if log.said().bytes > LONGEST_STREAM {
                break;
            }
        }
        self.settle(&keeping.owner, begun?, log).await
    }

    /// Keeps what the stream of a run has said.
    fn keep_so_far(&self, owner: &Owner, begun: Option<&mut Begun>, log: &Log) {
        let Some(begun) = begun else { return };
        (begun.kept, begun.has_more) = (Some(Instant::now()), false);
        if log.said().bytes <= LONGEST_KEPT {
            self.shelf.put(owner, ObjectKind::Events, begun.id.clone(), log.whole(), KEPT);
        }
    }

    /// The stream has said what its response is called.
    async fn begin(&self, keeping: &Keeping, response: Value, log: &Arc<Log>) -> Option<Begun> {
        let (id, owner) = (response["id"].as_str()?.to_owned(), &keeping.owner);
        let mut stored = keeping.stored(response, None);
        stored.response["background"] = json!(true);
        stored.response["status"] = json!("in_progress");
        if self.jobs.is_running(owner, &id) {
            // The same was asked before, and is given by whoever was first.
            return None;
        }
        let cancelled = self.jobs.enter(owner, &id, Some(Arc::clone(log)));
        // A quick one is whole already.
        if self.stored(owner, &id).await.map_or(true, |known| known.is_unfinished()) {
            self.put_begun(owner, id.clone(), &stored).await;
        }
        Some(Begun { id, stored, cancelled, kept: None, has_more: false })
    }

    /// The stream has ended, with its response or without: its id, where its run has more to say.
    async fn settle(&self, owner: &Owner, mut begun: Begun, log: &Log) -> Option<String> {
        let known = self.stored(owner, &begun.id).await;
        let broken = known.is_ok_and(|known| known.is_unfinished());
        if broken && begun.due().is_some() {
            self.keep_so_far(owner, Some(&mut begun), log);
        }
        let Begun { id, mut stored, .. } = begun;
        if broken && stored.run().is_some() {
            // The run goes on elsewhere, or says itself how it has ended.
            let goes_on = self.jobs.end(owner, &id, || {});
            return goes_on.then_some(id);
        }
        let events = log.whole();
        self.jobs.end(owner, &id, || {
            if broken {
                let text = "The answer was broken off.";
                stored.fail(&Error::new(Kind::StreamTruncated, text));
                self.put_response(owner, id.clone(), &stored);
            }
            if events.len() <= LONGEST_KEPT {
                self.shelf.put(owner, ObjectKind::Events, id.clone(), events, KEPT);
            }
        });
        None
    }

    /// A stream in the background from behind the event `after`: as it is made, or as it was.
    /// `None` where its events are not known.
    pub async fn joined(
        self: &Arc<Self>,
        owner: &Owner,
        id: &str,
        after: Option<u64>,
        busy: Busy,
    ) -> Result<Option<Body>, Error> {
        let log = if let Some(log) = self.jobs.log(owner, id) {
            log
        } else {
            let kept = self.shelf.get(owner, ObjectKind::Events, id).await?;
            let Some(events) = kept.filter(afar::is_whole) else {
                return self.joined_afar(owner, id, after, busy).await;
            };
            let (log, mut cutter) = (Log::default(), Cutter::default());
            let events = cutter.cut(events).into_iter();
            events.for_each(|(number, event, _)| log.push(number, event));
            log.end();
            Arc::new(log)
        };
        Ok(Some(Body::followed(Follower { log, next: 0, after, _busy: Some(busy) })))
    }
}

impl Gateway {
    /// The stream of a run's response that nobody here makes.
    async fn joined_afar(
        self: &Arc<Self>,
        owner: &Owner,
        id: &str,
        after: Option<u64>,
        busy: Busy,
    ) -> Result<Option<Body>, Error> {
        let stored = self.named(owner, id).await?;
        if stored.run().is_none() || stored.response["background"] != true {
            return Ok(None);
        }
        let log = Arc::<Log>::default();
        let follower = Follower { log: Arc::clone(&log), next: 0, after, _busy: Some(busy) };
        let whose = (owner.clone(), id.to_owned());
        self.tasks.spawn(Arc::clone(self).tell_from_afar(whose, log, after));
        Ok(Some(Body::followed(follower)))
    }
}

/// Ready when the stream is to end before its time.
async fn cancelled(begun: &mut Option<Begun>) {
    match begun {
        Some(begun) => drop((&mut begun.cancelled).await),
        None => std::future::pending().await,
    }
}

// === impl Begun ===

impl Begun {
    /// When what it has said is to be kept, if it is a run's and has said more.
    fn due(&self) -> Option<Instant> {
        let due = || self.kept.map_or_else(Instant::now, |kept| kept + OFTEN);
        (self.has_more && self.stored.run().is_some()).then(due)
    }
}

// === impl Log ===

impl Log {
    pub(super) fn push(&self, number: Option<u64>, event: Bytes) {
        let mut said = self.said();
        said.bytes += event.len();
        said.events.push((number, event));
        said.waiting.drain(..).for_each(Waker::wake);
    }

    pub(super) fn end(&self) {
        let mut said = self.said();
        said.ended = true;
        said.waiting.drain(..).for_each(Waker::wake);
    }

    /// All of it, but for what kept connections open.
    pub(super) fn whole(&self) -> Bytes {
        let said = self.said();
        let events = said.events.iter().map(|(_, event)| &event[..]);
        let events: Vec<&[u8]> = events.filter(|event| !event.starts_with(b":")).collect();
        events.concat().into()
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Follower ===

impl Follower {
    /// The next of the events; `None` behind the last.
    pub(in crate::gateway) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Bytes>> {
        let mut said = self.log.said();
        while let Some((number, event)) = said.events.get(self.next) {
            self.next += 1;
            if !number.is_some_and(|number| self.after.is_some_and(|after| number <= after)) {
                return Poll::Ready(Some(event.clone()));
            }
        }
        if said.ended {
            return Poll::Ready(None);
        }
        if !said.waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            said.waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

// === impl Cutter ===

impl Cutter {
    /// The events that are whole with these bytes, each with its number and its response.
    pub(super) fn cut(&mut self, data: Bytes) -> Vec<(Option<u64>, Bytes, Option<Value>)> {
        if data.starts_with(b":") {
            // Between two events, to keep a connection open.
            return vec![(None, data, None)];
        }
        self.decoder.buffer().extend_from_slice(&data);
        let mut events = Vec::new();
        while let Some(frame) = self.decoder.next_frame() {
            let event = self.decoder.data(&frame).map(|data| serde_json::from_slice(&data));
            let event: Event = event.and_then(Result::ok).unwrap_or_default();
            // An error of the gateway's own does not know the numbers before it.
            let number = event.sequence_number.filter(|number| Some(*number) >= self.last);
            self.last = number.or(self.last);
            events.push((number, self.decoder.take(frame.range.len()), event.response));
        }
        events
    }
}
