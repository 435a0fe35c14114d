//! How often a tool may be called: so many times in any span of time, by all and by each user.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::{Pace, ToolLimits};
use crate::store::shared::{Turn, Turns};

/// Parts of a span in which calls are counted together: what is remembered has this bound, and a
/// call counts a little longer than it must, never shorter.
const PARTS: u32 = 256;
/// Users that are told apart. Beyond them those are let go who have not called of late, which is
/// looked for no more often than this; the others share what one may.
const MOST_USERS: usize = 10_000;
const SWEEP: Duration = Duration::from_secs(1);

/// The limits of one tool, and who has used how much of them.
#[derive(Debug)]
pub(super) struct Gate {
    limits: ToolLimits,
    counts: Mutex<Counts>,
    /// Where replicas count together: by what name.
    common: Option<(Arc<str>, Arc<Turns>)>,
}

/// What one look at the limits is for.
#[derive(Debug, Clone, Copy)]
enum Look {
    Only,
    /// A turn is taken of each, or of none.
    Take,
    /// It was taken elsewhere.
    Note,
}

#[derive(Debug, Default)]
struct Counts {
    all: Vec<Window>,
    users: Users,
}

#[derive(Debug, Default)]
struct Users {
    known: HashMap<Arc<str>, Vec<Window>>,
    /// All who are not told apart.
    others: Vec<Window>,
    swept: Option<Instant>,
}

/// The calls of one span that slides along.
#[derive(Debug, Default)]
struct Window {
    parts: VecDeque<(Instant, u64)>,
    total: u64,
}

// === impl Gate ===

impl Gate {
    pub(super) fn new(limits: &ToolLimits) -> Self {
        Self { limits: limits.clone(), counts: Mutex::default(), common: None }
    }

    /// Counts together with the other replicas, by this name.
    pub(super) fn together(&mut self, name: &Arc<str>, turns: &Arc<Turns>) {
        self.common = Some((Arc::clone(name), Arc::clone(turns)));
    }

    pub(super) fn is_like(&self, limits: &ToolLimits) -> bool {
        self.limits == *limits
    }

