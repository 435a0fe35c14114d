//! A target of Portkey: a provider with its credentials, and the model that it is asked for.

use serde_json::{Map, Value as Json, json};

use super::{ADVICE, insert};
use crate::cli::import::draft::{Draft, Section};
use crate::cli::import::source::{self, Source};
use crate::cli::import::values::milliseconds;
use crate::provider::catalog;

const PROVIDERS: &str = include_str!("providers.tsv");
/// Where a target asks for whatever its client names.
const ANY: &str = "MODEL";
/// The most attempts that a route may have.
const MOST_ATTEMPTS: u64 = 20;

/// What a node says for all below it.
#[derive(Clone, Debug, Default)]
pub(super) struct Inherited {
    timeout: Option<f64>,
    attempts: Option<u64>,
    max_output: Option<u64>,
    model: Option<String>,
}

/// Settings of a target that are settings of a provider here; secret ones are true.
const SETTINGS: [(&str, &str, bool); 9] = [
    ("aws_access_key_id", "access_key_id", true),
    ("aws_secret_access_key", "secret_access_key", true),
    ("aws_session_token", "session_token", true),
    ("aws_region", "region", false),
    ("vertex_project_id", "project", false),
    ("vertex_region", "location", false),
    ("azure_entra_tenant_id", "tenant_id", false),
    ("azure_entra_client_id", "client_id", false),
    ("azure_entra_client_secret", "client_secret", true),
];

// === impl Inherited ===

impl Inherited {
    /// Takes what a node says of itself and all below it.
    pub(super) fn take(&mut self, node: &mut Source<'_>) {
        self.timeout = node.number("request_timeout").or(self.timeout);
        if let Some(mut retry) = node.table("retry") {
            let attempts = retry.number("attempts").unwrap_or_default();
            self.attempts = format!("{attempts:.0}").parse().ok().or(self.attempts);
            let text = "`attempts` of a route counts over keys, retries, targets and fallbacks";
            retry.changed("attempts", text);
            retry.rest(&ADVICE);
        }
        if let Some(mut parameters) = node.table("override_params") {
            self.model = parameters.text("model").or_else(|| self.model.take());
            for key in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
                self.max_output = parameters.count(key).or(self.max_output);
            }
            parameters.rest(&ADVICE);
        }
    }

    /// Reports what a target says that only a route can.
    pub(super) fn lose_own(&self, above: &Self, node: &Source<'_>) {
        if self.max_output != above.max_output {
            let text = "a bound is of a route and all its targets: `max_output_tokens`";
            node.report.lost(&node.at("override_params"), text);
        }
        if self.attempts != above.attempts {
            let text = "attempts are those of a route and all its targets";
            node.report.lost(&node.at("retry"), text);
        }
    }

    /// What of it a route of so many targets says.
    pub(super) fn write(&self, section: &mut Section, targets: u64) {
        if let Some(most) = self.max_output {
            section.set("max_output_tokens", most);
        }
        if let Some(attempts) = self.attempts {
            let most = (attempts + 1).max(targets + u64::from(targets > 1));
            section.set("attempts", most.min(MOST_ATTEMPTS));
        }
    }
}

/// The provider and the model, as a target of ours.
pub(super) fn read(
    node: &mut Source<'_>,
    inherited: &Inherited,
    draft: &mut Draft,
) -> Option<String> {
    let path = if node.path.is_empty() { "config".to_owned() } else { node.path.clone() };
    let report = node.report;
    let (slug, model) = match inherited.model.as_deref().and_then(|model| model.strip_prefix('@')) {
        Some(model) => {
            let (slug, model) = model.split_once('/')?;
            (Some(slug.to_owned()), Some(model.to_owned()))
        }
        None => (None, inherited.model.clone()),
    };
    let written = node.text("provider");
    let virtual_key = node.text("virtual_key");
    let slug =
        slug.or(virtual_key).or_else(|| Some(written.as_ref()?.strip_prefix('@')?.to_owned()));
    let named = written.filter(|name| !name.starts_with('@'));
    let Some(theirs) = named.as_deref().or(slug.as_deref()) else {
        report.todo(&path, "names neither a provider nor targets; it was left out");
        return None;
    };
    let row = row(theirs, named.is_some());
    let (kind, variable, home) = row.unwrap_or((catalog::ANY, "API_KEY", "?"));
    if row.is_none() {
        let text = format!(
            "`{theirs}` is no provider that is known here; say of which `kind` it is, or its \
             `base_url` if it speaks OpenAI's API"
        );
        report.todo(&path, text);
    }
    if let Some(slug) = &slug {
        let text = format!(
            "`{slug}` has its key in Portkey's vault; put that into the variable its provider names"
        );
        report.todo(&path, text);
    }
    let usual = match &slug {
        Some(slug) => source::variable_name(&format!("{slug}_API_KEY")),
        None if row.is_none() => source::variable_name(&format!("{theirs}_API_KEY")),
        None => variable.to_owned(),
    };
    let mut values = Map::from_iter([("kind".to_owned(), json!(kind))]);
    address(node, theirs, home, &mut values);
    credentials(node, &usual, variable != "-", &mut values);
    let timeout = inherited.timeout.and_then(milliseconds);
    insert(&mut values, "timeouts", timeout.map(|time| json!({"total": time})));
    let wanted = source::section_name(slug.as_deref().unwrap_or(kind));
    let provider = draft.intern("providers", &wanted, &values);
    let deployment = node.text("azure_deployment_id");
    drop(node.take("azure_model_name"));
    let Some(model) = deployment.or(model) else {
        let text = format!(
            "asks for the client's model: put one in the place of `{ANY}`, or have clients ask for \
             `{provider}/NAME`"
        );
        report.todo(&path, text);
        return Some(format!("{provider}/{ANY}"));
    };
    Some(format!("{provider}/{model}"))
}

