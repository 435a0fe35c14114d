//! Two configs live at once: some calls try the next one, each from its beginning to its end, until
//! it is promoted or taken back.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{Gateway, Snapshot, session};
use crate::canon::{CallRecord, Outcome, Purpose};
use crate::route::condition::{FIGURES, Figures, Watch};
use crate::route::histogram::Histogram;

/// All calls, in the unit of shares: hundredths of a percent.
pub const WHOLE: u32 = 10_000;
/// What a turn is ahead of the one before: so, any few that follow one another are spread evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
/// The headers by which a key is shown.
const KEYS: [&str; 4] = ["authorization", "x-api-key", "api-key", "x-goog-api-key"];

/// How a config is to be tried.
#[derive(Debug)]
pub struct Terms {
    /// Of `WHOLE`.
    pub share: u32,
    pub lasts: Duration,
    pub sticky: Sticky,
    /// When it is to be taken back.
    pub rollback_on: Option<Watch>,
    /// So many calls must have been tried before anything is concluded from them.
    pub least: u64,
}

/// What stays with the config that it came to first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sticky {
    /// A session that a header names; other calls are drawn one by one.
    Session,
    /// A key.
    Key,
    /// Nothing.
    Call,
}

/// One config on trial.
#[derive(Debug)]
pub struct Trial {
    pub(super) candidate: Arc<Snapshot>,
    /// The generation that is served beside it.
    beside: u64,
    pub terms: Terms,
    pub by: String,
    pub since: SystemTime,
    pub(super) end: Instant,
    /// It is not to be written to the file.
    pub(super) ephemeral: bool,
    turn: AtomicU64,
    tried: Tally,
    baseline: Tally,
    /// A call that tried it has ended, or the trial has.
    pub(super) news: Notify,
}

/// How the calls of one of the two have gone.
#[derive(Debug, Default)]
struct Tally {
    calls: AtomicU64,
    failed: AtomicU64,
    blocked: AtomicU64,
    /// Nobody was let in with them.
    refused: AtomicU64,
    nanos: AtomicU64,
    /// In microseconds, as is the next.
    took: Histogram<10>,
    first_token: Histogram<10>,
}

// === impl Sticky ===

impl Sticky {
    pub const ALL: [Self; 3] = [Self::Session, Self::Key, Self::Call];

    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Key => "key",
            Self::Call => "call",
        }
    }
}

// === impl Trial ===

impl Trial {
    pub(super) fn new(
        candidate: Arc<Snapshot>,
        beside: u64,
        terms: Terms,
        by: &str,
        ephemeral: bool,
    ) -> Arc<Self> {
        let end = Instant::now() + terms.lasts;
        Arc::new(Self {
            candidate,
            beside,
            terms,
            by: by.to_owned(),
            since: SystemTime::now(),
            end,
            ephemeral,
            // Half a turn, so that the first call of all does not try it.
            turn: AtomicU64::new(1 << 63),
            tried: Tally::default(),
            baseline: Tally::default(),
            news: Notify::new(),
        })
    }

    pub fn generation(&self) -> u64 {
        self.candidate.generation
    }

    /// How calls have gone that tried it, and those beside them.
    pub fn figures(&self) -> (Figures, Figures) {
        (self.tried.figures(), self.baseline.figures())
    }

    /// Whether enough calls have tried it.
    pub(super) fn is_tried(&self) -> bool {
        self.tried.calls.load(Ordering::Relaxed) >= self.terms.least
    }

    /// Why it is to be taken back, if it is.
    pub(super) fn fails(&self) -> Option<String> {
        let watch = self.terms.rollback_on.as_ref().filter(|_| self.is_tried())?;
        let (tried, baseline) = self.figures();
        watch.holds(&tried, &baseline).then(|| {
            let mentioned = FIGURES.iter().zip(tried);
            let mentioned = mentioned.filter(|(name, _)| watch.source().contains(**name));
            let told: Vec<String> =
                mentioned.map(|(name, figure)| format!("{name} = {figure:.6}")).collect();
            format!("{} ({} of {} calls)", watch.source(), told.join(", "), tried[0])
        })
    }

