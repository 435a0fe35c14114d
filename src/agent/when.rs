//! When a person must let a call pass: an expression in CEL over `args`, `run` and `tool`.

use serde_json::Value;

use crate::config::Approval;
use crate::route::condition::Rule;

/// Whether the condition holds. What cannot be told holds: then somebody looks.
pub(super) fn holds(condition: &str, args: &Value, run: &Value, tool: &Value) -> bool {
    let rule = match Rule::compile(condition, &Approval::FACTS) {
        Ok(rule) => rule,
        Err(problem) => {
            tracing::warn!(%problem, "a condition of an approval makes no sense, so it is asked for");
            return true;
        }
    };
    rule.holds(&[("args", args), ("run", run), ("tool", tool)]).unwrap_or(true)
}
