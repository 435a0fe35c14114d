//! Calls the tools that a model may call, and tells what came of it.

use std::fmt::Write as _;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::act::{bare, refusal};
use super::actor::{Actor, until};
use super::catalogue::is_catalogue;
use super::event::{CallError, Doer, Event, PROBE, Requested, Resolution};
use super::journal::{Beside, Halt, now};
use super::voice;
use crate::access::CallerRef;
use crate::canon::{Content, Effect, Part, RunId};
use crate::config::{ContextTerms, OnUnknown, ToolKind};
use crate::store::hex;
use crate::store::runs::NewLetter;
use crate::tool::text::Kept;
use crate::tool::{self, Failure, FailureKind, Invocation, Output, Sent, Tool, Wire};

/// A result that is longer is not kept for whoever takes the call back.
const LONGEST_VALUE: usize = 64 << 10;
/// The kind of error that a call has which is only played.
pub(super) const REPLAY: &str = "replay";
/// The hint at the rest of a result.
const BLOB: &str = "blob:";

impl Actor {
    /// In a run that plays another one again, nothing happens that must not happen twice.
    pub(super) async fn only_plays(&self, request: &Requested) -> bool {
        request.effect != Effect::Read && self.journal.run().await.only_plays()
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
            return self.failed(request, (played(), 0), None).await;
        }
        if request.doer == Doer::Delegate {
            return Box::pin(self.delegate_within_limits(request)).await;
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

    async fn step(&self) -> u32 {
        self.journal.run().await.asks
    }

    /// The call itself, whose beginning is in the journal.
    pub(super) async fn call(
        &self,
        request: &Requested,
        answer: Option<Value>,
    ) -> Result<(), Halt> {
        let Some(tool) = self.staff.toolbox().get(&request.tool) else {
            // It has begun, and only its own tool can say what became of it.
            return self.escalate_unavailable(Some(&request.id), &request.tool).await;
        };
        let run = self.journal.run().await;
        let deadline = until(&run, tool.terms.timeout * tool.terms.retry.attempts.max(1) * 2);
        let field = run.member().and_then(|it| it.confidence.clone()).map(|it| it.field);
        let user = run.created.user.clone();
        drop(run);
        let invocation = Invocation {
            args: bare(&request.args, field.as_deref(), &tool),
            idempotency_key: request.key.clone(),
            user: Some(CallerRef::of(&self.caller).person(user.as_deref())),
            passed: self.passed(&request.id).await,
            deadline,
            answer,
            listener: None,
        };
        let clock = Instant::now();
        let done = if is_catalogue(&tool) {
            Ok(self.catalogue(&request.args).await)
        } else {
            tool.call(&invocation).await
        };
        let seconds = Some(clock.elapsed().as_secs_f64());
        match done {
            Ok(output) => {
                self.counts_attempts(&request.tool, &output.retried, output.cached);
                let outcome = if output.cached { "cached" } else { "ok" };
                self.counts_call(&request.tool, outcome, seconds);
                self.done(request, &tool, output).await
            }
            Err(failure) => {
                self.counts_attempts(&request.tool, &failure.retried, false);
                if failure.kind == FailureKind::Refused {
                    self.staff.gateway.telemetry.metrics.count_security_event("tool_refused");
                }
                self.counts_call(&request.tool, failure.kind.name(), seconds);
                self.came_to_nothing(request, failure).await
            }
        }
    }

    async fn done(&self, request: &Requested, tool: &Tool, output: Output) -> Result<(), Halt> {
        let bytes = output.raw.len() as u64;
        self.purse.take_bytes(bytes);
        let run = self.journal.run().await;
        let Some(member) = run.member() else { return Ok(()) };
        let (terms, route) = (member.context.clone(), member.route.clone());
        drop(run);
        let count = |text: &str| self.staff.gateway.count(&self.caller, &route, text);
        let blob = hex(&Sha256::digest(&output.raw));
        let (mut cut, handle) = (output.truncated, format!("{BLOB}{blob}"));
        let kept = if cut { Kept::Beginning(&handle) } else { Kept::Whole(&handle) };
        // What is JSON says itself that there is more, and a server of MCP has said all of it.
        let is_mcp = matches!(tool.terms.kind, ToolKind::Mcp(_));
        let ends_early = output.truncated && output.value.is_none() && !is_mcp;
        let began = Instant::now();
        let parts: Vec<Part> = output
            .parts
            .into_iter()
            .map(|part| {
                let how = (&terms, (kept, ends_early), &mut cut);
                shown(part, how, tool, &request.key, &count)
            })
            .collect();
        self.took("sanitise", began);
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
            wire: output.wire,
        };
        let blobs = if cut { vec![(blob, output.raw.to_vec())] } else { Vec::new() };
        self.journal.append_with(vec![event], Beside { blobs, ..Beside::default() }).await?;
        self.live.voice.item(&self.name(), item);
        Ok(())
    }

