//! What operators do by the API: keys and those who have them, what was used, and who changed it.

mod books;
mod document;
mod lives;
mod rights;

use std::net::SocketAddr;

use http::{HeaderValue, Method};
use serde_json::{Value, json};

use crate::support::client::{self, Answer, CHAT, open, request};
use crate::support::gateway::{ADMIN_KEY, KEY, provider, route};
use crate::support::replies::{REPLY, ask};
use crate::support::{Gateway, Script, Upstream};

/// A gateway with a route `fast`, and these sections.
async fn house(more: &str) -> (Upstream, Gateway) {
    let upstream = Upstream::answering(|_| Script::json(200, REPLY)).await;
    let sections = provider("up", &upstream) + &route("fast", &["up/a"], "") + more;
    let gateway = Gateway::start("", &sections).await;
    (upstream, gateway)
}

async fn send(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
    body: &str,
) -> Answer {
    let mut asked = request(method, path, "", body.to_owned().into());
    for (name, value) in headers {
        asked.headers_mut().insert(*name, HeaderValue::from_str(value).unwrap());
    }
    open(address, asked).await.whole().await
}

/// Asks the operators' door with the admin key.
async fn operate(gateway: &Gateway, method: Method, path: &str, body: &Value) -> Answer {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let key = format!("Bearer {ADMIN_KEY}");
    send(gateway.admin, method, path, &[("authorization", &key)], &body).await
}

/// The same, and it must work.
async fn done(gateway: &Gateway, method: Method, path: &str, body: Value) -> Value {
    let answer = operate(gateway, method.clone(), path, &body).await;
    assert!(answer.status < 300, "{method} {path}: {}", answer.text());
    answer.json()
}

async fn look(gateway: &Gateway, path: &str) -> Value {
    done(gateway, Method::GET, path, Value::Null).await
}

async fn make(gateway: &Gateway, path: &str, body: Value) -> Value {
    done(gateway, Method::POST, path, body).await
}

async fn chat(gateway: &Gateway, key: &str) -> Answer {
    client::post(gateway.address, CHAT, key, ask("fast")).await
}

fn refusal(answer: &Answer) -> (u16, String) {
    let code = answer.json()["error"]["code"].as_str().unwrap_or_default().to_owned();
    (answer.status, code)
}

fn code(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}
