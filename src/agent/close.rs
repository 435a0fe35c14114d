//! What comes to a run from outside, and how it is left: waiting, or for good.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::actor::{Actor, Rest};
use super::below::Below;
use super::event::{CallError, Doer, Event, Resolution};
use super::journal::{Beside, Halt, now};
use super::people::{IN_VAIN, MOST_QUESTIONS};
use super::perform::{REPLAY, played, unknown_outcome};
use super::run::{Call, Ending, Stage, Step, Undoable};
use super::view;
use crate::canon::{Effect, FinishReason, Message, Part, Role, RunState, StopReason, Usage};
use crate::store::runs::SignalRow;
use crate::tool::{Failure, Invocation};

impl Actor {
    /// Takes in what came since it was looked at last.
    pub(super) async fn take_signals(&self) -> Result<(), Halt> {
        if !self.live.poked.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let after = self.signals.load(Ordering::Acquire);
        let store = self.staff.gateway.store();
        let found = store.run_signals(self.journal.id, after).await;
        let found = found.map_err(|failure| Halt::Store(failure.to_string()))?;
        let Some(last) = found.last().map(|signal| signal.number) else { return Ok(()) };
        let mut events = Vec::new();
        for signal in &found {
            let heard = self.heard(signal, &events).await;
            events.extend(heard);
        }
        let beside = Beside { signals: last, ..Beside::default() };
        self.journal.append_with(events, beside).await?;
        self.signals.store(last, Ordering::Release);
        let paused = self.journal.run().await.paused;
        self.live.paused.store(paused, Ordering::Release);
        Ok(())
    }

    /// What a signal says behind these entries, as far as it says anything to this run now.
    async fn heard(&self, signal: &SignalRow, before: &[Event]) -> Vec<Event> {
        let data: Value = serde_json::from_str(&signal.data).unwrap_or_default();
        let text = |name: &str| data.get(name).and_then(Value::as_str).map(str::to_owned);
        let by = text("by").unwrap_or_else(|| "somebody".to_owned());
        match signal.kind.as_str() {
            "cancel" => {
                let after_step = data.get("after_step").and_then(Value::as_bool).unwrap_or(false);
                vec![Event::CancelAsked { by, reason: text("reason"), after_step }]
            }
            "pause" => vec![Event::Paused { by }],
            "resume" => vec![Event::Unpaused { by }],
            "decision" => with(self.decided(&data, by.clone()).await, &data, by),
            "input" => self.given(&data, by, before).await,
            "unfit" => self.unfit(&data, by).await,
            "message" => with(Vec::new(), &data, by),
            "resolve" => self.resolved(&data, by).await,
            "client_results" => with(self.results(&data).await, &data, by),
            "feedback" => vec![Event::Feedback {
                score: data.get("score").and_then(Value::as_f64),
                label: text("label"),
                comment: text("comment"),
                by,
            }],
            _ => Vec::new(),
        }
    }

    async fn decided(&self, data: &Value, by: String) -> Vec<Event> {
        let Some(wanted) = data.get("approval").and_then(Value::as_str) else { return Vec::new() };
        let run = self.journal.run().await;
        let call = run.calls.iter().find(
            |call| matches!(&call.stage, Stage::Pending { approval, .. } if approval == wanted),
        );
        let Some(call) = call else { return Vec::new() };
        let (id, tool) = (call.request.id.clone(), call.request.tool.clone());
        drop(run);
        let approval = wanted.to_owned();
        let args = data.get("args").filter(|args| !args.is_null()).cloned();
        let approved = data.get("approved").and_then(Value::as_bool).unwrap_or(false);
        let decision = match (approved, &args) {
            (true, Some(_)) => "edited",
            (true, None) => "approved",
            (false, _) => "denied",
        };
        self.counts_approval(&tool, decision);
        if approved {
            let remember = data.get("remember").and_then(Value::as_bool).unwrap_or(false);
            vec![Event::Approved { id, approval, by, args, remember, at: now() }]
        } else {
            let comment = data.get("comment").and_then(Value::as_str).map(str::to_owned);
            vec![Event::Rejected { id, approval, by, comment, expired: false }]
        }
    }

