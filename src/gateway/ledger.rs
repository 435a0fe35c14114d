//! The ledger of calls: each is noted when it begins to hold money or tokens, and when it is over;
//! and what it says of the past is told to the accounts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::Gateway;
use super::call::Call;
use crate::access::account::{Account, Demand, Moment, Unseeded};
use crate::canon::{Money, Outcome, Purpose, Usage, UsageSource};
use crate::error::{Error, Kind};
use crate::store::{CallRow, Failure, Spent};

/// How soon a store that cannot tell the past is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// So long calls wait until a budget knows its past, while the store answers.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is asked of the past: all of it, or what was before a budget began to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// The process has not served a call yet.
    All,
    /// What was counted since stands in the budget already.
    Before,
}

/// Budgets come into force, or have, that may not know their past. Until this is dispelled each
/// call looks whether one of its own does not; so whoever loses it lets nothing pass by that.
#[derive(Debug)]
#[must_use = "calls ask for the past of their budgets until it is dispelled"]
pub struct Doubt(());

#[derive(Debug, Default)]
pub(super) struct Doubts {
    open: AtomicUsize,
    /// Some have learned their past, or could not.
    news: Notify,
}

// === impl Call ===

impl Call {
    /// Notes how the call is to stand in the ledger should the process end before it does: with all
    /// that is held for it, of which so many tokens for its answer. Only where a budget depends on
    /// it.
    pub(super) fn note_begin(&mut self, held: Demand, answer: u64) {
        if !self.is_budgeted() {
            return;
        }
        self.note_caller();
        // Who waits for the answer that somebody else has asked for uses nothing itself.
        let (usage, usage_source) = if held.tokens == 0 && held.nanos == 0 {
            (Usage::default(), UsageSource::None)
        } else {
            let input = self.input_estimate();
            (Usage { input, output: answer, ..Usage::default() }, UsageSource::Estimated)
        };
        let row = CallRow {
            usage,
            usage_source,
            outcome: Outcome::Internal,
            cost: held.priced.then(|| Money::from_nanos(held.nanos)),
            counted: held.tokens,
            settled_at: self.record.at,
            ..CallRow::from(&self.record)
        };
        self.gateway.store().append_open(row);
    }

    /// Notes the finished call. Who was not let in is in no ledger.
    pub(super) fn note_end(&mut self) {
        let was_let_in = self.caller.is_some() || self.record.purpose != Purpose::Client;
        if was_let_in && !self.is_only_explained() {
            self.gateway.store().append_settled(CallRow::from(&self.record));
        }
    }

    /// Whose call it is, and what their key marks it with, whatever the client says.
    pub(super) fn note_caller(&mut self) {
        let Some(caller) = &self.caller else { return };
        self.record.team = caller.team().cloned();
        self.record.user = caller.user().cloned();
        self.record.org = caller.org().cloned();
        for (name, value) in caller.tags() {
            self.record.tags.insert(name.as_str().into(), value.as_str().into());
        }
    }
}

// === impl Gateway ===

impl Gateway {
    /// To be taken before budgets come into force.
    pub fn doubt(&self) -> Doubt {
        self.doubts.open.fetch_add(1, Ordering::AcqRel);
        Doubt(())
    }

    /// All of them know their past.
    pub(super) fn dispel(&self, Doubt(()): Doubt) {
        self.doubts.open.fetch_sub(1, Ordering::AcqRel);
        self.doubts.news.notify_waiters();
    }

    /// Tells each budget that began to count with this process what the ledger says was spent of it
    /// before.
    ///
    /// While the ledger cannot be read, budgets that have a past refuse what they would have to
    /// count, and everything else is served: a limit in money or tokens is never guessed, and
    /// nobody without one waits for a database.
    pub async fn seed(&self, past: Past) -> Result<(), Failure> {
        let (house, trial) = (self.snapshot(), self.trial());
        let tried = trial.iter().flat_map(|trial| trial.candidate.tabs.all());
        let accounts: Vec<_> =
            house.tabs.all().chain(tried).cloned().chain(house.roster.all_accounts()).collect();
        // What ended just now, or before a start without the store, is only noted yet.
        if accounts.iter().any(|account| !account.unseeded().is_empty()) {
            self.store().flush().await?;
        }
        self.seed_accounts(&accounts, past).await
    }

