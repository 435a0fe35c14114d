//! Stands in for what is not merged yet.

use std::sync::Arc;

use serde_json::Value;

use super::Agents;
use crate::access::Caller;
use crate::canon::{ChatRequest, RunId};
use crate::error::{Error, Kind};
use crate::gateway::Gateway;
use crate::gateway::agents::{Performance, RunWishes};
use crate::store::runs::RunRow;

pub enum Again {
    Recorded,
    Live { overrides: Value },
    Fork { at_seq: u64, edit: Option<Value> },
    Compensate,
}

fn none<T>() -> Result<T, Error> {
    Err(Error::new(Kind::Internal, "Not built."))
}

impl Agents {
    pub async fn again(&self, _caller: &Caller, _of: &RunRow, _how: Again) -> Result<RunId, Error> {
        none()
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
