//! When to leave a target alone after it failed, and when to try it again: a circuit breaker.

pub mod board;
mod hints;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How long outcomes are counted together, from the first failure on.
const WINDOW: Duration = Duration::from_secs(10);
/// With fewer outcomes than this a ratio says nothing.
const ENOUGH: u32 = 5;
/// So many failures without a success between them open it however slowly they come.
const IN_A_ROW: u32 = 5;
/// An outage of 60 s at one call a second costs five calls to open and six or seven probes,
/// twelve at most, and the target is back within 8 s and one call of its recovery.
const OPEN: Duration = Duration::from_secs(8);
/// When to look again while somebody else's probe is under way.
const MOMENT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_hours(1);
/// After a 429 that names no time; doubled until a success.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LAST_WAIT: Duration = Duration::from_secs(30);
/// After a key was refused; doubled until a success.
const FIRST_BENCH: Duration = Duration::from_mins(1);
const LAST_BENCH: Duration = Duration::from_mins(10);

/// What is known of one target by one key, or of one key alone.
///
/// While nothing has failed, asking it and reporting a success are one atomic load each.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Lowest bit: there is something to remember. The others: the record's epoch.
    mark: AtomicU64,
    record: Mutex<Record>,
}

/// How an attempt ended, as far as the health of what was tried goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    Ok,
    Failed(Reason),
    /// Too many calls: come back later, in this time if the provider said so.
    Wait(Option<Duration>),
    /// The key was refused, and will be for as long as nobody changes something.
    Dead(Reason),
    /// Says nothing: the client's own mistake, or it left.
    Neutral,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Errors,
    Timeouts,
    RateLimited,
    KeyRefused,
    QuotaSpent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Closed,
    Open,
    /// Due for its probe, or being probed.
    HalfOpen,
}

/// One breaker as the admin page shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub state: State,
    /// Why it is shut.
    pub reason: Option<Reason>,
    pub since: Option<Instant>,
    pub until: Option<Instant>,
    /// Remembered after it has closed again.
    pub last_error: Option<(Reason, Instant)>,
}

/// Leave to make one attempt. Dropped without a report, its probe is somebody else's.
#[derive(Debug)]
#[must_use = "an attempt is reported, or its probe is given back at once"]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    voucher: Voucher,
}

/// What a report is worth: news of before the last opening or closing is not news.
#[derive(Clone, Copy, Debug)]
struct Voucher {
    epoch: u64,
    /// Made while it was shut, so that a success closes it.
    trial: bool,
    /// The number of the probe that this is.
    probe: Option<u64>,
}

#[derive(Debug, Default)]
struct Record {
    /// Counts openings and closings.
    epoch: u64,
    window: Option<Window>,
    /// Failures since the last success.
    row: u32,
    shut: Option<Shut>,
    /// Since the last success: waits that no header named, and refusals of the key.
    waits: u32,
    refusals: u32,
    probes: u64,
    last_error: Option<(Reason, Instant)>,
    /// A success from here has outdone what other replicas say, up to then.
    deaf_until: Option<Instant>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    outcomes: u32,
    failed: u32,
}

#[derive(Debug)]
struct Shut {
    reason: Reason,
    since: Instant,
    until: Instant,
    probe: Option<Probe>,
    /// Another replica has said so.
    is_heard: bool,
}

#[derive(Debug)]
struct Probe {
    number: u64,
    since: Instant,
}

// === impl Reason ===

impl Reason {
    pub const ALL: [Self; 5] =
        [Self::Errors, Self::Timeouts, Self::RateLimited, Self::KeyRefused, Self::QuotaSpent];

    pub fn name(self) -> &'static str {
        match self {
            Self::Errors => "errors",
            Self::Timeouts => "timeouts",
            Self::RateLimited => "rate_limited",
            Self::KeyRefused => "key_refused",
            Self::QuotaSpent => "quota_spent",
        }
    }
}

// === impl State ===

impl State {
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// How much of the calls meant for it get through: the value of the gauge.
    pub fn share(self) -> f64 {
        match self {
            Self::Closed => 1.0,
            Self::HalfOpen => 0.5,
            Self::Open => 0.0,
        }
    }
}

// === impl Breaker ===

