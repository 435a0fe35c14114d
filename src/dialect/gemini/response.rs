//! Whole answers, read and written.

use serde_json::{Map, Value, json};

use super::part::{self, Reader as For};
use super::reader::Reader;
use super::{finish, grounding, logprobs, usage};
use crate::canon::{ChatResponse, Choice, Content, Event, FinishReason, Part};
use crate::dialect::fold::Fold;
use crate::dialect::{Context, Misread, ReadStream};

/// Reads a whole answer as a stream of one event, so that both are understood alike.
pub(super) fn read(body: &[u8]) -> Result<ChatResponse, Misread> {
    let mut reader = Reader::default();
    let mut events = Vec::new();
    reader.read(None, body, &mut events)?;
    reader.finish(&mut events);
    let mut fold = Fold::default();
    for event in &events {
        fold.add(event);
    }
    if !events.contains(&Event::End)
        && !events.iter().any(|event| matches!(event, Event::Failed(_)))
    {
        return Err(Misread::new("The answer holds no candidates."));
    }
    let mut response = fold.finish().map_err(|failure| {
        let text = failure
            .map_or_else(|| "The answer is not complete.".to_owned(), |failure| failure.message);
        Misread::new(text)
    })?;
    response.choices.iter_mut().for_each(join_sources);
    Ok(response)
}

/// What is said of the sources comes last, behind calls too, and belongs to the last words.
pub(super) fn join_sources(choice: &mut Choice) {
    let Some(last) = choice.parts.pop_if(|part| is_source(part)) else { return };
    let words = choice.parts.iter_mut().rev().find_map(|part| match &mut part.content {
        Content::Text { text, citations } if !text.is_empty() => Some(citations),
        _ => None,
    });
    match (words, last.content) {
        (Some(words), Content::Text { citations, .. }) => words.extend(citations),
        (_, content) => choice.parts.push(Part { content, ..last }),
    }
}

fn is_source(part: &Part) -> bool {
    match &part.content {
        Content::Text { text, citations } => {
            text.is_empty() && !citations.is_empty() && part.opaque.is_none()
        }
        _ => false,
    }
}

pub(super) fn write(response: &ChatResponse, context: &Context<'_>) -> Vec<u8> {
    let candidates = (0..).zip(&response.choices).map(|(index, choice)| candidate(index, choice));
    let mut body = Map::new();
    body.insert("candidates".into(), candidates.collect());
    if let Some(said) = &response.usage {
        let tier = response.service_tier.as_deref();
        body.insert("usageMetadata".into(), usage::write(said, tier));
    }
    body.insert("modelVersion".into(), json!(or(&response.model, context.model)));
    body.insert("responseId".into(), json!(or(&response.id, context.id)));
    Value::Object(body).to_string().into_bytes()
}

/// What the upstream says, or what we know.
pub(super) fn or<'a>(said: &'a str, known: &'a str) -> &'a str {
    if said.is_empty() { known } else { said }
}

fn candidate(index: u32, choice: &Choice) -> Value {
    let (mut malformed, mut signed) = (None, false);
    let mut parts = Vec::new();
    for part in &choice.parts {
        signed |= part::is_signed_elsewhere(part);
        match part::write(part, For::Client) {
            Ok(mut written) => {
                written.iter_mut().filter(|_| signed).for_each(|it| part::mark(part, it));
                parts.extend(written);
            }
            Err(cause) => malformed = Some(cause),
        }
    }
    let is_said = choice.parts.iter().any(|part| part.as_text().is_some());
    let heard = transcript(choice.parts.iter().map(|part| &part.content));
    parts.extend((!is_said && !heard.is_empty()).then(|| json!({ "text": heard })));
    let mut out = closing(index, choice.finish.reason, malformed);
    let content = json!({ "parts": parts, "role": "model" });
    out.insert("content".into(), content);
    let text: String = choice.parts.iter().filter_map(Part::as_text).collect();
    let citations = choice.parts.iter().flat_map(|part| match &part.content {
        Content::Text { citations, .. } => citations.as_slice(),
        _ => &[],
    });
    out.extend(grounding::write(&citations.collect::<Vec<_>>(), &text));
    let logprobs = choice.logprobs.as_ref().and_then(logprobs::write);
    out.extend(logprobs.map(|logprobs| ("logprobsResult".to_owned(), logprobs)));
    Value::Object(out)
}

/// What is said in the sounds: this API has no place beside a sound for it, so it stands as the
/// answer's text where there is no other.
fn transcript<'a>(contents: impl Iterator<Item = &'a Content>) -> String {
    let heard = contents.filter_map(|content| match content {
        Content::Media(media) => media.transcript.as_deref(),
        _ => None,
    });
    heard.collect()
}

/// How a candidate ends. A call that is no JSON is none: that the answer is broken is said here.
pub(super) fn closing(
    index: u32,
    reason: FinishReason,
    malformed: Option<String>,
) -> Map<String, Value> {
    // Where an answer was cut, its last call is not the model's mistake.
    let ends =
        matches!(reason, FinishReason::Stop | FinishReason::ToolCalls | FinishReason::Malformed);
    let malformed = malformed.filter(|_| ends);
    let reason = if malformed.is_some() { FinishReason::Malformed } else { reason };
    let mut out = Map::new();
    out.insert("finishReason".into(), json!(finish::write(reason)));
    if let Some(cause) = malformed {
        out.insert("finishMessage".into(), json!(format!("The model made {cause}.")));
    }
    out.insert("index".into(), json!(index));
    out
}
