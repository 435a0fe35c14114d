//! The doors to agents: their runs, what people decide about them, and their tools. What can be
//! asked stands in `table`.

mod approvals;
mod control;
mod follow;
mod letters;
mod registry;
mod runs;
mod story;
pub(super) mod table;
mod tools;
mod usage;
mod views;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value};

use self::table::Operation;
use super::body::object;
use super::endpoint::parameters;
use super::{json, refuse};
use crate::access::Caller;
use crate::agent::Agents;
use crate::canon::{Owner, RunId};
use crate::config::{self, Role};
use crate::error::{Error, Kind};
use crate::gateway::{Body, Gateway};
use crate::store::runs::RunRow;
use crate::store::{Audit, Failure};

/// Rows of one page, unless the query says otherwise, and at most.
const USUAL: u32 = 50;
const MOST: u32 = 500;

type Answer = Result<Response<Body>, Error>;

/// What every answer is made with.
#[derive(Debug, Clone)]
struct Door {
    gateway: Arc<Gateway>,
    agents: Agents,
}

/// What somebody is asking.
struct Asked {
    caller: Caller,
    /// What the path names.
    id: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Map<String, Value>,
}

pub(super) async fn answer(
    gateway: &Arc<Gateway>,
    agents: &Agents,
    operation: &'static Operation,
    id: String,
    (request, from): (Request<Incoming>, Option<IpAddr>),
) -> Response<Body> {
    let door = Door { gateway: Arc::clone(gateway), agents: agents.clone() };
    let answer = perform(door, operation, id, request, from).await;
    answer.unwrap_or_else(|error| {
        if error.kind == Kind::InvalidTransition {
            let refused = &gateway.telemetry.metrics.agent_invalid_transitions;
            refused.with_label_values(&[operation.path]).inc();
        }
        refuse(&error)
    })
}

async fn perform(
    door: Door,
    operation: &'static Operation,
    id: String,
    request: Request<Incoming>,
    from: Option<IpAddr>,
) -> Answer {
    let house = door.gateway.house(request.headers());
    let caller = door.gateway.admit(&house, request.headers(), from).await?;
    let (head, body) = request.into_parts();
    let query = parameters(head.uri.query().unwrap_or_default());
    let most = house.config.server.max_body;
    drop(house);
    let lease = door.gateway.bodies.lease();
    let body = if operation.method == Method::POST {
        object(body, most, &lease).await?
    } else {
        Map::new()
    };
    let asked = Asked { caller, id, query, headers: head.headers, body };
    (operation.handler)(door, asked).await
}

// === impl Door ===

impl Door {
    /// A run that this caller may know of; nobody learns whether another one exists.
    async fn run(&self, asked: &Asked) -> Result<RunRow, Error> {
        let missing = || Error::new(Kind::RunNotFound, format!("There is no run `{}`.", asked.id));
        let id = RunId::parse(&asked.id).ok_or_else(missing)?;
        let owner = asked.owner();
        let owner = if asked.sees_all() { None } else { Some(&owner) };
        self.gateway.store().run(owner, id).await.map_err(|it| away(&it))?.ok_or_else(missing)
    }

    /// What somebody has done goes into the audit trail.
    async fn notes(
        &self,
        asked: &Asked,
        what: &str,
        subject: String,
        after: &Value,
    ) -> Result<(), Error> {
        let change = Audit {
            at: SystemTime::now(),
            who: asked.by(),
            what: what.to_owned(),
            subject,
            before: None,
            after: (!after.is_null()).then(|| after.to_string()),
        };
        self.gateway.store().audit(change).await.map_err(|failure| away(&failure))
    }

    /// One that it may also change.
    async fn own_run(&self, asked: &Asked) -> Result<RunRow, Error> {
        let run = self.run(asked).await?;
        if run.owner == asked.owner() || asked.operates() {
            return Ok(run);
        }
        Err(Error::new(Kind::NotAllowed, "This run belongs to another key."))
    }
}

// === impl Asked ===

impl Asked {
    fn owner(&self) -> Owner {
        Owner::new(Arc::clone(self.caller.owner()))
    }

    /// As whom journals know them.
    fn by(&self) -> String {
        self.caller.owner().to_string()
    }

    /// Whoever keeps the gateway sees what everybody does.
    fn sees_all(&self) -> bool {
        matches!(self.caller.role(), Some(Role::Owner | Role::Operator | Role::Viewer))
    }

    /// And may change it.
    fn operates(&self) -> bool {
        self.caller.operates()
    }

    fn demand_operator(&self) -> Result<(), Error> {
        if self.operates() {
            return Ok(());
        }
        Err(Error::new(Kind::NotAllowed, "This is for keys with the role `operator` or `owner`."))
    }

    /// What the query says, each name known.
    fn query(&self, known: &[&str]) -> Result<&Self, Error> {
        for (name, _) in &self.query {
            if !known.contains(&name.as_str()) {
                let hint = config::suggestion(name, known.iter().copied());
                return Err(Error::invalid(format!("The query has an unknown `{name}`{hint}")));
            }
        }
        Ok(self)
    }

    fn field(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A field that is one of a few words.
    fn one_of(&self, name: &str, known: &[&str]) -> Result<Option<&str>, Error> {
        let said = self.field(name);
        if said.is_some_and(|said| !known.contains(&said)) {
            return Err(Error::invalid(format!("`{name}` is one of {}.", known.join(", "))));
        }
        Ok(said)
    }

    fn limit(&self) -> Result<u32, Error> {
        let Some(limit) = self.field("limit") else { return Ok(USUAL) };
        let limit = limit.parse().ok().filter(|limit| (1..=MOST).contains(limit));
        limit.ok_or_else(|| Error::invalid(format!("`limit` is a number from 1 to {MOST}.")))
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// What the body says, each name known.
    fn says(&self, known: &[&str]) -> Result<(), Error> {
        for name in self.body.keys() {
            if !known.contains(&name.as_str()) {
                let hint = config::suggestion(name, known.iter().copied());
                return Err(Error::invalid(format!("`{name}` is not known here{hint}")));
            }
        }
        Ok(())
    }

    /// A text of the body; null is none.
    fn text(&self, name: &str) -> Result<Option<String>, Error> {
        match self.body.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(Error::invalid(format!("`{name}` must be a text."))),
        }
    }

    fn needed(&self, name: &str) -> Result<String, Error> {
        self.text(name)?.ok_or_else(|| Error::invalid(format!("`{name}` is missing.")))
    }

    /// One of a few words of the body.
    fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Error> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text);
        let known: Vec<String> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let wrong = || Error::invalid(format!("`{name}` is {}.", known.join(" or ")));
        found.map(|(_, meaning)| Some(*meaning)).ok_or_else(wrong)
    }

    fn duration(&self, name: &str) -> Result<Option<Duration>, Error> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        let read = config::duration(&text);
        read.map(Some).map_err(|problem| Error::invalid(format!("`{name}`: {problem}.")))
    }
}

fn away(_: &Failure) -> Error {
    Error::new(Kind::Overloaded, "The store cannot be asked at the moment.")
}

#[expect(clippy::unnecessary_wraps, reason = "it is the last word of every handler")]
fn told(value: &Value) -> Answer {
    Ok(json(StatusCode::OK, value))
}
