//! What every target is promised of its schemas.

use super::*;

fn gemini(schema: &Value) -> Compiled {
    compile(schema, &GEMINI).unwrap()
}

fn openapi(schema: &Value) -> Compiled {
    compile(schema, &GEMINI_OPENAPI).unwrap()
}

#[test]
fn definitions_are_written_out_where_the_target_follows_no_reference() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {
            "to": {"$ref": "#/$defs/Person", "description": "the buyer"},
            "from": {"anyOf": [{"$ref": "#/$defs/Person"}, {"type": "null"}]},
            "kind": {"const": "sale"},
            "count": {"type": "integer", "exclusiveMinimum": 0},
            "when": {"type": ["string", "null"], "format": "date"},
        },
        "required": ["to"],
        "additionalProperties": false,
        "$defs": {"Person": {"type": "object", "description": "someone", "properties": {"name": {"type": "string"}}}},
    });
    let compiled = openapi(&schema);
    assert_eq!(
        compiled.schema,
        json!({
            "type": "object",
            "properties": {
                "to": {"type": "object", "description": "the buyer", "properties": {"name": {"type": "string"}}},
                "from": {"nullable": true, "type": "object", "description": "someone", "properties": {"name": {"type": "string"}}},
                "kind": {"type": "string", "enum": ["sale"]},
                "count": {"type": "integer", "minimum": 1},
                "when": {"nullable": true, "type": "string", "description": "Format: date"},
            },
            "required": ["to"],
            "propertyOrdering": ["to", "from", "kind", "count", "when"],
        })
    );
    assert!(compiled.lost.is_empty(), "{:?}", compiled.lost);
    assert_eq!(compiled.schema.to_string(), openapi(&schema).schema.to_string());
}

#[test]
fn recursion_passes_where_references_do_and_is_refused_with_its_place_elsewhere() {
    let schema = json!({
        "type": "object",
        "properties": {"tree": {"$ref": "#/$defs/Node"}},
        "$defs": {"Node": {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}}}},
    });
    assert_eq!(gemini(&schema).schema, schema);
    let refused = compile(&schema, &GEMINI_OPENAPI).unwrap_err();
    assert!(
        refused.0.contains("`#/properties/tree/properties/children/items` refers to itself"),
        "{refused}"
    );
    let own = json!({"properties": {"next": {"$ref": "#"}}});
    assert!(compile(&own, &GEMINI).is_err());
    let absent = compile(&json!({"$ref": "#/$defs/None"}), &BEDROCK).unwrap_err();
    assert!(absent.0.contains("#/$defs/None"), "{absent}");
}

