//! The config as operators see and change it: what is served, what another would change, and the
//! generations that there have been.

use http::{Response, StatusCode};
use serde_json::{Map, Value, json};

use super::guard::Right;
use super::ledger::{read, time};
use super::{AdminApi, Answer, Asked, audit, missing, trial};
use crate::config::Problem;
use crate::error::Error;
use crate::gateway::generations::{Ending, Generation};
use crate::gateway::{Body, Order, Return, at_next_start, refusal};
use crate::http::json as answer;

pub(super) fn get(api: &AdminApi) -> Response<Body> {
    let mut state = api.state();
    state["text"] = json!(api.gateway.snapshot().config.text.shown());
    answer(StatusCode::OK, &state)
}

pub(super) async fn reload(api: AdminApi, asked: Asked) -> Answer {
    let before = api.state();
    match api.reloader.reload(&asked.by.name).await {
        Ok(_) => changed(&api, &asked, "config.reload", &before).await,
        Err(problems) => Err(Error::invalid(problems.join("\n"))),
    }
}

pub(super) async fn check(api: AdminApi, asked: Asked) -> Answer {
    let text = Fields(&asked.body).knowing(&["text"])?.text()?;
    let outlook = api.reloader.check(&text).await;
    Ok(answer(
        StatusCode::OK,
        &json!({
            "ok": outlook.problems.is_empty(),
            "problems": shown(&outlook.problems),
            "warnings": shown(&outlook.warnings),
            "at_next_start": outlook.at_next_start,
        }),
    ))
}

pub(super) async fn diff(api: AdminApi, asked: Asked) -> Answer {
    let fields = Fields(&asked.body).knowing(&["text", "generation"])?;
    let text = match fields.number("generation")? {
        Some(number) => find(&api, number).await?.text,
        None if asked.body.contains_key("text") => fields.text()?,
        None => api.reloader.file()?,
    };
    let changes = api.reloader.diff(&text).map_err(refusal)?;
    let told = json!({
        "generation": api.gateway.snapshot().generation,
        "changes": changes,
        "at_next_start": at_next_start(&changes),
    });
    Ok(answer(StatusCode::OK, &told))
}

pub(super) async fn apply(api: AdminApi, asked: Asked) -> Answer {
    let fields = Fields(&asked.body).knowing(&["text", "base", "ephemeral", "canary"])?;
    let terms = fields.get("canary").map(|written| {
        let wrong = || Error::invalid("`canary` is an object with a `share` and more.");
        trial::terms(written.as_object().ok_or_else(wrong)?)
    });
    let order = Order {
        text: fields.text()?,
        base: fields.number("base")?,
        ephemeral: fields.flag("ephemeral")?,
        trial: terms.transpose()?,
    };
    let before = api.state();
    api.reloader.apply(order, &asked.by.name).await?;
    changed(&api, &asked, "config.apply", &before).await
}

pub(super) async fn promote(api: AdminApi, asked: Asked) -> Answer {
    let before = api.state();
    api.reloader.promote(&asked.by.name).await?;
    changed(&api, &asked, "config.promote", &before).await
}

pub(super) async fn abort(api: AdminApi, asked: Asked) -> Answer {
    let before = api.state();
    api.reloader.abort(&asked.by.name).await?;
    changed(&api, &asked, "config.abort", &before).await
}

pub(super) async fn roll_back(api: AdminApi, asked: Asked) -> Answer {
    let fields = Fields(&asked.body).knowing(&["generation", "ephemeral"])?;
    let (to, ephemeral) = (fields.number("generation")?, fields.flag("ephemeral")?);
    let wanted = Return { to, ephemeral, by_owner: Right::Own.is_of(asked.by.role) };
    let before = api.state();
    api.reloader.roll_back(wanted, &asked.by.name).await?;
    changed(&api, &asked, "config.rollback", &before).await
}

pub(super) async fn list(api: AdminApi, asked: Asked) -> Answer {
    let (after, limit) = (asked.query.after::<u64>()?, asked.query.limit()?);
    let found = read(api.gateway.generations(after, limit)).await?;
    let is_full = u32::try_from(found.len()) == Ok(limit);
    let next = found.last().filter(|_| is_full).map(|last| last.generation.to_string());
    let data: Vec<Value> = found.iter().map(|one| api.told(one)).collect();
    Ok(answer(StatusCode::OK, &json!({"data": data, "next": next})))
}

