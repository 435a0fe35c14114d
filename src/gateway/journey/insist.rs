//! Who is asked again, and how long that is waited for.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::{Answer, Attempt, Course, Journey};
use crate::canon::Outcome;
use crate::error::Error;
use crate::gateway::arrival::Question;
use crate::gateway::call::Call;
use crate::gateway::chain::Chain;
use crate::route::health::Reason;
use crate::route::plan::Skip;

/// A provider that wants to be left alone for longer is not waited for while somebody else can be
/// asked, or somebody waits for the answer: the client is told.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A target that may answer when it is asked again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Again {
    pub(super) place: usize,
    pub(super) credential: usize,
    /// Not before then, if it said so.
    pub(super) ready: Option<Instant>,
    /// Why it has failed; `None` for one that was left alone so far.
    pub(super) after: Option<&'static str>,
}

/// How long a call waits for those who may answer when they are asked again.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// How often a target may be asked again that limits its rate, before another one is asked.
    repeats: u32,
    /// Before a target is asked again: a time at random up to this, doubled each time.
    pause: Duration,
    longest_pause: Duration,
    /// A provider that wants to be left alone for longer is not waited for.
    longest_wait: Duration,
}

// === impl Patience ===

impl Patience {
    /// Somebody waits for a plain call. A run of an agent has begun something that is worth waiting
    /// for, and where its model has read the conversation before it is read at a tenth of the price.
    pub(super) fn of(call: &Call) -> Self {
        match call.bearings.rate_limit_tries {
            None => Self {
                repeats: 0,
                pause: Duration::from_millis(250),
                longest_pause: Duration::from_secs(8),
                longest_wait: LONGEST_WAIT,
            },
            Some(tries) => Self {
                repeats: tries.saturating_sub(1),
                pause: Duration::from_millis(500),
                longest_pause: Duration::from_secs(30),
                longest_wait: Duration::from_secs(30),
            },
        }
    }
}

// === impl Journey ===

impl Journey {
    /// Whether the target that was asked last is asked again before another one is.
    pub(super) fn bears_with(&self, place: usize) -> bool {
        let limited = |(last, failure): &(usize, crate::provider::Failure)| {
            *last == place && failure.outcome == Outcome::RateLimited
        };
        self.patience.repeats > 0 && self.last.as_ref().is_some_and(limited)
    }

    /// Nobody has answered. Asks again, after a pause, those who may answer then; where nobody was
    /// even asked because all are left alone, the one who is to be tried again soonest.
    pub(super) async fn insist(
        &mut self,
        call: &mut Call,
        question: &Question,
        chain: &Chain,
    ) -> Result<Option<Answer>, Error> {
        if let Some((place, _)) = soonest(&self.skipped) {
            let credential = chain.targets[place].soonest_credential(Instant::now());
            let shut = Again { place, credential, ready: None, after: None };
            self.again.insert(0, shut);
        }
        self.ask_again(call, question, chain, None).await
    }

    /// Asks again, after a pause, who may answer then: the target at `only` while it limits its
    /// rate and patience lasts, or whoever has failed.
    pub(super) async fn ask_again(
        &mut self,
        call: &mut Call,
        question: &Question,
        chain: &Chain,
        only: Option<usize>,
    ) -> Result<Option<Answer>, Error> {
        let mut repeats = only.map_or(u32::MAX, |_| self.patience.repeats);
        // One attempt is left for the next one.
        let kept = u32::from(only.is_some() && chain.targets.len() > 1);
        let longest = only.map_or(self.patience.longest_wait, |_| LONGEST_WAIT);
        while repeats > 0 && self.left > kept && self.course == Course::On {
            let (now, pause) = (Instant::now(), self.patience.pause);
            let Some((index, due)) = self.soonest_again(call, only, now) else { break };
            let again = self.again[index];
            let target = &chain.targets[again.place];
            if due > (now + longest + pause).min(call.end(&target.limits)) {
                break;
            }
            if again.after.is_some_and(|reason| !call.take_retry(target, reason)) {
                break;
            }
            let Again { place, credential, .. } = self.again.swap_remove(index);
            sleep_until(due).await;
            let Some(errand) = self.prepare(call, question, target).await? else { continue };
            let pass = target.lane(credential).force(Instant::now());
            let attempt = Attempt { place, credential, errand: &errand, pass };
            if let Some(answer) = self.attempt(call, question, attempt, None).await? {
                return Ok(Some(answer));
            }
            self.patience.pause = (pause * 2).min(self.patience.longest_pause);
            let bears = only.is_none_or(|place| self.bears_with(place));
            repeats = if bears { repeats - 1 } else { 0 };
        }
        Ok(None)
    }

    /// Who is to be asked again first, and when.
    fn soonest_again(
        &self,
        call: &Call,
        only: Option<usize>,
        now: Instant,
    ) -> Option<(usize, Instant)> {
        let pause = self.patience.pause;
        let due = |again: &Again| match (again.after, again.ready) {
            (None, _) => now,
            // Not all who were told the same time come back at it, and later each time.
            (_, Some(ready)) => ready + pause / 2 + call.jitter(pause / 2),
            (_, None) => now + call.jitter(pause),
        };
        let again = self.again.iter().enumerate();
        let again = again.filter(|(_, again)| only.is_none_or(|place| again.place == place));
        again.map(|(index, again)| (index, due(again))).min_by_key(|(_, due)| *due)
    }
}

/// The target that is to be tried again soonest. Who has asked to be left alone is left alone.
fn soonest(skipped: &[(u16, Skip)]) -> Option<(usize, Instant)> {
    let shut = skipped.iter().filter_map(|(place, skip)| match skip {
        Skip::Shut(until, reason) if *reason != Reason::RateLimited => {
            Some((usize::from(*place), *until))
        }
        _ => None,
    });
    shut.min_by_key(|(_, until)| *until)
}
