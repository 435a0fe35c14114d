//! How many steps it takes to hold a value to a schema once each of its references is followed:
//! a few lines that refer to each other twice are more than any time is enough for.

use std::collections::HashMap;

use serde_json::Value;

/// Steps that are always allowed, and those for each part of a value besides.
const FREE: u64 = 20_000;
const FOR_EACH: u64 = 10;
/// How deep schemas may lie in each other.
const DEEPEST: usize = 400;

/// Keywords with a schema, or with a list or a map of them, for the value itself.
const HERE: [&str; 4] = ["not", "if", "then", "else"];
const ALL_HERE: [&str; 5] = ["allOf", "anyOf", "oneOf", "dependentSchemas", "dependencies"];
/// Those for every part of an object, or of an array.
const FOR_FIELDS: [&str; 2] = ["additionalProperties", "unevaluatedProperties"];
const FOR_ITEMS: [&str; 4] = ["items", "contains", "additionalItems", "unevaluatedItems"];
const REFERENCES: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
/// Any string, as far as the names of an object's fields are held to something.
static NAME: Value = Value::Null;

/// Where the references of one schema lead, if it has any.
#[derive(Debug)]
pub(super) struct References {
    root: Value,
    /// By `$anchor`, and by the last piece of `$id`.
    named: HashMap<String, String>,
}

struct Walk<'a> {
    to: &'a References,
    /// By schema and value; `None` while it is being counted.
    known: HashMap<(*const Value, *const Value), Option<u64>>,
    depth: usize,
}

// === impl References ===

impl References {
    /// `None` where there are none: then it takes no more steps than it has lines.
    pub(super) fn of(root: &Value) -> Option<Self> {
        let mut named = HashMap::new();
        let mut found = false;
        look(root, &mut String::new(), &mut |place, fields| {
            found |= REFERENCES.iter().any(|key| fields.contains_key(*key));
            let own = ["$anchor", "$dynamicAnchor", "$id"].map(|key| fields.get(key));
            let own = own.into_iter().flatten().filter_map(Value::as_str);
            named.extend(own.map(|name| (last(name).to_owned(), place.to_owned())));
        });
        found.then(|| Self { root: root.clone(), named })
    }

    /// Whether a value can be held to the schema in time.
    pub(super) fn allow(&self, value: &Value) -> bool {
        let mut walk = Walk { to: self, known: HashMap::new(), depth: 0 };
        let most = FREE.saturating_add(FOR_EACH.saturating_mul(parts(value)));
        walk.steps(&self.root, value) <= most
    }

    fn find(&self, reference: &str) -> Option<&Value> {
        let (document, fragment) = reference.split_once('#').unwrap_or((reference, ""));
        let home = match document {
            "" => &self.root,
            document => self.root.pointer(self.named.get(last(document))?)?,
        };
        match fragment {
            "" => Some(home),
            pointer if pointer.starts_with('/') => {
                let pointer = percent_encoding::percent_decode_str(pointer).decode_utf8().ok()?;
                home.pointer(&pointer)
            }
            name => self.root.pointer(self.named.get(name)?),
        }
    }
}

// === impl Walk ===

impl<'a> Walk<'a> {
    /// At most so many steps; `u64::MAX` where they do not end.
    fn steps(&mut self, schema: &'a Value, value: &'a Value) -> u64 {
        let Value::Object(fields) = schema else { return 1 };
        if self.depth >= DEEPEST {
            return u64::MAX;
        }
        self.depth += 1;
        let mut steps = 1_u64;
        for (key, below) in fields {
            let more = match key.as_str() {
                key if REFERENCES.contains(&key) => self.referred(below, value),
                key if HERE.contains(&key) => self.steps(below, value),
                key if ALL_HERE.contains(&key) => self.all(below, value),
                "properties" | "patternProperties" | "propertyNames" => {
                    self.fields(key, below, value)
                }
                key if FOR_FIELDS.contains(&key) => {
                    let fields = value.as_object().into_iter().flat_map(|map| map.values());
                    fields.fold(0, |sum, field| self.steps(below, field).saturating_add(sum))
                }
                "prefixItems" | "items" if below.is_array() => {
                    let pairs = below.as_array().into_iter().flatten();
                    let pairs = pairs.zip(value.as_array().into_iter().flatten());
                    pairs.fold(0, |sum, (below, item)| self.steps(below, item).saturating_add(sum))
                }
                key if FOR_ITEMS.contains(&key) => {
                    let items = value.as_array().into_iter().flatten();
                    items.fold(0, |sum, item| self.steps(below, item).saturating_add(sum))
                }
                _ => 0,
            };
            steps = steps.saturating_add(more);
        }
        self.depth -= 1;
        steps
    }

    /// What references lead to is counted once for each value.
    fn referred(&mut self, reference: &Value, value: &'a Value) -> u64 {
        let Some(schema) = reference.as_str().and_then(|it| self.to.find(it)) else { return 1 };
        let pair = (std::ptr::from_ref(schema), std::ptr::from_ref(value));
        if let Some(known) = self.known.get(&pair) {
            return known.unwrap_or(u64::MAX);
        }
        self.known.insert(pair, None);
        let steps = self.steps(schema, value);
        self.known.insert(pair, Some(steps));
        steps
    }

