//! Stands in for the room until it is built.

use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;

use super::event::Resolution;
use crate::access::Caller;
use crate::canon::{ChatRequest, RunId};
use crate::error::{Error, Kind};
use crate::gateway::Gateway;
use crate::gateway::agents::{Commission, Conducting, Conductor, Performance, RunWishes};
use crate::store::runs::{ApprovalRow, Decided, LetterRow, RunRow};

#[derive(Debug)]
pub struct Agents;

pub enum Told {
    Cancel { by: String, reason: Option<String>, after_step: bool },
    Pause { by: String },
    Resume { by: String },
    Input { request: String, values: Value, by: String },
    Resolve { seq: u64, outcome: Resolution, result: Option<Value>, by: String },
    Feedback { score: Option<f64>, label: Option<String>, comment: Option<String>, by: String },
}

pub enum Again {
    Recorded,
    Live { overrides: Value },
    Fork { at_seq: u64, edit: Option<Value> },
    Compensate,
}

pub struct Verdict {
    pub approved: bool,
    pub args: Option<Value>,
    pub comment: Option<String>,
    pub remember: bool,
    pub by: String,
}

fn none<T>() -> Result<T, Error> {
    Err(Error::new(Kind::Internal, "Not built."))
}

impl Agents {
    pub async fn tell(&self, _run: RunId, _told: Told) -> Result<bool, Error> {
        none()
    }
    pub async fn decide(&self, _row: &ApprovalRow, _verdict: Verdict) -> Result<Decided, Error> {
        none()
    }
    pub fn follow(&self, _run: RunId) -> Option<watch::Receiver<u64>> {
        None
    }
    pub async fn again(&self, _caller: &Caller, _of: &RunRow, _how: Again) -> Result<RunId, Error> {
        none()
    }
    pub async fn retry_letter(&self, _letter: &LetterRow) -> Result<(), Error> {
        none()
    }
}

impl Conductor for Agents {
    fn names(&self, _caller: &Caller) -> Vec<String> {
        Vec::new()
    }
    fn conduct(&self, _commission: Box<Commission>) -> Conducting {
        Box::pin(async { none() })
    }
}

#[derive(Debug, Clone, Default)]
pub struct RunBudget {
    pub usd: Option<u64>,
    pub tokens: Option<u64>,
    pub steps: Option<u32>,
    pub tool_calls: Option<u32>,
    pub seconds: Option<u64>,
}

impl Gateway {
    pub async fn commission(
        self: &Arc<Self>,
        _caller: &Caller,
        _agent: &str,
        _request: ChatRequest,
        _wishes: (RunWishes, Option<RunBudget>),
    ) -> Result<Performance, Error> {
        none()
    }
}
