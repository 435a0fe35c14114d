//! A route made ready: its targets and those that it falls back on, in groups.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::time::Instant;

use super::call::Call;
use super::remember::Remembering;
use super::shadow::Hourly;
use super::snapshot::Target;
use crate::access::Tab;
use crate::canon::{CacheMark, FeatureSet};
use crate::config::{HedgeAfter, Lifetime, OnBreak, OnDisconnect, PromptCache, Route, ToolPairs};
use crate::dialect::CacheInjection;
use crate::net::shed::Gauge;
use crate::route::allowance::Allowance;
use crate::route::condition::Condition;
use crate::route::plan::{Prospect, Skip, Stage};
use crate::route::strategy::{Candidate, Strategy};

/// The targets that a call may try.
#[derive(Debug)]
pub(super) struct Chain {
    /// The route's name, or `direct`.
    pub(super) name: Arc<str>,
    pub(super) header: Option<HeaderValue>,
    /// Those of all groups, one group behind the other.
    pub(super) targets: Vec<Target>,
    pub(super) groups: Vec<Group>,
    /// Attempts one call may make, over keys and targets together.
    pub(super) attempts: u32,
    pub(super) wishes: Wishes,
    /// What guards its calls, besides what does so for the server and for keys.
    pub(super) guards: Vec<String>,
    pub(super) hedge: Option<Hedge>,
    pub(super) shadow: Option<Shadow>,
    /// What its calls are counted in, besides their keys' accounts.
    pub(super) tab: Tab,
    /// The smallest context window among the targets; `None` if none is known.
    pub(super) smallest_window: Option<u64>,
    /// What some of the targets cannot do.
    pub(super) lacking: FeatureSet,
    /// What none of them can.
    pub(super) impossible: FeatureSet,
}

/// Targets that are tried for the same reason.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) stage: Stage,
    pub(super) range: Range<usize>,
    pub(super) strategy: Strategy,
    /// For which calls the fallback is that they stand in.
    pub(super) when: Option<Condition>,
}

/// The targets of a group.
#[derive(Debug)]
pub(super) struct Members {
    pub(super) stage: Stage,
    pub(super) strategy: Strategy,
    pub(super) targets: Vec<Target>,
    pub(super) when: Option<Condition>,
}

/// What a route wants besides its targets.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// A question is rather refused than sent without one of its fields.
    pub(super) strict: bool,
    pub(super) tool_pairs: Option<ToolPairs>,
    pub(super) prompt_cache: Option<CacheInjection>,
    pub(super) hold_back: Duration,
    pub(super) on_break: OnBreak,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) max_output_tokens: Option<u64>,
    /// For which calls the route is.
    pub(super) when: Option<Condition>,
    /// What is remembered of its answers.
    pub(super) cache: Option<Arc<Remembering>>,
}

/// When a slow target is raced, and at what cost.
#[derive(Debug)]
pub(super) struct Hedge {
    pub(super) after: HedgeAfter,
    pub(super) allowance: Allowance,
    /// All targets have a price, so that money is counted, and not calls.
    pub(super) priced: bool,
}

/// Who is asked the same for comparison.
#[derive(Debug)]
pub(super) struct Shadow {
    pub(super) chain: Arc<Chain>,
    pub(super) sample: u32,
    pub(super) running: Gauge,
    pub(super) tokens: Option<Hourly>,
}

/// Attempts when a route names no number and has no more targets than this.
const ATTEMPTS: u32 = 3;

// === impl Hedge ===

impl Hedge {
    /// Notes what a request costs that is sent in any case.
    pub(super) fn pays(&self, call: &Call, target: &Target) {
        self.allowance.deposit(self.cost(call, target), Instant::now());
    }

    /// Whether a second request to this target is within what they may cost; if so, it is paid.
    pub(super) fn allows(&self, call: &Call, target: &Target) -> bool {
        self.allowance.withdraw(self.cost(call, target), Instant::now())
    }

    fn cost(&self, call: &Call, target: &Target) -> u64 {
        let cost = target.expected_cost(call.input_estimate()).filter(|_| self.priced);
        cost.unwrap_or(1)
    }
}

// === impl Chain ===

impl Chain {
    /// `groups` are the route's own targets and, behind them, those that it falls back on.
    pub(super) fn new(name: &str, groups: Vec<Members>, route: &Route) -> Self {
        let mut targets = Vec::new();
        let mut ranges = Vec::new();
        for Members { stage, strategy, targets: members, when } in groups {
            let start = targets.len();
            targets.extend(members);
            ranges.push(Group { stage, range: start..targets.len(), strategy, when });
        }
        let reached = ranges
            .iter()
            .filter(|group| matches!(group.stage, Stage::Own | Stage::RateLimit | Stage::General))
            .map(|group| group.range.len());
        let usual = u32::try_from(reached.sum::<usize>()).unwrap_or(ATTEMPTS).max(ATTEMPTS);
        Self {
            name: name.into(),
            header: HeaderValue::from_str(name).ok(),
            smallest_window: targets.iter().filter_map(|target| target.info.context).min(),
            lacking: targets.iter().fold(FeatureSet::default(), |lacking, target| {
                lacking | target.info.features.lacking(FeatureSet::ALL)
            }),
            impossible: targets.iter().fold(FeatureSet::ALL, |impossible, target| {
                impossible & target.info.features.lacking(FeatureSet::ALL)
            }),
            targets,
            groups: ranges,
            attempts: route.attempts.unwrap_or(usual),
            wishes: Wishes::default(),
            guards: Vec::new(),
            hedge: None,
            shadow: None,
            tab: Tab::default(),
        }
    }

