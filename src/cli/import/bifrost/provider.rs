//! `providers` of Bifrost: each keeps its name, and keys that are more than a secret get a provider
//! of their own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::{ADVICE, plain, secret};
use crate::cli::import::draft::Draft;
use crate::cli::import::report::Report;
use crate::cli::import::source::{self, Source};
use crate::cli::import::values::{seconds, target, whole_weights};
use crate::provider::catalog;

const PROVIDERS: &str = include_str!("providers.tsv");

/// What the file's providers are called here.
#[derive(Debug, Default)]
pub(super) struct Fleet {
    /// Ours for each of theirs, the first one first.
    names: BTreeMap<String, Vec<String>>,
    /// Who serves a model by which name of its own, with its weight; in the order of the file.
    served: Vec<(String, Vec<(String, f64)>)>,
    /// Who of ours serves whatever is asked for, with its weight.
    open: BTreeMap<String, f64>,
}

/// One key of a provider.
struct Key {
    path: String,
    name: String,
    secret: Option<String>,
    models: Vec<String>,
    aliases: Vec<(String, String)>,
    weight: f64,
    /// What stands in a section besides the secret.
    values: Map<String, Json>,
}

/// Their name, ours, and whether it is secret.
type Settings = &'static [(&'static str, &'static str, bool)];

/// Settings of a key that are settings of a provider here.
const CLOUD: [(&str, Settings); 6] = [
    (
        "azure_key_config",
        &[
            ("endpoint", "base_url", false),
            ("api_version", "api_version", false),
            ("client_id", "client_id", true),
            ("client_secret", "client_secret", true),
            ("tenant_id", "tenant_id", true),
        ],
    ),
    (
        "bedrock_key_config",
        &[
            ("region", "region", false),
            ("access_key", "access_key_id", true),
            ("secret_key", "secret_access_key", true),
            ("session_token", "session_token", true),
        ],
    ),
    ("vertex_key_config", &[("project_id", "project", false), ("region", "location", false)]),
    ("ollama_key_config", &[("url", "base_url", false)]),
    ("sgl_key_config", &[("url", "base_url", false)]),
    ("vllm_key_config", &[("url", "base_url", false)]),
];

impl Fleet {
    /// What a provider of theirs is called here.
    pub(super) fn ours(&self, theirs: &str) -> &[String] {
        self.names.get(theirs).map(Vec::as_slice).unwrap_or_default()
    }

    /// Who serves a model of a provider of theirs, and by which name, with their weights.
    pub(super) fn targets(&self, theirs: &str, model: &str) -> Vec<(String, f64)> {
        let ours = self.ours(theirs);
        let of = |(target, _): &&(String, f64)| {
            target.split_once('/').is_some_and(|(provider, _)| ours.iter().any(|it| it == provider))
        };
        let served = self.served.iter().filter(|(name, _)| name == model);
        let served: Vec<_> = served.flat_map(|(_, targets)| targets).filter(of).cloned().collect();
        if !served.is_empty() {
            return served;
        }
        let any = model == "*" || !ours.iter().any(|provider| self.open.contains_key(provider));
        let open = ours.iter().filter(|provider| any || self.open.contains_key(*provider));
        let weight = |provider| self.open.get(provider).copied().unwrap_or(1.0);
        open.map(|provider| (format!("{provider}/{model}"), weight(provider))).collect()
    }

