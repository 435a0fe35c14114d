//! What the table promises, over the refusals of every provider.

use std::fs;
use std::path::{Path, PathBuf};

use http::{HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::Value;

use super::super::catalog::{CATALOG, find};
use super::table::TABLE;
use super::*;

const OURS: [&str; 6] =
    ["rate_limited", "daily_limit", "quota", "budget", "invalid_key", "not_allowed"];

struct Fixture {
    name: String,
    kind: &'static Kind,
    said: Value,
}

fn fixtures() -> Vec<Fixture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers");
    let mut fixtures = Vec::new();
    for kind in CATALOG.iter().filter(|kind| kind.id != "demo") {
        let files = fs::read_dir(root.join(kind.id).join("errors")).unwrap();
        let files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
        fixtures.extend(files.into_iter().map(|path| {
            let name = format!("{}/{}", kind.id, path.file_name().unwrap().display());
            let said = serde_json::from_slice(&fs::read(&path).unwrap());
            Fixture { said: said.unwrap_or_else(|error| panic!("{name}: {error}")), name, kind }
        }));
    }
    fixtures
}

fn next_name(next: Next) -> &'static str {
    match next {
        Next::Same => "same",
        Next::Key => "key",
        Next::Target => "target",
        Next::Larger => "larger",
        Next::Filtered => "filtered",
        Next::Final => "final",
    }
}

// === impl Fixture ===

impl Fixture {
    fn body(&self) -> Bytes {
        match &self.said["body"] {
            Value::String(text) => text.clone().into(),
            body => body.to_string().into(),
        }
    }

    /// A status below 300 is a failure that is reported inside of a success.
    fn classified(&self) -> Failure {
        let status = u16::try_from(self.said["status"].as_u64().unwrap()).unwrap();
        let headers = self.said["headers"].as_object().unwrap().iter().map(|(name, value)| {
            let value = HeaderValue::from_str(value.as_str().unwrap()).unwrap();
            (HeaderName::try_from(name).unwrap(), value)
        });
        if status < 300 {
            return Failure::reported(self.kind.quirks.signs, status, &self.body());
        }
        classify(self.kind, status, &headers.collect(), &self.body())
    }

    /// What is not as it is written beside the body.
    fn complaints(&self) -> Vec<String> {
        let failure = self.classified();
        let wait = failure.retry_after.map(|wait| wait.as_secs_f64());
        // A limit of a day ends at some time of the day.
        let wait_is_right = match &self.said["wait"] {
            Value::String(text) if text == "tomorrow" => wait.is_some_and(|wait| wait <= 86_400.0),
            told => told.as_f64() == wait.map(|wait| (wait * 1000.0).round() / 1000.0),
        };
        let found = [("class", failure.reason), ("next", next_name(failure.next))];
        let wrong = found.iter().filter(|(field, found)| self.said[*field] != *found);
        let wrong = wrong.map(|(field, found)| format!("{} is {found} by {field}", self.name));
        let waits = format!("{} has to be waited for {wait:?} seconds", self.name);
        wrong.chain((!wait_is_right).then_some(waits)).collect()
    }
}

