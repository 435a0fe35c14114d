//! Questions, read and written.

mod content;
mod field;
mod message;
mod read;
mod settings;
mod write;

pub(super) use read::{read, read_count};
pub(super) use write::write;
