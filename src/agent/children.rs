//! Agents that a run asks or gives the conversation to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::act::{bare, refusal};
use super::actor::{Actor, Live, Rest, until};
use super::archive::Loaded;
use super::budget::Used;
use super::definition::{Definition, HANDOFF};
use super::event::{CallError, Ceiling, Created, Event, Requested, Trigger, Wishes};
use super::journal::{Halt, entry, now};
use super::run::{Run, Stage, result_of};
use super::staff::Staff;
use super::trace::written;
use crate::canon::{Message, Part, Role, RunId, RunState, StopReason};
use crate::config::{AGENT_TIMEOUT, HandoffInput};
use crate::store::Failure;
use crate::store::runs::{ApprovalFilter, ApprovalRow, Begun, NewRun, RunRow};

/// Of what the runs below one ask people, so much is shown.
const MOST_ASKED: u32 = 100;

impl Actor {
    pub(super) async fn hand_off(&self, request: &Requested) -> Result<(), Halt> {
        let to = request.alias.strip_prefix(HANDOFF).unwrap_or_default().to_owned();
        let run = self.journal.run().await;
        let (from, handoffs) = (run.active.clone(), run.handoffs);
        // Several in one turn cannot all have it.
        let earlier = run
            .calls
            .iter()
            .any(|call| call.request.number < request.number && call.request.doer == request.doer);
        let input = run.definition.member(&to).map(|member| member.handoff_input);
        let results = last_results(&run);
        drop(run);
        let refused = |kind: &str, text: &str| {
            let (id, error) = (request.id.clone(), CallError::new(kind, text));
            Event::Refused { id, error }
        };
        if earlier {
            let refused = refused("conflict", "The conversation was given to another one already.");
            return self.journal.append(vec![refused]).await;
        }
        if handoffs >= self.definition.max_handoffs {
            let text = "The conversation was handed over too often.";
            self.journal.append(vec![refused("limit_exceeded", text)]).await?;
            return self.hit(StopReason::MaxHandoffs).await;
        }
        let reason = request.args.get("reason").and_then(Value::as_str).unwrap_or_default();
        let summary = match input.unwrap_or_default() {
            HandoffInput::Full => None,
            HandoffInput::Summary => Some(format!("{reason}{results}")),
            HandoffInput::Last => Some(reason.to_owned()),
            HandoffInput::None => Some(String::new()),
        };
        self.live.voice.aside(format!("handoff {from} to {to}"));
        let id = request.id.clone();
        self.journal.append(vec![Event::Handoff { id, from, to, summary }]).await
    }

    /// Has another agent do a piece of work, as often as the limits of the tool allow.
    pub(super) async fn has_done(&self, request: &Requested) -> Result<(), Halt> {
        if let Some(tool) = self.staff.toolbox().get(&request.tool) {
            let run = self.journal.run().await;
            let user = self.whose(run.created.user.as_deref());
            let until = until(&run, self.definition.limits.timeout);
            drop(run);
            if let Err(failure) = tool.takes_turn(Some(&user), until).await {
                self.counts_call(&request.tool, failure.kind.name(), None);
                return self.failed(request, (refusal(&failure), 0), None).await;
            }
        }
        self.delegate(request).await
    }

    /// The run of its own by which it does that.
    pub(super) async fn delegate(&self, request: &Requested) -> Result<(), Halt> {
        let (name, args) = self.task(request).await;
        let name = name.as_str();
        if self.depth + 1 >= self.definition.max_depth {
            let text = "Agents may not ask agents any deeper.";
            return self.refuse_delegate(request, "max_depth", text).await;
        }
        let house = self.staff.gateway.snapshot();
        let Some(agent) = house.config.agents.get(name) else {
            return self.refuse_delegate(request, "unknown_tool", "There is no such agent.").await;
        };
        let version = agent.version.clone();
        let known = (&house.config, &*house.toolbox);
        let definition = match Definition::resolve(known, name, &version) {
            Ok(definition) => Arc::new(definition),
            Err(why) => return self.refuse_delegate(request, "unavailable", &why).await,
        };
        let digest = Sha256::digest(format!("{}\n{}", self.journal.id, request.key));
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        let id = self.journal.id.child(bytes);
        let task = (request.tool.as_str(), args);
        let child = self.begin_child((id, name), definition, task).await?;
        let run = self.journal.run().await;
        let is_known =
            matches!(run.call(&request.id).map(|call| &call.stage), Some(Stage::Child { .. }));
        drop(run);
        if !is_known {
            let (call, agent) = (request.id.clone(), name.to_owned());
            self.journal.intend(vec![Event::ChildStarted { id: call, run: id, agent }]).await?;
        }
        self.live.voice.aside(format!("delegate {name}"));
        match child {
            Some(child) => self.follow_child(&request.id, child).await,
            // It is looked for again as soon as there is nothing else to do.
            None => Ok(()),
        }
    }

