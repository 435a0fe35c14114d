//! The one door to every tool.

use super::{Failure, FailureKind, Invocation, Output, Sent, Tool};

impl Tool {
    /// Calls it, as often as its effect and its terms allow.
    pub async fn call(&self, call: &Invocation) -> Result<Output, Failure> {
        self.check(&call.args)?;
        let timeout = tokio::time::Instant::now() + self.terms.timeout;
        let until =
            if self.runner.minds_time() { call.deadline } else { call.deadline.min(timeout) };
        let answer = tokio::time::timeout_at(until, self.runner.attempt(call)).await;
        let answer = answer.unwrap_or_else(|_| {
            let late = Failure::new(FailureKind::Timeout, "it took too long");
            Err(late.sent(Sent::Maybe))
        })?;
        Ok(Output {
            parts: answer.parts,
            value: answer.value,
            raw: answer.raw,
            truncated: answer.truncated,
            cached: false,
            attempts: 1,
        })
    }
}
