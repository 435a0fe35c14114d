//! What a model wants done: judged, allowed by people where they must, done, and told.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::sync::MutexGuard;
use tokio::time::Instant;

use super::actor::{Actor, Outcome, until};
use super::ask::STEP;
use super::definition::ToolDefinition;
use super::event::{CallError, Doer, Event, Requested};
use super::journal::{Halt, now};
use super::people::{approval_hash, usual_approval};
use super::run::{Call, Run, Stage, sureness};
use super::when;
use crate::canon::{Effect, StopReason};
use crate::config::{Approval, Band, Confidence};
use crate::error::retry_after_seconds;
use crate::tool::{self, Failure, FailureKind, Tool};

/// Why a person is asked whom the config wants asked.
const DEMANDED: &str = "the tool demands it";

/// What is to be done about a call.
enum Verdict {
    Go,
    Refuse(CallError, Option<StopReason>),
    /// A person must let it, for this reason.
    Approve(String, Approval),
    Escalate(String),
    /// Its user must say what is missing: these arguments, by this schema.
    Ask(Vec<String>, Value),
}

impl Actor {
    /// Goes on with these calls, several at a time.
    pub(super) async fn act(&self, ids: Vec<String>) -> Result<(), Halt> {
        let work = self.go_on_with_all(ids);
        let run = self.journal.run().await;
        let until = until(&run, STEP);
        drop(run);
        match self.unless_ended(work, until).await? {
            Outcome::Done(done) => done,
            Outcome::Cancelled => self.abandon("cancelled", "The run was cancelled.").await,
            Outcome::Late => self.abandon("timeout", "The time of the run is over.").await,
        }
    }

    /// Whoever waits below is looked at again when something comes, as long as others are at work.
    async fn go_on_with_all(&self, ids: Vec<String>) -> Result<(), Halt> {
        let most = self.definition.limits.tool_concurrency.max(1);
        let (mut queue, mut under_way) = (VecDeque::from(ids), FuturesUnordered::new());
        let (mut rests, mut so_far) = (Vec::new(), Ok(()));
        let mut stirred = pin!(self.stirred());
        loop {
            while under_way.len() < most
                && let Some(id) = queue.pop_front()
            {
                under_way.push(self.gone_on(id));
            }
            // Both are polled together: what is under way may stand before the other one in the
            // queue for the run's lock.
            tokio::select! {
                ended = under_way.next() => {
                    let Some((done, id)) = ended else { return so_far };
                    so_far = so_far.and(done);
                    rests.push(id);
                }
                run = &mut stirred, if !rests.is_empty() => {
                    let waits = |id: &String| run.call(id).is_some_and(Call::waits_below);
                    queue.extend(rests.drain(..).filter(waits));
                    drop(run);
                    stirred.set(self.stirred());
                }
            }
        }
    }