    pub(super) fn read(&mut self, name: &str, mut section: Source<'_>, draft: &mut Draft) {
        let report = section.report;
        let Some((kind, behind, home)) = kind(name, &mut section) else {
            let text = "is no provider that is known here; any server that speaks OpenAI's API is \
                        `kind = \"openai-compatible\"` with a `base_url`. It was left out";
            return report.todo(&section.path, text);
        };
        let mut shared = Map::from_iter([("kind".to_owned(), json!(kind))]);
        if !home.is_empty() && home != "?" {
            shared.insert("base_url".to_owned(), json!(home));
        }
        network(&mut section, behind, &mut shared);
        let mut keys = Vec::new();
        for (path, value) in section.list("keys") {
            let Some(key) = Source::new(path, value, report) else { continue };
            keys.push(Key::read(key, name, behind));
        }
        let path = section.path.clone();
        section.rest(&ADVICE);
        let named: BTreeSet<String> = keys.iter().flat_map(|key| key.models.clone()).collect();
        let needs_address = home == "?" || kind == catalog::ANY;
        let placeholder = format!("https://{}.invalid", source::section_name(name));
        for (values, group) in groups(keys) {
            let mut all = shared.clone();
            all.extend(values);
            if needs_address && !all.contains_key("base_url") {
                report.todo(&path, format!("says no address; put it where `{placeholder}` stands"));
                all.insert("base_url".to_owned(), json!(placeholder));
            }
            self.add(name, all, &group, &named, draft, report);
        }
    }

    /// One section for keys that differ in their secret only. Those that serve all models serve also
    /// what is `named` for others of the provider.
    fn add(
        &mut self,
        name: &str,
        mut values: Map<String, Json>,
        group: &[Key],
        named: &BTreeSet<String>,
        draft: &mut Draft,
        report: &Report,
    ) {
        let known = self.names.entry(name.to_owned()).or_default();
        let wanted = match (known.is_empty(), group.first()) {
            (false, Some(key)) => source::section_name(&format!("{name}-{}", key.name)),
            _ => source::section_name(name),
        };
        let secrets: Vec<&String> = group.iter().filter_map(|key| key.secret.as_ref()).collect();
        match secrets.as_slice() {
            [] => {}
            [one] => drop(values.insert("api_key".to_owned(), json!(one))),
            several => drop(values.insert("api_keys".to_owned(), json!(several))),
        }
        let weights: Vec<f64> = group.iter().map(|key| key.weight).collect();
        if let (Some(key), true) =
            (group.first(), whole_weights(weights.iter().copied()).iter().any(Option::is_some))
        {
            let text = "keys of one provider take turns; for shares write a provider for each and \
                        a route with `strategy = \"weighted\"`";
            report.lost(&format!("{}.weight", key.path), text);
        }
        let listed: Vec<&String> =
            group.first().map(|key| key.models.iter().collect()).unwrap_or_default();
        if !listed.is_empty() {
            values.insert("models".to_owned(), json!(listed));
        }
        let ours = draft.fresh("providers", &wanted);
        for (key, value) in values {
            draft.section("providers", &ours).set(&key, value);
        }
        if let Some(key) = group.first().filter(|_| ours != *name) {
            let text = format!(
                "its models or settings are its own, so it is the provider `{ours}` here; clients \
                 that say `{name}/MODEL` do not reach it, routes do"
            );
            report.changed(&key.path, text);
        }
        let weight = weights.iter().sum::<f64>();
        if listed.is_empty() {
            self.open.insert(ours.clone(), weight);
        }
        let served = if listed.is_empty() { named.iter().collect() } else { listed };
        let aliases = || group.iter().flat_map(|key| &key.aliases);
        for model in served {
            if !aliases().any(|(alias, _)| alias == model) {
                self.serves(model, format!("{ours}/{model}"), weight);
            }
        }
        for (alias, model) in aliases() {
            self.serves(alias, format!("{ours}/{model}"), weight);
        }
        self.names.entry(name.to_owned()).or_default().push(ours);
    }

    fn serves(&mut self, name: &str, target: String, weight: f64) {
        match self.served.iter_mut().find(|(known, _)| known == name) {
            Some((_, targets)) if targets.iter().any(|(known, _)| *known == target) => {}
            Some((_, targets)) => targets.push((target, weight)),
            None => self.served.push((name.to_owned(), vec![(target, weight)])),
        }
    }

