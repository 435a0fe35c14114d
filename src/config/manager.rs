//! `[secrets]`: how the systems are reached that keep secrets, and how often they are asked.

use std::path::PathBuf;
use std::time::Duration;

use super::cloud::{Cloud, CloudKeys};
use super::provider::Provider;
use super::reader::{Field, Section};
use super::secret::{Literal, Secret, variable};
use super::value;

pub(super) const KEYS: &[&str] = &["refresh", "vault", "aws", "gcp"];
pub(super) const VAULT_KEYS: &[&str] =
    &["address", "namespace", "token", "approle", "kubernetes", "proxy", "ca"];
pub(super) const APPROLE_KEYS: &[&str] = &["mount", "role_id", "secret_id"];
pub(super) const KUBERNETES_KEYS: &[&str] = &["mount", "role", "token_file"];
const CLOUD_KEYS: &[&str] = &[
    "base_url",
    "proxy",
    "ca",
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
];

/// How often secrets are fetched again, unless the config says otherwise.
const REFRESH: Duration = Duration::from_mins(5);
/// Where Kubernetes puts the token of a pod.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// How those are reached that keep secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secrets {
    /// How often they are asked, and files that hold secrets read again.
    pub refresh: Duration,
    pub vault: Vault,
    /// Reached as a provider in that cloud is.
    pub aws: Provider,
    pub gcp: Provider,
}

/// How Vault is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vault {
    pub address: Option<String>,
    pub namespace: Option<String>,
    pub login: Option<Login>,
    pub proxy: Option<String>,
    pub ca: Option<PathBuf>,
}

/// How Vault is told who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    Token(Secret),
    AppRole {
        mount: String,
        role_id: Secret,
        secret_id: Secret,
    },
    /// By the token of the pod's service account.
    Kubernetes {
        mount: String,
        role: String,
        token_file: PathBuf,
    },
}

// === impl Secrets ===

impl Default for Secrets {
    fn default() -> Self {
        Self {
            refresh: REFRESH,
            vault: Vault::default().or_environment(),
            aws: Provider::default(),
            gcp: Provider::default(),
        }
    }
}

impl Secrets {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let usual = Self::default();
        let inner = |name, keys| section.get(name).and_then(|field| field.section(keys));
        let cloud = |name, own| {
            inner(name, CLOUD_KEYS).map(|section| reached(&section, own)).unwrap_or_default()
        };
        let secrets = Self {
            refresh: section.read("refresh", value::deadline).unwrap_or(usual.refresh),
            vault: inner("vault", VAULT_KEYS).map_or(usual.vault, |section| Vault::read(&section)),
            aws: cloud("aws", Cloud::Aws),
            gcp: cloud("gcp", Cloud::Google),
        };
        section.report.refuse_references(
            &section.path,
            "what opens a manager of secrets cannot be kept in one; write env:NAME or file:PATH",
        );
        secrets
    }
}

/// A manager in one of the clouds.
fn reached(section: &Section<'_>, own: Cloud) -> Provider {
    let cloud = CloudKeys::read(section);
    for (key, home) in cloud.written() {
        if home != own {
            section.report.problem(&section.path, format!("`{key}` means nothing here"));
        }
    }
    Provider {
        base_url: section.read("base_url", value::url),
        proxy: section.read("proxy", value::url),
        ca: section.read("ca", value::text).map(|path| section.report.beside(&path)),
        cloud,
        ..Provider::default()
    }
}

// === impl Vault ===

impl Vault {
    fn read(section: &Section<'_>) -> Self {
        let written = ["token", "approle", "kubernetes"];
        let written = written.into_iter().filter(|key| section.get(key).is_some());
        if written.count() > 1 {
            let message = "`token`, `approle` and `kubernetes` are ways to log in; keep one";
            section.report.problem(&section.path, message);
        }
        let token = section.get("token").and_then(|field| Secret::read(&field, Literal::Warned));
        let inner = |name, keys| section.get(name).and_then(|field: Field<'_>| field.section(keys));
        let role = || inner("approle", APPROLE_KEYS).and_then(|section| Login::approle(&section));
        let pod =
            || inner("kubernetes", KUBERNETES_KEYS).and_then(|section| Login::kubernetes(&section));
        let vault = Self {
            address: section.read("address", value::url),
            namespace: section.read("namespace", value::text),
            login: token.map(Login::Token).or_else(role).or_else(pod),
            proxy: section.read("proxy", value::url),
            ca: section.read("ca", value::text).map(|path| section.report.beside(&path)),
        };
        vault.or_environment()
    }

    /// With what Vault's own tools would take from the environment.
    fn or_environment(self) -> Self {
        let token = || variable("VAULT_TOKEN").map(Secret::new).map(Login::Token);
        Self {
            address: self.address.or_else(|| variable("VAULT_ADDR")),
            namespace: self.namespace.or_else(|| variable("VAULT_NAMESPACE")),
            login: self.login.or_else(token),
            ca: self.ca.or_else(|| variable("VAULT_CACERT").map(PathBuf::from)),
            proxy: self.proxy,
        }
    }
}

// === impl Login ===

impl Login {
    fn approle(section: &Section<'_>) -> Option<Self> {
        let mount = mount(section, "approle");
        let role_id = Secret::read(&section.require("role_id")?, Literal::Plain)?;
        let secret_id = Secret::read(&section.require("secret_id")?, Literal::Warned)?;
        Some(Self::AppRole { mount, role_id, secret_id })
    }

    fn kubernetes(section: &Section<'_>) -> Option<Self> {
        let mount = mount(section, "kubernetes");
        let role = section.require("role")?.read(value::text)?;
        let token_file = section.read("token_file", value::text);
        let token_file = token_file.map(|path| section.report.beside(&path));
        let token_file = token_file.unwrap_or_else(|| PathBuf::from(POD_TOKEN));
        Some(Self::Kubernetes { mount, role, token_file })
    }
}

fn mount(section: &Section<'_>, usual: &str) -> String {
    section.read("mount", value::text).unwrap_or_else(|| usual.to_owned())
}
