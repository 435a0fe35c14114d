//! What a journal tells of a run, entry by entry. The state of a run is all of them, in order.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canon::{
    Effect, Finish, Format, Message, Part, RunId, RunState, Sampling, StopReason, Tool, ToolChoice,
    Usage,
};
use crate::config::StreamMode;
use crate::tool::Wire;

/// The number of calls of models that are no step: for a plan, and for summaries.
pub const ASIDE: u32 = 0;
/// Whose word it is what became of a call, where a tool was asked: this, and its name.
pub const PROBE: &str = "probe:";

/// One entry. Times are milliseconds since 1970, money is nano-dollars.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Event {
    #[serde(rename = "run.created")]
    Created(Box<Created>),
    #[serde(rename = "run.started")]
    Started {
        at: u64,
        /// Who works by a plan begins with asking for it: no other entry stands before the plan.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        asks: Option<Asking>,
    },
    /// Somebody else goes on with it.
    #[serde(rename = "run.resumed")]
    Resumed { at: u64, epoch: u64 },
    /// A model is about to be asked.
    #[serde(rename = "model.requested")]
    Asked(Asking),
    #[serde(rename = "model.completed")]
    Answered {
        call: u32,
        parts: Vec<Part>,
        finish: Finish,
        usage: Usage,
        estimated: bool,
        cost: Option<u64>,
        provider: String,
        model: String,
        fallback_level: u32,
        cached: bool,
        at: u64,
        /// As whom the access log and the ledger know it.
        #[serde(default)]
        id: Option<String>,
    },
    /// It gave no answer; what it used is counted nevertheless.
    #[serde(rename = "model.failed")]
    AskFailed {
        call: u32,
        code: String,
        message: String,
        usage: Usage,
        cost: Option<u64>,
        /// The usage was guessed.
        #[serde(default)]
        estimated: bool,
        /// The process ended while it was asked.
        lost: bool,
        at: u64,
        #[serde(default)]
        id: Option<String>,
        /// How long whoever calls again waits, in milliseconds, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_after: Option<u64>,
    },
    /// Whoever was meant to answer did not.
    #[serde(rename = "model.fallback")]
    Fallback {
        call: u32,
        level: u32,
        /// Who was meant to, as `provider/model`, and what came of it.
        #[serde(default)]
        from: String,
        #[serde(default)]
        outcome: String,
    },
    /// What is to be done, step by step; nothing where no plan was made.
    #[serde(rename = "plan.created")]
    Planned { steps: Vec<String>, usage: Usage, cost: Option<u64> },
    /// The model wants a tool called.
    #[serde(rename = "tool.requested")]
    Requested(Box<Requested>),
    /// It is not called, and the model is told why.
    #[serde(rename = "tool.denied")]
    Refused { id: String, error: CallError },
    #[serde(rename = "tool.approval_requested")]
    ApprovalAsked {
        id: String,
        approval: String,
        /// SHA-256 of tool, version and arguments, in hex.
        hash: String,
        roles: Vec<String>,
        reason: String,
        expires_at: u64,
    },
    /// `args`: other ones than the model's.
    #[serde(rename = "tool.approved")]
    Approved {
        id: String,
        approval: String,
        by: String,
        args: Option<Value>,
        /// Later calls of this tool in this run pass by the same decision.
        #[serde(default)]
        remember: bool,
        at: u64,
    },
    #[serde(rename = "tool.rejected")]
    Rejected { id: String, approval: String, by: String, comment: Option<String>, expired: bool },
    /// From here on something may have happened.
    #[serde(rename = "tool.started")]
    Began { id: String, at: u64 },
    #[serde(rename = "tool.completed")]
    Done {
        id: String,
        parts: Vec<Part>,
        /// For whoever undoes it, if it is small.
        value: Option<Value>,
        bytes: u64,
        /// Where all of it is, if the model is not shown all.
        blob: Option<String>,
        cached: bool,
        attempts: u32,
        at: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wire: Option<Box<Wire>>,
    },
    #[serde(rename = "tool.failed")]
    Failed {
        id: String,
        error: CallError,
        attempts: u32,
        at: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        wire: Option<Box<Wire>>,
    },
    /// Nobody knows what became of it.
    #[serde(rename = "tool.unknown")]
    Unknown { id: String },
    #[serde(rename = "tool.resolved")]
    Resolved { id: String, outcome: Resolution, result: Option<Value>, by: String },
    /// The client has called its own tool.
    #[serde(rename = "tool.client_result")]
    ClientResult { id: String, parts: Vec<Part>, is_error: bool },
    #[serde(rename = "child.started")]
    ChildStarted { id: String, run: RunId, agent: String },
    /// It can do nothing for now.
    #[serde(rename = "child.waiting")]
    ChildWaits { id: String, run: RunId, state: RunState, spent: Spent },
    #[serde(rename = "child.completed")]
    ChildDone {
        id: String,
        run: RunId,
        state: RunState,
        parts: Vec<Part>,
        /// It had to do with less.
        #[serde(default)]
        degraded: bool,
        /// Without these tools, for example.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        degraded_tools: Vec<String>,
        #[serde(default)]
        spent: Spent,
        /// It has done something that can be taken back.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        undoable: bool,
    },
    /// Another agent has the conversation now.
    #[serde(rename = "handoff")]
    Handoff { id: String, from: String, to: String, summary: Option<String> },
    /// The next one has to do with less.
    #[serde(rename = "agent.fallback")]
    AgentFallback { from: String, to: String },
    #[serde(rename = "input.requested")]
    InputAsked {
        request: String,
        /// The call that waits for it.
        id: String,
        message: String,
        schema: Option<Value>,
        expires_at: u64,
        /// Arguments of the call that are missing: the answer has them.
        #[serde(default)]
        fills: Vec<String>,
    },
    #[serde(rename = "input.received")]
    InputGiven { request: String, id: String, values: Value, by: String },
    /// What a user has answered is not what was asked for: they are asked once more.
    #[serde(rename = "input.unfit")]
    InputUnfit { request: String, by: String },
    /// What a user has said while the run waits for something else.
    #[serde(rename = "input.message")]
    Said { messages: Vec<Message>, by: String },
    /// What was said up to this message is told by a summary from here on.
    #[serde(rename = "context.compacted")]
    Compacted { through: u32, summary: String, usage: Usage, cost: Option<u64> },
    /// Something that the model is to consider.
    #[serde(rename = "note")]
    Noted { text: String, reason: Option<String> },
    #[serde(rename = "limit.hit")]
    LimitHit { reason: StopReason },
    #[serde(rename = "guardrail.triggered")]
    Guarded { guard: String, message: String },
    #[serde(rename = "escalated")]
    Escalated {
        reason: String,
        id: Option<String>,
        /// Nobody takes it on after this time, and it ends.
        #[serde(default)]
        expires_at: Option<u64>,
    },
    /// It was done, and somebody is to look at it.
    #[serde(rename = "review")]
    Review { id: Option<String>, confidence: Option<u32> },
    #[serde(rename = "run.paused")]
    Paused { by: String },
    #[serde(rename = "run.unpaused")]
    Unpaused { by: String },
    /// It is to end: at once, or behind the step under way.
    #[serde(rename = "run.cancel_requested")]
    CancelAsked { by: String, reason: Option<String>, after_step: bool },
    #[serde(rename = "compensation.started")]
    UndoBegan { id: String, tool: String, args: Value, key: String },
    #[serde(rename = "compensation.completed")]
    UndoDone { id: String, error: Option<CallError> },
    /// The last one, whatever it came to.
    #[serde(rename = "run.ended")]
    Ended {
        state: RunState,
        reason: Option<StopReason>,
        message: Option<String>,
        degraded: bool,
        at: u64,
    },
    #[serde(rename = "feedback")]
    Feedback { score: Option<f64>, label: Option<String>, comment: Option<String>, by: String },
}