    /// A route for each model that several sections serve, or another one than clients name.
    pub(super) fn routes(&self, draft: &mut Draft, report: &Report) {
        for (name, targets) in &self.served {
            let alone = targets.len() == 1;
            let is_named = |theirs: &String| targets[0].0 == format!("{theirs}/{name}");
            if alone && self.names.keys().any(is_named) {
                continue;
            }
            let route = draft.fresh("routes", &source::section_name(name));
            let weights = whole_weights(targets.iter().map(|(_, weight)| *weight));
            let section = draft.section("routes", &route);
            for ((name, _), weight) in targets.iter().zip(weights) {
                section.push("targets", target(name, weight.filter(|_| !alone)));
            }
            if !alone {
                section.set("strategy", "weighted");
            }
            let text = format!("several keys or another name serve it: clients ask for `{route}`");
            report.changed(&format!("model {name}"), text);
        }
    }
}

/// The kind, what its base URL needs, and where it is.
fn kind(
    name: &str,
    section: &mut Source<'_>,
) -> Option<(&'static str, &'static str, &'static str)> {
    let mut custom = section.table("custom_provider_config");
    let base = custom.as_mut().and_then(|custom| custom.text("base_provider_type"));
    if let Some(mut custom) = custom {
        custom.lose("allowed_requests", "what is not served is refused by the provider itself");
        custom.lose("request_path_overrides", "write the path into `base_url`");
        custom.lose("is_key_less", "a provider without `api_key` sends none");
        custom.rest(&ADVICE);
    }
    let is_custom = base.is_some();
    let wanted = base.unwrap_or_else(|| name.to_owned());
    let lines = PROVIDERS.lines().filter(|line| !line.starts_with('#'));
    lines.into_iter().find_map(|line| {
        let mut cells = line.split('\t');
        let mut cell = || cells.next().unwrap_or_default();
        let (known, kind, behind, home) = (cell(), cell(), cell(), cell());
        (known == wanted).then_some((kind, behind, if is_custom { "" } else { home }))
    })
}

/// Keys with the same settings, in the order of the file.
fn groups(keys: Vec<Key>) -> Vec<(Map<String, Json>, Vec<Key>)> {
    let mut groups: Vec<(Map<String, Json>, Vec<Key>)> = Vec::new();
    for key in keys {
        let same = |(values, group): &&mut (Map<String, Json>, Vec<Key>)| {
            let alike = group.iter().all(|other| {
                other.models == key.models && other.aliases == key.aliases && other.secret.is_some()
            });
            *values == key.values && alike && key.secret.is_some()
        };
        match groups.iter_mut().find(same) {
            Some((_, group)) => group.push(key),
            None => groups.push((key.values.clone(), vec![key])),
        }
    }
    if groups.is_empty() { vec![(Map::new(), Vec::new())] } else { groups }
}

/// What Bifrost's address lacks, or has too much.
fn address(found: &str, behind: &str) -> String {
    let found = found.trim_end_matches('/');
    match (behind.strip_prefix('+'), behind.strip_prefix('-')) {
        (Some(more), _) if !found.ends_with(more) => format!("{found}{more}"),
        (_, Some(less)) => found.strip_suffix(less).unwrap_or(found).to_owned(),
        _ => found.to_owned(),
    }
}

