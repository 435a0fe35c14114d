//! Reads whole answers of Cohere, and the words that streams share with them.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::PLAN;
use crate::canon::{
    ChatResponse, Choice, Citation, Content, Dialect, Finish, FinishReason, Foreign, Opaque, Part,
    Reasoning, ToolCall, Usage,
};
use crate::dialect::Misread;
use crate::dialect::legible::{object, tokens};

#[derive(Deserialize)]
struct Answer {
    id: Option<String>,
    message: Said,
    finish_reason: Option<String>,
    #[serde(default, deserialize_with = "object")]
    usage: Option<Counts>,
    logprobs: Option<Vec<Logprob>>,
}

#[derive(Deserialize)]
struct Said {
    content: Option<Vec<Map<String, Value>>>,
    tool_plan: Option<String>,
    tool_calls: Option<Vec<Call>>,
    citations: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Call {
    id: Option<String>,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: Option<String>,
}

/// What a call cost: as the model counts, and as the bill does, which leaves Cohere's own prompt
/// out.
#[derive(Deserialize)]
pub(super) struct Counts {
    #[serde(default, deserialize_with = "object")]
    tokens: Option<Tokens>,
    #[serde(default, deserialize_with = "object")]
    billed_units: Option<Tokens>,
    /// A part of the input tokens.
    #[serde(default, deserialize_with = "tokens")]
    cached_tokens: Option<u64>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(rename = "input_tokens", default, deserialize_with = "tokens")]
    input: Option<u64>,
    #[serde(rename = "output_tokens", default, deserialize_with = "tokens")]
    output: Option<u64>,
}

/// The log probabilities of a piece of text, one for each of its tokens.
#[derive(Deserialize)]
pub(super) struct Logprob {
    #[serde(default)]
    text: String,
    #[serde(default)]
    logprobs: Vec<f64>,
}

/// How an answer ended.
pub(super) enum End {
    Finished(FinishReason),
    /// It did not: nothing of it is to be trusted. With the HTTP status it stands for.
    Failed(u16),
}

// === impl Counts ===

impl Counts {
    pub(super) fn read(&self) -> Option<Usage> {
        let counted = self.tokens.as_ref().or(self.billed_units.as_ref())?;
        let input = counted.input.unwrap_or(0);
        let cache_read = self.cached_tokens.unwrap_or(0).min(input);
        let output = counted.output.unwrap_or(0);
        Some(Usage { input: input - cache_read, cache_read, output, ..Usage::default() })
    }
}

pub(super) fn read(body: &[u8]) -> Result<ChatResponse, Misread> {
    let answer: Answer = serde_json::from_slice(body)?;
    let reason = answer.finish_reason.unwrap_or_default();
    let reason = match read_end(&reason) {
        End::Finished(reason) => reason,
        End::Failed(_) => {
            let said = format!("The model did not finish its answer: {reason}.");
            return Err(Misread::new(said));
        }
    };
    let mut parts = Vec::new();
    if let Some(plan) = answer.message.tool_plan.filter(|plan| !plan.is_empty()) {
        parts.push(plan_part(plan));
    }
    let first_block = parts.len();
    for block in answer.message.content.into_iter().flatten() {
        parts.push(read_block(block)?);
    }
    for citation in answer.message.citations.into_iter().flatten() {
        cite(&mut parts[first_block..], citation);
    }
    parts.retain(|part| part.as_text() != Some(""));
    parts.extend(answer.message.tool_calls.into_iter().flatten().map(read_call));
    let logprobs = answer.logprobs.filter(|list| !list.is_empty());
    let logprobs = logprobs.map(|list| write_logprobs(&list));
    let finish = Finish { reason, stop_sequence: None, ..Finish::default() };
    Ok(ChatResponse {
        id: answer.id.unwrap_or_default(),
        choices: vec![Choice { parts, finish, logprobs }],
        usage: answer.usage.as_ref().and_then(Counts::read),
        ..ChatResponse::default()
    })
}

