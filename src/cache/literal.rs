//! Questions that came before, word for word. Of one whose every byte is known it need not be found
//! out what it asks, nor its answer be put into words again.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use foldhash::quality::RandomState;
use moka::sync::Cache;

use super::exact::Entry;
use super::key::{self, Digest, Setting};
use super::template::Template;

/// What one takes besides its bytes.
const OVERHEAD: usize = 512;

/// What was asked lately, and the answers as they were written for that.
#[derive(Debug)]
pub struct Literals {
    known: Cache<u64, Arc<Literal>>,
    hashing: RandomState,
}

/// A question as it came, with all around it that decides about its answer and how that is written.
#[derive(Debug)]
pub struct Wording {
    around: Vec<u8>,
    body: Bytes,
}

/// One that was answered from memory.
#[derive(Debug)]
pub struct Literal {
    around: Box<[u8]>,
    body: Box<[u8]>,
    /// What it asks.
    pub digest: Digest,
    /// What it was given.
    entry: Weak<Entry>,
    /// In its own words; `None` where these are others each time.
    pub answer: Option<Template>,
}

// === impl Wording ===

impl Wording {
    /// `setting` says what decides about the answer, as it does for its key, and `more` what else
    /// decides about how it is written.
    pub fn new(setting: &Setting<'_>, more: &[&[u8]], body: Bytes) -> Self {
        Self { around: key::around(setting, more), body }
    }
}

// === impl Literals ===

impl Literals {
    pub(super) fn new(max_bytes: usize) -> Self {
        let weight = |_: &u64, literal: &Arc<Literal>| literal.weight();
        let known = Cache::builder().max_capacity(max_bytes as u64).weigher(weight).build();
        Self { known, hashing: RandomState::default() }
    }

    /// The same question, if it is known. All of its bytes are compared: the hash only says where
    /// to look, and two that share one take turns.
    pub fn find(&self, wording: &Wording) -> Option<Arc<Literal>> {
        let known = self.known.get(&self.hash(wording))?;
        let is_same = *known.around == *wording.around && *known.body == *wording.body;
        is_same.then_some(known)
    }

    /// From here on the question is known, and its answer with it.
    pub fn note(
        &self,
        wording: Wording,
        (digest, entry): (Digest, &Arc<Entry>),
        answer: Option<Template>,
    ) {
        let hash = self.hash(&wording);
        let Wording { around, body } = wording;
        let (around, body) = (around.into(), (*body).into());
        let literal = Literal { around, body, digest, entry: Arc::downgrade(entry), answer };
        self.known.insert(hash, Arc::new(literal));
    }

    /// Forgets the words of these questions.
    pub(super) fn forget(&self, gone: &HashSet<Digest>) {
        let of_them = self.known.iter().filter(|(_, literal)| gone.contains(&literal.digest));
        for (hash, _) in of_them {
            self.known.invalidate(&*hash);
        }
    }

    fn hash(&self, wording: &Wording) -> u64 {
        let mut hasher = self.hashing.build_hasher();
        hasher.write(&wording.around);
        hasher.write(&wording.body);
        hasher.finish()
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.known.run_pending_tasks();
        self.known.weighted_size()
    }
}

// === impl Literal ===

impl Literal {
    /// Whether this is still what it is given.
    pub fn is_given(&self, entry: &Arc<Entry>) -> bool {
        std::ptr::eq(self.entry.as_ptr(), Arc::as_ptr(entry))
    }

    fn weight(&self) -> u32 {
        let answer = self.answer.as_ref().map_or(0, Template::len);
        u32::try_from(self.around.len() + self.body.len() + answer + OVERHEAD).unwrap_or(u32::MAX)
    }
}
