//! What a replica may take of a limit without asking the others, and what it last heard of them.
//!
//! What is granted is either used, held by calls in flight, or slack. Calls turn slack into what is
//! held and used, and give back what they did not need; so the sum of the three changes by what
//! the others grant and by what is returned to them only, and no two can spend the same.

use std::time::Duration;

use tokio::time::Instant;

use super::slide::parts_freed_at;
use crate::store::shared::{LEASE, Told, Used};

/// For so long what was leased is used: not as long as others leave it alone.
const USED: Duration = LEASE.saturating_sub(Duration::from_secs(1));
/// Slack that nobody has needed for so long is returned.
const IDLE: u64 = 1_000_000_000;
/// The same where little is left for anybody.
const IDLE_IF_TIGHT: u64 = 100_000_000;
/// And where somebody else waits for it: those for whom it was granted have had their turn.
const IDLE_IF_WANTED: u64 = 10_000_000;
/// How soon it is told what has changed, and where little is left.
const TOLD: u64 = 1_000_000_000;
const TOLD_IF_TIGHT: u64 = 100_000_000;

/// What a caller has done to learn how much there is for it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inquiry {
    /// When it asked the others, if it got an answer.
    pub asked_at: Option<Instant>,
    /// It has waited long enough for what others keep without using it.
    pub is_last: bool,
    /// Nobody can be asked. Limits by time are kept by each for its own part then.
    pub away: bool,
}

/// An inquiry by the account's clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) now: u64,
    pub(super) asked_at: Option<u64>,
    pub(super) is_last: bool,
    pub(super) away: bool,
}

/// Whether there is room for a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Enough,
    /// The others have to be asked.
    Unknown,
    None,
}

/// One limit as it stands between replicas. Times are in nanoseconds of the steady clock.
#[derive(Debug, Default)]
pub(super) struct Share {
    slack: u64,
    /// From then on the slack may be somebody else's.
    until: u64,
    /// When that was asked which is known.
    heard: u64,
    /// What nobody had then.
    free: u64,
    others: Others,
    taken: u64,
    told: Option<(Standing, u64)>,
}

/// What others have of it.
#[derive(Debug, Default)]
struct Others {
    /// In this window, or until so much later by the clock of the limit.
    used: u64,
    window: i64,
    rolling: Vec<(u64, u64)>,
    held: u64,
    slack: u64,
}

/// What a replica has of a limit: used, held and slack.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) used: u64,
    pub(super) held: u64,
    pub(super) slack: u64,
}

/// Why a replica speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It says what it has not said yet.
    Due,
    /// Somebody waits for what is kept without being used.
    Wanted,
    /// Only to hear what the others say.
    Curious,
    /// Nobody knows anything.
    Announce,
    /// It goes, and returns everything.
    Farewell,
}

// === impl Share ===

impl Share {
    pub(super) fn room(&self, asked: u64, view: View) -> Room {
        let slack = self.usable(view.now);
        if asked <= slack {
            return Room::Enough;
        }
        let is_news = view.asked_at.is_some_and(|at| self.heard >= at);
        let elsewhere = if view.is_last { 0 } else { self.others.slack };
        if is_news && asked - slack > self.free.saturating_add(elsewhere) {
            Room::None
        } else {
            Room::Unknown
        }
    }

    pub(super) fn take(&mut self, amount: u64, now: u64) {
        if amount > 0 {
            self.slack = self.slack.saturating_sub(amount);
            self.taken = now;
        }
    }

    /// So much was held and so much used of it.
    pub(super) fn settle(&mut self, held: u64, used: u64) {
        self.slack = self.slack.saturating_add(held).saturating_sub(used);
    }

    /// What others have used, in this window.
    pub(super) fn used_elsewhere(&self, window: i64) -> u64 {
        if self.others.window == window { self.others.used } else { 0 }
    }

    /// The same of what rolls.
    pub(super) fn rolling_elsewhere(&self, now: u64) -> u64 {
        self.others.rolling.iter().filter(|(at, _)| *at > now).map(|(_, amount)| amount).sum()
    }