    pub(super) async fn seed_accounts(
        &self,
        accounts: &[Arc<Account>],
        past: Past,
    ) -> Result<(), Failure> {
        for account in accounts {
            self.seed_account(account, past).await?;
        }
        Ok(())
    }

    /// The same in a task of its own, which tries until it succeeds or the gateway is about to end.
    pub fn seed_later(self: &Arc<Self>, past: Past, doubt: Doubt) {
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move { gateway.seed_at_last(past, doubt).await });
    }

    async fn seed_at_last(&self, past: Past, doubt: Doubt) {
        let mut draining = self.draining.subscribe();
        let mut is_told = false;
        while let Err(error) = self.seed(past).await {
            // Who waits for it looks whether the store is still there.
            self.doubts.news.notify_waiters();
            if !std::mem::replace(&mut is_told, true) {
                tracing::error!(%error, "budgets wait for what was spent before");
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                _ = draining.wait_for(|is_draining| *is_draining) => return,
            }
        }
        self.dispel(doubt);
        if is_told {
            tracing::info!("budgets know what was spent before");
        }
    }

    /// Puts into the metrics how the store does.
    pub fn show_store(&self) {
        let metrics = &self.telemetry.metrics;
        metrics.store_up.set(self.store().is_up().into());
        let pending = i64::try_from(self.store().ledger_pending());
        metrics.ledger_pending.set(pending.unwrap_or(i64::MAX));
        metrics.ledger_lost.reset();
        metrics.ledger_lost.inc_by(self.store().ledger_lost());
    }

    /// Waits until each of these knows its past: none counts a call before. Refuses when the store
    /// does not tell it in time.
    pub(super) async fn await_past(&self, accounts: &[Arc<Account>]) -> Result<(), Error> {
        // Hardly ever more than this one look.
        if self.doubts.open.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        Box::pin(self.learn_past(accounts)).await
    }

    async fn learn_past(&self, accounts: &[Arc<Account>]) -> Result<(), Error> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut news = std::pin::pin!(self.doubts.news.notified());
            // What is told from here on is heard.
            news.as_mut().enable();
            if accounts.iter().all(|account| account.unseeded().is_empty()) {
                return Ok(());
            }
            if !self.store().is_up() || timeout_at(deadline, news).await.is_err() {
                return Err(untold());
            }
        }
    }

    pub(super) async fn seed_account(
        &self,
        account: &Arc<Account>,
        past: Past,
    ) -> Result<(), Failure> {
        let unseeded = account.unseeded();
        if unseeded.is_empty() {
            return Ok(());
        }
        let name = format!("{}:{}", account.scope.name(), account.name);
        let (desk, node) = (self.desk(), self.store().node());
        let shared = account.shared_budgets(Moment::now());
        for Unseeded { budget, unit, from, since } in unseeded {
            let to = (past == Past::Before).then(|| since.into());
            let spent = self.store().spent(&name, unit, (from.into(), to)).await?;
            // Where replicas count together, each tells the others what it has spent itself; of
            // those who may be gone the ledger says it.
            let is_own = |spent: &Spent| desk.is_none() || *spent.node == **node;
            let (own, others): (Vec<_>, Vec<_>) = spent.into_iter().partition(is_own);
            let own =
                own.iter().filter_map(|spent| Some((spent.at.try_into().ok()?, spent.amount)));
            account.seed(budget, &own.collect::<Vec<_>>(), Moment::now());
            if let (Some(desk), Some(shared)) = (desk, shared.get(budget)) {
                desk.recall(shared.recalled(&others, Moment::now().wall));
            }
        }
        Ok(())
    }
}

fn untold() -> Error {
    let message = "The gateway cannot look up what was spent of a budget before.";
    let mut error = Error::new(Kind::Overloaded, message);
    error.retry_after = Some(AGAIN);
    error
}
