//! What replicas that count together are to know of an account, and what it hears of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::hold::Demand;
use super::purse;
use super::share::{Inquiry, Share, View, Why};
use super::slide::Slide;
use super::state::State;
use super::{Account, Moment};
use crate::config::{Unit, Window};
use crate::store::shared::{Claim, LEASE, LIMITS, Told, Used};

/// How many replicas count together, and the accounts of which they may have to be told something.
#[derive(Debug)]
pub(super) struct Sharing {
    replicas: u32,
    listed: Mutex<Vec<Arc<Account>>>,
}

/// What calls that wait for room need of an account.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    pub calls: Need,
    pub tokens: Need,
    pub nanos: Need,
}

/// Less than the smallest is of no use to anybody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    smallest: u64,
    all: u64,
}

/// A claim that was made, and when.
#[derive(Debug)]
pub struct Said {
    pub account: Arc<Account>,
    pub claim: Claim,
    at: Moment,
    kind: Kind,
}

/// One limit of an account: by its span in seconds, or by what makes it that budget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Places,
    Requests(u64),
    Tokens(u64),
    Budget(Unit, Window),
}

/// One limit of an account as it stands. It is looked at ten times a second, and told seldom.
struct Gauge<'a> {
    kind: Kind,
    share: &'a mut Share,
    limit: u64,
    window: i64,
    used: u64,
    /// What rolls in place of that, and the time by its clock.
    rolls: Option<(&'a Slide, u64)>,
    held: u64,
    need: Need,
    life: Option<Duration>,
}

// === impl Sharing ===

impl Sharing {
    pub(super) fn new(replicas: u32) -> Self {
        Self { replicas, listed: Mutex::default() }
    }

    pub(super) fn replicas(&self) -> u32 {
        self.replicas
    }

