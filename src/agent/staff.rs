//! Who works at which run in this process, and for how long: leases, places, and the look for runs
//! that nobody works at.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use super::actor::{Above, Actor, Live, Rest, report};
use super::archive::Loaded;
use super::begin::followed;
use super::budget::{Backing, Purse, Used};
use super::event::{Created, Event, Spent};
use super::gauges::Shown;
use super::journal::{Halt, Journal, now};
use super::leases::{Held, TICK, unwound};
use super::news::Herald;
use super::observe::Watch;
use super::run::Run;
use super::session::Queues;
use super::trace::trace_of;
use super::voice::Voice;
use crate::access::{Caller, CallerRef};
use crate::canon::{RunId, RunState, StopReason, Trace};
use crate::config::{Durability, OnLeave, StreamMode};
use crate::error::{Error, Kind};
use crate::gateway::Gateway;
use crate::gateway::agents::{Commission, Performance};
use crate::net::tasks::Tasks;
use crate::net::workers::Workers;
use crate::store::Store;
use crate::store::runs::{RunFilter, RunRow};
use crate::tool::Toolbox;

/// How often what waits is counted.
const COUNTED: Duration = Duration::from_secs(5);
/// Runs of one tree whose use is summed up.
const TREE: u32 = 1000;

/// All who work at runs here.
#[derive(Debug)]
pub(super) struct Staff {
    pub(super) gateway: Arc<Gateway>,
    workers: Arc<Workers>,
    /// Of runs whose lease is held here.
    pub(super) lives: Mutex<HashMap<RunId, Held>>,
    places: Arc<Semaphore>,
    /// Runs that wait for one.
    waiting: AtomicUsize,
    /// There may be something to take over.
    pub(super) wake: Notify,
    /// Agents whose runs do not begin.
    pub(super) paused: Mutex<BTreeSet<String>>,
    pub(super) begun: Mutex<super::admit::Begun>,
    pub(super) queues: Queues,
    pub(super) closing: AtomicBool,
    /// There may be something to tell others, and that is being done.
    post: Arc<Notify>,
    pub(super) posting: AtomicBool,
    /// Changes when somebody begins to work at a run.
    pub(super) arrivals: watch::Sender<()>,
}

/// Whoever listens to a run that goes on.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ear {
    /// Whether it ends when they leave; the config says, if they do not.
    on_leave: Option<OnLeave>,
    /// They hear it as it comes.
    streams: bool,
    stream: Option<StreamMode>,
}

impl Staff {
    pub(super) fn new(gateway: Arc<Gateway>, workers: Arc<Workers>) -> Arc<Self> {
        let places = gateway.snapshot().config.agent_engine.workers;
        Arc::new(Self {
            gateway,
            workers,
            lives: Mutex::default(),
            places: Arc::new(Semaphore::new(places)),
            waiting: AtomicUsize::new(0),
            wake: Notify::new(),
            paused: Mutex::default(),
            begun: Mutex::default(),
            queues: Queues::default(),
            closing: AtomicBool::new(false),
            post: Arc::default(),
            posting: AtomicBool::new(false),
            arrivals: watch::Sender::new(()),
        })
    }

    pub(super) fn toolbox(&self) -> Arc<Toolbox> {
        Arc::clone(&self.gateway.snapshot().toolbox)
    }

    /// What journals are kept with.
    pub(super) fn means(&self) -> (Store, Tasks, Watch) {
        let watch = Watch::new(&self.gateway);
        (self.gateway.store().clone(), self.gateway.tasks.clone(), watch)
    }

    /// The trace of a run, and whether it is kept: that is said to all whom it asks.
    pub(super) fn trace(&self, run: &Run) -> Trace {
        let trace = trace_of(run.id, &run.created);
        Trace { sampled: self.samples(&trace, &run.created.agent), ..trace }
    }

