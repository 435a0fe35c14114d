//! Answers that are remembered: the same question is not asked twice, by nobody else's key, and not
//! at the same time either.

mod exact;
mod flights;
mod purge;
mod similar;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};

use crate::support::client::{self, Answer, CHAT, Opened};
use crate::support::gateway::{KEY, route};
use crate::support::replies::{REPLY, answer};
use crate::support::{Gateway, Script, Upstream};

const MESSAGES: &str = "/v1/messages";
const OTHER: &str = "sk-test-other";

/// A route that remembers, with these further words, and a second key.
fn remembering(more: &str) -> String {
    let lines = format!("cache = {{ mode = \"on\"{more} }}");
    format!("{}\n[keys.other]\nsecret = \"{OTHER}\"\n", route("r", &["up/a"], &lines))
}

/// An upstream that answers, whole and streamed.
async fn willing() -> Upstream {
    let whole = [Script::json(200, REPLY)];
    Upstream::start([("a", whole), ("a?stream", [Script::stream(answer())])]).await
}

/// A question whose answer is certain.
fn question(more: &Value) -> String {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    let mut body = json!({"model": "r", "temperature": 0, "max_tokens": 50, "messages": messages});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string()
}

async fn open_at(
    gateway: &Gateway,
    path: &str,
    key: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Opened {
    let mut request = client::request(Method::POST, path, key, body.into());
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    }
    client::open(gateway.address, request).await
}

async fn ask_with(gateway: &Gateway, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    open_at(gateway, CHAT, KEY, headers, body).await.whole().await
}

/// A metric that counts things.
async fn counted(gateway: &Gateway, name: &str, labels: &[&str]) -> u64 {
    gateway.metric(name, labels).await.to_string().parse().unwrap()
}

/// What the client is told of the cache.
#[track_caller]
fn told(answer: &Answer) -> &str {
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.header("x-switchpoint-cache").unwrap_or("nothing")
}

/// The text of an answer, streamed or not, in the dialect of chats.
#[track_caller]
fn said(answer: &Answer) -> String {
    let text = answer.text();
    if !text.starts_with("data:") {
        return answer.json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned();
    }
    let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events = events.filter_map(|data| serde_json::from_str::<Value>(data).ok());
    events
        .filter_map(|event| Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect()
}
