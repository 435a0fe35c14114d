//! Bedrock's Converse API, the upstream side: one spelling for every model that AWS serves.
//!
//! A stream comes as binary frames and reaches this code as events, a frame's type as their name
//! and its payload as their data.

mod cache;
mod family;
mod media;
mod messages;
mod request;
mod response;
mod stream;
mod thinking;

use super::{Aim, Inexpressible, Misread, ReadStream, UpstreamSide, Written};
use crate::canon::{ChatRequest, ChatResponse};

pub static CODEC: Converse = Converse;

pub struct Converse;

// === impl Converse ===

impl UpstreamSide for Converse {
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
