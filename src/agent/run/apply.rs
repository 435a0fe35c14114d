//! What each entry of a journal makes of a run.

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Call, Cancel, Escalation, Overflow, Run, Stage, Stretch};
use crate::agent::event::{ASIDE, Asking, CallError, Event, PROBE, Requested, Resolution};
use crate::canon::{
    Content, Effect, Finish, FinishReason, Message, Part, Role, RunState, StopReason, ToolResult,
    Usage,
};
use crate::error::Kind;
use crate::store::hex;
use crate::tool::canonical;

impl Run {
    /// Takes in one more entry. Entries that make no sense here change nothing but the count, and
    /// neither does any behind the end.
    pub fn apply(&mut self, event: &Event) {
        self.seq += 1;
        if !self.state.is_over() {
            self.take(event);
        }
        if self.created.source.as_ref().is_some_and(|source| source.entries + 1 == self.seq) {
            self.pays_from_here();
        }
    }

    /// Takes in what stands in its journal. `times`: when each entry was written, that of its
    /// beginning first.
    pub fn replays(&mut self, events: &[Event], times: &[u64]) {
        for (event, before) in events.iter().zip(times) {
            // Nobody has worked at it since the entry before.
            if matches!(event, Event::Resumed { .. }) {
                self.waiting_since.get_or_insert(*before);
            }
            self.apply(event);
        }
    }

