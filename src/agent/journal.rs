//! The journal of one run that is at work here: what is not in the store has not happened.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::{Mutex, MutexGuard, oneshot, watch};
use tokio::time::Instant;

use super::event::Event;
use super::news::Herald;
use super::observe::{self, Watch};
use super::run::Run;
use crate::canon::{RunId, RunState, StopReason};
use crate::net::tasks::Tasks;
use crate::store::Store;
use crate::store::runs::{Append, Appended, NewApproval, NewEvent, NewLetter, Totals};

/// A run whose lease is held here.
#[derive(Debug)]
pub(super) struct Journal {
    pub(super) id: RunId,
    pub(super) epoch: u64,
    store: Store,
    tasks: Tasks,
    watch: Watch,
    run: Mutex<Run>,
    /// Intents are on the disk before anything happens.
    strict: bool,
    /// Somebody else holds it now.
    lost: AtomicBool,
    /// The store knows that the run is over.
    closed: AtomicBool,
    /// Finds what others are to be told.
    pub(super) herald: OnceLock<Herald>,
    /// The number of its last entry, for those who read along.
    pub(super) seq: watch::Sender<u64>,
}

/// Why a run cannot go on here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Halt {
    #[error("another process has taken the run over")]
    LeaseLost,
    #[error("the journal cannot be written: {0}")]
    Store(String),
    #[error("a task panicked")]
    Panicked,
}

/// What goes into the store together with entries.
#[derive(Debug, Default)]
pub(super) struct Beside {
    pub(super) approvals: Vec<NewApproval>,
    pub(super) letters: Vec<NewLetter>,
    pub(super) blobs: Vec<(String, Vec<u8>)>,
    pub(super) signals: u64,
    /// An effect follows.
    pub(super) intent: bool,
}

/// In which state the run is left.
#[derive(Debug, Clone, Copy)]
struct Stand {
    state: RunState,
    reason: Option<StopReason>,
    wake_at: Option<u64>,
}

impl Journal {
    pub(super) fn new(
        (store, tasks, watch): (Store, Tasks, Watch),
        run: Run,
        epoch: u64,
        strict: bool,
    ) -> Arc<Self> {
        let (lost, closed) = (AtomicBool::new(false), AtomicBool::new(false));
        let seq = watch::Sender::new(run.seq);
        let (id, run) = (run.id, Mutex::new(run));
        let herald = OnceLock::new();
        Arc::new(Self { id, epoch, store, tasks, watch, run, strict, lost, closed, herald, seq })
    }

