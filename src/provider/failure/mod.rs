//! What a failed attempt means, and what may be tried next: one table.

mod general;
mod said;
pub mod signs;
mod table;
mod wait;

#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;

use self::said::{Said, confides};
use self::signs::Sign;
use self::wait::Limit;
use super::catalog::Kind;
use crate::canon::{Outcome, StreamFailure, Usage};
use crate::dialect::openai::read_error;
use crate::error::{Kind as ErrorKind, Upstream};

/// What may be tried after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// The same key, at once or after a pause: neither it nor the target is known to be unwell.
    Same,
    /// Another key of the same provider, else the next target.
    Key,
    Target,
    /// Only a target whose context window is larger.
    Larger,
    /// Nothing, unless the route says that others may judge the content.
    Filtered,
    /// Nothing: every target would refuse this request.
    Final,
}

/// Of whose health a failure speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// An error of the target, asked with this key.
    Target,
    /// The target takes nothing more from this key for a while: as long as was said, else a default.
    Wait,
    /// The key is refused or without money, whichever model is asked.
    Key,
    /// The request's own fault, or chance.
    Nobody,
}

/// What an upstream says is wrong, whatever words and status it has for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    RateLimited,
    /// Spent for today: asking again sooner is of no use.
    DailyLimit,
    /// The account has no money.
    Quota,
    /// A gateway's key has less left than this call may cost. A smaller one may fit.
    Budget,
    InvalidKey,
    /// The key is good, but not for this.
    NotAllowed,
    ModelNotFound,
    ContextTooLong,
    TooLarge,
    ContentFiltered,
    InvalidRequest,
    Overloaded,
    /// Trouble of the provider's own, also where it blames the request.
    Trouble,
}

/// How an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// A status from the first to the second, of which the body says no more.
    Status(u16, u16),
    Said(Class),
    /// No connection could be made.
    Connect,
    /// A connection was not made in time.
    ConnectTimeout,
    /// The connection broke before the head of the answer was there.
    Closed,
    HeadersTimeout,
    FirstTokenTimeout,
    IdleTimeout,
    TotalTimeout,
    /// A stream or an answer ended well and said nothing.
    EmptyStream,
    /// A success in name reports a failure that nobody knows.
    ErrorInBody,
    /// What came makes no sense.
    Malformed,
    /// The answer broke off.
    Cut,
    /// The answer is longer than is taken in, which another try makes no shorter.
    TooLong,
}

/// One failed attempt, classified.
#[derive(Debug, Clone)]
pub struct Failure {
    pub cause: Cause,
    /// One word for the cause, from a small set.
    pub reason: &'static str,
    pub outcome: Outcome,
    pub next: Next,
    /// The same key may answer when it is asked again after a pause.
    pub again: bool,
    pub blame: Blame,
    /// The upstream's status, or that of the failure it reports; 0 when none arrived.
    pub status: u16,
    /// What the client is told should this be the last word.
    pub kind: ErrorKind,
    /// What the upstream said of it; may echo a secret, so it is redacted before it is shown.
    pub message: Option<String>,
    /// What it said of our credentials or account: for the operator alone.
    pub confided: Option<String>,
    pub upstream: Upstream,
    pub retry_after: Option<Duration>,
    /// The upstream has said that asking again is of no use.
    pub declines: bool,
    /// What it has used, where it broke off an answer that had begun.
    pub used: Option<Box<Usage>>,
}

/// What an answer other than 2xx means.
pub(super) fn classify(kind: &Kind, status: u16, headers: &HeaderMap, body: &Bytes) -> Failure {
    Failure::read(kind.quirks.signs, status, headers, body)
}

// === impl Failure ===

impl Failure {
    /// A failure of this cause; `status` is 0 when none arrived.
    pub fn of(cause: Cause, status: u16) -> Self {
        let row = table::find(cause);
        Self {
            cause,
            reason: row.reason,
            outcome: row.outcome,
            next: row.next,
            again: row.again,
            blame: row.blame,
            status,
            kind: row.kind,
            message: None,
            confided: None,
            upstream: Upstream::default(),
            retry_after: None,
            declines: false,
            used: None,
        }
    }

    /// No answer came at all.
    pub fn unreachable() -> Self {
        Self::of(Cause::Connect, 0)
    }

    /// One of the time limits was reached.
    pub fn timeout(status: u16) -> Self {
        Self::of(Cause::HeadersTimeout, status)
    }

    /// The answer broke off or made no sense before any of it was passed on.
    pub fn truncated(status: u16) -> Self {
        Self::of(Cause::Cut, status)
    }

    /// A success in name that carries an error in its body, of a provider without words of its own.
    pub fn in_band(status: u16, body: &[u8]) -> Self {
        Self::reported(&[], status, body)
    }

    /// The same, where the provider's own words are known.
    pub(super) fn reported(own: &[Sign], status: u16, body: &[u8]) -> Self {
        Self::read(own, status, &HeaderMap::new(), body)
    }

    /// What a stream's reader has read of the failure that its upstream reports.
    pub(super) fn heard(own: &[Sign], status: u16, heard: &StreamFailure) -> Self {
        let body = serde_json::json!({ "error": {
            "message": heard.message,
            "type": heard.kind,
            "code": heard.status.map_or_else(|| heard.code.clone().into(), serde_json::Value::from),
            "status": heard.code,
        }});
        Self::reported(own, status, body.to_string().as_bytes())
    }

    fn read(own: &[Sign], status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let said = Said::read(status, headers, body);
        let class = said.class(own);
        let cause = match (class, said.status) {
            (Some(class), _) => Cause::Said(class),
            (None, 200..=299) => Cause::ErrorInBody,
            (None, status) => Cause::Status(status, status),
        };
        let mut failure = Self::of(cause, if said.status < 300 { status } else { said.status });
        let limit = match (cause, failure.blame) {
            (Cause::Said(Class::DailyLimit), _) => Limit::Day,
            (_, Blame::Wait) => Limit::Rate,
            _ => Limit::None,
        };
        failure.declines = headers.get("x-should-retry").is_some_and(|it| it == "false");
        failure.again &= !failure.declines;
        failure.retry_after = wait::read(&said, headers, limit, SystemTime::now());
        if let Some((message, upstream)) = read_error(body) {
            failure.hears(message, upstream);
        }
        failure
    }

    /// Keeps apart what may be shown and what may not.
    fn hears(&mut self, message: String, upstream: Upstream) {
        let ours = self.next == Next::Key
            || (matches!(self.status, 401..=403) && !self.is_the_requests())
            || confides(&message);
        if ours {
            self.confided = Some(message);
        } else {
            self.message = Some(message);
            self.upstream = upstream;
        }
    }

    /// Whether the request itself is at fault, so that the client is told in the upstream's words.
    pub fn is_the_requests(&self) -> bool {
        matches!(self.next, Next::Larger | Next::Filtered | Next::Final)
    }

    /// Whether the same question will meet the same refusal until an operator does something.
    pub fn is_final(&self) -> bool {
        let is_ours = matches!(self.blame, Blame::Key | Blame::Target);
        self.declines || self.next == Next::Key && is_ours
    }

    /// Whether the account has nothing left.
    pub fn is_about_money(&self) -> bool {
        self.status == 402 || self.cause == Cause::Said(Class::Quota)
    }

    /// The status to mirror to the client: never 5xx for a request at fault.
    pub fn mirrored(&self) -> Option<u16> {
        let mirrors = self.kind == ErrorKind::InvalidRequest && (400..500).contains(&self.status);
        mirrors.then_some(self.status)
    }
}
