//! The tools that there are, called without an agent by whoever was given them, and what is known
//! of them since they were first seen.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Answer, Asked, Door, told, views};
use crate::canon::{Effect, RunId};
use crate::error::{Error, Kind};
use crate::tool::{Failure, FailureKind, Health, Invocation, Output, PinStatus, Source, Tool};

pub(super) async fn list(door: Door, asked: Asked) -> Answer {
    asked.query(&[])?;
    let house = door.gateway.snapshot();
    let known = house.toolbox.all();
    let shown: Vec<Value> =
        known.iter().filter(|tool| may_see(&asked, tool)).map(|tool| view(tool)).collect();
    std::future::ready(told(&views::page(&shown, None))).await
}

pub(super) async fn get(door: Door, asked: Asked) -> Answer {
    asked.query(&[])?;
    let tool = find(&door, &asked)?;
    std::future::ready(told(&view(&tool))).await
}

/// Calls a tool as an agent would, but for approvals: what needs one is for operators only.
pub(super) async fn call(door: Door, asked: Asked) -> Answer {
    let tool = find(&door, &asked)?;
    asked.says(&["args"])?;
    demand(&asked, &tool)?;
    let args = asked.body.get("args").cloned().unwrap_or_else(|| json!({}));
    tool.check(&args).map_err(|failure| refused(&tool, &failure))?;
    let key = asked.header("idempotency-key").map(|key| format!("{}:{key}", asked.by()));
    let invocation = Invocation {
        args,
        idempotency_key: key.unwrap_or_else(|| RunId::new().simple()),
        user: Some(Arc::clone(asked.caller.user().unwrap_or_else(|| asked.caller.owner()))),
        traceparent: asked.header("traceparent").map(str::to_owned),
        deadline: Instant::now() + tool.terms.timeout * tool.terms.retry.attempts.max(1),
        answer: None,
        listener: None,
    };
    let output = tool.call(&invocation).await.map_err(|failure| refused(&tool, &failure))?;
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
    let shown: Vec<Value> = source.pins().iter().map(pin).collect();
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
    let tool = door.gateway.snapshot().toolbox.get(&asked.id);
    tool.filter(|tool| may_see(asked, tool))
        .ok_or_else(|| Error::new(Kind::ToolNotFound, format!("There is no tool `{}`.", asked.id)))
}

fn may_see(asked: &Asked, tool: &Tool) -> bool {
    asked.operates() || (asked.caller.may_use_tool(&tool.name) && !tool.terms.internal)
}

/// A key that says nothing of tools uses them through agents only. So does everybody, where a
/// person is to be asked first.
fn demand(asked: &Asked, tool: &Tool) -> Result<(), Error> {
    if asked.operates() {
        return Ok(());
    }
    if !asked.caller.is_given_tool(&tool.name) {
        let message = format!("The tool `{}` is not among the `tools` of this key.", tool.name);
        return Err(Error::new(Kind::NotAllowed, message));
    }
    let terms = &tool.terms;
    if terms.approval.is_some() || (terms.high_risk && tool.effect != Effect::Read) {
        let message = format!("The tool `{}` needs an approval; call it by an agent.", tool.name);
        return Err(Error::new(Kind::NotAllowed, message));
    }
    Ok(())
}

fn view(tool: &Tool) -> Value {
    let health = match tool.health() {
        Health::Up => json!({"state": "up"}),
        Health::Down { why, retry_after } => json!({"state": "down", "reason": why,
            "retry_after": retry_after.map(|it| it.as_secs())}),
    };
    json!({
        "name": &*tool.name,
        "object": "tool",
        "alias": &*tool.alias,
        "kind": tool.terms.kind.name(),
        "version": tool.terms.version,
        "description": tool.description,
        "effect": tool.effect.name(),
        "high_risk": tool.terms.high_risk,
        "needs_approval": tool.terms.approval.is_some(),
        "input_schema": tool.input,
        "health": health,
    })
}

fn pin(pin: &PinStatus) -> Value {
    json!({"tool": pin.tool, "pinned": pin.pinned, "seen": pin.seen, "changed": pin.changed})
}

fn result(tool: &Tool, output: &Output) -> Value {
    json!({
        "object": "tool.result",
        "tool": &*tool.name,
        "text": views::text(&output.parts),
        "value": output.value,
        "truncated": output.truncated,
        "cached": output.cached,
        "attempts": output.attempts,
    })
}

fn refused(tool: &Tool, failure: &Failure) -> Error {
    let kind = match &failure.kind {
        FailureKind::Invalid => Kind::InvalidRequest,
        FailureKind::RateLimited => Kind::RateLimited,
        FailureKind::Unavailable => Kind::Overloaded,
        FailureKind::Refused => Kind::NotAllowed,
        FailureKind::Timeout => Kind::UpstreamTimeout,
        _ => Kind::ToolFailed,
    };
    let message = format!("{} ({}): {}", tool.name, failure.kind.name(), failure.message);
    Error { retry_after: failure.retry_after, ..Error::new(kind, message) }
}
