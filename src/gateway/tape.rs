//! What was asked and answered, kept for a call's trace where the config wants that: as messages in
//! the words of OpenTelemetry's conventions, or their digest.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::arrival::Question;
use super::call::Call;
use super::reword;
use crate::canon::{Content, Message, Part, Role, Shown, Surface};
use crate::config::Capture;
use crate::dialect;
use crate::dialect::splice::Payload;
use crate::guard::Redactor;

/// So many bytes of one text are shown, so many of the last messages, and so much of an answer is
/// looked at.
const LONGEST_TEXT: usize = 16 * 1024;
const MOST_MESSAGES: usize = 64;
const LONGEST_ANSWER: usize = 1024 * 1024;

/// One call's question and answer, as its client sent and got them.
#[derive(Debug)]
pub(super) struct Tape {
    capture: Capture,
    question: Said,
    answer: Vec<u8>,
    /// The answer is a stream of events.
    streamed: bool,
}

/// A question, as far as it may be shown.
#[derive(Debug)]
enum Said {
    /// As it was read, and perhaps changed by guards.
    Told(String),
    /// Nobody has read it, and nobody was to.
    Raw(Payload),
    Hidden,
}

impl Call {
    /// Keeps the question, if it is to be shown.
    pub(super) fn tapes_question(&mut self, question: &Question) {
        self.traces_question(question);
        let traces = self.gateway.telemetry.traces.as_ref();
        let capture = traces.map_or(Capture::None, |traces| traces.capture());
        let is_form = question.relayed.as_ref().is_some_and(|relayed| !relayed.is_json());
        if capture != Capture::None && !is_form && !self.is_only_explained() {
            let said = match question.chat() {
                Ok(asked) => Said::Told(messages(&asked.request.messages)),
                Err(_) if self.guarding.is_none() => Said::Raw(question.payload.clone()),
                Err(_) => Said::Hidden,
            };
            self.tape = Some(Box::new(Tape {
                capture,
                question: said,
                answer: Vec::new(),
                streamed: question.envelope.stream,
            }));
        }
    }

    /// Keeps what the client is being given.
    pub(super) fn tapes(&mut self, bytes: &Bytes) {
        if self.surface().is_chat() {
            self.traces_answer(|| name_in(bytes));
        }
        if let Some(tape) = &mut self.tape
            && tape.answer.len() + bytes.len() <= LONGEST_ANSWER
        {
            tape.answer.extend_from_slice(bytes);
        }
    }

    /// Puts what was kept into the record.
    pub(super) fn shows(&mut self) {
        let Some(tape) = self.tape.take() else { return };
        let question = tape.question(self.surface());
        let answer = tape.answer(self.surface());
        let guarding = self.guarding.as_ref();
        let redactor = Redactor::default();
        let told = |messages: Option<String>| {
            let messages = messages?;
            // What a guard has masked for its target is not shown either.
            let concealed = guarding.map(|guards| guards.conceal(&messages));
            let messages = concealed.unwrap_or(messages);
            Some(match tape.capture {
                Capture::Full => messages,
                Capture::Redacted => redactor.redact(&messages),
                Capture::Hashes | Capture::None => digest(&messages),
            })
        };
        self.record.shown = Some(Box::new(Shown {
            in_full: matches!(tape.capture, Capture::Full | Capture::Redacted),
            question: told(question),
            answer: told(answer),
        }));
    }
}

/// By what an answer, or a piece of one, names itself, in any API's words.
#[derive(Deserialize)]
struct Named {
    id: Option<String>,
    #[serde(rename = "responseId")]
    response_id: Option<String>,
    message: Option<Box<Named>>,
    response: Option<Box<Named>>,
}

fn name_in(bytes: &[u8]) -> Option<String> {
    let named = |json: &[u8]| serde_json::from_slice::<Named>(json).ok()?.name();
    if bytes.starts_with(b"{") {
        return named(bytes);
    }
    bytes.split(|byte| *byte == b'\n').find_map(|line| named(line.strip_prefix(b"data:")?))
}

// === impl Named ===

impl Named {
    fn name(self) -> Option<String> {
        let inner = || self.message.or(self.response).and_then(|inner| inner.name());
        self.id.or(self.response_id).or_else(inner)
    }
}

// === impl Tape ===

impl Tape {
    fn question(&self, surface: Surface) -> Option<String> {
        let body = match &self.question {
            Said::Told(messages) => return Some(messages.clone()),
            Said::Raw(payload) => payload.to_bytes(),
            Said::Hidden => return None,
        };
        if surface.dialect().is_none() {
            let text = std::str::from_utf8(&body).ok()?;
            return surface.reads_text().then(|| beginning(text).to_owned());
        }
        let request = dialect::client(surface).read_request(&body).ok()?;
        Some(messages(&request.messages))
    }

    fn answer(&self, surface: Surface) -> Option<String> {
        if !surface.is_chat() {
            return None;
        }
        // What a client is given is what a provider of its dialect would say.
        let spoken = dialect::upstream(surface.dialect()?);
        let response = if self.streamed {
            reword::gather(spoken, &self.answer).ok()?
        } else {
            spoken.read_response(&self.answer).ok()?
        };
        let choices = response.choices.iter().map(|choice| {
            let mut said = message(&Message {
                role: Role::Assistant,
                parts: choice.parts.clone(),
                name: None,
            });
            said["finish_reason"] = json!(choice.finish.reason.traced_as());
            said
        });
        Some(json!(choices.collect::<Vec<_>>()).to_string())
    }
}

/// The last of them.
fn messages(all: &[Message]) -> String {
    let first = all.len().saturating_sub(MOST_MESSAGES);
    json!(all[first..].iter().map(message).collect::<Vec<_>>()).to_string()
}

/// One message by the schema of the conventions.
fn message(message: &Message) -> Value {
    let role = match message.role {
        Role::System | Role::Developer => "system",
        Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    json!({ "role": role, "parts": message.parts.iter().map(part).collect::<Vec<_>>() })
}

fn part(part: &Part) -> Value {
    match &part.content {
        Content::Text { text, .. } | Content::Refusal(text) => {
            json!({"type": "text", "content": beginning(text)})
        }
        Content::Reasoning(reasoning) => {
            json!({"type": "reasoning", "content": beginning(&reasoning.text)})
        }
        Content::ToolCall(call) => {
            // JSON where the model wrote JSON.
            let arguments = serde_json::from_str::<Value>(&call.arguments);
            let arguments = arguments.unwrap_or_else(|_| json!(beginning(&call.arguments)));
            json!({"type": "tool_call", "id": call.id, "name": call.name, "arguments": arguments})
        }
        Content::ToolResult(result) => {
            let texts = result.parts.iter().filter_map(|part| match &part.content {
                Content::Text { text, .. } => Some(beginning(text)),
                _ => None,
            });
            let response = texts.collect::<Vec<_>>().join("\n");
            json!({"type": "tool_call_response", "id": result.id, "response": response})
        }
        // The bytes of a picture tell nobody anything in a trace.
        Content::Media(_) => json!({"type": "blob"}),
        Content::Foreign(_) => json!({"type": "other"}),
    }
}

fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(LONGEST_TEXT)]
}

fn digest(text: &str) -> String {
    use std::fmt::Write as _;
    Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
