//! The upstream client: pooled connections per origin and worker, HTTP/1.1 and HTTP/2.
//!
//! An HTTP/1.1 connection is driven by whoever reads its reply, so no task stands between socket
//! and reply, what is readable is drained at once, and dropping the reply closes the socket.

mod connect;
mod feed;
mod grpc;
mod h1;
mod inflate;
mod reach;
mod reply;

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri};
use hyper::client::conn::http2::SendRequest;
use hyper_util::client::proxy::matcher::Matcher;
use tokio::time::Instant;

use self::connect::{Connected, Connector, Proxy};
pub use self::feed::Feed;
pub use self::grpc::{Called, framed, gzip};
use self::h1::Connection;
pub use self::reach::{Forbidden, Reach};
pub use self::reply::{BodyError, Reply, ReplyBody};
use super::tasks::Tasks;
use super::{BoxError, tls, workers};
use crate::dialect::splice::Payload;

/// How long an unused connection is kept: shorter than peers keep theirs (Cloudflare 400 s, AWS
/// load balancers 60 s). A `Keep-Alive: timeout=` of the peer shortens it further.
const IDLE: Duration = Duration::from_secs(50);
/// Unused connections kept per origin and worker.
const MAX_IDLE: usize = 256;
/// The part of the time for connecting in which the connection that somebody else opens is waited
/// for.
const WAIT: u32 = 4;
/// Streams put on one HTTP/2 connection before another is opened; servers commonly allow 100.
const MAX_STREAMS: usize = 100;

/// Hands out the origins of the process, so that a reload keeps the pools of those that stay. Its
/// copies share them.
#[derive(Clone)]
pub struct Client {
    origins: Arc<Mutex<Origins>>,
    environment: Arc<Matcher>,
    workers: usize,
    tasks: Tasks,
}

type Origins = HashMap<(Place, Reach), Weak<Origin>>;

/// Where an origin is and how it is reached. A pool is shared by all who name the same place.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// Scheme, host and port; the path is not part of it.
    pub address: Uri,
    /// An explicit proxy; without one the usual environment variables decide.
    pub proxy: Option<String>,
    /// Further certificate authorities, a PEM file.
    pub ca: Option<PathBuf>,
}

/// One server and the connections to it.
pub struct Origin {
    connector: Connector,
    shards: Box<[Mutex<Shard>]>,
    tasks: Tasks,
}

/// The connections that live on one worker.
#[derive(Default)]
struct Shard {
    idle: Vec<(Connection, Instant)>,
    /// Each with when it was last seen in use.
    multiplexed: Vec<(Multiplexed, Instant)>,
    /// As far as is known, each call needs a connection of its own.
    is_single: bool,
    /// Whoever opens a connection that others will share.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone)]
struct Multiplexed {
    sender: SendRequest<Outbox>,
    streams: Arc<()>,
}

/// Marks of the gateways that a call has come through, one each (RFC 8586): those before us have
/// theirs in lines of their own.
pub const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// One request, ready to be sent.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    pub method: &'a str,
    pub path: &'a str,
    pub headers: &'a Template,
    /// Headers of this call alone.
    pub extra: &'a [(HeaderName, HeaderValue)],
    pub content_type: Option<&'a HeaderValue>,
    pub body: &'a Payload,
    /// What comes behind `body`, where that is only its beginning.
    pub rest: Option<&'a dyn Feed>,
    /// Set as soon as some of it has left.
    pub left: Option<&'a AtomicBool>,
}

/// Headers that every request to an origin carries, written out once. Holds credentials: it is
/// never printed.
pub struct Template {
    map: HeaderMap,
    rendered: Vec<u8>,
}

/// Why no answer came.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The connection broke before the head of the answer was complete. `arrived` when some of it
    /// was there, or so late that the peer must have been at work on it: then the request has been
    /// seen.
    #[error("the connection was closed before an answer came: {cause}")]
    Closed { cause: io::Error, arrived: bool },
    /// The request's own body did not come to its end.
    #[error("the question broke off while it was sent: {0}")]
    Upload(#[source] BoxError),
    #[error("the answer is not HTTP: {0}")]
    Malformed(String),
}

