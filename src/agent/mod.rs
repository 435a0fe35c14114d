//! One run: many calls of models and tools, with limits, approvals and a journal that survives the
//! process. Start reading at `run`, the pure part, and `actor`, which does what it says.

mod act;
mod actor;
mod admit;
mod again;
mod answers;
mod archive;
mod aside;
mod ask;
mod begin;
mod below;
mod budget;
mod catalogue;
mod children;
mod close;
mod context;
mod control;
mod counts;
mod decisions;
mod demanded;
pub mod definition;
pub mod event;
mod follow_up;
mod gauges;
mod journal;
mod leases;
mod news;
mod observe;
mod people;
mod perform;
mod plan;
mod post;
pub mod run;
mod session;
mod staff;
mod trace;
mod view;
mod voice;
mod when;
mod wants;
mod words;

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

pub use self::admit::labels;
pub use self::again::Again;
pub use self::answers::Written;
pub use self::below::Asker;
pub use self::control::{Along, Told, Verdict, may_decide};
use self::staff::Staff;
use crate::access::{Caller, CallerRef};
use crate::canon::{Owner, RunId};
use crate::error::Error;
use crate::gateway::Gateway;
use crate::gateway::agents::{Commission, Conductor, Doing, Performance};
use crate::net::workers::Workers;
use crate::store::runs::{ApprovalRow, Decided, LetterRow, RunRow};
use crate::telemetry::RunSpan;

/// The handle of those who run agents.
#[derive(Debug, Clone)]
pub struct Agents(Arc<Staff>);

impl Agents {
    /// Gives itself in to the gateway; [`Self::tend`] is to be run as well.
    pub fn new(gateway: &Arc<Gateway>, workers: &Arc<Workers>) -> Self {
        let agents = Self(Staff::new(Arc::clone(gateway), Arc::clone(workers)));
        gateway.set_conductor(Arc::new(agents.clone()));
        agents
    }

    /// Holds leases and takes over what nobody works at, until it is closed.
    pub async fn tend(&self) {
        let ring = || self.0.wake.notify_one();
        tokio::select! {
            () = Arc::clone(&self.0).tend() => {}
            () = self.0.hold() => {}
            () = self.0.gateway.store().listen(ring) => {}
        }
    }

    /// Takes on nothing more; what is at work here others go on with.
    pub async fn close(&self) {
        self.0.close().await;
    }

    /// Learns at once which agents begin no runs.
    pub async fn know_paused(&self) {
        self.0.know_paused().await;
    }

    /// Tells a run something. False where it is over.
    pub async fn tell(&self, run: RunId, told: Told) -> Result<bool, Error> {
        self.0.tell(run, &told).await
    }

    /// Whether an answer is what a run has asked for.
    pub async fn check_answer(
        &self,
        row: &RunRow,
        request: Option<&str>,
        values: &Value,
    ) -> Result<(), Error> {
        self.0.check_answer(row, request, values).await
    }

    /// What a text is that somebody writes to a run that asks its user something.
    pub async fn written(&self, row: &RunRow, text: &str) -> Result<Written, Error> {
        self.0.written(row, text).await
    }

    /// Whom an answer is for that comes to a run: itself, or one below it.
    pub async fn asker(&self, row: &RunRow, wanted: Option<&str>) -> Result<Option<Asker>, Error> {
        self.0.asker(row, wanted).await
    }

    /// Those of the runs below one that wait.
    pub async fn waiting_below(&self, row: &RunRow) -> Vec<RunRow> {
        self.0.waiting_below((row.id, row.root)).await
    }

    /// Decides about a call that needs approval. Whether the caller may is asked before.
    pub async fn decide(&self, approval: &ApprovalRow, verdict: Verdict) -> Result<Decided, Error> {
        self.0.decide(approval, verdict).await
    }

    /// A run that is at work here, for whoever reads its journal along.
    pub fn follow(&self, run: RunId) -> Option<Along> {
        self.0.follow(run)
    }

    /// Changes whenever somebody here begins to work at a run, or goes on with one.
    pub fn arrivals(&self) -> watch::Receiver<()> {
        self.0.arrivals.subscribe()
    }

    /// A run with all that its journal says of it.
    pub async fn whole(&self, row: &RunRow) -> Result<run::Run, Error> {
        self.0.whole(row).await
    }

    /// The team of the key that has begun a run.
    pub async fn team(&self, row: &RunRow) -> Result<Option<String>, Error> {
        let (created, ..) = self.0.entries(row.id).await.map_err(begin::halted)?;
        let caller = serde_json::from_value::<CallerRef>(created.caller);
        Ok(caller.ok().and_then(|caller| caller.team))
    }

    /// What the agent of a run is in it, whatever the config says by now.
    pub async fn definition(&self, row: &RunRow) -> Result<Arc<definition::Definition>, Error> {
        self.0.definition(&row.definition).await.map_err(begin::halted)
    }

    /// What those have used that a run has begun and that is at work, or waits.
    pub async fn spent_below(&self, row: &RunRow) -> event::Spent {
        self.0.spent_below(row).await
    }

    /// What a trace shows of a run and of those that it began.
    pub async fn spans(&self, row: &RunRow) -> Result<Vec<RunSpan>, Error> {
        self.0.spans(row).await.map_err(begin::halted)
    }

    /// Tries again what came to nothing, and says what came of it.
    pub async fn retry_letter(&self, caller: &Caller, letter: &LetterRow) -> Result<Value, Error> {
        self.0.retry_letter(caller, letter).await
    }

    /// Begins a run that is made of another one.
    pub async fn again(&self, caller: &Caller, of: &RunRow, how: Again) -> Result<RunId, Error> {
        self.0.again(caller, of, how).await
    }

    /// What people must decide before a run goes on.
    pub fn pending(run: &run::Run) -> Vec<Value> {
        view::pending(run)
    }
}

impl Conductor for Agents {
    fn conduct(&self, commission: Box<Commission>) -> Doing<Result<Performance, Error>> {
        Box::pin(Arc::clone(&self.0).conduct(commission))
    }

    fn cancel(&self, run: RunId, owner: Owner) -> Doing<Result<(), Error>> {
        let staff = Arc::clone(&self.0);
        Box::pin(async move { staff.cancel(run, &owner).await })
    }

    fn rejoin(
        &self,
        run: RunId,
        since: u64,
        owner: Owner,
    ) -> Doing<Result<Option<Performance>, Error>> {
        let staff = Arc::clone(&self.0);
        Box::pin(async move { staff.rejoin(run, since, &owner).await })
    }
}
