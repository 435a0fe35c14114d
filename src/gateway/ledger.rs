//! The ledger of calls: each is noted when it begins to hold money or tokens, and when it is over;
//! and what it says of the past is told to the accounts.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Gateway;
use super::call::Call;
use crate::access::account::{Account, Moment, Unseeded};
use crate::canon::{Outcome, Purpose, Usage, UsageSource};
use crate::error::{Error, Kind};
use crate::store::{CallRow, Failure};

/// How soon a store that cannot tell the past is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// What is asked of the past: all of it, or what was before a budget began to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// The process has not served a call yet.
    All,
    /// What was counted since stands in the budget already.
    Before,
}

// === impl Call ===

impl Call {
    /// Notes how the call is to stand in the ledger should the process end before it does: with its
    /// question, by estimate. Only where a budget depends on it.
    pub(super) fn note_begin(&mut self) {
        if !self.is_budgeted() {
            return;
        }
        self.is_of_caller();
        let usage = Usage { input: self.input_estimate(), ..Usage::default() };
        let target = self.chain.as_ref().and_then(|chain| chain.targets.first());
        let price = target.and_then(|target| target.info.price.as_ref());
        let row = CallRow {
            usage,
            usage_source: UsageSource::Estimated,
            outcome: Outcome::Internal,
            cost: price.map(|price| price.cost(&usage)),
            counted: self.house.config.token_weights.count(&usage),
            settled_at: self.record.at,
            ..CallRow::from(&self.record)
        };
        self.gateway.store().append_open(&row);
    }

    /// Notes the finished call. Who was not let in is in no ledger.
    pub(super) fn note_end(&mut self) {
        let was_let_in = self.caller.is_some() || self.record.purpose != Purpose::Client;
        if was_let_in && !self.is_only_explained() {
            self.gateway.store().append_settled(&CallRow::from(&self.record));
        }
    }

    /// Whose call it is, and what their key marks it with, whatever the client says.
    pub(super) fn is_of_caller(&mut self) {
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
    /// Tells each budget that began to count with this process what the ledger says was spent of it
    /// before.
    ///
    /// While the ledger cannot be read, budgets that have a past refuse what they would have to
    /// count, and everything else is served: a limit in money or tokens is never guessed, and
    /// nobody without one waits for a database.
    pub async fn seed(&self, past: Past) -> Result<(), Failure> {
        let house = self.snapshot();
        let accounts: Vec<_> =
            house.tabs.all().cloned().chain(house.roster.all_accounts()).collect();
        // What ended just now, or before a start without the store, is only noted yet.
        if accounts.iter().any(|account| !account.unseeded().is_empty())
            && let Err(error) = self.store().flush().await
        {
            self.lacks_past.store(true, Ordering::Relaxed);
            return Err(error);
        }
        self.seed_accounts(&accounts, past).await?;
        self.lacks_past.store(false, Ordering::Relaxed);
        Ok(())
    }

    pub(super) async fn seed_accounts(
        &self,
        accounts: &[Arc<Account>],
        past: Past,
    ) -> Result<(), Failure> {
        for account in accounts {
            if let Err(error) = self.seed_account(account, past).await {
                self.lacks_past.store(true, Ordering::Relaxed);
                return Err(error);
            }
        }
        Ok(())
    }

    /// The same, until it succeeds or the gateway is about to end.
    pub async fn seed_at_last(&self, past: Past) {
        let mut draining = self.draining.subscribe();
        let mut is_told = false;
        while let Err(error) = self.seed(past).await {
            if !std::mem::replace(&mut is_told, true) {
                tracing::error!(%error, "budgets wait for what was spent before");
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                _ = draining.wait_for(|is_draining| *is_draining) => return,
            }
        }
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
    }

    /// Refuses what one of these would have to count and cannot, for it does not know its past.
    pub(super) fn refuse_unseeded(&self, accounts: &[Arc<Account>]) -> Result<(), Error> {
        // Hardly ever more than this one look.
        if !self.lacks_past.load(Ordering::Relaxed)
            || accounts.iter().all(|account| account.unseeded().is_empty())
        {
            return Ok(());
        }
        let message = "The gateway cannot look up what was spent of a budget before.";
        let mut error = Error::new(Kind::Overloaded, message);
        error.retry_after = Some(AGAIN);
        Err(error)
    }

    pub(super) async fn seed_account(
        &self,
        account: &Arc<Account>,
        past: Past,
    ) -> Result<(), Failure> {
        let name = format!("{}:{}", account.scope.name(), account.name);
        for Unseeded { budget, unit, from, since } in account.unseeded() {
            let to = (past == Past::Before).then(|| since.into());
            let window = (from.into(), to);
            let spent = if self.desk().is_none() {
                self.store().spent(&name, unit, window).await?
            } else {
                // Where replicas count together, each tells the others what it has spent itself.
                let by_node = self.store().spent_by_node(&name, unit, window).await?;
                let node = self.store().node();
                let own = by_node.into_iter().filter(|spent| *spent.node == **node);
                own.map(|spent| (spent.at, spent.amount)).collect()
            };
            let spent: Vec<_> = spent
                .into_iter()
                .filter_map(|(at, amount)| Some((at.try_into().ok()?, amount)))
                .collect();
            account.seed(budget, &spent, Moment::now());
        }
        Ok(())
    }
}
