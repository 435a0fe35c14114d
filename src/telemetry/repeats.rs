//! The same warning over and over is written once, and then counted: `N more like it`.

use std::collections::HashMap;
use std::fmt::{Debug, Write as _};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tracing_subscriber::layer::{Context, Filter};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata};

/// Each warning may stand in the log once in this time, and the first few at once.
const PERIOD: Duration = Duration::from_secs(10);
const AT_ONCE: NonZeroU32 = NonZeroU32::MIN;
/// So many kinds of warnings are told apart; what is beyond passes unlimited.
const MOST: usize = 1024;
/// What does not tell warnings of one kind apart; nor do numbers.
const IGNORED: [&str; 4] = ["cause", "error", "id", "call"];

/// What was written before, and how often since.
#[derive(Debug, Clone, Default)]
pub(super) struct Repeats(Arc<Mutex<HashMap<u64, Warning>>>);

#[derive(Debug)]
struct Warning {
    limiter: DefaultDirectRateLimiter,
    level: Level,
    text: String,
    more: u64,
}

/// Warnings that were left out since it was last told.
#[derive(Debug)]
pub(super) struct More {
    pub(super) level: Level,
    pub(super) text: String,
    pub(super) count: u64,
}

// === impl Repeats ===

impl Repeats {
    /// What was left out, where its time is over.
    pub(super) fn due(&self) -> Vec<More> {
        let mut warnings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        warnings.retain(|_, warning| {
            let over = warning.limiter.check().is_ok();
            if over && warning.more > 0 {
                let Warning { level, text, more, .. } = warning;
                due.push(More { level: *level, text: text.clone(), count: *more });
                *more = 0;
                // It stays, since telling of it has used its turn.
                return true;
            }
            !over
        });
        due
    }

    /// All that was left out.
    pub(super) fn rest(&self) -> Vec<More> {
        let mut warnings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = warnings.drain().map(|(_, warning)| warning);
        rest.filter(|warning| warning.more > 0)
            .map(|Warning { level, text, more: count, .. }| More { level, text, count })
            .collect()
    }

    fn pass_or_count(&self, event: &Event<'_>) -> bool {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return true;
        }
        let mut kind = Kind::default();
        event.record(&mut kind);
        let mut hasher = DefaultHasher::new();
        (event.metadata().callsite(), &kind.telling).hash(&mut hasher);
        let key = hasher.finish();
        let mut warnings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if warnings.len() >= MOST && !warnings.contains_key(&key) {
            return true;
        }
        let warning = warnings.entry(key).or_insert_with(|| {
            let quota = Quota::with_period(PERIOD).unwrap_or(Quota::per_minute(AT_ONCE));
            let limiter = RateLimiter::direct(quota.allow_burst(AT_ONCE));
            Warning { limiter, level, text: kind.text, more: 0 }
        });
        let may = warning.limiter.check().is_ok();
        warning.more += u64::from(!may);
        may
    }
}

impl<S> Filter<S> for Repeats {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        self.pass_or_count(event)
    }
}

/// What kind of warning one is.
#[derive(Debug, Default)]
struct Kind {
    telling: String,
    text: String,
}

impl Visit for Kind {
    fn record_u64(&mut self, _: &Field, _: u64) {}

    fn record_i64(&mut self, _: &Field, _: i64) {}

    fn record_f64(&mut self, _: &Field, _: f64) {}

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.text = format!("{value:?}");
        }
        if !IGNORED.contains(&field.name()) {
            // Writing to a string cannot fail.
            let _ = write!(self.telling, "{}={value:?};", field.name());
        }
    }
}
