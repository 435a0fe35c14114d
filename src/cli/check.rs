//! Loads, checks and builds a config without serving it.

use std::path::PathBuf;
use std::process::ExitCode;

use super::serve::{Fault, certificate, collector, shared};
use super::{complain, complain_all, config_path, load_as_written, located, say};
use crate::config::{self as settings, Config, StoreUrl};
use crate::gateway::Snapshot;
use crate::net::client::Client;
use crate::store::Store;
use crate::telemetry::Metrics;

pub(super) fn run(file: Option<PathBuf>) -> ExitCode {
    let path = config_path(file);
    let config = match load_as_written(path.as_deref()) {
        Ok(config) => config,
        Err(problems) => return complain_all(&problems),
    };
    for warning in &config.warnings {
        complain(&format!("warning: {warning}"));
    }
    for (reference, found) in &config.references {
        complain(&format!("note: {}: {reference} is not fetched by a check", found.path));
    }
    let counts = (config.providers.len(), config.routes.len(), config.keys.len());
    let agents = config.agents.len();
    let client = Client::new(1);
    let mut problems = files(&config, &client);
    problems.extend(parts(config, &client).err().unwrap_or_default());
    if !problems.is_empty() {
        return complain_all(&located(path.as_deref(), &problems));
    }
    let (providers, routes, keys) = counts;
    let agents = if agents == 0 { String::new() } else { format!(", {agents} agents") };
    say(&format!("ok: {providers} providers, {routes} routes, {keys} keys{agents}"));
    ExitCode::SUCCESS
}

/// Builds all that a config describes. Tools are made with a store, which is nobody's here.
fn parts(config: Config, client: &Client) -> Result<(), Vec<Fault>> {
    let broken = |error: &dyn std::fmt::Display| vec![(String::new(), error.to_string())];
    let store = Store::open(&settings::Store::at(StoreUrl::Memory)).map_err(|it| broken(&it))?;
    let metrics = Metrics::new().map_err(|it| broken(&it))?;
    Snapshot::check(config, (client, &store, &metrics, None))
}

/// What is wrong with the files that only a start needs. Nobody is connected to, and no database is
/// opened.
pub(super) fn files(config: &Config, client: &Client) -> Vec<Fault> {
    let of_store = |failure: crate::store::Failure| ("store".to_owned(), failure.to_string());
    let faults = [
        certificate(config).err(),
        Store::check(&config.store).err().map(of_store),
        shared(&config.store).err(),
        collector(config, client).err(),
    ];
    faults.into_iter().flatten().collect()
}
