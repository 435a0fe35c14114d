//! Streamed answers, read and written.

mod block;
mod read;
mod write;

pub(super) use read::Reader;
pub(super) use write::Writer;

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(super) use tests::accepts;
