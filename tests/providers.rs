//! Each provider's own words pass through unchanged, are counted rightly and blamed rightly.

use std::path::{Path, PathBuf};

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue as FrameValue, Message};
use serde_json::{Value, json};
use switchpoint::canon::Dialect;
use switchpoint::provider::catalog::{Auth, CATALOG, Kind};

use crate::support::client::{Answer, chat, post};
use crate::support::gateway::{KEY, route};
use crate::support::replies::{ask, ask_stream};
use crate::support::upstream::Request;
use crate::support::{Gateway, Script, Upstream};

/// One refusal of a provider, and what it is.
struct Refusal {
    name: String,
    status: u16,
    script: Script,
    class: String,
}

pub(crate) fn folder(kind: &Kind) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/providers").join(kind.id)
}

fn read(kind: &Kind, file: &str) -> String {
    let path = folder(kind).join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn kinds() -> impl Iterator<Item = &'static Kind> {
    CATALOG.iter().filter(|kind| kind.id != "demo")
}

/// Whether a success in name is all error.
fn is_error(body: &Value) -> bool {
    body.as_object().is_some_and(|body| body.keys().next().is_some_and(|first| first == "error"))
}

fn refusals(kind: &Kind) -> Vec<Refusal> {
    let folder = folder(kind).join("errors");
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names = entries.map(|name| name.into_string().unwrap());
    let fixtures = names.map(|name| {
        let fixture = read(kind, &format!("errors/{name}"));
        (name, serde_json::from_str::<Value>(&fixture).unwrap())
    });
    fixtures
        // What some only say as an event of a stream.
        .filter(|(_, fixture)| fixture["status"] != 200 || is_error(&fixture["body"]))
        .map(|(name, fixture)| {
            let status = u16::try_from(fixture["status"].as_u64().unwrap()).unwrap();
            let headers = fixture["headers"].as_object().unwrap();
            let headers: Vec<_> = headers
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str().unwrap()))
                .collect();
            let body = match &fixture["body"] {
                Value::String(text) => text.clone(),
                body => body.to_string(),
            };
            let script = Script::reply(status, &headers, body);
            let class = fixture["class"].as_str().unwrap().to_owned();
            Refusal { name, status, script, class }
        })
        .collect()
}

/// What a client that did not ask for usage is shown of a provider's stream.
fn shown(kind: &Kind) -> String {
    let stream = read(kind, "stream.sse");
    let end = if stream.contains("\r\n") { "\r\n\r\n" } else { "\n\n" };
    let events = stream.split_inclusive(end).filter(|event| {
        let data = event.trim().strip_prefix("data:").unwrap_or_default().trim();
        let Ok(data) = serde_json::from_str::<Value>(data) else {
            return data == "[DONE]";
        };
        let only_usage =
            data["usage"].is_object() && data["choices"].as_array().is_none_or(Vec::is_empty);
        !(only_usage && kind.quirks.stream_options)
    });
    let mut shown: String = events.collect();
    if !shown.contains("[DONE]") {
        shown.push_str("data: [DONE]\n\n");
    }
    shown
}

pub(crate) fn section(kind: &Kind, base: &str) -> String {
    let place = match kind.auth {
        Auth::Aws => "region = \"us-east-1\"\n",
        Auth::Google => "project = \"p\"\n",
        Auth::Bearer | Auth::Header(_) | Auth::Entra(_) | Auth::None => "",
    };
    format!(
        "[providers.p]\nkind = \"{}\"\nbase_url = \"{base}\"\napi_key = \"sk-provider\"\n{place}",
        kind.id
    )
}

/// What a reader must find in the fixtures: what is written beside them, else what they say in the
/// words of OpenAI.
fn expected(kind: &Kind) -> Value {
    if folder(kind).join("expect.json").is_file() {
        return serde_json::from_str(&read(kind, "expect.json")).unwrap();
    }
    let reply: Value = serde_json::from_str(&read(kind, "reply.json")).unwrap();
    let (choice, usage) = (&reply["choices"][0], &reply["usage"]);
    let side = json!({
        "finish": choice["finish_reason"],
        "input_tokens": usage["prompt_tokens"],
        "output_tokens": usage["completion_tokens"],
        "content": choice["message"]["content"],
    });
    assert_eq!(words(&read(kind, "stream.sse")), side["content"].as_str().unwrap(), "{}", kind.id);
    json!({"reply": side, "stream": side})
}

/// The base URL of a scripted upstream, as this kind's base URL is written.
fn base(kind: &Kind, upstream: &Upstream) -> String {
    match kind.speaks[0].0 {
        Dialect::Chat => upstream.base(),
        _ => format!("http://{}", upstream.address),
    }
}

