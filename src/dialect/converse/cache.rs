//! Prompt cache breakpoints of a question: at most four, the client's before ours.

use serde_json::{Value, json};

use super::family::Caches;
use crate::canon::CacheMark;
use crate::dialect::CacheInjection;

/// More than this Bedrock refuses.
const MOST: usize = 4;

/// The lists in which breakpoints stand.
pub(super) struct Places<'a> {
    pub(super) tools: Option<&'a mut Vec<Value>>,
    pub(super) system: &'a mut Vec<Value>,
    pub(super) messages: &'a mut Vec<Value>,
}

/// The block for a breakpoint, if the family takes one.
pub(super) fn point(mark: CacheMark, caches: Caches) -> Option<Value> {
    match (mark, caches) {
        (_, Caches::Nothing) => None,
        (CacheMark::Long, Caches::All) => {
            Some(json!({ "cachePoint": { "type": "default", "ttl": "1h" } }))
        }
        (_, Caches::Messages | Caches::All) => Some(json!({ "cachePoint": { "type": "default" } })),
    }
}

pub(super) fn is_point(block: &Value) -> bool {
    block.get("cachePoint").is_some()
}

// === impl Places ===

impl Places<'_> {
    /// Keeps the client's breakpoints, or sets those that the target's config asks for if it set
    /// none. Says whether some were taken away.
    pub(super) fn settle(mut self, injection: Option<CacheInjection>, caches: Caches) -> bool {
        let count = |list: &[Value]| list.iter().filter(|block| is_point(block)).count();
        let tools = self.tools.as_deref().map_or(0, |list| count(list));
        let messages: usize = contents(self.messages).map(|list| count(list)).sum();
        let set = tools + count(self.system) + messages;
        if let (0, Some(injection)) = (set, injection) {
            self.inject(injection, caches);
        }
        let mut surplus = set.saturating_sub(MOST);
        // Later ones reach as far and further; tools and system stand first and stay longest.
        for list in contents(self.messages) {
            thin(list, &mut surplus);
        }
        thin(self.system, &mut surplus);
        if let Some(tools) = self.tools {
            thin(tools, &mut surplus);
        }
        set > MOST
    }

    fn inject(&mut self, injection: CacheInjection, caches: Caches) {
        let Some(point) = point(injection.lifetime, caches) else { return };
        let takes_tools = injection.tools && caches == Caches::All;
        if let Some(tools) = self.tools.as_mut().filter(|list| takes_tools && !list.is_empty()) {
            tools.push(point.clone());
        }
        if injection.system && !self.system.is_empty() {
            self.system.push(point.clone());
        }
        if injection.messages {
            let users = self.messages.iter_mut().rev().filter(|message| message["role"] == "user");
            let lists = users.take(2).filter_map(|message| message["content"].as_array_mut());
            for list in lists.filter(|list| list.last().is_some_and(takes_point)) {
                list.push(point.clone());
            }
        }
    }
}

/// Behind a document or a film a breakpoint is refused.
fn takes_point(block: &Value) -> bool {
    block.get("document").is_none() && block.get("video").is_none()
}

fn contents(messages: &mut [Value]) -> impl Iterator<Item = &mut Vec<Value>> {
    messages.iter_mut().filter_map(|message| message["content"].as_array_mut())
}

fn thin(list: &mut Vec<Value>, surplus: &mut usize) {
    list.retain(|block| {
        let goes = *surplus > 0 && is_point(block);
        *surplus -= usize::from(goes);
        !goes
    });
}
