//! What a call may cost at most is held before anything is sent, and settled with the truth when
//! the call is over.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::agents::Forecast;
use super::arrival::Question;
use super::call::Call;
use super::desk::Desk;
use super::measure::{Measure, SHORTER, costs, measure, rough};
use super::snapshot::Target;
use super::{Gateway, anew};
use crate::access::account::{
    self, Account, Crossed, Demand, Denial, Dimension, Hold, Inquiry, Moment, Refusal, attempt,
};
use crate::access::{Caller, Tab};
use crate::canon::{Money, Usage, UsageSource};
use crate::config::entry;
use crate::dialect::passage::Sight;
use crate::error::{Error, Kind};

/// A stream that outgrows what is held for it holds so many tokens more.
const STEP: u64 = 256;
/// A target whose limits have no room until some call ends is left alone for so long.
const SOON: Duration = Duration::from_secs(1);
/// An answer goes on for so long while the other replicas are asked for more.
pub(super) const A_MOMENT: Duration = Duration::from_millis(500);

/// Room for so many calls is so much that it need not be known how long exactly one is.
const AMPLE: u64 = 64;

/// Limit, rest and reset; in OpenAI's spelling, and checked when this is compiled.
static RATES: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ],
];
static BUDGET_LEFT: HeaderName = HeaderName::from_static("x-switchpoint-budget-left");

/// What a call holds and what it has come to.
#[derive(Debug, Default)]
pub(super) struct Till {
    pub(super) hold: Option<Hold>,
    /// Tokens of the answer that are held; `None` where nobody counts them.
    pub(super) room: Option<u64>,
    /// What one target may need at most, and how much of it is for the answer; `None` where nobody
    /// counts that.
    pub(super) need: Option<(Demand, u64)>,
    /// When the other replicas were asked for more, first and last.
    pub(super) asked: Option<(Instant, Instant)>,
    settled: bool,
    /// It counts, although no target was asked.
    used: bool,
    /// Only a target of `fallbacks.budget` may be asked: there is room for no other.
    saves: bool,
}

/// What a call has used of all targets together.
#[derive(Debug, Default)]
struct Bill {
    tokens: u64,
    cost: Option<Money>,
    /// Nobody knows what a part of it costs.
    unpriced: bool,
}

// === impl Till ===

impl Till {
    pub(super) fn is_holding(&self) -> bool {
        self.hold.is_some()
    }

    /// Whatever comes of it counts from here on.
    pub(super) fn mark_used(&mut self) {
        self.used = true;
    }

    /// Gives all back, as if nothing had been asked.
    pub(super) fn let_go(&mut self) {
        self.hold = None;
        (self.room, self.need) = (None, None);
        self.saves = false;
    }

    /// Whether only who stands in where money is short may be asked.
    pub(super) fn saves(&self) -> bool {
        self.saves
    }
}

/// Holds what the call may need at most in the accounts of its key and route.
pub(super) async fn hold(call: &mut Call, question: &mut Question) -> Result<(), Error> {
    let accounts = call.accounts();
    if accounts.is_empty() || call.till.hold.is_some() {
        return Ok(());
    }
    call.gateway.await_past(&accounts).await?;
    if !call.tabs().any(|tab| tab.measured) || !costs(call.surface()) {
        let demand = Demand { priced: true, ..Demand::default() };
        let held = obtain(&call.gateway, &accounts, demand).await;
        return held.map(|hold| call.begins(hold)).map_err(|denial| call.denied(&denial));
    }
    if call.gateway.desk().is_none() && hold_roughly(call, question, &accounts) {
        return Ok(());
    }
    let mut measure = measure(call, question).await;
    let mut taken = obtain_measured(call, &accounts, &mut measure).await;
    if taken.as_ref().is_err_and(is_spent) && call.may_save() {
        // The first refusal is what is told should this be no use either.
        call.till.saves = true;
        let saved = obtain_measured(call, &accounts, &mut measure).await;
        call.till.saves = saved.is_ok();
        taken = saved.or(taken);
    }
    call.measured(measure.longest_input());
    let (hold, room, cap) = taken.map_err(|denial| call.denied(&denial))?;
    if let Some(most) = cap {
        Box::pin(question.understand(call)).await;
        question.cap(call.surface(), most)?;
    }
    call.till.room = Some(room);
    call.begins(hold);
    Ok(())
}

