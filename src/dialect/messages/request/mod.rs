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

/// Begins the name of an extra that is a field of some tools: an object from their names to values.
const TOOL_FIELD: &str = "tools.";

/// The fields of a question that the target cannot take, each once.
#[derive(Debug, Default)]
struct Dropped(Vec<Cow<'static, str>>);

impl Dropped {
    fn add(&mut self, name: impl Into<Cow<'static, str>>) {
        let name = name.into();
        if !self.0.contains(&name) {
            self.0.push(name);
        }
    }

    fn add_if(&mut self, lost: bool, name: &'static str) {
        if lost {
            self.add(name);
        }
    }
}

/// A schema as structured answers know it, here and at Bedrock, and the names of what is lost.
pub(in crate::dialect) fn structured(schema: &Value) -> (Value, Vec<Cow<'static, str>>) {
    let mut dropped = Dropped::default();
    let schema = schema::compile(schema, &mut dropped);
    (schema, dropped.0)
}

fn inexpressible(text: impl Into<Cow<'static, str>>) -> Inexpressible {
    Inexpressible(text.into())
}

#[cfg(test)]
mod tests;
