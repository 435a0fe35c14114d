//! `[prompts.NAME]`: prompts in files, one a version, and the labels that name some of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::reader::Section;
use super::value;

pub(super) const KEYS: &[&str] = &["dir", "labels"];

/// Files `1.md`, `2.md` and so on in a folder, with their digests in its `prompts.lock`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    pub dir: PathBuf,
    pub labels: BTreeMap<String, u32>,
    /// Of each version, its text; and its SHA-256 in hex.
    pub versions: BTreeMap<u32, (String, String)>,
}

impl Prompt {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let dir = section.require("dir").and_then(|field| field.read(value::text));
        let labels = section.get("labels").map(|field| field.entries()).unwrap_or_default();
        let label = |(label, field): (&str, super::reader::Field<'_>)| {
            let version = field.read(|it| value::whole(it, 1..=u64::from(u32::MAX)))?;
            Some((label.to_owned(), u32::try_from(version).ok()?))
        };
        Self {
            dir: dir.map(|dir| section.report.beside(&dir)).unwrap_or_default(),
            labels: labels.into_iter().filter_map(label).collect(),
            versions: BTreeMap::new(),
        }
    }
}
