//! What asking a model will take, before a run holds it of its own budget.

use std::sync::Arc;

use super::Guarded;
use crate::access::Caller;
use crate::canon::{ChatRequest, Dialect};
use crate::dialect::estimate;
use crate::gateway::Gateway;
use crate::gateway::chain::Chain;
use crate::gateway::snapshot::{Road, Target};
use crate::gateway::task::ByTask;

/// What is known of a turn before it is taken. Prices are in nano-dollars per million tokens, of
/// the dearest target; `None` where nobody knows what one of them costs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forecast {
    /// The most that a target will count.
    pub input_tokens: u64,
    /// The largest context window among the targets.
    pub window: Option<u64>,
    pub input_price: Option<u64>,
    pub output_price: Option<u64>,
}

impl Gateway {
    /// What a turn with this question may take. All is zero where the route is gone: the turn will
    /// say so.
    pub fn forecast(&self, caller: &Caller, request: &ChatRequest) -> Forecast {
        let chains = self.chains(&request.model);
        let targets: Vec<&Target> = targets(&chains, caller).collect();
        foresee(request, &targets)
    }

    /// Tokens of a text, as the models of a route count them.
    pub fn count(&self, caller: &Caller, model: &str, text: &str) -> u64 {
        let chains = self.chains(model);
        let targets = targets(&chains, caller);
        let counts = targets.map(|target| estimate::texts([text].into_iter(), target.tokenizer()));
        // What is said of it as a message is none of its own.
        let frame = estimate::texts([""].into_iter(), None);
        let own = counts.max().map(|tokens| tokens.saturating_sub(frame));
        own.unwrap_or_else(|| estimate::text(text))
    }

    /// The guard that an agent had when a run of it began, and which is not there any more to look
    /// at what the run asks, since the agent is not either.
    pub fn lost_guard(&self, Guarded { agent, version, guards }: &Guarded) -> Option<String> {
        let house = self.snapshot();
        if house.guards_of(agent, version).is_some() {
            return None;
        }
        guards.iter().find(|name| house.guards.get(name).is_none()).cloned()
    }

    /// Whether there is still a route or a model of this name.
    pub fn leads_anywhere(&self, model: &str) -> bool {
        !self.chains(model).is_empty()
    }

    /// Whether a route has other targets of its own than this, `provider/model`.
    pub fn leads_past(&self, route: &str, target: &str) -> bool {
        self.chains(route).iter().any(|chain| !chain.dispensable(target, &[]).is_empty())
    }

    fn chains(&self, model: &str) -> Vec<Arc<Chain>> {
        let house = self.snapshot();
        let of_task =
            |by_task: &ByTask| by_task.chains.values().chain([&by_task.default]).cloned().collect();
        match house.road(model) {
            Ok(Road::Chain(chain)) => vec![chain],
            Ok(Road::ByTask(by_task)) => of_task(&by_task),
            Err(_) => {
                // Its task may stand behind it, as in `auto/code`.
                let route = model.rsplit_once('/').map(|(route, _)| house.road(route));
                match route {
                    Some(Ok(Road::ByTask(by_task))) => of_task(&by_task),
                    _ => Vec::new(),
                }
            }
        }
    }
}

fn targets<'a>(chains: &'a [Arc<Chain>], caller: &'a Caller) -> impl Iterator<Item = &'a Target> {
    chains
        .iter()
        .flat_map(|chain| &chain.targets)
        .filter(|target| caller.may_use(&target.provider.name, &target.model))
}

fn foresee(request: &ChatRequest, targets: &[&Target]) -> Forecast {
    let tokens = targets.iter().map(|target| {
        let home = target.provider.home(&target.model).unwrap_or(Dialect::Chat);
        estimate::tokens(request, home, target.tokenizer())
    });
    let input_tokens = tokens.max().unwrap_or_default();
    let prices = targets.iter().map(|target| {
        let price = target.info.price.as_ref()?;
        let tiers = price.tiers.iter().filter(|tier| tier.above < input_tokens);
        let rates = [price.rates].into_iter().chain(tiers.map(|tier| tier.rates));
        let dearest = |rate: (u64, u64), more: crate::canon::Rates| {
            let output = more.reasoning.map_or(0, crate::canon::Rate::nanos_per_million);
            let output = output.max(more.output.nanos_per_million());
            (rate.0.max(more.input.nanos_per_million()), rate.1.max(output))
        };
        Some(rates.fold((0, 0), dearest))
    });
    let prices: Option<Vec<(u64, u64)>> = prices.collect();
    let prices = prices.filter(|prices| !prices.is_empty());
    let most = |which: fn(&(u64, u64)) -> u64| {
        prices.as_ref().and_then(|prices| prices.iter().map(which).max())
    };
    Forecast {
        input_tokens,
        window: targets.iter().filter_map(|target| target.info.context).max(),
        input_price: most(|price| price.0),
        output_price: most(|price| price.1),
    }
}
