//! Tools of every kind that is made of something else, called by a run: operations of an API, a
//! GraphQL document, and statements on a database.

use http::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::stage::{Stage, body, found, results, says, texts, wants};
use crate::support::client::{CHAT, open, request};
use crate::support::gateway::{KEY, provider, route};
use crate::support::upstream::Request;
use crate::support::{Gateway, Script, Upstream};

const CRM: &str = r"
openapi: 3.0.3
paths:
  /customers/{id}:
    put:
      operationId: changeCustomer
      parameters: [{ name: id, in: path, required: true, schema: { type: string } }]
      requestBody:
        required: true
        content:
          application/json:
            schema: { type: object, required: [name], properties: { id: { type: integer }, name: { type: string } } }
";
const STOCK: &str = "CREATE TABLE stock(sku TEXT, pieces INTEGER); \
    INSERT INTO stock VALUES ('A', 3), ('B', 5);";

/// A gateway whose agent has all these tools, and who stands behind them.
struct House {
    gateway: Gateway,
    model: Upstream,
    tools: Upstream,
    folder: TempDir,
}

impl House {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("crm.yaml"), CRM).unwrap();
        let database = folder.path().join("stock.db");
        rusqlite::Connection::open(&database).unwrap().execute_batch(STOCK).unwrap();
        let model = Upstream::answering(mind).await;
        let tools = Upstream::answering(|request| {
            let is_query = request.path.ends_with("/graphql");
            let failed = r#"{"data":null,"errors":[{"message":"no such product"}]}"#;
            Script::json(200, if is_query { failed } else { r#"{"changed":true}"# })
        })
        .await;
        let sections = format!(
            r#"{}{}
[tools.crm]
kind = "openapi"
spec = "{folder}/crm.yaml"
base_url = "{base}"
[tools.product]
kind = "graphql"
effect = "read"
url = "{base}/graphql"
query = "query($sku: String!) {{ product(sku: $sku) {{ price }} }}"
[tools.stock]
kind = "sql"
dsn = "sqlite:{folder}/stock.db"
mode = "select_only"
[tools.sales]
kind = "sql"
dsn = "sqlite:{folder}/stock.db"
templates = {{ pieces = "SELECT pieces FROM stock WHERE sku = :sku" }}
[agents.support]
description = "Helps."
route = "fast"
instructions = "Help."
tools = ["crm.*", "product", "stock.query", "sales.pieces"]
"#,
            provider("up", &model),
            route("fast", &["up/m"], ""),
            base = tools.base(),
            folder = folder.path().display(),
        );
        let gateway = Gateway::start("", &sections).await;
        Self { gateway, model, tools, folder }
    }

    /// What the model is told of a call that it wanted.
    async fn told(&self, tool: &str, args: &Value) -> String {
        let wish = json!({"tool": tool, "args": args}).to_string();
        let body =
            json!({"model": "agent/support", "messages": [{"role": "user", "content": wish}]});
        let asked = request(Method::POST, CHAT, KEY, body.to_string().into());
        let answer = open(self.gateway.address, asked).await.whole().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let last = self.model.requests().pop().unwrap();
        let body: Value = serde_json::from_slice(&last.body).unwrap();
        let message = body["messages"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(message["role"], "tool", "{body:#}");
        message["content"].as_str().map_or_else(|| message["content"].to_string(), str::to_owned)
    }

    fn rows(&self) -> i64 {
        let database = rusqlite::Connection::open(self.folder.path().join("stock.db")).unwrap();
        database.query_row("SELECT count(*) FROM stock", [], |row| row.get(0)).unwrap()
    }
}

/// The model: wants the call that its user writes, then is done.
fn mind(request: &Request) -> Script {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let last = body["messages"].as_array().unwrap().last().unwrap();
    let wish = last["content"].as_str().and_then(|text| serde_json::from_str::<Value>(text).ok());
    let wish = wish.filter(|wish| last["role"] == "user" && wish["tool"].is_string());
    let (message, reason) = match wish {
        Some(wish) => {
            let arguments = wish["args"].to_string();
            let function = json!({"name": wish["tool"], "arguments": arguments});
            let call = json!({"id": "call_1", "type": "function", "function": function});
            (json!({"role": "assistant", "content": null, "tool_calls": [call]}), "tool_calls")
        }
        None => (json!({"role": "assistant", "content": "Done."}), "stop"),
    };
    let answer = json!({
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}],
        "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15},
    });
    Script::json(200, &answer.to_string())
}