    /// What comes now is its own, and what came before was paid for by another run.
    fn pays_from_here(&mut self) {
        (self.usage, self.cost) = (Usage::default(), 0);
        self.taken_over = (self.answers, self.tool_calls);
        self.below.clear();
        if let Some(stretch) = &mut self.stretch {
            stretch.usage = Usage::default();
        }
        if !self.state.is_over() && self.started.is_some() {
            // So is its time: nobody has worked at it so far.
            let begins = Some(self.created.at);
            (self.started, self.waiting_since, self.waited) = (begins, begins, 0);
        }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Asked(_) | Event::Answered { .. } | Event::AskFailed { .. } => {
                self.take_model(event);
            }
            Event::Requested(request) => self.take_request(request),
            Event::ApprovalAsked { .. }
            | Event::Approved { .. }
            | Event::Rejected { .. }
            | Event::InputAsked { .. }
            | Event::InputGiven { .. } => self.take_word(event),
            Event::Refused { .. }
            | Event::Began { .. }
            | Event::Done { .. }
            | Event::Failed { .. }
            | Event::Unknown { .. }
            | Event::Resolved { .. }
            | Event::ClientResult { .. } => self.take_call(event),
            Event::ChildStarted { .. }
            | Event::ChildWaits { .. }
            | Event::ChildDone { .. }
            | Event::UndoBegan { .. }
            | Event::UndoDone { .. } => self.take_below(event),
            _ => self.take_course(event),
        }
    }

    /// What became of a call.
    fn take_call(&mut self, event: &Event) {
        match event {
            Event::Refused { id, error } => {
                let is_wrong = error.kind == "invalid_arguments";
                self.had_wrong |= is_wrong;
                self.had_right |= !is_wrong;
                self.settle(id, vec![Part::text(error.text())], true);
            }
            Event::Began { id, at } => {
                self.had_right = true;
                self.stage(id, Stage::Began);
                self.uses(id, true);
                if let Some(call) = self.call_mut(id) {
                    call.began = Some(*at);
                }
            }
            Event::Done { id, parts, bytes, value, cached, .. } => {
                self.bytes += bytes;
                if *cached {
                    self.uses(id, false);
                }
                self.note_undo(id, value.as_ref());
                self.settle(id, parts.clone(), false);
            }
            Event::Failed { id, error, attempts, .. } => {
                if *attempts == 0 {
                    self.uses(id, false);
                }
                if let Some(call) = self.call(id).filter(|_| error.degrades()) {
                    let tool = call.request.tool.clone();
                    self.degraded_tools.insert(tool);
                }
                // Of wrong arguments the model can make right ones.
                self.broke |= self.changes(id) && error.kind != "invalid_arguments";
                self.settle(id, vec![Part::text(error.text())], true);
            }
            Event::Unknown { id } => {
                self.stage(id, Stage::Unknown { seq: self.seq });
                self.doubts(id, true);
            }
            Event::Resolved { id, outcome, result, by } => {
                // A tool that finds nothing says that it never arrived; a person need not know.
                self.doubts(id, !by.starts_with(PROBE));
                self.resolve(id, *outcome, result.as_ref());
            }
            Event::ClientResult { id, parts, is_error } => {
                self.settle(id, parts.clone(), *is_error);
            }
            _ => {}
        }
    }

    /// What became of the run.
    fn take_course(&mut self, event: &Event) {
        match event {
            Event::Started { at, asks } => {
                self.started.get_or_insert(*at);
                self.works(*at);
                if let Some(asking) = asks {
                    self.take_asking(asking);
                }
            }
            Event::Resumed { at, .. } => self.works(*at),
            Event::Fallback { level, from, outcome, .. } => self.passes(*level, from, outcome),
            Event::Handoff { id, to, from, summary } => {
                self.hand_over(id, from, to, summary.as_deref());
            }
            Event::AgentFallback { to, .. } => {
                self.give_to(to);
                self.degraded = true;
                self.forget_filtered();
                self.failures = 0;
                self.malformed = 0;
                (self.had_wrong, self.had_right) = (false, false);
            }
            Event::Planned { steps, usage, cost } => {
                self.plan = Some(steps.clone());
                self.take_aside(*usage, *cost);
            }
            Event::Compacted { through, summary, usage, cost } => {
                self.compacted = Some((*through as usize, summary.clone()));
                self.take_aside(*usage, *cost);
            }
            Event::Noted { text, reason } => self.note(text, reason.as_deref()),
            Event::InputUnfit { .. } => self.questions += 1,
            Event::Said { messages, .. } => self.transcript.extend(messages.iter().cloned()),
            Event::LimitHit { reason } => {
                self.limit.get_or_insert(*reason);
            }
            Event::Escalated { reason, id, expires_at } => {
                self.escalates(reason, id.as_ref(), *expires_at);
            }
            Event::Review { confidence, .. } => self.note_confidence(*confidence),
            Event::Paused { .. } => self.paused = true,
            Event::Unpaused { .. } => {
                self.paused = false;
                self.escalated = None;
                self.escalated_calls.clear();
            }
            Event::CancelAsked { by, reason, after_step } => {
                let (by, reason) = (by.clone(), reason.clone());
                self.cancel = Some(Cancel { by, reason, after_step: *after_step });
            }
            Event::Ended { state, reason, message, degraded, at } => {
                (self.state, self.reason) = (*state, *reason);
                self.message.clone_from(message);
                self.degraded |= degraded;
                self.finished = Some(*at);
            }
            _ => {}
        }
    }

    /// A person is to take over.
    fn escalates(&mut self, reason: &str, id: Option<&String>, until: Option<u64>) {
        let seq = self.escalated.as_ref().map_or(self.seq, |before| before.seq);
        self.escalated = Some(Escalation { reason: reason.to_owned(), seq, until });
        self.escalated_calls.extend(id.cloned());
    }

    /// A model was asked for what is no step.
    fn take_aside(&mut self, usage: Usage, cost: Option<u64>) {
        self.asked_anew |= usage.total() > 0;
        self.open_ask = None;
        self.pay(usage, cost);
    }

    /// What a provider has kept back is no part of the conversation.
    fn forget_filtered(&mut self) {
        let filtered = [FinishReason::ContentFilter, FinishReason::Refusal];
        if self.finish.take_if(|finish| filtered.contains(finish)).is_some() {
            self.transcript.pop_if(|last| last.role == Role::Assistant);
        }
    }

    /// It is at work again.
    fn works(&mut self, at: u64) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += at.saturating_sub(since);
        }
        self.state = RunState::Running;
        let before = self.stretch.map(|stretch| stretch.seq);
        let (seq, usage) = (self.seq, self.usage);
        self.stretch = Some(Stretch { seq, from: at, before, usage });
    }

    /// It waits from now on, unless it is over.
    pub fn rests(&mut self, state: RunState, at: u64) {
        if self.state.is_over() {
            return;
        }
        self.state = state;
        self.waiting_since.get_or_insert(at);
    }

    fn take_model(&mut self, event: &Event) {
        match event {
            Event::Asked(asking) => self.take_asking(asking),
            Event::Answered {
                parts,
                finish,
                usage,
                cost,
                fallback_level,
                cached,
                provider,
                model,
                ..
            } => {
                self.asked_anew |= !cached;
                self.answered_by = Some(format!("{provider}/{model}"));
                let asked = self.open_ask.take();
                let clamped = asked.as_ref().is_some_and(|asked| asked.clamped);
                if let Some(over) = asked.and_then(|it| self.overflowed.get_mut(&it.model)) {
                    over.times = 0;
                }
                (self.failures, self.retry) = (0, None);
                self.answers += 1;
                self.fallback_level = self.fallback_level.max(*fallback_level);
                self.pay(*usage, *cost);
                self.take_answer(parts, finish);
                // What was cut by a budget is the last word.
                let is_cut = clamped && finish.reason == FinishReason::Length;
                let calls = |part: &Part| matches!(part.content, Content::ToolCall(_));
                self.is_last |= is_cut && self.limit.is_some() && !parts.iter().any(calls);
            }
            Event::AskFailed { call, code, usage, cost, lost, at, retry_after, .. } => {
                self.asked_anew = true;
                self.callable_at = retry_after.map(|wait| at.saturating_add(wait));
                let asked = self.open_ask.take();
                if let Some(asked) =
                    asked.filter(|it| it.call != ASIDE && code == Kind::ContextTooLong.code())
                {
                    self.overflows(asked.model, asked.input_estimate);
                }
                if *call != ASIDE {
                    self.retry = Some(*call);
                    self.failures += u32::from(!lost);
                }
                self.pay(*usage, *cost);
            }
            _ => {}
        }
    }

    fn take_asking(&mut self, asking: &Asking) {
        if asking.call != ASIDE {
            self.asks = self.asks.max(asking.call);
            self.is_last = !asking.tools && self.limit.is_some();
        }
        self.open_ask = Some(asking.clone());
    }

    fn overflows(&mut self, model: String, tokens: u64) {
        let over = self.overflowed.entry(model).or_insert(Overflow { times: 0, tokens });
        over.times += 1;
        over.tokens = over.tokens.min(tokens);
    }

    fn pay(&mut self, usage: Usage, cost: Option<u64>) {
        self.usage += usage;
        self.cost += cost.unwrap_or_default();
    }

    fn take_answer(&mut self, parts: &[Part], finish: &Finish) {
        self.finish = Some(finish.reason);
        self.calls.clear();
        self.malformed = if self.is_malformed() { self.malformed + 1 } else { 0 };
        (self.had_wrong, self.had_right, self.broke) = (false, false, false);
        if let Some(field) = self.confidence_field() {
            let text: String = parts.iter().filter_map(Part::as_text).collect();
            let said: Value = serde_json::from_str(&text).unwrap_or_default();
            self.note_confidence(sureness(&said, &field));
        }
        self.transcript.push(Message::new(Role::Assistant, parts.to_vec()));
    }

    fn take_request(&mut self, request: &Requested) {
        if let Some(field) = self.confidence_field() {
            self.note_confidence(sureness(&request.args, &field));
        }
        self.tool_calls += 1;
        let same = fingerprint(&request.alias, &request.args);
        *self.repeated.entry(same).or_default() += 1;
        self.calls.push(Call {
            request: request.clone(),
            stage: Stage::New,
            began: None,
            used: false,
            approval: None,
            edited: false,
            allowed: None,
            in_doubt: false,
        });
    }

    pub(super) fn stage(&mut self, id: &str, stage: Stage) {
        if let Some(call) = self.call_mut(id).filter(|call| call.stage != Stage::Over) {
            call.stage = stage;
        }
    }

    /// A call is among the uses of its tool from now on, or not after all.
    pub(super) fn uses(&mut self, id: &str, used: bool) {
        let Some(call) = self.call_mut(id).filter(|call| call.used != used) else { return };
        call.used = used;
        let tool = call.request.tool.clone();
        let count = self.tool_uses.entry(tool).or_default();
        *count = if used { *count + 1 } else { count.saturating_sub(1) };
    }

    fn doubts(&mut self, id: &str, in_doubt: bool) {
        if let Some(call) = self.call_mut(id) {
            call.in_doubt = in_doubt;
        }
    }

    fn resolve(&mut self, id: &str, outcome: Resolution, result: Option<&Value>) {
        match outcome {
            Resolution::Done => {
                self.note_undo(id, result);
                let told = |result: &Value| {
                    result.as_str().map_or_else(|| result.to_string(), str::to_owned)
                };
                let text = result.map_or_else(|| "Done.".to_owned(), told);
                self.settle(id, vec![Part::text(text)], false);
            }
            Resolution::Failed => {
                let error = CallError::new("failed", "A person has found that it failed.");
                self.broke |= self.changes(id);
                self.settle(id, vec![Part::text(error.text())], true);
            }
            // A person has taken it on: it is called once more, and was allowed if it had to be.
            Resolution::Retry => {
                let allowed = self.call(id).and_then(|call| call.allowed.clone());
                let stage = allowed.map_or(Stage::New, |hash| Stage::Approved { hash });
                self.stage(id, stage);
            }
        }
    }

    /// Another model has its turn. Where what the first has said cannot be mended, that is to do
    /// better, once.
    fn passes(&mut self, level: u32, model: &str, outcome: &str) {
        self.fallback_level = self.fallback_level.max(level);
        if outcome == StopReason::InvalidOutput.name() {
            self.avoided = Some(model.to_owned());
            self.malformed = self.malformed.saturating_sub(1);
        }
    }

    fn give_to(&mut self, agent: &str) {
        agent.clone_into(&mut self.active);
        self.avoided = None;
        let missing = self.definition.member(agent).map(|member| member.missing.clone());
        self.degraded_tools.extend(missing.into_iter().flatten());
    }

    fn hand_over(&mut self, id: &str, from: &str, to: &str, summary: Option<&str>) {
        let text = format!("`{to}` has the conversation now.");
        self.settle(id, vec![Part::text(text)], false);
        self.handoffs += 1;
        self.give_to(to);
        if let Some(summary) = summary {
            let begins = self.results_from().saturating_sub(1);
            let text = format!("`{from}` hands over to `{to}`: {summary}");
            self.compacted = Some((begins, text));
        }
    }

    pub(super) fn note(&mut self, text: &str, reason: Option<&str>) {
        match reason {
            Some("repair") => {
                self.repairs += 1;
                self.finish = None;
            }
            Some(same) => {
                self.remarked.insert(same.to_owned());
            }
            None => {}
        }
        self.transcript.push(Message::new(Role::User, vec![Part::text(text)]));
    }

    /// All that this turn wanted had wrong arguments.
    pub fn is_malformed(&self) -> bool {
        self.had_wrong && !self.had_right
    }

    fn confidence_field(&self) -> Option<String> {
        self.member()?.confidence.as_ref().map(|confidence| confidence.field.clone())
    }

    /// The least sure of all steps is how sure the run is.
    fn note_confidence(&mut self, confidence: Option<u32>) {
        if let Some(confidence) = confidence {
            self.confidence = Some(self.confidence.map_or(confidence, |it| it.min(confidence)));
        }
    }

    /// A call that is open is to change something.
    pub(super) fn changes(&self, id: &str) -> bool {
        let open = self.call(id).filter(|call| call.stage != Stage::Over);
        open.is_some_and(|call| call.request.effect != Effect::Read)
    }
}