/// Holds what a measured call may need, and says how much of that is for the answer, and to how
/// many tokens it is to be held for that.
async fn obtain_measured(
    call: &Call,
    accounts: &[Arc<Account>],
    measure: &mut Measure<'_>,
) -> Result<(Hold, u64, Option<u64>), Denial> {
    let (demand, room) = measure.dearest(call);
    let denial = match obtain(&call.gateway, accounts, demand).await {
        Ok(hold) => return Ok((hold, room, None)),
        Err(denial) => denial,
    };
    if !measure.is_open() || !is_spent(&denial) {
        return Err(denial);
    }
    // An answer of any length has no room: it is given what there is, and is held to it.
    for shorter in SHORTER.into_iter().filter(|shorter| *shorter < room) {
        measure.cap(shorter);
        let (demand, room) = measure.dearest(call);
        if let Ok(hold) = obtain(&call.gateway, accounts, demand).await {
            return Ok((hold, room, Some(shorter)));
        }
    }
    measure.uncap();
    Err(denial)
}

/// Whether it is a budget that has no room.
fn is_spent(denial: &Denial) -> bool {
    matches!(denial.refusal.dimension, Dimension::Budget(_))
}

/// Counts a call for which nobody is asked.
pub(super) async fn hold_request(call: &mut Call) -> Result<(), Error> {
    hold_empty(call, true).await
}

/// Counts a call, and holds so much of its budgets: what is used much later no limit by time bounds.
pub(super) async fn hold_budget(call: &mut Call, demand: Demand) -> Result<(), Error> {
    hold_empty(call, demand.priced).await?;
    anew::grow(call, demand).await.map_err(|denial| {
        call.till.let_go();
        call.denied(&denial)
    })
}

/// Counts what was begun before, and may not be refused any more.
pub(super) async fn impose(call: &mut Call) -> Result<(), Error> {
    let accounts = call.accounts();
    if !accounts.is_empty() {
        call.gateway.await_past(&accounts).await?;
        call.begins(account::impose(&accounts, Moment::now()));
    }
    Ok(())
}

async fn hold_empty(call: &mut Call, priced: bool) -> Result<(), Error> {
    let accounts = call.accounts();
    if accounts.is_empty() || call.till.hold.is_some() {
        return Ok(());
    }
    call.gateway.await_past(&accounts).await?;
    let demand = Demand { priced, ..Demand::default() };
    let held = obtain(&call.gateway, &accounts, demand).await;
    held.map(|hold| call.begins(hold)).map_err(|denial| call.denied(&denial))
}

/// Holds what the call may need by a guess that does not look into its question, and mostly is too
/// high. False where there is no such guess, or not so much room that this would not matter.
fn hold_roughly(call: &mut Call, question: &Question, accounts: &[Arc<Account>]) -> bool {
    let Some(rough) = rough(call, question) else { return false };
    let ((demand, room), now) = (rough.dearest(call), Moment::now());
    if !account::is_ample(accounts, demand, AMPLE, now) {
        return false;
    }
    let Ok(hold) = attempt(accounts, demand, now, Inquiry::default()) else { return false };
    call.till.room = Some(room);
    call.begins(hold);
    true
}

/// Takes so much of these accounts. Where replicas count together this may ask them, but need not
/// as long as what this one was granted suffices.
async fn obtain(
    gateway: &Gateway,
    accounts: &[Arc<Account>],
    demand: Demand,
) -> Result<Hold, Denial> {
    match gateway.desk() {
        Some(desk) => Box::pin(desk.hold(accounts, demand)).await,
        None => attempt(accounts, demand, Moment::now(), Inquiry::default()),
    }
}

impl Gateway {
    /// Whether the key of a caller has any room for a call of this route, of which nothing is
    /// counted.
    pub async fn has_room(&self, caller: &Caller, forecast: &Forecast) -> Result<(), Error> {
        let accounts = &caller.tab().accounts;
        if accounts.is_empty() {
            return Ok(());
        }
        self.await_past(accounts).await?;
        let is_paid = forecast.output_price != Some(0) || forecast.input_price != Some(0);
        let demand = Demand { tokens: 1, nanos: u64::from(is_paid), priced: true };
        let held = obtain(self, accounts, demand).await;
        held.map(drop).map_err(|denial| self.denied(&denial))
    }

