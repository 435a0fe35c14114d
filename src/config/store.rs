//! `[store]`: where lies what survives a restart.

use std::path::{Path, PathBuf};

use toml::de::DeValue;

use super::reader::Section;
use super::value;

pub(super) const KEYS: &[&str] = &["url"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Store {
    pub url: StoreUrl,
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
        Self { url: section.read("url", url).unwrap_or_default() }
    }
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
