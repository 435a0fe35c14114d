//! What is to be done next.

use super::apply::incomplete;
use super::{Run, Stage};
use crate::agent::event::{ASIDE, Doer};
use crate::canon::{FinishReason, RunState, StopReason};
use crate::config::{OnFilter, Planner};

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write down what is to be done.
    Plan,
    /// Ask a model; with tools, or for the last word.
    Ask {
        tools: bool,
    },
    /// These calls can go on: they are to be judged, made, or found out about.
    Act(Vec<String>),
    /// A call has failed for good, and what was done before it is not to stay.
    TakeBack,
    /// Another agent is to go on.
    FallBack,
    /// The model is done: what it says is to be looked at.
    Finish,
    /// Nothing, until something comes, or this time.
    Wait {
        state: RunState,
        until: Option<u64>,
    },
    /// A limit is hit, which is to be noted first.
    Limit(StopReason),
    End(Ending),
}

/// How it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ending {
    pub state: RunState,
    pub reason: Option<StopReason>,
}

impl Run {
    /// What is to be done at this time, in milliseconds since 1970.
    pub fn next(&self, now: u64) -> Step {
        if self.state.is_over() {
            return Step::End(Ending { state: self.state, reason: self.reason });
        }
        if self.created.compensates {
            return end(RunState::Completed, None);
        }
        if self.created.blocked.is_some() {
            return end(RunState::Rejected, Some(StopReason::Guard));
        }
        if let Some(cancel) = &self.cancel
            && (!cancel.after_step || self.is_between_steps())
        {
            return end(RunState::Cancelled, None);
        }
        if self.paused && self.is_between_steps() {
            return Step::Wait { state: RunState::Paused, until: None };
        }
        if let Some(until) = self.escalated.as_ref().map(|it| it.until) {
            if until.is_some_and(|until| until <= now) {
                return end(RunState::Expired, Some(StopReason::Unanswered));
            }
            return Step::Wait { state: RunState::WaitingHuman, until };
        }
        if self.settled_by_human {
            return end(RunState::Completed, None);
        }
        let open: Vec<&super::Call> =
            self.calls.iter().filter(|call| call.stage != Stage::Over).collect();
        if !open.is_empty() {
            return next_of_calls(&open, now);
        }
        if self.takes_back() {
            return Step::TakeBack;
        }
        let is_late = now >= self.deadline(now);
        match (self.limit, self.finish) {
            // There is no time for a last word.
            (Some(StopReason::Timeout), _) => ends_at(StopReason::Timeout),
            (Some(limit), Some(_)) if self.is_last => ends_at(limit),
            // What is said is said, however late.
            (None, Some(FinishReason::Stop)) if self.calls.is_empty() => Step::Finish,
            _ if is_late => Step::Limit(StopReason::Timeout),
            (Some(limit), _) if !self.definition.limits.final_answer => ends_at(limit),
            (None, Some(reason)) if self.calls.is_empty() => self.next_of_answer(reason),
            (None, _) if self.loops() => Step::Limit(StopReason::LoopDetected),
            _ => self.ask(),
        }
    }

    /// What was done is not to stay without what was to follow it.
    fn takes_back(&self) -> bool {
        self.broke && self.definition.compensates && self.undoable.iter().any(|undo| !undo.over)
    }

    /// Whether it can be held before it does this.
    pub fn can_rest(&self, step: &Step) -> bool {
        self.is_between_steps() && !matches!(step, Step::End(_))
    }

    /// No call of a model or tool is under way.
    fn is_between_steps(&self) -> bool {
        self.open_ask.is_none() && !self.calls.iter().any(|call| matches!(call.stage, Stage::Began))
    }

    fn next_of_answer(&self, reason: FinishReason) -> Step {
        match reason {
            FinishReason::ContentFilter | FinishReason::Refusal => self.next_of_filtered(),
            FinishReason::ContextFull => ends_at(StopReason::ContextOverflow),
            FinishReason::Pause | FinishReason::Malformed => self.ask(),
            FinishReason::Stop | FinishReason::Length | FinishReason::ToolCalls => Step::Finish,
        }
    }

