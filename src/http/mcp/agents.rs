//! Agents as tools: `agent_NAME` begins a run and gives what it says.

use std::future::poll_fn;
use std::sync::Arc;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ContentBlock, ProgressNotificationParam, Tool as Listed,
};
use rmcp::service::RequestContext;
use serde_json::{Map, Value, json};

use super::answer::{erred, refused};
use super::offer::{IDEMPOTENCY_KEY, TRACEPARENT, Visit, said};
use crate::cache::Next;
use crate::canon::{ChatRequest, Event, Message, Part, Role, RunState, Trace};
use crate::dialect::fold::Fold;
use crate::gateway::Gateway;
use crate::gateway::agents::{Performance, Report, RunWishes};

const PREFIX: &str = "agent_";

/// What the agents of this caller are called here.
pub(super) fn listed(visit: &Visit) -> Vec<Listed> {
    let config = &visit.house.config;
    let list = |name: &str| {
        let agent = config.agents.get(name)?;
        let schema = Arc::new(schema());
        Some(Listed::new(format!("{PREFIX}{name}"), agent.description.clone(), schema))
    };
    offered(visit).filter_map(list).collect()
}

/// The agent that a tool of this name is, if this caller is offered it.
pub(super) fn named<'a>(visit: &'a Visit, tool: &str) -> Option<&'a str> {
    let name = tool.strip_prefix(PREFIX)?;
    offered(visit).find(|offered| *offered == name)
}

fn offered(visit: &Visit) -> impl Iterator<Item = &str> {
    let patterns = &visit.house.config.mcp.agents;
    visit.house.agents(&visit.caller).filter(move |name| {
        patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => pattern == name,
        })
    })
}

fn schema() -> Map<String, Value> {
    let schema = json!({
        "type": "object",
        "properties": {
            "input": {"type": "string", "description": "What the agent is to do or to answer."},
            "session": {
                "type": "string",
                "description": "The conversation that this belongs to. Without it, it is a new one.",
            },
        },
        "required": ["input"],
        "additionalProperties": false,
    });
    match schema {
        Value::Object(schema) => schema,
        _ => Map::new(),
    }
}

pub(super) async fn run(
    gateway: &Arc<Gateway>,
    (visit, agent): (&Visit, &str),
    (request, context): (CallToolRequestParams, &RequestContext<RoleServer>),
) -> CallToolResult {
    let arguments = request.arguments.unwrap_or_default();
    let text = |key: &str| arguments.get(key).and_then(Value::as_str).map(str::to_owned);
    let known = arguments
        .iter()
        .all(|(key, value)| matches!(key.as_str(), "input" | "session") && value.is_string());
    let Some(input) = text("input").filter(|_| known) else {
        let message = "takes `input`, and perhaps `session`, which are texts";
        return refused("invalid_arguments", message, None);
    };
    let question = Message::new(Role::User, vec![Part::text(input)]);
    let asked = ChatRequest { messages: vec![question], stream: true, ..ChatRequest::default() };
    let wishes = RunWishes {
        session: text("session"),
        idempotency_key: said(context, IDEMPOTENCY_KEY),
        trace: said(context, TRACEPARENT).and_then(|parent| Trace::read(&parent, None)),
        ..RunWishes::default()
    };
    let caller = &visit.caller;
    match gateway.commission(caller, agent, (asked, wishes), false).await {
        Ok(performance) => follow(performance, context).await,
        Err(error) => erred(&error),
    }
}

/// Follows a run to its end, and tells of its steps where that is wanted.
async fn follow(
    mut performance: Performance,
    context: &RequestContext<RoleServer>,
) -> CallToolResult {
    let (mut fold, mut steps) = (Fold::default(), 0_u32);
    loop {
        let events = match poll_fn(|it| performance.follower.poll_next(it)).await {
            Next::Events(events) => events,
            Next::End => break,
            Next::Failed(error) => {
                return error.map_or_else(
                    || refused("internal", "the run broke off", None),
                    |error| erred(&error),
                );
            }
        };
        for event in events.iter() {
            if let Event::Aside(step) = event {
                steps += 1;
                progress(context, (steps, step)).await;
            }
            fold.add(event);
        }
    }
    let report = performance.report.borrow().clone();
    match fold.finish() {
        Ok(answer) => {
            let said = answer.choices.first().map(|choice| &choice.parts);
            let text: String = said.into_iter().flatten().filter_map(Part::as_text).collect();
            told(&text, &performance, &report)
        }
        Err(failure) => {
            let message = failure.map_or_else(|| "the run broke off".to_owned(), |it| it.message);
            refused("run_failed", &message, None)
        }
    }
}

async fn progress(context: &RequestContext<RoleServer>, (steps, step): (u32, &str)) {
    let Some(token) = context.meta.get_progress_token() else { return };
    let progress = ProgressNotificationParam::new(token, f64::from(steps)).with_message(step);
    // Who has left needs no progress.
    let _ = context.peer.notify_progress(progress).await;
}

fn told(text: &str, performance: &Performance, report: &Report) -> CallToolResult {
    let mut result = CallToolResult::success(vec![ContentBlock::text(text)]);
    let failed =
        matches!(report.state, RunState::Failed | RunState::Rejected | RunState::Cancelled);
    result.is_error = Some(failed);
    result.structured_content = Some(json!({
        "answer": text,
        "run_id": performance.run.to_string(),
        "version": &*performance.version,
        "status": report.state.name(),
        "stop_reason": report.reason,
        "approvals": report.approvals,
    }));
    result
}
