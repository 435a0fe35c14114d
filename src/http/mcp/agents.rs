//! Agents as tools: `agent_NAME` begins a run and gives what it says.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use rmcp::RoleServer;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock,
    ProgressNotificationParam, Tool as Listed,
};
use rmcp::service::RequestContext;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use super::answer::{erred, refused};
use super::asking::{Asked, Reply, can_ask};
use super::offer::{IDEMPOTENCY_KEY, Visit, said};
use crate::cache::Next;
use crate::canon::{
    CallId, ChatRequest, Event, Message, Owner, Part, Role, RunId, RunState, Trace, baggage_of,
};
use crate::config::{self, OnLeave, StreamMode};
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
    let is_offered = |name: &str| patterns.iter().any(|pattern| config::means(pattern, name));
    visit.house.agents(&visit.caller).filter(move |name| is_offered(name))
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
    visit: &Visit,
    agent: &str,
    request: CallToolRequestParams,
    context: &RequestContext<RoleServer>,
) -> CallToolResponse {
    let mut asked = Asked::of(&request);
    let arguments = request.arguments.unwrap_or_default();
    let text = |key: &str| arguments.get(key).and_then(Value::as_str).map(str::to_owned);
    let known = arguments
        .iter()
        .all(|(key, value)| matches!(key.as_str(), "input" | "session") && value.is_string());
    let Some(input) = text("input").filter(|_| known) else {
        let message = "takes `input`, and perhaps `session`, which are texts";
        return refused("invalid_arguments", message, None).into();
    };
    // What a run wants to know is answered in its conversation; whoever has not looked at it says
    // nothing there, and is told how the run stands.
    let is_again = asked.call.is_some();
    let mut words = if is_again { asked.answer.take().as_ref().map(spoken) } else { Some(input) };
    let session = text("session").or_else(|| asked.call.take());
    let session = session.unwrap_or_else(|| format!("mcp-{}", CallId::new().simple()));
    let keeps = arguments.contains_key("session") || can_ask(context);
    let mut key = said(context, IDEMPOTENCY_KEY);
    let keepalive = visit.house.config.server.keepalive;
    loop {
        let is_heard = words.is_some();
        let said = words.map(|text| Message::new(Role::User, vec![Part::text(text)]));
        let messages = said.into_iter().collect();
        let chat = ChatRequest { messages, stream: true, ..ChatRequest::default() };
        let wishes = wishes(context, keeps.then(|| session.clone()), key.take());
        let performance = gateway.commission(&visit.caller, agent, (chat, wishes), false).await;
        let performance = match performance {
            Ok(performance) => performance,
            Err(error) => return erred(&error).into(),
        };
        // Nobody else knows of a conversation that has no name of its client's.
        let is_ours = !arguments.contains_key("session");
        let leaves = Leaves::of(gateway, visit, performance.run, is_ours);
        let (result, question) = follow(performance, context, keepalive).await;
        let Some(question) = question.filter(|_| keeps && is_heard) else {
            leaves.stays();
            return result.into();
        };
        let schema = json!({
            "type": "object",
            "properties": {"answer": {"type": "string"}},
            "required": ["answer"],
        });
        let reply = asked.ask(context, (&question, &schema), &session).await;
        if !matches!(reply, Reply::Gone) {
            leaves.stays();
        }
        match reply {
            Reply::Later(response) => return response,
            Reply::Now(answer) => words = Some(spoken(&answer)),
            Reply::Never | Reply::Gone => return result.into(),
        }
    }
}

fn wishes(
    context: &RequestContext<RoleServer>,
    session: Option<String>,
    idempotency_key: Option<String>,
) -> RunWishes {
    let state = said(context, "tracestate");
    RunWishes {
        session,
        idempotency_key,
        trace: said(context, "traceparent")
            .and_then(|parent| Trace::read(&parent, state.as_deref())),
        baggage: said(context, "baggage").as_deref().and_then(baggage_of),
        // The answer is the result; what is done meanwhile is progress.
        stream: Some(StreamMode::Final),
        ..RunWishes::default()
    }
}

/// What a person has said, as it is said to the run: `null` is a no.
fn spoken(answer: &Value) -> String {
    if answer.is_null() {
        return answer.to_string();
    }
    answer["answer"].as_str().unwrap_or_default().to_owned()
}

/// Ends a run when the call that wants it is called off: also where it waits for an answer, which
/// nobody works at then.
struct Leaves {
    gateway: Arc<Gateway>,
    run: Option<(RunId, Owner)>,
}

/// Follows a run as far as it comes, and tells of its steps where that is wanted; of one that takes
/// long again, for clients that give up without a sign of life. Says too what it wants to know, if
/// it waits for that.
async fn follow(
    mut performance: Performance,
    context: &RequestContext<RoleServer>,
    keepalive: Duration,
) -> (CallToolResult, Option<String>) {
    let (mut fold, mut told_of, mut step) = (Fold::default(), 0_u32, "at work".to_owned());
    let mut told_at = Instant::now();
    loop {
        let next = poll_fn(|it| performance.follower.poll_next(it));
        let events = match timeout_at(told_at + keepalive, next).await {
            Err(_) => {
                told_of += 1;
                told_at = Instant::now();
                progress(context, told_of, &step).await;
                continue;
            }
            Ok(Next::Events(events)) => events,
            Ok(Next::End) => break,
            Ok(Next::Failed(error)) => {
                let broken = || refused("internal", "the run broke off", None);
                return (error.map_or_else(broken, |error| erred(&error)), None);
            }
        };
        for event in events.iter() {
            if let Event::Aside(begun) = event {
                told_of += 1;
                told_at = Instant::now();
                step.clone_from(begun);
                progress(context, told_of, &step).await;
            }
            fold.add(event);
        }
    }
    let report = performance.report.borrow().clone();
    match fold.finish() {
        Ok(answer) => {
            let said = answer.choices.first().map(|choice| &choice.parts);
            let text: String = said.into_iter().flatten().filter_map(Part::as_text).collect();
            let question = asks_user(&report).then(|| text.clone());
            (told(&text, &performance, &report), question)
        }
        Err(failure) => {
            let message = failure.map_or_else(|| "the run broke off".to_owned(), |it| it.message);
            (refused("run_failed", &message, None), None)
        }
    }
}

/// Whether what a run has said is a question to its user, its own or that of one below it.
fn asks_user(report: &Report) -> bool {
    let asks = || report.approvals.iter().any(|asked| asked["type"] == "input");
    match report.state {
        RunState::WaitingInput => true,
        RunState::WaitingChild => asks(),
        _ => false,
    }
}

// === impl Leaves ===

impl Leaves {
    fn of(gateway: &Arc<Gateway>, visit: &Visit, run: RunId, is_ours: bool) -> Self {
        let ends = visit.house.config.agent_engine.on_disconnect == OnLeave::Cancel && is_ours;
        let owner = Owner::new(Arc::clone(visit.caller.owner()));
        Self { gateway: Arc::clone(gateway), run: ends.then_some((run, owner)) }
    }

    /// The call has its answer.
    fn stays(mut self) {
        self.run = None;
    }
}

impl Drop for Leaves {
    fn drop(&mut self) {
        if let Some((run, owner)) = self.run.take() {
            self.gateway.call_off(run, owner);
        }
    }
}

/// `told_of` only ever grows, as the protocol wants it.
async fn progress(context: &RequestContext<RoleServer>, told_of: u32, step: &str) {
    let Some(token) = context.meta.get_progress_token() else { return };
    let progress = ProgressNotificationParam::new(token, f64::from(told_of)).with_message(step);
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
