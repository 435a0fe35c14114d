//! Streams of this API: read from servers, written for clients.

mod line;
mod parts;
mod reader;
mod writer;

pub(super) use reader::Reader;
pub(super) use writer::Writer;
