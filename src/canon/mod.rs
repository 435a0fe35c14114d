//! The one internal language: what every room may say of a call. Pure data, no I/O.

mod id;
mod record;
mod usage;

pub use id::CallId;
pub use record::{Attempt, CallRecord, Outcome, Surface, UsageSource};
pub use usage::Usage;
