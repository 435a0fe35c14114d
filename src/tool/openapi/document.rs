//! An OpenAPI document, 3.0 or 3.1, and its schemas as plain JSON Schema of draft 2020-12, in which
//! nothing refers to anything any more.

use serde_json::{Map, Value};

/// How many references may follow one another.
const CHAIN: usize = 32;
/// How often a schema may stand within itself; deeper, anything is taken.
const NESTED: usize = 2;
/// Objects of one schema; what comes behind them is anything.
const LARGEST: usize = 5000;

#[derive(Debug)]
pub(super) struct Document {
    root: Value,
    /// Schemas are of draft 4 with `nullable`, and not of 2020-12.
    is_old: bool,
}

/// Which way a schema is travelled: some properties only go one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Request,
    Response,
}

/// One schema being written out.
struct Writing<'a> {
    document: &'a Document,
    way: Way,
    /// References that are being followed.
    within: Vec<&'a str>,
    room: usize,
}

/// Words of a schema whose value is a schema, several in a list, or several by name.
const ONE: &[&str] = &[
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];
const LIST: &[&str] = &["allOf", "anyOf", "oneOf", "prefixItems"];
const NAMED: &[&str] = &["dependentSchemas", "patternProperties", "properties"];
/// Words that say nothing about values, or that only others understand.
const DROPPED: &[&str] = &[
    "$anchor",
    "$comment",
    "$defs",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$schema",
    "definitions",
    "deprecated",
    "discriminator",
    "example",
    "examples",
    "externalDocs",
    "nullable",
    "readOnly",
    "writeOnly",
    "xml",
];
/// Words beside a reference that change nothing about what is allowed.
const NOTES: &[&str] = &["default", "description", "title"];

// === impl Document ===

impl Document {
    /// Reads JSON or YAML.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let root: Value = if text.trim_start().starts_with('{') {
            serde_json::from_str(text).map_err(|error| error.to_string())?
        } else {
            // YAML 1.2, as OpenAPI demands: `on` and `NO` are words, `1_000` is none of its numbers.
            let options = serde_saphyr::options! {
                with_snippet: false, strict_booleans: true, underscored_numbers_as_strings: true,
            };
            serde_saphyr::from_str_with_options(text, options).map_err(|error| error.to_string())?
        };
        match root["openapi"].as_str() {
            Some(version) if version.starts_with("3.0") => Ok(Self { root, is_old: true }),
            Some(version) if version.starts_with("3.") => Ok(Self { root, is_old: false }),
            _ => Err("is no OpenAPI document of version 3.0 or 3.1".to_owned()),
        }
    }

    pub(super) fn root(&self) -> &Value {
        &self.root
    }

    /// What a value is, or what it refers to within this document.
    pub(super) fn follow<'a>(&'a self, mut value: &'a Value) -> Result<&'a Value, String> {
        for _ in 0..CHAIN {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
                return Ok(value);
            };
            value = self.find(reference)?;
        }
        Err("references follow one another without end".to_owned())
    }

    fn find(&self, reference: &str) -> Result<&Value, String> {
        let pointer = reference.strip_prefix('#').ok_or_else(|| {
            format!(
                "{reference:?} lies elsewhere: references within the document are followed only"
            )
        })?;
        let decoded = percent_encoding::percent_decode_str(pointer).decode_utf8_lossy();
        let found = self.root.pointer(&decoded);
        found.ok_or_else(|| format!("{reference:?} refers to nothing"))
    }

    /// A schema on its own.
    pub(super) fn schema(&self, schema: &Value, way: Way) -> Result<Value, String> {
        let mut writing = Writing { document: self, way, within: Vec::new(), room: LARGEST };
        writing.schema(schema)
    }
}

// === impl Writing ===

