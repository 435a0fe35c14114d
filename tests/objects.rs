//! Files in questions are whose they are, and batches are counted once.

use bytes::Bytes;
use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::support::client::{self, Answer, post};
use crate::support::gateway::{KEY, provider, route};
use crate::support::replies::REPLY;
use crate::support::{Gateway, Script, Upstream};

const OTHER_KEY: &str = "sk-other";
const FILE: &str = r#"{"id":"file-1","object":"file","purpose":"user_data"}"#;
const FORM: &str = "--b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n\
    {\"custom_id\":\"a\",\"body\":{\"model\":\"m-1\",\"max_tokens\":9}}\n\r\n--b1--\r\n";
const OTHER: &str = "[keys.other]\nsecret = \"sk-other\"\n\n";

async fn upload(gateway: &Gateway, path: &str) {
    upload_as(gateway, path, KEY, FORM.to_owned()).await;
}

async fn upload_as(gateway: &Gateway, path: &str, key: &str, form: String) {
    let mut request = client::request(Method::POST, path, key, form.into());
    let form = HeaderValue::from_static("multipart/form-data; boundary=b1");
    request.headers_mut().insert("content-type", form);
    assert_eq!(client::open(gateway.address, request).await.whole().await.status, 200);
}

async fn get(gateway: &Gateway, path: &str) -> Answer {
    let request = client::request(Method::GET, path, KEY, Bytes::new());
    client::open(gateway.address, request).await.whole().await
}

/// The doors through which a model is shown a file, and what it is asked there.
fn questions(model: &str, file: &str) -> Vec<(String, Value)> {
    let chat = |part: Value| json!({"model": model, "max_tokens": 9, "messages": [{"role": "user", "content": [part]}]});
    let input =
        |part: Value| json!({"model": model, "input": [{"role": "user", "content": [part]}]});
    let tool = json!({"type": "code_interpreter", "container": {"file_ids": [file]}});
    let google = |uri: String| json!({"contents": [{"role": "user", "parts": [{"file_data": {"file_uri": uri}}]}]});
    let generate = format!("/v1beta/models/{model}:generateContent");
    let cases = [
        ("/v1/chat/completions", chat(json!({"type": "file", "file": {"file_id": file}}))),
        ("/v1/chat/completions", chat(json!({"type": "image_url", "image_url": {"url": file}}))),
        ("/v1/responses", input(json!({"type": "input_file", "file_id": file}))),
        ("/v1/responses", input(json!({"type": "input_image", "file_id": file}))),
        ("/v1/responses", json!({"model": model, "input": "Hi", "tools": [tool]})),
        (
            "/v1/messages",
            chat(json!({"type": "document", "source": {"type": "file", "file_id": file}})),
        ),
        (&generate, google(format!("https://generativelanguage.googleapis.com/v1beta/{file}"))),
        (
            "/v1/images/edits",
            json!({"model": model, "prompt": "a cat", "images": [{"file_id": file}]}),
        ),
    ];
    cases.map(|(path, body)| (path.to_owned(), body)).into()
}

#[tokio::test]
async fn a_file_of_another_key_in_a_question_cannot_be_told_from_none() {
    let upstream = Upstream::start([
        ("/v1/files", vec![Script::json(200, FILE)]),
        ("served", vec![Script::json(200, REPLY)]),
    ])
    .await;
    let sections = [&route("fast", &["up/served"], ""), OTHER].concat();
    let gateway = Gateway::before(&upstream, &sections).await;
    upload(&gateway, "/v1/files").await;
    for (path, body) in questions("fast", "file-1") {
        let body = body.to_string();
        let hidden = body.replace("file_id", "f\\u0069le_id").replace("file_uri", "file\\u005furi");
        for body in [body, hidden] {
            let swap = |text: &str| text.replace("file-1", "file-9");
            let theirs = post(gateway.address, &path, OTHER_KEY, body.clone()).await;
            let unknown = post(gateway.address, &path, OTHER_KEY, swap(&body)).await;
            assert_eq!((theirs.status, unknown.status), (404, 404), "{path} {body}: {theirs:?}");
            assert_eq!(swap(theirs.text()), unknown.text());
        }
    }
    assert_eq!(upstream.requests().len(), 1);
    // In the caller's dialect.
    let (path, body) = questions("fast", "file-1").remove(5);
    let refused = post(gateway.address, &path, OTHER_KEY, body.to_string()).await;
    assert_eq!(refused.json()["type"], "error");
    assert_eq!(refused.json()["error"]["type"], "not_found_error");
}

