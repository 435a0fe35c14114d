//! Requests whose bodies are still arriving while they are sent: pulled, never held.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use tokio::io::AsyncWrite;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::h1::{Connection, Head, MAX_HEAD, MAX_SLICES};
use super::reply::Outbox;
use super::{Fault, Origin, Outgoing, Reply};
use crate::dialect::splice::Payload;
use crate::net::BoxError;

/// The rest of a request's body. It is pulled as fast as the server takes it.
pub trait Feed: Send + Sync {
    /// The next bytes; `None` at the end. After an error nothing more is asked for.
    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>>;

    /// How many bytes there will be, where that is known.
    fn length(&self) -> Option<u64>;
}

/// What passes to the task that writes an HTTP/2 stream.
pub(super) enum Piece {
    Data(Bytes),
    /// The body is complete. Without this the stream is reset.
    End,
}

/// One request on its way over HTTP/1.1.
struct Sending<'a> {
    connection: &'a mut Connection,
    outgoing: Outgoing<'a>,
    feed: &'a dyn Feed,
    /// What is to be written next.
    pieces: VecDeque<Bytes>,
    /// The feed has ended.
    whole: bool,
    /// The head of an answer that came before all was sent.
    answer: Option<Head>,
}

// === impl Connection ===

impl Connection {
    /// Sends a request as it arrives and reads the head of its answer. A server that refuses
    /// before it has everything is sent no more; one that begins a success is sent the rest.
    pub(super) async fn exchange_fed(
        mut self,
        head: Vec<u8>,
        outgoing: Outgoing<'_>,
        feed: &dyn Feed,
        origin: &Arc<Origin>,
    ) -> Result<Reply, Fault> {
        let body = outgoing.body;
        let mut pieces = VecDeque::from([Bytes::from(head)]);
        if feed.length().is_none() && !body.is_empty() {
            push_chunk(&mut pieces, body.parts());
        } else {
            pieces.extend(body.parts().iter().cloned());
        }
        let connection = &mut self;
        let mut sending =
            Sending { connection, outgoing, feed, pieces, whole: false, answer: None };
        let sent = poll_fn(|context| sending.poll(context)).await;
        let answer = sending.answer.take();
        let head = match (answer, sent) {
            (_, Err(fault @ Fault::Upload(_))) => return Err(fault),
            (Some(head), Ok(true)) => head,
            (Some(head), _) => Head { keep_alive: false, ..head },
            (None, Ok(_)) => self.read_head().await?,
            // A server may answer and close before it has read everything: its answer counts.
            (None, Err(fault)) => match self.read_head().await {
                Ok(head) => Head { keep_alive: false, ..head },
                Err(_) => return Err(fault),
            },
        };
        Ok(self.reply(head, origin))
    }
}

/// One chunk (RFC 9112, section 7.1).
fn push_chunk(pieces: &mut VecDeque<Bytes>, parts: &[Bytes]) {
    let size: usize = parts.iter().map(Bytes::len).sum();
    pieces.push_back(format!("{size:x}\r\n").into());
    pieces.extend(parts.iter().cloned());
    pieces.push_back(Bytes::from_static(b"\r\n"));
}

// === impl Sending ===

