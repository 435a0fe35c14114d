//! How busy a target is and how soon it answers: what `fastest` and hedging go by.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::histogram::Histogram;

/// How soon a slow answer is outweighed by the faster ones that follow it.
const DECAY: Duration = Duration::from_secs(10);
/// How soon a target that is not called any more is given another chance. Longer than `DECAY`,
/// or a gateway with a call a minute would know nothing.
const IDLE: Duration = Duration::from_mins(1);
/// What nobody has measured is taken for fast, so that it is tried; calls in flight to it weigh
/// the same as elsewhere, so that it is not tried by everybody at once.
const UNKNOWN: f64 = 0.05;

/// In microseconds: a millisecond to four and a half minutes.
const SMALLEST: u32 = 10;

/// Time to the first token and calls in flight, of one target.
///
/// The average is a peak EWMA, as in Finagle's `PeakEwma` balancer and, derived from it, in
/// tower's `load::PeakEwma`, which linkerd uses: a sample above the average replaces it at once,
/// one below it pulls it down by an exponential weight of the time since the last. Multiplied by
/// the calls in flight it is the work that waits there.
#[derive(Debug)]
pub struct Load {
    /// Stamps are milliseconds since the first sample.
    born: OnceLock<Instant>,
    /// The average's `f32` seconds above the stamp of its last sample; 0 before the first.
    average: AtomicU64,
    /// Microseconds; 0 before the first.
    latest: AtomicU64,
    in_flight: AtomicU32,
    /// In microseconds.
    first_tokens: Histogram<SMALLEST>,
}

/// A call under way; it is over when this is dropped.
#[derive(Debug)]
pub struct InFlight(Arc<Load>);

// === impl Load ===

impl Default for Load {
    fn default() -> Self {
        Self {
            born: OnceLock::new(),
            average: AtomicU64::new(0),
            latest: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            first_tokens: Histogram::default(),
        }
    }
}

impl Load {
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// A call's first token came after this time. Calls that failed have none.
    pub fn first_token(&self, took: Duration, now: Instant) {
        let stamp = self.stamp(now);
        let sample = took.as_secs_f32();
        let update = |old: u64| {
            let next = match unpack(old) {
                Some((average, last)) if sample < average => {
                    let weight = decay(stamp, last, DECAY);
                    average * weight + sample * (1.0 - weight)
                }
                _ => sample,
            };
            Some(pack(next, stamp))
        };
        // It never returns `None`, and so never fails.
        let _ = self.average.fetch_update(Ordering::Relaxed, Ordering::Relaxed, update);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latest.store(micros.max(1), Ordering::Relaxed);
        self.first_tokens.count(micros);
    }

    /// The lower the better: seconds of work that wait there.
    pub fn score(&self, now: Instant) -> f64 {
        let average = unpack(self.average.load(Ordering::Relaxed)).map_or(UNKNOWN, |known| {
            let (average, last) = known;
            f64::from(average * decay(self.stamp(now), last, IDLE))
        });
        average * (f64::from(self.in_flight()) + 1.0)
    }

    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The last time to first token.
    pub fn latest(&self) -> Option<Duration> {
        let micros = self.latest.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }

    /// The time within which this share of the recent first tokens came, rounded up by at
    /// most a quarter; `None` while there are too few to tell.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        self.first_tokens.quantile(share).map(Duration::from_micros)
    }

    fn stamp(&self, now: Instant) -> u32 {
        let age = now.saturating_duration_since(*self.born.get_or_init(|| now));
        // Compared by their difference only, which may wrap around.
        u32::try_from(age.as_millis() & u128::from(u32::MAX)).unwrap_or(0)
    }
}

fn pack(seconds: f32, stamp: u32) -> u64 {
    // The smallest sample is not "none".
    (u64::from(seconds.max(f32::MIN_POSITIVE).to_bits()) << 32) | u64::from(stamp)
}

fn unpack(packed: u64) -> Option<(f32, u32)> {
    let stamp = u32::try_from(packed & u64::from(u32::MAX)).ok()?;
    let bits = u32::try_from(packed >> 32).ok()?;
    (bits > 0).then(|| (f32::from_bits(bits), stamp))
}

