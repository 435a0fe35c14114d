//! Which of a route's targets a call may try, in which order, and why not the others.

use smallvec::SmallVec;
use tokio::time::Instant;

use super::health::Reason;
use super::strategy::{Candidate, Strategy, order};
use crate::canon::{Feature, FeatureSet, Model};

/// Why a route goes on to a further group of targets. Each group is one list of `fallbacks`, the
/// first one the route's own targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Own,
    Context,
    ContentFilter,
    RateLimit,
    Budget,
    General,
}

/// What a question demands of a target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Needs {
    /// Tokens of question and answer, by estimate.
    pub tokens: u64,
    pub features: FeatureSet,
    /// It must carry on an answer that was begun.
    pub prefill: bool,
    /// A window of this size was too small.
    pub larger_than: Option<u64>,
}

/// What is known of one target when a call is planned.
#[derive(Debug, Clone, Copy)]
pub struct Prospect<'a> {
    pub candidate: Candidate,
    pub model: &'a Model,
    /// Why it is not for this call, whatever it can.
    pub barred: Option<Skip>,
    /// It is known to carry on an answer that was begun.
    pub prefills: bool,
    /// Until when it is left alone, and why.
    pub shut: Option<(Instant, Reason)>,
}

/// Why a target is not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    /// The key of the call may not use it.
    NotAllowed,
    Condition,
    Region,
    Lacks(FeatureSet),
    /// Its context window has so many tokens.
    TooSmall(u64),
    Shut(Instant, Reason),
}

impl Skip {
    /// Its name in logs, traces and explanations.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NotAllowed => "not_allowed",
            Self::Condition => "condition",
            Self::Region => "region",
            Self::Lacks(_) => "lacks",
            Self::TooSmall(_) => "context",
            Self::Shut(_, reason) => reason.name(),
        }
    }
}

/// The places of the targets in the order in which they are tried, and of those that are not.
#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub order: SmallVec<[u16; 16]>,
    pub skipped: Vec<(u16, Skip)>,
}

/// An estimate may be so many hundredths above the truth.
const DOUBT: u64 = 80;

impl Stage {
    /// Its name in headers, metrics and explanations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Context => "context",
            Self::ContentFilter => "content_filter",
            Self::RateLimit => "rate_limit",
            Self::Budget => "budget",
            Self::General => "general",
        }
    }
}

impl Needs {
    /// What keeps this target from answering such a question.
    fn unmet(&self, model: &Model) -> Option<Skip> {
        let lacks = model.features.lacking(self.features);
        if !lacks.is_empty() {
            return Some(Skip::Lacks(lacks));
        }
        let window = model.context?;
        let certain = self.tokens.saturating_mul(DOUBT) / 100;
        let small = certain > window || self.larger_than.is_some_and(|seen| window <= seen);
        small.then_some(Skip::TooSmall(window))
    }
}

