//! What a model wants done: judged, allowed by people where they must, done, and told.

use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::actor::{Actor, Outcome};
use super::ask::{STEP, sureness};
use super::definition::{ToolDefinition, hex};
use super::event::{CallError, Doer, Event, Requested};
use super::journal::{Beside, Halt, now};
use super::run::{Call, Stage};
use super::{voice, when};
use crate::canon::{Content, Effect, Part, RunId, StopReason};
use crate::config::{Approval, Band, OnUnknown};
use crate::store::runs::{NewApproval, NewLetter};
use crate::tool::{self, Failure, FailureKind, Invocation, Output, Sent, Tool};

/// Asked in vain so often, a person takes over.
const MOST_QUESTIONS: u32 = 2;
/// A result that is longer is not kept for whoever takes the call back.
const LONGEST_VALUE: usize = 64 << 10;
/// The hint at the rest of a result.
const BLOB: &str = "blob:";

/// What is to be done about a call.
enum Verdict {
    Go,
    Refuse(CallError, Option<StopReason>),
    /// A person must let it, for this reason.
    Approve(String, Approval),
    Escalate(String),
}

impl Actor {
    /// Goes on with these calls, several at a time.
    pub(super) async fn act(&self, ids: Vec<String>) -> Result<(), Halt> {
        let most = self.definition.limits.tool_concurrency.max(1);
        let work = stream::iter(ids)
            .map(|id| async move { Box::pin(self.go_on(&id)).await })
            .buffer_unordered(most)
            .fold(Ok(()), |so_far, done| std::future::ready(so_far.and(done)));
        let run = self.journal.run().await;
        let until = self.until(&run, STEP);
        drop(run);
        match self.unless_ended(work, until).await? {
            Outcome::Done(done) => done,
            Outcome::Cancelled => self.abandon("cancelled", "The run was cancelled.").await,
            Outcome::Late => self.abandon("timeout", "The time of the run is over.").await,
        }
    }

