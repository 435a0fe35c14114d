//! Operations as tools, from the document to what a server hears.

use std::sync::Mutex;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;
use crate::config::{Secret, ToolKind, Web};
use crate::net::tasks::Tasks;
use crate::tool::{FailureKind, Output, Sent};

const SHOP: &str = r##"
openapi: 3.0.3
info: { title: Shop, version: "1" }
servers:
  - url: "https://{region}.shop.test/v1"
    variables: { region: { default: eu } }
paths:
  /orders/{id}:
    parameters:
      - { name: id, in: path, required: true, schema: { type: string } }
      - { name: X-Tenant, in: header, schema: { type: string } }
    get:
      operationId: getOrder
      summary: One order.
      description: With its items.
      parameters:
        - { name: fields, in: query, explode: false, schema: { type: array, items: { type: string } } }
        - { name: "filter[state]", in: query, schema: { type: string } }
        - { name: tag, in: query, schema: { type: array, items: { type: string } } }
        - { name: near, in: query, style: deepObject, schema: { type: object } }
        - { name: raw, in: query, content: { application/json: { schema: { type: object } } } }
        - { name: X-Api-Key, in: header, required: true, schema: { type: string } }
        - { name: Authorization, in: header, required: true, schema: { type: string } }
      responses:
        "200":
          content: { application/json: { schema: { $ref: "#/components/schemas/Order" } } }
    put:
      operationId: changeOrder
      requestBody: { $ref: "#/components/requestBodies/Order" }
      responses: { "204": { description: done } }
    delete: { operationId: dropOrder, deprecated: true, summary: Gone., responses: {} }
  /orders:
    post:
      requestBody:
        required: true
        content:
          application/json:
            schema: { type: array, items: { $ref: "#/components/schemas/Order" } }
      responses: {}
  /upload:
    post:
      operationId: upload
      requestBody: { required: true, content: { multipart/form-data: {} } }
      responses: {}
components:
  requestBodies:
    Order:
      required: true
      content:
        application/json: { schema: { $ref: "#/components/schemas/Order" } }
  schemas:
    Base:
      type: object
      required: [id, made]
      properties:
        id: { type: integer }
        made: { type: string, readOnly: true }
    Order:
      allOf:
        - $ref: "#/components/schemas/Base"
        - type: object
          required: [total]
          properties:
            total: { type: number, minimum: 0, exclusiveMinimum: true }
            note: { type: string, nullable: true }
            parts: { type: array, items: { $ref: "#/components/schemas/Order" } }
"##;

/// A server of one answer, and all that was said to it.
pub(in crate::tool) struct Stand {
    pub(in crate::tool) url: String,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Stand {
    pub(in crate::tool) async fn open(status: u16, body: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (tasks, into) = (Tasks::default(), Arc::clone(&heard));
        let answer = format!(
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        tasks.clone().spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tasks.spawn(serve(stream, answer.clone(), Arc::clone(&into)));
            }
        });
        Self { url, heard }
    }

    /// What was said last: its first line, its head and its body.
    pub(in crate::tool) fn last(&self) -> (String, String, String) {
        let request = self.heard.lock().unwrap().last().cloned().unwrap();
        let (top, body) = request.split_once("\r\n\r\n").unwrap();
        let (first, headers) = top.split_once("\r\n").unwrap();
        let first = first.trim_end_matches(" HTTP/1.1").to_owned();
        (first, headers.to_ascii_lowercase(), body.to_owned())
    }

    pub(in crate::tool) fn is_untouched(&self) -> bool {
        self.heard.lock().unwrap().is_empty()
    }
}

