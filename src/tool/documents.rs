//! What a schema refers to outside of itself: documents that the operator has handed in, and no
//! others. Models and journals get one schema that holds all of it.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::{Retrieve, Uri, uri};
use serde_json::{Map, Value};

use super::schema::Schema;
use crate::config::Schemas;

const DRAFT: &str = "https://json-schema.org/draft/2020-12/schema";
/// Keywords under which schemas have names, and those under which there are none.
const NAMED: [&str; 5] =
    ["properties", "patternProperties", "$defs", "definitions", "dependentSchemas"];
const DATA: [&str; 4] = ["const", "enum", "default", "examples"];
/// By these a schema means more than a place: it cannot be moved.
const BOUND: [&str; 5] =
    ["$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef"];

/// Hands out what is known, and notes what.
#[derive(Clone, Default)]
pub(super) struct Shelf {
    known: Schemas,
    used: Arc<Mutex<BTreeMap<String, Value>>>,
}

/// The documents that a schema needs, by their addresses, and what each is called in it.
struct Move<'a> {
    names: BTreeMap<&'a str, String>,
}

/// From where a reference is read: the address it is relative to, and where that is moved to.
#[derive(Clone, Copy)]
struct From<'a> {
    base: Option<&'a str>,
    home: &'a str,
}

/// A schema that stands alone: what it refers to is in its `$defs`. Models get it, for no provider
/// looks anything up, and runs keep it, so that they go on with what they began with.
pub(super) fn whole(schema: &Value, known: &Schemas) -> Result<Value, String> {
    let Value::Object(root) = schema else { return Ok(schema.clone()) };
    if known.is_empty() || !refers_out(schema) {
        return Ok(schema.clone());
    }
    let shelf = Shelf::new(known);
    Schema::build(schema, shelf.clone())?;
    let used = shelf.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if used.is_empty() {
        return Ok(schema.clone());
    }
    Ok(Value::Object(together(root, &used)))
}

// === impl Shelf ===

impl Shelf {
    pub(super) fn new(known: &Schemas) -> Self {
        Self { known: known.clone(), used: Arc::default() }
    }
}

impl Retrieve for Shelf {
    fn retrieve(&self, address: &Uri<String>) -> Result<Value, Box<dyn Error + Send + Sync>> {
        let Some(document) = self.known.get(address.as_str()) else {
            return Err("it is not fetched; hand it in by `dir` of [schemas]".into());
        };
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(address.as_str().to_owned(), document.clone());
        Ok(document.clone())
    }
}

fn refers_out(value: &Value) -> bool {
    match value {
        Value::Object(fields) => {
            let reference = fields.get("$ref").or_else(|| fields.get("$dynamicRef"));
            let reference = reference.and_then(Value::as_str);
            reference.is_some_and(|it| !it.starts_with('#')) || fields.values().any(refers_out)
        }
        Value::Array(items) => items.iter().any(refers_out),
        _ => false,
    }
}

/// A schema with all that it uses. References lead to `#/$defs/NAME`, as every provider reads them,
/// but where a document has parts that are bound to its address.
fn together(root: &Map<String, Value>, used: &BTreeMap<String, Value>) -> Map<String, Value> {
    let mut taken: BTreeSet<String> = root
        .get("$defs")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::keys)
        .cloned()
        .collect();
    let mut names = BTreeMap::new();
    for address in used.keys() {
        let name = name_of(address, &taken);
        taken.insert(name.clone());
        names.insert(address.as_str(), name);
    }
    let moved = Move { names };
    let can_move = is_plain(root) && used.values().filter_map(Value::as_object).all(is_plain);
    let base = root.get("$id").and_then(Value::as_str);
    let from = From { base, home: "#" };
    let mut whole = if can_move { moved.schema(root, from) } else { root.clone() };
    let defs = whole.entry("$defs").or_insert_with(|| Value::Object(Map::new()));
    let Value::Object(defs) = defs else { return whole };
    for (address, document) in used {
        let Some(name) = moved.names.get(address.as_str()) else { continue };
        let home = format!("#/$defs/{name}");
        let from = From { base: Some(address), home: &home };
        let mut document = document.clone();
        if can_move && let Value::Object(fields) = &document {
            let mut fields = moved.schema(fields, from);
            fields.remove("$id");
            fields.remove("$schema");
            document = Value::Object(fields);
        }
        defs.insert(name.clone(), document);
    }
    whole
}

