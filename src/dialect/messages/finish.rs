//! Why an answer ended, in this API's words.

use crate::canon::{Finish, FinishReason};

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
pub(super) fn read(reason: &str, stop_sequence: Option<String>) -> Finish {
    let known = REASONS.iter().find(|(name, _)| *name == reason);
    Finish { reason: known.map_or(FinishReason::Stop, |(_, reason)| *reason), stop_sequence }
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
