//! What a scripted upstream does with one request, as data: bytes to write, gaps, and an end.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

/// One step of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Written and flushed on its own.
    Send(Bytes),
    Wait(Duration),
    /// Nothing more until this is opened.
    Gate(Gate),
    /// Nothing more, until the other side gives up.
    Stall,
    /// The connection ends in an orderly way.
    Close,
    /// The connection is torn down.
    Reset,
}

/// What a test opens when it is time for an answer to go on.
#[derive(Debug, Clone)]
pub(crate) struct Gate(watch::Sender<bool>);

impl Gate {
    pub(crate) fn shut() -> Self {
        Self(watch::Sender::new(false))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    pub(crate) async fn passed(&self) {
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// The answer to one request. The connection stays open behind it unless a step ends it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script(pub(crate) Vec<Step>);

const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
    x-request-id: req_upstream\r\ntransfer-encoding: chunked\r\n\r\n";

// === impl Script ===

impl Script {
    /// These bytes, whatever they are.
    pub(crate) fn raw(bytes: impl Into<Bytes>) -> Self {
        Self::default().then(Step::Send(bytes.into()))
    }

    /// A JSON answer.
    pub(crate) fn json(status: u16, body: &str) -> Self {
        Self::reply(status, &[("content-type", "application/json")], body)
    }

    /// An answer with a content length.
    pub(crate) fn reply(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let mut bytes = format!("HTTP/1.1 {status} Scripted\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", body.len()).as_bytes());
        bytes.extend_from_slice(body);
        Self::raw(bytes)
    }

    /// The head of an event stream, on its own.
    pub(crate) fn stream_head() -> Self {
        Self::raw(STREAM_HEAD)
    }

    /// A whole event stream, each piece in an HTTP chunk and a write of its own.
    pub(crate) fn stream(pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        Self::stream_head().chunks(pieces).end()
    }

    /// More of an event stream.
    pub(crate) fn chunks(self, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        pieces.into_iter().fold(self, |script, piece| {
            let piece = piece.as_ref();
            let size = format!("{:x}\r\n", piece.len());
            script.then(Step::Send([size.as_bytes(), piece, b"\r\n"].concat().into()))
        })
    }

    /// The end of a chunked body.
    pub(crate) fn end(self) -> Self {
        self.then(Step::Send(Bytes::from_static(b"0\r\n\r\n")))
    }

    pub(crate) fn wait(self, duration: Duration) -> Self {
        self.then(Step::Wait(duration))
    }

    /// The same, but not at once.
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self([vec![Step::Wait(duration)], self.0].concat())
    }

    /// Goes on when this is opened.
    pub(crate) fn gate(self, gate: &Gate) -> Self {
        self.then(Step::Gate(gate.clone()))
    }

    pub(crate) fn stall(self) -> Self {
        self.then(Step::Stall)
    }

    pub(crate) fn close(self) -> Self {
        self.then(Step::Close)
    }

    pub(crate) fn reset(self) -> Self {
        self.then(Step::Reset)
    }

    /// Waits between each two writes from here back to the start.
    pub(crate) fn paced(self, gap: Duration) -> Self {
        let steps = self.0.into_iter().flat_map(|step| [step, Step::Wait(gap)]);
        Self(steps.collect())
    }

    /// All of another one behind this.
    pub(crate) fn then_all(self, other: Self) -> Self {
        Self([self.0, other.0].concat())
    }

    pub(crate) fn then(mut self, step: Step) -> Self {
        self.0.push(step);
        self
    }
}