    /// What is under way is called off. Of what must not happen twice nobody knows what became.
    async fn abandon(&self, kind: &str, message: &str) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let events: Vec<Event> = run
            .calls
            .iter()
            .filter(|call| matches!(call.stage, Stage::Began | Stage::Child { .. }))
            .map(|call| {
                let id = call.request.id.clone();
                if call.request.effect == Effect::Once {
                    Event::Unknown { id }
                } else {
                    let error = CallError::new(kind, message);
                    Event::Failed { id, error, attempts: 1, at: now() }
                }
            })
            .collect();
        drop(run);
        if events.is_empty() { Ok(()) } else { self.journal.append(events).await }
    }

    async fn go_on(&self, id: &str) -> Result<(), Halt> {
        let Some(call) = self.journal.run().await.call(id).cloned() else { return Ok(()) };
        match &call.stage {
            Stage::New => self.judge(&call.request).await,
            Stage::Approved { hash } => self.check_and_do(&call.request, hash).await,
            Stage::Answered { values } => self.perform(&call.request, Some(values.clone())).await,
            Stage::Began => self.recover(&call.request).await,
            Stage::Pending { approval, .. } => self.expire(&call, approval).await,
            Stage::Asking { .. } => self.unanswered(id).await,
            Stage::Unknown | Stage::Child { .. } | Stage::Over => Ok(()),
        }
    }

    async fn judge(&self, request: &Requested) -> Result<(), Halt> {
        match request.doer {
            Doer::Client => Ok(()),
            Doer::Nobody => {
                let message = self.nearest(&request.alias).await;
                self.refuse(request, CallError::new("unknown_tool", message), None).await
            }
            Doer::User => self.ask_user(request).await,
            Doer::Handoff => self.hand_off(request).await,
            Doer::Delegate => Box::pin(self.delegate(request)).await,
            Doer::Tool => match self.verdict(request).await {
                Verdict::Go => self.perform(request, None).await,
                Verdict::Refuse(error, limit) => self.refuse(request, error, limit).await,
                Verdict::Approve(reason, approval) => {
                    self.ask_approval(request, (reason, &approval)).await
                }
                Verdict::Escalate(reason) => self.escalate(Some(&request.id), reason).await,
            },
        }
    }

    async fn nearest(&self, alias: &str) -> String {
        let run = self.journal.run().await;
        let names: Vec<String> = run
            .member()
            .map(|member| member.tools.iter().map(|tool| tool.alias.clone()).collect())
            .unwrap_or_default();
        let hint = crate::config::suggestion(alias, names.iter().map(String::as_str));
        format!("There is no tool `{alias}`{hint}")
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
            "cost_usd": crate::canon::Money::from_nanos(run.cost).usd(),
            "steps": run.asks,
            "agent": run.active,
            "user": run.created.user,
        });
        if run.repetitions(request) > self.definition.limits.loop_stop {
            let text = "The same call was made too often; it is not made again.";
            return Verdict::Refuse(CallError::new("loop_detected", text), None);
        }
        if request.number > run.most_tool_calls() {
            let text = "No more tools can be called in this run.";
            let error = CallError::new("limit_exceeded", text);
            return Verdict::Refuse(error, Some(StopReason::MaxToolCalls));
        }
        let uses = run.tool_uses.get(&request.tool).copied().unwrap_or_default();
        if definition.most.is_some_and(|most| uses > most) {
            let text = format!("`{}` cannot be called more often in this run.", request.alias);
            return Verdict::Refuse(CallError::new("rate_limited", text), None);
        }
        drop(run);
        if !self.caller.may_use_tool(&request.tool) {
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
        let args = self.bare(&request.args, confidence.as_ref().map(|it| it.field.as_str()), &tool);
        if let Err(failure) = tool.check(&args) {
            return Verdict::Refuse(refusal(&failure), None);
        }
        let sure = confidence.as_ref().and_then(|it| sureness(&request.args, &it.field));
        let band = confidence.as_ref().filter(|_| request.effect != Effect::Read);
        match band.map(|confidence| confidence.band(sure)) {
            Some(Band::Escalate) => {
                return Verdict::Escalate("it is not sure enough to act".to_owned());
            }
            Some(Band::Approve) => {
                let approval = definition.approval.clone().unwrap_or_else(usual_approval);
                return Verdict::Approve("it is not sure enough to act alone".to_owned(), approval);
            }
            Some(Band::Log | Band::Autonomous) | None => {}
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
            Some(approval) => Verdict::Approve("the tool demands it".to_owned(), approval.clone()),
            None => Verdict::Go,
        }
    }

    /// The tool as it was when the run began, if it is still there.
    fn tool(&self, definition: &ToolDefinition) -> Option<Arc<Tool>> {
        let tool = self.staff.toolbox().get(&definition.name)?;
        let same = tool.terms.version == definition.version
            && tool.effect == definition.effect
            && tool.input == definition.input;
        same.then_some(tool)
    }

    /// The arguments without what only we have asked for.
    fn bare(&self, args: &Value, confidence: Option<&str>, tool: &Tool) -> Value {
        let mut args = args.clone();
        if let (Some(field), Some(map)) = (confidence, args.as_object_mut()) {
            let own = tool.input.get("properties").and_then(|it| it.get(field)).is_some();
            if !own {
                map.shift_remove(field);
            }
        }
        args
    }

    async fn refuse(
        &self,
        request: &Requested,
        error: CallError,
        limit: Option<StopReason>,
    ) -> Result<(), Halt> {
        let outcome = match error.kind.as_str() {
            "rate_limited" => "rate_limited",
            _ => "denied",
        };
        self.counts_call(&request.tool, outcome, None);
        let text = format!("tool {} was refused: {}", request.alias, error.kind);
        self.live.voice.aside(text);
        let id = request.id.clone();
        self.journal.append(vec![Event::Refused { id, error }]).await?;
        let is_new = self.journal.run().await.limit.is_none();
        match limit.filter(|_| is_new) {
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
            let reason = StopReason::DefinitionUnavailable.name().to_owned();
            return self.escalate(Some(&request.id), reason).await;
        };
        // Who has allowed other arguments is in the journal with them.
        let is_same = approval_hash(&definition, &request.args) == hash;
        if !is_same && !self.was_edited(&request.id).await {
            return self
                .ask_approval(request, ("it has changed".to_owned(), &usual_approval()))
                .await;
        }
        let run = self.journal.run().await;
        let field = run.member().and_then(|it| it.confidence.clone()).map(|it| it.field);
        drop(run);
        let args = self.bare(&request.args, field.as_deref(), &tool);
        if let Err(failure) = tool.check(&args) {
            return self.refuse(request, refusal(&failure), None).await;
        }
        self.perform(request, None).await
    }

    /// Calls the tool.
    pub(super) async fn perform(
        &self,
        request: &Requested,
        answer: Option<Value>,
    ) -> Result<(), Halt> {
        if let Err(reason) = self.purse.take_tool_call() {
            let error = CallError::new("limit_exceeded", "No more tools can be called.");
            return self.refuse(request, error, Some(reason)).await;
        }
        if self.only_plays(request).await {
            let error = CallError::new("replay", "This is played again: the tool is not called.");
            return self.failed(request, (error, 0), None).await;
        }
        let id = request.id.clone();
        self.live.voice.aside(format!("step {} execute_tool {}", self.step().await, request.alias));
        let began = Event::Began { id, at: now() };
        if request.effect == Effect::Read {
            self.journal.append(vec![began]).await?;
        } else {
            self.journal.intend(vec![began]).await?;
        }
        self.call(request, answer).await
    }

    /// In a run that plays another one again, nothing happens that must not happen twice.
    async fn only_plays(&self, request: &Requested) -> bool {
        let run = self.journal.run().await;
        let created = &run.created;
        request.effect != Effect::Read && created.replay_of.is_some() && !created.effects
    }

    async fn step(&self) -> u32 {
        self.journal.run().await.asks
    }

    /// The call itself, whose beginning is in the journal.
    async fn call(&self, request: &Requested, answer: Option<Value>) -> Result<(), Halt> {
        let Some(tool) = self.staff.toolbox().get(&request.tool) else {
            let error = CallError::new("unavailable", "The tool is not there any more.");
            return self.failed(request, (error, 0), None).await;
        };
        let run = self.journal.run().await;
        let deadline = self.until(&run, tool.terms.timeout * tool.terms.retry.attempts.max(1) * 2);
        let field = run.member().and_then(|it| it.confidence.clone()).map(|it| it.field);
        let user = run.created.user.clone();
        drop(run);
        let invocation = Invocation {
            args: self.bare(&request.args, field.as_deref(), &tool),
            idempotency_key: request.key.clone(),
            user: Some(user.as_deref().unwrap_or_else(|| self.live.owner.as_str()).into()),
            traceparent: self.traceparent().await,
            deadline,
            answer,
        };
        let clock = Clock::now();
        let done = tool.call(&invocation).await;
        let seconds = Some(clock.elapsed().as_secs_f64());
        match done {
            Ok(output) => {
                let outcome = if output.cached { "cached" } else { "ok" };
                self.counts_call(&request.tool, outcome, seconds);
                self.done(request, (&tool, output)).await
            }
            Err(failure) => {
                self.counts_call(&request.tool, failure.kind.name(), seconds);
                self.came_to_nothing(request, failure).await
            }
        }
    }

    async fn done(&self, request: &Requested, (tool, output): (&Tool, Output)) -> Result<(), Halt> {
        let bytes = output.raw.len() as u64;
        self.purse.take_bytes(bytes);
        let tokens = {
            let run = self.journal.run().await;
            run.member().map_or(6000, |member| member.context.tool_result_tokens)
        };
        let blob = hex(&Sha256::digest(&output.raw));
        let mut cut = output.truncated;
        let parts: Vec<Part> = output
            .parts
            .into_iter()
            .map(|part| shown(part, (tokens, &blob, &mut cut), tool, &request.key))
            .collect();
        let text: String = parts.iter().filter_map(Part::as_text).collect();
        let item = voice::mcp_call(&request.id, &request.alias, &request.args, Ok(&text));
        let value = output.value.filter(|value| value.to_string().len() <= LONGEST_VALUE);
        let event = Event::Done {
            id: request.id.clone(),
            parts,
            value,
            bytes,
            blob: cut.then(|| blob.clone()),
            cached: output.cached,
            attempts: output.attempts,
            at: now(),
        };
        let blobs = if cut { vec![(blob, output.raw.to_vec())] } else { Vec::new() };
        self.journal.append_with(vec![event], Beside { blobs, ..Beside::default() }).await?;
        self.live.voice.item(&self.name(), item);
        Ok(())
    }

    async fn came_to_nothing(&self, request: &Requested, failure: Failure) -> Result<(), Halt> {
        if let FailureKind::NeedsInput { message, schema } = &failure.kind {
            return self.ask_for(&request.id, message.clone(), Some(Value::clone(schema))).await;
        }
        if request.effect == Effect::Once && failure.sent == Sent::Maybe {
            return self.nobody_knows(request).await;
        }
        let attempts = failure.attempts;
        let exhausted = matches!(
            failure.kind,
            FailureKind::Timeout | FailureKind::Unreachable | FailureKind::Status(500..)
        );
        let letter = exhausted.then(|| self.letter(request, "tool", &failure.message, attempts));
        self.failed(request, (refusal(&failure), attempts), letter).await
    }

    async fn failed(
        &self,
        request: &Requested,
        (error, attempts): (CallError, u32),
        letter: Option<NewLetter>,
    ) -> Result<(), Halt> {
        let text = error.text();
        let item = voice::mcp_call(&request.id, &request.alias, &request.args, Err(&text));
        let event = Event::Failed { id: request.id.clone(), error, attempts, at: now() };
        let letters = letter.into_iter().collect();
        self.journal.append_with(vec![event], Beside { letters, ..Beside::default() }).await?;
        self.live.voice.item(&self.name(), item);
        Ok(())
    }

    pub(super) fn letter(
        &self,
        request: &Requested,
        kind: &str,
        error: &str,
        attempts: u32,
    ) -> NewLetter {
        let payload = json!({
            "call_id": request.id,
            "tool": request.tool,
            "version": request.version,
            "args": request.args,
            "idempotency_key": request.key,
        });
        NewLetter {
            id: format!("dlq_{}", RunId::new().simple()),
            kind: kind.to_owned(),
            payload: payload.to_string(),
            error: error.to_owned(),
            attempts,
        }
    }

    /// It began before this process, and has no outcome.
    async fn recover(&self, request: &Requested) -> Result<(), Halt> {
        match (request.doer, request.effect) {
            (Doer::Delegate, _) => Box::pin(self.delegate(request)).await,
            (_, Effect::Read | Effect::Idempotent) => self.call(request, None).await,
            (_, Effect::Once) => self.nobody_knows(request).await,
        }
    }

    /// It may have happened, and it must not happen twice.
    async fn nobody_knows(&self, request: &Requested) -> Result<(), Halt> {
        self.counts_call(&request.tool, "unknown", None);
        let run = self.journal.run().await;
        let policy = run.member().map_or(OnUnknown::Escalate, |member| member.on_unknown);
        let probe = run.member().and_then(|member| member.tool(&request.tool)?.probe.clone());
        drop(run);
        let id = request.id.clone();
        self.journal.append(vec![Event::Unknown { id: id.clone() }]).await?;
        if policy == OnUnknown::TellModel {
            let text = "Nobody knows whether it happened. Do not try again; find out first.";
            let error = CallError::new("unknown_outcome", text);
            return self.failed(request, (error, 1), None).await;
        }
        if let Some(probe) = probe
            && self.probe(request, &probe).await?
        {
            return Ok(());
        }
        let letter = self.letter(request, "unknown_outcome", "Nobody knows what became of it.", 1);
        let beside = Beside { letters: vec![letter], ..Beside::default() };
        self.counts_escalation("unknown_outcome");
        self.journal.append_with(Vec::new(), beside).await
    }

    /// Asks another tool what became of a call. True where it knows.
    async fn probe(&self, request: &Requested, probe: &str) -> Result<bool, Halt> {
        let Some(tool) = self.staff.toolbox().get(probe) else { return Ok(false) };
        let mut args = request.args.clone();
        if let Some(map) = args.as_object_mut() {
            map.insert("idempotency_key".to_owned(), Value::from(request.key.clone()));
        }
        let known: Vec<String> = tool
            .input
            .get("properties")
            .and_then(Value::as_object)
            .map(|map| map.keys().cloned().collect())
            .unwrap_or_default();
        if let Some(map) = args.as_object_mut() {
            map.retain(|key, _| known.contains(key));
        }
        let run = self.journal.run().await;
        let deadline = self.until(&run, tool.terms.timeout * 4);
        drop(run);
        let invocation = Invocation {
            args,
            idempotency_key: format!("{}-probe", request.key),
            user: None,
            traceparent: self.traceparent().await,
            deadline,
            answer: None,
        };
        let by = format!("probe:{probe}");
        let id = request.id.clone();
        match tool.call(&invocation).await {
            Ok(output) => {
                let result = output.value.or_else(|| {
                    let text: String = output.parts.iter().filter_map(Part::as_text).collect();
                    Some(Value::from(text))
                });
                let outcome = super::event::Resolution::Done;
                self.journal.append(vec![Event::Resolved { id, outcome, result, by }]).await?;
                Ok(true)
            }
            // It has never arrived: the same call can be made, by the same key.
            Err(failure) if failure.kind == FailureKind::Status(404) => {
                let outcome = super::event::Resolution::Retry;
                let result = None;
                self.journal.append(vec![Event::Resolved { id, outcome, result, by }]).await?;
                Ok(true)
            }
            Err(_) => Ok(false),
        }
    }

    async fn ask_user(&self, request: &Requested) -> Result<(), Halt> {
        let text = |name: &str| request.args.get(name).and_then(Value::as_str).map(str::to_owned);
        let Some(question) = text("question") else {
            let error = CallError::new("invalid_arguments", "`question` is missing.");
            return self.refuse(request, error, None).await;
        };
        if self.journal.run().await.questions >= MOST_QUESTIONS {
            let reason = "its user was asked, and has not answered".to_owned();
            return self.escalate(Some(&request.id), reason).await;
        }
        self.ask_for(&request.id, question, request.args.get("schema").cloned()).await
    }

    /// Asks whoever is behind the run.
    async fn ask_for(&self, id: &str, message: String, schema: Option<Value>) -> Result<(), Halt> {
        let asked = Event::InputAsked {
            request: format!("inp_{}", RunId::new().simple()),
            id: id.to_owned(),
            message,
            schema,
            expires_at: now().saturating_add(millis(self.definition.limits.wait)),
        };
        self.journal.intend(vec![asked]).await
    }

    async fn unanswered(&self, id: &str) -> Result<(), Halt> {
        let error = CallError::new("unanswered", "Nobody has answered in time.");
        let failed = Event::Failed { id: id.to_owned(), error, attempts: 1, at: now() };
        self.journal.append(vec![failed]).await
    }

    pub(super) async fn escalate(&self, id: Option<&str>, reason: String) -> Result<(), Halt> {
        self.counts_escalation("agent");
        let escalated = Event::Escalated { reason, id: id.map(str::to_owned) };
        self.journal.intend(vec![escalated]).await
    }

    async fn ask_approval(
        &self,
        request: &Requested,
        (reason, approval): (String, &Approval),
    ) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let Some(definition) = run.member().and_then(|member| member.tool(&request.tool)).cloned()
        else {
            return Ok(());
        };
        drop(run);
        let hash = approval_hash(&definition, &request.args);
        let id = format!("mcpr_{}", &hex(&Sha256::digest(format!("{} {hash}", request.key)))[..32]);
        let expires_at = now().saturating_add(millis(approval.expires));
        let row = NewApproval {
            id: id.clone(),
            call: request.id.clone(),
            tool: request.tool.clone(),
            args: tool::canonical(&request.args),
            hash: hash.clone(),
            roles: approval.roles.clone(),
            reason: reason.clone(),
            expires_at,
        };
        let asked = Event::ApprovalAsked {
            id: request.id.clone(),
            approval: id.clone(),
            hash,
            roles: approval.roles.clone(),
            reason,
            expires_at,
        };
        let beside = Beside { approvals: vec![row], intent: true, ..Beside::default() };
        self.journal.append_with(vec![asked], beside).await?;
        let item = voice::mcp_approval(&id, &request.alias, &request.args);
        self.live.voice.item(&self.name(), item);
        Ok(())
    }

    /// Nobody has decided in time.
    async fn expire(&self, call: &Call, approval: &str) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let passes = run
            .member()
            .and_then(|member| member.tool(&call.request.tool)?.approval.as_ref())
            .is_some_and(|approval| approval.passes_unanswered);
        drop(run);
        let (id, approval) = (call.request.id.clone(), approval.to_owned());
        let by = "expiry".to_owned();
        let decision = if passes { "approved" } else { "expired" };
        self.counts_approval(&call.request.tool, decision);
        let event = if passes {
            Event::Approved { id, approval, by, args: None, at: now() }
        } else {
            Event::Rejected { id, approval, by, comment: None, expired: true }
        };
        self.journal.append(vec![event]).await
    }

    pub(super) fn counts_call(&self, tool: &str, outcome: &str, seconds: Option<f64>) {
        let metrics = &self.staff.gateway.telemetry.metrics;
        let agent = self.definition.agent.as_str();
        // Only names of the config: what a model makes up is no label.
        let known = self.staff.toolbox().get(tool).is_some();
        let tool = if known { tool } else { "unknown" };
        metrics.agent_tool_calls.with_label_values(&[agent, tool, outcome]).inc();
        if let Some(seconds) = seconds {
            metrics.agent_tool_seconds.with_label_values(&[agent, tool]).observe(seconds);
        }
    }

    pub(super) fn counts_escalation(&self, reason: &str) {
        let metrics = &self.staff.gateway.telemetry.metrics;
        let agent = self.definition.agent.as_str();
        metrics.agent_escalations.with_label_values(&[agent, reason]).inc();
    }

    pub(super) fn counts_approval(&self, tool: &str, decision: &str) {
        let metrics = &self.staff.gateway.telemetry.metrics;
        let agent = self.definition.agent.as_str();
        metrics.agent_approvals.with_label_values(&[agent, tool, decision]).inc();
    }

    async fn was_edited(&self, id: &str) -> bool {
        let run = self.journal.run().await;
        run.call(id).is_some_and(|call| call.edited)
    }
}

