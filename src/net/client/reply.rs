//! An upstream's answer: its head, and its body as bytes that are pulled.

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::sync::mpsc::{Receiver, Sender};

use super::feed::{self, Piece};
use super::h1::Connection;
use super::inflate::Inflate;
use super::{LocalBody, Origin};
use crate::dialect::splice::Payload;
use crate::net::BoxError;

/// Bytes taken from a socket before they are passed on: what one poll drains at the most.
pub(super) const DRAIN: usize = 64 * 1024;

thread_local! {
    /// Where chunked bodies are read to, so that a silent stream holds no buffer of its own.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; DRAIN]);
}

/// The answer of an upstream.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: ReplyBody,
}

/// The rest of an answer. Dropping it unread closes the connection or resets the stream.
pub struct ReplyBody {
    source: Source,
    /// What was looked at before it was read.
    first: BytesMut,
    /// Apart, since few are compressed and all are moved.
    inflate: Option<Box<Inflate>>,
}

/// Why a body did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the connection broke in the middle of the answer: {0}")]
    Cut(#[source] BoxError),
    #[error("the answer's chunks are malformed")]
    Malformed,
    #[error("the answer's compression is malformed: {0}")]
    Compression(#[source] io::Error),
}

enum Source {
    Http1 { connection: Box<Connection>, framing: Framing, home: Option<Arc<Origin>> },
    Boxed(LocalBody),
    Done,
}

/// How a body is delimited.
#[derive(Debug)]
pub(super) enum Framing {
    /// Bytes still to come.
    Length(u64),
    Chunked(Chunks),
    UntilClose,
    /// It broke, and that was not said yet.
    Broken(Option<BodyError>),
}

/// Where in the chunked coding (RFC 9112, section 7.1) a reader stands.
#[derive(Debug)]
pub(super) struct Chunks {
    state: ChunkState,
    left: u64,
    /// Bytes of extensions or trailers seen, which are skipped up to a limit.
    skipped: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ChunkState {
    Size {
        digits: u8,
    },
    Extension,
    Data,
    DataEnd,
    /// At the start of a trailer line.
    Trailer,
    TrailerLine,
    End,
}

// === impl ReplyBody ===

impl ReplyBody {
    pub(super) fn http1(
        connection: Connection,
        framing: Framing,
        home: Option<Arc<Origin>>,
        headers: &HeaderMap,
    ) -> Self {
        let source = Source::Http1 { connection: Box::new(connection), framing, home };
        Self::of(source, headers)
    }

    pub(super) fn boxed(body: Inbox, headers: &HeaderMap) -> Self {
        Self::of(Source::Boxed(Box::pin(body)), headers)
    }

    fn of(source: Source, headers: &HeaderMap) -> Self {
        Self { source, first: BytesMut::new(), inflate: Inflate::of(headers).map(Box::new) }
    }

    /// A body that is made here.
    pub fn local(body: LocalBody) -> Self {
        Self { source: Source::Boxed(body), first: BytesMut::new(), inflate: None }
    }

    /// Has the socket watched, as it is at first, or not: then nobody is woken by what arrives, and
    /// whoever reads comes back by a timer. False where that cannot be chosen.
    pub fn watch(&mut self, watched: bool) -> bool {
        match &mut self.source {
            // A socket that cannot be watched again is gone; the next read says so.
            Source::Http1 { connection, .. } => connection.stream.watch(watched).is_ok(),
            Source::Boxed(_) | Source::Done => false,
        }
    }

    /// The first byte that is no blank, which is still to be read; `None` if there is none at all or
    /// for long.
    pub fn poll_first(&mut self, context: &mut Context<'_>) -> Poll<Result<Option<u8>, BodyError>> {
        let mut first = std::mem::take(&mut self.first);
        let found = loop {
            let byte = first.trim_ascii_start().first().copied();
            if byte.is_some() || first.len() > DRAIN {
                break Poll::Ready(Ok(byte));
            }
            match self.poll_data(context, &mut first) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) => break Poll::Ready(Ok(None)),
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        self.first = first;
        found
    }

    /// Appends what is readable now, up to some 64 KiB; false at the end of the body.
    pub fn poll_data(
        &mut self,
        context: &mut Context<'_>,
        into: &mut BytesMut,
    ) -> Poll<Result<bool, BodyError>> {
        if !self.first.is_empty() {
            into.unsplit(std::mem::take(&mut self.first));
            return Poll::Ready(Ok(true));
        }
        let Some(inflate) = &mut self.inflate else { return self.source.poll_data(context, into) };
        loop {
            if inflate.inflate(into).map_err(BodyError::Compression)? > 0 {
                return Poll::Ready(Ok(true));
            }
            if !ready!(self.source.poll_data(context, &mut inflate.packed))? {
                return Poll::Ready(inflate.finish().map(|()| false).map_err(cut));
            }
        }
    }
}

impl std::fmt::Debug for ReplyBody {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ReplyBody")
    }
}

// === impl Source ===

impl Source {
    fn poll_data(
        &mut self,
        context: &mut Context<'_>,
        into: &mut BytesMut,
    ) -> Poll<Result<bool, BodyError>> {
        match self {
            Self::Done => Poll::Ready(Ok(false)),
            Self::Boxed(body) => {
                let result = ready!(poll_boxed(body, context, into));
                if !matches!(result, Ok(true)) {
                    *self = Self::Done;
                }
                Poll::Ready(result)
            }
            Self::Http1 { connection, framing, .. } => {
                let result = ready!(poll_http1(connection, framing, context, into));
                if !matches!(result, Ok(true)) {
                    self.finish(result.is_ok());
                }
                Poll::Ready(result)
            }
        }
    }

    /// Closes the connection, or gives it back when its answer was read to the end.
    fn finish(&mut self, whole: bool) {
        let ended = std::mem::replace(self, Self::Done);
        if let Self::Http1 { mut connection, home: Some(home), .. } = ended
            && whole
            && connection.buffer.is_empty()
            && connection.stream.watch(true).is_ok()
        {
            home.checkin(*connection);
        }
    }
}

/// The next data of a body that is given frame by frame.
fn poll_boxed(
    body: &mut LocalBody,
    context: &mut Context<'_>,
    into: &mut BytesMut,
) -> Poll<Result<bool, BodyError>> {
    loop {
        let frame = match ready!(body.as_mut().poll_frame(context)) {
            None => return Poll::Ready(Ok(false)),
            Some(frame) => frame.map_err(BodyError::Cut)?,
        };
        if let Ok(data) = frame.into_data() {
            into.extend_from_slice(&data);
            return Poll::Ready(Ok(true));
        }
    }
}

/// Drains what is readable: true when something was, false at the end of the body.
fn poll_http1(
    connection: &mut Connection,
    framing: &mut Framing,
    context: &mut Context<'_>,
    into: &mut BytesMut,
) -> Poll<Result<bool, BodyError>> {
    let before = into.len();
    loop {
        if !connection.buffer.is_empty() {
            framing.take(&mut connection.buffer, into)?;
        }
        if framing.at_end() {
            return Poll::Ready(Ok(into.len() > before));
        }
        if into.len() - before >= DRAIN {
            return Poll::Ready(Ok(true));
        }
        let read = match framing {
            Framing::Chunked(chunks) => poll_chunks(connection, chunks, context, into),
            Framing::Length(left) => poll_plain(connection, Some(left), context, into),
            Framing::UntilClose => poll_plain(connection, None, context, into),
            Framing::Broken(cause) => Poll::Ready(Err(cause
                .take()
                .unwrap_or_else(|| cut(io::ErrorKind::BrokenPipe.into())))),
        };
        let cause = match read {
            Poll::Ready(Ok(1..)) => continue,
            Poll::Ready(Ok(0)) if matches!(framing, Framing::UntilClose) => {
                *framing = Framing::Length(0);
                continue;
            }
            Poll::Pending if into.len() > before => return Poll::Ready(Ok(true)),
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(0)) => cut(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Err(error)) => error,
        };
        if into.len() == before {
            return Poll::Ready(Err(cause));
        }
        // What arrived is passed on first; the next poll says how it ended.
        *framing = Framing::Broken(Some(cause));
        return Poll::Ready(Ok(true));
    }
}

