//! Lists what a key may call.

use http::HeaderMap;
use serde_json::{Value, json};

use crate::error::{Error, Kind};
use crate::gateway::Snapshot;

/// All models, or the one called `id`, in OpenAI's shape.
pub(super) fn answer(
    house: &Snapshot,
    headers: &HeaderMap,
    id: Option<&str>,
) -> Result<Value, Error> {
    let caller = house.access.admit(headers)?;
    let Some(id) = id else {
        let names = house.routes.names().filter(|name| caller.may_call(name));
        let data: Vec<Value> = names.map(|name| describe(house, &name)).collect();
        return Ok(json!({"object": "list", "data": data}));
    };
    if house.routes.resolve(id).is_ok() && caller.may_call(id) {
        return Ok(describe(house, id));
    }
    let message =
        format!("There is no model `{id}`; `GET /v1/models` lists what this key may call.");
    Err(Error::new(Kind::ModelNotFound, message))
}

fn describe(house: &Snapshot, name: &str) -> Value {
    let created =
        house.loaded_at.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let owner = match name.split_once('/') {
        Some((provider, _)) if !house.config.routes.contains_key(name) => provider,
        _ => "switchpoint",
    };
    json!({"id": name, "object": "model", "created": created, "owned_by": owner})
}
