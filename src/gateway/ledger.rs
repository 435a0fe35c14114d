//! The ledger of calls: each is noted when it begins to hold money or tokens, and when it is over;
//! and what it says of the past is told to the accounts.

use std::sync::Arc;

use super::Gateway;
use super::call::Call;
use crate::access::account::{Account, Moment, Unseeded};
use crate::canon::{Outcome, Purpose, Usage, UsageSource};
use crate::store::{CallRow, Failure};

/// What is asked of the past: all of it, or what was before a budget began to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Past {
    /// The process has not served a call yet.
    All,
    /// Whole minutes, so that nothing is counted twice.
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
    pub async fn seed(&self, past: Past) -> Result<(), Failure> {
        let house = self.snapshot();
        for account in house.tabs.all() {
            self.seed_account(account, past).await?;
        }
        Ok(())
    }

    pub(super) async fn seed_account(
        &self,
        account: &Arc<Account>,
        past: Past,
    ) -> Result<(), Failure> {
        let name = format!("{}:{}", account.scope.name(), account.name);
        for Unseeded { budget, unit, from, since } in account.unseeded() {
            let to = (past == Past::Before).then(|| since.into());
            let spent = self.store().spent(&name, unit, (from.into(), to)).await?;
            let spent: Vec<_> = spent
                .into_iter()
                .filter_map(|(at, amount)| Some((at.try_into().ok()?, amount)))
                .collect();
            account.seed(budget, &spent, Moment::now());
        }
        Ok(())
    }
}