fn cut(error: io::Error) -> BodyError {
    BodyError::Cut(error.into())
}

/// Reads chunked bytes by way of the thread's scratch buffer.
fn poll_chunks(
    connection: &mut Connection,
    chunks: &mut Chunks,
    context: &mut Context<'_>,
    into: &mut BytesMut,
) -> Poll<Result<usize, BodyError>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let mut buffer = ReadBuf::new(scratch);
        let read = Pin::new(&mut connection.stream).poll_read(context, &mut buffer);
        ready!(read).map_err(cut)?;
        let bytes = buffer.filled();
        let used = chunks.decode(bytes, into)?;
        connection.buffer.extend_from_slice(&bytes[used..]);
        Poll::Ready(Ok(bytes.len()))
    })
}

/// Reads bytes that need no decoding straight to where they go.
fn poll_plain(
    connection: &mut Connection,
    left: Option<&mut u64>,
    context: &mut Context<'_>,
    into: &mut BytesMut,
) -> Poll<Result<usize, BodyError>> {
    let most = left.as_ref().map_or(DRAIN, |left| usize::try_from(**left).unwrap_or(DRAIN));
    into.reserve(most.min(DRAIN));
    let mut limited = (&mut *into).limit(most);
    let read = ready!(pin!(connection.stream.read_buf(&mut limited)).poll(context)).map_err(cut)?;
    if let Some(left) = left {
        *left -= read as u64;
    }
    Poll::Ready(Ok(read))
}

