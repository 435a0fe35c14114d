//! Leaves alone for a while what has failed too often in a row.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config;

/// One tool's.
#[derive(Debug)]
pub(super) struct Breaker {
    terms: config::Breaker,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Nobody is let through before.
    until: Option<Instant>,
    /// Somebody tries whether it works again.
    probed: bool,
}

/// One attempt that was let through. Dropped without a word it has told nothing.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    breaker: &'a Breaker,
    probe: bool,
}

// === impl Breaker ===

impl Breaker {
    pub(super) fn new(terms: &config::Breaker) -> Self {
        Self { terms: terms.clone(), state: Mutex::default() }
    }

    pub(super) fn is_like(&self, terms: &config::Breaker) -> bool {
        self.terms == *terms
    }

    /// Lets an attempt through, or says for how long none is.
    pub(super) fn pass(&self) -> Result<Pass<'_>, Duration> {
        let mut state = self.lock();
        let Some(until) = state.until else { return Ok(Pass { breaker: self, probe: false }) };
        let left = until.saturating_duration_since(Instant::now());
        if left > Duration::ZERO {
            return Err(left);
        }
        if state.probed {
            // Whoever tries is about to know.
            return Err(Duration::from_secs(1));
        }
        state.probed = true;
        Ok(Pass { breaker: self, probe: true })
    }

    /// For how long nobody is let through.
    pub(super) fn closed_for(&self) -> Option<Duration> {
        let left = self.lock().until?.saturating_duration_since(Instant::now());
        (left > Duration::ZERO).then_some(left)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Pass ===

impl Pass<'_> {
    pub(super) fn worked(self) {
        *self.breaker.lock() = State::default();
    }

    pub(super) fn failed(self) {
        let mut state = self.breaker.lock();
        state.failures = state.failures.saturating_add(1);
        if self.probe || state.failures >= self.breaker.terms.failures {
            state.until = Some(Instant::now() + self.breaker.terms.cooldown);
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.probe {
            self.breaker.lock().probed = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COOLDOWN: Duration = Duration::from_secs(20);

    fn breaker() -> Breaker {
        Breaker::new(&config::Breaker { failures: 3, cooldown: COOLDOWN })
    }

    #[tokio::test(start_paused = true)]
    async fn after_failures_in_a_row_nobody_is_let_through_but_one_who_tries() {
        let breaker = breaker();
        for _ in 0..3 {
            breaker.pass().unwrap().failed();
        }
        assert_eq!(breaker.pass().unwrap_err(), COOLDOWN);
        tokio::time::advance(COOLDOWN).await;
        let probe = breaker.pass().unwrap();
        assert!(breaker.pass().is_err());
        probe.failed();
        assert_eq!(breaker.pass().unwrap_err(), COOLDOWN);
        tokio::time::advance(COOLDOWN).await;
        breaker.pass().unwrap().worked();
        assert!(breaker.pass().is_ok() && breaker.closed_for().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_between_failures_forgives_them() {
        let breaker = breaker();
        for _ in 0..10 {
            breaker.pass().unwrap().failed();
            breaker.pass().unwrap().failed();
            breaker.pass().unwrap().worked();
        }
        assert!(breaker.pass().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_was_given_up_lets_another_one_try() {
        let breaker = breaker();
        for _ in 0..3 {
            breaker.pass().unwrap().failed();
        }
        tokio::time::advance(COOLDOWN).await;
        drop(breaker.pass().unwrap());
        assert!(breaker.pass().is_ok());
    }
}
