//! A gateway for language models and agents.
//!
//! Read top to bottom: each module uses only the modules above it.

pub mod canon; // the one internal language: surfaces, usage, the record of a call
pub mod error; // what can go wrong, and what the client is told
pub mod dialect; // how each API spells it
pub mod config; // what the operator wrote, checked
pub mod telemetry; // metrics and logs
pub mod net; // sockets, TLS, bodies, tasks
pub mod store; // what survives a restart

// Strangers: these never import one another.
pub mod provider; // who we call
pub mod access; // who may call
pub mod guard; // what may be said
pub mod cache; // what was already answered
pub mod route; // where a call goes, and where next
pub mod tool; // what agents can do

pub mod gateway; // one call, from arrival to settled record
pub mod agent; // one run: many calls, tools, approvals
pub mod http; // the doors: API and admin
pub mod cli; // the commands
