//! What the runs below another one ask people, and for which of them an answer is.

use serde_json::{Value, json};

use super::run::{Call, Run, Stage};
use super::staff::Staff;
use super::view;
use crate::canon::{RunId, RunState};
use crate::error::Error;
use crate::gateway::agents::Performance;
use crate::store::runs::{ApprovalFilter, ApprovalRow, RunRow};

/// So many approvals are shown.
const MOST_ASKED: u32 = 100;

/// What people must say before the runs below one go on.
#[derive(Debug, Default)]
pub(super) struct Below {
    pub(super) approvals: Vec<ApprovalRow>,
    /// Those that ask something else, or that a person has to look at.
    pub(super) askers: Vec<Run>,
}

impl Below {
    /// As clients are shown it.
    pub(super) fn shown(&self) -> Vec<Value> {
        let approvals = self.approvals.iter().map(view::asked_below);
        approvals.chain(self.askers.iter().flat_map(asked_by)).collect()
    }
}

impl Staff {
    /// What people are asked by the runs below this one, of the tree of `root`.
    pub(super) async fn asked_below(&self, (id, root): (RunId, RunId)) -> Below {
        let state = Some("pending".to_owned());
        let filter = ApprovalFilter { state, root: Some(root), ..ApprovalFilter::default() };
        let approvals = self.gateway.store().approvals(filter, MOST_ASKED).await;
        let mut approvals = approvals.unwrap_or_default();
        approvals.retain(|row| row.run != id);
        let askers = self.askers((id, root)).await.into_iter().map(|(_, run)| run).collect();
        Below { approvals, askers }
    }

    /// Those of the runs below one that wait.
    pub(super) async fn waiting_below(&self, whose: (RunId, RunId)) -> Vec<RunRow> {
        let mut rows = self.below(whose).await;
        rows.retain(|row| row.state.is_waiting());
        rows
    }

    /// Those of them that ask something, besides approvals.
    async fn askers(&self, whose: (RunId, RunId)) -> Vec<(RunRow, Run)> {
        let mut askers = Vec::new();
        for row in self.waiting_below(whose).await {
            let known = self.whole(&row).await.ok().filter(asks);
            askers.extend(known.map(|run| (row, run)));
        }
        askers
    }

    /// The run below one that an answer is for, and whether that has asked its user for it: the one
    /// with this question, or the first that asks anything.
    pub(super) async fn asker(
        &self,
        row: &RunRow,
        request: Option<&str>,
    ) -> Option<(RunRow, bool)> {
        if !matches!(row.state, RunState::WaitingChild | RunState::Paused) {
            return None;
        }
        let mut askers = self.askers((row.id, row.root)).await;
        let question = askers.iter().position(|(_, run)| is_open(run, request));
        let given_up = || askers.iter().position(|(_, run)| run.escalated.is_some());
        let place = question.or_else(|| given_up().filter(|_| request.is_none()))?;
        Some((askers.swap_remove(place).0, question.is_some()))
    }

    /// The one that asks its user something: this run, or one below it.
    pub(super) async fn asks_user(&self, row: &RunRow) -> Option<RunRow> {
        if row.state == RunState::WaitingInput {
            return Some(row.clone());
        }
        // It may wait for something else besides; asked in vain so far, its user may answer after
        // all.
        let waits = row.state.is_waiting() && row.state != RunState::WaitingClient;
        if waits && self.load(row).await.is_ok_and(|loaded| is_open(&loaded.run, None)) {
            return Some(row.clone());
        }
        let asker = self.asker(row, None).await;
        asker.filter(|(_, is_question)| *is_question).map(|(row, _)| row)
    }

    /// What a run has to say that nobody works at.
    pub(super) async fn said(&self, row: &RunRow) -> Result<Performance, Error> {
        let run = self.whole(row).await?;
        let below = match row.state {
            RunState::WaitingChild => self.asked_below((row.id, row.root)).await,
            _ => Below::default(),
        };
        Ok(view::told((&run, &below), row))
    }
}

/// Whether this question of a run is open, or any.
fn is_open(run: &Run, request: Option<&str>) -> bool {
    run.calls.iter().any(|call| match &call.stage {
        Stage::Asking { request: own, .. } => request.is_none_or(|wanted| wanted == own),
        _ => false,
    })
}

fn asks(run: &Run) -> bool {
    let is_unknown = run.calls.iter().any(Call::is_unknown);
    run.escalated.is_some() || is_unknown || is_open(run, None)
}

/// What a run asks, for clients of the one above it; approvals are shown as such.
fn asked_by(run: &Run) -> Vec<Value> {
    let own = view::pending(run).into_iter().filter(|asked| asked["type"] != "approval");
    let given_up = run.escalated.as_ref().map(|why| json!({"type": "escalated", "reason": why}));
    let mut asked: Vec<Value> = own.chain(given_up).collect();
    for asked in &mut asked {
        asked["run_id"] = run.id.to_string().into();
        asked["agent"] = run.definition.agent.clone().into();
    }
    asked
}
