//! Runs made of other runs: played again, gone on with from some point, taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::actor::Actor;
use super::begin::{away, halted};
use super::children::child_id;
use super::event::{CallError, Created, Event, Source, Spent, Trigger};
use super::journal::{Halt, entry, now};
use super::staff::Staff;
use crate::access::{Caller, CallerRef};
use crate::canon::{Owner, RunId, RunState};
use crate::error::{Error, Kind};
use crate::store::runs::{Begun, NewRun, RunRow, SignalRow};
use crate::store::{Audit, Failure};

/// What is to be made of a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Again {
    /// The same entries once more: nobody is asked and nothing is done.
    Recorded,
    /// The same question by the same definition. What must not happen twice happens only with
    /// `effects`.
    Live { effects: bool },
    /// A run that goes on behind this entry; `edit`: what its user says there.
    Fork { at_seq: u64, edit: Option<String> },
    /// A run that was given up goes on where it was left: what it had done is not done again.
    Retry,
    /// What it has done is taken back.
    Compensate,
}

impl Staff {
    /// Begins a run that is made of another one. What a run has done is taken back by one run only,
    /// which is given again to whoever asks for it again.
    pub(super) async fn again(
        self: &Arc<Self>,
        caller: &Caller,
        of: &RunRow,
        how: Again,
    ) -> Result<RunId, Error> {
        if how == Again::Retry {
            let run = self.retried(caller, of, RunId::new(), None).await?;
            return self.begins_again(run).await;
        }
        let (created, events, _) = self.entries(of.id).await.map_err(halted)?;
        // What was taken back is not taken back again, whoever asks.
        let (owner, once) = match how {
            Again::Compensate => (of.owner.clone(), Some(once(of.id))),
            _ => (Owner::new(Arc::clone(caller.owner())), None),
        };
        // It begins like any other.
        if matches!(how, Again::Live { .. } | Again::Fork { .. }) {
            let definition = self.definition(&created.definition).await.map_err(halted)?;
            self.has_room(caller, &definition).await?;
            self.admits((&owner, created.user.as_deref()), &definition).await?;
        }
        let (created, events) = made(caller, of, created, (events, &[]), how)?;
        let run = new_run(RunId::new(), owner, caller, created, &events);
        self.begins_again(NewRun { idempotency: once, lease: self.lease(), ..run }).await
    }

    async fn begins_again(&self, run: NewRun) -> Result<RunId, Error> {
        let id = run.id;
        match self.gateway.store().begin_run(run).await.map_err(away)? {
            Begun::New { .. } => {
                self.wake.notify_one();
                Ok(id)
            }
            Begun::Known(row) => Ok(row.id),
            Begun::Conflict | Begun::Overtaken => {
                Err(Error::new(Kind::Conflict, "There is such a run."))
            }
        }
    }

    /// The run that goes on with one that was given up, also with what that had begun: what was
    /// given up with it is gone on with below this one.
    pub(super) async fn retried(
        &self,
        caller: &Caller,
        of: &RunRow,
        id: RunId,
        trace: Option<String>,
    ) -> Result<NewRun, Error> {
        let (created, mut events, _) = self.entries(of.id).await.map_err(halted)?;
        let untaken = self.untaken(of.id, &events).await?;
        let mut spent = self.adopts(&mut events, of.id, id).await.map_err(halted)?;
        let earlier = created.source.as_ref();
        let taken = earlier.map_or(0, |it| usize::try_from(it.entries).unwrap_or(usize::MAX));
        spent += earlier.map(|it| it.spent).unwrap_or_default();
        spent += spent_by(&events[taken.min(events.len())..]);
        let first = created.caller.clone();
        let (mut created, events) = made(caller, of, created, (events, &untaken), Again::Retry)?;
        if let Some(source) = &mut created.source {
            source.spent = spent;
        }
        created.trace = trace.or(created.trace);
        self.notes_decisions(caller, of.id, id, &events, &untaken).await?;
        let told = untaken.into_iter().map(|it| (it.kind, it.data)).collect();
        // Whom it was for it stays with when somebody else has it tried again.
        let is_own = of.owner == Owner::new(Arc::clone(caller.owner()));
        let key = if is_own { caller.key().to_string() } else { of.key.clone() };
        if !is_own {
            created.caller = first;
        }
        let run = new_run(id, of.owner.clone(), caller, created, &events);
        Ok(NewRun { key, told, lease: self.lease(), ..run })
    }

