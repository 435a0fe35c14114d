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

use crate::support::client::{self, Answer, CHAT, Opened};
use crate::support::gateway::KEY;
use crate::support::replies::REPLY;
use crate::support::upstream::Request;
use crate::support::{Gateway, Script, Upstream};

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
