//! A run asks a model: a call like everybody's, whose answer is heard and not sent.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, Sleep};

use super::{Guarded, Receipt, Turn};
use crate::access::Caller;
use crate::canon::{
    ChatResponse, Dialect, Event, Outcome, Purpose, RunPart, Surface, Task, Trace, UsageSource,
};
use crate::dialect::fold::{Fold, unfold};
use crate::dialect::{Misread, estimate, turn};
use crate::error::{Error, Kind};
use crate::gateway::arrival::{Question, Unreadable};
use crate::gateway::ask::Answer;
use crate::gateway::call::Call;
use crate::gateway::flow::Flow;
use crate::gateway::live::{self, Live};
use crate::gateway::reply::outcome_of;
use crate::gateway::snapshot::Road;
use crate::gateway::{Gateway, bearings, guarding, journey, pipeline, shadow};

/// By which the ledger's sums tell users of agents apart; of a longer name they know nothing.
const END_USER: &str = "end_user";
const LONGEST_USER: usize = 128;

/// Who is given the answer as it comes.
type Hear<'a> = &'a mut (dyn FnMut(&Event) + Send);

/// A stream that is being heard. Whoever stops listening has called it off.
struct Listening {
    live: Option<Live>,
    timer: Pin<Box<Sleep>>,
    last_heard: Instant,
}

impl Gateway {
    /// Asks a model for a run, by the run's own caller: with its limits and budgets, the guards,
    /// the cache and the targets of the route, in the ledger and the metrics. `hear` is given the
    /// answer as it comes. What breaks off is an error, and so is what a guard has ended; what was
    /// heard of it is worth nothing then. When the future is dropped, the request is called off.
    pub async fn turn(
        self: &Arc<Self>,
        turn: Turn,
        hear: &mut (dyn FnMut(&Event) + Send),
    ) -> (Result<ChatResponse, Error>, Receipt) {
        let receipt = Arc::clone(&turn.receipt);
        let answer = Box::pin(take(self, turn, hear)).await;
        // The call is over, and so has handed it in.
        let receipt = receipt.get().cloned().unwrap_or_default();
        (answer, receipt)
    }
}

async fn take(gateway: &Arc<Gateway>, turn: Turn, hear: Hear<'_>) -> Result<ChatResponse, Error> {
    let house = (Arc::clone(gateway), gateway.snapshot());
    let mut call = Call::open(house, Surface::Turn, None, None);
    call.receipt = Some(Arc::clone(&turn.receipt));
    let question = match set_out(&mut call, turn).await {
        Ok(question) => question,
        Err(error) => return Err(call.fails(error)),
    };
    let (mut call, answer) = journey::walk(call, question).await;
    match answer {
        Ok(Answer::Stream(flow)) => Box::pin(listen(call, flow, hear)).await,
        Ok(Answer::Whole { content_type, body }) => match hear_whole(&content_type, &body, hear) {
            Ok(response) => {
                call.record.status = 200;
                call.traces_answer(|| name_of(&response));
                call.ends(Outcome::Ok);
                Ok(response)
            }
            Err(error) => Err(call.fails(error)),
        },
        Ok(Answer::Bytes(_)) => Err(call.fails(odd())),
        Err(error) => Err(call.fails(error)),
    }
}

