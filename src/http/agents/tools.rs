//! The tools that there are, called without an agent by whoever was given them, and what is known
//! of them since they were first seen.

use std::sync::Arc;

use rmcp::model::ContentBlock;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Answer, Asked, Door, registry, told, views};
use crate::canon::{Part, RunId};
use crate::config::{self, Pace, ToolKind};
use crate::error::{Error, Kind, retry_after_seconds};
use crate::gateway::passed_in;
use crate::http::mcp;
use crate::tool::{DELEGATE, Health, Invocation, Output, PinStatus, Source, Tool};

pub(super) async fn list(door: Door, asked: Asked) -> Answer {
    asked.query(&["agent"])?;
    let house = door.gateway.snapshot();
    let of = match asked.field("agent") {
        Some(agent) => Some(registry::tools(&door, &asked, agent).await?),
        None => None,
    };
    let known = match &of {
        Some(names) => names.iter().filter_map(|name| house.toolbox.get(name)).collect(),
        None => house.toolbox.all(),
    };
    // Who may run an agent may have it ask those that it has.
    let is_its = |tool: &Tool| of.is_some() && is_delegate(tool);
    let is_seen = |tool: &Tool| is_its(tool) || may_see(&asked, tool);
    let seen = known.iter().filter(|tool| is_seen(tool));
    let mut shown: Vec<Value> = seen.map(|tool| view(tool, &house.toolbox.health(tool))).collect();
    let of_it = |source: &str| {
        let names = |name: &String| name.split_once('.').is_some_and(|(own, _)| own == source);
        of.as_ref().is_none_or(|of| of.iter().any(names))
    };
    let unlisted = house.toolbox.unlisted();
    let unlisted = unlisted.filter(|(source, ..)| asked.operates() && of_it(source));
    shown.extend(unlisted.map(|(source, terms, health)| unlisted_view(source, terms, &health)));
    told(&views::page(&shown, None))
}

pub(super) async fn get(door: Door, asked: Asked) -> Answer {
    asked.query(&[])?;
    let tool = find(&door, &asked)?;
    let health = door.gateway.snapshot().toolbox.health(&tool);
    std::future::ready(told(&view(&tool, &health))).await
}

/// Calls a tool as an agent would, but for approvals: only runs wait for people.
pub(super) async fn call(door: Door, asked: Asked) -> Answer {
    let tool = find(&door, &asked)?;
    asked.says(&["args"])?;
    demand(&asked, &tool)?;
    let args = asked.body.get("args").cloned().unwrap_or_else(|| json!({}));
    let key = asked.header("idempotency-key").map(|key| format!("{}:{key}", asked.by()));
    let invocation = Invocation {
        args,
        idempotency_key: key.unwrap_or_else(|| RunId::new().simple()),
        user: Some(asked.caller.person()),
        passed: passed_in(&asked.headers),
        deadline: Instant::now() + tool.terms.timeout * tool.terms.retry.attempts.max(1),
        answer: None,
        listener: None,
    };
    let by = (&asked.caller, door.gateway.snapshot());
    let made = door.gateway.call_tool(by, &tool, invocation).await;
    let output = made.map_err(|unmade| unmade.into_error(&tool))?;
    told(&result(&tool, &output))
}

pub(super) async fn pins(door: Door, asked: Asked) -> Answer {
    asked.query(&[])?;
    let source = source(&door, &asked)?;
    let shown: Vec<Value> = source.pins().iter().map(pin).collect();
    std::future::ready(told(&views::page(&shown, None))).await
}

/// Takes a tool as it is now for the one that is meant.
pub(super) async fn approve_pin(door: Door, asked: Asked) -> Answer {
    let source = source(&door, &asked)?;
    asked.says(&["tool"])?;
    let tool = asked.needed("tool")?;
    let approved = source.approve_pin(&tool).await;
    approved.map_err(|why| Error::invalid(format!("`{tool}`: {why}.")))?;
    let pins = source.pins();
    let approved = pins.iter().find(|pin| pin.tool == tool).map(pin);
    let subject = format!("tool:{}.{tool}", asked.id);
    door.notes(&asked, "tool.pin", subject, &json!(approved)).await?;
    let shown: Vec<Value> = pins.iter().map(pin).collect();
    told(&views::page(&shown, None))
}

