//! What agents can do. A [`Tool`] is called through one door, [`Tool::call`]: limits, cache,
//! breaker, retries and the cleaning of results are there for every kind alike. It knows nothing of
//! runs: who calls decides whether it may.

mod agent;
mod breaker;
mod builtin;
mod call;
mod canonical;
mod credential;
mod documents;
mod egress;
mod graphql;
mod http;
mod kept;
mod memo;
mod openapi;
mod pace;
pub mod mcp;
mod schema;
mod sql;
pub mod text;
mod toolbox;
mod unfolded;
#[cfg(test)]
mod tests;

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::time::Instant;

pub use self::agent::{DELEGATE, elsewhere};
use self::call::State;
pub use self::canonical::canonical;
pub use self::kept::{Keeper, Looked, Net};
use self::schema::Schema;
pub use self::toolbox::{Kit, Toolbox, alias_of};
use crate::canon::{Effect, Part, Passed};
use crate::config::{self, Approval, Schemas};
use crate::store::shared::Turns;

const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// One tool.
#[derive(Debug)]
pub struct Tool {
    pub name: Arc<str>,
    /// What models call it: every provider takes `^[a-zA-Z0-9_-]{1,64}$`, so dots are `__`.
    pub alias: Arc<str>,
    pub description: String,
    pub effect: Effect,
    /// Which one it is: as the operator says or, where its description is watched, as that does.
    pub version: String,
    /// JSON Schema of the arguments, with all that it refers to.
    pub input: Value,
    /// The same of what it gives, where that is said.
    pub output: Option<Value>,
    pub terms: Arc<config::Tool>,
    checks: Checks,
    runner: Arc<dyn Runner>,
    state: State,
}

/// What a tool is, as its kind tells it.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    /// `SOURCE.TOOL`, where it is one of several.
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) effect: Effect,
    /// JSON Schema of the arguments: an object.
    pub(crate) input: Value,
    /// JSON Schema of what it gives, and whether that must be so.
    pub(crate) output: Option<Value>,
    pub(crate) is_held_to_it: bool,
    /// Where that is not what the terms say.
    pub(crate) version: Option<String>,
    pub(crate) terms: Arc<config::Tool>,
}

#[derive(Debug)]
struct Checks {
    input: Schema,
    output: Option<Schema>,
}

/// One call.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// They were checked against the schema.
    pub args: Value,
    /// The same for every attempt at the same call.
    pub idempotency_key: String,
    /// Whose results may be shared with whom.
    pub user: Option<Arc<str>>,
    /// What is told of the trace that the call stands in.
    pub passed: Passed,
    /// Whoever calls does not wait longer.
    pub deadline: Instant,
    /// What a person has said to the question of an earlier attempt.
    pub answer: Option<Value>,
    /// Who hears of it while it is worked at, and can be asked by servers of MCP.
    pub listener: Option<mcp::Listener>,
}

/// Calls one tool, once: no retries, no limits, no cleaning. Dropping the future ends the attempt.
pub(crate) trait Runner: Debug + Send + Sync {
    fn attempt<'a>(&'a self, call: &'a Invocation) -> Attempt<'a>;

    /// Why it may not be called at all for now, if it may not.
    fn blocked(&self) -> Option<&'static str> {
        None
    }

    /// Whether it minds the timeout itself: then an attempt is bounded by the call's deadline only.
    fn minds_time(&self) -> bool {
        false
    }
}

pub(crate) type Attempt<'a> = Pin<Box<dyn Future<Output = Result<Answer, Failure>> + Send + 'a>>;

/// What one attempt gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    /// For the model, as it came: it is cleaned behind this.
    pub(crate) parts: Vec<Part>,
    /// As JSON, where it is.
    pub(crate) value: Option<Value>,
    /// As it came, up to `max_result`.
    pub(crate) raw: Bytes,
    pub(crate) truncated: bool,
    /// It says that it failed.
    pub(crate) is_error: bool,
    pub(crate) wire: Option<Box<Wire>>,
}

/// How a request of MCP went over its connection, for those who trace it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wire {
    /// `pipe` to a child, `tcp` to a server on the net.
    pub transport: String,
    pub protocol: Option<String>,
    /// Of the older protocol over HTTP.
    pub session: Option<String>,
    pub request: String,
    /// The code of an error in the protocol's own form.
    pub code: Option<i32>,
    /// The result says that it is an error.
    pub is_error: bool,
}

