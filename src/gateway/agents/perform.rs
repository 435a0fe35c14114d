//! What a run says, given to whoever asked for it: as a stream, whole, or later.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use super::show::Frame;
use super::{Commission, Performance, Show, commission};
use crate::cache::{Follower, Next};
use crate::canon::{ChatResponse, Choice, Outcome, Owner, RunId, RunState, Surface};
use crate::dialect::fold::{Fold, unfold};
use crate::dialect::passage::{Passage, last_data};
use crate::error::{Error, Kind};
use crate::gateway::arrival::Question;
use crate::gateway::ask::{Answer, JSON};
use crate::gateway::call::Call;
use crate::gateway::flow::{Flow, Step};
use crate::gateway::pipeline::{self, Walk};
use crate::gateway::relay::Relay;
use crate::gateway::remember::Nothing;
use crate::gateway::reply::outcome_of;
use crate::gateway::{Body, Gateway, guarding};

/// How long it may take to join a run.
const SOON: Duration = Duration::from_secs(2);

/// Answers a call for an agent.
pub(in crate::gateway) async fn answer(
    mut call: Box<Call>,
    mut question: Box<Question>,
    headers: &HeaderMap,
) -> Response<Body> {
    let commission = match commission::read(&mut call, &mut question, headers).await {
        Ok(commission) => commission,
        Err(error) => return call.refuse(error),
    };
    call.tapes_question(&question);
    if call.is_only_explained() {
        return explain(call, &commission);
    }
    if question.envelope.stream
        && question.envelope.background
        && let Some(keeping) = call.keeping.clone()
    {
        let busy = call.goes_to_background();
        let gateway = Arc::clone(&call.gateway);
        return gateway.detach(keeping, busy, perform(call, question, commission)).await;
    }
    perform(call, question, commission).await
}

/// What would hold for the run. What it would do nobody knows.
fn explain(mut call: Box<Call>, commission: &Commission) -> Response<Body> {
    let name = commission.agent.split('@').next().unwrap_or_default();
    let house = Arc::clone(&call.house);
    let agent = house.config.agents.get(name);
    let told = json!({
        "model": commission.request.model,
        "agent": name,
        "surface": call.surface().name(),
        "version": agent.map(|agent| agent.version.as_str()),
        "route": agent.map(|agent| agent.route.as_str()),
        "tools": agent.map(|agent| agent.tools.as_slice()),
        "guards": call.told_guards(),
    });
    call.ends(Outcome::Ok);
    let head = call.respond(StatusCode::OK, JSON);
    head.map(|()| Body::whole(told.to_string().into(), Some(call)))
}

async fn perform(
    mut call: Box<Call>,
    question: Box<Question>,
    commission: Commission,
) -> Response<Body> {
    let (id, created) = call.stamp();
    let mut frame = Frame {
        id,
        created,
        model: commission.request.model.clone(),
        input_estimate: call.input_estimate(),
        previous: question.envelope.previous.clone(),
        background: commission.background,
        request: commission.request.clone(),
    };
    let surface = call.surface();
    let is_later = question.envelope.background && !question.envelope.stream;
    let mut performance = match call.conducted(commission).await {
        Ok(performance) => performance,
        Err(error) => return call.refuse(error),
    };
    if performance.is_queued() && !is_later {
        // It says nothing before it is taken up.
        performance = match call.gateway.rejoin(performance.run, 0, call.owner()).await {
            Ok(Some(performance)) => performance,
            Ok(None) => return call.refuse(broken()),
            Err(error) => return call.refuse(error),
        };
    }
    if let Some((id, created)) = &performance.again {
        (frame.id, frame.created) = (id.clone(), *created);
        if is_later && let Some(response) = known(&mut call, id).await {
            return response;
        }
    }
    let show = Show::new(&performance, surface, frame);
    let dressed = show.clone();
    let Performance { follower, .. } = performance;
    let is_streamed = question.envelope.stream && !call.gathers();
    let mut response = if is_streamed {
        streamed(call, &question, follower, show).await
    } else if is_later {
        later(call, question, follower, show).await
    } else {
        whole(call, &question, follower, show).await
    };
    dressed.dress(response.headers_mut(), !is_streamed && !is_later);
    response
}

