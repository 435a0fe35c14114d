//! A client with one request: what it has sent is counted, and handed to whoever speaks the protocol.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, select_all};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyDataStream, BodyExt, Full, StreamBody};
use rmcp::model::{ErrorCode, JsonRpcError};
use rmcp::transport::streamable_http_server::StreamableHttpService;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use serde_json::json;

use super::message::{Asks, Message};
use super::offer::Offer;
use super::shelf::kept;
use crate::access::Caller;
use crate::error::Error;
use crate::gateway::agents::Attendance;
use crate::gateway::{Body, Gateway, Snapshot};
use crate::http::{json, refuse_with};

/// What is under way with a request, until its last piece is out.
pub(super) type Held = Vec<Attendance>;
pub(super) type Whole = Response<BoxBody<Bytes, Infallible>>;
pub(super) type Given = (Whole, Held);
/// What is said in place of an answer, and which limit is the reason.
pub(super) type Refusal = (JsonRpcError, Option<Error>);

pub(super) struct Guest<'a> {
    pub(super) gateway: &'a Arc<Gateway>,
    pub(super) caller: Caller,
    pub(super) house: Arc<Snapshot>,
    pub(super) service: StreamableHttpService<Offer, LocalSessionManager>,
    pub(super) head: Parts,
    /// Whether it has one among the calls in flight.
    pub(super) has_place: bool,
}

// === impl Guest ===

impl Guest<'_> {
    pub(super) fn sends_json(&self) -> bool {
        let kind = self.head.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
        let essence = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
        essence.trim().eq_ignore_ascii_case("application/json")
    }

    /// Hands one message on.
    pub(super) async fn hand(&self, bytes: Bytes) -> Whole {
        let request = Request::from_parts(self.head.clone(), Full::new(bytes));
        Box::pin(self.service.handle(request)).await
    }

    /// The same, once it is known to be one, and there is room for it.
    pub(super) async fn give(&self, message: Message) -> Result<Given, Refusal> {
        let Message { bytes, asks, fault } = message;
        if let Some(fault) = fault {
            return Err((JsonRpcError::new(asks.map(|asks| asks.id), fault), None));
        }
        if let Some(asks) = asks.as_ref().filter(|asks| asks.makes_work() && !self.has_place) {
            let error = self.gateway.overloaded();
            return Err((JsonRpcError::new(Some(asks.id.clone()), kept(&error)), Some(error)));
        }
        let Some(asks) = asks.filter(Asks::counts) else {
            return Ok((self.hand(bytes).await, Held::new()));
        };
        let by = (&self.caller, Arc::clone(&self.house));
        let counted = self.gateway.attend(by, &format!("mcp/{}", asks.method)).await;
        let mut counted = counted.map_err(|error| {
            (JsonRpcError::new(Some(asks.id.clone()), kept(&error)), Some(error))
        })?;
        let response = self.hand(bytes).await;
        counted.note_answer(response.status().as_u16());
        // Who listens takes no place from others.
        let held = Some(counted).filter(|_| !asks.listens());
        Ok((response, held.into_iter().collect()))
    }

    /// All that came at once, one after the other; what they are answered comes on one stream.
    pub(super) async fn give_all(&self, messages: Vec<Message>) -> Given {
        let (mut held, mut streams) = (Held::new(), Vec::new());
        for message in messages {
            let (response, counted) = match self.give(message).await {
                Ok(given) => given,
                Err((said, _)) => {
                    streams.push(event(&json!(said).to_string()));
                    continue;
                }
            };
            held.extend(counted);
            let kind = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
            match kind {
                Some(b"text/event-stream") => streams.push(response.into_body()),
                Some(_) => {
                    let said = response.into_body().collect().await;
                    let said = said.map(http_body_util::Collected::to_bytes).unwrap_or_default();
                    streams.push(event(&String::from_utf8_lossy(&said)));
                }
                // As the others would be, too.
                None if !response.status().is_success() => return (response, held),
                None => {}
            }
        }
        (together(streams), held)
    }
}

/// Streams as one, event by event.
fn together(streams: Vec<BoxBody<Bytes, Infallible>>) -> Whole {
    if streams.is_empty() {
        let mut response = Response::new(Full::new(Bytes::new()).boxed());
        *response.status_mut() = StatusCode::ACCEPTED;
        return response;
    }
    // Each piece is a whole event.
    let events = select_all(streams.into_iter().map(BodyDataStream::new));
    let frames = events.map(|it| it.map(Frame::data));
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(frames)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(http::header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

fn event(said: &str) -> BoxBody<Bytes, Infallible> {
    let event = Ok(Frame::data(Bytes::from(format!("data: {said}\n\n"))));
    BodyExt::boxed(StreamBody::new(stream::iter([event])))
}

pub(super) fn spoken((said, limit): &Refusal) -> Response<Body> {
    if let Some(error) = limit {
        return refuse_with(error, json!(said).to_string().into_bytes());
    }
    // Who asks wrongly for something is told so by its answer.
    let is_answer = said.error.code == ErrorCode::INVALID_PARAMS;
    let status = if is_answer { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    json(status, &json!(said))
}
