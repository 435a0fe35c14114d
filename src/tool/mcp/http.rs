//! MCP over HTTP: what rmcp wants to say goes out by our own client, so that addresses, proxies,
//! certificates and limits are those of every other tool.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt;
use futures_util::stream::unfold;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use rmcp::model::{
    ClientJsonRpcMessage, ClientNotification, ClientRequest, ErrorData, RequestId,
    ServerJsonRpcMessage,
};
use rmcp::transport::common::http_header::{HEADER_LAST_EVENT_ID, HEADER_SESSION_ID};
use rmcp::transport::streamable_http_client::{
    AuthRequiredError, HttpStatusError, SseError, StreamableHttpClient, StreamableHttpError,
    StreamableHttpPostResponse,
};
use sse_stream::Sse;
use tokio::time::Instant;

use super::answer::{as_value, too_long};
use super::ear::Calls;
use crate::canon::Effect;
use crate::config::Web;
use crate::dialect::splice::Payload;
use crate::dialect::sse::{Decoder, Frame};
use crate::net::client::{BodyError, Fault, Origin, Outgoing, Reach, Reply, ReplyBody};
use crate::tool::Failure;
use crate::tool::credential::{Papers, Worn};
use crate::tool::egress::place;
use crate::tool::kept::Net;

const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream";
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
/// What is read of an answer that says no.
const LONGEST_REFUSAL: usize = 64 * 1024;

/// The way to one server, for one session. Copies share it.
#[derive(Clone)]
pub(super) struct Wire {
    way: Arc<Way>,
    /// Sessions that were begun.
    sessions: Arc<AtomicUsize>,
    calls: Arc<Calls>,
    renewed: Arc<dyn Fn() + Send + Sync>,
    session: Arc<SessionName>,
}

/// What a server calls the session that is open, if it has given it a name.
#[derive(Debug, Default)]
pub(super) struct SessionName(Mutex<Option<Arc<str>>>);

pub(super) struct Way {
    origin: Arc<Origin>,
    /// Path and query of its endpoint.
    path: String,
    papers: Papers,
    connect: Duration,
    /// Bytes of one message.
    longest: usize,
}

/// What goes out, and what it does there.
#[derive(Clone)]
struct Said<'a> {
    method: &'a str,
    body: Bytes,
    effect: Effect,
}

/// Why nothing came back.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    /// Not one byte has left.
    #[error("{0}")]
    Unsent(String),
    /// Its address must not be reached.
    #[error("{0}")]
    Forbidden(String),
    /// We could not be shown to be who we are.
    #[error("{0}")]
    Unknown(String),
    #[error("{0}")]
    Broken(String),
}

type Fails = StreamableHttpError<Lost>;
type Events = std::pin::Pin<Box<dyn Stream<Item = Result<Sse, SseError>> + Send>>;
type Fields = HashMap<HeaderName, HeaderValue>;

// === impl Way ===

impl Way {
    pub(super) fn new(
        net: &Net,
        url: &str,
        web: &Web,
        connect: Duration,
        longest: usize,
    ) -> Result<Self, String> {
        let reach = if web.allow_private { Reach::Inner } else { Reach::Public };
        let (place, _) = place(url, web)?;
        let path = url.parse::<Uri>().ok().and_then(|url| url.path_and_query().cloned());
        let path = path.map_or_else(|| "/".to_owned(), |path| path.to_string());
        let origin = net.client.origin_within(&place, reach);
        let origin = origin.map_err(|error| format!("ca: {error}"))?;
        let papers = Papers::new(web, HeaderMap::new(), net, reach)?;
        Ok(Self { origin, path, papers, connect, longest })
    }

    /// What the server says, without what it was shown.
    fn without_secrets(&self, said: impl Into<Bytes>) -> Bytes {
        self.papers.without_secrets(said)
    }

    fn clean(&self, event: Sse) -> Sse {
        let data = event.data.map(|data| self.without_secrets(data));
        let data = data.map(|data| String::from_utf8_lossy(&data).into_owned());
        Sse { data, ..event }
    }
}

// === impl Said ===

impl<'a> Said<'a> {
    fn nothing(method: &'a str) -> Self {
        Self { method, body: Bytes::new(), effect: Effect::Read }
    }
}

// === impl SessionName ===

impl SessionName {
    fn set(&self, name: Option<&Arc<str>>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = name.cloned();
    }

    pub(super) fn get(&self) -> Option<String> {
        let name = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        name.as_deref().map(str::to_owned)
    }
}

// === impl Wire ===

