//! `/mcp`: our tools and agents, and what servers behind us have, for clients of the Model Context
//! Protocol.
//!
//! rmcp speaks the protocol, in both of its generations. Who is let in, and whose a session is, is
//! decided here, by the same keys as everywhere.

mod agents;
mod answer;
mod asking;
mod attend;
mod names;
mod offer;
mod session;
mod shelf;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as _;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyDataStream, BodyExt};
use hyper::body::Incoming;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};

use self::offer::{Offer, Visit};
use super::refuse;
use crate::config;
use crate::error::{Error, Kind};
use crate::gateway::{Body, Gateway};
use crate::net::patience::Busy;

const SESSION: &str = "mcp-session-id";
/// Sessions of all clients at the same time.
const MOST_SESSIONS: usize = 10_000;
/// And of one key.
const MOST_OF_ONE: usize = 1_000;

/// What outlives a request.
#[derive(Debug, Default)]
pub(super) struct Door {
    sessions: Arc<LocalSessionManager>,
    /// Whose each session is.
    owners: Mutex<HashMap<String, Arc<str>>>,
}

// === impl Door ===

impl Door {
    pub(super) async fn answer(
        &self,
        gateway: &Arc<Gateway>,
        request: Request<Incoming>,
        busy: Busy,
    ) -> Response<Body> {
        let house = gateway.house(request.headers());
        let admitted = gateway.admit(&house, request.headers(), busy.peer()).await;
        let caller = match admitted {
            Ok(caller) => caller,
            Err(error) => return refuse(&error),
        };
        let owner = Arc::clone(caller.owner());
        if let Err(error) = self.may_pass(&request, &owner).await {
            return refuse(&error);
        }
        let mut request = request;
        // HTTP/2 has it in the address.
        let host = request.uri().authority().and_then(|it| it.as_str().parse().ok());
        if let (false, Some(host)) = (request.headers().contains_key(HOST), host) {
            request.headers_mut().insert(HOST, host);
        }
        let settings = settings(&house.config);
        let is_get = request.method() == Method::GET;
        request.extensions_mut().insert(Visit { caller: caller.clone(), house });
        let gateway = Arc::clone(gateway);
        let handler = gateway.clone();
        let offer = move || {
            let (gateway, state) = (Arc::clone(&handler), Arc::default());
            Ok(Offer { gateway, caller: caller.clone(), state })
        };
        let sessions = Arc::clone(&self.sessions);
        let service = StreamableHttpService::new(offer, sessions, settings);
        let response = Box::pin(service.handle(request)).await;
        if let Some(session) = session_of(response.headers()) {
            self.remember(session, owner).await;
        }
        // A stream that only waits for news is over when no new work is wanted.
        let end = if is_get { gateway.draining() } else { gateway.ending() };
        told(response, end, busy).await
    }

    /// Whether a session is this caller's, and there is room for another.
    async fn may_pass(&self, request: &Request<Incoming>, owner: &Arc<str>) -> Result<(), Error> {
        if let Some(session) = session_of(request.headers()) {
            let owners = self.owners();
            return match owners.get(session) {
                Some(whose) if whose == owner => Ok(()),
                _ => Err(Error::new(Kind::NotFound, "There is no such session.")),
            };
        }
        let sessions = self.sessions.sessions.read().await;
        if sessions.len() >= MOST_SESSIONS {
            return Err(Error::new(Kind::Overloaded, "There are too many sessions."));
        }
        let owners = self.owners();
        let own = owners
            .iter()
            .filter(|(id, whose)| *whose == owner && sessions.contains_key(id.as_str()));
        if own.count() >= MOST_OF_ONE {
            let message = "This key has too many sessions: end some (`DELETE /mcp`).";
            return Err(Error::new(Kind::Overloaded, message));
        }
        Ok(())
    }

    async fn remember(&self, session: &str, owner: Arc<str>) {
        let sessions = self.sessions.sessions.read().await;
        let mut owners = self.owners();
        if owners.len() >= MOST_SESSIONS {
            owners.retain(|id, _| sessions.contains_key(id.as_str()));
        }
        owners.insert(session.to_owned(), owner);
    }

    fn owners(&self) -> MutexGuard<'_, HashMap<String, Arc<str>>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
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
    response: Response<BoxBody<Bytes, Infallible>>,
    mut end: tokio::sync::watch::Receiver<bool>,
    busy: Busy,
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
        let _ = &busy;
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
