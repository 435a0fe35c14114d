//! The operators' door: keys, teams and users, the ledger, metrics, health, and the state of config
//! and targets. What it can do stands in `table`.

mod audit;
mod config;
mod directory;
mod export;
mod guard;
mod ledger;
mod openapi;
mod operate;
mod query;
mod table;
mod targets;
mod trial;

use std::convert::Infallible;
use std::fmt::Display;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use http::header::ALLOW;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use serde_json::{Map, Value};
use tower_service::Service;

pub(super) use self::ledger::models;
use self::query::Query;
use self::table::{Handler, Makes, Misfit, Operation, find};
use super::body::object;
use crate::config::Secret;
use crate::error::{Error, Kind};
use crate::gateway::directory::Actor;
use crate::gateway::{Body, Gateway, Reloader};
use crate::net::listen::MakeService;
use crate::net::patience::Pulse;
use crate::net::shed::BoxFuture;
use crate::net::workers::Workers;

/// Bytes of a body. What operators send is small.
const LARGEST: usize = 1 << 20;
/// Bytes of an `Idempotency-Key`.
const LONGEST_KEY: usize = 255;

/// The admin API, for every connection.
#[derive(Debug, Clone)]
pub struct AdminApi {
    pub gateway: Arc<Gateway>,
    pub reloader: Arc<Reloader>,
    /// Those that calls run on.
    pub workers: Arc<Workers>,
    pub key: Secret,
    pub observed: Observed,
}

/// Numbers that others keep and the metrics show.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    pub connections: Arc<AtomicUsize>,
    pub turned_away: Arc<AtomicUsize>,
}

/// What one who may is asking of an operation.
struct Asked {
    by: Actor,
    /// What the path names.
    id: String,
    query: Query,
    idempotency: Option<String>,
    body: Map<String, Value>,
}

type Answer = Result<Response<Body>, Error>;

impl MakeService<Body> for AdminApi {
    type Service = AdminConnection;

    fn make(&self, pulse: Pulse) -> AdminConnection {
        AdminConnection { api: self.clone(), pulse }
    }
}

/// The admin API on one connection.
#[derive(Debug, Clone)]
pub struct AdminConnection {
    api: AdminApi,
    pulse: Pulse,
}

impl Service<Request<Incoming>> for AdminConnection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let busy = self.pulse.busy();
        let api = self.api.clone();
        Box::pin(async move { Ok(api.answer(request, busy.peer()).await) })
    }
}

impl AdminApi {
    async fn answer(self, request: Request<Incoming>, from: Option<IpAddr>) -> Response<Body> {
        let found = find(request.method(), request.uri().path());
        if let Ok((Operation { handler: Handler::Open(handler), .. }, _)) = &found {
            return handler(&self, request.headers());
        }
        // Nobody learns what there is without being let in.
        let by = match self.admit(request.headers(), from).await {
            Ok(by) => by,
            Err(error) => return refuse(&error),
        };
        match found {
            Ok((operation, id)) => {
                let answer = self.perform(operation, id, by, request).await;
                answer.unwrap_or_else(|error| refuse(&error))
            }
            Err(misfit) => refuse_path(&request, misfit),
        }
    }

    async fn perform(
        self,
        operation: &'static Operation,
        id: String,
        by: Actor,
        request: Request<Incoming>,
    ) -> Answer {
        let Handler::Guarded(right, handler) = operation.handler else {
            return Err(Error::new(Kind::Internal, "This is open to all."));
        };
        right.demand(&by)?;
        let (head, body) = request.into_parts();
        let query = Query::read(head.uri.query().unwrap_or_default(), operation.query)?;
        let idempotency = match operation.makes {
            Makes::Entry | Makes::Sum => idempotency(&head.headers)?,
            Makes::Nothing => None,
        };
        let lease = self.gateway.bodies.lease();
        let body = match operation.takes {
            Some(_) => object(body, LARGEST, &lease).await?,
            None => Map::new(),
        };
        handler(self, Asked { by, id, query, idempotency, body }).await
    }
}

fn idempotency(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=LONGEST_KEY).contains(&key.len()));
    let message = format!("`Idempotency-Key` is 1 to {LONGEST_KEY} characters of ASCII.");
    key.map(|key| Some(key.to_owned())).ok_or_else(|| Error::invalid(message))
}

fn refuse_path(request: &Request<Incoming>, misfit: Misfit) -> Response<Body> {
    let Misfit::Method(allowed) = misfit else {
        return refuse(&Error::new(Kind::NotFound, "There is nothing at this path."));
    };
    let (method, path) = (request.method(), request.uri().path());
    let message = format!("{path} takes {allowed}, not {method}.");
    let mut response = refuse(&Error::new(Kind::MethodNotAllowed, message));
    if let Ok(allowed) = HeaderValue::from_str(&allowed) {
        response.headers_mut().insert(ALLOW, allowed);
    }
    response
}

/// What is not there has a code of its own here.
fn refuse(error: &Error) -> Response<Body> {
    if error.kind == Kind::NotFound {
        return super::refuse(&Error { kind: Kind::Missing, ..error.clone() });
    }
    super::refuse(error)
}

/// The same whether there is none or it is another's.
fn missing(what: &str, name: impl Display) -> Error {
    Error::new(Kind::NotFound, format!("There is no {what} `{name}`."))
}

fn store_away() -> Error {
    Error::new(Kind::Overloaded, "The store cannot be asked at the moment.")
}
