//! A run as people and programs are shown it.

use serde_json::{Value, json};

use super::event::Doer;
use super::run::{Call, Run, Stage};
use crate::canon::{RunState, StopReason};
use crate::error::{Error, Kind};

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
        Stage::Asking { request: input, expires_at } => Some(json!({
            "id": input,
            "type": "input",
            "call_id": request.id,
            "tool": request.tool,
            "message": request.args.get("question"),
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

/// What a client is told that is waited for.
pub(super) fn plea(run: &Run, state: RunState) -> String {
    let question = run.calls.iter().find_map(|call| match &call.stage {
        Stage::Asking { .. } if call.request.doer == Doer::User => {
            call.request.args.get("question").and_then(Value::as_str)
        }
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
        RunState::WaitingApproval => format!(
            "This needs the approval of a person before it goes on: {}. The run `{}` waits for it.",
            tools.join(", "),
            run.id
        ),
        RunState::WaitingHuman => {
            format!("A person has to look at this. The run `{}` waits.", run.id)
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