    /// When so much will have left, of these and of what others have used.
    pub(super) fn freed_at(
        &self,
        own: impl Iterator<Item = (u64, u64)>,
        amount: u64,
    ) -> Option<u64> {
        let mut parts: Vec<(u64, u64)> = own.chain(self.others.rolling.iter().copied()).collect();
        parts.sort_unstable();
        parts_freed_at(parts.into_iter(), amount)
    }

    pub(super) fn empty_at(&self) -> Option<u64> {
        self.others.rolling.iter().map(|(at, _)| *at).max()
    }

    pub(super) fn held_elsewhere(&self) -> u64 {
        self.others.held.saturating_add(self.others.slack)
    }

    /// What is to be said now of so much that is used and held, if anything is. What is returned
    /// is not used any more from here on.
    pub(super) fn speak(&mut self, own: (u64, u64), asks: bool, why: Why, now: u64) -> Option<u64> {
        if self.usable(now) == 0 || why == Why::Farewell {
            self.slack = 0;
        }
        let tight = self.is_tight();
        let idle = match why {
            Why::Wanted => IDLE_IF_WANTED,
            _ if tight => IDLE_IF_TIGHT,
            _ => IDLE,
        };
        if !asks && now.saturating_sub(self.taken) >= idle {
            self.slack = 0;
        }
        let standing = Standing { used: own.0, held: own.1, slack: self.slack };
        let is_due = match (self.told, why) {
            (_, Why::Curious) => true,
            (_, Why::Announce | Why::Farewell) | (None, _) => standing != Standing::default(),
            (Some((before, at)), _) => {
                let wait = if tight { TOLD_IF_TIGHT } else { TOLD };
                let changed = standing != before && now.saturating_sub(at) >= wait;
                let returned = standing.slack == 0 && before.slack > 0;
                let third = u64::try_from(LEASE.as_nanos() / 3).unwrap_or(u64::MAX);
                let leased = standing.held > 0 || standing.slack > 0;
                changed || returned || (leased && now.saturating_sub(at) >= third)
            }
        };
        if !asks && !is_due {
            return None;
        }
        self.told = Some((standing, now));
        Some(self.slack)
    }

    /// Whether all of it has been said, and nothing is to be said of it again.
    pub(super) fn is_quiet(&self, own: (u64, u64)) -> bool {
        let standing = Standing { used: own.0, held: own.1, slack: self.slack };
        let said = self.told.map(|(before, _)| before).unwrap_or_default();
        said == standing && standing.held == 0 && standing.slack == 0
    }

    /// The answer to what was asked at `sent`, of the window that was asked about. `clock` is that
    /// time by the clock by which the limit rolls.
    pub(super) fn hear(&mut self, told: &Told, sent: u64, window: i64, clock: u64) {
        self.slack = self.slack.saturating_add(told.grant);
        self.until = sent.saturating_add(nanos(USED));
        if let Some((standing, _)) = &mut self.told {
            standing.slack = standing.slack.saturating_add(told.grant);
        }
        if told.grant > 0 {
            self.taken = sent;
        }
        let at = |left: Duration| clock.saturating_add(nanos(left));
        let (used, rolling) = match &told.used {
            Used::In(used) => (*used, Vec::new()),
            Used::Rolling(parts) => {
                (0, parts.iter().map(|(left, amount)| (at(*left), *amount)).collect())
            }
        };
        self.others = Others { used, window, rolling, held: told.held, slack: told.slack };
        if !told.closed {
            (self.heard, self.free) = (sent, told.free);
        }
    }

    /// What was said may have got lost.
    pub(super) fn unsaid(&mut self) {
        self.told = None;
    }

    pub(super) fn usable(&self, now: u64) -> u64 {
        if now < self.until { self.slack } else { 0 }
    }

    /// Little is left for anybody who asks.
    fn is_tight(&self) -> bool {
        self.free <= self.slack.saturating_mul(8)
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
