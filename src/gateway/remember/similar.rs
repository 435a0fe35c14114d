//! Answers to similar questions: the last words are embedded through a route, and compared with
//! those of questions that are the same in all else.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::fill::millis;
use super::{Asking, policy};
use crate::cache::{Cache, Digest, Entry, Known, Near, key};
use crate::canon::Purpose;
use crate::config::Semantic;
use crate::gateway::call::Call;
use crate::gateway::oracle;
use crate::gateway::snapshot::Road;

/// Longer words are not compared: their vector says too little of them.
const LONGEST: usize = 8 * 1024;
/// Who embeds more slowly is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A question that can be compared with others.
#[derive(Debug, Clone)]
pub(super) struct Likeness {
    vector: Arc<[f32]>,
    /// All that is the same in those that it is compared with.
    scope: Digest,
    most: usize,
}

/// The answer to the most similar question, if that is similar enough; and how this question can be
/// found by others.
pub(super) async fn find(
    call: &mut Call,
    asking: &Asking,
) -> (Option<Arc<Entry>>, Option<Likeness>) {
    let Some(semantic) = &asking.remembering.terms.semantic else { return (None, None) };
    let Some((words, rest)) = asking.words.as_ref().filter(|(words, _)| words.len() <= LONGEST)
    else {
        return (None, None);
    };
    let Some(likeness) = likeness(call, semantic, words, rest).await else {
        return (None, None);
    };
    let cache = Arc::clone(&call.gateway.cache);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let near = cache.index.nearest(&likeness.scope, &likeness.vector, millis(now));
    let Some(near) = near.filter(|_| asking.leave.read) else { return (None, Some(likeness)) };
    let Near { digest, similarity } = near;
    let similar = f64::from(similarity) * 1000.0 >= f64::from(semantic.threshold_permille);
    let entry = if similar { Box::pin(asking.answer_to(call, &digest)).await } else { None };
    if similar && entry.is_none() {
        let together = call.gateway.answers.get();
        if !together.is_some_and(|together| together.values.is_away()) {
            cache.index.expire(&likeness.scope, &digest);
        }
        return (None, Some(likeness));
    }
    call.record.similarity = Some(similarity);
    let (route, id) = (call.route_name(), call.record.id.simple());
    let metrics = &call.gateway.telemetry.metrics;
    metrics.cache_similarity.with_label_values(&[&*route]).observe(f64::from(similarity));
    tracing::debug!(id, %route, similarity, similar, shadow = semantic.shadow, "a similar question");
    if similar && semantic.shadow {
        metrics.cache.with_label_values(&["would_be_semantic"]).inc();
    }
    (entry.filter(|_| !semantic.shadow), Some(likeness))
}

impl Asking {
    /// The answer to another question of the same scope, wherever it is remembered.
    async fn answer_to(&self, call: &Call, digest: &Digest) -> Option<Arc<Entry>> {
        let (ttl, now) = (self.remembering.terms.ttl, SystemTime::now());
        match call.gateway.cache.exact.get(digest, ttl, now) {
            None => self.fetch(call, digest).await,
            here => here,
        }
    }
}

async fn likeness(
    call: &Call,
    semantic: &Semantic,
    words: &str,
    rest: &Digest,
) -> Option<Likeness> {
    let route = semantic.route.as_str();
    // Vectors that somebody else makes are not to be compared with these.
    let Ok(Road::Chain(chain)) = call.house.road(route) else { return None };
    let scope = key::of_parts([&rest[..], &policy(&call.house.config, &chain)[..]]);
    let texts = [words];
    let embed = oracle::embed(call, Purpose::Cache, route, &texts);
    let vector = match timeout(PATIENCE, Box::pin(embed)).await {
        Ok(Ok(mut vectors)) => vectors.pop()?,
        Ok(Err(problem)) => {
            tracing::warn!(route, %problem, "a question could not be compared");
            return None;
        }
        Err(_) => return None,
    };
    Some(Likeness { vector: vector.into(), scope, most: semantic.max_entries })
}

// === impl Likeness ===

impl Likeness {
    /// From here on others find this question, until its answer is too old.
    pub(super) fn note(&self, cache: &Cache, (digest, until): (Digest, u64)) {
        cache.index.add(self.scope, &self.vector, Known { digest, until, most: self.most });
    }

    /// As other replicas read it.
    pub(super) fn spelled(&self, (digest, until): (Digest, u64)) -> Vec<Vec<u8>> {
        let vector = self.vector.iter().flat_map(|number| number.to_le_bytes()).collect();
        let most = self.most.to_string().into_bytes();
        vec![self.scope.to_vec(), digest.to_vec(), until.to_string().into_bytes(), most, vector]
    }

    /// What another replica has told; `None` where that makes no sense.
    pub(super) fn read(told: &[Vec<u8>]) -> Option<(Self, (Digest, u64))> {
        let [scope, digest, until, most, vector] = told else { return None };
        let digest_of = |bytes: &[u8]| Digest::try_from(bytes).ok();
        let (numbers, rest) = vector.as_chunks();
        let vector = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        let most = str::from_utf8(most).ok()?.parse().ok()?;
        let until = str::from_utf8(until).ok()?.parse().ok()?;
        let likeness = Self { vector, scope: digest_of(scope)?, most };
        rest.is_empty().then_some((likeness, (digest_of(digest)?, until)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_replica_tells_of_a_question_is_read_as_it_was() {
        let vector: Arc<[f32]> = [0.25, -1.0, 1e-7].into();
        let likeness = Likeness { vector, scope: [1; 32], most: 7 };
        let told = likeness.spelled(([2; 32], 99));
        let (read, answer) = Likeness::read(&told).unwrap();
        assert_eq!((&*read.vector, read.scope, read.most), (&[0.25, -1.0, 1e-7][..], [1; 32], 7));
        assert_eq!(answer, ([2; 32], 99));
        for (part, wrong) in [(0, &b"short"[..]), (1, b""), (2, b"-1"), (3, b"many"), (4, b"12345")]
        {
            let mut told = told.clone();
            told[part] = wrong.to_vec();
            assert!(Likeness::read(&told).is_none(), "{part}");
        }
        assert!(Likeness::read(&told[1..]).is_none());
    }
}
