//! Runs made of other runs: played again, gone on with from some point, taken back.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value;

use super::begin::{away, halted};
use super::event::{Created, Event, Trigger};
use super::journal::{entry, now};
use super::staff::Staff;
use crate::access::{Caller, CallerRef};
use crate::canon::{Owner, RunId, RunState};
use crate::error::{Error, Kind};
use crate::store::runs::{Begun, NewRun, RunRow};

/// What is to be made of a run.
#[derive(Debug, Clone)]
pub enum Again {
    /// The same entries once more: nobody is asked and nothing is done.
    Recorded,
    /// The same question by the same definition. What must not happen twice does not happen, unless
    /// `effects` is true in `overrides`.
    Live { overrides: Value },
    /// A run that goes on behind this entry; `edit`: what its user says there.
    Fork { at_seq: u64, edit: Option<Value> },
    /// A run that was given up goes on where it was left: what it had done is not done again.
    Retry,
    /// What it has done is taken back.
    Compensate,
}

impl Staff {
    /// Begins a run that is made of another one.
    pub(super) async fn again(
        self: &Arc<Self>,
        caller: &Caller,
        of: &RunRow,
        how: Again,
    ) -> Result<RunId, Error> {
        let (created, events, _) = self.entries(of.id).await.map_err(halted)?;
        let (created, events) = made(caller, (of, created), events, how)?;
        let id = RunId::new();
        let mut all = vec![entry(&Event::Created(Box::new(created.clone())))];
        all.extend(events.iter().map(entry));
        let run = NewRun {
            id,
            root: id,
            parent: None,
            agent: created.agent.clone(),
            version: created.version.clone(),
            definition: created.definition.clone(),
            owner: Owner::new(Arc::clone(caller.owner())),
            key: caller.key().to_string(),
            user: created.user.clone(),
            session: None,
            head: None,
            idempotency: None,
            trigger: created.trigger.name().to_owned(),
            labels: created.labels.clone(),
            state: RunState::Queued,
            events: all,
            lease: self.lease(),
        };
        match self.gateway.store().begin_run(run).await.map_err(away)? {
            Begun::New { .. } | Begun::Known(_) => {}
            Begun::Conflict | Begun::Overtaken => {
                return Err(Error::new(Kind::Conflict, "There is such a run."));
            }
        }
        self.wake.notify_one();
        Ok(id)
    }
}

type Made = (Created, Vec<Event>);

/// How such a run begins.
fn made(
    caller: &Caller,
    (of, created): (&RunRow, Created),
    events: Vec<Event>,
    how: Again,
) -> Result<Made, Error> {
    let by = serde_json::to_value(CallerRef::of(caller)).unwrap_or_default();
    let mut created = Created { caller: by, session: None, at: now(), ..created };
    created.wishes.background = true;
    match how {
        Again::Recorded => {
            created.replay_of = Some(of.id);
            created.trigger = Trigger::Replay;
            Ok((created, events))
        }
        Again::Live { overrides } => {
            created.replay_of = Some(of.id);
            created.effects = overrides.get("effects").and_then(Value::as_bool).unwrap_or(false);
            created.trigger = Trigger::Replay;
            Ok((created, Vec::new()))
        }
        Again::Fork { at_seq, edit } => {
            let most = events.len() as u64 + 1;
            if !(1..=most).contains(&at_seq) {
                let message = format!("`at_seq` must be from 1 to {most}.");
                return Err(Error::invalid(message));
            }
            created.forked_from = Some((of.id, at_seq));
            let kept = usize::try_from(at_seq - 1).unwrap_or(usize::MAX);
            let mut events = open(events.into_iter().take(kept).collect());
            if let Some(text) = edit.as_ref().and_then(said) {
                events.push(Event::Noted { text, reason: Some("repair".to_owned()) });
            }
            created.trigger = Trigger::Fork;
            Ok((created, events))
        }
        Again::Retry => {
            created.forked_from = Some((of.id, of.last_seq));
            created.trigger = Trigger::Retry;
            Ok((created, open(events)))
        }
        Again::Compensate => {
            if !of.state.is_over() {
                let message = "Only what is over can be taken back.";
                return Err(Error::new(Kind::Conflict, message));
            }
            created.compensates = true;
            let mut events = events;
            events.retain(|event| !matches!(event, Event::Ended { .. }));
            created.trigger = Trigger::Compensate;
            Ok((created, events))
        }
    }
}

/// Entries that something can come behind: without an end, and without questions to people that
/// were not answered, which whoever goes on asks anew.
fn open(mut events: Vec<Event>) -> Vec<Event> {
    let answers = events.iter().filter_map(|event| match event {
        Event::Approved { approval, .. } | Event::Rejected { approval, .. } => Some(approval),
        Event::InputGiven { request, .. } => Some(request),
        _ => None,
    });
    let answered: BTreeSet<String> = answers.cloned().collect();
    events.retain(|event| match event {
        Event::Ended { .. } | Event::CancelAsked { .. } => false,
        Event::ApprovalAsked { approval: asked, .. } | Event::InputAsked { request: asked, .. } => {
            answered.contains(asked)
        }
        _ => true,
    });
    events
}

fn said(edit: &Value) -> Option<String> {
    let text = edit.as_str().or_else(|| edit.get("message")?.as_str())?;
    Some(text.to_owned())
}
