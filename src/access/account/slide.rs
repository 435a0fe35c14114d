//! What happened in the last so many seconds, at any time: counts that each leave in their turn.

use std::collections::VecDeque;
use std::time::Duration;

/// A period is counted in so many slots. What is counted leaves with its slot, and so up to a
/// thousandth of the period late, never early.
const SLOTS: u64 = 1000;
/// Replicas tell one another of this many parts.
const PARTS: u64 = 60;

/// Amounts by the time at which they were added, in nanoseconds of any clock. Empty slots take
/// no room.
#[derive(Debug)]
pub(super) struct Slide {
    period: u64,
    slots: VecDeque<Slot>,
    sum: u64,
    /// Up to when it was swept.
    swept: u64,
}

#[derive(Debug)]
struct Slot {
    number: u64,
    amount: u64,
}

// === impl Slide ===

impl Slide {
    pub(super) fn new(period: Duration) -> Self {
        let period = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(SLOTS);
        Self { period, slots: VecDeque::new(), sum: 0, swept: 0 }
    }

    /// All that has not left.
    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    /// Lets go of what is as old as the period.
    pub(super) fn sweep(&mut self, now: u64) {
        self.swept = self.swept.max(now);
        while let Some(first) = self.slots.front()
            && self.leaves_at(first.number) <= now
        {
            self.sum = self.sum.saturating_sub(first.amount);
            self.slots.pop_front();
        }
    }

    pub(super) fn add(&mut self, at: u64, amount: u64) {
        if amount == 0 {
            return;
        }
        let number = self.slot(at);
        self.sum = self.sum.saturating_add(amount);
        match self.slots.back_mut() {
            Some(last) if last.number == number => last.amount = last.amount.saturating_add(amount),
            Some(last) if last.number > number => self.add_late(number, amount),
            _ => self.slots.push_back(Slot { number, amount }),
        }
    }

    /// Another thread, or a later call, has been faster.
    fn add_late(&mut self, number: u64, amount: u64) {
        match self.slots.binary_search_by_key(&number, |slot| slot.number) {
            Ok(found) => self.slots[found].amount = self.slots[found].amount.saturating_add(amount),
            Err(place) => self.slots.insert(place, Slot { number, amount }),
        }
    }

    /// Takes back what was added at that time, unless it has left.
    pub(super) fn remove(&mut self, at: u64, amount: u64) {
        let number = self.slot(at);
        let Ok(found) = self.slots.binary_search_by_key(&number, |slot| slot.number) else {
            return;
        };
        let slot = &mut self.slots[found];
        let taken = amount.min(slot.amount);
        slot.amount -= taken;
        self.sum = self.sum.saturating_sub(taken);
        if slot.amount == 0 {
            self.slots.remove(found);
        }
    }

    /// Puts the truth in the place of what was added at that time, unless that has left.
    pub(super) fn correct(&mut self, at: u64, was: u64, is: u64, now: u64) {
        if self.leaves_at(self.slot(at)) > now {
            self.remove(at, was);
            self.add(at, is);
        }
    }

    /// When so much will have left. `None` if there is not so much.
    pub(super) fn freed_at(&self, amount: u64) -> Option<u64> {
        parts_freed_at(self.parts(), amount)
    }

    /// When each part of it will leave, and how much that is, the oldest first.
    pub(super) fn parts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.slots.iter().map(|slot| (self.leaves_at(slot.number), slot.amount))
    }

    /// The latest time it has heard of.
    pub(super) fn now(&self) -> u64 {
        self.swept
    }

    /// In few parts how much leaves after how long: what leaves at nearly the same time leaves with
    /// the last of it.
    pub(super) fn told(&self, now: u64) -> Vec<(Duration, u64)> {
        let after = |at: u64| Duration::from_nanos(at.saturating_sub(now));
        self.coarse_parts().into_iter().map(|(at, amount)| (after(at), amount)).collect()
    }

    fn coarse_parts(&self) -> Vec<(u64, u64)> {
        let width = (self.period / PARTS).max(1);
        let mut parts: Vec<(u64, u64)> = Vec::new();
        for (at, amount) in self.parts() {
            let at = at.div_ceil(width).saturating_mul(width);
            match parts.last_mut() {
                Some(last) if last.0 == at => last.1 = last.1.saturating_add(amount),
                _ => parts.push((at, amount)),
            }
        }
        parts
    }

    /// When nothing will be left, if there is something.
    pub(super) fn empty_at(&self) -> Option<u64> {
        self.slots.back().map(|last| self.leaves_at(last.number))
    }

    fn slot(&self, at: u64) -> u64 {
        at / (self.period / SLOTS)
    }

    fn leaves_at(&self, slot: u64) -> u64 {
        (slot + 1).saturating_mul(self.period / SLOTS).saturating_add(self.period)
    }
}

