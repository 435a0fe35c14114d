//! What the guards of a call have said so far, whoever of them says it when.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::canon::{Consultation, GuardNote};
use crate::config::Stage;
use crate::guard::remote::Ruling;
use crate::guard::{Blocked, Failure, Verdict};

/// Shared by all who look at something of the same call.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Said(Mutex<Heard>);

#[derive(Debug, Default)]
struct Heard {
    verdicts: Vec<Verdict>,
    /// Who could not look, and therefore let nothing pass.
    closed: BTreeSet<(String, Stage)>,
    blocked: Option<Blocked>,
    /// Only where somebody traces the call.
    consulted: Vec<Consultation>,
    asked: u32,
}

// === impl Said ===

impl Said {
    pub(super) fn gather(&self, verdicts: impl IntoIterator<Item = Verdict>) {
        Verdict::gather(&mut self.held().verdicts, verdicts);
    }

    /// Notes what somebody said who was asked. Gives it on if it ends the call.
    pub(super) fn rule(&self, ruling: &Ruling) -> Result<(), Blocked> {
        let Ruling { verdict, blocked, .. } = ruling;
        if let Some(failure) = &verdict.failure {
            let (guard, closed) = (&verdict.guard, blocked.is_some());
            tracing::warn!(guard, closed, %failure, "a guard could not look");
            if closed {
                self.held().closed.insert((verdict.guard.clone(), verdict.stage));
            }
        }
        self.gather([verdict.clone()]);
        let Some(blocked) = blocked.clone() else { return Ok(()) };
        self.blocks(blocked.clone());
        Err(blocked)
    }

    /// The number of a guard that is about to ask.
    pub(super) fn number(&self) -> u32 {
        let mut held = self.held();
        held.asked += 1;
        held.asked
    }

    /// Notes for traces what came of asking.
    pub(super) fn consulted(&self, consultation: Consultation) {
        self.held().consulted.push(consultation);
    }

    pub(super) fn take_consulted(&self) -> Vec<Consultation> {
        std::mem::take(&mut self.held().consulted)
    }

    /// Notes who has ended the answer. Only the first one counts.
    pub(super) fn blocks(&self, blocked: Blocked) {
        self.held().blocked.get_or_insert(blocked);
    }

    pub(super) fn blocked(&self) -> Option<Blocked> {
        self.held().blocked.clone()
    }

    pub(super) fn flagged(&self) -> Option<String> {
        let held = self.held();
        let flags = held.verdicts.iter().filter(|verdict| verdict.is_flag());
        let names: BTreeSet<&str> = flags.map(|verdict| verdict.guard.as_str()).collect();
        let names: Vec<&str> = names.into_iter().collect();
        (!names.is_empty()).then(|| names.join(","))
    }

    pub(super) fn notes(&self) -> Vec<GuardNote> {
        let held = self.held();
        let closed = |verdict: &Verdict| {
            held.closed
                .iter()
                .any(|(guard, stage)| *guard == verdict.guard && *stage == verdict.stage)
        };
        held.verdicts.iter().map(|verdict| note(verdict, closed(verdict))).collect()
    }

    fn held(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A verdict as the record has it. `closed`: who could not look let nothing pass.
pub(super) fn note(verdict: &Verdict, closed: bool) -> GuardNote {
    let action = match &verdict.failure {
        Some(Failure::Impossible) => "skipped",
        Some(_) if closed => "failed_closed",
        Some(_) => "failed_open",
        None if verdict.dry_run => "dry_run",
        None => verdict.action.name(),
    };
    GuardNote {
        guard: verdict.guard.clone(),
        stage: verdict.stage.name(),
        action,
        found: verdict.findings.clone(),
        score: verdict.score,
        scanned_bytes: verdict.scanned_bytes,
        failure: verdict.failure.as_ref().map(ToString::to_string),
    }
}
