//! What an upstream's refusal means, and what may be tried next: one table.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderMap;
use http::header::RETRY_AFTER;

use super::catalog::Kind;
use crate::canon::Outcome;
use crate::dialect::openai::read_error;
use crate::error::{Kind as ErrorKind, Upstream};

/// What may be tried after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Another key of the same provider, else the next target.
    Key,
    Target,
    /// Nothing: every target would refuse this request.
    Final,
}

/// One failed attempt, classified.
#[derive(Debug, Clone)]
pub struct Failure {
    pub outcome: Outcome,
    pub next: Next,
    /// The upstream's status, 0 when none arrived.
    pub status: u16,
    /// What the client is told should this be the last word.
    pub kind: ErrorKind,
    /// What the upstream said of it; may echo a secret, so it is redacted before it is shown.
    pub message: Option<String>,
    pub upstream: Upstream,
    pub retry_after: Option<Duration>,
}

struct Row(std::ops::RangeInclusive<u16>, Outcome, Next, ErrorKind);

/// From an upstream's status; the first row that holds counts.
const TABLE: &[Row] = &[
    // Our key, our account: another may do, and the client's own key is not to blame.
    Row(401..=403, Outcome::UpstreamError, Next::Key, ErrorKind::UpstreamError),
    Row(404..=404, Outcome::UpstreamError, Next::Target, ErrorKind::ModelNotFound),
    Row(405..=405, Outcome::UpstreamError, Next::Target, ErrorKind::UpstreamError),
    Row(408..=408, Outcome::Timeout, Next::Target, ErrorKind::UpstreamTimeout),
    Row(409..=409, Outcome::UpstreamError, Next::Target, ErrorKind::UpstreamError),
    Row(410..=410, Outcome::UpstreamError, Next::Target, ErrorKind::ModelNotFound),
    Row(413..=413, Outcome::UpstreamError, Next::Target, ErrorKind::TooLarge),
    Row(425..=425, Outcome::UpstreamError, Next::Target, ErrorKind::UpstreamError),
    Row(429..=429, Outcome::RateLimited, Next::Key, ErrorKind::RateLimited),
    Row(504..=504, Outcome::Timeout, Next::Target, ErrorKind::UpstreamTimeout),
    Row(400..=499, Outcome::Refused, Next::Final, ErrorKind::InvalidRequest),
    Row(0..=999, Outcome::UpstreamError, Next::Target, ErrorKind::UpstreamError),
];

/// What an answer other than 2xx means.
pub(super) fn classify(kind: &Kind, status: u16, headers: &HeaderMap, body: &Bytes) -> Failure {
    let (message, upstream) = match read_error(body) {
        Some((message, upstream)) => (Some(message), upstream),
        None => (None, Upstream::default()),
    };
    let mut failure = from_status(status);
    let said = [&upstream.code, &upstream.kind];
    let is = |code: &str| said.iter().any(|said| said.as_deref() == Some(code));
    if kind.quirks.quota_codes.iter().any(|code| is(code)) {
        // An account without money: waiting does not help, another key may.
        failure = Failure { next: Next::Key, ..from_status(402) };
    }
    let retry_after = retry_after(headers, SystemTime::now());
    Failure { status, message, upstream, retry_after, ..failure }
}

fn from_status(status: u16) -> Failure {
    let row = TABLE.iter().find(|row| row.0.contains(&status)).unwrap_or(&TABLE[TABLE.len() - 1]);
    Failure::new(row.1, row.2, row.3, status)
}

impl Failure {
    fn new(outcome: Outcome, next: Next, kind: ErrorKind, status: u16) -> Self {
        Self {
            outcome,
            next,
            status,
            kind,
            message: None,
            upstream: Upstream::default(),
            retry_after: None,
        }
    }

    /// No answer came at all.
    pub fn unreachable() -> Self {
        Self::new(Outcome::UpstreamError, Next::Target, ErrorKind::UpstreamUnavailable, 0)
    }

    /// One of the time limits was reached.
    pub fn timeout(status: u16) -> Self {
        Self::new(Outcome::Timeout, Next::Target, ErrorKind::UpstreamTimeout, status)
    }

    /// The answer broke off or made no sense before any of it was passed on.
    pub fn truncated(status: u16) -> Self {
        Self::new(Outcome::UpstreamTruncated, Next::Target, ErrorKind::UpstreamError, status)
    }

    /// A success in name that carries an error in its body.
    pub fn in_band(status: u16, body: &[u8]) -> Self {
        let mut failure =
            Self::new(Outcome::UpstreamError, Next::Target, ErrorKind::UpstreamError, status);
        if let Some((message, upstream)) = read_error(body) {
            failure.message = Some(message);
            failure.upstream = upstream;
        }
        failure
    }
}

/// How long to wait, in each form providers use: seconds (also fractions), milliseconds in
/// `retry-after-ms`, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let seconds = |seconds: f64| Duration::try_from_secs_f64(seconds).ok();
    if let Some(milliseconds) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return seconds(milliseconds / 1000.0);
    }
    let value = text(RETRY_AFTER.as_str())?.trim();
    match value.parse::<f64>() {
        Ok(value) => seconds(value),
        Err(_) => {
            Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalog::find;
    use super::*;
    use http::HeaderValue;

    #[test]
    fn reads_every_form_of_retry_after() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770);
        for (name, value, milliseconds) in [
            ("retry-after", "2", 2000),
            ("retry-after", "0.5", 500),
            ("retry-after-ms", "1500", 1500),
            ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT", 7000),
            ("retry-after", "Sat, 06 Nov 1993 08:49:37 GMT", 0),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            assert_eq!(
                retry_after(&headers, now),
                Some(Duration::from_millis(milliseconds)),
                "{value}"
            );
        }
    }

    #[test]
    fn a_429_for_an_empty_account_is_not_a_rate_limit() {
        let body = Bytes::from_static(br#"{"error":{"message":"no","code":"insufficient_quota"}}"#);
        let openai = find("openai").unwrap();
        let quota = classify(openai, 429, &HeaderMap::new(), &body);
        assert_eq!((quota.outcome, quota.next), (Outcome::UpstreamError, Next::Key));
        let limit = classify(openai, 429, &HeaderMap::new(), &Bytes::new());
        assert_eq!((limit.outcome, limit.next), (Outcome::RateLimited, Next::Key));
    }

    #[test]
    fn a_request_that_no_target_would_take_ends_the_chain() {
        for status in [400, 422] {
            let failure = classify(find("groq").unwrap(), status, &HeaderMap::new(), &Bytes::new());
            assert_eq!(failure.next, Next::Final);
        }
    }
}