type Outbox = reply::Outbox;

// === impl Fault ===

impl Fault {
    /// The address that must not be reached, if that is the reason.
    pub fn forbidden(&self) -> Option<&Forbidden> {
        let Self::Connect(cause) = self else { return None };
        cause.get_ref().and_then(|cause| cause.downcast_ref())
    }
}

// === impl Client ===

impl Client {
    /// A client for `workers` workers. Proxies are taken from the environment's `HTTPS_PROXY`,
    /// `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, where a place names none; loopback is exempt, and so is what only this link can reach.
    pub fn new(workers: usize) -> Self {
        Self {
            origins: Arc::default(),
            environment: Arc::new(Matcher::from_env()),
            workers: workers.max(1),
            tasks: Tasks::default(),
        }
    }

    /// The origin at `place`, with its pool when it is in use already.
    pub fn origin(&self, place: &Place) -> io::Result<Arc<Origin>> {
        self.origin_within(place, Reach::Anywhere)
    }

    /// The same, connecting only to addresses that `reach` allows.
    pub fn origin_within(&self, place: &Place, reach: Reach) -> io::Result<Arc<Origin>> {
        let key = (place.clone(), reach);
        let mut origins = lock(&self.origins);
        origins.retain(|_, origin| origin.strong_count() > 0);
        if let Some(origin) = origins.get(&key).and_then(Weak::upgrade) {
            return Ok(origin);
        }
        let proxy = match &place.proxy {
            Some(proxy) => Matcher::builder().all(proxy.clone()).build().intercept(&place.address),
            None if is_near(&place.address) => None,
            None => self.environment.intercept(&place.address),
        };
        let proxy = proxy.map(|it| Proxy::new(it, place.ca.as_deref())).transpose();
        let proxy = proxy.map_err(|error| tls::of_field("ca", &error))?;
        let shard =
            || Shard { is_single: place.address.scheme_str() != Some("https"), ..Shard::default() };
        let origin = Arc::new(Origin {
            connector: Connector::new(&place.address, trust(place)?, proxy)?.within(reach),
            shards: (0..self.workers).map(|_| Mutex::new(shard())).collect(),
            tasks: self.tasks.clone(),
        });
        origins.insert(key, Arc::downgrade(&origin));
        Ok(origin)
    }

    /// Closes what has been idle for too long on the caller's worker.
    pub fn sweep(&self) {
        let origins: Vec<_> = lock(&self.origins).values().filter_map(Weak::upgrade).collect();
        for origin in origins {
            origin.shard().sweep();
        }
    }
}

fn trust(place: &Place) -> io::Result<Option<Arc<rustls::ClientConfig>>> {
    let secure = place.address.scheme_str() == Some("https");
    let config = secure.then(|| tls::client(place.ca.as_deref().map(Path::new))).transpose();
    config.map_err(|error| tls::of_field("ca", &error))
}

/// Whether a proxy cannot reach it: loopback, and the link-local addresses of metadata servers.
fn is_near(address: &Uri) -> bool {
    let host = address.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| match address {
            IpAddr::V4(address) => address.is_loopback() || address.is_link_local(),
            IpAddr::V6(address) => address.is_loopback() || address.is_unicast_link_local(),
        })
}

// === impl Origin ===

impl Origin {
    /// The `Host` of every request to it.
    pub fn authority(&self) -> &str {
        self.connector.authority()
    }

    /// Its host, without brackets, and its port.
    pub fn server(&self) -> (&str, u16) {
        self.connector.server()
    }

