//! Responses that were kept: fetched, listed, cancelled, taken back.

use std::sync::Arc;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;

use super::endpoint::Kept;
use super::{json, refuse};
use crate::canon::Owner;
use crate::dialect::responses::state::Page;
use crate::error::{Error, Kind};
use crate::gateway::{Body, Gateway};

pub(super) async fn answer(
    gateway: &Arc<Gateway>,
    (kept, id): (Kept, &str),
    request: &Request<Incoming>,
) -> Response<Body> {
    match look(gateway, (kept, id), request).await {
        Ok(value) => json(StatusCode::OK, &value),
        Err(error) => refuse(&error),
    }
}

async fn look(
    gateway: &Arc<Gateway>,
    (kept, id): (Kept, &str),
    request: &Request<Incoming>,
) -> Result<serde_json::Value, Error> {
    let house = gateway.snapshot();
    let caller = house.access.admit(request.headers())?;
    let owner = Owner::new(Arc::clone(caller.key()));
    let query = fields(request.uri().query().unwrap_or_default());
    match kept {
        Kept::Get if query.iter().any(|(name, value)| name == "stream" && value == "true") => Err(
            Error::new(Kind::Unsupported, "A kept response is not streamed again; fetch it whole."),
        ),
        Kept::Get => gateway.response(&owner, id).await,
        Kept::Delete => gateway.delete_response(&owner, id).await,
        Kept::Cancel => gateway.cancel_response(&owner, id).await,
        Kept::InputItems => {
            let field = |name: &str| {
                let found = query.iter().find(|(field, _)| field == name);
                found.map(|(_, value)| value.as_str())
            };
            let page = Page {
                after: field("after"),
                limit: field("limit").and_then(|limit| limit.parse().ok()),
                ascending: field("order") == Some("asc"),
            };
            gateway.input_items(&owner, id, page).await
        }
    }
}

fn fields(query: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (decoded(name), decoded(value))).collect()
}