/// A response in the background that the same was asked for before, as it stands.
async fn known(call: &mut Call, id: &str) -> Option<Response<Body>> {
    let owner = call.owner()?;
    let gateway = Arc::clone(&call.gateway);
    let known = gateway.response(&owner, &format!("resp_{id}")).await.ok()?;
    call.ends(Outcome::Ok);
    let head = call.respond(StatusCode::OK, JSON);
    Some(head.map(|()| Body::whole(known.to_string().into(), None)))
}

/// The stream begins with the first word of the run, or when that has been waited for long enough.
async fn streamed(
    mut call: Box<Call>,
    question: &Question,
    follower: Follower,
    show: Show,
) -> Response<Body> {
    let writer = show.writer(call.client());
    let passage = Passage::translated(Box::new(Nothing), writer, 1, call.input_estimate());
    let flow = guarding::screened(&call, question, Flow::following(follower, passage));
    let Some(flow) = flow else {
        return call.refuse(Error::new(Kind::Internal, "The answer cannot be looked at."));
    };
    let keepalive = call.house.config.server.keepalive;
    let gateway = Arc::clone(&call.gateway);
    let stream_type = HeaderValue::from_static(call.client().stream_type());
    let early = (call.respond(StatusCode::OK, stream_type), (keepalive, call.client()));
    let mut walk: Walk = Box::pin(begun(call, Box::new(flow)));
    match timeout(keepalive, &mut walk).await {
        Ok((call, answer)) => pipeline::reply(call, answer),
        Err(_) => Relay::committed_early(walk, gateway, early),
    }
}

/// Until there is something to be told, a run that fails is refused.
async fn begun(call: Box<Call>, mut flow: Box<Flow>) -> (Box<Call>, Result<Answer, Error>) {
    let due = call.due();
    loop {
        let sight = flow.passage.sight();
        if !flow.ready.is_empty() || sight.finished || flow.passage.is_stopped() {
            break;
        }
        match timeout_at(due, poll_fn(|context| flow.poll_step(context))).await {
            Err(_) => return (call, Err(too_long())),
            Ok(Step::Data) => {}
            Ok(Step::Ended) => break,
            Ok(Step::Cut(_) | Step::Failed(_)) => {
                let error = flow.told.take().map_or_else(broken, |told| *told);
                return (call, Err(error));
            }
        }
    }
    if flow.passage.is_untold() {
        let blocked = call.guarding.as_ref().and_then(|guarding| guarding.blocked());
        return (call, Err(guarding::refusal(&blocked.unwrap_or_default())));
    }
    (call, Ok(Answer::Stream(flow)))
}

async fn whole(
    mut call: Box<Call>,
    question: &Question,
    follower: Follower,
    show: Show,
) -> Response<Body> {
    let response = match heard(&mut call, question, follower).await {
        Ok(response) => response,
        Err(error) => return call.refuse(error),
    };
    let client = call.client();
    let (body, content_type) = if question.envelope.stream {
        let (mut writer, mut body) = (show.writer(client), Vec::new());
        for event in unfold(&response) {
            writer.write(&event, &mut body);
        }
        (body, HeaderValue::from_static(client.stream_type()))
    } else {
        (show.write(client, &response), JSON)
    };
    let body = Bytes::from(body);
    if call.keeping.is_some() {
        let last = if question.envelope.stream { last_data(&body) } else { Some(body.clone()) };
        call.keep_response(&last.unwrap_or_default(), false);
    }
    call.tapes(&body);
    let head = call.respond(StatusCode::OK, content_type);
    head.map(|()| Body::whole(body, Some(call)))
}

