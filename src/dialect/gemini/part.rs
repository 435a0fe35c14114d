//! One part of a content, written for clients and for Gemini alike.

use serde_json::{Map, Value, json};

use super::{media, signature};
use crate::canon::{Content, Dialect, Foreign, Opaque, Part, ToolCall};
use crate::dialect::custom;

/// Who reads what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// Keeps other providers' state for them, sealed.
    Client,
    /// Could do nothing with it.
    Gemini,
}

/// The part, `None` for what has no place here; the reason where it has one and does not fit.
pub(super) fn write(part: &Part, reader: Reader) -> Result<Option<Value>, String> {
    let mut fields = Map::new();
    match &part.content {
        Content::Text { text, .. } | Content::Refusal(text) => {
            fields.insert("text".into(), json!(text));
        }
        Content::Reasoning(thought) => {
            let ours = part.opaque_for(Dialect::Gemini).is_some();
            if reader == Reader::Gemini && thought.text.is_empty() && !ours {
                return Ok(None);
            }
            fields.insert("text".into(), json!(thought.text));
            fields.insert("thought".into(), json!(true));
        }
        Content::Media(medium) => fields = media::write(medium)?,
        Content::ToolCall(call) => {
            let call =
                json!({ "id": call.id, "name": call.name, "args": arguments(call, reader)? });
            fields.insert("functionCall".into(), call);
        }
        Content::Foreign(Foreign { dialect: Dialect::Gemini, value }) => {
            return Ok(Some(value.clone()));
        }
        Content::Foreign(_) | Content::ToolResult(_) => return Ok(None),
    }
    sign(part, reader, &mut fields);
    Ok(Some(Value::Object(fields)))
}

/// Puts a part's state beside its content: a signature, or fields that only Gemini has.
pub(super) fn sign(part: &Part, reader: Reader, fields: &mut Map<String, Value>) {
    match &part.opaque {
        Some(Opaque { dialect: Dialect::Gemini, data: Value::Object(more) }) => {
            for (name, value) in more {
                fields.insert(name.clone(), value.clone());
            }
        }
        Some(Opaque { dialect: Dialect::Gemini, data }) => {
            fields.insert("thoughtSignature".into(), data.clone());
        }
        Some(state) if reader == Reader::Client => {
            let sealed = signature::seal(Some(state), &part.content);
            fields.insert("thoughtSignature".into(), json!(sealed));
        }
        _ => {}
    }
}

/// Whether the part is a thought of another provider, which wants it back.
pub(super) fn is_signed_elsewhere(part: &Part) -> bool {
    let state = part.opaque.as_ref().filter(|_| matches!(part.content, Content::Reasoning(_)));
    state.is_some_and(|state| state.dialect != Dialect::Gemini)
}

/// Marks a call with its id, for the sake of thoughts before it: Gemini's clients drop those, and
/// keep what is beside a call.
pub(super) fn mark(part: &Part, written: &mut Value) {
    if let (Content::ToolCall(_), Some(fields)) = (&part.content, written.as_object_mut()) {
        let sealed = || json!(signature::seal(None, &part.content));
        fields.entry("thoughtSignature").or_insert_with(sealed);
    }
}

/// A call's arguments as an object. A client must not make a call whose arguments are none.
fn arguments(call: &ToolCall, reader: Reader) -> Result<Map<String, Value>, String> {
    match reader {
        Reader::Gemini => Ok(custom::input(call)),
        Reader::Client => custom::object(call)
            .ok_or_else(|| format!("a call `{}` whose arguments are not a JSON object", call.id)),
    }
}
