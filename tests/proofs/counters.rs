//! The same usage moves the same counter by the same amount, whatever door and API it comes by.

use bytes::Bytes;
use http::{HeaderValue, Method};
use serde_json::{Value, json};
use switchpoint::canon::{Relay, Surface};
use switchpoint::http::{PublicDoor, public_doors};

use super::apis::Api;
use super::{budget, key, settled};
use crate::support::client::{self, Answer};
use crate::support::gateway::{Gateway, provider};
use crate::support::upstream::Request;
use crate::support::{Fleet, Script, Upstream, Vendor};

const BUDGET: &str = "budget = [{ tokens = 1_000_000, window = \"none\" }]";
/// Tokens of every question, and of its answer.
const USED: (u64, u64) = (11, 4);
const FORM: &str = "--b1\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nup/m\r\n\
    --b1\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nbatch\r\n\
    --b1\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n\
    {\"body\":{\"model\":\"m\"}}\n\r\n--b1--\r\n";

/// A model of each vendor, and what it says that each answer has used.
const MODELS: [(Vendor, &str, u64); 10] = [
    (Vendor::OpenAi, "gpt-5-mini", 195),
    (Vendor::Azure, "gpt-5-mini", 195),
    (Vendor::Mistral, "magistral-medium-latest", 195),
    (Vendor::DeepSeek, "deepseek-chat", 195),
    (Vendor::OpenRouter, "anthropic/claude-sonnet-4.5", 195),
    (Vendor::Anthropic, "claude-sonnet-4-6", 202),
    (Vendor::Gemini, "gemini-3-pro-preview", 195),
    (Vendor::Vertex, "gemini-2.5-pro", 195),
    (Vendor::Bedrock, "us.anthropic.claude-sonnet-4-6", 202),
    (Vendor::Cohere, "command-a-reasoning-08-2025", 195),
];

async fn used(gateway: &Gateway) -> u64 {
    settled(gateway, "ci").await["used"].as_u64().unwrap()
}

/// What the counter moves by when a vendor is asked through an API.
async fn moved(
    gateway: &Gateway,
    vendor: Vendor,
    model: &str,
    client: Api,
    stream: bool,
    calls: usize,
) -> u64 {
    let before = used(gateway).await;
    let model = format!("{}/{model}", vendor.name());
    let (path, mut body) = client.question(&model, "Hello.", stream);
    // Not every model takes what bounds its answer by this name.
    let bound = body.as_object_mut().unwrap().shift_remove("max_tokens");
    if client == Api::Messages {
        body["max_tokens"] = bound.unwrap();
    }
    let answer = client::post(gateway.address, &path, "sk-ci", body.to_string()).await;
    assert_eq!(answer.status, 200, "{path} {model}: {}", answer.text());
    gateway.recorded(calls).await;
    used(gateway).await - before
}

#[tokio::test]
async fn every_vendors_word_counts_the_same_through_every_api_streamed_or_not() {
    let fleet = Fleet::start().await;
    let gateway = fleet.gateway(&key("ci", BUDGET)).await;
    let ways = Api::ALL.into_iter().flat_map(|client| [(client, false), (client, true)]);
    let mut calls = 0;
    for (vendor, model, expected) in MODELS {
        for (client, stream) in ways.clone() {
            calls += 1;
            let moved = moved(&gateway, vendor, model, client, stream, calls).await;
            // OpenRouter tells in this API alone what was written to a cache.
            let written = vendor == Vendor::OpenRouter && client == Api::Messages;
            let expected = expected + 7 * u64::from(written);
            assert_eq!(moved, expected, "{client:?} {model} {stream}");
        }
    }
}

/// What a door has used when it was asked: the counter moves by this.
fn expected(door: &PublicDoor) -> u64 {
    let Some(surface) = door.surface else { return 0 };
    match surface {
        Surface::Chat
        | Surface::Completions
        | Surface::Embeddings
        | Surface::GoogleEmbeddings
        | Surface::Responses
        | Surface::Messages
        | Surface::Generate
        | Surface::GenerateArray
        | Surface::Images
        | Surface::Speech
        | Surface::Transcriptions
        | Surface::Moderations
        | Surface::Rerank
        | Surface::Compact
        | Surface::Turn
        | Surface::Run => USED.0 + USED.1,
        // What was only counted, or only kept, has not been used.
        Surface::CountTokens
        | Surface::GoogleCountTokens
        | Surface::InputTokens
        | Surface::Files
        | Surface::Tool
        | Surface::Explain => 0,
        // Counted when its end is seen.
        Surface::Batches => (USED.0 + USED.1) * u64::from(door.relay == Some(Relay::Batch)),
    }
}

