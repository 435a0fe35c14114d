//! What tools reach the world with, and what their secrets are at the moment: those that stand in a
//! file or are kept elsewhere are looked up when a call is made.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use tokio::time::Instant;

use crate::config::{Place, Reference, Secret};
use crate::net::client::Client;

/// Knows the secrets that other systems keep.
pub trait Keeper: Debug + Send + Sync {
    /// What `reference` stands for now, if that can be known; what was fetched before `since` is
    /// doubted.
    fn now(&self, reference: &Reference, since: Option<Instant>) -> Looked<'_>;
}

pub type Looked<'a> = Pin<Box<dyn Future<Output = Option<Secret>> + Send + 'a>>;

/// How tools reach others.
#[derive(Debug, Clone)]
pub struct Net {
    pub client: Client,
    pub keeper: Option<Arc<dyn Keeper>>,
}

// === impl Net ===

impl Net {
    /// One that knows nobody who keeps secrets.
    #[cfg(test)]
    pub(super) fn alone() -> Self {
        Self { client: Client::new(1), keeper: None }
    }

    /// `secret` as it is now, if it is another one. Where that cannot be known, it stays as it is:
    /// a file may just be being written.
    pub(super) async fn renewed(&self, secret: &Secret, since: Option<Instant>) -> Option<Secret> {
        let text = match secret.place()? {
            Place::File(path) => Secret::new(tokio::fs::read_to_string(path).await.ok()?),
            Place::Elsewhere(reference) => self.keeper.as_ref()?.now(reference, since).await?,
        };
        secret.renewed(text.expose()).ok().filter(|now| now != secret)
    }
}