    fn denied(&self, denial: &Denial) -> Error {
        if denial.is_final {
            self.note_refusal(&denial.refusal);
            return told(&denial.refusal);
        }
        let message = "The gateway cannot tell now what is left of a limit or budget of this key.";
        let mut error = Error::new(Kind::Overloaded, message);
        error.retry_after = Some(SOON);
        error
    }

    fn note_refusal(&self, refusal: &Refusal) {
        let limited = &self.telemetry.metrics.limited;
        limited.with_label_values(&[refusal.dimension.name()]).inc();
    }

    /// Counts one more run in these accounts, if all of them have room. Where replicas count
    /// together, these do.
    pub async fn count_run(&self, accounts: &[Arc<Account>]) -> Result<(), Error> {
        let demand = Demand { priced: true, ..Demand::default() };
        match obtain(self, accounts, demand).await {
            Ok(hold) => {
                hold.settle(0, 0, Moment::now());
                Ok(())
            }
            Err(denial) => Err(told(&denial.refusal)),
        }
    }
}

/// The same for the accounts of a target that is about to be asked. When they have no room: until
/// when it is to be left alone.
pub(super) async fn hold_target(
    call: &Call,
    question: &Question,
    place: usize,
) -> Result<Option<Hold>, Instant> {
    let target = call.chain.as_ref().and_then(|chain| chain.targets.get(place));
    let Some(target) = target.filter(|target| !target.tab.is_empty()) else { return Ok(None) };
    let mut demand = Demand { priced: true, ..Demand::default() };
    if target.tab.measured && costs(call.surface()) {
        demand = measure(call, question).await.demand(call, target);
    }
    let hold = obtain(&call.gateway, &target.tab.accounts, demand).await;
    hold.map(Some).map_err(|Denial { refusal, .. }| {
        call.gateway.note_refusal(&refusal);
        tracing::debug!(%refusal, "a target has no room");
        Instant::now() + refusal.retry_after.unwrap_or(SOON)
    })
}

fn told(refusal: &Refusal) -> Error {
    let kind = match refusal.dimension {
        Dimension::Requests | Dimension::Tokens | Dimension::Concurrency => Kind::RateLimited,
        Dimension::Budget(_) => Kind::BudgetExceeded,
        Dimension::Unpriced => Kind::UnpricedModel,
    };
    let mut error = Error::new(kind, refusal.to_string());
    // Some call ends sooner or later.
    let soon = (refusal.dimension == Dimension::Concurrency).then_some(SOON);
    error.retry_after = refusal.retry_after.or(soon);
    error
}

fn tell(crossed: &[Crossed]) {
    for crossed in crossed {
        tracing::warn!(
            scope = crossed.scope.name(), name = %crossed.name, used = %crossed.used,
            limit = %crossed.limit, window = %crossed.window,
            "a budget's soft threshold is crossed"
        );
    }
}

// === impl Call ===

impl Call {
    /// What is counted for its key and its route. The gateway's own comparisons and trials are
    /// nobody's.
    fn tabs(&self) -> impl Iterator<Item = &Tab> {
        let caller = self.caller.as_ref();
        let route = self.chain.as_ref().filter(|_| caller.is_some()).map(|chain| &chain.tab);
        let tabs = caller.map(Caller::tab).into_iter().chain(route);
        tabs.filter(|tab| !tab.is_empty())
    }

    /// Whether anything is limited or counted for it.
    pub(super) fn is_counted(&self) -> bool {
        self.tabs().next().is_some()
    }

    fn accounts(&self) -> SmallVec<[Arc<Account>; 8]> {
        self.tabs().flat_map(|tab| tab.accounts.iter().cloned()).collect()
    }

    /// Whether something has a budget that it counts in.
    pub(super) fn is_budgeted(&self) -> bool {
        self.tabs().any(|tab| tab.budgeted)
    }

    /// The accounts with budgets among them.
    fn budgets(&self) -> SmallVec<[Arc<Account>; 8]> {
        let budgeted = self.tabs().filter(|tab| tab.budgeted);
        budgeted.flat_map(|tab| tab.accounts.iter().cloned()).collect()
    }

    /// The smallest share that is left of a budget; 1 where there is none.
    pub(super) fn budget_left(&self) -> f64 {
        self.budget_left_at(Moment::now())
    }

    fn budget_left_at(&self, now: Moment) -> f64 {
        let budgets = self.budgets();
        if budgets.is_empty() { 1.0 } else { account::least_share(&budgets, now) }
    }

