//! What has changed at servers, for whoever wants to hear of it.

use std::sync::Arc;

use tokio::sync::broadcast;

/// Of what was told and not yet heard, how much is kept.
const MOST_TOLD: usize = 256;

/// What has changed, and where.
#[derive(Debug, Clone)]
pub struct Told {
    /// By its name in the config; none where the config itself is another.
    pub server: Option<Arc<str>>,
    pub change: Change,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Tools,
    Prompts,
    Resources,
    /// One resource, by its URI.
    Updated(String),
}

/// Where it is told. Whoever has the tools of one config hands it on to those of the next.
#[derive(Debug, Clone)]
pub struct Board(broadcast::Sender<Told>);

/// The part of one server.
#[derive(Debug, Clone)]
pub(super) struct News {
    server: Arc<str>,
    board: Board,
}

// === impl Told ===

impl Told {
    /// Whether other servers may have taken the place of those there were.
    pub fn is_of_all(&self) -> bool {
        self.server.is_none() && self.change == Change::Resources
    }
}

// === impl Board ===

impl Board {
    pub fn subscribe(&self) -> broadcast::Receiver<Told> {
        self.0.subscribe()
    }

    /// All may be otherwise, for there is another config.
    pub(in crate::tool) fn begin_anew(&self) {
        for change in [Change::Tools, Change::Prompts, Change::Resources] {
            // Nobody may listen.
            let _ = self.0.send(Told { server: None, change });
        }
    }
}

impl Default for Board {
    fn default() -> Self {
        Self(broadcast::channel(MOST_TOLD).0)
    }
}

// === impl News ===

impl News {
    pub(super) fn new(server: &Arc<str>, board: &Board) -> Self {
        Self { server: Arc::clone(server), board: board.clone() }
    }

    pub(super) fn tell(&self, change: Change) {
        let _ = self.board.0.send(Told { server: Some(Arc::clone(&self.server)), change });
    }
}