// === impl Framing ===

impl Framing {
    pub(super) fn chunked() -> Self {
        Self::Chunked(Chunks { state: ChunkState::Size { digits: 0 }, left: 0, skipped: 0 })
    }

    fn at_end(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.state == ChunkState::End,
            Self::UntilClose | Self::Broken(_) => false,
        }
    }

    /// Moves what belongs to the body out of bytes that were read with the head.
    fn take(&mut self, buffer: &mut BytesMut, into: &mut BytesMut) -> Result<(), BodyError> {
        match self {
            Self::Chunked(chunks) => {
                let used = chunks.decode(buffer, into)?;
                buffer.advance(used);
            }
            Self::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                *left -= length as u64;
                into.unsplit(buffer.split_to(length));
            }
            Self::UntilClose => into.unsplit(buffer.split()),
            Self::Broken(_) => buffer.clear(),
        }
        if buffer.is_empty() {
            *buffer = BytesMut::new();
        }
        Ok(())
    }
}

// === impl Chunks ===

impl Chunks {
    /// Extensions and trailers beyond this are refused.
    const MAX_SKIPPED: usize = 16 * 1024;

    /// Appends the payload in `bytes`; returns how many bytes belong to this body.
    fn decode(&mut self, bytes: &[u8], into: &mut BytesMut) -> Result<usize, BodyError> {
        let mut at = 0;
        while self.state != ChunkState::End && at < bytes.len() {
            if self.state == ChunkState::Data {
                at += self.data(&bytes[at..], into);
            } else {
                self.step(bytes[at])?;
                at += 1;
            }
        }
        Ok(at)
    }

    /// Takes what belongs to the chunk at hand.
    fn data(&mut self, bytes: &[u8], into: &mut BytesMut) -> usize {
        let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        into.extend_from_slice(&bytes[..length]);
        self.left -= length as u64;
        if self.left == 0 {
            self.state = ChunkState::DataEnd;
        }
        length
    }

