//! The doors: protocol work only. Decode, call one function below, encode.

mod admin;
mod agents;
mod body;
mod endpoint;
mod mcp;
mod models;
mod responses;

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use tower_layer::Layer;
use tower_service::Service;

pub use self::admin::{AdminApi, Observed};
use self::endpoint::{Endpoint, NotServed};
pub use self::endpoint::{PublicDoor, public_doors};
use crate::access::account::{BudgetStatus, Moment};
use crate::agent::Agents;
use crate::dialect::{ClientSide, chat};
use crate::error::{Error, Kind, retry_after_seconds};
use crate::gateway::{Arrival, Ask, Body, Gateway, shutting_down};
use crate::net::listen::MakeService;
use crate::net::patience::{Busy, Pulse};
use crate::net::shed::{BoxFuture, Permit, Shed, ShedLayer};

/// The public API, for every connection.
#[derive(Debug, Clone)]
pub struct Api {
    gateway: Arc<Gateway>,
    agents: Agents,
    mcp: Arc<mcp::Door>,
}

/// The public API on one connection.
#[derive(Debug, Clone)]
pub struct ApiConnection {
    gateway: Arc<Gateway>,
    agents: Agents,
    mcp: Arc<mcp::Door>,
    pulse: Pulse,
}

impl Api {
    pub fn new(gateway: Arc<Gateway>, agents: Agents) -> Self {
        Self { gateway, agents, mcp: Arc::default() }
    }
}

impl MakeService<Body> for Api {
    type Service = Shed<ApiConnection>;

    fn make(&self, pulse: Pulse) -> Self::Service {
        let Self { gateway, agents, mcp } = self.clone();
        ShedLayer(gateway.gauge.clone()).layer(ApiConnection { gateway, agents, mcp, pulse })
    }
}

impl Service<(Request<Incoming>, Option<Permit>)> for ApiConnection {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (request, permit): (Request<Incoming>, Option<Permit>)) -> Self::Future {
        let busy = self.pulse.busy();
        let (gateway, room) = (Arc::clone(&self.gateway), self.agents.clone());
        if request.uri().path() == endpoint::MCP {
            let mcp = Arc::clone(&self.mcp);
            return Box::pin(async move { Ok(mcp.answer(&gateway, request, permit, busy).await) });
        }
        // It holds pointers only and is made where it stays: a future of some kilobytes that is
        // made elsewhere is copied there, whatever of it is in use.
        let client = models::Shape::at(request.uri().path(), request.headers()).client();
        let is_shared = request.version() == Version::HTTP_2;
        let (asked, house) = (Box::new((request, permit, busy)), Arc::clone(&gateway));
        let place = Box::new_uninit();
        let answer = Box::write(place, async move { answer(&gateway, &room, *asked).await });
        let mut answer = Box::into_pin(answer);
        Box::pin(async move {
            if is_shared {
                // Of many calls on one connection, each has to be woken to see that it is to end.
                tokio::select! {
                    biased;
                    answer = &mut answer => return Ok(answer),
                    () = house.until_end() => return Ok(refuse_as(&shutting_down(), client)),
                }
            }
            let answered = poll_fn(|context| match answer.as_mut().poll(context) {
                Poll::Pending if house.has_ended() => {
                    Poll::Ready(refuse_as(&shutting_down(), client))
                }
                polled => polled,
            });
            Ok(answered.await)
        })
    }
}

async fn answer(
    gateway: &Arc<Gateway>,
    room: &Agents,
    (request, permit, busy): (Request<Incoming>, Option<Permit>, Busy),
) -> Response<Body> {
    if endpoint::wants_socket(&request) {
        return upgrade_required();
    }
    let mut ask = match endpoint::find(request.method(), request.uri()) {
        Ok(Endpoint::Infer(ask)) => ask,
        Ok(Endpoint::Explain) => match explained(request.uri()) {
            Ok(ask) => ask,
            Err(error) => return refuse(&error),
        },
        Ok(Endpoint::Response(kept, id)) => {
            return responses::answer(gateway, kept, &id, &request, busy).await;
        }
        Ok(Endpoint::Agents(operation, _)) if permit.is_none() && operation.makes_work() => {
            return refuse(&gateway.overloaded());
        }
        Ok(Endpoint::Agents(operation, id)) => {
            let request = (request, busy.peer());
            return Box::pin(agents::answer(gateway, room, operation, id, request)).await;
        }
        Ok(Endpoint::Usage) => return used(gateway, &request, busy.peer()).await,
        Ok(endpoint) => return look(gateway, &endpoint, (&request, busy.peer())).await,
        Err(not_served) => {
            let client = models::Shape::at(request.uri().path(), request.headers());
            return refuse_path(not_served, client.client());
        }
    };
    let (head, body) = request.into_parts();
    if let Some(filed) = &mut ask.filed {
        filed.query = endpoint::parameters(head.uri.query().unwrap_or_default());
    }
    let arrival = Arrival { ask, headers: head.headers, body, permit, busy };
    gateway.answer(arrival).await
}