impl<'a> Writing<'a> {
    fn schema(&mut self, schema: &'a Value) -> Result<Value, String> {
        // `true` and `false` are schemas too.
        let Value::Object(object) = schema else { return Ok(schema.clone()) };
        let Some(room) = self.room.checked_sub(1) else { return Ok(anything()) };
        self.room = room;
        match object.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.reference(reference, object),
            None => self.object(object),
        }
    }

    fn reference(
        &mut self,
        reference: &'a str,
        object: &'a Map<String, Value>,
    ) -> Result<Value, String> {
        let times = self.within.iter().filter(|within| **within == reference).count();
        if times >= NESTED || self.within.len() >= CHAIN {
            return Ok(anything());
        }
        let target = self.document.find(reference)?;
        self.within.push(reference);
        let written = self.schema(target);
        self.within.pop();
        let mut written = written?;
        // In 3.0 nothing beside a reference counts.
        if self.document.is_old || object.len() == 1 {
            return Ok(written);
        }
        let mut beside = object.clone();
        beside.remove("$ref");
        if let Value::Object(written) = &mut written
            && beside.keys().all(|key| NOTES.contains(&key.as_str()))
        {
            written.extend(beside);
            return Ok(Value::Object(std::mem::take(written)));
        }
        // What stands beside it refers as its document does; it is short-lived, so it is followed
        // by a writer of its own.
        let beside = self.document.schema(&Value::Object(beside), self.way)?;
        Ok(serde_json::json!({"allOf": [written, beside]}))
    }

    fn object(&mut self, object: &'a Map<String, Value>) -> Result<Value, String> {
        let mut written = Map::new();
        for (key, value) in object {
            let word = key.as_str();
            if DROPPED.contains(&word) || word.starts_with("x-") {
                continue;
            }
            let value = match value {
                _ if ONE.contains(&word) => self.schema(value)?,
                Value::Array(list) if LIST.contains(&word) => {
                    list.iter().map(|it| self.schema(it)).collect::<Result<Vec<_>, _>>()?.into()
                }
                Value::Object(named) if NAMED.contains(&word) => self.named(named, word)?,
                value => value.clone(),
            };
            written.insert(key.clone(), value);
        }
        self.ask_not_for_hidden(object, &mut written);
        if self.document.is_old {
            renew(object, &mut written);
        }
        Ok(Value::Object(written))
    }

    fn named(&mut self, named: &'a Map<String, Value>, word: &str) -> Result<Value, String> {
        let mut written = Map::new();
        for (name, schema) in named {
            if word == "properties" && self.is_hidden(schema) {
                continue;
            }
            written.insert(name.clone(), self.schema(schema)?);
        }
        Ok(written.into())
    }

    /// Whether a property goes only the other way.
    fn is_hidden(&self, schema: &Value) -> bool {
        let word = match self.way {
            Way::Request => "readOnly",
            Way::Response => "writeOnly",
        };
        let says = |schema: &Value| schema.get(word).and_then(Value::as_bool) == Some(true);
        says(schema) || self.document.follow(schema).is_ok_and(says)
    }

    /// What was left out cannot be required.
    fn ask_not_for_hidden(&self, object: &Map<String, Value>, written: &mut Map<String, Value>) {
        let Some(Value::Object(properties)) = object.get("properties") else { return };
        let Some(Value::Array(required)) = written.get_mut("required") else { return };
        let property = |name: &Value| properties.get(name.as_str().unwrap_or_default());
        required.retain(|name| !property(name).is_some_and(|schema| self.is_hidden(schema)));
        if required.is_empty() {
            written.remove("required");
        }
    }
}

/// What was said otherwise in 3.0.
fn renew(object: &Map<String, Value>, written: &mut Map<String, Value>) {
    for (limit, exclusive) in [("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")] {
        if let Some(Value::Bool(is_exclusive)) = object.get(exclusive) {
            written.remove(exclusive);
            if *is_exclusive && let Some(bound) = written.remove(limit) {
                written.insert(exclusive.to_owned(), bound);
            }
        }
    }
    if object.get("nullable") != Some(&Value::Bool(true)) {
        return;
    }
    if let Some(kind @ Value::String(_)) = written.get("type").cloned() {
        written.insert("type".to_owned(), Value::Array(vec![kind, "null".into()]));
    }
    if let Some(Value::Array(values)) = written.get_mut("enum")
        && !values.contains(&Value::Null)
    {
        values.push(Value::Null);
    }
    // Without a type of its own, what its parts allow keeps null out.
    let has_parts = LIST.iter().any(|word| written.contains_key(*word));
    if !written.contains_key("type") && has_parts {
        let own = Value::Object(std::mem::take(written));
        written.insert(
            "anyOf".to_owned(),
            Value::Array(vec![own, serde_json::json!({"type": "null"})]),
        );
    }
}

