//! What a client decides of what its run wants to do, at the door by which it began the run.

use serde_json::json;

use super::begin::away;
use super::staff::Staff;
use super::words::Words;
use crate::canon::Owner;
use crate::error::{Error, Kind};
use crate::gateway::agents::Commission;
use crate::store::runs::{Decided, Decision, RunRow};

impl Staff {
    /// Takes down what a client decides of a run. Whether any of it is new.
    pub(super) async fn decides(
        &self,
        row: &RunRow,
        owner: &Owner,
        commission: &Commission,
        words: &Words,
    ) -> Result<bool, Error> {
        let store = self.gateway.store();
        let by = commission.caller.key().to_string();
        let (mut is_new, mut before) = (false, None);
        let mut messages = words.beside();
        for (approval, approved, comment) in &words.approvals {
            let known = store.approval(approval).await.map_err(away)?;
            let known = known.filter(|known| known.run == row.id || known.owner == *owner);
            let known = known.ok_or_else(|| missing(approval))?;
            super::control::may_decide(&commission.caller, &known).inspect_err(|_| {
                self.gateway.telemetry.metrics.count_security_event("approval_not_allowed");
            })?;
            let signal = json!({
                "approval": approval, "approved": approved, "comment": comment, "by": by,
                "messages": messages,
            });
            let decision = Decision {
                approved: *approved,
                by: by.clone(),
                comment: comment.clone(),
                edited: None,
                signal: signal.to_string(),
            };
            match store.decide(approval, decision).await.map_err(away)? {
                Decided::Done => {
                    is_new = true;
                    messages.clear();
                }
                // A client may say again all that was ever said.
                Decided::Already(state) if (state == "approved") == *approved => {
                    before = Some(state);
                }
                Decided::Already(state) => return Err(already(&state)),
                Decided::Missing => return Err(missing(approval)),
            }
        }
        match before {
            Some(state) if !is_new && words.only_decides => Err(already(&state)),
            _ => Ok(is_new),
        }
    }

    /// Why decisions of which no run knows are none.
    pub(super) async fn decided_before(
        &self,
        owner: &Owner,
        words: &Words,
    ) -> Result<Error, Error> {
        let asked = words.approvals.last().map_or("", |(approval, ..)| approval);
        let known = self.gateway.store().approval(asked).await.map_err(away)?;
        let known = known.filter(|known| known.owner == *owner);
        Ok(known.map_or_else(|| missing(asked), |known| already(&known.state)))
    }
}

fn missing(approval: &str) -> Error {
    Error::new(Kind::NotFound, format!("There is no approval `{approval}`."))
}

fn already(state: &str) -> Error {
    Error::new(Kind::AlreadyDecided, format!("The approval is `{state}` already."))
}
