//! A client socket with limited patience: a slow or silent client holds nothing for long.
//!
//! Two limits hold while no request is being answered: how long a connection may stay idle, and
//! how long a request's head may take once its first byte is here. While one is, the client must
//! take some of its answer within the idle limit. Bodies have a limit of their own, where they are
//! read. One timer a connection is set lazily, so a busy one pays nothing.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

/// The limits of a client connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// From the first byte of a request to the end of its head.
    pub head: Duration,
    /// Between two requests, and between two writes that the client takes.
    pub idle: Duration,
}

/// What a connection's service tells its socket: that a request is being answered.
#[derive(Debug, Clone, Default)]
pub struct Pulse(Arc<Beats>);

#[derive(Debug, Default)]
struct Beats {
    /// The client's address, if it came over the network.
    peer: Option<IpAddr>,
    /// Requests being answered now.
    busy: AtomicU32,
    /// Changes with every request begun and ended.
    changes: AtomicU32,
}

/// One request being answered, until dropped.
#[derive(Debug)]
pub struct Busy(Arc<Beats>);

/// The socket.
#[derive(Debug)]
pub struct Patient<S> {
    stream: S,
    pulse: Pulse,
    limits: Limits,
    timer: Pin<Box<Sleep>>,
    phase: Phase,
    /// Since when the client takes nothing of what is written.
    stuck: Option<Instant>,
    seen: u32,
    /// An HTTP/2 client may send pings between requests; only the idle limit holds for it.
    multiplexed: bool,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
    Idle(Instant),
    Head(Instant),
    Answering,
}

// === impl Pulse ===

impl Pulse {
    /// That of a client with this address.
    pub fn of(peer: IpAddr) -> Self {
        Self(Arc::new(Beats { peer: Some(peer), ..Beats::default() }))
    }

    pub fn busy(&self) -> Busy {
        self.0.busy.fetch_add(1, Ordering::Relaxed);
        self.0.changes.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(&self.0))
    }
}

impl Busy {
    /// The address of the client that is served.
    pub fn peer(&self) -> Option<IpAddr> {
        self.0.peer
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
        self.0.changes.fetch_add(1, Ordering::Relaxed);
    }
}

// === impl Patient ===

impl<S> Patient<S> {
    pub fn new(stream: S, pulse: Pulse, limits: Limits) -> Self {
        let now = Instant::now();
        Self {
            stream,
            pulse,
            limits,
            timer: Box::pin(tokio::time::sleep_until(now + limits.idle)),
            phase: Phase::Idle(now),
            stuck: None,
            seen: 0,
            multiplexed: false,
        }
    }

    /// Follows what the service has told since the last look.
    fn catch_up(&mut self) {
        let changes = self.pulse.0.changes.load(Ordering::Relaxed);
        if self.pulse.0.busy.load(Ordering::Relaxed) > 0 {
            self.phase = Phase::Answering;
        } else if changes != self.seen {
            self.phase = Phase::Idle(Instant::now());
        }
        self.seen = changes;
    }

    /// Ready once the limit of the phase is reached.
    fn poll_limit(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let deadline = match (self.phase, self.stuck) {
            (Phase::Answering, None) => return Poll::Pending,
            (Phase::Answering, Some(since)) | (Phase::Idle(since), _) => since + self.limits.idle,
            (Phase::Head(since), _) => since + self.limits.head,
        };
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
        // The timer may stand for a deadline that has moved on since; then it is set anew.
        while self.timer.as_mut().poll(context).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(deadline);
        }
        Poll::Pending
    }

    /// What was written, or an error once the client has taken nothing for too long.
    fn poll_taken(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stuck = None;
            return written;
        }
        self.catch_up();
        self.stuck.get_or_insert_with(Instant::now);
        ready!(self.poll_limit(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Patient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.catch_up();
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(context, buffer) {
            let read = &buffer.filled()[before..];
            self.multiplexed |= read.starts_with(b"PRI ");
            if matches!(self.phase, Phase::Idle(_)) && !read.is_empty() && !self.multiplexed {
                self.phase = Phase::Head(Instant::now());
            }
            return Poll::Ready(result);
        }
        ready!(self.poll_limit(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Patient<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.poll_taken(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.poll_taken(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LIMITS: Limits = Limits { head: Duration::from_secs(10), idle: Duration::from_secs(100) };

    async fn silence(patient: &mut Patient<tokio::io::DuplexStream>) -> Duration {
        let began = Instant::now();
        let error = patient.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_client_is_left_after_the_idle_limit() {
        let (_client, server) = tokio::io::duplex(64);
        let mut patient = Patient::new(server, Pulse::default(), LIMITS);
        assert_eq!(silence(&mut patient).await.as_secs(), 100);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_ends_is_left_after_the_head_limit() {
        let (mut client, server) = tokio::io::duplex(64);
        let mut patient = Patient::new(server, Pulse::default(), LIMITS);
        client.write_all(b"P").await.unwrap();
        patient.read_u8().await.unwrap();
        assert_eq!(silence(&mut patient).await.as_secs(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_of_its_answer_is_left_after_the_idle_limit() {
        let (mut client, server) = tokio::io::duplex(64);
        let pulse = Pulse::default();
        let mut patient = Patient::new(server, pulse.clone(), LIMITS);
        let _busy = pulse.busy();
        patient.write_all(&[0; 64]).await.unwrap();
        let slow = async {
            tokio::time::sleep(Duration::from_secs(90)).await;
            client.read_exact(&mut [0; 64]).await.unwrap();
        };
        let (written, ()) = tokio::join!(patient.write_all(&[0; 64]), slow);
        written.unwrap();
        let began = Instant::now();
        let error = patient.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 100));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_being_answered_has_no_limit_and_idleness_begins_after_it() {
        let (mut client, server) = tokio::io::duplex(64);
        let pulse = Pulse::default();
        let mut patient = Patient::new(server, pulse.clone(), LIMITS);
        client.write_all(b"P").await.unwrap();
        patient.read_u8().await.unwrap();
        let busy = pulse.busy();
        let waited = tokio::time::timeout(Duration::from_secs(1000), patient.read_u8()).await;
        assert!(waited.is_err());
        drop(busy);
        assert_eq!(silence(&mut patient).await.as_secs(), 100);
    }
}
