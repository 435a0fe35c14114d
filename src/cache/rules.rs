//! What may be remembered, and what a call lets the cache do.

use crate::canon::{ChatRequest, ChatResponse, Content, FinishReason, Part, Tool};
use crate::config::{CacheMode, Share};

/// What the cache may do for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leave {
    /// Give it an answer that is there.
    pub read: bool,
    /// Keep the answer that it gets.
    pub write: bool,
    /// Also in the place of one that is there.
    pub replace: bool,
}

// === impl Leave ===

impl Leave {
    pub fn of(mode: CacheMode) -> Self {
        let leave = |read, write, replace| Self { read, write, replace };
        match mode {
            CacheMode::Off => leave(false, false, false),
            CacheMode::On => leave(true, true, false),
            CacheMode::ReadOnly => leave(true, false, false),
            CacheMode::WriteOnly => leave(false, true, false),
            CacheMode::Refresh => leave(false, true, true),
        }
    }

    /// What both allow. Nobody can allow himself more than others let him.
    #[must_use]
    pub fn and(self, other: Option<CacheMode>) -> Self {
        let Some(other) = other.map(Self::of) else { return self };
        let write = self.write && other.write;
        Self {
            read: self.read && other.read,
            write,
            replace: write && (self.replace || other.replace),
        }
    }

    pub fn is_none(self) -> bool {
        !self.read && !self.write
    }
}

/// Whether the same answer may be given to the same question twice.
pub fn may_be_asked(request: &ChatRequest, sampled: bool) -> bool {
    // Who names no temperature is given one by the provider, and it is not 0.
    let is_certain = request.sampling.temperature == Some(0.0);
    // What a provider does itself, as a search, is new each time.
    let is_hosted = |tool: &Tool| matches!(tool, Tool::Hosted(_));
    (is_certain || sampled) && request.audio.is_none() && !request.tools.iter().any(is_hosted)
}

/// Whether an answer is whole, and nothing but an answer.
pub fn is_storable(response: &ChatResponse, tool_calls: bool, share: Share) -> bool {
    let answers = &response.choices;
    let is_done = |reason| match reason {
        FinishReason::Stop => true,
        FinishReason::ToolCalls => tool_calls,
        FinishReason::Length
        | FinishReason::ContextFull
        | FinishReason::ContentFilter
        | FinishReason::Refusal
        | FinishReason::Pause
        | FinishReason::Malformed => false,
    };
    let may_be_kept = |part: &Part| match &part.content {
        Content::Text { .. } | Content::Reasoning(_) => true,
        Content::ToolCall(_) => tool_calls,
        Content::Refusal(_) | Content::Media(_) | Content::ToolResult(_) | Content::Foreign(_) => {
            false
        }
    };
    let says_something = |part: &Part| match &part.content {
        Content::Text { text, .. } => !text.trim().is_empty(),
        Content::ToolCall(_) => true,
        _ => false,
    };
    // A provider's state is its owner's.
    let is_common = |part: &Part| share == Share::Key || part.opaque.is_none();
    !answers.is_empty()
        && answers.iter().all(|answer| {
            is_done(answer.finish.reason)
                && answer.parts.iter().any(says_something)
                && answer.parts.iter().all(|part| may_be_kept(part) && is_common(part))
        })
}
