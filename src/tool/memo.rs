//! Results of tools that only read, kept for a while.

use std::sync::Arc;

use moka::sync::Cache;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{Invocation, Output, canonical};
use crate::canon::Part;
use crate::config::ToolCache;

/// What one tool's results may take in memory.
const CAPACITY: u64 = 16 << 20;

/// The results of one tool.
#[derive(Debug)]
pub(super) struct Memo {
    terms: ToolCache,
    kept: Cache<[u8; 32], (Instant, Arc<Output>)>,
}

// === impl Memo ===

impl Memo {
    pub(super) fn new(terms: &ToolCache) -> Self {
        let weigh = |_: &[u8; 32], (_, output): &(Instant, Arc<Output>)| {
            let parts: usize = output.parts.iter().filter_map(Part::as_text).map(str::len).sum();
            u32::try_from(output.raw.len() + parts + 256).unwrap_or(u32::MAX)
        };
        let kept = Cache::builder().max_capacity(CAPACITY).weigher(weigh).time_to_live(terms.ttl);
        Self { terms: terms.clone(), kept: kept.build() }
    }

    /// What identifies a call; none where it is not known for whom it is.
    pub(super) fn key(&self, call: &Invocation) -> Option<[u8; 32]> {
        let user = if self.terms.shared { Some("") } else { call.user.as_deref() };
        let digest = Sha256::new().chain_update(user?).chain_update([0]);
        Some(digest.chain_update(canonical(&call.args)).finalize().into())
    }

    pub(super) fn find(&self, key: &[u8; 32]) -> Option<Output> {
        let (since, output) = self.kept.get(key)?;
        if since.elapsed() >= self.terms.ttl {
            return None;
        }
        Some(Output {
            cached: true,
            attempts: 0,
            retried: Vec::new(),
            wire: None,
            ..Output::clone(&output)
        })
    }

    pub(super) fn keep(&self, key: [u8; 32], output: &Output) {
        self.kept.insert(key, (Instant::now(), Arc::new(output.clone())));
    }
}
