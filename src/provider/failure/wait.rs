//! How long an upstream wants to be left alone, in every form there is.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::RETRY_AFTER;
use serde_json::Value;

use super::said::Said;

/// Deeper than this nobody hides a wait.
const DEEPEST: usize = 8;

const DAY: u64 = 24 * 60 * 60;

/// Longer waits than this are not believed.
const LONGEST: Duration = Duration::from_secs(DAY);

/// What kind of limit has been reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    None,
    Rate,
    Day,
}

/// What comes before a wait that is told in prose.
const PHRASES: [&str; 5] =
    ["try again in ", "retry in ", "retry after ", "try again after ", "please wait "];

/// Units of a wait, as many letters as are written.
const UNITS: &[(&str, f64)] = &[
    ("ms", 0.001),
    ("milliseconds", 0.001),
    ("s", 1.0),
    ("sec", 1.0),
    ("secs", 1.0),
    ("second", 1.0),
    ("seconds", 1.0),
    ("m", 60.0),
    ("min", 60.0),
    ("mins", 60.0),
    ("minute", 60.0),
    ("minutes", 60.0),
    ("h", 3600.0),
    ("hour", 3600.0),
    ("hours", 3600.0),
    ("d", 86400.0),
    ("day", 86400.0),
    ("days", 86400.0),
];

/// When a limit is filled up again, each with what says how much of it is left.
const RESETS: &[(&str, &str)] = &[
    ("x-ratelimit-reset-requests", "x-ratelimit-remaining-requests"),
    ("x-ratelimit-reset-tokens", "x-ratelimit-remaining-tokens"),
    ("x-ratelimit-reset-tokens-minute", "x-ratelimit-remaining-tokens-minute"),
    ("x-ratelimit-reset-requests-day", "x-ratelimit-remaining-requests-day"),
    ("x-ratelimit-reset", "x-ratelimit-remaining"),
    ("x-ratelimit-timeremaining", "x-ratelimit-remaining"),
    ("ratelimit-reset", "ratelimit-remaining"),
    ("anthropic-ratelimit-requests-reset", "anthropic-ratelimit-requests-remaining"),
    ("anthropic-ratelimit-tokens-reset", "anthropic-ratelimit-tokens-remaining"),
    ("anthropic-ratelimit-input-tokens-reset", "anthropic-ratelimit-input-tokens-remaining"),
    ("anthropic-ratelimit-output-tokens-reset", "anthropic-ratelimit-output-tokens-remaining"),
];

/// The wait, if one is told. What is only said in passing counts for a limit; how soon there is
/// again some of a minute's share does not count for a limit of a day.
pub(super) fn read(
    said: &Said,
    headers: &HeaderMap,
    limit: Limit,
    now: SystemTime,
) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let milliseconds = |name: &str| seconds(text(name)?.parse::<f64>().ok()? / 1000.0);
    let told = milliseconds("retry-after-ms")
        .or_else(|| milliseconds("x-ms-retry-after-ms"))
        .or_else(|| header(text(RETRY_AFTER.as_str())?, now));
    let wait = match limit {
        Limit::None => told.or_else(|| retry_info(&said.body, 0)),
        Limit::Rate => told
            .or_else(|| retry_info(&said.body, 0))
            .or_else(|| in_prose(&said.words))
            .or_else(|| resets(&text, &said.body, now)),
        Limit::Day => {
            told.or_else(|| relayed(&said.body, now)).or_else(|| Some(until_morning(now)))
        }
    };
    wait.map(|wait| wait.min(LONGEST))
}

/// Limits of a day are filled up at midnight in California, where it is told: at 7 or at 8 o'clock
/// UTC, of which the later is safe.
fn until_morning(now: SystemTime) -> Duration {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let since = (now + DAY - 8 * 3600) % DAY;
    Duration::from_secs(DAY - since)
}

fn seconds(seconds: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(seconds).ok()
}

