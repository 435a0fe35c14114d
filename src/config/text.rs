//! The text of a config as it was written: shown without its secrets, compared with another, and
//! completed with the secrets that were left out.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value as Json};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Lines, Problem, child};
use super::reader;
use super::secret::{MASK, Secret};
use super::{Config, parse_toml};

/// A secret that stands in the text itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Literal {
    pub(super) path: String,
    /// Its value, with its quotes.
    pub(super) span: Range<usize>,
}

/// A config as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Text {
    whole: Secret,
    literals: Vec<Literal>,
}

/// One place in which two configs differ. A secret shows as `***`, before and after.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub path: String,
    pub before: Option<Json>,
    pub after: Option<Json>,
}

/// What stands at one path: as it is, and as it may be shown.
struct Leaf {
    real: Json,
    shown: Json,
}

// === impl Text ===

impl Default for Text {
    fn default() -> Self {
        Self::new("", Vec::new())
    }
}

impl Text {
    pub(super) fn new(text: &str, literals: Vec<Literal>) -> Self {
        Self { whole: Secret::new(text), literals }
    }

    /// All of it, secrets included.
    pub fn whole(&self) -> &str {
        self.whole.expose()
    }

    /// Whether it can be shown as it is: secrets are only named in it.
    pub fn is_open(&self) -> bool {
        self.literals.is_empty()
    }

    /// With `***` where a secret stands.
    pub fn shown(&self) -> String {
        self.with(|_| Some(format!("\"{MASK}\"")))
    }

    /// Puts in the secrets that were left out of this text, from the first of `donors` that has one
    /// at the same place. Those that none has are problems.
    pub fn complete(text: &str, origin: &Path, donors: &[&Self]) -> Result<String, Vec<Problem>> {
        let sketch = Config::sketch(text, origin)?;
        let mut missing = Vec::new();
        let whole = sketch.with(|literal| {
            if !sketch.is_left_out(literal) {
                return None;
            }
            let found = donors.iter().find_map(|donor| donor.literal(&literal.path));
            if found.is_none() {
                missing.push(literal.clone());
            }
            found.map(str::to_owned)
        });
        if missing.is_empty() {
            return Ok(whole);
        }
        let lines = Lines::of(text);
        let problem = |literal: Literal| Problem {
            line: lines.number(&literal.span),
            path: literal.path,
            ..Problem::of_file(
                origin,
                "`***` shows that a secret was left out, and what is served has none here; write \
                 env:NAME, file:PATH or the secret"
                    .to_owned(),
            )
        };
        Err(missing.into_iter().map(problem).collect())
    }

    /// In which places `after` differs, in the order of their names.
    pub fn differences(&self, after: &Self) -> Vec<Difference> {
        let (mut before, mut after) = (self.leaves(), after.leaves());
        let paths: BTreeSet<String> = before.keys().chain(after.keys()).cloned().collect();
        let differ = |path: String| {
            let (old, new) = (before.remove(&path), after.remove(&path));
            let same = old.as_ref().map(|leaf| &leaf.real) == new.as_ref().map(|leaf| &leaf.real);
            let shown = |leaf: Option<Leaf>| leaf.map(|leaf| leaf.shown);
            (!same).then(|| Difference { path, before: shown(old), after: shown(new) })
        };
        paths.into_iter().filter_map(differ).collect()
    }

    /// With other words in the place of some secrets.
    fn with(&self, mut word: impl FnMut(&Literal) -> Option<String>) -> String {
        let (whole, mut text, mut end) = (self.whole(), String::new(), 0);
        for literal in &self.literals {
            if let (Some(before), Some(word)) = (whole.get(end..literal.span.start), word(literal))
            {
                text.push_str(before);
                text.push_str(&word);
                end = literal.span.end;
            }
        }
        text.push_str(whole.get(end..).unwrap_or_default());
        text
    }

    /// The secret at `path`, as it is spelled.
    fn literal(&self, path: &str) -> Option<&str> {
        let literal = self.literals.iter().find(|literal| literal.path == path)?;
        self.whole().get(literal.span.clone()).filter(|_| !self.is_left_out(literal))
    }

