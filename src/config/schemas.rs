//! `[schemas]`: documents that the schemas of tools and agents may refer to. They are handed in
//! here, for nothing is ever fetched for a schema.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value as Json;

use super::reader::Section;
use super::value;

pub(super) const KEYS: &[&str] = &["dir"];

const LONGEST: u64 = 1 << 20;
const MOST: usize = 1000;

/// Documents by the address that each says of itself in `$id`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schemas(Arc<BTreeMap<String, Json>>);

// === impl Schemas ===

impl Schemas {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let Some(field) = section.require("dir") else { return Self::default() };
        let Some(dir) = field.read(value::text) else { return Self::default() };
        match documents(&section.report.beside(&dir)) {
            Ok(known) => known.into_iter().collect(),
            Err(message) => {
                field.fail(message);
                Self::default()
            }
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, address: &str) -> Option<&Json> {
        self.0.get(address)
    }
}

impl FromIterator<(String, Json)> for Schemas {
    fn from_iter<T: IntoIterator<Item = (String, Json)>>(documents: T) -> Self {
        Self(Arc::new(documents.into_iter().collect()))
    }
}

/// What the files `*.json` of a folder hold.
fn documents(dir: &Path) -> Result<BTreeMap<String, Json>, String> {
    let entries = fs::read_dir(dir).map_err(|error| unreadable(dir, &error))?;
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths: Vec<_> = paths.collect::<Result<_, _>>().map_err(|it| unreadable(dir, &it))?;
    paths.retain(|path| path.extension().is_some_and(|it| it == "json"));
    paths.sort();
    if paths.is_empty() || paths.len() > MOST {
        return Err(format!("{} must have 1 to {MOST} files *.json", dir.display()));
    }
    let mut known = BTreeMap::new();
    for path in &paths {
        let (address, document) = document(path)?;
        if known.insert(address.clone(), document).is_some() {
            return Err(format!("{}: another file is {address:?} already", path.display()));
        }
    }
    Ok(known)
}

fn document(path: &Path) -> Result<(String, Json), String> {
    let size = fs::metadata(path).map_err(|error| unreadable(path, &error))?.len();
    if size > LONGEST {
        return Err(format!("{} is longer than 1 MiB", path.display()));
    }
    let text = fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let document: Json = serde_json::from_str(&text)
        .map_err(|error| format!("{} is not JSON: {error}", path.display()))?;
    let address = document.get("$id").and_then(Json::as_str).map(|it| it.trim_end_matches('#'));
    // Only what has a scheme is the same address wherever it is said.
    match address.filter(|it| it.contains(':') && !it.contains('#')) {
        Some(address) => Ok((address.to_owned(), document)),
        None => Err(format!(
            "{} needs an `$id` by which schemas refer to it, such as \
             \"https://example.com/schemas/address.json\"",
            path.display()
        )),
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}
