//! One call, from arrival to reply. Read this file first.

use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tokio::sync::oneshot;

use super::arrival::{Ask, Question, Unreadable};
use super::ask::Answer;
use super::call::Call;
use super::pass::Pass;
use super::relay::Relay;
use super::reply::{ATTEMPTS, outcome_of};
use super::responses::{Keeping, Maker};
use super::snapshot::Road;
use super::{
    Arrival, Body, Gateway, agents, arrival, bearings, explain, guarding, journey, objects, shadow,
    till, upload,
};
use crate::canon::{Dialect, Outcome, Surface};
use crate::config::OnDisconnect;
use crate::dialect::ClientSide;
use crate::error::{Error, Kind};

/// The attempts of one call, which carry it with them.
pub(super) type Walk = Pin<Box<dyn Future<Output = (Box<Call>, Result<Answer, Error>)> + Send>>;

impl Gateway {
    /// Answers one call. Errors leave in the dialect that the call came in.
    pub async fn answer<B>(self: &Arc<Self>, arrival: Arrival<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
    {
        let Arrival { ask, headers, body, permit, busy } = arrival;
        let shed = permit.is_none();
        let house = (Arc::clone(self), self.house(&headers));
        let mut call = Call::open(house, ask.surface, permit, Some(busy));
        if let Some(id) = ask.id {
            call.record.id = id;
        }
        call.join_trace(&headers);
        if ask.explains {
            call.mark_not_made();
        }
        if shed {
            return call.refuse(self.overloaded());
        }
        if let Err(error) = bearings::refuse_circles(&headers) {
            return call.refuse(error);
        }
        if let (Some(relay), Some(filed)) = (ask.relay, &ask.filed) {
            // Boxed, like all that is rare: a call's future is as large as its largest part.
            return Box::pin(objects::answer(call, &ask, filed, relay, &headers, body)).await;
        }
        let understood = understand(&mut call, &ask, &headers, body).await;
        match understood.inspect(|question| call.tapes_question(question)) {
            Ok(question) if ask.explains => explain::answer(call, question).await,
            // What is passed on as it is has its head from the provider, so it waits for that.
            Ok(question) if question.relayed.is_some() => whole(call, question).await,
            Ok(question) if question.envelope.stream && question.envelope.background => {
                Box::pin(detached(call, question)).await
            }
            Ok(question) if question.envelope.stream => stream(call, question).await,
            Ok(question) if question.envelope.background => Box::pin(later(call, question)).await,
            Ok(question) => whole(call, question).await,
            Err(Unreadable::Refused(error)) => call.refuse(error),
            Err(Unreadable::ForAgent(question)) => {
                Box::pin(agents::answer(call, question, &headers)).await
            }
            // The record says that the client left; where it sent nonsense instead, it reads this.
            Err(Unreadable::Gone) => broken_off(&call),
        }
    }
}

impl Gateway {
    /// What those are told for whom there is no place among the calls in flight.
    pub fn overloaded(&self) -> Error {
        self.telemetry.metrics.shed.inc();
        let mut error = Error::new(Kind::Overloaded, "Too many calls are in flight; try again.");
        error.retry_after = Some(std::time::Duration::from_secs(1));
        error
    }
}

/// Who calls, what is asked, and where it may go.
async fn understand<B>(
    call: &mut Call,
    ask: &Ask,
    headers: &HeaderMap,
    body: B,
) -> Result<Box<Question>, Unreadable>
where
    B: http_body::Body<Data = Bytes> + Unpin + Send + 'static,
{
    let house = Arc::clone(&call.house);
    let caller =
        call.gateway.admit(&house, headers, call.peer()).await.map_err(Unreadable::Refused)?;
    call.admitted(&caller);
    // Whatever refuses it from here on, its record has the marks of its client.
    bearings::read(call, headers).map_err(Unreadable::Refused)?;
    let server = &house.config.server;
    let budget = &call.gateway.bodies;
    let mut question = match ask.relay.filter(|_| upload::is_form(headers)) {
        Some(relay) => Box::pin(upload::read(body, (relay, headers), server, budget)).await?,
        None => arrival::read(body, (ask, headers), server, budget).await?,
    };
    if ask.explains {
        explain::find_door(call, &mut question, headers).map_err(Unreadable::Refused)?;
    }
    if agents::is_asked(&question.envelope.model) {
        return Err(Unreadable::ForAgent(question));
    }
    let (road, alias) = bearings::find(&house, &caller, &question.envelope.model)?;
    let chain = match &road {
        Road::Chain(chain) => chain,
        Road::ByTask(by_task) => &by_task.default,
    };
    call.routed(chain, &question);
    call.begin_recording(&question, headers);
    if call.surface().dialect() == Some(Dialect::Responses) {
        question = Box::pin(recall(call, question, &road)).await.map_err(Unreadable::Refused)?;
    } else {
        // In other APIs the word means nothing.
        question.envelope.background = false;
    }
    if question.may_refer(call.surface()) {
        question.keeper = Box::pin(objects::keeper(call, &question)).await?;
    }
    guard(call, &mut question, &road).await.map_err(Unreadable::Refused)?;
    if let Road::ByTask(by_task) = &road {
        let decided = Box::pin(by_task.decide(call, &question, (headers, alias))).await;
        let decision = decided.map_err(Unreadable::Refused)?;
        let chain = by_task.chain(decision.task);
        call.set_task(decision);
        call.routed(chain, &question);
        if !chain.wishes.read_as(&by_task.default.wishes) {
            question.forget(chain.wishes.max_output_tokens);
        }
        let guards = guarding::inspect(call, &mut question, &chain.guards).await;
        guards.map_err(Unreadable::Refused)?;
    }
    if call.surface() == Surface::Completions
        && let Some(most) = call.wishes().and_then(|wishes| wishes.max_output_tokens)
    {
        question.cap_completion(most).map_err(Unreadable::Refused)?;
    }
    bearings::take(call, &question, headers, &road).await;
    if !ask.explains {
        Box::pin(shadow::cast(call, &mut question)).await.map_err(Unreadable::Refused)?;
    }
    Ok(question)
}

/// Has the question looked at by all guards that are known to hold for it: those of the route that a
/// route by task leads to come when it is known which that is.
pub(super) async fn guard(
    call: &mut Call,
    question: &mut Question,
    road: &Road,
) -> Result<(), Error> {
    if let Road::Chain(chain) = road {
        return guarding::inspect(call, question, &chain.guards).await;
    }
    let (house, name) = (Arc::clone(&call.house), call.route_name());
    let route = house.config.routes.get(&*name);
    let guards = route.map_or(&[][..], |route| route.guards.as_slice());
    guarding::inspect(call, question, guards).await
}

/// What the responses API asks a gateway to remember: notes that this response is to be kept, and
/// puts what was said before in front of the question.
async fn recall(
    call: &mut Call,
    mut question: Box<Question>,
    road: &Road,
) -> Result<Box<Question>, Error> {
    if question.envelope.conversation {
        let message = "`conversation` is not kept here; send `previous_response_id` or the items.";
        return Err(Error::new(Kind::Unsupported, message));
    }
    let Some(owner) = call.owner() else { return Ok(question) };
    let surface = call.surface();
    let previous = question.envelope.previous.clone();
    let background = question.envelope.background;
    let listeners = || -> Vec<Option<Maker>> {
        match road {
            Road::Chain(chain) => {
                chain.targets.iter().map(|target| Some(target.maker_for(surface))).collect()
            }
            // Who will be asked depends on what was said.
            Road::ByTask(_) => vec![None],
        }
    };
    if question.may_refer(surface) {
        let turn = (&owner, &question.payload, previous.as_deref());
        if let Some(body) = call.gateway.dereferenced(turn, &listeners()).await? {
            question.replace(body)?;
        }
    }
    let keeping = Keeping::new(owner, question.payload.clone(), previous.clone());
    if previous.is_some() || background {
        let body = call.gateway.unrolled(&keeping, previous.as_deref(), &listeners()).await?;
        question.replace(body)?;
        call.measures(&question);
    }
    question.envelope.background = background && surface == Surface::Responses;
    let kept = surface == Surface::Responses && question.envelope.store != Some(false);
    call.keeping = kept.then_some(keeping);
    Ok(question)
}

/// Answers at once that an answer is being made.
async fn later(mut call: Box<Call>, mut question: Box<Question>) -> Response<Body> {
    let (id, created) = call.stamp();
    let Some(keeping) = call.keeping.take() else {
        let message = "`background` needs `store`: the answer is fetched by its id.";
        return call.refuse(Error::invalid(message));
    };
    // Whoever has no room for it is told now, and not by an answer that has failed.
    if let Err(error) = till::hold(&mut call, &mut question).await {
        return call.refuse(error);
    }
    let gateway = Arc::clone(&call.gateway);
    let head = call.respond(StatusCode::OK, JSON);
    drop(call.goes_to_background());
    let model = question.envelope.model.clone();
    let work = async move {
        let (mut call, answer) = journey::walk(call, question).await;
        let answer = match answer {
            Ok(Answer::Whole { body, .. }) => Ok((body, call.maker())),
            Ok(Answer::Stream(_) | Answer::Bytes(_)) => {
                Err(Error::new(Kind::UpstreamError, "A stream came."))
            }
            Err(error) => Err(error),
        };
        call.ends(answer.as_ref().map_or_else(|error| outcome_of(error.kind), |_| Outcome::Ok));
        answer
    };
    let id = format!("resp_{id}");
    let response = gateway.respond_later(keeping, id, created, &model, work).await;
    head.map(|()| Body::whole(response.to_string().into(), None))
}

/// A stream that goes on without its client, if it is kept.
async fn detached(mut call: Box<Call>, question: Box<Question>) -> Response<Body> {
    let Some(keeping) = call.keeping.clone() else { return stream(call, question).await };
    let busy = call.goes_to_background();
    let gateway = Arc::clone(&call.gateway);
    gateway.detach(keeping, busy, stream(call, question)).await
}

async fn whole(call: Box<Call>, question: Box<Question>) -> Response<Body> {
    if call.wishes().is_some_and(|wishes| wishes.on_disconnect == OnDisconnect::Drain) {
        return Box::pin(drained(call, question)).await;
    }
    let (call, answer) = journey::walk(call, question).await;
    reply(call, answer)
}

/// The answer is waited for although its client may leave, for the sake of its usage.
async fn drained(call: Box<Call>, question: Box<Question>) -> Response<Body> {
    let (mut done, told) = oneshot::channel();
    let gateway = Arc::clone(&call.gateway);
    let client = call.client();
    gateway.clone().tasks.spawn(async move {
        let mut walk = pin!(async {
            tokio::select! {
                made = journey::walk(call, question) => Some(made),
                () = gateway.until_end() => None,
            }
        });
        let mut place = None;
        let made = tokio::select! {
            made = &mut walk => made,
            () = done.closed() => {
                place = gateway.drains.acquire();
                if place.is_none() {
                    return;
                }
                walk.await
            }
        };
        // Where nobody waits for it any more the call ends here, and says that its client left.
        drop((made.map(|made| done.send(made)), place));
    });
    match told.await {
        Ok((call, answer)) => reply(call, answer),
        Err(_) => error_of(client, &Error::new(Kind::Internal, "The call came to no end.")),
    }
}

/// A stream gets its head when its first content is there. When that takes long it gets it before,
/// so that nothing between client and gateway gives the silent connection up.
async fn stream(mut call: Box<Call>, question: Box<Question>) -> Response<Body> {
    let keepalive = call.house.config.server.keepalive;
    let gateway = Arc::clone(&call.gateway);
    let mut early = (
        call.respond(StatusCode::OK, HeaderValue::from_static(call.client().stream_type())),
        (keepalive, call.client()),
    );
    let mut walk: Walk = Box::pin(journey::walk(call, question));
    if let Ok((call, answer)) = tokio::time::timeout(keepalive, &mut walk).await {
        return reply(call, answer);
    }
    // Nobody knows yet how many it will take.
    early.0.headers_mut().remove(&ATTEMPTS);
    Relay::committed_early(walk, gateway, early)
}

pub(super) fn reply(mut call: Box<Call>, answer: Result<Answer, Error>) -> Response<Body> {
    match answer {
        Ok(Answer::Whole { content_type, body }) => {
            // All is known, and so the client can be told.
            call.settle();
            call.tapes(&body);
            let response = call.respond(StatusCode::OK, content_type);
            response.map(|()| Body::whole(body, Some(call)))
        }
        Ok(Answer::Stream(flow)) => Relay::of(call, flow),
        Ok(Answer::Bytes(incoming)) => Pass::of(call, *incoming),
        Err(error) => call.refuse(error),
    }
}

pub(super) fn broken_off(call: &Call) -> Response<Body> {
    error_of(call.client(), &Error::invalid("The body was cut off, or its framing is malformed."))
}

/// An error of which no call knows any more.
fn error_of(client: &dyn ClientSide, error: &Error) -> Response<Body> {
    let body = client.write_error(error).into();
    let mut response = Response::new(Body::whole(body, None));
    *response.status_mut() =
        StatusCode::from_u16(error.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// What is told of a call that the end of the process ends.
pub fn shutting_down() -> Error {
    Error::new(Kind::Overloaded, "The gateway is shutting down; try again.")
}

const JSON: HeaderValue = HeaderValue::from_static("application/json");
