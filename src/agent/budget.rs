//! What a run and all that it starts may use together: reserved before, settled after.

use std::sync::{Arc, Mutex, PoisonError};

use super::event::{Ceiling, Spent};
use crate::access::Tab;
use crate::access::account::{self, Left, Moment};
use crate::canon::{StopReason, Usage};
use crate::config::AgentBudget;
use crate::gateway::agents::Forecast;
use crate::store::runs::Totals;

/// Below so many tokens an answer is not worth asking for.
const LEAST_OUTPUT: u64 = 64;
/// Of what a turn's calls have given, so much is paid for in the question of a last word. It is
/// made to fit into what is left.
const RESULTS: u64 = 256;
/// Nano-dollars for a million tokens, where tokens are the money.
const ONE: u64 = 1_000_000;
/// Shares are told in millionths.
const MILLION: u128 = 1_000_000;

/// What a model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wish {
    /// A turn behind which there must be enough for a last word.
    Turn,
    /// The last word, or a turn that has to do without: it may use all that there is.
    Last,
    /// Something beside the turns: what is kept back for the last word stays.
    Aside,
    /// Something before the first of them, behind which there must be enough for a last word.
    Before,
}

impl Wish {
    /// Whether it is a turn.
    fn is_step(self) -> bool {
        matches!(self, Self::Turn | Self::Last)
    }

    /// Whether something is kept back for a last word that nobody has kept back before.
    fn keeps(self) -> bool {
        matches!(self, Self::Turn | Self::Before)
    }
}

/// What a run draws from besides its own budget.
#[derive(Debug)]
pub(super) enum Backing {
    /// The budget of the run that has begun it.
    Run(Arc<Purse>),
    /// What its key has left, and all with whom that shares: it changes as others use it.
    Key(Tab),
}

/// What is neither used, held nor kept back: `None` where nothing bounds it.
#[derive(Debug, Clone, Copy)]
struct Rest {
    /// Nano-dollars.
    usd: Option<u64>,
    tokens: Option<u64>,
}

/// The budget of one run. A child draws from its own and from those of all above it.
#[derive(Debug)]
pub(super) struct Purse {
    usd: Option<u64>,
    tokens: Option<u64>,
    /// Turns, where its client lets it and all below it have only so many.
    steps: u32,
    model_calls: u32,
    tool_calls: u32,
    bytes: u64,
    used: Mutex<Used>,
    /// What of the rest is kept back for the last word of the run.
    kept: Mutex<Used>,
    backing: Backing,
    /// Of the whole tree: who looks what is left takes it before another one looks.
    turn: Arc<Mutex<()>>,
}

/// What is used or held.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// Nano-dollars.
    pub(super) usd: u64,
    pub(super) tokens: u64,
    pub(super) steps: u32,
    pub(super) model_calls: u32,
    pub(super) tool_calls: u32,
    pub(super) bytes: u64,
}

/// What is set aside for one call of a model until it is settled. Dropped, it is given back.
#[derive(Debug)]
pub(super) struct Held {
    purse: Arc<Purse>,
    pub(super) usd: u64,
    tokens: u64,
    pub(super) max_tokens: u64,
    wish: Wish,
}

impl Used {
    /// What was used for what a run has taken over from another one.
    pub(super) fn take_over(&mut self, before: Spent) {
        self.usd += before.cost;
        self.tokens += before.usage.input_total() + before.usage.output;
        self.tool_calls += before.tool_calls;
    }

    pub(super) fn add(&mut self, totals: &Totals) {
        self.usd += totals.cost;
        self.tokens += totals.tokens_in + totals.tokens_out;
        self.steps += totals.steps;
        self.model_calls += totals.steps;
        self.tool_calls += totals.tool_calls;
        self.bytes += totals.bytes;
    }
}

impl Purse {
    pub(super) fn new(
        budget: &AgentBudget,
        lower: Option<Ceiling>,
        used: Used,
        backing: Backing,
    ) -> Arc<Self> {
        let lower = lower.unwrap_or_default();
        let turn = match &backing {
            Backing::Run(parent) => Arc::clone(&parent.turn),
            Backing::Key(_) => Arc::default(),
        };
        Arc::new(Self {
            turn,
            usd: least(budget.usd, lower.usd),
            tokens: least(budget.tokens, lower.tokens),
            steps: lower.steps.unwrap_or(u32::MAX),
            model_calls: budget.model_calls,
            tool_calls: lower.tool_calls.map_or(budget.tool_calls, |it| it.min(budget.tool_calls)),
            bytes: budget.bytes,
            used: Mutex::new(used),
            kept: Mutex::default(),
            backing,
        })
    }