/// Answers whatever is asked, each in its own form and with the same usage.
fn answer(request: &Request) -> Script {
    let sum = USED.0 + USED.1;
    let usage = json!({"input_tokens": USED.0, "output_tokens": USED.1, "total_tokens": sum});
    let stream = request.variant == "stream";
    let chat = json!({"prompt_tokens": USED.0, "completion_tokens": USED.1, "total_tokens": sum});
    let body = match request.path.as_str() {
        "/v1/chat/completions" if stream => return Api::Chat.stream(USED),
        "/v1/chat/completions" => return Api::Chat.whole(USED),
        "/v1/responses" if stream => return Api::Responses.stream(USED),
        "/v1/responses" => return Api::Responses.whole(USED),
        "/v1/responses/input_tokens" => json!({"input_tokens": sum}),
        "/v1/completions" => {
            let body = json!({"id": "c", "object": "text_completion", "created": 1, "model": "m",
                "choices": [{"index": 0, "text": "a", "finish_reason": "stop"}], "usage": chat});
            let event = format!("data: {body}\n\ndata: [DONE]\n\n");
            return if stream { Script::stream([event]) } else { json_script(&body) };
        }
        "/v1/embeddings" => json!({"object": "list", "data": [{"index": 0, "embedding": [0.5]}],
            "usage": {"prompt_tokens": sum, "total_tokens": sum}}),
        "/v1/files" => json!({"id": "file-1", "object": "file"}),
        "/v1/batches" => json!({"id": "batch_1", "object": "batch", "status": "in_progress"}),
        "/v1/batches/batch_1" => json!({"id": "batch_1", "status": "completed", "model": "m",
            "usage": usage}),
        _ => json!({"id": "x", "object": "y", "data": [], "output": [], "text": "hello",
            "results": [], "usage": usage}),
    };
    json_script(&body)
}

fn json_script(body: &Value) -> Script {
    Script::json(200, &body.to_string())
}

