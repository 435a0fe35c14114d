//! Why an answer ended, in this API's words.

use serde_json::Value;

use crate::canon::{Dialect, Finish, FinishReason, Opaque};

const REASONS: &[(&str, FinishReason)] = &[
    ("end_turn", FinishReason::Stop),
    ("stop_sequence", FinishReason::Stop),
    ("max_tokens", FinishReason::Length),
    ("tool_use", FinishReason::ToolCalls),
    ("model_context_window_exceeded", FinishReason::ContextFull),
    ("refusal", FinishReason::Refusal),
    ("refusal", FinishReason::ContentFilter),
    ("pause_turn", FinishReason::Pause),
    // A turn that paused once its history was summed up.
    ("compaction", FinishReason::Pause),
    ("end_turn", FinishReason::Malformed),
];

/// A reason that is not known ends an answer like any other.
pub(super) fn read(reason: &str, stop_sequence: Option<String>, details: Option<Value>) -> Finish {
    let known = REASONS.iter().find(|(name, _)| *name == reason);
    let reason = known.map_or(FinishReason::Stop, |(_, reason)| *reason);
    Finish {
        reason,
        stop_sequence,
        details: details.map(|data| Opaque { dialect: Dialect::Messages, data }),
    }
}

/// What this API says of the end besides the reason.
pub(super) fn details(finish: &Finish) -> Option<&Value> {
    let own = finish.details.as_ref().filter(|details| details.dialect == Dialect::Messages)?;
    Some(&own.data)
}

/// Why the model declined, in words for people: what others show as the refusal itself.
pub(super) fn explanation(finish: &Finish) -> Option<&str> {
    details(finish)?["explanation"].as_str().filter(|text| !text.is_empty())
}

/// `calls`: the answer calls tools, which clients look for here, whatever the upstream said.
pub(super) fn write(finish: &Finish, calls: bool) -> &'static str {
    match finish.reason {
        FinishReason::Stop if finish.stop_sequence.is_some() => "stop_sequence",
        FinishReason::Stop if calls => "tool_use",
        reason => {
            let known = REASONS.iter().find(|(_, known)| *known == reason);
            known.map_or("end_turn", |(name, _)| *name)
        }
    }
}