    /// What becomes of it when its model's provider keeps an answer back.
    pub fn next_of_filtered(&self) -> Step {
        match self.member().map(|member| member.on_filter).unwrap_or_default() {
            OnFilter::Fallback if self.successor().is_some() => Step::FallBack,
            OnFilter::TellUser => end(RunState::Completed, Some(StopReason::Guard)),
            OnFilter::Fallback | OnFilter::Reject => {
                end(RunState::Rejected, Some(StopReason::Guard))
            }
        }
    }

    /// There is something that its model may call.
    pub fn offers(&self) -> bool {
        let own = self
            .member()
            .is_some_and(|member| !(member.tools.is_empty() && member.handoffs.is_empty()));
        own || !self.created.client_tools.is_empty()
    }

    /// The same was called again and again.
    fn loops(&self) -> bool {
        let most = self.definition.limits.loop_stop;
        self.calls.iter().any(|call| self.repetitions(&call.request) >= most)
    }

    fn is_planned(&self) -> bool {
        self.definition.planner == Planner::PlanThenAct
    }

    fn ask(&self) -> Step {
        if self.limit.is_some() {
            return Step::Ask { tools: false };
        }
        if self.answers == 0 && self.plan.is_none() && self.asks == 0 && self.is_planned() {
            return Step::Plan;
        }
        let open = self.open_ask.as_ref().map(|open| open.call).filter(|call| *call != ASIDE);
        let again = open.or(self.retry);
        let begun = again.unwrap_or(self.asks + 1);
        let most = self.most_steps();
        if begun > most {
            return ends_at(StopReason::MaxSteps);
        }
        // The last step is for an answer, where it could be for anything else.
        if begun == most && self.offers() && self.definition.limits.final_answer {
            return Step::Limit(StopReason::MaxSteps);
        }
        Step::Ask { tools: true }
    }
}

fn end(state: RunState, reason: Option<StopReason>) -> Step {
    Step::End(Ending { state, reason })
}

fn next_of_calls(open: &[&super::Call], now: u64) -> Step {
    let id = |call: &&&super::Call| call.request.id.clone();
    let ready = |call: &&&super::Call| match &call.stage {
        Stage::New => call.request.doer != Doer::Client,
        Stage::Approved { .. } | Stage::Began | Stage::Answered { .. } => true,
        Stage::Pending { expires_at, .. } | Stage::Asking { expires_at, .. } => *expires_at <= now,
        Stage::Unknown { .. } | Stage::Child { .. } | Stage::Over => false,
    };
    let acts: Vec<String> = open.iter().filter(ready).map(|call| id(&call)).collect();
    if !acts.is_empty() {
        return Step::Act(acts);
    }
    let has = |test: fn(&Stage) -> bool| open.iter().any(|call| test(&call.stage));
    let state = if has(|stage| matches!(stage, Stage::Unknown { .. })) {
        RunState::WaitingHuman
    } else if has(|stage| matches!(stage, Stage::Child { .. })) {
        RunState::WaitingChild
    } else if has(|stage| matches!(stage, Stage::Pending { .. })) {
        RunState::WaitingApproval
    } else if has(|stage| matches!(stage, Stage::Asking { .. })) {
        RunState::WaitingInput
    } else {
        RunState::WaitingClient
    };
    let until = open.iter().filter_map(|call| match &call.stage {
        Stage::Pending { expires_at, .. } | Stage::Asking { expires_at, .. } => Some(*expires_at),
        _ => None,
    });
    Step::Wait { state, until: until.min() }
}

fn ends_at(reason: StopReason) -> Step {
    let (state, reason) = incomplete(reason);
    Step::End(Ending { state, reason })
}