/// What a run has used, with all that it has begun. Money is nano-dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spent {
    pub usage: Usage,
    pub cost: u64,
    pub model_calls: u32,
    pub tool_calls: u32,
}

/// The part of a journal that was taken over from another run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    pub run: RunId,
    /// So many entries behind the first are its own.
    pub entries: u64,
    pub spent: Spent,
}

/// How a run began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Created {
    pub agent: String,
    pub version: String,
    /// SHA-256 of its definition, in hex.
    pub definition: String,
    /// The turn before it in its session.
    pub previous: Option<RunId>,
    /// What was said, without what is in `previous`.
    pub messages: Vec<Message>,
    /// Tools that the client calls itself.
    pub client_tools: Vec<Tool>,
    pub wishes: Wishes,
    /// Who pays, to be recognised after a restart; JSON of the gateway's.
    pub caller: Value,
    pub user: Option<String>,
    pub session: Option<String>,
    /// How many agents stand above it.
    pub depth: u32,
    /// What it may use at most, where that is less than its definition says.
    pub budget: Option<Ceiling>,
    pub replay_of: Option<RunId>,
    /// In a run that plays another one again, what must not happen twice may happen.
    #[serde(default)]
    pub effects: bool,
    /// It takes back what is in its journal, and does nothing else.
    #[serde(default)]
    pub compensates: bool,
    /// What a guard has said against what it was asked: it only ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocked: Option<String>,
    pub forked_from: Option<(RunId, u64)>,
    /// What of its journal is another run's: that was paid for there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Box<Source>>,
    pub labels: BTreeMap<String, String>,
    /// What its client says of calls of models, by the names of its headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    pub trace: Option<String>,
    /// What its client wants tools to know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baggage: Option<Box<str>>,
    /// Who is told of its end: a hook of the config by its name, or a URL.
    #[serde(default)]
    pub webhook: Option<String>,
    #[serde(default)]
    pub trigger: Trigger,
    pub at: u64,
}

