//! What a guard has to say of the texts of a call. Never a word of the texts themselves.

use std::collections::BTreeMap;

use crate::config::{Action, Stage};

/// All that one guard said of what it was shown on one surface of a call.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub guard: String,
    pub stage: Stage,
    pub action: Action,
    /// The action was not taken.
    pub dry_run: bool,
    /// How often each kind of thing was found.
    pub findings: BTreeMap<String, u32>,
    /// How sure the guard is, from 0 to 1, where it says so.
    pub score: Option<f32>,
    /// In the guard's own words.
    pub reasons: Vec<String>,
    pub scanned_bytes: u64,
    /// Why the guard could not look.
    pub failure: Option<Failure>,
}

/// Something that a guard objects to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Finding {
    pub label: String,
    pub score: Option<f32>,
    pub reason: Option<String>,
}

/// Why a guard that asks somebody else has no verdict.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("no answer in time")]
    Timeout,
    /// Nobody was reached, or the call was refused.
    #[error("could not be asked: {0}")]
    Unreachable(String),
    #[error("answered with status {0}")]
    Status(u16),
    #[error("the answer is not understood: {0}")]
    Answer(String),
    /// There is something here that guards of texts cannot read.
    #[error("this cannot be looked at")]
    Impossible,
}

/// A guard ends the call. What it found stands in its verdict.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
#[error("The guard `{guard}` objects ({label}).")]
pub struct Blocked {
    pub guard: String,
    pub label: String,
}

// === impl Verdict ===

impl Verdict {
    /// Whether there is anything to note.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.failure.is_none()
    }

    /// Whether the client is told.
    pub fn is_flag(&self) -> bool {
        self.action == Action::Flag && !self.dry_run && !self.findings.is_empty()
    }

    /// Adds verdicts to others of the same call: one for each guard and stage.
    pub fn gather(all: &mut Vec<Self>, more: impl IntoIterator<Item = Self>) {
        for verdict in more {
            let same =
                |known: &&mut Self| known.guard == verdict.guard && known.stage == verdict.stage;
            match all.iter_mut().find(same) {
                Some(known) => known.add(verdict),
                None => all.push(verdict),
            }
        }
    }

    fn add(&mut self, other: Self) {
        for (label, count) in other.findings {
            *self.findings.entry(label).or_default() += count;
        }
        self.score = match (self.score, other.score) {
            (Some(left), Some(right)) => Some(left.max(right)),
            (left, right) => left.or(right),
        };
        self.reasons.extend(other.reasons);
        self.scanned_bytes += other.scanned_bytes;
        self.failure = self.failure.take().or(other.failure);
    }

    /// Whether the action is taken, rather than only noted.
    pub(super) fn acts(&self) -> bool {
        !self.dry_run && matches!(self.action, Action::Block | Action::Mask)
    }

    pub(super) fn note(&mut self, finding: Finding) {
        *self.findings.entry(finding.label).or_default() += 1;
        self.score = match (self.score, finding.score) {
            (Some(left), Some(right)) => Some(left.max(right)),
            (left, right) => left.or(right),
        };
        self.reasons.extend(finding.reason);
    }
}
