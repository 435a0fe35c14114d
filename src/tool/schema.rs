//! What arguments and results must be: JSON Schema, draft 2020-12. Nothing is fetched for it.

use serde_json::Value;

use super::documents::Shelf;
use super::text;
use super::unfolded::References;
use crate::config::Schemas;

/// Faults that are told of one value, and how much is said of each.
const MOST_FAULTS: usize = 5;
const LONGEST_FAULT: usize = 240;
/// How many references and combinations of a schema are looked into.
const MOST_TURNS: usize = 256;

/// A schema, ready to be used.
#[derive(Debug)]
pub(crate) struct Schema {
    validator: jsonschema::Validator,
    references: Option<References>,
}

// === impl Schema ===

impl Schema {
    /// Fails where it is none, or refers to what neither stands in it nor is known.
    pub(crate) fn new(schema: &Value, known: &Schemas) -> Result<Self, String> {
        Self::build(schema, Shelf::new(known))
    }

    pub(super) fn build(schema: &Value, shelf: Shelf) -> Result<Self, String> {
        let built = jsonschema::options().with_retriever(shelf).build(schema);
        let validator = built.map_err(|error| {
            format!("is no JSON Schema of draft 2020-12 that can be used: {}", short(&error))
        })?;
        Ok(Self { validator, references: References::of(schema) })
    }

    /// Of arguments, which are an object. Where properties are listed and nothing is said of
    /// others, there are no others: models make some up.
    pub(crate) fn of_arguments(schema: &Value, known: &Schemas) -> Result<Self, String> {
        let Value::Object(object) = schema else {
            return Err("must be a JSON object".to_owned());
        };
        if object.get("type").is_some_and(|kind| kind != "object") {
            return Err("must have the type \"object\"".to_owned());
        }
        let closed = ["additionalProperties", "unevaluatedProperties"];
        let mut turns = MOST_TURNS;
        let says = closed.iter().any(|key| object.contains_key(*key));
        if says || !lists(schema, schema, &mut turns) {
            return Self::new(schema, known);
        }
        // It sees what references and combinations allow too, but older drafts do not know it.
        let old = object
            .get("$schema")
            .and_then(Value::as_str)
            .is_some_and(|draft| draft.contains("draft-0"));
        let combined = ["$ref", "allOf", "anyOf", "oneOf", "if"];
        if old && combined.iter().any(|key| object.contains_key(*key)) {
            return Self::new(schema, known);
        }
        let key = if old { "additionalProperties" } else { "unevaluatedProperties" };
        let mut strict = object.clone();
        strict.insert(key.to_owned(), Value::Bool(false));
        Self::new(&Value::Object(strict), known)
    }

    /// Says what is wrong, and where, as JSON pointers.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
        if self.references.as_ref().is_some_and(|references| !references.allow(value)) {
            let why = "the references of its schema unfold to more than can be checked";
            return Err(format!("/: {why}; whoever wrote the schema has to make it simpler"));
        }
        let fault = |fault: jsonschema::ValidationError<'_>| {
            let place = fault.instance_path().to_string();
            let place = if place.is_empty() { "/".to_owned() } else { place };
            format!("{}: {}", text::head(&place, LONGEST_FAULT), short(&fault))
        };
        let faults = self.validator.iter_errors(value).take(MOST_FAULTS);
        let faults: Vec<String> = faults.map(fault).collect();
        if faults.is_empty() { Ok(()) } else { Err(faults.join("; ")) }
    }
}

/// Whether the properties of the whole value are listed: here, or wherever this leads in `root`.
fn lists(schema: &Value, root: &Value, turns: &mut usize) -> bool {
    let Some(left) = turns.checked_sub(1) else { return false };
    *turns = left;
    if schema.get("properties").is_some() {
        return true;
    }
    let target = schema["$ref"].as_str().and_then(|it| root.pointer(it.strip_prefix('#')?));
    let all = schema["allOf"].as_array();
    if target.into_iter().chain(all.into_iter().flatten()).any(|it| lists(it, root, turns)) {
        return true;
    }
    // One that lists none lets everything in.
    let choices = ["anyOf", "oneOf"].into_iter().filter_map(|key| schema[key].as_array());
    choices.filter(|it| !it.is_empty()).any(|choice| choice.iter().all(|it| lists(it, root, turns)))
}