    /// Waits for a turn, and takes it. Where that would take longer than the limits or the deadline
    /// allow, says how long.
    pub(super) async fn pass(
        &self,
        user: Option<&Arc<str>>,
        deadline: Instant,
    ) -> Result<(), Duration> {
        if self.limits.tool.is_empty() && self.limits.user.is_empty() {
            return Ok(());
        }
        let until = deadline.min(Instant::now() + self.limits.max_wait);
        loop {
            let Err(wait) = self.take(user).await else { return Ok(()) };
            if Instant::now() + wait > until {
                return Err(wait);
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// Takes a turn of every limit, or of none; of the replica's own part of them where the others
    /// cannot be asked.
    async fn take(&self, user: Option<&Arc<str>>) -> Result<(), Duration> {
        let Some((name, turns)) = &self.common else { return self.look(user, 1, Look::Take) };
        // What has no room here has none among all.
        self.look(user, 1, Look::Only)?;
        match turns.take(self.turns(name, user)).await {
            Some(Ok(())) => {
                let _ = self.look(user, 1, Look::Note);
                Ok(())
            }
            Some(Err(wait)) => Err(wait),
            None => self.look(user, turns.replicas().into(), Look::Take),
        }
    }

    fn turns(&self, name: &str, user: Option<&Arc<str>>) -> Vec<Turn> {
        let turn = |name: String, pace: &Pace| {
            let Pace { amount, seconds } = *pace;
            Turn { name, amount, seconds }
        };
        let all = self.limits.tool.iter().map(|pace| turn(format!("tool/{name}"), pace));
        let own = user.into_iter().flat_map(|user| {
            let name = format!("user/{name}/{user}");
            self.limits.user.iter().map(move |pace| turn(name.clone(), pace))
        });
        all.chain(own).collect()
    }

    /// Looks whether there is room in a `share`th of every limit, and counts a turn if that is
    /// wanted.
    fn look(&self, user: Option<&Arc<str>>, share: u64, look: Look) -> Result<(), Duration> {
        let now = Instant::now();
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let Counts { all, users } = &mut *counts;
        all.resize_with(self.limits.tool.len(), Window::default);
        let mut none = Vec::new();
        let paces = self.limits.tool.iter().zip(all.iter_mut());
        let own = match user.filter(|_| !self.limits.user.is_empty()) {
            Some(user) => users.windows(user, &self.limits.user, now),
            None => &mut none,
        };
        let own = self.limits.user.iter().zip(own.iter_mut());
        let mut turns: Vec<(&Pace, &mut Window)> = paces.chain(own).collect();
        let waits = turns.iter_mut().filter_map(|(pace, window)| window.wait(pace, share, now));
        if let Some(wait) = waits.max().filter(|_| !matches!(look, Look::Note)) {
            return Err(wait);
        }
        if !matches!(look, Look::Only) {
            for (pace, window) in turns {
                window.count(pace, now);
            }
        }
        Ok(())
    }
}

// === impl Users ===

impl Users {
    fn windows(&mut self, user: &Arc<str>, spans: &[Pace], now: Instant) -> &mut Vec<Window> {
        let mut is_full = self.known.len() >= MOST_USERS && !self.known.contains_key(user);
        if is_full && self.swept.is_none_or(|swept| now >= swept + SWEEP) {
            self.swept = Some(now);
            self.known.retain(|_, windows| !are_idle(windows, spans, now));
            is_full = self.known.len() >= MOST_USERS;
        }
        let windows = if is_full {
            &mut self.others
        } else {
            self.known.entry(Arc::clone(user)).or_default()
        };
        windows.resize_with(spans.len(), Window::default);
        windows
    }
}

fn are_idle(windows: &mut [Window], paces: &[Pace], now: Instant) -> bool {
    windows.iter_mut().zip(paces).all(|(window, pace)| {
        window.forget(pace, now);
        window.total == 0
    })
}

// === impl Window ===

impl Window {
    /// How long until there is room in a `share`th, if there is none.
    fn wait(&mut self, pace: &Pace, share: u64, now: Instant) -> Option<Duration> {
        self.forget(pace, now);
        let most = (pace.amount / share).max(1);
        let (oldest, _) = self.parts.front().filter(|_| self.total >= most)?;
        Some(*oldest + kept(pace) - now)
    }

    fn count(&mut self, pace: &Pace, now: Instant) {
        self.total += 1;
        match self.parts.back_mut() {
            Some((began, count)) if now < *began + part(pace) => *count += 1,
            _ => self.parts.push_back((now, 1)),
        }
    }

    fn forget(&mut self, pace: &Pace, now: Instant) {
        while let Some((_, count)) =
            self.parts.front().filter(|(began, _)| *began + kept(pace) <= now)
        {
            self.total -= count;
            self.parts.pop_front();
        }
    }
}

fn part(pace: &Pace) -> Duration {
    Duration::from_secs(pace.seconds) / PARTS
}

/// How long a part is remembered: its last call counts for a whole span.
fn kept(pace: &Pace) -> Duration {
    Duration::from_secs(pace.seconds) + part(pace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(tool: &[(u64, u64)], user: &[(u64, u64)], max_wait: Duration) -> Gate {
        let paces = |paces: &[(u64, u64)]| {
            paces
                .iter()
                .map(|(amount, seconds)| Pace { amount: *amount, seconds: *seconds })
                .collect()
        };
        let limits = ToolLimits { tool: paces(tool), user: paces(user), run: None, max_wait };
        Gate::new(&limits)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_hours(1)
    }

    #[tokio::test(start_paused = true)]
    async fn no_span_ever_holds_more_calls_than_its_limit() {
        let gate = gate(&[(10, 1)], &[], Duration::from_secs(100));
        let mut times = Vec::new();
        for _ in 0..55 {
            gate.pass(None, later()).await.unwrap();
            times.push(Instant::now());
            tokio::time::advance(Duration::from_millis(7)).await;
        }
        for eleven in times.windows(11) {
            assert!(eleven[10] - eleven[0] >= Duration::from_secs(1));
        }
        assert!(times[54] - times[0] < Duration::from_secs(7), "and it is used");
    }

    #[tokio::test(start_paused = true)]
    async fn one_user_takes_nothing_of_another() {
        let gate = gate(&[], &[(1, 60)], Duration::ZERO);
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        assert_eq!(gate.pass(Some(&ann), later()).await, Ok(()));
        let wait = gate.pass(Some(&ann), later()).await.unwrap_err();
        assert!(wait > Duration::from_secs(59) && wait < Duration::from_secs(61), "{wait:?}");
        assert_eq!(gate.pass(Some(&bob), later()).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn users_that_are_too_many_to_be_told_apart_share_what_one_may() {
        let gate = gate(&[], &[(1, 60)], Duration::ZERO);
        let user = |number: usize| Arc::<str>::from(format!("user{number}"));
        for number in 0..=MOST_USERS {
            assert_eq!(gate.pass(Some(&user(number)), later()).await, Ok(()), "{number}");
        }
        assert!(gate.pass(Some(&user(MOST_USERS + 1)), later()).await.is_err());
        assert_eq!(gate.counts.lock().unwrap().users.known.len(), MOST_USERS);
        tokio::time::advance(Duration::from_secs(61)).await;
        for number in 0..10 {
            let late = user(MOST_USERS + number);
            assert_eq!(gate.pass(Some(&late), later()).await, Ok(()), "there is room again");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_limit_refuses_costs_nothing_of_another() {
        let gate = gate(&[(2, 60)], &[(1, 60)], Duration::ZERO);
        let (ann, bob): (Arc<str>, Arc<str>) = ("ann".into(), "bob".into());
        assert!(gate.pass(Some(&ann), later()).await.is_ok());
        for _ in 0..5 {
            assert!(gate.pass(Some(&ann), later()).await.is_err());
        }
        assert!(gate.pass(Some(&bob), later()).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_longer_than_the_limit_or_the_call_allows() {
        let gate = gate(&[(1, 10)], &[], Duration::from_mins(1));
        gate.pass(None, later()).await.unwrap();
        let began = Instant::now();
        let soon = began + Duration::from_secs(1);
        assert!(gate.pass(None, soon).await.is_err());
        assert_eq!(Instant::now(), began, "it is known beforehand");
        gate.pass(None, later()).await.unwrap();
        assert!(began.elapsed() >= Duration::from_secs(10));
    }
}
