//! `[record]`: which calls are kept in files, to be played again, and what of them.

use std::path::PathBuf;

use super::provider::texts;
use super::reader::Section;
use super::{means, value};

pub(super) const KEYS: &[&str] = &[
    "consent",
    "folder",
    "routes",
    "keys",
    "sample",
    "bodies",
    "answers",
    "headers",
    "max_body",
    "max_file",
    "max_files",
];

/// Headers that prove who calls. They are kept by nobody.
const NEVER: [&str; 8] = [
    "authorization",
    "proxy-authorization",
    "x-api-key",
    "api-key",
    "x-goog-api-key",
    "cookie",
    "set-cookie",
    "x-amz-security-token",
];

/// What is kept of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub folder: PathBuf,
    /// Names, or patterns with a trailing `*`; none is all.
    pub routes: Vec<String>,
    pub keys: Vec<String>,
    /// Of a million calls, so many.
    pub sample: u32,
    pub bodies: Bodies,
    /// Answers too, in the same form as bodies.
    pub answers: bool,
    /// Headers of the client besides the usual ones, in lower case.
    pub headers: Vec<String>,
    /// What is longer is left out.
    pub max_body: usize,
    /// A file that would be longer is put away.
    pub max_file: usize,
    /// The one that is written included; the oldest go.
    pub max_files: usize,
}

/// In which form texts are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bodies {
    None,
    /// Their shape: each letter is an `x`, each digit a `0`.
    Redacted,
    Whole,
}

impl Record {
    /// Nothing is kept without consent.
    pub(super) fn read(section: &Section<'_>) -> Option<Self> {
        let consent = section.read("consent", value::flag);
        let forms =
            [("none", Bodies::None), ("redacted", Bodies::Redacted), ("whole", Bodies::Whole)];
        let size = |key, usual| section.read(key, value::size).unwrap_or(usual);
        let record = Self {
            folder: section
                .read("folder", value::text)
                .map_or_else(|| PathBuf::from("recordings"), PathBuf::from),
            routes: texts(section, "routes"),
            keys: texts(section, "keys"),
            sample: section.read("sample", value::sample).unwrap_or(value::ALL_CALLS),
            bodies: section
                .read("bodies", |written| value::one_of(written, &forms))
                .unwrap_or(Bodies::Redacted),
            answers: section.read("answers", value::flag).unwrap_or(false),
            headers: headers(section),
            max_body: size("max_body", 1 << 20),
            max_file: size("max_file", 64 << 20),
            max_files: section.read("max_files", |it| value::count(it, 1)).unwrap_or(8),
        };
        (consent == Some(true)).then_some(record)
    }

    /// Whether calls of this route and key are meant.
    pub fn is_for(&self, route: &str, key: &str) -> bool {
        let names = |patterns: &[String], name: &str| {
            patterns.is_empty() || patterns.iter().any(|pattern| means(pattern, name))
        };
        names(&self.routes, route) && names(&self.keys, key)
    }
}

fn headers(section: &Section<'_>) -> Vec<String> {
    let fields = section.get("headers").and_then(|field| field.list()).unwrap_or_default();
    let header = |field: &super::reader::Field<'_>| {
        let name = field.read(value::text)?.to_ascii_lowercase();
        if NEVER.contains(&name.as_str()) {
            field.fail("proves who calls, and is never kept");
            return None;
        }
        Some(name)
    };
    fields.iter().filter_map(header).collect()
}