/// What is left of a weight of 1 after the time between two stamps.
fn decay(now: u32, then: u32, constant: Duration) -> f32 {
    // Stamps of callers at once may be out of order by a little.
    let passed = u64::try_from(now.wrapping_sub(then).cast_signed()).unwrap_or(0);
    (-Duration::from_millis(passed).as_secs_f32() / constant.as_secs_f32()).exp()
}

// === impl InFlight ===

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn a_slow_answer_counts_at_once_and_fast_ones_outweigh_it_slowly() {
        let (load, now) = (Load::default(), Instant::now());
        load.first_token(milliseconds(200), now);
        load.first_token(milliseconds(3000), now);
        assert!((load.score(now) - 3.0).abs() < 1e-6);
        load.first_token(milliseconds(200), now + DECAY);
        let expected = 3.0 * (-1.0_f64).exp() + 0.2 * (1.0 - (-1.0_f64).exp());
        assert!((load.score(now + DECAY) - expected).abs() < 1e-4);
        assert_eq!(load.latest(), Some(milliseconds(200)));
    }

    #[test]
    fn a_slow_target_is_given_another_chance_in_time() {
        let (slow, fast, begin) = (Load::default(), Load::default(), Instant::now());
        slow.first_token(milliseconds(5000), begin);
        let now = begin + Duration::from_mins(4);
        fast.first_token(milliseconds(400), now);
        assert!(slow.score(begin) > 10.0 * 0.4);
        assert!(slow.score(now) < fast.score(now));
    }

    #[test]
    fn calls_in_flight_raise_the_score_and_leave_when_they_are_over() {
        let (load, now) = (Arc::new(Load::default()), Instant::now());
        assert!((load.score(now) - UNKNOWN).abs() < f64::EPSILON);
        let calls = [load.begin(), load.begin(), load.begin()];
        assert!((load.score(now) - 4.0 * UNKNOWN).abs() < 1e-9);
        drop(calls);
        assert_eq!(load.in_flight(), 0);
    }

    #[test]
    fn clocks_out_of_order_and_a_month_of_silence_do_no_harm() {
        let (load, now) = (Load::default(), Instant::now());
        load.first_token(milliseconds(100), now + milliseconds(50));
        load.first_token(milliseconds(90), now);
        assert!(load.score(now) < 0.11);
        let later = now + Duration::from_hours(24 * 60);
        load.first_token(milliseconds(500), later);
        assert!((load.score(later) - 0.5).abs() < 1e-6);
        load.first_token(Duration::ZERO, later);
        load.first_token(Duration::MAX, later);
        assert!(load.score(later).is_finite());
    }

    #[test]
    fn the_quantile_is_above_its_share_by_a_quarter_at_most() {
        let (load, now) = (Load::default(), Instant::now());
        for sample in 1..=19 {
            load.first_token(milliseconds(sample * 10), now);
            assert_eq!(load.quantile(0.95), None, "{sample} samples are too few");
        }
        (20..=100).for_each(|sample| load.first_token(milliseconds(sample * 10), now));
        let quantile = load.quantile(0.95).unwrap();
        assert!((950..=1188).contains(&quantile.as_millis()), "{quantile:?}");
        assert!(load.quantile(0.5).unwrap() < milliseconds(640));
    }

    #[test]
    fn the_quantile_forgets_what_was() {
        let (load, now) = (Load::default(), Instant::now());
        (0..1000).for_each(|_| load.first_token(milliseconds(5000), now));
        (0..2000).for_each(|_| load.first_token(milliseconds(100), now));
        assert!(load.quantile(0.95).unwrap() < milliseconds(130));
    }

    #[test]
    fn many_callers_at_once_lose_nothing() {
        let (load, now) = (Arc::new(Load::default()), Instant::now());
        let run = || {
            for _ in 0..10_000 {
                let _call = load.begin();
                load.first_token(milliseconds(100), now);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(run))));
        assert_eq!(load.in_flight(), 0);
    }
}
