//! Lists what a key may call, in the shape of the API that asks.

use http::HeaderMap;
use serde_json::{Value, json};

use crate::access::Caller;
use crate::dialect::{ClientSide, chat, gemini, messages};
use crate::error::{Error, Kind};
use crate::gateway::Snapshot;

/// How agents are called as models.
const AGENT: &str = "agent/";

/// Whose list is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    OpenAi,
    Anthropic,
    Google,
}

impl Shape {
    /// Others ask at OpenAI's path too, and say who they are in a header.
    pub(super) fn at_openai_path(headers: &HeaderMap) -> Self {
        let says = |name: &str| headers.contains_key(name);
        if says("anthropic-version") {
            Self::Anthropic
        } else if says("x-goog-api-client") || says("x-goog-api-key") {
            Self::Google
        } else {
            Self::OpenAi
        }
    }

    /// Whose API this path belongs to, whatever is there.
    pub(super) fn at(path: &str, headers: &HeaderMap) -> Self {
        let within = |door: &str| {
            path.strip_prefix(door).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if within("/v1/messages") {
            Self::Anthropic
        } else if within("/v1beta") || (within("/v1/models") && path.contains(':')) {
            Self::Google
        } else {
            Self::at_openai_path(headers)
        }
    }

    /// How that API spells errors.
    pub(super) fn client(self) -> &'static dyn ClientSide {
        match self {
            Self::OpenAi => &chat::CODEC,
            Self::Anthropic => &messages::CODEC,
            Self::Google => &gemini::CODEC,
        }
    }
}

/// All models, or the one called `id`.
pub(super) fn answer(
    house: &Snapshot,
    caller: &Caller,
    (shape, id): (Shape, Option<&str>),
) -> Result<Value, Error> {
    let Some(id) = id else {
        let names = house.routes.names().filter(|name| {
            let direct =
                name.split_once('/').filter(|_| !house.config.routes.contains_key(&**name));
            let answers = direct.is_none_or(|(provider, model)| caller.may_use(provider, model));
            caller.may_call(name) && answers
        });
        let mut models: Vec<Value> = names.map(|name| describe(house, shape, &name)).collect();
        let agents = house.agents(caller).map(|name| format!("{AGENT}{name}"));
        models.extend(agents.map(|name| describe(house, shape, &name)));
        return Ok(list(shape, &models));
    };
    let agent = id.strip_prefix(AGENT).map(|named| named.split('@').next().unwrap_or_default());
    if let Some(name) = agent
        && house.agents(caller).any(|known| known == name)
    {
        return Ok(describe(house, shape, id));
    }
    if house.routes.resolve(id).is_ok() && caller.may_call(id) {
        return Ok(describe(house, shape, id));
    }
    let message =
        format!("There is no model `{id}`; `GET /v1/models` lists what this key may call.");
    Err(Error::new(Kind::ModelNotFound, message))
}

/// There is one page.
fn list(shape: Shape, models: &[Value]) -> Value {
    match shape {
        Shape::OpenAi => json!({"object": "list", "data": models}),
        Shape::Google => json!({"models": models}),
        Shape::Anthropic => {
            let id = |model: Option<&Value>| model.map_or(Value::Null, |model| model["id"].clone());
            json!({
                "first_id": id(models.first()),
                "last_id": id(models.last()),
                "data": models,
                "has_more": false,
            })
        }
    }
}

fn describe(house: &Snapshot, shape: Shape, name: &str) -> Value {
    match shape {
        Shape::OpenAi => {
            let since = house.loaded_at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            let owner = match name.split_once('/') {
                Some((provider, _))
                    if !name.starts_with(AGENT) && !house.config.routes.contains_key(name) =>
                {
                    provider
                }
                _ => "switchpoint",
            };
            json!({
                "id": name, "object": "model", "created": since.as_secs(), "owned_by": owner,
            })
        }
        Shape::Anthropic => {
            let created = humantime::format_rfc3339_seconds(house.loaded_at).to_string();
            json!({"type": "model", "id": name, "display_name": name, "created_at": created})
        }
        Shape::Google => json!({
            "name": format!("models/{name}"),
            "displayName": name,
            "supportedGenerationMethods": ["generateContent", "streamGenerateContent", "countTokens"],
        }),
    }
}