fn short(error: &jsonschema::ValidationError<'_>) -> String {
    let said = error.to_string();
    let kept = text::head(&said, LONGEST_FAULT);
    if kept.len() < said.len() { format!("{kept}…") } else { said }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SUITE: &str = include_str!("../../tests/fixtures/json_schema/draft2020-12.jsonl");
    const REMOTES: &str = include_str!("../../tests/fixtures/json_schema/remotes.jsonl");

    fn alone(schema: &Value) -> Result<Schema, String> {
        Schema::of_arguments(schema, &Schemas::default())
    }

    /// What the suite serves by HTTP, handed in beforehand.
    fn remotes() -> Schemas {
        let documents = REMOTES.lines().map(|line| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            (line["uri"].as_str().unwrap().to_owned(), line["schema"].take())
        });
        documents.collect()
    }

    #[test]
    fn every_required_case_of_the_suite_is_judged_as_it_says() {
        let (known, mut passed, mut failed) = (remotes(), 0, Vec::new());
        for line in SUITE.lines() {
            let group: Value = serde_json::from_str(line).unwrap();
            let title = format!("{}: {}", group["file"], group["description"]);
            let schema = match Schema::new(&group["schema"], &known) {
                Ok(schema) => schema,
                Err(why) => {
                    failed.push(format!("{title}: {why}"));
                    continue;
                }
            };
            for case in group["tests"].as_array().unwrap() {
                let right = schema.check(&case["data"]).is_ok() == case["valid"].as_bool().unwrap();
                let wrong = format!("{title}: {}", case["description"]);
                failed.extend(Some(wrong).filter(|_| !right));
                passed += usize::from(right);
            }
        }
        assert_eq!(failed, Vec::<String>::new());
        assert_eq!(passed, 1257);
    }

    #[test]
    fn what_lies_elsewhere_is_never_fetched() {
        let server = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        server.set_nonblocking(true).unwrap();
        let address = format!("http://{}", server.local_addr().unwrap());
        for reference in [
            &format!("{address}/s.json"),
            "https://example.com/s",
            "file:///etc/passwd",
            "other.json",
        ] {
            let schema = json!({"type": "object", "properties": {"a": {"$ref": reference}}});
            assert!(alone(&schema).is_err(), "{reference}");
            assert!(Schema::of_arguments(&schema, &remotes()).is_err(), "{reference}");
        }
        let meta = json!({"$schema": format!("{address}/meta"), "type": "object"});
        assert!(alone(&meta).is_err());
        // The kernel would have taken the connection, had there been one.
        assert!(server.accept().is_err(), "somebody has called");
    }

    #[test]
    fn properties_that_nobody_listed_are_refused_unless_the_schema_says_otherwise() {
        let check = |schema: Value, args: Value| alone(&schema).unwrap().check(&args);
        let listed = json!({"properties": {"a": {"type": "integer"}}});
        assert_eq!(check(listed.clone(), json!({"a": 1})), Ok(()));
        assert!(check(listed, json!({"a": 1, "b": 2})).unwrap_err().contains("'b'"));
        let open = json!({"properties": {"a": {}}, "additionalProperties": true});
        assert_eq!(check(open, json!({"b": 2})), Ok(()));
        let free = json!({"type": "object"});
        assert_eq!(check(free, json!({"b": 2})), Ok(()));
        let combined = json!({"properties": {"a": {}}, "allOf": [{"properties": {"b": {}}}]});
        assert_eq!(check(combined.clone(), json!({"b": 2})), Ok(()));
        assert!(check(combined, json!({"c": 2})).is_err());
        let elsewhere = json!({"$ref": "#/$defs/a", "$defs": {"a": {"properties": {"a": {}}}}});
        assert_eq!(check(elsewhere.clone(), json!({"a": 2})), Ok(()));
        assert!(check(elsewhere, json!({"b": 2})).is_err());
        let both = json!({"allOf": [{"required": ["a"]}, {"properties": {"a": {}}}]});
        assert!(check(both, json!({"a": 1, "b": 2})).is_err());
        let either = json!({"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]});
        assert!(check(either, json!({"c": 2})).is_err());
        let free = json!({"anyOf": [{"properties": {"a": {}}}, {"type": "object"}]});
        assert_eq!(check(free, json!({"c": 2})), Ok(()));
        let old = json!({
            "$schema": "http://json-schema.org/draft-07/schema#",
            "properties": {"a": {}},
        });
        assert!(check(old, json!({"c": 2})).is_err());
    }

    #[test]
    fn faults_are_told_by_their_places_and_briefly() {
        let schema = json!({
            "type": "object",
            "required": ["order"],
            "properties": {"order": {"type": "object", "properties": {"id": {"maxLength": 3}}}},
        });
        let schema = alone(&schema).unwrap();
        let long = "x".repeat(10_000);
        let fault = schema.check(&json!({"order": {"id": long}})).unwrap_err();
        assert!(fault.starts_with("/order/id: ") && fault.len() < 400, "{fault}");
        assert!(schema.check(&json!({})).unwrap_err().starts_with("/: "));
    }

    #[test]
    fn only_objects_are_arguments() {
        for schema in [json!(true), json!([]), json!({"type": "string"}), json!({"type": 3})] {
            assert!(alone(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let tree = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        let tree = alone(&tree).unwrap();
        assert_eq!(tree.check(&json!({"next": {"next": {}}})), Ok(()));
        assert!(tree.check(&json!({"next": {"next": 1}})).is_err());
        for loops in [json!({"$ref": "#"}), json!({"type": "object", "allOf": [{"$ref": "#"}]})] {
            let _ = alone(&loops).map(|schema| schema.check(&json!({"a": 1})));
        }
    }
}
