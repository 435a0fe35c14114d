//! Every promise the gateway makes to those outside it, checked in one binary.

// Clippy lets tests unwrap only below a `cfg(test)` it can see.
#![cfg(test)]

mod support;

mod doors;
mod drain;
mod fallback;
mod hostile;
mod house;
mod limits;
mod providers;
mod recordings;
mod reload;
mod sdk;
mod secrets;
mod state;
mod streaming;
mod translations;
mod verbatim;
