//! Every promise the gateway makes to those outside it, checked in one binary.

// Clippy lets tests unwrap only below a `cfg(test)` it can see.
#![cfg(test)]

mod support;

mod admin;
mod agents;
mod away;
mod budgets;
mod cache;
mod clients;
mod config_ops;
mod doors;
mod drain;
mod dropped;
mod embeddings;
mod fallback;
mod faults;
mod guards;
mod hostile;
mod house;
mod import;
mod limits;
mod logs;
mod matrix;
mod mcp;
mod objects;
mod oidc;
mod outage;
mod operate;
mod pairs;
mod proofs;
mod providers;
mod recordings;
mod relay;
mod replicas;
mod reload;
mod replay;
mod replaying;
mod responses;
mod routing;
mod runs;
mod sdk;
mod secrets;
mod state;
mod streaming;
mod tasks;
mod tools;
mod traces;
mod translated;
mod translations;
mod verbatim;
