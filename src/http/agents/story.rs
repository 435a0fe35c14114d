//! What a journal comes to for a reader: what a run waits for, what it has said, and its steps one
//! by one.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::views::{self, text, time, usd};
use crate::agent::definition::Definition;
use crate::agent::event::{ASIDE, Asking, Event, Requested, Source, Spent};
use crate::canon::{Content, Part, Role, RunId, StopReason};
use crate::store::runs::EventRow;

/// The journal of a run, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct Story {
    steps: Vec<Map<String, Value>>,
    /// Where the step of a call stands, by its id, and that of a model's call, by its number.
    calls: BTreeMap<String, usize>,
    models: BTreeMap<u32, usize>,
    began: BTreeMap<usize, u64>,
    inputs: BTreeMap<String, Value>,
    unknown: BTreeMap<String, Value>,
    degraded: BTreeSet<String>,
    /// Who had the conversation besides the first.
    agents: BTreeSet<String>,
    /// What those have used that it has begun.
    below: BTreeMap<RunId, Spent>,
    /// What of it is another run's.
    source: Option<Box<Source>>,
    /// What its user has asked, until a model is.
    input: Option<String>,
    answer: Option<String>,
    escalated: Option<String>,
    end: Option<Value>,
    feedback: Vec<Value>,
}

impl Story {
    pub(super) fn of(rows: &[EventRow]) -> Self {
        let mut story = Self::default();
        for row in rows {
            // What a later version has written is left out, and not the rest with it.
            if let Ok(event) = serde_json::from_str::<Event>(&row.data) {
                story.take(row, event);
            }
            if story.source.as_ref().is_some_and(|source| source.entries + 1 == row.seq) {
                // Others have used that for the other one.
                story.below.clear();
            }
        }
        story
    }

    pub(super) fn steps(self) -> Vec<Value> {
        self.steps.into_iter().map(Value::Object).collect()
    }

    /// What people must do before it goes on, besides the approvals.
    pub(super) fn pending(&self) -> Value {
        json!({
            "inputs": self.inputs.values().collect::<Vec<_>>(),
            "unknown_outcomes": self.unknown.values().collect::<Vec<_>>(),
            "escalated": self.escalated,
        })
    }

    /// What those have used that it has begun, as its journal knows it.
    pub(super) fn spent_below(&self) -> Spent {
        self.below.values().fold(Spent::default(), |mut all, below| {
            all += *below;
            all
        })
    }

    /// Which run it was made of, and what had been spent there.
    pub(super) fn source(&self) -> Value {
        self.source.as_deref().map_or(Value::Null, views::source)
    }

    /// What it has said last, and how it ended.
    pub(super) fn result(&self, definition: &Definition) -> Value {
        let given_to = self.agents.iter().filter_map(|agent| definition.member(agent));
        let members = given_to.chain(definition.root());
        let mut degraded = self.degraded.clone();
        degraded.extend(members.flat_map(|member| member.missing.iter().cloned()));
        json!({"text": self.answer, "end": self.end, "feedback": self.feedback,
            "degraded_tools": degraded})
    }

    fn take(&mut self, row: &EventRow, event: Event) {
        match event {
            Event::Created(created) => {
                let user = created.messages.iter().rfind(|it| it.role == Role::User);
                self.input = user.map(crate::canon::Message::text);
                self.source = created.source;
            }
            Event::Started { asks: Some(asking), .. } | Event::Asked(asking) => {
                self.asks(row, &asking);
            }
            Event::Answered { .. } | Event::AskFailed { .. } => self.answered(row, event),
            Event::Requested(request) => self.requested(row, &request),
            Event::InputAsked { .. } | Event::InputGiven { .. } => self.asked(event),
            Event::Escalated { reason, .. } => self.escalated = Some(reason),
            Event::Unpaused { .. } => self.escalated = None,
            Event::Compacted { through, cost, .. } => {
                let open = self.models.remove(&ASIDE);
                let place = open.unwrap_or_else(|| self.step(row, "compaction"));
                self.over(place, row.at);
                let (through, cost) = (json!(through), json!(cost.map(usd)));
                let state = ("state", json!("completed"));
                self.set(place, [state, ("through", through), ("cost_usd", cost)]);
            }
            Event::Planned { steps, cost, .. } => {
                // None is open where nobody could be asked for one.
                let open = self.models.remove(&ASIDE);
                let place = open.unwrap_or_else(|| self.step(row, "plan"));
                self.over(place, row.at);
                let (steps, cost) = (json!(steps), json!(cost.map(usd)));
                let state = ("state", json!("completed"));
                self.set(place, [state, ("steps", steps), ("cost_usd", cost)]);
            }
            Event::Handoff { from, to, .. } | Event::AgentFallback { from, to } => {
                let place = self.step(row, "handoff");
                self.set(place, [("from", json!(from)), ("to", json!(to))]);
                self.agents.insert(to);
            }
            Event::LimitHit { reason } => {
                let place = self.step(row, "limit");
                self.set(place, [("reason", json!(reason.name()))]);
            }
            Event::Ended { state, reason, message, degraded, at } => {
                if reason == Some(StopReason::InvalidOutput) {
                    self.answer = None;
                }
                let reason = reason.map(StopReason::name);
                self.end = Some(json!({"state": state.name(), "stop_reason": reason,
                    "message": message, "degraded": degraded, "at": time(at)}));
                (self.escalated, self.inputs) = (None, BTreeMap::new());
                // What became of these is said of their letters.
                self.unknown.clear();
            }
            Event::Feedback { score, label, comment, by } => self
                .feedback
                .push(json!({"score": score, "label": label, "comment": comment, "by": by})),
            other => self.went(row, other),
        }
    }