    pub(super) fn samples(&self, trace: &Trace, agent: &str) -> Option<bool> {
        let traces = self.gateway.telemetry.traces.as_ref();
        let own = traces.map(|traces| traces.samples(trace, Some(&format!("agent/{agent}"))));
        own.or(trace.sampled)
    }

    pub(super) fn herald(&self, root: RunId) -> Herald {
        let (gateway, post) = (Arc::clone(&self.gateway), Arc::clone(&self.post));
        Herald { gateway, post, root }
    }

    /// The work of a process: takes over what nobody works at, lets go of what is old.
    pub(super) async fn tend(self: Arc<Self>) {
        let mut pruned = tokio::time::Instant::now();
        let (mut shown, mut counted) = (Shown::default(), None);
        let mut is_used = self.has_runs().await;
        loop {
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                // One that is at work here may have been told something.
                () = self.wake.notified() => self.renew().await,
                () = self.post.notified() => {}
            }
            if self.closing.load(Ordering::Acquire) {
                return;
            }
            // Runs of agents that are gone are led to their end.
            is_used |= !self.gateway.snapshot().config.agents.is_empty();
            if !is_used || self.gateway.is_draining() {
                continue;
            }
            // What is to be told waits for nobody who is told something.
            self.spawn(Arc::clone(&self).deliver());
            self.know_paused().await;
            self.take_over().await;
            self.seal_audit().await;
            if counted.is_none_or(|at: tokio::time::Instant| at.elapsed() >= COUNTED) {
                self.show_what_waits(&mut shown).await;
                counted = Some(tokio::time::Instant::now());
            }
            if pruned.elapsed() > Duration::from_mins(10) {
                pruned = tokio::time::Instant::now();
                self.prune().await;
            }
        }
    }

    /// Whether there is any in the store, or it cannot be known.
    async fn has_runs(&self) -> bool {
        let any = self.gateway.store().runs(RunFilter::default(), 1).await;
        any.map_or(true, |rows| !rows.is_empty())
    }

    /// Takes on nothing more, and gives up what it has, so that others need not wait for it.
    pub(super) async fn close(&self) {
        self.closing.store(true, Ordering::Release);
        let held: Vec<(RunId, u64)> = self
            .lives()
            .values()
            .map(|held| {
                held.journal.lose();
                held.live.poke();
                (held.live.id, held.journal.epoch)
            })
            .collect();
        if !held.is_empty() {
            let _ = self.gateway.store().renew_runs(held, 0).await;
        }
        self.seal_audit().await;
    }

    /// What runs have done goes into the audit trail for good.
    async fn seal_audit(&self) {
        if let Err(error) = self.gateway.store().seal_audit().await {
            tracing::warn!(%error, "what runs have done waits to go into the audit trail");
        }
    }

    pub(super) async fn know_paused(&self) {
        if let Ok(paused) = self.gateway.store().paused_agents().await {
            let mut known = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
            *known = paused.into_iter().collect();
        }
    }

    async fn take_over(self: &Arc<Self>) {
        let free = u32::try_from(self.places.available_permits()).unwrap_or(u32::MAX).min(64);
        if free == 0 {
            return;
        }
        let claimed = match self.gateway.store().claim_runs(free, self.lease()).await {
            Ok(claimed) => claimed,
            Err(error) => {
                tracing::debug!(%error, "no runs could be taken over");
                return;
            }
        };
        for row in claimed {
            let staff = Arc::clone(self);
            self.spawn(async move { staff.resume(row, None).await });
        }
    }

    /// Starts work on the worker that has least to do: connections belong to one.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        match self.workers.least_loaded() {
            Some((handle, place)) => self.gateway.tasks.spawn_on(handle, async move {
                work.await;
                drop(place);
            }),
            None => self.gateway.tasks.spawn(work),
        }
    }

    /// Goes on with a run that is claimed; `voice`: for whoever waits for it.
    pub(super) async fn resume(
        self: Arc<Self>,
        row: RunRow,
        heard: Option<(tokio::sync::oneshot::Sender<Performance>, Ear)>,
    ) {
        if row.takeovers > 0 {
            self.gateway.telemetry.metrics.agent_takeovers.inc();
        }
        match self.open(&row, heard.as_ref().map(|(_, ear)| *ear)).await {
            Ok(Some(actor)) => {
                // Followed before work begins: what nobody follows may be called off.
                if let (Some((heard, _)), Some(performance)) = (heard, followed(&actor.live)) {
                    let _ = heard.send(performance);
                }
                self.work(actor, None).await;
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(run_id = %row.id, agent = %row.agent, %error, "a run could not be gone on with");
            }
        }
    }

    /// Works at a run as long as there is something to do.
    pub(super) async fn work(self: &Arc<Self>, actor: Actor, place: Option<OwnedSemaphorePermit>) {
        let place = if place.is_some() { place } else { self.wait_for_place().await };
        let rest = unwound(actor.drive_on()).await;
        // Of one that panicked the lease is given back, and it is taken over as if its process had
        // died: not for ever.
        if rest != Err(Halt::Panicked) {
            self.forget(&actor.live);
        }
        drop(place);
        if rest.is_err() {
            // Nobody here works at what it has begun.
            self.leave_tree(actor.live.root).await;
        }
        let agent = actor.definition.agent.as_str();
        match rest {
            Ok(Rest::Over(_)) => {}
            // What came meanwhile is not waited for.
            Ok(Rest::Waits(..)) => self.wake.notify_one(),
            Err(Halt::LeaseLost) => {
                if !self.closing.load(Ordering::Acquire) {
                    self.gateway.telemetry.metrics.agent_lease_lost.inc();
                    tracing::warn!(run_id = %actor.live.id, agent, "another process has taken a run over");
                }
                actor.live.voice.fail(elsewhere());
            }
            Err(Halt::Panicked) => {
                tracing::error!(run_id = %actor.live.id, agent, "a task panicked: a run is taken up again");
                let message = "Something went wrong here; the run is taken up again.";
                actor.live.voice.fail(Error::new(Kind::Internal, message));
            }
            Err(Halt::Store(error)) => {
                tracing::error!(run_id = %actor.live.id, agent, %error, "a run cannot be kept");
                let message = "The run cannot be kept at the moment; it goes on when it can.";
                actor.live.voice.fail(Error::new(Kind::Overloaded, message));
            }
        }
    }

    async fn wait_for_place(&self) -> Option<OwnedSemaphorePermit> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let place = Arc::clone(&self.places).acquire_owned().await.ok();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        place
    }

    /// So many wait that no more may.
    pub(super) fn is_full(&self) -> bool {
        let queue = self.gateway.snapshot().config.agent_engine.queue;
        self.places.available_permits() == 0 && self.waiting.load(Ordering::Relaxed) >= queue
    }

    /// A place for a run that is to begin now, or none.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    /// Whoever goes on with a run that was claimed. `None`: it has ended instead.
    async fn open(self: &Arc<Self>, row: &RunRow, ear: Option<Ear>) -> Result<Option<Actor>, Halt> {
        let most = self.gateway.snapshot().config.agent_engine.max_takeovers;
        let Loaded { run, last_at } = self.load(row).await?;
        let caller = match self.caller(&run.created).await {
            Ok(caller) => Ok(caller),
            // Whether they may is not known just now.
            Err(error) if error.kind == Kind::Overloaded => {
                return Err(Halt::Store(error.message.to_string()));
            }
            Err(error) => Err((StopReason::Denied, error.message.to_string())),
        };
        let caller = match caller {
            Ok(_) if row.takeovers > most => {
                Err((StopReason::Takeovers, "It was taken over too often.".to_owned()))
            }
            caller => caller,
        };
        let caller = match caller {
            Ok(caller) => caller,
            Err((reason, message)) => {
                self.give_up(run, row.root, row.epoch, reason, message).await?;
                return Ok(None);
            }
        };
        let used = self.used_before(row, run.spent_before()).await;
        let parts = (run, last_at);
        let actor = self.actor(parts, (row, caller), used, None, ear).await?;
        Ok(Some(actor))
    }

    /// Ends a run that nobody can go on with.
    async fn give_up(
        &self,
        run: Run,
        root: RunId,
        epoch: u64,
        reason: StopReason,
        message: String,
    ) -> Result<(), Halt> {
        let id = run.id;
        let mut events = self.end_below(&run, root, &message).await?;
        let letter = crate::store::runs::NewLetter {
            id: format!("dlq_{}", RunId::new().simple()),
            kind: "run".to_owned(),
            payload: serde_json::json!({"run": id.to_string()}).to_string(),
            error: message.clone(),
            attempts: 1,
        };
        let journal = Journal::new(self.means(), run, epoch, true);
        let _ = journal.herald.set(self.herald(root));
        let (state, at) = (RunState::Failed, now());
        let reason = Some(reason);
        let ended = Event::Ended { state, reason, message: Some(message), degraded: false, at };
        let beside = super::journal::Beside { letters: vec![letter], ..Default::default() };
        events.push(ended);
        journal.end(events, beside).await
    }

    /// What a run and all below it have used so far, with what its journal has taken over: its
    /// limits hold for all of that.
    pub(super) async fn used_before(&self, top: &RunRow, before: Spent) -> Used {
        let mut used = Used::default();
        used.add(&top.totals);
        used.take_over(before);
        for row in self.below((top.id, top.root)).await {
            used.add(&row.totals);
        }
        used
    }

    /// All that a run has begun, and what these have.
    pub(super) async fn below(&self, (top, root): (RunId, RunId)) -> Vec<RunRow> {
        let filter = RunFilter { root: Some(root), ..RunFilter::default() };
        let mut rows = self.gateway.store().runs(filter, TREE).await.unwrap_or_default();
        // A run is older than those that it began.
        rows.reverse();
        let mut tree = HashSet::from([top]);
        rows.retain(|row| {
            // All that there is belongs to the root, also where those between are too many to read.
            let is_below = row.parent.is_some_and(|parent| tree.contains(&parent));
            let is_below = row.id != top && (top == root || is_below);
            is_below && tree.insert(row.id)
        });
        rows
    }

    async fn caller(&self, created: &Created) -> Result<Caller, Error> {
        let known: CallerRef = serde_json::from_value(created.caller.clone())
            .map_err(|_| Error::new(Kind::Internal, "Its caller is not known any more."))?;
        let caller = self.gateway.recognise(&known).await?;
        // What its key may run can be another thing now; an agent that is gone is run to its end.
        let (house, agent) = (self.gateway.snapshot(), created.agent.as_str());
        let may = if house.config.agents.contains_key(agent) {
            house.may_run(&caller, agent)
        } else {
            caller.may_run_agent(agent)
        };
        if may {
            return Ok(caller);
        }
        let message = format!("Its key may not run the agent `{agent}` any more.");
        Err(Error::new(Kind::AgentNotAllowed, message))
    }

    /// Puts together who works at a run.
    pub(super) async fn actor(
        self: &Arc<Self>,
        (mut run, last_at): (Run, u64),
        (row, caller): (&RunRow, Caller),
        used: Used,
        above: Option<Above>,
        ear: Option<Ear>,
    ) -> Result<Actor, Halt> {
        let config = &self.gateway.snapshot().config.agent_engine;
        let definition = Arc::clone(&run.definition);
        let strict = is_strict(config.durability, &run);
        // One that came with its end only has to be closed.
        let (is_new, is_over) = (run.started.is_none(), run.state.is_over());
        if !is_new {
            run.waiting_since.get_or_insert(last_at);
        }
        let before = run.spent().usage;
        let stream = ear.and_then(|ear| ear.stream).unwrap_or_else(|| run.shown());
        let streams = ear.is_some_and(|ear| ear.streams) || run.created.wishes.streams;
        let only_final = stream == StreamMode::Final || run.demands() || !streams;
        let (backing, above) = match above {
            Some(above) => (Backing::Run(above.purse), Some(above.live)),
            None => (Backing::Key(caller.tab().clone()), None),
        };
        let sticky = sticky(above.as_deref(), &run);
        let purse = Purse::new(&definition.budget, run.ceiling(), used, backing);
        let (paused, depth) = (AtomicBool::new(run.paused), run.created.depth);
        let (stands, is_background) = (report(&run), run.created.wishes.background);
        let journal = Journal::new(self.means(), run, row.epoch, strict);
        let _ = journal.herald.set(self.herald(row.root));
        let live = Arc::new(Live {
            id: row.id,
            root: row.root,
            owner: row.owner.clone(),
            version: row.version.as_str().into(),
            voice: Voice::new(only_final),
            stream,
            report: watch::Sender::new(stands),
            seq: journal.seq.clone(),
            poke: Notify::new(),
            stirred: Notify::new(),
            poked: AtomicBool::new(true),
            leaves: ear.is_some_and(|ear| ear.leaves(config.on_disconnect)) && !is_background,
            patience: OnceLock::new(),
            above,
            paused,
            sticky,
        });
        let actor = Actor {
            staff: Arc::clone(self),
            journal,
            live,
            purse,
            caller,
            definition,
            depth,
            before,
            signals: AtomicU64::new(0),
            wakes: AtomicU64::new(u64::MAX),
        };
        if is_new && !is_over {
            actor.begin().await?;
        } else if !is_over {
            actor.resumes().await?;
        }
        self.appears(&actor).await;
        Ok(actor)
    }

    /// Whoever follows a run from the beginning sees that it is at work.
    async fn appears(&self, Actor { live, journal, .. }: &Actor) {
        live.report.send_replace(report(&*journal.run().await));
        let held = Held { live: Arc::clone(live), journal: Arc::clone(journal) };
        self.lives().insert(live.id, held);
        self.arrivals.send_modify(|()| {});
    }

    async fn prune(&self) {
        let config = &self.gateway.snapshot().config.agent_engine;
        let before = |kept: Duration| {
            now().saturating_sub(u64::try_from(kept.as_millis()).unwrap_or(u64::MAX))
        };
        let (completed, failed) = (before(config.keep_completed), before(config.keep_failed));
        if let Err(error) = self.gateway.store().prune_runs(completed, failed).await {
            tracing::warn!(%error, "old runs could not be let go of");
        }
    }
}

// === impl Ear ===

impl Ear {
    pub(super) fn of(commission: &Commission) -> Self {
        let wishes = &commission.wishes;
        let (on_leave, stream) = (wishes.on_disconnect, wishes.stream);
        Self { on_leave, streams: commission.request.stream, stream }
    }

    pub(super) fn leaves(self, usual: OnLeave) -> bool {
        self.on_leave.unwrap_or(usual) == OnLeave::Cancel
    }
}

/// Whether its journal is on the disk before it goes on.
fn is_strict(durability: Durability, run: &Run) -> bool {
    match durability {
        Durability::Strict => true,
        Durability::Relaxed => false,
        Durability::Auto => run.definition.changes_something() || run.created.wishes.background,
    }
}

/// By what versions of agents are drawn in the tree of a run.
fn sticky(above: Option<&Live>, run: &Run) -> Arc<str> {
    match (above, &run.created.session) {
        (Some(above), _) => Arc::clone(&above.sticky),
        (None, Some(session)) => session.as_str().into(),
        (None, None) => run.id.to_string().into(),
    }
}

fn elsewhere() -> Error {
    let message = "Another process goes on with this run; ask there, or for its events.";
    Error::new(Kind::Conflict, message)
}
