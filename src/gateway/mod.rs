//! One call, from arrival to settled record. Start reading at `pipeline`.

mod admission;
pub mod agents;
mod anew;
mod arrival;
mod ask;
mod at_start;
mod batches;
mod bearings;
mod body;
mod build;
mod call;
mod canary;
mod chain;
pub mod collector;
mod count;
mod desk;
pub mod directory;
mod drill;
mod embed;
mod errand;
mod explain;
mod flow;
mod form;
mod fresh;
pub mod generations;
mod guarding;
mod hedge;
mod journey;
mod keep;
mod lease;
mod ledger;
mod live;
mod measure;
mod needs;
mod objects;
mod onward;
mod oracle;
mod pass;
mod pipeline;
pub mod recording;
mod relay;
mod relayed;
mod remember;
mod reload;
mod reply;
mod responses;
pub mod secrets;
mod reword;
mod rival;
mod session;
mod shadow;
mod shelf;
mod snapshot;
mod tape;
mod task;
mod till;
mod traced;
pub mod trial;
mod upload;
mod verdict;
mod whole;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::watch;

use self::agents::Conductor;
pub use self::arrival::{Arrival, Ask, Filed};
pub use self::at_start::at_next_start;
pub use self::body::Body;
use self::desk::Desk;
use self::drill::Drills;
pub use self::lease::{ByteBudget, Lease};
use self::ledger::Doubts;
pub use self::ledger::Past;
use self::measure::Lengths;
pub use self::pipeline::shutting_down;
use self::recording::Recorder;
pub use self::reload::{FILE, Order, Outlook, Overrides, ReloadStatus, Reloader, Return, refusal};
use self::remember::Together;
use self::responses::Jobs;
use self::shelf::Shelf;
pub use self::snapshot::{Means, Snapshot};
use self::task::Decisions;
pub use self::traced::{baggage_in, passed_in, trace_in};
use self::trial::Trial;
use crate::cache::Cache;
use crate::canon::Outcome;
use crate::net::client::Client;
use crate::net::shed::Gauge;
use crate::net::tasks::Tasks;
use crate::route::allowance::Allowance;
use crate::store::Store;
use crate::store::shared::Turns;
use crate::telemetry::Telemetry;

/// Of the calls of ten seconds, so many thousandths may be retried, and so many in any case.
const RETRIES_PERMILLE: u32 = 100;
const RETRIES_AT_LEAST: u64 = 10;

/// So many answers are read on without a client at the same time; others are broken off.
const MOST_DRAINS: usize = 256;

/// The handle that every door holds: what is configured now, and what outlives a reload.
#[derive(Debug)]
pub struct Gateway {
    live: ArcSwap<Snapshot>,
    /// What some calls go by instead.
    trial: ArcSwapOption<Trial>,
    pub client: Client,
    pub telemetry: Telemetry,
    store: Store,
    /// What was made at run time and is in force here.
    directory: directory::Directory,
    /// Whether budgets may be in force that do not know their past yet.
    doubts: Doubts,
    /// Where replicas count together.
    desk: OnceLock<Desk>,
    shelf: Shelf,
    /// Who runs agents, once they are at work.
    conductor: OnceLock<Arc<dyn Conductor>>,
    /// Responses that are made in the background.
    jobs: Jobs,
    /// What kinds of work conversations are, where it took asking somebody.
    decisions: Decisions,
    /// Requests that may go to targets which have failed the same call before.
    retries: Allowance,
    /// What the last drill of each route came to.
    drills: Mutex<Drills>,
    /// How long answers are for whom.
    lengths: Lengths,
    /// What was already answered.
    pub cache: Arc<Cache>,
    /// The same of all replicas, where they share it.
    answers: OnceLock<Together>,
    /// Where the limits of tools are counted together with other replicas.
    turns: OnceLock<Arc<Turns>>,
    /// Work that goes on when its call is over.
    pub tasks: Tasks,
    /// Answers that are read to their end although nobody waits for them.
    drains: Gauge,
    /// Keeps chosen calls in files.
    pub recorder: Recorder,
    /// Calls in flight.
    pub gauge: Gauge,
    /// Bytes of request bodies that are held.
    pub bodies: ByteBudget,
    /// Turns true when the time for what is under way is over.
    ending: watch::Sender<bool>,
    /// The same for who is looked after anyway.
    ended: AtomicBool,
    /// Turns true when no new work is wanted.
    draining: watch::Sender<bool>,
    /// Tells that the tools are those of another config.
    equipped: watch::Sender<()>,
}

