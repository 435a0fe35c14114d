//! The connections to one server, and which of them is free.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::Notify;

use super::link::{Around, Door, Link};
use crate::config;
use crate::config::McpTool;

#[derive(Debug)]
pub(super) struct Pool {
    pub(super) terms: Arc<config::Tool>,
    pub(super) mcp: McpTool,
    /// Rung when the tools of the server may be others.
    pub(super) changed: Arc<Notify>,
    links: Vec<Link>,
}

// === impl Pool ===

impl Pool {
    pub(super) fn new(
        server: &Arc<str>,
        door: Door,
        terms: &Arc<config::Tool>,
        mcp: &McpTool,
        around: &Around,
    ) -> Self {
        let (door, changed) = (Arc::new(door), Arc::clone(&around.changed));
        let link = || Link::new(Arc::clone(&door), server, mcp.connect_timeout, around);
        let links = (0..mcp.instances.max(1)).map(|_| link()).collect();
        Self { terms: Arc::clone(terms), mcp: mcp.clone(), changed, links }
    }

    /// The connection with the fewest calls on it.
    pub(super) fn free(&self) -> &Link {
        let least = self.links.iter().min_by_key(|link| link.load());
        least.unwrap_or(&self.links[0])
    }

    /// The one by which it is asked for what is not a tool, and tells what changes.
    pub(super) fn first(&self) -> &Link {
        &self.links[0]
    }

    /// Opens what should be open and closes what nobody wants; says why something is not open.
    pub(super) async fn tend(&self, idle: Option<Duration>) -> Option<String> {
        let tended = self.links.iter().map(|link| link.tend(idle));
        join_all(tended).await.into_iter().flatten().next()
    }
}