/// The same for the same call, in whatever order its arguments stand.
pub(super) fn fingerprint(alias: &str, args: &Value) -> String {
    let digest = Sha256::digest(format!("{alias}\n{}", canonical(args)).as_bytes());
    hex(&digest[..16])
}

/// How sure it says it is, in thousandths.
pub(in crate::agent) fn sureness(value: &Value, field: &str) -> Option<u32> {
    let share = value.get(field)?.as_f64().filter(|share| (0.0..=1.0).contains(share))?;
    // Counted out, since a cast would be one that could lose something.
    (0..=1000u32).rev().find(|step| f64::from(*step) <= share.mul_add(1000.0, 1e-6))
}

/// Whether a message is the result of a call.
pub(in crate::agent) fn result_of(message: &Message) -> Option<&ToolResult> {
    match message.parts.first().map(|part| &part.content) {
        Some(Content::ToolResult(result)) => Some(result),
        _ => None,
    }
}

/// The reason that a limit gives, unless something else ended the run.
pub(super) fn incomplete(reason: StopReason) -> (RunState, Option<StopReason>) {
    (RunState::Incomplete, Some(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::run::tests::begun;
    use crate::agent::run::{Ending, Step};
    use crate::config::AgentLimits;

    /// What brings a run to this state, wherever it is. Nothing brings it back to its beginning.
    fn bring(run: &mut Run, to: RunState) {
        match to {
            RunState::Queued => {}
            RunState::Running => run.apply(&Event::Resumed { at: 2, epoch: 2 }),
            state if state.is_over() => {
                let (reason, message) = (None, None);
                run.apply(&Event::Ended { state, reason, message, degraded: false, at: 2 });
            }
            state => run.rests(state, 2),
        }
    }

    #[test]
    fn nothing_leads_back_to_the_beginning_or_out_of_an_end() {
        let all = RunState::ALL.map(|(state, _)| state);
        for (from, to) in all.into_iter().flat_map(|from| all.map(|to| (from, to))) {
            let mut run = begun(AgentLimits::default());
            run.state = from;
            bring(&mut run, to);
            let leads = !from.is_over() && to != RunState::Queued;
            assert_eq!(run.state, if leads { to } else { from }, "{from:?} -> {to:?}");
            if from.is_over() {
                let end = Step::End(Ending { state: from, reason: None });
                assert_eq!(run.next(3), end, "{to:?} behind {from:?}");
            }
        }
    }
}