/// A stream as the provider frames it: its events as lines, or in AWS's binary frames.
fn framed(kind: &Kind) -> Script {
    let stream = read(kind, "stream.sse");
    if kind.speaks[0].0 != Dialect::Converse {
        return Script::stream([stream]);
    }
    let frames = stream.split_terminator("\n\n").map(|event| {
        let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let text = |text: &str| FrameValue::String(text.to_owned().into());
        let message = Message::new(data.to_owned())
            .add_header(Header::new(":event-type", text(name)))
            .add_header(Header::new(":message-type", text("event")));
        let mut frame = Vec::new();
        write_message_to(&message, &mut frame).unwrap();
        frame
    });
    let body: Vec<u8> = frames.flatten().collect();
    Script::reply(200, &[("content-type", "application/vnd.amazon.eventstream")], body)
}

async fn upstream(kind: &Kind) -> Upstream {
    let reply = Script::json(200, &read(kind, "reply.json"));
    let refusals = refusals(kind).into_iter().map(|refusal| (refusal.name, [refusal.script]));
    let answers = [("reply".to_owned(), [reply]), ("stream".to_owned(), [framed(kind)])];
    Upstream::start(answers.into_iter().chain(refusals)).await
}

#[track_caller]
fn assert_usage(kind: &Kind, record: &Value, expected: &Value) {
    let counts = ["input_tokens", "output_tokens"].map(|name| (&record[name], &expected[name]));
    for (found, expected) in counts.into_iter().filter(|(_, expected)| !expected.is_null()) {
        assert_eq!(found, expected, "{}: {record} for {expected}", kind.id);
        assert_eq!(record["usage_source"], "provider", "{}", kind.id);
    }
}

async fn asks_and_counts(kind: &Kind, gateway: &Gateway) {
    let expected = expected(kind);
    let reply = chat(gateway, ask("p/reply")).await;
    assert_eq!((reply.status, reply.text()), (200, &*read(kind, "reply.json")), "{}", kind.id);
    assert_usage(kind, &gateway.recorded(1).await[0], &expected["reply"]);

    let stream = chat(gateway, ask_stream("p/stream")).await;
    assert_eq!((stream.status, stream.text()), (200, &*shown(kind)), "{}", kind.id);
    assert_usage(kind, &gateway.recorded(2).await[1], &expected["stream"]);

    let asked = r#"{"model":"p/stream","stream":true,"stream_options":{"include_usage":true}}"#;
    let stream = chat(gateway, asked).await;
    let events = |text: &str| text.lines().filter(|line| line.starts_with("data:")).count();
    let (every, shown) = (events(&read(kind, "stream.sse")), events(stream.text()));
    assert!(shown >= every, "{}: {}", kind.id, stream.text());
}

#[tokio::test]
async fn each_providers_answers_pass_verbatim_and_are_counted() {
    for kind in kinds().filter(|kind| kind.speaks[0].0 == Dialect::Chat) {
        let upstream = upstream(kind).await;
        let gateway = Gateway::start("", &section(kind, &base(kind, &upstream))).await;
        asks_and_counts(kind, &gateway).await;
        for request in upstream.requests() {
            assert_eq!(request.path, "/v1/chat/completions", "{}", kind.id);
            assert_eq!(key(&request), "sk-provider", "{}", kind.id);
        }
    }
}

/// The key that a request carries, in whichever header.
fn key(request: &Request) -> &str {
    let names = ["authorization", "api-key", "x-api-key", "x-goog-api-key"];
    let key = names.iter().find_map(|name| request.header(name)).unwrap();
    key.trim_start_matches("Bearer ")
}

