//! Reads whole answers of Converse, and the words that streams share with them.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::media;
use crate::canon::{
    ChatResponse, Choice, Citation, Content, Dialect, Finish, FinishReason, Foreign, Opaque, Part,
    Reasoning, ToolCall, Usage,
};
use crate::dialect::Misread;
use crate::dialect::legible::{list, object, tokens};
use crate::dialect::messages::place_citations;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    output: Output,
    stop_reason: Option<String>,
    #[serde(default, deserialize_with = "object")]
    usage: Option<Tokens>,
    additional_model_response_fields: Option<Value>,
    service_tier: Option<Tier>,
}

#[derive(Deserialize)]
struct Output {
    message: Said,
}

#[derive(Deserialize)]
struct Said {
    content: Vec<Map<String, Value>>,
}

#[derive(Deserialize)]
pub(super) struct Tier {
    #[serde(rename = "type")]
    pub(super) name: String,
}

/// What a call cost. `inputTokens` leaves the cache out, unlike most APIs' words for it.
#[derive(Deserialize)]
pub(super) struct Tokens {
    #[serde(rename = "inputTokens", default, deserialize_with = "tokens")]
    input: Option<u64>,
    #[serde(rename = "outputTokens", default, deserialize_with = "tokens")]
    output: Option<u64>,
    #[serde(rename = "cacheReadInputTokens", default, deserialize_with = "tokens")]
    cache_read: Option<u64>,
    #[serde(rename = "cacheWriteInputTokens", default, deserialize_with = "tokens")]
    cache_written: Option<u64>,
    #[serde(rename = "cacheDetails", default, deserialize_with = "list")]
    cache_details: Option<Vec<CacheDetail>>,
}

#[derive(Deserialize)]
struct CacheDetail {
    #[serde(rename = "inputTokens", default, deserialize_with = "tokens")]
    input: Option<u64>,
    #[serde(default)]
    ttl: Value,
}

/// The words for an answer's end.
const FINISHES: [(&str, FinishReason); 12] = [
    ("end_turn", FinishReason::Stop),
    ("stop_sequence", FinishReason::Stop),
    ("tool_use", FinishReason::ToolCalls),
    ("max_tokens", FinishReason::Length),
    ("model_context_window_exceeded", FinishReason::ContextFull),
    ("guardrail_intervened", FinishReason::ContentFilter),
    ("content_filtered", FinishReason::ContentFilter),
    ("refusal", FinishReason::Refusal),
    ("pause_turn", FinishReason::Pause),
    ("malformed_model_output", FinishReason::Malformed),
    ("malformed_tool_use", FinishReason::Malformed),
    ("malformed_tool_call", FinishReason::Malformed),
];

// === impl Tokens ===

impl Tokens {
    pub(super) fn read(&self) -> Usage {
        let written = self.cache_written.unwrap_or_default();
        let long = self.cache_details.iter().flatten().filter(|detail| detail.ttl == "1h");
        let long = long.filter_map(|detail| detail.input).fold(0, u64::saturating_add);
        let cache_write_long = long.min(written);
        Usage {
            input: self.input.unwrap_or_default(),
            cache_read: self.cache_read.unwrap_or_default(),
            cache_write: written - cache_write_long,
            cache_write_long,
            output: self.output.unwrap_or_default(),
            ..Usage::default()
        }
    }
}

pub(super) fn read(body: &[u8]) -> Result<ChatResponse, Misread> {
    let answer: Answer = serde_json::from_slice(body)?;
    let mut parts = Vec::new();
    for (place, block) in answer.output.message.content.into_iter().enumerate() {
        if block.get("text").is_some_and(|text| text == "") {
            continue;
        }
        parts.push(read_block(block).ok_or_else(|| {
            let path = format!("output.message.content[{place}]");
            Misread::new(format!("`{path}` is not as Converse defines it."))
        })?);
    }
    place_citations(&mut parts);
    let reason = answer.stop_reason.unwrap_or_default();
    let finish = read_finish(&reason, answer.additional_model_response_fields.as_ref());
    Ok(ChatResponse {
        choices: vec![Choice { parts, finish, logprobs: None }],
        usage: answer.usage.as_ref().map(Tokens::read),
        service_tier: answer.service_tier.map(|tier| tier.name),
        ..ChatResponse::default()
    })
}

