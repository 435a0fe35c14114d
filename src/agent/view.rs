//! A run as people and programs are shown it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::below::Below;
use super::definition::Definition;
use super::event::{Created, Event};
use super::journal::now;
use super::run::{Call, Run, Stage};
use super::voice::{Voice, mcp_approval, mcp_call};
use crate::cache::Follower;
use crate::canon::{
    Content, FinishReason, Message, Part, RunId, RunState, StopReason, ToolCall, Usage,
};
use crate::error::{Error, Kind};
use crate::gateway::agents::Performance;
use crate::store::runs::{ApprovalRow, RunRow};

/// What people must say before it goes on.
pub(super) fn pending(run: &Run) -> Vec<Value> {
    run.calls.iter().filter_map(asked).collect()
}

fn asked(call: &Call) -> Option<Value> {
    let request = &call.request;
    match &call.stage {
        Stage::Pending { approval, hash, expires_at } => Some(json!({
            "id": approval,
            "type": "approval",
            "call_id": request.id,
            "tool": request.tool,
            "args": request.args,
            "args_hash": hash,
            "expires_at": expires_at / 1000,
        })),
        Stage::Asking { request: input, message, schema, expires_at, .. } => Some(json!({
            "id": input,
            "type": "input",
            "call_id": request.id,
            "tool": request.tool,
            "message": message,
            "schema": schema,
            "expires_at": expires_at / 1000,
        })),
        Stage::Unknown { .. } => Some(json!({
            "id": request.id,
            "type": "unknown_outcome",
            "tool": request.tool,
            "args": request.args,
        })),
        _ => None,
    }
}

/// What a run asks that belongs to another one.
pub(super) fn asked_below(row: &ApprovalRow) -> Value {
    let args: Value = serde_json::from_str(&row.args).unwrap_or_default();
    json!({
        "id": row.id,
        "type": "approval",
        "run_id": row.run.to_string(),
        "agent": row.agent,
        "call_id": row.call,
        "tool": row.tool,
        "args": args,
        "args_hash": row.hash,
        "expires_at": row.expires_at / 1000,
    })
}

/// The same where runs below it wait for people, too.
fn plea_of(run: &Run, below: &Below, state: RunState) -> String {
    let is_above = state == RunState::WaitingChild;
    let own = own_question(run).filter(|_| is_above).map(str::to_owned);
    let own_tools = tools_to_approve(run).filter(|_| is_above).map(str::to_owned);
    let tools = below.approvals.iter().map(|row| format!("{} of `{}`", row.tool, row.agent));
    let tools: Vec<String> = own_tools.chain(tools).collect();
    let approval = (!tools.is_empty()).then(|| needs_approval(run, &tools.join(", ")));
    let asked = below.askers.iter().map(question);
    let all: Vec<String> = own.into_iter().chain(approval).chain(asked).collect();
    if all.is_empty() { plea(run, state) } else { all.join("\n\n") }
}

/// What its user is asked by it itself.
fn own_question(run: &Run) -> Option<&str> {
    run.calls.iter().find_map(|call| match &call.stage {
        Stage::Asking { message, .. } => Some(message.as_str()),
        _ => None,
    })
}

/// The tools of its own calls that a person must let pass.
fn tools_to_approve(run: &Run) -> impl Iterator<Item = &str> {
    let pending = run.calls.iter().filter(|call| matches!(call.stage, Stage::Pending { .. }));
    pending.map(|call| call.request.tool.as_str())
}

/// What a run asks that belongs to another one, besides approvals.
fn question(run: &Run) -> String {
    let asks = own_question(run).is_some();
    plea(run, if asks { RunState::WaitingInput } else { RunState::WaitingHuman })
}

fn needs_approval(run: &Run, tools: &str) -> String {
    let id = run.id;
    format!(
        "This needs the approval of a person before it goes on: {tools}. The run `{id}` waits for it."
    )
}

/// What a client is told that is waited for.
pub(super) fn plea(run: &Run, state: RunState) -> String {
    let question = own_question(run);
    if let (RunState::WaitingInput, Some(question)) = (state, question) {
        return question.to_owned();
    }
    match state {
        RunState::WaitingApproval => {
            let tools: Vec<&str> = tools_to_approve(run).collect();
            let approval = needs_approval(run, &tools.join(", "));
            match question {
                Some(question) => format!("{question}\n\n{approval}"),
                None => approval,
            }
        }
        RunState::WaitingHuman => {
            let unknown = "nobody knows what became of a call";
            let why = run.escalated.as_ref().map_or(unknown, |it| it.reason.as_str());
            format!("A person has to look at this: {why}. The run `{}` waits.", run.id)
        }
        RunState::Paused => format!("The run `{}` is paused.", run.id),
        _ => format!("The run `{}` waits ({}).", run.id, state.name()),
    }
}

