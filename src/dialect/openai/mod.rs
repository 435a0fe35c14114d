//! OpenAI's spelling: errors, and what its answers and streams say of themselves.

mod error;
pub mod family;
mod media;
mod tap;
mod usage;

pub use error::{is_error, read_error, write_error, write_error_event};
pub use media::{MediaReader, Skim};
pub use tap::{
    Tap, has_choices, has_data, may_be_broken, read_finish, read_usage, says_failure, told,
};
pub use usage::{count, write_usage};

/// The event that ends a stream.
pub const DONE: &[u8] = b"data: [DONE]\n\n";
/// A comment that keeps a silent stream's connection open.
pub const KEEP_ALIVE: &[u8] = b": ka\n\n";
