//! What has been spent of one budget, in the window that the clock says.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use super::share::Share;
use super::slide::Slide;
use super::window::Frame;
use crate::config::{Budget, Window};

/// A budget and what is gone of it. What is reserved is counted once for all budgets of an
/// account, and is not in here.
#[derive(Debug)]
pub(super) struct Purse {
    pub(super) budget: Budget,
    /// What was added to the limit: until the window ends, if it does.
    extra: u64,
    spent: Spent,
    /// Whether the soft threshold has been told of.
    warned: bool,
    /// Since when it has counted itself; what was spent before is seeded.
    since: Timestamp,
    seeded: bool,
    /// Where replicas count together.
    pub(super) share: Option<Box<Share>>,
}

/// A clock was put back, and some budgets do not know what was spent before.
static PUT_BACK: AtomicBool = AtomicBool::new(false);

/// Whether one was since this was last asked.
pub fn was_put_back() -> bool {
    PUT_BACK.swap(false, Ordering::AcqRel)
}

#[derive(Debug)]
enum Spent {
    In(Frame, u64),
    Rolling(Slide),
}

// === impl Purse ===

impl Purse {
    pub(super) fn new(budget: Budget, now: Timestamp) -> Self {
        let spent = match budget.window {
            Window::Rolling(period) => Spent::Rolling(Slide::new(period)),
            Window::Never | Window::Calendar(..) => {
                Spent::In(Frame::around(&budget.window, now), 0)
            }
        };
        Self { budget, extra: 0, spent, warned: false, since: now, seeded: false, share: None }
    }

    /// The same counter under changed terms.
    pub(super) fn under(mut self, budget: Budget) -> Self {
        self.budget = budget;
        self
    }

