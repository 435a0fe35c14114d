//! The breaker's promises, at instants made up for them.

use std::sync::atomic::AtomicUsize;

use super::*;

const FAILED: Report = Report::Failed(Reason::Errors);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn open(now: Instant) -> Breaker {
    let breaker = Breaker::default();
    for _ in 0..5 {
        breaker.enter(now).unwrap().report(FAILED, now);
    }
    assert_eq!(breaker.status(now).state, State::Open);
    breaker
}

/// One call a second; the target answers 500 from `down` to `up`. Seconds at which it was tried.
fn drill(down: u64, up: u64, until: u64) -> Vec<u64> {
    let (breaker, begin) = (Breaker::default(), Instant::now());
    let mut tried = Vec::new();
    for second in 0..until {
        let now = begin + seconds(second);
        if let Some(pass) = breaker.enter(now) {
            tried.push(second);
            let failing = (down..up).contains(&second);
            pass.report(if failing { FAILED } else { Report::Ok }, now);
        }
    }
    tried
}

#[test]
fn an_outage_of_a_minute_costs_at_most_twelve_attempts_and_ends_within_ten_seconds() {
    for down in 0..30 {
        let up = down + 60;
        let tried = drill(down, up, up + 30);
        let wasted = tried.iter().filter(|at| (down..up).contains(at)).count();
        assert!(wasted <= 12, "{wasted} attempts");
        let back = tried.iter().find(|at| **at >= up).unwrap();
        assert!(back - up <= 10, "back after {} s", back - up);
        assert_eq!(tried.iter().filter(|at| *at >= back).count() as u64, up + 30 - back);
    }
}

#[test]
fn five_failures_in_a_row_open_it_however_slowly_they_come() {
    for pause in [0, 1, 3, 30] {
        let (breaker, begin) = (Breaker::default(), Instant::now());
        let mut attempts = 0;
        let mut now = begin;
        while let Some(pass) = breaker.enter(now) {
            attempts += 1;
            pass.report(FAILED, now);
            if attempts == 25 {
                break;
            }
            now += seconds(pause).min(seconds(if attempts < 5 { 30 } else { 0 }));
        }
        assert_eq!(attempts, 5, "with {pause} s between them");
    }
}

#[test]
fn half_of_what_comes_in_ten_seconds_opens_it_and_less_does_not() {
    let (breaker, now) = (Breaker::default(), Instant::now());
    let play = |reports: &[Report]| {
        for report in reports {
            breaker.report(*report, now);
        }
        breaker.status(now).state
    };
    assert_eq!(play(&[FAILED]), State::Closed, "one error opens nothing");
    assert_eq!(play(&[Report::Ok, Report::Ok, Report::Ok, FAILED]), State::Closed);
    assert_eq!(play(&[Report::Ok, FAILED]), State::Closed);
    assert_eq!(play(&[FAILED]), State::Open);
}

#[test]
fn failures_of_different_windows_are_not_added_up() {
    let (breaker, begin) = (Breaker::default(), Instant::now());
    for turn in 0..20 {
        let now = begin + seconds(11 * turn);
        for report in [FAILED, FAILED, Report::Ok] {
            breaker.report(report, now);
        }
        assert_eq!(breaker.ready_at(now), None);
    }
}

#[test]
fn what_is_the_clients_own_fault_never_opens_it() {
    let (breaker, now) = (Breaker::default(), Instant::now());
    for _ in 0..1000 {
        breaker.enter(now).unwrap().report(Report::Neutral, now);
    }
    breaker.report(FAILED, now);
    for _ in 0..1000 {
        breaker.enter(now).unwrap().report(Report::Neutral, now);
    }
    assert_eq!(breaker.status(now).state, State::Closed);
}

#[test]
fn a_success_of_a_healthy_target_takes_no_lock() {
    let (breaker, now) = (Breaker::default(), Instant::now());
    let lock = breaker.record.lock().unwrap();
    assert_eq!(breaker.ready_at(now), None);
    breaker.enter(now).unwrap().report(Report::Ok, now);
    drop(lock);
    breaker.report(FAILED, now);
    breaker.report(Report::Ok, now + WINDOW);
    let _lock = breaker.record.lock().unwrap();
    breaker.enter(now).unwrap().report(Report::Ok, now);
}

