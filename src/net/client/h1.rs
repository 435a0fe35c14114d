//! One HTTP/1.1 connection to an upstream (RFC 9112), driven by whoever reads its answer.

use std::future::poll_fn;
use std::io::{self, IoSlice, Write};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::connect::Stream;
use super::reply::{Framing, ReplyBody};
use super::{Fault, IDLE, Origin, Outgoing, Reply, push_header};

/// A longer response head is refused.
pub(super) const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;
/// A peer that had closed an unused connection lets that be known at once; one that holds a request
/// for longer has begun to serve it.
const STALE: Duration = Duration::from_millis(500);
/// Slices handed to one vectored write.
pub(super) const MAX_SLICES: usize = 32;

pub(super) struct Connection {
    pub(super) stream: Stream,
    /// What was read beyond what was asked for.
    pub(super) buffer: BytesMut,
    /// How long the peer keeps it when unused, as far as it said.
    idle_limit: Duration,
}

pub(super) struct Head {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
}

/// The head of a request, written out.
pub(super) fn render(outgoing: Outgoing<'_>, authority: &str) -> Vec<u8> {
    let mut head = Vec::with_capacity(outgoing.headers.rendered.len() + 256);
    // Writing to a vector cannot fail.
    let _ = write!(head, "{} {} HTTP/1.1\r\nhost: {authority}\r\n", outgoing.method, outgoing.path);
    let _ = match outgoing.length() {
        Some(length) => write!(head, "content-length: {length}\r\n"),
        None => write!(head, "transfer-encoding: chunked\r\n"),
    };
    head.extend_from_slice(&outgoing.headers.rendered);
    if let Some(content_type) = outgoing.content_type() {
        push_header(&mut head, &CONTENT_TYPE, content_type);
    }
    for (name, value) in outgoing.extra {
        push_header(&mut head, name, value);
    }
    head.extend_from_slice(b"\r\n");
    head
}

// === impl Connection ===

