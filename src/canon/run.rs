//! Words about the runs of agents.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The id of one run: `run_` and 32 hexadecimal digits of a UUID version 7, so ids sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct RunId(Uuid);

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    Queued,
    Running,
    /// A person must let a call of a tool pass.
    WaitingApproval,
    /// Its user must say something.
    WaitingInput,
    /// Its client must call tools of its own.
    WaitingClient,
    /// Runs that it started must end.
    WaitingChild,
    WaitingTimer,
    /// A person must decide what no machine can.
    WaitingHuman,
    Paused,
    Completed,
    /// A limit ended it; what it has is given.
    Incomplete,
    Failed,
    /// It was never let begin, or a guard ended it.
    Rejected,
    Cancelled,
    /// Nobody answered in time.
    Expired,
}

/// What a call of a tool does to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// Nothing: it may be made again freely.
    Read,
    /// The same once or often, as long as it bears the same key.
    Idempotent,
    /// Something that must not happen twice. What became of it, nobody guesses.
    Once,
}

/// Why a run ended before its answer was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    MaxSteps,
    MaxToolCalls,
    MaxHandoffs,
    MaxDepth,
    Budget,
    Timeout,
    LoopDetected,
    ContextOverflow,
    InvalidOutput,
    Degraded,
    Guard,
    Denied,
    Unanswered,
    DefinitionUnavailable,
    UnknownOutcome,
    ModelFailed,
    RateLimited,
    ToolUnavailable,
    Takeovers,
    Internal,
}

// === impl RunId ===

impl RunId {
    #[expect(clippy::new_without_default, reason = "each id is another one")]
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// The id of a child: always the same for the same parent and number.
    #[must_use]
    pub fn child(self, digest: [u8; 16]) -> Self {
        // Version 8 of RFC 9562: what the bits mean is ours.
        Self(uuid::Builder::from_custom_bytes(digest).into_uuid())
    }

    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("run_").filter(|digits| digits.len() == 32)?;
        Uuid::try_parse(digits).ok().map(Self)
    }

    /// 64 of its bits that are random.
    pub fn spread(self) -> u64 {
        self.0.as_u64_pair().1
    }

    /// All of its bits.
    pub fn bits(self) -> u128 {
        self.0.as_u128()
    }

    /// The run that bears these 32 hexadecimal digits.
    pub fn of_digits(digits: &str) -> Option<Self> {
        Uuid::try_parse(digits).ok().filter(|_| digits.len() == 32).map(Self)
    }

    /// Its 32 hexadecimal digits.
    pub fn simple(self) -> String {
        self.0.simple().to_string()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "run_{}", self.0.simple())
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for RunId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not the id of a run")
    }
}

// === impl RunState ===

impl RunState {
    pub const ALL: [(Self, &'static str); 15] = [
        (Self::Queued, "queued"),
        (Self::Running, "running"),
        (Self::WaitingApproval, "waiting_approval"),
        (Self::WaitingInput, "waiting_input"),
        (Self::WaitingClient, "waiting_client"),
        (Self::WaitingChild, "waiting_child"),
        (Self::WaitingTimer, "waiting_timer"),
        (Self::WaitingHuman, "waiting_human"),
        (Self::Paused, "paused"),
        (Self::Completed, "completed"),
        (Self::Incomplete, "incomplete"),
        (Self::Failed, "failed"),
        (Self::Rejected, "rejected"),
        (Self::Cancelled, "cancelled"),
        (Self::Expired, "expired"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(state, _)| *state == self).map_or("", |(_, name)| name)
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(state, _)| *state)
    }

    /// Nothing leaves such a state.
    pub fn is_over(self) -> bool {
        matches!(
            self,
            Self::Completed
                | Self::Incomplete
                | Self::Failed
                | Self::Rejected
                | Self::Cancelled
                | Self::Expired
        )
    }

    /// It holds no task and no memory: something from outside must come.
    pub fn is_waiting(self) -> bool {
        matches!(
            self,
            Self::WaitingApproval
                | Self::WaitingInput
                | Self::WaitingClient
                | Self::WaitingChild
                | Self::WaitingTimer
                | Self::WaitingHuman
                | Self::Paused
        )
    }
}

// === impl Effect ===

impl Effect {
    pub const ALL: [(Self, &'static str); 3] =
        [(Self::Read, "read"), (Self::Idempotent, "idempotent"), (Self::Once, "once")];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(effect, _)| *effect == self).map_or("", |(_, name)| name)
    }
}

// === impl StopReason ===

impl StopReason {
    /// What the API and the metrics call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxSteps => "max_steps",
            Self::MaxToolCalls => "max_tool_calls",
            Self::MaxHandoffs => "max_handoffs",
            Self::MaxDepth => "max_depth",
            Self::Budget => "budget",
            Self::Timeout => "timeout",
            Self::LoopDetected => "loop_detected",
            Self::ContextOverflow => "context_overflow",
            Self::InvalidOutput => "invalid_output",
            Self::Degraded => "degraded",
            Self::Guard => "guard",
            Self::Denied => "denied",
            Self::Unanswered => "unanswered",
            Self::DefinitionUnavailable => "definition_unavailable",
            Self::UnknownOutcome => "unknown_outcome",
            Self::ModelFailed => "model_failed",
            Self::RateLimited => "rate_limited",
            Self::ToolUnavailable => "tool_unavailable",
            Self::Takeovers => "takeovers",
            Self::Internal => "internal",
        }
    }

    /// What the metrics call the limit that it is of.
    pub fn limit(self) -> &'static str {
        match self {
            Self::MaxSteps => "steps",
            Self::MaxToolCalls => "tool_calls",
            Self::MaxHandoffs => "handoffs",
            Self::MaxDepth => "depth",
            Self::Timeout => "time",
            Self::LoopDetected => "loop",
            Self::ContextOverflow => "context",
            other => other.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_written_and_nothing_else_is_one() {
        let id = RunId::new();
        assert_eq!(RunId::parse(&id.to_string()), Some(id));
        assert_eq!(id.to_string().len(), 36);
        for odd in ["", "run_", "run_1", "resp_0192", &id.simple()] {
            assert_eq!(RunId::parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn a_child_has_the_same_id_for_the_same_digest() {
        let parent = RunId::new();
        assert_eq!(parent.child([7; 16]), parent.child([7; 16]));
        assert_ne!(parent.child([7; 16]), parent.child([8; 16]));
    }

    #[test]
    fn every_state_is_read_as_it_is_written() {
        for (state, name) in RunState::ALL {
            assert_eq!(RunState::parse(name), Some(state));
            assert_eq!(state.name(), name);
            assert!(!(state.is_over() && state.is_waiting()));
        }
    }
}