/// Several tools of one server. What it knows of them it may learn and forget while it lives.
pub trait Source: Debug + Send + Sync {
    /// In the order of their names.
    fn tools(&self) -> Arc<[Arc<Tool>]>;

    /// Learns what tools there are; called once when a config comes into force.
    fn refresh(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn health(&self) -> Health {
        Health::Up
    }

    /// What is known of each tool since it was first seen, where that is watched.
    fn pins(&self) -> Vec<PinStatus> {
        Vec::new()
    }

    /// The server itself, where it is one of MCP and has more than tools.
    fn server(&self) -> Option<Arc<mcp::Server>> {
        None
    }

    /// Takes a tool as it is now for the one that is meant.
    fn approve_pin<'a>(
        &'a self,
        _tool: &'a str,
    ) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send + 'a>> {
        Box::pin(std::future::ready(Err("its tools are not watched".to_owned())))
    }
}

/// What a tool of a server is, and what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PinStatus {
    pub tool: String,
    /// Digests of all that its server says of it.
    pub pinned: String,
    pub seen: String,
    pub changed: bool,
}

/// Whether a tool can be called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    Up,
    Down {
        why: String,
        retry_after: Option<Duration>,
    },
    /// It is there, and may not be called.
    Blocked {
        why: &'static str,
    },
}

/// What a tool gave.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// For the model: clean text, images. Not cut yet.
    pub parts: Vec<Part>,
    /// As JSON, where it is.
    pub value: Option<Value>,
    /// As it came, up to the limit of the tool.
    pub raw: Bytes,
    /// It was longer than that.
    pub truncated: bool,
    pub cached: bool,
    /// How often it was called for this, and why again.
    pub attempts: u32,
    pub retried: Vec<&'static str>,
    pub wire: Option<Box<Wire>>,
}

/// Why a tool gave nothing.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    pub kind: FailureKind,
    /// For the model: without secrets and without what only operators should know.
    pub message: String,
    pub retry_after: Option<Duration>,
    /// Whether something may have happened nevertheless.
    pub sent: Sent,
    pub attempts: u32,
    pub retried: Vec<&'static str>,
    pub wire: Option<Box<Wire>>,
    /// What a server of MCP said, as it said it.
    pub verbatim: Option<Box<Value>>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum FailureKind {
    /// Arguments break the schema: where, as JSON pointers, and how.
    Invalid,
    RateLimited,
    /// Nobody is asked for a while, for it has failed too often.
    Unavailable,
    /// An address that must not be reached, or a limit of the operator's.
    Refused,
    /// It is not what was approved.
    Blocked,
    Timeout,
    Unreachable,
    Auth,
    /// It answered, and said that it failed.
    Soft,
    Status(u16),
    /// The result breaks its schema, or is nothing that can be read.
    BadOutput,
    Cancelled,
    /// A person must say something first: JSON Schema of what, and the question.
    NeedsInput {
        message: String,
        schema: Box<Value>,
    },
}

/// How far a request got that came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Certainly not one byte of it.
    Never,
    /// Its server has refused it and done nothing.
    Refused,
    /// It was answered, and the answer says that it came to nothing.
    Answered,
    /// Also where it was answered with success, and what that says cannot be read.
    Maybe,
}

/// Whether values can be held against it.
pub fn is_schema(schema: &Value) -> bool {
    Schema::new(schema, &Schemas::default()).is_ok()
}

/// Whether a value is what a schema demands; if not, where and how, as JSON pointers.
pub fn check_value(schema: &Value, value: &Value) -> Result<(), String> {
    Schema::new(schema, &Schemas::default())?.check(value)
}

/// A schema with all of the known documents that it refers to in it; fails where it is none.
pub fn whole_schema(schema: &Value, known: &Schemas) -> Result<Value, String> {
    Schema::new(schema, known)?;
    documents::whole(schema, known)
}

// === impl Tool ===