/// Orders the targets that can answer and may be asked now. `draw` is random, `session` stands for
/// the conversation.
pub fn plan<'a>(
    strategy: Strategy,
    prospects: impl Iterator<Item = Prospect<'a>>,
    needs: &Needs,
    draw: u64,
    session: u64,
) -> Plan {
    let mut candidates = SmallVec::<[Candidate; 16]>::new();
    let mut skipped = Vec::new();
    for prospect in prospects {
        let skip = match prospect {
            Prospect { barred: Some(skip), .. } => Some(skip),
            Prospect { prefills: false, .. } if needs.prefill => {
                Some(Skip::Lacks(Feature::Prefill.into()))
            }
            Prospect { model, shut, .. } => {
                let shut = || shut.map(|(until, reason)| Skip::Shut(until, reason));
                needs.unmet(model).or_else(shut)
            }
        };
        match skip {
            Some(skip) => skipped.push((prospect.candidate.place, skip)),
            None => candidates.push(prospect.candidate),
        }
    }
    order(strategy, &mut candidates, draw, session);
    Plan { order: candidates.iter().map(|candidate| candidate.place).collect(), skipped }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::{
        Just, Strategy as _, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
    };

    use super::*;

    const STRATEGIES: [Strategy; 5] = [
        Strategy::Ordered,
        Strategy::Weighted,
        Strategy::Fastest,
        Strategy::Cheapest,
        Strategy::Sticky,
    ];

    const FEATURES: [Feature; 4] =
        [Feature::Tools, Feature::Vision, Feature::Reasoning, Feature::Schema];

    /// What is known of one target, with a model of its own.
    #[derive(Debug, Clone)]
    struct Known {
        model: Model,
        weight: u32,
        score: f64,
        cost: Option<u64>,
        identity: u64,
        barred: Option<Skip>,
        prefills: bool,
        shut: Option<Reason>,
    }

    impl Known {
        fn prospect(&self, place: u16, now: Instant) -> Prospect<'_> {
            let &Self { weight, score, cost, identity, .. } = self;
            Prospect {
                candidate: Candidate { place, identity, weight, score, cost },
                model: &self.model,
                barred: self.barred,
                prefills: self.prefills,
                shut: self.shut.map(|reason| (now + Duration::from_secs(u64::from(place)), reason)),
            }
        }

        /// Whether its window is too small, and not only perhaps.
        fn is_small(&self, needs: &Needs) -> bool {
            let seen = needs.larger_than.unwrap_or(0);
            self.model.context.is_some_and(|size| needs.tokens * 4 / 5 > size || size <= seen)
        }

        /// What it lacks of what is needed.
        fn lacks(&self, needs: &Needs) -> Vec<Feature> {
            needs.features.iter().filter(|feature| !self.model.features.has(*feature)).collect()
        }

        /// Whether `skip` is true of it.
        fn deserves(&self, skip: Skip, needs: &Needs, until: Instant) -> bool {
            let unseamed = needs.prefill && !self.prefills;
            match skip {
                Skip::NotAllowed | Skip::Condition | Skip::Region => self.barred == Some(skip),
                Skip::Lacks(features) if features.contains(Feature::Prefill) => unseamed,
                Skip::Lacks(features) => features.iter().eq(self.lacks(needs)),
                Skip::TooSmall(window) => {
                    self.model.context == Some(window) && self.is_small(needs)
                }
                Skip::Shut(time, reason) => self.shut == Some(reason) && time == until,
            }
        }

        /// Whether nothing speaks against it.
        fn can(&self, needs: &Needs) -> bool {
            let able = self.lacks(needs).is_empty() && !self.is_small(needs);
            let wanted = self.barred.is_none() && (self.prefills || !needs.prefill);
            able && wanted && self.shut.is_none()
        }
    }

    fn any_features() -> impl proptest::strategy::Strategy<Value = Vec<Feature>> {
        proptest::sample::subsequence(FEATURES.to_vec(), 0..=FEATURES.len())
    }

    fn any_known() -> impl proptest::strategy::Strategy<Value = Known> {
        let reason = prop_oneof![
            4 => Just(None),
            1 => Just(Some(Reason::Errors)),
            1 => Just(Some(Reason::RateLimited)),
            1 => Just(Some(Reason::KeyRefused)),
        ];
        let context = prop_oneof![Just(None), (1..9u64).prop_map(|size| Some(size * 1000))];
        let barred = prop_oneof![
            6 => Just(None),
            1 => Just(Some(Skip::NotAllowed)),
            1 => Just(Some(Skip::Condition)),
            1 => Just(Some(Skip::Region)),
        ];
        let standing = (0..4u32, 0.0..9.0f64, proptest::option::of(0..5u64), any::<u64>());
        (any_features(), context, any::<bool>(), reason, standing, barred).prop_map(
            |(able, context, prefills, shut, standing, barred)| {
                let (weight, score, cost, identity) = standing;
                let features = able.into_iter().collect();
                let model = Model { context, features, ..Model::default() };
                Known { model, weight, score, cost, identity, barred, prefills, shut }
            },
        )
    }

    fn any_needs() -> impl proptest::strategy::Strategy<Value = Needs> {
        let larger = proptest::option::of((1..9u64).prop_map(|size| size * 1000));
        (0..12_000u64, any_features(), any::<bool>(), larger).prop_map(
            |(tokens, wanted, prefill, larger_than)| {
                let mut needs = Needs { tokens, prefill, larger_than, ..Needs::default() };
                for feature in wanted {
                    needs.features |= feature;
                }
                needs
            },
        )
    }

    proptest! {
        #[test]
        fn a_plan_holds_all_that_can_answer_once_and_says_why_of_every_other(
            known in proptest::collection::vec(any_known(), 0..20),
            needs in any_needs(), draw: u64, session: u64,
        ) {
            let now = Instant::now();
            let prospects = || known.iter().zip(0..).map(|(one, place)| one.prospect(place, now));
            let able: Vec<u16> =
                (0..).zip(&known).filter(|(_, one)| one.can(&needs)).map(|(at, _)| at).collect();
            for strategy in STRATEGIES {
                let plan = plan(strategy, prospects(), &needs, draw, session);
                let mut order = plan.order.to_vec();
                if strategy == Strategy::Ordered {
                    prop_assert!(order.is_sorted());
                }
                order.sort_unstable();
                prop_assert_eq!(&order, &able, "{:?}", strategy);
                for (place, skip) in &plan.skipped {
                    let one = &known[usize::from(*place)];
                    let until = now + Duration::from_secs(u64::from(*place));
                    prop_assert!(one.deserves(*skip, &needs, until), "{:?} of {:?}", skip, one);
                }
                let skipped = plan.skipped.iter().map(|(place, _)| *place);
                let mut all: Vec<u16> = order.into_iter().chain(skipped).collect();
                all.sort_unstable();
                let places: Vec<u16> = (0..).take(known.len()).collect();
                prop_assert_eq!(all, places);
            }
        }
    }

    #[test]
    fn who_can_never_answer_is_told_from_who_cannot_answer_now() {
        let now = Instant::now();
        let model = Model { context: Some(1000), ..Model::default() };
        let shut = Some((now, Reason::Errors));
        let candidate = Candidate { place: 0, identity: 0, weight: 1, score: 1.0, cost: None };
        let prospect = Prospect { candidate, model: &model, barred: None, prefills: false, shut };
        let needs = Needs { tokens: 5000, ..Needs::default() };
        let skips = |prospect, needs: &Needs| {
            plan(Strategy::Ordered, std::iter::once(prospect), needs, 0, 0).skipped
        };
        assert_eq!(skips(prospect, &needs), [(0, Skip::TooSmall(1000))]);
        assert_eq!(skips(prospect, &Needs::default()), [(0, Skip::Shut(now, Reason::Errors))]);
        let barred = Prospect { barred: Some(Skip::Condition), ..prospect };
        assert_eq!(skips(barred, &needs), [(0, Skip::Condition)]);
    }

    #[test]
    fn an_estimate_in_doubt_is_tried_and_one_beyond_doubt_is_not() {
        let model = Model { context: Some(1000), ..Model::default() };
        let of = |tokens| Needs { tokens, ..Needs::default() }.unmet(&model);
        assert_eq!(of(1250), None);
        assert_eq!(of(1264), Some(Skip::TooSmall(1000)));
        let larger = |seen| Needs { larger_than: Some(seen), ..Needs::default() }.unmet(&model);
        assert_eq!((larger(999), larger(1000)), (None, Some(Skip::TooSmall(1000))));
    }
}
