//! Waits for what somebody else is being answered, and gives it in this client's own words.

use std::future::poll_fn;

use tokio::time::{Instant, timeout_at};

use super::replay;
use crate::cache::{Follower, Next};
use crate::canon::CacheUse;
use crate::dialect::fold::Fold;
use crate::dialect::passage::Passage;
use crate::dialect::{Misread, ReadStream};
use crate::error::{Error, Kind};
use crate::gateway::arrival::Question;
use crate::gateway::ask::Answer;
use crate::gateway::call::Call;
use crate::gateway::flow::{Flow, Step};
use crate::gateway::guarding::screened;

/// So many who ask for all may fail before all are told.
const MOST_FAILURES: u32 = 1;

/// There is nothing to read: what comes is in our own words already.
pub(in crate::gateway) struct Nothing;

impl ReadStream for Nothing {
    fn read(
        &mut self,
        _name: Option<&[u8]>,
        _data: &[u8],
        _events: &mut Vec<crate::canon::Event>,
    ) -> Result<(), Misread> {
        Ok(())
    }

    fn end(&mut self, _events: &mut Vec<crate::canon::Event>) {}
}

/// The answer; `None` if whoever asked has got none, and this call is to ask itself.
pub(super) async fn follow(
    call: &mut Call,
    question: &Question,
    follower: Follower,
    charged: bool,
) -> Result<Option<Answer>, Error> {
    let due = call.chain.as_ref().and_then(|chain| chain.targets.first());
    let due = due.map(|target| call.end(&target.limits));
    let Some(due) = due else { return Ok(None) };
    if question.envelope.stream && call.surface().is_chat() && !call.gathers() {
        return stream(call, question, follower, charged, due).await;
    }
    let mut follower = follower;
    let mut fold = Fold::default();
    let error = loop {
        match timeout_at(due, poll_fn(|context| follower.poll_next(context))).await {
            Err(_) => return Err(too_long()),
            Ok(Next::Events(events)) => events.iter().for_each(|event| fold.add(event)),
            Ok(Next::End) if !call.surface().is_chat() => return Ok(None),
            Ok(Next::End) => break None,
            Ok(Next::Failed(error)) => break Some(error),
        }
    };
    match (error, fold.finish()) {
        (None, Ok(response)) => {
            call.note_given(named(follower.by()), CacheUse::Hit, charged);
            if charged {
                call.usage(response.usage, 0);
            } else {
                call.saves(response.usage, None);
            }
            Box::pin(replay::answer(call, question, response, follower.by())).await.map(Some)
        }
        (error, _) => verdict(error.flatten(), &follower),
    }
}

async fn stream(
    call: &mut Call,
    question: &Question,
    follower: Follower,
    charged: bool,
    due: Instant,
) -> Result<Option<Answer>, Error> {
    let (lineage, tape) = (follower.lineage(), follower.tape());
    let Some(writer) = replay::writer(call, question, "") else { return Ok(None) };
    let choices = question.envelope.choices;
    let passage = Passage::translated(Box::new(Nothing), writer, choices, call.input_estimate());
    let flow = screened(call, question, Flow::following(follower, passage));
    let Some(flow) = flow else { return Ok(None) };
    let mut flow = Box::new(flow);
    loop {
        let sight = flow.passage.sight();
        if sight.content || sight.finished || flow.passage.is_stopped() {
            break;
        }
        match timeout_at(due, poll_fn(|context| flow.poll_step(context))).await {
            Err(_) => return Err(too_long()),
            Ok(Step::Data) => {}
            Ok(Step::Ended | Step::Cut(_) | Step::Failed(_)) => {
                return give_up(flow.told.take(), lineage);
            }
        }
    }
    call.note_given(named(tape.by.get()), CacheUse::Hit, charged);
    Ok(Some(Answer::Stream(flow)))
}

fn named(by: replay::By<'_>) -> Option<(&str, &str)> {
    by.map(|(provider, model)| (&**provider, &**model))
}

fn verdict(error: Option<Box<Error>>, follower: &Follower) -> Result<Option<Answer>, Error> {
    give_up(error, follower.lineage())
}

/// One of those who wait asks itself; but if it was to no avail before, all are told.
fn give_up(error: Option<Box<Error>>, lineage: u32) -> Result<Option<Answer>, Error> {
    match error {
        Some(error) if lineage >= MOST_FAILURES => Err(*error),
        _ => Ok(None),
    }
}

fn too_long() -> Error {
    Error::new(Kind::UpstreamTimeout, "The answer took longer than the route allows.")
}