/// Whose call it is, what it asks, and where it may go.
async fn set_out(call: &mut Call, turn: Turn) -> Result<Box<Question>, Error> {
    let Turn { caller, request, run, agent, guarded, user, session, .. } = turn;
    let (trace, deadline, cache) = (turn.trace, turn.deadline, turn.cache);
    call.bearings.rate_limit_tries = Some(turn.rate_limit_tries);
    call.admitted(&caller);
    call.record.purpose = Purpose::Agent;
    if call.gateway.telemetry.traces.is_some() {
        call.record.trace = trace.or_else(|| Some(Trace::begin(call.record.id)));
    }
    call.record.part = Some(Box::new(RunPart { version: turn.version, step: Some(turn.step) }));
    call.record.tags.insert("run".into(), run.to_string().into());
    call.record.tags.insert("agent".into(), (&*agent).into());
    for (name, value) in &turn.labels {
        let tags = &mut call.record.tags;
        tags.entry(name.as_str().into()).or_insert_with(|| value.as_str().into());
    }
    if let Some(user) = user.filter(|user| user.len() <= LONGEST_USER) {
        call.record.tags.insert(END_USER.into(), (&*user).into());
    }
    let tokens = estimate::tokens(&request, Dialect::Chat, None);
    let mut question = Question::spoken(request);
    let road = find(call, &caller, &question)?;
    let headers = headers(&turn.headers);
    question.came_by(&headers);
    Box::pin(choose(call, &mut question, &headers, (road, tokens))).await?;
    if let (Some(avoided), Some(chain)) = (&turn.avoids, call.chain.clone()) {
        let places = chain.dispensable(avoided, &call.bearings.barred);
        call.bearings.barred.extend(places);
    }
    let house = Arc::clone(&call.house);
    // What its tools bring and what they are given is seen by no other call.
    for Guarded { agent, version, guards } in &guarded {
        let guards = house.guards_of(agent, version).unwrap_or(guards);
        guarding::inspect(call, &mut question, guards).await?;
    }
    call.bearings.session = session;
    // What must not be remembered is not, whatever its client wants.
    call.bearings.cache = cache.or(call.bearings.cache);
    call.bearings.timeout = Some(deadline.saturating_duration_since(Instant::now()));
    if let Some(chain) = call.chain.clone() {
        question.keeps_to(&chain.wishes)?;
    }
    Box::pin(shadow::cast(call, &mut question)).await?;
    call.traces_question(&question);
    Ok(question)
}

fn find(call: &Call, caller: &Caller, question: &Question) -> Result<(Road, Option<Task>), Error> {
    // Whoever may run an agent may go where its definition leads.
    let found = bearings::look_up(&call.house, caller, &question.envelope.model);
    found.map(|(road, task, _)| (road, task)).map_err(|unreadable| match unreadable {
        Unreadable::Refused(error) => error,
        Unreadable::Gone | Unreadable::ForAgent(_) => odd(),
    })
}

fn headers(said: &[(String, String)]) -> HeaderMap {
    let read = |(name, value): &(String, String)| {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value).ok()?))
    };
    said.iter().filter_map(read).collect()
}

/// Past the guards and, where the route asks, by the kind of work.
async fn choose(
    call: &mut Call,
    question: &mut Question,
    headers: &HeaderMap,
    ((road, alias), tokens): ((Road, Option<Task>), u64),
) -> Result<(), Error> {
    let chain = match &road {
        Road::Chain(chain) => chain,
        Road::ByTask(by_task) => &by_task.default,
    };
    call.routed(chain, question);
    call.measured(tokens);
    bearings::read(call, headers)?;
    pipeline::guard(call, question, &road).await?;
    if let Road::ByTask(by_task) = &road {
        let decision = Box::pin(by_task.decide(call, question, (headers, alias))).await?;
        let chain = by_task.chain(decision.task);
        call.set_task(decision);
        call.routed(chain, question);
        call.measured(tokens);
        guarding::inspect(call, question, &chain.guards).await?;
    }
    bearings::take(call, question, headers, &road).await;
    Ok(())
}

fn hear_whole(
    content_type: &HeaderValue,
    body: &Bytes,
    hear: Hear<'_>,
) -> Result<ChatResponse, Error> {
    if content_type == turn::LINES {
        let mut fold = Fold::default();
        let read = turn::read_lines(body, |event| {
            hear(&event);
            fold.add(&event);
        });
        read.map_err(|misread| misread_answer(&misread))?;
        return fold.finish().map_err(|_| truncated());
    }
    let response = turn::read_response(body).map_err(|misread| misread_answer(&misread))?;
    unfold(&response).iter().for_each(hear);
    Ok(response)
}