/// What made a run begin.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A client has asked for it.
    #[default]
    Api,
    /// Another run has.
    Agent,
    Replay,
    Fork,
    Compensate,
    /// One that was given up is gone on with.
    Retry,
}

/// What a client wants of the answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Wishes {
    pub sampling: Sampling,
    pub format: Format,
    pub tool_choice: Option<ToolChoice>,
    pub parallel_tool_calls: Option<bool>,
    pub max_tool_calls: Option<u32>,
    pub background: bool,
    /// Its client hears it as it comes.
    #[serde(default)]
    pub streams: bool,
    /// What of it, if not what the agent says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamMode>,
}

/// A budget that is lower than usual.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ceiling {
    pub usd: Option<u64>,
    pub tokens: Option<u64>,
    pub steps: Option<u32>,
    pub tool_calls: Option<u32>,
    pub seconds: Option<u64>,
}

/// A call that a model wants.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Requested {
    /// The model's id for it.
    pub id: String,
    /// Which one it is of the run.
    pub number: u32,
    /// The tool, and what the model calls it.
    pub tool: String,
    pub alias: String,
    pub version: String,
    pub args: Value,
    pub effect: Effect,
    /// The same for every attempt, after every restart.
    pub key: String,
    pub doer: Doer,
    pub at: u64,
}

/// Who does what a model wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Doer {
    /// A tool of the gateway's.
    Tool,
    /// The client.
    Client,
    /// Another agent, whose run belongs to this one.
    Delegate,
    /// Another agent, which takes over.
    Handoff,
    /// The user, who is asked.
    User,
    /// Nobody: there is no such tool, or it must not be called.
    Nobody,
}

/// A model is asked. What it is asked follows from the entries before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asking {
    /// Which one it is of the run, or [`ASIDE`].
    pub call: u32,
    /// Older turns are to be told in short.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub summary: bool,
    pub model: String,
    /// SHA-256 of the question, in hex.
    pub digest: String,
    /// Whether it may call tools.
    pub tools: bool,
    pub max_tokens: u64,
    /// These are fewer than it was to have: there is no budget for more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub clamped: bool,
    /// Tokens of the question by estimate.
    pub input_estimate: u64,
    /// What was set aside for it, in nano-dollars.
    #[serde(default)]
    pub cost_estimate: u64,
    pub at: u64,
}

