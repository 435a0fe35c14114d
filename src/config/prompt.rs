//! `[prompts.NAME]`: prompts in files, one a version, and the labels that name some of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::problem::suggestion;
use super::reader::{Field, Section};
use super::{Config, digest, value};

pub(super) const KEYS: &[&str] = &["dir", "labels"];

/// What holds the digests of the versions beside it, one a line: `3 sha256:…`.
pub const LOCK: &str = "prompts.lock";

const LONGEST: u64 = 1 << 20;

/// Files `1.md`, `2.md` and so on in a folder, with their digests in its `prompts.lock`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    pub dir: PathBuf,
    pub labels: BTreeMap<String, u32>,
    pub versions: BTreeMap<u32, PromptVersion>,
}

/// One version, which stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PromptVersion {
    pub text: String,
    /// SHA-256 in hex.
    pub digest: String,
    /// Its digest stands in the lock.
    pub locked: bool,
}

// === impl Prompt ===

impl Prompt {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let field = section.require("dir");
        let dir = field.as_ref().and_then(|field| field.read(value::text));
        let dir = dir.map(|dir| section.report.beside(&dir)).unwrap_or_default();
        let mut prompt = Self { dir, ..Self::default() };
        if let Some(field) = field.filter(|_| !prompt.dir.as_os_str().is_empty()) {
            prompt.read_versions(&field);
        }
        prompt.read_labels(section);
        prompt
    }

    fn read_versions(&mut self, field: &Field<'_>) {
        let found = versions(&self.dir).and_then(|versions| Ok((versions, locked(&self.dir)?)));
        let (versions, locked) = match found {
            Ok(found) => found,
            Err(message) => return field.fail(message),
        };
        if versions.is_empty() {
            field.fail(format!("{} has no versions; write 1.md", self.dir.display()));
        }
        for gone in locked.keys().filter(|version| !versions.contains_key(version)) {
            let lock = self.dir.join(LOCK);
            field.fail(format!("{} knows {gone}.md, which is not there", lock.display()));
        }
        for (version, text) in versions {
            let digest = digest(&text);
            let known = locked.get(&version);
            if known.is_some_and(|known| *known != digest) {
                let file = self.dir.join(format!("{version}.md"));
                field.fail(format!(
                    "{} differs from its digest in {LOCK}: a version is never edited, so make the \
                     next one",
                    file.display()
                ));
            }
            let locked = known.is_some();
            self.versions.insert(version, PromptVersion { text, digest, locked });
        }
        if let Some((version, _)) = self.versions.iter().find(|(_, version)| !version.locked) {
            let advice = "`switchpoint prompts lock` keeps it as it is";
            let message = format!("{version}.md is not in {LOCK}; {advice}");
            field.report.warn(&field.path, message);
        }
    }

    fn read_labels(&mut self, section: &Section<'_>) {
        let labels = section.get("labels").map(|field| field.entries()).unwrap_or_default();
        for (label, field) in labels {
            if label.parse::<u32>().is_ok() || !value::is_name(label) {
                field.fail(format!("{label:?} is not a label; use letters, digits and . _ -"));
            }
            let version = field.read(|it| value::whole(it, 1..=u64::from(u32::MAX)));
            let Some(version) = version.and_then(|it| u32::try_from(it).ok()) else { continue };
            // A folder that cannot be read was reported.
            if !self.versions.is_empty() && !self.versions.contains_key(&version) {
                field.fail(format!("there is no {version}.md{}", self.known()));
            }
            self.labels.insert(label.to_owned(), version);
        }
    }

    fn known(&self) -> String {
        let versions: Vec<String> = self.versions.keys().map(u32::to_string).collect();
        format!("; known: {}", versions.join(", "))
    }

    /// What a label or a number means.
    fn find(&self, name: &str) -> Result<(u32, &PromptVersion), String> {
        let number = self.labels.get(name).copied().or_else(|| name.parse().ok());
        let Some(number) = number else {
            let hint = suggestion(name, self.labels.keys().map(String::as_str));
            return Err(format!("no label is called \"{name}\"{hint}"));
        };
        let version = self.versions.get(&number);
        let missing = || format!("there is no version {number}{}", self.known());
        version.map(|version| (number, version)).ok_or_else(missing)
    }

    /// Adds the digests of those versions to the lock that are not in it, and says which.
    pub fn lock(&self) -> io::Result<Vec<u32>> {
        let new: Vec<_> = self.versions.iter().filter(|(_, version)| !version.locked).collect();
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.dir.join(LOCK);
        let text = fs::read_to_string(&path).unwrap_or_default();
        let mut lines = String::new();
        if !text.is_empty() && !text.ends_with('\n') {
            lines.push('\n');
        }
        for (number, version) in &new {
            let _ = writeln!(lines, "{number} sha256:{}", version.digest);
        }
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
        file.write_all(lines.as_bytes())?;
        Ok(new.into_iter().map(|(number, _)| *number).collect())
    }
}

