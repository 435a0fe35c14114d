//! What was already answered: answers by the digest of their question, identical questions that
//! wait for one answer, and answers to similar questions.
//!
//! Nothing here calls anybody or knows of calls: what is put in is a question's digest and an
//! answer in our own words, and the time is given.

mod exact;
pub mod key;
mod plain;
mod rules;
mod semantic;
mod single_flight;
mod tape;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use exact::{Entry, Exact, Kept, Scope, Stock};
pub use key::Digest;
pub use rules::{Leave, is_storable, may_be_asked};
pub use semantic::{Index, Near};
pub use single_flight::{Flights, Lead, Seat};
pub use tape::{Follower, Next, Tape};

/// The answers of one process.
#[derive(Debug)]
pub struct Cache {
    pub exact: Exact,
    pub flights: Arc<Flights>,
    pub index: Index,
}

// === impl Cache ===

impl Cache {
    pub fn new(max_bytes: usize) -> Self {
        Self { exact: Exact::new(max_bytes), flights: Arc::default(), index: Index::default() }
    }

    /// Forgets all answers of this scope; how many those were.
    pub fn purge(&self, scope: &Scope) -> usize {
        let gone = self.exact.purge(scope);
        self.index.forget(|digest| gone.contains(digest));
        gone.len()
    }
}
