//! A second attempt beside the one under way, as its call knows it.

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::time::Instant;

use super::call::Call;
use super::desk::Desk;
use super::snapshot::Target;
use crate::access::account::{Demand, Hold, Inquiry, Moment};
use crate::canon::{Outcome, Usage};

/// A further attempt that may be made while another is under way.
pub(super) struct Rival {
    place: usize,
    departure: Arc<OnceLock<Departure>>,
    /// What the call holds, which grows when the second request leaves.
    lent: Mutex<Option<Hold>>,
}

/// When a further request left, and what is held of its target's limits.
#[derive(Debug)]
pub(super) struct Departure {
    pub(super) since: Instant,
    /// Some of it has left.
    left: AtomicBool,
    hold: Mutex<Option<Hold>>,
}

/// How a request ends that lost a race.
const CALLED_OFF: (Outcome, u16) = (Outcome::ClientClosed, 0);

// === impl Departure ===

impl Departure {
    pub(super) fn new(hold: Option<Hold>) -> Self {
        Self { since: Instant::now(), left: AtomicBool::new(false), hold: Mutex::new(hold) }
    }

    fn take(&self) -> Option<Hold> {
        lock(&self.hold).take()
    }
}

fn lock(hold: &Mutex<Option<Hold>>) -> MutexGuard<'_, Option<Hold>> {
    hold.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Call ===

impl Call {
    /// A second request may leave for the target at `place`; what is given tells that it has.
    pub(super) fn rival_may_begin(&mut self, place: usize) -> Arc<OnceLock<Departure>> {
        let departure = Arc::<OnceLock<Departure>>::default();
        let lent = Mutex::new(self.till.hold.take());
        self.rival = Some(Rival { place, departure: Arc::clone(&departure), lent });
        departure
    }

    /// Where a second request leaves, one question is paid for besides the faster answer: whether
    /// that is held, too.
    pub(super) fn holds_beside(&self, next: &Target) -> bool {
        let Some(rival) = &self.rival else { return false };
        let mut lent = lock(&rival.lent);
        let Some(hold) = lent.as_mut() else { return true };
        let question = Usage { input: self.input_estimate(), ..Usage::default() };
        let first = self.target().unwrap_or(next);
        let (first, next) = (self.weigh(first, question), self.weigh(next, question));
        let dearest = Demand { nanos: first.nanos.max(next.nanos), ..next };
        let Some(more) = self.lacks(hold.reserved(), dearest) else { return true };
        let away = self.gateway.desk().is_some_and(Desk::is_away);
        let inquiry = Inquiry { away, ..Inquiry::default() };
        hold.attempt_to_grow(more, Moment::now(), inquiry).is_ok()
    }

    /// The race is over.
    fn takes_back(&mut self, lent: Mutex<Option<Hold>>) {
        self.till.hold = lent.into_inner().unwrap_or_else(PoisonError::into_inner);
    }

    /// The second request, if it left, came to this, or was called off.
    pub(super) fn rival_ended(&mut self, ended: Option<(Outcome, u16)>) {
        let Some(Rival { place, departure, lent }) = self.rival.take() else { return };
        self.takes_back(lent);
        if let Some(departure) = departure.get() {
            let usage = match ended {
                Some(_) => None,
                None => self.question_usage(&departure.left),
            };
            self.settle_attempt(departure.take(), Some(usage.unwrap_or_default()));
            self.note_attempt(place, departure.since, (ended.unwrap_or(CALLED_OFF), usage));
        }
    }

    /// The second request was faster. The first one came to this, or is called off.
    pub(super) fn rival_wins(
        &mut self,
        credential: usize,
        dropped: &[Cow<'static, str>],
        ended: Option<(Outcome, u16)>,
    ) {
        let usage = match (ended, &self.current) {
            (None, Some(current)) => self.question_usage(&current.left),
            _ => None,
        };
        self.current_ends((ended.unwrap_or(CALLED_OFF), usage));
        if let Some(Rival { place, departure, lent }) = self.rival.take() {
            self.takes_back(lent);
            self.attempt_begins(place, credential, dropped);
            if let (Some(current), Some(departure)) = (&mut self.current, departure.get()) {
                current.since = departure.since;
                current.hold = departure.take();
                // Its answer is there.
                current.left = AtomicBool::new(true);
            }
        }
    }

    /// The second request, if it has left.
    pub(super) fn departed(&self) -> Option<&Departure> {
        self.rival.as_ref()?.departure.get()
    }

    /// Where whoever asks this target notes that some of the question has left.
    pub(super) fn left(&self, target: &Target) -> Option<&AtomicBool> {
        let is_first = self.target().is_some_and(|first| std::ptr::eq(first, target));
        match &self.current {
            Some(current) if is_first => Some(&current.left),
            _ => self.departed().map(|departure| &departure.left),
        }
    }
}