    fn is_left_out(&self, literal: &Literal) -> bool {
        let spelled = self.whole().get(literal.span.clone()).unwrap_or_default();
        spelled.trim_matches(['"', '\'']) == MASK
    }

    fn leaves(&self) -> BTreeMap<String, Leaf> {
        let secrets = self.literals.iter().map(|literal| literal.path.as_str()).collect();
        let mut leaves = BTreeMap::new();
        // What is no TOML was never accepted, and the text of discovery is empty.
        if let Ok(root) = parse_toml(self.whole(), Path::new("")) {
            flatten(&mut leaves, "", &root, &secrets);
        }
        leaves
    }
}

fn flatten(
    leaves: &mut BTreeMap<String, Leaf>,
    path: &str,
    table: &DeTable<'_>,
    secrets: &BTreeSet<&str>,
) {
    for (key, value) in table {
        let path = child(path, key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(leaves, &path, inner, secrets),
            value => {
                let leaf = Leaf { real: reader::json(value), shown: show(value, &path, secrets) };
                leaves.insert(path, leaf);
            }
        }
    }
}

/// As JSON, without its secrets.
fn show(value: &DeValue<'_>, path: &str, secrets: &BTreeSet<&str>) -> Json {
    match value {
        _ if secrets.contains(path) => Json::from(MASK),
        DeValue::Array(list) => {
            let places = list.iter().enumerate();
            let element = |(at, value): (usize, &Spanned<DeValue<'_>>)| {
                show(value.get_ref(), &format!("{path}[{at}]"), secrets)
            };
            places.map(element).collect()
        }
        DeValue::Table(table) => {
            let member = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                let name: &str = key.get_ref();
                (name.to_owned(), show(value.get_ref(), &child(path, name), secrets))
            };
            Json::Object(table.iter().map(member).collect::<Map<_, _>>())
        }
        other => reader::json(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# a comment stays
[admin]
key = "canary-1" # behind it

[providers.a]
kind = "openai"
api_keys = ["canary-2", "env:SOME"]
headers = { x-team = 'canary-3' }

[store]
url = "memory:"
shared = "redis://:canary-4@host"
"#;

    fn sketch(text: &str) -> Text {
        Config::sketch(text, Path::new("a.toml")).unwrap()
    }

    #[test]
    fn the_text_shows_without_the_secrets_that_stand_in_it() {
        let shown = sketch(TEXT).shown();
        assert!(!shown.contains("canary"), "{shown}");
        for kept in ["# a comment stays", "key = \"***\" # behind it", "env:SOME", "memory:"] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
        assert_eq!(shown.matches("***").count(), 4);
    }

    #[test]
    fn what_was_left_out_is_put_in_again_from_the_same_place() {
        let whole = sketch(TEXT);
        let complete = Text::complete(&whole.shown(), Path::new("a.toml"), &[&whole]);
        assert_eq!(complete, Ok(TEXT.to_owned()));
        let elsewhere = whole.shown().replace("providers.a", "providers.b");
        let missing = Text::complete(&elsewhere, Path::new("a.toml"), &[&whole]).unwrap_err();
        let paths: Vec<&str> = missing.iter().map(|problem| problem.path.as_str()).collect();
        let all = ["api_keys[0]", "headers.x-team"];
        assert_eq!(paths, all.map(|key| format!("providers.b.{key}")));
        assert_eq!(missing[0].line, 7);
    }

    #[test]
    fn two_texts_differ_where_their_values_do_and_no_secret_shows() {
        let (before, after) = (sketch(TEXT), TEXT.replace("canary-1", "canary-9"));
        let after = after.replace("url = \"memory:\"", "replicas = 2");
        let told = before.differences(&sketch(&after));
        let told = serde_json::to_value(told).unwrap();
        let expected = serde_json::json!([
            {"path": "admin.key", "before": "***", "after": "***"},
            {"path": "store.replicas", "before": null, "after": 2},
            {"path": "store.url", "before": "memory:", "after": null},
        ]);
        assert_eq!(told, expected);
        assert_eq!(before.differences(&sketch(&TEXT.replace("# a comment", "#"))), []);
    }
}
