//! What operators see and set going: metrics, targets, drills, and the config in force.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{AdminApi, Answer, Asked, audit, targets};
use crate::cache::Scope;
use crate::canon::Surface;
use crate::config;
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
    metrics.body_bytes.set(count(api.gateway.bodies.held()));
    let observed = &api.observed;
    metrics.connections_open.set(count(observed.connections.load(Ordering::Relaxed)));
    metrics.shed.inc_by(observed.turned_away.swap(0, Ordering::Relaxed) as u64);
    api.gateway.show_targets();
    api.gateway.show_budgets();
    api.gateway.show_store();
    let stock = api.gateway.cache.exact.stock();
    metrics.cache_entries.set(stock.entries.cast_signed());
    metrics.cache_bytes.set(stock.bytes.cast_signed());
    metrics.cache_questions.set(count(api.gateway.cache.index.count()));
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

pub(super) fn cache(api: &AdminApi) -> Response<Body> {
    let cache = &api.gateway.cache;
    let (stock, questions) = (cache.exact.stock(), cache.index.count());
    let body = json!({"entries": stock.entries, "bytes": stock.bytes, "questions": questions});
    answer(StatusCode::OK, &body)
}

/// What names nothing must say that it means all.
pub(super) async fn purge(api: AdminApi, asked: Asked) -> Answer {
    let mut names = [None; 3];
    let mut all = false;
    for (field, value) in &asked.body {
        let text = value.as_str().filter(|text| !text.is_empty());
        match (field.as_str(), text) {
            ("route", Some(name)) => names[0] = Some(name),
            ("key", Some(name)) => names[1] = Some(name),
            ("team", Some(name)) => names[2] = Some(name),
            ("all", None) if value.is_boolean() => all = value == true,
            _ => return Err(Error::invalid(format!("`{field}` cannot be read."))),
        }
    }
    let [route, key, team] = names;
    let tenant = match (key, team) {
        (Some(_), Some(_)) => return Err(Error::invalid("`key` or `team`, not both.")),
        (Some(key), None) => format!("key:{key}"),
        (None, Some(team)) => format!("team:{team}"),
        (None, None) => String::new(),
    };
    let house = api.gateway.snapshot();
    let known = |name: &str| house.config.routes.contains_key(name) || name.contains('/');
    if let Some(name) = route.filter(|name| !known(name) && *name != "direct") {
        let hint = config::suggestion(name, house.config.routes.keys().map(String::as_str));
        return Err(Error::invalid(format!("There is no route `{name}`{hint}")));
    }
    let scope = Scope { tenant, route: route.unwrap_or_default().to_owned() };
    if all == (scope != Scope::default()) {
        return Err(Error::invalid("Name a `route`, `key` or `team`, or say `\"all\": true`."));
    }
    let purged = api.gateway.forget_answers(&scope).await?;
    let what = Value::Object(asked.body.clone());
    audit::note(&api, &asked.by, "cache.purge", &what, &Value::Null).await;
    Ok(answer(StatusCode::OK, &json!({ "purged": purged })))
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
