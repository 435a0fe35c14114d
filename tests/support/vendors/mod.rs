//! Scripted vendors: each speaks one provider's API as strictly as it is documented, over real
//! sockets, with the same small model behind it.

mod chat;
mod cohere;
mod converse;
mod fleet;
mod gemini;
mod messages;
mod model;
mod responses;
mod shape;

use serde_json::Value;

pub(crate) use self::fleet::Fleet;
use self::shape::{Fault, Wrong};
use super::upstream::Request;
use super::{Script, Upstream};

/// Whose API is spoken, with what distinguishes it from others of its dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Vendor {
    OpenAi,
    Azure,
    Mistral,
    DeepSeek,
    OpenRouter,
    Anthropic,
    Gemini,
    /// Gemini and Claude by Google's paths.
    Vertex,
    Bedrock,
    Cohere,
}

/// What a vendor answers.
enum Answer {
    Whole(Value),
    /// Media type and the bytes of each event.
    Stream(&'static str, Vec<Vec<u8>>),
}

/// Why a vendor refuses, in what all have in common.
#[derive(Debug)]
struct Refusal {
    status: u16,
    message: String,
    /// The field, where the vendor names it apart.
    param: Option<String>,
    code: Option<&'static str>,
}

const EVENT_STREAM: &str = "text/event-stream; charset=utf-8";

// === impl Vendor ===

impl Vendor {
    pub(crate) const ALL: [Self; 10] = [
        Self::OpenAi,
        Self::Azure,
        Self::Mistral,
        Self::DeepSeek,
        Self::OpenRouter,
        Self::Anthropic,
        Self::Gemini,
        Self::Vertex,
        Self::Bedrock,
        Self::Cohere,
    ];

    /// Also the kind of provider in a config.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Azure => "azure",
            Self::Mistral => "mistral",
            Self::DeepSeek => "deepseek",
            Self::OpenRouter => "openrouter",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Vertex => "vertex",
            Self::Bedrock => "bedrock",
            Self::Cohere => "cohere",
        }
    }

    pub(crate) async fn start(self) -> Upstream {
        Upstream::answering(move |request| self.serve(request)).await
    }

    fn serve(self, request: &Request) -> Script {
        let path = request.path.split('?').next().unwrap_or_default();
        let Some(body) = serde_json::from_slice(&request.body).ok().filter(Value::is_object) else {
            return match (self, path) {
                // Google's metadata server, which hands out tokens to machines of its own.
                (Self::Vertex, _) if path.ends_with("/token") => Script::json(200, TOKEN),
                _ => {
                    self.refuse(&Refusal::new(400, "We could not parse the body of your request."))
                }
            };
        };
        let answer = match self {
            Self::OpenRouter if path.ends_with("/messages") => {
                messages::answer(self, request, &body)
            }
            Self::OpenAi | Self::Azure | Self::OpenRouter if path.ends_with("/responses") => {
                responses::answer(request, &body)
            }
            Self::OpenAi | Self::Azure | Self::Mistral | Self::DeepSeek | Self::OpenRouter => {
                chat::answer(self, request, &body)
            }
            Self::Anthropic => messages::answer(self, request, &body),
            Self::Vertex if path.contains("/publishers/anthropic/") => {
                messages::answer(self, request, &body)
            }
            Self::Gemini | Self::Vertex => gemini::answer(self, request, &body),
            Self::Bedrock => converse::answer(request, &body),
            Self::Cohere => cohere::answer(request, &body),
        };
        match answer {
            Ok(Answer::Whole(value)) => Script::json(200, &value.to_string()),
            Ok(Answer::Stream(kind, events)) => stream(kind, &events.concat()),
            Err(refusal) => self.refuse_at(path, &refusal),
        }
    }

    fn refuse_at(self, path: &str, refusal: &Refusal) -> Script {
        if path.contains("/publishers/anthropic/") || path.ends_with("/messages") {
            return Self::Anthropic.refuse(refusal);
        }
        self.refuse(refusal)
    }

    fn refuse(self, refusal: &Refusal) -> Script {
        let body = match self {
            Self::Anthropic => messages::refusal(refusal),
            Self::Gemini | Self::Vertex => gemini::refusal(refusal),
            Self::Bedrock | Self::Cohere => serde_json::json!({"message": refusal.message}),
            Self::Mistral => chat::mistral_refusal(refusal),
            _ => chat::refusal(refusal),
        };
        let kind =
            [("content-type", "application/json"), ("x-amzn-errortype", "ValidationException")];
        let headers = if self == Self::Bedrock { &kind[..] } else { &kind[..1] };
        Script::reply(refusal.status, headers, body.to_string())
    }
}

const TOKEN: &str = r#"{"access_token":"ya29.scripted","expires_in":3599,"token_type":"Bearer"}"#;

/// Small pieces that respect neither events nor characters, as networks do.
fn stream(kind: &str, bytes: &[u8]) -> Script {
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nx-request-id: req_scripted\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    let (mut pieces, mut rest) = (Vec::new(), bytes);
    for size in [5, 61, 23, 190, 97].into_iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(size.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    Script::raw(head).chunks(pieces).end()
}

// === impl Answer ===

impl Answer {
    /// Server-sent events of one JSON each.
    fn events<'a>(events: impl IntoIterator<Item = &'a Value>) -> Self {
        let bytes = events.into_iter().map(|event| format!("data: {event}\n\n").into_bytes());
        Self::Stream(EVENT_STREAM, bytes.collect())
    }

    /// The same, with the name of each from its `type`.
    fn named<'a>(events: impl IntoIterator<Item = &'a Value>) -> Self {
        let bytes = events.into_iter().map(|event| {
            format!("event: {}\ndata: {event}\n\n", shape::text(event, "type")).into_bytes()
        });
        Self::Stream(EVENT_STREAM, bytes.collect())
    }
}

// === impl Refusal ===

impl Refusal {
    fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: None }
    }

    fn of(param: &str, message: impl Into<String>) -> Self {
        Self { param: Some(param.to_owned()), ..Self::new(400, message) }
    }
}

/// Refused with 400 unless it holds.
fn demand(holds: bool, message: impl Into<String>) -> Result<(), Refusal> {
    if holds { Ok(()) } else { Err(Refusal::new(400, message)) }
}

/// Names and numbers of faults, as pydantic spells them (Anthropic, Mistral, Cohere).
fn pydantic(fault: &Fault) -> Refusal {
    let what = match fault.wrong {
        Wrong::Unknown => "Extra inputs are not permitted".to_owned(),
        Wrong::Missing => "Field required".to_owned(),
        Wrong::Type(types) => format!("Input should be a valid {}", types.replace('|', " or ")),
    };
    Refusal::of(&fault.path, format!("{}: {what}", fault.path))
}
