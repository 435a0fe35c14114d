//! Rebuilds the snapshot when the config changes; swaps it in, or keeps the old one and says why.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::{Gateway, Past, Snapshot};
use crate::config::Config;

/// Adds to a freshly loaded config what the command line decided.
pub type Overrides = Box<dyn Fn(&mut Config) + Send + Sync>;

/// Loads the config anew, one load at a time.
pub struct Reloader {
    gateway: Arc<Gateway>,
    /// `None` when there is no file: then there is nothing to reload.
    path: Option<PathBuf>,
    kinds: Vec<&'static str>,
    overrides: Overrides,
    status: Mutex<ReloadStatus>,
}

/// What the last attempts came to.
#[derive(Debug, Clone, Default)]
pub struct ReloadStatus {
    /// The newest generation that was handed out.
    generation: u64,
    /// Why the last load was refused, and when; `None` once one was accepted.
    pub last_error: Option<(SystemTime, Vec<String>)>,
}

impl Reloader {
    pub fn new(
        gateway: Arc<Gateway>,
        path: Option<PathBuf>,
        kinds: Vec<&'static str>,
        overrides: Overrides,
    ) -> Arc<Self> {
        let generation = gateway.snapshot().generation;
        let status = Mutex::new(ReloadStatus { generation, last_error: None });
        Arc::new(Self { gateway, path, kinds, overrides, status })
    }

    /// Loads the file again. A config with any fault is refused whole and the old one serves on.
    pub fn reload(&self) -> Result<u64, Vec<String>> {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.build(status.generation + 1);
        let reloads = &self.gateway.telemetry.metrics.config_reloads;
        match result {
            Ok(snapshot) => {
                status.generation = snapshot.generation;
                status.last_error = None;
                let (generation, hash) = (snapshot.generation, snapshot.config.hash.clone());
                self.gateway.swap(snapshot);
                self.gateway.tasks.spawn(seed(Arc::clone(&self.gateway)));
                reloads.with_label_values(&["accepted"]).inc();
                tracing::info!(generation, %hash, "a changed config is in force");
                Ok(generation)
            }
            Err(problems) => {
                status.last_error = Some((SystemTime::now(), problems.clone()));
                reloads.with_label_values(&["refused"]).inc();
                for problem in &problems {
                    tracing::error!(%problem, "the changed config is refused, the old one stays");
                }
                Err(problems)
            }
        }
    }

    pub fn status(&self) -> ReloadStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn build(&self, generation: u64) -> Result<Snapshot, Vec<String>> {
        let Some(path) = &self.path else {
            return Err(vec!["there is no config file to load".to_owned()]);
        };
        let mut config = Config::load(path, &self.kinds)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        // A file that is just being written reads as empty, which is a config, but nobody's wish.
        if config.providers.is_empty() {
            return Err(vec![format!("{}: there is no provider in it", path.display())]);
        }
        (self.overrides)(&mut config);
        let current = self.gateway.snapshot();
        for (section, before, after) in [
            (
                "server.listen",
                format!("{:?}", current.config.server.listen),
                format!("{:?}", config.server.listen),
            ),
            (
                "server.workers",
                current.config.server.workers.to_string(),
                config.server.workers.to_string(),
            ),
            (
                "admin.listen",
                current.config.admin.listen.to_string(),
                config.admin.listen.to_string(),
            ),
            (
                "store.url",
                format!("{:?}", current.config.store.url),
                format!("{:?}", config.store.url),
            ),
        ] {
            if before != after {
                tracing::warn!(section, "this change takes effect at the next start only");
            }
        }
        let kept = (Arc::clone(&current.board), Arc::clone(&current.accounts));
        let kept = (&self.gateway.client, kept.0, kept.1);
        Snapshot::build(config, generation, kept).map_err(|problems| {
            problems.iter().map(|(section, problem)| format!("{section}: {problem}")).collect()
        })
    }
}

/// Tells new budgets of the past.
async fn seed(gateway: Arc<Gateway>) {
    if let Err(error) = gateway.seed(Past::Before).await {
        tracing::error!(%error, "new budgets count from now on only");
    }
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Reloader({:?})", self.path)
    }
}