    /// The run, as soon as something has come for it.
    async fn stirred(&self) -> MutexGuard<'_, Run> {
        self.live.stirred.notified().await;
        self.journal.run().await
    }

    /// What is under way is called off. Of what must not happen twice nobody knows what became: that
    /// is found out where the run goes on, and left to people with its end.
    async fn abandon(&self, kind: &str, message: &str) -> Result<(), Halt> {
        Box::pin(self.end_children(message)).await?;
        let run = self.journal.run().await;
        let open: Vec<(Requested, bool)> = run
            .calls
            .iter()
            .filter(|call| matches!(call.stage, Stage::Began | Stage::Child { .. }))
            // What became of another run is known.
            .map(|call| (call.request.clone(), call.stage == Stage::Began))
            .collect();
        let goes_on = !run.is_called_off();
        drop(run);
        for (request, began) in open {
            if !began || request.effect != Effect::Once {
                let id = request.id.clone();
                let error = CallError::new(kind, message);
                let failed = Event::Failed { id, error, attempts: 1, at: now(), wire: None };
                self.journal.append(vec![failed]).await?;
            } else if goes_on {
                Box::pin(self.nobody_knows(&request)).await?;
            }
        }
        Ok(())
    }

    async fn gone_on(&self, id: String) -> (Result<(), Halt>, String) {
        (Box::pin(self.go_on(&id)).await, id)
    }

    async fn go_on(&self, id: &str) -> Result<(), Halt> {
        let Some(call) = self.journal.run().await.call(id).cloned() else { return Ok(()) };
        let goes_on = matches!(call.stage, Stage::Began | Stage::Child { .. });
        if !goes_on && self.live.is_paused() {
            return Ok(());
        }
        match &call.stage {
            Stage::New => self.judge(&call.request).await,
            Stage::Approved { hash } => self.check_and_do(&call.request, hash).await,
            Stage::Answered { values } => self.perform(&call.request, Some(values.clone())).await,
            Stage::Began => self.recover(&call.request).await,
            Stage::Pending { approval, .. } => self.expire(&call, approval).await,
            Stage::Asking { .. } => self.unanswered(id).await,
            Stage::Child { run } => Box::pin(self.look_after(id, *run)).await,
            Stage::Unknown { .. } | Stage::Over => Ok(()),
        }
    }

    async fn judge(&self, request: &Requested) -> Result<(), Halt> {
        if self.journal.run().await.is_last {
            let error = CallError::new("limit_exceeded", "No more tools can be called.");
            return self.refuse(request, error, None).await;
        }
        match request.doer {
            Doer::Client => Ok(()),
            Doer::Nobody => {
                let error = self.unknown(&request.alias).await;
                self.refuse(request, error, None).await
            }
            Doer::User => self.ask_user(request).await,
            Doer::Handoff => self.hand_off(request).await,
            Doer::Tool | Doer::Delegate => match self.judged(request).await {
                Verdict::Go => self.perform(request, None).await,
                Verdict::Refuse(error, limit) => self.refuse(request, error, limit).await,
                // Nobody need let pass what will not happen.
                Verdict::Approve(..) if self.only_plays(request).await => {
                    self.perform(request, None).await
                }
                Verdict::Approve(reason, _)
                    if reason == DEMANDED && self.approve_remembered(request).await? =>
                {
                    self.perform(request, None).await
                }
                Verdict::Approve(reason, approval) => {
                    self.ask_approval(request, reason, &approval).await
                }
                Verdict::Escalate(reason) => self.escalate(Some(&request.id), reason).await,
                Verdict::Ask(missing, schema) => {
                    self.ask_for_missing(request, missing, schema).await
                }
            },
        }
    }

    async fn judged(&self, request: &Requested) -> Verdict {
        let began = Instant::now();
        let verdict = self.verdict(request).await;
        self.took("policy", began);
        verdict
    }

    /// Why nobody does what is called by this name.
    async fn unknown(&self, alias: &str) -> CallError {
        let run = self.journal.run().await;
        if run.member().is_some_and(|member| member.misses(alias)) {
            let text = format!("The server of `{alias}` could not be asked what tools it has.");
            return CallError::new("unavailable", text);
        }
        let names: Vec<String> = run
            .member()
            .map(|member| {
                let withheld = self.withheld(member);
                let tools = member.tools.iter().map(|tool| tool.alias.clone());
                tools.filter(|alias| !withheld.contains(&&**alias)).collect()
            })
            .unwrap_or_default();
        let hint = crate::config::suggestion(alias, names.iter().map(String::as_str));
        CallError::new("unknown_tool", format!("There is no tool `{alias}`{hint}"))
    }

    /// Whether a tool may be called with these arguments now.
    async fn verdict(&self, request: &Requested) -> Verdict {
        let run = self.journal.run().await;
        let Some(definition) = run.member().and_then(|member| member.tool(&request.tool)).cloned()
        else {
            let error = CallError::new("unknown_tool", "There is no such tool.");
            return Verdict::Refuse(error, None);
        };
        let confidence = run.member().and_then(|member| member.confidence.clone());
        let facts = json!({
            "confidence": run.confidence.map(|it| f64::from(it) / 1000.0),
            "cost_usd": crate::canon::Money::from_nanos(run.cost + run.spent_before().cost).usd(),
            "steps": run.asks,
            "agent": run.active,
            "user": run.created.user,
        });
        if let Some((error, limit)) = beyond(&run, request, &definition) {
            return Verdict::Refuse(error, limit);
        }
        drop(run);
        if !self.may_use(&definition) {
            let text = format!("This key may not use `{}`.", request.alias);
            return Verdict::Refuse(CallError::new("not_allowed", text), None);
        }
        let Some(tool) = self.tool(&definition) else {
            let text = format!("`{}` is not what it was when the run began", definition.name);
            return Verdict::Escalate(format!(
                "{}: {text}",
                StopReason::DefinitionUnavailable.name()
            ));
        };
        let args = bare(&request.args, confidence.as_ref().map(|it| it.field.as_str()), &tool);
        if let Err(failure) = tool.check(&args) {
            return match self.missing(&args, &tool).await {
                Some((missing, schema)) => Verdict::Ask(missing, schema),
                None => Verdict::Refuse(refusal(&failure), None),
            };
        }
        if let Some(confidence) = confidence.filter(|_| request.effect != Effect::Read)
            && let Some(verdict) = self.doubts(request, &confidence, &definition).await
        {
            return verdict;
        }
        let wanted = definition.approval.as_ref().filter(|approval| {
            let about = json!({
                "name": definition.name,
                "effect": definition.effect.name(),
                "risk": if definition.high_risk { "high" } else { "normal" },
            });
            let when = approval.when.as_deref();
            when.is_none_or(|when| when::holds(when, &args, &facts, &about))
        });
        match wanted {
            Some(approval) => Verdict::Approve(DEMANDED.to_owned(), approval.clone()),
            None => Verdict::Go,
        }
    }

    /// What follows from how sure the model is of a call, where it does not just go on.
    async fn doubts(
        &self,
        request: &Requested,
        confidence: &Confidence,
        definition: &ToolDefinition,
    ) -> Option<Verdict> {
        let sure = sureness(&request.args, &confidence.field);
        match confidence.band(sure) {
            Band::Escalate => Some(Verdict::Escalate("it is not sure enough to act".to_owned())),
            Band::Approve => {
                let approval = definition.approval.clone().unwrap_or_else(usual_approval);
                Some(Verdict::Approve("it is not sure enough to act alone".to_owned(), approval))
            }
            Band::Log => {
                let kept = self.review(&request.id, sure).await;
                kept.err().map(|_| Verdict::Escalate("its review could not be kept".to_owned()))
            }
            Band::Autonomous => None,
        }
    }

    /// The tool as it was when the run began, if it is still there.
    pub(super) fn tool(&self, definition: &ToolDefinition) -> Option<Arc<Tool>> {
        let tool = self.staff.toolbox().get(&definition.name)?;
        let same = tool.version == definition.version
            // What an agent can do may change while runs have it.
            && (tool.effect == definition.effect || definition.agent.is_some())
            && tool.input == definition.input;
        same.then_some(tool)
    }

    pub(super) async fn refuse(
        &self,
        request: &Requested,
        error: CallError,
        limit: Option<StopReason>,
    ) -> Result<(), Halt> {
        if self.is_in_doubt(request).await {
            return Box::pin(self.nobody_knows(request)).await;
        }
        let outcome = match error.kind.as_str() {
            "rate_limited" => "rate_limited",
            "unavailable" => "unavailable",
            _ => "denied",
        };
        let metrics = &self.staff.gateway.telemetry.metrics;
        match error.kind.as_str() {
            "unknown_tool" => metrics.count_security_event("unknown_tool"),
            "not_allowed" => metrics.count_security_event("tool_not_allowed"),
            _ => {}
        }
        self.counts_call(&request.tool, outcome, None);
        let text = format!("tool {} was refused: {}", request.alias, error.kind);
        self.live.voice.aside(text);
        let id = request.id.clone();
        self.journal.append(vec![Event::Refused { id, error }]).await?;
        let is_new = self.journal.run().await.limit.is_none();
        match limit.filter(|_| is_new) {
            // The one budget that tools draw from.
            Some(StopReason::Budget) => self.hits_bytes().await,
            Some(reason) => self.hit(reason).await,
            None => Ok(()),
        }
    }

    /// Somebody has allowed it: if it is still the same, it is done.
    async fn check_and_do(&self, request: &Requested, hash: &str) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let definition = run.member().and_then(|member| member.tool(&request.tool)).cloned();
        drop(run);
        let tool = definition.as_ref().and_then(|definition| self.tool(definition));
        let (Some(definition), Some(tool)) = (definition, tool) else {
            return self.escalate_unavailable(Some(&request.id), &request.tool).await;
        };
        if approval_hash(&definition, &request.args) != hash {
            return self
                .ask_approval(request, "it has changed".to_owned(), &usual_approval())
                .await;
        }
        let run = self.journal.run().await;
        let field = run.member().and_then(|it| it.confidence.clone()).map(|it| it.field);
        drop(run);
        let args = bare(&request.args, field.as_deref(), &tool);
        if let Err(failure) = tool.check(&args) {
            return self.refuse(request, refusal(&failure), None).await;
        }
        self.perform(request, None).await
    }
}

