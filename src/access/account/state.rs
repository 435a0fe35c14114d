//! What stands in an account, and whether a call fits in.

use std::time::Duration;

use jiff::Timestamp;

use super::Demand;
use super::purse::Purse;
use super::refusal::{Dimension, Found};
use super::share::{Room, Share, View};
use super::slide::Slide;
use crate::config::{Budget, Limits, Pace, Unit};

/// By the calendar, and in nanoseconds of the steady clock.
pub(super) type Clocks = (Timestamp, u64);
/// By the calendar, and what is known of the others.
pub(super) type Asked = (Timestamp, View);

/// Everything that is counted, and what each count may be.
#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) in_flight: u64,
    /// What calls in flight may use at most.
    tokens: u64,
    nanos: u64,
    pub(super) concurrency: Option<u64>,
    /// How many replicas count together, if they do.
    pub(super) replicas: Option<u32>,
    /// Of the calls at the same time, where replicas count together.
    pub(super) places: Option<Box<Share>>,
    /// It is in the list of those of which something may have to be told to the others.
    pub(super) is_listed: bool,
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
    /// Where replicas count together.
    pub(super) share: Option<Box<Share>>,
}

// === impl State ===

impl State {
    /// `replicas`: how many count together, if they do.
    pub(super) fn among(replicas: Option<u32>) -> Self {
        Self { replicas, ..Self::default() }
    }

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
        if self.replicas.is_some() {
            self.share();
        }
    }

    /// Everything is counted together with others from here on.
    fn share(&mut self) {
        let meters = self.requests.iter_mut().chain(&mut self.token_rates);
        let shares = meters.map(|meter| &mut meter.share);
        let shares = shares.chain(self.purses.iter_mut().map(|purse| &mut purse.share));
        for share in shares.chain([&mut self.places]) {
            share.get_or_insert_default();
        }
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

    /// Held of a budget by the calls of all replicas, as far as is known.
    pub(super) fn reserved_of(&self, purse: &Purse) -> u64 {
        let elsewhere = purse.share.as_ref().map_or(0, |share| share.held_elsewhere());
        self.reserved(purse.budget.unit).saturating_add(elsewhere)
    }

    /// Every reason for which a call may not go ahead now.
    pub(super) fn objections(&self, demand: Demand, (wall, view): Asked, found: &mut Found<'_>) {
        if let Some(limit) = self.concurrency {
            let elsewhere = self.places.as_ref().map_or(0, |share| share.held_elsewhere());
            if found.objects(self.room(self.places.as_deref(), 1, (limit, self.in_flight), view)) {
                found.concurrency(limit, self.in_flight.saturating_add(elsewhere));
            }
        }
        let of_tokens =
            self.token_rates.iter().map(|meter| (Dimension::Tokens, meter, demand.tokens));
        let paces =
            self.requests.iter().map(|meter| (Dimension::Requests, meter, 1)).chain(of_tokens);
        for (dimension, meter, asked) in paces {
            let count = (meter.pace.amount, meter.counted.sum());
            if found.objects(self.room(meter.share.as_deref(), asked, count, view)) {
                found.pace(dimension, meter, asked, view.now);
            }
        }
        self.budget_objections(demand, (wall, view), found);
    }

    /// Those of the budgets alone. Where exactness cannot be held, they refuse.
    pub(super) fn budget_objections(
        &self,
        demand: Demand,
        (wall, view): Asked,
        found: &mut Found<'_>,
    ) {
        for purse in &self.purses {
            let reserved = self.reserved_of(purse);
            if purse.budget.unit == Unit::Usd && !demand.priced {
                found.objects(Room::None);
                found.unpriced(purse, reserved);
                continue;
            }
            let asked = demand.of(purse.budget.unit);
            let room = match &purse.share {
                Some(share) => share.room(asked, view),
                // What costs nothing needs no room: free models stay open when all is spent.
                None if asked > purse.left(reserved) => Room::None,
                None => Room::Enough,
            };
            if found.objects(room) {
                found.budget(purse, asked, reserved, wall);
            }
        }
    }

    /// Whether one may have so much more of a limit by time or of calls at once.
    fn room(
        &self,
        share: Option<&Share>,
        asked: u64,
        (limit, counted): (u64, u64),
        view: View,
    ) -> Room {
        let limit = match share {
            Some(share) if !view.away => return share.room(asked, view),
            // Better a little too many or too few than nobody.
            Some(_) => (limit / u64::from(self.replicas.unwrap_or(1))).max(1),
            None => limit,
        };
        if asked > limit.saturating_sub(counted) { Room::None } else { Room::Enough }
    }

    pub(super) fn take(&mut self, demand: Demand, steady: u64) {
        self.in_flight += 1;
        take(&mut self.places, 1, steady);
        for meter in &mut self.requests {
            meter.counted.add(steady, 1);
            take(&mut meter.share, 1, steady);
        }
        for meter in &mut self.token_rates {
            meter.counted.add(steady, demand.tokens);
            take(&mut meter.share, demand.tokens, steady);
        }
        self.hold(demand, steady);
    }

    /// Holds more for a call that began at `began`.
    pub(super) fn take_more(&mut self, held: u64, more: Demand, (began, now): (u64, u64)) {
        for meter in self.token_rates.iter_mut().filter(|meter| meter.since <= began) {
            meter.counted.correct(began, held, held.saturating_add(more.tokens), now);
            take(&mut meter.share, more.tokens, now);
        }
        self.hold(more, now);
    }

    fn hold(&mut self, demand: Demand, steady: u64) {
        self.tokens = self.tokens.saturating_add(demand.tokens);
        self.nanos = self.nanos.saturating_add(demand.nanos);
        for purse in &mut self.purses {
            take(&mut purse.share, demand.of(purse.budget.unit), steady);
        }
    }

    /// As if the call had never been.
    pub(super) fn give_back(&mut self, held: Demand, began: u64) {
        for meter in self.requests.iter_mut().filter(|meter| meter.since <= began) {
            meter.counted.remove(began, 1);
            settle(&mut meter.share, 1, 0);
        }
        for meter in self.token_rates.iter_mut().filter(|meter| meter.since <= began) {
            meter.counted.remove(began, held.tokens);
            settle(&mut meter.share, held.tokens, 0);
        }
        for purse in &mut self.purses {
            settle(&mut purse.share, held.of(purse.budget.unit), 0);
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
            settle(&mut meter.share, held.tokens, used.tokens);
        }
        self.let_go(held);
        let mut crossed = Vec::new();
        for (place, purse) in self.purses.iter_mut().enumerate() {
            let unit = purse.budget.unit;
            settle(&mut purse.share, held.of(unit), used.of(unit));
            if purse.spend(used.of(unit), wall) {
                crossed.push(place);
            }
        }
        crossed
    }

    fn let_go(&mut self, held: Demand) {
        self.in_flight = self.in_flight.saturating_sub(1);
        settle(&mut self.places, 1, 0);
        self.tokens = self.tokens.saturating_sub(held.tokens);
        self.nanos = self.nanos.saturating_sub(held.nanos);
    }
}