#[test]
fn exactly_one_caller_gets_the_probe_and_its_end_decides() {
    let begin = Instant::now();
    let breaker = open(begin);
    assert!(breaker.enter(begin + OPEN - Duration::from_millis(1)).is_none());
    let now = begin + OPEN;
    assert_eq!(breaker.ready_at(now), None);
    let probe = breaker.enter(now).unwrap();
    assert!(breaker.enter(now).is_none());
    assert_eq!(breaker.ready_at(now), Some(now + MOMENT));
    assert_eq!(breaker.status(now).state, State::HalfOpen);
    probe.report(FAILED, now);
    assert_eq!(breaker.ready_at(now), Some(now + OPEN));
    let now = now + OPEN;
    breaker.enter(now).unwrap().report(Report::Ok, now);
    let status = breaker.status(now);
    assert_eq!((status.state, status.reason, status.until), (State::Closed, None, None));
    assert_eq!(status.last_error, Some((Reason::Errors, begin + OPEN)));
    breaker.report(FAILED, now);
    assert_eq!(breaker.ready_at(now), None, "what was before the probe is forgotten");
}

#[test]
fn a_probe_that_was_cancelled_or_says_nothing_is_given_back() {
    let begin = Instant::now();
    let breaker = open(begin);
    let now = begin + OPEN;
    drop(breaker.enter(now).unwrap());
    breaker.enter(now).unwrap().report(Report::Neutral, now);
    let probe = breaker.enter(now).unwrap();
    assert!(breaker.enter(now).is_none());
    drop(probe);
    assert_eq!(breaker.ready_at(now), None);
}

#[test]
fn a_probe_that_takes_its_time_does_not_hold_up_the_next() {
    let begin = Instant::now();
    let breaker = open(begin);
    let slow = breaker.enter(begin + OPEN).unwrap();
    let now = begin + OPEN + OPEN;
    let next = breaker.enter(now).unwrap();
    slow.report(FAILED, now);
    assert!(breaker.enter(now).is_none(), "the slow one has nothing to give back any more");
    next.report(Report::Ok, now);
    assert_eq!(breaker.ready_at(now), None);
}

#[test]
fn news_of_before_the_recovery_do_not_shut_it_again() {
    let begin = Instant::now();
    let breaker = Breaker::default();
    let under_way: Vec<_> = (0..10).map(|_| breaker.enter(begin).unwrap()).collect();
    for _ in 0..5 {
        breaker.report(FAILED, begin);
    }
    let now = begin + OPEN;
    breaker.enter(now).unwrap().report(Report::Ok, now);
    for pass in under_way {
        pass.report(Report::Failed(Reason::Timeouts), now);
    }
    assert_eq!(breaker.ready_at(now), None);
}

#[test]
fn a_success_of_before_the_outage_does_not_open_the_door() {
    let begin = Instant::now();
    let breaker = Breaker::default();
    let early = breaker.enter(begin).unwrap();
    for _ in 0..5 {
        breaker.report(FAILED, begin);
    }
    early.report(Report::Ok, begin);
    assert!(breaker.enter(begin).is_none());
}

#[test]
fn a_wait_shuts_it_for_as_long_and_then_lets_one_probe_in() {
    let (breaker, begin) = (Breaker::default(), Instant::now());
    breaker.enter(begin).unwrap().report(Report::Wait(Some(seconds(20))), begin);
    assert_eq!(breaker.ready_at(begin), Some(begin + seconds(20)));
    assert_eq!(breaker.status(begin).reason, Some(Reason::RateLimited));
    let now = begin + seconds(20);
    let probe = breaker.enter(now).unwrap();
    assert!(breaker.enter(now).is_none());
    probe.report(Report::Ok, now);
    assert!(breaker.enter(now).is_some() && breaker.enter(now).is_some());

    breaker.report(Report::Wait(Some(seconds(1_000_000))), now);
    assert_eq!(breaker.ready_at(now), Some(now + seconds(3600)));
}

#[test]
fn the_longest_of_several_waits_holds() {
    let (breaker, now) = (Breaker::default(), Instant::now());
    for wait in [5, 30, 2] {
        breaker.report(Report::Wait(Some(seconds(wait))), now);
    }
    breaker.report(Report::Wait(None), now);
    assert_eq!(breaker.ready_at(now), Some(now + seconds(30)));
}

