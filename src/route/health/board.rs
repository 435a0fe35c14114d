//! Who is well and how busy: one place for all routes, which outlives each config.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use tokio::time::Instant;

use super::{Breaker, Pass, Reason, Report, State, Status};
use crate::route::load::Load;

/// Everything known of targets and keys. Locked when a snapshot is built and by the admin page.
#[derive(Debug, Default)]
pub struct Board {
    registry: Mutex<Registry>,
}

/// Whoever holds a standing or a key keeps it here; what nobody holds is swept.
#[derive(Debug, Default)]
struct Registry {
    standings: HashMap<(String, String), Weak<Standing>>,
    keys: HashMap<(String, u64), Weak<Breaker>>,
}

/// One model of one provider, shared by all routes that name it.
#[derive(Debug)]
pub struct Standing {
    pub provider: String,
    pub model: String,
    pub load: Arc<Load>,
    /// One for each key, in the order they were given.
    pub lanes: Vec<Arc<Lane>>,
    /// It refused to be asked for its thoughts.
    sober: AtomicBool,
}

/// One target by one key.
#[derive(Debug)]
pub struct Lane {
    pub fingerprint: u64,
    pub breaker: Breaker,
    /// The key's own, whatever the model.
    pub key: Arc<Breaker>,
}

/// Leave to try a target by a key.
#[derive(Debug)]
#[must_use = "an attempt is reported, or its probe is given back at once"]
pub struct Entry<'a> {
    lane: Pass<'a>,
    key: Pass<'a>,
}

// === impl Board ===

impl Board {
    /// The standing of a target, as it was if it has been asked for before. A target without
    /// keys has one lane.
    pub fn standing(&self, provider: &str, model: &str, keys: &[u64]) -> Arc<Standing> {
        let keys = if keys.is_empty() { &[0] } else { keys };
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        sweep(&mut registry.standings);
        sweep(&mut registry.keys);
        let target = (provider.to_owned(), model.to_owned());
        let known = registry.standings.get(&target).and_then(Weak::upgrade);
        if let Some(known) = &known
            && known.lanes.iter().map(|lane| &lane.fingerprint).eq(keys)
        {
            return Arc::clone(known);
        }
        let standing = Arc::new(Standing {
            provider: target.0.clone(),
            model: target.1.clone(),
            load: known.as_ref().map(|known| Arc::clone(&known.load)).unwrap_or_default(),
            lanes: keys.iter().map(|&key| registry.lane(known.as_deref(), provider, key)).collect(),
            sober: AtomicBool::new(known.as_ref().is_some_and(|known| known.is_sober())),
        });
        registry.standings.insert(target, Arc::downgrade(&standing));
        standing
    }

    /// All that are in use, by provider and model.
    pub fn standings(&self) -> Vec<Arc<Standing>> {
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = registry.standings.values().filter_map(Weak::upgrade).collect();
        drop(registry);
        let name = |one: &Arc<Standing>| (one.provider.clone(), one.model.clone());
        all.sort_by_cached_key(name);
        all
    }
}

// === impl Standing ===

impl Standing {
    /// The standing of another model of the same provider, by the same keys, that nobody else
    /// shares.
    #[must_use]
    pub fn fresh(&self, model: &str) -> Self {
        let lane = |lane: &Arc<Lane>| {
            let (fingerprint, key) = (lane.fingerprint, Arc::clone(&lane.key));
            Arc::new(Lane { fingerprint, breaker: Breaker::default(), key })
        };
        Self {
            provider: self.provider.clone(),
            model: model.to_owned(),
            load: Arc::default(),
            lanes: self.lanes.iter().map(lane).collect(),
            sober: AtomicBool::default(),
        }
    }

    /// Whether it is known to refuse to be asked for its thoughts.
    pub fn is_sober(&self) -> bool {
        self.sober.load(Ordering::Relaxed)
    }

    /// It is not asked for them again.
    pub fn sobers(&self) {
        self.sober.store(true, Ordering::Relaxed);
    }

    /// That of the key which it is best asked with.
    pub fn status(&self, now: Instant) -> Option<Status> {
        let lanes = self.lanes.iter().map(|lane| lane.status(now));
        lanes.min_by_key(|status| (rank(status.state), status.until))
    }
}

/// How far a state is from usable.
fn rank(state: State) -> u8 {
    match state {
        State::Closed => 0,
        State::HalfOpen => 1,
        State::Open => 2,
    }
}

// === impl Registry ===

impl Registry {
    fn lane(&mut self, known: Option<&Standing>, provider: &str, fingerprint: u64) -> Arc<Lane> {
        let lanes = known.map_or(&[][..], |known| &known.lanes);
        if let Some(lane) = lanes.iter().find(|lane| lane.fingerprint == fingerprint) {
            return Arc::clone(lane);
        }
        let slot = self.keys.entry((provider.to_owned(), fingerprint)).or_default();
        let key = slot.upgrade().unwrap_or_default();
        *slot = Arc::downgrade(&key);
        Arc::new(Lane { fingerprint, breaker: Breaker::default(), key })
    }
}

fn sweep<K: Eq + Hash, V>(map: &mut HashMap<K, Weak<V>>) {
    map.retain(|_, held| held.strong_count() > 0);
}

// === impl Lane ===

impl Lane {
    /// `None`: it may be used now; else until when the target or the key is shut.
    pub fn ready_at(&self, now: Instant) -> Option<Instant> {
        self.breaker.ready_at(now).max(self.key.ready_at(now))
    }

