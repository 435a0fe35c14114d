//! Keeps an answer that was given, if it may be given again.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::Asking;
use super::shared::Shareable;
use crate::cache::{Entry, Kept, Scope, is_storable};
use crate::canon::{ChatResponse, Usage};
use crate::gateway::Gateway;
use crate::gateway::call::Call;
use crate::gateway::chain::Chain;
use crate::route::plan::Stage;

/// What is known of an answer before it is whole.
pub(super) struct Filling {
    gateway: Arc<Gateway>,
    asking: Asking,
    /// Who gives it.
    chain: Arc<Chain>,
    place: usize,
    dropped: Vec<String>,
}

// === impl Filling ===

impl Filling {
    /// Of the answer that `call` is being given; `None` if that is not to be kept.
    pub(super) fn of(call: &Call, asking: &Asking) -> Option<Self> {
        let chain = call.chain.clone()?;
        let place = call.place()?;
        // What stands in for a route's own targets for a while does not for an hour.
        let is_own = chain.stage(place) == Stage::Own;
        (asking.leave.write && is_own).then(|| {
            let dropped = call.record.dropped.iter().map(ToString::to_string).collect();
            let (gateway, asking) = (Arc::clone(&call.gateway), asking.clone());
            Self { gateway, asking, chain, place, dropped }
        })
    }

    pub(super) fn keep_chat(self, mut response: ChatResponse) {
        let terms = &self.asking.remembering.terms;
        if !is_storable(&response, terms.tool_calls, terms.share) {
            return;
        }
        // Whoever is given it has ids and a time of their own.
        response.id = String::new();
        response.created = None;
        let usage = response.usage;
        self.keep(Kept::Chat(response), usage);
    }

    pub(super) fn keep_body(self, body: &Bytes, usage: Usage) {
        if let Ok(text) = str::from_utf8(body) {
            self.keep(Kept::Body(text.to_owned()), Some(usage));
        }
    }

    fn keep(self, kept: Kept, usage: Option<Usage>) {
        let Some(target) = self.chain.targets.get(self.place) else { return };
        let Asking { digest, leave, tenant, remembering, likeness, .. } = self.asking;
        let (now, ttl) = (SystemTime::now(), remembering.terms.ttl);
        let cache = &self.gateway.cache;
        if !leave.replace && !leave.read && cache.exact.get(&digest, ttl, now).is_some() {
            return;
        }
        let price = target.info.price.as_ref();
        let entry = Entry {
            kept,
            usage,
            cost: price.zip(usage).map(|(price, usage)| price.cost(&usage)),
            provider: target.provider.name.to_string(),
            model: target.model.to_string(),
            dropped: self.dropped,
            scope: Scope { tenant, route: self.chain.name.to_string() },
            at: millis(now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()),
            ttl: millis(ttl),
        };
        // As long as it is written, so is it in memory, or shorter.
        let Ok(written) = serde_json::to_vec(&entry) else { return };
        if written.len() > remembering.max_entry {
            return;
        }
        let entry = Arc::new(entry);
        cache.exact.put(digest, Arc::clone(&entry), written.len());
        if let Some(likeness) = &likeness {
            likeness.note(cache, (digest, entry.until()));
        }
        self.gateway.share_answer(Shareable { digest, entry, written, likeness });
    }
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
