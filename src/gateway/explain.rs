//! Says how a call would go, by the code that would send it: who would be asked, in which order, and
//! why not the others.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::Body;
use super::arrival::Question;
use super::ask::JSON;
use super::call::Call;
use super::chain::Chain;
use super::errand::{self, Unfit};
use super::journey::Journey;
use super::snapshot::Target;
use crate::canon::{Feature, Money, Outcome, Task};
use crate::provider::Way;
use crate::route::plan::{Plan, Skip};

/// A header is not to be longer.
const LONGEST_HEADER: usize = 4096;

/// The answer to `/v1/explain`.
pub(super) async fn answer(mut call: Box<Call>, question: Question) -> Response<Body> {
    let Some(chain) = call.chain.clone() else {
        return call.refuse(crate::error::Error::invalid("There is nothing to explain."));
    };
    let mut journey = Journey::new(&call);
    journey.find_needs(&call, &question, &chain).await;
    let mut told = tell(&call, &chain, &journey);
    for target in told["targets"].as_array_mut().into_iter().flatten() {
        let place = target["place"].as_u64().and_then(|place| usize::try_from(place).ok());
        let Some(known) = place.and_then(|place| chain.targets.get(place)) else { continue };
        // What it would lose on the way there, found out by writing it.
        match errand::prepare(&call, &question, known).await {
            Ok(errand) => target["dropped"] = json!(errand.dropped),
            Err(Unfit::Question(error) | Unfit::Target(error)) => {
                target["skipped"] = json!({"reason": "unfit", "detail": error.message});
                target["order"] = Value::Null;
            }
        }
    }
    call.ends(Outcome::Ok);
    let head = call.respond(StatusCode::OK, JSON);
    let body = Bytes::from(told.to_string());
    head.map(|()| Body::whole(body, Some(call)))
}

/// The same, short enough for a header.
pub(super) fn header(call: &Call, chain: &Chain, journey: &Journey) -> Option<HeaderValue> {
    let mut told = tell(call, chain, journey);
    for key in ["limits", "needs", "generation", "attempts"] {
        told.as_object_mut()?.remove(key);
    }
    let text = told.to_string();
    let text =
        if text.len() > LONGEST_HEADER { json!({"targets": "too many"}).to_string() } else { text };
    HeaderValue::from_str(&text).ok()
}

fn tell(call: &Call, chain: &Chain, journey: &Journey) -> Value {
    let plans: Vec<Plan> =
        chain.groups.iter().map(|group| journey.plan(call, chain, group)).collect();
    let skip = |place: usize| {
        let skipped = plans.iter().flat_map(|plan| &plan.skipped);
        skipped
            .into_iter()
            .find(|(skipped, _)| usize::from(*skipped) == place)
            .map(|(_, skip)| skip)
    };
    let order = plans.iter().flat_map(|plan| &plan.order);
    let order: Vec<usize> = order.map(|place| usize::from(*place)).collect();
    let targets = chain.targets.iter().enumerate().map(|(place, target)| {
        let turn = order.iter().position(|planned| *planned == place);
        json!({
            "place": place,
            "provider": &*target.provider.name,
            "model": &*target.model,
            "group": chain.stage(place).name(),
            "order": turn.map(|turn| turn + 1),
            "skipped": skip(place).map(why),
            "way": way(call, target),
            "state": target.lane(0).breaker.status(Instant::now()).state.name(),
            "estimated_cost_usd": target
                .expected_cost(journey.tokens(call))
                .map(|nanos| Money::from_nanos(nanos).to_string()),
        })
    });
    let targets: Vec<Value> = targets.collect();
    let decision = call.bearings.task.as_ref();
    let limits = chain.targets.first().map(|target| target.limits);
    json!({
        "route": &*chain.name,
        "task": decision.map(|decision| json!({
            "task": decision.task.map(Task::name),
            "by": decision.by.name(),
            "score": decision.score,
            "reason": decision.reason,
        })),
        "needs": {
            "input_tokens": journey.tokens(call),
            "features": journey.features().iter().map(Feature::name).collect::<Vec<_>>(),
        },
        "targets": targets,
        "attempts": chain.attempts,
        "limits": limits.map(|limits| json!({
            "connect_ms": limits.connect.as_millis(),
            "headers_ms": limits.headers.map(|limit| limit.as_millis()),
            "first_token_ms": limits.first_token.as_millis(),
            "idle_ms": limits.idle.as_millis(),
            "total_ms": limits.total.as_millis(),
        })),
        "guards": [],
        "generation": call.house.generation,
    })
}

fn way(call: &Call, target: &Target) -> Value {
    match target.provider.way(call.surface(), &target.model) {
        Some(Way::Verbatim) => json!("verbatim"),
        Some(Way::Translated(into)) => json!(format!("translated into {}", into.name())),
        Some(Way::Vectors(_)) => json!("translated"),
        None => Value::Null,
    }
}

fn why(skip: &Skip) -> Value {
    let now = Instant::now();
    match skip {
        Skip::Condition => json!({"reason": "condition"}),
        Skip::Region => json!({"reason": "region"}),
        Skip::Lacks(features) => json!({"reason": "lacks", "detail": features.to_string()}),
        Skip::TooSmall(window) => json!({"reason": "context", "detail": window}),
        Skip::Shut(until, reason) => json!({
            "reason": reason.name(),
            "seconds": until.saturating_duration_since(now).as_secs_f64(),
        }),
    }
}
