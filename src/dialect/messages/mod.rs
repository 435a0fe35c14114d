//! Anthropic's Messages API, both sides.

mod abroad;
mod beta;
mod block;
mod citation;
mod error;
mod fields;
mod finish;
mod models;
mod request;
mod response;
mod source;
mod stream;
mod usage;

pub use abroad::abroad;
pub use beta::{Betas, betas};
pub(super) use citation::stands_for;
pub(super) use models::{Thinks, family};
pub(super) use request::{structured, tool_schema};
pub(super) use response::place_citations;

use serde_json::json;

use super::{
    Aim, ClientSide, Context, Inexpressible, Misread, ReadStream, UpstreamSide, WriteStream,
    Written,
};
use crate::canon::{ChatRequest, ChatResponse};
use crate::error::Error;

/// The dialect of `/v1/messages`.
#[derive(Debug, Clone, Copy)]
pub struct Messages;

pub static CODEC: Messages = Messages;

/// The version of the API that this codec writes; the `anthropic-version` header names it.
pub const VERSION: &str = "2023-06-01";

/// The answer to `/v1/messages/count_tokens`.
pub fn write_token_count(tokens: u64) -> Vec<u8> {
    json!({ "input_tokens": tokens }).to_string().into_bytes()
}

impl ClientSide for Messages {
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, Misread> {
        request::read(body)
    }

    fn write_response(&self, response: &ChatResponse, context: &Context<'_>) -> Vec<u8> {
        response::write(response, context)
    }

    fn writer(&self, context: &Context<'_>) -> Box<dyn WriteStream> {
        Box::new(stream::Writer::new(context))
    }

    fn write_error(&self, error: &Error) -> Vec<u8> {
        error::write(error)
    }

    fn write_error_event(&self, error: &Error) -> Vec<u8> {
        error::write_event(error)
    }

    /// The API's own; its SDKs skip it by its name, before the first message too.
    fn keep_alive(&self) -> &'static [u8] {
        b"event: ping\ndata: {\"type\":\"ping\"}\n\n"
    }
}

impl UpstreamSide for Messages {
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
        Box::<stream::Reader>::default()
    }
}

#[cfg(test)]
mod tests;