    /// Whether its caller is to be served by something cheaper.
    pub(super) fn is_past_soft(&self) -> bool {
        let budgets = self.budgets();
        !budgets.is_empty() && account::is_past_soft(&budgets, Moment::now())
    }

    fn begins(&mut self, hold: Hold) {
        self.till.need = self.till.room.map(|room| (hold.reserved(), room));
        self.till.hold = Some(hold);
        self.note_held();
    }

    /// Notes what the call comes to should its process end before it does.
    pub(super) fn note_held(&mut self) {
        if let Some(held) = self.till.hold.as_ref().map(Hold::reserved) {
            self.note_begin(held, self.till.room.unwrap_or(0));
        }
    }

    pub(super) fn denied(&self, denial: &Denial) -> Error {
        self.gateway.denied(denial)
    }

    /// Holds more for an answer of which so much has been written, unless it has ended. The error
    /// says that there is no room, and that the answer ends here.
    pub(super) fn outgrows(&mut self, sight: &Sight) -> Option<Error> {
        let written = sight.written;
        if sight.finished && !sight.resumed {
            return None;
        }
        // Where the other replicas have to be asked, that is done ahead of time.
        let ahead = if self.gateway.desk().is_some() { STEP } else { 0 };
        let room = self.till.room.filter(|room| written + ahead > *room)?;
        let steps = (written + ahead - room).div_ceil(STEP);
        let usage = Usage { output: steps * STEP, ..Usage::default() };
        let price = self.target().and_then(|target| target.info.price.as_ref());
        let nanos = price.map_or(0, |price| price.cost(&usage).nanos());
        let tokens = self.house.config.token_weights.count(&usage);
        let more = Demand { tokens, nanos, priced: true };
        match self.grow(more) {
            Ok(true) => {
                self.till.room = Some(room + usage.output);
                self.till.asked = None;
                self.note_held();
                None
            }
            Ok(false) => None,
            Err(denial) => {
                self.till.asked = None;
                (written > room).then(|| self.denied(&denial))
            }
        }
    }

    /// Holds so much more, if there is something held: whether it does. What the other replicas
    /// have to be asked for is denied when they had a moment to answer; the answer goes on until
    /// then.
    pub(super) fn grow(&mut self, more: Demand) -> Result<bool, Denial> {
        let Some(hold) = &mut self.till.hold else { return Ok(false) };
        let (now, asked) = (Moment::now(), self.till.asked);
        let since = |at: Instant| now.steady.saturating_duration_since(at);
        let is_last = asked.is_some_and(|(first, _)| since(first) >= A_MOMENT);
        let away = self.gateway.desk().is_some_and(Desk::is_away);
        let inquiry = Inquiry { asked_at: asked.map(|(first, _)| first), is_last, away };
        match hold.attempt_to_grow(more, now, inquiry) {
            Ok(()) => return Ok(true),
            Err(denial) if denial.is_final || is_last => return Err(denial),
            Err(_) => {}
        }
        if let Some(desk) = self.gateway.desk()
            && asked.is_none_or(|(_, last)| since(last) >= A_MOMENT / 5)
        {
            self.till.asked = Some((asked.map_or(now.steady, |(first, _)| first), now.steady));
            desk.ask_for_more(hold.accounts(), more);
        }
        Ok(false)
    }

    /// Settles what was held for an attempt that has ended.
    pub(super) fn settle_attempt(&self, hold: Option<Hold>, usage: Option<Usage>) {
        let Some(hold) = hold else { return };
        let used = usage.unwrap_or(self.record.usage);
        let tokens = self.house.config.token_weights.count(&used);
        tell(&hold.settle(tokens, 0, Moment::now()));
    }

    /// What the call has come to is known: it is counted, once.
    pub(super) fn settle(&mut self) {
        if std::mem::replace(&mut self.till.settled, true) {
            return;
        }
        let bill = self.bill();
        let now = Moment::now();
        self.learn_length();
        // What is remembered costs nothing, and that is known.
        self.record.cost = bill.cost.or_else(|| self.recalled.as_ref().map(|_| Money::default()));
        self.record.counted = bill.tokens;
        self.record.settled_at = now.wall.into();
        let was_given = self.recalled.is_some() || self.till.used;
        let was_sent = was_given || !self.record.attempts.is_empty() || self.place().is_some();
        if let Some(hold) = self.till.hold.take().filter(|_| was_sent) {
            let nanos = bill.cost.map_or(0, Money::nanos);
            tell(&hold.settle(bill.tokens, nanos, now));
        }
    }

