//! Answers to similar questions: the vectors of what was asked last, compared one by one.
//!
//! A scope holds questions that are the same in everything but their last words. All vectors of a
//! scope lie behind one another, so that comparing is one walk through memory.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Digest;

/// So many scopes are known; the one that was used least lately makes room.
const MOST_SCOPES: usize = 4096;
/// Numbers that are multiplied at once.
const LANES: usize = 16;

/// The questions that can be compared.
#[derive(Debug)]
pub struct Index {
    scopes: Mutex<Scopes>,
    /// What all vectors together may take.
    max_bytes: usize,
}

#[derive(Debug, Default)]
struct Scopes {
    known: HashMap<Digest, Scope>,
    /// Rises with each use.
    clock: u64,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Scope {
    /// Of length 1, one behind the other.
    vectors: Vec<f32>,
    dimensions: usize,
    /// The question of each vector, and until when its answer is good.
    questions: Vec<(Digest, u64)>,
    /// Where the next vector goes once the scope is full.
    oldest: usize,
    used: u64,
}

/// A question that has an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    pub digest: Digest,
    /// In milliseconds since 1970.
    pub until: u64,
    /// So many of its scope are kept.
    pub most: usize,
}

/// The question most like another one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Near {
    pub digest: Digest,
    /// The cosine between the two.
    pub similarity: f32,
}

// === impl Index ===

impl Index {
    pub fn new(max_bytes: usize) -> Self {
        Self { scopes: Mutex::default(), max_bytes }
    }

    /// The known question that is most similar, of those whose answers are still good. `now`: in
    /// milliseconds since 1970.
    pub fn nearest(&self, scope: &Digest, vector: &[f32], now: u64) -> Option<Near> {
        let asked = unit(vector)?;
        let mut scopes = self.lock();
        scopes.clock += 1;
        let clock = scopes.clock;
        let scope = scopes.known.get_mut(scope)?;
        scope.used = clock;
        scope.nearest(&asked, now)
    }

    /// Notes a question. Where there is no room, the oldest of its scope or the scope that was used
    /// least lately makes it.
    pub fn add(&self, scope: Digest, vector: &[f32], mut known: Known) {
        let Some(vector) = unit(vector) else { return };
        known.most = known.most.min(self.max_bytes / Scope::size_of(vector.len())).max(1);
        let mut scopes = self.lock();
        scopes.clock += 1;
        let clock = scopes.clock;
        let its = scopes.known.entry(scope).or_default();
        let before = its.size();
        its.used = clock;
        its.add(&vector, known);
        let after = its.size();
        scopes.bytes = scopes.bytes - before + after;
        while scopes.bytes > self.max_bytes || scopes.known.len() > MOST_SCOPES {
            let others = scopes.known.iter().filter(|(digest, _)| **digest != scope);
            let least = others.min_by_key(|(_, scope)| scope.used).map(|(digest, _)| *digest);
            let Some(gone) = least.and_then(|least| scopes.known.remove(&least)) else { break };
            scopes.bytes -= gone.size();
        }
    }

    /// A question of this scope has no answer any more.
    pub fn expire(&self, scope: &Digest, digest: &Digest) {
        let mut scopes = self.lock();
        let questions = scopes.known.get_mut(scope).map(|scope| &mut scope.questions);
        let known = questions.and_then(|all| all.iter_mut().find(|(known, _)| known == digest));
        if let Some((_, until)) = known {
            *until = 0;
        }
    }

    /// Forgets the questions for which `gone` holds.
    pub fn forget(&self, gone: impl Fn(&Digest) -> bool) {
        let mut scopes = self.lock();
        scopes.known.values_mut().for_each(|scope| scope.forget(&gone));
        scopes.known.retain(|_, scope| !scope.questions.is_empty());
        scopes.bytes = scopes.known.values().map(Scope::size).sum();
    }

    /// How many questions there are.
    pub fn count(&self) -> usize {
        self.lock().known.values().map(|scope| scope.questions.len()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Scopes> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Scope ===

impl Scope {
    fn nearest(&self, asked: &[f32], now: u64) -> Option<Near> {
        if asked.len() != self.dimensions {
            return None;
        }
        let all = self.vectors.chunks_exact(self.dimensions).zip(&self.questions);
        let good = all.filter(|(_, (_, until))| *until > now);
        let similarities = good.map(|(vector, (digest, _))| (product(vector, asked), digest));
        let near = similarities.max_by(|(left, _), (right, _)| left.total_cmp(right));
        near.map(|(similarity, digest)| Near { digest: *digest, similarity })
    }

    fn add(&mut self, vector: &[f32], known: Known) {
        if vector.len() != self.dimensions {
            // Another model makes the vectors now, and its are not to be compared with the old.
            *self = Self { dimensions: vector.len(), used: self.used, ..Self::default() };
        }
        let question = (known.digest, known.until);
        let place = self.questions.iter().position(|(digest, _)| *digest == known.digest);
        let place = place.or_else(|| (self.questions.len() >= known.most).then_some(self.oldest));
        let Some(place) = place.filter(|place| *place < self.questions.len()) else {
            self.vectors.extend_from_slice(vector);
            self.questions.push(question);
            return;
        };
        let start = place * self.dimensions;
        self.vectors[start..start + self.dimensions].copy_from_slice(vector);
        self.questions[place] = question;
        if place == self.oldest {
            self.oldest = (self.oldest + 1) % self.questions.len();
        }
    }

    fn forget(&mut self, gone: impl Fn(&Digest) -> bool) {
        if !self.questions.iter().any(|(digest, _)| gone(digest)) {
            return;
        }
        let (mut vectors, mut questions) = (Vec::new(), Vec::new());
        let all = self.questions.iter().zip(self.vectors.chunks_exact(self.dimensions));
        for (question, vector) in all.filter(|((digest, _), _)| !gone(digest)) {
            questions.push(*question);
            vectors.extend_from_slice(vector);
        }
        (self.vectors, self.questions, self.oldest) = (vectors, questions, 0);
    }

    fn size(&self) -> usize {
        self.questions.len() * Self::size_of(self.dimensions)
    }

    /// Of one question with a vector so long.
    fn size_of(dimensions: usize) -> usize {
        dimensions * size_of::<f32>() + size_of::<(Digest, u64)>()
    }
}

/// The vector with a length of 1; `None` for one without a direction.
fn unit(vector: &[f32]) -> Option<Vec<f32>> {
    let length = product(vector, vector).sqrt();
    let usable = length.is_finite() && length > 0.0;
    usable.then(|| vector.iter().map(|value| value / length).collect())
}

/// In lanes, so that the compiler can add them up side by side.
fn product(left: &[f32], right: &[f32]) -> f32 {
    let (left_lanes, left_rest) = left.as_chunks::<LANES>();
    let (right_lanes, right_rest) = right.as_chunks::<LANES>();
    let mut sums = [0.0_f32; LANES];
    for (left, right) in left_lanes.iter().zip(right_lanes) {
        for lane in 0..LANES {
            sums[lane] += left[lane] * right[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    sums.iter().sum::<f32>() + rest
}
