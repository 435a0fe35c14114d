//! OpenAI chat completions, as OpenAI and the many who follow it speak it.

mod answer;
mod cache;
mod media;
mod read_message;
pub(super) mod read_request;
pub(super) mod reader;
pub(super) mod response;
mod thought;
mod wire;
mod write_message;
mod write_request;
mod writer;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use memchr::memmem;
use serde_json::{Value, json};

use crate::canon::{ChatRequest, ChatResponse};
use crate::dialect::{
    Aim, ClientSide, Context, Inexpressible, Misread, ReadStream, UpstreamSide, WriteStream,
    Written, custom,
};

pub static CODEC: Chat = Chat;

/// A whole answer whose tool calls all say of which type they are, as clients want it.
pub fn with_call_types(body: Bytes) -> Bytes {
    if memmem::find(&body, b"\"arguments\"").is_none() {
        return body;
    }
    let Ok(mut answer) = serde_json::from_slice::<Value>(&body) else { return body };
    let choices = answer.get_mut("choices").and_then(Value::as_array_mut).into_iter().flatten();
    let calls = choices
        .filter_map(|choice| choice.get_mut("message")?.get_mut("tool_calls")?.as_array_mut());
    let mut mended = false;
    for call in calls.flatten().filter_map(Value::as_object_mut) {
        if !call.contains_key("type") {
            call.insert("type".to_owned(), json!("function"));
            mended = true;
        }
    }
    if mended { answer.to_string().into() } else { body }
}

/// The dialect's two sides.
#[derive(Debug)]
pub struct Chat;

impl ClientSide for Chat {
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, Misread> {
        read_request::read(body)
    }

    fn write_response(&self, response: &ChatResponse, context: &Context<'_>) -> Vec<u8> {
        response::write(&custom::restored(response, context.request), context)
    }

    fn writer(&self, context: &Context<'_>) -> Box<dyn WriteStream> {
        custom::restoring(writer::Writer::new(context), context.request)
    }
}

impl UpstreamSide for Chat {
    fn write_request(
        &self,
        request: &ChatRequest,
        aim: &Aim<'_>,
    ) -> Result<Written, Inexpressible> {
        write_request::write(request, aim)
    }

    fn read_whole(&self, body: &[u8]) -> Result<ChatResponse, Misread> {
        reader::Reader::read_whole(body)
    }

    fn reader(&self) -> Box<dyn ReadStream> {
        Box::new(reader::Reader::default())
    }
}
