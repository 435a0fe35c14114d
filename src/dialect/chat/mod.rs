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

use crate::canon::{ChatRequest, ChatResponse};
use crate::dialect::{
    Aim, ClientSide, Context, Inexpressible, Misread, ReadStream, UpstreamSide, WriteStream,
    Written, custom,
};

pub static CODEC: Chat = Chat;

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

    fn read_response(&self, body: &[u8]) -> Result<ChatResponse, Misread> {
        reader::Reader::read_whole(body)
    }

    fn reader(&self) -> Box<dyn ReadStream> {
        Box::new(reader::Reader::default())
    }
}
