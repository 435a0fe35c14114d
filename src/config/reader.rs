//! Walks the parsed file section by section and notes every fault instead of stopping at the first.

use std::borrow::Cow;

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Report, child, suggestion};

/// One value of the file and the path that leads to it.
pub(super) struct Field<'a> {
    pub(super) path: String,
    value: &'a DeValue<'a>,
    pub(super) report: &'a Report,
}

/// One table whose keys are all known in advance.
pub(super) struct Section<'a> {
    pub(super) path: String,
    table: &'a DeTable<'a>,
    keys: &'static [&'static str],
    pub(super) report: &'a Report,
}

// === impl Field ===

impl<'a> Field<'a> {
    pub(super) fn fail(&self, message: impl Into<String>) {
        self.report.problem(&self.path, message);
    }

    /// The value as `read` understands it; what `read` objects to becomes a problem here.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        read(self.value).map_err(|message| self.fail(message)).ok()
    }

    /// The value as a table that may hold `keys` and nothing else.
    pub(super) fn section(&self, keys: &'static [&'static str]) -> Option<Section<'a>> {
        let table = self.table()?;
        Some(Section::new(self.path.clone(), table, keys, self.report))
    }

    /// The members of a table whose keys are names the operator chose.
    pub(super) fn entries(&self) -> Vec<(&'a str, Field<'a>)> {
        let entries = self.table().into_iter().flatten();
        entries
            .map(|(key, value)| {
                let name: &str = key.get_ref();
                (name, self.inner(child(&self.path, name), value.get_ref()))
            })
            .collect()
    }

    pub(super) fn list(&self) -> Option<Vec<Field<'a>>> {
        let Some(array) = self.value.as_array() else {
            self.fail(format!("must be a list in [brackets], not {}", kind_of(self.value)));
            return None;
        };
        let element = |(position, value): (usize, &'a Spanned<DeValue<'a>>)| {
            self.inner(format!("{}[{position}]", self.path), value.get_ref())
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub(super) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    fn table(&self) -> Option<&'a DeTable<'a>> {
        let table = self.value.as_table();
        if table.is_none() {
            self.fail(format!("must be a table, not {}", kind_of(self.value)));
        }
        table
    }

    fn inner(&self, path: String, value: &'a DeValue<'a>) -> Field<'a> {
        Field { path, value, report: self.report }
    }
}

// === impl Section ===

impl<'a> Section<'a> {
    /// Opens a table and reports the keys it should not have.
    pub(super) fn new(
        path: String,
        table: &'a DeTable<'a>,
        keys: &'static [&'static str],
        report: &'a Report,
    ) -> Self {
        for (key, value) in table {
            let name: &str = key.get_ref();
            if keys.contains(&name) {
                continue;
            }
            let shown = if path.is_empty() && value.get_ref().is_table() {
                format!("[{name}]")
            } else {
                format!("{name:?}")
            };
            let hint = suggestion(name, keys.iter().copied());
            report.problem(&child(&path, name), format!("{shown} is not known{hint}"));
        }
        Self { path, table, keys, report }
    }

    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        debug_assert!(self.keys.contains(&key), "{key} is read but not listed as known");
        let value = self.table.get(key)?.get_ref();
        Some(Field { path: child(&self.path, key), value, report: self.report })
    }

    pub(super) fn read<T>(
        &self,
        key: &str,
        read: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        self.get(key)?.read(read)
    }

    /// The keys that are written, with their values.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&'a str, Field<'a>)> {
        self.table.iter().map(|(key, value)| {
            let name: &str = key.get_ref();
            let path = child(&self.path, name);
            (name, Field { path, value: value.get_ref(), report: self.report })
        })
    }

    /// The whole table as JSON, without these keys.
    pub(super) fn written(&self, without: &[&str]) -> Json {
        let shown = self.table.iter().filter(|(key, _)| !without.contains(&key.get_ref().as_ref()));
        let member = |(key, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let key: &Cow<'_, str> = key.get_ref();
            (key.to_string(), json(value.get_ref()))
        };
        Json::Object(shown.map(member).collect())
    }

    /// As `get`, for a key that cannot be left out.
    pub(super) fn require(&self, key: &str) -> Option<Field<'a>> {
        let field = self.get(key);
        if field.is_none() {
            self.report.problem(&self.path, format!("`{key}` is missing"));
        }
        field
    }
}

/// A table as JSON.
pub(super) fn object(value: &DeValue<'_>) -> Result<Json, String> {
    match value {
        DeValue::Table(_) => Ok(json(value)),
        _ => Err(format!("must be a table, not {}", kind_of(value))),
    }
}

/// What JSON has no word for is text.
pub(super) fn json(value: &DeValue<'_>) -> Json {
    match value {
        DeValue::String(text) => Json::from(text.as_ref()),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            let whole = i64::from_str_radix(digits, number.radix());
            whole.map_or_else(|_| Json::from(digits), Json::from)
        }
        DeValue::Float(number) => {
            number.as_str().parse::<f64>().map_or_else(|_| Json::from(number.as_str()), Json::from)
        }
        DeValue::Boolean(flag) => Json::from(*flag),
        DeValue::Datetime(time) => Json::from(time.to_string()),
        DeValue::Array(list) => list.iter().map(|value| json(value.get_ref())).collect(),
        DeValue::Table(table) => {
            let member = |(key, value): (&Spanned<Cow<'_, str>>, &Spanned<DeValue<'_>>)| {
                (key.get_ref().to_string(), json(value.get_ref()))
            };
            Json::Object(table.iter().map(member).collect())
        }
    }
}

/// The type of a value with its article, for "not an integer".
pub(super) fn kind_of(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