#[test]
fn waits_that_nobody_named_double_up_to_half_a_minute_until_a_success() {
    let (breaker, mut now) = (Breaker::default(), Instant::now());
    for wait in [1, 2, 4, 8, 16, 30, 30, 1, 2] {
        if wait == 1 {
            breaker.enter(now).unwrap().report(Report::Ok, now);
        }
        // All calls that were under way hear of it; that is one refusal.
        let pass = breaker.enter(now).unwrap();
        pass.report(Report::Wait(Some(Duration::ZERO)), now);
        (0..10).for_each(|_| breaker.report(Report::Wait(None), now));
        now += seconds(wait);
        assert_eq!(breaker.ready_at(now - MOMENT), Some(now));
    }
}

#[test]
fn a_refused_key_is_benched_for_a_minute_doubling_to_ten() {
    let (breaker, mut now) = (Breaker::default(), Instant::now());
    for bench in [60, 120, 240, 480, 600, 600] {
        breaker.enter(now).unwrap().report(Report::Dead(Reason::KeyRefused), now);
        (0..10).for_each(|_| breaker.report(Report::Dead(Reason::KeyRefused), now));
        now += seconds(bench);
        assert_eq!(breaker.ready_at(now - MOMENT), Some(now));
    }
    breaker.enter(now).unwrap().report(Report::Ok, now);
    breaker.report(Report::Dead(Reason::QuotaSpent), now);
    assert_eq!(breaker.ready_at(now), Some(now + seconds(60)));
    assert_eq!(breaker.status(now).reason, Some(Reason::QuotaSpent));
}

#[test]
fn a_forced_success_closes_it_and_a_forced_failure_changes_nothing() {
    let begin = Instant::now();
    let breaker = open(begin);
    breaker.force(begin + seconds(1)).report(FAILED, begin + seconds(1));
    assert_eq!(breaker.ready_at(begin + seconds(1)), Some(begin + OPEN));
    let probe = breaker.force(begin + OPEN);
    assert!(breaker.enter(begin + OPEN).is_none(), "a forced call takes the probe that is due");
    drop(probe);
    let now = begin + seconds(2);
    let open_again = open(now);
    open_again.force(now).report(Report::Ok, now);
    assert_eq!(open_again.ready_at(now), None);
}

#[test]
fn many_reporters_at_once_agree() {
    const THREADS: usize = 8;
    const CALLS: usize = 5000;
    let (breaker, begin) = (Breaker::default(), Instant::now());
    let (probes, passes) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let run = |thread: usize| {
        for call in 0..CALLS {
            let Some(pass) = breaker.enter(begin) else { continue };
            passes.fetch_add(1, Ordering::Relaxed);
            let report = [Report::Ok, FAILED, FAILED, Report::Neutral][(thread + call) % 4];
            pass.report(report, begin);
        }
    };
    let race = || {
        if let Some(pass) = breaker.enter(begin + OPEN) {
            probes.fetch_add(1, Ordering::Relaxed);
            // Kept to the end of the race.
            std::mem::forget(pass);
        }
    };
    std::thread::scope(|scope| {
        (0..THREADS).for_each(|thread| drop(scope.spawn(move || run(thread))));
    });
    assert_eq!(breaker.status(begin).state, State::Open);
    let few = 10 * THREADS;
    assert!(passes.load(Ordering::Relaxed) <= few, "{passes:?} passes until it was shut");
    std::thread::scope(|scope| (0..THREADS).for_each(|_| drop(scope.spawn(race))));
    assert_eq!(probes.load(Ordering::Relaxed), 1);
}

#[test]
fn states_and_reasons_have_names() {
    let reasons = [Reason::Errors, Reason::Timeouts, Reason::RateLimited, Reason::KeyRefused];
    assert_eq!(reasons.map(Reason::name), ["errors", "timeouts", "rate_limited", "key_refused"]);
    assert_eq!(Reason::QuotaSpent.name(), "quota_spent");
    let states = [State::Closed, State::Open, State::HalfOpen].map(State::name);
    assert_eq!(states, ["closed", "open", "half_open"]);
}
