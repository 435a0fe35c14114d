//! Which targets other replicas leave alone, so that each need not find out by its own failures.
//!
//! What another has shut is shut here too, for as long and until a probe from here succeeds; what it
//! opens again is probed here. Nobody repeats what it has from others.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::board::{Board, Lane};
use super::{Breaker, LONGEST_WAIT, Reason, Record};

const FIELD: char = '\u{1f}';
const END: char = '\u{1e}';

/// Which breaker of a target: by one of its keys, or of that key whatever the model.
const LANE: &str = "lane";
const KEY: &str = "key";

/// What another replica has shut.
struct Hint<'a> {
    breaker: &'a str,
    provider: &'a str,
    model: &'a str,
    /// Of the key among those of its provider.
    place: usize,
    reason: Reason,
    until: Instant,
}

// === impl Board ===

impl Board {
    /// What is shut here by what was seen here, for the others.
    pub fn hints(&self, now: Instant) -> String {
        let mut text = String::new();
        for standing in self.standings() {
            for (place, lane) in standing.lanes.iter().enumerate() {
                for (name, breaker) in [(LANE, &lane.breaker), (KEY, &*lane.key)] {
                    let Some((reason, left)) = breaker.own(now) else { continue };
                    let (provider, model, left) =
                        (&standing.provider, &standing.model, left.as_millis());
                    let reason = reason.name();
                    let _ = write!(
                        text,
                        "{name}{FIELD}{provider}{FIELD}{model}{FIELD}{place}{FIELD}{reason}\
                         {FIELD}{left}{END}"
                    );
                }
            }
        }
        text
    }

    /// Takes over what the others have shut, and how long ago each said so; what none of them has
    /// shut any more is probed.
    pub fn heed<'a>(&self, said: impl Iterator<Item = (Duration, &'a str)>, now: Instant) {
        let hints: Vec<Hint<'_>> = said
            .flat_map(|(age, text)| text.split(END).filter_map(move |one| read(one, age, now)))
            .collect();
        for standing in self.standings() {
            for (place, lane) in standing.lanes.iter().enumerate() {
                let of_lane = |hint: &&Hint<'_>| {
                    hint.place == place && hint.provider == standing.provider
                };
                let mine: Vec<&Hint<'_>> = hints.iter().filter(of_lane).collect();
                heed_lane(lane, &standing.model, &mine, now);
            }
        }
    }
}

fn heed_lane(lane: &Lane, model: &str, hints: &[&Hint<'_>], now: Instant) {
    let last = |name: &str| {
        let meant = hints.iter().filter(|hint| hint.breaker == name);
        let meant = meant.filter(|hint| name == KEY || hint.model == model);
        let longest = meant.max_by_key(|hint| hint.until)?;
        Some((longest.reason, longest.until))
    };
    lane.breaker.heed(last(LANE), now);
    lane.key.heed(last(KEY), now);
}

fn read(text: &str, age: Duration, now: Instant) -> Option<Hint<'_>> {
    let mut fields = text.split(FIELD);
    let mut next = || fields.next();
    let (breaker, provider, model) = (next()?, next()?, next()?);
    let (place, reason, left) = (next()?, next()?, next()?);
    let left = Duration::from_millis(left.parse().ok()?).min(LONGEST_WAIT);
    let left = left.checked_sub(age)?;
    let reason = Reason::ALL.into_iter().find(|known| known.name() == reason)?;
    let place = place.parse().ok()?;
    Some(Hint { breaker, provider, model, place, reason, until: now + left })
}

// === impl Breaker ===

impl Breaker {
    /// Why and for how much longer it is shut by what was seen here.
    fn own(&self, now: Instant) -> Option<(Reason, Duration)> {
        self.epoch_if_quiet().is_none().then_some(())?;
        let record = self.record();
        let shut = record.shut.as_ref().filter(|shut| !shut.is_heard && now < shut.until)?;
        Some((shut.reason, shut.until - now))
    }

    /// What others say of it.
    fn heed(&self, hint: Option<(Reason, Instant)>, now: Instant) {
        if hint.is_none() && self.epoch_if_quiet().is_some() {
            return;
        }
        let mut record = self.record();
        record.heed(hint, now);
        self.mark(&record);
    }
}

// === impl Record ===

impl Record {
    fn heed(&mut self, hint: Option<(Reason, Instant)>, now: Instant) {
        let is_heard = self.shut.as_ref().map(|shut| shut.is_heard);
        match (hint, is_heard) {
            // One probe from here says more than they do, until they say something new.
            (Some((_, until)), _) if self.deaf_until.is_some_and(|deaf| until <= deaf) => {}
            (Some((reason, until)), None) => {
                self.open(reason, until.saturating_duration_since(now), now);
                if let Some(shut) = &mut self.shut {
                    shut.is_heard = true;
                }
            }
            (Some((reason, until)), Some(true)) => {
                if let Some(shut) = &mut self.shut {
                    (shut.reason, shut.until) = (reason, until);
                }
            }
            // Time for a probe from here.
            (None, Some(true)) => {
                if let Some(shut) = &mut self.shut {
                    shut.until = shut.until.min(now);
                }
            }
            (Some(_), Some(false)) | (None, Some(false) | None) => {}
        }
    }
}