/// A source, for those who answer for what its tools do.
fn source(door: &Door, asked: &Asked) -> Result<Arc<dyn Source>, Error> {
    let house = door.gateway.snapshot();
    let missing = || {
        let message = format!("There is no source of tools `{}`.", asked.id);
        Error::new(Kind::ToolNotFound, message)
    };
    let found = house.toolbox.source(&asked.id).filter(|_| asked.operates());
    found.cloned().ok_or_else(missing)
}

fn find(door: &Door, asked: &Asked) -> Result<Arc<Tool>, Error> {
    let (house, name) = (door.gateway.snapshot(), &asked.id);
    let tool = house.toolbox.get(name).filter(|tool| may_see(asked, tool));
    let is_known = || asked.operates() || asked.caller.may_use_tool(name);
    tool.ok_or_else(|| match house.toolbox.missing(std::slice::from_ref(name)).first() {
        Some(_) if is_known() => {
            let message = format!("The server of `{name}` could not be asked what tools it has.");
            Error::new(Kind::Overloaded, message)
        }
        _ => Error::new(Kind::ToolNotFound, format!("There is no tool `{name}`.")),
    })
}

fn may_see(asked: &Asked, tool: &Tool) -> bool {
    asked.operates() || (asked.caller.may_use_tool(&tool.name) && !tool.terms.internal)
}

/// Whether it is there because an agent names another one.
fn is_delegate(tool: &Tool) -> bool {
    matches!(tool.terms.kind, ToolKind::Agent(_)) && tool.name.starts_with(DELEGATE)
}

/// A key that says nothing of tools uses them through agents only.
fn demand(asked: &Asked, tool: &Tool) -> Result<(), Error> {
    if asked.operates() || asked.caller.is_given_tool(&tool.name) {
        return Ok(());
    }
    let message = format!("The tool `{}` is not among the `tools` of this key.", tool.name);
    Err(Error::new(Kind::NotAllowed, message))
}

fn condition(health: &Health) -> Value {
    match health {
        Health::Up => json!({"state": "available"}),
        Health::Down { why, retry_after } => json!({"state": "unavailable", "reason": why,
            "retry_after": retry_after.map(retry_after_seconds)}),
        Health::Blocked { why } => json!({"state": "blocked", "reason": why}),
    }
}

/// In the place of all tools of a source.
fn unlisted_view(source: &str, terms: &config::Tool, health: &Health) -> Value {
    json!({
        "name": format!("{source}.*"),
        "object": "tool",
        "alias": null,
        "kind": terms.kind.name(),
        "version": terms.version,
        "description": terms.description,
        "effect": terms.effect.name(),
        "high_risk": terms.high_risk,
        "needs_approval": terms.approval.is_some(),
        "limits": limits(terms),
        "input_schema": null,
        "output_schema": null,
        "health": condition(health),
    })
}

fn view(tool: &Tool, health: &Health) -> Value {
    json!({
        "name": &*tool.name,
        "object": "tool",
        "alias": &*tool.alias,
        "kind": tool.terms.kind.name(),
        "version": tool.version,
        "description": tool.description,
        "effect": tool.effect.name(),
        "high_risk": tool.terms.high_risk,
        "needs_approval": tool.approval().is_some(),
        "limits": limits(&tool.terms),
        "input_schema": tool.input,
        "output_schema": tool.output,
        "health": condition(health),
    })
}

/// As they are written in the config.
fn limits(terms: &config::Tool) -> Value {
    let limits = &terms.limits;
    let told = |paces: &[Pace]| -> Vec<Value> {
        let told = |it: &Pace| json!({"calls": it.amount, "seconds": it.seconds});
        paces.iter().map(told).collect()
    };
    json!({"tool": told(&limits.tool), "user": told(&limits.user), "run": limits.run})
}

fn pin(pin: &PinStatus) -> Value {
    json!({"tool": pin.tool, "pinned": pin.pinned, "seen": pin.seen, "changed": pin.changed})
}

/// All parts as MCP has them, where not all of it is text.
fn content(parts: &[Part]) -> Option<Vec<ContentBlock>> {
    let is_more = parts.iter().any(|part| part.as_text().is_none());
    is_more.then(|| parts.iter().cloned().filter_map(mcp::block).collect())
}

fn result(tool: &Tool, output: &Output) -> Value {
    json!({
        "object": "tool.result",
        "tool": &*tool.name,
        "text": views::text(&output.parts),
        "value": output.value,
        "content": content(&output.parts),
        "truncated": output.truncated,
        "cached": output.cached,
        "attempts": output.attempts,
    })
}