    /// Each attempt by its own price, and all of them in the metrics.
    fn bill(&mut self) -> Bill {
        let mut bill = Bill::default();
        let mut attempts = std::mem::take(&mut self.record.attempts);
        for attempt in &mut attempts {
            let Some(usage) = attempt.usage else { continue };
            let target = self.asked(&attempt.provider, &attempt.model);
            attempt.cost = self.charge(&mut bill, target, usage);
        }
        self.record.attempts = attempts;
        if self.record.usage_source != UsageSource::None {
            self.charge(&mut bill, self.last_target(), self.record.usage);
        }
        if bill.unpriced {
            self.gateway.telemetry.metrics.unpriced.inc();
            // A part of the cost is not the cost.
            bill.cost = None;
        }
        bill
    }

    /// Adds what one attempt used, and says what that cost.
    fn charge(&self, bill: &mut Bill, target: Option<&Target>, usage: Usage) -> Option<Money> {
        if usage.total() == 0 {
            return None;
        }
        bill.tokens += self.house.config.token_weights.count(&usage);
        let target = target?;
        let Some(price) = &target.info.price else {
            bill.unpriced = true;
            return None;
        };
        let cost = price.cost(&usage);
        let team = self.caller.as_ref().and_then(Caller::team).map_or("", |team| team);
        if self.recalled.is_none() {
            target.meters.cost(&self.gateway.telemetry.metrics, team, cost.usd());
        }
        bill.cost = Some(bill.cost.unwrap_or_default().saturating_add(cost));
        Some(cost)
    }

    /// Notes how long the answer was, if somebody may want to know that before the next.
    fn learn_length(&self) {
        if self.record.usage_source != UsageSource::Provider || self.till.room.is_none() {
            return;
        }
        if let (Some(key), Some(target)) = (self.key(), self.last_target()) {
            self.gateway.lengths.note(key, target, self.record.usage.output);
        }
    }

    pub(super) fn asked(&self, provider: &str, model: &str) -> Option<&Target> {
        let targets = &self.chain.as_ref()?.targets;
        targets.iter().find(|target| *target.model == *model && *target.provider.name == *provider)
    }

    /// The target that answered, or the last one that was asked.
    pub(super) fn last_target(&self) -> Option<&Target> {
        let last = || self.record.attempts.last();
        let recalled = || {
            let place = self.recalled.as_ref()?.place?;
            self.chain.as_ref()?.targets.get(place)
        };
        self.target()
            .or_else(|| last().and_then(|last| self.asked(&last.provider, &last.model)))
            .or_else(recalled)
    }

    /// Tells the client what is left of its limits and budgets.
    pub(super) fn say_limits(&self, headers: &mut HeaderMap) {
        let accounts = self.accounts();
        if accounts.is_empty() {
            return;
        }
        let now = Moment::now();
        let rates = account::rates(&accounts, now);
        for ([limit, remaining, reset], rate) in RATES.iter().zip(rates) {
            let Some(rate) = rate else { continue };
            headers.insert(limit, HeaderValue::from(rate.limit));
            headers.insert(remaining, HeaderValue::from(rate.remaining));
            headers
                .extend(HeaderValue::try_from(rate.spelled_reset()).map(|it| (reset.clone(), it)));
        }
        if self.is_budgeted()
            && let Ok(left) = HeaderValue::try_from(self.budget_left_at(now).to_string())
        {
            headers.insert(&BUDGET_LEFT, left);
        }
    }
}

// === impl Gateway ===

impl Gateway {
    /// Puts into the metrics how much of its budget each team has used: of several, of the one
    /// that is nearest to its end.
    pub fn show_budgets(&self) {
        const MILLION: u32 = 1_000_000;
        let (house, now) = (self.snapshot(), Moment::now());
        let used = &self.telemetry.metrics.budget_used;
        used.reset();
        for account in house.roster.accounts_of(entry::Kind::Team) {
            let shares = account.status(now).into_iter().map(|status| {
                let share = u128::from(status.used.value) * u128::from(MILLION);
                u32::try_from(share / u128::from(status.limit.value.max(1))).unwrap_or(u32::MAX)
            });
            if let Some(most) = shares.max() {
                let share = f64::from(most) / f64::from(MILLION);
                used.with_label_values(&[&*account.name]).set(share);
            }
        }
    }
}
