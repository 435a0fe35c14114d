//! Responses that were kept: fetched, listed, cancelled, taken back.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::endpoint::Kept;
use super::{json, refuse};
use crate::canon::Owner;
use crate::dialect::responses::state::{self, Page};
use crate::error::{Error, Kind};
use crate::gateway::{Body, Gateway};
use crate::net::patience::Busy;

pub(super) async fn answer(
    gateway: &Arc<Gateway>,
    kept: Kept,
    id: &str,
    request: &Request<Incoming>,
    busy: Busy,
) -> Response<Body> {
    let query = fields(request.uri().query().unwrap_or_default());
    let streamed = kept == Kept::Get && field(&query, "stream") == Some("true");
    let found = look(gateway, kept, id, request, &query, busy.peer()).await;
    if streamed && found.is_ok() {
        match join(gateway, id, request, &query, busy).await {
            Ok(Some(events)) => return stream(events),
            Ok(None) => {}
            Err(error) => return refuse(&error),
        }
    }
    match found {
        Ok(value) if streamed => match replay(&value, &query) {
            Ok(events) => stream(events.into()),
            Err(error) => refuse(&error),
        },
        Ok(value) => json(StatusCode::OK, &value),
        Err(error) => refuse(&error),
    }
}

fn stream(events: Body) -> Response<Body> {
    let mut response = Response::new(events);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

/// The events themselves, where they are known.
async fn join(
    gateway: &Arc<Gateway>,
    id: &str,
    request: &Request<Incoming>,
    query: &Query,
    busy: Busy,
) -> Result<Option<Body>, Error> {
    let house = gateway.house(request.headers());
    let caller = gateway.admit(&house, request.headers(), busy.peer()).await?;
    let owner = Owner::new(Arc::clone(caller.owner()));
    let after = field(query, "starting_after").map(str::parse::<u64>).transpose();
    let after = after.map_err(|_| Error::invalid("`starting_after` must be a number."))?;
    gateway.joined(&owner, id, after, busy).await
}

async fn look(
    gateway: &Arc<Gateway>,
    kept: Kept,
    id: &str,
    request: &Request<Incoming>,
    query: &Query,
    from: Option<IpAddr>,
) -> Result<Value, Error> {
    let house = gateway.house(request.headers());
    let caller = gateway.admit(&house, request.headers(), from).await?;
    let owner = Owner::new(Arc::clone(caller.owner()));
    match kept {
        Kept::Get => gateway.response(&owner, id).await,
        Kept::Delete => gateway.delete_response(&owner, id).await,
        Kept::Cancel => gateway.cancel_response(&owner, id).await,
        Kept::InputItems => {
            let page = Page {
                after: field(query, "after"),
                limit: field(query, "limit").and_then(|limit| limit.parse().ok()),
                ascending: field(query, "order") == Some("asc"),
            };
            gateway.input_items(&owner, id, page).await
        }
    }
}

/// Only of a stream in the background the events are kept; any other is streamed anew, so nobody
/// can go on in the middle of it.
fn replay(response: &Value, query: &Query) -> Result<Vec<u8>, Error> {
    let refused = |message| Err(Error::new(Kind::Unsupported, message));
    if matches!(response["status"].as_str(), Some("queued" | "in_progress")) {
        return refused("A response that is still being made is not streamed; poll it.");
    }
    if field(query, "starting_after").is_some() {
        return refused(
            "`starting_after` needs a stream of the last day that was made in the background.",
        );
    }
    Ok(state::replay(response))
}

type Query = [(String, String)];

fn field<'a>(query: &'a Query, name: &str) -> Option<&'a str> {
    query.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
}

fn fields(query: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}