    /// Sends one request and waits for the head of its answer. `connect_limit` bounds the time to
    /// open a connection. A pooled connection that turns out to be closed is replaced once.
    pub async fn send(
        self: &Arc<Self>,
        outgoing: Outgoing<'_>,
        connect_limit: Duration,
    ) -> Result<Reply, Fault> {
        // What is passed on while it arrives cannot be sent twice, so it goes where the peer
        // cannot have hung up unnoticed.
        let fit = |line: &Line| outgoing.rest.is_none() || matches!(line, Line::Multiplexed(_));
        let (line, is_new) = match self.checkout().filter(fit) {
            Some(line) => (line, false),
            None => self.open(connect_limit).await?,
        };
        match self.exchange(line, outgoing).await {
            // The peer had closed it while it was unused: the request was not served.
            Err(Fault::Closed { arrived: false, .. }) if !is_new && outgoing.rest.is_none() => {
                self.send_anew(outgoing, connect_limit).await
            }
            result => result,
        }
    }

    /// The same over a connection of its own, so that nothing is sent twice: on one that was used
    /// before, nobody can tell whether the peer has closed it before or after it served this.
    pub async fn send_anew(
        self: &Arc<Self>,
        outgoing: Outgoing<'_>,
        connect_limit: Duration,
    ) -> Result<Reply, Fault> {
        let line = self.connect(connect_limit).await?;
        self.exchange(line, outgoing).await
    }

    /// A connection for one more, and whether it is new. Where it can be shared, those who come
    /// while it is opened wait for it; whoever opens it may fail or leave, and then the next does.
    async fn open(&self, limit: Duration) -> Result<(Line, bool), Fault> {
        let begun = Instant::now();
        let turn = self.shard().turn();
        let turn = match turn {
            Some(turn) => tokio::time::timeout(limit / WAIT, turn.lock_owned()).await.ok(),
            None => None,
        };
        if let Some(line) = self.shard().free() {
            return Ok((Line::Multiplexed(line), false));
        }
        // The first may have found that they cannot be shared.
        let turn = turn.filter(|_| !self.shard().is_single);
        let line = self.connect(limit.saturating_sub(begun.elapsed())).await?;
        drop(turn);
        Ok((line, true))
    }

    async fn connect(&self, limit: Duration) -> Result<Line, Fault> {
        let connected = tokio::time::timeout(limit, self.connector.connect())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(Fault::Connect)?;
        self.shard().is_single = matches!(connected, Connected::Http1(_));
        Ok(match connected {
            Connected::Http1(stream) => Line::Single(Connection::new(stream)),
            Connected::Http2(stream) => Line::Multiplexed(self.open_http2(stream).await?),
        })
    }

    async fn exchange(
        self: &Arc<Self>,
        line: Line,
        outgoing: Outgoing<'_>,
    ) -> Result<Reply, Fault> {
        match line {
            Line::Single(connection) => {
                let head = h1::render(outgoing, self.authority());
                match outgoing.rest {
                    None => connection.exchange(&head, outgoing, self).await,
                    Some(rest) => connection.exchange_fed(head, outgoing, rest, self).await,
                }
            }
            Line::Multiplexed(line) => self.exchange_http2(line, outgoing).await,
        }
    }

