//! What replicas that count together are to know of an account, and what it hears of them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::hold::Demand;
use super::purse;
use super::share::{Asker, Inquiry, Share, Why};
use super::state::State;
use super::{Account, Moment};
use crate::config::Unit;
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

/// One limit of an account: by its span in seconds, or its name among budgets.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Places,
    Requests(u64),
    Tokens(u64),
    Budget(String),
}

/// One limit of an account as it stands.
struct Gauge<'a> {
    kind: Kind,
    share: &'a mut Share,
    limit: u64,
    window: i64,
    used: Used,
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

    pub(super) fn asker(&self, inquiry: Inquiry, now: Moment) -> Asker {
        let at = |steady| self.nanos(Moment { steady, ..now });
        Asker {
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
        let said = self.claims(&mut state, (Wish::default(), why), now);
        let quiet = gauges(&mut state, &Wish::default(), now)
            .iter()
            .all(|gauge| gauge.share.is_quiet((gauge.used.sum(), gauge.held)));
        if !quiet {
            self.list(&mut state);
        }
        said
    }

    /// What is to be asked for those who wait, if only for news.
    pub fn ask(self: &Arc<Self>, wish: Wish, now: Moment) -> Vec<Said> {
        let mut state = self.lock();
        self.list(&mut state);
        let why = if wish == Wish::default() { Why::Curious } else { Why::Due };
        self.claims(&mut state, (wish, why), now)
    }

    fn claims(
        self: &Arc<Self>,
        state: &mut State,
        (wish, why): (Wish, Why),
        now: Moment,
    ) -> Vec<Said> {
        let steady = self.nanos(now);
        state.advance((now.wall, steady));
        let said = |gauge: Gauge<'_>| {
            let own = (gauge.used.sum(), gauge.held);
            let lacks = gauge.need.all > gauge.share.usable(steady);
            let slack = gauge.share.speak(own, lacks, (why, steady))?;
            let (need, ask) = match gauge.need.all.saturating_sub(slack) {
                0 => (0, 0),
                ask => (gauge.need.smallest.saturating_sub(slack).max(1), ask),
            };
            let name = gauge.kind.name();
            let claim = Claim {
                key: format!("{}{name}", self.shared_name()),
                limit: gauge.limit,
                window: gauge.window,
                used: gauge.used,
                held: gauge.held,
                slack,
                need,
                ask,
                life: gauge.life,
            };
            Some(Said { account: Arc::clone(self), claim, at: now, kind: gauge.kind })
        };
        gauges(state, &wish, now).into_iter().filter_map(said).collect()
    }
}

/// Every limit that is shared.
fn gauges<'a>(state: &'a mut State, wish: &Wish, now: Moment) -> Vec<Gauge<'a>> {
    const SPARE: Duration = Duration::from_mins(1);
    let held = [state.reserved(Unit::Tokens), state.reserved(Unit::Usd)];
    let mut all = Vec::new();
    if let (Some(limit), Some(share)) = (state.concurrency, &mut state.places) {
        let (used, held) = (Used::In(0), state.in_flight);
        let (kind, need, life) = (Kind::Places, wish.calls, Some(LEASE + SPARE));
        all.push(Gauge { kind, share, limit, window: 0, used, held, need, life });
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
        let used = Used::Rolling(meter.counted.told(meter.counted.now()));
        let life = Some(Duration::from_secs(seconds) + SPARE);
        let limit = meter.pace.amount;
        all.push(Gauge { kind, share, limit, window: 0, used, held: 0, need, life });
    }
    for purse in &mut state.purses {
        let (unit, limit, life) = (purse.budget.unit, purse.limit(), purse.life(now.wall));
        let ((used, window), name) = (purse.told(now.wall), purse.name());
        let Some(share) = &mut purse.share else { continue };
        let (need, held) = (wish.of(unit), held[usize::from(unit == Unit::Usd)]);
        all.push(Gauge { kind: Kind::Budget(name), share, limit, window, used, held, need, life });
    }
    all
}

// === impl Said ===

impl Said {
    /// What came of it.
    pub fn hear(&self, told: &Told) {
        let sent = self.account.nanos(self.at);
        let clock = match self.kind {
            Kind::Budget(_) => purse::nanos(self.at.wall),
            Kind::Places | Kind::Requests(_) | Kind::Tokens(_) => sent,
        };
        self.with(|share| share.hear(told, (sent, self.claim.window), clock));
    }

    /// It may have got lost.
    pub fn is_lost(&self) {
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

// === impl Kind ===

impl Kind {
    fn name(&self) -> String {
        match self {
            Self::Places => "concurrency".to_owned(),
            Self::Requests(seconds) => format!("requests/{seconds}"),
            Self::Tokens(seconds) => format!("tokens/{seconds}"),
            Self::Budget(name) => format!("budget/{name}"),
        }
    }
}
