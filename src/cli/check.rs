//! Loads, checks and builds a config without serving it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::{complain, complain_all, config_path, load_as_written, located, say};
use crate::gateway::Snapshot;
use crate::net::client::Client;

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
    match Snapshot::build(config, 0, (&Client::new(1), Arc::default(), Arc::default())) {
        Ok(_) => {
            let (providers, routes, keys) = counts;
            let agents = if agents == 0 { String::new() } else { format!(", {agents} agents") };
            say(&format!("ok: {providers} providers, {routes} routes, {keys} keys{agents}"));
            ExitCode::SUCCESS
        }
        Err(problems) => complain_all(&located(path.as_deref(), &problems)),
    }
}
