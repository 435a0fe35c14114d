//! Which targets other replicas leave alone, so that each need not find out by its own failures.
//!
//! What another has shut is shut here too, for as long and until a probe from here succeeds; what it
//! opens again is probed here. Nobody repeats what it has from others.

use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::Instant;

use super::board::{Board, Lane, Standing};
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
                write_hint(&mut text, LANE, &lane.breaker, &standing, place, now);
                write_hint(&mut text, KEY, &lane.key, &standing, place, now);
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
                heed_lane(lane, &standing, place, &hints, now);
            }
        }
    }
}

fn write_hint(
    text: &mut String,
    name: &str,
    breaker: &Breaker,
    standing: &Standing,
    place: usize,
    now: Instant,
) {
    let Some((reason, left)) = breaker.own(now) else { return };
    let (provider, model) = (&standing.provider, &standing.model);
    let (reason, left) = (reason.name(), left.as_millis());
    let _ = write!(
        text,
        "{name}{FIELD}{provider}{FIELD}{model}{FIELD}{place}{FIELD}{reason}{FIELD}{left}{END}"
    );
}

fn heed_lane(lane: &Lane, standing: &Standing, place: usize, hints: &[Hint<'_>], now: Instant) {
    let last = |name: &str| {
        let meant = hints.iter().filter(|hint| hint.breaker == name && hint.place == place);
        let meant = meant.filter(|hint| hint.provider == standing.provider);
        let meant = meant.filter(|hint| name == KEY || hint.model == standing.model);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{Report, State};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn board() -> (Board, Arc<Standing>) {
        let board = Board::default();
        let standing = board.standing("a", "m", &[1, 2]);
        (board, standing)
    }

    fn tell(to: &Board, said: &[(Duration, &str)], now: Instant) {
        to.heed(said.iter().copied(), now);
    }

    #[test]
    fn what_one_has_shut_is_shut_for_all_and_nobody_repeats_it() {
        let ((one, here), (other, there), now) = (board(), board(), Instant::now());
        here.lanes[1].report(Report::Wait(Some(SECOND * 30)), now);
        here.lanes[0].report(Report::Dead(Reason::KeyRefused), now);
        tell(&other, &[(SECOND, &one.hints(now))], now);
        assert_eq!(there.lanes[1].ready_at(now), Some(now + SECOND * 29));
        assert_eq!(there.lanes[0].key.status(now).reason, Some(Reason::KeyRefused));
        assert_eq!(other.hints(now), "");
        tell(&other, &[], now);
        assert_eq!(there.lanes[1].breaker.status(now).state, State::HalfOpen, "time for a probe");
    }

    #[test]
    fn a_success_from_here_says_more_than_what_others_repeat() {
        let ((one, here), (other, there), now) = (board(), board(), Instant::now());
        here.lanes[0].report(Report::Wait(Some(SECOND * 5)), now);
        tell(&other, &[(Duration::ZERO, &one.hints(now))], now);
        let later = now + SECOND * 5;
        there.lanes[0].enter(later).unwrap().report(Report::Ok, later);
        let repeated = "lane\u{1f}a\u{1f}m\u{1f}0\u{1f}rate_limited\u{1f}3000\u{1e}";
        tell(&other, &[(Duration::ZERO, repeated)], later);
        assert_eq!(there.lanes[0].ready_at(later), None);
        tell(&other, &[(Duration::ZERO, repeated)], later + SECOND * 20);
        assert!(there.lanes[0].ready_at(later + SECOND * 20).is_some());
    }

    #[test]
    fn what_makes_no_sense_shuts_nothing() {
        let ((other, there), now) = (board(), Instant::now());
        for text in ["", "lane", "lane\u{1f}a\u{1f}m\u{1f}9\u{1f}errors\u{1f}99999\u{1e}x"] {
            tell(&other, &[(Duration::ZERO, text)], now);
        }
        assert!(there.lanes.iter().all(|lane| lane.ready_at(now).is_none()));
    }
}