    /// Puts those that `run` goes on with into the place of what was given up with `of`, and says
    /// what these had used.
    async fn adopts(&self, events: &mut Vec<Event>, of: RunId, run: RunId) -> Result<Spent, Halt> {
        let mut spent = Spent::default();
        for (former, key) in under_way(events) {
            if former != child_id(of, &key) {
                continue;
            }
            match self.row_given_up(of, former).await? {
                Some(row) => spent += self.spent_by_all(&row).await?,
                None if self.given_up(of, &key).await?.is_some() => {}
                None => continue,
            }
            events.retain(|it| !matches!(it, Event::ChildWaits { run, .. } if *run == former));
            let begun = events.iter_mut().filter_map(|event| match event {
                Event::ChildStarted { run, .. } if *run == former => Some(run),
                _ => None,
            });
            begun.for_each(|begun| *begun = child_id(run, &key));
        }
        Ok(spent)
    }

    /// What had done a call of this key when `of` was given up, or when what `of` went on with was:
    /// it may have been given up before it had got so far.
    pub(super) async fn given_up(&self, of: RunId, key: &str) -> Result<Option<RunRow>, Halt> {
        let mut next = Some(of);
        while let Some(of) = next {
            if let Some(row) = self.row_given_up(of, child_id(of, key)).await? {
                return Ok(Some(row));
            }
            let Some(row) = self.gateway.store().run(None, of).await.map_err(kept)? else { break };
            let (created, ..) = self.entries(row.id).await?;
            let is_retry = created.trigger == Trigger::Retry;
            next = created.forked_from.filter(|_| is_retry).map(|(of, _)| of);
        }
        Ok(None)
    }

    /// A run, if it was ended because the one above it was given up.
    async fn row_given_up(&self, above: RunId, run: RunId) -> Result<Option<RunRow>, Halt> {
        let Some(row) = self.gateway.store().run(None, run).await.map_err(kept)? else {
            return Ok(None);
        };
        let (_, events, _) = self.entries(run).await?;
        let above = above.to_string();
        let ended = |it: &Event| matches!(it, Event::CancelAsked { by, .. } if *by == above);
        let is_it = row.state == RunState::Cancelled && events.iter().any(ended);
        Ok(Some(row).filter(|_| is_it))
    }

    /// What a run has used, with all below it. What it had taken over is known above it.
    pub(super) async fn spent_by_all(&self, row: &RunRow) -> Result<Spent, Halt> {
        let mut spent = self.spent_below(row).await;
        let run = self.load(row).await?.run;
        let totals = run.totals();
        let (usage, cost) = (run.usage, totals.cost);
        let own = Spent { usage, cost, model_calls: totals.steps, tool_calls: totals.tool_calls };
        spent += own;
        Ok(spent)
    }

    /// What people have said to a run that was given up before it took that in.
    async fn untaken(&self, run: RunId, events: &[Event]) -> Result<Vec<SignalRow>, Error> {
        let known = said_in(events);
        let mut signals = self.gateway.store().all_signals(run).await.map_err(away)?;
        signals.retain(|signal| {
            let data: Value = serde_json::from_str(&signal.data).unwrap_or_default();
            let key = WORDS.iter().find(|(kind, _)| *kind == signal.kind).map(|(_, key)| *key);
            let about = key.and_then(|key| data.get(key)?.as_str());
            about.is_some_and(|about| !known.contains(about))
        });
        Ok(signals)
    }

    /// By which decisions calls of a run will be made that were let pass in the one before it.
    async fn notes_decisions(
        &self,
        caller: &Caller,
        of: RunId,
        run: RunId,
        events: &[Event],
        untaken: &[SignalRow],
    ) -> Result<(), Error> {
        let let_pass = unused(events).into_values().map(|it| (it.approval, it.by));
        let is_kept = |approval: &str| {
            let asked = |it: &Event| matches!(it, Event::ApprovalAsked { approval: known, .. } if known == approval);
            events.iter().any(asked)
        };
        let told = untaken.iter().filter_map(decision).filter(|(approval, _)| is_kept(approval));
        for (approval, by) in let_pass.chain(told) {
            let after = json!({"approval": approval, "decided_by": by, "of": of.to_string()});
            let row = Audit {
                at: SystemTime::now(),
                who: caller.key().to_string(),
                what: "approval.kept".to_owned(),
                subject: format!("run:{run}"),
                before: None,
                after: Some(after.to_string()),
            };
            self.gateway.store().audit(row).await.map_err(away)?;
        }
        Ok(())
    }
}

