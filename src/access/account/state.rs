//! What stands in an account, and whether a call fits in.

use std::time::Duration;

use jiff::Timestamp;

use super::Demand;
use super::purse::Purse;
use super::refusal::{Dimension, Found};
use super::slide::Slide;
use crate::config::{Budget, Limits, Pace, Unit};

/// By the calendar, and in nanoseconds of the steady clock.
pub(super) type Clocks = (Timestamp, u64);

/// Everything that is counted, and what each count may be.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) in_flight: u64,
    /// What calls in flight may use at most.
    tokens: u64,
    nanos: u64,
    concurrency: Option<u64>,
    pub(super) requests: Vec<Meter>,
    pub(super) token_rates: Vec<Meter>,
    pub(super) purses: Vec<Purse>,
}

/// One limit by time and what counts against it. Tokens count as reserved until they are settled.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) pace: Pace,
    pub(super) counted: Slide,
    /// What was reserved before is not in here, and need not be corrected.
    since: u64,
}

// === impl State ===

impl State {
    pub(super) fn apply(&mut self, limits: &Limits, budgets: &[Budget], now: Clocks) {
        self.concurrency = limits.concurrency;
        renew(&mut self.requests, &limits.requests, now.1);
        renew(&mut self.token_rates, &limits.tokens, now.1);
        let mut old = std::mem::take(&mut self.purses);
        let kept = |budget: &Budget| {
            let place = old.iter().position(|purse| purse.budget.counts_like(budget));
            match place.map(|place| old.swap_remove(place)) {
                Some(purse) => purse.under(budget.clone()),
                None => Purse::new(budget.clone(), now.0),
            }
        };
        self.purses = budgets.iter().map(kept).collect();
    }

    /// Forgets what lies behind `now`.
    pub(super) fn advance(&mut self, (wall, steady): Clocks) {
        for meter in self.requests.iter_mut().chain(&mut self.token_rates) {
            meter.counted.sweep(steady);
        }
        for purse in &mut self.purses {
            purse.advance(wall);
        }
    }

    pub(super) fn reserved(&self, unit: Unit) -> u64 {
        match unit {
            Unit::Tokens => self.tokens,
            Unit::Usd => self.nanos,
        }
    }

    /// Every reason for which a call may not go ahead now.
    pub(super) fn objections(&self, demand: Demand, now: Clocks, found: &mut Found<'_>) {
        if let Some(limit) = self.concurrency.filter(|limit| self.in_flight >= *limit) {
            found.concurrency(limit, self.in_flight);
        }
        let of_tokens =
            self.token_rates.iter().map(|meter| (Dimension::Tokens, meter, demand.tokens));
        let paces =
            self.requests.iter().map(|meter| (Dimension::Requests, meter, 1)).chain(of_tokens);
        for (dimension, meter, asked) in
            paces.filter(|(_, meter, asked)| *asked > meter.remaining())
        {
            found.pace(dimension, meter, asked, now.1);
        }
        self.budget_objections(demand, now.0, found);
    }

    /// Those of the budgets alone.
    pub(super) fn budget_objections(&self, demand: Demand, wall: Timestamp, found: &mut Found<'_>) {
        for purse in &self.purses {
            let (unit, reserved) = (purse.budget.unit, self.reserved(purse.budget.unit));
            if unit == Unit::Usd && !demand.priced {
                found.unpriced(purse, reserved);
                continue;
            }
            let asked = demand.of(unit);
            // What costs nothing needs no room: models that are free stay open when all is spent.
            if asked > purse.left(reserved) {
                found.budget(purse, asked, reserved, wall);
            }
        }
    }

    pub(super) fn take(&mut self, demand: Demand, steady: u64) {
        self.in_flight += 1;
        for meter in &mut self.requests {
            meter.counted.add(steady, 1);
        }
        for meter in &mut self.token_rates {
            meter.counted.add(steady, demand.tokens);
        }
        self.tokens = self.tokens.saturating_add(demand.tokens);
        self.nanos = self.nanos.saturating_add(demand.nanos);
    }

    /// Holds more for a call that began at `began`.
    pub(super) fn take_more(&mut self, held: u64, more: Demand, (began, now): (u64, u64)) {
        for meter in self.token_rates.iter_mut().filter(|meter| meter.since <= began) {
            meter.counted.correct(began, held, held.saturating_add(more.tokens), now);
        }
        self.tokens = self.tokens.saturating_add(more.tokens);
        self.nanos = self.nanos.saturating_add(more.nanos);
    }

    /// As if the call had never been.
    pub(super) fn give_back(&mut self, held: Demand, began: u64) {
        for meter in self.requests.iter_mut().filter(|meter| meter.since <= began) {
            meter.counted.remove(began, 1);
        }
        for meter in self.token_rates.iter_mut().filter(|meter| meter.since <= began) {
            meter.counted.remove(began, held.tokens);
        }
        self.let_go(held);
    }

    /// The end of a call that has used so much. The places of the budgets whose soft threshold
    /// it has crossed.
    pub(super) fn settle(
        &mut self,
        held: Demand,
        used: Demand,
        began: u64,
        (wall, steady): Clocks,
    ) -> Vec<usize> {
        for meter in self.token_rates.iter_mut().filter(|meter| meter.since <= began) {
            meter.counted.correct(began, held.tokens, used.tokens, steady);
        }
        self.let_go(held);
        let mut crossed = Vec::new();
        for (place, purse) in self.purses.iter_mut().enumerate() {
            if purse.spend(used.of(purse.budget.unit), wall) {
                crossed.push(place);
            }
        }
        crossed
    }

    fn let_go(&mut self, held: Demand) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.tokens = self.tokens.saturating_sub(held.tokens);
        self.nanos = self.nanos.saturating_sub(held.nanos);
    }
}

/// Meters for these paces; one for the same span goes on from where it is.
fn renew(meters: &mut Vec<Meter>, paces: &[Pace], now: u64) {
    let mut old = std::mem::take(meters);
    let renewed = |pace: &Pace| {
        let place = old.iter().position(|meter| meter.pace.seconds == pace.seconds);
        match place.map(|place| old.swap_remove(place)) {
            Some(meter) => Meter { pace: *pace, ..meter },
            None => Meter {
                pace: *pace,
                counted: Slide::new(Duration::from_secs(pace.seconds)),
                since: now,
            },
        }
    };
    *meters = paces.iter().map(renewed).collect();
}

// === impl Meter ===

impl Meter {
    pub(super) fn remaining(&self) -> u64 {
        self.pace.amount.saturating_sub(self.counted.sum())
    }

    /// When so much more will fit if nothing else comes. `None`: never.
    pub(super) fn fits_at(&self, asked: u64) -> Option<u64> {
        let excess = self.counted.sum().saturating_add(asked).saturating_sub(self.pace.amount);
        if asked > self.pace.amount { None } else { self.counted.freed_at(excess) }
    }
}
