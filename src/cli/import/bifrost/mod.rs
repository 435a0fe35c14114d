//! From the `config.json` of Bifrost: its providers keep their names, its virtual keys become keys.

mod governance;
mod provider;
mod window;

use serde_json::Value as Json;

use super::draft::Draft;
use super::report::Report;
use super::source::{self, Advice, Source};

const ADVICE: Advice = Advice::new(include_str!("advice.tsv"));

/// How Bifrost says that a value stands in the environment.
const REFERENCE: &str = "env.";

/// The variable that a value names, if it is such a reference.
fn named(written: &str) -> Option<&str> {
    let name = written.strip_prefix(REFERENCE)?;
    (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .then_some(name)
}

/// A secret that may be absent, empty, in clear, or somewhere else.
fn secret(from: &mut Source<'_>, key: &str, usual: &str) -> Option<String> {
    let path = from.at(key);
    let written = match from.take(key)? {
        // The newer form says where the value is.
        Json::Object(members) => {
            let mut told = Source::new(path.as_str(), Json::Object(members), from.report)?;
            drop((told.take("from_env"), told.take("type"), told.take("ref")));
            let (variable, value) = (told.text("env_var"), told.text("value"));
            told.rest(&ADVICE);
            match variable.filter(|variable| !variable.is_empty()) {
                Some(variable) => format!("env.{}", variable.trim_start_matches("env.")),
                None => value.unwrap_or_default(),
            }
        }
        Json::String(text) => text,
        _ => return None,
    };
    if written.is_empty() {
        return None;
    }
    if written.starts_with("vault.") {
        let variable = source::variable_name(usual);
        from.report.todo(&path, format!("stands in a vault; set {variable} to it"));
        from.report.needs(&variable);
        return Some(format!("env:{variable}"));
    }
    Some(source::secret(&path, &written, named(&written), usual, from.report))
}

/// Text that may stand in the environment.
fn plain(from: &mut Source<'_>, key: &str, otherwise: &str) -> Option<String> {
    let path = from.at(key);
    let written = from.text(key).filter(|written| !written.is_empty())?;
    Some(source::plain(&path, &written, named(&written), otherwise, from.report))
}

pub(super) fn import(config: Json, report: &Report) -> Draft {
    let mut draft = Draft::default();
    let Some(mut root) = Source::new("", config, report) else { return draft };
    drop(root.take("$schema"));
    // Before this version an empty list let everything through.
    let lenient = root.number("version") == Some(1.0);
    let mut fleet = provider::Fleet::default();
    if let Some(mut providers) = root.table("providers") {
        for (name, path, value) in providers.entries() {
            if let Some(section) = Source::new(path, value, report) {
                fleet.read(&name, section, &mut draft);
            }
        }
    }
    fleet.routes(&mut draft, report);
    if let Some(governance) = root.table("governance") {
        governance::read(governance, &fleet, lenient, &mut draft);
    }
    if let Some(client) = root.table("client") {
        read_client(client, &mut draft);
    }
    for (path, plugin) in root.list("plugins") {
        let name = plugin["name"].as_str().unwrap_or_default();
        report.lost(&path, plugin_advice(name));
    }
    for (key, advice) in [
        ("config_store", "this file is the config; what is made at run time is in `[store] url`"),
        ("logs_store", "calls are rows of the ledger in `[store] url`"),
        ("vector_store", "nothing of the kind is needed to route calls"),
        ("encryption_key", "secrets stay in the environment and are not stored"),
        ("auth_config", "operators show the key of `[admin] key`"),
        ("source_of_truth", "this file is the config, whatever the store holds"),
        ("env_label", "it was for display"),
        ("framework", "prices are built in; write `price` at a model to change one"),
        ("mcp", "MCP servers are not carried over"),
        ("server", "there is nothing of the kind to set"),
        ("websocket", "a WebSocket is refused at once"),
        ("cluster_config", "replicas count together in `[store] shared`"),
        ("guardrails_config", "guards are written by hand: `pattern`, `pii`, `secrets` and others"),
        ("load_balancer_config", "`strategy = \"fastest\"` goes by the time to the first token"),
        ("audit_logs", "`switchpoint audit verify` checks the trail of changes"),
        ("scim_config", "`[auth.oidc.NAME]` takes tokens of an identity provider"),
    ] {
        root.lose(key, advice);
    }
    root.rest(&ADVICE);
    draft
}

fn read_client(mut client: Source<'_>, draft: &mut Draft) {
    if let Some(most) = client.count("max_request_body_size_mb") {
        draft.section("server", "").set("max_body", format!("{most}MiB"));
    }
    if let Some(days) = client.count("log_retention_days") {
        draft.section("store", "").set("retention", format!("{}d", days.min(365)));
    }
    client.rest(&ADVICE);
}

fn plugin_advice(name: &str) -> String {
    let advice = match name {
        "semantic_cache" | "semanticcache" => {
            "the response cache is off until it is switched on, per route and per call"
        }
        "otel" => "traces are switched on by `[telemetry] otlp`, where this version has it",
        "telemetry" => "metrics are Prometheus's at /metrics of the admin listener",
        "governance" => "every call needs a key",
        "logging" => "calls are rows of the ledger and lines of the log",
        _ => "plugins are not loaded",
    };
    format!("`{name}`: {advice}")
}
