//! Answers by the digest of their question, in memory, bounded by their bytes.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use moka::sync::Cache;
use serde::{Deserialize, Serialize};

use super::Digest;
use crate::canon::{ChatResponse, Money, Usage};

/// What an entry takes besides what it says.
const OVERHEAD: usize = 512;

/// An answer, and what is to be known of it when it is given again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    pub kept: Kept,
    pub usage: Option<Usage>,
    pub cost: Option<Money>,
    /// Who gave it.
    pub provider: String,
    pub model: String,
    /// Fields of the question that the target could not take.
    pub dropped: Vec<String>,
    pub scope: Scope,
    /// When it was given, in milliseconds since 1970.
    pub at: u64,
    /// For how many milliseconds it is good.
    pub ttl: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Kept {
    Chat(ChatResponse),
    /// Vectors, as the client is given them.
    Body(String),
}

/// Whose an answer is, and of which route. As a wish: what is empty is any.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    pub tenant: String,
    pub route: String,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stock {
    pub entries: u64,
    pub bytes: u64,
}

/// The answers in memory. What is asked for lately and often stays.
#[derive(Debug)]
pub struct Exact(Cache<Digest, (Arc<Entry>, u32)>);

// === impl Exact ===

impl Exact {
    pub fn new(max_bytes: usize) -> Self {
        let weight = |_: &Digest, (_, bytes): &(Arc<Entry>, u32)| *bytes;
        Self(Cache::builder().max_capacity(max_bytes as u64).weigher(weight).build())
    }

    /// The answer to this question, unless it is older than either it or its reader allows.
    pub fn get(&self, digest: &Digest, ttl: Duration, now: SystemTime) -> Option<Arc<Entry>> {
        let (entry, _) = self.0.get(digest)?;
        if entry.is_good(ttl, now) {
            return Some(entry);
        }
        if !entry.is_good(Duration::MAX, now) {
            self.0.invalidate(digest);
        }
        None
    }

    /// Keeps an answer that takes so many bytes.
    pub fn put(&self, digest: Digest, entry: Arc<Entry>, bytes: usize) {
        let weight = u32::try_from(bytes + OVERHEAD).unwrap_or(u32::MAX);
        self.0.insert(digest, (entry, weight));
    }

    /// Forgets the answers of a scope, and says to which questions.
    pub fn purge(&self, scope: &Scope) -> Vec<Digest> {
        let within = self.0.iter().filter(|(_, (entry, _))| scope.holds(&entry.scope));
        let gone: Vec<Digest> = within.map(|(digest, _)| *digest).collect();
        for digest in &gone {
            self.0.invalidate(digest);
        }
        gone
    }

    pub fn stock(&self) -> Stock {
        // What is due is done by and by, and counted only then.
        self.0.run_pending_tasks();
        Stock { entries: self.0.entry_count(), bytes: self.0.weighted_size() }
    }
}

// === impl Scope ===

impl Scope {
    /// Whether what is of `other` is meant.
    pub fn holds(&self, other: &Self) -> bool {
        let meant = |wish: &str, name: &str| wish.is_empty() || wish == name;
        meant(&self.tenant, &other.tenant) && meant(&self.route, &other.route)
    }
}

// === impl Entry ===

impl Entry {
    /// How long ago it was given.
    pub fn age(&self, now: SystemTime) -> Duration {
        let given = SystemTime::UNIX_EPOCH + Duration::from_millis(self.at);
        now.duration_since(given).unwrap_or_default()
    }

    /// When it is good no more, in milliseconds since 1970.
    pub fn until(&self) -> u64 {
        self.at.saturating_add(self.ttl)
    }

    pub fn is_good(&self, ttl: Duration, now: SystemTime) -> bool {
        self.age(now) < ttl.min(Duration::from_millis(self.ttl))
    }
}
