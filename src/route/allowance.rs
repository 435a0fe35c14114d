//! What may be spent beyond the necessary: a share of what was spent in the last ten seconds.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// Seconds that count, the current one included.
const WINDOW: u8 = 10;

/// Keeps retries and hedges from multiplying the load on upstreams that are in trouble anyway.
///
/// Deposits are what the calls themselves take, withdrawals what goes beyond; the unit is the
/// caller's: calls, or money.
#[derive(Debug)]
pub struct Allowance {
    permille: u64,
    reserve: u64,
    born: OnceLock<Instant>,
    seconds: [Second; WINDOW as usize],
}

#[derive(Debug, Default)]
struct Second {
    /// Which second this counts, from 1.
    number: AtomicU64,
    deposits: AtomicU64,
    withdrawals: AtomicU64,
}

// === impl Allowance ===

impl Allowance {
    /// Withdrawals up to `permille` thousandths of the deposits, and up to `reserve` in any case,
    /// so that a quiet gateway may retry too.
    pub fn new(permille: u32, reserve: u64) -> Self {
        let seconds = std::array::from_fn(|_| Second::default());
        Self { permille: u64::from(permille), reserve, born: OnceLock::new(), seconds }
    }

    pub fn deposit(&self, amount: u64, now: Instant) {
        let number = self.number(now);
        self.second(number).deposits.fetch_add(amount, Ordering::Relaxed);
    }

    /// Whether it may be spent; if so, it is.
    pub fn withdraw(&self, amount: u64, now: Instant) -> bool {
        let number = self.number(now);
        let second = self.second(number);
        // Taken first and counted afterwards: of two at once, rather both are refused than both
        // are let through.
        second.withdrawals.fetch_add(amount, Ordering::Relaxed);
        let (deposits, withdrawals) = self.sums(number);
        let share = deposits.saturating_mul(self.permille) / 1000;
        let allowed = withdrawals <= share.max(self.reserve);
        if !allowed {
            let back = |spent: u64| Some(spent.saturating_sub(amount));
            // It never returns `None`, and so never fails.
            let _ = second.withdrawals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, back);
        }
        allowed
    }

    fn sums(&self, number: u64) -> (u64, u64) {
        let current = |second: &&Second| {
            let at = second.number.load(Ordering::Relaxed);
            at > 0 && at + u64::from(WINDOW) > number
        };
        self.seconds.iter().filter(current).fold((0, 0), |(deposits, withdrawals), second| {
            (
                deposits.saturating_add(second.deposits.load(Ordering::Relaxed)),
                withdrawals.saturating_add(second.withdrawals.load(Ordering::Relaxed)),
            )
        })
    }

    fn number(&self, now: Instant) -> u64 {
        let age: Duration = now.saturating_duration_since(*self.born.get_or_init(|| now));
        age.as_secs() + 1
    }

    /// The slot of this second, cleared by the first who comes in it. Who adds to it at the very
    /// moment of its clearing may go uncounted, which is a call or two in a second.
    fn second(&self, number: u64) -> &Second {
        let place = usize::try_from(number % u64::from(WINDOW)).unwrap_or(0);
        let second = &self.seconds[place];
        let old = second.number.load(Ordering::Relaxed);
        let (success, failure) = (Ordering::Relaxed, Ordering::Relaxed);
        if old < number && second.number.compare_exchange(old, number, success, failure).is_ok() {
            second.deposits.store(0, Ordering::Relaxed);
            second.withdrawals.store(0, Ordering::Relaxed);
        }
        second
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    fn withdrawn(allowance: &Allowance, wanted: u32, now: Instant) -> usize {
        (0..wanted).filter(|_| allowance.withdraw(1, now)).count()
    }

    #[test]
    fn a_quiet_gateway_may_retry_as_often_as_the_reserve_says() {
        let (allowance, now) = (Allowance::new(100, 10), Instant::now());
        allowance.deposit(1, now);
        assert_eq!(withdrawn(&allowance, 100, now), 10);
        assert_eq!(withdrawn(&allowance, 100, now + seconds(9)), 0);
        assert_eq!(withdrawn(&allowance, 100, now + seconds(10)), 10);
    }

    #[test]
    fn a_busy_gateway_retries_one_call_in_ten() {
        let (allowance, begin) = (Allowance::new(100, 10), Instant::now());
        let mut retries = 0;
        // Every call of a total outage would like three more.
        for second in 0..60 {
            let now = begin + seconds(second);
            for _ in 0..100 {
                allowance.deposit(1, now);
                retries += withdrawn(&allowance, 3, now);
            }
        }
        assert!((580..=610).contains(&retries), "{retries} retries of 6000 calls");
    }

    #[test]
    fn what_was_deposited_is_worth_nothing_after_the_window() {
        let (allowance, now) = (Allowance::new(100, 0), Instant::now());
        allowance.deposit(1000, now);
        assert!(allowance.withdraw(100, now + seconds(9)));
        assert!(!allowance.withdraw(1, now + seconds(9)));
        assert!(!allowance.withdraw(1, now + seconds(10)));
        allowance.deposit(u64::MAX, now + seconds(20));
        assert!(allowance.withdraw(1, now + seconds(20)), "a deposit of any size is only large");
    }

    #[test]
    fn a_refused_withdrawal_leaves_room_for_a_smaller_one() {
        let (allowance, now) = (Allowance::new(200, 0), Instant::now());
        allowance.deposit(50_000, now);
        assert!(!allowance.withdraw(10_001, now));
        assert!(allowance.withdraw(10_000, now));
    }

    #[test]
    fn many_at_once_never_take_more_than_is_allowed() {
        let (allowance, now) = (Allowance::new(100, 0), Instant::now());
        allowance.deposit(100_000, now);
        let granted = AtomicU32::new(0);
        let run = || {
            for _ in 0..10_000 {
                granted.fetch_add(u32::from(allowance.withdraw(1, now)), Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(run))));
        assert!(granted.load(Ordering::Relaxed) <= 10_000);
        assert!(granted.load(Ordering::Relaxed) > 9_900);
    }
}
