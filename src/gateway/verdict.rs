//! What a client is told when no target has answered.

use std::time::Duration;

use tokio::time::Instant;

use super::call::Call;
use super::chain::Chain;
use super::journey::Journey;
use super::snapshot::Target;
use crate::error::{Error, Kind, Upstream};
use crate::provider::{Blame, Cause, Failure, Provider};
use crate::route::health::Reason;
use crate::route::plan::Skip;

pub(super) fn explain(call: &Call, chain: &Chain, journey: &mut Journey) -> Error {
    if let Some((place, failure)) = journey.last.take() {
        let (target, now) = (&chain.targets[place], Instant::now());
        // Who has named no time is left alone for one of our choice.
        let until = || Some(target.shut(now)?.0.saturating_duration_since(now));
        return refused(call, failure, target, journey.shortest_wait.or_else(until));
    }
    let unfit = journey.unfit.take();
    unfit
        .or_else(|| unplanned(chain, &journey.skipped))
        .unwrap_or_else(|| Error::new(Kind::Internal, "The route has no targets."))
}

/// Nobody could be asked, or nobody wants to be asked now.
fn unplanned(chain: &Chain, skipped: &[(u16, Skip)]) -> Option<Error> {
    let shut = skipped.iter().filter_map(|(_, skip)| match skip {
        Skip::Shut(until, reason) => Some((*until, *reason)),
        _ => None,
    });
    if let Some((until, reason)) = shut.min_by_key(|(until, _)| *until) {
        let (kind, said) = match reason {
            Reason::RateLimited => (Kind::RateLimited, "asked to be left alone for a while"),
            _ => (Kind::UpstreamUnavailable, "failed lately and are left alone for a while"),
        };
        let mut error = Error::new(kind, format!("All targets of the route {said}."));
        error.retry_after = Some(until.saturating_duration_since(Instant::now()));
        return Some(error);
    }
    let (place, first) = skipped.first()?;
    let target = chain.targets.get(usize::from(*place))?;
    let name = format!("{}/{}", target.provider.name, target.model);
    Some(match first {
        Skip::TooSmall(_) => {
            let largest = skipped.iter().filter_map(|(_, skip)| match skip {
                Skip::TooSmall(window) => Some(*window),
                _ => None,
            });
            let largest = largest.max().unwrap_or(0);
            let message = format!(
                "The question is too long for every target of the route; the largest takes \
                 {largest} tokens."
            );
            Error::new(Kind::ContextTooLong, message)
        }
        Skip::Lacks(features) => {
            let message = format!(
                "No target of the route can take what this question needs; `{name}` lacks \
                 {features}. If that is wrong, say so in `[models.\"{name}\"]`."
            );
            Error::new(Kind::Unsupported, message)
        }
        Skip::Region => {
            let message = "No target of the route is in a region that the route allows.";
            Error::new(Kind::Unsupported, message)
        }
        Skip::NotAllowed => {
            let message = format!("This key may not use `{name}`, nor any other target that fits.");
            Error::new(Kind::NotAllowed, message)
        }
        Skip::Condition | Skip::Shut(..) => {
            let message = "No target of the route is for such a call, by its conditions.";
            Error::new(Kind::NotAllowed, message)
        }
    })
}

/// The last target that was asked said no.
pub(super) fn refused(
    call: &Call,
    failure: Failure,
    target: &Target,
    wait: Option<Duration>,
) -> Error {
    let (requests, mirrored) = (failure.is_the_requests(), failure.mirrored());
    let (is_final, reports) = (failure.is_final(), failure.cause == Cause::ErrorInBody);
    let refusal = refusal(&target.provider, &failure);
    let Failure { status, kind, .. } = failure;
    let provider = &target.provider;
    let said = failure.message.map(|text| provider.redact(text));
    let mut error = if requests {
        let mut error = Error::new(kind, said.unwrap_or(refusal));
        error.status = mirrored;
        let Upstream { kind, param, code } = failure.upstream;
        let shown = |field: Option<String>| field.map(|text| provider.redact(text));
        let upstream = Upstream { kind: shown(kind), param: shown(param), code: shown(code) };
        error.upstream = Some(Box::new(upstream));
        error
    } else {
        let tried = call.attempts().len();
        let mut text = match (kind, status) {
            (Kind::UpstreamTimeout, _) => format!("`{}` did not answer in time", provider.name),
            (Kind::UpstreamUnavailable, 0) => format!("`{}` cannot be reached", provider.name),
            (_, 200..=299) if reports => format!("`{}` reported an error", provider.name),
            (_, 0 | 200..=299) => format!("`{}` broke its answer off", provider.name),
            _ => refusal,
        };
        if tried > 1 {
            text = format!("All {tried} attempts failed; the last: {text}");
        }
        let said = said.map_or_else(|| ".".to_owned(), |said| format!(": {said}"));
        Error::new(kind, text + &said)
    };
    error.is_final = is_final && call.attempts().iter().all(|it| it.status == status);
    error.retry_after = wait.filter(|_| matches!(error.status(), 429 | 503));
    error
}

fn refusal(provider: &Provider, failure: &Failure) -> String {
    let status = failure.status;
    match failure.blame {
        Blame::Key if failure.is_about_money() => {
            format!("the gateway's account at `{}` has nothing left", provider.name)
        }
        Blame::Key => format!("`{}` refused the gateway's credentials", provider.name),
        _ => format!("`{}` answered with status {status}", provider.name),
    }
}
