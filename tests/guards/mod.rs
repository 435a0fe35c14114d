//! Guards hold for every call: whatever the door, streamed or not, however the stream was cut.

mod asking;
mod ends;
mod injection;
mod masks;
mod streams;
mod surfaces;

use serde_json::{Value, json};

use crate::support::client::{Answer, post};
use crate::support::gateway::{KEY, provider};
use crate::support::replies::{DONE, finish, role, usage, word};
use crate::support::upstream::Request;
use crate::support::{Gateway, Script, Upstream};

/// A door by which chats come in.
pub(super) struct Door {
    pub(super) name: &'static str,
    paths: [&'static str; 2],
    pub(super) body: fn(&str) -> Value,
    /// Where texts of an answer stand, whole and in the events of a stream.
    texts: [&'static str; 2],
    /// How an answer says that a filter has ended it.
    pub(super) filtered: &'static str,
}

pub(super) const DOORS: [Door; 4] = [
    Door {
        name: "chat",
        paths: ["/v1/chat/completions"; 2],
        body: |text| json!({"model": "fast", "messages": [{"role": "user", "content": text}]}),
        texts: ["/choices/0/message/content", "/choices/0/delta/content"],
        filtered: "\"content_filter\"",
    },
    Door {
        name: "messages",
        paths: ["/v1/messages"; 2],
        body: |text| {
            let messages = json!([{"role": "user", "content": text}]);
            json!({"model": "fast", "max_tokens": 100, "messages": messages})
        },
        texts: ["/content/0/text", "/delta/text"],
        filtered: "\"refusal\"",
    },
    Door {
        name: "responses",
        paths: ["/v1/responses"; 2],
        body: |text| json!({"model": "fast", "input": text}),
        texts: ["/output/0/content/0/text", "/delta"],
        filtered: "\"content_filter\"",
    },
    Door {
        name: "gemini",
        paths: [
            "/v1beta/models/fast:generateContent",
            "/v1beta/models/fast:streamGenerateContent?alt=sse",
        ],
        body: |text| json!({"contents": [{"role": "user", "parts": [{"text": text}]}]}),
        texts: ["/candidates/0/content/parts/0/text"; 2],
        filtered: "\"SAFETY\"",
    },
];

/// Each door, whole and streamed.
pub(super) fn ways_in() -> impl Iterator<Item = (&'static Door, bool)> {
    static ALL: [Door; 4] = DOORS;
    ALL.iter().flat_map(|door| [(door, false), (door, true)])
}

// === impl Door ===

impl Door {
    pub(super) async fn ask(&self, gateway: &Gateway, text: &str, stream: bool) -> Answer {
        let mut body = (self.body)(text);
        if stream && self.name != "gemini" {
            body["stream"] = json!(true);
        }
        let path = self.paths[usize::from(stream)];
        post(gateway.address, path, KEY, body.to_string()).await
    }

    /// What an answer says.
    pub(super) fn text(&self, answer: &Answer, stream: bool) -> String {
        let place = self.texts[usize::from(stream)];
        if !stream {
            return answer.json().pointer(place).and_then(Value::as_str).unwrap_or_default().into();
        }
        let events = events(answer);
        let texts = events.iter().filter_map(|event| event.pointer(place)?.as_str());
        texts.collect()
    }
}

/// The data of a stream's events.
pub(super) fn events(answer: &Answer) -> Vec<Value> {
    let data = answer.text().lines().filter_map(|line| line.strip_prefix("data: "));
    data.filter_map(|data| serde_json::from_str(data).ok()).collect()
}

/// What a question says last.
pub(super) fn said(request: &Request) -> String {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let last = body["messages"].as_array().and_then(|messages| messages.last()).cloned();
    let content = last.unwrap_or_default()["content"].clone();
    match content {
        Value::String(text) => text,
        parts => parts[0]["text"].as_str().unwrap_or_default().to_owned(),
    }
}

/// A chat completion with this text, as it was asked for: a stream in pieces of so many characters.
pub(super) fn speak(text: &str, stream: bool, piece: usize) -> Script {
    if !stream {
        let message = json!({"role": "assistant", "content": text});
        let body = json!({
            "id": "chatcmpl-1", "object": "chat.completion", "created": 1_760_000_000,
            "model": "served",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15},
        });
        return Script::json(200, &body.to_string());
    }
    let letters: Vec<char> = text.chars().collect();
    let words = letters.chunks(piece).map(|piece| word(&piece.iter().collect::<String>()));
    let words: Vec<String> = words.collect();
    Script::stream([vec![role()], words, vec![finish(), usage(), DONE.to_owned()]].concat())
}

/// An upstream that says what `answer` makes of what it was told, in pieces of so many characters.
pub(super) async fn upstream(
    piece: usize,
    answer: impl Fn(&str) -> String + Send + 'static,
) -> Upstream {
    Upstream::answering(move |request| {
        speak(&answer(&said(request)), request.variant == "stream", piece)
    })
    .await
}

pub(super) async fn parrot(piece: usize) -> Upstream {
    upstream(piece, str::to_owned).await
}

/// A gateway whose route `fast` leads to this upstream; these lines stand in `[server]`.
pub(super) async fn guarded(upstream: &Upstream, server: &str, guards: &str) -> Gateway {
    let fast = "[routes.fast]\ntargets = [\"up/a\"]\n";
    Gateway::start(server, &format!("{}{fast}{guards}", provider("up", upstream))).await
}

pub(super) const PII: &str = "[guards.personal]\nkind = \"pii\"\nstage = [\"input\", \
    \"tool_results\"]\naction = \"mask\"\n";
pub(super) const WORDS: &str = "[guards.words]\nkind = \"pattern\"\nwords = [\"aurora\"]\n\
    stage = [\"input\", \"output\"]\naction = \"block\"\n";
