//! From the `config.yaml` of `LiteLLM`: models become routes, deployments become targets.

mod deployment;
mod model;
mod router;
mod settings;

use serde_json::Value as Json;

use self::deployment::Deployment;
use self::router::Router;
use super::draft::Draft;
use super::report::Report;
use super::source::{Advice, Source};

const ADVICE: Advice = Advice::new(include_str!("advice.tsv"));

/// How LiteLLM says that a value stands in the environment.
const REFERENCE: &str = "os.environ/";

/// The variable that a value names, if it is such a reference.
fn named(written: &str) -> Option<&str> {
    written.strip_prefix(REFERENCE)
}

/// Whether it is for all models of a provider, by the names that they have there.
fn is_by_its_name(entry: &Json) -> bool {
    let name = entry["model_name"].as_str().filter(|name| name.contains('*'));
    name.is_some() && name == entry["litellm_params"]["model"].as_str()
}

pub(super) fn import(config: Json, report: &Report) -> Draft {
    let mut draft = Draft::default();
    let Some(mut root) = Source::new("", config, report) else { return draft };
    settings::environment(&mut root);
    let mut settings = settings::Settings::read(&mut root, &mut draft);
    let mut router = Router::default();
    let mut entries = root.list("model_list");
    // A name that is not told from its target is the provider's; others of its kind give way.
    entries.sort_by_key(|(_, entry)| !is_by_its_name(entry));
    for (path, entry) in entries {
        let Some(entry) = Source::new(path, entry, report) else { continue };
        if let Some(deployment) = Deployment::read(entry, &settings.defaults, &mut draft) {
            router.add(deployment);
        }
    }
    router.write(&mut settings, &mut draft, report);
    for (key, advice) in [
        ("guardrails", "guards are written by hand: `pattern`, `pii`, `secrets` and others"),
        ("mcp_servers", "MCP servers are not carried over"),
        ("vector_store_registry", "vector stores are not carried over"),
        ("search_tools", "search tools are not carried over"),
        ("credential_list", "name the variable of each key at its provider"),
        ("callback_settings", "see `litellm_settings.callbacks`"),
        ("files_settings", "files go to the provider that keeps them"),
        ("finetune_settings", "fine-tuning is not served"),
        ("include", "put the files into one, and import that"),
        ("worker_registry", "replicas count together in `[store] shared`"),
    ] {
        root.lose(key, advice);
    }
    root.rest(&ADVICE);
    draft
}