#[tokio::test]
async fn a_question_with_a_file_goes_to_the_provider_that_keeps_it_as_it_is() {
    let first = Upstream::start([("served", [Script::json(200, REPLY)])]).await;
    let second = Upstream::start([
        ("/v1/files", vec![Script::json(200, FILE)]),
        ("served", vec![Script::json(200, REPLY)]),
    ])
    .await;
    let sections = [
        provider("one", &first),
        provider("two", &second),
        route("both", &["one/served", "two/served"], ""),
        route("first", &["one/served"], ""),
    ];
    let gateway = Gateway::start("", &sections.concat()).await;
    upload(&gateway, "/v1/files?provider=two").await;
    let (path, body) = questions("both", "file-1").remove(0);
    let answer = post(gateway.address, &path, KEY, body.to_string()).await;
    assert_eq!((answer.status, answer.header("x-switchpoint-provider")), (200, Some("two")));
    let asked = second.requests().pop().unwrap();
    assert_eq!(asked.text(), body.to_string().replace("\"both\"", "\"served\""));
    let (path, body) = questions("first", "file-1").remove(0);
    let refused = post(gateway.address, &path, KEY, body.to_string()).await;
    assert_eq!((refused.status, refused.header("x-switchpoint-error")), (400, Some("unsupported")));
    assert!(refused.text().contains("`two` keeps them"), "{refused:?}");
    assert!(first.requests().is_empty());
}

#[tokio::test]
async fn a_question_with_a_file_is_asked_in_the_account_that_has_the_file() {
    let upstream = Upstream::start([
        ("/v1/files", vec![Script::json(200, FILE)]),
        ("served", vec![Script::json(200, REPLY)]),
    ])
    .await;
    let up = provider("up", &upstream);
    let up = up.replace("api_key = \"sk-upstream-up\"", "api_keys = [\"sk-first\", \"sk-second\"]");
    assert!(up.contains("sk-second"), "{up}");
    let gateway = Gateway::start("", &[up, route("fast", &["up/served"], "")].concat()).await;
    upload(&gateway, "/v1/files").await;
    let (path, body) = questions("fast", "file-1").remove(0);
    for _ in 0..4 {
        assert_eq!(post(gateway.address, &path, KEY, body.to_string()).await.status, 200);
    }
    for asked in upstream.requests() {
        assert_eq!(asked.header("authorization"), Some("Bearer sk-first"));
    }
}

#[tokio::test]
async fn what_only_speaks_of_files_passes_as_it_is() {
    let upstream = Upstream::start([("served", vec![Script::json(200, REPLY)])]).await;
    let gateway = Gateway::before(&upstream, &route("fast", &["up/served"], "")).await;
    let tool = json!({"type": "function", "function": {"name": "read", "parameters": {
        "type": "object", "properties": {"file_id": {"type": "string"}}}}});
    let said = json!([{"role": "user", "content": "What is in \"file_id\": \"file-1\"?"}]);
    let body = json!({"model": "fast", "tools": [tool], "messages": said}).to_string();
    let answer = post(gateway.address, "/v1/chat/completions", KEY, body.clone()).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(upstream.only_request().text(), body.replace("\"fast\"", "\"served\""));
}