    /// An answer to what is asked no more is something that its user says.
    async fn given(&self, data: &Value, by: String, before: &[Event]) -> Vec<Event> {
        let values = data.get("values").cloned().unwrap_or_default();
        let wanted = data.get("request").and_then(Value::as_str);
        let is_answered = |asked: &str| {
            let is_it =
                |it: &Event| matches!(it, Event::InputGiven { request, .. } if request == asked);
            before.iter().any(is_it)
        };
        let run = self.journal.run().await;
        let asking = run.calls.iter().find_map(|call| match &call.stage {
            Stage::Asking { request, .. } if wanted.is_none_or(|wanted| wanted == request) => {
                Some((request.clone(), call.request.id.clone()))
            }
            _ => None,
        });
        match asking.filter(|(request, _)| !is_answered(request)) {
            Some((request, id)) => vec![Event::InputGiven { request, id, values, by }],
            None if run.escalated.is_some() && !wanted.is_some_and(is_answered) => {
                let (request, id) = (wanted.unwrap_or("human").to_owned(), String::new());
                vec![Event::InputGiven { request, id, values, by }]
            }
            None => match values {
                Value::Null => Vec::new(),
                Value::String(text) => said(text, by),
                values => said(values.to_string(), by),
            },
        }
    }

    /// Its user was asked, and has said something else: once more so, and a person takes over.
    async fn unfit(&self, data: &Value, by: String) -> Vec<Event> {
        let wanted = data.get("request").and_then(Value::as_str);
        let run = self.journal.run().await;
        let asking = run.calls.iter().find_map(|call| match &call.stage {
            Stage::Asking { request, .. } if Some(request.as_str()) == wanted => {
                Some((request.clone(), call.request.id.clone()))
            }
            _ => None,
        });
        let Some((request, id)) = asking else { return Vec::new() };
        let is_last = run.questions >= MOST_QUESTIONS && run.escalated.is_none();
        drop(run);
        let mut events = vec![Event::InputUnfit { request, by }];
        if is_last {
            self.counts_escalation("agent");
            events.push(self.escalated(Some(&id), IN_VAIN.to_owned()));
        }
        events
    }

    async fn resolved(&self, data: &Value, by: String) -> Vec<Event> {
        let run = self.journal.run().await;
        let wanted = data.get("call").and_then(Value::as_str);
        let call = run
            .calls
            .iter()
            .find(|call| call.is_unknown() && wanted.is_none_or(|id| id == call.request.id));
        let Some(call) = call else { return Vec::new() };
        let outcome = data.get("outcome").cloned().unwrap_or_default();
        let Ok(outcome) = serde_json::from_value::<Resolution>(outcome) else { return Vec::new() };
        let result = data.get("result").filter(|it| !it.is_null()).cloned();
        vec![Event::Resolved { id: call.request.id.clone(), outcome, result, by }]
    }

    async fn results(&self, data: &Value) -> Vec<Event> {
        let run = self.journal.run().await;
        let results = data.get("results").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut events = Vec::new();
        for result in results {
            let Ok(result) = serde_json::from_value::<crate::canon::ToolResult>(result) else {
                continue;
            };
            let open = run.calls.iter().any(|call| {
                call.request.id == result.id
                    && call.request.doer == Doer::Client
                    && call.stage != Stage::Over
            });
            if open {
                let (id, parts, is_error) = (result.id, result.parts, result.is_error);
                events.push(Event::ClientResult { id, parts, is_error });
            }
        }
        events
    }

