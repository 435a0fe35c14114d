//! The config that is being made, section by section, and how it is written down.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use crate::config::SECTIONS;

/// A line that would be longer has its list broken.
const WIDTH: usize = 100;

/// A config of ours.
#[derive(Debug, Default)]
pub(super) struct Draft {
    /// What is said at the beginning.
    pub(super) opening: Vec<String>,
    sections: BTreeMap<(usize, String), Section>,
}

/// One table, and what is said of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Section {
    comments: Vec<String>,
    values: Map<String, Json>,
}

// === impl Draft ===

impl Draft {
    /// The section `[kind]`, or `[kind.NAME]` where there are several.
    pub(super) fn section(&mut self, kind: &str, name: &str) -> &mut Section {
        self.sections.entry((rank(kind), name.to_owned())).or_default()
    }

    pub(super) fn find(&self, kind: &str, name: &str) -> Option<&Section> {
        self.sections.get(&(rank(kind), name.to_owned()))
    }

    pub(super) fn insert(&mut self, kind: &str, name: &str, section: Section) {
        self.sections.insert((rank(kind), name.to_owned()), section);
    }

    /// The names of the sections of one kind.
    pub(super) fn names(&self, kind: &str) -> Vec<String> {
        let rank = rank(kind);
        let names = self.sections.keys().filter(|(other, _)| *other == rank);
        names.map(|(_, name)| name.clone()).collect()
    }

    /// A name that no section of this kind has yet.
    pub(super) fn fresh(&self, kind: &str, wanted: &str) -> String {
        let taken = |name: &str| self.find(kind, name).is_some();
        let others = (2..).map(|number| format!("{wanted}-{number}"));
        let mut names = std::iter::once(wanted.to_owned()).chain(others);
        names.find(|name| !taken(name)).unwrap_or_default()
    }

    /// The name of the section of this kind that says exactly this; made if there is none.
    pub(super) fn intern(
        &mut self,
        kind: &str,
        wanted: &str,
        values: &Map<String, Json>,
    ) -> String {
        let rank = rank(kind);
        let mut known = self.sections.iter().filter(|((other, _), _)| *other == rank);
        if let Some(((_, name), _)) = known.find(|(_, section)| section.values == *values) {
            return name.clone();
        }
        let name = self.fresh(kind, wanted);
        self.section(kind, &name).values.clone_from(values);
        name
    }

    pub(super) fn write(&self) -> String {
        let mut text = String::new();
        for line in &self.opening {
            let _ = writeln!(text, "# {line}");
        }
        for ((rank, name), section) in &self.sections {
            text.push('\n');
            for comment in &section.comments {
                let _ = writeln!(text, "# {comment}");
            }
            let kind = SECTIONS.get(*rank).copied().unwrap_or_default();
            let _ = match name.as_str() {
                "" => writeln!(text, "[{kind}]"),
                name => writeln!(text, "[{kind}.{}]", key(name)),
            };
            for (name, value) in &section.values {
                let _ = writeln!(text, "{}", line(name, value));
            }
        }
        text
    }
}

fn rank(kind: &str) -> usize {
    SECTIONS.iter().position(|known| *known == kind).unwrap_or(SECTIONS.len())
}

// === impl Section ===

impl Section {
    pub(super) fn set(&mut self, key: &str, value: impl Into<Json>) -> &mut Self {
        self.values.insert(key.to_owned(), value.into());
        self
    }

    /// Sets it unless there is nothing to set.
    pub(super) fn set_some(&mut self, key: &str, value: Option<impl Into<Json>>) -> &mut Self {
        if let Some(value) = value {
            self.set(key, value);
        }
        self
    }

    /// Sets one key of a table in it.
    pub(super) fn set_in(&mut self, table: &str, key: &str, value: impl Into<Json>) -> &mut Self {
        let inner = self.values.entry(table).or_insert_with(|| json!({}));
        if let Some(inner) = inner.as_object_mut() {
            inner.insert(key.to_owned(), value.into());
        }
        self
    }

    /// Lets go of empty lists in a table, and of the table if nothing is left.
    pub(super) fn prune(&mut self, table: &str) {
        let Some(inner) = self.values.get_mut(table).and_then(Json::as_object_mut) else { return };
        inner.retain(|_, value| value.as_array().is_none_or(|list| !list.is_empty()));
        if inner.is_empty() {
            self.values.shift_remove(table);
        }
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Json> {
        self.values.shift_remove(key)
    }

    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.values.get(key)
    }

    /// Adds to a list in it.
    pub(super) fn push(&mut self, key: &str, value: impl Into<Json>) -> &mut Self {
        let list = self.values.entry(key).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.push(value.into());
        }
        self
    }

    pub(super) fn comment(&mut self, text: impl Into<String>) -> &mut Self {
        let text = text.into();
        if !self.comments.contains(&text) {
            self.comments.push(text);
        }
        self
    }
}

/// `name = value`, with its list broken where the line would be too long.
fn line(name: &str, value: &Json) -> String {
    let text = format!("{} = {}", key(name), inline(value));
    match value {
        Json::Array(elements) if text.len() > WIDTH => {
            let elements: Vec<String> =
                elements.iter().map(|element| format!("  {},\n", inline(element))).collect();
            format!("{} = [\n{}]", key(name), elements.concat())
        }
        _ => text,
    }
}

fn inline(value: &Json) -> String {
    match value {
        Json::Array(elements) => {
            let elements: Vec<String> = elements.iter().map(inline).collect();
            format!("[{}]", elements.join(", "))
        }
        Json::Object(members) if members.is_empty() => "{}".to_owned(),
        Json::Object(members) => {
            let member =
                |(name, value): (&String, &Json)| format!("{} = {}", key(name), inline(value));
            let members: Vec<String> = members.iter().map(member).collect();
            format!("{{ {} }}", members.join(", "))
        }
        Json::String(text) => quoted(text),
        // TOML has no null, and nothing here makes one.
        Json::Null => "\"\"".to_owned(),
        Json::Bool(_) | Json::Number(_) => value.to_string(),
    }
}

fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}

/// A JSON string is one of TOML, but for one letter that JSON leaves as it is.
fn quoted(text: &str) -> String {
    Json::from(text).to_string().replace('\u{7f}', "\\u007f")
}
