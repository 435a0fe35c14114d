//! Loads, checks and builds a config without serving it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use super::serve::{Fault, certificate, collector, shared};
use super::{complain, complain_all, config_path, load_as_written, located, say};
use crate::config::{self as settings, Agent, Config, StoreUrl};
use crate::gateway::Snapshot;
use crate::net::client::Client;
use crate::provider::{catalog, models};
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
    for warning in located(path.as_deref(), &unpriced(&config)) {
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

/// Agents with a budget in money whose models have no price: a run of theirs asks nobody.
fn unpriced(config: &Config) -> Vec<Fault> {
    let has_price = |provider: &str, model: &str| {
        let kind = config.providers.get(provider).and_then(|it| catalog::find(&it.kind));
        let written = config.models.get(&format!("{provider}/{model}"));
        kind.is_none_or(|kind| models::resolve(kind, model, written).price.is_some())
    };
    let missing = |(name, agent): (&String, &Arc<Agent>)| {
        agent.budget.usd?;
        let route = config.routes.get(&agent.route)?;
        let target = route.targets.iter().find(|it| !has_price(&it.provider, &it.model))?;
        let (provider, model) = (&target.provider, &target.model);
        let message = format!(
            "no run will ask a model: nobody knows what \"{provider}/{model}\" of its route costs; \
             say it as the `price` in [models.\"{provider}/{model}\"], or leave `usd` out"
        );
        Some((format!("agents.{name}.budget.usd"), message))
    };
    config.agents.iter().filter_map(missing).collect()
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn an_agent_with_a_budget_in_money_needs_a_model_with_a_price() {
        let file = |more: &str| {
            let text = format!(
                "[providers.own]\nkind = \"openai-compatible\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
                 [routes.fast]\ntargets = [\"own/x\"]\n[agents.one]\nroute = \"fast\"\n\
                 instructions = \"Help.\"\nbudget = {{ usd = 0.1 }}\n{more}"
            );
            Config::parse(&text, Path::new("switchpoint.toml"), &["openai-compatible"]).unwrap()
        };
        let told = unpriced(&file(""));
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].0, "agents.one.budget.usd");
        let price = "[models.\"own/x\"]\nprice = { input = 1.0, output = 2.0 }\n";
        assert_eq!(unpriced(&file(price)), []);
    }
}
