//! What asking a model will take, before a run holds it of its own budget.

use crate::access::Caller;
use crate::canon::{ChatRequest, Dialect};
use crate::dialect::estimate;
use crate::gateway::Gateway;
use crate::gateway::snapshot::{Road, Target};

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
        let house = self.snapshot();
        let chains = match house.road(&request.model) {
            Ok(Road::Chain(chain)) => vec![chain],
            Ok(Road::ByTask(by_task)) => {
                by_task.chains.values().chain([&by_task.default]).cloned().collect()
            }
            Err(_) => {
                // Its task may stand behind it, as in `auto/code`.
                let route = request.model.rsplit_once('/').map(|(route, _)| house.road(route));
                match route {
                    Some(Ok(Road::ByTask(by_task))) => {
                        by_task.chains.values().chain([&by_task.default]).cloned().collect()
                    }
                    _ => Vec::new(),
                }
            }
        };
        let targets: Vec<&Target> = chains
            .iter()
            .flat_map(|chain| &chain.targets)
            .filter(|target| caller.may_use(&target.provider.name, &target.model))
            .collect();
        foresee(request, &targets)
    }
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
