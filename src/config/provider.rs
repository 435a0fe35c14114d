//! `[providers.NAME]`: whom we call, with which keys, and how long we wait.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use http::{HeaderName, HeaderValue};

use super::cloud::CloudKeys;
use super::limit::Limits;
use super::reader::{Field, Section};
use super::secret::{Literal, Secret};
use super::value;

pub(super) const KEYS: &[&str] = &[
    "kind",
    "base_url",
    "api_key",
    "api_keys",
    "headers",
    "proxy",
    "ca",
    "api_version",
    "models",
    "timeouts",
    "region",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "profile",
    "project",
    "location",
    "credentials",
    "tenant_id",
    "client_id",
    "client_secret",
    "limits",
];
pub(super) const TIMEOUT_KEYS: &[&str] = &["connect", "headers", "first_token", "idle", "total"];

/// Headers that frame a message: overriding one breaks or smuggles requests.
const FRAMING_HEADERS: [&str; 3] = ["connection", "content-length", "transfer-encoding"];

/// One place to call. What is absent follows the provider kind's own defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provider {
    pub kind: String,
    pub base_url: Option<String>,
    /// None for servers that ask for none.
    pub api_keys: Vec<Secret>,
    /// Sent with every call, names in lower case.
    pub headers: BTreeMap<String, Secret>,
    pub proxy: Option<String>,
    /// A PEM file of further certificate authorities to trust.
    pub ca: Option<PathBuf>,
    pub api_version: Option<String>,
    pub models: Vec<String>,
    pub timeouts: Timeouts,
    pub cloud: CloudKeys,
    pub limits: Limits,
}

/// How long each phase of a call may take; what is absent is decided elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Option<Duration>,
    /// From sending the request to the response's headers.
    pub headers: Option<Duration>,
    /// From sending the request to the first token.
    pub first_token: Option<Duration>,
    /// Silence between two tokens.
    pub idle: Option<Duration>,
    pub total: Option<Duration>,
}

// === impl Provider ===

impl Provider {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            kind: section
                .require("kind")
                .and_then(|field| field.read(value::text))
                .unwrap_or_default(),
            base_url: section.read("base_url", value::url),
            api_keys: api_keys(section),
            headers: section.get("headers").map(|field| headers(&field)).unwrap_or_default(),
            proxy: section.read("proxy", value::url),
            ca: section.read("ca", value::text).map(|path| section.report.beside(&path)),
            api_version: section.read("api_version", value::text),
            models: texts(section, "models"),
            timeouts: Timeouts::read(section),
            cloud: CloudKeys::read(section),
            limits: Limits::read(section),
        }
    }
}

fn api_keys(section: &Section<'_>) -> Vec<Secret> {
    let fields = match (section.get("api_key"), section.get("api_keys")) {
        (Some(_), Some(several)) => {
            several.fail("`api_key` and `api_keys` are both written; keep one");
            return Vec::new();
        }
        (Some(one), None) => vec![one],
        (None, Some(several)) => several.list().unwrap_or_default(),
        (None, None) => Vec::new(),
    };
    fields.iter().filter_map(|field| Secret::read(field, Literal::Warned)).collect()
}

pub(super) fn headers(field: &Field<'_>) -> BTreeMap<String, Secret> {
    let mut headers = BTreeMap::new();
    for (name, field) in field.entries() {
        let header = match header_name(name) {
            Ok(header) => header,
            Err(message) => {
                field.fail(message);
                continue;
            }
        };
        let Some(secret) = Secret::read(&field, Literal::Fine) else { continue };
        if HeaderValue::from_str(secret.expose()).is_err() {
            field.fail("the value cannot be sent in a header");
        } else if headers.insert(header, secret).is_some() {
            field.fail("is written twice; upper and lower case make no difference");
        }
    }
    headers
}

pub(super) fn header_name(name: &str) -> Result<String, String> {
    let header: HeaderName = name.parse().map_err(|_| format!("{name:?} is not a header name"))?;
    if FRAMING_HEADERS.contains(&header.as_str()) {
        return Err(format!("`{header}` frames the message and cannot be set"));
    }
    Ok(header.as_str().to_owned())
}

pub(super) fn texts(section: &Section<'_>, key: &str) -> Vec<String> {
    let fields = section.get(key).and_then(|field| field.list()).unwrap_or_default();
    fields.iter().filter_map(|field| field.read(value::text)).collect()
}

// === impl Timeouts ===

impl Timeouts {
    /// Reads the `timeouts` of a provider or a route.
    pub(super) fn read(owner: &Section<'_>) -> Self {
        let section = owner.get("timeouts").and_then(|field| field.section(TIMEOUT_KEYS));
        let Some(section) = section else { return Self::default() };
        let deadline = |key| section.read(key, value::deadline);
        Self {
            connect: deadline("connect"),
            headers: deadline("headers"),
            first_token: deadline("first_token"),
            idle: deadline("idle"),
            total: deadline("total"),
        }
    }
}
