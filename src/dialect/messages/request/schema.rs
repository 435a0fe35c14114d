//! Rewrites JSON schemas: those of answers into the part of the language that structured answers
//! know, those of tools into objects.
//!
//! In answers every object must refuse other properties, and bounds of numbers, lengths and counts
//! are not known: those are said in the description instead, where the model reads them.

use serde_json::{Map, Value, json};

use super::Dropped;

/// Keywords that the API refuses.
const UNKNOWN: &[&str] = &[
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
    "minLength",
    "maxLength",
    "maxItems",
    "uniqueItems",
    "minProperties",
    "maxProperties",
];
const FORMATS: &[&str] =
    &["date-time", "time", "date", "duration", "email", "hostname", "uri", "ipv4", "ipv6", "uuid"];
/// Keywords that hold one schema, a list of them, or a map to them.
const NESTED: &[&str] = &["items", "anyOf", "allOf", "properties", "$defs", "definitions"];

/// Deeper schemas are left as they are; the API has its own limit far below.
const DEEPEST: usize = 64;

/// More references that follow one another at the root of a tool's schema lead nowhere.
const MOST_REFERENCES: usize = 4;

/// A tool's schema, which must say that it is an object, and cannot be a reference to one.
pub(super) fn of_tool(schema: Option<&Value>) -> Value {
    let root = schema.unwrap_or(&Value::Null);
    let mut fields = root.as_object().cloned().unwrap_or_default();
    for _ in 0..MOST_REFERENCES {
        let pointer =
            fields.get("$ref").and_then(Value::as_str).and_then(|it| it.strip_prefix('#'));
        let target = pointer.and_then(|pointer| root.pointer(pointer)).and_then(Value::as_object);
        let Some(target) = target.cloned() else { break };
        fields.shift_remove("$ref");
        for (name, value) in target {
            fields.entry(name).or_insert(value);
        }
    }
    fields.entry("type").or_insert_with(|| json!("object"));
    Value::Object(fields)
}

pub(super) fn compile(schema: &Value, dropped: &mut Dropped) -> Value {
    compile_at(schema, dropped, 0)
}

fn compile_at(schema: &Value, dropped: &mut Dropped, depth: usize) -> Value {
    let Some(object) = schema.as_object().filter(|_| depth < DEEPEST) else {
        return schema.clone();
    };
    let (mut kept, mut said) = (Map::new(), Vec::new());
    for (name, value) in object {
        match name.as_str() {
            "oneOf" => {
                kept.insert("anyOf".to_owned(), nested(value, dropped, depth));
            }
            "additionalProperties" => {
                dropped.add_if(
                    *value != Value::Bool(false),
                    "response_format.json_schema.schema.additionalProperties",
                );
            }
            _ if is_refused(name, value) => said.push(format!("{name}: {value}")),
            "properties" | "$defs" | "definitions" => {
                kept.insert(name.clone(), named(value, dropped, depth));
            }
            _ if NESTED.contains(&name.as_str()) => {
                kept.insert(name.clone(), nested(value, dropped, depth));
            }
            _ => {
                kept.insert(name.clone(), value.clone());
            }
        }
    }
    if is_object(object) {
        kept.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    if !said.is_empty() {
        let before = kept.get("description").and_then(Value::as_str).unwrap_or_default();
        let text = format!("{before}\n\n{{{}}}", said.join(", "));
        kept.insert("description".to_owned(), Value::String(text.trim_start().to_owned()));
    }
    Value::Object(kept)
}

fn is_object(schema: &Map<String, Value>) -> bool {
    let kind = schema.get("type");
    kind.is_some_and(|kind| kind == "object")
        || kind
            .and_then(Value::as_array)
            .is_some_and(|kinds| kinds.iter().any(|one| one == "object"))
        || (kind.is_none() && schema.contains_key("properties"))
}

fn is_refused(name: &str, value: &Value) -> bool {
    match name {
        "minItems" => value.as_u64().is_none_or(|least| least > 1),
        "format" => !value.as_str().is_some_and(|format| FORMATS.contains(&format)),
        _ => UNKNOWN.contains(&name),
    }
}

fn nested(value: &Value, dropped: &mut Dropped, depth: usize) -> Value {
    match value {
        Value::Array(list) => {
            list.iter().map(|schema| compile_at(schema, dropped, depth + 1)).collect()
        }
        schema => compile_at(schema, dropped, depth + 1),
    }
}

fn named(value: &Value, dropped: &mut Dropped, depth: usize) -> Value {
    let Some(schemas) = value.as_object() else { return value.clone() };
    let compiled =
        |(name, schema): (&String, &Value)| (name.clone(), compile_at(schema, dropped, depth + 1));
    Value::Object(schemas.iter().map(compiled).collect())
}
