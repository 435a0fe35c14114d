//! What operators see and set going: metrics, targets, drills, and the config in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::ledger::time;
use super::{AdminApi, Answer, Asked, audit, targets};
use crate::canon::Surface;
use crate::error::{Error, Kind};
use crate::gateway::Body;
use crate::http::{body, json as answer, ready};

pub(super) fn health(_: &AdminApi, _: &HeaderMap) -> Response<Body> {
    answer(StatusCode::OK, &json!({"status": "ok"}))
}

pub(super) fn readiness(api: &AdminApi, _: &HeaderMap) -> Response<Body> {
    ready(&api.gateway)
}

/// Open, as scrapers expect: series hold names from the config and counts, no content.
pub(super) fn metrics(api: &AdminApi, headers: &HeaderMap) -> Response<Body> {
    let metrics = &api.gateway.telemetry.metrics;
    let count = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
    metrics.in_flight.set(count(api.gateway.gauge.in_flight()));
    let observed = &api.observed;
    metrics.connections_open.set(count(observed.connections.load(Ordering::Relaxed)));
    metrics.shed.inc_by(observed.turned_away.swap(0, Ordering::Relaxed) as u64);
    api.gateway.show_targets();
    api.gateway.show_budgets();
    api.gateway.show_store();
    // Exemplars have no place in Prometheus' own format, so scrapers ask for the other one.
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let open = accepted.into_iter().any(|kinds| kinds.contains("application/openmetrics-text"));
    let kind = if open {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    body(StatusCode::OK, kind, api.gateway.telemetry.expose(open).into_bytes())
}

pub(super) fn targets(api: &AdminApi) -> Response<Body> {
    answer(StatusCode::OK, &targets::list(&api.gateway.snapshot()))
}

pub(super) fn config(api: &AdminApi) -> Response<Body> {
    answer(StatusCode::OK, &api.state())
}

pub(super) async fn reload(api: AdminApi, asked: Asked) -> Answer {
    let before = api.state();
    match api.reloader.reload() {
        Ok(_) => {
            let after = api.state();
            audit::note(&api, &asked.by, "config.reload", (&before, &after)).await;
            Ok(answer(StatusCode::OK, &after))
        }
        Err(problems) => Err(Error::invalid(problems.join("\n"))),
    }
}

/// Drills run where calls do, for there are the connections that they are to try. One that has
/// begun goes on to its end, whoever waits for it.
pub(super) async fn drill(api: AdminApi, asked: Asked) -> Answer {
    let surface = match asked.query.text("surface") {
        None => None,
        Some("chat") => Some(Surface::Chat),
        Some("embeddings") => Some(Surface::Embeddings),
        Some(_) => return Err(Error::invalid("`surface` is `chat` or `embeddings`.")),
    };
    let (done, told) = oneshot::channel();
    let (gateway, route) = (Arc::clone(&api.gateway), asked.id);
    let drill = async move {
        let _ = done.send(gateway.drill(&route, surface).await);
    };
    let Some((worker, place)) = api.workers.least_loaded() else {
        return Err(Error::new(Kind::Internal, "There is no worker."));
    };
    api.gateway.tasks.spawn_on(worker, drill);
    let told = told.await;
    drop(place);
    let came_to_nothing = |_| Error::new(Kind::Internal, "The drill came to no end.");
    Ok(answer(StatusCode::OK, &told.map_err(came_to_nothing)??))
}

impl AdminApi {
    fn state(&self) -> Value {
        let house = self.gateway.snapshot();
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
