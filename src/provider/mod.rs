//! Who answers: the providers, and what differs between them.

pub mod catalog;
