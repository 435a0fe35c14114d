//! How a number is spread: counts in buckets, from which any share can be told.

use std::sync::atomic::{AtomicU32, Ordering};

/// Eighteen powers of two, in quarters.
const BUCKETS: usize = 72;
/// With so many samples, all that are known lose half of their weight.
const MEMORY: u32 = 256;
const FEWEST: u32 = 20;

/// The recent samples of a number from two to the power of `FIRST` on; what is smaller counts as
/// that.
#[derive(Debug)]
pub struct Histogram<const FIRST: u32> {
    samples: AtomicU32,
    buckets: [AtomicU32; BUCKETS],
}

// === impl Histogram ===

impl<const FIRST: u32> Default for Histogram<FIRST> {
    fn default() -> Self {
        let buckets = [const { AtomicU32::new(0) }; BUCKETS];
        Self { samples: AtomicU32::new(0), buckets }
    }
}

impl<const FIRST: u32> Histogram<FIRST> {
    const SMALLEST: u64 = 1 << FIRST;
    const LARGEST: u64 = (1 << (FIRST + 18)) - 1;

    pub fn count(&self, sample: u64) {
        self.buckets[Self::bucket(sample)].fetch_add(1, Ordering::Relaxed);
        // At each multiple, not above a limit: who is about to halve may be held up while others
        // go on counting.
        if (self.samples.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(MEMORY) {
            self.samples.fetch_sub(self.buckets.iter().map(halve).sum(), Ordering::Relaxed);
        }
    }

    /// The number that this share of the recent samples did not exceed, rounded up by at most a
    /// quarter; `None` while there are too few to tell.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let counts: [u32; BUCKETS] =
            std::array::from_fn(|at| self.buckets[at].load(Ordering::Relaxed));
        let total: u32 = counts.iter().sum();
        if total < FEWEST {
            return None;
        }
        let wanted = f64::from(total) * share;
        let mut seen = 0;
        let holds = |count: &u32| {
            seen += count;
            f64::from(seen) >= wanted
        };
        counts.iter().position(holds).map(Self::upper_edge)
    }

    /// Four buckets of the same width in each power of two.
    fn bucket(sample: u64) -> usize {
        let sample = sample.clamp(Self::SMALLEST, Self::LARGEST);
        let octave = sample.ilog2();
        let quarter = usize::try_from(sample >> (octave - 2)).unwrap_or(0) & 3;
        usize::try_from(octave - FIRST).unwrap_or(0) * 4 + quarter
    }

    fn upper_edge(bucket: usize) -> u64 {
        let quarters = u64::try_from(bucket % 4).unwrap_or(0) + 5;
        quarters << (FIRST as usize + bucket / 4 - 2)
    }
}

/// How many it took away.
fn halve(bucket: &AtomicU32) -> u32 {
    let half = |count: u32| Some(count - count / 2);
    // It never returns `None`, and so never fails.
    let before = bucket.fetch_update(Ordering::Relaxed, Ordering::Relaxed, half);
    before.unwrap_or_default() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    type Lengths = Histogram<4>;

    fn total(lengths: &Lengths) -> u32 {
        lengths.buckets.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    #[test]
    fn a_share_is_told_within_a_quarter_once_there_are_enough_samples() {
        let lengths = Lengths::default();
        (1..20).for_each(|length| lengths.count(length * 100));
        assert_eq!(lengths.quantile(0.95), None);
        lengths.count(2_000);
        let told = lengths.quantile(0.95).unwrap();
        assert!((1_900..=2_375).contains(&told), "{told}");
        assert!((100..=128).contains(&lengths.quantile(0.05).unwrap()));
    }

    #[test]
    fn what_was_is_forgotten() {
        let lengths = Lengths::default();
        (0..1000).for_each(|_| lengths.count(5_000));
        (0..2000).for_each(|_| lengths.count(100));
        assert!(lengths.quantile(0.95).unwrap() <= 128);
        assert!(total(&lengths) < MEMORY);
    }

    #[test]
    fn every_number_has_a_bucket_that_holds_it() {
        assert_eq!(Lengths::bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(Lengths::bucket(0), 0);
        for at in 0..BUCKETS {
            let edge = Lengths::upper_edge(at);
            assert_eq!(Lengths::bucket(edge - 1), at);
            assert_eq!(Lengths::bucket(edge), (at + 1).min(BUCKETS - 1));
        }
    }

    #[test]
    fn many_who_count_at_once_lose_nothing() {
        let lengths = Lengths::default();
        let run = || (0..10_000).for_each(|_| lengths.count(100));
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(run))));
        assert_eq!(lengths.samples.load(Ordering::Relaxed), total(&lengths));
        (0..100 * MEMORY).for_each(|_| lengths.count(100));
        // Halved at one multiple it may be left at the one before, and go on between the two.
        assert!(total(&lengths) <= 2 * MEMORY, "what piled up in the rush is forgotten too");
    }
}