/// Answers at once that the run is at work.
async fn later(
    mut call: Box<Call>,
    question: Box<Question>,
    follower: Follower,
    show: Show,
) -> Response<Body> {
    let Some(keeping) = call.keeping.take() else {
        return call.refuse(Error::new(Kind::Internal, "The answer cannot be kept."));
    };
    let gateway = Arc::clone(&call.gateway);
    let head = call.respond(StatusCode::OK, JSON);
    drop(call.goes_to_background());
    let (id, created, model) =
        (format!("resp_{}", show.frame.id), show.frame.created, show.frame.model.clone());
    if show.report.borrow().state == RunState::Queued {
        // Nobody here is at work on it: whoever asks is told how the run stands.
        call.ends(Outcome::Ok);
        let response = gateway.respond_by_run(&keeping, &id, created, &model).await;
        return head.map(|()| Body::whole(response.to_string().into(), None));
    }
    let work = async move {
        let said = heard(&mut call, &question, follower).await;
        let outcome = said.as_ref().map_or_else(|error| outcome_of(error.kind), |_| Outcome::Ok);
        call.ends(outcome);
        show.concluded(said).map(|body| (body.into(), None))
    };
    let response = gateway.respond_later(keeping, id, created, &model, work).await;
    head.map(|()| Body::whole(response.to_string().into(), None))
}

/// All that the run says, as its client may have it.
async fn heard(
    call: &mut Call,
    question: &Question,
    mut follower: Follower,
) -> Result<ChatResponse, Error> {
    let (mut fold, due) = (Fold::default(), call.due());
    loop {
        match timeout_at(due, poll_fn(|context| follower.poll_next(context))).await {
            Err(_) => return Err(too_long()),
            Ok(Next::Events(events)) => events.iter().for_each(|event| fold.add(event)),
            Ok(Next::End) => break,
            Ok(Next::Failed(error)) => return Err(error.map_or_else(broken, |error| *error)),
        }
    }
    let response = fold.finish().map_err(|_| broken())?;
    call.record.finish = response.choices.first().map(|choice| choice.finish.reason);
    if !call.screens() {
        return Ok(response);
    }
    let looked = guarding::look_at(call, &question.envelope.model, response).await;
    looked.map_err(|blocked| guarding::refusal(&blocked))
}

fn broken() -> Error {
    Error::new(Kind::StreamTruncated, "The run broke off; what was received is not complete.")
}

fn too_long() -> Error {
    Error::new(Kind::UpstreamTimeout, "The run took longer than its client wanted to wait.")
}

// === impl Performance ===

impl Performance {
    /// Whether it waits for somebody to take it up.
    fn is_queued(&self) -> bool {
        self.report.borrow().state == RunState::Queued
    }
}

// === impl Gateway ===

impl Gateway {
    /// A run's answer since this time, in milliseconds; nothing where it could not be had soon.
    pub(in crate::gateway) async fn rejoin(
        &self,
        run: RunId,
        since: u64,
        owner: Option<Owner>,
    ) -> Result<Option<Performance>, Error> {
        let (Some(conductor), Some(owner)) = (self.conductor(), owner) else { return Ok(None) };
        let (done, told) = oneshot::channel();
        // Never left in the middle: somebody may just be taking the run up.
        self.tasks.spawn(async move {
            let _ = done.send(conductor.rejoin(run, since, owner).await);
        });
        match timeout(SOON, told).await {
            Ok(Ok(joined)) => joined,
            _ => Err(Error::new(Kind::Overloaded, "The run cannot be joined now; try again.")),
        }
    }
}

// === impl Show ===

impl Show {
    /// The whole response of a run that is over. The error is that of one that has failed.
    pub(in crate::gateway) fn concluded(
        &self,
        heard: Result<ChatResponse, Error>,
    ) -> Result<Vec<u8>, Error> {
        let client = crate::dialect::client(Surface::Responses);
        let is_cancelled = self.report.borrow().state == RunState::Cancelled;
        let nothing =
            || ChatResponse { choices: vec![Choice::default()], ..ChatResponse::default() };
        match heard {
            Ok(response) => Ok(self.write(client, &response)),
            Err(_) if is_cancelled => Ok(self.write(client, &nothing())),
            Err(error) => Err(error),
        }
    }
}

// === impl Call ===

impl Call {
    /// When a client that has set a limit wants its run to be over.
    fn due(&self) -> Instant {
        let hours = Duration::from_hours(24);
        self.started + self.bearings.timeout.unwrap_or(hours)
    }
}
