//! However an answer comes and ends, its guards have seen it: as an array, in the background, and
//! when the gateway goes out in the middle.

use http::Method;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{DOORS, PII, WORDS, guarded, parrot, said, speak, upstream};
use crate::support::client::{self, Answer, get, open_chat, post};
use crate::support::gateway::KEY;
use crate::support::replies::{DONE, finish, word};
use crate::support::{Gateway, PATIENCE, Script, Upstream};

const TEXT: &str = "Write to alice@example.org, and pay with 4111 1111 1111 1111.";
const MASKED: &str = "Write to [EMAIL_1], and pay with [CARD_1].";

// === Gemini's other form of a stream ===

async fn array(gateway: &Gateway, text: &str) -> Answer {
    let path = "/v1beta/models/fast:streamGenerateContent";
    post(gateway.address, path, KEY, (DOORS[3].body)(text).to_string()).await
}

fn spoken(array: &Value) -> String {
    let elements = array.as_array().unwrap().iter();
    let texts =
        elements.filter_map(|it| it.pointer("/candidates/0/content/parts/0/text")?.as_str());
    texts.collect()
}

#[tokio::test]
async fn a_stream_that_is_an_array_is_masked_and_restored_and_blocked_like_any_other() {
    for piece in [1, 4, 1000] {
        let parrot = parrot(piece).await;
        let gateway = guarded(&parrot, "guards = [\"personal\"]", PII).await;
        let answer = array(&gateway, TEXT).await;
        assert_eq!(spoken(&answer.json()), TEXT, "{piece}: {}", answer.text());
        assert_eq!(said(&parrot.only_request()), MASKED);

        let upstream = upstream(piece, |_| "The word is aurora, and more.".to_owned()).await;
        let gateway = guarded(&upstream, "guards = [\"words\"]", WORDS).await;
        let answer = array(&gateway, "Which word?").await;
        let text = answer.text();
        assert!(!text.contains("aurora") && !text.contains("more"), "{piece}: {text}");
        if piece < 1000 {
            let elements = answer.json();
            assert_eq!(spoken(&elements).trim_end(), "The word is", "{text}");
            assert!(text.contains("\"SAFETY\""), "{text}");
        } else {
            assert_eq!(answer.status, 403, "{text}");
        }
        assert_eq!(gateway.record().await["outcome"], "guard_blocked");
        let refused = array(&gateway, "Tell me about Aurora.").await;
        assert_eq!(refused.status, 403, "{}", refused.text());
    }
}

// === Without a client that waits ===

