//! Tools that are operations of an HTTP API, made of the document that describes it.

mod document;
mod operation;
mod request;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use self::document::Document;
use self::operation::Operation;
use super::egress::{Request, Site};
use super::http::JSON;
use super::kept::Net;
use super::{Answer, Attempt, Definition, Failure, Invocation, Runner, Tool};
use crate::canon::Effect;
use crate::config::{self, OpenApiTool, ToolAuth};

/// One operation and the server that has it.
#[derive(Debug)]
struct Endpoint {
    site: Arc<Site>,
    operation: Operation,
    effect: Effect,
    keyed: bool,
}

/// The operations of a document that are meant.
pub(super) fn tools(
    name: &str,
    terms: &Arc<config::Tool>,
    tool: &OpenApiTool,
    net: &Net,
) -> Result<Vec<Tool>, String> {
    let mut sites: BTreeMap<String, Arc<Site>> = BTreeMap::new();
    let mut tools = Vec::new();
    for (operation, is_named) in operations(tool)? {
        let id = operation.id.clone();
        let named = |why: String| format!("{id}: {why}");
        let url = server(tool, &operation).map_err(named)?;
        let site = match sites.get(&url) {
            Some(site) => Arc::clone(site),
            None => Arc::new(Site::new(net, &url, &tool.web, terms).map_err(named)?),
        };
        sites.insert(url, Arc::clone(&site));
        let effect = terms.effect_of(&id).unwrap_or_else(|| usual_effect(&operation.method));
        let definition = Definition {
            name: format!("{name}.{id}"),
            description: operation.description.clone(),
            effect,
            input: operation.input.clone(),
            output: operation.output.clone(),
            is_held_to_it: tool.check_output,
            version: None,
            terms: Arc::clone(terms),
        };
        let runner = Endpoint { site, operation, effect, keyed: tool.idempotency };
        match Tool::new(definition, Arc::new(runner)) {
            Ok(tool) => tools.push(tool),
            Err(why) if is_named => return Err(named(why)),
            Err(why) => left_out(name, &id, &why),
        }
    }
    Ok(tools)
}

/// Those that are named must be there and be usable; of all others only a word is said.
fn operations(tool: &OpenApiTool) -> Result<Vec<(Operation, bool)>, String> {
    let source = tool.spec.display().to_string();
    let document = Document::parse(&tool.document).map_err(|why| format!("{source}: {why}"))?;
    let known = document.operations().map_err(|why| format!("{source}: {why}"))?;
    let include = tool.include.as_deref();
    for wanted in include.into_iter().flatten().filter(|it| !it.ends_with('*')) {
        if !known.iter().any(|(id, _)| id == wanted) {
            let near = config::suggestion(wanted, known.iter().map(|(id, _)| id.as_str()));
            return Err(format!("{source} has no operation \"{wanted}\"{near}"));
        }
    }
    let taken = taken(tool);
    let mut found = Vec::new();
    for (id, site) in known {
        let is_named = include.is_some_and(|include| include.contains(&id));
        let fits = |pattern: &String| {
            pattern.strip_suffix('*').is_some_and(|prefix| id.starts_with(prefix))
        };
        if !is_named && !include.is_none_or(|include| include.iter().any(fits)) {
            continue;
        }
        let made = document.operation(&id, site, &taken).and_then(|operation| {
            let output = match document.output(site.operation) {
                Err(why) if tool.check_output => return Err(why),
                output => output.unwrap_or_default(),
            };
            Ok(Operation { output, ..operation })
        });
        match made {
            Ok(operation) => found.push((operation, is_named)),
            Err(why) if is_named => return Err(format!("{id}: {why}")),
            Err(why) => left_out(&source, &id, &why),
        }
    }
    Ok(found)
}

fn left_out(source: &str, id: &str, why: &str) {
    tracing::warn!(source, operation = id, why, "an operation cannot be a tool");
}

/// Headers that the operator sends.
fn taken(tool: &OpenApiTool) -> Vec<String> {
    let mut taken: Vec<String> = tool.web.headers.keys().cloned().collect();
    if let Some(ToolAuth::Header { name, .. }) = &tool.web.auth {
        taken.push(name.clone());
    }
    taken
}

/// Where the operator says, or else where the document does.
fn server(tool: &OpenApiTool, operation: &Operation) -> Result<String, String> {
    let named = operation.server.as_deref();
    let absolute = named.filter(|url| url.starts_with("https://") || url.starts_with("http://"));
    match (tool.base_url.as_deref(), absolute) {
        (Some(url), _) | (None, Some(url)) => Ok(url.trim_end_matches('/').to_owned()),
        (None, None) => {
            Err("the document does not say where its server is; write `base_url`".to_owned())
        }
    }
}

/// What HTTP says of its methods (RFC 9110, section 9.2).
fn usual_effect(method: &str) -> Effect {
    match method {
        "GET" | "HEAD" | "OPTIONS" => Effect::Read,
        "PUT" | "DELETE" => Effect::Idempotent,
        _ => Effect::Once,
    }
}

// === impl Endpoint ===

impl Endpoint {
    async fn run(&self, call: &Invocation) -> Result<Answer, Failure> {
        let spelled = self.operation.spell(&call.args)?;
        let media_type = self.operation.media_type.clone().unwrap_or(JSON);
        let body = spelled.body.map(|body| (media_type, Bytes::from(body.to_string())));
        let request = Request {
            method: &self.operation.method,
            path: &spelled.path,
            headers: &spelled.headers,
            body,
            effect: self.effect,
            keyed: self.keyed,
        };
        self.site.call(request, call).await?.into_answer()
    }
}

impl Runner for Endpoint {
    fn attempt<'a>(&'a self, call: &'a Invocation) -> Attempt<'a> {
        Box::pin(self.run(call))
    }
}
