//! What operators learn of a run, entry by entry: spans, lines of the log, and rows of the audit
//! trail for what was done and decided.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::event::Event;
use super::journal::now;
use super::people::usual_approval;
use super::run::{Call, Run, Stage};
use super::trace::{Cutter, trace_of};
use crate::canon::{Effect, Money, RunState, Trace};
use crate::gateway::Gateway;
use crate::store::{Audit, hex};
use crate::telemetry::{RunLine, RunSpan, Traces};
use crate::tool::canonical;

/// Whoever looks on while a journal grows.
#[derive(Debug, Clone)]
pub(super) struct Watch(Arc<Gateway>);

/// What a line says beside what all lines say.
#[derive(Default)]
struct Said<'a> {
    outcome: &'a str,
    tool: Option<&'a str>,
    call: Option<&'a str>,
    model: Option<&'a str>,
    millis: Option<u64>,
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(gateway: &Arc<Gateway>) -> Self {
        Self(Arc::clone(gateway))
    }

    /// An entry is in the store, and the run is about to take it in.
    pub(super) fn tells(&self, run: &Run, event: &Event) {
        let at = now();
        self.counts(run, event, at);
        if let Some(traces) = &self.0.telemetry.traces {
            let toolbox = Arc::clone(&self.0.snapshot().toolbox);
            let capture = traces.capture();
            let cutter = Cutter { toolbox: &toolbox, capture, is_all: false };
            let last = run.waiting_since.unwrap_or(at);
            cutter.cuts(run, event, (last, at)).for_each(|span| keep(traces, run, &span));
        }
        if let Some(said) = said(run, event, at) {
            self.line(run, event.kind(), &said);
        }
    }

    /// What entries themselves tell of times and turns.
    fn counts(&self, run: &Run, event: &Event, at: u64) {
        let metrics = &self.0.telemetry.metrics;
        let agent = run.created.agent.as_str();
        metrics.agent_journal_appends.inc();
        match event {
            Event::Started { at, .. } => {
                let waited = seconds(at.saturating_sub(run.created.at));
                metrics.agent_queue_wait.with_label_values(&[agent]).observe(waited);
            }
            Event::Asked(asking) => {
                let tokens = f64::from(u32::try_from(asking.input_estimate).unwrap_or(u32::MAX));
                metrics.agent_context_tokens.with_label_values(&[agent]).observe(tokens);
            }
            Event::Fallback { level, .. } => {
                let route = run.open_ask.as_ref().map_or("", |open| open.model.as_str());
                let labels = [agent, route, &level.to_string()];
                metrics.agent_fallbacks.with_label_values(&labels).inc();
            }
            Event::AgentFallback { .. } => {
                metrics.agent_fallbacks.with_label_values(&[agent, "", "agent"]).inc();
            }
            Event::Approved { id, .. } | Event::Rejected { id, .. } => {
                let Some((tool, asked)) = asked(run, id) else { return };
                let waited = seconds(at.saturating_sub(asked));
                let labels = [agent, tool, decision(event)];
                metrics.agent_approval_wait.with_label_values(&labels).observe(waited);
            }
            _ => {}
        }
    }

    /// The run was let go of, and waits.
    pub(super) fn rests(&self, run: &Run, state: RunState) {
        if let Some(traces) = &self.0.telemetry.traces
            && let Some(span) = Cutter::left(run, state, now())
        {
            keep(traces, run, &span);
        }
        self.line(run, "run.waiting", &Said { outcome: state.name(), ..Said::default() });
    }

    /// Entries took so long to be stored.
    pub(super) fn stored(&self, strict: bool, took: Duration) {
        let durability = if strict { "strict" } else { "relaxed" };
        let metrics = &self.0.telemetry.metrics;
        let series = metrics.agent_journal_commit.with_label_values(&[durability]);
        series.observe(took.as_secs_f64());
    }

    fn line(&self, run: &Run, event: &'static str, said: &Said<'_>) {
        let is_end = event == "run.ended";
        self.0.telemetry.log.run(&RunLine {
            run_id: &run.id.to_string(),
            agent: &run.created.agent,
            version: &run.created.version,
            step: run.asks,
            event,
            outcome: said.outcome,
            trace_id: &run.trace_id(),
            tool: said.tool,
            call_id: said.call,
            model: said.model,
            duration_ms: said.millis,
            tool_calls: is_end.then_some(run.tool_calls),
            cost_usd: is_end.then(|| Money::from_nanos(run.cost).usd()),
        });
    }
}