/// `address` of `https://example.com/schemas/address.json`.
fn name_of(address: &str, taken: &BTreeSet<String>) -> String {
    let last = address.rsplit(['/', ':']).find(|part| !part.is_empty()).unwrap_or("schema");
    let last = last.strip_suffix(".json").unwrap_or(last);
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let name = last.replace(|c: char| !plain(c), "_");
    let numbered = (2..).map(|number| format!("{name}_{number}"));
    let mut names = std::iter::once(name.clone()).chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or(name)
}

/// Whether it says the same wherever it stands.
fn is_plain(root: &Map<String, Value>) -> bool {
    fn is_bound(fields: &Map<String, Value>, is_root: bool) -> bool {
        let names_itself = !is_root && fields.get("$id").is_some_and(Value::is_string);
        names_itself
            || BOUND.iter().any(|keyword| fields.get(*keyword).is_some_and(|it| !it.is_object()))
            || fields.values().any(holds_bound)
    }
    fn holds_bound(value: &Value) -> bool {
        match value {
            Value::Object(fields) => is_bound(fields, false),
            Value::Array(items) => items.iter().any(holds_bound),
            _ => false,
        }
    }
    let draft = root.get("$schema").and_then(Value::as_str);
    draft.is_none_or(|draft| draft.trim_end_matches('#') == DRAFT) && !is_bound(root, true)
}

// === impl Move ===

