//! Our own words as they are, one event a line: how a run of an agent reads what a model answers,
//! so that nothing of it is lost.

use super::{ClientSide, Context, Misread, WriteStream};
use crate::canon::{ChatRequest, ChatResponse, Event};

pub static CODEC: Codec = Codec;

/// The content type of lines.
pub const LINES: &str = "application/x-ndjson";

#[derive(Debug)]
pub struct Codec;

struct Lines;

impl ClientSide for Codec {
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, Misread> {
        Ok(serde_json::from_slice(body)?)
    }

    fn write_response(&self, response: &ChatResponse, _context: &Context<'_>) -> Vec<u8> {
        // Our own types have no maps but with text as keys, so this cannot fail.
        serde_json::to_vec(response).unwrap_or_default()
    }

    fn writer(&self, _context: &Context<'_>) -> Box<dyn WriteStream> {
        Box::new(Lines)
    }

    fn stream_type(&self) -> &'static str {
        LINES
    }

    fn keep_alive(&self) -> &'static [u8] {
        b"\n"
    }
}

impl WriteStream for Lines {
    fn write(&mut self, event: &Event, out: &mut Vec<u8>) {
        if serde_json::to_writer(&mut *out, event).is_ok() {
            out.push(b'\n');
        }
    }
}

/// The events of whole lines.
pub fn read_lines(lines: &[u8], mut hear: impl FnMut(Event)) -> Result<(), Misread> {
    for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        hear(serde_json::from_slice(line)?);
    }
    Ok(())
}

/// A whole answer.
pub fn read_response(body: &[u8]) -> Result<ChatResponse, Misread> {
    Ok(serde_json::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::canon::{
        Choice, Citation, Content, Dialect, Finish, FinishReason, Foreign, Opaque, Part, Reasoning,
        ToolCall, Usage,
    };
    use crate::dialect::fold::{Fold, unfold};

    /// One with all that an answer can have.
    fn rich() -> ChatResponse {
        let opaque = |data| Some(Opaque { dialect: Dialect::Messages, data });
        let thought = Part {
            opaque: opaque(json!("sig\nnature")),
            ..Part::new(Content::Reasoning(Reasoning { text: "hm".into(), ..Reasoning::default() }))
        };
        let said = Part::new(Content::Text {
            text: "so\nit is".into(),
            citations: vec![Citation { url: Some("u".into()), ..Citation::default() }],
        });
        let call = Part {
            opaque: opaque(json!({"thought_signature": "x"})),
            ..Part::new(Content::ToolCall(ToolCall {
                id: "call_1".into(),
                name: "look".into(),
                arguments: "{\"a\":1}".into(),
                custom: false,
            }))
        };
        let search = Foreign { dialect: Dialect::Responses, value: json!({"type": "search"}) };
        let finish = Finish { reason: FinishReason::ToolCalls, ..Finish::default() };
        ChatResponse {
            id: "1".into(),
            model: "m".into(),
            created: Some(7),
            choices: vec![Choice {
                parts: vec![thought, said, Part::new(Content::Foreign(search)), call],
                finish,
                logprobs: Some(json!({"content": [{"token": "so"}]})),
            }],
            usage: Some(Usage { input: 3, output: 4, cache_read: 2, ..Usage::default() }),
            service_tier: Some("default".into()),
        }
    }

    #[test]
    fn an_answer_is_read_as_it_was_written_whole_or_in_lines() {
        let response = rich();
        let mut lines = Vec::new();
        for event in &unfold(&response) {
            Lines.write(event, &mut lines);
        }
        let mut fold = Fold::default();
        read_lines(&lines, |event| fold.add(&event)).unwrap();
        assert_eq!(fold.finish(), Ok(response.clone()));
        let whole = serde_json::to_vec(&response).unwrap();
        assert_eq!(read_response(&whole), Ok(response));
    }

    #[test]
    fn half_a_line_is_no_event() {
        assert!(read_lines(b"{\"Start\":", |_| {}).is_err());
        assert!(read_lines(b"\n\n", |_| {}).is_ok());
    }
}