    /// Lets go of the run until something comes.
    pub(super) async fn rest(&self, state: RunState, until: Option<u64>) -> Result<Rest, Halt> {
        // Whoever follows the root is told.
        let below = if state == RunState::WaitingChild && self.live.above.is_none() {
            self.staff.asked_below(self.live.id, self.live.root).await
        } else {
            Below::default()
        };
        self.shows().await;
        let run = self.journal.run().await;
        let name = self.name();
        view::waits(&self.live.voice, &run, &below, state);
        let usage = run.spent().usage;
        let calls: Vec<String> = run
            .calls
            .iter()
            .filter(|call| call.stage != Stage::Over && call.request.doer == Doer::Client)
            .map(|call| call.request.id.clone())
            .collect();
        drop(run);
        self.staff.know_calls(&self.live.owner, self.journal.id, calls).await;
        self.journal.rest(state, until).await?;
        self.shows().await;
        let asked = below.shown();
        if !asked.is_empty() {
            self.live.report.send_modify(|report| report.approvals.extend(asked));
        }
        let reason = if state == RunState::WaitingClient {
            FinishReason::ToolCalls
        } else {
            FinishReason::Stop
        };
        self.live.voice.end(&name, reason, since(usage, self.before));
        Ok(Rest::Waits(state, until))
    }

    /// Ends the run in a state that its journal does not say yet.
    pub(super) async fn finish_as(
        &self,
        state: RunState,
        reason: StopReason,
        message: Option<String>,
    ) -> Result<(), Halt> {
        let degraded = reason == StopReason::Degraded;
        let ended = Event::Ended { state, reason: Some(reason), message, degraded, at: now() };
        self.close(vec![ended]).await
    }

    /// The last entries.
    pub(super) async fn close(&self, events: Vec<Event>) -> Result<(), Halt> {
        let failed = events.iter().any(|event| {
            matches!(event, Event::Ended { state: RunState::Failed | RunState::Incomplete, .. })
        });
        let wanted = self.journal.run().await.created.compensates;
        if wanted || (failed && self.definition.compensates) {
            Box::pin(self.compensate()).await?;
        }
        self.journal.end(events, Beside::default()).await
    }

