//! Cohere's chat API, version 2, the upstream side.

mod messages;
mod request;
mod response;
mod stream;

use super::{Aim, Inexpressible, Misread, ReadStream, UpstreamSide, Written};
use crate::canon::{ChatRequest, ChatResponse};

pub static CODEC: Cohere = Cohere;

pub struct Cohere;

/// Marks a thought that Cohere calls `tool_plan` and keeps beside the content.
const PLAN: &str = "tool_plan";

// === impl Cohere ===

impl UpstreamSide for Cohere {
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
        Box::new(stream::Reader::new())
    }
}

#[cfg(test)]
mod tests;