impl Wire {
    /// `renewed` is called when rmcp has begun another session in place of one that was lost.
    pub(super) fn new(
        way: &Arc<Way>,
        calls: &Arc<Calls>,
        renewed: Arc<dyn Fn() + Send + Sync>,
    ) -> Self {
        let (way, calls) = (Arc::clone(way), Arc::clone(calls));
        Self { way, sessions: Arc::default(), calls, renewed, session: Arc::default() }
    }

    pub(super) fn session(&self) -> &Arc<SessionName> {
        &self.session
    }

    async fn send(
        &self,
        said: Said<'_>,
        mut extra: Vec<(HeaderName, HeaderValue)>,
        fields: Fields,
    ) -> Result<Reply, Fails> {
        extra.extend(fields);
        let began = Instant::now();
        let (reply, worn) = self.send_once(said.clone(), extra.clone()).await?;
        // It was read no further, so it may be said again.
        if reply.status != 401 || !self.way.papers.renew(&worn, began).await {
            return Ok(reply);
        }
        drop(reply);
        Ok(self.send_once(said, extra).await?.0)
    }

    async fn send_once(
        &self,
        said: Said<'_>,
        mut extra: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<(Reply, Arc<Worn>), Fails> {
        let papers = &self.way.papers;
        let (worn, token) = (papers.worn().await, papers.token().await);
        let unknown = |failure: Failure| Lost::Unknown(failure.message);
        extra.extend(token.map_err(|it| StreamableHttpError::Client(unknown(it)))?);
        let json = HeaderValue::from_static(JSON);
        let has_body = !said.body.is_empty();
        let payload = Payload::from(said.body);
        let outgoing = Outgoing {
            method: said.method,
            path: &self.way.path,
            headers: &worn.headers,
            extra: &extra,
            content_type: has_body.then_some(&json),
            body: &payload,
            rest: None,
            left: None,
        };
        let sent = match said.effect {
            Effect::Once => self.way.origin.send_anew(outgoing, self.way.connect).await,
            Effect::Read | Effect::Idempotent => {
                self.way.origin.send(outgoing, self.way.connect).await
            }
        };
        Ok((sent.map_err(lost)?, worn))
    }

    async fn ask(
        &self,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        fields: Fields,
    ) -> Result<StreamableHttpPostResponse, Fails> {
        if begins(&message) && self.sessions.fetch_add(1, Ordering::Relaxed) > 0 {
            (self.renewed)();
        }
        self.session.set(session.as_ref());
        let body = Bytes::from(serde_json::to_vec(&message)?);
        let mut extra = vec![(ACCEPT, BOTH)];
        extra.extend(session.as_deref().and_then(session_header));
        let said = Said { method: "POST", body, effect: effect(&message) };
        let mut reply = self.send(said, extra, fields).await?;
        match reply.status {
            202 | 204 => return Ok(StreamableHttpPostResponse::Accepted),
            404 if session.is_some() => return Err(StreamableHttpError::SessionExpired),
            200..=299 => {}
            _ => return self.refused(reply, &message, session.is_some()).await,
        }
        let session = header(&reply.headers, HEADER_SESSION_ID).map(str::to_owned);
        if is(&reply.headers, EVENTS) {
            let about = match &message {
                ClientJsonRpcMessage::Request(request) => Some(request.id.clone()),
                _ => None,
            };
            let events = self.events(reply.body, about);
            return Ok(StreamableHttpPostResponse::Sse(events, session));
        }
        let body = self.read(&mut reply.body, self.way.longest).await?;
        match serde_json::from_slice(&body) {
            Ok(answer) => Ok(StreamableHttpPostResponse::Json(answer, session)),
            // Nobody waits for an answer to it.
            Err(_) if !matches!(message, ClientJsonRpcMessage::Request(_)) => {
                Ok(StreamableHttpPostResponse::Accepted)
            }
            Err(_) if !is(&reply.headers, JSON) => {
                let kind = header(&reply.headers, CONTENT_TYPE.as_str()).map(str::to_owned);
                Err(StreamableHttpError::UnexpectedContentType(kind))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// What a status that says no means to rmcp.
    async fn refused(
        &self,
        mut reply: Reply,
        message: &ClientJsonRpcMessage,
        has_session: bool,
    ) -> Result<StreamableHttpPostResponse, Fails> {
        let challenged = unauthorized(&reply);
        if let Some(error) = challenged {
            return Err(error);
        }
        let wait = header(&reply.headers, RETRY_AFTER.as_str()).map(str::to_owned);
        let status = HttpStatusError::new(reply.status, wait);
        let body = self.read(&mut reply.body, LONGEST_REFUSAL).await.unwrap_or_default();
        let said = match serde_json::from_slice(&body) {
            Ok(ServerJsonRpcMessage::Error(error)) if reply.status != 429 => Some(error),
            _ => None,
        };
        // Many have lost it when they say so, though the standard wants 404 for that.
        if let Some(said) = &said
            && has_session
            && reply.status == 400
            && said.error.message.to_lowercase().contains("session")
        {
            return Err(StreamableHttpError::SessionExpired);
        }
        // A server of the older protocol knows nothing of discovery, and each says so otherwise;
        // some cannot tell to which request.
        if let ClientJsonRpcMessage::Request(request) = message
            && matches!(request.request, ClientRequest::DiscoverRequest(_))
            && !has_session
            && (400..500).contains(&reply.status)
        {
            let error = said.map_or_else(
                || ErrorData::invalid_request(format!("HTTP {}", reply.status), None),
                |said| said.error,
            );
            let answer = ServerJsonRpcMessage::error(error, Some(request.id.clone()));
            return Ok(StreamableHttpPostResponse::Json(answer, None));
        }
        match said {
            Some(error) if !matches!(reply.status, 401 | 403) => {
                Ok(StreamableHttpPostResponse::Json(ServerJsonRpcMessage::Error(error), None))
            }
            _ => Err(status.into()),
        }
    }

    async fn open(
        &self,
        session: Option<Arc<str>>,
        last: Option<String>,
        fields: Fields,
    ) -> Result<Events, Fails> {
        let mut extra = vec![(ACCEPT, HeaderValue::from_static(EVENTS))];
        extra.extend(session.as_deref().and_then(session_header));
        if let Some(last) = last.and_then(|last| HeaderValue::from_str(&last).ok()) {
            extra.push((name(HEADER_LAST_EVENT_ID), last));
        }
        let reply = self.send(Said::nothing("GET"), extra, fields).await?;
        match reply.status {
            405 => return Err(StreamableHttpError::ServerDoesNotSupportSse),
            200..=299 => {}
            status => {
                let wait = header(&reply.headers, RETRY_AFTER.as_str()).map(str::to_owned);
                let refused = unauthorized(&reply);
                return Err(refused.unwrap_or_else(|| HttpStatusError::new(status, wait).into()));
            }
        }
        if is(&reply.headers, EVENTS) {
            Ok(self.events(reply.body, None))
        } else {
            Err(StreamableHttpError::UnexpectedContentType(None))
        }
    }

    /// What a stream says, each progress and line of a log heard as it comes.
    fn events(&self, body: ReplyBody, about: Option<RequestId>) -> Events {
        let whose = about.clone();
        let (calls, about) = (Arc::clone(&self.calls), Arc::new(about));
        let (way, events) = (Arc::clone(&self.way), events(body, whose, self.way.longest));
        Box::pin(events.then(move |event| {
            let (calls, about) = (Arc::clone(&calls), Arc::clone(&about));
            let event = event.map(|event| way.clean(event));
            async move {
                calls.overhear(Option::as_ref(&about), event.as_ref().ok()).await;
                event
            }
        }))
    }

    /// A whole body, which must not be longer than `most`, without what the server was shown.
    async fn read(&self, body: &mut ReplyBody, most: usize) -> Result<Bytes, Fails> {
        let mut into = BytesMut::new();
        while next(body, &mut into).await.map_err(broken)? {
            if into.len() > most {
                return Err(StreamableHttpError::ResponseBodyTooLarge { max_size: most });
            }
        }
        Ok(self.way.without_secrets(into))
    }
}

impl std::fmt::Debug for Way {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Way({})", self.origin.authority())
    }
}

impl StreamableHttpClient for Wire {
    type Error = Lost;

    async fn post_message(
        &self,
        _uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session_id: Option<Arc<str>>,
        _auth_header: Option<String>,
        custom_headers: Fields,
    ) -> Result<StreamableHttpPostResponse, Fails> {
        self.ask(message, session_id, custom_headers).await
    }

    async fn delete_session(
        &self,
        _uri: Arc<str>,
        session_id: Arc<str>,
        _auth_header: Option<String>,
        custom_headers: Fields,
    ) -> Result<(), Fails> {
        let session = session_header(&session_id).into_iter().collect();
        self.send(Said::nothing("DELETE"), session, custom_headers).await.map(drop)
    }

    async fn get_stream(
        &self,
        _uri: Arc<str>,
        session_id: Option<Arc<str>>,
        last_event_id: Option<String>,
        _auth_header: Option<String>,
        custom_headers: Fields,
    ) -> Result<Events, Fails> {
        self.open(session_id, last_event_id, custom_headers).await
    }
}

/// What a message does where it arrives: only calls of tools change anything.
fn effect(message: &ClientJsonRpcMessage) -> Effect {
    let ClientJsonRpcMessage::Request(message) = message else { return Effect::Read };
    match &message.request {
        ClientRequest::CallToolRequest(call) => {
            call.extensions.get().copied().unwrap_or(Effect::Once)
        }
        _ => Effect::Read,
    }
}

/// Whether it is the last word of what begins a session.
fn begins(message: &ClientJsonRpcMessage) -> bool {
    let ClientJsonRpcMessage::Notification(message) = message else { return false };
    matches!(message.notification, ClientNotification::InitializedNotification(_))
}

fn name(text: &'static str) -> HeaderName {
    HeaderName::from_bytes(text.as_bytes()).unwrap_or(ACCEPT)
}

fn session_header(session: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((name(HEADER_SESSION_ID), HeaderValue::from_str(session).ok()?))
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is(headers: &HeaderMap, kind: &str) -> bool {
    header(headers, CONTENT_TYPE.as_str()).is_some_and(|it| it.starts_with(kind))
}

/// What it says of credentials is theirs: none of it is for a model.
fn unauthorized(reply: &Reply) -> Option<Fails> {
    let challenge = header(&reply.headers, WWW_AUTHENTICATE.as_str())?;
    (reply.status == 401)
        .then(|| StreamableHttpError::AuthRequired(AuthRequiredError::new(challenge.to_owned())))
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
fn lost(fault: Fault) -> Fails {
    let said = fault.to_string();
    StreamableHttpError::Client(match fault {
        Fault::Connect(_) if fault.forbidden().is_some() => Lost::Forbidden(said),
        Fault::Connect(_) => Lost::Unsent(said),
        Fault::Closed { .. } | Fault::Upload(_) | Fault::Malformed(_) => Lost::Broken(said),
    })
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
fn broken(error: BodyError) -> Fails {
    StreamableHttpError::Client(Lost::Broken(error.to_string()))
}

async fn next(body: &mut ReplyBody, into: &mut BytesMut) -> Result<bool, BodyError> {
    poll_fn(|context| body.poll_data(context, into)).await
}

/// The events of a stream, none of them longer than `longest`: what is, in a stream about one request,
/// is no answer to it.
fn events(
    body: ReplyBody,
    about: Option<RequestId>,
    longest: usize,
) -> impl Stream<Item = Result<Sse, SseError>> + Send + 'static {
    unfold(Some((body, Decoder::default(), about)), move |state| async move {
        let (mut body, mut decoder, about) = state?;
        loop {
            if let Some(frame) = decoder.next_frame() {
                let event = event(&decoder, &frame);
                decoder.discard(frame.range.end);
                decoder.rest();
                return Some((event, Some((body, decoder, about))));
            }
            if decoder.held() > longest {
                let error = format!("one event is longer than {longest} bytes");
                let event = match about.map(|about| as_value(&too_long(about)).to_string()) {
                    Some(data) => Ok(Sse { data: Some(data), ..Sse::default() }),
                    None => Err(SseError::Body(error.into())),
                };
                return Some((event, None));
            }
            match next(&mut body, decoder.buffer()).await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some((Err(SseError::Body(Box::new(error))), None)),
            }
        }
    })
}

fn event(decoder: &Decoder, frame: &Frame) -> Result<Sse, SseError> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|it| it.utf8_error());
    let mut event = Sse::default();
    if let Some(data) = decoder.data(frame) {
        event.data = Some(text(&data).map_err(SseError::Utf8Parse)?);
    }
    if let Some(name) = decoder.event(frame) {
        event.event = Some(text(name).map_err(SseError::Utf8Parse)?);
    }
    let lines = decoder.bytes(frame.range.clone()).split(|byte| matches!(byte, b'\n' | b'\r'));
    for line in lines {
        let value = |name: &[u8]| line.strip_prefix(name).map(<[u8]>::trim_ascii);
        if let Some(id) = value(b"id:") {
            event.id = Some(text(id).map_err(SseError::Utf8Parse)?);
        } else if let Some(retry) = value(b"retry:") {
            event.retry = text(retry).ok().and_then(|retry| retry.parse().ok());
        }
    }
    Ok(event)
}
