//! The accept loop: HTTP/1.1 and HTTP/2 on one port, in clear or with TLS, up to a number of
//! connections, drained gracefully.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use super::BoxError;
use super::patience::{Limits, Patient, Pulse};
use super::shed::BoxFuture;
use super::tasks::Tasks;
use super::workers::Workers;

/// What every listener of the process shares.
#[derive(Debug, Clone)]
pub struct Door {
    pub workers: Arc<Workers>,
    /// The connections, to be waited for at the end.
    pub tasks: Tasks,
    /// When connections are to close.
    pub closing: watch::Receiver<Closing>,
    pub limits: Limits,
    pub max_connections: usize,
    /// Connections open now.
    pub open: Arc<AtomicUsize>,
    /// Connections turned away because too many were open.
    pub turned_away: Arc<AtomicUsize>,
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

/// When connections are to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closing {
    NotYet,
    /// With the end of what they do.
    Soon,
    /// At once: whatever is under way looks up, and may say so.
    Now,
}

/// A service for one connection, which is told that connection's pulse.
pub trait MakeService<B>: Clone + Send + Sync + 'static {
    type Service: Service<
            Request<Incoming>,
            Response = Response<B>,
            Error = Infallible,
            Future = BoxFuture<Result<Response<B>, Infallible>>,
        > + Clone
        + Send
        + 'static;

    fn make(&self, pulse: Pulse) -> Self::Service;
}

/// The most that the head of a request may have, in bytes and in headers.
const MAX_HEAD: usize = 64 * 1024;
const MAX_HEADERS: usize = 128;
/// How often a client's first word is looked at again when it comes in pieces.
const LOOKS: usize = 40;
/// What one read takes at the most: small enough that a body is still in the cache when it is looked
/// through.
const MAX_BUFFER: usize = 128 * 1024;
/// A client may have this many requests under way on one HTTP/2 connection.
const MAX_STREAMS: u32 = 250;

/// Binds an address before anything is served, so that a failure shows at the start.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

impl Door {
    /// Accepts connections until `stop` turns true, each on the worker that has the fewest.
    pub async fn accept<M, B>(
        self,
        listener: std::net::TcpListener,
        make: M,
        mut stop: watch::Receiver<bool>,
    ) -> io::Result<()>
    where
        M: MakeService<B>,
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = stop.wait_for(|stop| *stop) => return Ok(()),
            };
            match accepted {
                Ok((stream, address)) => self.place(stream, address.ip(), make.clone()),
                // Out of file descriptors, most likely: those who leave make room.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    }

    fn place<M, B>(&self, stream: TcpStream, peer: IpAddr, make: M)
    where
        M: MakeService<B>,
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        let open = Open::new(&self.open);
        if open.count > self.max_connections {
            self.turned_away.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Some((worker, place)) = self.workers.least_loaded() else { return };
        // A socket belongs to the reactor it is registered with, so it moves as a plain one.
        let Ok(stream) = stream.into_std() else { return };
        let door = self.clone();
        self.tasks.spawn_on(worker, async move {
            let _held = (open, place);
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            door.serve(stream, Pulse::of(peer), make).await;
        });
    }

    /// Each kind of connection is boxed, so that none pays for the size of another.
    async fn serve<M, B>(self, stream: TcpStream, pulse: Pulse, make: M)
    where
        M: MakeService<B>,
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        let _ = stream.set_nodelay(true);
        if let Some(config) = self.tls.clone() {
            Box::pin(self.serve_tls(stream, config, pulse, make)).await;
        } else if let Some(multiplexed) = self.begins_as_http2(&stream).await {
            self.converse(stream, multiplexed, pulse, make).await;
        }
    }

    async fn serve_tls<M, B>(
        self,
        stream: TcpStream,
        config: Arc<rustls::ServerConfig>,
        pulse: Pulse,
        make: M,
    ) where
        M: MakeService<B>,
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        let handshake = TlsAcceptor::from(config).accept(stream);
        if let Ok(Ok(stream)) = tokio::time::timeout(self.limits.head, handshake).await {
            let multiplexed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            self.converse(stream, multiplexed, pulse, make).await;
        }
    }

    /// Looks at a client's first bytes without taking them: HTTP/2 begins with `PRI ` (RFC 9113,
    /// section 3.4). `None` when none come.
    async fn begins_as_http2(&self, stream: &TcpStream) -> Option<bool> {
        let mut closing = self.closing.clone();
        tokio::select! {
            looked = tokio::time::timeout(self.limits.idle, preface(stream)) => looked.ok()?,
            _ = closing.wait_for(|closing| *closing != Closing::NotYet) => None,
        }
    }

    async fn converse<S, M, B>(self, stream: S, multiplexed: bool, pulse: Pulse, make: M)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        M: MakeService<B>,
        B: http_body::Body<Data = Bytes, Error = BoxError> + Send + 'static,
    {
        let stream = TokioIo::new(Patient::new(stream, pulse.clone(), self.limits));
        let service = TowerToHyperService::new(make.make(pulse));
        if multiplexed {
            let connection = http2().serve_connection(stream, service);
            let close = http2::Connection::graceful_shutdown;
            Box::pin(drive(connection, close, self.closing)).await;
        } else {
            let connection = http1().serve_connection(stream, service);
            let close = http1::Connection::graceful_shutdown;
            Box::pin(drive(connection, close, self.closing)).await;
        }
    }
}

/// Whether the first bytes are those of HTTP/2; `None` when the client leaves before them.
async fn preface(stream: &TcpStream) -> Option<bool> {
    const PREFACE: &[u8] = b"PRI ";
    let mut head = [0; PREFACE.len()];
    for _ in 0..LOOKS {
        let length = stream.peek(&mut head).await.ok().filter(|length| *length > 0)?;
        if length == PREFACE.len() || !PREFACE.starts_with(&head[..length]) {
            return Some(head == PREFACE);
        }
        // The rest of the word is on its way.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // It never came; HTTP/1.1 has an answer for that.
    Some(false)
}

/// Runs a connection to its end; told to close, it finishes what it does first. How it ends is told
/// by its calls; a client that leaves is no news.
async fn drive<C: Future>(
    connection: C,
    close: fn(Pin<&mut C>),
    mut closing: watch::Receiver<Closing>,
) {
    tokio::pin!(connection);
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = closing.wait_for(|closing| *closing != Closing::NotYet) => {}
    }
    close(connection.as_mut());
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = closing.wait_for(|closing| *closing == Closing::Now) => {}
    }
    let _ = connection.await;
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        // `Patient` watches over heads and idleness, with one timer a connection.
        .header_read_timeout(None)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER);
    builder
}

fn http2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    builder
}

/// One open connection, until dropped.
struct Open {
    all: Arc<AtomicUsize>,
    count: usize,
}

impl Open {
    fn new(all: &Arc<AtomicUsize>) -> Self {
        Self { count: all.fetch_add(1, Ordering::Relaxed) + 1, all: Arc::clone(all) }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}
