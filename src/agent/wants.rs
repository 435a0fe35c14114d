//! What an answer of a model wants done: each call of a tool, with who does it and a key of its own.

use std::collections::BTreeSet;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::definition::{ASK_USER, HANDOFF, Member};
use super::event::{Doer, Requested};
use super::journal::now;
use super::run::Run;
use crate::canon::{Content, Effect, Part, Tool, ToolCall};
use crate::tool::canonical;
use crate::tool::text::read_exact;

/// Of one turn, so many calls are looked at.
const MOST_CALLS: usize = 128;
/// An arguments' text that is longer is nothing a tool is called with.
const LONGEST_ARGS: usize = 1 << 20;

/// What the model wants done, each with an id that no other call of the turn has.
pub(super) fn requests(run: &Run, parts: &mut Vec<Part>) -> Vec<Requested> {
    let Some(member) = run.member() else { return Vec::new() };
    let (mut seen, mut requested) = (BTreeSet::new(), Vec::new());
    let mut number = run.tool_calls;
    parts.retain_mut(|part| {
        let Content::ToolCall(call) = &mut part.content else { return true };
        if requested.len() >= MOST_CALLS {
            return false;
        }
        if call.id.is_empty() || !seen.insert(call.id.clone()) {
            call.id = format!("call_{}_{}", run.answers + 1, requested.len() + 1);
            seen.insert(call.id.clone());
        }
        number += 1;
        requested.push(request(run, member, call, number));
        true
    });
    requested
}

fn request(run: &Run, member: &Member, call: &ToolCall, number: u32) -> Requested {
    let (doer, tool, version, effect) = doer(run, member, &call.name);
    let text = if call.arguments.trim().is_empty() { "{}" } else { call.arguments.as_str() };
    let args = match read_exact(text) {
        Ok(args) if text.len() <= LONGEST_ARGS && !call.custom => args,
        // What is no JSON stays text, which no schema takes.
        _ => Value::String(text.chars().take(LONGEST_ARGS).collect()),
    };
    let alias = call.name.clone();
    let key = key(run, number, &tool, &version, &args);
    Requested {
        id: call.id.clone(),
        number,
        tool,
        alias,
        version,
        args,
        effect,
        key,
        doer,
        at: now(),
    }
}

/// Who does what is called by this name.
fn doer(run: &Run, member: &Member, alias: &str) -> (Doer, String, String, Effect) {
    let named = |name: &str| (name.to_owned(), String::new());
    if let Some(tool) = member.tools.iter().find(|tool| tool.alias == alias) {
        let doer = if tool.name == ASK_USER || is_ask_user(run, &tool.name) {
            Doer::User
        } else if tool.agent.is_some() {
            Doer::Delegate
        } else {
            Doer::Tool
        };
        return (doer, tool.name.clone(), tool.version.clone(), tool.effect);
    }
    let (tool, version) = named(alias);
    let to = alias.strip_prefix(HANDOFF);
    if to.is_some_and(|name| member.handoffs.iter().any(|known| known == name)) {
        return (Doer::Handoff, tool, version, Effect::Read);
    }
    let brought = run.created.client_tools.iter().any(|tool| match tool {
        Tool::Function { name, .. } | Tool::Custom { name, .. } => name == alias,
        Tool::Hosted(_) => false,
    });
    if brought {
        return (Doer::Client, tool, version, Effect::Once);
    }
    (Doer::Nobody, tool, version, Effect::Read)
}

/// Whether a tool of this name asks the user.
fn is_ask_user(run: &Run, name: &str) -> bool {
    let members = run.definition.members.values();
    members.filter_map(|member| member.tool(name)).any(|tool| tool.asks_user)
}

/// The same for the same call after every restart, another one for any other.
fn key(run: &Run, number: u32, tool: &str, version: &str, args: &Value) -> String {
    digits(&format!("{}\n{number}\n{tool}\n{version}\n{}", run.id, canonical(args)))
}

/// The key of a call with other arguments. Made of the one that it had, it is also the same in runs
/// that go on from this one.
pub(super) fn changed_key(key: &str, args: &Value) -> String {
    digits(&format!("{key}\n{}", canonical(args)))
}

/// What tells one text from another: 26 digits of RFC 4648's base 32.
fn digits(text: &str) -> String {
    const DIGITS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
    let digest = Sha256::digest(text.as_bytes());
    let mut key = String::with_capacity(26);
    for place in 0..26 {
        let bit = place * 5;
        let pair = u16::from(digest[bit / 8]) << 8 | u16::from(digest[bit / 8 + 1]);
        let value = pair >> (11 - bit % 8) & 31;
        key.push(char::from(DIGITS[usize::from(value)]));
    }
    key
}