// === impl Asking ===

impl Asking {
    /// Whether it is for the plan of a run.
    pub fn is_plan(&self) -> bool {
        self.call == ASIDE && !self.summary
    }
}

/// Why a call came to nothing, as the model reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallError {
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
    pub retryable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<u64>,
}

/// What a person knows of a call whose outcome was unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    Done,
    Failed,
    Retry,
}

// === impl Spent ===

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, more: Self) {
        self.usage += more.usage;
        self.cost += more.cost;
        self.model_calls += more.model_calls;
        self.tool_calls += more.tool_calls;
    }
}

// === impl Trigger ===

impl Trigger {
    /// As lists of runs and metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Agent => "agent",
            Self::Replay => "replay",
            Self::Fork => "fork",
            Self::Compensate => "compensate",
            Self::Retry => "retry",
        }
    }
}

// === impl Event ===

impl Event {
    /// As the journal's column has it, and every API.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Created(_) => "run.created",
            Self::Started { .. } => "run.started",
            Self::Resumed { .. } => "run.resumed",
            Self::Asked(_) => "model.requested",
            Self::Answered { .. } => "model.completed",
            Self::AskFailed { .. } => "model.failed",
            Self::Fallback { .. } => "model.fallback",
            Self::Planned { .. } => "plan.created",
            Self::Requested(_) => "tool.requested",
            Self::Refused { .. } => "tool.denied",
            Self::ApprovalAsked { .. } => "tool.approval_requested",
            Self::Approved { .. } => "tool.approved",
            Self::Rejected { .. } => "tool.rejected",
            Self::Began { .. } => "tool.started",
            Self::Done { .. } => "tool.completed",
            Self::Failed { .. } => "tool.failed",
            Self::Unknown { .. } => "tool.unknown",
            Self::Resolved { .. } => "tool.resolved",
            Self::ClientResult { .. } => "tool.client_result",
            Self::ChildStarted { .. } => "child.started",
            Self::ChildWaits { .. } => "child.waiting",
            Self::ChildDone { .. } => "child.completed",
            Self::Handoff { .. } => "handoff",
            Self::AgentFallback { .. } => "agent.fallback",
            Self::InputAsked { .. } => "input.requested",
            Self::InputGiven { .. } => "input.received",
            Self::InputUnfit { .. } => "input.unfit",
            Self::Said { .. } => "input.message",
            Self::Compacted { .. } => "context.compacted",
            Self::Noted { .. } => "note",
            Self::LimitHit { .. } => "limit.hit",
            Self::Guarded { .. } => "guardrail.triggered",
            Self::Escalated { .. } => "escalated",
            Self::Review { .. } => "review",
            Self::Paused { .. } => "run.paused",
            Self::Unpaused { .. } => "run.unpaused",
            Self::CancelAsked { .. } => "run.cancel_requested",
            Self::UndoBegan { .. } => "compensation.started",
            Self::UndoDone { .. } => "compensation.completed",
            Self::Ended { .. } => "run.ended",
            Self::Feedback { .. } => "feedback",
        }
    }
}

// === impl CallError ===

impl CallError {
    pub fn new(kind: &str, message: impl Into<String>) -> Self {
        Self { kind: kind.to_owned(), message: message.into(), retryable: false, retry_after: None }
    }

    /// It may have happened, and must not happen twice.
    pub fn unknown_outcome() -> Self {
        let text = "Nobody knows whether it happened. Do not try again; find out first.";
        Self::new("unknown_outcome", text)
    }

    #[must_use]
    pub fn retryable(self) -> Self {
        Self { retryable: true, ..self }
    }

    /// Whether the tool is not there for now, so that the answer has to do without.
    pub fn degrades(&self) -> bool {
        let kinds = ["unavailable", "unreachable", "timeout", "auth_failed", "blocked"];
        kinds.contains(&self.kind.as_str())
    }

    /// What stands in the place of a result.
    pub fn text(&self) -> String {
        serde_json::json!({"error": self}).to_string()
    }
}
