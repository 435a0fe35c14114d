//! The one internal language: what every room may say of a call. Pure data, no I/O.

mod id;
mod owner;
mod record;
mod usage;

pub use id::CallId;
pub use owner::Owner;
pub use record::{Attempt, CallRecord, Outcome, Surface, UsageSource};
pub use usage::Usage;
