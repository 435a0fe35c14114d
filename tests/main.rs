//! Every promise the gateway makes to those outside it, checked in one binary.

// Clippy lets tests unwrap only below a `cfg(test)` it can see.
#![cfg(test)]

mod support;

mod doors;
mod fallback;
mod house;
mod verbatim;
