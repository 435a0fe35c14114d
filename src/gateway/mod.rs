//! One call, from arrival to settled record. Start reading at `pipeline`.

mod admission;
mod arrival;
mod ask;
mod batches;
mod bearings;
mod body;
mod build;
mod call;
mod chain;
pub mod collector;
mod desk;
pub mod directory;
mod drill;
mod embed;
mod errand;
mod explain;
mod flow;
mod guarding;
mod hedge;
mod journey;
mod ledger;
mod live;
mod measure;
mod needs;
mod objects;
mod onward;
mod oracle;
mod pass;
mod pipeline;
mod relay;
mod relayed;
mod reload;
mod reply;
mod responses;
mod reword;
mod session;
mod shadow;
mod shelf;
mod snapshot;
mod tape;
mod task;
mod till;
mod traced;
mod upload;
mod verdict;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;
use tokio::sync::watch;

pub use self::arrival::{Arrival, Ask, ByteBudget, Filed};
pub use self::body::Body;
use self::desk::Desk;
use self::drill::Drills;
pub use self::ledger::Past;
use self::measure::Lengths;
pub use self::reload::{Overrides, ReloadStatus, Reloader};
use self::responses::Jobs;
use self::shelf::Shelf;
pub use self::snapshot::Snapshot;
use self::task::Decisions;
use crate::net::client::Client;
use crate::net::shed::Gauge;
use crate::net::tasks::Tasks;
use crate::route::allowance::Allowance;
use crate::store::Store;
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
    pub client: Client,
    pub telemetry: Telemetry,
    store: Store,
    /// What was made at run time and is in force here.
    directory: directory::Directory,
    /// Some budgets do not know their past yet, for the store cannot be read.
    lacks_past: AtomicBool,
    /// Where replicas count together.
    desk: OnceLock<Desk>,
    shelf: Shelf,
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
    /// Work that goes on when its call is over.
    pub tasks: Tasks,
    /// Answers that are read to their end although nobody waits for them.
    drains: Gauge,
    /// Calls in flight.
    pub gauge: Gauge,
    /// Bytes of request bodies that are held.
    pub bodies: ByteBudget,
    /// Turns true when the time for open streams is over.
    ending: watch::Sender<bool>,
    /// Turns true when no new work is wanted.
    draining: watch::Sender<bool>,
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
            drains: Gauge::new(MOST_DRAINS),
            gauge: Gauge::new(server.max_in_flight),
            bodies: ByteBudget::new(server.body_budget),
            live: ArcSwap::from_pointee(snapshot),
            client,
            telemetry,
            shelf: Shelf::new(store.clone(), tasks.clone()),
            directory: directory::Directory::default(),
            jobs: Jobs::default(),
            decisions: task::remembered(),
            retries: Allowance::new(RETRIES_PERMILLE, RETRIES_AT_LEAST),
            drills: Mutex::default(),
            lengths: Lengths::default(),
            tasks,
            store,
            lacks_past: AtomicBool::new(false),
            desk: OnceLock::new(),
            ending: watch::Sender::new(false),
            draining: watch::Sender::new(false),
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

    /// Serves `snapshot` from the next call on.
    fn swap(&self, mut snapshot: Snapshot) {
        snapshot.tokens.inherit(&self.snapshot().tokens);
        self.gauge.set_limit(snapshot.config.server.max_in_flight);
        self.bodies.set_limit(snapshot.config.server.body_budget);
        self.telemetry.metrics.config_generation.set(snapshot.generation.cast_signed());
        self.live.store(Arc::new(snapshot));
    }

    /// Says that no new work is wanted: readiness turns off.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Ends the streams that are still open, each with an error event of its dialect.
    pub fn end_streams(&self) {
        self.ending.send_replace(true);
    }

    fn ending(&self) -> watch::Receiver<bool> {
        self.ending.subscribe()
    }
}