/// The words in a stream of chat completions.
fn words(stream: &str) -> String {
    let data = stream.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = data.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    let deltas = events.map(|event| event["choices"][0]["delta"]["content"].clone());
    deltas.filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn each_provider_of_another_dialect_serves_chat_completions_and_is_counted() {
    for kind in kinds().filter(|kind| kind.speaks[0].0 != Dialect::Chat) {
        let upstream = upstream(kind).await;
        let gateway = Gateway::start("", &section(kind, &base(kind, &upstream))).await;
        let expected = expected(kind);
        let text = &expected["stream"]["content"];

        let reply = chat(&gateway, ask("p/reply")).await;
        assert_eq!(reply.status, 200, "{}: {}", kind.id, reply.text());
        let choice = &reply.json()["choices"][0];
        assert_eq!(
            (&choice["message"]["content"], &choice["finish_reason"]),
            (text, &expected["reply"]["finish"])
        );
        assert_usage(kind, &gateway.recorded(1).await[0], &expected["reply"]);

        let stream = chat(&gateway, ask_stream("p/stream")).await;
        assert_eq!(
            (stream.status, &*words(stream.text())),
            (200, text.as_str().unwrap()),
            "{}",
            kind.id
        );
        assert!(stream.text().ends_with("data: [DONE]\n\n"), "{}", stream.text());
        assert_usage(kind, &gateway.recorded(2).await[1], &expected["stream"]);
        for request in upstream.requests() {
            assert_eq!(key(&request), "sk-provider", "{}", kind.id);
        }
    }
}

/// Where a dialect's own clients ask, and what.
fn own_door(dialect: Dialect, model: &str, stream: bool) -> Option<(String, String)> {
    let messages = r#"[{"role":"user","content":"Hi"}]"#;
    match dialect {
        Dialect::Messages => Some((
            "/v1/messages".to_owned(),
            format!(
                r#"{{"model":"p/{model}","stream":{stream},"max_tokens":9,"messages":{messages}}}"#
            ),
        )),
        Dialect::Gemini => {
            let method = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
            let body = r#"{"contents":[{"role":"user","parts":[{"text":"Hi"}]}]}"#;
            Some((format!("/v1beta/models/p/{model}:{method}"), body.to_owned()))
        }
        Dialect::Chat | Dialect::Responses | Dialect::Converse | Dialect::Cohere => None,
    }
}

#[tokio::test]
async fn each_provider_serves_the_clients_of_its_own_dialect_byte_for_byte() {
    for kind in kinds() {
        let dialect = kind.speaks[0].0;
        let Some((path, body)) = own_door(dialect, "reply", false) else { continue };
        let upstream = upstream(kind).await;
        let gateway = Gateway::start("", &section(kind, &base(kind, &upstream))).await;
        let expected = expected(kind);
        let reply = post(gateway.address, &path, KEY, body).await;
        assert_eq!((reply.status, reply.text()), (200, &*read(kind, "reply.json")), "{}", kind.id);
        assert_usage(kind, &gateway.recorded(1).await[0], &expected["reply"]);
        let (path, body) = own_door(dialect, "stream", true).unwrap();
        let stream = post(gateway.address, &path, KEY, body).await;
        assert_eq!(
            (stream.status, stream.text()),
            (200, &*read(kind, "stream.sse")),
            "{}",
            kind.id
        );
        assert_usage(kind, &gateway.recorded(2).await[1], &expected["stream"]);
    }
}

/// The status a client sees for a class, and the code that goes with it.
fn told(class: &str, status: u16) -> (u16, &'static str) {
    match class {
        "rate_limited" | "daily_limit" | "budget" => (429, "rate_limited"),
        "model_not_found" => (404, "model_not_found"),
        "too_large" => (413, "invalid_request"),
        "context_too_long" => (400, "context_too_long"),
        "content_filtered" => (400, "content_filtered"),
        "invalid_request" if status < 400 => (400, "invalid_request"),
        "invalid_request" => (status, "invalid_request"),
        "overloaded" => (503, "upstream_unavailable"),
        "timeout" => (504, "upstream_timeout"),
        // Of the gateway's own account and of the provider's troubles the client learns no more.
        _ => (502, "upstream_error"),
    }
}

fn assert_told(kind: &Kind, refusal: &Refusal, reply: &Answer) -> Option<String> {
    let body = reply.json();
    let found = (reply.status, body["error"]["code"].as_str().unwrap_or_default());
    let expected = told(&refusal.class, refusal.status);
    assert!(!reply.text().contains("sk-provider"));
    (found != expected).then(|| {
        format!(
            "{}/{} ({}, {}): {found:?}, not {expected:?}",
            kind.id, refusal.name, refusal.class, refusal.status
        )
    })
}

#[tokio::test]
async fn each_providers_refusals_are_told_by_their_class() {
    let mut wrong = Vec::new();
    for kind in kinds() {
        let upstream = upstream(kind).await;
        let routes: String = refusals(kind)
            .iter()
            .map(|refusal| {
                let name = &refusal.name;
                let route_name = name.replace('.', "-");
                route(&format!("r-{route_name}"), &[&format!("p/{name}")], "attempts = 1")
            })
            .collect();
        let sections = section(kind, &base(kind, &upstream)) + &routes;
        let gateway = Gateway::start("", &sections).await;
        for refusal in refusals(kind) {
            let body = ask(&format!("r-{}", refusal.name.replace('.', "-")));
            let reply = chat(&gateway, body).await;
            wrong.extend(assert_told(kind, &refusal, &reply));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn azure_is_reached_in_both_forms_of_its_address() {
    let kind = kinds().find(|kind| kind.id == "azure").unwrap();
    let (newer, older) = (
        "/openai/v1/chat/completions",
        "/openai/deployments/reply/chat/completions?api-version=2024-10-21",
    );
    let forms = [
        ("", None, newer),
        ("/openai", None, newer),
        ("/openai/v1", None, newer),
        ("", Some("2024-10-21"), older),
        ("/openai", Some("2024-10-21"), older),
    ];
    for (base, version, path) in forms {
        let upstream = upstream(kind).await;
        let base = format!("http://{}{base}", upstream.address);
        let mut section = section(kind, &base);
        if let Some(version) = version {
            let named = format!("api_version = \"{version}\"\nbase_url");
            section = section.replacen("base_url", &named, 1);
        }
        let gateway = Gateway::start("", &section).await;
        asks_and_counts(kind, &gateway).await;
        let request = upstream.requests()[0].clone();
        assert_eq!((request.path.as_str(), request.header("api-key")), (path, Some("sk-provider")));
        assert_eq!(request.header("authorization"), None);
    }
}