async fn serve(mut stream: TcpStream, answer: String, heard: Arc<Mutex<Vec<String>>>) {
    while let Some(request) = read(&mut stream).await {
        heard.lock().unwrap().push(request);
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

async fn read(stream: &mut TcpStream) -> Option<String> {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(text).unwrap();
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some(head + std::str::from_utf8(&body).unwrap())
}

pub(in crate::tool) fn call(args: Value) -> Invocation {
    Invocation {
        args,
        idempotency_key: "key-1".to_owned(),
        user: None,
        passed: crate::canon::Passed::default(),
        deadline: Instant::now() + std::time::Duration::from_secs(10),
        answer: None,
        listener: None,
    }
}

fn shop(change: impl FnOnce(&mut OpenApiTool)) -> OpenApiTool {
    let web = Web { allow_private: true, ..Web::default() };
    let document = Arc::from(SHOP);
    let (spec, idempotency) = ("shop.yaml".into(), true);
    let mut tool = OpenApiTool { spec, document, idempotency, web, ..OpenApiTool::default() };
    change(&mut tool);
    tool
}

fn made(tool: &OpenApiTool) -> Result<Vec<Tool>, String> {
    let kind = ToolKind::OpenApi(Box::new(tool.clone()));
    let effects = [("changeOrder".to_owned(), Effect::Once)].into();
    let terms = Arc::new(config::Tool { kind, effects, ..config::Tool::default() });
    tools("shop", &terms, tool, &Net::alone())
}

fn found<'a>(tools: &'a [Tool], name: &str) -> &'a Tool {
    tools.iter().find(|tool| *tool.name == *name).unwrap()
}

async fn outcome(stand: &Stand, name: &str, args: Value) -> Result<Output, Failure> {
    let tool = shop(|tool| tool.base_url = Some(stand.url.clone()));
    found(&made(&tool).unwrap(), name).call(&call(args)).await
}

// === What tools there are ===

#[test]
fn each_operation_is_a_tool_named_after_it() {
    let tools = made(&shop(|_| {})).unwrap();
    let names: Vec<_> = tools.iter().map(|tool| (&*tool.name, tool.effect)).collect();
    let expected = [
        ("shop.getOrder", Effect::Read),
        ("shop.changeOrder", Effect::Once),
        ("shop.dropOrder", Effect::Idempotent),
        ("shop.post_orders", Effect::Once),
    ];
    assert_eq!(names, expected);
    assert_eq!(tools[0].description, "One order.\nWith its items.");
    assert_eq!(tools[2].description, "Gone. (deprecated)");
}

#[test]
fn only_what_is_included_is_there_and_what_is_named_must_be() {
    let include = |names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        made(&shop(|tool| tool.include = Some(names)))
            .map(|tools| tools.iter().map(|tool| tool.name.to_string()).collect::<Vec<_>>())
    };
    assert_eq!(include(&["getOrder"]).unwrap(), ["shop.getOrder"]);
    assert_eq!(include(&["drop*", "x*"]).unwrap(), ["shop.dropOrder"]);
    assert_eq!(
        include(&["getOrders"]).unwrap_err(),
        "shop.yaml has no operation \"getOrders\"; did you mean \"getOrder\"?"
    );
    assert_eq!(include(&["upload"]).unwrap_err(), "upload: its body is no JSON");
}

#[test]
fn arguments_are_one_flat_object_and_clashes_are_named_after_their_place() {
    let tools = made(&shop(|tool| {
        let key = ("x-tenant".to_owned(), Secret::new("t"));
        tool.web.headers.extend([key]);
        tool.web.auth =
            Some(ToolAuth::Header { name: "x-api-key".to_owned(), value: Secret::new("k") });
    }))
    .unwrap();
    let input = &found(&tools, "shop.getOrder").input;
    let names: Vec<_> = input["properties"].as_object().unwrap().keys().collect();
    assert_eq!(names, ["id", "fields", "filter_state", "tag", "near", "raw"]);
    assert_eq!(input["required"], json!(["id"]));
    let input = &found(&tools, "shop.changeOrder").input;
    assert_eq!(input["required"], json!(["id", "body_id", "total"]));
    let properties = &input["properties"];
    assert_eq!(properties["id"]["type"], "string");
    assert_eq!(properties["body_id"]["type"], "integer");
    assert_eq!(properties["total"], json!({"type": "number", "exclusiveMinimum": 0}));
    assert_eq!(properties["note"]["type"], json!(["string", "null"]));
    assert!(properties.get("made").is_none(), "it only comes back");
    assert!(!input.to_string().contains("$ref"));
    let input = &found(&tools, "shop.post_orders").input;
    assert_eq!(input["required"], json!(["body"]));
    assert_eq!(input["properties"]["body"]["type"], "array");
}

