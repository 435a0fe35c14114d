//! How each API spells the language. Pure functions over bytes: no I/O, no clock.

pub mod eventstream;
pub mod openai;
pub mod peek;
pub mod splice;
pub mod sse;