/// The kind, the variable of its key, and where it is. A slug tells the provider by its beginning.
fn row(theirs: &str, whole: bool) -> Option<(&'static str, &'static str, &'static str)> {
    let lines = PROVIDERS.lines().filter(|line| !line.starts_with('#'));
    let rows = lines.map(|line| {
        let mut cells = line.split('\t');
        let mut cell = || cells.next().unwrap_or_default();
        (cell(), cell(), cell(), cell())
    });
    let fits = |name: &str| theirs == name || (!whole && theirs.starts_with(&format!("{name}-")));
    let found = rows.filter(|row| fits(row.0)).max_by_key(|row| row.0.len());
    found.map(|(_, kind, variable, home)| (kind, variable, home))
}

fn address(node: &mut Source<'_>, theirs: &str, home: &str, values: &mut Map<String, Json>) {
    let resource = node.text("azure_resource_name");
    let custom = node.at("custom_host");
    let host = node.text("custom_host");
    let url = match (host, resource, home) {
        (Some(host), _, _) => Some(source::without_userinfo(&custom, &host, node.report)),
        (None, Some(resource), _) => {
            Some(format!("https://{}.openai.azure.com", source::section_name(&resource)))
        }
        (None, None, "?") => {
            let placeholder = format!("https://{}.invalid", source::section_name(theirs));
            let text = format!("says no address; put it where `{placeholder}` stands");
            node.report.todo(&custom, text);
            Some(placeholder)
        }
        (None, None, "") => None,
        (None, None, home) => Some(home.to_owned()),
    };
    insert(values, "base_url", url);
    let version = node.text("azure_api_version").or_else(|| node.text("api_version"));
    insert(values, "api_version", version);
}

fn credentials(
    node: &mut Source<'_>,
    usual: &str,
    wants_key: bool,
    values: &mut Map<String, Json>,
) {
    let report = node.report;
    let path = node.at("api_key");
    let key = match node.text("api_key").filter(|written| !written.is_empty()) {
        Some(written) => Some(source::secret(&path, &written, named(&written), usual, report)),
        None if wants_key => {
            report.needs(usual);
            Some(format!("env:{usual}"))
        }
        None => None,
    };
    insert(values, "api_key", key);
    for (theirs, ours, is_secret) in SETTINGS {
        let path = node.at(theirs);
        let Some(written) = node.text(theirs) else { continue };
        let value = match named(&written) {
            None if !is_secret => written,
            variable => source::secret(&path, &written, variable, theirs, report),
        };
        values.insert(ours.to_owned(), json!(value));
    }
    if values.contains_key("client_secret") {
        values.remove("api_key");
    }
    if node.take("vertex_service_account_json").is_some() {
        let text = "was left out: put the service account into a file and name it as \
                    `credentials` of the provider";
        report.todo(&node.at("vertex_service_account_json"), text);
    }
    let mut headers = Map::new();
    insert(&mut headers, "openai-organization", node.text("openai_organization"));
    insert(&mut headers, "openai-project", node.text("openai_project"));
    insert(values, "headers", (!headers.is_empty()).then_some(headers));
}

/// A placeholder for a variable, as people write it in files that they keep.
fn named(written: &str) -> Option<&str> {
    let name = written.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    let name = name.or_else(|| written.strip_prefix('$')).or_else(|| {
        written.strip_prefix("{{").and_then(|rest| rest.strip_suffix("}}")).map(str::trim)
    })?;
    (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .then_some(name)
}
