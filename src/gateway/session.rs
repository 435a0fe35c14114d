//! Which conversation a call belongs to, so that its turns can stay together.

use std::hash::{DefaultHasher, Hash, Hasher};

use http::HeaderMap;

use crate::canon::{ChatRequest, Content, Role};

/// Headers that name the session: ours, and those that coding agents send by themselves.
const HEADERS: [&str; 6] = [
    "x-switchpoint-session",
    "x-claude-code-session-id",
    "session_id",
    "session-id",
    "conversation_id",
    "x-session-affinity",
];

/// What Claude Code writes into `metadata.user_id` before its session's id.
const CLAUDE_CODE: &str = "_session_";

/// By a header, if one names it. Never 0.
pub(super) fn of_headers(headers: &HeaderMap) -> Option<u64> {
    let named = HEADERS.iter().find_map(|name| headers.get(*name));
    named.filter(|value| !value.is_empty()).map(|value| digest(value.as_bytes()))
}

/// By what the question says of itself, else by how its conversation began.
pub(super) fn of_chat(request: &ChatRequest) -> u64 {
    let metadata = request.metadata.as_ref();
    let named = metadata.and_then(|metadata| metadata.get("session_id")?.as_str());
    let user = request.user.as_deref().filter(|user| user.contains(CLAUDE_CODE));
    match request.cache_key.as_deref().or(named).or(user) {
        Some(named) => digest(named.as_bytes()),
        None => of_beginning(request),
    }
}

/// By its instructions and the first thing that its user said: what no later turn changes.
pub(super) fn of_beginning(request: &ChatRequest) -> u64 {
    let mut hasher = DefaultHasher::new();
    for message in &request.messages {
        for part in &message.parts {
            if let Content::Text { text, .. } = &part.content {
                text.hash(&mut hasher);
            }
        }
        if message.role == Role::User {
            break;
        }
    }
    hasher.finish().max(1)
}

fn digest(name: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish().max(1)
}
