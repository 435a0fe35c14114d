//! Questions: what a client asks in this dialect, and what a target of this dialect is asked.

mod cache;
mod conversation;
mod read;
mod schema;
mod thinking;
mod write;

pub(super) use read::read;
pub(super) use write::write;

use std::borrow::Cow;

use serde_json::Value;

use crate::dialect::Inexpressible;
use crate::dialect::lost::Dropped;

/// Begins the name of an extra that is a field of some tools: an object from their names to values.
const TOOL_FIELD: &str = "tools.";

/// A schema as structured answers know it, here and at Bedrock, and the names of what is lost.
pub(in crate::dialect) fn structured(schema: &Value) -> (Value, Vec<Cow<'static, str>>) {
    let mut dropped = Dropped::default();
    let schema = schema::compile(schema, &mut dropped);
    (schema, dropped.into_names())
}

/// A tool's schema as Anthropic's API and Bedrock take it.
pub(in crate::dialect) fn tool_schema(schema: Option<&Value>) -> Value {
    schema::of_tool(schema)
}

fn inexpressible(text: impl Into<Cow<'static, str>>) -> Inexpressible {
    Inexpressible(text.into())
}

#[cfg(test)]
mod tests;
