//! `[store]`: where lies what survives a restart.

use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::reader::Section;
use super::secret::{Literal, Secret};
use super::value;

pub(super) const KEYS: &[&str] = &["url", "shared", "replicas"];

/// Each is given its part of every limit, and parts of that size must still be of use.
const MOST_REPLICAS: u64 = 1000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Store {
    pub url: StoreUrl,
    /// The Redis or Valkey in which replicas count together. Its address may hold a password.
    pub shared: Option<Secret>,
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
}

// === impl Store ===

impl Store {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let shared = shared(section);
        let replicas = section.read("replicas", |value| value::whole(value, 1..=MOST_REPLICAS));
        let replicas = replicas.and_then(|count| u32::try_from(count).ok()).unwrap_or(1);
        if replicas > 1 && section.get("shared").is_none() {
            let message = "replicas count together only in a store that they share; \
                           name it by `shared = \"redis://HOST\"`";
            section.get("replicas").into_iter().for_each(|field| field.fail(message));
        }
        Self { url: section.read("url", url).unwrap_or_default(), shared, replicas }
    }
}

impl Default for Store {
    fn default() -> Self {
        Self { url: StoreUrl::default(), shared: None, replicas: 1 }
    }
}

fn shared(section: &Section<'_>) -> Option<Secret> {
    let field = section.get("shared")?;
    let url = Secret::read(&field, Literal::Fine)?;
    let known = ["redis://", "rediss://"].iter().any(|scheme| url.expose().starts_with(scheme));
    if !known {
        field.fail("is not a shared store; write \"redis://HOST:PORT/DATABASE\" or \"rediss://…\"");
    }
    known.then_some(url)
}

// === impl StoreUrl ===

impl Default for StoreUrl {
    fn default() -> Self {
        Self::Sqlite(PathBuf::from("switchpoint.db"))
    }
}

/// What is written is never repeated, for addresses of databases may hold passwords.
fn url(value: &DeValue<'_>) -> Result<StoreUrl, String> {
    const FORMS: &str = "write \"sqlite:PATH\" or \"memory:\"";
    let text = value::text(value)?;
    if text == "memory:" {
        return Ok(StoreUrl::Memory);
    }
    if text.starts_with("postgres:") || text.starts_with("postgresql:") {
        return Err(format!("Postgres is not supported yet; {FORMS}"));
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
