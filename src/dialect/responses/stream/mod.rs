//! Streams of this API: read from servers, written for clients.

mod chunk;
mod line;
mod parts;
mod reader;
mod settle;
mod writer;

#[cfg(test)]
mod tests;

pub(super) use reader::Reader;
pub(super) use writer::Writer;