impl Breaker {
    /// `None`: it may be used now, if only by one caller; else until when it is shut.
    pub fn ready_at(&self, now: Instant) -> Option<Instant> {
        if self.epoch_if_quiet().is_some() {
            return None;
        }
        self.record().shut.as_ref().and_then(|shut| shut.ready_at(now))
    }

    /// Leave to try it, which takes the probe if one is due; `None` while it is shut.
    pub fn enter(&self, now: Instant) -> Option<Pass<'_>> {
        if let Some(epoch) = self.epoch_if_quiet() {
            return Some(self.pass(Voucher { epoch, trial: false, probe: None }));
        }
        let voucher = self.record().enter(now)?;
        Some(self.pass(voucher))
    }

    /// Leave to try it although it is shut, because everything else is too.
    pub fn force(&self, now: Instant) -> Pass<'_> {
        self.enter(now).unwrap_or_else(|| {
            let epoch = self.record().epoch;
            self.pass(Voucher { epoch, trial: true, probe: None })
        })
    }

    /// Later news, as of a stream that broke after its beginning had been reported.
    pub fn report(&self, report: Report, now: Instant) {
        let epoch = self.mark.load(Ordering::Relaxed) >> 1;
        self.settle(Voucher { epoch, trial: false, probe: None }, report, now);
    }

    pub fn status(&self, now: Instant) -> Status {
        let record = self.record();
        let shut = record.shut.as_ref();
        let state = match shut {
            None => State::Closed,
            Some(shut) if now < shut.until => State::Open,
            Some(_) => State::HalfOpen,
        };
        Status {
            state,
            reason: shut.map(|shut| shut.reason),
            since: shut.map(|shut| shut.since),
            until: shut.map(|shut| shut.until),
            last_error: record.last_error,
        }
    }

    fn epoch_if_quiet(&self) -> Option<u64> {
        let mark = self.mark.load(Ordering::Relaxed);
        (mark & 1 == 0).then_some(mark >> 1)
    }

    fn pass(&self, voucher: Voucher) -> Pass<'_> {
        Pass { breaker: self, voucher }
    }

    fn settle(&self, voucher: Voucher, report: Report, now: Instant) {
        let idle = report == Report::Ok || (report == Report::Neutral && voucher.probe.is_none());
        if idle && self.epoch_if_quiet().is_some() {
            return;
        }
        let mut record = self.record();
        record.settle(voucher, report, now);
        self.mark(&record);
    }

    /// Under the record's lock, so that the mark never lags behind it.
    fn mark(&self, record: &Record) {
        let busy = record.shut.is_some() || record.window.is_some();
        self.mark.store((record.epoch << 1) | u64::from(busy), Ordering::Relaxed);
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Pass ===

impl Pass<'_> {
    pub fn report(mut self, report: Report, now: Instant) {
        self.breaker.settle(self.voucher, report, now);
        self.voucher.probe = None;
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.voucher.probe.is_some() {
            self.breaker.record().give_back(self.voucher);
        }
    }
}

// === impl Record ===

impl Record {
    fn enter(&mut self, now: Instant) -> Option<Voucher> {
        let epoch = self.epoch;
        let Some(shut) = &mut self.shut else {
            return Some(Voucher { epoch, trial: false, probe: None });
        };
        if shut.ready_at(now).is_some() {
            return None;
        }
        self.probes += 1;
        shut.probe = Some(Probe { number: self.probes, since: now });
        Some(Voucher { epoch, trial: true, probe: Some(self.probes) })
    }

    fn settle(&mut self, voucher: Voucher, report: Report, now: Instant) {
        match report {
            Report::Ok => self.succeed(voucher, now),
            Report::Neutral => self.give_back(voucher),
            Report::Failed(reason) => {
                self.last_error = Some((reason, now));
                self.fail(voucher, reason, now);
            }
            Report::Wait(given) => {
                self.last_error = Some((Reason::RateLimited, now));
                self.wait(voucher, given.filter(|wait| !wait.is_zero()), now);
            }
            Report::Dead(reason) => {
                self.last_error = Some((reason, now));
                self.bench(voucher, reason, now);
            }
        }
    }

