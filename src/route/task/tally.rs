//! Evidence for each task, added up, and the verdict that follows from it.

use std::borrow::Cow;

use super::{Task, Verdict};

/// What spoke for a task.
#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    /// A phrase of our lexicon.
    Lexical(&'static str),
    /// What the text looks like.
    Shape(&'static str),
    /// What the request has besides its text.
    Feature(&'static str),
}

#[derive(Debug, Clone, Copy)]
struct Evidence {
    total: f32,
    strongest: f32,
    signal: Signal,
}

#[derive(Debug)]
pub(super) struct Tally {
    evidence: [Evidence; Task::ALL.len()],
    doubt: f32,
}

/// By how much the first must lead before its score is one half.
const HALFWAY: f32 = 1.5;

/// Evidence below this does not carry a full score however far it leads.
const ENOUGH: f32 = 3.0;

impl Default for Tally {
    fn default() -> Self {
        let none = Evidence { total: 0.0, strongest: 0.0, signal: Signal::Shape("nothing") };
        Self { evidence: [none; Task::ALL.len()], doubt: 1.0 }
    }
}

impl Tally {
    pub(super) fn add(&mut self, task: Task, weight: f32, signal: Signal) {
        let evidence = &mut self.evidence[task as usize];
        evidence.total += weight;
        if weight > evidence.strongest {
            (evidence.strongest, evidence.signal) = (weight, signal);
        }
    }

    /// What was said so far weighs less.
    pub(super) fn damp(&mut self, factor: f32) {
        for evidence in &mut self.evidence {
            evidence.total *= factor;
            evidence.strongest *= factor;
        }
    }

    /// The score will be lower by this factor, whatever the task.
    pub(super) fn doubt(&mut self, factor: f32) {
        self.doubt *= factor;
    }

    pub(super) fn verdict(&self) -> Verdict {
        let mut order = Task::ALL;
        let total = |task: Task| self.evidence[task as usize].total;
        // Stable: of equals the one that stands first in `Task::ALL`.
        order.sort_by(|left, right| total(*right).total_cmp(&total(*left)));
        let [task, second, ..] = order;
        let (first, next) = (total(task).max(0.0), total(second).max(0.0));
        let lead = first - next;
        let score = self.doubt * (lead / (lead + HALFWAY)) * (first / ENOUGH).min(1.0);
        let runner_up = (next > 0.0).then_some(second);
        Verdict { task, score, reason: reason(self.evidence[task as usize].signal), runner_up }
    }
}

fn reason(signal: Signal) -> Cow<'static, str> {
    let (kind, what) = match signal {
        Signal::Lexical(phrase) => ("lexical", phrase.trim_matches('*')),
        Signal::Shape(what) => ("shape", what),
        Signal::Feature(what) => ("feature", what),
    };
    format!("{kind}: {what}").into()
}