/// `retry-after`: seconds, also fractions, or a date.
fn header(value: &str, now: SystemTime) -> Option<Duration> {
    match value.parse::<f64>() {
        // A clock's reading is not a wait.
        Ok(number) if number >= 1e9 => moment(number, now),
        Ok(number) => seconds(number),
        Err(_) => httpdate::parse_http_date(value)
            .or_else(|_| humantime::parse_rfc3339(value))
            .map(|date| date.duration_since(now).unwrap_or_default())
            .ok()
            .or_else(|| span(value)),
    }
}

/// Seconds or milliseconds of the epoch.
fn moment(number: f64, now: SystemTime) -> Option<Duration> {
    let since = if number >= 1e12 { number / 1000.0 } else { number };
    let moment = SystemTime::UNIX_EPOCH.checked_add(seconds(since)?)?;
    Some(moment.duration_since(now).unwrap_or_default())
}

/// Google's `RetryInfo`: `"retryDelay": "32s"`.
fn retry_info(body: &Value, depth: usize) -> Option<Duration> {
    match body {
        Value::Array(list) if depth < DEEPEST => {
            list.iter().find_map(|one| retry_info(one, depth + 1))
        }
        Value::Object(object) if depth < DEEPEST => {
            let told = object.get("retryDelay").and_then(Value::as_str).and_then(span);
            let within = || {
                let inner = ["error", "details"].iter().filter_map(|name| object.get(*name));
                inner.into_iter().find_map(|value| retry_info(value, depth + 1))
            };
            told.or_else(within)
        }
        _ => None,
    }
}

fn in_prose(words: &str) -> Option<Duration> {
    PHRASES.iter().find_map(|phrase| span(words.split_once(phrase)?.1))
}

/// When there is again some of what ran out. If nothing says what that was, the first thing to come
/// back counts. A moment that is over says nothing.
fn resets<'a>(
    text: &dyn Fn(&str) -> Option<&'a str>,
    body: &Value,
    now: SystemTime,
) -> Option<Duration> {
    let waits = RESETS.iter().filter_map(|(reset, remaining)| {
        let wait = header(text(reset)?, now).filter(|wait| !wait.is_zero())?;
        Some((wait, text(remaining) == Some("0")))
    });
    let waits: Vec<_> = waits.collect();
    let spent = waits.iter().filter(|(_, spent)| *spent).map(|(wait, _)| *wait).max();
    let first = || waits.iter().map(|(wait, _)| *wait).min();
    spent.or_else(first).or_else(|| relayed(body, now))
}

/// Some say in the body which headers another had sent them.
fn relayed(body: &Value, now: SystemTime) -> Option<Duration> {
    header(body.pointer("/error/metadata/headers/X-RateLimit-Reset")?.as_str()?, now)
}

