//! What is left of a call's way once an answer has begun: should its stream break, another target
//! begins anew, or carries on where it broke off.

use super::arrival::Question;
use super::ask::Answer;
use super::call::Call;
use super::flow::Flow;
use super::journey::Journey;
use super::pipeline::Walk;
use crate::config::OnBreak;
use crate::error::Error;
use crate::provider::Failure;

/// A question that may be asked again, and who may still be asked.
pub(super) struct Onward {
    pub(super) question: Question,
    pub(super) journey: Journey,
}

/// A walk that goes on behind a broken stream.
pub(super) struct Resumed {
    pub(super) walk: Walk,
    /// What the client was given so far, where that is to be carried on.
    pub(super) carried: Option<Box<Flow>>,
}

impl Onward {
    /// Goes on after `failure`, if the route wants that and it can be done without a seam. `gave`
    /// tells whether the client has been given anything. `error` is what the client is told
    /// should nobody else answer: the first cause counts.
    pub(super) fn resume(
        mut self: Box<Self>,
        (mut call, flow): (Box<Call>, Box<Flow>),
        (failure, error): (Failure, Error),
        gave: bool,
    ) -> Result<Resumed, (Box<Call>, Box<Flow>, Error)> {
        let wanted = call.wishes().map(|wishes| wishes.on_break).unwrap_or_default();
        let carried = gave && wanted == OnBreak::Continue;
        let said = flow.passage.said().filter(|_| carried);
        if gave && !said.is_some_and(|said| self.question.carries_on(said, flow.passage.sight())) {
            return Err((call, flow, error));
        }
        if carried {
            self.journey.needs_prefill();
        }
        call.attempt_ended(failure.outcome, failure.status);
        self.journey.broke(failure);
        let walk = async move {
            let (call, answer) = self.walk(call).await;
            (call, answer.map_err(|_| error))
        };
        Ok(Resumed { walk: Box::pin(walk), carried: carried.then_some(flow) })
    }

    /// Tries the targets that are left.
    pub(super) async fn walk(
        mut self: Box<Self>,
        mut call: Box<Call>,
    ) -> (Box<Call>, Result<Answer, Error>) {
        let mut answer = self.journey.go(&mut call, &self.question).await;
        let again = call.wishes().is_some_and(|wishes| wishes.on_break != OnBreak::Error);
        if let (Ok(Answer::Stream(flow)), true) = (&mut answer, again) {
            flow.onward = Some(self);
        }
        (call, answer)
    }
}
