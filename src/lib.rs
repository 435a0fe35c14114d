//! A gateway for language models.
//!
//! Read top to bottom: each module uses only the modules above it.

pub mod provider;