/// What is asked of the door for explanations.
fn explained(uri: &Uri) -> Result<Ask, Error> {
    let query = endpoint::parameters(uri.query().unwrap_or_default());
    let surface = query.iter().find(|(name, _)| name == "surface");
    Ask::explained(surface.map(|(_, surface)| surface.as_str()))
}

/// The endpoints that only look.
async fn look(
    gateway: &Gateway,
    endpoint: &Endpoint,
    request: (&Request<Incoming>, Option<IpAddr>),
) -> Response<Body> {
    let headers = request.0.headers();
    match endpoint {
        Endpoint::Models => {
            list(gateway, request, (models::Shape::at_openai_path(headers), None)).await
        }
        Endpoint::Model(id) => {
            list(gateway, request, (models::Shape::at_openai_path(headers), Some(id))).await
        }
        Endpoint::GoogleModels => list(gateway, request, (models::Shape::Google, None)).await,
        Endpoint::GoogleModel(id) => {
            list(gateway, request, (models::Shape::Google, Some(id))).await
        }
        Endpoint::Ready => ready(gateway),
        Endpoint::Usage
        | Endpoint::Health
        | Endpoint::Infer(_)
        | Endpoint::Explain
        | Endpoint::Agents(..)
        | Endpoint::Response(..) => json(StatusCode::OK, &serde_json::json!({"status": "ok"})),
    }
}

async fn list(
    gateway: &Gateway,
    (request, from): (&Request<Incoming>, Option<IpAddr>),
    what: (models::Shape, Option<&str>),
) -> Response<Body> {
    let house = gateway.house(request.headers());
    match gateway
        .admit(&house, request.headers(), from)
        .await
        .and_then(|caller| models::answer(&house, &caller, what))
    {
        Ok(body) => json(StatusCode::OK, &body),
        Err(error) => refuse_as(&error, what.0.client()),
    }
}

/// What is used and left of the budgets that bind this key, and what each model has used of it.
async fn used(
    gateway: &Gateway,
    request: &Request<Incoming>,
    from: Option<IpAddr>,
) -> Response<Body> {
    let caller =
        match gateway.admit(&gateway.house(request.headers()), request.headers(), from).await {
            Ok(caller) => caller,
            Err(error) => return refuse(&error),
        };
    gateway.refresh(&caller.tab().accounts).await;
    let now = Moment::now();
    let accounts = caller.tab().accounts.iter();
    let budgets: Vec<BudgetStatus> = accounts.flat_map(|account| account.status(now)).collect();
    // What each model has used stands in no account, and budgets are told without it, too.
    let (models, is_whole) = admin::models(gateway.store(), &caller).await;
    let key = &**caller.key();
    let mut told = serde_json::json!({"key": key, "budgets": budgets, "models": models});
    if !is_whole {
        told["degraded"] = serde_json::json!(true);
    }
    json(StatusCode::OK, &told)
}

/// Whether new calls are wanted here. Looks at nothing outside of the process.
fn ready(gateway: &Gateway) -> Response<Body> {
    let generation = gateway.snapshot().generation;
    let (status, word) = if gateway.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining")
    } else {
        (StatusCode::OK, "ready")
    };
    // Calls are served without the store, so it takes no replica out of the rotation.
    let store = if gateway.store().is_up() { "up" } else { "down" };
    json(status, &serde_json::json!({"status": word, "generation": generation, "store": store}))
}

fn refuse_path(not_served: NotServed, client: &dyn ClientSide) -> Response<Body> {
    match not_served {
        NotServed::Path(message) => refuse_as(&Error::new(Kind::NotFound, message), client),
        NotServed::Method { message, allowed } => {
            let mut response = refuse_as(&Error::new(Kind::MethodNotAllowed, message), client);
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            response
        }
    }
}

/// Clients that try a socket first go on without one at once.
fn upgrade_required() -> Response<Body> {
    let message = "There are no WebSockets here; send the request by POST, with `stream: true`.";
    let mut error = Error::new(Kind::Unsupported, message);
    error.status = Some(StatusCode::UPGRADE_REQUIRED.as_u16());
    let mut response = refuse(&error);
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static("HTTP/1.1"));
    response
}

fn refuse(error: &Error) -> Response<Body> {
    refuse_as(error, &chat::CODEC)
}

/// The error in the words of whoever asks.
fn refuse_as(error: &Error, client: &dyn ClientSide) -> Response<Body> {
    refuse_with(error, client.write_error(error))
}

/// The same in words that are at hand.
fn refuse_with(error: &Error, words: Vec<u8>) -> Response<Body> {
    let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let mut response = body(status, "application/json", words);
    let code = HeaderValue::from_static(error.kind.code());
    response.headers_mut().insert("x-switchpoint-error", code);
    if let Some(wait) = error.retry_after {
        let seconds = HeaderValue::from(retry_after_seconds(wait));
        response.headers_mut().insert(RETRY_AFTER, seconds);
    }
    response
}

fn json(status: StatusCode, value: &serde_json::Value) -> Response<Body> {
    body(status, "application/json", value.to_string().into_bytes())
}

fn body(status: StatusCode, content_type: &'static str, bytes: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
