//! A plain HTTP client: whole answers, streams piece by piece, and raw bytes.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::PATIENCE;
use super::gateway::{Gateway, KEY};

pub(crate) const CHAT: &str = "/v1/chat/completions";

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer whose body is still arriving. Dropping it closes the connection.
pub(crate) struct Opened {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    body: Incoming,
    _connection: JoinSet<()>,
}

/// One piece of a body and when it came.
#[derive(Debug, Clone)]
pub(crate) struct Piece {
    pub(crate) at: Instant,
    pub(crate) bytes: Bytes,
}

/// Asks the gateway for a chat, whole or as a stream, and reads the answer to its end.
pub(crate) async fn chat(gateway: &Gateway, body: impl Into<Bytes>) -> Answer {
    post(gateway.address, CHAT, KEY, body).await
}

/// The same, but only up to the head of the answer.
pub(crate) async fn open_chat(gateway: &Gateway, body: impl Into<Bytes>) -> Opened {
    open(gateway.address, request(Method::POST, CHAT, KEY, body.into())).await
}

pub(crate) async fn post(
    address: SocketAddr,
    path: &str,
    key: &str,
    body: impl Into<Bytes>,
) -> Answer {
    open(address, request(Method::POST, path, key, body.into())).await.whole().await
}

pub(crate) async fn get(address: SocketAddr, path: &str, key: &str) -> Answer {
    open(address, request(Method::GET, path, key, Bytes::new())).await.whole().await
}

pub(crate) fn request(method: Method, path: &str, key: &str, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = path.parse().unwrap();
    let headers = request.headers_mut();
    headers.insert("host", "gateway.test".parse().unwrap());
    headers.insert("content-type", "application/json".parse().unwrap());
    if !key.is_empty() {
        headers.insert("authorization", format!("Bearer {key}").parse().unwrap());
    }
    request
}

/// Sends a request on a connection of its own and waits for the head of the answer.
pub(crate) async fn open(address: SocketAddr, request: Request<Full<Bytes>>) -> Opened {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let mut driver = JoinSet::new();
    driver.spawn(async move {
        let _ = connection.await;
    });
    let response: Response<Incoming> =
        timeout(PATIENCE, sender.send_request(request)).await.expect("no head came").unwrap();
    let (head, body) = response.into_parts();
    Opened { status: head.status.as_u16(), headers: head.headers, body, _connection: driver }
}

/// Sends these bytes and keeps the connection.
pub(crate) async fn send(address: SocketAddr, bytes: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream
}

/// Sends these bytes and reads until the other side closes.
pub(crate) async fn raw(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = send(address, bytes).await;
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("no end came").unwrap();
    answer
}

/// Reads until `text` has come.
pub(crate) async fn read_until(stream: &mut TcpStream, text: &str) {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let read = timeout(PATIENCE, stream.read_buf(&mut seen)).await.expect("nothing more came");
        assert!(read.unwrap() > 0, "no {text:?} in {:?}", String::from_utf8_lossy(&seen));
    }
}

/// A chat request as bytes on the wire.
pub(crate) fn wire(body: &str) -> Vec<u8> {
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer {KEY}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

// === impl Answer ===

impl Answer {
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The error that a stream ended with.
    #[track_caller]
    pub(crate) fn last_event(&self) -> Value {
        let last = self.text().trim_end().rsplit("data: ").next().unwrap();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

// === impl Opened ===

impl Opened {
    /// The next piece; `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        self.next_within(PATIENCE).await
    }

    pub(crate) async fn next_within(&mut self, limit: Duration) -> Option<Piece> {
        loop {
            let frame = timeout(limit, self.body.frame()).await.expect("nothing more came")?;
            if let Ok(bytes) = frame.unwrap().into_data() {
                return Some(Piece { at: Instant::now(), bytes });
            }
        }
    }

    /// Reads until `text` has come, and returns everything up to there.
    pub(crate) async fn read_until(&mut self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.contains(text) {
            let piece = self.next().await.unwrap_or_else(|| panic!("no {text:?} in {seen:?}"));
            seen.push_str(str::from_utf8(&piece.bytes).unwrap());
        }
        seen
    }

    /// All pieces that are still to come.
    pub(crate) async fn pieces(mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while let Some(piece) = self.next().await {
            pieces.push(piece);
        }
        pieces
    }

    pub(crate) async fn whole(self) -> Answer {
        let (status, headers) = (self.status, self.headers.clone());
        let pieces = self.pieces().await;
        let body = pieces.iter().map(|piece| &piece.bytes[..]).collect::<Vec<_>>().concat();
        Answer { status, headers, body: body.into() }
    }
}