    pub(super) fn take(&self) -> Vec<Arc<Account>> {
        std::mem::take(&mut self.listed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

// === impl Wish ===

impl Wish {
    /// So many calls more that need this.
    pub fn add(&mut self, calls: u64, demand: Demand) {
        self.calls.add(calls);
        self.tokens.add(demand.tokens);
        self.nanos.add(demand.nanos);
    }

    fn of(&self, unit: Unit) -> Need {
        match unit {
            Unit::Tokens => self.tokens,
            Unit::Usd => self.nanos,
        }
    }
}

impl Need {
    fn add(&mut self, amount: u64) {
        if amount > 0 {
            self.smallest = if self.all == 0 { amount } else { self.smallest.min(amount) };
            self.all = self.all.saturating_add(amount);
        }
    }
}

// === impl Account ===

impl Account {
    /// Puts it in the list of those of which something may have to be told.
    pub(super) fn list(self: &Arc<Self>, state: &mut State) {
        if let Some(sharing) = &self.sharing
            && !std::mem::replace(&mut state.is_listed, true)
        {
            let mut listed = sharing.listed.lock().unwrap_or_else(PoisonError::into_inner);
            listed.push(Arc::clone(self));
        }
    }

    pub(super) fn view(&self, inquiry: Inquiry, now: Moment) -> View {
        let at = |steady| self.nanos(Moment { steady, ..now });
        View {
            now: self.nanos(now),
            asked_at: inquiry.asked_at.map(at),
            is_last: inquiry.is_last,
            away: inquiry.away,
        }
    }

    /// What the names of its limits begin with in the shared store.
    pub fn shared_name(&self) -> String {
        format!("{LIMITS}{}/{}/", self.scope.name(), self.name)
    }

    /// What is to be told of it. It leaves the list unless there will be more; for that it is told
    /// that it is in none.
    pub fn tell(self: &Arc<Self>, why: Why, now: Moment) -> Vec<Said> {
        let mut state = self.lock();
        state.is_listed = false;
        let (said, is_quiet) = self.claims(&mut state, Wish::default(), why, now);
        if !is_quiet {
            self.list(&mut state);
        }
        said
    }

    /// What is to be asked for those who wait, if only for news.
    pub fn ask(self: &Arc<Self>, wish: Wish, now: Moment) -> Vec<Said> {
        let mut state = self.lock();
        self.list(&mut state);
        let why = if wish == Wish::default() { Why::Curious } else { Why::Due };
        self.claims(&mut state, wish, why, now).0
    }

    /// What there is to say now, and whether that is all for good.
    fn claims(
        self: &Arc<Self>,
        state: &mut State,
        wish: Wish,
        why: Why,
        now: Moment,
    ) -> (Vec<Said>, bool) {
        let steady = self.nanos(now);
        state.advance((now.wall, steady));
        let mut is_quiet = true;
        let said = |gauge: Gauge<'_>| {
            let own = (gauge.used, gauge.held);
            let lacks = gauge.need.all > gauge.share.usable(steady);
            let spoken = gauge.share.speak(own, lacks, why, steady);
            is_quiet &= gauge.share.is_quiet(own);
            let slack = spoken?;
            let (need, ask) = match gauge.need.all.saturating_sub(slack) {
                0 => (0, 0),
                ask => (gauge.need.smallest.saturating_sub(slack).max(1), ask),
            };
            let name = gauge.kind.name();
            let used = match gauge.rolls {
                Some((slide, clock)) => Used::Rolling(slide.told(clock)),
                None => Used::In(gauge.used),
            };
            let claim = Claim {
                key: format!("{}{name}", self.shared_name()),
                limit: gauge.limit,
                window: gauge.window,
                used,
                held: gauge.held,
                slack,
                need,
                ask,
                life: gauge.life,
                only_told: matches!(gauge.kind, Kind::Requests(_) | Kind::Tokens(_)),
            };
            Some(Said { account: Arc::clone(self), claim, at: now, kind: gauge.kind })
        };
        let said = gauges(state, &wish, now).into_iter().filter_map(said).collect();
        (said, is_quiet)
    }
}

/// Every limit that is shared.
fn gauges<'a>(state: &'a mut State, wish: &Wish, now: Moment) -> Vec<Gauge<'a>> {
    const SPARE: Duration = Duration::from_mins(1);
    let held = [state.reserved(Unit::Tokens), state.reserved(Unit::Usd)];
    let mut all = Vec::new();
    if let (Some(limit), Some(share)) = (state.concurrency, &mut state.places) {
        let (kind, need, held) = (Kind::Places, wish.calls, state.in_flight);
        let (window, used, rolls, life) = (0, 0, None, Some(LEASE + SPARE));
        all.push(Gauge { kind, share, limit, window, used, rolls, held, need, life });
    }
    let requests = state.requests.iter_mut().map(|meter| (false, meter));
    for (is_tokens, meter) in requests.chain(state.token_rates.iter_mut().map(|it| (true, it))) {
        let Some(share) = &mut meter.share else { continue };
        let seconds = meter.pace.seconds;
        let (kind, need) = if is_tokens {
            (Kind::Tokens(seconds), wish.tokens)
        } else {
            (Kind::Requests(seconds), wish.calls)
        };
        let rolls = Some((&meter.counted, meter.counted.now()));
        let life = Some(Duration::from_secs(seconds) + SPARE);
        let (limit, used) = (meter.pace.amount, meter.counted.sum());
        all.push(Gauge { kind, share, limit, window: 0, used, rolls, held: 0, need, life });
    }
    for purse in &mut state.purses {
        let (unit, limit, life) = (purse.budget.unit, purse.limit(), purse.life(now.wall));
        let kind = Kind::Budget(unit, purse.budget.window.clone());
        let (used, window) = (purse.own(), purse.number());
        let (rolls, share) = purse.parts();
        let (Some(share), rolls) = (share, rolls.map(|slide| (slide, purse::nanos(now.wall))))
        else {
            continue;
        };
        let (need, held) = (wish.of(unit), held[usize::from(unit == Unit::Usd)]);
        all.push(Gauge { kind, share, limit, window, used, rolls, held, need, life });
    }
    all
}

// === impl Said ===

impl Said {
    /// What came of it.
    pub fn hear(&self, told: &Told) {
        let sent = self.account.nanos(self.at);
        let clock = match self.kind {
            Kind::Budget(..) => purse::nanos(self.at.wall),
            Kind::Places | Kind::Requests(_) | Kind::Tokens(_) => sent,
        };
        self.with(|share| share.hear(told, sent, self.claim.window, clock));
    }

    /// It may have got lost.
    pub fn mark_lost(&self) {
        self.with(Share::unsaid);
        self.account.list(&mut self.account.lock());
    }

    /// A reload may have taken the limit away.
    fn with(&self, act: impl FnOnce(&mut Share)) {
        let mut state = self.account.lock();
        let all = gauges(&mut state, &Wish::default(), self.at);
        if let Some(gauge) = all.into_iter().find(|gauge| gauge.kind == self.kind) {
            act(gauge.share);
        }
    }
}

/// Windows that count alike have the same name.
fn window_name(window: &Window) -> String {
    match window {
        Window::Never => "none".to_owned(),
        Window::Rolling(period) => format!("rolling/{}", period.as_secs()),
        Window::Calendar(every, zone) => {
            format!("{every:?}/{}", zone.iana_name().unwrap_or_default())
        }
    }
}

// === impl Kind ===

impl Kind {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Places => "concurrency".to_owned(),
            Self::Requests(seconds) => format!("requests/{seconds}"),
            Self::Tokens(seconds) => format!("tokens/{seconds}"),
            Self::Budget(unit, window) => format!("budget/{}/{}", unit.name(), window_name(window)),
        }
    }
}
