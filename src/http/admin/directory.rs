//! Keys, users, teams and orgs over HTTP: their tables are those of the config, as JSON.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Number, Value, json};

use super::{AdminApi, Answer, Asked};
use crate::access::account::Scope;
use crate::canon::Money;
use crate::config::{self, Unit};
use crate::error::Error;
use crate::gateway::directory::{Created, Draft, Entry, Kind, Page, TopUp};
use crate::http::json as answer;

/// How long the secret before works on, unless somebody says otherwise.
const OVERLAP: Duration = Duration::from_hours(24);

pub(super) fn list(api: &AdminApi, asked: &Asked, kind: Kind) -> Answer {
    let limit = asked.query.limit()? as usize;
    let page = Page { team: asked.query.text("team"), after: asked.query.text("after"), limit };
    let (entries, next) = api.gateway.entries(&asked.by, kind, page)?;
    let data: Vec<Value> = entries.iter().map(shown).collect();
    Ok(answer(StatusCode::OK, &json!({"data": data, "next": next})))
}

pub(super) async fn get(api: AdminApi, asked: Asked, kind: Kind) -> Answer {
    let entry = api.gateway.entry_of_all(&asked.by, kind, &asked.id).await?;
    Ok(answer(StatusCode::OK, &shown(&entry)))
}

pub(super) async fn create(api: AdminApi, asked: Asked, kind: Kind) -> Answer {
    let Asked { by, mut body, idempotency, .. } = asked;
    let id = match body.shift_remove("id") {
        None => None,
        Some(Value::String(id)) => Some(id),
        Some(_) => return Err(Error::invalid("`id` must be text.")),
    };
    let draft = Draft { id, settings: Value::Object(body), idempotency };
    let created = api.gateway.create_entry(&by, kind, draft).await?;
    let status = if created.replayed { StatusCode::OK } else { StatusCode::CREATED };
    Ok(answer(status, &made(kind, &created)))
}

pub(super) async fn change(api: AdminApi, asked: Asked, kind: Kind) -> Answer {
    let patch = Value::Object(asked.body);
    let entry = api.gateway.change_entry(&asked.by, kind, &asked.id, &patch).await?;
    Ok(answer(StatusCode::OK, &shown(&entry)))
}

pub(super) async fn rotate(api: AdminApi, asked: Asked) -> Answer {
    known(&asked.body, &["overlap"])?;
    let overlap = match asked.body.get("overlap") {
        None => OVERLAP,
        Some(text) => {
            let read = text.as_str().and_then(|text| humantime::parse_duration(text).ok());
            read.ok_or_else(|| Error::invalid("`overlap` is a time such as \"24h\" or \"0s\"."))?
        }
    };
    let rotated = api.gateway.rotate_key(&asked.by, &asked.id, overlap).await?;
    Ok(answer(StatusCode::OK, &made(Kind::Key, &rotated)))
}

pub(super) async fn delete(api: AdminApi, asked: Asked, kind: Kind) -> Answer {
    let mut told = match kind {
        Kind::Key => shown(&api.gateway.revoke_key(&asked.by, &asked.id).await?),
        Kind::User | Kind::Team | Kind::Org => {
            api.gateway.remove_entry(&asked.by, kind, &asked.id).await?;
            json!({"id": asked.id})
        }
    };
    told["deleted"] = json!(true);
    Ok(answer(StatusCode::OK, &told))
}

pub(super) async fn top_up(api: AdminApi, asked: Asked, kind: Kind) -> Answer {
    // First of all, so that nobody learns of what is another's.
    let entry = api.gateway.entry_of_all(&asked.by, kind, &asked.id).await?;
    known(&asked.body, &["tokens", "usd", "window"])?;
    let (unit, amount) = amount(&asked.body)?;
    let window = match asked.body.get("window") {
        Some(Value::String(window)) => window.clone(),
        Some(_) => return Err(Error::invalid("`window` is that of the budget, such as \"30d\".")),
        None => only_window(&entry, unit)?,
    };
    let scope = match kind {
        Kind::Key => Scope::Key,
        Kind::User => Scope::User,
        Kind::Team => Scope::Team,
        Kind::Org => Scope::Org,
    };
    let idempotency = asked.idempotency;
    let top_up = TopUp { scope, name: asked.id, unit, window, amount, idempotency };
    let (budget, replayed) = api.gateway.top_up(&asked.by, top_up).await?;
    Ok(answer(StatusCode::OK, &json!({"budget": budget, "replayed": replayed})))
}

/// The settings stand beside the rest, as they do in a request.
fn shown(entry: &Entry) -> Value {
    let mut told = serde_json::to_value(entry).unwrap_or_default();
    let Some(fields) = told.as_object_mut() else { return told };
    let settings = fields.shift_remove("settings");
    if matches!(entry.kind, Kind::Team | Kind::Org) {
        fields.shift_remove("team");
    }
    for (name, value) in settings.as_ref().and_then(Value::as_object).into_iter().flatten() {
        // Whose team a key is in is known better than it is written.
        fields.entry(name).or_insert_with(|| value.clone());
    }
    told
}

fn made(kind: Kind, created: &Created) -> Value {
    let mut told = shown(&created.entry);
    if kind == Kind::Key {
        told["secret"] = json!(created.secret.as_ref().map(config::Secret::expose));
    }
    told["replayed"] = json!(created.replayed);
    told
}

fn known(body: &Map<String, Value>, names: &[&'static str]) -> Result<(), Error> {
    let Some(stranger) = body.keys().find(|name| !names.contains(&name.as_str())) else {
        return Ok(());
    };
    let hint = config::suggestion(stranger, names.iter().copied());
    Err(Error::invalid(format!("`{stranger}` is not known{hint}")))
}

/// In tokens or nano-dollars.
fn amount(body: &Map<String, Value>) -> Result<(Unit, u64), Error> {
    match (body.get("tokens"), body.get("usd")) {
        (Some(tokens), None) => {
            let tokens = tokens.as_u64().filter(|tokens| *tokens > 0);
            let problem = || Error::invalid("`tokens` must be a number above 0.");
            Ok((Unit::Tokens, tokens.ok_or_else(problem)?))
        }
        (None, Some(usd)) => {
            let nanos = usd.as_number().and_then(nanos).filter(|nanos| *nanos > 0);
            let problem = || Error::invalid("`usd` must be an amount above 0, such as 5.0.");
            Ok((Unit::Usd, nanos.ok_or_else(problem)?))
        }
        _ => Err(Error::invalid("Write either `tokens` or `usd`.")),
    }
}

/// By way of its digits, so that 0.1 is a tenth.
fn nanos(usd: &Number) -> Option<u64> {
    let digits = if usd.is_f64() { usd.as_f64()?.to_string() } else { usd.to_string() };
    Some(digits.parse::<Money>().ok()?.nanos())
}

/// The window of the only budget in this unit.
fn only_window(entry: &Entry, unit: Unit) -> Result<String, Error> {
    let unit = unit.name();
    let budgets = entry.settings["budget"].as_array().map(Vec::as_slice).unwrap_or_default();
    let mut windows = budgets.iter().filter(|budget| budget.get(unit).is_some());
    let only = windows.next().filter(|_| windows.next().is_none());
    let window = only.and_then(|budget| budget["window"].as_str());
    window.map(str::to_owned).ok_or_else(|| {
        Error::invalid(format!("Name the `window` of the budget in {unit} that is meant."))
    })
}
