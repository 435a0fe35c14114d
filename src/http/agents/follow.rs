//! The journal of a run as it grows: a page of it, or server-sent events that a client can take up
//! again where it lost them.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{Answer, Asked, Door, away, told, views};
use crate::agent::{Agents, Along};
use crate::canon::RunId;
use crate::error::Error;
use crate::gateway::Body;
use crate::net::BoxError;
use crate::store::Store;
use crate::store::runs::EventRow;

/// Entries that begin or end a turn of a model.
const TURN: [&str; 3] = ["model.requested", "model.completed", "model.failed"];
/// What text in flight is called.
const TEXT: &str = "text.delta";
/// Entries that are read at once.
const PAGE: u32 = 200;
/// How often a run is looked at that is at work elsewhere.
const LOOK: Duration = Duration::from_millis(500);

/// Somebody who reads along.
struct Reader {
    store: Store,
    run: RunId,
    /// The last entry that was given.
    after: u64,
    /// How many pieces were given of the text that comes behind it.
    part: usize,
    agents: Agents,
    /// Says when there is more, of a run that is at work here.
    along: Option<Along>,
    /// It may come to be at work here.
    arrivals: watch::Receiver<()>,
    keepalive: Duration,
    last: Instant,
    ready: VecDeque<String>,
    ended: bool,
}

pub(super) async fn events(door: Door, asked: Asked) -> Answer {
    let query = asked.query(&["after", "limit"])?;
    let after = asked.header("last-event-id").or_else(|| query.field("after"));
    let (after, part) = match after {
        None => (0, 0),
        Some(after) => place(after).ok_or_else(|| {
            Error::invalid("`after` and `Last-Event-ID` are the id of an event: `7`, `7.3`.")
        })?,
    };
    let run = door.run(&asked).await?;
    let wants = asked.headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    if wants.is_some_and(|wants| wants.contains("application/json")) {
        return page(&door, run.id, after, asked.limit()?).await;
    }
    let reader = Reader {
        store: door.gateway.store().clone(),
        run: run.id,
        after,
        part,
        along: door.agents.follow(run.id),
        arrivals: door.agents.arrivals(),
        agents: door.agents,
        keepalive: door.gateway.snapshot().config.server.keepalive,
        last: Instant::now(),
        ready: VecDeque::new(),
        ended: false,
    };
    let pieces = stream::unfold(reader, |mut reader| async {
        reader.next().await.map(|piece| (piece, reader))
    });
    let mut response = Response::new(Body::pulled(pieces));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The entry that was read last, and how many pieces of the text behind it.
fn place(id: &str) -> Option<(u64, usize)> {
    let (entry, part) = id.split_once('.').unwrap_or((id, "0"));
    Some((entry.parse().ok()?, part.parse().ok()?))
}

async fn page(door: &Door, run: RunId, after: u64, limit: u32) -> Answer {
    let rows = door.gateway.store().run_events(run, after, limit).await;
    let rows = rows.map_err(|failure| away(&failure))?;
    let is_full = rows.len() == limit as usize;
    let next = rows.last().filter(|_| is_full).map(|row| row.seq.to_string());
    let shown: Vec<Value> = rows.iter().map(views::event).collect();
    told(&views::page(&shown, next.as_deref()))
}

// === impl Reader ===

impl Reader {
    /// The next piece; nothing behind the end of the run.
    async fn next(&mut self) -> Option<Result<Bytes, BoxError>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.last = Instant::now();
                return Some(Ok(Bytes::from(event)));
            }
            if self.ended {
                return None;
            }
            match self.read().await {
                Ok(()) if self.ready.is_empty() && !self.ended => {}
                Ok(()) => continue,
                // Broken off, the client comes back to where it was.
                Err(error) => return Some(Err(error)),
            }
            if self.last.elapsed() >= self.keepalive {
                self.last = Instant::now();
                return Some(Ok(Bytes::from_static(b": keep-alive\n\n")));
            }
            self.wait().await;
        }
    }

    async fn read(&mut self) -> Result<(), BoxError> {
        if self.along.as_ref().is_some_and(|along| along.newest() <= self.after) {
            self.read_flight();
            if !self.ready.is_empty() {
                return Ok(());
            }
        }
        let rows = self.store.run_events(self.run, self.after, PAGE).await?;
        if rows.is_empty() {
            self.read_flight();
            let run = self.store.run(None, self.run).await?;
            self.ended = run.is_none_or(|run| run.state.is_over() && run.last_seq <= self.after);
        }
        for row in rows {
            self.after = row.seq;
            if TURN.contains(&&*row.kind) {
                self.part = 0;
            }
            self.ready.push_back(spelled(&row));
        }
        Ok(())
    }

    /// What is being said and stands in no entry yet.
    fn read_flight(&mut self) {
        let Some(along) = &self.along else { return };
        for text in along.in_flight(self.after, self.part) {
            self.part += 1;
            let (seq, part) = (self.after, self.part);
            let data = json!({"seq": seq, "part": part, "type": TEXT, "data": {"text": text}});
            self.ready.push_back(format!("id: {seq}.{part}\nevent: {TEXT}\ndata: {data}\n\n"));
        }
    }

    /// Until there may be more, or it is time for a sign of life.
    async fn wait(&mut self) {
        let patience = self.keepalive.saturating_sub(self.last.elapsed());
        if self.along.is_none() {
            self.along = self.agents.follow(self.run);
        }
        let Some(along) = &mut self.along else {
            let _ = timeout(LOOK.min(patience), self.arrivals.changed()).await;
            return;
        };
        if matches!(timeout(patience, along.changed()).await, Ok(false)) {
            // It is at work here no more.
            self.along = None;
        }
    }
}

fn spelled(row: &EventRow) -> String {
    let mut text = String::new();
    let _ = write!(text, "id: {}\nevent: {}\ndata: {}\n\n", row.seq, row.kind, views::event(row));
    text
}
