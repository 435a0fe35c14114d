//! How tools are reached over HTTP: addresses with places for arguments, headers and credentials.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use toml::de::DeValue;

use crate::config::provider::headers;
use crate::config::reader::Section;
use crate::config::secret::{Literal, Secret};
use crate::config::value;

pub(in crate::config) const AUTH_KEYS: &[&str] = &[
    "kind",
    "token",
    "name",
    "value",
    "user",
    "password",
    "token_url",
    "client_id",
    "client_secret",
    "scope",
    "audience",
];

/// What all tools that are reached over HTTP have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Web {
    /// Sent with every call, names in lower case.
    pub headers: BTreeMap<String, Secret>,
    pub auth: Option<ToolAuth>,
    pub proxy: Option<String>,
    /// A PEM file of further certificate authorities to trust.
    pub ca: Option<PathBuf>,
    /// Whether its host may be one of this network. Link-local addresses, and those of metadata
    /// servers, never are.
    pub allow_private: bool,
}

/// How a tool is shown that it is us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolAuth {
    Bearer(Secret),
    Header { name: String, value: Secret },
    Basic { user: String, password: Secret },
    Client(ClientCredentials),
}

/// OAuth 2.0, client credentials (RFC 6749, section 4.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCredentials {
    pub token_url: String,
    pub client_id: String,
    pub client_secret: Secret,
    pub scope: Option<String>,
    pub audience: Option<String>,
}

/// An address with places for arguments: `https://orders.internal/v2/orders/{order_id}`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlTemplate {
    /// Scheme, host and port: nothing of it can be chosen by who calls.
    pub origin: String,
    /// With the `/` at its beginning.
    pub path: TextTemplate,
    /// What is written behind the `?`.
    pub query: TextTemplate,
}

/// A text with `{places}` for arguments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextTemplate(pub Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Place(String),
}

// === impl Web ===

impl Web {
    /// `inner` tells whether hosts of this network are what is usually meant.
    pub(super) fn read(section: &Section<'_>, inner: bool) -> Self {
        Self {
            headers: section.get("headers").map(|field| headers(&field)).unwrap_or_default(),
            auth: ToolAuth::read(section),
            proxy: section.read("proxy", value::url),
            ca: section.read("ca", value::text).map(|path| section.report.beside(&path)),
            allow_private: section.read("allow_private", value::flag).unwrap_or(inner),
        }
    }

    /// All that a server is shown in confidence.
    pub fn secrets_mut(&mut self) -> impl Iterator<Item = &mut Secret> {
        let auth = self.auth.as_mut().map(|auth| match auth {
            ToolAuth::Bearer(secret)
            | ToolAuth::Header { value: secret, .. }
            | ToolAuth::Basic { password: secret, .. } => secret,
            ToolAuth::Client(client) => &mut client.client_secret,
        });
        self.headers.values_mut().chain(auth)
    }
}

// === impl ToolAuth ===

/// Which keys each kind of credential has.
const AUTHS: [(&str, &[&str]); 4] = [
    ("bearer", &["token"]),
    ("header", &["name", "value"]),
    ("basic", &["user", "password"]),
    ("oauth2_client", &["token_url", "client_id", "client_secret", "scope", "audience"]),
];

impl ToolAuth {
    fn read(owner: &Section<'_>) -> Option<Self> {
        let section = owner.get("auth")?.section(AUTH_KEYS)?;
        let kinds = AUTHS.map(|(kind, _)| (kind, kind));
        let kind = section.require("kind")?.read(|it| value::one_of(it, &kinds))?;
        let keys = AUTHS.iter().find(|(known, _)| *known == kind).map_or(&[][..], |(_, keys)| keys);
        super::foreign(&section, kind, &[&["kind"], keys]);
        let text = |key| section.require(key).and_then(|field| field.read(value::text));
        let secret = |key| Secret::read(&section.require(key)?, Literal::Warned);
        match kind {
            "bearer" => Some(Self::Bearer(secret("token")?)),
            "header" => Some(Self::Header { name: header(&section)?, value: secret("value")? }),
            "basic" => Some(Self::Basic { user: text("user")?, password: secret("password")? }),
            _ => Some(Self::Client(ClientCredentials {
                token_url: section.require("token_url")?.read(value::url)?,
                client_id: text("client_id")?,
                client_secret: secret("client_secret")?,
                scope: section.read("scope", value::text),
                audience: section.read("audience", value::text),
            })),
        }
    }
}

fn header(section: &Section<'_>) -> Option<String> {
    section.require("name")?.read(|it| {
        let name = value::text(it)?.to_ascii_lowercase();
        crate::config::provider::header_name(&name)
    })
}

// === impl UrlTemplate ===

impl UrlTemplate {
    pub(super) fn read(value: &DeValue<'_>) -> Result<Self, String> {
        Self::parse(&value::text(value)?)
    }

    /// Whoever calls may choose segments of the path and values of the query, and nothing else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.split_once("://").map(|(_, rest)| rest);
        let rest =
            rest.ok_or("is not a URL; write one as in \"https://api.example.com/v1/{id}\"")?;
        let start = text.len() - rest.len() + rest.find(['/', '?']).unwrap_or(rest.len());
        let (origin, target) = text.split_at(start);
        if origin.contains(['{', '}']) {
            return Err("a place can only stand in the path and behind the `?`".to_owned());
        }
        value::url(&DeValue::String(origin.into()))?;
        if target.contains('#') {
            return Err("must not contain a fragment".to_owned());
        }
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let path = if path.is_empty() { "/" } else { path };
        let dots = |segment: &str| matches!(segment, "." | "..");
        if path.split('/').any(dots) || !path.starts_with('/') {
            return Err("must not contain `.` or `..` as a segment".to_owned());
        }
        let template = Self {
            origin: origin.to_owned(),
            path: TextTemplate::parse(path)?,
            query: TextTemplate::parse(query)?,
        };
        let sample = target.replace(['{', '}'], "");
        let valid = sample.is_empty() || sample.parse::<http::uri::PathAndQuery>().is_ok();
        if valid { Ok(template) } else { Err("has signs that must be percent-encoded".to_owned()) }
    }

    pub fn places(&self) -> BTreeSet<&str> {
        self.path.places().chain(self.query.places()).collect()
    }
}

// === impl TextTemplate ===

impl TextTemplate {
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once('{') {
            let (name, after) = behind.split_once('}').ok_or("a `{` is not closed by a `}`")?;
            let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if name.is_empty() || !name.chars().all(is_name) {
                return Err(format!("{name:?} in braces is not the name of an argument"));
            }
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            pieces.push(Piece::Place(name.to_owned()));
            rest = after;
        }
        if rest.contains('}') {
            return Err("a `}` stands without its `{`".to_owned());
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    pub fn places(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Place(name) => Some(name.as_str()),
            Piece::Text(_) => None,
        })
    }
}
