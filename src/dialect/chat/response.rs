//! Writes whole answers.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::reader::write_reason;
use super::{media, thought};
use crate::canon::{ChatResponse, Choice, Citation, Content, MediaKind, Part, Source, ToolCall};
use crate::dialect::openai::write_usage;
use crate::dialect::{Context, portable_id};

pub(super) fn write(response: &ChatResponse, context: &Context<'_>) -> Vec<u8> {
    let choices: Vec<Value> = response.choices.iter().enumerate().map(write_choice).collect();
    let mut body = json!({
        "id": answer_id(&response.id, context),
        "object": "chat.completion",
        "created": response.created.unwrap_or(context.created),
        "model": if response.model.is_empty() { context.model } else { &response.model },
        "choices": choices,
    });
    if let Some(usage) = &response.usage {
        body["usage"] = write_usage(usage);
    }
    if let Some(tier) = &response.service_tier {
        body["service_tier"] = json!(tier);
    }
    body.to_string().into_bytes()
}

/// The upstream's id where it is one of this dialect.
pub(in crate::dialect) fn answer_id<'a>(id: &'a str, context: &Context<'_>) -> Cow<'a, str> {
    if id.starts_with("chatcmpl-") {
        return id.into();
    }
    format!("chatcmpl-{}", context.id).into()
}

fn write_choice((index, choice): (usize, &Choice)) -> Value {
    let (reason, native) = write_reason(choice.finish.reason);
    let mut written = json!({
        "index": index,
        "message": write_message(&choice.parts),
        "logprobs": choice.logprobs,
        "finish_reason": reason,
    });
    if let Some(native) = native {
        written["native_finish_reason"] = json!(native);
    }
    if let Some(stop) = &choice.finish.stop_sequence {
        written["stop_reason"] = json!(stop);
    }
    written
}

fn write_message(parts: &[Part]) -> Value {
    let mut message = Map::new();
    message.insert("role".into(), json!("assistant"));
    let text: Option<String> = parts.iter().filter_map(Part::as_text).fold(None, |whole, text| {
        Some(whole.map_or_else(|| text.to_owned(), |whole| whole + text))
    });
    message.insert("content".into(), json!(text));
    write_thoughts(parts, &mut message);
    let refusal: String = parts
        .iter()
        .filter_map(|part| match &part.content {
            Content::Refusal(text) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    message.insert("refusal".into(), if refusal.is_empty() { Value::Null } else { refusal.into() });
    for (field, cited) in parts.iter().flat_map(citations).map(media::write_citation) {
        let entries = message.entry(field).or_insert_with(|| json!([]));
        entries.as_array_mut().into_iter().for_each(|entries| entries.push(cited.clone()));
    }
    write_made_media(parts, &mut message);
    let calls: Vec<Value> = parts.iter().filter_map(write_call).collect();
    if !calls.is_empty() {
        message.insert("tool_calls".into(), calls.into());
    }
    let spoken = parts.iter().filter(|part| part.as_text().is_some());
    if let Some(state) = spoken.filter_map(|part| part.opaque.as_ref()).next_back() {
        message.insert("extra_content".into(), thought::extra_content(state));
    }
    message.into()
}

/// `reasoning_content` for readers, `reasoning_details` for what must come back.
fn write_thoughts(parts: &[Part], message: &mut Map<String, Value>) {
    let is_thought = |part: &&Part| matches!(part.content, Content::Reasoning(_));
    let thoughts: Vec<&Part> = parts.iter().filter(is_thought).collect();
    let text: String = thoughts.iter().filter_map(|part| thought_text(part)).collect();
    if !text.is_empty() {
        message.insert("reasoning_content".into(), text.into());
    }
    for part in &thoughts {
        if let Some(extra) = own_extra(part) {
            message.insert("extra_content".into(), extra);
        }
    }
    if thought::need_details(&thoughts) {
        let entries = thoughts.iter().enumerate();
        let entries: Vec<Value> =
            entries.flat_map(|(index, part)| thought::entries(part, index)).collect();
        if !entries.is_empty() {
            message.insert("reasoning_details".into(), entries.into());
        }
    }
}

pub(super) fn thought_text(part: &Part) -> Option<&str> {
    match &part.content {
        Content::Reasoning(reasoning) => Some(&reasoning.text),
        _ => None,
    }
}

/// State that a server of this dialect gave to the whole message.
pub(super) fn own_extra(part: &Part) -> Option<Value> {
    let data = part.opaque_for(crate::canon::Dialect::Chat)?;
    data.get("extra_content").cloned()
}

fn citations(part: &Part) -> &[Citation] {
    match &part.content {
        Content::Text { citations, .. } => citations,
        _ => &[],
    }
}

/// Sounds and images that the model made.
fn write_made_media(parts: &[Part], message: &mut Map<String, Value>) {
    let mut images = Vec::new();
    for part in parts {
        let Content::Media(media) = &part.content else { continue };
        match (media.kind, &media.source) {
            (MediaKind::Audio, Source::Base64 { data, .. }) => {
                let state = part.opaque_for(crate::canon::Dialect::Chat);
                let id = state.and_then(|state| state["id"].as_str());
                let audio = json!({
                    "id": id.unwrap_or("audio"),
                    "data": data,
                    "transcript": media.transcript.as_deref().unwrap_or_default(),
                });
                message.insert("audio".into(), audio);
            }
            (MediaKind::Image, source) => images.push(media::write_image(media, source)),
            _ => {}
        }
    }
    if !images.is_empty() {
        message.insert("images".into(), images.into());
    }
}

fn write_call(part: &Part) -> Option<Value> {
    let Content::ToolCall(call) = &part.content else { return None };
    let mut written = call_object(call, &portable_id(&call.id));
    if let Some(state) = &part.opaque {
        written["extra_content"] = thought::extra_content(state);
    }
    Some(written)
}

/// An entry of `tool_calls`.
pub(super) fn call_object(call: &ToolCall, id: &str) -> Value {
    if call.custom {
        let custom = json!({ "name": call.name, "input": call.arguments });
        return json!({ "id": id, "type": "custom", "custom": custom });
    }
    let function = json!({ "name": call.name, "arguments": call.arguments });
    json!({ "id": id, "type": "function", "function": function })
}
