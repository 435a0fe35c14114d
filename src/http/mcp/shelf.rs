//! Resources, prompts and completion: requests go to the server whose thing it is, in its own words,
//! and what it answers comes back under the names that things have here.

use std::sync::Arc;

use futures_util::future::join_all;
use rmcp::RoleServer;
use rmcp::model::{ErrorCode, ErrorData, InputRequiredResult, ServerCapabilities};
use rmcp::service::RequestContext;
use serde_json::{Value, json};

use super::attend::{MOST_ROUNDS, answers, attend, is_old, listener};
use super::names::Names;
use super::offer::{Visit, passed};
use super::session::State;
use crate::config;
use crate::error::Error;
use crate::gateway::Gateway;
use crate::gateway::agents::Consultation;
use crate::tool::mcp::Server;

/// The first of the codes that JSON-RPC leaves to servers.
const SERVER_ERROR: ErrorCode = ErrorCode(-32000);

/// A kind of thing that is listed.
pub(super) struct Kind {
    method: &'static str,
    /// Where a list of them stands in its result.
    key: &'static str,
    /// What each is known by.
    id: &'static str,
    /// Whether a server has them.
    has: fn(&ServerCapabilities) -> bool,
}

pub(super) const RESOURCES: Kind = Kind {
    method: "resources/list",
    key: "resources",
    id: "uri",
    has: |can| can.resources.is_some(),
};
pub(super) const TEMPLATES: Kind = Kind {
    method: "resources/templates/list",
    key: "resourceTemplates",
    id: "uriTemplate",
    has: |can| can.resources.is_some(),
};
pub(super) const PROMPTS: Kind =
    Kind { method: "prompts/list", key: "prompts", id: "name", has: |can| can.prompts.is_some() };

// === impl Visit ===

impl Visit {
    pub(super) fn names<'a>(&self, server: &'a str) -> Names<'a> {
        Names { server, bare: self.house.config.mcp.bare }
    }

    /// Whether this caller may have a thing of a server's. Things are called as tools are:
    /// `SERVER.THING`.
    fn may(&self, patterns: &[String], server: &Server, own: &str) -> bool {
        let name = format!("{}.{own}", server.name());
        let is_offered = patterns.iter().any(|pattern| config::means(pattern, &name));
        is_offered && !leads_up(own) && self.caller.may_use_tool(&name)
    }

    pub(super) fn servers(&self) -> impl Iterator<Item = Arc<Server>> {
        self.house.toolbox.servers().filter(|server| !server.is_internal())
    }

    /// Whose resource this is, and what it calls it.
    pub(super) fn resource(&self, uri: &str) -> Option<(Arc<Server>, String)> {
        let patterns = &self.house.config.mcp.resources;
        self.servers().find_map(|server| {
            let own = self.names(server.name()).own_uri(uri)?.to_owned();
            self.may(patterns, &server, &own).then_some((server, own))
        })
    }

    pub(super) fn prompt(&self, name: &str) -> Option<(Arc<Server>, String)> {
        let patterns = &self.house.config.mcp.prompts;
        self.servers().find_map(|server| {
            let own = self.names(server.name()).own_name(name)?.to_owned();
            self.may(patterns, &server, &own).then_some((server, own))
        })
    }

    /// All of a kind that this caller may have, server by server. One that is away has none.
    pub(super) async fn list(&self, kind: &Kind) -> Value {
        let mcp = &self.house.config.mcp;
        let patterns = if kind.is_named() { &mcp.prompts } else { &mcp.resources };
        let theirs = self.servers().map(|server| async move {
            let mut items = theirs(&server, kind).await;
            items.retain_mut(|item| self.rename(item, kind, &server, patterns));
            items
        });
        let items: Vec<Value> = join_all(theirs).await.into_iter().flatten().collect();
        let mut result = json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private"});
        result[kind.key] = Value::from(items);
        result
    }

    /// Gives a thing the name that it has here; says whether this caller may have it.
    fn rename(&self, item: &mut Value, kind: &Kind, server: &Server, patterns: &[String]) -> bool {
        let Some(own) = item[kind.id].as_str() else { return false };
        if !self.may(patterns, server, own) {
            return false;
        }
        let names = self.names(server.name());
        let id = if kind.is_named() { names.name(own) } else { names.uri(own) };
        item[kind.id] = Value::from(id);
        true
    }
}

