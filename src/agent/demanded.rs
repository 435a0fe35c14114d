//! Whether an answer is what its schema demands.

use serde_json::Value;

use super::run::Run;
use crate::canon::Part;

/// Whether an answer is what the schema demands, if there is one; and if not, why.
pub(super) fn is_as_demanded(run: &Run, answer: &[Part]) -> Result<(), String> {
    let Some(schema) = run.output_schema() else { return Ok(()) };
    let text: String = answer.iter().filter_map(Part::as_text).collect();
    fits_schema(&text, schema)
}

pub(super) fn fits_schema(text: &str, schema: &Value) -> Result<(), String> {
    let value: Value =
        serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    crate::tool::check_value(schema, &value)
}

/// Takes the fence of Markdown from a text that is nothing but a block of code, as some models give
/// JSON; true where there was one.
pub(super) fn unfence(parts: &mut Vec<Part>) -> bool {
    let text: String = parts.iter().filter_map(Part::as_text).collect();
    let bare = || {
        let inner = text.trim().strip_prefix("```")?.strip_suffix("```")?;
        let inner = inner.strip_prefix("json").unwrap_or(inner);
        Some(inner.trim().to_owned())
    };
    let Some(bare) = bare() else { return false };
    parts.retain(|part| part.as_text().is_none());
    parts.push(Part::text(bare));
    true
}

pub(super) fn invalid(wrong: &str) -> String {
    format!("The answer is not what the schema demands: {wrong}")
}