pub(super) async fn one(api: AdminApi, asked: Asked) -> Answer {
    let number = asked.id.parse().map_err(|_| missing("generation", &asked.id))?;
    let found = find(&api, number).await?;
    let mut told = api.told(&found);
    told["text"] = json!(found.text);
    Ok(answer(StatusCode::OK, &told))
}

async fn find(api: &AdminApi, number: u64) -> Result<Generation, Error> {
    let found = read(api.gateway.generation(number)).await?;
    found.ok_or_else(|| missing("generation", number))
}

/// Notes what was done, and tells what has come of it.
async fn changed(api: &AdminApi, asked: &Asked, what: &str, before: &Value) -> Answer {
    let after = api.state();
    audit::note(api, &asked.by, what, before, &after).await;
    Ok(answer(StatusCode::OK, &after))
}

fn shown(problems: &[Problem]) -> Vec<Value> {
    let shown = |problem: &Problem| {
        let Problem { line, path, message, .. } = problem;
        json!({"line": line, "path": path, "message": message})
    };
    problems.iter().map(shown).collect()
}

impl AdminApi {
    /// The state of the config, without its text.
    pub(super) fn state(&self) -> Value {
        let (house, status) = (self.gateway.snapshot(), self.reloader.status());
        let last_error =
            status.last_error.map(|(at, problems)| json!({"at": time(at), "problems": problems}));
        json!({
            "generation": house.generation,
            "hash": house.config.hash,
            "loaded_at": time(house.loaded_at),
            "last_error": last_error,
            "source": self.reloader.path(),
            "ephemeral": status.ephemeral,
            "at_next_start": house.at_next_start,
            "canary": self.gateway.trial().map(|trial| trial::shown(&trial)),
        })
    }

    fn told(&self, one: &Generation) -> Value {
        let is_live = one.generation == self.gateway.snapshot().generation;
        let trial = self.gateway.trial();
        let is_tried = trial.is_some_and(|trial| trial.generation() == one.generation);
        let state = match one.fate.as_ref().map(|fate| fate.outcome) {
            _ if is_tried => Ending::Trial.name(),
            _ if is_live => "live",
            None | Some(Ending::Promoted) => "past",
            Some(ending) => ending.name(),
        };
        let why = one.fate.as_ref().map(|fate| &fate.why).filter(|why| !why.is_empty());
        json!({
            "generation": one.generation,
            "at": time(one.at()),
            "by": one.by,
            "how": one.how,
            "hash": one.hash,
            "state": state,
            "why": why,
            "ephemeral": one.ephemeral,
            "of": one.of,
        })
    }
}

/// What a body says.
pub(super) struct Fields<'a>(pub(super) &'a Map<String, Value>);

// === impl Fields ===

impl<'a> Fields<'a> {
    /// Refuses what would be said in vain.
    pub(super) fn knowing(self, known: &[&str]) -> Result<Self, Error> {
        let strange = self.0.keys().find(|name| !known.contains(&name.as_str()));
        strange.map_or(Ok(()), |name| {
            let hint = crate::config::suggestion(name, known.iter().copied());
            Err(Error::invalid(format!("The body has an unknown `{name}`{hint}")))
        })?;
        Ok(self)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    fn text(&self) -> Result<String, Error> {
        let text = self.get("text").and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        text.map(str::to_owned).ok_or_else(|| Error::invalid("`text` is a whole config in TOML."))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<u64>, Error> {
        let number = self.get(name).map(|value| value.as_u64().filter(|number| *number > 0));
        match number {
            Some(None) => Err(Error::invalid(format!("`{name}` is a number from 1."))),
            Some(number) => Ok(number),
            None => Ok(None),
        }
    }

    pub(super) fn word(&self, name: &str) -> Result<Option<&'a str>, Error> {
        let word = self.get(name).map(|value| {
            let wrong = || Error::invalid(format!("`{name}` is text."));
            value.as_str().ok_or_else(wrong)
        });
        word.transpose()
    }

    fn flag(&self, name: &str) -> Result<bool, Error> {
        let flag = self.get(name).map_or(Some(false), Value::as_bool);
        flag.ok_or_else(|| Error::invalid(format!("`{name}` is true or false.")))
    }
}
