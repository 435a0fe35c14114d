//! Another gateway's config, of which whatever is understood is taken out: the rest is reported.

use serde_json::{Map, Value as Json};

use super::report::Report;
use crate::config::variable;

/// One table of the config, with what has not been taken from it.
pub(super) struct Source<'r> {
    pub(super) path: String,
    left: Map<String, Json>,
    pub(super) report: &'r Report,
}

/// What to say of settings that have no counterpart: the end of their path, and the advice.
pub(super) struct Advice(&'static str);

// === impl Source ===

impl<'r> Source<'r> {
    /// `value` as a table; what is none is reported.
    pub(super) fn new(path: impl Into<String>, value: Json, report: &'r Report) -> Option<Self> {
        let path = path.into();
        match value {
            Json::Object(left) => Some(Self { path, left, report }),
            Json::Null => None,
            other => {
                report.todo(&path, format!("is {}, where a table belongs", kind_of(&other)));
                None
            }
        }
    }

    /// The path of one of its settings.
    pub(super) fn at(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.left.get(key).is_some_and(|value| !value.is_null())
    }

    pub(super) fn peek(&self, key: &str) -> Option<&Json> {
        self.left.get(key)
    }

    /// One setting, which counts as understood from here on. What is null is not set.
    pub(super) fn take(&mut self, key: &str) -> Option<Json> {
        self.left.shift_remove(key).filter(|value| !value.is_null())
    }

    /// The first of several spellings.
    pub(super) fn take_any(&mut self, keys: &[&str]) -> Option<(String, Json)> {
        keys.iter().find_map(|key| Some((self.at(key), self.take(key)?)))
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Json::String(text) => Some(text),
            Json::Number(number) => Some(number.to_string()),
            other => self.wrong(key, &other, "text"),
        }
    }

    /// A number, also one that is written as text.
    pub(super) fn number(&mut self, key: &str) -> Option<f64> {
        match self.take(key)? {
            Json::Number(number) => number.as_f64(),
            Json::String(text) if text.trim().parse::<f64>().is_ok() => text.trim().parse().ok(),
            other => self.wrong(key, &other, "a number"),
        }
    }

    /// A whole number of at least 1.
    pub(super) fn count(&mut self, key: &str) -> Option<u64> {
        let number = self.number(key)?;
        let whole = format!("{:.0}", number.ceil()).parse::<u64>().ok();
        let count = whole.filter(|count| *count > 0);
        if count.is_none() {
            self.report.lost(&self.at(key), "only counts of at least 1 have a meaning here");
        }
        count
    }

    pub(super) fn flag(&mut self, key: &str) -> Option<bool> {
        match self.take(key)? {
            Json::Bool(flag) => Some(flag),
            Json::String(text) if text.eq_ignore_ascii_case("true") => Some(true),
            Json::String(text) if text.eq_ignore_ascii_case("false") => Some(false),
            other => self.wrong(key, &other, "true or false"),
        }
    }

    pub(super) fn table(&mut self, key: &str) -> Option<Self> {
        let value = self.take(key)?;
        Self::new(self.at(key), value, self.report)
    }

    /// The elements of a list, each with its path. What is no list counts as its only element.
    pub(super) fn list(&mut self, key: &str) -> Vec<(String, Json)> {
        let path = self.at(key);
        match self.take(key) {
            None => Vec::new(),
            Some(Json::Array(elements)) => elements
                .into_iter()
                .enumerate()
                .map(|(place, element)| (format!("{path}[{place}]"), element))
                .collect(),
            Some(other) => vec![(path, other)],
        }
    }

    /// The elements of a list that are text.
    pub(super) fn texts(&mut self, key: &str) -> Vec<String> {
        let elements = self.list(key).into_iter();
        let text = |(path, value): (String, Json)| match value {
            Json::String(text) => Some(text),
            other => {
                self.report.todo(&path, format!("is {}, where text belongs", kind_of(&other)));
                None
            }
        };
        elements.filter_map(text).collect()
    }

    /// All that is left, by name.
    pub(super) fn entries(&mut self) -> Vec<(String, String, Json)> {
        let left = std::mem::take(&mut self.left);
        left.into_iter().map(|(name, value)| (self.at(&name), name, value)).map(swap).collect()
    }

    /// The names of all that is left, each with its path.
    pub(super) fn names(&self) -> Vec<(String, String)> {
        self.left.keys().map(|name| (name.clone(), self.at(name))).collect()
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if !self.left.contains_key(to)
            && let Some(value) = self.left.shift_remove(from)
        {
            self.left.insert(to.to_owned(), value);
        }
    }

    /// Reports a setting, if it is there, as one that is not carried over.
    pub(super) fn lose(&mut self, key: &str, advice: &str) {
        if self.take(key).is_some() {
            self.report.lost(&self.at(key), advice);
        }
    }

    pub(super) fn changed(&self, key: &str, text: impl Into<String>) {
        self.report.changed(&self.at(key), text);
    }

    /// Reports everything that nobody took.
    pub(super) fn rest(self, advice: &Advice) {
        for (key, value) in &self.left {
            if value.is_null() {
                continue;
            }
            match advice.of(&self.path, key) {
                Some(text) => self.report.lost(&self.at(key), text),
                None => self.report.unknown(&self.at(key)),
            }
        }
    }

    fn wrong<T>(&self, key: &str, found: &Json, wanted: &str) -> Option<T> {
        let message = format!("is {}, where {wanted} belongs", kind_of(found));
        self.report.todo(&self.at(key), message);
        None
    }
}

