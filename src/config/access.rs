//! `[keys.NAME]`: who may call, and what.

use super::provider::texts;
use super::reader::Section;
use super::secret::{Literal, Secret};
use super::value;

pub(super) const KEYS: &[&str] = &["secret", "hash", "routes"];

/// A virtual key: what a client sends, or its SHA-256, and what it may name as a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key {
    pub secret: Option<Secret>,
    pub hash: Option<[u8; 32]>,
    /// Names, or patterns with a trailing `*`; absent means everything.
    pub routes: Option<Vec<String>>,
}

// === impl Key ===

impl Key {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let secret = section.get("secret");
        let hash = section.get("hash");
        if secret.is_some() == hash.is_some() {
            section
                .report
                .problem(&section.path, "write either `secret` or `hash`, and only one of them");
        }
        Self {
            secret: secret.and_then(|field| Secret::read(&field, Literal::Warned)),
            hash: hash.and_then(|field| field.read(value::digest)),
            routes: section.get("routes").map(|_| texts(section, "routes")),
        }
    }
}