impl Tool {
    /// Fails where a schema is none, or refers to what is not known.
    pub(crate) fn new(definition: Definition, runner: Arc<dyn Runner>) -> Result<Self, String> {
        let Definition { name, description, effect, input, output, terms, .. } = definition;
        let wrong = |what: &'static str| move |why| format!("{what}: {why}");
        let known = &terms.schemas;
        let held = output.as_ref().filter(|_| definition.is_held_to_it);
        let held = held.map(|output| Schema::new(output, known)).transpose();
        let checks = Checks {
            input: Schema::of_arguments(&input, known).map_err(wrong("input"))?,
            output: held.map_err(wrong("output"))?,
        };
        let input = documents::whole(&input, known).map_err(wrong("input"))?;
        let output = output.map(|output| documents::whole(&output, known)).transpose();
        let output = match (output, definition.is_held_to_it) {
            (Err(why), true) => return Err(wrong("output")(why)),
            (output, _) => output.unwrap_or_default(),
        };
        let version = definition.version.unwrap_or_else(|| terms.version.clone());
        let (alias, state) = (Arc::from(alias_of(&name)), State::new(&terms, effect));
        Ok(Self {
            name: Arc::from(name),
            alias,
            description,
            effect,
            version,
            input,
            output,
            terms,
            checks,
            runner,
            state,
        })
    }

    /// Its limits hold for all replicas together, where they can tell one another.
    #[must_use]
    pub(crate) fn together(mut self, turns: Option<&Arc<Turns>>) -> Self {
        if let Some(turns) = turns {
            self.state.together(&self.name, turns);
        }
        self
    }

    /// Goes on where `before` is: what it has counted and remembered stays in force, as far as
    /// the terms for that are the same.
    #[must_use]
    pub(crate) fn following(self, before: &Tool) -> Self {
        let state = self.state.following(&self.terms, before);
        Self { state, ..self }
    }

    /// Whether arguments are what the schema asks for.
    pub fn check(&self, args: &Value) -> Result<(), Failure> {
        if !args.is_object() {
            return Err(Failure::new(FailureKind::Invalid, "arguments must be a JSON object"));
        }
        self.checks.input.check(args).map_err(|faults| Failure::new(FailureKind::Invalid, faults))
    }

    pub fn health(&self) -> Health {
        let blocked = self.runner.blocked().map(|why| Health::Blocked { why });
        blocked.unwrap_or_else(|| self.state.health())
    }

    /// Who must let calls of it pass. Of a source only the tools that it names are asked about, by
    /// the names that they have there, dots and all.
    pub fn approval(&self) -> Option<&Approval> {
        let own = self.name.split_once('.').map_or(&*self.name, |(_, own)| own);
        self.terms.approval.as_ref().filter(|approval| {
            approval.tools.as_ref().is_none_or(|tools| tools.iter().any(|tool| tool == own))
        })
    }
}

// === impl Answer ===

impl Answer {
    pub(crate) fn json(value: Value) -> Self {
        let text = value.to_string();
        let raw = Bytes::from(text.clone().into_bytes());
        Self { parts: vec![Part::text(text)], value: Some(value), raw, ..Self::default() }
    }
}

// === impl Failure ===

impl Failure {
    /// Before anything was sent; [`Self::sent`] says otherwise.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            kind,
            message,
            retry_after: None,
            sent: Sent::Never,
            attempts: 0,
            retried: Vec::new(),
            wire: None,
            verbatim: None,
        }
    }

    #[must_use]
    pub fn sent(self, sent: Sent) -> Self {
        Self { sent, ..self }
    }

    #[must_use]
    pub(crate) fn verbatim(self, said: Value) -> Self {
        Self { verbatim: Some(Box::new(said)), ..self }
    }

    /// Longer waits than a day are not believed, whoever asks for them.
    #[must_use]
    pub fn retry_after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after: retry_after.map(|wait| wait.min(LONGEST_WAIT)), ..self }
    }
}

// === impl FailureKind ===

impl FailureKind {
    /// What models, metrics and the API call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Invalid => "invalid_arguments",
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Blocked => "blocked",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Auth => "auth_failed",
            Self::Soft => "soft_error",
            Self::Status(_) => "status",
            Self::BadOutput => "output_invalid",
            Self::Cancelled => "cancelled",
            Self::NeedsInput { .. } => "needs_input",
        }
    }
}
