//! One entry of `model_list`: a model of a provider, and under which name clients ask for it.

use serde_json::{Map, Value as Json, json};

use super::model::{self, Model};
use super::{ADVICE, named};
use crate::cli::import::draft::Draft;
use crate::cli::import::source::{self, Source};
use crate::cli::import::values::{per_million, seconds};

/// What holds for every deployment that does not say otherwise.
#[derive(Debug, Default)]
pub(super) struct Defaults {
    pub(super) timeout: Option<f64>,
    pub(super) stream_timeout: Option<f64>,
}

#[derive(Debug)]
pub(super) struct Deployment {
    pub(super) path: String,
    /// What clients ask for.
    pub(super) group: String,
    pub(super) provider: String,
    pub(super) model: String,
    pub(super) weight: Option<f64>,
    /// Requests or tokens a minute.
    pub(super) pace: Option<f64>,
    pub(super) order: Option<u64>,
    /// Of what is asked of one answer at most.
    pub(super) max_output: Option<u64>,
}

/// Headers that are known to hold no secret.
const HARMLESS: [&str; 8] = [
    "anthropic-beta",
    "anthropic-version",
    "http-referer",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "user-agent",
    "x-title",
];

/// What people write where a server asks for no key.
const PLACEHOLDERS: [&str; 8] =
    ["", "none", "empty", "dummy", "fake", "fake-key", "not-needed", "sk-1234"];

/// Settings whose name is the same here, and which are secret or not.
const CLOUD: [(&str, &str, bool); 10] = [
    ("aws_access_key_id", "access_key_id", true),
    ("aws_secret_access_key", "secret_access_key", true),
    ("aws_session_token", "session_token", true),
    ("aws_region_name", "region", false),
    ("aws_profile_name", "profile", false),
    ("vertex_project", "project", false),
    ("vertex_location", "location", false),
    ("tenant_id", "tenant_id", false),
    ("client_id", "client_id", false),
    ("client_secret", "client_secret", true),
];

// === impl Deployment ===

impl Deployment {
    pub(super) fn read(
        mut entry: Source<'_>,
        defaults: &Defaults,
        draft: &mut Draft,
    ) -> Option<Self> {
        let group = entry.text("model_name");
        let params = entry.table("litellm_params");
        let info = entry.table("model_info");
        let (path, report) = (entry.path.clone(), entry.report);
        entry.rest(&ADVICE);
        let (Some(group), Some(mut params)) = (group, params) else {
            report.todo(&path, "needs `model_name` and `litellm_params`; it was left out");
            return None;
        };
        let Some(model) = find_model(&mut params) else {
            report.lost(&params.path, "was left out with its model");
            return None;
        };
        let values = provider(&mut params, &model, defaults);
        let provider = draft.intern("providers", &source::section_name(model.row.kind), &values);
        let name = format!("{provider}/{}", model.name);
        let is_pattern = model.name.contains('*');
        let mut known = Map::new();
        let pace = ["rpm", "tpm"].iter().find_map(|key| params.peek(key)?.as_f64());
        limits(&mut params, &mut known);
        costs(&mut params, info, &mut known);
        if is_pattern && !known.is_empty() {
            report.lost(&path, "limits and prices of a pattern; write them at each model");
        } else if !known.is_empty() {
            let section = draft.section("models", &name);
            known.into_iter().for_each(|(key, value)| {
                section.set(&key, value);
            });
        }
        let deployment = Self {
            path,
            group,
            provider,
            model: model.name,
            weight: params.number("weight"),
            pace,
            order: params.count("order"),
            max_output: params.count("max_tokens"),
        };
        params.rest(&ADVICE);
        Some(deployment)
    }

    /// It is for every model of a pattern.
    pub(super) fn is_pattern(&self) -> bool {
        self.group.contains('*') || self.model.contains('*')
    }

    pub(super) fn target(&self) -> String {
        format!("{}/{}", self.provider, self.model)
    }
}

