//! What a run and all that it starts may use together: reserved before, settled after.

use std::sync::{Arc, Mutex, PoisonError};

use super::event::Ceiling;
use crate::canon::{StopReason, Usage};
use crate::config::AgentBudget;
use crate::gateway::agents::Forecast;
use crate::store::runs::Totals;

/// Below so many tokens an answer is not worth asking for.
const LEAST_OUTPUT: u64 = 64;

/// The budget of one run. A child draws from its own and from those of all above it.
#[derive(Debug)]
pub(super) struct Purse {
    usd: Option<u64>,
    tokens: Option<u64>,
    model_calls: u32,
    tool_calls: u32,
    bytes: u64,
    used: Mutex<Used>,
    parent: Option<Arc<Purse>>,
    /// Of the whole tree: who looks what is left takes it before another one looks.
    turn: Arc<Mutex<()>>,
}

/// What is used or held.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Used {
    /// Nano-dollars.
    pub(super) usd: u64,
    pub(super) tokens: u64,
    pub(super) model_calls: u32,
    pub(super) tool_calls: u32,
    pub(super) bytes: u64,
}

/// What is set aside for one call of a model until it is settled. Dropped, it is given back.
#[derive(Debug)]
pub(super) struct Held {
    purse: Arc<Purse>,
    usd: u64,
    tokens: u64,
    pub(super) max_tokens: u64,
}

impl Used {
    pub(super) fn add(&mut self, totals: &Totals) {
        self.usd += totals.cost;
        self.tokens += totals.tokens_in + totals.tokens_out;
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
        parent: Option<Arc<Self>>,
    ) -> Arc<Self> {
        let lower = lower.unwrap_or_default();
        let least = |own: Option<u64>, other: Option<u64>| match (own, other) {
            (Some(own), Some(other)) => Some(own.min(other)),
            (own, other) => own.or(other),
        };
        let turn = parent.as_ref().map(|parent| Arc::clone(&parent.turn)).unwrap_or_default();
        Arc::new(Self {
            turn,
            usd: least(budget.usd, lower.usd),
            tokens: least(budget.tokens, lower.tokens),
            model_calls: budget.model_calls,
            tool_calls: lower.tool_calls.map_or(budget.tool_calls, |it| it.min(budget.tool_calls)),
            bytes: budget.bytes,
            used: Mutex::new(used),
            parent,
        })
    }

    /// Sets aside what a question may use, with as long an answer as there is room for, up to
    /// `wanted` tokens.
    pub(super) fn reserve(
        self: &Arc<Self>,
        forecast: &Forecast,
        wanted: u64,
    ) -> Result<Held, StopReason> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let max_tokens = self.room(forecast, wanted)?;
        let usd = price(forecast.input_tokens, forecast.input_price)
            + price(max_tokens, forecast.output_price);
        let tokens = forecast.input_tokens + max_tokens;
        self.each(|purse| {
            purse.change(|used| {
                used.usd += usd;
                used.tokens += tokens;
                used.model_calls += 1;
            });
        });
        Ok(Held { purse: Arc::clone(self), usd, tokens, max_tokens })
    }

    /// How long an answer may be, here and above.
    fn room(&self, forecast: &Forecast, wanted: u64) -> Result<u64, StopReason> {
        let used = self.used();
        let mut most = wanted;
        if used.model_calls >= self.model_calls {
            return Err(StopReason::MaxSteps);
        }
        if let Some(tokens) = self.tokens {
            let left = tokens.saturating_sub(used.tokens);
            most = most.min(left.saturating_sub(forecast.input_tokens));
        }
        if let Some(usd) = self.usd {
            let left = usd.saturating_sub(used.usd);
            let question = price(forecast.input_tokens, forecast.input_price);
            let left = left.saturating_sub(question);
            match forecast.output_price {
                Some(0) => {}
                Some(rate) => {
                    let room = u128::from(left) * 1_000_000 / u128::from(rate);
                    most = most.min(u64::try_from(room).unwrap_or(u64::MAX));
                }
                // What nobody knows the price of cannot be paid from a budget.
                None => return Err(StopReason::Budget),
            }
        }
        if most < LEAST_OUTPUT.min(wanted) {
            return Err(StopReason::Budget);
        }
        match &self.parent {
            Some(parent) => parent.room(forecast, most),
            None => Ok(most),
        }
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

    /// A result was so long.
    pub(super) fn take_bytes(&self, bytes: u64) {
        self.each(|purse| purse.change(|used| used.bytes += bytes));
    }

    fn each(&self, mut visit: impl FnMut(&Self)) {
        let mut purse = Some(self);
        while let Some(here) = purse {
            visit(here);
            purse = here.parent.as_deref();
        }
    }

    fn change(&self, change: impl FnOnce(&mut Used)) {
        change(&mut self.used.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn used(&self) -> Used {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
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
        Purse::new(&budget, None, Used::default(), parent)
    }

    #[test]
    fn an_answer_is_cut_to_what_is_left_and_not_asked_for_below_the_floor() {
        let purse = purse(None, Some(1000), None);
        let held = purse.reserve(&forecast(), 500).unwrap();
        assert_eq!(held.max_tokens, 500);
        let second = purse.reserve(&forecast(), 500).unwrap();
        assert_eq!(second.max_tokens, 300, "600 are held, 100 are the question");
        assert_eq!(purse.reserve(&forecast(), 500).unwrap_err(), StopReason::Budget);
        drop(second);
        assert_eq!(purse.reserve(&forecast(), 500).unwrap().max_tokens, 300);
    }

    #[test]
    fn what_was_held_and_not_used_is_given_back() {
        let purse = purse(None, Some(1000), None);
        let held = purse.reserve(&forecast(), 800).unwrap();
        held.settle(Usage { input: 90, output: 10, ..Usage::default() }, None);
        assert_eq!(purse.used().tokens, 100);
    }

    #[test]
    fn a_child_draws_from_all_above_it() {
        let root = purse(Some(1_000_000), None, None);
        let child = purse(None, None, Some(Arc::clone(&root)));
        let held = child.reserve(&forecast(), 10_000).unwrap();
        // 1,000,000 less 100,000 for the question, at 2,000 a token.
        assert_eq!(held.max_tokens, 450);
        assert_eq!(root.reserve(&forecast(), 100).unwrap_err(), StopReason::Budget);
    }

    #[test]
    fn branches_that_ask_at_the_same_time_never_hold_more_than_there_is() {
        let root = purse(None, Some(2_000), None);
        let holds = |child: Arc<Purse>| {
            let held = (0..20).map(move |_| child.reserve(&forecast(), 150));
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
            purse(Some(1), None, None).reserve(&unpriced, 100).unwrap_err(),
            StopReason::Budget
        );
        assert!(purse(None, None, None).reserve(&unpriced, 100).is_ok());
    }

    #[test]
    fn calls_of_tools_are_counted_in_the_whole_tree() {
        let budget = AgentBudget { tool_calls: 2, ..AgentBudget::default() };
        let root = Purse::new(&budget, None, Used::default(), None);
        let children: Vec<_> = (0..2).map(|_| purse(None, None, Some(Arc::clone(&root)))).collect();
        assert!(children.iter().all(|child| child.take_tool_call().is_ok()));
        assert_eq!(children[0].take_tool_call(), Err(StopReason::MaxToolCalls));
    }
}