    /// Takes back what can be taken back, the last first. A run that goes on is told so.
    pub(super) async fn compensate(&self) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let open: Vec<_> = run.undoable.iter().rev().filter(|undo| !undo.over).cloned().collect();
        let goes_on = run.next(now()) == Step::TakeBack;
        let done_by = |undo: &Undoable| run.alias_of(&undo.id).unwrap_or_default().to_owned();
        let open: Vec<_> = open.into_iter().map(|undo| (done_by(&undo), undo)).collect();
        drop(run);
        for (done_by, undo) in open {
            let (id, tool, args) = (undo.id.clone(), undo.tool.clone(), undo.args.clone());
            let key = undo.key.clone();
            let failed = if undo.began && self.is_once(&undo) {
                let text = "It had begun when its process died, and must not be done twice.";
                Some((CallError::new("unknown_outcome", text), 1))
            } else {
                self.journal.intend(vec![Event::UndoBegan { id, tool, args, key }]).await?;
                self.take_back(&undo).await?
            };
            let letters = failed
                .as_ref()
                .filter(|(error, _)| error.kind != REPLAY && undo.child.is_none())
                .map(|(error, attempts)| crate::store::runs::NewLetter {
                    id: format!("dlq_{}", crate::canon::RunId::new().simple()),
                    kind: "compensation".to_owned(),
                    payload: json!({"tool": undo.tool, "args": undo.args, "key": undo.key})
                        .to_string(),
                    error: error.message.clone(),
                    attempts: *attempts,
                })
                .into_iter()
                .collect();
            let error = failed.map(|(error, _)| error);
            let note = goes_on
                .then(|| Event::Noted { text: told(&done_by, error.as_ref()), reason: None });
            let done = [Event::UndoDone { id: undo.id, error }].into_iter().chain(note).collect();
            self.journal.append_with(done, Beside { letters, ..Beside::default() }).await?;
        }
        Ok(())
    }

    fn is_once(&self, undo: &Undoable) -> bool {
        let tool = self.staff.toolbox().get(&undo.tool);
        undo.child.is_none() && tool.is_some_and(|tool| tool.terms.effect == Effect::Once)
    }

    /// Why it could not be taken back, and how often that was tried.
    async fn take_back(&self, undo: &Undoable) -> Result<Option<(CallError, u32)>, Halt> {
        if self.journal.run().await.only_plays() {
            return Ok(Some((played(), 0)));
        }
        if let Some(child) = undo.child {
            let error = Box::pin(self.take_back_below(child)).await?;
            return Ok(error.map(|error| (error, 1)));
        }
        let Some(tool) = self.staff.toolbox().get(&undo.tool) else {
            let text = "The tool that takes it back is not there.";
            return Ok(Some((CallError::new("unavailable", text), 0)));
        };
        let invocation = Invocation {
            args: undo.args.clone(),
            idempotency_key: undo.key.clone(),
            user: None,
            passed: self.passed("").await,
            deadline: tokio::time::Instant::now() + tool.terms.timeout * 4,
            answer: None,
            listener: None,
        };
        let done = tool.call(&invocation).await;
        let told = |it: Failure| (CallError::new(it.kind.name(), it.message), it.attempts);
        Ok(done.err().map(told))
    }

    /// What must not be done twice and is under way when the run is ended may have happened: that
    /// is for people to find out.
    async fn leave_calls(&self) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let is_left =
            |call: &&Call| call.stage == Stage::Began && call.request.effect == Effect::Once;
        let left: Vec<_> = run.calls.iter().filter(is_left).map(|it| it.request.clone()).collect();
        drop(run);
        for request in left {
            let unknown = vec![Event::Unknown { id: request.id.clone() }];
            self.journal.append_with(unknown, unknown_outcome(&request)).await?;
        }
        Ok(())
    }

    /// The run is over, or is to be.
    pub(super) async fn end(&self, ending: Ending) -> Result<Rest, Halt> {
        let run = self.journal.run().await;
        let is_told = run.finished.is_some();
        // Those of a run that is only played again, or taken back, are another one's.
        let owns = !is_told && !run.created.compensates;
        drop(run);
        if owns && self.has_children().await {
            Box::pin(self.end_children("The run that began it has ended.")).await?;
        }
        if !is_told {
            self.leave_calls().await?;
        }
        let run = self.journal.run().await;
        let mut events = Vec::new();
        let cancelled = run.cancel.as_ref().and_then(|cancel| cancel.reason.clone());
        let blocked = run.created.blocked.clone();
        drop(run);
        if !is_told {
            let guarded = |message: String| Event::Guarded { guard: "input".to_owned(), message };
            events.extend(blocked.clone().map(guarded));
            let is_filtered = ending.state == RunState::Completed && ending.reason.is_some();
            let filtered = is_filtered.then(|| view::FILTERED.to_owned());
            let message = cancelled.or(blocked).or(filtered);
            let (ending, message) = self.ending_of(ending, message).await;
            let Ending { state, reason } = ending;
            events.push(Event::Ended { state, reason, message, degraded: false, at: now() });
            self.close(events).await?;
        } else if !self.journal.is_closed() {
            // Its journal came with its end.
            self.journal.end(Vec::new(), Beside::default()).await?;
        }
        self.shows().await;
        self.counts_end().await;
        let run = self.journal.run().await;
        let (name, usage, state) = (self.name(), run.spent().usage, run.state);
        let finish = view::finish(&run);
        if let Some(text) = view::last_words(&run) {
            self.live.voice.text(&name, &text);
        } else if run.settled_by_human
            || (state == RunState::Incomplete && !self.live.voice.has_spoken())
        {
            self.live.voice.parts(&name, &run.answer());
        }
        let error = view::failure(&run);
        drop(run);
        match error {
            Some(error) => self.live.voice.fail(error),
            None => self.live.voice.end(&name, finish, since(usage, self.before)),
        }
        Ok(Rest::Over(state))
    }

    /// A last word that is not what the schema demands is none.
    async fn ending_of(&self, ending: Ending, message: Option<String>) -> (Ending, Option<String>) {
        let run = self.journal.run().await;
        let answer = run.answer();
        let is_last_word = ending.state == RunState::Incomplete && !answer.is_empty();
        let wrong = super::demanded::is_as_demanded(&run, &answer).err().filter(|_| is_last_word);
        drop(run);
        match wrong {
            None => (ending, message),
            Some(wrong) => {
                let (state, reason) = (RunState::Failed, Some(StopReason::InvalidOutput));
                (Ending { state, reason }, Some(super::demanded::invalid(&wrong)))
            }
        }
    }

    async fn counts_end(&self) {
        let run = self.journal.run().await;
        let metrics = &self.staff.gateway.telemetry.metrics;
        let agent = self.definition.agent.as_str();
        let (state, reason) = (run.state.name(), run.reason.map_or("none", StopReason::name));
        let begun = (run.created.version.as_str(), run.created.trigger.name());
        metrics.agent_runs.with_label_values(&[agent, begun.0, begun.1, state, reason]).inc();
        metrics.agent_steps.with_label_values(&[agent]).observe(f64::from(run.asks));
        if run.asks > self.definition.limits.expected_steps {
            metrics.agent_limit_hits.with_label_values(&[agent, "expected_steps"]).inc();
            let (run_id, step, version) = (&run.id, run.asks, begun.0);
            let (event, outcome, trace_id) = ("steps.unexpected", state, run.trace_id());
            tracing::warn!(
                %run_id, agent, version, step, event, outcome, trace_id,
                "a run took more steps than expected"
            );
        }
        let worked = run.worked(run.finished.unwrap_or_else(now));
        let seconds = std::time::Duration::from_millis(worked).as_secs_f64();
        metrics.agent_run_seconds.with_label_values(&[agent, state]).observe(seconds);
        let cost = crate::canon::Money::from_nanos(run.cost).usd();
        metrics.agent_run_cost.with_label_values(&[agent]).observe(cost);
    }
}