    fn all(&mut self, schemas: &'a Value, value: &'a Value) -> u64 {
        let listed = schemas.as_array().into_iter().flatten();
        let named = schemas.as_object().into_iter().flat_map(|map| map.values());
        listed.chain(named).fold(0, |sum, below| self.steps(below, value).saturating_add(sum))
    }

    fn fields(&mut self, key: &str, schemas: &'a Value, value: &'a Value) -> u64 {
        let Value::Object(fields) = value else { return 0 };
        let mut steps = 0_u64;
        for (name, field) in fields {
            let more = match key {
                "properties" => schemas.get(name).map_or(0, |below| self.steps(below, field)),
                "patternProperties" => self.all(schemas, field),
                _ => self.steps(schemas, &NAME),
            };
            steps = steps.saturating_add(more);
        }
        steps
    }
}

/// Shows every object within, and where it is as a JSON pointer.
fn look<'a>(
    value: &'a Value,
    place: &mut String,
    seen: &mut impl FnMut(&str, &'a serde_json::Map<String, Value>),
) {
    let before = place.len();
    match value {
        Value::Object(fields) => {
            seen(place, fields);
            for (name, below) in fields {
                place.push('/');
                place.push_str(&name.replace('~', "~0").replace('/', "~1"));
                look(below, place, seen);
                place.truncate(before);
            }
        }
        Value::Array(items) => {
            for (at, below) in items.iter().enumerate() {
                place.push('/');
                place.push_str(&at.to_string());
                look(below, place, seen);
                place.truncate(before);
            }
        }
        _ => {}
    }
}

fn last(name: &str) -> &str {
    let name = name.trim_end_matches(['#', '/']);
    name.rsplit('/').next().unwrap_or(name)
}

/// The value, and all that is in it.
fn parts(value: &Value) -> u64 {
    match value {
        Value::Array(items) => items.iter().map(parts).sum::<u64>() + 1,
        Value::Object(fields) => fields.values().map(parts).sum::<u64>() + 1,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn allows(schema: &Value, value: &Value) -> bool {
        References::of(schema).is_none_or(|references| references.allow(value))
    }

    /// Each definition refers three times to the one below it.
    fn doubling(steps: usize) -> Value {
        let below = |at: usize| json!({"$ref": format!("#/$defs/d{at}")});
        let definition = |at: usize| match at {
            0 => json!({"type": "string"}),
            at => json!({"anyOf": [{"allOf": [below(at - 1), below(at - 1)]}, below(at - 1)]}),
        };
        let definitions: serde_json::Map<_, _> =
            (0..=steps).map(|at| (format!("d{at}"), definition(at))).collect();
        json!({"properties": {"s": below(steps)}, "$defs": definitions})
    }

    #[test]
    fn what_unfolds_beyond_all_time_is_not_allowed_and_counted_at_once() {
        let value = json!({"s": "x"});
        assert!(allows(&doubling(5), &value));
        assert!(!allows(&doubling(25), &value));
        assert!(!allows(&doubling(200), &value));
        assert!(allows(&doubling(25), &json!({"other": 1})), "nothing is held to it");
    }

    #[test]
    fn a_reference_that_leads_back_is_allowed_where_the_value_becomes_smaller() {
        let tree = json!({
            "$id": "https://example.com/tree",
            "properties": {
                "left": {"$ref": "#"},
                "right": {"$ref": "https://example.com/tree"},
                "list": {"items": {"$dynamicRef": "#node"}},
            },
            "$defs": {"n": {"$dynamicAnchor": "node", "$ref": "#"}},
        });
        let mut value = json!({});
        for _ in 0..40 {
            value = json!({"left": value, "right": {}, "list": [{}, {}]});
        }
        assert!(allows(&tree, &value));
        assert!(!allows(&json!({"$ref": "#"}), &value));
        let twice = json!({
            "properties": {"a": {"anyOf": [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}]}},
        });
        let mut deep = json!({});
        for _ in 0..60 {
            deep = json!({"a": deep});
        }
        assert!(!allows(&twice, &deep), "each level is looked at twice as often as the last");
    }

    #[test]
    fn long_values_may_take_long() {
        let schema = json!({
            "items": {"$ref": "#/$defs/row"},
            "$defs": {"row": {"properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}},
        });
        let rows: Vec<Value> = (0..50_000).map(|at| json!({"a": at, "b": "x"})).collect();
        assert!(allows(&schema, &Value::Array(rows)));
    }

    #[test]
    fn a_chain_of_references_that_is_too_long_is_not_followed() {
        let definitions: serde_json::Map<_, _> = (0..20_000)
            .map(|at| (format!("d{at}"), json!({"$ref": format!("#/$defs/d{}", at + 1)})))
            .collect();
        let schema = json!({"$ref": "#/$defs/d0", "$defs": definitions});
        assert!(!allows(&schema, &json!({})));
    }
}