fn keep(traces: &Traces, run: &Run, span: &RunSpan) {
    let trace: Trace = trace_of(run.id, &run.created);
    let route = format!("agent/{}", run.created.agent);
    traces.keep(span, traces.samples(&trace, Some(&route)));
}

/// What an operator wants to know of an entry, if anything. Nothing of what was said stands in it.
fn said<'a>(run: &'a Run, event: &'a Event, at: u64) -> Option<Said<'a>> {
    let tool = |id: &'a str, outcome: &'a str| Some(of_call(run, id, outcome, at));
    let plain = |outcome| Some(Said { outcome, ..Said::default() });
    match event {
        Event::Started { .. } | Event::Resumed { .. } | Event::Unpaused { .. } => plain("running"),
        Event::Answered { model, .. } => {
            let millis = run.open_ask.as_ref().map(|open| at.saturating_sub(open.at));
            Some(Said { outcome: "ok", model: Some(model), millis, ..Said::default() })
        }
        Event::AskFailed { code, .. } => plain(code),
        Event::Done { id, cached, .. } => tool(id, if *cached { "cached" } else { "ok" }),
        Event::Failed { id, error, .. } | Event::Refused { id, error } => tool(id, &error.kind),
        Event::Unknown { id } => tool(id, "unknown"),
        Event::Resolved { id, .. } => tool(id, "resolved"),
        Event::ApprovalAsked { id, .. } => tool(id, "waiting_approval"),
        Event::Approved { id, .. } => tool(id, "approved"),
        Event::Rejected { id, expired, .. } => {
            tool(id, if *expired { "expired" } else { "denied" })
        }
        Event::InputAsked { id, .. } => tool(id, "waiting_input"),
        Event::InputGiven { id, .. } => tool(id, "answered"),
        Event::Handoff { to, .. } | Event::AgentFallback { to, .. } => plain(to),
        Event::ChildStarted { agent, .. } => plain(agent),
        Event::ChildWaits { state, .. } | Event::ChildDone { state, .. } => plain(state.name()),
        Event::LimitHit { reason } => plain(reason.name()),
        Event::Escalated { .. } => plain("waiting_human"),
        Event::Paused { .. } => plain("paused"),
        Event::CancelAsked { .. } => plain("cancelled"),
        Event::Guarded { .. } => plain("blocked"),
        Event::UndoDone { error, .. } => plain(error.as_ref().map_or("ok", |it| &it.kind)),
        Event::Ended { state, .. } => {
            let millis = Some(run.worked(at));
            Some(Said { outcome: state.name(), millis, ..Said::default() })
        }
        _ => None,
    }
}

/// What a person has said of a call.
fn decision(event: &Event) -> &'static str {
    match event {
        Event::Approved { args: Some(_), .. } => "edited",
        Event::Approved { .. } => "approved",
        Event::Rejected { expired: true, .. } => "expired",
        _ => "denied",
    }
}

fn of_call<'a>(run: &'a Run, id: &'a str, outcome: &'a str, at: u64) -> Said<'a> {
    let call = run.call(id);
    Said {
        outcome,
        tool: call.map(|call| call.request.tool.as_str()),
        call: Some(id),
        millis: call.and_then(|call| call.began).map(|began| at.saturating_sub(began)),
        ..Said::default()
    }
}

fn seconds(millis: u64) -> f64 {
    Duration::from_millis(millis).as_secs_f64()
}

/// The tool that a person is asked about, and since when.
fn asked<'a>(run: &'a Run, id: &str) -> Option<(&'a str, u64)> {
    let call = run.call(id)?;
    let Stage::Pending { expires_at, .. } = &call.stage else { return None };
    let tool = run.definition.members.values().find_map(|it| it.tool(&call.request.tool))?;
    let patience = tool.approval.as_ref().map_or_else(|| usual_approval().expires, |it| it.expires);
    let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    Some((&tool.name, expires_at.saturating_sub(patience)))
}

/// The rows of the audit trail that go into the store together with entries: one for each action,
/// when it is known what became of it, and one for each word of a person's.
pub(super) fn audits(run: &Run, events: &[Event]) -> Vec<Audit> {
    events.iter().filter_map(|event| audit(run, event)).collect()
}

