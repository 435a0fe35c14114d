//! Small rewordings of one schema's keywords.

use serde_json::{Map, Value, json};

pub(super) fn kind_of(value: &Value) -> Option<&'static str> {
    match value {
        Value::String(_) => Some("string"),
        Value::Number(number) if number.is_f64() => Some("number"),
        Value::Number(_) => Some("integer"),
        Value::Bool(_) => Some("boolean"),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// `["string", "null"]` for a target that knows one type at a time.
pub(super) fn types_apart(types: &[Value], out: &mut Map<String, Value>) {
    let (null, mut others): (Vec<&Value>, Vec<&Value>) =
        types.iter().partition(|kind| **kind == "null");
    if !null.is_empty() {
        out.insert("nullable".into(), json!(true));
    }
    if others.len() > 1 {
        let arms = others.iter().map(|kind| json!({ "type": kind })).collect();
        out.insert("anyOf".into(), Value::Array(arms));
    } else if let Some(only) = others.pop() {
        out.insert("type".into(), only.clone());
    }
}

/// Adds a keyword where none, or one that can hold both, stands.
pub(super) fn lay_over(whole: &mut Map<String, Value>, keyword: String, value: Value) {
    match (whole.get_mut(&keyword), value) {
        (Some(Value::Object(there)), Value::Object(more)) => there.extend(more),
        (Some(Value::Array(there)), Value::Array(more)) if keyword == "required" => {
            let new: Vec<Value> = more.into_iter().filter(|name| !there.contains(name)).collect();
            there.extend(new);
        }
        // What stands nearer is more exact.
        (Some(_), _) => {}
        (None, value) => _ = whole.insert(keyword, value),
    }
}

pub(super) fn is_object(schema: &Map<String, Value>) -> bool {
    schema.contains_key("properties")
        || match schema.get("type") {
            Some(Value::String(kind)) => kind == "object",
            Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
            _ => false,
        }
}

/// Makes every property required, those that were not may be null instead.
pub(super) fn close(schema: &mut Map<String, Value>, names: Vec<Value>) {
    let required = schema.get("required").and_then(Value::as_array).cloned().unwrap_or_default();
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        let optional = properties.iter_mut().filter(|(name, _)| !required.contains(&json!(name)));
        optional.filter_map(|(_, schema)| schema.as_object_mut()).for_each(allow_null);
    }
    schema.insert("properties".into(), schema.get("properties").cloned().unwrap_or(json!({})));
    schema.insert("required".into(), Value::Array(names));
    schema.insert("additionalProperties".into(), json!(false));
}

/// Lets a value be null beside what it may be.
pub(super) fn allow_null(schema: &mut Map<String, Value>) {
    let null = json!("null");
    if let Some(Value::Array(values)) = schema.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
    if let Some(kinds) = schema.get_mut("type") {
        match kinds {
            Value::String(kind) if kind != "null" => *kinds = json!([kind, "null"]),
            Value::Array(kinds) if !kinds.contains(&null) => kinds.push(null),
            _ => {}
        }
    } else if let Some(Value::Array(arms)) = schema.get_mut("anyOf") {
        let arm = json!({ "type": "null" });
        if !arms.contains(&arm) {
            arms.push(arm);
        }
    } else if !schema.is_empty() {
        let whole = Value::Object(std::mem::take(schema));
        schema.insert("anyOf".into(), json!([whole, { "type": "null" }]));
    }
}

/// Whether a schema's type says that a value may be null beside what else it may be.
pub(super) fn is_nullable(schema: &Map<String, Value>) -> bool {
    let kinds = schema.get("type").and_then(Value::as_array);
    kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "null"))
        || schema.get("nullable") == Some(&json!(true))
}

/// Whether a value holds a key `$ref` anywhere: some targets take it for their own.
pub fn holds_reference(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            fields.contains_key("$ref") || fields.values().any(holds_reference)
        }
        Value::Array(items) => items.iter().any(holds_reference),
        _ => false,
    }
}

/// Reads Gemini's part of `OpenAPI` as JSON Schema.
pub fn from_openapi(schema: &Value) -> Value {
    let Value::Object(fields) = schema else { return schema.clone() };
    let mut out = Map::new();
    for (keyword, value) in fields {
        let value = match (keyword.as_str(), value) {
            ("type", Value::String(kind)) if kind == "TYPE_UNSPECIFIED" => continue,
            ("type", Value::String(kind)) => json!(kind.to_ascii_lowercase()),
            ("properties", Value::Object(members)) => {
                let members =
                    members.iter().map(|(name, schema)| (name.clone(), from_openapi(schema)));
                Value::Object(members.collect())
            }
            ("items" | "additionalProperties", schema) => from_openapi(schema),
            ("anyOf" | "any_of", Value::Array(arms)) => {
                out.insert("anyOf".into(), arms.iter().map(from_openapi).collect());
                continue;
            }
            ("nullable" | "propertyOrdering" | "property_ordering", _) => continue,
            ("format", value) if value == "enum" => continue,
            // Long numbers are strings in Google's JSON.
            (name, Value::String(number)) if name.starts_with("min") || name.starts_with("max") => {
                number.parse::<u64>().map_or_else(|_| value.clone(), |number| json!(number))
            }
            (_, value) => value.clone(),
        };
        out.insert(keyword.clone(), value);
    }
    if fields.get("nullable") == Some(&json!(true)) {
        allow_null(&mut out);
    }
    Value::Object(out)
}