    /// Sets aside what a question may use, with as long an answer as there is room for, up to
    /// `wanted` tokens.
    pub(super) fn reserve(
        self: &Arc<Self>,
        forecast: &Forecast,
        wanted: u64,
        wish: Wish,
    ) -> Result<Held, StopReason> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let max_tokens = self.room(forecast, wanted, wish, wish != Wish::Aside)?;
        let usd = price(forecast.input_tokens, forecast.input_price)
            + price(max_tokens, forecast.output_price);
        let tokens = forecast.input_tokens + max_tokens;
        let kept = match wish {
            Wish::Turn => Some(last_word(forecast, max_tokens)),
            Wish::Last => Some(Used::default()),
            Wish::Aside | Wish::Before => None,
        };
        if let Some(kept) = kept {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = kept;
        }
        self.each(|purse| {
            purse.change(|used| {
                used.usd += usd;
                used.tokens += tokens;
                used.model_calls += 1;
                used.steps += u32::from(wish.is_step());
            });
        });
        Ok(Held { purse: Arc::clone(self), usd, tokens, max_tokens, wish })
    }

    /// How long an answer may be, here and above. What is kept back is there for the last word of
    /// the run that the purse is the `own` one of.
    fn room(
        &self,
        forecast: &Forecast,
        wanted: u64,
        wish: Wish,
        own: bool,
    ) -> Result<u64, StopReason> {
        let used = self.used();
        let kept = if own { Used::default() } else { self.kept() };
        let (keeps, mut most) = (wish.keeps(), wanted);
        let calls = used.model_calls + kept.model_calls + u32::from(keeps);
        let steps = used.steps + kept.model_calls + u32::from(keeps);
        if calls >= self.model_calls || (wish.is_step() && steps >= self.steps) {
            return Err(StopReason::MaxSteps);
        }
        let question = forecast.input_tokens;
        let rest = self.rest(kept);
        if let Some(left) = rest.tokens {
            most = most.min(longest(left, question, ONE, ONE, keeps));
        }
        if self.usd.is_some() && forecast.output_price.is_none() {
            // What nobody knows the price of cannot be paid from a budget.
            return Err(StopReason::Budget);
        }
        if let Some((left, output)) = rest.usd.zip(forecast.output_price) {
            let input = forecast.input_price.unwrap_or_default();
            most = most.min(longest(left, question, input, output, keeps));
        }
        if most < LEAST_OUTPUT.min(wanted) {
            return Err(StopReason::Budget);
        }
        match &self.backing {
            Backing::Run(parent) => parent.room(forecast, most, wish, false),
            Backing::Key(_) => Ok(most),
        }
    }

    /// What is left, where so much is kept back.
    fn rest(&self, kept: Used) -> Rest {
        let used = self.used();
        let of_key = match &self.backing {
            Backing::Key(tab) if tab.budgeted => account::left(&tab.accounts, Moment::now()),
            _ => Left::default(),
        };
        let rest = |own: Option<u64>, used: u64, (key, kept): (Option<u64>, u64)| {
            least(own.map(|own| own.saturating_sub(used)), key)
                .map(|left| left.saturating_sub(kept))
        };
        Rest {
            usd: rest(self.usd, used.usd, (of_key.nanos, kept.usd)),
            tokens: rest(self.tokens, used.tokens, (of_key.tokens, kept.tokens)),
        }
    }

    /// Whether it bounds money, here or above.
    pub(super) fn is_of_money(&self) -> bool {
        let mut bounds = false;
        self.each(|purse| bounds |= purse.usd.is_some());
        bounds
    }

    /// How long the question of a last word may be, by what is left here and above; `None` where
    /// nothing bounds it.
    pub(super) fn longest_question(&self, forecast: &Forecast) -> Option<u64> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        self.question_room(forecast, true)
    }

    fn question_room(&self, forecast: &Forecast, own: bool) -> Option<u64> {
        let rest = self.rest(if own { Used::default() } else { self.kept() });
        let tokens = rest.tokens.map(|left| left.saturating_sub(LEAST_OUTPUT));
        let rate = forecast.input_price.filter(|rate| *rate > 0);
        let paid = rest.usd.zip(rate).map(|(left, rate)| {
            let answer = price(LEAST_OUTPUT, forecast.output_price);
            tokens_for(left.saturating_sub(answer), rate)
        });
        let above = self.parent().and_then(|it| it.question_room(forecast, false));
        [tokens, paid, above].into_iter().flatten().min()
    }

    /// One call of a tool, if there is one left.
    pub(super) fn take_tool_call(&self) -> Result<(), StopReason> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut calls_left, mut bytes_left) = (true, true);
        self.each(|purse| {
            let used = purse.used();
            calls_left &= used.tool_calls < purse.tool_calls;
            bytes_left &= used.bytes < purse.bytes;
        });
        if !calls_left {
            return Err(StopReason::MaxToolCalls);
        }
        if !bytes_left {
            return Err(StopReason::Budget);
        }
        self.each(|purse| purse.change(|used| used.tool_calls += 1));
        Ok(())
    }

    /// Of what a model may use there is least left, here, above or of the key: `cost`, `tokens` or
    /// `key`.
    pub(super) fn scarcest(&self) -> &'static str {
        let (mut most, mut own) = ((0, "cost"), Left::default());
        self.each(|purse| {
            let (used, kept) = (purse.used(), purse.kept());
            let (cost, tokens) = (used.usd + kept.usd, used.tokens + kept.tokens);
            let left = |limit: Option<u64>, used| limit.map(|limit| limit.saturating_sub(used));
            own.nanos = least(own.nanos, left(purse.usd, cost));
            own.tokens = least(own.tokens, left(purse.tokens, tokens));
            let shares =
                [(share(cost, purse.usd), "cost"), (share(tokens, purse.tokens), "tokens")];
            most = shares.into_iter().chain(purse.share_of_key(own)).fold(most, std::cmp::Ord::max);
        });
        most.1
    }

    /// How much of its key's budgets is used, in millionths, where these have less left than all
    /// the runs.
    fn share_of_key(&self, own: Left) -> Option<(u128, &'static str)> {
        let Backing::Key(tab) = &self.backing else { return None };
        if !tab.budgeted {
            return None;
        }
        let now = Moment::now();
        let key = account::left(&tab.accounts, now);
        let binds = |key: Option<u64>, own: Option<u64>| {
            key.is_some_and(|key| own.is_none_or(|own| key < own))
        };
        let least = binds(key.nanos, own.nanos) || binds(key.tokens, own.tokens);
        let left = u128::from(account::least_millionths(&tab.accounts, now));
        least.then(|| (MILLION.saturating_sub(left), "key"))
    }

    /// A result was so long.
    pub(super) fn take_bytes(&self, bytes: u64) {
        self.each(|purse| purse.change(|used| used.bytes += bytes));
    }

    /// So much was used without being held.
    pub(super) fn spend(&self, usage: Usage, cost: Option<u64>) {
        self.each(|purse| {
            purse.change(|used| {
                used.usd += cost.unwrap_or_default();
                used.tokens += usage.input_total() + usage.output;
            });
        });
    }

    fn each(&self, mut visit: impl FnMut(&Self)) {
        let mut purse = Some(self);
        while let Some(here) = purse {
            visit(here);
            purse = here.parent();
        }
    }

    fn parent(&self) -> Option<&Self> {
        match &self.backing {
            Backing::Run(parent) => Some(parent),
            Backing::Key(_) => None,
        }
    }

    fn change(&self, change: impl FnOnce(&mut Used)) {
        change(&mut self.used.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn used(&self) -> Used {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> Used {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Nothing was asked: it counts for nothing either.
    pub(super) fn give_back(self) {
        let steps = u32::from(self.wish.is_step());
        self.purse.each(|purse| {
            purse.change(|used| {
                used.model_calls = used.model_calls.saturating_sub(1);
                used.steps = used.steps.saturating_sub(steps);
            });
        });
    }

    /// This is what it came to.
    pub(super) fn settle(mut self, usage: Usage, cost: Option<u64>) {
        let tokens = usage.input_total() + usage.output;
        let (usd, held) = (cost.unwrap_or_default(), (self.usd, self.tokens));
        self.purse.each(|purse| {
            purse.change(|used| {
                used.usd = (used.usd + usd).saturating_sub(held.0);
                used.tokens = (used.tokens + tokens).saturating_sub(held.1);
            });
        });
        (self.usd, self.tokens) = (0, 0);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let held = (self.usd, self.tokens);
        if held == (0, 0) {
            return;
        }
        self.purse.each(|purse| {
            purse.change(|used| {
                used.usd = used.usd.saturating_sub(held.0);
                used.tokens = used.tokens.saturating_sub(held.1);
            });
        });
    }
}

fn least(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one.into_iter().chain(other).min()
}

/// How much of a limit is used, in millionths.
fn share(used: u64, limit: Option<u64>) -> u128 {
    limit.map_or(0, |limit| u128::from(used) * MILLION / u128::from(limit.max(1)))
}

/// How long an answer may be where so much is left, at these rates of what is asked and answered.
/// Who `keeps` leaves enough to ask once more, with this question and its answer in the next one,
/// for a short answer.
fn longest(left: u64, question: u64, input: u64, output: u64, keeps: bool) -> u64 {
    let once = price(question, Some(input));
    let last = price(question + RESULTS, Some(input)) + price(LEAST_OUTPUT, Some(output));
    let again = if keeps { last } else { 0 };
    let rate = if keeps { input + output } else { output };
    match left.checked_sub(once + again) {
        None => 0,
        Some(_) if rate == 0 => u64::MAX,
        Some(left) => tokens_for(left, rate),
    }
}

/// What a last word may use behind a turn with so long an answer.
fn last_word(forecast: &Forecast, answer: u64) -> Used {
    let question = forecast.input_tokens + answer + RESULTS;
    let usd = price(question, forecast.input_price) + price(LEAST_OUTPUT, forecast.output_price);
    Used { usd, tokens: question + LEAST_OUTPUT, model_calls: 1, ..Used::default() }
}

/// So many are paid for by this at that rate.
fn tokens_for(left: u64, rate: u64) -> u64 {
    let tokens = u128::from(left) * u128::from(ONE) / u128::from(rate);
    u64::try_from(tokens).unwrap_or(u64::MAX)
}

/// Nano-dollars, rounded up.
fn price(tokens: u64, rate: Option<u64>) -> u64 {
    let nano = u128::from(tokens) * u128::from(rate.unwrap_or_default());
    u64::try_from(nano.div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forecast() -> Forecast {
        let (input_price, output_price) = (Some(1_000_000_000), Some(2_000_000_000));
        Forecast { input_tokens: 100, window: None, input_price, output_price }
    }

    fn purse(usd: Option<u64>, tokens: Option<u64>, parent: Option<Arc<Purse>>) -> Arc<Purse> {
        let budget = AgentBudget { usd, tokens, ..AgentBudget::default() };
        let backing = parent.map_or_else(nothing, Backing::Run);
        Purse::new(&budget, None, Used::default(), backing)
    }

    fn nothing() -> Backing {
        Backing::Key(Tab::default())
    }

    #[test]
    fn an_answer_is_cut_to_what_is_left_and_not_asked_for_below_the_floor() {
        let purse = purse(None, Some(1000), None);
        let held = purse.reserve(&forecast(), 500, Wish::Last).unwrap();
        assert_eq!(held.max_tokens, 500);
        let second = purse.reserve(&forecast(), 500, Wish::Last).unwrap();
        assert_eq!(second.max_tokens, 300, "600 are held, 100 are the question");
        assert_eq!(purse.reserve(&forecast(), 500, Wish::Last).unwrap_err(), StopReason::Budget);
        drop(second);
        assert_eq!(purse.reserve(&forecast(), 500, Wish::Last).unwrap().max_tokens, 300);
    }

    #[test]
    fn what_was_held_and_not_used_is_given_back() {
        let purse = purse(None, Some(1000), None);
        let held = purse.reserve(&forecast(), 800, Wish::Last).unwrap();
        held.settle(Usage { input: 90, output: 10, ..Usage::default() }, None);
        assert_eq!(purse.used().tokens, 100);
    }

    #[test]
    fn a_child_draws_from_all_above_it() {
        let root = purse(Some(1_000_000), None, None);
        let child = purse(None, None, Some(Arc::clone(&root)));
        let held = child.reserve(&forecast(), 10_000, Wish::Last).unwrap();
        // 1,000,000 less 100,000 for the question, at 2,000 a token.
        assert_eq!(held.max_tokens, 450);
        assert_eq!(root.reserve(&forecast(), 100, Wish::Last).unwrap_err(), StopReason::Budget);
    }

    #[test]
    fn behind_every_turn_there_is_enough_for_a_last_word() {
        let purse = purse(None, Some(1000), None);
        let used = |input, output| Usage { input, output, ..Usage::default() };
        let held = purse.reserve(&forecast(), 5000, Wish::Turn).unwrap();
        // Twice the question of 100, 256 for results and 64 for the last word, and the answer both
        // times.
        assert_eq!(held.max_tokens, 240);
        held.settle(used(100, 240), None);
        assert_eq!(purse.reserve(&forecast(), 500, Wish::Aside).unwrap_err(), StopReason::Budget);
        let next = Forecast { input_tokens: 596, ..forecast() };
        assert_eq!(purse.reserve(&next, 500, Wish::Turn).unwrap_err(), StopReason::Budget);
        assert_eq!(purse.longest_question(&next), Some(596));
        let last = purse.reserve(&next, 500, Wish::Last).unwrap();
        assert_eq!(last.max_tokens, 64);
        last.settle(used(596, 64), None);
        assert_eq!(purse.used().tokens, 1000);
    }

    #[test]
    fn what_a_run_keeps_back_its_children_leave() {
        let budget = AgentBudget { tokens: Some(2000), model_calls: 3, ..AgentBudget::default() };
        let root = Purse::new(&budget, None, Used::default(), nothing());
        let child = purse(None, None, Some(Arc::clone(&root)));
        root.reserve(&forecast(), 500, Wish::Turn).unwrap().settle(Usage::default(), None);
        // 920 are kept back: the question, its answer, 256 for results, and 64.
        assert_eq!(child.longest_question(&forecast()), Some(1016));
        let held = child.reserve(&forecast(), 5000, Wish::Last).unwrap();
        assert_eq!(held.max_tokens, 980);
        held.settle(Usage::default(), None);
        let beyond = child.reserve(&forecast(), 500, Wish::Last).unwrap_err();
        assert_eq!(beyond, StopReason::MaxSteps);
        assert!(root.reserve(&forecast(), 500, Wish::Turn).is_err());
        assert!(root.reserve(&forecast(), 500, Wish::Last).is_ok());
    }

    #[test]
    fn branches_that_ask_at_the_same_time_never_hold_more_than_there_is() {
        let root = purse(None, Some(2_000), None);
        let holds = |child: Arc<Purse>| {
            let held = (0..20).map(move |_| child.reserve(&forecast(), 150, Wish::Last));
            held.filter_map(Result::ok).collect::<Vec<Held>>()
        };
        let children: Vec<_> = (0..8).map(|_| purse(None, None, Some(Arc::clone(&root)))).collect();
        let held: Vec<Held> = std::thread::scope(|scope| {
            let branches = children.into_iter().map(|child| scope.spawn(move || holds(child)));
            let branches: Vec<_> = branches.collect();
            branches.into_iter().flat_map(|it| it.join().unwrap()).collect()
        });
        let tokens: u64 = held.iter().map(|held| held.tokens).sum();
        assert_eq!((tokens, root.used().tokens), (2_000, 2_000));
    }

    #[test]
    fn money_is_not_spent_on_what_has_no_price() {
        let unpriced = Forecast { input_tokens: 1, ..Forecast::default() };
        assert_eq!(
            purse(Some(1), None, None).reserve(&unpriced, 100, Wish::Last).unwrap_err(),
            StopReason::Budget
        );
        assert!(purse(None, None, None).reserve(&unpriced, 100, Wish::Last).is_ok());
    }

    #[test]
    fn calls_of_tools_are_counted_in_the_whole_tree() {
        let budget = AgentBudget { tool_calls: 2, ..AgentBudget::default() };
        let root = Purse::new(&budget, None, Used::default(), nothing());
        let children: Vec<_> = (0..2).map(|_| purse(None, None, Some(Arc::clone(&root)))).collect();
        assert!(children.iter().all(|child| child.take_tool_call().is_ok()));
        assert_eq!(children[0].take_tool_call(), Err(StopReason::MaxToolCalls));
    }
}