async fn listen(
    mut call: Box<Call>,
    flow: Box<Flow>,
    hear: Hear<'_>,
) -> Result<ChatResponse, Error> {
    call.record.status = 200;
    let mut listening = Listening::new(Live::new(call, flow));
    let mut fold = Fold::default();
    let (outcome, error) = loop {
        match std::future::poll_fn(|context| listening.poll_turn(context)).await {
            live::Turn::Give(lines) => {
                let read = turn::read_lines(&lines, |event| {
                    hear(&event);
                    fold.add(&event);
                });
                if let Err(misread) = read {
                    break (Outcome::Internal, Some(misread_answer(&misread)));
                }
            }
            live::Turn::End(outcome, error) => break (outcome, error),
            live::Turn::Broken(broken) => {
                listening.broke(&broken);
                break (broken.failure.outcome, Some(broken.error));
            }
            _ => break (Outcome::Internal, Some(odd())),
        }
    };
    let Some(mut call) = listening.settle(outcome) else { return Err(odd()) };
    if outcome == Outcome::GuardBlocked {
        let blocked = call.guarding.as_ref().and_then(|guarding| guarding.blocked());
        return Err(call.fails(guarding::refusal(&blocked.unwrap_or_default())));
    }
    match error {
        None => {
            let response = fold.finish().map_err(|_| call.fails(truncated()))?;
            call.traces_answer(|| name_of(&response));
            Ok(response)
        }
        Some(error) => {
            // The attempt under way had its head before it failed.
            call.attempt_ended(outcome_of(error.kind), 200);
            Err(call.fails(error))
        }
    }
}

/// What its provider calls it.
fn name_of(response: &ChatResponse) -> Option<String> {
    Some(response.id.clone()).filter(|id| !id.is_empty())
}

fn misread_answer(misread: &Misread) -> Error {
    tracing::error!(%misread, "an answer for a run could not be read");
    odd()
}

fn truncated() -> Error {
    let message = "The provider broke its answer off; what was received is not complete.";
    Error::new(Kind::StreamTruncated, message)
}

fn odd() -> Error {
    Error::new(Kind::Internal, "The answer could not be read.")
}

// === impl Listening ===

impl Listening {
    fn new(live: Live) -> Self {
        let now = Instant::now();
        Self { live: Some(live), timer: Box::pin(tokio::time::sleep_until(now)), last_heard: now }
    }

    fn poll_turn(&mut self, context: &mut Context<'_>) -> Poll<live::Turn> {
        let Some(live) = &mut self.live else {
            return Poll::Ready(live::Turn::End(Outcome::Internal, Some(odd())));
        };
        loop {
            let until = match live.turn(self.last_heard, context) {
                live::Turn::Wait(until) => until,
                turn => {
                    self.last_heard = Instant::now();
                    return Poll::Ready(turn);
                }
            };
            self.timer.as_mut().reset(until);
            if self.timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
        }
    }

    /// The target has let its answer down.
    fn broke(&self, broken: &live::Broken) {
        if let Some(live) = &self.live {
            live.call.broke_off(&broken.failure);
        }
    }

    fn settle(&mut self, outcome: Outcome) -> Option<Box<Call>> {
        self.live.take().map(|live| live.settle(outcome))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(live) = self.live.take() {
            let why = live.call.gateway.abandoned();
            drop(live.settle(why));
        }
    }
}

// === impl Call ===

impl Call {
    /// It ends so; gives what the run is told.
    fn fails(&mut self, mut error: Error) -> Error {
        self.ends(outcome_of(error.kind));
        self.record.status = error.status();
        error.attempts = self.attempts().to_vec();
        error
    }

    /// Tells who asked for a run what the call has come to.
    pub(in crate::gateway) fn hand_in_receipt(&self) {
        let Some(receipt) = &self.receipt else { return };
        let (record, target) = (&self.record, self.last_target());
        let attempts = &record.attempts;
        let answered = record.outcome == Outcome::Ok && self.recalled.is_none();
        let (last, failed) = match attempts.split_last() {
            Some((last, failed)) if answered => (Some(last), failed),
            _ => (None, &attempts[..]),
        };
        let is_other = |attempt: &&crate::canon::Attempt| {
            last.is_none_or(|last| {
                (&attempt.provider, &attempt.model) != (&last.provider, &last.model)
            })
        };
        let mut passed: Vec<_> =
            failed.iter().filter(is_other).map(|it| (&it.provider, &it.model)).collect();
        passed.dedup();
        let _ = receipt.set(Receipt {
            id: Some(record.id),
            usage: record.usage_of_all(),
            route: record.route.clone(),
            task: record.task.map(Task::name),
            took: record.duration,
            estimated: record.usage_source == UsageSource::Estimated,
            cost: record.cost,
            provider: target.map(|target| Arc::clone(&target.provider.name)),
            model: target.map(|target| Arc::clone(&target.model)),
            attempts: u32::try_from(attempts.len()).unwrap_or(u32::MAX),
            fallback_level: u32::try_from(passed.len()).unwrap_or(u32::MAX),
            cached: self.recalled.is_some(),
            failed: failed.to_vec(),
        });
    }
}
