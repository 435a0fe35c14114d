//! What can go wrong, and what the client is told.
//!
//! One table fixes the code, status and type of each kind. The message is safe to show; the cause
//! is for the log. Constructors never log: whoever handles an error does, once.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use crate::canon::Attempt;

/// Every way a call can be refused or fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    InvalidRequest,
    TooLarge,
    MissingKey,
    InvalidKey,
    ExpiredKey,
    KeyRevoked,
    NotAllowed,
    NotFound,
    /// What operators ask for by its name and is not there.
    Missing,
    Conflict,
    OwnedByFile,
    MethodNotAllowed,
    ModelNotFound,
    Unsupported,
    ContextTooLong,
    ContentFiltered,
    GuardBlocked,
    RateLimited,
    BudgetExceeded,
    UnpricedModel,
    Overloaded,
    UpstreamTimeout,
    UpstreamError,
    UpstreamUnavailable,
    StreamTruncated,
    AgentNotFound,
    AgentNotAllowed,
    RunNotFound,
    /// A run cannot do that where it stands.
    InvalidTransition,
    /// An answer is not what was asked for.
    Unprocessable,
    /// Somebody was first.
    AlreadyDecided,
    /// What is to be decided is not what was looked at.
    ArgsChanged,
    /// Nobody says what was looked at.
    PreconditionRequired,
    ToolNotFound,
    ToolFailed,
    /// Only a run waits for the person who has to let it.
    ApprovalRequired,
    Internal,
}

/// What a kind means to a client: its stable code, its HTTP status, and its name in OpenAI's,
/// Anthropic's and Google's APIs.
struct Row(Kind, &'static str, u16, &'static str, &'static str, &'static str);

const TABLE: &[Row] = &[
    Row(
        Kind::InvalidRequest,
        "invalid_request",
        400,
        "invalid_request_error",
        "invalid_request_error",
        "INVALID_ARGUMENT",
    ),
    Row(
        Kind::TooLarge,
        "invalid_request",
        413,
        "invalid_request_error",
        "request_too_large",
        "INVALID_ARGUMENT",
    ),
    Row(
        Kind::MissingKey,
        "missing_key",
        401,
        "authentication_error",
        "authentication_error",
        "UNAUTHENTICATED",
    ),
    Row(
        Kind::InvalidKey,
        "invalid_key",
        401,
        "authentication_error",
        "authentication_error",
        "UNAUTHENTICATED",
    ),
    Row(
        Kind::ExpiredKey,
        "expired_key",
        401,
        "authentication_error",
        "authentication_error",
        "UNAUTHENTICATED",
    ),
    Row(
        Kind::KeyRevoked,
        "key_revoked",
        401,
        "authentication_error",
        "authentication_error",
        "UNAUTHENTICATED",
    ),
    Row(
        Kind::NotAllowed,
        "not_allowed",
        403,
        "permission_error",
        "permission_error",
        "PERMISSION_DENIED",
    ),
    Row(
        Kind::NotFound,
        "invalid_request",
        404,
        "invalid_request_error",
        "not_found_error",
        "NOT_FOUND",
    ),
    Row(Kind::Missing, "not_found", 404, "invalid_request_error", "not_found_error", "NOT_FOUND"),
    Row(
        Kind::Conflict,
        "conflict",
        409,
        "invalid_request_error",
        "invalid_request_error",
        "ABORTED",
    ),
    Row(
        Kind::OwnedByFile,
        "owned_by_file",
        409,
        "invalid_request_error",
        "invalid_request_error",
        "FAILED_PRECONDITION",
    ),
    Row(
        Kind::MethodNotAllowed,
        "invalid_request",
        405,
        "invalid_request_error",
        "invalid_request_error",
        "UNIMPLEMENTED",
    ),
    Row(
        Kind::ModelNotFound,
        "model_not_found",
        404,
        "invalid_request_error",
        "not_found_error",
        "NOT_FOUND",
    ),
    Row(
        Kind::Unsupported,
        "unsupported",
        400,
        "invalid_request_error",
        "invalid_request_error",
        "INVALID_ARGUMENT",
    ),
    Row(
        Kind::ContextTooLong,
        "context_too_long",
        400,
        "invalid_request_error",
        "invalid_request_error",
        "INVALID_ARGUMENT",
    ),
    Row(
        Kind::ContentFiltered,
        "content_filtered",
        400,
        "invalid_request_error",
        "invalid_request_error",
        "INVALID_ARGUMENT",
    ),
    Row(
        Kind::GuardBlocked,
        "guard_blocked",
        403,
        "permission_error",
        "permission_error",
        "PERMISSION_DENIED",
    ),
    Row(
        Kind::RateLimited,
        "rate_limited",
        429,
        "rate_limit_error",
        "rate_limit_error",
        "RESOURCE_EXHAUSTED",
    ),
    Row(
        Kind::BudgetExceeded,
        "budget_exceeded",
        429,
        "insufficient_quota",
        "rate_limit_error",
        "RESOURCE_EXHAUSTED",
    ),
    Row(
        Kind::UnpricedModel,
        "unpriced_model",
        400,
        "invalid_request_error",
        "invalid_request_error",
        "INVALID_ARGUMENT",
    ),
    Row(Kind::Overloaded, "overloaded", 503, "server_error", "overloaded_error", "UNAVAILABLE"),
    Row(
        Kind::UpstreamTimeout,
        "upstream_timeout",
        504,
        "server_error",
        "timeout_error",
        "DEADLINE_EXCEEDED",
    ),
    Row(Kind::UpstreamError, "upstream_error", 502, "server_error", "api_error", "INTERNAL"),
    Row(
        Kind::UpstreamUnavailable,
        "upstream_unavailable",
        503,
        "server_error",
        "overloaded_error",
        "UNAVAILABLE",
    ),
    Row(Kind::StreamTruncated, "stream_truncated", 502, "server_error", "api_error", "INTERNAL"),
    Row(
        Kind::AgentNotFound,
        "agent_not_found",
        404,
        "invalid_request_error",
        "not_found_error",
        "NOT_FOUND",
    ),
    Row(
        Kind::AgentNotAllowed,
        "agent_not_allowed",
        403,
        "permission_error",
        "permission_error",
        "PERMISSION_DENIED",
    ),
    Row(
        Kind::RunNotFound,
        "run_not_found",
        404,
        "invalid_request_error",
        "not_found_error",
        "NOT_FOUND",
    ),
    Row(
        Kind::InvalidTransition,
        "invalid_state_transition",
        409,
        "invalid_request_error",
        "invalid_request_error",
        "FAILED_PRECONDITION",
    ),
    Row(
        Kind::Unprocessable,
        "invalid_request",
        422,
        "invalid_request_error",
        "invalid_request_error",
        "INVALID_ARGUMENT",
    ),
    Row(
        Kind::AlreadyDecided,
        "already_decided",
        409,
        "invalid_request_error",
        "invalid_request_error",
        "FAILED_PRECONDITION",
    ),
    Row(
        Kind::ArgsChanged,
        "args_changed",
        412,
        "invalid_request_error",
        "invalid_request_error",
        "FAILED_PRECONDITION",
    ),
    Row(
        Kind::PreconditionRequired,
        "precondition_required",
        428,
        "invalid_request_error",
        "invalid_request_error",
        "FAILED_PRECONDITION",
    ),
    Row(
        Kind::ToolNotFound,
        "tool_not_found",
        404,
        "invalid_request_error",
        "not_found_error",
        "NOT_FOUND",
    ),
    Row(Kind::ToolFailed, "tool_failed", 502, "server_error", "api_error", "INTERNAL"),
    Row(
        Kind::ApprovalRequired,
        "approval_required",
        403,
        "permission_error",
        "permission_error",
        "PERMISSION_DENIED",
    ),
    Row(Kind::Internal, "internal", 500, "server_error", "api_error", "INTERNAL"),
];