/// Why a call is one too many, if it is.
fn beyond(
    run: &Run,
    request: &Requested,
    tool: &ToolDefinition,
) -> Option<(CallError, Option<StopReason>)> {
    if run.repetitions(request) > run.definition.limits.loop_stop {
        let text = "The same call was made too often; it is not made again.";
        return Some((CallError::new("loop_detected", text), None));
    }
    if request.number > run.most_tool_calls() {
        let text = "No more tools can be called in this run.";
        let error = CallError::new("limit_exceeded", text);
        return Some((error, Some(StopReason::MaxToolCalls)));
    }
    let text = format!("`{}` cannot be called more often in this run.", request.alias);
    let too_often = tool.most.is_some_and(|most| run.uses_before(request) >= most);
    too_often.then(|| (CallError::new("rate_limited", text), None))
}

/// Why a call came to nothing, for the model.
pub(super) fn refusal(failure: &Failure) -> CallError {
    let retryable = matches!(
        failure.kind,
        FailureKind::Invalid
            | FailureKind::RateLimited
            | FailureKind::Timeout
            | FailureKind::Unreachable
            | FailureKind::Status(500..)
    );
    CallError {
        kind: failure.kind.name().to_owned(),
        message: tool::text::clean(&failure.message).into_owned(),
        retryable,
        retry_after: failure.retry_after.map(retry_after_seconds),
    }
}

/// The arguments without what only we have asked for.
pub(super) fn bare(args: &Value, confidence: Option<&str>, tool: &Tool) -> Value {
    let mut args = args.clone();
    if let (Some(field), Some(map)) = (confidence, args.as_object_mut()) {
        let own = tool.input.get("properties").and_then(|it| it.get(field)).is_some();
        if !own {
            map.shift_remove(field);
        }
    }
    args
}