fn audit(run: &Run, event: &Event) -> Option<Audit> {
    Some(match event {
        Event::Done { id, .. } => acted(run, id, "ok")?,
        // That nobody knew what became of it stands there already.
        Event::Failed { id, .. } if is_unknown(run, id) => return None,
        Event::Failed { id, error, .. } | Event::Refused { id, error } => {
            acted(run, id, &error.kind)?
        }
        Event::Unknown { id } => acted(run, id, "unknown")?,
        Event::UndoDone { id, error } => {
            let undo = run.undoable.iter().find(|undo| undo.id == *id)?;
            let outcome = error.as_ref().map_or("ok", |error| &error.kind);
            let about = json!({"tool": undo.tool, "call": id, "args_sha256": hash(&undo.args),
                "outcome": outcome});
            row(run, &agent(run), "tool.undo", about)
        }
        Event::ApprovalAsked { id, approval, hash, roles, .. } => {
            let about = json!({"approval": approval, "approval_hash": hash, "roles": roles});
            row(run, &agent(run), "approval.asked", with(about, run.call(id)))
        }
        Event::Approved { id, approval, by, args, remember, .. } => {
            let mut about = with(json!({"approval": approval}), run.call(id));
            if *remember {
                about["remember"] = json!("run");
            }
            about["decision"] = json!(decision(event));
            if let Some(args) = args {
                about["edited_args_sha256"] = json!(hash(args));
            }
            row(run, by, "approval.decided", about)
        }
        Event::Rejected { id, approval, by, .. } => {
            let mut about = with(json!({"approval": approval}), run.call(id));
            about["decision"] = json!(decision(event));
            row(run, by, "approval.decided", about)
        }
        Event::Resolved { id, outcome, by, .. } => {
            let about = with(json!({"outcome": outcome}), run.call(id));
            row(run, by, "tool.resolved", about)
        }
        Event::InputGiven { request, by, .. } => {
            row(run, by, "run.input", json!({"request": request}))
        }
        Event::CancelAsked { by, after_step, .. } => {
            row(run, by, "run.cancel", json!({"after_step": after_step}))
        }
        Event::Paused { by } => row(run, by, "run.pause", json!({})),
        Event::Unpaused { by } => row(run, by, "run.resume", json!({})),
        _ => return None,
    })
}

/// What an agent has done, or was kept from. That it has read something is no action.
fn acted(run: &Run, id: &str, outcome: &str) -> Option<Audit> {
    let call = run.call(id).filter(|call| call.request.effect != Effect::Read)?;
    if call.began.is_none()
        && run.definition.members.values().all(|it| it.tool(&call.request.tool).is_none())
    {
        // A client's own tool, or another agent, who has rows of its own.
        return None;
    }
    let child = matches!(call.stage, Stage::Child { .. }).then_some(0);
    let decision = match (call.began.or(child), &call.allowed) {
        (None, _) => "denied",
        (Some(_), Some(_)) if call.edited => "edited",
        (Some(_), Some(_)) => "approved",
        (Some(_), None) => "allowed",
    };
    let about = json!({"decision": decision, "outcome": outcome, "approval": call.approval});
    Some(row(run, &agent(run), "tool.call", with(about, Some(call))))
}

fn is_unknown(run: &Run, id: &str) -> bool {
    run.call(id).is_some_and(Call::is_unknown)
}

/// The same with what was called.
fn with(mut about: Value, call: Option<&Call>) -> Value {
    if let Some(Call { request, .. }) = call {
        about["tool"] = json!(request.tool);
        about["version"] = json!(request.version);
        about["effect"] = json!(request.effect.name());
        about["call"] = json!(request.id);
        about["args_sha256"] = json!(hash(&request.args));
    }
    about
}

fn agent(run: &Run) -> String {
    format!("agent:{}", run.active)
}

fn row(run: &Run, who: &str, what: &str, mut about: Value) -> Audit {
    about["agent"] = json!(run.active);
    about["agent_version"] = json!(run.created.version);
    about["key"] = run.created.caller.get("key").cloned().unwrap_or_default();
    about["user"] = json!(run.created.user);
    Audit {
        at: SystemTime::now(),
        who: who.to_owned(),
        what: what.to_owned(),
        subject: format!("run:{}", run.id),
        before: None,
        after: Some(about.to_string()),
    }
}

/// Of arguments, in whatever order they stand.
fn hash(args: &Value) -> String {
    hex(&Sha256::digest(canonical(args).as_bytes()))
}
