//! Everything a route can do: who is asked, in which order, and what becomes of what goes wrong.

mod breaks;
mod choice;
mod detours;
mod hedges;
mod patience;
mod shadows;
mod tasks;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::client::{self, Answer, CHAT, Opened};
use crate::support::gateway::{KEY, route};
use crate::support::replies::REPLY;
use crate::support::upstream::Request;
use crate::support::{Gateway, PATIENCE, Script, Upstream};

/// Asks for a chat with these headers besides the usual ones.
async fn ask_with(gateway: &Gateway, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
    ask_at(gateway, CHAT, headers, body).await
}

async fn ask_at(
    gateway: &Gateway,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Answer {
    open_at(gateway, path, headers, body).await.whole().await
}

async fn open_at(
    gateway: &Gateway,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Bytes>,
) -> Opened {
    let mut request = client::request(Method::POST, path, KEY, body.into());
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        request.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
    }
    client::open(gateway.address, request).await
}

/// Scripts of targets that answer well.
fn well(models: &[&str]) -> Vec<(String, Vec<Script>)> {
    models.iter().map(|model| ((*model).to_owned(), vec![Script::json(200, REPLY)])).collect()
}

/// The models that were asked, in order.
fn asked(upstream: &Upstream) -> Vec<String> {
    upstream.requests().into_iter().map(|request| request.model).collect()
}

fn count(upstream: &Upstream, model: &str) -> usize {
    asked(upstream).iter().filter(|asked| *asked == model).count()
}

fn body(request: &Request) -> serde_json::Value {
    serde_json::from_slice(&request.body).unwrap()
}

/// A metric that counts things.
async fn counted(gateway: &Gateway, name: &str, labels: &[&str]) -> u64 {
    gateway.metric(name, labels).await.to_string().parse().unwrap()
}

async fn tokens(gateway: &Gateway, model: &str, class: &str) -> u64 {
    let labels = [format!("model=\"{model}\""), format!("class=\"{class}\"")];
    counted(gateway, "switchpoint_tokens_total", &labels.each_ref().map(String::as_str)).await
}

const POOR: &str = "sk-poor";

/// A key that may use so many tokens.
fn poor(tokens: u64) -> String {
    let budget = format!("budget = [{{ tokens = {tokens}, window = \"1d\" }}]");
    format!("[keys.poor]\nsecret = \"{POOR}\"\n{budget}\n")
}

/// A question with a short answer.
fn short(stream: bool) -> String {
    let messages = json!([{"role": "user", "content": "Hi"}]);
    json!({"model": "r", "max_tokens": 50, "stream": stream, "messages": messages}).to_string()
}

async fn ask_poorly(gateway: &Gateway, stream: bool) -> Answer {
    client::post(gateway.address, CHAT, POOR, short(stream)).await
}

async fn budget(gateway: &Gateway) -> Value {
    let told = client::get(gateway.address, "/v1/me/usage", POOR).await;
    told.json()["budgets"][0].clone()
}

/// What is used when nothing is held any more.
async fn used(gateway: &Gateway) -> u64 {
    let began = tokio::time::Instant::now();
    loop {
        let budget = budget(gateway).await;
        if budget["reserved"] == 0 {
            return budget["used"].as_u64().unwrap();
        }
        assert!(began.elapsed() < PATIENCE, "it stays reserved: {budget}");
    }
}

/// What is held for the short question where one target is asked.
async fn need() -> u64 {
    let upstream = Upstream::start([("a", [Script::default().stall()])]).await;
    let sections = route("r", &["up/a"], "") + &poor(1_000_000);
    let gateway = Gateway::before(&upstream, &sections).await;
    let mut calls = JoinSet::new();
    calls.spawn(client::post(gateway.address, CHAT, POOR, short(false)));
    upstream.asked(1).await;
    budget(&gateway).await["reserved"].as_u64().unwrap()
}