impl Kind {
    fn row(self) -> &'static Row {
        // The table names every kind (tested), so the fallback is never met.
        TABLE.iter().find(|row| row.0 == self).unwrap_or(&TABLE[TABLE.len() - 1])
    }

    pub fn code(self) -> &'static str {
        self.row().1
    }

    pub fn status(self) -> u16 {
        self.row().2
    }

    /// The `error.type` that OpenAI's API uses for this kind.
    pub fn openai_type(self) -> &'static str {
        self.row().3
    }

    /// The `error.type` that Anthropic's API uses for this kind.
    pub fn anthropic_type(self) -> &'static str {
        self.row().4
    }

    /// The `error.status` that Google's APIs use for this kind.
    pub fn google_status(self) -> &'static str {
        self.row().5
    }
}

/// One refusal or failure, as the client is told of it.
#[derive(Debug, Clone)]
pub struct Error {
    pub kind: Kind,
    /// Safe to show: no secret, no address of an internal host.
    pub message: Cow<'static, str>,
    /// Overrides the kind's status, to mirror an upstream's 4xx.
    pub status: Option<u16>,
    /// What an upstream said of its own refusal: its `type`, `param` and `code`.
    pub upstream: Option<Box<Upstream>>,
    pub retry_after: Option<Duration>,
    /// Asking again is of no use, whatever the status says; SDKs heed `x-should-retry`.
    pub is_final: bool,
    pub attempts: Vec<Attempt>,
}

/// The fields of an upstream's error body that clients read.
#[derive(Debug, Clone, Default)]
pub struct Upstream {
    pub kind: Option<String>,
    pub param: Option<String>,
    pub code: Option<String>,
}

impl Error {
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            status: None,
            upstream: None,
            retry_after: None,
            is_final: false,
            attempts: Vec::new(),
        }
    }

    pub fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::InvalidRequest, message)
    }

    pub fn status(&self) -> u16 {
        self.status.unwrap_or_else(|| self.kind.status())
    }
}

/// What `Retry-After` and its like say of a wait, in whole seconds. Rounded up: whoever comes back a
/// moment early comes in vain.
pub fn retry_after_seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.kind.code(), self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_stands_in_the_table_once() {
        for row in TABLE {
            assert_eq!(TABLE.iter().filter(|other| other.0 == row.0).count(), 1, "{:?}", row.0);
            assert_eq!(row.0.status(), row.2);
        }
        assert_eq!(TABLE.len(), Kind::Internal as usize + 1);
    }
}