    async fn came_to_nothing(&self, request: &Requested, failure: Failure) -> Result<(), Halt> {
        if let FailureKind::NeedsInput { message, schema } = &failure.kind {
            let asked = (message.clone(), Some(Value::clone(schema)));
            return self.ask_for(&request.id, asked, Vec::new()).await;
        }
        let is_unknown =
            failure.sent == Sent::Maybe || (!says_no(&failure) && self.is_in_doubt(request).await);
        if request.effect == Effect::Once && is_unknown {
            return self.nobody_knows(request).await;
        }
        let attempts = failure.attempts;
        let exhausted = match failure.kind {
            FailureKind::Timeout | FailureKind::Unreachable | FailureKind::Status(500..) => true,
            // By its server, not by our own limits.
            FailureKind::RateLimited => failure.sent == Sent::Refused,
            // Given up between attempts: a call that was never tried is no letter.
            FailureKind::Unavailable => attempts > 0,
            _ => false,
        };
        let letter = exhausted.then(|| letter(request, "tool", &failure.message, attempts));
        let mut error = refusal(&failure);
        if self.staff.toolbox().get(&request.tool).is_some_and(|tool| tool.terms.untrusted) {
            // What a stranger says of its failure is a stranger's word, too.
            error.message = tool::text::fence(&error.message, &request.tool, &request.key);
        }
        self.failed_over(request, (error, attempts), letter, failure.wire).await
    }

    /// Whether it was made before, and nobody knew what became of it: that it is not made again
    /// does not tell either.
    pub(super) async fn is_in_doubt(&self, request: &Requested) -> bool {
        self.journal.run().await.call(&request.id).is_some_and(|call| call.in_doubt)
    }

    pub(super) async fn failed(
        &self,
        request: &Requested,
        error: (CallError, u32),
        letter: Option<NewLetter>,
    ) -> Result<(), Halt> {
        self.failed_over(request, error, letter, None).await
    }

    async fn failed_over(
        &self,
        request: &Requested,
        (error, attempts): (CallError, u32),
        letter: Option<NewLetter>,
        wire: Option<Box<Wire>>,
    ) -> Result<(), Halt> {
        let text = error.text();
        let item = voice::mcp_call(&request.id, &request.alias, &request.args, Err(&text));
        let event = Event::Failed { id: request.id.clone(), error, attempts, at: now(), wire };
        let letters = letter.into_iter().collect();
        self.journal.append_with(vec![event], Beside { letters, ..Beside::default() }).await?;
        self.live.voice.item(&self.name(), item);
        Ok(())
    }

    /// It began before this process, and has no outcome.
    pub(super) async fn recover(&self, request: &Requested) -> Result<(), Halt> {
        match (request.doer, request.effect) {
            (Doer::Delegate, _) => Box::pin(self.delegate(request)).await,
            (_, Effect::Read | Effect::Idempotent) => self.call(request, None).await,
            (_, Effect::Once) => self.nobody_knows(request).await,
        }
    }

