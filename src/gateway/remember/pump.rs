//! Reads an upstream's stream for its client and for all who follow it: a slow client slows nobody
//! but itself, and the stream goes on as long as somebody waits for it.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::{Instant, timeout_at};

use super::fill::Filling;
use super::record::Recorder;
use crate::cache::{Lead, Tape};
use crate::gateway::call::Call;
use crate::gateway::flow::Upstream;
use crate::net::client::BodyError;

/// Pieces on their way to the client.
const PIECES: usize = 16;
/// So many bytes wait for a slow client while nobody follows, and while somebody does.
const AHEAD: usize = 1 << 20;
const FAR_AHEAD: usize = 16 << 20;
/// Behind the last event, how long the end of the response is waited for, to use the connection
/// again.
const END_WAIT: Duration = Duration::from_millis(100);

type Piece = Result<Bytes, BodyError>;

/// The client's end of the pump.
pub(in crate::gateway) struct Pumped {
    pieces: Receiver<Piece>,
    pub(in crate::gateway) tape: Arc<Tape>,
}

/// The upstream's end.
pub(super) struct Pump {
    upstream: Upstream,
    recorder: Box<Recorder>,
    client: Option<Sender<Piece>>,
    /// What the client has not taken yet.
    backlog: VecDeque<Bytes>,
    waiting: usize,
    lead: Lead,
    filling: Option<Filling>,
    patience: Patience,
    over: bool,
}

/// How long an upstream may be silent, and when it must have come to its end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    pub(super) idle: Duration,
    pub(super) end: Instant,
    /// The longest answer that is held for those who may come.
    pub(super) most: usize,
}

// === impl Patience ===

impl Patience {
    /// What the route of `call` allows.
    pub(super) fn of(call: &Call, most: usize) -> Self {
        let limits = call.target().map(|target| target.limits);
        let hour = Duration::from_hours(1);
        Self {
            idle: limits.map_or(hour, |limits| limits.idle),
            end: limits.map_or_else(|| Instant::now() + hour, |limits| call.end(&limits)),
            most,
        }
    }
}

// === impl Pumped ===

impl Pumped {
    pub(in crate::gateway) fn poll_data(
        &mut self,
        context: &mut Context<'_>,
        into: &mut BytesMut,
    ) -> Poll<Result<bool, BodyError>> {
        Poll::Ready(match ready!(self.pieces.poll_recv(context)) {
            Some(Ok(piece)) => {
                into.extend_from_slice(&piece);
                Ok(true)
            }
            Some(Err(error)) => Err(error),
            None => Ok(false),
        })
    }
}

/// A pump, and the end that its client reads at.
pub(super) fn pump(
    upstream: Upstream,
    recorder: Box<Recorder>,
    lead: Lead,
    filling: Option<Filling>,
    patience: Patience,
) -> (Pump, Pumped) {
    let (client, pieces) = mpsc::channel(PIECES);
    let tape = Arc::clone(lead.tape());
    let pump = Pump {
        upstream,
        recorder,
        client: Some(client),
        backlog: VecDeque::new(),
        waiting: 0,
        lead,
        filling,
        patience,
        over: false,
    };
    (pump, Pumped { pieces, tape })
}

/// What a pump may have to do next.
enum Turn {
    Read(Option<Result<bool, BodyError>>),
    Given,
    /// Its client has left.
    Left,
    /// And so have all who followed.
    Deserted,
}

// === impl Pump ===

impl Pump {
    /// Reads to the end, or until nobody waits for it.
    pub(super) async fn run(mut self) {
        self.tell();
        let mut arrived = BytesMut::new();
        loop {
            match self.next(&mut arrived).await {
                Turn::Read(Some(Ok(true))) => self.take(&mut arrived),
                Turn::Read(Some(Ok(false))) => {
                    self.recorder.close();
                    self.tell();
                    return self.flush().await;
                }
                Turn::Read(Some(Err(error))) => return self.cut(error).await,
                Turn::Read(None) if self.over => return self.flush().await,
                Turn::Read(None) => return self.fall_silent().await,
                Turn::Left => {
                    self.client = None;
                    self.backlog.clear();
                    self.waiting = 0;
                }
                Turn::Given | Turn::Deserted => {}
            }
            if self.client.is_none() && self.lead.close_if_unfollowed() {
                return;
            }
        }
    }

    async fn next(&mut self, arrived: &mut BytesMut) -> Turn {
        let Self { upstream, client, backlog, waiting, lead, patience, over, .. } = self;
        let ahead = if lead.tape().followers() > 0 { FAR_AHEAD } else { AHEAD };
        let due = if *over { Instant::now() + END_WAIT } else { Instant::now() + patience.idle };
        let read = timeout_at(
            due.min(patience.end.max(Instant::now())),
            poll_fn(|context| upstream.poll_data(context, arrived)),
        );
        let Some(client) = client else {
            return tokio::select! {
                read = read => Turn::Read(read.ok()),
                () = lead.tape().deserted() => Turn::Deserted,
            };
        };
        tokio::select! {
            biased;
            () = client.closed() => Turn::Left,
            permit = client.reserve(), if !backlog.is_empty() => {
                if let (Ok(permit), Some(piece)) = (permit, backlog.pop_front()) {
                    *waiting -= piece.len();
                    permit.send(Ok(piece));
                }
                Turn::Given
            }
            read = read, if *waiting < ahead => Turn::Read(read.ok()),
        }
    }

    /// First for those who remember and follow, so that whoever asks again behind the last piece
    /// is given what is remembered.
    fn take(&mut self, arrived: &mut BytesMut) {
        let piece = arrived.split().freeze();
        self.recorder.feed(&piece);
        self.tell();
        if self.client.is_some() {
            self.waiting += piece.len();
            self.backlog.push_back(piece);
        }
    }

    fn tell(&mut self) {
        let tape = self.lead.tape();
        self.recorder.tell(tape, self.patience.most);
        if self.recorder.is_spoilt() {
            tape.fail(None);
        } else if self.recorder.is_over() && !self.over {
            self.over = true;
            if let (Some(response), Some(filling)) = (self.recorder.response(), self.filling.take())
            {
                filling.keep_chat(response);
            }
            tape.end();
        }
    }

    async fn flush(mut self) {
        if !self.over {
            self.lead.tape().fail(None);
        }
        self.flush_backlog().await;
    }

    /// The upstream says nothing more. Its client is given what there is, and then hears nothing
    /// either: how long it waits, and what it is told then, it knows itself.
    async fn fall_silent(mut self) {
        self.lead.tape().fail(None);
        self.flush_backlog().await;
        let client = self.client.take();
        drop(self);
        if let Some(client) = client {
            client.closed().await;
        }
    }

    /// The upstream has broken its answer off.
    async fn cut(mut self, error: BodyError) {
        self.lead.tape().fail(None);
        self.flush_backlog().await;
        if let Some(client) = &self.client {
            let _ = client.send(Err(error)).await;
        }
    }

    async fn flush_backlog(&mut self) {
        let Some(client) = &self.client else { return };
        while let Some(piece) = self.backlog.pop_front() {
            if client.send(Ok(piece)).await.is_err() {
                return;
            }
        }
    }
}