    /// Which agent is wanted, and for what.
    async fn task(&self, request: &Requested) -> (String, String) {
        let run = self.journal.run().await;
        let tool = run.member().and_then(|member| member.tool(&request.tool));
        let name = tool.and_then(|tool| tool.agent.clone()).unwrap_or_default();
        let field = run.member().and_then(|it| it.confidence.as_ref()).map(|it| it.field.clone());
        drop(run);
        let args = match self.staff.toolbox().get(&request.tool) {
            Some(tool) => bare(&request.args, field.as_deref(), &tool),
            None => request.args.clone(),
        };
        let input = match args.as_object().filter(|args| args.len() == 1) {
            Some(args) => args.get("input").and_then(Value::as_str).map(str::to_owned),
            None => None,
        };
        (name, input.unwrap_or_else(|| args.to_string()))
    }

    /// How long the run of an agent may work, where its tool says so.
    fn time_of(&self, tool: &str) -> Option<Ceiling> {
        let time = self.staff.toolbox().get(tool)?.terms.timeout;
        let seconds = Some(time.as_secs().max(1)).filter(|_| time < AGENT_TIMEOUT);
        seconds.map(|_| Ceiling { seconds, ..Ceiling::default() })
    }

    async fn refuse_delegate(
        &self,
        request: &Requested,
        kind: &str,
        text: &str,
    ) -> Result<(), Halt> {
        let (id, error) = (request.id.clone(), CallError::new(kind, text));
        self.journal.append(vec![Event::Refused { id, error }]).await
    }

    /// The run of a child, new or as it was left; `None` where it is over or another process has it.
    async fn begin_child(
        &self,
        (id, name): (RunId, &str),
        definition: Arc<Definition>,
        (tool, input): (&str, String),
    ) -> Result<Option<Actor>, Halt> {
        let (body, hash) = definition.written();
        let store = self.staff.gateway.store();
        let failed = |failure: crate::store::Failure| Halt::Store(failure.to_string());
        store.put_definition(&hash, body).await.map_err(failed)?;
        let run = self.journal.run().await;
        let created = Created {
            agent: name.to_owned(),
            version: definition.version.clone(),
            definition: hash.clone(),
            previous: None,
            messages: vec![Message::new(Role::User, vec![Part::text(input)])],
            client_tools: Vec::new(),
            wishes: Wishes { background: true, ..Wishes::default() },
            caller: run.created.caller.clone(),
            user: run.created.user.clone(),
            session: None,
            depth: self.depth + 1,
            budget: self.time_of(tool),
            replay_of: None,
            effects: false,
            compensates: false,
            blocked: None,
            forked_from: None,
            labels: BTreeMap::new(),
            trace: Some(written(&self.staff.trace(&run).below(run.span()))),
            baggage: run.created.baggage.clone(),
            webhook: None,
            trigger: Trigger::Agent,
            at: now(),
        };
        drop(run);
        let new = NewRun {
            id,
            root: self.live.root,
            parent: Some(self.journal.id),
            agent: name.to_owned(),
            version: created.version.clone(),
            definition: hash,
            owner: self.live.owner.clone(),
            key: self.caller.key().to_string(),
            user: created.user.clone(),
            session: None,
            head: None,
            idempotency: None,
            trigger: Trigger::Agent.name().to_owned(),
            labels: BTreeMap::new(),
            state: RunState::Running,
            events: vec![entry(&Event::Created(Box::new(created)))],
            told: Vec::new(),
            lease: self.staff.lease(),
        };
        match store.begin_run(new).await.map_err(failed)? {
            // Its lease came with it.
            Begun::New { .. } => self.staff.new_child(self, id).await,
            Begun::Known(_) => self.staff.child(self, id).await,
            Begun::Conflict | Begun::Overtaken => Ok(None),
        }
    }

    /// Works at a child until it is over or waits.
    async fn follow_child(&self, call: &str, child: Actor) -> Result<(), Halt> {
        let id = child.journal.id;
        let rest = child.drive_on().await;
        self.staff.forget(&child.live);
        match rest? {
            Rest::Waits(_, until) => {
                self.wakes.fetch_min(until.unwrap_or(u64::MAX), Ordering::AcqRel);
                Ok(())
            }
            Rest::Over(_) => {
                let run = child.journal.run().await;
                let done = reported(call, id, &run);
                drop(run);
                self.takes_report(call, done).await
            }
        }
    }

