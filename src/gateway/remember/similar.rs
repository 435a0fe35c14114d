//! Answers to similar questions: the last words are embedded through a route, and compared with
//! those of questions that are the same in all else.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::timeout;

use super::{Asking, policy};
use crate::cache::{Cache, Digest, Entry, key};
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
    let Some(likeness) = likeness(call, semantic, (words, rest)).await else {
        return (None, None);
    };
    let cache = Arc::clone(&call.gateway.cache);
    let (ttl, now) = (asking.remembering.terms.ttl, SystemTime::now());
    let near = cache.index.nearest(&likeness.scope, &likeness.vector);
    let found = near.filter(|_| asking.leave.read).and_then(|near| {
        let entry = cache.exact.get(&near.digest, ttl, now);
        if entry.is_none() {
            cache.index.forget(|digest| *digest == near.digest);
        }
        Some((entry?, near.similarity))
    });
    let Some((entry, similarity)) = found else { return (None, Some(likeness)) };
    let similar = f64::from(similarity) * 1000.0 >= f64::from(semantic.threshold_permille);
    call.record.similarity = Some(similarity);
    let (route, id) = (call.route_name(), call.record.id.simple());
    let metrics = &call.gateway.telemetry.metrics;
    metrics.cache_similarity.with_label_values(&[&*route]).observe(f64::from(similarity));
    tracing::debug!(id, %route, similarity, similar, shadow = semantic.shadow, "a similar question");
    if similar && semantic.shadow {
        metrics.cache.with_label_values(&["would_be_semantic"]).inc();
    }
    (Some(entry).filter(|_| similar && !semantic.shadow), Some(likeness))
}

async fn likeness(
    call: &Call,
    semantic: &Semantic,
    (words, rest): (&str, &Digest),
) -> Option<Likeness> {
    let route = semantic.route.as_str();
    // Vectors that somebody else makes are not to be compared with these.
    let Ok(Road::Chain(chain)) = call.house.road(route) else { return None };
    let scope = key::of_parts([&rest[..], &policy(&call.house.config, &chain)[..]]);
    let texts = [words];
    let embed = oracle::embed(call, Purpose::Cache, (route, &texts));
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
    /// From here on others find this question.
    pub(super) fn note(&self, cache: &Cache, digest: Digest) {
        cache.index.add(self.scope, &self.vector, (digest, self.most));
    }
}