    fn succeed(&mut self, voucher: Voucher, now: Instant) {
        if self.shut.is_some() {
            if voucher.trial && voucher.epoch == self.epoch {
                // They may go on saying it for as long as it takes them to look again.
                self.deaf_until = self.shut.as_ref().map(|shut| shut.until.max(now) + OPEN);
                self.close();
            }
            return;
        }
        self.row = 0;
        match &mut self.window {
            Some(window) if now < window.since + WINDOW => window.outcomes += 1,
            _ => self.window = None,
        }
    }

    fn fail(&mut self, voucher: Voucher, reason: Reason, now: Instant) {
        if self.is_probe(voucher) {
            if let Some(shut) = &mut self.shut {
                let (since, until) = (shut.since, now + OPEN);
                *shut = Shut { reason, since, until, probe: None, is_heard: false };
            }
            return;
        }
        if self.shut.is_some() || voucher.epoch != self.epoch {
            return;
        }
        let current = self.window.take().filter(|window| now < window.since + WINDOW);
        let mut window = current.unwrap_or(Window { since: now, outcomes: 0, failed: 0 });
        window.outcomes += 1;
        window.failed += 1;
        self.row += 1;
        let bad = window.outcomes >= ENOUGH && window.failed >= window.outcomes.div_ceil(2);
        self.window = Some(window);
        if bad || self.row >= IN_A_ROW {
            self.open(reason, OPEN, now);
        }
    }

    fn wait(&mut self, voucher: Voucher, given: Option<Duration>, now: Instant) {
        if self.shut.is_none() || self.is_probe(voucher) {
            let wait = given.unwrap_or_else(|| {
                self.waits += 1;
                doubled(FIRST_WAIT, self.waits, LAST_WAIT)
            });
            self.open(Reason::RateLimited, wait.min(LONGEST_WAIT), now);
        } else if let (Some(shut), Some(wait)) = (&mut self.shut, given) {
            // One of several calls under way when it shut: the longest of their waits holds.
            let until = now + wait.min(LONGEST_WAIT);
            if until > shut.until {
                (shut.until, shut.reason) = (until, Reason::RateLimited);
            }
        }
    }

    fn bench(&mut self, voucher: Voucher, reason: Reason, now: Instant) {
        // Calls that were under way together are refused together, and that is one refusal.
        if self.refusals == 0 || self.shut.is_none() || self.is_probe(voucher) {
            self.refusals += 1;
            self.open(reason, doubled(FIRST_BENCH, self.refusals, LAST_BENCH), now);
        }
    }

    fn close(&mut self) {
        let (epoch, probes, last_error) = (self.epoch + 1, self.probes, self.last_error);
        let deaf_until = self.deaf_until;
        *self = Self { epoch, probes, last_error, deaf_until, ..Self::default() };
    }

    fn open(&mut self, reason: Reason, time: Duration, now: Instant) {
        let same = self.shut.take().filter(|shut| shut.reason == reason);
        let since = same.map_or(now, |shut| shut.since);
        self.shut = Some(Shut { reason, since, until: now + time, probe: None, is_heard: false });
        self.epoch += 1;
        self.window = None;
        self.row = 0;
    }

    fn is_probe(&self, voucher: Voucher) -> bool {
        let probe = self.shut.as_ref().and_then(|shut| shut.probe.as_ref());
        voucher.probe.is_some() && probe.map(|probe| probe.number) == voucher.probe
    }

    fn give_back(&mut self, voucher: Voucher) {
        if self.is_probe(voucher)
            && let Some(shut) = &mut self.shut
        {
            shut.probe = None;
        }
    }
}

// === impl Shut ===

impl Shut {
    fn ready_at(&self, now: Instant) -> Option<Instant> {
        if now < self.until {
            return Some(self.until);
        }
        // A probe that takes its time does not hold up the next, or one long answer would keep
        // everybody else away from a target that is well.
        let probing = self.probe.as_ref().is_some_and(|probe| now < probe.since + OPEN);
        probing.then(|| now + MOMENT)
    }
}

/// `first` for the first time, twice that for the second, and so on up to `last`.
fn doubled(first: Duration, times: u32, last: Duration) -> Duration {
    first.saturating_mul(1 << times.saturating_sub(1).min(16)).min(last)
}

#[cfg(test)]
mod tests;