#[test]
fn what_is_wrong_with_a_document_is_told_with_its_place() {
    let with = |text: &str| made(&shop(|tool| tool.document = Arc::from(text))).unwrap_err();
    assert!(with("swagger: '2.0'").starts_with("shop.yaml: is no OpenAPI"));
    let twice = "{\"openapi\": \"3.1.0\", \"paths\": {\"/a\": {\"get\": {\"operationId\": \"x\"}, \
                 \"put\": {\"operationId\": \"x\"}}}}";
    assert_eq!(with(twice), "shop.yaml: x: there are two operations of this name");
    let relative = "openapi: 3.1.0\nservers: [{url: /v1}]\npaths: {/a: {get: {operationId: x}}}";
    assert!(with(relative).starts_with("x: the document does not say where its server is"));
    let named = |text: &str| {
        let tool = shop(|tool| {
            tool.document = Arc::from(text);
            tool.include = Some(vec!["x".to_owned()]);
        });
        made(&tool).unwrap_err()
    };
    let lost = "openapi: 3.1.0\npaths: {'/a/{b}': {get: {operationId: x}}}";
    assert_eq!(named(lost), "x: its path has {b}, and there is no such parameter");
    let away = "openapi: 3.1.0\npaths: {/a: {get: {operationId: x, parameters: [{name: q, in: query, \
                schema: {$ref: 'http://a.test/b'}}]}}}";
    assert!(named(away).starts_with("x: parameter q: \"http://a.test/b\" lies elsewhere"));
}

// === What a server hears ===

#[tokio::test]
async fn parameters_go_where_they_belong() {
    let stand = Stand::open(200, "{\"id\": 1}").await;
    let args = json!({"id": "a b?#%", "fields": ["x", "y&z"], "filter_state": "=1", "tag": ["p", "q"],
        "near": {"lat": 1.5, "lon": "2"}, "raw": {"k": [1]}, "X-Tenant": "acme", "X-Api-Key": "k"});
    let output = outcome(&stand, "shop.getOrder", args).await.unwrap();
    assert_eq!(output.value, Some(json!({"id": 1})));
    let (first, head, body) = stand.last();
    let expected = "GET /orders/a%20b%3F%23%25?fields=x,y%26z&filter%5Bstate%5D=%3D1&tag=p&tag=q\
                    &near%5Blat%5D=1.5&near%5Blon%5D=2&raw=%7B%22k%22%3A%5B1%5D%7D";
    assert_eq!((first.as_str(), body.as_str()), (expected, ""));
    assert!(head.contains("x-tenant: acme") && !head.contains("idempotency-key"), "{head}");
}

#[tokio::test]
async fn members_of_the_body_have_their_own_names_again() {
    let stand = Stand::open(204, "").await;
    let args = json!({"id": "7", "body_id": 9, "total": 1.5, "note": null});
    outcome(&stand, "shop.changeOrder", args).await.unwrap();
    let (first, head, body) = stand.last();
    assert_eq!(first, "PUT /orders/7");
    assert!(
        head.contains("idempotency-key: key-1") && head.contains("content-type: application/json")
    );
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, json!({"id": 9, "total": 1.5, "note": null}));
    let orders = json!({"body": [{"id": 1, "total": 2}]});
    outcome(&stand, "shop.post_orders", orders).await.unwrap();
    assert_eq!(stand.last().2, "[{\"id\":1,\"total\":2}]");
}

#[tokio::test]
async fn what_would_lead_elsewhere_is_never_sent() {
    let stand = Stand::open(200, "{}").await;
    let order = |id: &str| json!({"id": id, "X-Api-Key": "k"});
    for id in ["..", ".", "a/b", "../admin", "..\\admin", "", "a\nb"] {
        let failure = outcome(&stand, "shop.getOrder", order(id)).await.unwrap_err();
        assert_eq!((failure.kind, failure.sent), (FailureKind::Invalid, Sent::Never), "{id}");
    }
    let split = json!({"id": "1", "X-Api-Key": "k\r\nEvil: 1"});
    let failure = outcome(&stand, "shop.getOrder", split).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    for args in [json!({}), json!({"id": 1}), json!({"id": "1", "X-Api-Key": "k", "evil": 1})] {
        let failure = outcome(&stand, "shop.getOrder", args).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid);
    }
    assert!(stand.is_untouched());
}

