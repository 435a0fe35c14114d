//! What the runs below another one ask people, and for which of them an answer is.

use serde_json::{Value, json};

use super::begin::halted;
use super::event::Event;
use super::run::{Call, Run};
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

/// A run that waits for what somebody says.
#[derive(Debug)]
pub struct Asker {
    pub row: RunRow,
    /// What is answered: a question, or that a person is to take over.
    pub request: String,
    /// It is a question, which its user was asked.
    pub is_question: bool,
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
    pub(super) async fn asked_below(&self, id: RunId, root: RunId) -> Below {
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

    /// Those of the runs below one that ask something, besides approvals: also such as are just
    /// looked at, which do not wait meanwhile.
    async fn askers(&self, whose: (RunId, RunId)) -> Vec<(RunRow, Run)> {
        let (mut askers, mut rows) = (Vec::new(), self.below(whose).await);
        rows.retain(|row| !row.state.is_over());
        for row in rows {
            let known = self.whole(&row).await.ok().filter(asks);
            askers.extend(known.map(|run| (row, run)));
        }
        askers
    }

    /// Whom an answer is for that comes to a run: itself, or one below it, also while it is at work
    /// beside these. The one with this question, or the first that asks anything.
    pub(super) async fn asker(
        &self,
        row: &RunRow,
        wanted: Option<&str>,
    ) -> Result<Option<Asker>, Error> {
        if row.state.is_over() {
            return Ok(None);
        }
        let run = self.whole(row).await?;
        if let Some(own) = question_of(row, &run, wanted).or_else(|| given_up(row, &run, wanted)) {
            return Ok(Some(own));
        }
        let below = self.askers((row.id, row.root)).await;
        let question = below.iter().find_map(|(row, run)| question_of(row, run, wanted));
        let given_up = || below.iter().find_map(|(row, run)| given_up(row, run, wanted));
        Ok(question.or_else(given_up))
    }

    /// The one that asks its user something: this run, or one below it. Asked in vain so far, its
    /// user may answer after all.
    pub(super) async fn asks_user(&self, row: &RunRow) -> Option<RunRow> {
        let asker = self.asker(row, None).await.ok().flatten();
        asker.filter(|asker| asker.is_question).map(|asker| asker.row)
    }

    /// What a run has to say that nobody works at.
    pub(super) async fn said(&self, row: &RunRow) -> Result<Performance, Error> {
        let run = self.whole(row).await?;
        Ok(view::told(&run, &self.known_below(row).await, row, Vec::new()))
    }

    /// The same, behind all that was to be heard of it since this time, in milliseconds.
    pub(super) async fn retold(&self, row: &RunRow, since: u64) -> Result<Performance, Error> {
        let mut heard = Vec::new();
        let look = |run: &Run, entries: &[Event], at: u64| {
            heard.extend(view::passage(run, entries).filter(|_| at >= since));
        };
        let run = self.replayed(row, look).await.map_err(halted)?.resting(row.state);
        Ok(view::told(&run, &self.known_below(row).await, row, heard))
    }

    async fn known_below(&self, row: &RunRow) -> Below {
        match row.state {
            RunState::WaitingChild => self.asked_below(row.id, row.root).await,
            _ => Below::default(),
        }
    }
}

/// A run as whoever asks this question, or any.
fn question_of(row: &RunRow, run: &Run, wanted: Option<&str>) -> Option<Asker> {
    let request = run.questions_open().find(|own| wanted.is_none_or(|wanted| wanted == *own))?;
    Some(Asker { row: row.clone(), request: request.to_owned(), is_question: true })
}

/// A run as one that is given up to a person.
fn given_up(row: &RunRow, run: &Run, wanted: Option<&str>) -> Option<Asker> {
    let request = run.takeover().filter(|own| wanted.is_none_or(|wanted| wanted == own))?;
    Some(Asker { row: row.clone(), request, is_question: false })
}

fn asks(run: &Run) -> bool {
    let is_unknown = run.calls.iter().any(Call::is_unknown);
    run.escalated.is_some() || is_unknown || run.questions_open().next().is_some()
}

/// What a run asks, for clients of the one above it; approvals are shown as such.
fn asked_by(run: &Run) -> Vec<Value> {
    let own = view::pending(run).into_iter().filter(|asked| asked["type"] != "approval");
    let given_up =
        run.escalated.as_ref().map(|it| json!({"type": "escalated", "reason": it.reason}));
    let mut asked: Vec<Value> = own.chain(given_up).collect();
    for asked in &mut asked {
        asked["run_id"] = run.id.to_string().into();
        asked["agent"] = run.definition.agent.clone().into();
    }
    asked
}
