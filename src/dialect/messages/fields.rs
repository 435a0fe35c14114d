//! Takes the fields of a JSON object one by one; what is left over is what nobody knew.

use serde_json::{Map, Value};

use crate::dialect::Misread;

/// An object and where it stands in the body, for the sentence that says what is wrong with it.
#[derive(Debug)]
pub(super) struct Fields {
    map: Map<String, Value>,
    path: String,
}

impl Fields {
    pub(super) fn new(value: Value, path: impl Into<String>) -> Result<Self, Misread> {
        let path = path.into();
        match value {
            Value::Object(map) => Ok(Self { map, path }),
            _ => Err(Misread::new(format!("`{path}` must be an object."))),
        }
    }

    /// Where a field of this object stands.
    pub(super) fn path(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// A field, `null` being none.
    pub(super) fn take(&mut self, name: &str) -> Option<Value> {
        // Not `remove`, which would put the last field in its place.
        self.map.shift_remove(name).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// Puts a field back that has no common meaning after all.
    pub(super) fn put(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    pub(super) fn text(&mut self, name: &str) -> Result<Option<String>, Misread> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(name, "a string")),
        }
    }

    pub(super) fn required_text(&mut self, name: &str) -> Result<String, Misread> {
        self.text(name)?.ok_or_else(|| self.wrong(name, "a string"))
    }

    pub(super) fn flag(&mut self, name: &str) -> Result<Option<bool>, Misread> {
        self.parsed(name, "true or false", Value::as_bool)
    }

    pub(super) fn count(&mut self, name: &str) -> Result<Option<u64>, Misread> {
        self.parsed(name, "a whole number, not negative", Value::as_u64)
    }

    pub(super) fn number(&mut self, name: &str) -> Result<Option<f64>, Misread> {
        self.parsed(name, "a number", Value::as_f64)
    }

    pub(super) fn list(&mut self, name: &str) -> Result<Vec<Value>, Misread> {
        match self.take(name) {
            None => Ok(Vec::new()),
            Some(Value::Array(list)) => Ok(list),
            Some(_) => Err(self.wrong(name, "a list")),
        }
    }

    pub(super) fn object(&mut self, name: &str) -> Result<Option<Self>, Misread> {
        let path = self.path(name);
        self.take(name).map(|value| Self::new(value, path)).transpose()
    }

    /// What nobody took.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.map.into_iter().filter(|(_, value)| !value.is_null()).collect()
    }

    pub(super) fn wrong(&self, name: &str, wanted: &str) -> Misread {
        Misread::new(format!("`{}` must be {wanted}.", self.path(name)))
    }

    fn parsed<T>(
        &mut self,
        name: &str,
        wanted: &str,
        parse: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, Misread> {
        let Some(value) = self.take(name) else { return Ok(None) };
        parse(&value).map(Some).ok_or_else(|| self.wrong(name, wanted))
    }
}