    async fn open_http2(&self, stream: connect::Stream) -> Result<Multiplexed, Fault> {
        let io = hyper_util::rt::TokioIo::new(stream);
        let executor = hyper_util::rt::TokioExecutor::new();
        let (sender, connection) = hyper::client::conn::http2::Builder::new(executor)
            .timer(hyper_util::rt::TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .keep_alive_timeout(Duration::from_secs(10))
            .adaptive_window(true)
            .handshake(io)
            .await
            .map_err(|error| Fault::Connect(io::Error::other(error)))?;
        self.tasks.spawn(async move {
            // Its end shows in each stream on it.
            let _ = connection.await;
        });
        let line = Multiplexed { sender, streams: Arc::new(()) };
        self.shard().multiplexed.push((line.clone(), Instant::now()));
        Ok(line)
    }

    async fn exchange_http2(
        &self,
        mut line: Multiplexed,
        outgoing: Outgoing<'_>,
    ) -> Result<Reply, Fault> {
        let request = self.head(outgoing)?;
        line.sender.ready().await.map_err(closed)?;
        outgoing.note_left();
        let (response, request) = if let Some(rest) = outgoing.rest {
            feed::exchange_http2(&mut line.sender, request, outgoing.body, rest).await?
        } else {
            let request = request.map(|()| Outbox::new(outgoing.body));
            (line.sender.send_request(request).await.map_err(closed)?, None)
        };
        let (head, body) = response.into_parts();
        Ok(Reply {
            status: head.status.as_u16(),
            body: ReplyBody::boxed(
                reply::Inbox { body, _stream: line.streams, _request: request },
                &head.headers,
            ),
            headers: head.headers,
        })
    }

    /// The head of a request as HTTP/2 has it.
    fn head(&self, outgoing: Outgoing<'_>) -> Result<Request<()>, Fault> {
        let uri = format!("{}{}", self.connector.address(), outgoing.path);
        let mut request = Request::builder()
            .method(outgoing.method)
            .uri(uri)
            .body(())
            .map_err(|error| Fault::Malformed(error.to_string()))?;
        *request.headers_mut() = outgoing.headers.map.clone();
        if let Some(content_type) = outgoing.content_type() {
            request.headers_mut().insert(CONTENT_TYPE, content_type.clone());
        }
        for (name, value) in outgoing.extra {
            if *name == CDN_LOOP {
                request.headers_mut().append(name, value.clone());
            } else {
                request.headers_mut().insert(name, value.clone());
            }
        }
        Ok(request)
    }

    /// An open connection that is not known to be closed.
    fn checkout(&self) -> Option<Line> {
        let mut shard = self.shard();
        if let Some(line) = shard.free() {
            return Some(Line::Multiplexed(line));
        }
        while let Some((mut connection, since)) = shard.idle.pop() {
            if since.elapsed() < connection.idle_limit() && connection.probe_open() {
                return Some(Line::Single(connection));
            }
        }
        None
    }

    /// Takes back a connection whose answer was read to its end.
    fn checkin(&self, connection: Connection) {
        let mut shard = self.shard();
        if shard.idle.len() < MAX_IDLE {
            shard.idle.push((connection, Instant::now()));
        }
    }

    fn shard(&self) -> MutexGuard<'_, Shard> {
        // Only this worker takes this lock, so it is free.
        lock(&self.shards[workers::current() % self.shards.len()])
    }
}

fn closed(error: hyper::Error) -> Fault {
    let arrived = !(error.is_canceled() || error.is_closed() || is_refused(&error));
    Fault::Closed { arrived, cause: io::Error::other(error) }
}

/// Whether the peer says that it has done nothing of this request (RFC 9113, section 8.7): it goes
/// away and names an earlier one as its last, or refuses the stream.
fn is_refused(error: &hyper::Error) -> bool {
    let cause = error.source().and_then(|source| source.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| match cause.reason() {
        Some(h2::Reason::NO_ERROR) => cause.is_go_away() && cause.is_remote(),
        reason => reason == Some(h2::Reason::REFUSED_STREAM),
    })
}

enum Line {
    Single(Connection),
    Multiplexed(Multiplexed),
}

impl Shard {
    fn sweep(&mut self) {
        self.idle.retain(|(connection, since)| since.elapsed() < connection.idle_limit());
        self.multiplexed.retain_mut(|(line, used)| {
            if Arc::strong_count(&line.streams) > 1 {
                *used = Instant::now();
            }
            !line.sender.is_closed() && used.elapsed() < IDLE
        });
    }

    /// A connection that has room for another stream.
    fn free(&mut self) -> Option<Multiplexed> {
        self.multiplexed.retain(|(line, _)| !line.sender.is_closed());
        let has_room = |line: &Multiplexed| Arc::strong_count(&line.streams) <= MAX_STREAMS;
        let (line, used) = self.multiplexed.iter_mut().find(|(line, _)| has_room(line))?;
        *used = Instant::now();
        Some(line.clone())
    }

