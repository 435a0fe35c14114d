//! How runs begin, and how those go on that wait for their client.

use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::Told;
use super::actor::{Actor, Live};
use super::admit::{drawn, find};
use super::budget::Used;
use super::context;
use super::definition::Definition;
use super::event::{Ceiling, Created, Event, Trigger, Wishes};
use super::journal::{Halt, entry, now};
use super::run::Run;
use super::session::{Before, LONGEST_TURN, busy, idempotency, used_before};
use super::staff::{Ear, Staff};
use super::trace::written;
use super::view::queued;
use super::words::Words;
use crate::access::CallerRef;
use crate::canon::{ChatRequest, Message, Owner, Part, Role, RunId, RunState};
use crate::error::{Error, Kind};
use crate::gateway::agents::{Commission, Performance, Report, RunBudget};
use crate::store::runs::{Begun as Stored, NewRun, RunRow};

/// What a turn is found to be that no run waits for.
enum Ready {
    Begins(Box<Before>),
    /// Decisions of which no run knows.
    Decided,
}

/// How often it is looked whether somebody else is done.
pub(super) const LOOK: Duration = Duration::from_millis(100);

impl Staff {
    /// Begins a run, or goes on with one that waits for this client.
    pub(super) async fn conduct(
        self: Arc<Self>,
        commission: Box<Commission>,
    ) -> Result<Performance, Error> {
        let owner = Owner::new(Arc::clone(commission.caller.owner()));
        let words = Words::of(&commission.request);
        let (staff, until) = (Arc::clone(&self), Instant::now() + LONGEST_TURN);
        let (mut place, mut ready) = (None, None);
        loop {
            // Who asks the same once more ends no turn, waits behind none and is counted nowhere;
            // that it is the same may turn out while it waits.
            if let Some(performance) = self.known(&owner, &commission).await? {
                return Ok(performance);
            }
            match ready {
                Some(Ready::Begins(before)) => {
                    return Box::pin(self.begin((owner, commission), (words, *before))).await;
                }
                Some(Ready::Decided) => return Err(self.decided_before(&owner, &words).await?),
                None => {}
            }
            if let Some(row) = self.waiting(&owner, &commission, &words).await?
                && !self.makes_way(&row, &words).await?
            {
                match self.go_on(&row, &owner, &commission, &words).await? {
                    Some(performance) => return Ok(performance),
                    // Somebody else has said it first: this comes behind what follows from that.
                    None if Instant::now() < until => continue,
                    None => return Err(busy(&row)),
                }
            }
            if words.only_decides {
                ready = Some(Ready::Decided);
                continue;
            }
            if let (None, Some(session)) = (&place, &commission.wishes.session) {
                place = Some(staff.queues.first((owner.clone(), session.clone())).await);
            }
            // The one before it may wait for its client by now.
            ready = self
                .before(&owner, &commission)
                .await?
                .map(|before| Ready::Begins(Box::new(before)));
        }
    }

