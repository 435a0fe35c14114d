//! `/mcp`: our tools and agents, and what servers behind us have, for clients of the Model Context
//! Protocol.
//!
//! rmcp speaks the protocol, in both of its generations. Who is let in, and whose a session is, is
//! decided here, by the same keys as everywhere.

mod agents;
mod answer;
mod asking;
mod attend;
mod guest;
mod message;
mod names;
mod offer;
mod session;
mod shelf;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::{BodyDataStream, BodyExt};
use hyper::body::Incoming;
use rmcp::model::JsonRpcError;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

pub(super) use self::answer::block;
use self::guest::{Given, Guest, Held, Whole, spoken};
use self::message::{Asks, Posted, invalid};
use self::offer::{Offer, Visit};
use super::{body, refuse};
use crate::config;
use crate::error::{Error, Kind};
use crate::gateway::{Body, Gateway};
use crate::net::patience::Busy;
use crate::net::shed::Permit;

const SESSION: &str = "mcp-session-id";
/// Sessions of all clients at the same time.
const MOST_SESSIONS: usize = 10_000;
/// And of one key.
const MOST_OF_ONE: usize = 1_000;

/// What outlives a request.
#[derive(Debug, Default)]
pub(super) struct Door {
    sessions: Arc<LocalSessionManager>,
    known: Mutex<HashMap<String, Known>>,
}

/// A session.
#[derive(Debug)]
struct Known {
    /// Whose it is.
    owner: Arc<str>,
    /// Whether several messages may come at once: its version is the one that has that.
    batches: bool,
}

// === impl Door ===

impl Door {
    pub(super) async fn answer(
        &self,
        gateway: &Arc<Gateway>,
        request: Request<Incoming>,
        place: Option<Permit>,
        busy: Busy,
    ) -> Response<Body> {
        let house = gateway.house(request.headers());
        let admitted = gateway.admit(&house, request.headers(), busy.peer()).await;
        let caller = match admitted {
            Ok(caller) => caller,
            Err(error) => return refuse(&error),
        };
        if let Err(error) = self.may_pass(&request, caller.owner()).await {
            return refuse(&error);
        }
        let (mut head, body) = request.into_parts();
        // HTTP/2 has it in the address.
        let host = head.uri.authority().and_then(|it| it.as_str().parse().ok());
        if let (false, Some(host)) = (head.headers.contains_key(HOST), host) {
            head.headers.insert(HOST, host);
        }
        let settings = settings(&house.config);
        head.extensions.insert(Visit { caller: caller.clone(), house: Arc::clone(&house) });
        let handler = Arc::clone(gateway);
        let of = caller.clone();
        let offer = move || {
            let (gateway, state) = (Arc::clone(&handler), Arc::default());
            Ok(Offer { gateway, caller: of.clone(), state })
        };
        let service = StreamableHttpService::new(offer, Arc::clone(&self.sessions), settings);
        let has_place = place.is_some();
        let guest = Guest { gateway, caller, house, service, head, has_place };
        let is_post = guest.head.method == Method::POST;
        // A stream that only waits for news is over when no new work is wanted.
        let end = if is_post { gateway.ending() } else { gateway.draining() };
        let answered = if is_post {
            Box::pin(self.posted(&guest, body, place)).await
        } else {
            Ok(((self.opened(&guest).await, Held::new()), None))
        };
        match answered {
            Ok((given, place)) => told(given, end, (busy, place)).await,
            Err(refused) => refused,
        }
    }

    /// The answer to what has no body: a stream of news, or the end of a session.
    async fn opened(&self, guest: &Guest<'_>) -> Whole {
        let mut response = guest.hand(Bytes::new()).await;
        if guest.head.method == Method::DELETE && response.status().is_success() {
            // Clients take another success for a failure.
            *response.status_mut() = StatusCode::NO_CONTENT;
            if let Some(session) = session_of(&guest.head.headers) {
                self.known().remove(session);
            }
        }
        response
    }

