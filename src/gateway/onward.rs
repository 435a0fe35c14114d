//! What is left of a call's way once an answer has begun: should its stream break, another target
//! begins anew, or carries on where it broke off.

use std::borrow::Cow;

use super::arrival::Question;
use super::ask::Answer;
use super::call::Call;
use super::flow::Flow;
use super::journey::Journey;
use super::pipeline::Walk;
use crate::config::OnBreak;
use crate::dialect::passage::Passage;
use crate::error::{Error, Kind};
use crate::provider::Failure;

/// A question that may be asked again, and who may still be asked.
pub(super) struct Onward {
    pub(super) question: Box<Question>,
    pub(super) journey: Journey,
}

/// A walk that goes on behind a broken stream.
pub(super) struct Resumed {
    pub(super) walk: Walk,
    /// What the client was given so far, where that is to be carried on.
    pub(super) carried: Option<Passage>,
}

impl Onward {
    /// Whether the route wants another target to go on behind `flow`, and it can be done without a
    /// seam. `gave` tells whether the client has been given anything.
    pub(super) fn prepare_to_resume(&mut self, call: &Call, flow: &Flow, gave: bool) -> bool {
        let wanted = call.wishes().map(|wishes| wishes.on_break).unwrap_or_default();
        let carries_on = |said: &str| {
            let guarding = call.guarding.as_ref();
            let said =
                guarding.map_or_else(|| said.into(), |guarding| Cow::Owned(guarding.conceal(said)));
            self.question.carries_on(&said, flow.passage.sight())
        };
        match wanted {
            OnBreak::Error => false,
            _ if !gave => true,
            OnBreak::Restart => false,
            OnBreak::Continue => flow.passage.said().is_some_and(carries_on),
        }
    }

    /// Goes on after `failure`. `error` is what the client is told should nobody else answer: the
    /// first cause counts.
    pub(super) fn resume(
        mut self: Box<Self>,
        mut call: Box<Call>,
        flow: Box<Flow>,
        failure: Failure,
        error: Error,
        gave: bool,
    ) -> Resumed {
        if gave {
            self.journey.needs_prefill();
        }
        call.attempt_broke(&failure, flow.passage.sight());
        self.journey.broke(failure);
        let walk = async move {
            let (call, answer) = self.walk(call).await;
            let ours = [Kind::GuardBlocked, Kind::BudgetExceeded];
            let final_word = |said: Error| if ours.contains(&said.kind) { said } else { error };
            (call, answer.map_err(final_word))
        };
        Resumed { walk: Box::pin(walk), carried: gave.then_some(flow.passage) }
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