impl Actor {
    /// Takes back what a run has done that was begun for this one, by another run, once; what that
    /// has taken back already stays so.
    pub(super) async fn take_back_below(&self, of: RunId) -> Result<Option<CallError>, Halt> {
        let stored = |failure: Failure| Halt::Store(failure.to_string());
        let gone = || CallError::new("unavailable", "What it has done is not known any more.");
        let (staff, id) = (&self.staff, RunId::new());
        let store = staff.gateway.store();
        let Some(row) = store.run(None, of).await.map_err(stored)? else { return Ok(Some(gone())) };
        let (created, events, _) = staff.entries(of).await?;
        let made = made(&self.caller, &row, created, (events, &[]), Again::Compensate);
        let Ok((created, events)) = made else { return Ok(Some(gone())) };
        let run = new_run(id, row.owner.clone(), &self.caller, created, &events);
        let (root, parent, state) = (self.live.root, Some(self.journal.id), RunState::Running);
        let (idempotency, lease) = (Some(once(of)), staff.lease());
        let run = NewRun { root, parent, idempotency, state, lease, ..run };
        let (id, undoing) = match store.begin_run(run).await.map_err(stored)? {
            Begun::New { .. } => (id, staff.new_child(self, id).await?),
            // Somebody has had it taken back, or a process has died over it.
            Begun::Known(known) => (known.id, staff.child(self, known.id).await?),
            Begun::Conflict | Begun::Overtaken => return Ok(Some(gone())),
        };
        if let Some(undoing) = undoing {
            let rest = undoing.drive_on().await;
            staff.forget(&undoing.live);
            rest?;
        }
        let row = store.run(None, id).await.map_err(stored)?;
        let Some(row) = row.filter(|row| row.state.is_over()) else {
            return Ok(Some(CallError::new("unavailable", "It is being taken back elsewhere.")));
        };
        let done = staff.load(&row).await?.run;
        let left = done.undoable.iter().any(|undo| undo.failed || !undo.over);
        Ok(left.then(|| CallError::new("undo_failed", "Not all of it could be taken back.")))
    }
}

/// By what a run is known that takes back what another one has done.
fn once(of: RunId) -> (String, String) {
    (format!("compensate {of}"), String::new())
}

/// A run that begins with these entries.
fn new_run(id: RunId, owner: Owner, caller: &Caller, created: Created, events: &[Event]) -> NewRun {
    let mut all = vec![entry(&Event::Created(Box::new(created.clone())))];
    all.extend(events.iter().map(entry));
    NewRun {
        id,
        root: id,
        parent: None,
        agent: created.agent,
        version: created.version,
        definition: created.definition,
        owner,
        key: caller.key().to_string(),
        user: created.user,
        session: None,
        head: None,
        idempotency: None,
        trigger: created.trigger.name().to_owned(),
        labels: created.labels,
        state: RunState::Queued,
        events: all,
        told: Vec::new(),
        lease: 0,
    }
}

/// Signals that are the word of people about what a run has asked them, and where it stands which
/// question that was.
const WORDS: [(&str, &str); 3] =
    [("decision", "approval"), ("input", "request"), ("resolve", "call")];

/// The questions whose answers stand in a journal.
fn said_in(events: &[Event]) -> BTreeSet<&str> {
    let about = events.iter().filter_map(|event| match event {
        Event::Approved { approval, .. } | Event::Rejected { approval, .. } => Some(approval),
        Event::InputGiven { request, .. } => Some(request),
        Event::Resolved { id, .. } => Some(id),
        _ => None,
    });
    about.map(String::as_str).collect()
}

type Made = (Created, Vec<Event>);

