//! Writes the messages: instructions first, then user and assistant by turns.

use serde_json::{Value, json};

use super::{Dropped, inexpressible};
use crate::canon::{CacheMark, Content, Dialect, Foreign, Media, Message, Part, Role, ToolResult};
use crate::dialect::messages::block::{finish_block, write_call, write_media};
use crate::dialect::messages::citation;
use crate::dialect::messages::models::Family;
use crate::dialect::{Inexpressible, custom, lost, portable_id, turns};

/// The `system` blocks and the `messages` of a body.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) system: Vec<Value>,
    pub(super) messages: Vec<Value>,
}

/// One message on its way into the body.
struct Turn {
    role: &'static str,
    /// Stand before all else: the API wants results right after their calls.
    results: Vec<Value>,
    blocks: Vec<Value>,
}

/// Writes a conversation. System messages that stand first are the system prompt. Later ones keep
/// their place: as such where the family takes them, else as text of the user's between
/// `<system>` tags.
pub(super) fn write(
    messages: &[Message],
    family: &Family,
    dropped: &mut Dropped,
) -> Result<Conversation, Inexpressible> {
    let (messages, lost) = turns::shown_by_user(messages);
    dropped.add_if(lost, "images");
    let is_instruction = |message: &Message| matches!(message.role, Role::System | Role::Developer);
    let first = messages.iter().position(|message| !is_instruction(message));
    let (leading, rest) = messages.split_at(first.unwrap_or(messages.len()));
    let mut system = Vec::new();
    for (number, message) in leading.iter().enumerate() {
        dropped.add_if(message.name.is_some(), "messages.name");
        write_blocks(number, message, &mut system, dropped)?;
    }
    let mut turns: Vec<Turn> = Vec::new();
    for (place, message) in rest.iter().enumerate() {
        dropped.add_if(message.name.is_some(), "messages.name");
        let next = rest.get(place + 1).map(|next| next.role);
        let mut blocks = Vec::new();
        write_blocks(leading.len() + place, message, &mut blocks, dropped)?;
        let role = match message.role {
            Role::Assistant => "assistant",
            Role::User | Role::Tool => "user",
            Role::System | Role::Developer => {
                let between = turns.last().is_some_and(|turn| turn.role == "user")
                    && matches!(next, None | Some(Role::Assistant));
                if family.system_role && between {
                    "system"
                } else {
                    blocks.iter_mut().for_each(wrap);
                    "user"
                }
            }
        };
        add(&mut turns, role, blocks);
    }
    trim_last(&mut turns);
    let messages: Vec<Value> = turns.into_iter().map(Turn::into_value).collect();
    if messages.is_empty() && !system.is_empty() {
        // The API wants a message, and instructions alone are a question too.
        let message = json!({ "role": "user", "content": system });
        return Ok(Conversation { system: Vec::new(), messages: vec![message] });
    }
    Ok(Conversation { system, messages })
}

fn add(turns: &mut Vec<Turn>, role: &'static str, blocks: Vec<Value>) {
    if blocks.is_empty() {
        return;
    }
    let (results, blocks): (Vec<_>, Vec<_>) =
        blocks.into_iter().partition(|block| block["type"] == "tool_result");
    match turns.last_mut() {
        Some(last) if last.role == role => {
            last.results.extend(results);
            last.blocks.extend(blocks);
        }
        _ => turns.push(Turn { role, results, blocks }),
    }
}

fn wrap(block: &mut Value) {
    if let Some(text) = block["text"].as_str() {
        block["text"] = json!(format!("<system>\n{text}\n</system>"));
    }
}

/// The API refuses an answer to go on with that ends in white space.
fn trim_last(turns: &mut [Turn]) {
    let Some(last) = turns.last_mut().filter(|turn| turn.role == "assistant") else { return };
    let Some(block) = last.blocks.last_mut() else { return };
    if let Some(text) = block["text"].as_str() {
        block["text"] = json!(text.trim_end());
    }
}

impl Turn {
    fn into_value(mut self) -> Value {
        self.results.append(&mut self.blocks);
        json!({ "role": self.role, "content": self.results })
    }
}

fn write_blocks(
    number: usize,
    message: &Message,
    blocks: &mut Vec<Value>,
    dropped: &mut Dropped,
) -> Result<(), Inexpressible> {
    for part in &message.parts {
        let block = match &part.content {
            Content::ToolCall(call) => Some(write_call(call, &custom::input(call))),
            Content::ToolResult(result) => Some(write_result(number, result, dropped)?),
            Content::Media(media) => Some(write_known_media(number, media, dropped)?),
            _ => write_plain(part, dropped),
        };
        match block {
            Some(block) => blocks.push(finish_block(block, part)),
            // What it marked is still all that stands before.
            None => move_mark(part.cache, blocks),
        }
    }
    Ok(())
}

fn move_mark(mark: Option<CacheMark>, blocks: &mut [Value]) {
    if let (Some(mark), Some(last)) = (mark, blocks.last_mut()) {
        let part = Part { cache: Some(mark), ..Part::text("") };
        *last = finish_block(std::mem::take(last), &part);
    }
}

/// Text, thoughts and blocks of the API's own; `None` for what it refuses or cannot read.
fn write_plain(part: &Part, dropped: &mut Dropped) -> Option<Value> {
    match &part.content {
        Content::Text { text, citations } => {
            // The API refuses text without a visible character.
            let filled = !text.trim().is_empty();
            let mut block = filled.then(|| json!({ "type": "text", "text": text }))?;
            let cited: Vec<&Value> = citations.iter().filter_map(citation::original).collect();
            if !cited.is_empty() {
                block["citations"] = json!(cited);
            }
            Some(block)
        }
        Content::Refusal(text) => {
            (!text.trim().is_empty()).then(|| json!({ "type": "text", "text": text }))
        }
        // Only thoughts with the provider's own signature are accepted.
        Content::Reasoning(reasoning) => {
            part.opaque_for(Dialect::Messages)?;
            Some(if reasoning.redacted {
                json!({ "type": "redacted_thinking" })
            } else {
                json!({ "type": "thinking", "thinking": reasoning.text })
            })
        }
        Content::Foreign(Foreign { dialect: Dialect::Messages, value }) => Some(value.clone()),
        Content::Foreign(foreign) => {
            dropped.add(lost::kind(foreign));
            None
        }
        Content::Media(_) | Content::ToolCall(_) | Content::ToolResult(_) => None,
    }
}

fn write_known_media(
    number: usize,
    media: &Media,
    dropped: &mut Dropped,
) -> Result<Value, Inexpressible> {
    let looks_closely = media.detail.as_deref().is_some_and(|detail| detail != "auto");
    dropped.add_if(looks_closely, "messages.content.image_url.detail");
    write_media(media).ok_or_else(|| {
        inexpressible(format!(
            "`messages[{number}]` holds a {} that the target's API has no form for.",
            match media.kind {
                crate::canon::MediaKind::Audio => "sound",
                crate::canon::MediaKind::Video => "film",
                _ => "file",
            }
        ))
    })
}

fn write_result(
    number: usize,
    result: &ToolResult,
    dropped: &mut Dropped,
) -> Result<Value, Inexpressible> {
    let mut block = json!({ "type": "tool_result", "tool_use_id": portable_id(&result.id) });
    let content = Message::new(Role::Tool, result.parts.clone());
    let mut blocks = Vec::new();
    write_blocks(number, &content, &mut blocks, dropped)?;
    if !blocks.is_empty() {
        block["content"] = Value::Array(blocks);
    }
    if result.is_error {
        block["is_error"] = json!(true);
    }
    Ok(block)
}