    /// What must be held to open a connection that may be shared.
    fn turn(&self) -> Option<Arc<tokio::sync::Mutex<()>>> {
        (!self.is_single).then(|| Arc::clone(&self.turn))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Outgoing ===

impl Outgoing<'_> {
    fn note_left(&self) {
        if let Some(left) = self.left {
            left.store(true, Ordering::Relaxed);
        }
    }

    /// The size of the whole body, where that is known.
    fn length(&self) -> Option<u64> {
        let length = self.body.len() as u64;
        self.rest.map_or(Some(length), |rest| Some(rest.length()? + length))
    }

    /// What the template says of it goes before.
    fn content_type(&self) -> Option<&HeaderValue> {
        self.content_type.filter(|_| !self.headers.map.contains_key(CONTENT_TYPE))
    }
}

// === impl Template ===

impl Template {
    pub fn new(map: HeaderMap) -> Self {
        let mut rendered = Vec::with_capacity(256);
        for (name, value) in &map {
            push_header(&mut rendered, name, value);
        }
        Self { map, rendered }
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Template(***)")
    }
}

fn push_header(into: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    into.extend_from_slice(name.as_str().as_bytes());
    into.extend_from_slice(b": ");
    into.extend_from_slice(value.as_bytes());
    into.extend_from_slice(b"\r\n");
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Client({} workers)", self.workers)
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Origin({})", self.authority())
    }
}

/// A body that is made here and not received: the answers of a built-in provider.
pub type LocalBody = std::pin::Pin<Box<dyn http_body::Body<Data = Bytes, Error = BoxError> + Send>>;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http_body_util::Empty;
    use hyper::client::conn::http2;
    use hyper_util::rt::{TokioExecutor, TokioIo};
    use tokio::task::JoinSet;

    use super::*;

    /// Whether a request may have been served whose stream its peer resets for this reason; for
    /// none, it goes away instead.
    async fn arrived(reason: Option<h2::Reason>) -> bool {
        let (near, far) = tokio::io::duplex(1 << 16);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut server = h2::server::handshake(far).await.unwrap();
            match reason {
                Some(reason) => {
                    let (_, mut response) = server.accept().await.unwrap().unwrap();
                    response.send_reset(reason);
                }
                None => server.abrupt_shutdown(h2::Reason::NO_ERROR),
            }
            let _ = std::future::poll_fn(|context| server.poll_closed(context)).await;
        });
        let client = http2::handshake(TokioExecutor::new(), TokioIo::new(near));
        let (mut sender, connection) = client.await.unwrap();
        tasks.spawn(async move { drop(connection.await) });
        let request = Request::builder().uri("http://peer.test/").body(Empty::<Bytes>::new());
        match closed(sender.send_request(request.unwrap()).await.unwrap_err()) {
            Fault::Closed { arrived, .. } => arrived,
            fault => panic!("{fault}"),
        }
    }

    #[tokio::test]
    async fn what_an_http2_peer_says_that_it_has_not_done_can_be_sent_again() {
        assert!(!arrived(Some(h2::Reason::REFUSED_STREAM)).await);
        assert!(!arrived(None).await);
        assert!(arrived(Some(h2::Reason::INTERNAL_ERROR)).await);
        assert!(arrived(Some(h2::Reason::CANCEL)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shared_connection_is_closed_when_it_was_unused_for_too_long() {
        let (io, _peer) = tokio::io::duplex(1 << 16);
        let executor = TokioExecutor::new();
        let io = TokioIo::new(io);
        let opened = http2::handshake(executor, io).await;
        let (sender, _connection) = opened.unwrap();
        let line = Multiplexed { sender, streams: Arc::new(()) };
        let mut shard = Shard { multiplexed: vec![(line, Instant::now())], ..Shard::default() };
        let in_use = shard.free();
        tokio::time::advance(2 * IDLE).await;
        shard.sweep();
        assert!(shard.free().is_some(), "somebody uses it");
        drop(in_use);
        tokio::time::advance(IDLE / 2).await;
        shard.sweep();
        assert_eq!(shard.multiplexed.len(), 1);
        tokio::time::advance(IDLE / 2).await;
        shard.sweep();
        assert!(shard.multiplexed.is_empty());
    }
}