impl Gateway {
    pub fn new(
        snapshot: Snapshot,
        client: Client,
        store: Store,
        telemetry: Telemetry,
    ) -> Arc<Self> {
        let server = &snapshot.config.server;
        let tasks = Tasks::default();
        telemetry.metrics.config_generation.set(snapshot.generation.cast_signed());
        Arc::new(Self {
            recorder: Recorder::new(&telemetry.metrics),
            drains: Gauge::new(MOST_DRAINS),
            gauge: Gauge::new(server.max_in_flight),
            bodies: ByteBudget::new(server.body_budget),
            trial: ArcSwapOption::empty(),
            client,
            telemetry,
            shelf: Shelf::new(store.clone(), tasks.clone()),
            directory: directory::Directory::default(),
            conductor: OnceLock::new(),
            jobs: Jobs::default(),
            decisions: task::remembered(),
            retries: Allowance::new(RETRIES_PERMILLE, RETRIES_AT_LEAST),
            drills: Mutex::default(),
            lengths: Lengths::default(),
            cache: Arc::new(Cache::new(snapshot.config.cache.max_bytes)),
            answers: OnceLock::new(),
            turns: OnceLock::new(),
            live: ArcSwap::from_pointee(snapshot),
            tasks,
            store,
            doubts: Doubts::default(),
            desk: OnceLock::new(),
            ending: watch::Sender::new(false),
            ended: AtomicBool::new(false),
            draining: watch::Sender::new(false),
            equipped: watch::Sender::new(()),
        })
    }

    /// What is configured now. A call loads it once and keeps it to its end.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.live.load_full()
    }

    /// What survives a restart.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Has `snapshot` go on with what is known of users by the one that is served.
    fn adopt(&self, mut snapshot: Box<Snapshot>) -> Arc<Snapshot> {
        snapshot.tokens.inherit(&self.snapshot().tokens);
        Arc::from(snapshot)
    }

    /// Serves `snapshot` from the next call on.
    fn swap(&self, snapshot: Arc<Snapshot>) {
        snapshot.take_effect();
        self.gauge.set_limit(snapshot.config.server.max_in_flight);
        self.bodies.set_limit(snapshot.config.server.body_budget);
        self.telemetry.metrics.config_generation.set(snapshot.generation.cast_signed());
        self.live.store(snapshot);
        self.equipped.send_replace(());
        self.tend_tools();
    }

    /// Has the tools that are served now learn what they can do, those of servers above all.
    pub fn tend_tools(&self) {
        let toolbox = Arc::clone(&self.snapshot().toolbox);
        let mut equipped = self.equipped.subscribe();
        self.tasks.spawn(async move {
            // What nobody is served any more need not be reached.
            tokio::select! {
                () = toolbox.refresh() => {}
                _ = equipped.changed() => {}
            }
        });
    }

    /// What tools are made with.
    fn means(&self) -> Means<'_> {
        (&self.client, &self.store, &self.telemetry.metrics, self.turns.get())
    }

    /// Where the limits of tools are counted together with other replicas, from the next config on.
    pub fn take_turns_in(&self, turns: Arc<Turns>) {
        self.turns.get_or_init(|| turns);
    }

    /// Says that no new work is wanted: readiness turns off.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Ends the streams that are still open, each with an error event of its dialect.
    pub fn end_calls(&self) {
        self.ended.store(true, Ordering::Release);
        self.ending.send_replace(true);
    }

    /// Whether what is under way is to end.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Why a call is dropped that has come to no end: its worker panics, the process ends, or its
    /// client has left.
    fn abandoned(&self) -> Outcome {
        if std::thread::panicking() {
            Outcome::Internal
        } else if self.has_ended() {
            Outcome::UpstreamTruncated
        } else {
            Outcome::ClientClosed
        }
    }

    /// Has this one run agents, from now on to the end of the process.
    pub fn set_conductor(&self, conductor: Arc<dyn Conductor>) {
        if self.conductor.set(conductor).is_err() {
            tracing::error!("agents are run by somebody already");
        }
    }

    fn conductor(&self) -> Option<Arc<dyn Conductor>> {
        self.conductor.get().cloned()
    }

    /// Turns true when what is under way is to end.
    pub fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }

    /// Waits until what is under way is to end.
    pub fn until_end(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut ending = self.ending();
        async move {
            let _ = ending.wait_for(|ending| *ending).await;
        }
    }

    /// Turns true when no new work is wanted.
    pub fn draining(&self) -> watch::Receiver<bool> {
        self.draining.subscribe()
    }
}
