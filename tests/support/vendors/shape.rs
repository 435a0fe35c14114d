//! What may stand in a request, as tables: names of fields, each with the types that it takes.

use serde_json::{Map, Value};

/// Fields of an object. A type is `string`, `integer`, `number`, `boolean`, `array`, `object`,
/// `null` or `any`, or several with `|` between them; `!` in front makes the field required.
pub(crate) type Shape = &'static [(&'static str, &'static str)];

/// A field that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// `messages.0.content`.
    pub(crate) path: String,
    pub(crate) wrong: Wrong,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wrong {
    Unknown,
    Missing,
    /// It must be one of these types.
    Type(&'static str),
}

/// The object at `path`, if it has the shape. Unknown fields are refused unless `open`.
pub(crate) fn object<'a>(
    value: &'a Value,
    path: &str,
    shape: Shape,
    open: bool,
) -> Result<&'a Map<String, Value>, Fault> {
    let fault = |path: String, wrong| Fault { path, wrong };
    let object = value.as_object().ok_or_else(|| fault(path.to_owned(), Wrong::Type("object")))?;
    let inside = |name: &str| join(path, name);
    for (name, value) in object {
        match shape.iter().find(|(known, _)| known == name) {
            Some((_, types)) if !takes(types, value) => {
                return Err(fault(inside(name), Wrong::Type(types.trim_start_matches('!'))));
            }
            None if !open => return Err(fault(inside(name), Wrong::Unknown)),
            _ => {}
        }
    }
    let missing =
        |(name, types): &&(&str, &str)| types.starts_with('!') && !object.contains_key(*name);
    match shape.iter().find(missing) {
        Some((name, _)) => Err(fault(inside(name), Wrong::Missing)),
        None => Ok(object),
    }
}

fn takes(types: &str, value: &Value) -> bool {
    types.trim_start_matches('!').split('|').any(|kind| match kind {
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        "any" => true,
        other => panic!("there is no type {other:?}"),
    })
}

pub(crate) fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// `messages.0.content` as `messages[0].content`.
pub(crate) fn bracketed(path: &str) -> String {
    path.split('.').fold(String::new(), |text, part| {
        if part.bytes().all(|byte| byte.is_ascii_digit()) {
            format!("{text}[{part}]")
        } else {
            join(&text, part)
        }
    })
}

/// The elements of an array with their paths; of anything else, none.
pub(crate) fn each<'a>(
    value: Option<&'a Value>,
    path: &str,
) -> impl DoubleEndedIterator<Item = (String, &'a Value)> {
    let elements = value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    elements.iter().enumerate().map(move |(at, element)| (format!("{path}.{at}"), element))
}

pub(crate) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// The first object in a schema of which `bad` complains, with its path.
pub(crate) fn find_schema(
    schema: &Value,
    path: &str,
    bad: &dyn Fn(&Map<String, Value>) -> Option<String>,
) -> Option<(String, String)> {
    let object = schema.as_object()?;
    if let Some(complaint) = bad(object) {
        return Some((path.to_owned(), complaint));
    }
    let named = ["properties", "$defs"].into_iter().flat_map(|name| {
        let inside = object.get(name).and_then(Value::as_object);
        inside
            .into_iter()
            .flatten()
            .map(move |(key, value)| (format!("{path}.{name}.{key}"), value))
    });
    let single = object.get("items").map(|value| (format!("{path}.items"), value));
    let several = ["anyOf", "oneOf", "allOf"]
        .into_iter()
        .flat_map(|name| each(object.get(name), &format!("{path}.{name}")).collect::<Vec<_>>());
    named.chain(single).chain(several).find_map(|(path, value)| find_schema(value, &path, bad))
}