#[test]
fn a_reference_at_the_root_is_written_out_and_what_it_refers_to_stays() {
    let node = json!({"type": "object", "properties": {
        "name": {"type": "string"},
        "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}},
    }});
    let schema =
        json!({"$ref": "#/$defs/Top", "$defs": {"Top": {"$ref": "#/$defs/Node"}, "Node": node}});
    let mut whole = node.clone();
    whole["$defs"] = schema["$defs"].clone();
    for profile in [&GEMINI, &COHERE] {
        assert_eq!(compile(&schema, profile).unwrap().schema, whole);
    }
    let strict = compile(&schema, &OPENAI_STRICT).unwrap().schema;
    assert_eq!(strict["required"], json!(["name", "children"]), "{strict}");
    assert_eq!(strict["$defs"]["Node"]["required"], json!(["name", "children"]), "{strict}");
    let turning = json!({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/A"}}});
    assert!(compile(&turning, &GEMINI).is_err());
}

#[test]
fn a_list_keeps_its_other_values_where_the_type_tells_of_null() {
    let listed = |schema: Value| {
        let compiled = gemini(&schema);
        (compiled.schema, compiled.lost.len())
    };
    let nullable = json!({"type": ["string", "null"], "enum": ["a", "b"]});
    let with_null = json!({"type": ["string", "null"], "enum": ["a", "b", null]});
    assert_eq!(listed(with_null), (nullable.clone(), 0));
    let flagged = json!({"type": "string", "nullable": true, "enum": ["a", "b", null]});
    assert_eq!(listed(flagged), (nullable, 0));
    // Nothing else tells that these are right, or that all others are not.
    assert_eq!(listed(json!({"enum": ["a", null]})), (json!({}), 1));
    assert_eq!(listed(json!({"type": ["string", "null"], "const": null})).1, 1);
    assert_eq!(listed(json!({"type": ["boolean", "null"], "enum": [true, null]})).1, 1);
}

#[test]
fn a_schema_that_doubles_itself_is_refused_and_not_written_out() {
    let mut definitions = json!({"n0": {"type": "string"}});
    for number in 1..40 {
        let arm = json!({"$ref": format!("#/$defs/n{}", number - 1)});
        definitions[format!("n{number}")] = json!({"properties": {"a": arm, "b": arm}});
    }
    let schema = json!({"$ref": "#/$defs/n39", "$defs": definitions});
    assert!(compile(&schema, &GEMINI_OPENAPI).is_err());
}

#[test]
fn what_lies_beside_a_reference_is_left_to_the_definition() {
    let schema = json!({
        "properties": {"a": {"$ref": "#/$defs/A", "description": "d"}, "b": {"$ref": "#/definitions/B"}},
        "$defs": {"A": {"type": "string"}},
        "definitions": {"B": {"type": "integer"}},
    });
    let compiled = gemini(&schema).schema;
    assert_eq!(compiled["properties"]["a"], json!({"$ref": "#/$defs/A"}));
    assert_eq!(compiled["properties"]["b"], json!({"type": "integer"}));
}

#[test]
fn parts_that_all_hold_are_laid_over_one_another() {
    let schema = json!({
        "allOf": [
            {"$ref": "#/$defs/Base"},
            {"properties": {"b": {"type": "string"}}, "required": ["b"]},
        ],
        "$defs": {"Base": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}},
    });
    let compiled = gemini(&schema).schema;
    assert_eq!(compiled["required"], json!(["a", "b"]));
    assert_eq!(compiled["properties"], json!({"a": {"type": "string"}, "b": {"type": "string"}}));
}

#[test]
fn constraints_that_a_target_lacks_are_named_by_their_place() {
    let schema = json!({
        "type": "object",
        "patternProperties": {"^x": {"type": "string"}},
        "properties": {
            "a/b": {"type": "number", "exclusiveMaximum": 1.5, "multipleOf": 0.5},
            "flag": {"const": true},
            "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}]},
            "free": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    });
    let compiled = openapi(&schema);
    assert_eq!(
        compiled.lost,
        [
            "#/patternProperties",
            "#/properties/a~1b/exclusiveMaximum",
            "#/properties/a~1b/multipleOf",
            "#/properties/flag/const",
            "#/properties/pair/prefixItems",
            "#/properties/free/additionalProperties",
        ]
    );
    assert_eq!(compiled.schema["properties"]["a/b"]["maximum"], 1.5);
    assert!(gemini(&schema).lost.len() < compiled.lost.len());
}

#[test]
fn strict_mode_closes_every_object_and_makes_the_optional_nullable() {
    let schema = json!({
        "type": "object",
        "properties": {
            "a": {"type": "string"},
            "b": {"type": "string", "enum": ["x"], "default": "x"},
            "c": {"$ref": "#/$defs/C"},
        },
        "required": ["a"],
        "$defs": {"C": {"type": "object"}},
    });
    let strict = compile(&schema, &OPENAI_STRICT).unwrap().schema;
    assert_eq!(
        strict,
        json!({
            "type": "object",
            "properties": {
                "a": {"type": "string"},
                "b": {"type": ["string", "null"], "enum": ["x", null]},
                "c": {"anyOf": [{"$ref": "#/$defs/C"}, {"type": "null"}]},
            },
            "required": ["a", "b", "c"],
            "additionalProperties": false,
            "$defs": {"C": {"type": "object", "properties": {}, "required": [], "additionalProperties": false}},
        })
    );
    assert_eq!(compile(&strict, &OPENAI_STRICT).unwrap().schema, strict);
}

#[test]
fn googles_openapi_is_read_as_json_schema() {
    let schema = json!({
        "type": "OBJECT",
        "properties": {
            "a": {"type": "STRING", "nullable": true, "format": "enum", "enum": ["x"]},
            "b": {"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "1"},
        },
        "propertyOrdering": ["a", "b"],
    });
    assert_eq!(
        from_openapi(&schema),
        json!({
            "type": "object",
            "properties": {
                "a": {"type": ["string", "null"], "enum": ["x", null]},
                "b": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
            },
        })
    );
}

proptest::proptest! {
    #[test]
    fn no_schema_breaks_the_compiler(text in r##"(\{|\}|\[|\]|"type"|"allOf"|"\$ref"|"#"|"anyOf"|"enum"|"const"|null|true|1|:|,|"properties"|"#/properties"){0,24}"##) {
        if let Ok(schema) = serde_json::from_str::<Value>(&text) {
            for profile in [&GEMINI, &GEMINI_OPENAPI, &OPENAI_STRICT, &COHERE, &BEDROCK] {
                let _ = compile(&schema, profile);
            }
        }
    }
}