/// A span such as `1m30.5s`, `20 seconds`, `500ms`, at the beginning of a text.
fn span(text: &str) -> Option<Duration> {
    let mut rest = text.trim_start();
    let mut total = None;
    loop {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
        let (number, behind) = rest.split_at(digits.unwrap_or(rest.len()));
        let Ok(number) = number.parse::<f64>() else { break };
        let behind = behind.trim_start();
        let letters = behind.find(|letter: char| !letter.is_ascii_alphabetic());
        let (unit, behind) = behind.split_at(letters.unwrap_or(behind.len()));
        let Some((_, factor)) = UNITS.iter().find(|(name, _)| *name == unit) else { break };
        total = Some(total.unwrap_or(0.0) + number * factor);
        rest = behind;
    }
    seconds(total?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    /// Sun, 06 Nov 1994 08:49:30 GMT.
    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770)
    }

    fn waits(pairs: &[(&'static str, &'static str)], body: &str) -> Option<u128> {
        let pairs = pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let headers: HeaderMap = pairs.collect();
        let said = Said::read(429, &headers, body.as_bytes());
        read(&said, &headers, Limit::Rate, now()).map(|wait| wait.as_millis())
    }

    #[test]
    fn reads_every_form_of_retry_after() {
        for (name, value, milliseconds) in [
            ("retry-after", "2", 2000),
            ("retry-after", " 0.5 ", 500),
            ("retry-after", "0", 0),
            ("retry-after", "12s", 12_000),
            ("retry-after-ms", "1500", 1500),
            ("x-ms-retry-after-ms", "250", 250),
            ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT", 7000),
            ("retry-after", "1994-11-06T08:49:37Z", 7000),
            ("retry-after", "784111777", 784_111_777_000_u128.min(LONGEST.as_millis())),
            ("retry-after", "Sat, 06 Nov 1993 08:49:37 GMT", 0),
            ("retry-after", "999999999", LONGEST.as_millis()),
            ("retry-after", "1e300", 0),
        ] {
            let expected = (value != "1e300").then_some(milliseconds);
            assert_eq!(waits(&[(name, value)], ""), expected, "{value}");
        }
    }

    #[test]
    fn a_wait_that_makes_no_sense_is_as_good_as_none() {
        for value in ["", "soon", "-1", "NaN", "inf", "1 fortnight", "\"2\""] {
            assert_eq!(waits(&[("retry-after", value)], ""), None, "{value}");
            assert_eq!(waits(&[("retry-after-ms", value), ("retry-after", "3")], ""), Some(3000));
        }
    }

    #[test]
    fn a_wait_is_found_in_what_is_said() {
        for (text, milliseconds) in [
            ("Please try again in 6m0s.", 360_000),
            ("Please try again in 500ms. Visit", 500),
            ("try again in 20s", 20_000),
            ("Please try again in 7m12.5s.", 432_500),
            ("Please retry in 34.07s.", 34_070),
            ("Please retry after 2 seconds.", 2000),
            ("please try again after 1 second", 1000),
            ("Please wait 2 seconds before retrying.", 2000),
            ("Please try again in 1h2m3s", 3_723_000),
        ] {
            let body = serde_json::json!({"error": {"message": text}}).to_string();
            assert_eq!(waits(&[], &body), Some(milliseconds), "{text}");
            let said = Said::read(400, &HeaderMap::new(), body.as_bytes());
            assert_eq!(read(&said, &HeaderMap::new(), Limit::None, now()), None, "{text}");
        }
        for text in ["try again in a while", "retry after the 3rd", "try again in 5 parsecs"] {
            let body = serde_json::json!({"error": text}).to_string();
            assert_eq!(waits(&[], &body), None, "{text}");
        }
    }

    #[test]
    fn what_ran_out_says_when_it_comes_back() {
        let reset = "anthropic-ratelimit-tokens-reset";
        assert_eq!(waits(&[(reset, "1994-11-06T08:49:42Z")], ""), Some(12_000));
        let pairs = [
            ("x-ratelimit-reset-requests", "1s"),
            ("x-ratelimit-reset-tokens", "6m0s"),
            ("x-ratelimit-remaining-tokens", "0"),
        ];
        assert_eq!(waits(&pairs[..2], ""), Some(1000));
        assert_eq!(waits(&pairs, ""), Some(360_000));
        assert_eq!(waits(&[("x-ratelimit-reset", "1784111777000")], ""), Some(LONGEST.as_millis()));
        assert_eq!(waits(&[("retry-after", "2"), pairs[1]], ""), Some(2000));
    }

    #[test]
    fn google_says_it_in_the_body() {
        let told = r#"{"error":{"details":[{"@type":"x"},{"retryDelay":"32.5s"}]}}"#;
        assert_eq!(waits(&[], told), Some(32_500));
        assert_eq!(waits(&[], &format!("[{told}]")), Some(32_500));
        let until = until_morning(now());
        assert_eq!(until.as_secs(), DAY - 49 * 60 - 30);
    }
}
