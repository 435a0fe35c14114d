//! From a failure's cause to what it means.

use super::{Blame, Cause, Class, Next};
use crate::canon::Outcome;
use crate::error::Kind;

pub(super) struct Row {
    cause: Cause,
    pub(super) reason: &'static str,
    pub(super) outcome: Outcome,
    pub(super) next: Next,
    /// Whether the same key may be asked again after a pause.
    pub(super) again: bool,
    pub(super) blame: Blame,
    pub(super) kind: Kind,
}

const fn row(
    cause: Cause,
    reason: &'static str,
    (outcome, kind): (Outcome, Kind),
    next: Next,
    blame: Blame,
    again: bool,
) -> Row {
    Row { cause, reason, outcome, next, again, blame, kind }
}

const ERROR: (Outcome, Kind) = (Outcome::UpstreamError, Kind::UpstreamError);
const SLOW: (Outcome, Kind) = (Outcome::Timeout, Kind::UpstreamTimeout);
const BROKEN: (Outcome, Kind) = (Outcome::UpstreamTruncated, Kind::UpstreamError);
const BUSY: (Outcome, Kind) = (Outcome::UpstreamError, Kind::UpstreamUnavailable);
const LIMITED: (Outcome, Kind) = (Outcome::RateLimited, Kind::RateLimited);
const GONE: (Outcome, Kind) = (Outcome::UpstreamError, Kind::ModelNotFound);
const LARGE: (Outcome, Kind) = (Outcome::Refused, Kind::TooLarge);
const REFUSED: (Outcome, Kind) = (Outcome::Refused, Kind::InvalidRequest);
const LONG: (Outcome, Kind) = (Outcome::Refused, Kind::ContextTooLong);
const FILTERED: (Outcome, Kind) = (Outcome::Refused, Kind::ContentFiltered);

/// The first row that holds counts; the last one always does.
pub(super) const TABLE: &[Row] = &[
    // What was said.
    row(Cause::Said(Class::RateLimited), "rate_limited", LIMITED, Next::Key, Blame::Wait, true),
    row(Cause::Said(Class::DailyLimit), "daily_limit", LIMITED, Next::Key, Blame::Wait, false),
    // Our key, our account: another may do, and the client's own key is not to blame.
    row(Cause::Said(Class::Quota), "quota", ERROR, Next::Key, Blame::Key, false),
    row(Cause::Said(Class::Budget), "budget", LIMITED, Next::Key, Blame::Nobody, false),
    row(Cause::Said(Class::InvalidKey), "invalid_key", ERROR, Next::Key, Blame::Key, false),
    row(Cause::Said(Class::NotAllowed), "not_allowed", ERROR, Next::Key, Blame::Target, false),
    row(
        Cause::Said(Class::ModelNotFound),
        "model_not_found",
        GONE,
        Next::Target,
        Blame::Target,
        false,
    ),
    row(
        Cause::Said(Class::ContextTooLong),
        "context_too_long",
        LONG,
        Next::Larger,
        Blame::Nobody,
        false,
    ),
    row(Cause::Said(Class::TooLarge), "too_large", LARGE, Next::Target, Blame::Nobody, false),
    row(
        Cause::Said(Class::ContentFiltered),
        "content_filtered",
        FILTERED,
        Next::Filtered,
        Blame::Nobody,
        false,
    ),
    row(
        Cause::Said(Class::InvalidRequest),
        "invalid_request",
        REFUSED,
        Next::Final,
        Blame::Nobody,
        false,
    ),
    row(Cause::Said(Class::Overloaded), "overloaded", BUSY, Next::Target, Blame::Target, true),
    row(Cause::Said(Class::Trouble), "upstream_error", ERROR, Next::Target, Blame::Target, true),
    // What broke, before a status or despite a good one.
    row(Cause::Connect, "connect", BUSY, Next::Target, Blame::Target, true),
    row(Cause::Closed, "closed", BROKEN, Next::Same, Blame::Target, true),
    // Whoever has just been waited for in vain is not waited for again.
    row(Cause::HeadersTimeout, "headers_timeout", SLOW, Next::Target, Blame::Target, false),
    row(Cause::ConnectTimeout, "connect_timeout", SLOW, Next::Target, Blame::Target, false),
    row(Cause::FirstTokenTimeout, "first_token_timeout", SLOW, Next::Target, Blame::Target, false),
    row(Cause::IdleTimeout, "idle_timeout", SLOW, Next::Target, Blame::Target, false),
    row(Cause::TotalTimeout, "total_timeout", SLOW, Next::Target, Blame::Target, false),
    row(Cause::EmptyStream, "empty", BROKEN, Next::Target, Blame::Target, true),
    row(Cause::ErrorInBody, "error_in_body", ERROR, Next::Target, Blame::Target, true),
    row(Cause::Malformed, "malformed", BROKEN, Next::Target, Blame::Target, true),
    row(Cause::Cut, "cut", BROKEN, Next::Target, Blame::Target, true),
    row(Cause::TooLong, "too_long", BROKEN, Next::Target, Blame::Nobody, false),
    // Statuses that say all there is to know.
    row(Cause::Status(401, 401), "invalid_key", ERROR, Next::Key, Blame::Key, false),
    row(Cause::Status(402, 402), "quota", ERROR, Next::Key, Blame::Key, false),
    row(Cause::Status(403, 403), "not_allowed", ERROR, Next::Key, Blame::Target, false),
    row(Cause::Status(404, 404), "model_not_found", GONE, Next::Target, Blame::Target, false),
    row(Cause::Status(405, 405), "method_not_allowed", ERROR, Next::Target, Blame::Target, false),
    row(Cause::Status(408, 408), "timeout", SLOW, Next::Target, Blame::Target, true),
    row(Cause::Status(409, 409), "conflict", ERROR, Next::Target, Blame::Nobody, true),
    row(Cause::Status(410, 410), "model_not_found", GONE, Next::Target, Blame::Target, false),
    row(Cause::Status(413, 413), "too_large", LARGE, Next::Target, Blame::Nobody, false),
    row(Cause::Status(425, 425), "too_early", ERROR, Next::Target, Blame::Nobody, true),
    row(Cause::Status(429, 429), "rate_limited", LIMITED, Next::Key, Blame::Wait, true),
    row(Cause::Status(400, 499), "invalid_request", REFUSED, Next::Final, Blame::Nobody, false),
    row(Cause::Status(500, 500), "upstream_error", ERROR, Next::Target, Blame::Target, true),
    row(Cause::Status(502, 502), "upstream_error", ERROR, Next::Target, Blame::Target, true),
    row(Cause::Status(503, 503), "overloaded", BUSY, Next::Target, Blame::Target, true),
    row(Cause::Status(504, 504), "timeout", SLOW, Next::Target, Blame::Target, true),
    row(Cause::Status(529, 529), "overloaded", BUSY, Next::Target, Blame::Target, true),
    row(Cause::Status(0, 999), "upstream_error", ERROR, Next::Target, Blame::Target, false),
];

pub(super) fn find(cause: Cause) -> &'static Row {
    TABLE.iter().find(|row| row.cause.covers(cause)).unwrap_or(&TABLE[TABLE.len() - 1])
}

// === impl Cause ===

impl Cause {
    fn covers(self, cause: Self) -> bool {
        match (self, cause) {
            (Self::Status(first, last), Self::Status(status, _)) => {
                (first..=last).contains(&status)
            }
            (row, cause) => row == cause,
        }
    }
}