impl Move<'_> {
    fn schema(&self, fields: &Map<String, Value>, from: From<'_>) -> Map<String, Value> {
        let field = |(keyword, value): (&String, &Value)| {
            let value = match value {
                Value::String(reference) if keyword == "$ref" => {
                    Value::String(self.reference(reference, from))
                }
                Value::Object(named) if NAMED.contains(&keyword.as_str()) => {
                    let named = named.iter().map(|(name, it)| (name.clone(), self.any(it, from)));
                    Value::Object(named.collect())
                }
                data if DATA.contains(&keyword.as_str()) => data.clone(),
                other => self.any(other, from),
            };
            (keyword.clone(), value)
        };
        fields.iter().map(field).collect()
    }

    fn any(&self, value: &Value, from: From<'_>) -> Value {
        match value {
            Value::Object(fields) => Value::Object(self.schema(fields, from)),
            Value::Array(items) => items.iter().map(|item| self.any(item, from)).collect(),
            other => other.clone(),
        }
    }

    fn reference(&self, reference: &str, from: From<'_>) -> String {
        if let Some(place) = reference.strip_prefix('#') {
            return format!("{}{place}", from.home);
        }
        let meant = match from.base.map(uri::from_str) {
            Some(Ok(base)) => uri::resolve_against(&base.borrow(), reference),
            _ => uri::from_str(reference),
        };
        let Ok(meant) = meant else { return reference.to_owned() };
        let (address, place) = meant.as_str().split_once('#').unwrap_or((meant.as_str(), ""));
        match self.names.get(address) {
            Some(name) => format!("#/$defs/{name}{place}"),
            None if from.base == Some(address) => format!("{}{place}", from.home),
            None => reference.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn known(documents: &[Value]) -> Schemas {
        let id = |it: &Value| it["$id"].as_str().unwrap().to_owned();
        documents.iter().map(|document| (id(document), document.clone())).collect()
    }

    fn address() -> Value {
        json!({
            "$id": "https://acme.example/schemas/address.json",
            "type": "object",
            "required": ["city"],
            "properties": {"city": {"$ref": "words.json#/$defs/short"}, "next": {"$ref": "#"}},
        })
    }

    fn words() -> Value {
        let short = json!({"type": "string", "maxLength": 5});
        json!({"$id": "https://acme.example/schemas/words.json", "$defs": {"short": short}})
    }

    #[test]
    fn what_a_schema_refers_to_stands_in_it() {
        let known = known(&[address(), words()]);
        let schema = json!({
            "type": "object",
            "properties": {
                "to": {"$ref": "https://acme.example/schemas/address.json", "description": "whom"},
                "default": {"$ref": "#/$defs/address"},
                "kind": {"const": {"$ref": "https://acme.example/schemas/address.json"}},
            },
            "$defs": {"address": {"type": "integer"}},
        });
        let alone = whole(&schema, &known).unwrap();
        assert_eq!(
            alone,
            json!({
                "type": "object",
                "properties": {
                    "to": {"$ref": "#/$defs/address_2", "description": "whom"},
                    "default": {"$ref": "#/$defs/address"},
                    "kind": {"const": {"$ref": "https://acme.example/schemas/address.json"}},
                },
                "$defs": {
                    "address": {"type": "integer"},
                    "address_2": {
                        "type": "object",
                        "required": ["city"],
                        "properties": {
                            "city": {"$ref": "#/$defs/words/$defs/short"},
                            "next": {"$ref": "#/$defs/address_2"},
                        },
                    },
                    "words": {"$defs": {"short": {"type": "string", "maxLength": 5}}},
                },
            })
        );
        let value = |city: &str| json!({"to": {"city": "Ulm", "next": {"city": city}}});
        for schema in [
            Schema::of_arguments(&schema, &known).unwrap(),
            Schema::of_arguments(&alone, &Schemas::default()).unwrap(),
        ] {
            assert_eq!(schema.check(&value("Rom")), Ok(()));
            let wrong = schema.check(&value("Stuttgart")).unwrap_err();
            assert!(wrong.starts_with("/to/next/city: "), "{wrong}");
        }
    }

    #[test]
    fn a_document_that_is_bound_to_its_address_keeps_it() {
        let mut bound = address();
        bound["$dynamicAnchor"] = json!("node");
        bound["properties"]["next"] = json!({"$dynamicRef": "#node"});
        let known = known(&[bound.clone(), words()]);
        let schema = json!({"$ref": "https://acme.example/schemas/address.json"});
        let alone = whole(&schema, &known).unwrap();
        assert_eq!(alone["$ref"], schema["$ref"]);
        assert_eq!(alone["$defs"]["address"], bound);
        let alone = Schema::new(&alone, &Schemas::default()).unwrap();
        assert_eq!(alone.check(&json!({"city": "Ulm"})), Ok(()));
        assert!(alone.check(&json!({"city": "Ulm", "next": {}})).is_err());
    }

    #[test]
    fn a_schema_that_needs_nothing_is_as_it_was() {
        let known = known(&[address(), words()]);
        for schema in [
            json!({"type": "object"}),
            json!({"$ref": "https://json-schema.org/draft/2020-12/schema"}),
            json!({"$defs": {"a": {"$id": "https://b.example/a"}}, "$ref": "https://b.example/a"}),
        ] {
            assert_eq!(whole(&schema, &known), Ok(schema));
        }
    }

    #[test]
    fn what_nobody_has_handed_in_is_named_and_how_to_hand_it_in() {
        let schema = json!({"$ref": "https://acme.example/schemas/none.json"});
        let why = whole(&schema, &known(&[address(), words()])).unwrap_err();
        for said in ["https://acme.example/schemas/none.json", "not fetched", "[schemas]"] {
            assert!(why.contains(said), "{said}: {why}");
        }
    }
}
