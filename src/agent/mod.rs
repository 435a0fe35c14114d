//! One run: many calls of models and tools, with limits, approvals and a journal that survives the
//! process. Start reading at `run`, the pure part, and `actor`, which does what it says.

mod budget;
mod context;
pub mod definition;
pub mod event;
mod journal;
pub mod run;
mod when;

mod interim;
pub use interim::*;
