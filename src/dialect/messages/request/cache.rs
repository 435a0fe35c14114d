//! Prompt cache breakpoints of a body: at most four, the client's before ours.

use serde_json::{Map, Value};

use super::Dropped;
use crate::dialect::CacheInjection;
use crate::dialect::messages::block::write_mark;

/// More than this the API refuses.
const MOST: usize = 4;
const MARK: &str = "cache_control";

/// Keeps the client's breakpoints, or sets those that the target's config asks for if it set none.
pub(super) fn place(
    body: &mut Map<String, Value>,
    injection: Option<CacheInjection>,
    dropped: &mut Dropped,
) {
    let mut marked = 0;
    each_block(body, &mut |block| marked += usize::from(block.contains_key(MARK)));
    if marked > MOST {
        limit(body, marked - MOST);
        dropped.add(MARK);
    }
    // A mark on the whole body is the client's word too.
    let own = marked > 0 || body.contains_key(MARK);
    if let (false, Some(injection)) = (own, injection) {
        inject(body, injection);
    }
}

/// Takes the earliest breakpoints of the messages away: later ones reach as far and further. Those
/// of tools and system come first in the body and are kept as long as there are others.
fn limit(body: &mut Map<String, Value>, mut surplus: usize) {
    for field in ["messages", "system", "tools"] {
        let Some(list) = body.get_mut(field) else { continue };
        each_in(field, list, &mut |block| {
            if surplus > 0 && block.shift_remove(MARK).is_some() {
                surplus -= 1;
            }
        });
    }
}

fn inject(body: &mut Map<String, Value>, injection: CacheInjection) {
    let mark = write_mark(injection.lifetime);
    let last_of = |list: Option<&mut Value>| {
        let last = list.and_then(Value::as_array_mut).and_then(|list| list.last_mut());
        if let Some(block) = last.and_then(Value::as_object_mut).filter(|block| takes_mark(block)) {
            block.insert(MARK.to_owned(), mark.clone());
        }
    };
    if injection.tools {
        last_of(body.get_mut("tools"));
    }
    if injection.system {
        last_of(body.get_mut("system"));
    }
    let messages = body.get_mut("messages").and_then(Value::as_array_mut);
    // The last turn is written for the next call, the one before it is what this call reads.
    let users = messages.into_iter().flatten().rev().filter(|message| message["role"] == "user");
    for message in users.take(if injection.messages { 2 } else { 0 }) {
        last_of(message.get_mut("content"));
    }
}

fn takes_mark(block: &Map<String, Value>) -> bool {
    let kind = block.get("type").and_then(Value::as_str).unwrap_or_default();
    !matches!(kind, "thinking" | "redacted_thinking")
}

fn each_block(body: &mut Map<String, Value>, visit: &mut dyn FnMut(&mut Map<String, Value>)) {
    for field in ["tools", "system", "messages"] {
        if let Some(list) = body.get_mut(field) {
            each_in(field, list, visit);
        }
    }
}

/// Every block that may carry a breakpoint, those inside of tool results included.
fn each_in(field: &str, list: &mut Value, visit: &mut dyn FnMut(&mut Map<String, Value>)) {
    for item in list.as_array_mut().into_iter().flatten() {
        if field == "messages" {
            each_content(item, visit);
        } else if let Some(block) = item.as_object_mut() {
            visit(block);
        }
    }
}

fn each_content(item: &mut Value, visit: &mut dyn FnMut(&mut Map<String, Value>)) {
    let content = item.get_mut("content").and_then(Value::as_array_mut);
    for block in content.into_iter().flatten() {
        each_content(block, visit);
        if let Some(block) = block.as_object_mut() {
            visit(block);
        }
    }
}
