//! `[keys.NAME]`, `[users.NAME]`, `[teams.NAME]` and `[orgs.NAME]`: who may call, what, and how much.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::SystemTime;

use ipnet::IpNet;
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::Value as Json;
use toml::de::DeValue;

use super::budget::Budget;
use super::cache::{self, CacheMode};
use super::limit::Limits;
use super::provider::texts;
use super::reader::Section;
use super::secret::{Literal, Secret};
use super::value;

pub(super) const KEYS: &[&str] = &[
    "secret", "hash", "template", "routes", "models", "agents", "tools", "team", "user", "limits",
    "budget", "tags", "expires", "ips", "role", "guards", "cache",
];
/// What a key made at run time may have: its secret is made for it.
pub(super) const SETTINGS: &[&str] = &[
    "routes", "models", "agents", "tools", "team", "user", "limits", "budget", "tags", "expires",
    "ips", "role", "guards", "cache",
];
/// What is never shown again.
const SECRETS: &[&str] = &["secret", "hash"];
pub(super) const ROLES: &[(&str, Role)] = &[
    ("owner", Role::Owner),
    ("operator", Role::Operator),
    ("viewer", Role::Viewer),
    ("team_admin", Role::TeamAdmin),
];
pub(super) const USER_KEYS: &[&str] = &["team", "limits", "budget"];
pub(super) const TEAM_KEYS: &[&str] = &["org", "limits", "budget"];
pub(super) const ORG_KEYS: &[&str] = &["limits", "budget"];

/// A virtual key: what a client sends, or its SHA-256, and what it may name as a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    pub secret: Option<Secret>,
    pub hash: Option<[u8; 32]>,
    /// Names, or patterns with a trailing `*`; absent means everything.
    pub routes: Option<Vec<String>>,
    /// Who may answer its calls, whatever the route: `provider/model`, or patterns with a trailing
    /// `*`; absent means everybody.
    pub models: Option<Vec<String>>,
    /// Which agents and tools it may use: names or patterns, likewise.
    pub agents: Option<Vec<String>>,
    pub tools: Option<Vec<String>>,
    pub team: Option<String>,
    pub user: Option<String>,
    pub limits: Limits,
    pub budget: Vec<Budget>,
    /// What its calls are marked with.
    pub tags: BTreeMap<String, String>,
    pub expires: Option<Timestamp>,
    /// From where it may be used; absent means from everywhere.
    pub ips: Option<Vec<IpNet>>,
    /// What its calls are guarded by, besides those of the server and the route.
    pub guards: Vec<String>,
    /// What it may do on the admin listener; absent means nothing.
    pub role: Option<Role>,
    /// What the cache may do for its calls at most; absent means all that the route lets it.
    pub cache: Option<CacheMode>,
    /// All of it as it was written, but for the secret.
    pub written: Json,
}

/// What somebody may do on the admin listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Sees what belongs to one team, and changes its keys and users.
    TeamAdmin,
    /// Sees everything.
    Viewer,
    /// Changes everything but roles.
    Operator,
    Owner,
}

/// A person, who may have several keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Also the team of keys that name none.
    pub team: Option<String>,
    pub limits: Limits,
    pub budget: Vec<Budget>,
    pub written: Json,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Team {
    pub org: Option<String>,
    pub limits: Limits,
    pub budget: Vec<Budget>,
    pub written: Json,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Org {
    pub limits: Limits,
    pub budget: Vec<Budget>,
    pub written: Json,
}

// === impl Role ===

impl Role {
    pub fn name(self) -> &'static str {
        ROLES.iter().find(|(_, role)| *role == self).map_or("", |(name, _)| name)
    }
}

impl FromStr for Role {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        ROLES.iter().find(|(known, _)| *known == name).map(|(_, role)| *role).ok_or(())
    }
}

// === impl Key ===

impl Key {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let secret = section.get("secret");
        let hash = section.get("hash");
        // What only lends its terms to those who show tokens has no secret of its own.
        let is_template = section.read("template", value::flag) == Some(true);
        if is_template && (secret.is_some() || hash.is_some()) {
            section.report.problem(&section.path, "a template has no `secret` and no `hash`");
        } else if !is_template && secret.is_some() == hash.is_some() {
            section
                .report
                .problem(&section.path, "write either `secret` or `hash`, and only one of them");
        }
        Self {
            secret: secret.and_then(|field| Secret::read(&field, Literal::Warned)),
            hash: hash.and_then(|field| field.read(value::digest)),
            ..Self::read_settings(section)
        }
    }

    /// All but the secret.
    pub(super) fn read_settings(section: &Section<'_>) -> Self {
        let patterns = |key| section.get(key).map(|_| texts(section, key));
        Self {
            secret: None,
            hash: None,
            routes: patterns("routes"),
            models: patterns("models"),
            agents: patterns("agents"),
            tools: patterns("tools"),
            team: section.read("team", value::text),
            user: section.read("user", value::text),
            limits: Limits::read(section),
            budget: Budget::read(section),
            tags: tags(section),
            expires: section.read("expires", instant),
            ips: section.get("ips").map(|field| {
                let fields = field.list().unwrap_or_default();
                fields.iter().filter_map(|field| field.read(network)).collect()
            }),
            guards: texts(section, "guards"),
            role: section.read("role", |value| value::one_of(value, ROLES)),
            cache: section.read("cache", cache::mode),
            written: section.written(SECRETS),
        }
    }
}

fn tags(section: &Section<'_>) -> BTreeMap<String, String> {
    let fields = section.get("tags").map(|field| field.entries()).unwrap_or_default();
    fields
        .into_iter()
        .filter_map(|(name, field)| Some((name.to_owned(), field.read(value::text)?)))
        .collect()
}

/// A point in time with its offset, or a date, which stands for its beginning in UTC.
pub(super) fn instant(value: &DeValue<'_>) -> Result<Timestamp, String> {
    match value {
        DeValue::Datetime(written) => timestamp(&written.to_string()),
        _ => timestamp(&value::text(value)?),
    }
}

/// The same outside of the file.
pub fn point_in_time(text: &str) -> Result<SystemTime, String> {
    timestamp(text).map(SystemTime::from)
}

fn timestamp(text: &str) -> Result<Timestamp, String> {
    let day = || {
        // jiff reads the date in front of a time, too, and would drop the time.
        let date: Date = text.parse().ok().filter(|_| text.len() == "2027-01-01".len())?;
        Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp())
    };
    text.parse().ok().or_else(day).ok_or_else(|| {
        format!("\"{text}\" is not a point in time; write 2027-01-01 or 2027-01-01T09:00:00+01:00")
    })
}

fn network(value: &DeValue<'_>) -> Result<IpNet, String> {
    let text = value::text(value)?;
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(alone).ok_or_else(|| {
        format!("{text:?} is neither an address nor a network; write \"10.0.0.0/8\"")
    })
}

// === impl User, Team, Org ===

impl User {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            team: section.read("team", value::text),
            limits: Limits::read(section),
            budget: Budget::read(section),
            written: section.written(SECRETS),
        }
    }
}

impl Team {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            org: section.read("org", value::text),
            limits: Limits::read(section),
            budget: Budget::read(section),
            written: section.written(SECRETS),
        }
    }
}

impl Org {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            limits: Limits::read(section),
            budget: Budget::read(section),
            written: section.written(SECRETS),
        }
    }
}
