//! The operators' door: metrics, health, and the state of the config.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::SystemTime;

use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;
use sha2::{Digest, Sha256};
use tower_service::Service;

use super::{body, json, ready, refuse};
use crate::config::Secret;
use crate::error::{Error, Kind};
use crate::gateway::{Body, Gateway, Reloader};
use crate::net::listen::MakeService;
use crate::net::patience::Pulse;
use crate::net::shed::BoxFuture;

/// The admin API, for every connection.
#[derive(Debug, Clone)]
pub struct AdminApi {
    pub gateway: Arc<Gateway>,
    pub reloader: Arc<Reloader>,
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
            Ok(api.answer(&request))
        })
    }
}

impl AdminApi {
    fn answer(&self, request: &Request<Incoming>) -> Response<Body> {
        let path = request.uri().path();
        match (request.method(), path) {
            (&Method::GET | &Method::HEAD, "/healthz") => {
                json(StatusCode::OK, &json!({"status": "ok"}))
            }
            (&Method::GET | &Method::HEAD, "/readyz") => ready(&self.gateway),
            // Open, as scrapers expect: series hold names from the config and counts, no content.
            (&Method::GET, "/metrics") => self.metrics(),
            _ => match self.admit(request.headers()) {
                Ok(()) => self.answer_operator(request.method(), path),
                Err(error) => refuse(&error),
            },
        }
    }

    fn answer_operator(&self, method: &Method, path: &str) -> Response<Body> {
        match (method, path) {
            (&Method::GET, "/admin/config") => json(StatusCode::OK, &self.config()),
            (&Method::POST, "/admin/config/reload") => match self.reloader.reload() {
                Ok(_) => json(StatusCode::OK, &self.config()),
                Err(problems) => refuse(&Error::invalid(problems.join("\n"))),
            },
            (_, "/admin/config" | "/admin/config/reload") => {
                let message = format!("{path} does not take {method}.");
                refuse(&Error::new(Kind::MethodNotAllowed, message))
            }
            _ => refuse(&Error::new(Kind::NotFound, "There is nothing at this path.")),
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