    /// One byte of the framing. A lone LF is accepted where CRLF is due.
    fn step(&mut self, byte: u8) -> Result<(), BodyError> {
        self.state =
            match (self.state, byte) {
                (ChunkState::Size { digits }, _) if byte.is_ascii_hexdigit() && digits < 15 => {
                    let digit = char::from(byte).to_digit(16).unwrap_or(0);
                    self.left = self.left * 16 + u64::from(digit);
                    ChunkState::Size { digits: digits + 1 }
                }
                (ChunkState::Size { digits: 1.. } | ChunkState::Extension, b'\n') => {
                    if self.left == 0 { ChunkState::Trailer } else { ChunkState::Data }
                }
                (ChunkState::Size { digits: 1.. }, b'\r' | b' ' | b'\t' | b';')
                | (ChunkState::Extension, _) => {
                    self.skip()?;
                    ChunkState::Extension
                }
                (ChunkState::DataEnd, b'\r') => ChunkState::DataEnd,
                (ChunkState::DataEnd, b'\n') => ChunkState::Size { digits: 0 },
                (ChunkState::Trailer, b'\n') => ChunkState::End,
                (ChunkState::Trailer, b'\r') | (ChunkState::TrailerLine, b'\n') => {
                    ChunkState::Trailer
                }
                (ChunkState::Trailer | ChunkState::TrailerLine, _) => {
                    self.skip()?;
                    ChunkState::TrailerLine
                }
                _ => return Err(BodyError::Malformed),
            };
        Ok(())
    }

    fn skip(&mut self) -> Result<(), BodyError> {
        self.skipped += 1;
        if self.skipped > Self::MAX_SKIPPED { Err(BodyError::Malformed) } else { Ok(()) }
    }
}

/// A request body on an HTTP/2 stream.
pub(super) struct Outbox {
    parts: std::vec::IntoIter<Bytes>,
    /// Bytes still to come, where that is known.
    left: Option<u64>,
    /// What comes behind the parts.
    more: Option<Receiver<Piece>>,
}

impl Outbox {
    pub(super) fn new(payload: &Payload) -> Self {
        let left = Some(payload.len() as u64);
        Self { parts: payload.parts().to_vec().into_iter(), left, more: None }
    }

    /// A body of which only the beginning is there.
    pub(super) fn fed(payload: &Payload, length: Option<u64>, more: Receiver<Piece>) -> Self {
        Self { left: length, more: Some(more), ..Self::new(payload) }
    }
}

impl Body for Outbox {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let next = match (self.parts.next(), &mut self.more) {
            (Some(part), _) => Some(part),
            (None, Some(more)) => ready!(feed::poll_piece(more, context)).transpose()?,
            (None, None) => None,
        };
        let length = next.as_ref().map_or(0, |part| part.len() as u64);
        self.left = self.left.map(|left| left.saturating_sub(length));
        Poll::Ready(next.map(|part| Ok(Frame::data(part))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0) && self.more.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer on an HTTP/2 stream, counted against its connection until it ends.
pub(super) struct Inbox {
    pub(super) body: hyper::body::Incoming,
    pub(super) _stream: Arc<()>,
    /// Keeps a request open that was answered before it was whole.
    pub(super) _request: Option<Sender<Piece>>,
}

impl Body for Inbox {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(parts: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>, bool), BodyError> {
        let Framing::Chunked(mut chunks) = Framing::chunked() else { unreachable!() };
        let (mut into, mut beyond) = (BytesMut::new(), Vec::new());
        for part in parts {
            let used = chunks.decode(part, &mut into)?;
            beyond.extend_from_slice(&part[used..]);
        }
        Ok((into.to_vec(), beyond, chunks.state == ChunkState::End))
    }

    const BODY: &[u8] =
        b"5\r\nhello\r\n1;name=value\r\n,\r\n006\r\n world\r\n0\r\nx-trailer: 1\r\n\r\nNEXT";

    #[test]
    fn chunks_are_joined_and_what_follows_is_left_alone() {
        let (payload, beyond, ended) = decode(&[BODY]).unwrap();
        assert_eq!((&payload[..], &beyond[..], ended), (&b"hello, world"[..], &b"NEXT"[..], true));
    }

    #[test]
    fn malformed_chunks_are_refused() {
        for body in ["x\r\n", "\r\n", "5\r\nhelloX", "-1\r\n", "fffffffffffffffff\r\n"] {
            assert!(decode(&[body.as_bytes()]).is_err(), "{body}");
        }
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_body(cut in 0_usize..70) {
            let (left, right) = BODY.split_at(cut.min(BODY.len()));
            prop_assert_eq!(decode(&[left, right]).unwrap(), decode(&[BODY]).unwrap());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&[&bytes]);
        }
    }
}
