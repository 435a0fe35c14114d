//! From the routes of a config to the chains that calls walk.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::chain::{Chain, Hedge, Members, Shadow, Wishes};
use super::shadow::Hourly;
use super::snapshot::{Road, Target, holders};
use super::task::ByTask;
use crate::access::Tabs;
use crate::access::account::Scope;
use crate::config::{self, Config, Route, Timeouts};
use crate::net::shed::Gauge;
use crate::provider::Provider;
use crate::route::allowance::Allowance;
use crate::route::condition::Condition;
use crate::route::health::board::{Board, Standing};
use crate::route::plan::Stage;
use crate::route::strategy::Strategy;

/// What it takes to make a route ready.
#[derive(Clone, Copy)]
pub(super) struct Builder<'a> {
    pub(super) config: &'a Config,
    pub(super) providers: &'a BTreeMap<String, Arc<Provider>>,
    pub(super) board: &'a Board,
    pub(super) tabs: &'a Tabs,
}

/// What cannot be made, each with the section it stands in.
type Problems = Vec<(String, String)>;

/// A chain of one target and no wishes.
pub(super) fn lone(target: Target) -> Chain {
    let (stage, strategy) = (Stage::Own, Strategy::Ordered);
    let group = Members { stage, strategy, targets: vec![target], when: None };
    Chain::new("direct", vec![group], &Route::default())
}

