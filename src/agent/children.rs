//! Agents that a run asks or gives the conversation to.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::actor::{Actor, Rest};
use super::definition::{DELEGATE, Definition, HANDOFF};
use super::event::{CallError, Created, Event, Requested, Wishes};
use super::journal::{Halt, entry, now};
use super::run::Stage;
use super::trace::written;
use crate::canon::{Message, Part, Role, RunId, RunState, StopReason};
use crate::config::HandoffInput;
use crate::store::runs::{Begun, NewRun};

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
            HandoffInput::Summary | HandoffInput::Last => Some(reason.to_owned()),
            HandoffInput::None => Some(String::new()),
        };
        self.live.voice.aside(format!("handoff {from} to {to}"));
        let id = request.id.clone();
        self.journal.append(vec![Event::Handoff { id, from, to, summary }]).await
    }

    /// Has another agent do a piece of work, as a run of its own.
    pub(super) async fn delegate(&self, request: &Requested) -> Result<(), Halt> {
        let name = request.alias.strip_prefix(DELEGATE).unwrap_or_default();
        if self.depth + 1 >= self.definition.max_depth {
            let text = "Agents may not ask agents any deeper.";
            return self.refuse_delegate(request, "max_depth", text).await;
        }
        let Some(input) = request.args.get("input").and_then(Value::as_str) else {
            return self.refuse_delegate(request, "invalid_arguments", "`input` is missing.").await;
        };
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
        let Some(child) = self.begin_child((id, name), definition, input).await? else {
            return Ok(());
        };
        let run = self.journal.run().await;
        let is_known =
            matches!(run.call(&request.id).map(|call| &call.stage), Some(Stage::Child { .. }));
        drop(run);
        if !is_known {
            let (call, agent) = (request.id.clone(), name.to_owned());
            self.journal.intend(vec![Event::ChildStarted { id: call, run: id, agent }]).await?;
        }
        self.live.voice.aside(format!("delegate {name}"));
        self.follow_child(&request.id, child).await
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

    /// The run of a child, new or as it was left; `None` where another process has it.
    async fn begin_child(
        &self,
        (id, name): (RunId, &str),
        definition: Arc<Definition>,
        input: &str,
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
            budget: None,
            replay_of: None,
            effects: false,
            compensates: false,
            forked_from: None,
            labels: BTreeMap::new(),
            trace: Some(written(&self.staff.trace(&run).below(run.span()))),
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
            idempotency: None,
            trigger: "agent".to_owned(),
            labels: BTreeMap::new(),
            state: RunState::Running,
            events: vec![entry(&Event::Created(Box::new(created)))],
            lease: self.staff.lease(),
        };
        match store.begin_run(new).await.map_err(failed)? {
            Begun::New { .. } | Begun::Known(_) => {}
            Begun::Conflict => return Ok(None),
        }
        self.staff.child(self, id).await
    }

    /// Works at a child until it is over or waits.
    async fn follow_child(&self, call: &str, child: Actor) -> Result<(), Halt> {
        let id = child.journal.id;
        let rest = child.drive_on().await;
        self.staff.forget(&child.live);
        match rest? {
            Rest::Waits(..) => Ok(()),
            Rest::Over(state) => {
                let run = child.journal.run().await;
                let mut parts = run.answer();
                if parts.is_empty() {
                    let why = run.message.clone().unwrap_or_else(|| state.name().to_owned());
                    let error = CallError::new("agent_failed", why);
                    parts = vec![Part::text(error.text())];
                }
                drop(run);
                let done = Event::ChildDone { id: call.to_owned(), run: id, state, parts };
                self.journal.append(vec![done]).await
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
            .filter_map(|call| match call.stage {
                Stage::Child { run } => Some((call.request.id.clone(), run)),
                _ => None,
            })
            .collect();
        drop(run);
        for (call, id) in children {
            if let Some(child) = self.staff.child(self, id).await? {
                self.follow_child(&call, child).await?;
            }
        }
        Ok(())
    }
}