fn batch(status: &str, more: &str) -> Script {
    let body = format!(r#"{{"id":"batch_1","object":"batch","status":"{status}"{more}}}"#);
    Script::json(200, &body)
}

fn lasting(upstream: &Upstream, folder: &tempfile::TempDir) -> String {
    let file = folder.path().join("state.db");
    let up = provider("up", upstream);
    format!("[store]\nurl = \"sqlite:{}\"\n\n{up}", file.display())
}

async fn make(gateway: &Gateway) {
    upload(gateway, "/v1/files").await;
    let body = r#"{"input_file_id":"file-1"}"#;
    assert_eq!(post(gateway.address, "/v1/batches", KEY, body).await.status, 200);
}

#[track_caller]
fn assert_counted(records: &[Value], times: usize) {
    let counted = records.iter().filter(|record| record["usage_source"] == "provider");
    let counted: Vec<&Value> = counted.collect();
    assert_eq!(counted.len(), times, "{records:?}");
    for record in counted {
        assert_eq!((&record["surface"], &record["outcome"]), (&json!("batches"), &json!("ok")));
        assert_eq!((&record["input_tokens"], &record["output_tokens"]), (&json!(15), &json!(5)));
    }
}

#[tokio::test]
async fn a_batch_that_says_what_it_has_used_is_counted_once() {
    let done = r#","model":"m-1","usage":{"input_tokens":15,"input_tokens_details":{"cached_tokens":0},"output_tokens":5,"total_tokens":20},"output_file_id":"file-2""#;
    let upstream = Upstream::start([
        ("/v1/files", vec![Script::json(200, FILE)]),
        ("/v1/batches", vec![batch("validating", "")]),
        ("/v1/batches/batch_1", vec![batch("in_progress", ""), batch("completed", done)]),
    ])
    .await;
    let folder = tempfile::tempdir().unwrap();
    let gateway = Gateway::start("", &lasting(&upstream, &folder)).await;
    make(&gateway).await;
    for _ in 0..3 {
        assert_eq!(get(&gateway, "/v1/batches/batch_1").await.status, 200);
    }
    assert_counted(&gateway.recorded(5).await, 1);
    let tokens = gateway.metric("switchpoint_tokens_total", &["class=\"output\""]).await;
    assert!((tokens - 5.0).abs() < 0.1, "{tokens}");
    gateway.stop();
    let gateway = Gateway::start("", &lasting(&upstream, &folder)).await;
    assert_eq!(get(&gateway, "/v1/batches/batch_1").await.status, 200);
    assert_counted(&gateway.recorded(1).await, 0);
}

#[tokio::test]
async fn a_batch_that_does_not_is_counted_by_its_answers_when_all_of_them_have_passed() {
    let line = |tokens: u32, text: &str| {
        format!(
            r#"{{"custom_id":"a","response":{{"status_code":200,"body":{{"model":"m-1","x":"{text}","usage":{{"prompt_tokens":{tokens},"completion_tokens":2,"total_tokens":{}}}}}}}}}"#,
            tokens + 2
        )
    };
    let failed = r#"{"custom_id":"b","response":{"status_code":400,"body":{}},"error":null}"#;
    let usual = line(9, "").replace(":2,", ":3,").replace(":11}", ":12}");
    let content = [line(6, &"x".repeat(300_000)), failed.to_owned(), usual].join("\n");
    for kind in ["application/octet-stream", "application/json"] {
        let cut = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{}",
            content.len(),
            &content[..content.len() - 10]
        );
        let whole = Script::reply(200, &[("content-type", kind)], &content);
        let upstream = Upstream::start([
            ("/v1/files", vec![Script::json(200, FILE)]),
            ("/v1/batches", vec![batch("validating", "")]),
            ("/v1/batches/batch_1", vec![batch("completed", r#","output_file_id":"file-2""#)]),
            ("/v1/files/file-2/content", vec![Script::raw(cut).close(), whole]),
        ])
        .await;
        let folder = tempfile::tempdir().unwrap();
        let gateway = Gateway::start("", &lasting(&upstream, &folder)).await;
        make(&gateway).await;
        get(&gateway, "/v1/batches/batch_1").await;
        gateway.stop();
        let gateway = Gateway::start("", &lasting(&upstream, &folder)).await;
        let path = "/v1/files/file-2/content";
        let wire = format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {KEY}\r\n\
             connection: close\r\n\r\n"
        );
        client::raw(gateway.address, wire.as_bytes()).await;
        assert_counted(&gateway.recorded(1).await, 0);
        assert_eq!(get(&gateway, path).await.text(), content);
        assert_counted(&gateway.recorded(2).await, 1);
        assert_eq!(get(&gateway, path).await.text(), content);
        get(&gateway, "/v1/batches/batch_1").await;
        assert_counted(&gateway.recorded(4).await, 1);
        gateway.stop();
        let gateway = Gateway::start("", &lasting(&upstream, &folder)).await;
        assert_eq!(get(&gateway, path).await.text(), content);
        assert_counted(&gateway.recorded(1).await, 0);
    }
}

/// A form with these lines, and the purpose behind them.
fn lines(lines: &[&str]) -> String {
    let head = "--b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    let tail =
        "\r\n--b1\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n--b1--\r\n";
    [head, &lines.join("\n"), tail].concat()
}

fn line(body: &Value) -> String {
    json!({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body})
        .to_string()
}

async fn begin(gateway: &Gateway, key: &str, body: &Value) -> Answer {
    upload_as(
        gateway,
        "/v1/files",
        key,
        lines(&[&line(&json!({"model": "m-1", "max_tokens": 1})), &line(body)]),
    )
    .await;
    post(gateway.address, "/v1/batches", key, r#"{"input_file_id":"file-1"}"#).await
}

#[tokio::test]
async fn every_line_of_a_batch_may_ask_only_what_its_key_may() {
    let upstream = Upstream::start([
        ("/v1/files", vec![Script::json(200, FILE)]),
        ("/v1/batches", vec![batch("validating", "")]),
    ])
    .await;
    let priced = "[models.\"up/m-1\"]\nprice = { input = 1.0, output = 1.0 }\n\n";
    let keys = "[keys.narrow]\nsecret = \"sk-narrow\"\nroutes = [\"up/files\", \"up/batches\", \"up/m-1\"]\n\n\
        [keys.poor]\nsecret = \"sk-poor\"\nbudget = [{ tokens = 1_000, window = \"1d\" }]\n\n\
        [keys.rich]\nsecret = \"sk-rich\"\nbudget = [{ usd = 1.0, window = \"1d\" }]\n\n";
    let gateway = Gateway::before(&upstream, &[priced, keys, OTHER].concat()).await;
    let small = json!({"model": "m-1", "max_tokens": 9});
    let file = json!({"model": "m-1", "messages": [{"role": "user", "content": [
        {"type": "file", "file": {"file_id": "file-9"}}]}]});
    for (key, body, expected, word) in [
        ("sk-narrow", json!({"model": "m-2"}), (403, "not_allowed"), "`up/m-2`"),
        ("sk-narrow", json!({"model": "fast"}), (403, "not_allowed"), "`up/fast`"),
        (KEY, json!({}), (400, "invalid_request"), "Line 2"),
        (
            KEY,
            json!({"model": "m-1", "previous_response_id": "resp_1"}),
            (400, "invalid_request"),
            "Line 2",
        ),
        (KEY, file, (404, "invalid_request"), "`file-9`"),
        (
            "sk-poor",
            json!({"model": "m-1", "max_tokens": 900, "n": 2}),
            (429, "budget_exceeded"),
            "budget",
        ),
        ("sk-poor", json!({"model": "m-1"}), (429, "budget_exceeded"), "budget"),
        ("sk-rich", json!({"model": "m-2", "max_tokens": 9}), (400, "unpriced_model"), "price"),
    ] {
        let asked = upstream.requests().len();
        let answer = begin(&gateway, key, &body).await;
        let told = (answer.status, answer.header("x-switchpoint-error").unwrap_or_default());
        assert_eq!(told.0, expected.0, "{key} {body}: {answer:?}");
        assert!(expected.0 == 404 || told.1 == expected.1, "{key} {body}: {answer:?}");
        assert!(answer.text().contains(word), "{word}: {answer:?}");
        assert_eq!(upstream.requests().len(), asked + 1, "only the upload reaches the provider");
    }
    for key in ["sk-narrow", "sk-poor", "sk-rich", "sk-other"] {
        let answer = begin(&gateway, key, &small).await;
        assert_eq!(answer.status, 200, "{key}: {answer:?}");
    }
}

/// All records, once there is one of what a batch has used.
async fn counted(gateway: &Gateway) -> Vec<Value> {
    let mut seen = 3;
    loop {
        let records = gateway.recorded(seen).await;
        if records.iter().any(|record| record["usage_source"] == "provider") {
            return records;
        }
        seen = records.len() + 1;
    }
}

#[tokio::test]
async fn a_batch_that_nobody_fetches_is_counted_for_its_key_even_past_its_budget() {
    let told = r#","model":"m-1","usage":{"input_tokens":15,"output_tokens":5,"total_tokens":20}"#;
    let untold = r#","output_file_id":"file-2""#;
    let answers = r#"{"custom_id":"a","response":{"status_code":200,"body":{"model":"m-1","usage":{"prompt_tokens":15,"completion_tokens":5,"total_tokens":20}}}}"#;
    for done in [told, untold] {
        let upstream = Upstream::start([
            ("/v1/files", vec![Script::json(200, FILE)]),
            ("/v1/batches", vec![batch("validating", "")]),
            ("/v1/batches/batch_1", vec![batch("in_progress", ""), batch("completed", done)]),
            (
                "/v1/files/file-2/content",
                vec![Script::reply(200, &[("content-type", "application/octet-stream")], answers)],
            ),
            ("served", vec![Script::json(200, REPLY)]),
        ])
        .await;
        let key =
            "[keys.poor]\nsecret = \"sk-poor\"\nbudget = [{ tokens = 1_000, window = \"1d\" }]\n\n";
        let server = "batch_poll = \"50ms\"\n";
        let sections =
            [provider("up", &upstream), route("fast", &["up/served"], ""), key.to_owned()];
        let gateway = Gateway::start(server, &sections.concat()).await;
        assert_eq!(
            begin(&gateway, "sk-poor", &json!({"model": "m-1", "max_tokens": 9})).await.status,
            200
        );
        let records = counted(&gateway).await;
        assert_counted(&records, 1);
        assert!(records.iter().all(|record| record["key"] == "poor"), "{records:?}");
        let request = client::request(Method::GET, "/v1/me/usage", "sk-poor", Bytes::new());
        let usage = client::open(gateway.address, request).await.whole().await.json();
        assert_eq!(usage["budgets"][0]["used"], 20, "{usage}");
    }
}
