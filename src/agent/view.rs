//! A run as people and programs are shown it.

use serde_json::{Value, json};

use super::run::{Call, Run, Stage};
use crate::canon::{RunState, StopReason};
use crate::error::{Error, Kind};
use crate::store::runs::ApprovalRow;

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
        Stage::Unknown => Some(json!({
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
pub(super) fn plea_of(run: &Run, state: RunState, below: &[ApprovalRow]) -> String {
    if below.is_empty() {
        return plea(run, state);
    }
    let tools: Vec<String> =
        below.iter().map(|row| format!("{} of `{}`", row.tool, row.agent)).collect();
    needs_approval(run, &tools.join(", "))
}

fn needs_approval(run: &Run, tools: &str) -> String {
    let id = run.id;
    format!(
        "This needs the approval of a person before it goes on: {tools}. The run `{id}` waits for it."
    )
}

/// What a client is told that is waited for.
pub(super) fn plea(run: &Run, state: RunState) -> String {
    let question = run.calls.iter().find_map(|call| match &call.stage {
        Stage::Asking { message, .. } => Some(message.as_str()),
        _ => None,
    });
    if let (RunState::WaitingInput, Some(question)) = (state, question) {
        return question.to_owned();
    }
    let tools: Vec<&str> = run
        .calls
        .iter()
        .filter(|call| matches!(call.stage, Stage::Pending { .. }))
        .map(|call| call.request.tool.as_str())
        .collect();
    match state {
        RunState::WaitingApproval => needs_approval(run, &tools.join(", ")),
        RunState::WaitingHuman => {
            let why = run.escalated.as_deref().unwrap_or("nobody knows what became of a call");
            format!("A person has to look at this: {why}. The run `{}` waits.", run.id)
        }
        RunState::Paused => format!("The run `{}` is paused.", run.id),
        _ => format!("The run `{}` waits ({}).", run.id, state.name()),
    }
}

/// What the gateway itself has to say at the end, where the model has not said it.
pub(super) fn last_words(run: &Run) -> Option<String> {
    let degraded = run.reason == Some(StopReason::Degraded);
    match run.state {
        RunState::Incomplete if degraded => run.message.clone(),
        RunState::Incomplete if run.answer().is_empty() => {
            let reason = run.reason.map_or("a limit", StopReason::name);
            Some(format!("There is no answer: the run was stopped ({reason})."))
        }
        RunState::Expired => Some("Nobody has answered in time, so this has ended.".to_owned()),
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
                Some(StopReason::InvalidOutput | StopReason::ModelFailed) => Kind::UpstreamError,
                _ => Kind::Internal,
            };
            Some(Error::new(kind, message.unwrap_or_else(|| "The run has failed.".to_owned())))
        }
        _ => None,
    }
}
