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
    /// It is where the route wants it to be.
    pub in_region: bool,
    /// Its condition holds, or it has none.
    pub wanted: bool,
    /// It is known to carry on an answer that was begun.
    pub prefills: bool,
    /// Until when it is left alone, and why.
    pub shut: Option<(Instant, Reason)>,
}

/// Why a target is not tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skip {
    Condition,
    Region,
    Lacks(FeatureSet),
    /// Its context window has so many tokens.
    TooSmall(u64),
    Shut(Instant, Reason),
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
    (draw, session): (u64, u64),
) -> Plan {
    let mut candidates = SmallVec::<[Candidate; 16]>::new();
    let mut skipped = Vec::new();
    for prospect in prospects {
        let skip = match prospect {
            Prospect { wanted: false, .. } => Some(Skip::Condition),
            Prospect { in_region: false, .. } => Some(Skip::Region),
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
