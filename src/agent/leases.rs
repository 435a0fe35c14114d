//! Which runs are at work here: their leases are held on to, and given back when they are left.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use super::actor::{Driving, Live, Rest};
use super::journal::{Halt, Journal};
use super::staff::Staff;
use crate::canon::RunId;
use crate::store::Failure;
use crate::store::runs::Renewed;

/// How often leases are held on to and new work is looked for.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// A run whose lease is held here.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) live: Arc<Live>,
    pub(super) journal: Arc<Journal>,
}

impl Staff {
    /// How long a lease holds, in milliseconds.
    pub(super) fn lease(&self) -> u64 {
        let lease = self.gateway.snapshot().config.agent_engine.lease;
        u64::try_from(lease.as_millis()).unwrap_or(15_000)
    }

    pub(super) fn live(&self, run: RunId) -> Option<Arc<Live>> {
        self.lives().get(&run).map(|held| Arc::clone(&held.live))
    }

    pub(super) fn forget(&self, live: &Arc<Live>) {
        let mut lives = self.lives();
        // It may be at work again already, for another client.
        if lives.get(&live.id).is_some_and(|held| Arc::ptr_eq(&held.live, live)) {
            lives.remove(&live.id);
        }
    }

    /// Lets go of a run that was left in the middle of something, so that it can be claimed.
    pub(super) async fn leave(&self, run: RunId) -> Result<(), Failure> {
        let held = self.lives().remove(&run);
        let Some(held) = held else { return Ok(()) };
        held.journal.lose();
        self.gateway.store().renew_runs(vec![(run, held.journal.epoch)], 0).await.map(|_| ())
    }

    /// The same for all that belong to a tree.
    pub(super) async fn leave_tree(&self, root: RunId) {
        let of_tree = |held: &&Held| held.live.root == root;
        let left: Vec<RunId> = self.lives().values().filter(of_tree).map(|it| it.live.id).collect();
        for run in left {
            if let Err(error) = self.leave(run).await {
                tracing::debug!(%run, %error, "a run is let go of when its lease is over");
            }
        }
    }

    pub(super) fn lives(&self) -> MutexGuard<'_, HashMap<RunId, Held>> {
        self.lives.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds on to the leases, whatever else is to be done.
    pub(super) async fn hold(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            self.renew().await;
        }
    }

    pub(super) async fn renew(&self) {
        if self.closing.load(Ordering::Acquire) {
            return;
        }
        let held: Vec<(RunId, u64)> =
            self.lives().values().map(|held| (held.live.id, held.journal.epoch)).collect();
        if held.is_empty() {
            return;
        }
        match self.gateway.store().renew_runs(held, self.lease()).await {
            Ok(renewed) => self.learn(&renewed),
            Err(error) => tracing::warn!(%error, "leases of runs could not be held on to"),
        }
    }

    /// Which runs are somebody else's now, and which have something to know.
    fn learn(&self, renewed: &Renewed) {
        let lives = self.lives();
        let lost = renewed.lost.iter().filter_map(|run| lives.get(run));
        // One that has just let go by itself has lost nothing.
        for held in lost.filter(|held| Arc::strong_count(&held.journal) > 1) {
            held.journal.lose();
            held.live.poke();
        }
        renewed.signalled.iter().filter_map(|run| lives.get(run)).for_each(|it| it.live.poke());
    }
}

/// Work that panics has come to an end, too.
pub(super) async fn unwound(mut work: Driving<'_>) -> Result<Rest, Halt> {
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        // What it says may have content in it.
        polled.unwrap_or(Poll::Ready(Err(Halt::Panicked)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_panics_has_come_to_an_end() {
        let panics: Driving<'_> = Box::pin(async {
            tokio::task::yield_now().await;
            let nothing: [Rest; 0] = [];
            Ok(nothing[std::hint::black_box(1)])
        });
        assert_eq!(unwound(panics).await, Err(Halt::Panicked));
    }
}
