//! Agents that a run asks or gives the conversation to.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::act::{bare, refusal};
use super::actor::{Above, Actor, Rest, until};
use super::admit::drawn;
use super::archive::Loaded;
use super::budget::Used;
use super::definition::{Definition, HANDOFF};
use super::event::{CallError, Ceiling, Created, Event, Requested, Spent, Trigger, Wishes};
use super::journal::{Beside, Halt, Journal, entry, now};
use super::run::{Call, Run, Stage, result_of};
use super::staff::Staff;
use super::trace::written;
use crate::access::CallerRef;
use crate::canon::{Message, Part, Role, RunId, RunState, StopReason, Usage};
use crate::config::{AGENT_TIMEOUT, HandoffInput};
use crate::error::{Error, Kind, retry_after_seconds};
use crate::store::Failure;
use crate::store::runs::{Begun, NewRun, RunRow};

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
    pub(super) async fn delegate_within_limits(&self, request: &Requested) -> Result<(), Halt> {
        if let Some(tool) = self.staff.toolbox().get(&request.tool) {
            let run = self.journal.run().await;
            let user = CallerRef::of(&self.caller).person(run.created.user.as_deref());
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
        let id = child_id(self.journal.id, &request.key);
        let (name, args) = self.task(request).await;
        let known = self.staff.gateway.store().run(None, id).await.map_err(stored)?;
        let child = if known.is_some() {
            self.staff.child(self, id).await?
        } else {
            match self.may_have(&name).await {
                Ok(definition) => {
                    let task = (request.tool.as_str(), args);
                    self.begin_child(id, &name, definition, task).await?
                }
                Err(error) => return self.refuse(request, error, None).await,
            }
        };
        let run = self.journal.run().await;
        let is_known =
            matches!(run.call(&request.id).map(|call| &call.stage), Some(Stage::Child { .. }));
        drop(run);
        if !is_known {
            let (call, agent) = (request.id.clone(), name.clone());
            self.journal.intend(vec![Event::ChildStarted { id: call, run: id, agent }]).await?;
        }
        self.live.voice.aside(format!("delegate {name}"));
        match child {
            Some(child) => self.follow_child(&request.id, child).await,
            None => self.look_for(&request.id, id).await,
        }
    }

    /// As what another agent is begun now, if it may be.
    async fn may_have(&self, name: &str) -> Result<Arc<Definition>, CallError> {
        if self.depth + 1 >= self.definition.max_depth {
            let text = "Agents may not ask agents any deeper.";
            return Err(CallError::new("max_depth", text));
        }
        let definition = Arc::new(self.now_defined(name)?);
        if self.staff.is_paused(name) {
            let text = format!("The agent `{name}` is paused.");
            return Err(CallError::new("unavailable", text));
        }
        let user = self.journal.run().await.created.user.clone();
        let whose = (&self.live.owner, user.as_deref());
        let admitted = self.staff.admits(whose, &definition).await;
        admitted.map_err(|error| not_begun(&error)).map(|()| definition)
    }

    /// An agent as config and tools are now, in the version that is drawn for the tree.
    fn now_defined(&self, name: &str) -> Result<Definition, CallError> {
        let house = self.staff.gateway.snapshot();
        let Some(agent) = house.config.agents.get(name) else {
            return Err(CallError::new("unknown_tool", "There is no such agent."));
        };
        let sticky = &*self.live.sticky;
        let version = drawn(name, agent, sticky);
        let known = (&house.config, &*house.toolbox);
        Definition::resolve(known, name, &version, Some(sticky))
            .map_err(|why| CallError::new("unavailable", why))
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

    /// The run of a child, new or as it was left; `None` where it is over or another process has it.
    async fn begin_child(
        &self,
        id: RunId,
        name: &str,
        definition: Arc<Definition>,
        (tool, input): (&str, String),
    ) -> Result<Option<Actor>, Halt> {
        let (body, hash) = definition.written();
        let store = self.staff.gateway.store();
        store.put_definition(&hash, body).await.map_err(stored)?;
        let run = self.journal.run().await;
        let created = Created {
            agent: name.to_owned(),
            version: definition.version.clone(),
            definition: hash.clone(),
            previous: None,
            messages: vec![Message::new(Role::User, vec![Part::text(input)])],
            client_tools: Vec::new(),
            // Whoever waits for this one waits for that one, too.
            wishes: Wishes { background: run.created.wishes.background, ..Wishes::default() },
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
            source: None,
            labels: run.created.labels.clone(),
            headers: run.created.headers.clone(),
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
        match store.begin_run(new).await.map_err(stored)? {
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
            Rest::Waits(state, until) => {
                self.wakes.fetch_min(until.unwrap_or(u64::MAX), Ordering::AcqRel);
                let spent = child.journal.run().await.spent();
                if self.journal.run().await.below.get(&id) == Some(&spent) {
                    return Ok(());
                }
                let waits = Event::ChildWaits { id: call.to_owned(), run: id, state, spent };
                self.journal.append(vec![waits]).await
            }
            Rest::Over(_) => {
                let done = reported(call, &*child.journal.run().await);
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
        let of_call = |call: &Call| Some((call.request.id.clone(), child(&call.stage)?));
        let children: Vec<(String, RunId)> = run.calls.iter().filter_map(of_call).collect();
        drop(run);
        for (call, id) in children {
            self.staff.leave(id).await.map_err(stored)?;
            let Some(child) = self.staff.child(self, id).await? else {
                self.look_for(&call, id).await?;
                continue;
            };
            let by = self.journal.id.to_string();
            let why = Some(reason.to_owned());
            let asked = Event::CancelAsked { by, reason: why, after_step: false };
            child.journal.append(vec![asked]).await?;
            let rest = child.drive_on().await;
            self.staff.forget(&child.live);
            rest?;
            let mut report = reported(&call, &*child.journal.run().await);
            if let Event::ChildDone { parts, state: RunState::Cancelled, .. } = &mut report {
                *parts = vec![Part::text(CallError::new("cancelled", reason).text())];
            }
            self.takes_report(&call, report).await?;
        }
        Ok(())
    }

    /// A child that cannot be worked at: it is over, somebody has not let go of it yet, or there is
    /// none, since what it was to go on with is not kept any more.
    async fn look_for(&self, call: &str, id: RunId) -> Result<(), Halt> {
        let row = self.staff.gateway.store().run(None, id).await;
        match row.map_err(stored)? {
            Some(row) if row.state.is_over() => {
                let run = self.staff.load(&row).await?.run;
                self.takes_report(call, reported(call, &run)).await
            }
            None => self.takes_report(call, gone(call, id)).await,
            Some(_) => {
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

    /// The calls whose children are to be looked after, unless they all were: they waited, or
    /// another process was at work at them.
    pub(super) async fn left_children(&self, looked_after: bool) -> Vec<String> {
        if looked_after {
            return Vec::new();
        }
        let run = self.journal.run().await;
        let left = run.calls.iter().filter(|call| child(&call.stage).is_some());
        let left: Vec<String> = left.map(|call| call.request.id.clone()).collect();
        drop(run);
        self.wakes.store(u64::MAX, Ordering::Release);
        left
    }

    /// Goes on with a child that was left.
    pub(super) async fn look_after(&self, call: &str, id: RunId) -> Result<(), Halt> {
        let child = match self.staff.child(self, id).await? {
            Some(child) => Some(child),
            None => self.carry_on(call, id).await?,
        };
        match child {
            Some(child) => self.follow_child(call, child).await,
            None => self.look_for(call, id).await,
        }
    }

    /// In a run that goes on with one that was given up: begins what goes on with a child of that
    /// one, which was given up with it.
    async fn carry_on(&self, call: &str, id: RunId) -> Result<Option<Actor>, Halt> {
        let run = self.journal.run().await;
        let key = run.call(call).map(|call| call.request.key.clone());
        let of = run.created.forked_from.filter(|_| run.created.trigger == Trigger::Retry);
        let trace = written(&self.staff.trace(&run).below(run.span()));
        drop(run);
        let own = |key: &String| child_id(self.journal.id, key) == id;
        let Some((key, (of, _))) = key.filter(own).zip(of) else { return Ok(None) };
        let former = self.staff.given_up(of, &key).await?;
        let store = self.staff.gateway.store();
        let is_known = store.run(None, id).await.map_err(stored)?.is_some();
        let Some(former) = former.filter(|_| !is_known) else { return Ok(None) };
        let new = self.staff.retried(&self.caller, &former, id, Some(trace)).await;
        // What it says of itself is our own.
        let new = new.map_err(|error| Halt::Store(error.message.to_string()))?;
        let (root, parent, state) = (self.live.root, Some(self.journal.id), RunState::Running);
        let new = NewRun { root, parent, state, ..new };
        match store.begin_run(new).await.map_err(stored)? {
            Begun::New { .. } => self.staff.new_child(self, id).await,
            Begun::Known(_) => self.staff.child(self, id).await,
            Begun::Conflict | Begun::Overtaken => Ok(None),
        }
    }
}

impl Staff {
    /// Whoever works at a child that has just begun, with the lease that it began with.
    pub(super) async fn new_child(
        self: &Arc<Self>,
        parent: &Actor,
        id: RunId,
    ) -> Result<Option<Actor>, Halt> {
        match self.gateway.store().run(None, id).await.map_err(stored)? {
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
        let Some(row) = store.claim_run(id, self.lease()).await.map_err(stored)? else {
            return Ok(None);
        };
        let used = self.used_before(&row, Spent::default()).await;
        self.child_of(parent, row, used).await.map(Some)
    }

    /// Those above have counted what it has used, when they used it or as they were loaded.
    async fn child_of(
        self: &Arc<Self>,
        parent: &Actor,
        row: RunRow,
        mut used: Used,
    ) -> Result<Actor, Halt> {
        let Loaded { run, last_at } = self.load(&row).await?;
        if run.created.trigger == Trigger::Retry {
            used.take_over(run.spent_before());
        }
        let who = (&row, parent.caller.clone());
        let above = Above { purse: Arc::clone(&parent.purse), live: Arc::clone(&parent.live) };
        self.actor((run, last_at), who, used, Some(above), None).await
    }

    /// Ends all that a run has begun and that is not over: nobody goes on with it. Gives what the
    /// run is to know of what they have used.
    pub(super) async fn end_below(
        &self,
        run: &Run,
        root: RunId,
        why: &str,
    ) -> Result<Vec<Event>, Halt> {
        let store = self.gateway.store();
        let mut used = Vec::new();
        for (call, id) in run.calls.iter().filter_map(|call| Some((call, child(&call.stage)?))) {
            match store.claim_run(id, self.lease()).await.map_err(stored)? {
                Some(row) => Box::pin(self.end_one(row, run.id, root, why)).await?,
                None => self.must_be_over(id).await?,
            }
            if let Some(row) = store.run(None, id).await.map_err(stored)? {
                let spent = self.spent_by_all(&row).await?;
                let (id, run, state) = (call.request.id.clone(), row.id, row.state);
                used.push(Event::ChildWaits { id, run, state, spent });
            }
        }
        Ok(used)
    }

    async fn end_one(&self, row: RunRow, above: RunId, root: RunId, why: &str) -> Result<(), Halt> {
        let run = self.load(&row).await?.run;
        let mut events = self.end_below(&run, root, why).await?;
        let reason = Some(why.to_owned());
        let asked =
            Event::CancelAsked { by: above.to_string(), reason: reason.clone(), after_step: false };
        let (state, at) = (RunState::Cancelled, now());
        let ended = Event::Ended { state, reason: None, message: reason, degraded: false, at };
        events.extend([asked, ended]);
        let journal = Journal::new(self.means(), run, row.epoch, true);
        let _ = journal.herald.set(self.herald(root));
        journal.end(events, Beside::default()).await
    }

    async fn must_be_over(&self, run: RunId) -> Result<(), Halt> {
        let row = self.gateway.store().run(None, run).await.map_err(stored)?;
        match row.filter(|row| !row.state.is_over()) {
            Some(_) => Err(Halt::Store(format!("somebody is still at work at {run}"))),
            None => Ok(()),
        }
    }

    /// What those have used that a run has begun. Of one that is over its journal knows that.
    pub(super) async fn spent_below(&self, row: &RunRow) -> Spent {
        let mut spent = Spent::default();
        for RunRow { totals, .. } in self.below((row.id, row.root)).await {
            let (input, output) = (totals.tokens_in, totals.tokens_out);
            let usage = Usage { input, output, ..Usage::default() };
            let (model_calls, tool_calls) = (totals.steps, totals.tool_calls);
            spent += Spent { usage, cost: totals.cost, model_calls, tool_calls };
        }
        spent
    }
}

/// By which run a call of this key is done, of one that asks another agent.
pub(super) fn child_id(run: RunId, key: &str) -> RunId {
    let digest = Sha256::digest(format!("{run}\n{key}"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    run.child(bytes)
}

/// Of a child that there never was.
fn gone(call: &str, run: RunId) -> Event {
    let why = "What it was to go on with is not known any more.";
    let parts = vec![Part::text(CallError::new("agent_failed", why).text())];
    let (id, spent, state) = (call.to_owned(), Spent::default(), RunState::Failed);
    let (degraded, degraded_tools, undoable) = (false, Vec::new(), false);
    Event::ChildDone { id, run, state, parts, degraded, degraded_tools, spent, undoable }
}

/// What came of a child that is over.
fn reported(call: &str, run: &Run) -> Event {
    let mut parts = run.answer();
    if parts.is_empty() {
        let why = run.message.clone().unwrap_or_else(|| run.state.name().to_owned());
        parts = vec![Part::text(CallError::new("agent_failed", why).text())];
    }
    let (id, run_id, spent) = (call.to_owned(), run.id, run.spent());
    let (state, degraded) = (run.state, run.degraded);
    let undoable = run.undoable.iter().any(|undo| !undo.over);
    let degraded_tools = run.degraded_tools.iter().cloned().collect();
    let run = run_id;
    Event::ChildDone { id, run, state, parts, degraded, degraded_tools, spent, undoable }
}

/// Why an agent is not begun, for the model.
fn not_begun(error: &Error) -> CallError {
    let kind = match error.kind {
        Kind::Overloaded => "unavailable",
        kind => kind.code(),
    };
    let after = error.retry_after.map(retry_after_seconds);
    let retryable = error.kind == Kind::RateLimited;
    let message = error.message.to_string();
    CallError { kind: kind.to_owned(), message, retryable, retry_after: after }
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
fn stored(failure: Failure) -> Halt {
    Halt::Store(failure.to_string())
}

impl Call {
    /// Whether another run does it, which is not over.
    pub(super) fn waits_below(&self) -> bool {
        child(&self.stage).is_some()
    }
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
