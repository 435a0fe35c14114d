//! Makes up the smallest value that fits a JSON schema, as far as demos need.

use serde_json::{Map, Value, json};

/// Deeper schemas, recursive ones above all, end in null.
const MAX_DEPTH: usize = 16;

/// A value that fits `schema`.
pub(super) fn fill(schema: &Value) -> Value {
    fill_at(schema, schema, 0)
}

fn fill_at(root: &Value, schema: &Value, depth: usize) -> Value {
    if depth > MAX_DEPTH {
        return Value::Null;
    }
    if let Some(target) = schema["$ref"].as_str().and_then(|pointer| pointer.strip_prefix('#')) {
        return fill_at(root, root.pointer(target).unwrap_or(&Value::Null), depth + 1);
    }
    if let Some(value) = [schema.get("const"), schema["enum"].get(0), schema.get("default")]
        .into_iter()
        .flatten()
        .next()
    {
        return value.clone();
    }
    for choice in ["anyOf", "oneOf", "allOf"] {
        if let Some(first) = schema[choice].get(0) {
            return fill_at(root, first, depth + 1);
        }
    }
    let kind = schema["type"].as_str().or_else(|| schema["type"][0].as_str());
    match kind {
        Some("string") => json!(text(schema)),
        Some("integer") => json!(schema["minimum"].as_i64().unwrap_or(1)),
        Some("number") => json!(schema["minimum"].as_f64().unwrap_or(1.0)),
        Some("boolean") => json!(true),
        Some("null") => Value::Null,
        Some("array") => {
            let count = schema["minItems"].as_u64().unwrap_or(1).min(16);
            (0..count).map(|_| fill_at(root, &schema["items"], depth + 1)).collect()
        }
        _ => object(root, schema, depth),
    }
}

fn text(schema: &Value) -> &'static str {
    match schema["format"].as_str() {
        Some("date") => "2025-01-01",
        Some("date-time") => "2025-01-01T00:00:00Z",
        Some("email") => "demo@example.com",
        Some("uri") => "https://example.com/",
        Some("uuid") => "00000000-0000-4000-8000-000000000000",
        _ => "demo",
    }
}

fn object(root: &Value, schema: &Value, depth: usize) -> Value {
    let properties = schema["properties"].as_object().into_iter().flatten();
    let filled: Map<String, Value> = properties
        .map(|(name, property)| (name.clone(), fill_at(root, property, depth + 1)))
        .collect();
    Value::Object(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fills_objects_lists_choices_and_references() {
        let schema = json!({
            "type": "object",
            "properties": {
                "name": {"type": "string"}, "kind": {"enum": ["a", "b"]}, "count": {"type": "integer", "minimum": 3},
                "items": {"type": "array", "minItems": 2, "items": {"$ref": "#/$defs/item"}},
                "maybe": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
            },
            "$defs": {"item": {"type": "object", "properties": {"self": {"$ref": "#/$defs/item"}}}},
        });
        let value = fill(&schema);
        assert_eq!(
            (&value["name"], &value["kind"], &value["count"]),
            (&json!("demo"), &json!("a"), &json!(3))
        );
        assert_eq!(value["items"].as_array().unwrap().len(), 2);
        assert_eq!(value["maybe"], true);
    }
}