    /// Whether a call with these headers tries it.
    fn takes(&self, headers: &HeaderMap) -> bool {
        let stays = match self.terms.sticky {
            Sticky::Session => session::of_headers(headers),
            Sticky::Key => KEYS.iter().find_map(|name| headers.get(*name)).map(digest),
            Sticky::Call => None,
        };
        let point = match stays {
            // Another trial is another lot.
            Some(number) => digest((number, self.generation())),
            None => self.turn.fetch_add(GOLDEN, Ordering::Relaxed),
        };
        u128::from(point) * u128::from(WHOLE) < u128::from(self.terms.share) << 64
    }

    fn count(&self, record: &CallRecord, was_let_in: bool) -> Option<&'static str> {
        let (tally, side) = match record.generation {
            tried if tried == self.generation() => (&self.tried, "canary"),
            other if other == self.beside => (&self.baseline, "baseline"),
            // It began before the trial.
            _ => return None,
        };
        tally.count(record, was_let_in);
        if side == "canary" {
            self.news.notify_one();
        }
        Some(side)
    }
}

fn digest(thing: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    thing.hash(&mut hasher);
    hasher.finish()
}

// === impl Tally ===

impl Tally {
    fn count(&self, record: &CallRecord, was_let_in: bool) {
        let add = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
        if !was_let_in {
            add(&self.refused);
            return;
        }
        match record.outcome {
            Outcome::Ok | Outcome::ClientClosed => 0,
            Outcome::GuardBlocked => add(&self.blocked),
            Outcome::UpstreamTruncated
            | Outcome::UpstreamError
            | Outcome::Timeout
            | Outcome::RateLimited
            | Outcome::BudgetExceeded
            | Outcome::Refused
            | Outcome::Internal => add(&self.failed),
        };
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.took.count(micros(record.duration));
        if let Some(first_token) = record.first_token.filter(|_| record.stream) {
            self.first_token.count(micros(first_token));
        }
        let cost = record.cost.map_or(0, crate::canon::Money::nanos);
        self.nanos.fetch_add(cost, Ordering::Relaxed);
        // Last, so that whoever sees the call sees what it counted.
        self.calls.fetch_add(1, Ordering::Release);
    }

    /// In the order of `FIGURES`.
    fn figures(&self) -> Figures {
        let calls = fraction(self.calls.load(Ordering::Acquire));
        let number = |counter: &AtomicU64| fraction(counter.load(Ordering::Relaxed));
        let of = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
        let refused = number(&self.refused);
        let seconds = |histogram: &Histogram<10>, share: f64| {
            histogram
                .quantile(share)
                .map_or(0.0, |micros| Duration::from_micros(micros).as_secs_f64())
        };
        [
            calls,
            of(number(&self.failed), calls),
            of(refused, calls + refused),
            of(number(&self.blocked), calls),
            seconds(&self.took, 0.5),
            seconds(&self.took, 0.95),
            seconds(&self.first_token, 0.95),
            of(number(&self.nanos) / 1e9, calls),
        ]
    }
}

/// Counts are far from where a fraction gets coarse.
fn fraction(count: u64) -> f64 {
    let (high, low) = (count >> 32, count & u64::from(u32::MAX));
    let part = |part: u64| f64::from(u32::try_from(part).unwrap_or(u32::MAX));
    part(high) * 4_294_967_296.0 + part(low)
}

// === impl Gateway ===

impl Gateway {
    /// The config that a call with these headers goes by, from its beginning to its end.
    pub fn house(&self, headers: &HeaderMap) -> Arc<Snapshot> {
        match &*self.trial.load() {
            Some(trial) if trial.takes(headers) => Arc::clone(&trial.candidate),
            Some(_) | None => self.snapshot(),
        }
    }

    /// The config on trial.
    pub fn trial(&self) -> Option<Arc<Trial>> {
        self.trial.load_full()
    }

    /// Whether calls of this generation try it.
    pub(super) fn is_on_trial(&self, generation: u64) -> bool {
        self.trial.load().as_ref().is_some_and(|trial| trial.generation() == generation)
    }

    /// Counts a call that has ended, if a config is on trial.
    pub(super) fn observe(&self, record: &CallRecord, was_let_in: bool) {
        let trial = self.trial.load();
        let Some(trial) = trial.as_ref().filter(|_| record.purpose == Purpose::Client) else {
            return;
        };
        if let Some(side) = trial.count(record, was_let_in) {
            let labels = [side, record.outcome.name()];
            self.telemetry.metrics.canary_calls.with_label_values(&labels).inc();
        }
    }
}