/// The texts of the files `1.md`, `2.md` and so on.
fn versions(dir: &Path) -> Result<BTreeMap<u32, String>, String> {
    let unreadable =
        |path: &Path, error: &io::Error| format!("{} cannot be read: {error}", path.display());
    let entries = fs::read_dir(dir).map_err(|error| unreadable(dir, &error))?;
    let mut versions = BTreeMap::new();
    for entry in entries {
        let path = entry.map_err(|error| unreadable(dir, &error))?.path();
        let Some(number) = number_of(&path) else { continue };
        let size = fs::metadata(&path).map_err(|error| unreadable(&path, &error))?.len();
        if size > LONGEST {
            return Err(format!("{} is longer than 1 MiB", path.display()));
        }
        let text = fs::read_to_string(&path).map_err(|error| unreadable(&path, &error))?;
        if text.trim().is_empty() {
            return Err(format!("{} is empty", path.display()));
        }
        versions.insert(number, text);
    }
    Ok(versions)
}

/// `3` of `3.md`, and nothing of `03.md` or `notes.md`.
fn number_of(path: &Path) -> Option<u32> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".md")?;
    let number: u32 = stem.parse().ok()?;
    (number > 0 && number.to_string() == stem).then_some(number)
}

/// What the lock says; nothing, as long as there is none.
fn locked(dir: &Path) -> Result<BTreeMap<u32, String>, String> {
    let path = dir.join(LOCK);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        Err(error) => return Err(format!("{} cannot be read: {error}", path.display())),
    };
    let mut locked = BTreeMap::new();
    for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let wrong = || format!("{}:{}: write `3 sha256:` and 64 digits", path.display(), at + 1);
        let (number, digest) = line.trim().split_once(" sha256:").ok_or_else(wrong)?;
        let number: u32 = number.parse().map_err(|_| wrong())?;
        let is_digest = digest.len() == 64 && digest.bytes().all(|digit| digit.is_ascii_hexdigit());
        if !is_digest || locked.insert(number, digest.to_ascii_lowercase()).is_some() {
            return Err(wrong());
        }
    }
    Ok(locked)
}

impl Config {
    /// The text of `support@prod` or `support@3`, its SHA-256 in hex, and its version; or why there
    /// is none.
    pub fn prompt(&self, name: &str) -> Result<(&str, &str, u32), String> {
        let Some((prompt, version)) = name.split_once('@') else {
            return Err(format!("{name:?} names no version; write \"{name}@1\", or a label of it"));
        };
        let Some(prompt) = self.prompts.get(prompt) else {
            let hint = suggestion(prompt, self.prompts.keys().map(String::as_str));
            return Err(format!("no prompt is called \"{prompt}\"{hint}"));
        };
        let (number, version) = prompt.find(version)?;
        Ok((&version.text, &version.digest, number))
    }
}
