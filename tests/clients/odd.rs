//! Servers whose answers are right but for their form, and whose errors look like answers.

use std::time::Duration;

use serde_json::Value;

use super::before;
use crate::support::Script;
use crate::support::client::{Answer, CHAT, post};
use crate::support::gateway::KEY;
use crate::support::replies::{DONE, REPLY, answer, ask, ask_stream, role, shown, word};

const MESSAGES: &str = "/v1/messages";

/// The same question through either door.
fn asked(path: &str, stream: bool) -> String {
    let body = if stream { ask_stream("fast") } else { ask("fast") };
    if path == CHAT { body } else { body.replacen('{', r#"{"max_tokens":99,"#, 1) }
}

/// An error in the words of another server than OpenAI's.
const GONE: &str = r#"{"code":404,"message":"The model `m` does not exist.","object":"error","type":"NotFoundError"}"#;

#[tokio::test]
async fn an_error_inside_a_success_is_what_it_is_with_a_status_of_its_own() {
    let asked_so = [CHAT, MESSAGES].map(|path| [(path, false), (path, true)]);
    for (path, stream) in asked_so.into_iter().flatten() {
        let event = format!("data: {GONE}\n\n");
        let field = format!("error: {GONE}\n\ndata: [DONE]\n\n");
        let mut scripts = vec![Script::json(404, GONE), Script::json(200, GONE)];
        scripts.extend([event, field].map(|event| Script::stream([event])));
        for script in scripts {
            let (upstream, gateway) = before("openai-compatible", "m", vec![script]).await;
            let answer = post(gateway.address, path, KEY, asked(path, stream)).await;
            assert_eq!(answer.status, 404, "{path} {stream}: {}", answer.text());
            let error = &answer.json()["error"];
            assert_eq!(error["code"], "model_not_found", "{path} {stream}: {error}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains("does not exist"), "{path} {stream}: {message}");
            assert_eq!(upstream.requests().len(), 1, "{path} {stream}");
        }
    }
}

#[tokio::test]
async fn an_error_by_any_name_ends_a_stream_with_its_words() {
    let busy = r#"{"choices":null,"usage":{"total_tokens":0},"base_resp":{"status_code":1013,"status_msg":"Boom."}}"#;
    for event in [format!("data: {busy}\n\n"), format!("error: {busy}\n\n")] {
        for path in [CHAT, MESSAGES] {
            let script = Script::stream_head().chunks([role(), word("half")]);
            let script = script.wait(Duration::from_millis(50));
            let script = script.chunks([&*event, "data: [DONE]\n\n"]).end();
            let (_upstream, gateway) = before("openai-compatible", "m", vec![script]).await;
            let answer = post(gateway.address, path, KEY, asked(path, true)).await;
            assert!(answer.text().contains("half"), "{path}: {}", answer.text());
            let last: Value = super::events(&answer).pop().unwrap();
            let message = last["error"]["message"].as_str().unwrap_or_default();
            assert!(message.contains("Boom."), "{path}: {}", answer.text());
            assert_eq!(gateway.recorded(1).await[0]["outcome"], "upstream_error", "{path}");
        }
    }
}

fn assert_whole(reply: &Answer, (path, stream): (&str, bool), case: &str) {
    let text = reply.text();
    assert_eq!(reply.status, 200, "{case}\n{text}");
    let form = if stream { "text/event-stream" } else { "application/json" };
    assert_eq!(reply.header("content-type"), Some(form), "{case}");
    if stream {
        let end = if path == CHAT { "[DONE]" } else { "message_stop" };
        assert!(text.contains("there.") && text.contains(end), "{case}\n{text}");
    } else {
        assert!(reply.json().to_string().contains("Hello there."), "{case}\n{text}");
    }
}

#[tokio::test]
async fn an_answer_is_read_as_what_it_is_whatever_its_label_says() {
    let events = answer().concat();
    let ended = format!("{REPLY}\n\n{DONE}");
    let labels = ["application/json", "text/event-stream", "text/plain; charset=utf-8", ""];
    let bodies = [&*events, REPLY, &ended];
    for (body, label) in bodies.iter().flat_map(|body| labels.map(|label| (body, label))) {
        let headers = [("content-type", label)];
        let headers = if label.is_empty() { &[][..] } else { &headers[..] };
        let script = Script::reply(200, headers, body);
        let (upstream, gateway) = before("openai-compatible", "m", vec![script]).await;
        for (path, stream) in [(CHAT, false), (CHAT, true), (MESSAGES, false), (MESSAGES, true)] {
            let case = format!("{path} {stream} {label}: {body}");
            let reply = post(gateway.address, path, KEY, asked(path, stream)).await;
            assert_whole(&reply, (path, stream), &case);
        }
        assert_eq!(upstream.requests().len(), 4, "{label}: {body}");
    }
}

#[tokio::test]
async fn events_with_one_line_end_between_them_all_reach_the_client() {
    let events = answer();
    let mut glued = events.concat().replace("\n\n", "\n");
    for end in ["\n\n", "\n", ""] {
        glued.truncate(glued.trim_end().len());
        glued.push_str(end);
        let script = Script::stream_head().chunks([&glued]).end();
        let (_upstream, gateway) = before("openai-compatible", "m", vec![script]).await;
        for path in [CHAT, MESSAGES] {
            let reply = post(gateway.address, path, KEY, asked(path, true)).await;
            assert!(reply.text().contains(" there."), "{path}: {}", reply.text());
            let is_chat = path == CHAT;
            assert!(!is_chat || reply.text().trim_end() == shown().trim_end(), "{}", reply.text());
        }
        let records = gateway.recorded(2).await;
        assert!(records.iter().all(|record| record["outcome"] == "ok"), "{records:?}");
    }
}