fn said(text: String, by: String) -> Vec<Event> {
    vec![Event::Said { messages: vec![Message::new(Role::User, vec![Part::text(text)])], by }]
}

/// These, with what its user has said beside that.
fn with(mut events: Vec<Event>, data: &Value, by: String) -> Vec<Event> {
    let said = data.get("messages").cloned().unwrap_or_default();
    let messages: Vec<Message> = serde_json::from_value(said).unwrap_or_default();
    if !messages.is_empty() {
        events.push(Event::Said { messages, by });
    }
    events
}

/// What a model is told that goes on behind it. What the tool has said is a stranger's word, and
/// stays in the journal.
fn told(tool: &str, error: Option<&CallError>) -> String {
    match error.filter(|error| error.kind != REPLAY) {
        None => format!(
            "A call has failed, so what `{tool}` had done before it was taken back and does not \
             hold any more."
        ),
        Some(error) => format!(
            "A call has failed, but what `{tool}` had done before it could not be taken back \
             ({}): it still holds, and a person is told.",
            error.kind
        ),
    }
}

/// What was used for this answer; what was used before it, its client has been told.
pub(super) fn since(all: Usage, before: Usage) -> Usage {
    Usage {
        input: all.input.saturating_sub(before.input),
        cache_read: all.cache_read.saturating_sub(before.cache_read),
        cache_write: all.cache_write.saturating_sub(before.cache_write),
        cache_write_long: all.cache_write_long.saturating_sub(before.cache_write_long),
        output: all.output.saturating_sub(before.output),
        reasoning: all.reasoning.saturating_sub(before.reasoning),
        audio_input: all.audio_input.saturating_sub(before.audio_input),
        audio_output: all.audio_output.saturating_sub(before.audio_output),
    }
}