/// What a client hears of a run that rests in this state, behind all that it was asked.
pub(super) fn waits(voice: &Voice, run: &Run, below: &Below, state: RunState) {
    for row in &below.approvals {
        let args = serde_json::from_str(&row.args).unwrap_or_default();
        voice.item(&name(run), mcp_approval(&row.id, &row.tool, &args));
    }
    let name = name(run);
    if state != RunState::WaitingClient {
        return voice.text(&name, &plea_of(run, below, state));
    }
    let open: Vec<&Call> = run.calls.iter().filter(|call| call.stage != Stage::Over).collect();
    if let Some(call) = open.first().filter(|_| !voice.has_said_turn()) {
        // What a turn says that has more to do was kept until that is done.
        voice.parts(&name, said_beside(&run.transcript, &call.request.id));
    }
    let calls: Option<Vec<ToolCall>> =
        open.iter().map(|call| as_called(&run.transcript, &call.request.id)).collect();
    voice.calls(&name, &calls.unwrap_or_default());
}

/// Something that clients hear of a run before its end.
#[derive(Debug)]
pub(super) enum Passage {
    /// What a model has said beside its calls.
    Words(Vec<Part>),
    Item(Value),
}

/// What is heard of an entry, with those behind it, of the run as it was before.
pub(super) fn passage(run: &Run, entries: &[Event]) -> Option<Passage> {
    let request = |id: &str| run.call(id).map(|call| &call.request);
    let called = |id: &str, result: Result<&str, &str>| {
        request(id).map(|it| mcp_call(id, &it.alias, &it.args, result))
    };
    let item = match entries.first()? {
        Event::Answered { parts, .. } => {
            let has_calls = matches!(entries.get(1), Some(Event::Requested(_)));
            let is_heard = has_calls && run.created.wishes.streams && !run.tells_end_only();
            return is_heard.then(|| Passage::Words(parts.clone()));
        }
        Event::ApprovalAsked { id, approval, .. } => {
            request(id).map(|it| mcp_approval(approval, &it.alias, &it.args))
        }
        Event::Done { id, parts, .. } => {
            let text: String = parts.iter().filter_map(Part::as_text).collect();
            called(id, Ok(&text))
        }
        Event::Failed { id, error, .. } => called(id, Err(&error.text())),
        _ => None,
    };
    item.map(Passage::Item)
}

/// Tells what was heard before; what is said at the end, whoever tells that says.
fn retell(voice: &Voice, run: &Run, heard: Vec<Passage>) {
    let (name, answer) = (name(run), run.answer());
    let open = run.calls.iter().find(|call| call.stage != Stage::Over);
    let kept = open.filter(|_| run.state == RunState::WaitingClient);
    let kept = kept.map(|call| said_beside(&run.transcript, &call.request.id)).unwrap_or_default();
    for passage in heard {
        match passage {
            Passage::Item(item) => voice.item(&name, item),
            Passage::Words(said) if run.state.is_over() && texts(&said) == texts(&answer) => {}
            Passage::Words(said) if said == kept => {}
            Passage::Words(said) => voice.parts(&name, &said),
        }
    }
}

fn texts(parts: &[Part]) -> String {
    parts.iter().filter_map(Part::as_text).collect()
}

/// What a run has to say that nobody works at, behind what was heard of it before: its end, or what
/// it waits for.
pub(super) fn told(run: &Run, below: &Below, row: &RunRow, heard: Vec<Passage>) -> Performance {
    let (voice, name) = (Voice::new(false), name(run));
    let follower = Follower::of(voice.tape());
    let known = |approval: &str| {
        let is_it = |it: &Passage| matches!(it, Passage::Item(item) if item["id"] == approval);
        heard.iter().any(is_it)
    };
    let open: Vec<&Call> = run.calls.iter().filter(|call| !is_heard(call, known)).collect();
    retell(&voice, run, heard);
    if run.state.is_over() {
        voice.parts(&name, &run.answer());
        if let Some(text) = last_words(run) {
            voice.text(&name, &text);
        }
    } else {
        for call in open {
            if let Stage::Pending { approval, .. } = &call.stage {
                let request = &call.request;
                voice.item(&name, mcp_approval(approval, &request.alias, &request.args));
            }
        }
        waits(&voice, run, below, run.state);
    }
    match failure(run) {
        Some(error) => voice.fail(error),
        None if run.state == RunState::WaitingClient => {
            voice.end(&name, FinishReason::ToolCalls, run.spent().usage);
        }
        None => voice.end(&name, finish(run), run.spent().usage),
    }
    let mut performance = shown(run, row.version.as_str().into(), follower);
    if !below.shown().is_empty() {
        let mut report = super::actor::report(run);
        report.approvals.extend(below.shown());
        performance.report = watch::channel(report).1;
    }
    performance
}