impl Connection {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, buffer: BytesMut::new(), idle_limit: IDLE }
    }

    pub(super) fn idle_limit(&self) -> Duration {
        self.idle_limit
    }

    /// Whether an unused connection is still open: nothing may be readable on it, not even its end.
    pub(super) fn probe_open(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut context = Context::from_waker(Waker::noop());
        self.buffer.is_empty()
            && Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer).is_pending()
    }

    /// Sends a request and reads the head of its answer.
    pub(super) async fn exchange(
        mut self,
        head: &[u8],
        outgoing: Outgoing<'_>,
        origin: &Arc<Origin>,
    ) -> Result<Reply, Fault> {
        let begun = Instant::now();
        let mut early = None;
        let sent = self.write(head, outgoing, &mut early).await;
        // A server may answer, and close, before it has read everything: its answer counts.
        let answer = match early {
            Some(head) => Ok(head),
            None => self.read_head().await,
        };
        let head = match (answer, sent) {
            (Ok(head), Ok(true)) => head,
            (Ok(head), _) => Head { keep_alive: false, ..head },
            (Err(Fault::Closed { arrived, cause }), sent) => {
                let cause = match sent {
                    Err(Fault::Closed { cause, .. }) => cause,
                    _ => cause,
                };
                return Err(Fault::Closed { cause, arrived: arrived || begun.elapsed() > STALE });
            }
            (Err(fault), _) => return Err(fault),
        };
        Ok(self.reply(head, origin))
    }

    /// The answer that begins with this head.
    pub(super) fn reply(self, head: Head, origin: &Arc<Origin>) -> Reply {
        let Head { status, headers, framing, keep_alive } = head;
        let body =
            ReplyBody::http1(self, framing, keep_alive.then(|| Arc::clone(origin)), &headers);
        Reply { status, headers, body }
    }

    /// Writes the request; false when the server wants no more of it. It may begin to answer
    /// before that: `early`.
    async fn write(
        &mut self,
        head: &[u8],
        outgoing: Outgoing<'_>,
        early: &mut Option<Head>,
    ) -> Result<bool, Fault> {
        let broken = |cause| Fault::Closed { cause, arrived: false };
        let body = outgoing.body;
        let mut chunks: Vec<&[u8]> = Vec::with_capacity(body.parts().len() + 1);
        chunks.push(head);
        chunks.extend(body.parts().iter().map(Bytes::as_ref));
        let mut next = 0;
        while next < chunks.len() {
            let listens = early.is_none();
            let written = poll_fn(|context| self.poll_write(context, &chunks[next..], listens));
            if let Some(written) = written.await.map_err(broken)? {
                outgoing.note_left();
                next += consume(&mut chunks[next..], written);
                continue;
            }
            *early = self.parse_head()?;
            let is_refusal = early.as_ref().is_some_and(|head| !(200..300).contains(&head.status));
            if is_refusal || early.is_none() && self.buffer.len() >= MAX_HEAD {
                return Ok(false);
            }
        }
        if let Stream::Tls(stream) = &mut self.stream {
            let flushed = poll_fn(|context| Pin::new(&mut *stream).poll_flush(context));
            flushed.await.map_err(broken)?;
        }
        Ok(true)
    }

    /// Writes some of `chunks`; `None` when something arrives while the server takes no more.
    fn poll_write(
        &mut self,
        context: &mut Context<'_>,
        chunks: &[&[u8]],
        listens: bool,
    ) -> Poll<io::Result<Option<usize>>> {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let count = chunks.len().min(MAX_SLICES);
        for (slice, chunk) in slices.iter_mut().zip(chunks) {
            *slice = IoSlice::new(chunk);
        }
        match Pin::new(&mut self.stream).poll_write_vectored(context, &slices[..count])? {
            Poll::Ready(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            Poll::Ready(written) => Poll::Ready(Ok(Some(written))),
            Poll::Pending if listens => self.poll_fill(context)?.map(|()| Ok(None)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Reads into the buffer; an end of the stream is an error here.
    pub(super) fn poll_fill(&mut self, context: &mut Context<'_>) -> io::Result<Poll<()>> {
        self.buffer.reserve(2048);
        match pin!(self.stream.read_buf(&mut self.buffer)).poll(context) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(result) => result.map(|_| Poll::Ready(())),
        }
    }

    pub(super) async fn read_head(&mut self) -> Result<Head, Fault> {
        loop {
            if let Some(head) = self.parse_head()? {
                return Ok(head);
            }
            if self.buffer.len() >= MAX_HEAD {
                return Err(Fault::Malformed(format!("its head exceeds {MAX_HEAD} bytes")));
            }
            let filled = poll_fn(|context| match self.poll_fill(context) {
                Ok(Poll::Pending) => Poll::Pending,
                Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
                Err(error) => Poll::Ready(Err(error)),
            });
            if let Err(cause) = filled.await {
                return Err(Fault::Closed { cause, arrived: !self.buffer.is_empty() });
            }
        }
    }

    /// The head at the front of the buffer, once it is complete; interim answers are skipped.
    pub(super) fn parse_head(&mut self) -> Result<Option<Head>, Fault> {
        loop {
            if self.buffer.is_empty() {
                return Ok(None);
            }
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&self.buffer);
            let length = match parsed.map_err(|error| Fault::Malformed(error.to_string()))? {
                httparse::Status::Partial => return Ok(None),
                httparse::Status::Complete(length) => length,
            };
            let status = response.code.unwrap_or(0);
            let old = response.version == Some(0);
            if (100..200).contains(&status) && status != 101 {
                self.buffer.advance(length);
                continue;
            }
            let headers = read_headers(response.headers)?;
            self.buffer.advance(length);
            if self.buffer.is_empty() {
                // A stream may be silent for long from here on; it holds no buffer meanwhile.
                self.buffer = BytesMut::new();
            }
            let head = describe(status, headers, old)?;
            if let Some(limit) = keep_alive_timeout(&head.headers) {
                self.idle_limit = limit.min(IDLE);
            }
            return Ok(Some(head));
        }
    }
}

/// Counts the chunks that `written` bytes complete, and shortens the one they end in.
fn consume(chunks: &mut [&[u8]], mut written: usize) -> usize {
    let mut complete = 0;
    for chunk in chunks {
        if written < chunk.len() {
            *chunk = &chunk[written..];
            break;
        }
        written -= chunk.len();
        complete += 1;
    }
    complete
}

fn read_headers(parsed: &[httparse::Header<'_>]) -> Result<HeaderMap, Fault> {
    let mut headers = HeaderMap::with_capacity(parsed.len());
    for header in parsed {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_bytes(header.value);
        match (name, value) {
            (Ok(name), Ok(value)) => headers.append(name, value),
            _ => return Err(Fault::Malformed("a header is invalid".to_owned())),
        };
    }
    Ok(headers)
}

/// How the body is delimited (RFC 9112, section 6.3), and whether the connection can be used again.
fn describe(status: u16, headers: HeaderMap, old: bool) -> Result<Head, Fault> {
    let tokens = |name: &HeaderName, token: &str| {
        headers.get_all(name).iter().any(|value| {
            let value = value.to_str().unwrap_or_default();
            value.split(',').any(|part| part.trim().eq_ignore_ascii_case(token))
        })
    };
    let mut keep_alive =
        if old { tokens(&CONNECTION, "keep-alive") } else { !tokens(&CONNECTION, "close") };
    let framing = if matches!(status, 204 | 304) {
        Framing::Length(0)
    } else if headers.contains_key(TRANSFER_ENCODING) {
        // Both headers together are the mark of smuggling: the connection is not used again.
        keep_alive &= !headers.contains_key(CONTENT_LENGTH);
        if tokens(&TRANSFER_ENCODING, "chunked") { Framing::chunked() } else { Framing::UntilClose }
    } else {
        match content_length(&headers)? {
            Some(length) => Framing::Length(length),
            None => Framing::UntilClose,
        }
    };
    keep_alive &= !matches!(framing, Framing::UntilClose) && status != 101;
    Ok(Head { status, headers, framing, keep_alive })
}

fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Fault> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits = value.as_bytes();
        let parsed = value.to_str().ok().and_then(|text| text.parse::<u64>().ok());
        match parsed.filter(|_| digits.iter().all(u8::is_ascii_digit)) {
            Some(parsed) if length.is_none_or(|length| length == parsed) => length = Some(parsed),
            _ => return Err(Fault::Malformed("its content-length is invalid".to_owned())),
        }
    }
    Ok(length)
}

/// The time that the peer says it keeps an unused connection, less a second for the way.
fn keep_alive_timeout(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("keep-alive")?.to_str().ok()?;
    let seconds = value.split(',').find_map(|part| part.trim().strip_prefix("timeout="))?;
    Some(Duration::from_secs(seconds.trim().parse::<u64>().ok()?.saturating_sub(1)))
}