    fn asks(&mut self, row: &EventRow, Asking { call, model, summary, .. }: &Asking) {
        let kind = match (*call, summary) {
            (ASIDE, true) => "compaction",
            (ASIDE, false) => "plan",
            _ => "model",
        };
        let place = self.step(row, kind);
        // What comes later is the results of the steps between.
        if let Some(input) = self.input.take_if(|_| *call != ASIDE) {
            self.set(place, [("input", json!(input))]);
        }
        self.models.insert(*call, place);
        self.begin(place, row.at);
        self.set(place, [("call", json!(call)), ("model", json!(model))]);
    }

    /// A model has answered, or has not.
    fn answered(&mut self, row: &EventRow, event: Event) {
        let (Event::Answered { call, .. } | Event::AskFailed { call, .. }) = &event else { return };
        let Some(place) = self.models.remove(call) else { return };
        self.over(place, row.at);
        match event {
            Event::Answered { parts, usage, cost, provider, model, cached, .. } => {
                let said = text(&parts);
                let fields = [
                    ("state", json!("completed")),
                    ("provider", json!(provider)),
                    ("answered_by", json!(model)),
                    ("text", json!(said)),
                    ("tool_calls", calls(&parts)),
                    ("input_tokens", json!(usage.input_total())),
                    ("output_tokens", json!(usage.output)),
                    ("cost_usd", json!(cost.map(usd))),
                    ("cached", json!(cached)),
                ];
                self.set(place, fields);
                if !said.is_empty() {
                    self.answer = Some(said);
                }
            }
            Event::AskFailed { code, message, cost, .. } => {
                let error = json!({"code": code, "message": message});
                let fields = [
                    ("state", json!("failed")),
                    ("error", error),
                    ("cost_usd", json!(cost.map(usd))),
                ];
                self.set(place, fields);
            }
            _ => {}
        }
    }

    fn requested(&mut self, row: &EventRow, request: &Requested) {
        let place = self.step(row, "tool");
        self.calls.insert(request.id.clone(), place);
        let fields = [
            ("state", json!("requested")),
            ("call_id", json!(request.id)),
            ("tool", json!(request.tool)),
            ("tool_version", json!(request.version)),
            ("effect", json!(request.effect.name())),
            ("by", json!(request.doer)),
            ("args", request.args.clone()),
        ];
        self.set(place, fields);
    }

    fn asked(&mut self, event: Event) {
        match event {
            Event::InputAsked { request, id, message, schema, expires_at, .. } => {
                let asked = json!({"request_id": request, "call_id": id, "message": message,
                    "schema": schema, "expires_at": time(expires_at)});
                self.of_call(&id, "waiting_input", [("question", json!(message))]);
                self.inputs.insert(request, asked);
            }
            Event::InputGiven { request, id, values, by } => {
                self.inputs.remove(&request);
                self.escalated = None;
                // Of no call, it is a person's who takes over, and can be the answer.
                let answer = values["answer"].as_str().filter(|_| id.is_empty());
                self.answer = answer.map(str::to_owned).or_else(|| self.answer.take());
                self.of_call(&id, "answered", [("answered_by", json!(by))]);
            }
            _ => {}
        }
    }