#[test]
fn every_refusal_of_every_provider_has_its_class_its_consequence_and_its_wait() {
    let fixtures = fixtures();
    let wrong: Vec<_> = fixtures.iter().flat_map(Fixture::complaints).collect();
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_is_said_of_our_keys_and_our_account_is_for_the_operator_alone() {
    for fixture in fixtures() {
        let failure = fixture.classified();
        if OURS.contains(&failure.reason) {
            assert_eq!(failure.message, None, "{}", fixture.name);
            assert!(failure.upstream.code.is_none(), "{}", fixture.name);
        }
        assert!(failure.message.is_none_or(|text| !confides(&text)), "{}", fixture.name);
    }
    let body = Bytes::from_static(br#"{"error":{"message":"Your API key sk-1 may not do this."}}"#);
    for status in [400, 404, 422, 500, 503] {
        let failure = classify(find("groq").unwrap(), status, &HeaderMap::new(), &body);
        assert_eq!(failure.message, None, "{status}");
        assert!(failure.confided.is_some(), "{status}");
    }
}

#[test]
fn every_cause_has_its_row_and_the_last_row_takes_what_is_left() {
    for status in 0..1000 {
        let failure = Failure::of(Cause::Status(status, status), status);
        let again = [408, 409, 425, 429, 500, 502, 503, 504, 529].contains(&status);
        assert_eq!(failure.again, again, "{status}");
        let ours = matches!(status, 401..=403 | 429);
        assert_eq!(failure.next == Next::Key, ours, "{status}");
        let is_final = matches!(status, 400..=499)
            && !matches!(status, 401..=405 | 408..=410 | 413 | 425 | 429);
        assert_eq!(failure.next == Next::Final, is_final, "{status}");
        assert_eq!(failure.mirrored().is_some(), is_final, "{status}");
    }
}

#[test]
fn no_fault_of_a_request_is_told_as_the_servers() {
    for row in TABLE {
        let failure = Failure { next: row.next, ..Failure::of(Cause::Cut, 503) };
        if failure.is_the_requests() {
            assert!((400..500).contains(&row.kind.status()), "{}", row.reason);
            assert_eq!(row.blame, Blame::Nobody, "{}", row.reason);
        }
    }
    let long = br#"{"error":{"message":"no","code":"context_length_exceeded"}}"#;
    for status in [200, 400, 413, 422, 500] {
        let failure = Failure::reported(&[], status, long);
        assert_eq!((failure.next, failure.kind.status()), (Next::Larger, 400), "{status}");
        assert_eq!(failure.mirrored(), None, "{status}");
    }
}

#[test]
fn an_unknown_429_is_a_rate_limit_whatever_it_says_of_quotas() {
    for body in ["", "quota", r#"{"error":{"code":"insufficient_quota","type":"x"}}"#] {
        for id in ["openai-compatible", "azure", "vertex", "alibaba"] {
            let failure = classify(find(id).unwrap(), 429, &HeaderMap::new(), &body.into());
            assert_eq!((failure.reason, failure.blame), ("rate_limited", Blame::Wait), "{id}");
        }
    }
}

#[test]
fn a_stream_that_reports_a_failure_means_what_the_same_answer_means() {
    let heard = |kind: &str, code: Option<&str>, status, message: &str| StreamFailure {
        message: message.into(),
        kind: Some(kind.into()),
        code: code.map(str::to_owned),
        status,
    };
    for (id, heard, reason, next) in [
        ("anthropic", heard("overloaded_error", None, Some(529), "Busy"), "overloaded", "target"),
        ("anthropic", heard("overloaded_error", None, None, "Busy"), "overloaded", "target"),
        ("anthropic", heard("rate_limit_error", None, Some(429), "no"), "rate_limited", "key"),
        (
            "anthropic",
            heard("invalid_request_error", None, Some(400), "prompt is too long: 9 tokens"),
            "context_too_long",
            "larger",
        ),
        ("bedrock", heard("throttlingException", None, Some(429), "no"), "rate_limited", "key"),
        (
            "bedrock",
            heard("modelStreamErrorException", None, Some(424), "no"),
            "upstream_error",
            "target",
        ),
        (
            "bedrock",
            heard("validationException", None, Some(400), "no"),
            "invalid_request",
            "final",
        ),
        (
            "gemini",
            heard("RESOURCE_EXHAUSTED", Some("429"), Some(429), "no"),
            "rate_limited",
            "key",
        ),
        ("gemini", heard("UNAVAILABLE", Some("503"), Some(503), "no"), "overloaded", "target"),
        ("openai", heard("server_error", None, None, "no"), "upstream_error", "target"),
        (
            "openai",
            heard("insufficient_quota", Some("insufficient_quota"), None, "no"),
            "quota",
            "key",
        ),
        (
            "openai",
            heard("t", Some("context_length_exceeded"), None, "no"),
            "context_too_long",
            "larger",
        ),
        ("openrouter", heard("t", Some("502"), Some(502), "no"), "upstream_error", "target"),
        ("groq", heard("unheard_of", None, None, "no"), "error_in_body", "target"),
    ] {
        let failure = Failure::heard(find(id).unwrap().quirks.signs, 200, &heard);
        assert_eq!((failure.reason, next_name(failure.next)), (reason, next), "{id} {heard:?}");
    }
}

proptest! {
    #[test]
    fn whatever_comes_has_a_class_and_a_wait_that_can_be_waited(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        words in "(\\{\"error\":)?[ -~]{0,40}(\\}|quota|try again in [0-9.]{0,30}[a-z]{0,3})?",
        status in 0_u16..1000,
        wait in "[ -~]{0,20}",
    ) {
        let value = HeaderValue::from_str(&wait).unwrap();
        let names = ["retry-after", "retry-after-ms", "x-ratelimit-reset"];
        let headers = names.map(|name| (HeaderName::from_static(name), value.clone()));
        let headers: HeaderMap = headers.into_iter().collect();
        for kind in CATALOG {
            for body in [&body[..], words.as_bytes()] {
                let failure = classify(kind, status, &headers, &Bytes::copy_from_slice(body));
                prop_assert!(TABLE.iter().any(|row| row.reason == failure.reason));
                prop_assert!(failure.retry_after.is_none_or(|wait| wait.as_secs() <= 86_400));
                let reported = Failure::reported(kind.quirks.signs, 200, body);
                prop_assert!(!reported.reason.is_empty());
            }
        }
    }
}

/// What the recorded refusals of real providers are, by what their names contain.
const RECORDED: [(&str, &str); 7] = [
    ("model-name-suggestion", "model_not_found"),
    ("unknown-model", "model_not_found"),
    ("tool-regular-error", "model_not_found"),
    ("count-tokens-error", "model_not_found"),
    ("openai-error-1", "quota"),
    ("tool-use-failed", "upstream_error"),
    ("", "invalid_request"),
];

#[test]
fn what_real_providers_refused_is_classified_as_a_reader_would() {
    let Some(root) = std::env::var_os("SWITCHPOINT_RECORDINGS") else {
        println!("SWITCHPOINT_RECORDINGS is not set; nothing was read");
        return;
    };
    let folders = fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path());
    let files = folders.filter(|path| path.is_dir()).flat_map(|path| fs::read_dir(path).unwrap());
    let files = files.map(|file| file.unwrap().path());
    let mut count = 0;
    for path in files.filter(|path| path.extension().is_some_and(|kind| kind == "json")) {
        let facts: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let status = facts["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        let Some(status) = status.filter(|status| *status >= 400) else { continue };
        let id = facts["id"].as_str().unwrap();
        let kind =
            CATALOG.iter().filter(|kind| id.starts_with(kind.id)).max_by_key(|kind| kind.id.len());
        let body = fs::read(path.with_extension("body")).unwrap();
        let kind = kind.unwrap_or_else(|| find("openai-compatible").unwrap());
        let failure = classify(kind, status, &HeaderMap::new(), &body.into());
        let expected = RECORDED.iter().find(|(name, _)| id.contains(name)).unwrap().1;
        assert_eq!(failure.reason, expected, "{id}");
        count += 1;
    }
    println!("{count} refusals were read");
}
