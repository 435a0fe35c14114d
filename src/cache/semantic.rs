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
#[derive(Debug, Default)]
pub struct Index(Mutex<Scopes>);

#[derive(Debug, Default)]
struct Scopes {
    scopes: HashMap<Digest, Scope>,
    /// Rises with each use.
    clock: u64,
}

#[derive(Debug, Default)]
struct Scope {
    /// Of length 1, one behind the other.
    vectors: Vec<f32>,
    dimensions: usize,
    /// The question of each vector.
    digests: Vec<Digest>,
    /// Where the next vector goes once the scope is full.
    oldest: usize,
    used: u64,
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
    /// The known question that is most similar.
    pub fn nearest(&self, scope: &Digest, vector: &[f32]) -> Option<Near> {
        let asked = unit(vector)?;
        let mut scopes = self.lock();
        scopes.clock += 1;
        let now = scopes.clock;
        let scope = scopes.scopes.get_mut(scope)?;
        scope.used = now;
        scope.nearest(&asked)
    }

    /// Notes a question, in the place of the oldest where there are `most`.
    pub fn add(&self, scope: Digest, vector: &[f32], (digest, most): (Digest, usize)) {
        let Some(vector) = unit(vector) else { return };
        let mut scopes = self.lock();
        scopes.clock += 1;
        let now = scopes.clock;
        if scopes.scopes.len() >= MOST_SCOPES && !scopes.scopes.contains_key(&scope) {
            let least = scopes.scopes.iter().min_by_key(|(_, scope)| scope.used);
            if let Some(least) = least.map(|(digest, _)| *digest) {
                scopes.scopes.remove(&least);
            }
        }
        let scope = scopes.scopes.entry(scope).or_default();
        scope.used = now;
        scope.add(&vector, digest, most);
    }

    /// Forgets the questions for which `gone` holds.
    pub fn forget(&self, gone: impl Fn(&Digest) -> bool) {
        let mut scopes = self.lock();
        scopes.scopes.values_mut().for_each(|scope| scope.forget(&gone));
        scopes.scopes.retain(|_, scope| !scope.digests.is_empty());
    }

    fn lock(&self) -> MutexGuard<'_, Scopes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Scope ===

impl Scope {
    fn nearest(&self, asked: &[f32]) -> Option<Near> {
        if asked.len() != self.dimensions {
            return None;
        }
        let similarities =
            self.vectors.chunks_exact(self.dimensions).map(|known| product(known, asked));
        let near =
            similarities.zip(&self.digests).max_by(|(left, _), (right, _)| left.total_cmp(right));
        near.map(|(similarity, digest)| Near { digest: *digest, similarity })
    }

    fn add(&mut self, vector: &[f32], digest: Digest, most: usize) {
        if vector.len() != self.dimensions {
            // Another model makes the vectors now, and its are not to be compared with the old.
            *self = Self { dimensions: vector.len(), used: self.used, ..Self::default() };
        }
        let place = self.digests.iter().position(|known| *known == digest);
        let place = place.or_else(|| (self.digests.len() >= most).then_some(self.oldest));
        let Some(place) = place.filter(|place| *place < self.digests.len()) else {
            self.vectors.extend_from_slice(vector);
            self.digests.push(digest);
            return;
        };
        let start = place * self.dimensions;
        self.vectors[start..start + self.dimensions].copy_from_slice(vector);
        self.digests[place] = digest;
        if place == self.oldest {
            self.oldest = (self.oldest + 1) % self.digests.len();
        }
    }

    fn forget(&mut self, gone: impl Fn(&Digest) -> bool) {
        let mut vectors = Vec::new();
        let mut digests = Vec::new();
        for (digest, vector) in self.digests.iter().zip(self.vectors.chunks_exact(self.dimensions))
        {
            if !gone(digest) {
                digests.push(*digest);
                vectors.extend_from_slice(vector);
            }
        }
        (self.vectors, self.digests, self.oldest) = (vectors, digests, 0);
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