    /// How a call of a tool goes.
    fn went(&mut self, row: &EventRow, event: Event) {
        match event {
            Event::Refused { id, error } => {
                self.ends(row, &id, "denied", [("error", json!(error))]);
            }
            Event::ApprovalAsked { id, approval, reason, .. } => {
                let asked = json!({"id": approval, "reason": reason});
                self.of_call(&id, "waiting_approval", [("approval", asked)]);
            }
            Event::Approved { id, by, args, .. } => {
                let edited = args.is_some();
                let fields = [("approved_by", json!(by)), ("edited", json!(edited))];
                self.of_call(&id, "approved", fields);
                if let Some(args) = args {
                    self.of_call(&id, "approved", [("args", args)]);
                }
            }
            Event::Rejected { id, by, comment, expired, .. } => {
                let fields = [("denied_by", json!(by)), ("comment", json!(comment))];
                self.ends(row, &id, if expired { "expired" } else { "denied" }, fields);
            }
            Event::Began { id, at } => {
                self.of_call(&id, "running", []);
                if let Some(place) = self.calls.get(&id).copied() {
                    self.begin(place, at);
                }
            }
            Event::Done { id, parts, bytes, blob, cached, attempts, .. } => {
                let fields = [
                    ("result", json!(text(&parts))),
                    ("bytes", json!(bytes)),
                    ("blob", json!(blob)),
                    ("cached", json!(cached)),
                    ("attempts", json!(attempts)),
                ];
                self.ends(row, &id, "completed", fields);
            }
            Event::Failed { id, error, attempts, .. } => {
                let place = self.calls.get(&id).copied().filter(|_| error.degrades());
                let tool = place.and_then(|place| self.steps[place]["tool"].as_str());
                self.degraded.extend(tool.map(str::to_owned));
                let fields = [("error", json!(error)), ("attempts", json!(attempts))];
                self.ends(row, &id, "failed", fields);
            }
            other => self.went_on(row, other),
        }
    }

    fn went_on(&mut self, row: &EventRow, event: Event) {
        match event {
            Event::Unknown { id } => {
                self.of_call(&id, "unknown", []);
                let step = self.calls.get(&id).map(|place| &self.steps[*place]);
                let tool = step.and_then(|step| step.get("tool")).cloned();
                let asked = json!({"seq": row.seq, "call_id": id, "tool": tool});
                self.unknown.insert(id, asked);
            }
            Event::Resolved { id, outcome, by, .. } => {
                self.unknown.remove(&id);
                self.escalated = None;
                let fields = [("outcome", json!(outcome)), ("resolved_by", json!(by))];
                self.ends(row, &id, "resolved", fields);
            }
            Event::ClientResult { id, parts, is_error } => {
                let state = if is_error { "failed" } else { "completed" };
                self.ends(row, &id, state, [("result", json!(text(&parts)))]);
            }
            Event::ChildStarted { id, run, agent } => {
                let fields = [("run_id", json!(run.to_string())), ("agent", json!(agent))];
                self.of_call(&id, "running", fields);
            }
            Event::ChildWaits { run, spent, .. } => {
                self.below.insert(run, spent);
            }
            Event::ChildDone { id, run, state, parts, spent, .. } => {
                self.below.insert(run, spent);
                self.ends(row, &id, state.name(), [("result", json!(text(&parts)))]);
            }
            Event::UndoBegan { id, tool, args, .. } => {
                let place = self.step(row, "compensation");
                self.calls.insert(format!("undo {id}"), place);
                let fields = [("call_id", json!(id)), ("tool", json!(tool)), ("args", args)];
                self.set(place, fields);
            }
            Event::UndoDone { id, error } => {
                let state = if error.is_some() { "failed" } else { "completed" };
                self.ends(row, &format!("undo {id}"), state, [("error", json!(error))]);
            }
            _ => {}
        }
    }

    fn step(&mut self, row: &EventRow, kind: &str) -> usize {
        let fields = json!({"seq": row.seq, "type": kind, "state": "running", "at": time(row.at)});
        if let Value::Object(fields) = fields {
            self.steps.push(fields);
        }
        self.steps.len() - 1
    }

    fn set<const N: usize>(&mut self, place: usize, fields: [(&str, Value); N]) {
        let step = &mut self.steps[place];
        step.extend(fields.map(|(name, value)| (name.to_owned(), value)));
    }

    fn of_call<const N: usize>(&mut self, id: &str, state: &str, fields: [(&str, Value); N]) {
        if let Some(place) = self.calls.get(id).copied() {
            self.set(place, fields);
            self.set(place, [("state", json!(state))]);
        }
    }

    fn ends<const N: usize>(
        &mut self,
        row: &EventRow,
        id: &str,
        state: &str,
        fields: [(&str, Value); N],
    ) {
        self.of_call(id, state, fields);
        if let Some(place) = self.calls.get(id).copied() {
            self.over(place, row.at);
        }
    }

    fn begin(&mut self, place: usize, at: u64) {
        self.began.insert(place, at);
    }

    fn over(&mut self, place: usize, at: u64) {
        if let Some(began) = self.began.get(&place) {
            let millis = at.saturating_sub(*began);
            self.set(place, [("ms", json!(millis))]);
        }
    }
}

/// The calls of tools that an answer makes.
fn calls(parts: &[Part]) -> Value {
    let call = |part: &Part| match &part.content {
        Content::ToolCall(call) => Some(json!({"id": call.id, "name": call.name})),
        _ => None,
    };
    parts.iter().filter_map(call).collect()
}
