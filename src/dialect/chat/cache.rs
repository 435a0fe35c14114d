//! Prompt cache breakpoints that a target's config asks for where the client sets none.

use serde_json::{Map, Value, json};

use super::media::write_mark;
use crate::dialect::CacheInjection;

const MARK: &str = "cache_control";

/// Sets the breakpoints; the client's own, if it has any, are the better ones.
pub(super) fn inject(body: &mut Map<String, Value>, injection: CacheInjection) {
    let is_marked = |part: &Value| part.get(MARK).is_some();
    let tools = body.get("tools").and_then(Value::as_array);
    let messages = body.get("messages").and_then(Value::as_array);
    let said = messages.into_iter().flatten().filter_map(|message| message["content"].as_array());
    if tools.into_iter().flatten().any(is_marked) || said.flatten().any(is_marked) {
        return;
    }
    let mark = write_mark(injection.lifetime);
    let tools = body.get_mut("tools").and_then(Value::as_array_mut);
    if let Some(tool) = tools.and_then(|tools| tools.last_mut()).filter(|_| injection.tools) {
        tool[MARK] = mark.clone();
    }
    let Some(messages) = body.get_mut("messages").and_then(Value::as_array_mut) else { return };
    let leads =
        |message: &&mut Value| ["system", "developer"].iter().any(|r| message["role"] == *r);
    if let Some(system) = messages.iter_mut().take_while(leads).last().filter(|_| injection.system)
    {
        mark_last(&mut system["content"], mark.clone());
    }
    // The last turn is written for the next call, the one before it is what this call reads.
    let users = messages
        .iter_mut()
        .rev()
        .filter(|message| ["user", "tool"].iter().any(|role| message["role"] == *role));
    for message in users.take(if injection.messages { 2 } else { 0 }) {
        mark_last(&mut message["content"], mark.clone());
    }
}

/// Puts a breakpoint behind the last part of a content.
pub(super) fn mark_last(content: &mut Value, mark: Value) {
    if let Value::String(text) = content {
        *content = json!([{ "type": "text", "text": text }]);
    }
    if let Some(last) = content.as_array_mut().and_then(|parts| parts.last_mut()) {
        last[MARK] = mark;
    }
}
