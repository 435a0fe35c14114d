//! Stands in for every provider while calls are played: a server on loopback that answers as the
//! record says, and otherwise well.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::net::{TcpListener, TcpStream};

use super::kept::Kept;
use crate::canon::{Outcome, Usage};
use crate::net::tasks::Tasks;

/// For a target that sent no status, because it was slow or could not be reached, what a gateway in
/// front of it would have said.
const SLOW: u16 = 504;
const UNREACHABLE: u16 = 502;
/// A vector for whoever asks for one.
const VECTOR: [f32; 4] = [1.0, 0.0, 0.0, 0.0];

/// The server, and what it answers now.
#[derive(Debug)]
pub(super) struct StandIn {
    pub(super) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    _tasks: Tasks,
}

/// What one call's targets answer.
#[derive(Debug, Default)]
struct Script {
    /// Statuses by provider and model, each for one request; the last one for all that follow.
    statuses: BTreeMap<(String, String), Vec<u16>>,
    usage: Usage,
    text: String,
}

// === impl StandIn ===

impl StandIn {
    pub(super) async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let script = Arc::<Mutex<Script>>::default();
        let tasks = Tasks::default();
        tasks.spawn(accept(listener, Arc::clone(&script), tasks.clone()));
        Ok(Self { address, script, _tasks: tasks })
    }

    /// The targets of this call are asked next.
    pub(super) fn recite(&self, kept: &Kept, text: String) {
        let mut statuses: BTreeMap<(String, String), Vec<u16>> = BTreeMap::new();
        for attempt in &kept.attempts {
            let target = (attempt.provider.clone(), attempt.model.clone());
            let status = match (attempt.outcome, attempt.status) {
                // Who answered then answers now, whatever became of its answer.
                (Outcome::Ok | Outcome::ClientClosed, _) | (_, 200) => 200,
                (Outcome::Timeout, 0) => SLOW,
                (_, 0) => UNREACHABLE,
                (_, status) => status,
            };
            statuses.entry(target).or_default().push(status);
        }
        let mut script = self.script.lock().unwrap_or_else(PoisonError::into_inner);
        *script = Script { statuses, usage: kept.usage, text };
    }
}

async fn accept(listener: TcpListener, script: Arc<Mutex<Script>>, tasks: Tasks) {
    while let Ok((stream, _)) = listener.accept().await {
        tasks.spawn(serve(stream, Arc::clone(&script)));
    }
}

async fn serve(stream: TcpStream, script: Arc<Mutex<Script>>) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let script = Arc::clone(&script);
        async move { Ok::<_, Infallible>(answer(request, &script).await) }
    });
    // Whoever breaks off does so on purpose.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
}

async fn answer(request: Request<Incoming>, script: &Mutex<Script>) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let asked = serde_json::from_slice::<Json>(&body.unwrap_or_default()).unwrap_or_default();
    let provider = path.trim_start_matches('/').split('/').next().unwrap_or_default().to_owned();
    let model = asked["model"].as_str().unwrap_or_default().to_owned();
    let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
    let status = match script.statuses.get_mut(&(provider, model.clone())) {
        Some(left) if left.len() > 1 => left.remove(0),
        Some(left) => left.first().copied().unwrap_or(200),
        None => 200,
    };
    let (kind, text) = if status >= 400 {
        let message = "As recorded.";
        ("application/json", json!({"error": {"message": message, "type": "recorded"}}).to_string())
    } else if path.ends_with("/embeddings") {
        ("application/json", vectors(&asked, &script))
    } else if asked["stream"] == true {
        ("text/event-stream", stream(&path, &model, &script))
    } else {
        ("application/json", whole(&path, &model, &script))
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() =
        http::StatusCode::from_u16(status).unwrap_or(http::StatusCode::BAD_GATEWAY);
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

fn usage(usage: &Usage) -> Json {
    json!({
        "prompt_tokens": usage.input_total(),
        "completion_tokens": usage.output,
        "total_tokens": usage.total(),
        "prompt_tokens_details": {"cached_tokens": usage.cache_read},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    })
}

fn whole(path: &str, model: &str, script: &Script) -> String {
    let is_chat = path.ends_with("/chat/completions");
    let choice = if is_chat {
        json!({"index": 0, "finish_reason": "stop",
            "message": {"role": "assistant", "content": script.text}})
    } else {
        json!({"index": 0, "finish_reason": "stop", "text": script.text})
    };
    let object = if is_chat { "chat.completion" } else { "text_completion" };
    json!({"id": "recorded", "object": object, "created": 0, "model": model,
        "choices": [choice], "usage": usage(&script.usage)})
    .to_string()
}

fn stream(path: &str, model: &str, script: &Script) -> String {
    let is_chat = path.ends_with("/chat/completions");
    let event = |choices: Json, usage: Json| {
        let object = if is_chat { "chat.completion.chunk" } else { "text_completion" };
        let event = json!({"id": "recorded", "object": object, "created": 0, "model": model,
            "choices": choices, "usage": usage});
        format!("data: {event}\n\n")
    };
    let said = if is_chat {
        json!([{"index": 0, "delta": {"role": "assistant", "content": script.text}}])
    } else {
        json!([{"index": 0, "text": script.text}])
    };
    let end = if is_chat {
        json!([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    } else {
        json!([{"index": 0, "text": "", "finish_reason": "stop"}])
    };
    [
        event(said, Json::Null),
        event(end, Json::Null),
        event(json!([]), usage(&script.usage)),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat()
}

fn vectors(asked: &Json, script: &Script) -> String {
    let count = asked["input"].as_array().map_or(1, Vec::len);
    let one = |index: usize| json!({"object": "embedding", "index": index, "embedding": VECTOR});
    let data: Vec<Json> = (0..count).map(one).collect();
    let tokens = script.usage.input_total();
    json!({"object": "list", "data": data, "model": asked["model"],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens}})
    .to_string()
}
