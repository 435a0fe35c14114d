//! Canaries: no secret ever shows in an answer, a log line or a metric, whatever goes wrong.

use std::time::Duration;

use http::Method;

use crate::support::client::{self, CHAT, chat, get, post, raw};
use crate::support::gateway::{ADMIN_KEY, KEY, provider, route};
use crate::support::replies::{REPLY, ask, ask_stream, event, role, word};
use crate::support::{Gateway, Script, Upstream};

const UPSTREAM_KEY: &str = "sk-upstream-up";
/// A client key that nobody gave out must not show either: it may be one of another system.
const STRANGE_KEY: &str = "sk-strange-canary";

/// An error that repeats the key in one of its fields.
fn echo(field: &str) -> String {
    let mut error = serde_json::json!({ "message": "No.", "type": "t", "code": "c", "param": "p" });
    error[field] = format!("Incorrect API key: {UPSTREAM_KEY} (also {UPSTREAM_KEY})").into();
    serde_json::json!({ "error": error }).to_string()
}

async fn upstream() -> Upstream {
    let told = echo("message");
    let mut scripts: Vec<(String, [Script; 1])> = [400, 401, 402, 403, 404, 422, 429, 500, 503]
        .into_iter()
        .map(|status| (format!("status-{status}"), [Script::json(status, &told)]))
        .collect();
    let began = Script::stream_head().chunks([role(), word("One")]);
    let plain = format!("go away, {UPSTREAM_KEY}");
    let failed = event(&format!(r#""error":{{"message":"no {UPSTREAM_KEY}"}}"#));
    for (name, script) in [
        ("good", Script::json(200, REPLY)),
        ("in-code", Script::json(400, &echo("code"))),
        ("in-type", Script::json(400, &echo("type"))),
        ("in-param", Script::json(400, &echo("param"))),
        ("plain", Script::reply(500, &[("content-type", "text/plain")], &plain)),
        ("with-200", Script::json(200, &told)),
        ("header", Script::reply(302, &[("location", &plain), ("x-key", &plain)], "")),
        ("garbage", Script::raw(format!("{plain}\r\n\r\n")).close()),
        ("bad-head", Script::raw(format!("HTTP/1.1 200 OK\r\n{plain}\r\n\r\n")).close()),
        ("reset", Script::default().reset()),
        ("before", Script::stream([role(), failed.clone()])),
        ("after", began.clone().wait(Duration::from_millis(50)).chunks([failed]).end()),
        ("cut", began.close()),
    ] {
        scripts.push((name.to_owned(), [script]));
    }
    Upstream::start(scripts).await
}

#[tokio::test]
async fn no_secret_shows_on_any_road_even_when_the_upstream_repeats_it() {
    let upstream = upstream().await;
    let models: Vec<String> = ["good", "in-code", "in-type", "in-param", "plain", "with-200"]
        .into_iter()
        .chain(["header", "garbage", "bad-head", "reset", "before", "after", "cut", "unknown"])
        .map(str::to_owned)
        .chain([400, 401, 402, 403, 404, 422, 429, 500, 503].map(|code| format!("status-{code}")))
        .collect();
    let sections = provider("up", &upstream) + &route("both", &["up/status-401", "up/plain"], "");
    let gateway = Gateway::start("", &sections).await;
    let mut shown = Vec::new();
    for model in &models {
        let streamed = ["before", "after", "cut"].contains(&model.as_str());
        let whole = (!streamed).then(|| ask(&format!("up/{model}")));
        for body in whole.into_iter().chain([ask_stream(&format!("up/{model}"))]) {
            let answer = chat(&gateway, body).await;
            shown.push((format!("answer of {model}"), format!("{answer:?}")));
        }
    }
    assert!(upstream.requests().iter().all(|request| {
        request.header("authorization") == Some(&format!("Bearer {UPSTREAM_KEY}"))
            && !request.headers.iter().any(|(_, value)| value.contains(KEY))
    }));
    for (address, path, key) in [
        (gateway.address, CHAT, STRANGE_KEY),
        (gateway.address, "/v1/none", KEY),
        (gateway.address, "/v1/models", KEY),
        (gateway.admin, "/admin/config", STRANGE_KEY),
        (gateway.admin, "/admin/config", ADMIN_KEY),
        (gateway.admin, "/admin/none", ADMIN_KEY),
    ] {
        for answer in [get(address, path, key).await, post(address, path, key, "{").await] {
            shown.push((format!("answer of {path}"), format!("{answer:?}")));
        }
    }
    shown.push(("answer of both".to_owned(), format!("{:?}", chat(&gateway, ask("both")).await)));
    let junk = format!("GET / HTTP/1.1\r\nauthorization Bearer {KEY}\r\n\r\n");
    let answer = raw(gateway.address, junk.as_bytes()).await;
    shown.push(("answer to junk".to_owned(), String::from_utf8_lossy(&answer).into_owned()));
    let query = client::request(Method::POST, &format!("{CHAT}?key={KEY}"), "", "{}".into());
    let answer = client::open(gateway.address, query).await.whole().await;
    shown.push(("answer to a query".to_owned(), format!("{answer:?}")));

    let reload = gateway.reload(&sections.replace(UPSTREAM_KEY, "sk-upstream-up\\nx")).await;
    shown.push(("answer of a bad reload".to_owned(), format!("{reload:?}")));
    for path in ["/metrics", "/admin/config"] {
        let answer = get(gateway.admin, path, ADMIN_KEY).await;
        shown.push((path.to_owned(), format!("{answer:?}")));
    }
    gateway.recorded(2 * models.len() - 3).await;
    shown.push(("the log".to_owned(), gateway.output().join("\n")));
    for (place, text) in shown {
        for secret in [UPSTREAM_KEY, KEY, ADMIN_KEY, STRANGE_KEY] {
            let at = text.find(secret).map(|at| text[at.saturating_sub(200)..].to_owned());
            assert_eq!(at, None, "{secret} shows in {place}");
        }
    }
}
