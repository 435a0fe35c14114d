//! `[store]`: where lies what survives a restart.

use std::path::{Path, PathBuf};

use super::reader::{Field, Section};
use super::secret::{Literal, Secret};
use super::value;

pub(super) const KEYS: &[&str] =
    &["url", "journal", "retention", "shared", "shared_ca", "replicas"];

/// Each is given its part of every limit, and parts of that size must still be of use.
const MOST_REPLICAS: u64 = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub url: StoreUrl,
    /// Where calls are noted before they are in the database; beside it if there is none.
    pub journal: Option<PathBuf>,
    /// For how many days calls are kept; for ever if there is none.
    pub retention_days: Option<u64>,
    /// The Redis or Valkey in which replicas count together. Its address may hold a password.
    pub shared: Option<Secret>,
    /// The authority of its certificate, in the place of the public ones.
    pub shared_ca: Option<PathBuf>,
    /// How many gateways count together.
    pub replicas: u32,
}

/// Which backend keeps the state, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreUrl {
    /// Gone at the end of the process.
    Memory,
    /// A file, relative to the working directory: state belongs to the process, not to its config.
    Sqlite(PathBuf),
    /// An address as libpq reads it, which may hold a password.
    Postgres(Secret),
}

// === impl Store ===

impl Store {
    /// What is here, and nothing else is set.
    pub fn at(url: StoreUrl) -> Self {
        Self { url, ..Self::default() }
    }

    /// The folder of the journal. Memory has none.
    pub fn journal(&self) -> Option<PathBuf> {
        match (&self.url, &self.journal) {
            (StoreUrl::Memory, _) => None,
            (_, Some(journal)) => Some(journal.clone()),
            (StoreUrl::Sqlite(path), None) => Some(path.with_added_extension("journal")),
            (StoreUrl::Postgres(_), None) => Some(PathBuf::from("switchpoint.journal")),
        }
    }

    pub(super) fn read(section: &Section<'_>) -> Self {
        let day = 24 * 60 * 60;
        let retention = section.read("retention", value::deadline);
        Self {
            url: section.get("url").and_then(|field| url(&field)).unwrap_or_default(),
            journal: section.read("journal", value::text).map(PathBuf::from),
            // Days are whole: less than one is one.
            retention_days: retention.map(|retention| retention.as_secs().div_ceil(day)),
            shared: shared(section),
            shared_ca: shared_ca(section),
            replicas: replicas(section),
        }
    }
}

impl Default for Store {
    fn default() -> Self {
        let url = StoreUrl::default();
        let (journal, retention_days) = (None, None);
        Self { url, journal, retention_days, shared: None, shared_ca: None, replicas: 1 }
    }
}

fn replicas(section: &Section<'_>) -> u32 {
    let Some(field) = section.get("replicas") else { return 1 };
    let count = field.read(|value| value::whole(value, 1..=MOST_REPLICAS)).unwrap_or(1);
    if count > 1 && section.get("shared").is_none() {
        field.fail(
            "replicas count together only in a store that they share; name it by \
             `shared = \"redis://HOST\"`",
        );
    }
    u32::try_from(count).unwrap_or(1)
}

fn shared(section: &Section<'_>) -> Option<Secret> {
    let field = section.get("shared")?;
    let url = Secret::read(&field, Literal::Address)?;
    let known = ["redis://", "rediss://"].iter().any(|scheme| url.expose().starts_with(scheme));
    if !known {
        field.fail("is not a shared store; write \"redis://HOST:PORT/DATABASE\" or \"rediss://…\"");
    }
    known.then_some(url)
}

fn shared_ca(section: &Section<'_>) -> Option<PathBuf> {
    let field = section.get("shared_ca")?;
    if section.get("shared").is_none() {
        field.fail("is whom to believe in `shared = \"rediss://HOST\"`, which is missing");
    }
    field.read(value::text).map(|path| section.report.beside(&path))
}

// === impl StoreUrl ===

impl Default for StoreUrl {
    fn default() -> Self {
        Self::Sqlite(PathBuf::from("switchpoint.db"))
    }
}

pub(super) fn url(field: &Field<'_>) -> Option<StoreUrl> {
    let secret = Secret::read(field, Literal::Address)?;
    let url = parse(&secret).map_err(|message| field.fail(message)).ok()?;
    let is_written = field.read(value::text).is_some_and(|text| text.starts_with("postgres"));
    let user = secret.expose().split_once("://").and_then(|(_, rest)| rest.split_once('@'));
    let has_password =
        user.is_some_and(|(user, _)| user.contains(':')) || secret.expose().contains("password=");
    if matches!(url, StoreUrl::Postgres(_)) && is_written && has_password {
        let advice = "a password is written here in clear; prefer env:NAME or file:PATH";
        field.report.warn(&field.path, advice);
    }
    Some(url)
}

/// What is written is never repeated, for addresses of databases may hold passwords.
fn parse(secret: &Secret) -> Result<StoreUrl, String> {
    const FORMS: &str =
        "write \"sqlite:PATH\", \"postgres://USER:PASSWORD@HOST/DATABASE\" or \"memory:\"";
    let text = secret.expose();
    if text == "memory:" {
        return Ok(StoreUrl::Memory);
    }
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Ok(StoreUrl::Postgres(secret.clone()));
    }
    match text.strip_prefix("sqlite:") {
        Some(path) if path.starts_with("//") => {
            Err("takes a plain path: \"sqlite:state.db\" or \"sqlite:/var/lib/state.db\""
                .to_owned())
        }
        // To SQLite these are no files.
        Some(path) if !path.is_empty() && !path.starts_with(':') && !path.ends_with('/') => {
            Ok(StoreUrl::Sqlite(Path::new(path).to_owned()))
        }
        _ => Err(format!("is not a store; {FORMS}")),
    }
}
