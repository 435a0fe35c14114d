//! What agents can do. A [`Tool`] is called through one door, [`Tool::call`]: limits, cache,
//! breaker, retries and the cleaning of results are there for every kind alike. It knows nothing of
//! runs: who calls decides whether it may.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use tokio::time::Instant;

use crate::canon::{Effect, Part};
use crate::config;

/// The tools of one config, by name: `order_lookup`, and `crm.getCustomer` of a source.
#[derive(Debug, Default)]
pub struct Toolbox {
    tools: BTreeMap<Arc<str>, Arc<Tool>>,
}

/// One tool.
#[derive(Debug)]
pub struct Tool {
    pub name: Arc<str>,
    /// What models call it: every provider takes `^[a-zA-Z0-9_-]{1,64}$`, so dots are `__`.
    pub alias: Arc<str>,
    pub description: String,
    pub effect: Effect,
    /// JSON Schema of the arguments.
    pub input: Value,
    pub terms: Arc<config::Tool>,
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
    /// W3C `traceparent`, if the call is traced.
    pub traceparent: Option<String>,
    /// Whoever calls does not wait longer.
    pub deadline: Instant,
    /// What a person has said to the question of an earlier attempt.
    pub answer: Option<Value>,
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
    /// How often it was called for this.
    pub attempts: u32,
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
        schema: Value,
    },
}

/// How far a request got that came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Certainly not one byte of it.
    Never,
    /// Its server has refused it and done nothing.
    Refused,
    Maybe,
}

// === impl Toolbox ===

impl Toolbox {
    pub fn get(&self, name: &str) -> Option<&Arc<Tool>> {
        self.tools.get(name)
    }

    pub fn all(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.tools.values()
    }

    /// Those that names or patterns with a trailing `*` mean, in the order of their names.
    pub fn named<'a>(&'a self, patterns: &'a [String]) -> impl Iterator<Item = &'a Arc<Tool>> {
        let means = |pattern: &String, name: &str| match pattern.strip_suffix('*') {
            Some(prefix) => name.starts_with(prefix),
            None => name == pattern,
        };
        self.tools
            .values()
            .filter(move |tool| patterns.iter().any(|pattern| means(pattern, &tool.name)))
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
