//! What LiteLLM says once for all models: `litellm_settings`, `router_settings`, `general_settings`.

use serde_json::Value as Json;

use super::deployment::Defaults;
use super::{ADVICE, named};
use crate::cli::import::draft::Draft;
use crate::cli::import::report::Report;
use crate::cli::import::source::{self, Source};
use crate::cli::import::values::seconds;

/// What holds for all routes.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub(super) defaults: Defaults,
    pub(super) retries: Option<u64>,
    pub(super) strategy: Option<(String, String)>,
    /// The kind of a fallback here, for which model, and to which others; with its path.
    pub(super) fallbacks: Vec<Fallback>,
    /// Other names of models: the name, the model, and the path.
    pub(super) aliases: Vec<(String, String, String)>,
}

#[derive(Debug)]
pub(super) struct Fallback {
    pub(super) path: String,
    pub(super) kind: &'static str,
    /// `*` for every model that has none of its own.
    pub(super) from: String,
    pub(super) to: Vec<String>,
}

/// Which of our fallbacks each of theirs is.
const FALLBACKS: [(&str, &str); 3] = [
    ("fallbacks", "general"),
    ("context_window_fallbacks", "context"),
    ("content_policy_fallbacks", "content_filter"),
];

/// Variables that LiteLLM sets for itself. Their values may be secret.
pub(super) fn environment(root: &mut Source<'_>) {
    let Some(mut variables) = root.table("environment_variables") else { return };
    for (_, path, _) in variables.entries() {
        root.report.lost(&path, "a config sets no variables here; set it where the gateway starts");
    }
}

// === impl Settings ===

impl Settings {
    pub(super) fn read(root: &mut Source<'_>, draft: &mut Draft) -> Self {
        let mut settings = Self::default();
        if let Some(mut router) = root.table("router_settings") {
            settings.take_shared(&mut router);
            settings.defaults.timeout = router.number("timeout").or(settings.defaults.timeout);
            settings.defaults.stream_timeout = router.number("stream_timeout");
            let path = router.at("routing_strategy");
            settings.strategy = router.text("routing_strategy").map(|name| (path, name));
            settings.take_aliases(&mut router);
            router.rest(&ADVICE);
        }
        if let Some(mut litellm) = root.table("litellm_settings") {
            settings.take_shared(&mut litellm);
            if settings.defaults.timeout.is_some() {
                litellm.lose("request_timeout", "`router_settings.timeout` goes before it");
            }
            let timeout = litellm.number("request_timeout");
            settings.defaults.timeout = settings.defaults.timeout.or(timeout);
            cache(&mut litellm, draft);
            settings.take_aliases(&mut litellm);
            litellm.rest(&ADVICE);
        }
        let general = root.table("general_settings");
        if general.as_ref().is_none_or(|general| !general.has("master_key")) {
            let text = "is absent, so anybody could call; here every call needs a key: one is made \
                        at the start and shown once, unless `[keys]` has some";
            root.report.changed("general_settings.master_key", text);
        }
        if let Some(general) = general {
            general_settings(general, draft);
        }
        settings
    }

    /// What may stand in either of the two sections.
    fn take_shared(&mut self, section: &mut Source<'_>) {
        if section.has("num_retries") {
            let text = "`attempts` of a route counts over keys, retries, targets and fallbacks";
            section.changed("num_retries", text);
            let retries = section.number("num_retries").unwrap_or_default();
            self.retries = self.retries.or_else(|| format!("{retries:.0}").parse().ok());
        }
        for (theirs, kind) in FALLBACKS {
            let tables = section.list(theirs).into_iter();
            let tables =
                tables.filter_map(|(path, table)| Source::new(path, table, section.report));
            self.fallbacks.extend(tables.flat_map(|table| of_kind(kind, table)));
        }
        let path = section.at("default_fallbacks");
        let to = section.texts("default_fallbacks");
        if !to.is_empty() {
            self.fallbacks.push(Fallback { path, kind: "general", from: "*".to_owned(), to });
        }
    }

