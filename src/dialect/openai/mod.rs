//! OpenAI's spelling: errors, and what its answers and streams say of themselves.

mod error;
mod media;
mod tap;

pub use error::{read_error, write_error, write_error_event};
pub use media::{MediaReader, Skim};
pub use tap::{Tap, read_usage};

/// The event that ends a stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";
/// A comment that keeps a silent stream's connection open.
pub const KEEP_ALIVE: &[u8] = b": ka\n\n";

/// Stands in until the codec is there.
pub struct Errors;

impl super::ClientSide for Errors {
    fn read_request(&self, _body: &[u8]) -> Result<crate::canon::ChatRequest, super::Misread> {
        Err(super::Misread::new("not yet"))
    }

    fn write_response(
        &self,
        _response: &crate::canon::ChatResponse,
        _context: &super::Context<'_>,
    ) -> Vec<u8> {
        Vec::new()
    }

    fn writer(&self, _context: &super::Context<'_>) -> Box<dyn super::WriteStream> {
        Box::new(Self)
    }
}

impl super::WriteStream for Errors {
    fn write(&mut self, _event: &crate::canon::Event, _out: &mut Vec<u8>) {}
}

impl super::UpstreamSide for Errors {
    fn write_request(
        &self,
        _request: &crate::canon::ChatRequest,
        _aim: &super::Aim<'_>,
    ) -> Result<super::Written, super::Inexpressible> {
        Err(super::Inexpressible("not yet".into()))
    }

    fn read_response(&self, _body: &[u8]) -> Result<crate::canon::ChatResponse, super::Misread> {
        Err(super::Misread::new("not yet"))
    }

    fn reader(&self) -> Box<dyn super::ReadStream> {
        Box::new(Self)
    }
}

impl super::ReadStream for Errors {
    fn read(
        &mut self,
        _name: Option<&[u8]>,
        _data: &[u8],
        _events: &mut Vec<crate::canon::Event>,
    ) -> Result<(), super::Misread> {
        Ok(())
    }

    fn end(&mut self, _events: &mut Vec<crate::canon::Event>) {}
}
