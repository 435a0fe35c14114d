//! Bedrock's side of the wire, as far as the tests need it.

use bytes::BytesMut;
use serde_json::{Value, json};

use crate::canon::{ChatResponse, Content, Delta, Event, FinishReason, Opening, Part, Usage};
use crate::dialect::eventstream::Transcoder;

/// Events that make sense on their own and little in any order.
pub(super) const ODD: [&str; 9] = [
    "{\"role\":\"assistant\"}",
    "{\"contentBlockIndex\":0,\"start\":{\"toolUse\":{\"toolUseId\":\"a\",\"name\":\"f\"}}}",
    "{\"contentBlockIndex\":1,\"start\":{\"toolUse\":{\"toolUseId\":\"b\",\"name\":\"g\"}}}",
    "{\"contentBlockIndex\":0,\"delta\":{\"toolUse\":{\"input\":\"{}\"}}}",
    "{\"contentBlockIndex\":1,\"delta\":{\"text\":\"x\"}}",
    "{\"contentBlockIndex\":1,\"delta\":{\"reasoningContent\":{\"text\":\"t\",\"signature\":\"s\"}}}",
    "{\"contentBlockIndex\":0}",
    "{\"stopReason\":\"tool_use\"}",
    "{\"usage\":{\"inputTokens\":1,\"outputTokens\":1}}",
];

pub(super) fn write_response(answer: &ChatResponse) -> Value {
    let choice = &answer.choices[0];
    let content: Vec<Value> = choice.parts.iter().map(write_part).collect();
    let mut body = json!({
        "output": { "message": { "role": "assistant", "content": content } },
        "stopReason": reason(choice.finish.reason),
        "additionalModelResponseFields": { "stop_sequence": choice.finish.stop_sequence },
    });
    if let Some(usage) = &answer.usage {
        body["usage"] = write_usage(usage);
    }
    body
}

fn write_part(part: &Part) -> Value {
    let state = part.opaque.as_ref().map(|opaque| opaque.data.clone());
    match &part.content {
        Content::Text { text, citations } if citations.is_empty() => json!({ "text": text }),
        Content::Text { text, citations } => {
            let original = |citation: &crate::canon::Citation| {
                citation.original.as_ref().map(|original| original.data.clone())
            };
            let citations: Vec<_> = citations.iter().filter_map(original).collect();
            json!({ "citationsContent": { "content": [{ "text": text }], "citations": citations } })
        }
        Content::Reasoning(thought) if thought.redacted => {
            json!({ "reasoningContent": { "redactedContent": state } })
        }
        Content::Reasoning(thought) => {
            let said = json!({ "text": thought.text, "signature": state });
            json!({ "reasoningContent": { "reasoningText": said } })
        }
        Content::ToolCall(call) => {
            let input: Value = serde_json::from_str(&call.arguments).unwrap();
            json!({ "toolUse": { "toolUseId": call.id, "name": call.name, "input": input } })
        }
        Content::Foreign(block) => block.value.clone(),
        other => panic!("Converse does not answer with {other:?}"),
    }
}

fn reason(reason: FinishReason) -> &'static str {
    match reason {
        FinishReason::Stop => "end_turn",
        FinishReason::Length => "max_tokens",
        FinishReason::ContextFull => "model_context_window_exceeded",
        FinishReason::ToolCalls => "tool_use",
        FinishReason::ContentFilter => "content_filtered",
        FinishReason::Refusal => "refusal",
        FinishReason::Pause => "pause_turn",
        FinishReason::Malformed => "malformed_model_output",
    }
}

fn write_usage(usage: &Usage) -> Value {
    json!({
        "inputTokens": usage.input,
        "outputTokens": usage.output,
        "totalTokens": usage.total(),
        "cacheReadInputTokens": usage.cache_read,
        "cacheWriteInputTokens": usage.cache_write + usage.cache_write_long,
        "cacheDetails": [
            { "ttl": "5m", "inputTokens": usage.cache_write },
            { "ttl": "1h", "inputTokens": usage.cache_write_long },
        ],
    })
}

/// The stream that Bedrock would send for these events.
pub(super) fn write_stream(events: &[Event]) -> Vec<(&'static str, Value)> {
    let mut frames = Vec::new();
    let mut index = 0_u64;
    for event in events {
        frames.extend(match event {
            Event::Start(_) => Some(("messageStart", json!({ "role": "assistant", "p": "ab" }))),
            Event::Open { part: Opening::ToolCall { id, name, .. }, .. } => {
                let start = json!({ "toolUse": { "toolUseId": id, "name": name } });
                Some(("contentBlockStart", json!({ "contentBlockIndex": index, "start": start })))
            }
            Event::Delta { delta, .. } => {
                let delta = write_delta(delta, events, index);
                Some(("contentBlockDelta", json!({ "contentBlockIndex": index, "delta": delta })))
            }
            Event::Close { .. } => {
                index += 1;
                Some(("contentBlockStop", json!({ "contentBlockIndex": index - 1 })))
            }
            Event::Finish { finish, .. } => Some((
                "messageStop",
                json!({
                    "stopReason": reason(finish.reason),
                    "additionalModelResponseFields": { "stop_sequence": finish.stop_sequence },
                }),
            )),
            Event::Usage(usage) => Some(("metadata", json!({ "usage": write_usage(usage) }))),
            _ => None,
        });
    }
    frames
}

fn write_delta(delta: &Delta, events: &[Event], index: u64) -> Value {
    let mut opens = events.iter().filter_map(|event| match event {
        Event::Open { part, .. } => Some(part),
        _ => None,
    });
    let part = opens.nth(usize::try_from(index).unwrap()).unwrap();
    match delta {
        Delta::Text(text) => json!({ "text": text }),
        Delta::Reasoning(text) => json!({ "reasoningContent": { "text": text } }),
        Delta::Arguments(text) => json!({ "toolUse": { "input": text } }),
        Delta::Opaque(opaque) => {
            let redacted = matches!(part, Opening::Reasoning { redacted: true, .. });
            let name = if redacted { "redactedContent" } else { "signature" };
            json!({ "reasoningContent": { name: opaque.data } })
        }
        other => panic!("Converse does not stream {other:?}"),
    }
}

/// The server-sent events that reach the reader.
pub(super) fn lines(events: &[(&str, Value)]) -> Vec<u8> {
    let line = |(name, data): &(&str, Value)| format!("event: {name}\ndata: {data}\n\n");
    events.iter().map(line).collect::<String>().into_bytes()
}

/// The same of the frames that AWS sends, in pieces of so many bytes.
pub(super) fn transcode(frames: &[u8], size: usize) -> Vec<u8> {
    let (mut transcoder, mut out) = (Transcoder::default(), BytesMut::new());
    for piece in frames.chunks(size) {
        transcoder.feed(piece, &mut out).unwrap();
    }
    assert!(transcoder.is_complete());
    out.to_vec()
}