    /// What is known of the targets of a group, for this call.
    pub(super) fn prospects<'a>(
        &'a self,
        call: &'a Call,
        group: &Group,
        tokens: u64,
        now: Instant,
    ) -> impl Iterator<Item = Prospect<'a>> {
        let strategy = group.strategy;
        group.range.clone().filter_map(move |place| {
            let target = self.targets.get(place)?;
            let candidate = Candidate {
                place: u16::try_from(place).ok()?,
                weight: target.weight,
                identity: target.identity,
                score: match strategy {
                    Strategy::Fastest => target.standing.load.score(now),
                    _ => 0.0,
                },
                cost: match strategy {
                    Strategy::Cheapest => target.expected_cost(tokens),
                    _ => None,
                },
            };
            Some(Prospect {
                candidate,
                model: &target.info,
                prefills: target.prefills,
                barred: barred(call, place, target),
                shut: target.shut(now),
            })
        })
    }

    /// The groups in the order in which they are visited: who has to save goes where that is
    /// possible first.
    pub(super) fn by_turn(&self, thrifty: bool) -> impl Iterator<Item = &Group> {
        let saves = move |group: &&Group| thrifty && group.stage == Stage::Budget;
        let others = self.groups.iter().filter(move |group| !saves(group));
        self.groups.iter().filter(saves).chain(others)
    }

    /// What led to the target at this place.
    pub(super) fn stage(&self, place: usize) -> Stage {
        let group = self.groups.iter().find(|group| group.range.contains(&place));
        group.map_or(Stage::Own, |group| group.stage)
    }

    /// The places of the targets that are not for a call for which these conditions do not hold.
    pub(super) fn barred(&self, holds: impl Fn(Option<&Condition>) -> bool) -> Vec<usize> {
        let here = holds(self.wishes.when.as_ref());
        let mut barred = Vec::new();
        for group in &self.groups {
            let all = (here || group.stage != Stage::Own) && holds(group.when.as_ref());
            let targets = self.targets.iter().enumerate();
            let members = targets.skip(group.range.start).take(group.range.len());
            let others = members.filter(|(_, target)| !all || !holds(target.when.as_ref()));
            barred.extend(others.map(|(place, _)| place));
        }
        barred
    }

    /// The places of a target, `provider/model`, where calls can do without it: there is another one
    /// of the route's own that is not barred.
    pub(super) fn dispensable(&self, name: &str, barred: &[usize]) -> Vec<usize> {
        let is_it = |place: &usize| {
            let target = &self.targets[*place];
            name.split_once('/') == Some((&*target.provider.name, &*target.model))
        };
        let (places, others): (Vec<usize>, Vec<usize>) = (0..self.targets.len()).partition(is_it);
        let can_answer =
            |place: &usize| self.stage(*place) == Stage::Own && !barred.contains(place);
        if others.iter().any(can_answer) { places } else { Vec::new() }
    }

    /// Whether calls of one session belong together here.
    pub(super) fn is_sticky(&self) -> bool {
        self.groups.iter().any(|group| group.strategy == Strategy::Sticky)
    }

    /// Whether some of it is for some calls only.
    pub(super) fn is_conditional(&self) -> bool {
        self.wishes.when.is_some()
            || self.groups.iter().any(|group| group.when.is_some())
            || self.targets.iter().any(|target| target.when.is_some())
    }
}

/// Why a target is not for this call, whatever it can.
fn barred(call: &Call, place: usize, target: &Target) -> Option<Skip> {
    if !call.may_use(target) {
        Some(Skip::NotAllowed)
    } else if call.bearings.barred.contains(&place) {
        Some(Skip::Condition)
    } else {
        (!target.in_region).then_some(Skip::Region)
    }
}

impl Wishes {
    /// Whether a question may have to be changed for them.
    pub(super) fn change_questions(&self) -> bool {
        self.tool_pairs.is_some() || self.prompt_cache.is_some() || self.max_output_tokens.is_some()
    }

    /// Whether a question that was read as these want it is read as those want it.
    pub(super) fn read_as(&self, others: &Self) -> bool {
        (self.tool_pairs, self.max_output_tokens) == (others.tool_pairs, others.max_output_tokens)
    }

    pub(super) fn of(route: &Route, when: Option<Condition>) -> Self {
        Self {
            strict: route.strict,
            tool_pairs: route.tool_pairs,
            prompt_cache: route.prompt_cache.map(injection),
            hold_back: route.hold_back,
            on_break: route.on_break,
            on_disconnect: route.on_disconnect,
            max_output_tokens: route.max_output_tokens,
            when,
            cache: None,
        }
    }
}

fn injection(wanted: PromptCache) -> CacheInjection {
    CacheInjection {
        system: wanted.system,
        tools: wanted.tools,
        messages: wanted.messages,
        lifetime: match wanted.lifetime {
            Lifetime::Short => CacheMark::Short,
            Lifetime::Long => CacheMark::Long,
        },
    }
}