pub(super) fn read_end(reason: &str) -> End {
    End::Finished(match reason {
        "MAX_TOKENS" => FinishReason::Length,
        "TOOL_CALL" => FinishReason::ToolCalls,
        "ERROR_TOXIC" => FinishReason::ContentFilter,
        "ERROR_LIMIT" => FinishReason::ContextFull,
        "TIMEOUT" => return End::Failed(504),
        "ERROR" | "USER_CANCEL" => return End::Failed(502),
        _ => FinishReason::Stop,
    })
}

fn plan_part(text: String) -> Part {
    let reasoning = Reasoning { text, ..Reasoning::default() };
    let opaque = Some(Opaque { dialect: Dialect::Cohere, data: json!(PLAN) });
    Part { content: Content::Reasoning(reasoning), cache: None, opaque }
}

fn read_block(mut block: Map<String, Value>) -> Result<Part, Misread> {
    let kind = block.get("type").and_then(Value::as_str).unwrap_or("text");
    let name = match kind {
        "text" => "text",
        "thinking" => "thinking",
        _ => {
            let value = Value::Object(block);
            return Ok(Part::new(Content::Foreign(Foreign { dialect: Dialect::Cohere, value })));
        }
    };
    let Some(Value::String(text)) = block.get_mut(name).map(Value::take) else {
        return Err(Misread::new(format!("`message.content[].{name}` is not a string.")));
    };
    if name == "text" {
        return Ok(Part::text(text));
    }
    Ok(Part::new(Content::Reasoning(Reasoning { text, ..Reasoning::default() })))
}

fn read_call(call: Call) -> Part {
    let arguments = call.function.arguments.filter(|arguments| !arguments.trim().is_empty());
    Part::new(Content::ToolCall(ToolCall {
        id: call.id.unwrap_or_default(),
        name: call.function.name,
        arguments: arguments.unwrap_or_else(|| "{}".to_owned()),
        custom: false,
    }))
}

/// Puts a citation to the text that it speaks of; citations of plans and thoughts have no place.
fn cite(blocks: &mut [Part], citation: Value) {
    if !is_of_text(&citation) {
        return;
    }
    let place = citation.get("content_index").and_then(Value::as_u64);
    let place = place
        .and_then(|place| usize::try_from(place).ok())
        .filter(|place| blocks.get(*place).is_some_and(|part| part.as_text().is_some()));
    let place = place.or_else(|| blocks.iter().rposition(|part| part.as_text().is_some()));
    let Some(part) = place.and_then(|place| blocks.get_mut(place)) else { return };
    if let Content::Text { citations, .. } = &mut part.content {
        citations.push(read_citation(citation));
    }
}

pub(super) fn is_of_text(citation: &Value) -> bool {
    citation.get("type").and_then(Value::as_str).is_none_or(|kind| kind == "TEXT_CONTENT")
}

/// The first source stands for all; the others are in the original.
pub(super) fn read_citation(original: Value) -> Citation {
    let document = original.pointer("/sources/0/document");
    let said = |name: &str| document?.get(name)?.as_str().map(str::to_owned);
    Citation {
        url: said("url"),
        title: said("title"),
        quote: said("snippet").or_else(|| said("text")),
        start: original.get("start").and_then(Value::as_u64),
        end: original.get("end").and_then(Value::as_u64),
        original: Some(Opaque { dialect: Dialect::Cohere, data: original }),
    }
}

/// As OpenAI spells them. A piece of several tokens has the probability of all of them.
pub(super) fn write_logprobs(list: &[Logprob]) -> Value {
    let write = |piece: &Logprob| {
        let sum: f64 = piece.logprobs.iter().sum();
        json!({
            "token": piece.text,
            "logprob": sum,
            "bytes": piece.text.as_bytes(),
            "top_logprobs": [],
        })
    };
    json!({ "content": list.iter().map(write).collect::<Vec<_>>() })
}
