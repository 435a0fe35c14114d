//! Why an answer ended, in Gemini's words and ours.

use crate::canon::FinishReason;

/// Each of Gemini's reasons that has a meaning here. `STOP` ends tool calls too.
const REASONS: [(&str, FinishReason); 17] = [
    ("STOP", FinishReason::Stop),
    ("MAX_TOKENS", FinishReason::Length),
    ("SAFETY", FinishReason::ContentFilter),
    ("RECITATION", FinishReason::ContentFilter),
    ("LANGUAGE", FinishReason::ContentFilter),
    ("BLOCKLIST", FinishReason::ContentFilter),
    ("PROHIBITED_CONTENT", FinishReason::ContentFilter),
    ("SPII", FinishReason::ContentFilter),
    ("MODEL_ARMOR", FinishReason::ContentFilter),
    ("IMAGE_SAFETY", FinishReason::ContentFilter),
    ("IMAGE_PROHIBITED_CONTENT", FinishReason::ContentFilter),
    ("IMAGE_RECITATION", FinishReason::ContentFilter),
    ("MALFORMED_FUNCTION_CALL", FinishReason::Malformed),
    ("UNEXPECTED_TOOL_CALL", FinishReason::Malformed),
    ("TOO_MANY_TOOL_CALLS", FinishReason::Malformed),
    ("MISSING_THOUGHT_SIGNATURE", FinishReason::Malformed),
    ("MALFORMED_RESPONSE", FinishReason::Malformed),
];

pub(in crate::dialect) fn read(reason: &str, with_calls: bool) -> FinishReason {
    let known = REASONS.iter().find(|(name, _)| *name == reason);
    match known.map_or(FinishReason::Stop, |(_, reason)| *reason) {
        FinishReason::Stop if with_calls => FinishReason::ToolCalls,
        reason => reason,
    }
}

pub(super) fn write(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop | FinishReason::ToolCalls => "STOP",
        FinishReason::Length | FinishReason::ContextFull => "MAX_TOKENS",
        FinishReason::ContentFilter | FinishReason::Refusal => "SAFETY",
        FinishReason::Malformed => "MALFORMED_FUNCTION_CALL",
        // The client is to go on, and Gemini's has no word for it.
        FinishReason::Pause => "OTHER",
    }
}
