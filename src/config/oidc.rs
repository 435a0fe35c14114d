//! `[auth.oidc.NAME]`: whose tokens are taken as keys, and what their claims mean here.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;
use jiff::Timestamp;
use toml::de::DeValue;

use super::access::{ROLES, Role, instant};
use super::reader::{Field, Section};
use super::value;

pub(super) const AUTH_KEYS: &[&str] = &["oidc"];
pub(super) const KEYS: &[&str] = &[
    "issuer",
    "audience",
    "jwks_url",
    "algorithms",
    "user",
    "team",
    "teams",
    "unknown_team",
    "role",
    "roles",
    "key",
    "leeway",
    "revoked",
    "issued_after",
    "ca",
];

/// Signatures by a public key only: whoever can check a token must not be able to make one.
const ALGORITHMS: &[(&str, Algorithm)] = &[
    ("RS256", Algorithm::Rs256),
    ("RS384", Algorithm::Rs384),
    ("RS512", Algorithm::Rs512),
    ("PS256", Algorithm::Ps256),
    ("PS384", Algorithm::Ps384),
    ("PS512", Algorithm::Ps512),
    ("ES256", Algorithm::Es256),
    ("ES384", Algorithm::Es384),
    ("EdDSA", Algorithm::EdDsa),
];
const USUAL: &[Algorithm] = &[Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

/// One issuer of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Oidc {
    /// As it stands in `iss`, to the letter.
    pub issuer: String,
    /// For whom a token must be: one of these.
    pub audience: Vec<String>,
    /// Where its keys are; else what its discovery document says.
    pub jwks_url: Option<String>,
    pub algorithms: Vec<Algorithm>,
    /// The claims that say who it is, to which team they belong, and what they may administer.
    pub user: String,
    pub team: Option<String>,
    pub role: Option<String>,
    /// Teams by what the claim says; without any, it says their names.
    pub teams: BTreeMap<String, String>,
    pub roles: BTreeMap<String, Role>,
    /// Whether somebody may call who is in none of the teams there are.
    pub takes_teamless: bool,
    /// The key whose terms hold for each of its users.
    pub key: Option<String>,
    /// By how much clocks may differ.
    pub leeway: Duration,
    /// Tokens (`jti`) and users that are refused whatever they show.
    pub revoked: BTreeSet<String>,
    /// Tokens that were issued before are refused.
    pub issued_after: Option<Timestamp>,
    /// Further certificate authorities, a PEM file.
    pub ca: Option<PathBuf>,
}

/// How a token is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

// === impl Oidc ===

impl Default for Oidc {
    fn default() -> Self {
        Self {
            issuer: String::new(),
            audience: Vec::new(),
            jwks_url: None,
            algorithms: USUAL.to_vec(),
            user: "sub".to_owned(),
            team: None,
            role: None,
            teams: BTreeMap::new(),
            roles: BTreeMap::new(),
            takes_teamless: false,
            key: None,
            leeway: Duration::from_mins(1),
            revoked: BTreeSet::new(),
            issued_after: None,
            ca: None,
        }
    }
}

impl Oidc {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let usual = Self::default();
        let jwks_url = section.get("jwks_url");
        // Without an address of its own for the keys, the issuer is one itself.
        let issuer = section.require("issuer").and_then(|field| match jwks_url {
            Some(_) => field.read(value::text),
            None => field.read(address),
        });
        for (mapped, by) in [("teams", "team"), ("unknown_team", "team"), ("roles", "role")] {
            if let (Some(field), None) = (section.get(mapped), section.get(by)) {
                field.fail(format!("means nothing without `{by}`, the claim that it maps"));
            }
        }
        Self {
            issuer: issuer.unwrap_or_default(),
            audience: section.require("audience").map(|field| audience(&field)).unwrap_or_default(),
            jwks_url: jwks_url.and_then(|field| field.read(address)),
            algorithms: section
                .get("algorithms")
                .map_or(usual.algorithms, |field| algorithms(&field)),
            user: section.read("user", value::text).unwrap_or(usual.user),
            team: section.read("team", value::text),
            role: section.read("role", value::text),
            teams: map(section, "teams", value::text),
            roles: map(section, "roles", |value| value::one_of(value, ROLES)),
            takes_teamless: section.read("unknown_team", unknown_team).unwrap_or(false),
            key: section.read("key", value::text),
            leeway: section.read("leeway", leeway).unwrap_or(usual.leeway),
            revoked: section.get("revoked").map(|field| revoked(&field)).unwrap_or_default(),
            issued_after: section.read("issued_after", instant),
            ca: section.read("ca", value::text).map(|path| section.report.beside(&path)),
        }
    }
}

/// A list that says who is meant must not be empty, or nobody could tell what it means.
fn audience(field: &Field<'_>) -> Vec<String> {
    if !field.is_list() {
        return field.read(value::text).into_iter().collect();
    }
    let fields = field.list().unwrap_or_default();
    if fields.is_empty() {
        field.fail("must name at least one");
    }
    fields.iter().filter_map(|field| field.read(value::text)).collect()
}

fn revoked(field: &Field<'_>) -> BTreeSet<String> {
    let fields = field.list().unwrap_or_default();
    fields.iter().filter_map(|field| field.read(value::text)).collect()
}

fn algorithms(field: &Field<'_>) -> Vec<Algorithm> {
    let fields = field.list().unwrap_or_default();
    if field.is_list() && fields.is_empty() {
        field.fail("must name at least one");
    }
    let named = |field: &Field<'_>| field.read(|value| value::one_of(value, ALGORITHMS));
    fields.iter().filter_map(named).collect()
}

fn map<T>(
    section: &Section<'_>,
    key: &str,
    read: fn(&DeValue<'_>) -> Result<T, String>,
) -> BTreeMap<String, T> {
    let fields = section.get(key).map(|field| field.entries()).unwrap_or_default();
    let entry = |(name, field): (&str, Field<'_>)| Some((name.to_owned(), field.read(read)?));
    fields.into_iter().filter_map(entry).collect()
}

fn unknown_team(value: &DeValue<'_>) -> Result<bool, String> {
    value::one_of(value, &[("refuse", false), ("allow", true)])
}

fn leeway(value: &DeValue<'_>) -> Result<Duration, String> {
    let leeway = value::pause(value)?;
    if leeway > Duration::from_mins(10) {
        Err("must be at most 10m".to_owned())
    } else {
        Ok(leeway)
    }
}

/// Whoever could change what is fetched there could make tokens, so it is https, or near.
fn address(value: &DeValue<'_>) -> Result<String, String> {
    let text = value::text(value)?;
    let uri: Uri = text.parse().map_err(|_| "is not a URL".to_owned())?;
    let authority = uri.authority().ok_or("must be a URL that begins with https://")?;
    if authority.as_str().contains('@') || text.contains('#') {
        return Err("must not contain a user name, a password or a fragment".to_owned());
    }
    match uri.scheme_str() {
        Some("https") => Ok(text),
        Some("http") if is_loopback(authority.host()) => Ok(text),
        _ => Err("must begin with https://; http is for loopback".to_owned()),
    }
}

/// Whether this host is the machine itself.
pub fn is_loopback(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

// === impl Algorithm ===

impl Algorithm {
    /// The one with this name, as tokens and keys spell it.
    pub fn named(name: &str) -> Option<Self> {
        ALGORITHMS.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
    }
}
