//! Stands in for what is not merged yet.

use serde_json::Value;

use super::Agents;
use crate::access::Caller;
use crate::canon::RunId;
use crate::error::{Error, Kind};
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