    /// The answer to what was posted, what is under way with it, and its place among the calls in
    /// flight.
    async fn posted(
        &self,
        guest: &Guest<'_>,
        body: Incoming,
        place: Option<Permit>,
    ) -> Result<(Given, Option<Permit>), Response<Body>> {
        let most = guest.house.config.server.max_body;
        let lease = guest.gateway.bodies.lease();
        let bytes = body::whole(body, most, &lease).await.map_err(|error| refuse(&error))?;
        if !guest.sends_json() {
            return Ok(((guest.hand(bytes).await, Held::new()), None));
        }
        let said = |fault| spoken(&(JsonRpcError::new(None, fault), None));
        match Posted::read(bytes).map_err(said)? {
            Posted::One(message) => {
                let batches = message.asks.as_ref().is_some_and(Asks::wants_batches);
                let listens = message.asks.as_ref().is_some_and(Asks::listens);
                let given = guest.give(message).await.map_err(|refusal| spoken(&refusal))?;
                if let Some(session) = session_of(given.0.headers()) {
                    let owner = Arc::clone(guest.caller.owner());
                    self.remember(session, Known { owner, batches }).await;
                }
                Ok((given, place.filter(|_| !listens)))
            }
            Posted::Several(messages) => {
                let session = session_of(&guest.head.headers);
                if !session.is_some_and(|it| self.known().get(it).is_some_and(|it| it.batches)) {
                    return Err(said(invalid("Messages are sent one by one in this version.")));
                }
                Ok((guest.give_all(messages).await, place))
            }
        }
    }

    /// Whether a session is this caller's, and there is room for another.
    async fn may_pass(&self, request: &Request<Incoming>, owner: &Arc<str>) -> Result<(), Error> {
        if let Some(session) = session_of(request.headers()) {
            return match self.known().get(session) {
                Some(known) if known.owner == *owner => Ok(()),
                _ => Err(Error::new(Kind::NotFound, "There is no such session.")),
            };
        }
        let sessions = self.sessions.sessions.read().await;
        if sessions.len() >= MOST_SESSIONS {
            return Err(Error::new(Kind::Overloaded, "There are too many sessions."));
        }
        let known = self.known();
        let own = known
            .iter()
            .filter(|(id, it)| it.owner == *owner && sessions.contains_key(id.as_str()));
        if own.count() >= MOST_OF_ONE {
            let message = "This key has too many sessions: end some (`DELETE /mcp`).";
            return Err(Error::new(Kind::Overloaded, message));
        }
        Ok(())
    }

    async fn remember(&self, session: &str, it: Known) {
        let sessions = self.sessions.sessions.read().await;
        let mut known = self.known();
        if known.len() >= MOST_SESSIONS {
            known.retain(|id, _| sessions.contains_key(id.as_str()));
        }
        known.insert(session.to_owned(), it);
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn session_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(SESSION).and_then(|session| session.to_str().ok())
}

/// Pages of browsers come only from where the operator says; so none reaches a gateway that was
/// hidden from it by another name.
fn settings(config: &config::Config) -> StreamableHttpServerConfig {
    let mcp = &config.mcp;
    let settings = StreamableHttpServerConfig::default()
        .with_allowed_origins(&mcp.origins)
        .enforce_origin_validation()
        .with_json_response(true)
        .with_max_request_body_bytes(config.server.max_body);
    if mcp.hosts.is_empty() {
        return settings.disable_allowed_hosts();
    }
    settings.with_allowed_hosts(&mcp.hosts)
}

/// The answer as ours go out.
async fn told(
    (response, under_way): Given,
    mut end: tokio::sync::watch::Receiver<bool>,
    while_told: (Busy, Option<Permit>),
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if body.size_hint().exact().is_some() {
        let bytes = body.collect().await.map(http_body_util::Collected::to_bytes);
        let bytes = bytes.unwrap_or_default();
        if !bytes.is_empty() && !head.headers.contains_key(CONTENT_TYPE) {
            return refuse(&spelled(head.status, &bytes));
        }
        return Response::from_parts(head, Body::from(Vec::from(bytes)));
    }
    head.headers.remove(http::header::CONTENT_LENGTH);
    let over = async move {
        let _ = end.wait_for(|end| *end).await;
    };
    let pieces = BodyDataStream::new(body).map_err(|never| match never {});
    let pieces = pieces.take_until(Box::pin(over)).inspect(move |_| {
        // It is being answered until its last piece.
        let _ = (&while_told, &under_way);
    });
    Response::from_parts(head, Body::pulled(pieces))
}

/// What rmcp refuses in plain words, in the form of all our errors.
fn spelled(status: StatusCode, words: &Bytes) -> Error {
    let kind = match status {
        StatusCode::NOT_FOUND => Kind::NotFound,
        StatusCode::METHOD_NOT_ALLOWED => Kind::MethodNotAllowed,
        _ => Kind::InvalidRequest,
    };
    let mut error = Error::new(kind, String::from_utf8_lossy(words).into_owned());
    error.status = Some(status.as_u16());
    error
}