    async fn takes_report(&self, call: &str, report: Event) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let tool = run.call(call).map(|call| call.request.tool.clone());
        drop(run);
        let is_done = matches!(&report, Event::ChildDone { state: RunState::Completed, .. });
        if let Some(tool) = tool {
            self.counts_call(&tool, if is_done { "ok" } else { "error" }, None);
        }
        self.journal.append(vec![report]).await
    }

    /// Ends what was begun by these calls: nobody is left to hear of it.
    pub(super) async fn end_children(&self, reason: &str) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let children: Vec<RunId> = run.calls.iter().filter_map(|call| child(&call.stage)).collect();
        drop(run);
        for id in children {
            let left = self.staff.leave(id).await;
            left.map_err(|failure| Halt::Store(failure.to_string()))?;
            let Some(child) = self.staff.child(self, id).await? else { continue };
            let (by, reason) = (self.journal.id.to_string(), Some(reason.to_owned()));
            let asked = Event::CancelAsked { by, reason, after_step: false };
            child.journal.append(vec![asked]).await?;
            let rest = child.drive_on().await;
            self.staff.forget(&child.live);
            rest?;
        }
        Ok(())
    }

    /// A child that cannot be worked at: it is over, or somebody has not let go of it yet.
    async fn look_for(&self, call: &str, id: RunId) -> Result<(), Halt> {
        let row = self.staff.gateway.store().run(None, id).await;
        let row = row.map_err(|failure| Halt::Store(failure.to_string()))?;
        match row {
            Some(row) if row.state.is_over() => {
                let run = self.staff.load(&row).await?.run;
                self.takes_report(call, reported(call, id, &run)).await
            }
            _ => {
                let soon = now().saturating_add(self.staff.lease());
                self.wakes.fetch_min(soon, Ordering::AcqRel);
                Ok(())
            }
        }
    }

    pub(super) async fn has_children(&self) -> bool {
        let run = self.journal.run().await;
        run.calls.iter().any(|call| matches!(call.stage, Stage::Child { .. }))
    }

    /// Goes on with the children that were left waiting.
    pub(super) async fn look_after_children(&self) -> Result<(), Halt> {
        let run = self.journal.run().await;
        let children: Vec<(String, RunId)> = run
            .calls
            .iter()
            .filter_map(|call| Some((call.request.id.clone(), child(&call.stage)?)))
            .collect();
        drop(run);
        self.wakes.store(u64::MAX, Ordering::Release);
        for (call, id) in children {
            match self.staff.child(self, id).await? {
                Some(child) => self.follow_child(&call, child).await?,
                None => self.look_for(&call, id).await?,
            }
        }
        Ok(())
    }
}

impl Staff {
    /// Whoever works at a child that has just begun, with the lease that it began with.
    pub(super) async fn new_child(
        self: &Arc<Self>,
        parent: &Actor,
        id: RunId,
    ) -> Result<Option<Actor>, Halt> {
        let failed = |failure: Failure| Halt::Store(failure.to_string());
        match self.gateway.store().run(None, id).await.map_err(failed)? {
            Some(row) => self.child_of(parent, row, Used::default()).await.map(Some),
            None => Ok(None),
        }
    }

    /// Whoever works at a child of a run; `None` where that is over or somebody else's.
    pub(super) async fn child(
        self: &Arc<Self>,
        parent: &Actor,
        id: RunId,
    ) -> Result<Option<Actor>, Halt> {
        let store = self.gateway.store();
        let failed = |failure: Failure| Halt::Store(failure.to_string());
        let Some(row) = store.claim_run(id, self.lease()).await.map_err(failed)? else {
            return Ok(None);
        };
        let used = self.used_before(&row).await;
        self.child_of(parent, row, used).await.map(Some)
    }

    /// Those above have counted what it has used, when they used it or as they were loaded.
    async fn child_of(
        self: &Arc<Self>,
        parent: &Actor,
        row: RunRow,
        used: Used,
    ) -> Result<Actor, Halt> {
        let Loaded { run, last_at } = self.load(&row).await?;
        let who = (&row, parent.caller.clone());
        let above = Some(Arc::clone(&parent.purse));
        self.actor((run, last_at), who, (used, above), None).await
    }

    /// What people are asked by the runs below this one.
    pub(super) async fn asked_below(&self, live: &Live) -> Vec<ApprovalRow> {
        let (root, state) = (Some(live.root), Some("pending".to_owned()));
        let filter = ApprovalFilter { state, root, ..ApprovalFilter::default() };
        let mut pending =
            self.gateway.store().approvals(filter, MOST_ASKED).await.unwrap_or_default();
        pending.retain(|row| row.run != live.id);
        pending
    }
}

/// What came of a child that is over.
fn reported(call: &str, id: RunId, run: &Run) -> Event {
    let mut parts = run.answer();
    if parts.is_empty() {
        let why = run.message.clone().unwrap_or_else(|| run.state.name().to_owned());
        parts = vec![Part::text(CallError::new("agent_failed", why).text())];
    }
    let (state, degraded) = (run.state, run.degraded);
    Event::ChildDone { id: call.to_owned(), run: id, state, parts, degraded }
}

fn child(stage: &Stage) -> Option<RunId> {
    match stage {
        Stage::Child { run } => Some(*run),
        _ => None,
    }
}

/// What was found out last, for an agent that takes over.
fn last_results(run: &Run) -> String {
    const MOST: usize = 3;
    const LONGEST: usize = 500;
    let own = run.transcript.iter().skip(run.earlier);
    let results: Vec<_> = own.filter_map(result_of).filter(|result| !result.is_error).collect();
    let shown = results.iter().skip(results.len().saturating_sub(MOST)).map(|result| {
        let text: String = result.parts.iter().filter_map(Part::as_text).collect();
        let end = text.floor_char_boundary(LONGEST);
        format!("\n[{} gave] {}", result.name.as_deref().unwrap_or("a tool"), &text[..end])
    });
    shown.collect()
}
