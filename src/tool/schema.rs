//! What arguments and results must be: JSON Schema, draft 2020-12. Nothing is fetched for it.

use serde_json::Value;

use super::text;

/// Faults that are told of one value, and how much is said of each.
const MOST_FAULTS: usize = 5;
const LONGEST_FAULT: usize = 240;

/// A schema, ready to be used.
#[derive(Debug)]
pub(crate) struct Schema {
    validator: jsonschema::Validator,
}

// === impl Schema ===

impl Schema {
    /// Fails where it is none, or refers to what does not stand in it.
    pub(crate) fn new(schema: &Value) -> Result<Self, String> {
        let built = jsonschema::options().offline().build(schema);
        let validator = built.map_err(|error| {
            format!("is no JSON Schema of draft 2020-12 that stands alone: {}", short(&error))
        })?;
        Ok(Self { validator })
    }

    /// Of arguments, which are an object. Where properties are listed and nothing is said of
    /// others, there are no others: models make some up.
    pub(crate) fn of_arguments(schema: &Value) -> Result<Self, String> {
        let Value::Object(object) = schema else {
            return Err("must be a JSON object".to_owned());
        };
        if object.get("type").is_some_and(|kind| kind != "object") {
            return Err("must have the type \"object\"".to_owned());
        }
        let closed = ["additionalProperties", "unevaluatedProperties"];
        let says = closed.iter().any(|key| object.contains_key(*key));
        if says || !object.contains_key("properties") {
            return Self::new(schema);
        }
        // It sees what references and combinations allow too, but older drafts do not know it.
        let old = object
            .get("$schema")
            .and_then(Value::as_str)
            .is_some_and(|draft| draft.contains("draft-0"));
        let combined = ["$ref", "allOf", "anyOf", "oneOf", "if"];
        if old && combined.iter().any(|key| object.contains_key(*key)) {
            return Self::new(schema);
        }
        let key = if old { "additionalProperties" } else { "unevaluatedProperties" };
        let mut strict = object.clone();
        strict.insert(key.to_owned(), Value::Bool(false));
        Self::new(&Value::Object(strict))
    }

    /// Says what is wrong, and where, as JSON pointers.
    pub(crate) fn check(&self, value: &Value) -> Result<(), String> {
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

    /// What lies elsewhere is never fetched, so these schemas are none.
    fn is_remote(group: &Value) -> bool {
        group["schema"].to_string().contains("http://localhost:1234/")
    }

    #[test]
    fn every_required_case_of_the_suite_is_judged_as_it_says() {
        let (mut passed, mut remote, mut failed) = (0, 0, Vec::new());
        for line in SUITE.lines() {
            let group: Value = serde_json::from_str(line).unwrap();
            let schema = match Schema::new(&group["schema"]) {
                Ok(schema) => schema,
                Err(_) if is_remote(&group) => {
                    remote += 1;
                    continue;
                }
                Err(why) => {
                    failed.push(format!("{}: {}: {why}", group["file"], group["description"]));
                    continue;
                }
            };
            for case in group["tests"].as_array().unwrap() {
                let right = schema.check(&case["data"]).is_ok() == case["valid"].as_bool().unwrap();
                let (file, group) = (&group["file"], &group["description"]);
                let wrong = format!("{file}: {group}: {}", case["description"]);
                failed.extend(Some(wrong).filter(|_| !right));
                passed += usize::from(right);
            }
        }
        assert_eq!(failed, Vec::<String>::new());
        println!("{passed} cases passed; {remote} groups refer to what lies elsewhere");
        assert!(passed > 1190 && remote < 25, "{passed} {remote}");
    }

    #[test]
    fn what_lies_elsewhere_is_never_fetched() {
        for reference in [
            "http://127.0.0.1:9/s.json",
            "https://example.com/s",
            "file:///etc/passwd",
            "other.json",
        ] {
            let schema = json!({"type": "object", "properties": {"a": {"$ref": reference}}});
            assert!(Schema::of_arguments(&schema).is_err(), "{reference}");
        }
        let meta = json!({"$schema": "http://127.0.0.1:9/meta", "type": "object"});
        assert!(Schema::of_arguments(&meta).is_err());
    }

    #[test]
    fn properties_that_nobody_listed_are_refused_unless_the_schema_says_otherwise() {
        let check =
            |schema: Value, args: Value| Schema::of_arguments(&schema).unwrap().check(&args);
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
        let schema = Schema::of_arguments(&schema).unwrap();
        let long = "x".repeat(10_000);
        let fault = schema.check(&json!({"order": {"id": long}})).unwrap_err();
        assert!(fault.starts_with("/order/id: ") && fault.len() < 400, "{fault}");
        assert!(schema.check(&json!({})).unwrap_err().starts_with("/: "));
    }

    #[test]
    fn only_objects_are_arguments() {
        for schema in [json!(true), json!([]), json!({"type": "string"}), json!({"type": 3})] {
            assert!(Schema::of_arguments(&schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn a_schema_that_refers_to_itself_ends() {
        let tree = json!({"type": "object", "properties": {"next": {"$ref": "#"}}});
        let tree = Schema::of_arguments(&tree).unwrap();
        assert_eq!(tree.check(&json!({"next": {"next": {}}})), Ok(()));
        assert!(tree.check(&json!({"next": {"next": 1}})).is_err());
        for loops in [json!({"$ref": "#"}), json!({"type": "object", "allOf": [{"$ref": "#"}]})] {
            let _ = Schema::of_arguments(&loops).map(|schema| schema.check(&json!({"a": 1})));
        }
    }
}
