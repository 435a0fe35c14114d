//! The `OpenAPI` document of the operators' door, made of the rows that also answer.

use http::{Method, Response, StatusCode};
use serde_json::{Map, Value, json};

use super::query::Parameter;
use super::table::{Handler, Makes, Operation, operations};
use crate::gateway::Body;
use crate::http::json as answer;

/// What bodies look like, by name.
const SCHEMAS: &str = include_str!("schemas.json");

pub(super) fn told() -> Response<Body> {
    answer(StatusCode::OK, &document())
}

fn document() -> Value {
    let mut paths = Map::new();
    for row in operations() {
        let path = paths.entry(row.path).or_insert_with(|| json!({}));
        path[row.method.as_str().to_lowercase()] = operation(row);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Switchpoint admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Keys, users, teams, usage and the state of a gateway. It has an \
                address of its own; `x-roles` names who may do what.",
        },
        "paths": paths,
        "components": {
            "schemas": parsed(SCHEMAS),
            "responses": {"Error": {
                "description": "Refused or failed; `code` is stable",
                "content": {"application/json": {"schema": reference("Error")}},
            }},
            "securitySchemes": {"key": {
                "type": "http", "scheme": "bearer",
                "description": "The admin key, or a virtual key with a role",
            }},
        },
        "security": [{"key": []}],
    })
}

fn operation(row: &Operation) -> Value {
    let group = row.path.trim_start_matches("/admin").split('/').nth(1).unwrap_or_default();
    let mut told = json!({
        "operationId": row.id,
        "summary": row.summary,
        "tags": [group],
        "parameters": parameters(row),
        "responses": responses(row),
    });
    match row.handler {
        Handler::Open(_) => told["security"] = json!([]),
        Handler::Guarded(right, _) => told["x-roles"] = json!(right.roles()),
    }
    if let Some(schema) = row.takes {
        let is_needed = row.method == Method::PATCH;
        let content = json!({"application/json": {"schema": reference(schema)}});
        told["requestBody"] = json!({"required": is_needed, "content": content});
    }
    told
}

fn parameters(row: &Operation) -> Vec<Value> {
    let named = row.path.split_once('{').and_then(|(_, behind)| behind.split_once('}'));
    let of_path = named.map(|(name, _)| {
        json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}})
    });
    let of_query = row.query.iter().flat_map(|some| some.iter()).map(|one: &Parameter| {
        let schema = parsed(one.schema);
        json!({"name": one.name, "in": "query", "description": one.about, "schema": schema})
    });
    let of_head = match row.makes {
        Makes::Nothing => None,
        Makes::Entry => Some("The same key makes one only, for a day; its secret is shown once"),
        Makes::Sum => Some("Under the same key this is done once, for a day"),
    };
    let of_head = of_head.map(|about| {
        let (name, schema) = ("Idempotency-Key", json!({"type": "string"}));
        json!({"name": name, "in": "header", "schema": schema, "description": about})
    });
    of_path.into_iter().chain(of_query).chain(of_head).collect()
}

fn responses(row: &Operation) -> Value {
    let content = match row.gives.split_once('/') {
        Some(("text", "csv")) => json!({
            "text/csv": {"schema": {"type": "string"}},
            "application/jsonl": {"schema": {"type": "string"}},
        }),
        Some(_) => json!({row.gives: {"schema": {"type": "string"}}}),
        None => json!({"application/json": {"schema": reference(row.gives)}}),
    };
    let done = json!({"description": "Done", "content": content});
    let mut told = json!({"200": done});
    if row.makes == Makes::Entry {
        told["200"]["description"] = json!("Made before, by the same request");
        told["201"] = json!({"description": "Made", "content": content});
    }
    if let Handler::Guarded(..) = row.handler {
        for status in ["401", "403", "default"] {
            told[status] = json!({"$ref": "#/components/responses/Error"});
        }
    }
    told
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

/// What stands in this program is JSON (tested).
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::entry::{self, Kind};

    fn references(value: &Value, found: &mut Vec<String>) {
        if let Some(reference) = value["$ref"].as_str() {
            found.push(reference.trim_start_matches('#').to_owned());
        }
        let inner = value.as_object().into_iter().flat_map(Map::values);
        for value in inner.chain(value.as_array().into_iter().flatten()) {
            references(value, found);
        }
    }

    #[test]
    fn every_row_is_told_and_every_body_described() {
        let document = document();
        let told: usize = document["paths"]
            .as_object()
            .unwrap()
            .values()
            .map(|path| path.as_object().unwrap().len())
            .sum();
        assert_eq!(told, operations().count());
        let mut found = Vec::new();
        references(&document, &mut found);
        for reference in found {
            assert!(document.pointer(&reference).is_some(), "{reference} is described nowhere");
        }
    }

    #[test]
    fn bodies_have_the_names_of_the_config() {
        let kinds =
            [(Kind::Key, "Key"), (Kind::User, "User"), (Kind::Team, "Team"), (Kind::Org, "Org")];
        for (kind, name) in kinds {
            let bodies = [format!("New{name}"), format!("{name}Patch")];
            let schemas = bodies.map(|schema| parsed(SCHEMAS)[&schema]["properties"].clone());
            let fields = schemas.iter().filter_map(Value::as_object).flat_map(Map::keys);
            for field in fields.filter(|field| *field != "id") {
                // Of a field that it knows, the reader complains of something else.
                let read = entry::read(kind, &json!({field: []}));
                let problems = read.err().unwrap_or_default();
                let is_known = problems.iter().all(|one| !one.message.contains("not known"));
                assert!(is_known, "{name} has no `{field}`");
            }
        }
    }
}