/// What a door is asked; a new path needs a line here.
fn question(door: &PublicDoor) -> Value {
    let said = json!([{"role": "user", "content": "Hi"}]);
    match door.surface {
        Some(Surface::Chat | Surface::Messages | Surface::CountTokens) => {
            json!({"model": "up/m", "max_tokens": 20, "messages": said})
        }
        Some(Surface::Completions) => json!({"model": "up/m", "max_tokens": 20, "prompt": "Hi"}),
        Some(Surface::Responses | Surface::Compact | Surface::InputTokens) => {
            json!({"model": "oai/m", "input": "Hi"})
        }
        Some(Surface::Generate | Surface::GenerateArray | Surface::GoogleCountTokens) => {
            json!({"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]})
        }
        Some(Surface::GoogleEmbeddings) => {
            json!({"requests": [{"content": {"parts": [{"text": "Hi"}]}}]})
        }
        Some(Surface::Embeddings | Surface::Speech | Surface::Moderations) => {
            json!({"model": "up/m", "input": "Hi"})
        }
        Some(Surface::Images | Surface::Transcriptions) => json!({"model": "up/m", "prompt": "Hi"}),
        Some(Surface::Rerank) => json!({"model": "up/m", "query": "Hi", "documents": ["a"]}),
        Some(Surface::Files) => json!({}),
        Some(Surface::Batches) => json!({"input_file_id": "file-1"}),
        Some(Surface::Explain | Surface::Turn | Surface::Run | Surface::Tool) | None => {
            json!({"model": "up/m", "messages": said})
        }
    }
}

/// Doors that take a form, and not JSON.
fn takes_form(relay: Option<Relay>) -> bool {
    matches!(
        relay,
        Some(
            Relay::ImageEdit
                | Relay::ImageVariation
                | Relay::Transcription
                | Relay::Translation
                | Relay::UploadFile
        )
    )
}

fn path(door: &PublicDoor) -> String {
    let id = match door.relay {
        Some(relay) if relay.surface() == Surface::Batches => "batch_1",
        _ => "file-1",
    };
    let path = door.path.replace("{id}", id).replace("{model}", "up/m");
    if door.relay == Some(Relay::UploadFile) { format!("{path}?provider=up") } else { path }
}

async fn ask(gateway: &Gateway, door: &PublicDoor, stream: bool) -> Answer {
    let method: Method = door.method.parse().unwrap();
    let form = takes_form(door.relay);
    let mut body = question(door);
    if stream {
        body["stream"] = json!(true);
    }
    let body = match (method.as_str(), form) {
        ("POST", false) => Bytes::from(body.to_string()),
        ("POST", true) => Bytes::from_static(FORM.as_bytes()),
        _ => Bytes::new(),
    };
    let mut request = client::request(method, &path(door), "sk-ci", body);
    if form {
        let kind = HeaderValue::from_static("multipart/form-data; boundary=b1");
        request.headers_mut().insert("content-type", kind);
    }
    client::open(gateway.address, request).await.whole().await
}

#[tokio::test]
async fn no_door_to_a_provider_is_without_a_meter() {
    let upstream = Upstream::answering(answer).await;
    let oai = provider("oai", &upstream).replace("openai-compatible", "openai");
    let sections = [provider("up", &upstream), oai, key("ci", BUDGET)].concat();
    let gateway = Gateway::start("", &sections).await;
    let mut doors = public_doors();
    // A file before the batch that is made of it, and what deletes or ends things last.
    let late = [Relay::DeleteFile, Relay::CancelBatch].map(Some);
    let turn = |door: &PublicDoor| match door.relay {
        Some(Relay::UploadFile) => 0,
        Some(Relay::CreateBatch) => 1,
        relay if late.contains(&relay) => 3,
        _ => 2,
    };
    doors.sort_by_key(turn);
    let mut calls = 0;
    // Doors that lead to no provider are asked too, and move nothing.
    for door in &doors {
        let streams = door.surface.is_some_and(|it| it.is_chat() || it == Surface::Completions);
        let named = door.path.contains("{model}");
        let ways: &[bool] = if streams && !named { &[false, true] } else { &[false] };
        for &stream in ways {
            let before = budget(&gateway, "ci").await["used"].as_u64().unwrap();
            let answer = ask(&gateway, door, stream).await;
            let asks = door.surface.is_some();
            assert!(!asks || answer.status == 200, "{door:?}: {:?}", answer.body);
            calls += usize::from(asks);
            gateway.recorded(calls).await;
            let moved = used(&gateway).await - before;
            assert_eq!(moved, expected(door), "{door:?} {stream}");
        }
    }
}

#[tokio::test]
async fn a_door_whose_provider_tells_no_usage_is_metered_by_estimate() {
    let untold = json!({"id": "x", "object": "y", "results": [], "text": "hello",
        "choices": [{"index": 0, "text": "a", "finish_reason": "stop"}],
        "data": [{"index": 0, "embedding": [0.5]}]});
    let upstream = Upstream::answering(move |_| json_script(&untold)).await;
    let gateway = Gateway::before(&upstream, &key("ci", BUDGET)).await;
    let mut calls = 0;
    for door in public_doors() {
        let relayed = door.relay.is_some_and(Relay::has_model);
        let plain = [Surface::Embeddings, Surface::GoogleEmbeddings, Surface::Completions];
        if !relayed && !door.surface.is_some_and(|it| plain.contains(&it)) {
            continue;
        }
        let before = budget(&gateway, "ci").await["used"].as_u64().unwrap();
        assert_eq!(ask(&gateway, &door, false).await.status, 200, "{door:?}");
        calls += 1;
        let records = gateway.recorded(calls).await;
        assert_eq!(records[calls - 1]["usage_source"], "estimated", "{door:?}");
        assert!(used(&gateway).await > before, "{door:?}");
    }
    assert!(calls > 8, "{calls}");
}