fn network(section: &mut Source<'_>, behind: &str, values: &mut Map<String, Json>) {
    if let Some(mut network) = section.table("network_config") {
        let path = network.at("base_url");
        if let Some(found) = plain(&mut network, "base_url", "https://base-url.invalid") {
            let found = source::without_userinfo(&path, &found, network.report);
            values.insert("base_url".to_owned(), json!(address(&found, behind)));
        }
        let mut timeouts = Map::new();
        for (theirs, ours) in [
            ("stream_idle_timeout_in_seconds", "idle"),
            ("default_request_timeout_in_seconds", "total"),
        ] {
            if let Some(time) = network.number(theirs).and_then(seconds) {
                timeouts.insert(ours.to_owned(), json!(time));
            }
        }
        if !timeouts.is_empty() {
            values.insert("timeouts".to_owned(), Json::Object(timeouts));
        }
        if let Some(headers) = network.table("extra_headers") {
            values.insert("headers".to_owned(), Json::Object(sent(headers)));
        }
        network.rest(&ADVICE);
    }
    if let Some(mut sizes) = section.table("concurrency_and_buffer_size") {
        if let Some(most) = sizes.count("concurrency") {
            values.insert("limits".to_owned(), json!({"concurrency": most}));
        }
        sizes.rest(&ADVICE);
    }
    if let Some(mut proxy) = section.table("proxy_config") {
        let path = proxy.at("url");
        if let Some(url) = plain(&mut proxy, "url", "http://proxy.invalid:3128") {
            let url = source::without_userinfo(&path, &url, proxy.report);
            if url.starts_with("http://") || url.starts_with("https://") {
                values.insert("proxy".to_owned(), json!(url));
            } else {
                proxy.report.lost(&path, "proxies are HTTP proxies here");
            }
        }
        drop(proxy.take("type"));
        proxy.lose("username", "a proxy is not shown a user; let it know the gateway's address");
        proxy.lose("password", "a proxy is not shown a user; let it know the gateway's address");
        proxy.rest(&ADVICE);
    }
}

/// Headers that go with every call. Each may be secret.
fn sent(mut headers: Source<'_>) -> Map<String, Json> {
    let mut sent = Map::new();
    for (name, _) in headers.names() {
        let value = secret(&mut headers, &name, &format!("HEADER_{name}"));
        sent.extend(value.map(|value| (name.to_ascii_lowercase(), json!(value))));
    }
    sent
}

impl Key {
    fn read(mut from: Source<'_>, provider: &str, behind: &str) -> Self {
        let name = from.text("name").or_else(|| from.text("id")).unwrap_or_default();
        drop(from.take("id"));
        let usual = format!("{provider}_{name}_API_KEY");
        let secret = secret(&mut from, "value", &usual);
        let all = |model: &String| model == "*";
        let mut models = from.texts("models");
        if models.iter().any(all) {
            models.clear();
        }
        let mut aliases = Vec::new();
        if let Some(mut table) = from.table("aliases") {
            for (alias, path, value) in table.entries() {
                let model = ["model_id", "deployment", "model_name"]
                    .iter()
                    .find_map(|key| value[*key].as_str())
                    .or(value.as_str());
                match model {
                    Some(model) => aliases.push((alias, model.to_owned())),
                    None => from.report.todo(&path, "names no model; it was left out"),
                }
            }
        }
        let mut values = Map::new();
        for (table, settings) in CLOUD {
            if let Some(section) = from.table(table) {
                cloud(section, settings, &mut values, &mut aliases, behind);
            }
        }
        // What is asked by another name is not listed by its own.
        models.retain(|model| !aliases.iter().any(|(alias, _)| alias == model));
        let weight = from.number("weight").unwrap_or(1.0);
        let path = from.path.clone();
        from.rest(&ADVICE);
        Self { path, name, secret, models, aliases, weight, values }
    }
}

fn cloud(
    mut section: Source<'_>,
    settings: Settings,
    values: &mut Map<String, Json>,
    aliases: &mut Vec<(String, String)>,
    behind: &str,
) {
    for (theirs, ours, is_secret) in settings {
        let value = match (*is_secret, *ours) {
            (true, _) => secret(&mut section, theirs, ours),
            (false, "base_url") => {
                let found = plain(&mut section, theirs, "https://endpoint.invalid");
                found.map(|found| address(&found, behind))
            }
            (false, _) => plain(&mut section, theirs, "unset"),
        };
        values.extend(value.map(|value| ((*ours).to_owned(), json!(value))));
    }
    // The older place of aliases.
    if let Some(mut table) = section.table("deployments") {
        for (alias, _, value) in table.entries() {
            if let Some(model) = value.as_str().filter(|model| *model != alias) {
                aliases.push((alias, model.to_owned()));
            }
        }
    }
    section.lose(
        "auth_credentials",
        "put the service account into a file and name it as `credentials` of the provider",
    );
    section.rest(&ADVICE);
}