/// The runs that are begun and not over, each with the key of the call that it does.
fn under_way(events: &[Event]) -> Vec<(RunId, String)> {
    let (mut keys, mut runs) = (BTreeMap::new(), BTreeMap::new());
    for event in events {
        match event {
            Event::Requested(request) => {
                keys.insert(&request.id, &request.key);
            }
            Event::ChildStarted { id, run, .. } => {
                runs.insert(*run, id);
            }
            Event::ChildDone { run, .. } => {
                runs.remove(run);
            }
            _ => {}
        }
    }
    let with_key = |(run, id): (RunId, &String)| Some((run, (*keys.get(id)?).clone()));
    runs.into_iter().filter_map(with_key).collect()
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
fn kept(failure: Failure) -> Halt {
    Halt::Store(failure.to_string())
}

/// How such a run begins: what it has taken over was paid for by the other one.
fn made(
    caller: &Caller,
    of: &RunRow,
    created: Created,
    events: (Vec<Event>, &[SignalRow]),
    how: Again,
) -> Result<Made, Error> {
    let (mut created, events) = begins(caller, of, created, events, how)?;
    let (run, entries, spent) = (of.id, events.len() as u64, spent_by(&events));
    created.source = Some(Box::new(Source { run, entries, spent }));
    Ok((created, events))
}

/// What was spent on entries, with what others have spent that these tell of.
fn spent_by(events: &[Event]) -> Spent {
    let (mut all, mut below) = (Spent::default(), BTreeMap::new());
    for event in events {
        match event {
            Event::Answered { usage, cost, .. }
            | Event::AskFailed { usage, cost, .. }
            | Event::Compacted { usage, cost, .. }
            | Event::Planned { usage, cost, .. } => {
                let (usage, cost) = (*usage, cost.unwrap_or_default());
                let model_calls = u32::from(matches!(event, Event::Answered { .. }));
                all += Spent { usage, cost, model_calls, tool_calls: 0 };
            }
            Event::Requested(_) => all.tool_calls += 1,
            Event::ChildWaits { run, spent, .. } | Event::ChildDone { run, spent, .. } => {
                below.insert(*run, *spent);
            }
            _ => {}
        }
    }
    below.into_values().fold(all, |mut all, below| {
        all += below;
        all
    })
}

fn begins(
    caller: &Caller,
    of: &RunRow,
    created: Created,
    (events, untaken): (Vec<Event>, &[SignalRow]),
    how: Again,
) -> Result<Made, Error> {
    let by = serde_json::to_value(CallerRef::of(caller)).unwrap_or_default();
    let mut created = Created { caller: by, session: None, at: now(), ..created };
    created.wishes.background = true;
    match how {
        Again::Recorded => {
            (created.replay_of, created.effects) = (Some(of.id), false);
            created.trigger = Trigger::Replay;
            Ok((created, events))
        }
        Again::Live { effects } => {
            created.replay_of = Some(of.id);
            created.effects = effects;
            created.trigger = Trigger::Replay;
            // Who takes back what another run has done needs to know what that was.
            let events = if created.compensates { before_undone(events) } else { Vec::new() };
            Ok((created, events))
        }
        Again::Fork { at_seq, edit } => {
            let most = events.len() as u64 + 1;
            if !(1..=most).contains(&at_seq) {
                let message = format!("`at_seq` must be from 1 to {most}.");
                return Err(Error::invalid(message));
            }
            created.forked_from = Some((of.id, at_seq));
            let kept = usize::try_from(at_seq - 1).unwrap_or(usize::MAX);
            let mut events = events;
            let mut behind = events.split_off(kept.min(events.len()));
            // What a model calls stands behind its answer, and belongs to it.
            let is_call = |event: &&Event| matches!(event, Event::Requested(_));
            let calls = behind.iter().take_while(is_call).count();
            events.extend(behind.drain(..calls));
            // What people let pass there was done there.
            let mut events = open(childless(answered(events)), &[], u64::MAX);
            // What was taken back since is not taken back again.
            events.extend(behind.into_iter().filter(is_undo));
            // Whoever stopped that one has not stopped this one.
            events.retain(|event| !matches!(event, Event::Paused { .. } | Event::Unpaused { .. }));
            if let Some(text) = edit {
                events.push(Event::Noted { text, reason: Some("repair".to_owned()) });
            }
            created.trigger = Trigger::Fork;
            Ok((created, events))
        }
        Again::Retry => {
            created.forked_from = Some((of.id, of.last_seq));
            created.trigger = Trigger::Retry;
            Ok((created, open(events, untaken, now())))
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

/// Entries without the question to a model that had no answer yet: another one asks it, and who
/// takes the rest over asks anew.
fn answered(mut events: Vec<Event>) -> Vec<Event> {
    let is_answer = |event: &Event| {
        matches!(
            event,
            Event::Answered { .. }
                | Event::AskFailed { .. }
                | Event::Compacted { .. }
                | Event::Planned { .. }
        )
    };
    let asked = events.iter().rposition(|event| matches!(event, Event::Asked(_)));
    let closed = events.iter().rposition(is_answer);
    if let Some(place) = asked.filter(|place| closed.is_none_or(|closed| closed < *place)) {
        events.remove(place);
    }
    events
}

/// Entries without runs that were begun and were not over: these are another one's, and what they
/// were to do is done anew.
fn childless(mut events: Vec<Event>) -> Vec<Event> {
    let over = events.iter().filter_map(|event| match event {
        Event::ChildDone { run, .. } => Some(*run),
        _ => None,
    });
    let over: BTreeSet<RunId> = over.collect();
    events.retain(|event| match event {
        Event::ChildStarted { run, .. } | Event::ChildWaits { run, .. } => over.contains(run),
        _ => true,
    });
    events
}

fn is_undo(event: &Event) -> bool {
    matches!(event, Event::UndoBegan { .. } | Event::UndoDone { .. })
}

/// What was done, as if nothing of it had been taken back.
fn before_undone(mut events: Vec<Event>) -> Vec<Event> {
    events.retain(|event| !is_undo(event) && !matches!(event, Event::Ended { .. }));
    events
}

/// What a person has let pass and nobody has begun.
struct LetPass {
    approval: String,
    by: Option<String>,
    expires_at: u64,
}

/// Such calls, by their ids.
fn unused(events: &[Event]) -> BTreeMap<String, LetPass> {
    let mut open: BTreeMap<String, LetPass> = BTreeMap::new();
    for event in events {
        match event {
            Event::ApprovalAsked { id, approval, expires_at, .. } => {
                let (approval, expires_at) = (approval.clone(), *expires_at);
                open.insert(id.clone(), LetPass { approval, by: None, expires_at });
            }
            Event::Approved { id, approval, by, .. } => {
                let asked = open.get_mut(id).filter(|it| it.approval == *approval);
                if let Some(asked) = asked {
                    asked.by = Some(by.clone());
                }
            }
            Event::Rejected { id, .. }
            | Event::Began { id, .. }
            | Event::Refused { id, .. }
            | Event::Failed { id, .. } => {
                open.remove(id);
            }
            _ => {}
        }
    }
    open.retain(|_, it| it.by.is_some());
    open
}

/// Which approval a signal decides about, and whose word that is, if it lets something pass.
fn decision(signal: &SignalRow) -> Option<(String, Option<String>)> {
    let data: Value = serde_json::from_str(&signal.data).ok()?;
    let text = |name: &str| data.get(name).and_then(Value::as_str).map(str::to_owned);
    let is_yes = data.get("approved").and_then(Value::as_bool) == Some(true);
    text("approval").filter(|_| is_yes).map(|approval| (approval, text("by")))
}

/// Entries that something can come behind: without an end, and without questions to people that
/// were not answered, neither in the journal nor in what it was told. Whoever goes on asks these
/// anew, like what was let pass until a time that is over.
fn open(mut events: Vec<Event>, untaken: &[SignalRow], now: u64) -> Vec<Event> {
    let mut answered: BTreeSet<String> = said_in(&events).into_iter().map(str::to_owned).collect();
    let stale = unused(&events).into_values().filter(|it| it.expires_at <= now);
    let stale: BTreeSet<String> = stale.map(|it| it.approval).collect();
    answered.retain(|about| !stale.contains(about));
    let told: Vec<Value> =
        untaken.iter().filter_map(|it| serde_json::from_str(&it.data).ok()).collect();
    let is_told = |key: &str, asked: &str| told.iter().any(|it| it[key] == *asked);
    events.retain(|event| match event {
        Event::Ended { .. } | Event::CancelAsked { .. } => false,
        Event::Approved { approval, .. } => !stale.contains(approval),
        Event::ApprovalAsked { approval, expires_at, .. } => {
            answered.contains(approval) || (*expires_at > now && is_told("approval", approval))
        }
        Event::InputAsked { request, .. } => {
            answered.contains(request) || is_told("request", request)
        }
        _ => true,
    });
    events
}
