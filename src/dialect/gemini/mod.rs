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

use self::reader::Reader;
use self::writer::{Framing, Writer};
use super::{
    Aim, ClientSide, Context, Inexpressible, Misread, ReadStream, UpstreamSide, WriteStream,
    Written,
};
use crate::canon::{ChatRequest, ChatResponse};
use crate::error::Error;

pub static CODEC: Gemini = Gemini;

/// Speaks Gemini's API.
#[derive(Debug)]
pub struct Gemini;

impl ClientSide for Gemini {
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, Misread> {
        request::read(body)
    }

    fn write_response(&self, response: &ChatResponse, context: &Context<'_>) -> Vec<u8> {
        response::write(response, context)
    }

    fn writer(&self, context: &Context<'_>) -> Box<dyn WriteStream> {
        Box::new(Writer::new(context, Framing::Sse))
    }

    fn write_error(&self, error: &Error) -> Vec<u8> {
        error::write(error)
    }

    fn write_error_event(&self, error: &Error) -> Vec<u8> {
        error::write_event(error)
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

    fn read_response(&self, body: &[u8]) -> Result<ChatResponse, Misread> {
        response::read(body)
    }

    fn reader(&self) -> Box<dyn ReadStream> {
        Box::new(Reader::default())
    }
}

/// Writes a stream as the JSON array that `streamGenerateContent` gives without `alt=sse`.
pub fn array_writer(context: &Context<'_>) -> Box<dyn WriteStream> {
    Box::new(Writer::new(context, Framing::Array))
}

/// What ends such an array with an error once it has begun.
pub fn array_error(error: &Error) -> Vec<u8> {
    error::write_element(error)
}

/// Reads the question of a `countTokens` call.
pub fn read_count(body: &[u8]) -> Result<ChatRequest, Misread> {
    request::read_count(body)
}

/// The answer to a `countTokens` call.
pub fn write_count(tokens: u64) -> Vec<u8> {
    serde_json::json!({ "totalTokens": tokens }).to_string().into_bytes()
}

#[cfg(test)]
mod tests;
