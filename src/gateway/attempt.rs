//! Walks the targets of a call until one answers: send, classify, go on. Only before the first
//! content is relayed.

use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;

use super::arrival::Question;
use super::ask::{self, Unfit};
use super::call::Call;
use super::flow::Flow;
use super::relayed::{Incoming, Relayed};
use super::snapshot::Target;
use crate::canon::Outcome;
use crate::error::{Error, Kind, Upstream};
use crate::provider::{Failure, Next, Provider};

/// What a target answered.
#[derive(Debug)]
pub(super) enum Answer {
    Whole {
        content_type: HeaderValue,
        body: Bytes,
    },
    /// A stream whose first content is there.
    Stream(Box<Flow>),
    /// Bytes that are passed on as they come.
    Bytes(Box<Incoming>),
}

/// Tries the targets in order. The question is let go as soon as no further attempt can need it.
pub(super) async fn walk(
    mut call: Box<Call>,
    question: Question,
) -> (Box<Call>, Result<Answer, Error>) {
    let answer = try_targets(&mut call, &question).await;
    (call, answer)
}

async fn try_targets(call: &mut Call, question: &Question) -> Result<Answer, Error> {
    let Some(chain) = call.chain.clone() else {
        return Err(Error::new(Kind::Internal, "The call has no targets."));
    };
    let mut left = chain.attempts;
    let mut last: Option<(Failure, &Target)> = None;
    let mut impossible = None;
    let mut shortest_wait: Option<Duration> = None;
    for (place, target) in chain.targets.iter().enumerate() {
        let errand = match ask::prepare(call, question, target).await {
            Ok(errand) => errand,
            Err(Unfit::Question(error)) => return Err(error),
            Err(Unfit::Target(error)) => {
                impossible.get_or_insert(error);
                continue;
            }
        };
        if let Some(answer) = errand.answer() {
            return Ok(answer);
        }
        for credential in credentials(question, target) {
            if left == 0 {
                break;
            }
            call.attempt_begins(place, &errand.dropped);
            let failure = match ask::ask(call, question, target, (&errand, credential)).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            call.attempt_ended(failure.outcome, failure.status);
            let spent = is_spent(call, question)?;
            shortest_wait = shortest_wait.into_iter().chain(failure.retry_after).min();
            let next = failure.next;
            // A key that is dead has cost nothing, so it does not count.
            left -= u32::from(next != Next::Key || failure.outcome == Outcome::RateLimited);
            tracing::debug!(
                provider = %target.provider.name, model = %target.model, status = failure.status,
                outcome = failure.outcome.name(), "an attempt failed"
            );
            last = Some((failure, target));
            if spent {
                left = 0;
            }
            match next {
                Next::Key => {}
                Next::Target => break,
                Next::Final => left = 0,
            }
        }
    }
    if let (Some((_, target)), true) = (&last, call.surface().counts_tokens()) {
        // Better a count by estimate than none: clients go on by it.
        let errand = Box::pin(ask::count(call, question, target)).await?;
        let none = || Error::new(Kind::Internal, "The tokens could not be counted.");
        return errand.answer().ok_or_else(none);
    }
    Err(match (last, impossible) {
        (Some((failure, target)), _) => explain(call, failure, target, shortest_wait),
        (None, Some(error)) => error,
        (None, None) => Error::new(Kind::Internal, "The route has no targets."),
    })
}

fn credentials(question: &Question, target: &Target) -> Range<usize> {
    let pinned = question.relayed.as_ref().and_then(Relayed::credentials);
    // Files lie in the first one's account.
    let pinned = pinned.or_else(|| question.keeper.as_ref().map(|_| 0..1));
    pinned.unwrap_or_else(|| target.provider.turns())
}

/// Whether the question cannot be sent again. The error says that it never came to its end.
fn is_spent(call: &mut Call, question: &Question) -> Result<bool, Error> {
    let Some(rest) = question.rest() else { return Ok(false) };
    let Some(broken) = rest.broken() else { return Ok(rest.is_spent()) };
    call.ends(broken.outcome());
    Err(broken.into())
}

/// What the client is told when no target answered.
fn explain(call: &Call, failure: Failure, target: &Target, wait: Option<Duration>) -> Error {
    let Failure { status, kind, next, .. } = failure;
    let provider = &target.provider;
    // What is said of our own credentials is not for the client.
    let said = failure.message.filter(|_| !matches!(status, 401..=403));
    let said = said.map(|text| provider.redact(text));
    let mut error = if next == Next::Final {
        let mut error = Error::new(kind, said.unwrap_or_else(|| refusal(provider, status)));
        error.status = Some(status);
        let Upstream { kind, param, code } = failure.upstream;
        let shown = |field: Option<String>| field.map(|text| provider.redact(text));
        let upstream = Upstream { kind: shown(kind), param: shown(param), code: shown(code) };
        error.upstream = Some(Box::new(upstream));
        error
    } else {
        let tried = call.attempts().len();
        let mut text = match (kind, status) {
            (Kind::UpstreamTimeout, _) => format!("`{}` did not answer in time", provider.name),
            (Kind::UpstreamUnavailable, _) => format!("`{}` cannot be reached", provider.name),
            (_, 0 | 200..=299) => format!("`{}` broke its answer off", provider.name),
            _ => refusal(provider, status),
        };
        if tried > 1 {
            text = format!("All {tried} attempts failed; the last: {text}");
        }
        let said = said.map_or_else(|| ".".to_owned(), |said| format!(": {said}"));
        Error::new(kind, text + &said)
    };
    error.retry_after = wait.filter(|_| matches!(error.status(), 429 | 503));
    error
}

fn refusal(provider: &Provider, status: u16) -> String {
    match status {
        401..=403 => format!("`{}` refused the gateway's credentials", provider.name),
        _ => format!("`{}` answered with status {status}", provider.name),
    }
}