/// Whether a client knows already that a call needs an approval.
fn is_heard(call: &Call, known: impl Fn(&str) -> bool) -> bool {
    matches!(&call.stage, Stage::Pending { approval, .. } if known(approval))
}

/// What a run says to a user that goes on waiting.
pub(super) fn asks(run: &Run, row: &RunRow, text: &str) -> Performance {
    let (voice, name) = (Voice::new(false), name(run));
    let follower = Follower::of(voice.tape());
    voice.text(&name, text);
    voice.end(&name, FinishReason::Stop, Usage::default());
    shown(run, row.version.as_str().into(), follower)
}

/// How an answer of a run's ends.
pub(super) fn finish(run: &Run) -> FinishReason {
    match run.state {
        RunState::Incomplete => FinishReason::Length,
        RunState::Rejected => FinishReason::ContentFilter,
        RunState::Completed => super::ask::told(run.finish),
        _ => FinishReason::Stop,
    }
}

/// A run that waits for a place: its client asks for it later.
pub(super) fn queued(id: RunId, created: Created, definition: Arc<Definition>) -> Performance {
    let version = definition.version.as_str().into();
    let run = Run::new(id, created, definition, Vec::new());
    shown(&run, version, Follower::of(&Arc::default()))
}

fn shown(run: &Run, version: Arc<str>, follower: Follower) -> Performance {
    let (_, report) = watch::channel(super::actor::report(run));
    Performance { run: run.id, version, follower, report, stream: run.shown(), again: None }
}

/// What its clients call it.
fn name(run: &Run) -> String {
    format!("agent/{}", run.definition.agent)
}

/// What a user is told whose answer was kept back by a model's provider.
pub(super) const FILTERED: &str = "The provider of the model has filtered its answer, so there is \
    none. Please put it in another way.";

/// Why there is no answer where a model's calls never came to their end.
pub(super) const CUT: &str = "Each answer of its model was too long, and cut in the middle of the \
    arguments of a call: raise `output_tokens` in the agent's `budget`, or the `max_tokens` that \
    is asked for.";

/// What the gateway itself has to say at the end, where the model has not said it.
pub(super) fn last_words(run: &Run) -> Option<String> {
    let degraded = run.reason == Some(StopReason::Degraded);
    match run.state {
        RunState::Incomplete if degraded => run.message.clone(),
        RunState::Incomplete if run.answer().is_empty() => {
            let reason = run.reason.map_or("a limit", StopReason::name);
            let why = run.message.as_ref().map(|why| format!(" {why}")).unwrap_or_default();
            Some(format!("There is no answer: the run was stopped ({reason}).{why}"))
        }
        RunState::Cancelled if run.answer().is_empty() => {
            Some("There is no answer: the run was called off.".to_owned())
        }
        RunState::Expired => Some("Nobody has answered in time, so this has ended.".to_owned()),
        RunState::Completed if run.reason == Some(StopReason::Guard) => Some(FILTERED.to_owned()),
        RunState::Rejected => run.message.clone().or_else(|| Some("This was refused.".to_owned())),
        _ => None,
    }
}

/// The error of a run that has none but an error to give.
pub(super) fn failure(run: &Run) -> Option<Error> {
    let message = run.message.clone();
    match run.state {
        RunState::Failed => {
            let kind = match run.reason {
                Some(StopReason::InvalidOutput) => Kind::UpstreamError,
                Some(StopReason::ModelFailed) => Kind::UpstreamUnavailable,
                Some(StopReason::RateLimited) => Kind::RateLimited,
                _ => Kind::Internal,
            };
            let message = message.unwrap_or_else(|| "The run has failed.".to_owned());
            let left = run.callable_at.map(|at| at.saturating_sub(now())).filter(|left| *left > 0);
            let may_help = matches!(kind, Kind::RateLimited | Kind::UpstreamUnavailable);
            let retry_after = left.filter(|_| may_help).map(Duration::from_millis);
            Some(Error { retry_after, ..Error::new(kind, message) })
        }
        _ => None,
    }
}

/// The turn that has made a call.
fn said_beside<'a>(transcript: &'a [Message], id: &str) -> &'a [Part] {
    let makes = |part: &Part| matches!(&part.content, Content::ToolCall(call) if call.id == id);
    let turn = transcript.iter().rev().find(|message| message.parts.iter().any(makes));
    turn.map(|turn| turn.parts.as_slice()).unwrap_or_default()
}

/// A call as the model has made it.
fn as_called(transcript: &[Message], id: &str) -> Option<ToolCall> {
    let parts = transcript.iter().rev().flat_map(|message| &message.parts);
    let mut parts = parts;
    parts.find_map(|part: &Part| match &part.content {
        Content::ToolCall(call) if call.id == id => Some(call.clone()),
        _ => None,
    })
}
