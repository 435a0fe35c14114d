//! What else belongs to the responses API, and the doors that count tokens.

use http::Method;
use serde_json::{Value, json};

use super::{
    RESPONSES, TARGETS, answers, asks, assert_order, create, created, house, path, sections, whole,
};
use crate::support::client::{self, post};
use crate::support::gateway::KEY;
use crate::support::{Gateway, Script, Upstream};

const UPGRADE: &str = "GET /v1/responses HTTP/1.1\r\nhost: gateway.test\r\nconnection: Upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\n\
    sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

#[tokio::test]
async fn who_wants_a_socket_is_told_at_once_to_go_without() {
    let (upstream, gateway) = house().await;
    // With and without a key, and however the request would go on.
    for header in ["", "authorization: Bearer sk-test-key\r\n"] {
        let request = format!("{UPGRADE}{header}\r\n");
        let mut stream = client::send(gateway.address, request.as_bytes()).await;
        client::read_until(&mut stream, "HTTP/1.1 426 ").await;
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_conversation_object_is_refused_by_name() {
    let (upstream, gateway) = house().await;
    for conversation in [json!("conv_1"), json!({"id": "conv_1"})] {
        let body = json!({"model": TARGETS[0], "input": "Hi", "conversation": conversation});
        let refused = create(&gateway, &body).await;
        assert_eq!(
            (refused.status, refused.header("x-switchpoint-error")),
            (400, Some("unsupported"))
        );
        assert!(refused.text().contains("conversation"), "{refused:?}");
    }
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn a_kept_response_can_be_had_as_a_stream() {
    let (_upstream, gateway) = house().await;
    for target in TARGETS {
        let given = created(&gateway, json!({"model": target, "input": "Hi"})).await;
        let whole = path(&given["id"]);
        let stream = asks(&gateway, Method::GET, &format!("{whole}?stream=true"), KEY).await;
        assert_eq!(stream.header("content-type"), Some("text/event-stream"));
        assert_eq!(stream.last_event()["response"], given);
        let events: Vec<Value> = stream
            .text()
            .lines()
            .filter_map(|line| serde_json::from_str(line.strip_prefix("data: ")?).ok())
            .collect();
        for (number, event) in events.iter().enumerate() {
            assert_eq!(event["sequence_number"], number);
        }
        let done = events.iter().filter(|event| event["type"] == "response.output_item.done");
        let items: Vec<_> = done.map(|event| event["item"].clone()).collect();
        assert_eq!(given["output"], json!(items));
        let deltas = events.iter().filter_map(|event| event["delta"].as_str());
        assert_eq!(deltas.collect::<String>(), "Hello there.");
        // The numbers that the client saw before are not known any more.
        let late = format!("{whole}?stream=true&starting_after=3");
        let refused = asks(&gateway, Method::GET, &late, KEY).await;
        assert_eq!(
            (refused.status, refused.header("x-switchpoint-error")),
            (400, Some("unsupported"))
        );
    }
}

#[tokio::test]
async fn a_conversation_is_compacted_by_who_speaks_the_api_and_refused_by_others() {
    let compacted = json!({"id": "resp_c", "object": "response.compaction", "output": []});
    let upstream =
        Upstream::start(answers().into_iter().chain([("compact", vec![whole(&compacted)])])).await;
    let gateway = Gateway::start("", &sections(&upstream)).await;
    let first = created(&gateway, json!({"model": TARGETS[1], "input": "Hi"})).await;
    let body = json!({
        "model": "oai/compact", "input": "Bye", "previous_response_id": first["id"],
    });
    let compact = format!("{RESPONSES}/compact");
    let answer = post(gateway.address, &compact, KEY, body.to_string()).await;
    assert_eq!((answer.status, answer.json()), (200, compacted));
    let asked = upstream.requests().pop().unwrap();
    assert_eq!(asked.path, "/v1/responses/compact");
    // It is the gateway that knows what was said before.
    assert_order(asked.text(), &["Hi", "Hello there.", "Bye"]);
    let body = json!({"model": TARGETS[2], "input": "Hi"}).to_string();
    let refused = post(gateway.address, &compact, KEY, body).await;
    assert_eq!((refused.status, refused.header("x-switchpoint-error")), (400, Some("unsupported")));
}

/// The doors that count, what each is asked, and the field of its answer.
fn counts(model: &str) -> [(String, Value, &'static str); 3] {
    let text = "How many tokens are these?";
    let input = json!({"model": model, "input": text});
    let messages = json!({"model": model, "messages": [{"role": "user", "content": text}]});
    let contents = json!({"contents": [{"role": "user", "parts": [{"text": text}]}]});
    [
        (format!("{RESPONSES}/input_tokens"), input, "input_tokens"),
        ("/v1/messages/count_tokens".to_owned(), messages, "input_tokens"),
        (format!("/v1beta/models/{model}:countTokens"), contents, "totalTokens"),
    ]
}

/// One provider at home in each of the three APIs.
fn counters(upstream: &Upstream) -> String {
    let google = crate::support::gateway::provider("google", upstream);
    let google = google.replace("openai-compatible", "gemini").replace("/v1\"", "\"");
    format!("{}{google}", sections(upstream))
}

#[tokio::test]
async fn tokens_are_counted_by_a_provider_that_is_at_home_in_the_api() {
    let upstream = Upstream::start([
        ("responses", [whole(&json!({"object": "response.input_tokens", "input_tokens": 1234}))]),
        ("messages", [whole(&json!({"input_tokens": 1234}))]),
        ("google", [whole(&json!({"totalTokens": 1234}))]),
    ])
    .await;
    let gateway = Gateway::start("", &counters(&upstream)).await;
    for (place, model) in ["oai/responses", "claude/messages", "google/google"].iter().enumerate() {
        let (path, body, field) = counts(model)[place].clone();
        let counted = post(gateway.address, &path, KEY, body.to_string()).await;
        assert_eq!((counted.status, &counted.json()[field]), (200, &json!(1234)), "{path}");
    }
    assert_eq!(upstream.requests()[0].path, "/v1/responses/input_tokens");
    // Counted is not used.
    let records = gateway.recorded(3).await;
    assert!(records.iter().all(|record| record["usage_source"] == "none"), "{records:?}");
}

#[tokio::test]
async fn tokens_are_estimated_where_nobody_counts_or_who_counts_fails() {
    let upstream = Upstream::start([("fails", [Script::json(500, "{}")])]).await;
    let gateway = Gateway::start("", &counters(&upstream)).await;
    // Unknown models are answered with 404.
    let models = ["oai", "chat", "claude", "google"]
        .map(|name| [format!("{name}/fails"), format!("{name}/gone")]);
    for (path, body, field) in models.as_flattened().iter().flat_map(|model| counts(model)) {
        let counted = post(gateway.address, &path, KEY, body.to_string()).await;
        let tokens = counted.json()[field].as_u64().unwrap_or_default();
        assert_eq!(counted.status, 200, "{path} {body}: {counted:?}");
        assert!((4..40).contains(&tokens), "{path} {body}: {counted:?}");
    }
}

#[tokio::test]
async fn what_was_said_before_counts_as_well() {
    let (_upstream, gateway) = house().await;
    let long = "word ".repeat(1000);
    let first = created(&gateway, json!({"model": TARGETS[1], "input": long})).await;
    let body = json!({"model": TARGETS[1], "input": "Hi", "previous_response_id": first["id"]});
    let path = format!("{RESPONSES}/input_tokens");
    let counted = post(gateway.address, &path, KEY, body.to_string()).await;
    assert!(counted.json()["input_tokens"].as_u64().unwrap() > 500, "{counted:?}");
}