pub(super) fn read_finish(reason: &str, additional: Option<&Value>) -> Finish {
    let known = FINISHES.iter().find(|(name, _)| *name == reason);
    let met = additional.and_then(|fields| fields.get("stop_sequence")?.as_str());
    Finish {
        reason: known.map(|(_, reason)| *reason).unwrap_or_default(),
        stop_sequence: met.map(str::to_owned),
        details: None,
    }
}

/// One block of an answer; `None` for one that breaks its own rules.
fn read_block(mut block: Map<String, Value>) -> Option<Part> {
    let (name, value) = block.iter_mut().next()?;
    Some(match (name.as_str(), value) {
        ("text", Value::String(text)) => Part::text(std::mem::take(text)),
        ("reasoningContent", value) => read_reasoning(value.take())?,
        ("toolUse", Value::Object(call)) if !is_hosted(call) => read_call(call)?,
        ("citationsContent", Value::Object(said)) => read_cited(said),
        ("image", value) => Part::new(Content::Media(media::read_image(value)?)),
        ("text" | "citationsContent", _) => return None,
        _ => Part::new(foreign(Value::Object(block))),
    })
}

/// A tool that the provider runs itself says so; the model's own calls may or may not say
/// `tool_use`.
pub(super) fn is_hosted(call: &Map<String, Value>) -> bool {
    call.get("type").and_then(Value::as_str).is_some_and(|kind| kind != "tool_use")
}

pub(super) fn foreign(value: Value) -> Content {
    Content::Foreign(Foreign { dialect: Dialect::Converse, value })
}

fn read_call(call: &Map<String, Value>) -> Option<Part> {
    Some(Part::new(Content::ToolCall(ToolCall {
        id: call.get("toolUseId")?.as_str()?.to_owned(),
        name: call.get("name")?.as_str()?.to_owned(),
        arguments: call.get("input").map_or_else(|| "{}".to_owned(), Value::to_string),
        custom: false,
    })))
}

fn read_reasoning(mut value: Value) -> Option<Part> {
    if let Some(Value::String(data)) = value.get_mut("redactedContent") {
        let reasoning = Reasoning { redacted: true, ..Reasoning::default() };
        return Some(sealed(reasoning, Some(std::mem::take(data))));
    }
    let said = value.get_mut("reasoningText")?.as_object_mut()?;
    let mut take = |name: &str| match said.get_mut(name) {
        Some(Value::String(text)) => Some(std::mem::take(text)),
        _ => None,
    };
    let reasoning = Reasoning { text: take("text").unwrap_or_default(), ..Reasoning::default() };
    Some(sealed(reasoning, take("signature")))
}

fn sealed(reasoning: Reasoning, state: Option<String>) -> Part {
    let opaque = state
        .filter(|state| !state.is_empty())
        .map(|state| Opaque { dialect: Dialect::Converse, data: Value::String(state) });
    Part { content: Content::Reasoning(reasoning), cache: None, opaque }
}

fn read_cited(said: &Map<String, Value>) -> Part {
    let list = |name: &str| said.get(name).and_then(Value::as_array).into_iter().flatten();
    let text = list("content").filter_map(|piece| piece.get("text")?.as_str()).collect();
    let citations = list("citations").map(|citation| read_citation(citation.clone())).collect();
    Part::new(Content::Text { text, citations })
}

pub(super) fn read_citation(original: Value) -> Citation {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let quotes = original.get("sourceContent").and_then(Value::as_array).into_iter().flatten();
    let quote: String = quotes.filter_map(|piece| piece.get("text")?.as_str()).collect();
    let web = original.pointer("/location/web/url").or_else(|| original.get("source"));
    Citation {
        url: text(web).filter(|source| source.contains("://")),
        title: text(original.get("title")),
        quote: Some(quote).filter(|quote| !quote.is_empty()),
        start: None,
        end: None,
        original: Some(Opaque { dialect: Dialect::Converse, data: original }),
    }
}

/// The block that a hosted tool's call or result becomes when its stream has told it all.
pub(super) fn hosted(start: Map<String, Value>, input: &str, results: Vec<Value>) -> Value {
    let mut block = Value::Object(start);
    if let Some(call) = block.get_mut("toolUse").and_then(Value::as_object_mut) {
        let input = if input.is_empty() { "{}" } else { input };
        let input = serde_json::from_str(input).unwrap_or_else(|_| json!(input));
        call.insert("input".into(), input);
    }
    if let Some(result) = block.get_mut("toolResult").and_then(Value::as_object_mut) {
        result.insert("content".into(), Value::Array(results));
    }
    block
}