fn find_model(params: &mut Source<'_>) -> Option<Model> {
    let path = params.at("model");
    let provider = params.text("custom_llm_provider");
    let written = params.text("model")?;
    let written = source::plain(&path, &written, named(&written), "", params.report);
    let Some(model) = model::read(&written, provider.as_deref()) else {
        let text = format!(
            "`{written}` is of no provider that is known here; any server that speaks OpenAI's API \
             is `kind = \"openai-compatible\"` with a `base_url`"
        );
        params.report.todo(&path, format!("{text}. It was left out"));
        return None;
    };
    if model.name.is_empty() {
        let text = format!("`{written}` names no model behind the `/`. It was left out");
        params.report.todo(&path, text);
        return None;
    }
    if !model.row.note.is_empty() {
        params.report.changed(&path, model.row.note);
    }
    Some(model)
}

/// The section of the provider.
fn provider(params: &mut Source<'_>, model: &Model, defaults: &Defaults) -> Map<String, Json> {
    let row = model.row;
    let mut values = Map::from_iter([("kind".to_owned(), json!(row.kind))]);
    if let Some(base_url) = base_url(params, model) {
        values.insert("base_url".to_owned(), json!(base_url));
    }
    let key = params.at("api_key");
    match (params.text("api_key"), row.variable) {
        (Some(written), None) if PLACEHOLDERS.contains(&written.to_lowercase().as_str()) => {}
        (Some(written), usual) => {
            let usual = usual.map_or_else(|| format!("{}_API_KEY", row.kind), str::to_owned);
            let secret = source::secret(&key, &written, named(&written), &usual, params.report);
            values.insert("api_key".to_owned(), json!(secret));
        }
        (None, Some(usual)) if !params.has("client_secret") => {
            params.report.needs(usual);
            values.insert("api_key".to_owned(), json!(format!("env:{usual}")));
        }
        (None, _) => {}
    }
    if let Some(written) = params.text("api_version") {
        let path = params.at("api_version");
        let version = source::plain(&path, &written, named(&written), "2024-10-21", params.report);
        values.insert("api_version".to_owned(), json!(version));
    }
    cloud(params, model, &mut values);
    headers(params, &mut values);
    timeouts(params, defaults, &mut values);
    values
}

fn base_url(params: &mut Source<'_>, model: &Model) -> Option<String> {
    let keys = ["api_base", "base_url", "aws_bedrock_runtime_endpoint"];
    let row = model.row;
    let placeholder = format!("https://{}.invalid", row.name.replace('_', "-"));
    let Some((path, written)) = params.take_any(&keys) else {
        return match row.base_url {
            "?" => {
                let text = format!("is missing; put the address where `{placeholder}` stands");
                params.report.todo(&params.at("api_base"), text);
                Some(placeholder)
            }
            known if known.is_empty() || known.starts_with('+') => None,
            known => Some(known.to_owned()),
        };
    };
    let written = written.as_str()?;
    let found = source::plain(&path, written, named(written), &placeholder, params.report);
    let found = source::without_userinfo(&path, &found, params.report);
    let behind = row.base_url.strip_prefix('+').unwrap_or_default();
    let found = found.trim_end_matches('/');
    Some(if found.ends_with(behind) { found.to_owned() } else { format!("{found}{behind}") })
}

/// What the big clouds want to know.
fn cloud(params: &mut Source<'_>, model: &Model, values: &mut Map<String, Json>) {
    for (theirs, ours, is_secret) in CLOUD {
        let path = params.at(theirs);
        let Some(written) = params.text(theirs) else { continue };
        let value = match named(&written) {
            Some(variable) => {
                params.report.needs(variable);
                format!("env:{variable}")
            }
            None if is_secret => source::secret(&path, &written, None, theirs, params.report),
            None => written,
        };
        values.insert(ours.to_owned(), json!(value));
    }
    if let Some(region) = &model.region {
        values.entry("region").or_insert_with(|| json!(region));
    }
    let path = params.at("vertex_credentials");
    match params.text("vertex_credentials") {
        Some(written) if written.trim_start().starts_with('{') => {
            let text = "a service account is written there in clear; put it into a file and name \
                        it as `credentials` of the provider";
            params.report.todo(&path, text);
        }
        Some(written) => {
            let variable = named(&written).map(|name| {
                let text = format!(
                    "a file is read here: if {name} holds the account itself, put that into a file \
                     and set {name} to its path"
                );
                params.report.todo(&path, text);
                params.report.needs(name);
                format!("env:{name}")
            });
            values.insert("credentials".to_owned(), json!(variable.unwrap_or(written)));
        }
        None => {}
    }
}

