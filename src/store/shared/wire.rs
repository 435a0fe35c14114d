//! How claims and answers are spelled for the scripts.

use std::time::Duration;

use redis::ScriptInvocation;

use super::News;

/// What one node says of one limit. Amounts are absolute, so that saying it twice says it once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    pub key: String,
    pub limit: u64,
    /// By its beginning, so that a later one has a larger number; 0 where there are none.
    pub window: i64,
    pub used: Used,
    /// By calls in flight.
    pub held: u64,
    /// Granted, and neither used nor held.
    pub slack: u64,
    /// Less than this is of no use to anybody who waits; all of them could use `ask`.
    pub need: u64,
    pub ask: u64,
    /// When everybody may forget it. Never, if there is none.
    pub life: Option<Duration>,
    /// What was used is only told here: a process that begins anew does not know it, and must not
    /// write over what the one before has told.
    pub only_told: bool,
}

/// What counts as used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Used {
    /// In the claim's window.
    In(u64),
    /// Each until so much time has passed.
    Rolling(Vec<(Duration, u64)>),
}

/// What a node that does not say so itself has used of one limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recalled {
    pub node: String,
    pub key: String,
    pub window: i64,
    pub used: Used,
    pub life: Option<Duration>,
}

/// What is known of one limit after a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub grant: u64,
    /// What nobody has.
    pub free: u64,
    /// Of all others together.
    pub used: Used,
    pub held: u64,
    pub slack: u64,
    /// Nothing is granted now: others are still to announce what they have used, or are in a later
    /// window already.
    pub closed: bool,
}

/// Words of an answer for each claim.
const WORDS: usize = 7;

// === impl Claim ===

impl Claim {
    pub(super) fn write(&self, call: &mut ScriptInvocation<'_>, node: &str, process: &str) {
        call.key(&self.key).arg(self.limit).arg(self.window).arg(self.used.spelled());
        call.arg(self.held).arg(self.slack).arg(self.need).arg(self.ask).arg(millis(self.life));
        call.arg(if self.only_told { process } else { node });
    }

    fn told(&self, open: bool, words: &[String]) -> Option<Told> {
        let [grant, free, used, held, slack, ahead, rolling] = words else { return None };
        let used = match self.used {
            Used::In(_) => Used::In(used.parse().ok()?),
            Used::Rolling(_) => Used::Rolling(parts(rolling)),
        };
        Some(Told {
            grant: grant.parse().ok()?,
            free: free.parse().ok()?,
            used,
            held: held.parse().ok()?,
            slack: slack.parse().ok()?,
            closed: !open || ahead == "1",
        })
    }
}

// === impl Recalled ===

impl Recalled {
    pub(super) fn write(&self, call: &mut ScriptInvocation<'_>) {
        call.key(&self.key).arg(&self.node).arg(self.window).arg(self.used.spelled());
        call.arg(millis(self.life));
    }
}

/// As scripts take it: 0 for ever.
fn millis(life: Option<Duration>) -> u128 {
    life.map_or(0, |life| life.as_millis().max(1))
}

// === impl Used ===

impl Used {
    fn spelled(&self) -> String {
        match self {
            Self::In(amount) => amount.to_string(),
            Self::Rolling(parts) => {
                // Up to the next millisecond, so that nothing leaves early.
                let millis = |left: &Duration| left.as_nanos().div_ceil(1_000_000);
                let words = parts.iter().map(|(left, amount)| format!("{}:{amount}", millis(left)));
                format!("r{}", words.collect::<Vec<_>>().join(","))
            }
        }
    }

    pub fn sum(&self) -> u64 {
        match self {
            Self::In(amount) => *amount,
            Self::Rolling(parts) => parts.iter().map(|(_, amount)| amount).sum(),
        }
    }
}

fn parts(text: &str) -> Vec<(Duration, u64)> {
    let part = |pair: &str| {
        let (left, amount) = pair.split_once(':')?;
        Some((Duration::from_millis(left.parse().ok()?), amount.parse().ok()?))
    };
    text.split(',').filter_map(part).collect()
}

/// The answers to these claims; `None` if they make no sense.
pub(super) fn told(words: &[String], claims: &[&Claim]) -> Option<Vec<Told>> {
    let [_, open, words @ ..] = words else { return None };
    let all = words.chunks(WORDS).zip(claims);
    let told: Option<Vec<Told>> =
        all.map(|(words, claim)| claim.told(open == "1", words)).collect();
    told.filter(|told| told.len() == claims.len())
}

pub(super) fn news(lists: Vec<Vec<String>>) -> News {
    let mut lists = lists.into_iter();
    let wanted = lists.next().unwrap_or_default();
    let hints = lists.next().unwrap_or_default();
    let hint = |pair: &[String]| {
        let [age, text] = pair else { return None };
        Some((Duration::from_millis(age.parse().ok()?), text.clone()))
    };
    News { wanted, hints: hints.chunks(2).filter_map(hint).collect() }
}
