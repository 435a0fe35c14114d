//! What was already answered: answers by the digest of their question, identical questions that
//! wait for one answer, and answers to similar questions.
//!
//! Nothing here calls anybody or knows of calls: what is put in is a question's digest and an
//! answer in our own words, and the time is given.

mod exact;
pub mod key;
mod literal;
mod plain;
mod rules;
mod semantic;
mod single_flight;
mod tape;
mod template;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use exact::{Entry, Exact, Kept, Scope, Stock};
pub use key::Digest;
pub use literal::{Literal, Literals, Wording};
pub use rules::{Leave, is_storable, may_be_asked};
pub use semantic::{Index, Known, Near};
pub use single_flight::{Flights, Lead, Seat};
pub use tape::{Follower, Next, Tape};
pub use template::Template;

/// The share of memory for questions as they came: one in so many parts.
const LITERAL: usize = 4;
/// Vectors may take so much besides.
const VECTORS: usize = 4;

/// The answers of one process.
#[derive(Debug)]
pub struct Cache {
    pub exact: Exact,
    pub literals: Literals,
    pub flights: Arc<Flights>,
    pub index: Index,
}

// === impl Cache ===

impl Cache {
    pub fn new(max_bytes: usize) -> Self {
        let literal = max_bytes / LITERAL;
        Self {
            exact: Exact::new(max_bytes - literal),
            literals: Literals::new(literal),
            flights: Arc::default(),
            index: Index::new(max_bytes / VECTORS),
        }
    }

    /// The answer to a question that came before with the same words, and those words.
    pub fn recall(
        &self,
        wording: &Wording,
        ttl: Duration,
        now: SystemTime,
    ) -> Option<(Arc<Literal>, Arc<Entry>)> {
        let literal = self.literals.find(wording)?;
        let entry = self.exact.get(&literal.digest, ttl, now)?;
        literal.is_given(&entry).then_some((literal, entry))
    }

    /// Forgets all answers of this scope; how many those were.
    pub fn purge(&self, scope: &Scope) -> usize {
        let gone: HashSet<Digest> = self.exact.purge(scope).into_iter().collect();
        self.index.forget(|digest| gone.contains(digest));
        self.literals.forget(&gone);
        gone.len()
    }
}
