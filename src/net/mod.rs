//! Sockets, TLS, bodies, tasks. Knows HTTP, has never heard of a model.

pub mod client;
pub mod listen;
pub mod patience;
pub mod shed;
pub mod tasks;
pub mod tls;
pub mod workers;

/// The error of a body or an I/O step, whatever its type.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
