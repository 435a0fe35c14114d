//! Fields of a client's JSON, by either of the spellings that Google's APIs take.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::dialect::Misread;

/// `snake_case` as `camelCase`.
pub(super) fn camel(name: &str) -> Cow<'_, str> {
    if !name.contains('_') {
        return Cow::Borrowed(name);
    }
    let mut out = String::with_capacity(name.len());
    let mut raise = false;
    for character in name.chars() {
        match character {
            '_' if !out.is_empty() => raise = true,
            _ if std::mem::take(&mut raise) => out.push(character.to_ascii_uppercase()),
            _ => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// The field, unless it is absent or null.
pub(super) fn get<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    let found = fields.get(name).or_else(|| {
        fields
            .iter()
            .find(|(written, _)| written.contains('_') && camel(written) == name)
            .map(|(_, value)| value)
    });
    found.filter(|value| !value.is_null())
}

pub(super) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    get(fields, name).and_then(Value::as_str)
}

pub(super) fn object<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, Misread> {
    value.as_object().ok_or_else(|| wrong(path, "an object"))
}

/// A list; one thing alone stands for a list of it.
pub(super) fn list<'a>(value: &'a Value, path: &str) -> Result<&'a [Value], Misread> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Object(_) => Ok(std::slice::from_ref(value)),
        _ => Err(wrong(path, "a list")),
    }
}

pub(super) fn string(value: &Value, path: &str) -> Result<String, Misread> {
    value.as_str().map(str::to_owned).ok_or_else(|| wrong(path, "a string"))
}

pub(super) fn number(value: &Value, path: &str) -> Result<f64, Misread> {
    let spelled = || value.as_str()?.parse().ok();
    value.as_f64().or_else(spelled).ok_or_else(|| wrong(path, "a number"))
}

/// A whole number, which Google's APIs also take as `40.0` and `"40"`.
pub(super) fn whole(value: &Value, path: &str) -> Result<i64, Misread> {
    if let Some(number) = value.as_i64() {
        return Ok(number);
    }
    let number = number(value, path)?;
    #[expect(clippy::cast_possible_truncation, reason = "checked to be whole and in range")]
    let whole = (number.fract() == 0.0 && number.abs() < 9e15).then_some(number as i64);
    whole.ok_or_else(|| wrong(path, "a whole number"))
}

pub(super) fn count(value: &Value, path: &str) -> Result<u64, Misread> {
    u64::try_from(whole(value, path)?).map_err(|_| wrong(path, "a whole number of 0 or more"))
}

pub(super) fn wrong(path: &str, kind: &str) -> Misread {
    Misread::new(format!("`{path}` must be {kind}."))
}
