//! Streams of this API: read from servers, written for clients.

mod chunk;
mod line;
mod parts;
mod reader;
mod settle;
mod writer;

pub(super) use reader::Reader;
pub(super) use writer::Writer;