#[tokio::test]
async fn a_result_is_looked_at_only_where_that_is_asked() {
    let stand = Stand::open(200, "{\"id\": \"x\"}").await;
    let args = json!({"id": "1", "X-Api-Key": "k"});
    assert!(outcome(&stand, "shop.getOrder", args).await.is_ok());
    let tool = shop(|tool| tool.check_output = true);
    let output = operations(&tool).unwrap()[0].0.output.clone().unwrap();
    assert_eq!(output["allOf"][0]["properties"]["made"], json!({"type": "string"}));
    let listed = operations(&shop(|_| {})).unwrap();
    assert_eq!(listed[0].0.output.as_ref(), Some(&output), "it is shown all the same");
}

#[tokio::test]
async fn a_body_is_of_the_type_that_is_declared_and_may_have_what_has_no_name() {
    let stand = Stand::open(200, "{}").await;
    let document = "openapi: 3.1.0\npaths:\n  /a:\n    patch:\n      operationId: change\n      \
        requestBody: {content: {TYPE: {schema: {type: object, properties: {a: {}}, MORE}}}}";
    let sent = async |kind: &str, more: &str, args: Value| {
        let document = document.replace("TYPE", kind).replace("MORE", more);
        let tool = shop(|tool| {
            tool.base_url = Some(stand.url.clone());
            tool.document = Arc::from(document);
        });
        found(&made(&tool).unwrap(), "shop.change").call(&call(args)).await
    };
    let patch = "application/merge-patch+json";
    for (kind, told) in
        [(patch, patch), ("'*/*'", "application/json"), ("application/*", "application/json")]
    {
        let args = json!({"a": null, "b": [1]});
        sent(kind, "additionalProperties: true", args).await.unwrap();
        let (_, head, body) = stand.last();
        assert!(head.contains(&format!("content-type: {told}\r\n")), "{head}");
        assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({"a": null, "b": [1]}));
    }
    let numbers = "additionalProperties: {type: integer}";
    assert!(sent(patch, numbers, json!({"a": 1, "b": 2})).await.is_ok());
    for more in [numbers, "additionalProperties: false"] {
        let failure = sent(patch, more, json!({"a": 1, "b": "x"})).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Invalid, "{more}");
    }
}

#[tokio::test]
async fn a_body_that_may_be_missing_is_whole_or_not_there() {
    let stand = Stand::open(200, "{}").await;
    let document = "openapi: 3.1.0\npaths:\n  '/a#make':\n    post:\n      operationId: make\n      \
        parameters: [{name: a, in: query, schema: {}}]\n      \
        requestBody: {REQUIRED, content: {application/json: {schema: \
        {type: object, required: [NEEDED], properties: {a: {}, b: {}}}}}}";
    let sent = async |(required, needed): (&str, &str), args: Value| {
        let document = document.replace("REQUIRED", required).replace("NEEDED", needed);
        let tool = shop(|tool| {
            tool.base_url = Some(stand.url.clone());
            tool.document = Arc::from(document);
        });
        found(&made(&tool).unwrap(), "shop.make").call(&call(args)).await
    };
    for args in [json!({}), json!({"a": 1})] {
        sent(("required: false", "a"), args).await.unwrap();
        let (first, head, body) = stand.last();
        assert!(first.starts_with("POST /a") && !first.contains('#'), "{first}");
        assert!(body.is_empty() && !head.contains("content-type"), "{head}{body}");
    }
    let failure = sent(("required: false", "a"), json!({"b": 1})).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Invalid);
    assert!(failure.message.contains("body_a"), "{}", failure.message);
    sent(("required: false", "a"), json!({"body_a": 2, "b": 1})).await.unwrap();
    assert_eq!(stand.last().2, "{\"a\":2,\"b\":1}");
    sent(("required: true", ""), json!({})).await.unwrap();
    assert_eq!(stand.last().2, "{}");
}
