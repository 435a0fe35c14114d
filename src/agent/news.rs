//! What others are to know of a run: that a person must do something for it, and how it ended.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::Notify;

use super::event::Event;
use super::journal::now;
use super::run::Run;
use crate::canon::{Money, Part, RunId, RunState, StopReason};
use crate::config::{Config, HookEvent};
use crate::gateway::Gateway;
use crate::store::hex;
use crate::store::runs::NewDelivery;
use crate::tool;

/// Of an answer, so much is told; the rest is read where the run is.
const LONGEST_ANSWER: usize = 16 << 10;

/// Finds in a run's entries what hooks are to be told.
#[derive(Debug, Clone)]
pub(super) struct Herald {
    pub(super) gateway: Arc<Gateway>,
    /// Whoever sends it.
    pub(super) post: Arc<Notify>,
    pub(super) root: RunId,
}

/// Something worth telling; `subject` is the same whenever it is found.
struct News {
    event: HookEvent,
    subject: String,
    data: Value,
}

impl Herald {
    /// What is to be told when these entries come behind those of `run`, which is left in `state`.
    pub(super) fn news(&self, run: &Run, events: &[Event], state: RunState) -> Vec<NewDelivery> {
        let mut found: Vec<News> = Vec::new();
        for (seq, event) in (run.seq + 1..).zip(events) {
            found.extend(self.of(run, seq, event));
        }
        if state == RunState::WaitingHuman {
            let unknown = run.calls.iter().filter(|call| call.is_unknown());
            found.extend(unknown.map(|call| News {
                event: HookEvent::RunEscalated,
                subject: call.request.key.clone(),
                data: json!({
                    "reason": StopReason::UnknownOutcome.name(),
                    "call_id": call.request.id,
                    "tool": call.request.tool,
                    "args": call.request.args,
                }),
            }));
        }
        if found.is_empty() {
            return Vec::new();
        }
        let house = self.gateway.snapshot();
        found.into_iter().flat_map(|news| self.told(&house.config, run, news)).collect()
    }

    pub(super) fn wake(&self) {
        self.post.notify_one();
    }

    fn of(&self, run: &Run, seq: u64, event: &Event) -> Option<News> {
        match event {
            Event::ApprovalAsked { .. } => approval(run, event),
            Event::InputAsked { request, message, schema, expires_at, .. } => Some(News {
                event: HookEvent::InputRequested,
                subject: request.clone(),
                data: json!({
                    "request_id": request,
                    "message": message,
                    "schema": schema,
                    "expires_at": time(*expires_at),
                }),
            }),
            Event::Escalated { reason, id, expires_at } => Some(News {
                event: HookEvent::RunEscalated,
                subject: seq.to_string(),
                data: json!({
                    "reason": reason,
                    "call_id": id,
                    "expires_at": expires_at.map(time),
                }),
            }),
            // Of the runs that it began itself, their root tells.
            Event::Ended { state, reason, message, degraded, .. } if self.root == run.id => {
                let answer: String = run.answer().iter().filter_map(Part::as_text).collect();
                let spent = run.spent();
                Some(News {
                    event: HookEvent::RunEnded,
                    subject: String::new(),
                    data: json!({
                        "state": state.name(),
                        "stop_reason": reason.map(StopReason::name),
                        "message": message,
                        "degraded": degraded | run.degraded,
                        "answer": &answer[..answer.floor_char_boundary(LONGEST_ANSWER)],
                        "steps": run.asks,
                        "tool_calls": spent.tool_calls,
                        "input_tokens": spent.usage.input_total(),
                        "output_tokens": spent.usage.output,
                        "cost_usd": Money::from_nanos(spent.cost).usd(),
                    }),
                })
            }
            _ => None,
        }
    }

    /// To each hook that wants to know it.
    fn told(&self, config: &Config, run: &Run, news: News) -> Vec<NewDelivery> {
        let News { event, subject, mut data } = news;
        let base = config.agent_engine.public_url.as_deref().unwrap_or_default();
        let base = base.trim_end_matches('/');
        if event == HookEvent::ApprovalRequested {
            data["decision_url"] = format!("{base}/v1/agents/approvals/{subject}").into();
        }
        data["run"] = json!({
            "id": run.id.to_string(),
            "root": self.root.to_string(),
            "agent": run.created.agent,
            "version": run.created.version,
            "user": run.created.user,
            "session_id": run.created.session,
            "labels": run.created.labels,
            "url": format!("{base}/v1/agents/runs/{}", run.id),
        });
        let wants = config.hooks.iter().filter(|(_, hook)| hook.events.contains(&event));
        let mut hooks: Vec<&str> = wants.map(|(name, _)| name.as_str()).collect();
        let own = run.created.webhook.as_deref().filter(|own| !hooks.contains(own));
        hooks.extend(own);
        let delivery = |hook: &str| {
            let once = format!("{}\n{}\n{subject}\n{hook}", run.id, event.name());
            let id = format!("msg_{}", &hex(&Sha256::digest(once))[..32]);
            let body = json!({
                "id": id,
                "type": event.name(),
                "timestamp": time(now()),
                "data": data,
            });
            NewDelivery { id, hook: hook.to_owned(), body: body.to_string() }
        };
        hooks.into_iter().map(delivery).collect()
    }
}

fn approval(run: &Run, event: &Event) -> Option<News> {
    let Event::ApprovalAsked { id, approval, hash, roles, reason, expires_at } = event else {
        return None;
    };
    let request = &run.call(id)?.request;
    let definition = run.member().and_then(|member| member.tool(&request.tool));
    let is_risky = definition.is_some_and(|definition| definition.high_risk);
    // In the order in which the digest has them.
    let args: Value = serde_json::from_str(&tool::canonical(&request.args)).ok()?;
    let data = json!({
        "approval_id": approval,
        "call_id": id,
        "tool": request.tool,
        "tool_version": request.version,
        "effect": request.effect.name(),
        "risk": if is_risky { "high" } else { "normal" },
        "args": args,
        "args_hash": hash,
        "roles": roles,
        "reason": reason,
        "expires_at": time(*expires_at),
    });
    Some(News { event: HookEvent::ApprovalRequested, subject: approval.clone(), data })
}

fn time(millis: u64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(millis);
    humantime::format_rfc3339_seconds(time).to_string()
}