impl Sending<'_> {
    /// True when all was sent, false when the server wants no more of it.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<bool, Fault>> {
        let broken = |cause| Fault::Closed { cause, arrived: true };
        loop {
            let advanced = self.poll_write(context).map_err(broken)?;
            if advanced.is_ready() && self.whole {
                return Poll::Ready(Ok(true));
            }
            if advanced.is_ready() && self.poll_feed(context)?.is_ready() {
                continue;
            }
            // Something is waited for: perhaps the answer is there already.
            if self.answer.is_some() {
                return Poll::Pending;
            }
            ready!(self.connection.poll_fill(context).map_err(broken)?);
            self.answer = self.connection.parse_head()?;
            if self.answer.as_ref().is_some_and(|head| !(200..300).contains(&head.status)) {
                return Poll::Ready(Ok(false));
            }
            if self.answer.is_none() && self.connection.buffer.len() >= MAX_HEAD {
                return Poll::Ready(Err(Fault::Malformed("its head is too long".to_owned())));
            }
        }
    }

    /// Writes what is there, and has it leave.
    fn poll_write(&mut self, context: &mut Context<'_>) -> io::Result<Poll<()>> {
        let stream = &mut self.connection.stream;
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = self.pieces.len().min(MAX_SLICES);
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(piece);
            }
            match Pin::new(&mut *stream).poll_write_vectored(context, &slices[..count])? {
                Poll::Pending => return Ok(Poll::Pending),
                Poll::Ready(0) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(written) => {
                    self.outgoing.note_left();
                    consume(&mut self.pieces, written);
                }
            }
        }
        match Pin::new(stream).poll_flush(context) {
            Poll::Ready(flushed) => flushed.map(Poll::Ready),
            Poll::Pending => Ok(Poll::Pending),
        }
    }

    fn poll_feed(&mut self, context: &mut Context<'_>) -> Result<Poll<()>, Fault> {
        let chunked = self.feed.length().is_none();
        match self.feed.poll_next(context) {
            Poll::Pending => return Ok(Poll::Pending),
            Poll::Ready(Some(Err(cause))) => return Err(Fault::Upload(cause)),
            Poll::Ready(Some(Ok(data))) if data.is_empty() => {}
            Poll::Ready(Some(Ok(data))) if chunked => push_chunk(&mut self.pieces, &[data]),
            Poll::Ready(Some(Ok(data))) => self.pieces.push_back(data),
            Poll::Ready(None) => {
                self.whole = true;
                if chunked {
                    self.pieces.push_back(Bytes::from_static(b"0\r\n\r\n"));
                }
            }
        }
        Ok(Poll::Ready(()))
    }
}

/// Drops the first `written` bytes of `pieces`.
fn consume(pieces: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = pieces.front_mut() {
        if written < front.len() {
            let _ = front.split_to(written);
            return;
        }
        written -= front.len();
        pieces.pop_front();
    }
}

/// Sends a request on an HTTP/2 stream while it arrives. The second value keeps the stream open
/// where the server answered before it had everything; it is dropped with the answer.
pub(super) async fn exchange_http2(
    sender: &mut SendRequest<Outbox>,
    request: Request<()>,
    body: &Payload,
    feed: &dyn Feed,
) -> Result<(Response<Incoming>, Option<Sender<Piece>>), Fault> {
    let (pieces, more) = channel(1);
    let length = feed.length().map(|length| length + body.len() as u64);
    let request = request.map(|()| Outbox::fed(body, length, more));
    let mut answer = pin!(sender.send_request(request));
    let mut pump = pin!(pump(feed, &pieces));
    let mut pumping = true;
    let response = loop {
        tokio::select! {
            biased;
            response = &mut answer => break response,
            pumped = &mut pump, if pumping => {
                pumped.map_err(Fault::Upload)?;
                pumping = false;
            }
        }
    };
    let response = response
        .map_err(|error| Fault::Closed { cause: io::Error::other(error), arrived: true })?;
    if pumping && response.status().is_success() {
        pump.await.map_err(Fault::Upload)?;
        pumping = false;
    }
    Ok((response, pumping.then(|| pieces.clone())))
}

/// Moves the feed into the stream, as fast as that takes it.
async fn pump(feed: &dyn Feed, pieces: &Sender<Piece>) -> Result<(), BoxError> {
    // When nobody takes the pieces any more, the answer says why.
    while let Ok(permit) = pieces.reserve().await {
        let Some(data) = poll_fn(|context| feed.poll_next(context)).await else {
            permit.send(Piece::End);
            break;
        };
        permit.send(Piece::Data(data?));
    }
    Ok(())
}

/// The next data behind what was held.
pub(super) fn poll_piece(
    more: &mut Receiver<Piece>,
    context: &mut Context<'_>,
) -> Poll<Option<Result<Bytes, BoxError>>> {
    Poll::Ready(match ready!(more.poll_recv(context)) {
        Some(Piece::Data(data)) => Some(Ok(data)),
        Some(Piece::End) => None,
        None => Some(Err("the question broke off while it was sent".into())),
    })
}