#[tokio::test]
async fn a_run_calls_an_operation_a_query_and_statements() {
    let house = House::new().await;
    let args = json!({"id": "7", "body_id": 9, "name": "Ann"});
    let told = house.told("crm__changeCustomer", &args).await;
    assert!(told.contains("\"changed\":true"), "{told}");
    let heard = house.tools.only_request();
    assert!(heard.path.ends_with("/customers/7"), "{}", heard.path);
    assert!(heard.header("idempotency-key").is_some());
    assert_eq!(heard.text(), r#"{"id":9,"name":"Ann"}"#);
    let told = house.told("product", &json!({"sku": "A"})).await;
    assert!(told.contains("no such product"), "{told}");
    let told = house.told("sales__pieces", &json!({"sku": "B"})).await;
    assert!(told.contains("\"pieces\":5"), "{told}");
    let told =
        house.told("stock__query", &json!({"sql": "SELECT sum(pieces) AS n FROM stock"})).await;
    assert!(told.contains("\"n\":8"), "{told}");
    let names: Vec<Value> = {
        let first: Value = serde_json::from_slice(&house.model.requests()[0].body).unwrap();
        first["tools"].as_array().unwrap().iter().map(|it| it["function"]["name"].clone()).collect()
    };
    for name in ["crm__changeCustomer", "product", "sales__pieces", "stock__query"] {
        assert!(names.contains(&json!(name)), "{names:?}");
    }
}

#[tokio::test]
async fn a_run_cannot_change_a_database_that_it_may_only_read() {
    let house = House::new().await;
    for sql in ["DELETE FROM stock", "SELECT 1; DROP TABLE stock", "PRAGMA writable_schema = 1"] {
        let told = house.told("stock__query", &json!({"sql": sql})).await;
        assert!(told.contains("allowed"), "{sql}: {told}");
    }
    let told = house.told("sales__pieces", &json!({"sku": "'; DROP TABLE stock; --"})).await;
    assert!(told.contains("\"row_count\":0"), "{told}");
    let told = house.told("sales__pieces", &json!({"sku": ["A"]})).await;
    assert!(told.contains("sku"), "{told}");
    assert_eq!(house.rows(), 2);
}

#[tokio::test]
async fn a_document_handed_in_is_shown_to_the_model_and_holds_for_its_calls() {
    let folder = tempfile::tempdir().unwrap();
    let address = "https://schemas.example/place.json";
    let document = json!({"$id": address, "type": "object", "required": ["city"],
        "properties": {"city": {"type": "string", "minLength": 3}}});
    std::fs::write(folder.path().join("place.json"), document.to_string()).unwrap();
    let sections = format!(
        "[schemas]\ndir = \"{}\"\n[tools.weather]\nkind = \"http\"\nmethod = \"POST\"\n\
         url = \"{{tools}}/weather\"\neffect = \"read\"\n[tools.weather.input]\n\
         type = \"object\"\nproperties = {{ place = {{ \"$ref\" = \"{address}\" }} }}\n\
         required = [\"place\"]\n\
         [agents.guide]\nroute = \"fast\"\ninstructions = \"Guide.\"\ntools = [\"weather\"]\n",
        folder.path().display(),
    );
    let mind = |request: &Request| match results(request) {
        0 => wants(request, &[("weather", r#"{"place":{"city":"X"}}"#)]),
        1 => wants(request, &[("weather", r#"{"place":{"city":"Bern"}}"#)]),
        _ => says(request, "It is fine."),
    };
    let stage = Stage::new(&sections, mind, found).await;
    let answer = stage.chat("guide", "How is it?").await;
    assert_eq!(answer["choices"][0]["message"]["content"], "It is fine.", "{answer}");
    let requests = stage.model.requests();
    let shown = body(&requests[0])["tools"][0]["function"]["parameters"].clone();
    let inside = |it: &Value| it["properties"]["city"]["minLength"] == 3;
    let held = shown["$defs"].as_object().is_some_and(|known| known.values().any(inside));
    assert!(held || inside(&shown["properties"]["place"]), "all that it refers to: {shown}");
    let told = texts(&requests[1]).pop().unwrap();
    assert!(told.contains("/place/city"), "{told}");
    let asked = stage.tools.requests();
    assert_eq!(asked.len(), 1, "what the document forbids never reaches the tool");
    assert_eq!(body(&asked[0]), json!({"place": {"city": "Bern"}}));
}