    /// Enters the window of `now`. Not an earlier one: what another thread has counted since stays
    /// counted, and so does everything when the clock is put back a little. Where it is by more than
    /// a window it was wrong before, and what was spent in the window of now is to be seeded.
    pub(super) fn advance(&mut self, now: Timestamp) {
        match &mut self.spent {
            Spent::In(frame, used) => {
                if frame.keeps(now) {
                    return;
                }
                if now < frame.start {
                    let window = &self.budget.label;
                    tracing::warn!(%window, "the clock was put back: a budget begins its window anew");
                    (self.since, self.seeded) = (now, false);
                    PUT_BACK.store(true, Ordering::Release);
                }
                *frame = Frame::around(&self.budget.window, now);
                *used = 0;
                self.extra = 0;
                self.warned = false;
            }
            Spent::Rolling(slide) => slide.sweep(nanos(now)),
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.budget.limit.saturating_add(self.extra)
    }

    /// By all replicas, as far as is known.
    pub(super) fn used(&self) -> u64 {
        let Some(share) = &self.share else { return self.own() };
        self.own().saturating_add(match &self.spent {
            Spent::In(..) => share.used_elsewhere(self.number()),
            Spent::Rolling(slide) => share.rolling_elsewhere(slide.now()),
        })
    }

    /// By this process.
    pub(super) fn own(&self) -> u64 {
        match &self.spent {
            Spent::In(_, used) => *used,
            Spent::Rolling(slide) => slide.sum(),
        }
    }

    /// The number of its window, larger for a later one; 0 where there is but one.
    pub(super) fn number(&self) -> i64 {
        match &self.spent {
            Spent::In(frame, _) => frame.number(),
            Spent::Rolling(_) => 0,
        }
    }

    /// What rolls, if it does, and what is known of the other replicas.
    pub(super) fn parts(&mut self) -> (Option<&Slide>, Option<&mut Share>) {
        let rolls = match &self.spent {
            Spent::In(..) => None,
            Spent::Rolling(slide) => Some(slide),
        };
        (rolls, self.share.as_deref_mut())
    }

    /// For how long others need to remember it after `now`; `None`: for ever.
    pub(super) fn life(&self, now: Timestamp) -> Option<Duration> {
        const SPARE: Duration = Duration::from_hours(1);
        match (&self.spent, &self.budget.window) {
            (Spent::Rolling(_), Window::Rolling(period)) => Some(*period + SPARE),
            (Spent::In(frame, _), _) if frame.ends() => {
                Some(Duration::try_from(frame.end.duration_since(now)).unwrap_or_default() + SPARE)
            }
            _ => None,
        }
    }

    pub(super) fn left(&self, reserved: u64) -> u64 {
        self.limit().saturating_sub(self.used()).saturating_sub(reserved)
    }

    /// Counts what a call has cost. Whether the soft threshold is crossed by it, which is said
    /// once in each window.
    pub(super) fn spend(&mut self, amount: u64, now: Timestamp) -> bool {
        match &mut self.spent {
            Spent::In(_, used) => *used = used.saturating_add(amount),
            Spent::Rolling(slide) => slide.add(nanos(now), amount),
        }
        let was_warned = self.warned;
        self.warned = self.is_beyond_soft();
        self.warned && !was_warned
    }

    pub(super) fn top_up(&mut self, amount: u64) {
        self.extra = self.extra.saturating_add(amount);
        self.warned = self.is_beyond_soft();
    }

    /// Whether that time lies in the window of now. All time does where there are no windows.
    pub(super) fn began_by(&self, time: Timestamp) -> bool {
        match &self.spent {
            Spent::In(frame, _) => frame.start <= time,
            Spent::Rolling(_) => true,
        }
    }

    /// From when to when the past is to be added up, if that has not been done.
    pub(super) fn unseeded(&self) -> Option<(Timestamp, Timestamp)> {
        let from = self.begins(self.since);
        (!self.seeded && from < self.since).then_some((from, self.since))
    }

    /// From when on what was spent counts, if it is then.
    pub(super) fn begins(&self, now: Timestamp) -> Timestamp {
        match (&self.spent, &self.budget.window) {
            (Spent::In(frame, _), _) => frame.start,
            (Spent::Rolling(_), Window::Rolling(period)) => {
                now.checked_sub(*period).unwrap_or(Timestamp::MIN)
            }
            (Spent::Rolling(_), _) => Timestamp::MIN,
        }
    }

    /// Adds what was spent before this counter began. Done once: a second time changes nothing.
    pub(super) fn seed(&mut self, past: &[(Timestamp, u64)], now: Timestamp) -> bool {
        if self.seeded {
            return false;
        }
        self.seeded = true;
        let since = self.since;
        for (at, amount) in past.iter().filter(|(at, _)| *at < since) {
            match &mut self.spent {
                Spent::In(frame, used) if *at >= frame.start => {
                    *used = used.saturating_add(*amount);
                }
                Spent::In(..) => {}
                Spent::Rolling(slide) => slide.add(nanos(*at), *amount),
            }
        }
        self.advance(now);
        self.warned = self.is_beyond_soft();
        true
    }

    /// When it is whole again, in its own time zone: the end of the window, or the moment when
    /// the last that was spent has rolled out of it.
    pub(super) fn resets_at(&self) -> Option<Zoned> {
        let at = match &self.spent {
            Spent::In(frame, _) => frame.ends().then_some(frame.end)?,
            Spent::Rolling(slide) => {
                let elsewhere = self.share.as_ref().and_then(|share| share.empty_at());
                whole_second(slide.empty_at().max(elsewhere)?)?
            }
        };
        let zone = match &self.budget.window {
            Window::Calendar(_, zone) => zone.clone(),
            Window::Never | Window::Rolling(_) => TimeZone::UTC,
        };
        Some(at.to_zoned(zone))
    }

    /// When so much more will fit if nothing else is spent. `None`: never, or nobody knows, since
    /// it waits for calls in flight.
    pub(super) fn fits_at(&self, asked: u64, reserved: u64) -> Option<Timestamp> {
        let (limit, used) = (self.limit(), self.used());
        if asked > limit || used.saturating_add(asked) <= limit {
            return None;
        }
        match &self.spent {
            // What was added to the limit ends with the window.
            Spent::In(frame, _) => {
                (frame.ends() && asked <= self.budget.limit).then_some(frame.end)
            }
            Spent::Rolling(slide) => {
                let excess = used.saturating_add(reserved).saturating_add(asked) - limit;
                let amount = excess.min(used);
                let at = match &self.share {
                    Some(share) => share.freed_at(slide.parts(), amount),
                    None => slide.freed_at(amount),
                };
                Timestamp::from_nanosecond(at?.into()).ok()
            }
        }
    }

    pub(super) fn is_beyond_soft(&self) -> bool {
        self.budget.soft_permille.is_some_and(|permille| {
            u128::from(self.used()) * 1000 >= u128::from(self.limit()) * u128::from(permille)
        })
    }
}

/// Since 1970, as slides count.
pub(super) fn nanos(time: Timestamp) -> u64 {
    u64::try_from(time.as_nanosecond().max(0)).unwrap_or(u64::MAX)
}

/// The first whole second that is not before it.
fn whole_second(nanos: u64) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(nanos.div_ceil(1_000_000_000)).ok()?).ok()
}
