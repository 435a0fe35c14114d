//! Whether an answer is the JSON that it was asked to be.

use jsonschema::Validator;
use serde_json::Value;

use super::Finding;

pub(super) struct Schema(Validator);

// === impl Schema ===

impl Schema {
    /// References to other documents are not followed: nothing is fetched for a schema.
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let schema: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let built = jsonschema::options().offline().build(&schema);
        built.map(Self).map_err(|error| format!("the schema cannot be used: {error}"))
    }

    /// What is wrong with an answer. Where, but not what stands there.
    pub(super) fn object(&self, answer: &str) -> Option<Finding> {
        let finding = |label: &str, reason: String| {
            Some(Finding { label: label.to_owned(), reason: Some(reason), score: None })
        };
        let Ok(value) = serde_json::from_str::<Value>(answer) else {
            return finding("json", "the answer is not JSON".to_owned());
        };
        let error = self.0.iter_errors(&value).next()?;
        let place = error.instance_path().to_string();
        let place = if place.is_empty() { "the answer".to_owned() } else { format!("`{place}`") };
        let rule = error.kind().keyword();
        finding("schema", format!("{place} is not as `{rule}` wants it"))
    }
}