    /// Follows a run from here on, and sees that somebody works at it.
    pub(super) async fn attach(
        self: &Arc<Self>,
        id: RunId,
        ear: Ear,
    ) -> Result<Performance, Error> {
        let until = Instant::now() + LONGEST_TURN;
        loop {
            let live = self.live(id);
            if let Some(performance) = live.as_ref().and_then(followed) {
                self.nudge(id);
                return Ok(performance);
            }
            let claimed = self.gateway.store().claim_run(id, self.lease()).await.map_err(away)?;
            if let Some(row) = claimed
                && let Some(performance) = self.resumed(row, ear).await
            {
                return Ok(performance);
            }
            let row = self.gateway.store().run(None, id).await.map_err(away)?;
            let Some(row) = row else {
                return Err(Error::new(Kind::NotFound, format!("There is no run `{id}`.")));
            };
            if row.state.is_over() {
                return self.said(&row).await;
            }
            if Instant::now() >= until {
                let message = "Another process works at this run; ask for its events.";
                return Err(Error::new(Kind::Conflict, message));
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Has somebody go on with a run that is claimed, and follows it.
    async fn resumed(self: &Arc<Self>, row: RunRow, ear: Ear) -> Option<Performance> {
        let (sender, heard) = tokio::sync::oneshot::channel();
        let staff = Arc::clone(self);
        self.spawn(async move { staff.resume(row, Some((sender, ear))).await });
        heard.await.ok()
    }

    /// Calls a run off, by its owner's wish.
    pub(super) async fn cancel(&self, run: RunId, owner: &Owner) -> Result<(), Error> {
        let row = self.gateway.store().run(Some(owner), run).await.map_err(away)?;
        if row.is_none_or(|row| row.state.is_over()) {
            return Ok(());
        }
        let by = owner.to_string();
        let (reason, after_step) = (None, false);
        self.tell(run, &super::Told::Cancel { by, reason, after_step }).await.map(|_| ())
    }

    /// What a run says, once more: all since this time, in milliseconds, if it says nothing more
    /// for now.
    pub(super) async fn rejoin(
        self: &Arc<Self>,
        run: RunId,
        since: u64,
        owner: &Owner,
    ) -> Result<Option<Performance>, Error> {
        let row = self.gateway.store().run(Some(owner), run).await.map_err(away)?;
        let Some(row) = row else { return Ok(None) };
        // Whoever was last at work at it may have been so for a part of it only.
        if row.state.is_over() || row.state.is_waiting() {
            return self.retold(&row, since).await.map(Some);
        }
        if let Some(performance) = self.live(run).and_then(|live| followed(&live)) {
            return Ok(Some(performance));
        }
        self.attach(run, Ear::default()).await.map(Some)
    }

    /// Somebody has something to know.
    pub(super) fn nudge(&self, run: RunId) {
        match self.live(run) {
            Some(live) => live.poke(),
            None => self.wake.notify_one(),
        }
    }

    /// Begins a run behind the turns before it.
    async fn begin(
        self: Arc<Self>,
        (owner, mut commission): (Owner, Box<Commission>),
        (words, mut before): (Words, Before),
    ) -> Result<Performance, Error> {
        let user = commission.wishes.user.clone();
        let user = user.or_else(|| commission.caller.user().map(ToString::to_string));
        let definition = self.define(&commission, user.as_deref(), &before).await?;
        let definition = Arc::new(definition);
        self.has_room(&commission.caller, &definition).await?;
        self.admits((&owner, user.as_deref()), &definition).await?;
        if let Some(trace) = &mut commission.trace {
            trace.sampled = self.samples(trace, &definition.agent);
        }
        let (body, hash) = definition.written();
        self.gateway.store().put_definition(&hash, body).await.map_err(away)?;
        loop {
            let last = before.last.as_ref().map(|row| row.id);
            let of = (&*commission, &*definition, hash.clone());
            let created = created(of, words.clone(), last, user.clone())?;
            let asked = (&owner, &*commission);
            let begun = (created, Arc::clone(&definition), before.head);
            if let Some(performance) = self.begin_behind(asked, begun).await? {
                return Ok(performance);
            }
            // Another turn of its session has come between, perhaps the same.
            if let Some(performance) = self.known(&owner, &commission).await? {
                return Ok(performance);
            }
            let next = self.before(&owner, &commission).await?;
            before = next.ok_or_else(|| {
                let message = "Another turn of its session waits for something by now.";
                Error::new(Kind::Conflict, message)
            })?;
        }
    }

    /// `None`: its session has another turn by now than the one that it was to come behind.
    async fn begin_behind(
        self: &Arc<Self>,
        (owner, commission): (&Owner, &Commission),
        (created, definition, head): (Created, Arc<Definition>, Option<RunId>),
    ) -> Result<Option<Performance>, Error> {
        let place = self.place_for(&definition.agent, commission)?;
        let id = RunId::of_digits(&commission.answer_id).unwrap_or_else(RunId::new);
        let is_queued = commission.background && place.is_none();
        let state = if is_queued { RunState::Queued } else { RunState::Running };
        let mut new = new_run(id, state, owner, commission, &created, self.lease());
        new.head = head;
        let usual = self.gateway.snapshot().config.agent_engine.on_disconnect;
        let leaves = !commission.background && Ear::of(commission).leaves(usual);
        let mut unattended = Unattended { staff: Arc::downgrade(self), run: leaves.then_some(id) };
        let epoch = match self.gateway.store().begin_run(new).await.map_err(away)? {
            Stored::New { epoch } => epoch,
            Stored::Known(row) => {
                unattended.run = None;
                return self.once_more(&row, Ear::of(commission)).await.map(Some);
            }
            Stored::Conflict => return Err(used_before()),
            Stored::Overtaken => {
                // It is tried again by the same id, which nobody must call off then.
                unattended.run = None;
                return Ok(None);
            }
        };
        if is_queued {
            self.wake.notify_one();
            return Ok(Some(queued(id, created, definition)));
        }
        let history = self.history(created.previous).await.map_err(halted)?;
        let run = Run::new(id, created, definition, history);
        let performance = self.start(run, epoch, owner.clone(), commission, place).await;
        unattended.run = None;
        performance.map(Some)
    }

    /// A run that the same was asked of before, under the name that its answer has.
    pub(super) async fn once_more(
        self: &Arc<Self>,
        row: &RunRow,
        ear: Ear,
    ) -> Result<Performance, Error> {
        let mut performance = if row.state.is_over() || row.state.is_waiting() {
            self.said(row).await?
        } else {
            self.attach(row.id, ear).await?
        };
        performance.again = Some((row.id.simple(), row.created_at / 1000));
        Ok(performance)
    }

    /// Has somebody work at a run that has just begun here.
    async fn start(
        self: &Arc<Self>,
        run: Run,
        epoch: u64,
        owner: Owner,
        commission: &Commission,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Performance, Error> {
        let row = row_of(&run, owner, epoch, commission);
        let who = (&row, commission.caller.clone());
        let ear = Some(Ear::of(commission));
        let actor = self.actor((run, now()), who, Used::default(), None, ear).await;
        let actor: Actor = actor.map_err(halted)?;
        let wait = commission.wishes.approval_wait;
        if !wait.is_zero() && !commission.background {
            let _ = actor.live.patience.set(Instant::now() + wait);
        }
        let performance = followed(&actor.live);
        let staff = Arc::clone(self);
        let work = async move { staff.work(actor, place).await };
        if commission.background {
            self.spawn(work);
        } else {
            // Where its client's connection lives.
            self.gateway.tasks.spawn(work);
        }
        performance.ok_or_else(|| Error::new(Kind::Internal, "The run cannot be followed."))
    }

    /// What the run is to be, as config and tools are now.
    async fn define(
        &self,
        commission: &Commission,
        user: Option<&str>,
        before: &Before,
    ) -> Result<Definition, Error> {
        // Only who names a version or a label has to know where labels are.
        let moved = match commission.agent.split_once('@') {
            Some((name, _)) => self.gateway.store().agent_labels(name).await.map_err(away)?,
            None => Vec::new(),
        };
        let house = self.gateway.snapshot();
        let wanted = (commission.agent.as_str(), &*moved);
        let named = find(&house.config.agents, wanted, &commission.caller)?;
        let session = commission.wishes.session.as_deref();
        let sticky = session.or(user).unwrap_or(&commission.answer_id);
        let stays = before.last.as_ref().filter(|row| row.agent == named.name);
        let version = match (named.version, stays) {
            (Some(version), _) => version.to_owned(),
            (None, Some(row)) if named.agent.at(&row.version).is_some() => row.version.clone(),
            (None, _) => drawn(named.name, named.agent, sticky),
        };
        let known = (&house.config, &*house.toolbox);
        Definition::resolve(known, named.name, &version, Some(sticky))
            .map_err(|why| Error::new(Kind::Internal, why))
    }

    /// A place for a run that goes on by itself, if there is one now; any other waits for its own.
    fn place_for(
        &self,
        agent: &str,
        commission: &Commission,
    ) -> Result<Option<OwnedSemaphorePermit>, Error> {
        let is_paused = self.is_paused(agent);
        if !commission.background && self.is_full() {
            let mut error = Error::new(Kind::Overloaded, "Too many runs wait; try again.");
            error.retry_after = Some(Duration::from_secs(1));
            return Err(error);
        }
        match (commission.background, is_paused) {
            (true, true) | (false, false) => Ok(None),
            (true, false) => Ok(self.place()),
            (false, true) => {
                let message = format!("The agent `{agent}` is paused.");
                Err(Error::new(Kind::Overloaded, message))
            }
        }
    }

    /// Whether no run of this agent begins.
    pub(super) fn is_paused(&self, agent: &str) -> bool {
        self.paused.lock().unwrap_or_else(PoisonError::into_inner).contains(agent)
    }
}

fn created(
    (commission, definition, hash): (&Commission, &Definition, String),
    words: Words,
    previous: Option<RunId>,
    user: Option<String>,
) -> Result<Created, Error> {
    let request = &commission.request;
    let in_session = previous.is_some();
    let mut messages = if in_session { words.fresh } else { words.all };
    if !definition.client_system {
        messages.retain(|message| !matches!(message.role, Role::System | Role::Developer));
    }
    if messages.is_empty() {
        return Err(Error::invalid("There is no message of the user's."));
    }
    if commission.blocked.is_some() {
        // What nobody was to read is not kept either.
        messages = vec![Message::new(Role::User, vec![Part::text("[refused by a guard]")])];
    }
    let client_tools = if definition.client_tools { request.tools.clone() } else { Vec::new() };
    if let Some(member) = definition.member(&definition.agent) {
        let own = member.offered(&definition.members, &[]);
        if let Some(name) = context::clash(&own, &client_tools) {
            let message = format!("The tool `{name}` is the agent's own; call yours otherwise.");
            return Err(Error::invalid(message));
        }
    }
    let caller = serde_json::to_value(CallerRef::of(&commission.caller)).unwrap_or_default();
    Ok(Created {
        agent: definition.agent.clone(),
        version: definition.version.clone(),
        definition: hash,
        previous,
        messages,
        client_tools,
        wishes: Wishes {
            sampling: request.sampling.clone(),
            format: request.format.clone(),
            tool_choice: request.tool_choice.clone(),
            parallel_tool_calls: request.parallel_tool_calls,
            max_tool_calls: most_tool_calls(request),
            background: commission.background,
            streams: request.stream,
            stream: commission.wishes.stream,
        },
        caller,
        user,
        session: commission.wishes.session.clone(),
        depth: 0,
        budget: commission.budget.map(ceiling),
        replay_of: None,
        effects: false,
        compensates: false,
        blocked: commission.blocked.clone(),
        forked_from: None,
        source: None,
        labels: commission.wishes.labels.clone(),
        headers: commission.wishes.headers.clone(),
        trace: commission.trace.as_ref().map(written),
        baggage: commission.wishes.baggage.clone(),
        webhook: commission.wishes.webhook.clone(),
        trigger: Trigger::Api,
        at: now(),
    })
}

pub(super) fn ceiling(RunBudget { usd, tokens, steps, tool_calls, seconds }: RunBudget) -> Ceiling {
    Ceiling { usd, tokens, steps, tool_calls, seconds }
}

/// What the responses API calls so.
fn most_tool_calls(request: &ChatRequest) -> Option<u32> {
    let most = request.extras.fields.get("max_tool_calls")?.as_u64()?;
    Some(u32::try_from(most).unwrap_or(u32::MAX))
}

fn new_run(
    id: RunId,
    state: RunState,
    owner: &Owner,
    commission: &Commission,
    created: &Created,
    lease: u64,
) -> NewRun {
    NewRun {
        id,
        root: id,
        parent: None,
        agent: created.agent.clone(),
        version: created.version.clone(),
        definition: created.definition.clone(),
        owner: owner.clone(),
        key: commission.caller.key().to_string(),
        user: created.user.clone(),
        session: created.session.clone(),
        head: None,
        idempotency: idempotency(commission),
        trigger: created.trigger.name().to_owned(),
        labels: created.labels.clone(),
        state,
        events: vec![entry(&Event::Created(Box::new(created.clone())))],
        told: Vec::new(),
        lease,
    }
}

/// A run that has just begun as lists would show it.
fn row_of(run: &Run, owner: Owner, epoch: u64, commission: &Commission) -> RunRow {
    RunRow {
        id: run.id,
        root: run.id,
        parent: None,
        agent: run.created.agent.clone(),
        version: run.created.version.clone(),
        definition: run.created.definition.clone(),
        owner,
        key: commission.caller.key().to_string(),
        user: run.created.user.clone(),
        session: run.created.session.clone(),
        trigger: run.created.trigger.name().to_owned(),
        labels: run.created.labels.clone(),
        state: RunState::Running,
        reason: None,
        totals: run.totals(),
        created_at: run.created.at,
        started_at: None,
        finished_at: None,
        last_seq: run.seq,
        epoch,
        takeovers: 0,
    }
}

pub(super) fn followed(live: &Arc<Live>) -> Option<Performance> {
    let follower = live.voice.tape().follow()?;
    let report: tokio::sync::watch::Receiver<Report> = live.report.subscribe();
    let (version, stream) = (live.version.clone(), live.stream);
    Some(Performance { run: live.id, version, follower, report, stream, again: None })
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
pub(super) fn away(failure: crate::store::Failure) -> Error {
    tracing::error!(%failure, "the store does not answer");
    let mut error = Error::new(Kind::Overloaded, "Runs cannot be kept at the moment; try again.");
    error.retry_after = Some(Duration::from_secs(1));
    error
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it away")]
pub(super) fn halted(halt: Halt) -> Error {
    tracing::error!(%halt, "a run cannot go on");
    Error::new(Kind::Overloaded, "The run cannot be kept at the moment; try again.")
}

/// A run at which nobody works yet. Should its client leave before, whoever finds it is to call it
/// off.
struct Unattended {
    staff: Weak<Staff>,
    run: Option<RunId>,
}

impl Drop for Unattended {
    fn drop(&mut self) {
        let (Some(run), Some(staff)) = (self.run, self.staff.upgrade()) else { return };
        let (by, reason) = ("client".to_owned(), Some("its client has left".to_owned()));
        let told = Told::Cancel { by, reason, after_step: false };
        let work = Arc::clone(&staff);
        staff.spawn(async move {
            if let Err(error) = work.tell(run, &told).await {
                tracing::warn!(%error, %run, "a run whose client has left cannot be called off");
            }
        });
    }
}
