//! Answers of servers that have text completions of their own, for who must read them. A piece of
//! text is put where a chat has it, and read as that.

use serde_json::{Value, json};

use crate::canon::{ChatRequest, ChatResponse, Event, FinishReason};
use crate::dialect::chat;
use crate::dialect::{Aim, Inexpressible, Misread, ReadStream, UpstreamSide, Written};

pub static NATIVE: Native = Native;

/// The side of the dialect that such servers see. Questions reach them as they came.
#[derive(Debug)]
pub struct Native;

struct Reader(Box<dyn ReadStream>);

impl UpstreamSide for Native {
    fn write_request(&self, _: &ChatRequest, _: &Aim<'_>) -> Result<Written, Inexpressible> {
        Err(Inexpressible("A chat is no text completion.".into()))
    }

    fn read_whole(&self, body: &[u8]) -> Result<ChatResponse, Misread> {
        chat::CODEC.read_response(&as_chat(body, "message")?)
    }

    fn reader(&self) -> Box<dyn ReadStream> {
        Box::new(Reader(chat::CODEC.reader()))
    }
}

impl ReadStream for Reader {
    fn read(
        &mut self,
        name: Option<&[u8]>,
        data: &[u8],
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        if !data.starts_with(b"{") {
            return self.0.read(name, data, events);
        }
        self.0.read(name, &as_chat(data, "delta")?, events)
    }

    fn end(&mut self, events: &mut Vec<Event>) {
        self.0.end(events);
    }

    fn endings(&self) -> Option<(u32, FinishReason)> {
        self.0.endings()
    }
}

fn as_chat(body: &[u8], place: &str) -> Result<Vec<u8>, Misread> {
    let mut body: Value = serde_json::from_slice(body)?;
    for choice in body["choices"].as_array_mut().into_iter().flatten() {
        let text = choice["text"].take();
        choice[place] = json!({"content": text});
        // They are spelled in another way there, and tell the text again.
        choice["logprobs"] = Value::Null;
    }
    Ok(body.to_string().into_bytes())
}
