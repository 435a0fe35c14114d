//! What guards make of calls that are no chats: they look at them, or these are refused.

use http::Method;
use serde_json::{Value, json};

use super::{PII, WORDS, events, guarded};
use crate::support::client::{open, post, request};
use crate::support::gateway::{KEY, provider};
use crate::support::replies::DONE;
use crate::support::{Gateway, Script, Upstream};

async fn ask(gateway: &Gateway, path: &str, body: &Value) -> crate::support::client::Answer {
    post(gateway.address, path, KEY, body.to_string()).await
}

fn sent(upstream: &Upstream) -> Value {
    let requests = upstream.requests();
    serde_json::from_slice(&requests.last().unwrap().body).unwrap()
}

#[tokio::test]
async fn texts_of_questions_that_are_no_chats_are_masked_and_refused_too() {
    let vectors = r#"{"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.5]}],"model":"a","usage":{"prompt_tokens":1,"total_tokens":1}}"#;
    let upstream = Upstream::answering(move |request| match request.path.as_str() {
        "/v1/embeddings" => Script::json(200, vectors),
        "/v1/audio/speech" => Script::reply(200, &[("content-type", "audio/mpeg")], "sound"),
        _ => Script::json(200, "{\"data\":[],\"results\":[]}"),
    })
    .await;
    let guards = format!("{PII}{}", WORDS.replace("[\"input\", \"output\"]", "[\"input\"]"));
    let gateway = guarded(&upstream, "guards = [\"personal\", \"words\"]", &guards).await;
    let mail = "alice@example.org";
    let calls = [
        (
            "/v1/embeddings",
            "input",
            json!({"model": "fast", "input": [mail, "x"]}),
            json!(["[EMAIL_1]", "x"]),
        ),
        (
            "/v1/audio/speech",
            "input",
            json!({"model": "fast", "input": mail, "voice": "alloy"}),
            json!("[EMAIL_1]"),
        ),
        ("/v1/moderations", "input", json!({"model": "fast", "input": mail}), json!("[EMAIL_1]")),
        (
            "/v1/images/generations",
            "prompt",
            json!({"model": "fast", "prompt": mail}),
            json!("[EMAIL_1]"),
        ),
        (
            "/v1/rerank",
            "documents",
            json!({"model": "fast", "query": "q", "documents": [mail]}),
            json!(["[EMAIL_1]"]),
        ),
    ];
    for (path, field, body, expected) in calls {
        let answer = ask(&gateway, path, &body).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert_eq!(sent(&upstream)[field], expected, "{path}");
        let asked = upstream.requests().len();
        let text = body.to_string().replace(mail, "aurora");
        let refused = post(gateway.address, path, KEY, text).await;
        assert_eq!(refused.status, 403, "{path}: {}", refused.text());
        assert_eq!(upstream.requests().len(), asked);
    }
    let tokens =
        ask(&gateway, "/v1/embeddings", &json!({"model": "fast", "input": [[1, 2]]})).await;
    assert_eq!((tokens.status, &tokens.json()["error"]["code"]), (400, &json!("unsupported")));
}

#[tokio::test]
async fn what_cannot_be_looked_at_is_refused_where_a_guard_would_act_and_noted_where_not() {
    let upstream = Upstream::answering(|_| Script::json(200, "{\"text\":\"hi\"}")).await;
    let gateway = guarded(&upstream, "guards = [\"personal\"]", PII).await;
    let form = "--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nfast\r\n\
        --x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nsound\r\n--x--\r\n";
    let send = async |gateway: &Gateway, path: &str| {
        let mut request = request(Method::POST, path, KEY, form.into());
        let kind = "multipart/form-data; boundary=x".parse().unwrap();
        request.headers_mut().insert("content-type", kind);
        open(gateway.address, request).await.whole().await
    };
    for path in ["/v1/audio/transcriptions", "/v1/images/edits", "/v1/files?provider=up"] {
        let answer = send(&gateway, path).await;
        assert_eq!(
            (answer.status, &answer.json()["error"]["code"]),
            (400, &json!("unsupported")),
            "{path}"
        );
        assert!(answer.text().contains("`personal`"), "{}", answer.text());
    }
    let batch = json!({"input_file_id": "file-1", "endpoint": "/v1/chat/completions"});
    let answer = ask(&gateway, "/v1/batches", &batch).await;
    assert_eq!(answer.json()["error"]["code"], "unsupported", "{}", answer.text());
    assert!(upstream.requests().is_empty());
    let notes = PII.replace("\"mask\"", "\"log\"");
    let gateway = guarded(&upstream, "guards = [\"personal\"]", &notes).await;
    assert_eq!(send(&gateway, "/v1/audio/transcriptions").await.status, 200);
    let record = gateway.record().await;
    assert_eq!(record["guards"][0]["action"], "skipped", "{record}");
    let labels = ["action=\"skipped\""];
    assert!(gateway.metric("switchpoint_guard_total", &labels).await > 0.0);
}

