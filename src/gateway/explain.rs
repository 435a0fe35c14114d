//! Says how a call would go, by the code that would send it: who would be asked, in which order, and
//! why not the others.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::arrival::{Ask, Question, VERSION};
use super::ask::JSON;
use super::call::Call;
use super::chain::Chain;
use super::errand::{self, Unfit};
use super::journey::Journey;
use super::snapshot::{Limits, Target};
use super::{Arrival, Body, Gateway};
use crate::canon::{Dialect, Feature, Money, Outcome, Surface, Task};
use crate::error::Error;
use crate::net::patience::Pulse;
use crate::provider::Way;
use crate::route::plan::{Plan, Skip};

/// A header is not to be longer.
const LONGEST_HEADER: usize = 4096;

/// The doors that a call to be explained can name.
const DOORS: [(&str, Surface); 6] = [
    ("chat", Surface::Chat),
    ("responses", Surface::Responses),
    ("messages", Surface::Messages),
    ("generate", Surface::Generate),
    ("completions", Surface::Completions),
    ("embeddings", Surface::Embeddings),
];

/// What of a body tells its door.
#[derive(Deserialize)]
struct Marks {
    messages: Option<IgnoredAny>,
    input: Option<IgnoredAny>,
    contents: Option<IgnoredAny>,
    prompt: Option<IgnoredAny>,
}

impl Ask {
    /// How a call would go that comes in by this door, or by the one that its body tells.
    pub fn explained(door: Option<&str>) -> Result<Self, Error> {
        let known = |name: &str| DOORS.iter().find(|(known, _)| *known == name);
        let surface = match door.map(|name| known(name).ok_or(name)).transpose() {
            Ok(found) => found.map_or(Surface::Explain, |(_, surface)| *surface),
            Err(name) => {
                let names = DOORS.map(|(name, _)| name).join(", ");
                let message = format!("`{name}` is no surface; there are: {names}.");
                return Err(Error::invalid(message));
            }
        };
        let (model, stream, relay, filed) = (None, None, None, None);
        Ok(Self { surface, model, stream, relay, filed, explains: true, id: None })
    }
}

impl Gateway {
    /// How a call with these headers and this body would go, or why it would be refused.
    pub async fn explain(
        self: &Arc<Self>,
        ask: Ask,
        headers: HeaderMap,
        body: Bytes,
    ) -> (StatusCode, Bytes) {
        let (permit, busy) = (self.gauge.acquire(), Pulse::default().busy());
        let arrival = Arrival { ask, headers, body: Full::new(body), permit, busy };
        let (head, body) = Box::pin(self.answer(arrival)).await.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        (head.status, body.unwrap_or_default())
    }
}

/// Notes by which door the call would come in.
pub(super) fn find_door(
    call: &mut Call,
    question: &mut Question,
    headers: &HeaderMap,
) -> Result<(), Error> {
    if call.surface() == Surface::Explain {
        let marks = serde_json::from_slice::<Marks>(&question.payload.to_bytes());
        let marks = marks.map_err(|error| Error::invalid(error.to_string()))?;
        call.would_come_by(match marks {
            Marks { contents: Some(_), .. } => Surface::Generate,
            Marks { messages: Some(_), .. } if headers.contains_key(VERSION) => Surface::Messages,
            Marks { messages: Some(_), .. } => Surface::Chat,
            Marks { input: Some(_), .. } => Surface::Responses,
            Marks { prompt: Some(_), .. } => Surface::Completions,
            _ => {
                let message = "No API has such a body; say which it is for, as in \
                               `?surface=messages`.";
                return Err(Error::invalid(message));
            }
        });
    }
    if call.surface().dialect() == Some(Dialect::Messages) {
        question.note_api(headers);
    }
    Ok(())
}

/// The answer to `/v1/explain`.
pub(super) async fn answer(mut call: Box<Call>, question: Box<Question>) -> Response<Body> {
    let Some(chain) = call.chain.clone() else {
        return call.refuse(Error::invalid("There is nothing to explain."));
    };
    let mut journey = Journey::new(&call);
    journey.find_needs(&call, &question, &chain).await;
    let mut told = tell(&call, &chain, &journey);
    for target in told["targets"].as_array_mut().into_iter().flatten() {
        let place = target["place"].as_u64().and_then(|place| usize::try_from(place).ok());
        let Some(known) = place.and_then(|place| chain.targets.get(place)) else { continue };
        target["limits"] = limits(&known.limits);
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
    for key in ["surface", "needs", "guards", "generation", "attempts"] {
        told.as_object_mut()?.remove(key);
    }
    if told["canary"] == false {
        told.as_object_mut()?.remove("canary");
    }
    let mut text = ascii(&told.to_string());
    if text.len() > LONGEST_HEADER {
        told["targets"] = json!("too many");
        text = ascii(&told.to_string());
    }
    HeaderValue::from_str(&text).ok()
}

/// JSON as a header can carry it.
fn ascii(text: &str) -> String {
    let mut ascii = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_ascii() && !letter.is_ascii_control() {
            ascii.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut [0; 2]) {
                let _ = write!(ascii, "\\u{unit:04x}");
            }
        }
    }
    ascii
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
    let now = Instant::now();
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
            "state": target.standing.status(now).map(|status| status.state.name()),
            "estimated_cost_usd": target
                .expected_cost(journey.tokens(call))
                .map(|nanos| Money::from_nanos(nanos).to_string()),
        })
    });
    let targets: Vec<Value> = targets.collect();
    let decision = call.bearings.task.as_ref();
    json!({
        "surface": call.surface().name(),
        "route": &*chain.name,
        "task": decision.map(|decision| json!({
            "task": decision.task.map(Task::name),
            "route": led_to(call, chain, decision.task),
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
        "guards": call.told_guards(),
        "generation": call.house.generation,
        "canary": call.gateway.is_on_trial(call.house.generation),
    })
}

fn limits(limits: &Limits) -> Value {
    json!({
        "connect_ms": limits.connect.as_millis(),
        "headers_ms": limits.headers.map(|limit| limit.as_millis()),
        "first_token_ms": limits.first_token.as_millis(),
        "idle_ms": limits.idle.as_millis(),
        "total_ms": limits.total.as_millis(),
    })
}

/// The route that a route by task goes on to.
fn led_to<'a>(call: &'a Call, chain: &Chain, task: Option<Task>) -> Option<&'a str> {
    let route = call.house.config.routes.get(&*chain.name)?;
    let named = task.and_then(|task| route.tasks.get(&task));
    named.or(route.default.as_ref()).map(String::as_str)
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
        Skip::NotAllowed | Skip::Condition | Skip::Region => json!({"reason": skip.reason()}),
        Skip::Lacks(features) => json!({"reason": skip.reason(), "detail": features.to_string()}),
        Skip::TooSmall(window) => json!({"reason": skip.reason(), "detail": window}),
        Skip::Shut(until, _) => json!({
            "reason": skip.reason(),
            "seconds": until.saturating_duration_since(now).as_secs_f64(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_carries_every_letter_and_is_the_same_json() {
        let told = json!({"reason": "Grüße, 你好 🦀 \u{7f}"});
        let text = ascii(&told.to_string());
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), told);
        assert!(HeaderValue::from_str(&text).is_ok(), "{text}");
    }
}
