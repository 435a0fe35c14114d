//! Gemini's `generateContent` and `streamGenerateContent`: both sides.

mod arguments;
mod desk;
mod error;
mod finish;
mod grounding;
mod logprobs;
mod media;
mod model;
mod part;
mod reader;
mod request;
mod response;
mod signature;
mod usage;
mod wire;
mod writer;

pub(super) use self::finish::read as read_finish;
use self::reader::Reader;
pub use self::request::shared_tier;
use self::writer::{Framing, Writer};
use super::{
    Aim, ClientSide, Context, Inexpressible, Misread, ReadStream, UpstreamSide, WriteStream,
    Written,
};
use crate::canon::{ChatRequest, ChatResponse};
use crate::error::Error;

pub static CODEC: Gemini = Gemini(Form::Sse);
/// `streamGenerateContent` without `alt=sse`: one JSON array, element by element.
pub static ARRAY: Gemini = Gemini(Form::Array);
/// `countTokens`, whose questions are wrapped once more.
pub static COUNT: Gemini = Gemini(Form::Count);

/// Speaks Gemini's API.
#[derive(Debug)]
pub struct Gemini(Form);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Sse,
    Array,
    Count,
}

impl ClientSide for Gemini {
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, Misread> {
        match self.0 {
            Form::Count => request::read_count(body),
            Form::Sse | Form::Array => request::read(body),
        }
    }

    fn write_response(&self, response: &ChatResponse, context: &Context<'_>) -> Vec<u8> {
        response::write(response, context)
    }

    fn writer(&self, context: &Context<'_>) -> Box<dyn WriteStream> {
        let framing = if self.0 == Form::Array { Framing::Array } else { Framing::Sse };
        Box::new(Writer::new(context, framing))
    }

    fn stream_type(&self) -> &'static str {
        if self.0 == Form::Array { "application/json" } else { "text/event-stream" }
    }

    fn write_error(&self, error: &Error) -> Vec<u8> {
        error::write(error)
    }

    fn write_error_event(&self, error: &Error) -> Vec<u8> {
        match self.0 {
            Form::Array => error::write_element(error),
            Form::Sse | Form::Count => error::write_event(error),
        }
    }

    fn write_lone_error(&self, error: &Error) -> Vec<u8> {
        match self.0 {
            Form::Array => error::write_array(error),
            Form::Sse | Form::Count => error::write_event(error),
        }
    }

    /// Google's Python library takes every line that is not empty for JSON, comments too.
    fn keep_alive(&self) -> &'static [u8] {
        b"\n"
    }
}

impl UpstreamSide for Gemini {
    fn write_request(
        &self,
        request: &ChatRequest,
        aim: &Aim<'_>,
    ) -> Result<Written, Inexpressible> {
        request::write(request, aim)
    }

    fn read_whole(&self, body: &[u8]) -> Result<ChatResponse, Misread> {
        response::read(body)
    }

    fn reader(&self) -> Box<dyn ReadStream> {
        Box::new(Reader::default())
    }
}

/// Whether a model refuses calls that have no signature.
pub fn wants_signatures(model: &str) -> bool {
    model::Model::of(model).third
}

/// The answer to a `countTokens` call.
pub fn write_count(tokens: u64) -> Vec<u8> {
    serde_json::json!({ "totalTokens": tokens }).to_string().into_bytes()
}

#[cfg(test)]
mod tests;
