//! A value that can be used but never printed, and where it may come from.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::reader::Field;
use super::reference::Reference;
use super::value;

/// What is shown in a secret's place.
pub(super) const MASK: &str = "***";

/// A credential. Equality is for noticing changes between two configs, not for checking what a
/// client sent: it does not take constant time.
#[derive(Clone)]
pub struct Secret {
    text: String,
    /// It stands in the file itself, where it may be no secret at all.
    is_literal: bool,
    place: Option<Arc<Place>>,
}

/// Where a secret is kept that may be another one by and by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    File(PathBuf),
    Elsewhere(Reference),
}

/// A shorter one is found everywhere.
const SHORTEST: usize = 6;
/// One that stands in the file is a word or a media type, unless it is as long as this.
const SHORTEST_LITERAL: usize = 16;

/// What it is when it is written into the file itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Literal {
    /// A secret that should not stand there.
    Warned,
    /// As secret, but often without harm.
    Fine,
    /// An address: secret only where it holds who is asking.
    Address,
    /// Nothing secret, but kept in the same places.
    Plain,
}

// === impl Secret ===

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), is_literal: false, place: None }
    }

    /// Where it can be asked for again, if it may have changed.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_deref()
    }

    /// What is kept in its place now, where that is `text`.
    pub fn renewed(&self, text: &str) -> Result<Self, String> {
        let text = match self.place() {
            Some(Place::File(_)) => of_file(text),
            Some(Place::Elsewhere(_)) | None => text,
        };
        if text.is_empty() {
            return Err("the secret is empty".to_owned());
        }
        Ok(Self { place: self.place.clone(), ..Self::checked(text.to_owned())? })
    }

    fn kept(self, place: Place) -> Self {
        Self { place: Some(Arc::new(place)), ..self }
    }

    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Whether it is so likely a secret, and so long, that it is taken out of what others say.
    pub fn is_telling(&self) -> bool {
        self.text.len() >= if self.is_literal { SHORTEST_LITERAL } else { SHORTEST }
    }

    /// Resolves `env:NAME`, `file:PATH` or a literal. What another system keeps is looked up among
    /// what was fetched from there.
    pub(super) fn read(field: &Field<'_>, literal: Literal) -> Option<Self> {
        let written = field.read(value::text)?;
        if let Some(reference) = Reference::parse(&written) {
            let reference = reference.map_err(|message| field.fail(message)).ok()?;
            let place = Place::Elsewhere(reference.clone());
            return Some(field.report.look_up(&field.path, reference).kept(place));
        }
        let (mut is_literal, mut place) = (false, None);
        let found = if let Some(name) = written.strip_prefix("env:") {
            from_environment(name)
        } else if let Some(path) = written.strip_prefix("file:") {
            let path = field.report.beside(path);
            let found = from_file(&path);
            place = Some(Arc::new(Place::File(path)));
            found
        } else {
            if literal.is_secret(&written) {
                field.report.secret(&field.path);
            }
            if written == MASK {
                field.fail("`***` shows that a secret was left out; write env:NAME or file:PATH");
                return None;
            }
            if literal == Literal::Warned {
                field.report.warn(
                    &field.path,
                    "a secret is written here in clear; prefer env:NAME or file:PATH",
                );
            }
            is_literal = true;
            Ok(written)
        };
        match found.and_then(Self::checked) {
            Ok(secret) => Some(Self { is_literal, place, ..secret }),
            Err(message) => {
                field.fail(message);
                None
            }
        }
    }

    /// Secrets travel in headers, where a control character is an injection or a refusal.
    pub fn checked(text: String) -> Result<Self, String> {
        if text.chars().any(char::is_control) {
            return Err("the secret contains a line break or another control character".to_owned());
        }
        Ok(Self::new(text))
    }
}

// === impl Literal ===

impl Literal {
    fn is_secret(self, written: &str) -> bool {
        match self {
            Self::Warned | Self::Fine => true,
            // Where one was left out, it is to be put in again.
            Self::Address => {
                written.contains('@') || written.contains("password") || written == MASK
            }
            Self::Plain => false,
        }
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.place == other.place
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(MASK)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(MASK)
    }
}

/// The environment variable `name`, unless it is unset, empty or not text.
#[expect(clippy::disallowed_methods, reason = "this is where `config` reads the environment")]
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|text| !text.is_empty())
}

fn from_environment(name: &str) -> Result<String, String> {
    // What is no name may be a secret that was put in the place of one.
    let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    variable(name).ok_or_else(|| {
        if is_name {
            format!("the environment variable {name:?} is not set")
        } else {
            "what stands behind `env:` is the name of no variable".to_owned()
        }
    })
}

fn from_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    let text = of_file(&text);
    if text.is_empty() { Err(format!("{shown} is empty")) } else { Ok(text.to_owned()) }
}

/// Editors end a file with a line break, which is none of the secret.
fn of_file(text: &str) -> &str {
    text.trim_end_matches(['\r', '\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_never_prints_itself() {
        let secret = Secret::new("canary");
        assert_eq!(format!("{secret} {secret:?} {:?}", Some(&secret)), "*** *** Some(***)");
        assert_eq!(serde_json::to_string(&secret).unwrap(), "\"***\"");
        assert_eq!(secret.expose(), "canary");
    }

    #[test]
    fn a_secret_from_a_file_loses_only_its_last_line_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, " sk-1 \r\n").unwrap();
        assert_eq!(from_file(&path), Ok(" sk-1 ".to_owned()));
        std::fs::write(&path, "\n").unwrap();
        assert!(from_file(&path).unwrap_err().ends_with("is empty"));
        assert!(from_file(&folder.path().join("none")).unwrap_err().contains("No such file"));
    }

    #[test]
    fn a_line_break_inside_a_secret_is_refused() {
        assert!(Secret::checked("a\nb".to_owned()).is_err());
    }
}