impl Builder<'_> {
    /// Every route, in the order of their names.
    pub(super) fn roads(&self) -> Result<Vec<Road>, Problems> {
        let mut problems = Vec::new();
        let mut roads = Vec::new();
        for (name, route) in &self.config.routes {
            let road = if route.strategy == config::Strategy::Task {
                self.by_task(name, route).map(|road| Road::ByTask(Arc::new(road)))
            } else {
                self.chain(name, name, route).map(|chain| Road::Chain(Arc::new(chain)))
            };
            match road {
                Ok(road) => roads.push(road),
                Err(more) => problems.extend(more),
            }
        }
        if problems.is_empty() { Ok(roads) } else { Err(problems) }
    }

    /// A chain for each model that a provider is said to have.
    pub(super) fn direct(&self) -> BTreeMap<String, BTreeMap<String, Arc<Chain>>> {
        let chain = |provider: &Arc<Provider>, model: &String| {
            let target = self.target("direct", provider, model, &Timeouts::default());
            let mut chain = lone(target);
            chain.wishes.cache = self.remembering(&chain, None);
            (model.clone(), Arc::new(chain))
        };
        let chains = |provider: &Arc<Provider>| {
            provider.models.iter().map(|model| chain(provider, model)).collect()
        };
        self.providers.iter().map(|(name, provider)| (name.clone(), chains(provider))).collect()
    }

    /// What is known of each provider's keys.
    pub(super) fn keys(&self) -> BTreeMap<String, Arc<Standing>> {
        let standing =
            |provider: &Provider| self.board.standing(&provider.name, "", &provider.fingerprints());
        self.providers.iter().map(|(name, provider)| (name.clone(), standing(provider))).collect()
    }

    /// The chain of a route, under the name `label`, and with its fallbacks.
    fn chain(&self, label: &str, name: &str, route: &Route) -> Result<Chain, Problems> {
        let section = format!("routes.{name}");
        let mut problems = Vec::new();
        let targets = self.targets(label, name, route, &mut problems);
        let own = Members { stage: Stage::Own, strategy: strategy(route), targets, when: None };
        if own.targets.iter().all(|target| !target.in_region) {
            let message = "none of the targets is in a region that the route allows";
            problems.push((section.clone(), message.to_owned()));
        }
        let longest = |targets: &[Target]| {
            let windows = targets.iter().map(|target| target.info.context);
            windows.collect::<Option<Vec<u64>>>().and_then(|all| all.into_iter().max())
        };
        let window = longest(&own.targets);
        let mut groups = vec![own];
        let lists = route.fallbacks.lists().into_iter();
        let fallbacks = lists.flat_map(|(kind, names)| names.iter().map(move |name| (kind, name)));
        for (kind, fallback) in fallbacks {
            let members = self.fallback(label, fallback, kind, route, &mut problems);
            let theirs = longest(&members.targets);
            let useless = window.zip(theirs).filter(|(own, longest)| longest <= own);
            if let ("context", Some((own, longest))) = (kind, useless) {
                let message = format!(
                    "`{fallback}` can never help: its largest window has {longest} tokens, the \
                     route's own {own}"
                );
                problems.push((format!("{section}.fallbacks.context"), message));
            }
            groups.push(members);
        }
        let when = condition(route.when.as_deref(), &section, &mut problems);
        if !problems.is_empty() {
            return Err(problems);
        }
        let shadow = route.shadow.as_ref().and_then(|shadow| self.shadow(label, route, shadow));
        let mut chain = Chain::new(label, groups, route);
        chain.wishes = Wishes::of(route, when);
        chain.guards = self.guards(label, name, route);
        chain.wishes.cache = self.remembering(&chain, route.cache.as_ref());
        chain.shadow = shadow;
        let other = (name != label).then_some(name);
        chain.tab = self.tabs.tab(&[(Scope::Route, Some(label)), (Scope::Route, other)]);
        chain.hedge = route.hedge.map(|hedge| Hedge {
            after: hedge.after,
            allowance: Allowance::new(hedge.max_extra_permille, 0),
            priced: chain.targets.iter().all(|target| target.info.price.is_some()),
        });
        Ok(chain)
    }

    /// What guards the calls of a route: also what guards those that it falls back on, for these may
    /// answer them.
    fn guards(&self, label: &str, name: &str, route: &Route) -> Vec<String> {
        let lists = route.fallbacks.lists().into_iter();
        let fallbacks = lists.flat_map(|(_, names)| names.iter().map(String::as_str));
        let names = [label, name].into_iter().chain(fallbacks);
        let routes = names.filter_map(|name| self.config.routes.get(name));
        let lists: Vec<&[String]> = routes.map(|route| route.guards.as_slice()).collect();
        config::together(&lists).into_iter().map(str::to_owned).collect()
    }

    /// The targets of a fallback, which is a route or a target itself.
    fn fallback(
        &self,
        label: &str,
        fallback: &str,
        kind: &str,
        route: &Route,
        problems: &mut Problems,
    ) -> Members {
        let stage = stage(kind);
        if let Some(other) = self.config.routes.get(fallback) {
            let targets = self.targets(label, fallback, other, problems);
            let section = format!("routes.{fallback}");
            let when = condition(other.when.as_deref(), &section, problems);
            return Members { stage, strategy: strategy(other), targets, when };
        }
        let (provider, model) = fallback.split_once('/').unwrap_or((fallback, ""));
        let target = self.providers.get(provider).map(|provider| {
            let mut target = self.target(label, provider, model, &route.timeouts);
            target.in_region = in_region(route, provider.region());
            target
        });
        let targets = target.into_iter().collect();
        Members { stage, strategy: Strategy::Ordered, targets, when: None }
    }

    fn targets(
        &self,
        label: &str,
        name: &str,
        route: &Route,
        problems: &mut Problems,
    ) -> Vec<Target> {
        let targets = route.targets.iter().enumerate().filter_map(|(place, wanted)| {
            let provider = self.providers.get(&wanted.provider)?;
            let mut target = self.target(label, provider, &wanted.model, &route.timeouts);
            target.weight = wanted.weight.unwrap_or(1);
            let region = wanted.region.as_deref().or_else(|| provider.region());
            target.in_region = in_region(route, region);
            let section = format!("routes.{name}.targets[{place}]");
            target.when = condition(wanted.when.as_deref(), &section, problems);
            target.prefills = wanted.prefill.unwrap_or(target.prefills);
            Some(target)
        });
        targets.collect()
    }

    fn target(
        &self,
        label: &str,
        provider: &Arc<Provider>,
        model: &str,
        timeouts: &Timeouts,
    ) -> Target {
        let standing = self.board.standing(&provider.name, model, &provider.fingerprints());
        let name = format!("{}/{model}", provider.name);
        let info = provider.model(model, self.config.models.get(&name));
        let mut target = Target::new(label, provider, model, info, (timeouts, standing));
        target.tab = self.tabs.tab(&holders(&provider.name, &name));
        target
    }

    fn shadow(&self, label: &str, route: &Route, shadow: &config::Shadow) -> Option<Shadow> {
        let provider = self.providers.get(&shadow.target.provider)?;
        let target = self.target(label, provider, &shadow.target.model, &Timeouts::default());
        let max_output_tokens = route.max_output_tokens;
        let wishes = Wishes { max_output_tokens, ..Wishes::default() };
        Some(Shadow {
            chain: Arc::new(Chain { name: label.into(), attempts: 1, wishes, ..lone(target) }),
            sample: shadow.sample,
            running: Gauge::new(shadow.concurrency as usize),
            tokens: shadow.tokens_per_hour.map(Hourly::new),
        })
    }

    fn by_task(&self, name: &str, route: &Route) -> Result<ByTask, Problems> {
        // So that no call has to wait for it.
        crate::route::task::prepare();
        let (mut chains, mut problems) = (BTreeMap::new(), Vec::new());
        let mut chain = |other: &String| {
            let found = self.config.routes.get(other)?;
            match self.chain(name, other, found) {
                Ok(chain) => Some(Arc::new(chain)),
                Err(more) => {
                    problems.extend(more);
                    None
                }
            }
        };
        for (task, other) in &route.tasks {
            chains.extend(chain(other).map(|chain| (*task, chain)));
        }
        let default = route.default.as_ref().and_then(&mut chain);
        let when = condition(route.when.as_deref(), &format!("routes.{name}"), &mut problems);
        match default {
            Some(default) if problems.is_empty() => Ok(ByTask {
                chains,
                default,
                when,
                classifier: route.classifier.clone(),
                vectors: OnceLock::new(),
            }),
            _ => Err(problems),
        }
    }
}

fn condition(text: Option<&str>, section: &str, problems: &mut Problems) -> Option<Condition> {
    let compiled = Condition::compile(text?);
    compiled.map_err(|problem| problems.push((format!("{section}.when"), problem))).ok()
}

/// A target whose region nobody knows is in none of those that are allowed.
fn in_region(route: &Route, region: Option<&str>) -> bool {
    let within = |allowed: &String| region.is_some_and(|region| region.starts_with(&**allowed));
    route.regions.is_empty() || route.regions.iter().any(within)
}

fn strategy(route: &Route) -> Strategy {
    match route.strategy {
        config::Strategy::Ordered | config::Strategy::Task => Strategy::Ordered,
        config::Strategy::Weighted => Strategy::Weighted,
        config::Strategy::Fastest => Strategy::Fastest,
        config::Strategy::Cheapest => Strategy::Cheapest,
        config::Strategy::Sticky => Strategy::Sticky,
    }
}

fn stage(kind: &str) -> Stage {
    match kind {
        "context" => Stage::Context,
        "budget" => Stage::Budget,
        "content_filter" => Stage::ContentFilter,
        "rate_limit" => Stage::RateLimit,
        _ => Stage::General,
    }
}