fn headers(params: &mut Source<'_>, values: &mut Map<String, Json>) {
    let mut headers = Map::new();
    if let Some(organization) = params.text("organization") {
        let written = match named(&organization) {
            Some(name) => format!("env:{name}"),
            None => organization,
        };
        headers.insert("openai-organization".to_owned(), json!(written));
    }
    for key in ["extra_headers", "headers"] {
        let Some(mut table) = params.table(key) else { continue };
        for (name, path, value) in table.entries() {
            let Some(written) = value.as_str() else { continue };
            let lower = name.to_ascii_lowercase();
            let value = if HARMLESS.contains(&lower.as_str()) && named(written).is_none() {
                written.to_owned()
            } else {
                let usual = format!("HEADER_{lower}");
                source::secret(&path, written, named(written), &usual, params.report)
            };
            headers.insert(lower, json!(value));
        }
    }
    if !headers.is_empty() {
        values.insert("headers".to_owned(), Json::Object(headers));
    }
}

fn timeouts(params: &mut Source<'_>, defaults: &Defaults, values: &mut Map<String, Json>) {
    let (total, first) = (params.number("timeout"), params.number("stream_timeout"));
    let mut timeouts = Map::new();
    if let Some(first) = first.or(defaults.stream_timeout).and_then(seconds) {
        timeouts.insert("first_token".to_owned(), json!(first));
    }
    if let Some(total) = total.or(defaults.timeout).and_then(seconds) {
        timeouts.insert("total".to_owned(), json!(total));
    }
    if !timeouts.is_empty() {
        values.insert("timeouts".to_owned(), Json::Object(timeouts));
    }
}

fn limits(params: &mut Source<'_>, known: &mut Map<String, Json>) {
    let mut limits = Map::new();
    for (theirs, ours) in [("rpm", "requests"), ("tpm", "tokens")] {
        if let Some(count) = params.count(theirs) {
            limits.insert(ours.to_owned(), json!(format!("{count}/m")));
            let text = "is a limit here, which no call goes beyond; there it was a weight unless \
                        limits were enforced";
            params.changed(theirs, text);
        }
    }
    if let Some(count) = params.count("max_parallel_requests") {
        limits.insert("concurrency".to_owned(), json!(count));
    }
    if !limits.is_empty() {
        known.insert("limits".to_owned(), Json::Object(limits));
    }
}

/// What the model costs and can take.
fn costs(params: &mut Source<'_>, info: Option<Source<'_>>, known: &mut Map<String, Json>) {
    const RATES: [(&str, &str); 7] = [
        ("input_cost_per_token", "input"),
        ("output_cost_per_token", "output"),
        ("cache_read_input_token_cost", "cache_read"),
        ("cache_creation_input_token_cost", "cache_write"),
        ("output_cost_per_reasoning_token", "reasoning"),
        ("input_cost_per_audio_token", "audio_input"),
        ("output_cost_per_audio_token", "audio_output"),
    ];
    let mut info = info;
    let mut price = Map::new();
    for (theirs, ours) in RATES {
        let told = info.as_mut().and_then(|info| info.number(theirs));
        if let Some(rate) = params.number(theirs).or(told) {
            price.insert(ours.to_owned(), per_million(rate));
        }
    }
    if !price.is_empty() {
        let free = price.values().all(|rate| rate.as_f64() == Some(0.0));
        price.entry("input").or_insert_with(|| json!(0));
        price.entry("output").or_insert_with(|| json!(0));
        known.insert("price".to_owned(), if free { json!("free") } else { Json::Object(price) });
    }
    let Some(mut info) = info else { return };
    let most = info.count("max_output_tokens");
    known.extend(info.count("max_input_tokens").map(|count| ("context".to_owned(), json!(count))));
    let usual = info.count("max_tokens");
    let most = most.or(usual);
    known.extend(most.map(|count| ("max_output".to_owned(), json!(count))));
    info.rest(&ADVICE);
}