fn take(share: &mut Option<Box<Share>>, amount: u64, steady: u64) {
    if let Some(share) = share {
        share.take(amount, steady);
    }
}

fn settle(share: &mut Option<Box<Share>>, held: u64, used: u64) {
    if let Some(share) = share {
        share.settle(held, used);
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
                share: None,
            },
        }
    };
    *meters = paces.iter().map(renewed).collect();
}

// === impl Meter ===

impl Meter {
    /// By all replicas, as far as is known.
    pub(super) fn sum(&self) -> u64 {
        let elsewhere = |share: &Share| share.rolling_elsewhere(self.counted.now());
        self.counted.sum().saturating_add(self.share.as_deref().map_or(0, elsewhere))
    }

    pub(super) fn remaining(&self) -> u64 {
        self.pace.amount.saturating_sub(self.sum())
    }

    /// When so much more will fit if nothing else comes. `None`: never.
    pub(super) fn fits_at(&self, asked: u64) -> Option<u64> {
        let excess = self.sum().saturating_add(asked).saturating_sub(self.pace.amount);
        if asked > self.pace.amount {
            return None;
        }
        if excess == 0 {
            // Others keep the rest of it without using it, and not for long.
            return Some(self.counted.now().saturating_add(1_000_000_000));
        }
        match &self.share {
            Some(share) => share.freed_at(self.counted.parts(), excess),
            None => self.counted.freed_at(excess),
        }
    }

    /// When all of it will be there again, if something is gone.
    pub(super) fn empty_at(&self) -> Option<u64> {
        let elsewhere = self.share.as_ref().and_then(|share| share.empty_at());
        self.counted.empty_at().max(elsewhere)
    }
}