#[tokio::test]
async fn answers_that_cannot_be_read_are_not_asked_for_where_a_guard_would_act() {
    let upstream = Upstream::answering(|_| Script::json(200, "{\"data\":[]}")).await;
    let gateway = guarded(&upstream, "guards = [\"words\"]", WORDS).await;
    let picture = json!({"model": "fast", "prompt": "a cat"});
    let answer = ask(&gateway, "/v1/images/generations", &picture).await;
    assert_eq!(answer.json()["error"]["code"], "unsupported", "{}", answer.text());
    let spoken = json!({"model": "fast", "modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "mp3"},
        "messages": [{"role": "user", "content": "Speak."}]});
    let answer = ask(&gateway, "/v1/chat/completions", &spoken).await;
    assert_eq!(answer.json()["error"]["code"], "unsupported", "{}", answer.text());
    assert!(upstream.requests().is_empty());
}

#[tokio::test]
async fn text_completions_are_guarded_as_chats_are() {
    let completion = |text: &str| {
        json!({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "served",
            "choices": [{"index": 0, "text": text, "logprobs": null, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}})
    };
    let upstream = Upstream::answering(move |request| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let prompt = body["prompt"].as_str().unwrap().to_owned();
        if request.variant != "stream" {
            return Script::json(200, &completion(&prompt).to_string());
        }
        let mut pieces = Vec::new();
        for letter in prompt.chars() {
            let choices = json!([{"index": 0, "text": letter.to_string(), "finish_reason": null}]);
            pieces.push(format!("data: {}\n\n", json!({"id": "cmpl-1", "object": "text_completion", "created": 1, "model": "served", "choices": choices})));
        }
        let choices = json!([{"index": 0, "text": "", "finish_reason": "stop"}]);
        pieces.push(format!("data: {}\n\n", json!({"id": "cmpl-1", "choices": choices})));
        pieces.push(DONE.to_owned());
        Script::stream(pieces)
    })
    .await;
    let words = WORDS.replace("[\"input\", \"output\"]", "[\"output\"]");
    let sections = format!("{}{PII}{words}", provider("up", &upstream));
    let gateway = Gateway::start("guards = [\"personal\", \"words\"]", &sections).await;
    for stream in [false, true] {
        let body = json!({"model": "up/a", "prompt": "To alice@example.org.", "stream": stream});
        let answer = ask(&gateway, "/v1/completions", &body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let text: String = if stream {
            let events = events(&answer);
            events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect()
        } else {
            answer.json()["choices"][0]["text"].as_str().unwrap().to_owned()
        };
        assert_eq!(text, "To alice@example.org.");
        assert_eq!(sent(&upstream)["prompt"], "To [EMAIL_1].");
        let body = json!({"model": "up/a", "prompt": "Say: aurora borealis", "stream": stream});
        let answer = ask(&gateway, "/v1/completions", &body).await;
        if stream {
            assert!(answer.text().contains("\"content_filter\""), "{}", answer.text());
            assert!(!answer.text().contains("borealis"), "{}", answer.text());
        } else {
            assert_eq!(answer.status, 403, "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_key_that_names_a_guard_which_is_gone_is_refused() {
    let upstream = super::parrot(3).await;
    let sections = format!("{}{WORDS}", provider("up", &upstream));
    let gateway = Gateway::start("", &sections).await;
    let admin = crate::support::gateway::ADMIN_KEY;
    let made = json!({"guards": ["words"]}).to_string();
    let made = post(gateway.admin, "/admin/keys", admin, made).await;
    let secret =
        made.json()["secret"].as_str().unwrap_or_else(|| panic!("{}", made.text())).to_owned();
    let body =
        json!({"model": "up/a", "messages": [{"role": "user", "content": "Hi"}]}).to_string();
    let path = crate::support::client::CHAT;
    assert_eq!(post(gateway.address, path, &secret, body.clone()).await.status, 200);
    assert_eq!(gateway.reload(&provider("up", &upstream)).await.status, 200);
    let answer = post(gateway.address, path, &secret, body.clone()).await;
    assert_eq!(answer.status, 403, "{}", answer.text());
    assert_eq!(post(gateway.address, path, KEY, body).await.status, 200);
}