// === impl Kind ===

impl Kind {
    /// Whether it is known by a name, and not by an address.
    fn is_named(&self) -> bool {
        self.id == "name"
    }
}

async fn theirs(server: &Server, kind: &Kind) -> Vec<Value> {
    if !(kind.has)(&server.capabilities().await) {
        return Vec::new();
    }
    server.list(kind.method, kind.key).await.unwrap_or_else(|error| {
        let (server, why) = (&**server.name(), &*error.message);
        tracing::debug!(server, why, "an MCP server does not list what it has");
        Vec::new()
    })
}

/// Asks a server in the name of a client, and brings what each wants to know of the other.
async fn relay(
    asking: &mut Consultation,
    visit: &Visit,
    server: &Server,
    (method, mut params): (&str, Value),
    context: &RequestContext<RoleServer>,
    state: &State,
) -> Result<Value, ErrorData> {
    // What stands beside the request is between the client and us.
    params["_meta"] =
        passed(context).fields().map(|(name, it)| (name.to_owned(), json!(it))).collect();
    for _ in 0..MOST_ROUNDS {
        let (listener, asides) = listener(context, state.level(), None);
        let work = async |listener| server.ask((method, params.clone()), Some(&listener)).await;
        let asked = asking.overhear(listener, work);
        let mut result = Box::pin(attend(asked, asides, context)).await?;
        if result["resultType"] != "input_required" || !is_old(context) {
            visit.names(server.name()).readdress(&mut result);
            return Ok(result);
        }
        asking.look_at(&mut result).await.map_err(|error| kept(&error))?;
        let wants: InputRequiredResult = read(result)?;
        let resumed = answers(wants, context).await?;
        let said = asking.answered(json!(resumed.responses)).await;
        params["inputResponses"] = said.map_err(|error| kept(&error))?;
        params["requestState"] = json!(resumed.state);
    }
    Err(ErrorData::internal_error("the server wanted to be asked again too often", None))
}

/// The same by the door that calls of tools go through: with limits, guards and a record.
pub(super) async fn consult(
    gateway: &Arc<Gateway>,
    visit: &Visit,
    server: &Server,
    (method, params): (&str, Value),
    context: &RequestContext<RoleServer>,
    state: &State,
) -> Result<Value, ErrorData> {
    let by = (&visit.caller, Arc::clone(&visit.house));
    let name = format!("{}.{method}", server.name());
    let mut asking = gateway.consult(by, &name, params).await.map_err(|error| kept(&error))?;
    let asked = (method, asking.args.clone());
    let said = relay(&mut asking, visit, server, asked, context, state).await;
    let heard = asking.heard(said.map_err(|error| json!(error))).await;
    match heard.map_err(|error| kept(&error))? {
        Ok(result) => Ok(result),
        Err(error) => Err(read(error)?),
    }
}

/// Why something is not told.
pub(super) fn kept(error: &Error) -> ErrorData {
    let mut about = json!({"type": error.kind.code(), "message": error.message});
    if let Some(wait) = error.retry_after {
        about["retry_after"] = json!(wait.as_secs_f64());
    }
    let code = match error.status() {
        // Nothing is wrong with what was asked.
        429 | 500.. => SERVER_ERROR,
        _ => ErrorCode::INVALID_REQUEST,
    };
    ErrorData::new(code, error.message.clone(), Some(json!({"error": about})))
}

/// A value in the form that the protocol has for it.
pub(super) fn read<T: serde::de::DeserializeOwned>(value: Value) -> Result<T, ErrorData> {
    let strange = |error: serde_json::Error| {
        ErrorData::internal_error(format!("the server answered something else: {error}"), None)
    };
    serde_json::from_value(value).map_err(strange)
}

pub(super) fn no_resource(uri: &str) -> ErrorData {
    ErrorData::resource_not_found("Resource not found", Some(json!({"uri": uri})))
}

/// An address that leads out of where it seems to lie would be let through by a pattern.
fn leads_up(uri: &str) -> bool {
    let uri = uri.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/");
    uri.split(['/', '\\']).any(|piece| piece == "..")
}
