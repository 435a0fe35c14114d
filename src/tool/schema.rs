//! What arguments and results must be: JSON Schema, draft 2020-12. Nothing is fetched for it.

use serde_json::Value;

/// Faults that are told of one value.
const MOST_FAULTS: usize = 5;

/// A schema, ready to be used.
#[derive(Debug)]
pub(crate) struct Schema {
    validator: jsonschema::Validator,
}

// === impl Schema ===

impl Schema {
    pub(crate) fn new(schema: &Value) -> Result<Self, String> {
        let validator = jsonschema::options()
            .with_draft(jsonschema::Draft::Draft202012)
            .build(schema)
            .map_err(|error| error.to_string())?;
        Ok(Self { validator })
    }

    /// Where properties are listed and nothing is said of others, there are no others.
    pub(crate) fn of_arguments(schema: &Value) -> Result<Self, String> {
        Self::new(schema)
    }

    /// Says what is wrong, and where, as JSON pointers.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        let faults = self.validator.iter_errors(value).take(MOST_FAULTS);
        let faults: Vec<String> = faults.map(|fault| fault.to_string()).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }
}