    /// It may have happened, and it must not happen twice.
    pub(super) async fn nobody_knows(&self, request: &Requested) -> Result<(), Halt> {
        self.counts_call(&request.tool, "unknown", None);
        let run = self.journal.run().await;
        let policy = run.member().map_or(OnUnknown::Escalate, |member| member.on_unknown);
        let probe = run.member().and_then(|member| member.tool(&request.tool)?.probe.clone());
        drop(run);
        // What follows from it stands in the journal with it, or it is looked into anew.
        let unknown = Event::Unknown { id: request.id.clone() };
        if policy == OnUnknown::TellModel {
            let error = CallError::unknown_outcome();
            let (id, text) = (request.id.clone(), error.text());
            let item = voice::mcp_call(&id, &request.alias, &request.args, Err(&text));
            let failed = Event::Failed { id, error, attempts: 1, at: now(), wire: None };
            self.journal.append(vec![unknown, failed]).await?;
            self.live.voice.item(&self.name(), item);
            return Ok(());
        }
        let found = match probe {
            Some(probe) => self.probe(request, &probe).await,
            None => None,
        };
        if let Some(found) = found {
            return self.journal.append(vec![unknown, found]).await;
        }
        self.counts_escalation("unknown_outcome");
        self.journal.append_with(vec![unknown], unknown_outcome(request)).await
    }

    /// Asks another tool what became of a call, also when the time of the run is over. None where
    /// it does not know.
    async fn probe(&self, request: &Requested, probe: &str) -> Option<Event> {
        let tool = self.staff.toolbox().get(probe)?;
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
        let invocation = Invocation {
            args,
            idempotency_key: format!("{}-probe", request.key),
            user: None,
            passed: self.passed(&request.id).await,
            deadline: Instant::now() + tool.terms.timeout * 4,
            answer: None,
            listener: None,
        };
        // Where it has found nothing the call may be under way still.
        let output = tool.call(&invocation).await.ok()?;
        let text = || output.parts.iter().filter_map(Part::as_text).collect::<String>();
        let result = Some(output.value.unwrap_or_else(|| Value::from(text())));
        let (id, by) = (request.id.clone(), format!("{PROBE}{probe}"));
        Some(Event::Resolved { id, outcome: Resolution::Done, result, by })
    }

    /// Of a tool that is there.
    fn counts_attempts(&self, tool: &str, retried: &[&'static str], cached: bool) {
        let metrics = &self.staff.gateway.telemetry.metrics;
        for reason in retried {
            metrics.agent_tool_retries.with_label_values(&[tool, reason]).inc();
        }
        if cached {
            metrics.agent_tool_cache_hits.with_label_values(&[tool]).inc();
        }
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
}

/// Whether its server has looked at a call and says that it came to nothing, which holds for the
/// same call before, too.
fn says_no(failure: &Failure) -> bool {
    let is_away = matches!(
        failure.kind,
        FailureKind::RateLimited
            | FailureKind::Auth
            | FailureKind::Unreachable
            | FailureKind::Timeout
            | FailureKind::Unavailable
    );
    matches!(failure.sent, Sent::Refused | Sent::Answered) && !is_away
}

/// Why nothing happens in a run that plays another one again.
pub(super) fn played() -> CallError {
    CallError::new(REPLAY, "This is played again: the tool is not called.")
}

/// A part of a result as the model is shown it.
fn shown(
    part: Part,
    (terms, (kept, ends_early), cut): (&ContextTerms, (Kept<'_>, bool), &mut bool),
    tool: &Tool,
    salt: &str,
    count: &dyn Fn(&str) -> u64,
) -> Part {
    let Content::Text { text, .. } = &part.content else { return part };
    let mut shown = text.clone();
    if tool.terms.scored
        && let Some((best, left_out)) =
            tool::text::chunks_of_json(text, terms.retrieval_tokens, count)
    {
        *cut = true;
        shown = best;
        if left_out > 0 {
            let (Kept::Whole(place) | Kept::Beginning(place)) = kept;
            let _ = write!(shown, "\n[{left_out} more were found; all are kept as {place}.]");
        }
    }
    if let Some(shorter) = tool::text::cut(&shown, terms.tool_result_tokens, kept, count) {
        *cut = true;
        shown = shorter;
    } else if ends_early {
        shown.push_str("\n[Cut: the result is longer than `max_result`, and ends here.]");
    }
    if tool.terms.untrusted {
        shown = tool::text::fence(&shown, &tool.name, salt);
    }
    Part::text(shown)
}

/// The letter about a call of which nobody knows what became of it.
pub(super) fn unknown_outcome(request: &Requested) -> Beside {
    let letter = letter(request, "unknown_outcome", "Nobody knows what became of it.", 1);
    Beside { letters: vec![letter], ..Beside::default() }
}

pub(super) fn letter(request: &Requested, kind: &str, error: &str, attempts: u32) -> NewLetter {
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