fn swap((path, name, value): (String, String, Json)) -> (String, String, Json) {
    (name, path, value)
}

pub(super) fn kind_of(value: &Json) -> &'static str {
    match value {
        Json::Null => "nothing",
        Json::Bool(_) => "true or false",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "a list",
        Json::Object(_) => "a table",
    }
}

// === impl Advice ===

impl Advice {
    /// Lines of `TABLE.KEY`, a tab and the advice; `*.KEY` is for every table.
    pub(super) const fn new(lines: &'static str) -> Self {
        Self(lines)
    }

    fn of(&self, path: &str, key: &str) -> Option<&'static str> {
        let table = path.rsplit('.').next().unwrap_or_default();
        let table = table.split('[').next().unwrap_or_default();
        let wanted = [format!("{table}.{key}"), format!("{table}.*"), format!("*.{key}")];
        let lines = self.0.lines().filter_map(|line| line.split_once('\t'));
        wanted.iter().find_map(|wanted| {
            lines.clone().find_map(|(name, text)| (name == wanted).then_some(text))
        })
    }
}

/// A secret as this config names it. `written` is what the other file says; `named` the variable
/// of a reference, if it is one; `usual` what a variable for such a secret is called.
pub(super) fn secret(
    path: &str,
    written: &str,
    named: Option<&str>,
    usual: &str,
    report: &Report,
) -> String {
    let variable = named.map_or_else(
        || {
            let variable = report.variable_for(written, &variable_name(usual));
            report.todo(path, format!("a secret stands there in clear; set {variable} to it"));
            variable
        },
        str::to_owned,
    );
    report.needs(&variable);
    format!("env:{variable}")
}

/// Text that may stand in the environment over there and must stand in the file here.
pub(super) fn plain(
    path: &str,
    written: &str,
    named: Option<&str>,
    otherwise: &str,
    report: &Report,
) -> String {
    let Some(name) = named else { return written.to_owned() };
    if let Some(value) = variable(name) {
        report.changed(path, format!("{name} was read now; it is written into the config"));
        return value;
    }
    let text = format!("{name} is not set here; put its value where the config has `{otherwise}`");
    report.todo(path, text);
    otherwise.to_owned()
}

/// A name that an environment variable can have.
pub(super) fn variable_name(text: &str) -> String {
    let letter = |letter: char| {
        if letter.is_ascii_alphanumeric() { letter.to_ascii_uppercase() } else { '_' }
    };
    let name: String = text.chars().map(letter).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) { format!("_{name}") } else { name }
}

/// A name that a section can have.
pub(super) fn section_name(text: &str) -> String {
    let letter = |letter: char| {
        if letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-') {
            letter
        } else {
            '-'
        }
    };
    let name: String = text.trim().chars().map(letter).collect();
    let name = name.trim_matches('-');
    if name.is_empty() { "unnamed".to_owned() } else { name.to_owned() }
}

/// An address without what stands in it to prove who calls.
pub(super) fn without_userinfo(path: &str, url: &str, report: &Report) -> String {
    let (address, query) = url.split_once(['?', '#']).map_or((url, false), |(url, _)| (url, true));
    if query {
        report.lost(path, "what stands behind `?` of an address is not sent; it was left out");
    }
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let Some(at) = rest[..end].rfind('@') else { return address.to_owned() };
    report.todo(path, "the user in the address was left out; send it as a header of the provider");
    format!("{scheme}://{}", &rest[at + 1..])
}
