//! The sums are exact, however many calls begin, grow and end at once.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

#[test]
fn of_a_hundred_at_once_as_many_are_let_in_as_there_is_room_for() {
    for _ in 0..20 {
        let house = House::new();
        let key =
            house.account(Scope::Key, "k", "budget = [{ tokens = 100_000, window = \"1d\" }]");
        let team = house.account(Scope::Team, "t", "budget = [{ tokens = 1009, window = \"1d\" }]");
        let org = house.account(Scope::Org, "o", "limits = { concurrency = 50 }");
        let all = [key, team, org];
        let gate = Barrier::new(100);
        let holds: Vec<Hold> = std::thread::scope(|scope| {
            let one = || {
                gate.wait();
                reserve(&all, tokens(100), house.start).ok()
            };
            let threads: Vec<_> = (0..100).map(|_| scope.spawn(one)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(holds.len(), 10);
        assert_eq!(standing(&all[0], house.start), (0, 1000));
        assert_eq!(all[2].in_flight(), 10);
    }
}

/// Numbers that look like chance and are the same every time.
fn dice(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn after_a_storm_nothing_is_held_and_every_level_has_the_sum() {
    let house = House::new();
    let rules = "limits = { requests = \"1M/h\", tokens = \"900M/h\", concurrency = 100 }\n\
                 budget = [{ tokens = 900_000_000, window = \"1d\" }, { usd = 900, window = \"1mo\" }]";
    let org = house.account(Scope::Org, "o", rules);
    let teams = ["a", "b"].map(|name| house.account(Scope::Team, name, rules));
    let keys = ["k", "l", "m", "n"].map(|name| house.account(Scope::Key, name, rules));
    let (spent, cost) = (AtomicU64::new(0), AtomicU64::new(0));
    let worker = |seed: u64| {
        let mut state = seed;
        for _ in 0..125 {
            let at = house.after(Duration::from_millis(dice(&mut state) % 5000));
            let key = usize::try_from(dice(&mut state) % 4).unwrap();
            // Not in the order in which they are locked.
            let all = [&keys[key], &org, &teams[key / 2]].map(Arc::clone);
            let demand = Demand {
                tokens: dice(&mut state) % 1000,
                nanos: dice(&mut state) % 1000,
                priced: true,
            };
            let mut hold = reserve(&all, demand, at).unwrap();
            if dice(&mut state).is_multiple_of(2) {
                hold.grow(dice(&mut state) % 500, 3, at).unwrap();
            }
            if dice(&mut state).is_multiple_of(3) {
                continue;
            }
            let (tokens, nanos) = (dice(&mut state) % 1500, dice(&mut state) % 1500);
            spent.fetch_add(tokens, Ordering::Relaxed);
            cost.fetch_add(nanos, Ordering::Relaxed);
            hold.settle(tokens, nanos, at);
        }
    };
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let worker = &worker;
            scope.spawn(move || worker(seed));
        }
    });
    let now = house.after(SECOND * 5);
    let sums = |accounts: &[Arc<Account>]| {
        let mut sums = [0, 0];
        for account in accounts {
            assert_eq!(account.in_flight(), 0);
            for (sum, status) in sums.iter_mut().zip(account.status(now)) {
                assert_eq!(status.reserved.value, 0);
                *sum += status.used.value;
            }
        }
        sums
    };
    let expected = [spent.load(Ordering::Relaxed), cost.load(Ordering::Relaxed)];
    assert_eq!(sums(&[Arc::clone(&org)]), expected);
    assert_eq!(sums(&teams), expected);
    assert_eq!(sums(&keys), expected);
    let state = org.lock();
    assert_eq!(state.token_rates[0].counted.sum(), expected[0], "the limit has the truth, too");
}