fn anything() -> Value {
    Value::Object(Map::new())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(version: &str, schemas: &Value) -> Document {
        let text = json!({"openapi": version, "components": {"schemas": schemas}}).to_string();
        Document::parse(&text).unwrap()
    }

    fn written(version: &str, schema: &Value, schemas: &Value) -> Value {
        document(version, schemas).schema(schema, Way::Request).unwrap()
    }

    #[test]
    fn json_and_yaml_are_read_and_nothing_else() {
        assert!(Document::parse("openapi: 3.1.0\npaths: {}\n").is_ok());
        assert!(Document::parse("{\"openapi\": \"3.0.3\"}").is_ok());
        let words = "openapi: 3.1.0\nx: [on, off, NO, yes, 1_000, true, 7]\n";
        let expected = json!(["on", "off", "NO", "yes", "1_000", true, 7]);
        assert_eq!(Document::parse(words).unwrap().root()["x"], expected);
        for odd in ["", "{", "swagger: '2.0'", "openapi: 3", "openapi: 4.0.0", "[1]", "a: [b"] {
            assert!(Document::parse(odd).is_err(), "{odd}");
        }
    }

    #[test]
    fn what_a_schema_refers_to_stands_in_its_place() {
        let schemas = json!({"Name": {"type": "string", "example": "x"}, "a/b": {"$ref": "#/components/schemas/Name"}});
        let schema = json!({"type": "object", "x-y": 1, "properties": {
            "a": {"$ref": "#/components/schemas/a~1b", "minLength": 3}, "$ref": {"type": "null"}}});
        let expected = json!({"type": "object", "properties": {
            "a": {"type": "string"}, "$ref": {"type": "null"}}});
        assert_eq!(written("3.0.3", &schema, &schemas), expected);
        let a = json!({"allOf": [{"type": "string"}, {"minLength": 3}]});
        assert_eq!(written("3.1.0", &schema, &schemas)["properties"]["a"], a);
        let noted = json!({"$ref": "#/components/schemas/Name", "description": "Whose."});
        let expected = json!({"type": "string", "description": "Whose."});
        assert_eq!(written("3.1.0", &noted, &schemas), expected);
    }

    #[test]
    fn what_refers_to_itself_ends() {
        let node = json!({"type": "object", "properties": {
            "next": {"$ref": "#/components/schemas/Node"}, "value": {"type": "integer"}}});
        let schema = json!({"$ref": "#/components/schemas/Node"});
        let written = written("3.1.0", &schema, &json!({"Node": node}));
        let deepest = &written["properties"]["next"]["properties"]["next"];
        assert_eq!(*deepest, json!({}));
        let ring = document("3.1.0", &json!({"A": {"$ref": "#/components/schemas/A"}}));
        assert!(ring.follow(&json!({"$ref": "#/components/schemas/A"})).is_err());
    }

    #[test]
    fn what_doubles_at_each_step_stays_small() {
        let double = |next: usize| {
            let next = json!({"$ref": format!("#/components/schemas/S{next}")});
            json!({"properties": {"a": next, "b": next}})
        };
        let schemas: Map<_, _> = (0..30).map(|at| (format!("S{at}"), double(at + 1))).collect();
        let mut schemas = Value::Object(schemas);
        schemas["S30"] = json!({"type": "string"});
        let written = written("3.1.0", &json!({"$ref": "#/components/schemas/S0"}), &schemas);
        assert!(written.to_string().len() < LARGEST * 60);
    }

    #[test]
    fn references_that_lead_away_or_nowhere_are_told() {
        let document = document("3.1.0", &json!({}));
        for reference in ["other.json#/A", "https://example.com/a", "#/nothing", "#nothing"] {
            let told = document.schema(&json!({"$ref": reference}), Way::Request).unwrap_err();
            assert!(told.contains(reference), "{told}");
        }
    }

    #[test]
    fn nullable_and_exclusive_bounds_are_said_anew() {
        let new = |schema: Value| written("3.0.1", &schema, &json!({}));
        let kind = json!({"type": "string", "nullable": true, "enum": ["a"]});
        assert_eq!(new(kind), json!({"type": ["string", "null"], "enum": ["a", null]}));
        let parts = json!({"nullable": true, "allOf": [{"type": "string"}]});
        let expected = json!({"anyOf": [{"allOf": [{"type": "string"}]}, {"type": "null"}]});
        assert_eq!(new(parts), expected);
        let bounds = json!({"minimum": 1, "exclusiveMinimum": true, "maximum": 9, "exclusiveMaximum": false});
        assert_eq!(new(bounds), json!({"exclusiveMinimum": 1, "maximum": 9}));
    }

    #[test]
    fn what_only_comes_back_is_not_asked_for() {
        let schema = json!({"type": "object", "required": ["id", "name"], "properties": {
            "id": {"type": "string", "readOnly": true},
            "name": {"type": "string"}, "secret": {"type": "string", "writeOnly": true}}});
        let document = document("3.1.0", &json!({}));
        let asked = document.schema(&schema, Way::Request).unwrap();
        assert_eq!(asked["required"], json!(["name"]));
        assert_eq!(asked["properties"].as_object().unwrap().len(), 2);
        let given = document.schema(&schema, Way::Response).unwrap();
        assert_eq!(given["required"], json!(["id", "name"]));
        assert!(given["properties"].get("secret").is_none());
    }
}
