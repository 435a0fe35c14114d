//! The operators' door: metrics, health, drills, and the state of config and targets.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;
use tower_service::Service;

use super::{body, endpoint, json, ready, refuse, targets};
use crate::canon::Surface;
use crate::config::Secret;
use crate::error::{Error, Kind};
use crate::gateway::{Body, Gateway, Reloader};
use crate::net::listen::MakeService;
use crate::net::patience::Pulse;
use crate::net::shed::BoxFuture;
use crate::net::workers::Workers;

/// Behind it stands the name of a route.
const DRILLS: &str = "/admin/drills/";

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
        Box::pin(async move {
            let _busy = busy;
            Ok(api.answer(&request).await)
        })
    }
}

impl AdminApi {
    async fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/healthz") => {
                json(StatusCode::OK, &json!({"status": "ok"}))
            }
            (&Method::GET | &Method::HEAD, "/readyz") => ready(&self.gateway),
            // Open, as scrapers expect: series hold names from the config and counts, no content.
            (&Method::GET, "/metrics") => self.metrics(),
            _ => match self.admit(request.headers()) {
                Ok(()) => self.answer_operator(request.method(), request.uri()).await,
                Err(error) => refuse(&error),
            },
        }
    }

    async fn answer_operator(&self, method: &Method, uri: &Uri) -> Response<Body> {
        let path = uri.path();
        if let Some(route) = path.strip_prefix(DRILLS).filter(|route| !route.is_empty()) {
            return match *method {
                Method::POST => self.drill(endpoint::decoded(route), uri).await,
                _ => wrong_method(method, path),
            };
        }
        match (method, path) {
            (&Method::GET, "/admin/config") => json(StatusCode::OK, &self.config()),
            (&Method::POST, "/admin/config/reload") => match self.reloader.reload() {
                Ok(_) => json(StatusCode::OK, &self.config()),
                Err(problems) => refuse(&Error::invalid(problems.join("\n"))),
            },
            (&Method::GET, "/admin/targets") => {
                json(StatusCode::OK, &targets::list(&self.gateway.snapshot()))
            }
            (_, "/admin/config" | "/admin/config/reload" | "/admin/targets") => {
                wrong_method(method, path)
            }
            _ => refuse(&Error::new(Kind::NotFound, "There is nothing at this path.")),
        }
    }

    /// Drills run where calls do, for there are the connections that they are to try. One that has
    /// begun goes on to its end, whoever waits for it.
    async fn drill(&self, route: String, uri: &Uri) -> Response<Body> {
        let query = endpoint::parameters(uri.query().unwrap_or_default());
        let surface = query.iter().find(|(name, _)| name == "surface");
        let surface = match surface.map(|(_, name)| name.as_str()) {
            None => None,
            Some("chat") => Some(Surface::Chat),
            Some("embeddings") => Some(Surface::Embeddings),
            Some(_) => {
                return refuse(&Error::invalid("`surface` is `chat` or `embeddings`."));
            }
        };
        let (done, told) = oneshot::channel();
        let gateway = Arc::clone(&self.gateway);
        let drill = async move {
            let _ = done.send(gateway.drill(&route, surface).await);
        };
        let Some((worker, place)) = self.workers.least_loaded() else {
            return refuse(&Error::new(Kind::Internal, "There is no worker."));
        };
        self.gateway.tasks.spawn_on(worker, drill);
        let told = told.await;
        drop(place);
        match told {
            Ok(Ok(drilled)) => json(StatusCode::OK, &drilled),
            Ok(Err(error)) => refuse(&error),
            Err(_) => refuse(&Error::new(Kind::Internal, "The drill came to no end.")),
        }
    }

    /// Whole digests are compared, so the time it takes tells nothing of the key.
    fn admit(&self, headers: &HeaderMap) -> Result<(), Error> {
        let Some(value) = headers.get(AUTHORIZATION) else {
            let message = "Send the admin key as `Authorization: Bearer KEY`.";
            return Err(Error::new(Kind::MissingKey, message));
        };
        let token = value.to_str().unwrap_or_default().strip_prefix("Bearer ").unwrap_or_default();
        if !token.is_empty() && Sha256::digest(token) == Sha256::digest(self.key.expose()) {
            return Ok(());
        }
        Err(Error::new(Kind::InvalidKey, "This is not the admin key."))
    }

    fn metrics(&self) -> Response<Body> {
        let metrics = &self.gateway.telemetry.metrics;
        let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        metrics.in_flight.set(count(self.gateway.gauge.in_flight()));
        let observed = &self.observed;
        metrics.connections_open.set(count(observed.connections.load(Ordering::Relaxed)));
        metrics.shed.inc_by(observed.turned_away.swap(0, Ordering::Relaxed) as u64);
        self.gateway.show_targets();
        self.gateway.show_budgets();
        self.gateway.show_store();
        let text = self.gateway.telemetry.expose();
        body(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", text.into_bytes())
    }

    fn config(&self) -> serde_json::Value {
        let house = self.gateway.snapshot();
        let time = |at: SystemTime| humantime::format_rfc3339_millis(at).to_string();
        let last_error = self
            .reloader
            .status()
            .last_error
            .map(|(at, problems)| json!({"at": time(at), "problems": problems}));
        json!({
            "generation": house.generation,
            "hash": house.config.hash,
            "loaded_at": time(house.loaded_at),
            "last_error": last_error,
        })
    }
}

fn wrong_method(method: &Method, path: &str) -> Response<Body> {
    let message = format!("{path} does not take {method}.");
    refuse(&Error::new(Kind::MethodNotAllowed, message))
}
