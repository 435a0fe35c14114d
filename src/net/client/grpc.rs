//! One message to a gRPC server and its status back: HTTP/2, without TLS too, and trailers.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Limited};

use super::connect::Connected;
use super::reply::Outbox;
use super::{Fault, Multiplexed, Origin, Outgoing, closed};
use crate::dialect::splice::Payload;

/// A longer answer is cut off.
const LONGEST_ANSWER: usize = 64 * 1024;
/// What stands before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// What a server said.
#[derive(Debug)]
pub struct Called {
    /// The status of HTTP: anything but 200 is no gRPC server's.
    pub status: u16,
    /// That of gRPC; 0 is success.
    pub code: u32,
    pub message: String,
    /// The message of a success.
    pub answer: Bytes,
}

/// `message` as a gRPC body.
pub fn framed(message: &[u8], compressed: bool) -> Option<Payload> {
    let mut body = BytesMut::with_capacity(PREFIX + message.len());
    body.put_u8(compressed.into());
    body.put_u32(u32::try_from(message.len()).ok()?);
    body.put_slice(message);
    let mut payload = Payload::default();
    payload.push(body.freeze());
    Some(payload)
}

/// These bytes, packed.
pub fn gzip(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(bytes.len() / 4), Compression::fast());
    encoder.write_all(bytes)?;
    encoder.finish()
}

impl Origin {
    /// Sends one message, the body of `outgoing`, and waits for all of the answer.
    pub async fn call(
        self: &Arc<Self>,
        outgoing: Outgoing<'_>,
        connect_limit: Duration,
    ) -> Result<Called, Fault> {
        let mut line = self.http2_line(connect_limit).await?;
        let request = self.head(outgoing)?.map(|()| Outbox::new(outgoing.body));
        line.sender.ready().await.map_err(closed)?;
        let response = line.sender.send_request(request).await.map_err(closed)?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await;
        let body = body.map_err(|error| Fault::Malformed(error.to_string()))?;
        // A server that fails at once says so in the head, and sends no trailers.
        let trailers = body.trailers().cloned().unwrap_or_default();
        let told = |name: &str| {
            let value = trailers.get(name).or_else(|| head.headers.get(name))?;
            value.to_str().ok().map(str::to_owned)
        };
        let unknown = 2;
        let code = told("grpc-status").and_then(|code| code.parse().ok()).unwrap_or(unknown);
        let message = told("grpc-message").unwrap_or_default();
        let answer = body.to_bytes();
        let answer = answer.slice(PREFIX.min(answer.len())..);
        Ok(Called { status: head.status.as_u16(), code, message, answer })
    }

    /// A connection that speaks HTTP/2 without having been asked whether it does.
    async fn http2_line(self: &Arc<Self>, limit: Duration) -> Result<Multiplexed, Fault> {
        if let Some(open) = self.shard().free() {
            return Ok(open);
        }
        let connected = tokio::time::timeout(limit, self.connector.connect())
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .map_err(Fault::Connect)?;
        match connected {
            Connected::Http2(stream) | Connected::Http1(stream) => self.open_http2(stream).await,
        }
    }
}