/// When so much will have left of parts that leave one after the other.
pub(super) fn parts_freed_at(
    mut parts: impl Iterator<Item = (u64, u64)>,
    amount: u64,
) -> Option<u64> {
    let mut left = 0u64;
    let found = parts.find(|(_, part)| {
        left = left.saturating_add(*part);
        left >= amount
    });
    found.map(|(at, _)| at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PERIOD: u64 = 1_000_000;

    fn slide() -> Slide {
        Slide::new(Duration::from_nanos(PERIOD))
    }

    #[test]
    fn what_is_added_leaves_after_the_period_and_at_most_a_thousandth_late() {
        let mut slide = slide();
        slide.add(500, 3);
        slide.add(1_500, 4);
        slide.sweep(PERIOD + 999);
        assert_eq!(slide.sum(), 7);
        assert_eq!(slide.freed_at(1), Some(PERIOD + 1_000));
        assert_eq!(slide.freed_at(4), Some(PERIOD + 2_000));
        assert_eq!(slide.freed_at(8), None);
        slide.sweep(PERIOD + 1_000);
        assert_eq!(slide.sum(), 4);
        slide.sweep(PERIOD + 2_000);
        assert_eq!((slide.sum(), slide.empty_at()), (0, None));
    }

    #[test]
    fn a_correction_counts_where_the_first_count_stood_and_not_after_it_has_left() {
        let mut slide = slide();
        slide.add(0, 100);
        slide.add(5_000, 1);
        slide.correct(0, 100, 20, 10_000);
        assert_eq!((slide.sum(), slide.freed_at(20)), (21, Some(PERIOD + 1_000)));
        slide.sweep(PERIOD + 1_000);
        slide.correct(0, 20, 500, PERIOD + 1_000);
        assert_eq!(slide.sum(), 1);
    }

    proptest! {
        #[test]
        fn no_period_ever_holds_less_than_was_added_in_it(
            mut added in prop::collection::vec((0..5 * PERIOD, 1..100u64), 1..60),
            late in any::<bool>(),
        ) {
            if !late {
                added.sort_unstable();
            }
            let mut slide = slide();
            for (at, amount) in &added {
                slide.add(*at, *amount);
            }
            let numbers: Vec<u64> = slide.slots.iter().map(|slot| slot.number).collect();
            prop_assert!(numbers.is_sorted_by(|one, next| one < next));
            let mut points: Vec<u64> = added.iter().map(|(at, _)| at + PERIOD).collect();
            points.sort_unstable();
            for now in points {
                slide.sweep(now);
                let within = |slack: u64| -> u64 {
                    let live = added.iter().filter(|(at, _)| at + PERIOD + slack > now);
                    live.map(|(_, amount)| amount).sum()
                };
                prop_assert!((within(0)..=within(PERIOD / SLOTS)).contains(&slide.sum()));
            }
        }

        #[test]
        fn exactly_when_it_says_so_much_has_left(
            mut added in prop::collection::vec((0..PERIOD, 1..100u64), 1..60),
            part in 1..100u64,
        ) {
            added.sort_unstable();
            let mut slide = slide();
            for (at, amount) in &added {
                slide.add(*at, *amount);
            }
            let (all, wanted) = (slide.sum(), part.min(slide.sum()));
            let when = slide.freed_at(wanted).unwrap();
            slide.sweep(when - 1);
            prop_assert!(all - slide.sum() < wanted);
            slide.sweep(when);
            prop_assert!(all - slide.sum() >= wanted);
        }
    }
}