    /// Why it is shut, if it is.
    pub fn reason(&self, now: Instant) -> Option<Reason> {
        let status = self.key.status(now);
        status.reason.or_else(|| self.breaker.status(now).reason)
    }

    /// What keeps it from being used for longer, the target or the key.
    pub fn status(&self, now: Instant) -> Status {
        let (target, key) = (self.breaker.status(now), self.key.status(now));
        let of = |status: &Status| (rank(status.state), status.until);
        let mut status = if of(&key) > of(&target) { key } else { target };
        let errors = [target.last_error, key.last_error];
        status.last_error = errors.into_iter().flatten().max_by_key(|(_, at)| *at);
        status
    }

    pub fn enter(&self, now: Instant) -> Option<Entry<'_>> {
        let key = self.key.enter(now)?;
        Some(Entry { lane: self.breaker.enter(now)?, key })
    }

    /// For the lane closest to reopening, when all are shut.
    pub fn force(&self, now: Instant) -> Entry<'_> {
        Entry { lane: self.breaker.force(now), key: self.key.force(now) }
    }

    /// Later news, as of a stream that broke after its beginning had been reported.
    pub fn report(&self, report: Report, now: Instant) {
        let (lane, key) = split(report);
        self.breaker.report(lane, now);
        self.key.report(key, now);
    }
}

// === impl Entry ===

impl Entry<'_> {
    pub fn report(self, report: Report, now: Instant) {
        let (lane, key) = split(report);
        self.lane.report(lane, now);
        self.key.report(key, now);
    }
}

/// What a report says of the target by this key, and what of the key alone.
fn split(report: Report) -> (Report, Report) {
    match report {
        Report::Ok => (Report::Ok, Report::Ok),
        // Providers count a key's calls by model, and let in the key that they tell to wait.
        Report::Wait(_) => (report, Report::Ok),
        Report::Dead(_) => (Report::Neutral, report),
        Report::Failed(_) | Report::Neutral => (report, Report::Neutral),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Reason, State};
    use super::*;

    #[test]
    fn routes_that_name_the_same_target_share_its_standing() {
        let board = Board::default();
        let one = board.standing("a", "m", &[1, 2]);
        assert!(Arc::ptr_eq(&one, &board.standing("a", "m", &[1, 2])));
        let other = board.standing("a", "n", &[1]);
        assert!(Arc::ptr_eq(&one.lanes[0].key, &other.lanes[0].key), "a key is one for all models");
        assert!(!Arc::ptr_eq(&one.lanes[0].key, &board.standing("b", "m", &[1]).lanes[0].key));
    }

    #[test]
    fn a_reload_that_adds_a_key_forgets_nothing_of_the_others() {
        let board = Board::default();
        let before = board.standing("a", "m", &[1, 2]);
        let after = board.standing("a", "m", &[3, 2]);
        assert!(Arc::ptr_eq(&before.load, &after.load));
        assert!(Arc::ptr_eq(&before.lanes[1], &after.lanes[1]));
        assert_eq!(after.lanes[0].fingerprint, 3);
    }

    #[test]
    fn what_nobody_holds_is_swept_and_the_rest_is_listed_in_order() {
        let board = Board::default();
        let held = [board.standing("b", "m", &[]), board.standing("a", "m", &[1])];
        drop(board.standing("gone", "m", &[1]));
        let names = || {
            let list = board.standings().into_iter();
            list.map(|one| one.provider.clone()).collect::<Vec<_>>()
        };
        assert_eq!(names(), ["a", "b"]);
        assert_eq!(held[0].lanes.len(), 1, "a target without keys has one lane");
        drop(board.standing("a", "m", &[1]));
        let registry = board.registry.lock().unwrap();
        assert_eq!((registry.standings.len(), registry.keys.len()), (2, 2));
    }

    #[test]
    fn a_refused_key_is_shut_for_all_models_and_a_failing_model_for_itself() {
        let (board, now) = (Board::default(), Instant::now());
        let (one, other) = (board.standing("a", "m", &[1]), board.standing("a", "n", &[1]));
        for _ in 0..5 {
            one.lanes[0].enter(now).unwrap().report(Report::Failed(Reason::Errors), now);
        }
        assert!(one.lanes[0].enter(now).is_none());
        assert!(other.lanes[0].enter(now).is_some());
        other.lanes[0].enter(now).unwrap().report(Report::Dead(Reason::KeyRefused), now);
        assert_eq!(other.lanes[0].ready_at(now), Some(now + Duration::from_mins(1)));
        assert_eq!(one.lanes[0].ready_at(now), Some(now + Duration::from_mins(1)));
        assert_eq!(other.lanes[0].breaker.status(now).state, State::Closed);
    }

    #[test]
    fn a_lane_whose_target_is_shut_leaves_the_probe_of_its_key_to_others() {
        let (board, now) = (Board::default(), Instant::now());
        let (one, other) = (board.standing("a", "m", &[1]), board.standing("a", "n", &[1]));
        one.lanes[0].key.report(Report::Dead(Reason::QuotaSpent), now);
        let later = now + Duration::from_mins(1);
        one.lanes[0].breaker.report(Report::Wait(None), later);
        assert!(one.lanes[0].enter(later).is_none());
        let probe = other.lanes[0].enter(later).unwrap();
        assert!(other.lanes[0].enter(later).is_none());
        probe.report(Report::Wait(None), later);
        assert_eq!(other.lanes[0].key.status(later).state, State::Closed);
        let forced = one.lanes[0].force(later);
        forced.report(Report::Ok, later);
        assert_eq!(one.lanes[0].ready_at(later), None);
    }
}
