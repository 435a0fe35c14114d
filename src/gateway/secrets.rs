//! The secrets that other systems keep for the config: fetched before it is served, fetched again in
//! the background, and remembered while they cannot be had.

use std::path::Path;
use std::sync::Arc;

use super::generations::How;
use super::reload::{Origin, Reloader, told};
use crate::config::{Config, Known, Manager, Problem};
use crate::net::client::Client;
use crate::provider::secrets::{Managers, Round};
use crate::telemetry::Metrics;

/// As whom the history knows secrets that were changed where they are kept.
const BY: &str = "secrets";

/// What is known of the secrets of a config, and who was asked for them.
#[derive(Debug)]
pub struct Secrets {
    client: Client,
    known: Known,
    managers: Option<Managers>,
    /// Who was asked, and whether they answered.
    asked: Vec<(Manager, bool)>,
}

// === impl Secrets ===

impl Default for Secrets {
    fn default() -> Self {
        let (known, asked) = (Known::new(), Vec::new());
        Self { client: Client::new(1), known, managers: None, asked }
    }
}

impl Secrets {
    /// Goes on with what is known of the secrets of `config`.
    pub fn of(config: &Config) -> Self {
        let found = config.references.iter();
        let known = found.filter_map(|(name, found)| Some((name.clone(), found.value.clone()?)));
        Self { known: known.collect(), ..Self::default() }
    }

    /// Checks `text`, with all its secrets fetched. One that cannot be had is as it was before; one
    /// that was never had is a problem.
    pub async fn load(
        &mut self,
        text: &str,
        origin: &Path,
        kinds: &[&str],
    ) -> Result<Config, Vec<Problem>> {
        let config = Config::parse(text, origin, kinds)?;
        if config.references.is_empty() {
            return Ok(config);
        }
        let problems = self.fetch(&config, origin).await;
        if !problems.is_empty() {
            return Err(problems);
        }
        Config::parse_knowing(text, origin, &self.known, kinds)
    }

    async fn fetch(&mut self, config: &Config, origin: &Path) -> Vec<Problem> {
        if self.managers.as_ref().is_none_or(|opened| *opened.settings() != config.secrets) {
            self.managers = Some(Managers::new(config.secrets.clone(), self.client.clone()));
        }
        let (mut problems, mut round) = (Vec::new(), Round::default());
        let Some(managers) = &mut self.managers else { return problems };
        for (reference, found) in &config.references {
            let fetched = managers.fetch(reference, &mut round).await;
            self.asked.push((reference.manager, fetched.is_ok()));
            match fetched {
                Ok(secret) => {
                    self.known.insert(reference.clone(), secret);
                }
                Err(fault) if self.known.contains_key(reference) => {
                    tracing::warn!(secret = %reference, %fault, "a secret stays as it was known");
                }
                Err(fault) => problems.push(Problem {
                    file: origin.to_path_buf(),
                    line: found.line,
                    path: found.path.clone(),
                    message: format!("{reference}: {fault}"),
                }),
            }
        }
        self.known.retain(|reference, _| config.references.contains_key(reference));
        problems.sort_by_key(|problem| problem.line);
        problems
    }

    /// Puts into the metrics who was asked since.
    pub(super) fn show(&mut self, metrics: &Metrics) {
        for (manager, answered) in self.asked.drain(..) {
            let outcome = if answered { "fetched" } else { "failed" };
            metrics.secret_fetches.with_label_values(&[manager.prefix(), outcome]).inc();
            let up = metrics.secrets_up.with_label_values(&[manager.prefix()]);
            up.set(f64::from(u8::from(answered)));
        }
    }
}

// === impl Reloader ===

impl Reloader {
    /// Fetches the secrets of the config anew for as long as the process lives, and reads the files
    /// again that hold some. Where one has changed, the same config is served with it.
    pub async fn keep_secrets(self: Arc<Self>) {
        loop {
            // Not within the same statement, which would keep the snapshot until it is over.
            let refresh = self.gateway().snapshot().config.secrets.refresh;
            tokio::time::sleep(refresh).await;
            self.renew_secrets().await;
        }
    }

    async fn renew_secrets(&self) {
        let live = self.gateway().snapshot();
        let text = live.config.text.whole();
        if text.is_empty() {
            return;
        }
        // Whoever keeps them may be slow, and nobody who changes the config waits for that.
        let renewed = self.parse(text).await.map(|config| self.settle(config));
        let _gate = self.gate().lock().await;
        // What is on trial is not to be judged by a secret that changes meanwhile.
        if !Arc::ptr_eq(&live, &self.gateway().snapshot()) || self.gateway().trial().is_some() {
            return;
        }
        let draft = match renewed {
            Ok(config) if config == live.config => return,
            Ok(config) => self.draft(config),
            Err(problems) => Err(problems),
        };
        match draft {
            Ok(mut draft) => {
                // The store was taken as it is, whatever the text says of it.
                let of_store = live.at_next_start.iter().filter(|name| name.starts_with("store."));
                draft.at_next_start.extend(of_store);
                let ephemeral = self.status().ephemeral;
                let origin = Origin { how: How::Secrets, by: BY, ephemeral, of: None };
                self.serve(draft, origin).await;
            }
            Err(problems) => {
                for problem in told(&problems) {
                    tracing::warn!(%problem, "secrets stay as they were known");
                }
            }
        }
    }
}