/// What a response in the background has come to.
async fn in_background(gateway: &Gateway, text: &str, stream: bool) -> Value {
    let body = json!({"model": "fast", "input": text, "background": true, "stream": stream});
    let answer = post(gateway.address, "/v1/responses", KEY, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = answer.text();
    let id = said.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let (path, began) = (format!("/v1/responses/{id}"), Instant::now());
    loop {
        let now = get(gateway.address, &path, KEY).await;
        if !matches!(now.json()["status"].as_str(), Some("queued" | "in_progress")) {
            // Nor does the client of the stream see more than what is kept.
            assert!(!said.contains("aurora"), "{said}");
            return now.json();
        }
        assert!(began.elapsed() < PATIENCE, "{}", now.text());
    }
}

#[tokio::test]
async fn a_response_in_the_background_is_kept_as_its_guards_have_left_it() {
    for stream in [false, true] {
        let parrot = parrot(3).await;
        let gateway = guarded(&parrot, "guards = [\"personal\"]", PII).await;
        let kept = in_background(&gateway, TEXT, stream).await;
        assert_eq!(kept["status"], "completed", "{kept}");
        assert_eq!(kept["output"][0]["content"][0]["text"], TEXT, "{kept}");
        assert_eq!(said(&parrot.only_request()), MASKED);

        let upstream = upstream(3, |_| "The word is aurora, and more.".to_owned()).await;
        let gateway = guarded(&upstream, "guards = [\"words\"]", WORDS).await;
        let kept = in_background(&gateway, "Which word?", stream).await;
        assert!(!kept.to_string().contains("aurora"), "stream={stream}: {kept}");
        assert!(!kept.to_string().contains("more."), "stream={stream}: {kept}");
        assert_ne!(kept["status"], "completed", "{kept}");
        assert_eq!(gateway.record().await["outcome"], "guard_blocked");
    }
}

// === While the gateway goes out ===

/// As soon as no new connection is taken.
async fn wait_until_drained(gateway: &Gateway) {
    let began = Instant::now();
    while TcpStream::connect(gateway.address).await.is_ok() {
        assert!(began.elapsed() < PATIENCE, "new connections are still accepted");
    }
}

#[tokio::test]
async fn a_stream_that_goes_on_during_the_drain_is_still_guarded() {
    let upstream = Upstream::answering(|_| {
        let begun = Script::stream_head().chunks([word("It is "), word("au")]);
        let rest = [word("rora"), word(" and more"), finish(), DONE.to_owned()];
        begun.wait(std::time::Duration::from_secs(1)).chunks(rest).end()
    })
    .await;
    let server = "guards = [\"words\"]\ndrain = \"60s\"";
    let mut gateway = guarded(&upstream, server, WORDS).await;
    let mut body = (DOORS[0].body)("Hi");
    body["stream"] = json!(true);
    let mut stream = open_chat(&gateway, body.to_string()).await;
    let begun = stream.read_until("is").await;
    gateway.signal(Signal::TERM);
    let rest = stream.whole().await;
    let all = begun + rest.text();
    assert!(!all.contains("rora") && !all.contains("more"), "{all}");
    assert!(all.contains("content_filter") && all.trim_end().ends_with("[DONE]"), "{all}");
    assert!(gateway.ended().await.success());
    assert_eq!(gateway.recorded(1).await[0]["outcome"], "guard_blocked");
}

#[tokio::test]
async fn what_a_guard_holds_when_the_grace_is_over_is_not_let_out() {
    let upstream = Upstream::answering(|_| {
        Script::stream_head().chunks([word("Ask "), word("bob@example.or")]).stall()
    })
    .await;
    let guard = "[guards.out]\nkind = \"pii\"\nstage = [\"output\"]\naction = \"mask\"\n";
    let server = "guards = [\"out\"]\ndrain = \"300s\"";
    let mut gateway = guarded(&upstream, server, guard).await;
    let mut body = (DOORS[0].body)("Whom?");
    body["stream"] = json!(true);
    let mut stream = open_chat(&gateway, body.to_string()).await;
    let begun = stream.read_until("Ask").await;
    gateway.signal(Signal::TERM);
    wait_until_drained(&gateway).await;
    gateway.signal(Signal::TERM);
    let answer = stream.whole().await;
    assert!(answer.last_event()["error"]["code"].is_string(), "{answer:?}");
    let all = begun + answer.text();
    assert!(!all.contains("bob"), "{all}");
    assert!(gateway.ended().await.success());
    assert_eq!(gateway.recorded(1).await.len(), 1);
}

#[tokio::test]
async fn a_response_in_the_background_that_a_drain_cuts_keeps_nothing_unguarded() {
    let folder = tempfile::tempdir().unwrap();
    let upstream = Upstream::answering(|request| match said(request).as_str() {
        "Hi" => speak("Hello", request.variant == "stream", 2),
        _ => Script::stream_head().chunks([word("It is "), word("au")]).stall(),
    })
    .await;
    let state = folder.path().join("state.db");
    let more = format!("{WORDS}[store]\nurl = \"sqlite:{}\"\n", state.display());
    let gateway = guarded(&upstream, "guards = [\"words\"]", &more).await;
    let body = json!({"model": "fast", "input": "Which word?", "background": true, "stream": true});
    let request = client::request(Method::POST, "/v1/responses", KEY, body.to_string().into());
    let mut stream = client::open(gateway.address, request).await;
    let begun = stream.read_until("It is").await;
    let id = begun.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    gateway.stop();
    let gateway = guarded(&upstream, "guards = [\"words\"]", &more).await;
    let kept = get(gateway.address, &format!("/v1/responses/{id}"), KEY).await;
    let text = kept.text();
    assert!(!text.contains("It is au"), "{text}");
    assert_ne!(kept.json()["status"], "completed", "{text}");
}
