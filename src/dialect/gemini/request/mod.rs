//! Questions, read and written.

mod content;
mod field;
mod message;
mod read;
mod settings;
mod write;

pub(super) use read::{read, read_count};
pub use write::shared_tier;
pub(super) use write::write;

/// Begins the name of an extra that is a field of some functions' declarations: an object from
/// their names to values.
const FUNCTION_FIELD: &str = "tools.functionDeclarations.";
/// The same of results, by their ids.
const RESULT_FIELD: &str = "contents.parts.functionResponse.";
/// What clients call what a tool said, where it is not `output`.
const RESULT: &str = "result";
