//! Whole answers, read and written.

use serde_json::{Map, Value, json};

use super::block::{finish_block, read_content, state_after, write_call, write_media};
use super::fields::Fields;
use super::usage::Counts;
use super::{citation, error, finish, usage};
use crate::canon::{
    ChatResponse, Choice, Citation, Content, Dialect, Media, Part, Reasoning, ToolCall,
};
use crate::dialect::{Context, Misread, custom, opaque};

pub(super) fn read(body: &[u8]) -> Result<ChatResponse, Misread> {
    let mut fields = Fields::new(serde_json::from_slice(body)?, "")?;
    if let Some(failure) = fields.take("error") {
        let message = error::message(&failure);
        return Err(Misread::new(format!("The upstream answered with an error: {message}")));
    }
    let Some(content) = fields.take("content") else {
        return Err(Misread::new("`content` is missing."));
    };
    let mut parts = read_content(content, "content")?;
    place_citations(&mut parts);
    let stop_sequence = fields.text("stop_sequence")?;
    let called = parts.iter().any(|part| matches!(part.content, Content::ToolCall(_)));
    let silent = || if called { "tool_use" } else { "end_turn" }.to_owned();
    let reason = fields.text("stop_reason")?.unwrap_or_else(silent);
    let finish = finish::read(&reason, stop_sequence, fields.take("stop_details"));
    let explanation = finish::explanation(&finish).map(str::to_owned);
    parts.extend(explanation.map(|text| Part::new(Content::Refusal(text))));
    let mut response = ChatResponse {
        id: fields.text("id")?.unwrap_or_default(),
        model: fields.text("model")?.unwrap_or_default(),
        choices: vec![Choice { parts, finish, logprobs: None }],
        ..ChatResponse::default()
    };
    if let Some(value) = fields.take("usage") {
        response.service_tier = value["service_tier"].as_str().map(read_tier);
        response.usage = serde_json::from_value(value).ok().map(|counts: Counts| counts.usage());
    }
    Ok(response)
}

/// A text that is cited for is a block of its own: that is the citations' place in the answer.
pub(in crate::dialect) fn place_citations(parts: &mut [Part]) {
    let mut spoken = 0;
    for part in parts {
        let Content::Text { text, citations } = &mut part.content else { continue };
        let start = spoken;
        spoken += text.chars().count() as u64;
        for citation in citations {
            citation::stands_for(citation, start, spoken);
        }
    }
}

pub(super) fn read_tier(tier: &str) -> String {
    if tier == "standard" { "default" } else { tier }.to_owned()
}

/// The tier by this API's name for it; `None` for one that it does not know.
pub(super) fn write_tier(tier: &str) -> Option<&str> {
    let tier = if tier == "default" { "standard" } else { tier };
    Some(tier).filter(|tier| ["standard", "priority", "batch"].contains(tier))
}

/// The id of an answer: an upstream of this dialect has given one, any other's looks foreign.
pub(super) fn write_id(id: &str, context: &Context<'_>) -> String {
    if id.starts_with("msg_") { id.to_owned() } else { format!("msg_{}", context.id) }
}

/// This API has one answer to a question; others are left out.
pub(super) fn write(response: &ChatResponse, context: &Context<'_>) -> Vec<u8> {
    let (mut blocks, mut calls) = (Vec::new(), false);
    let answer = response.choices.first();
    // The state of the last words is for no later turn, and clients show the last block.
    let mut state: Option<Value> = None;
    let finish = answer.map(|answer| answer.finish.clone()).unwrap_or_default();
    // What `stop_details` says is not said twice.
    let is_told = |part: &&Part| matches!(&part.content, Content::Refusal(text) if Some(text.as_str()) == finish::explanation(&finish));
    let parts = answer.into_iter().flat_map(|answer| &answer.parts);
    for part in parts.filter(|part| !is_told(part)) {
        calls |= matches!(part.content, Content::ToolCall(_));
        if !is_blank(part) {
            let Some(block) = write_part(part) else { continue };
            blocks.extend(state.take());
            blocks.push(block);
        }
        match &part.content {
            Content::Reasoning(_) => {}
            Content::ToolCall(_) => blocks.extend(state_after(part)),
            _ => state = state_after(part).or(state),
        }
    }
    let model = if response.model.is_empty() { context.model } else { &response.model };
    let mut usage = usage::write(&response.usage.unwrap_or_default());
    if let Some(tier) = response.service_tier.as_deref().and_then(write_tier) {
        usage["service_tier"] = json!(tier);
    }
    let mut message = json!({
        "id": write_id(&response.id, context),
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": blocks,
        "stop_reason": finish::write(&finish, calls),
        "stop_sequence": finish.stop_sequence,
        "usage": usage,
    });
    if let Some(details) = finish::details(&finish) {
        message["stop_details"] = details.clone();
    }
    message.to_string().into_bytes()
}

/// A text without a word, which this API refuses.
fn is_blank(part: &Part) -> bool {
    matches!(&part.content, Content::Text { text, citations } if text.is_empty() && citations.is_empty())
}

/// A part as a block; `None` for what this API has no block for.
fn write_part(part: &Part) -> Option<Value> {
    let block = match &part.content {
        Content::Text { text, citations } => write_text(text, citations),
        Content::Refusal(text) => write_text(text, &[]),
        Content::Reasoning(reasoning) => return write_reasoning(reasoning, part),
        // A call that was cut off is shown as the text that there is of it.
        Content::ToolCall(call) => match custom::object(call) {
            Some(input) => write_call(call, &input),
            None => cut_call(call),
        },
        Content::Media(Media { transcript: Some(said), .. }) => write_text(said, &[]),
        Content::Media(media) => write_media(media)?,
        Content::Foreign(foreign) if foreign.dialect == Dialect::Messages => foreign.value.clone(),
        Content::Foreign(_) | Content::ToolResult(_) => return None,
    };
    Some(finish_block(block, part))
}

fn write_text(text: &str, citations: &[Citation]) -> Value {
    let mut block = json!({ "type": "text", "text": text });
    let citations: Vec<Value> = citations.iter().filter_map(citation::write).collect();
    if !citations.is_empty() {
        block["citations"] = Value::Array(citations);
    }
    block
}

fn cut_call(call: &ToolCall) -> Value {
    write_text(&format!("{}({})", call.name, call.arguments), &[])
}

fn write_reasoning(reasoning: &Reasoning, part: &Part) -> Option<Value> {
    let sealed = |name: &str| {
        let foreign = part.opaque.as_ref().filter(|state| state.dialect != Dialect::Messages);
        foreign.map(|state| (name.to_owned(), json!(opaque::seal(state))))
    };
    let mut block = Map::new();
    if reasoning.redacted {
        part.opaque.as_ref()?;
        block.insert("type".to_owned(), json!("redacted_thinking"));
        block.extend(sealed("data"));
    } else {
        block.insert("type".to_owned(), json!("thinking"));
        block.insert("thinking".to_owned(), json!(reasoning.text));
        block.insert("signature".to_owned(), json!(""));
        block.extend(sealed("signature"));
    }
    Some(finish_block(Value::Object(block), part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tier_is_told_only_by_a_word_that_clients_know() {
        let told = ["default", "priority", "batch", "on_demand", "flex"].map(write_tier);
        assert_eq!(told, [Some("standard"), Some("priority"), Some("batch"), None, None]);
    }
}