    fn take_aliases(&mut self, section: &mut Source<'_>) {
        for key in ["model_group_alias", "model_alias_map"] {
            let Some(mut table) = section.table(key) else { continue };
            for (alias, path, value) in table.entries() {
                let model = match value {
                    Json::String(model) => Some(model),
                    other => alias_model(other, &path, section.report),
                };
                match model {
                    Some(model) => self.aliases.push((alias, model, path)),
                    None => section.report.todo(&path, "names no model; it was left out"),
                }
            }
        }
    }
}

/// The fallbacks of one kind that a table names.
fn of_kind(kind: &'static str, mut table: Source<'_>) -> Vec<Fallback> {
    let names = table.names().into_iter();
    let fallback = names.map(|(from, path)| {
        let to = table.texts(&from);
        Fallback { path, kind, from, to }
    });
    fallback.collect()
}

/// The model of an alias that says more.
fn alias_model(value: Json, path: &str, report: &Report) -> Option<String> {
    let mut alias = Source::new(path, value, report)?;
    let model = alias.text("model");
    if alias.flag("hidden") == Some(true) {
        report.changed(path, "is listed in /v1/models like every route that a key may call");
    }
    alias.rest(&ADVICE);
    model
}

/// The response cache. Of its stores there is memory, and the Redis of `[store] shared`.
fn cache(litellm: &mut Source<'_>, draft: &mut Draft) {
    let is_on = litellm.flag("cache") == Some(true);
    let parameters = litellm.table("cache_params");
    if !is_on {
        return parameters.map_or((), |parameters| parameters.rest(&ADVICE));
    }
    let cache = draft.section("cache", "");
    cache.set("mode", "on").set("sampled", true).set("tool_calls", true);
    let text = "is for the same key's same question only; `share = \"all\"` is as it was";
    litellm.report.changed(&litellm.at("cache"), text);
    let Some(mut parameters) = parameters else { return };
    cache.set_some("ttl", parameters.number("ttl").and_then(seconds));
    if parameters.text("mode").as_deref() == Some("default_off") {
        cache.set("mode", "off");
        parameters.changed("mode", "is off; a route that is to have it says `cache`");
    }
    match parameters.text("type").as_deref() {
        None | Some("local" | "redis") => {}
        Some(_) => parameters.report.lost(
            &parameters.at("type"),
            "answers are kept in memory, and in the Redis of `[store] shared`; similar questions \
             by `semantic`",
        ),
    }
    parameters.rest(&ADVICE);
}

fn general_settings(mut general: Source<'_>, draft: &mut Draft) {
    let path = general.at("master_key");
    if let Some(written) = general.text("master_key") {
        let named = named(&written);
        let key = source::secret(&path, &written, named, "LITELLM_MASTER_KEY", general.report);
        draft.section("admin", "").set("key", key.as_str());
        draft
            .section("keys", "master")
            .comment("The master key of before may call everything, and operates the gateway too.")
            .comment("Better give clients keys of their own, with limits and budgets.")
            .set("secret", key);
    }
    if let Some(most) = general.count("global_max_parallel_requests") {
        draft.section("server", "").set("max_in_flight", most);
    }
    if let Some(most) = general.number("max_request_size_mb").filter(|most| *most >= 1.0) {
        draft.section("server", "").set("max_body", format!("{most:.0}MiB"));
    }
    if let Some(days) = general.text("maximum_spend_logs_retention_period") {
        let is_known = days.ends_with(['s', 'm', 'h', 'd']) && days.len() > 1;
        let digits = days.trim_end_matches(['s', 'm', 'h', 'd']);
        if is_known && digits.parse::<u64>().is_ok_and(|count| count > 0) {
            draft.section("store", "").set("retention", days);
        } else {
            general.changed("maximum_spend_logs_retention_period", "write `[store] retention`");
        }
    }
    if let Some(most) = general.count("max_parallel_requests") {
        let text = format!("write `limits = {{ concurrency = {most} }}` at each model or provider");
        general.report.lost(&general.at("max_parallel_requests"), text);
    }
    general.rest(&ADVICE);
}