/// What somebody allows: this tool, in this version, with these arguments.
pub(super) fn approval_hash(definition: &ToolDefinition, args: &Value) -> String {
    let text = format!(
        "{}\n{}\n{}\n{}",
        definition.name,
        definition.version,
        tool::canonical(&definition.input),
        tool::canonical(args)
    );
    hex(&Sha256::digest(text.as_bytes()))
}

fn usual_approval() -> Approval {
    Approval {
        when: None,
        roles: Vec::new(),
        expires: Duration::from_hours(24),
        passes_unanswered: false,
        tools: None,
    }
}

/// Why a call came to nothing, for the model.
fn refusal(failure: &Failure) -> CallError {
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
        message: failure.message.clone(),
        retryable,
        retry_after: failure.retry_after.map(|after| after.as_secs()),
    }
}

/// A part of a result as the model is shown it.
fn shown(part: Part, (tokens, blob, cut): (u64, &str, &mut bool), tool: &Tool, salt: &str) -> Part {
    let Content::Text { text, .. } = &part.content else { return part };
    let count = |text: &str| (text.len() as u64).div_ceil(4);
    let handle = format!("{BLOB}{}", &blob[..16]);
    let mut shown = text.clone();
    if let Some(shorter) = tool::text::cut(text, tokens, &handle, &count) {
        *cut = true;
        shown = shorter;
    }
    if tool.terms.untrusted {
        shown = tool::text::fence(&shown, &tool.name, salt);
    }
    Part::text(shown)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