    /// The run as it stands. Nothing is appended while this is held.
    pub(super) async fn run(&self) -> MutexGuard<'_, Run> {
        self.run.lock().await
    }

    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    pub(super) fn lose(&self) {
        self.lost.store(true, Ordering::Release);
    }

    /// Adds entries; the run takes them in when they are stored.
    pub(super) async fn append(self: &Arc<Self>, events: Vec<Event>) -> Result<(), Halt> {
        self.append_with(events, Beside::default()).await
    }

    /// Adds what is about to be done.
    pub(super) async fn intend(self: &Arc<Self>, events: Vec<Event>) -> Result<(), Halt> {
        self.append_with(events, Beside { intent: true, ..Beside::default() }).await
    }

    pub(super) async fn append_with(
        self: &Arc<Self>,
        events: Vec<Event>,
        beside: Beside,
    ) -> Result<(), Halt> {
        let stand = Stand { state: RunState::Running, reason: None, wake_at: None };
        self.write(events, beside, stand).await
    }

    /// Lets go of the run until something comes, or that time.
    pub(super) async fn rest(
        self: &Arc<Self>,
        state: RunState,
        wake_at: Option<u64>,
    ) -> Result<(), Halt> {
        let stand = Stand { state, reason: None, wake_at };
        self.write(Vec::new(), Beside::default(), stand).await
    }

    /// The last entries, and the end.
    pub(super) async fn end(
        self: &Arc<Self>,
        events: Vec<Event>,
        beside: Beside,
    ) -> Result<(), Halt> {
        let last = events.iter().rev().find_map(|event| match event {
            Event::Ended { state, reason, .. } => Some((*state, *reason)),
            _ => None,
        });
        let known = {
            let run = self.run.lock().await;
            run.finished.map(|_| (run.state, run.reason))
        };
        let last = last.or(known);
        let (state, reason) = last.unwrap_or((RunState::Failed, Some(StopReason::Internal)));
        self.write(events, beside, Stand { state, reason, wake_at: None }).await?;
        self.closed.store(true, Ordering::Release);
        Ok(())
    }

    /// In a task of its own: whoever is called off in the middle of it does not leave the run
    /// without what the store has, and does not keep others from it.
    async fn write(
        self: &Arc<Self>,
        events: Vec<Event>,
        beside: Beside,
        stand: Stand,
    ) -> Result<(), Halt> {
        let (done, told) = oneshot::channel();
        let journal = Arc::clone(self);
        self.tasks.spawn(async move {
            let _ = done.send(journal.write_now(events, beside, stand).await);
        });
        told.await.unwrap_or_else(|_| Err(Halt::Store("a task failed".to_owned())))
    }

    async fn write_now(
        &self,
        mut events: Vec<Event>,
        beside: Beside,
        stand: Stand,
    ) -> Result<(), Halt> {
        let mut run = self.run.lock().await;
        if self.is_lost() {
            return Err(Halt::LeaseLost);
        }
        // Two may say at the same moment what became of a call: its end, and whoever calls it off.
        let said = events.len();
        events.retain(|event| run.awaits(event));
        if said > 0 && events.is_empty() {
            return Ok(());
        }
        let herald = self.herald.get();
        let news = herald.map(|herald| herald.news(&run, &events, stand.state));
        let deliveries = news.unwrap_or_default();
        let is_news = !deliveries.is_empty();
        let append = Append {
            run: self.id,
            epoch: self.epoch,
            after: run.seq,
            events: events.iter().map(entry).collect(),
            state: stand.state,
            reason: stand.reason.map(|reason| reason.name().to_owned()),
            totals: totals(run.totals(), &events),
            wake_at: stand.wake_at,
            approvals: beside.approvals,
            letters: beside.letters,
            settled: events.iter().filter_map(settled).collect(),
            blobs: beside.blobs,
            deliveries,
            audits: observe::audits(&run, &events),
            withdraw: stand.state.is_over(),
            signals: beside.signals,
            durable: beside.intent && self.strict,
        };
        let (strict, began) = (append.durable, Instant::now());
        let appended = self.store.append_run(append).await;
        self.watch.stored(strict, began.elapsed());
        match appended {
            Ok(Appended::Done) => {
                for event in &events {
                    self.watch.tells(&run, event);
                    run.apply(event);
                }
                self.seq.send_replace(run.seq);
                if stand.state.is_waiting() {
                    self.watch.rests(&run, stand.state);
                    run.rests(stand.state, now());
                }
                if let Some(herald) = herald.filter(|_| is_news) {
                    herald.wake();
                }
                Ok(())
            }
            Ok(Appended::LeaseLost) => {
                self.lose();
                Err(Halt::LeaseLost)
            }
            Err(failure) => Err(Halt::Store(failure.to_string())),
        }
    }
}

pub(super) fn entry(event: &Event) -> NewEvent {
    NewEvent { kind: event.kind(), data: serde_json::to_string(event).unwrap_or_default() }
}

/// The call of which it is known now what became of it.
fn settled(event: &Event) -> Option<String> {
    match event {
        Event::Resolved { id, .. } => Some(id.clone()),
        _ => None,
    }
}

/// What has been used behind these entries.
fn totals(before: Totals, events: &[Event]) -> Totals {
    events.iter().fold(before, |mut totals, event| {
        match event {
            Event::Asked(asking) => totals.steps = totals.steps.max(asking.call),
            Event::Requested(_) => totals.tool_calls += 1,
            Event::Done { bytes, .. } => totals.bytes += bytes,
            Event::Answered { usage, cost, .. }
            | Event::AskFailed { usage, cost, .. }
            | Event::Compacted { usage, cost, .. }
            | Event::Planned { usage, cost, .. } => {
                totals.tokens_in += usage.input_total();
                totals.tokens_out += usage.output;
                totals.cost += cost.unwrap_or_default();
            }
            _ => {}
        }
        totals
    })
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
