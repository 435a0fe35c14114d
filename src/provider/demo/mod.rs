//! The built-in provider: offline and deterministic, for first contact, docs and tests.
//!
//! No model stands behind it and it says so. It answers in words, streams them, calls the tools
//! that the user's text names, fills a JSON schema, and embeds by hashing.

mod schema;

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Sleep;

use super::Operation;
use crate::dialect::splice::Payload;
use crate::net::BoxError;
use crate::net::client::{Reply, ReplyBody};

pub(super) const ID: &str = "demo";
const MODEL: &str = "demo";
/// The time of every answer, so that answers are the same each time: 2025-01-01.
const CREATED: u64 = 1_735_689_600;
/// Between two events of a stream, as a quick model would take.
const GAP: Duration = Duration::from_millis(15);
const DIMENSIONS: usize = 256;

pub(super) fn models() -> Vec<String> {
    vec![MODEL.to_owned()]
}

/// What is said in one answer.
enum Said {
    Text(String),
    Calls(Vec<(String, String)>),
}

/// Answers a request as a provider would over HTTP.
pub(super) fn answer(operation: Operation, payload: &Payload) -> Reply {
    let Ok(request) = serde_json::from_slice::<Value>(&payload.to_bytes()) else {
        return refuse("The body is not valid JSON.");
    };
    match operation {
        Operation::Chat { .. } if !request["messages"].is_array() => {
            refuse("`messages` must be a list.")
        }
        Operation::CountTokens(_) | Operation::Compact => refuse("There is no such thing here."),
        Operation::Chat { .. } => converse(&request, &say(&request)),
        Operation::Completions => {
            let prompt = text_of(&request["prompt"]);
            converse(&request, &Said::Text(greeting(&prompt)))
        }
        Operation::Embeddings => match request.get("input") {
            Some(input) => whole(200, &embed(&request, input)),
            None => refuse("`input` is missing."),
        },
        // Its row has none of these, so they are not asked of it.
        Operation::Relay(_) => refuse("The demo has only chat and embeddings."),
    }
}

fn refuse(message: &str) -> Reply {
    let error = json!({"message": message, "type": "invalid_request_error", "code": null});
    whole(400, &json!({ "error": error }))
}

fn greeting(said: &str) -> String {
    let quoted: String = said.chars().take(200).collect();
    format!("This is Switchpoint's built-in demo; no model stands behind it. You said: {quoted}")
}

/// Decides what to say: call the tools that were asked for, fill the schema, or talk.
fn say(request: &Value) -> Said {
    let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let last = messages.last().unwrap_or(&Value::Null);
    let text = text_of(&last["content"]);
    if last["role"] != "tool" {
        let calls = calls(request, &text);
        if !calls.is_empty() {
            return Said::Calls(calls);
        }
    }
    let format = &request["response_format"];
    match format["type"].as_str() {
        Some("json_schema") => {
            Said::Text(schema::fill(&format["json_schema"]["schema"]).to_string())
        }
        Some("json_object") => Said::Text(json!({ "answer": greeting(&text) }).to_string()),
        _ if last["role"] == "tool" => Said::Text(format!("The tool answered: {text}")),
        _ => Said::Text(greeting(&text)),
    }
}

/// The tools that `tool_choice` demands or the text names, with arguments that fit their schema.
fn calls(request: &Value, text: &str) -> Vec<(String, String)> {
    let choice = &request["tool_choice"];
    let tools = request["tools"].as_array().map(Vec::as_slice).unwrap_or_default();
    let functions: Vec<&Value> = tools.iter().map(|tool| &tool["function"]).collect();
    let name = |function: &Value| function["name"].as_str().unwrap_or_default().to_owned();
    let call =
        |function: &Value| (name(function), schema::fill(&function["parameters"]).to_string());
    if choice == "none" {
        return Vec::new();
    }
    if let Some(forced) = choice["function"]["name"].as_str() {
        return functions
            .iter()
            .filter(|tool| name(tool) == forced)
            .map(|tool| call(tool))
            .collect();
    }
    let text = text.to_lowercase();
    let is_named = |tool: &&&Value| text.contains(&name(tool).to_lowercase());
    let named: Vec<_> = functions.iter().filter(is_named).map(|tool| call(tool)).collect();
    if named.is_empty() && choice == "required" {
        return functions.first().map(|tool| call(tool)).into_iter().collect();
    }
    named
}

fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().map(|part| part["text"].as_str().or(part.as_str()));
            texts.flatten().collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

// === answers ===

/// About four characters a token.
fn tokens(text: &str) -> u64 {
    (text.len() as u64).div_ceil(4)
}

fn converse(request: &Value, said: &Said) -> Reply {
    let chat = request["messages"].is_array();
    let spoken = match said {
        Said::Text(text) => text.clone(),
        Said::Calls(calls) => calls.iter().map(|(_, arguments)| arguments.as_str()).collect(),
    };
    let asked = if chat { request["messages"].to_string() } else { request["prompt"].to_string() };
    let (input, output) = (tokens(&asked), tokens(&spoken));
    let usage = json!({
        "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
    });
    let finish = if matches!(said, Said::Calls(_)) { "tool_calls" } else { "stop" };
    if request["stream"] == true {
        let usage = (request["stream_options"]["include_usage"] == true).then_some(usage);
        return stream(chat, said, finish, usage);
    }
    let choice = match (said, chat) {
        (Said::Text(text), false) => json!({"index": 0, "text": text, "finish_reason": finish}),
        (Said::Text(text), true) => json!({
            "index": 0, "finish_reason": finish, "logprobs": null,
            "message": {"role": "assistant", "content": text, "refusal": null},
        }),
        (Said::Calls(calls), _) => json!({
            "index": 0, "finish_reason": finish, "logprobs": null,
            "message": {"role": "assistant", "content": null, "tool_calls": whole_calls(calls)},
        }),
    };
    let object = if chat { "chat.completion" } else { "text_completion" };
    whole(200, &envelope(object, &[choice], Some(usage)))
}

fn envelope(object: &str, choices: &[Value], usage: Option<Value>) -> Value {
    let mut answer = json!({
        "id": "chatcmpl-demo", "object": object, "created": CREATED, "model": MODEL,
        "choices": choices,
    });
    if let Some(usage) = usage {
        answer["usage"] = usage;
    }
    answer
}

fn whole_calls(calls: &[(String, String)]) -> Vec<Value> {
    let call = |(place, (name, arguments)): (usize, &(String, String))| {
        json!({
            "id": format!("call_demo_{place}"), "type": "function",
            "function": {"name": name, "arguments": arguments},
        })
    };
    calls.iter().enumerate().map(call).collect()
}

fn whole(status: u16, body: &Value) -> Reply {
    reply(status, "application/json", vec![body.to_string().into()], Duration::ZERO)
}

fn stream(chat: bool, said: &Said, finish: &str, usage: Option<Value>) -> Reply {
    let object = if chat { "chat.completion.chunk" } else { "text_completion" };
    let event = |choices: &[Value], usage: Option<Value>| {
        Bytes::from(format!("data: {}\n\n", envelope(object, choices, usage)))
    };
    let delta = |delta: Value, finish: Option<&str>| {
        event(&[json!({"index": 0, "delta": delta, "finish_reason": finish})], None)
    };
    let mut events = Vec::new();
    if chat {
        events.push(delta(json!({"role": "assistant", "content": ""}), None));
    }
    match said {
        Said::Text(text) => events.extend(text.split_inclusive(' ').map(|word| {
            if chat {
                delta(json!({ "content": word }), None)
            } else {
                event(&[json!({"index": 0, "text": word, "finish_reason": null})], None)
            }
        })),
        Said::Calls(calls) => {
            for (place, mut call) in whole_calls(calls).into_iter().enumerate() {
                call["index"] = json!(place);
                let arguments = call["function"]["arguments"].take();
                call["function"]["arguments"] = json!("");
                events.push(delta(json!({ "tool_calls": [call] }), None));
                let rest = json!({"index": place, "function": {"arguments": arguments}});
                events.push(delta(json!({ "tool_calls": [rest] }), None));
            }
        }
    }
    events.push(if chat {
        delta(json!({}), Some(finish))
    } else {
        event(&[json!({"index": 0, "text": "", "finish_reason": finish})], None)
    });
    events.extend(usage.map(|usage| event(&[], Some(usage))));
    events.push(Bytes::from_static(crate::dialect::openai::DONE));
    reply(200, "text/event-stream", events, GAP)
}

fn embed(request: &Value, input: &Value) -> Value {
    let inputs: Vec<String> = match input {
        Value::Array(list) if list.iter().all(Value::is_string) => {
            list.iter().map(text_of).collect()
        }
        Value::Array(list) if list.iter().all(Value::is_array) => {
            list.iter().map(Value::to_string).collect()
        }
        other => vec![other.as_str().map_or_else(|| other.to_string(), str::to_owned)],
    };
    let dimensions = request["dimensions"].as_u64().and_then(|wanted| usize::try_from(wanted).ok());
    let dimensions = dimensions.unwrap_or(DIMENSIONS).clamp(1, 4096);
    let data: Vec<Value> = inputs
        .iter()
        .enumerate()
        .map(|(index, text)| {
            let vector = direction(text, dimensions);
            let embedding = if request["encoding_format"] == "base64" {
                let bytes: Vec<u8> = vector.iter().flat_map(|part| part.to_le_bytes()).collect();
                json!(STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({"object": "embedding", "index": index, "embedding": embedding})
        })
        .collect();
    let count: u64 = inputs.iter().map(|text| tokens(text)).sum();
    json!({
        "object": "list", "model": MODEL, "data": data,
        "usage": {"prompt_tokens": count, "total_tokens": count},
    })
}

/// A unit vector from the words of a text: texts with words in common lie near each other.
fn direction(text: &str, dimensions: usize) -> Vec<f32> {
    let mut vector = vec![0.0_f32; dimensions];
    for word in text.to_lowercase().split(|letter: char| !letter.is_alphanumeric()) {
        for (place, byte) in Sha256::digest(word.as_bytes()).iter().enumerate() {
            let slot = (usize::from(*byte) * 37 + place * 101) % dimensions;
            vector[slot] += f32::from(*byte) / 255.0 - 0.5;
        }
    }
    let length = vector.iter().map(|part| part * part).sum::<f32>().sqrt();
    let length = if length > 0.0 { length } else { 1.0 };
    vector.iter().map(|part| part / length).collect()
}

fn reply(status: u16, content_type: &'static str, events: Vec<Bytes>, gap: Duration) -> Reply {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    let timer = (!gap.is_zero()).then(|| Box::pin(tokio::time::sleep(gap)));
    let body = Paced { events: events.into_iter(), gap, timer };
    Reply { status, headers, body: ReplyBody::local(Box::pin(body)) }
}

/// Events with a pause before each.
struct Paced {
    events: std::vec::IntoIter<Bytes>,
    gap: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Body for Paced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let gap = self.gap;
        if let Some(timer) = &mut self.timer {
            ready!(timer.as_mut().poll(context));
            timer.as_mut().reset(tokio::time::Instant::now() + gap);
        }
        Poll::Ready(self.events.next().map(|event| Ok(Frame::data(event))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_texts_have_near_directions() {
        let dot = |left: &str, right: &str| -> f32 {
            let (left, right) = (direction(left, 256), direction(right, 256));
            left.iter().zip(&right).map(|(left, right)| left * right).sum()
        };
        assert!((dot("red apple", "red apple") - 1.0).abs() < 1e-3);
        assert!(
            dot("red apple pie", "red apple tart") > dot("red apple pie", "tcp socket options")
        );
    }

    #[test]
    fn calls_the_tools_that_are_named_and_those_that_are_demanded() {
        let tool = |name: &str| {
            json!({"type": "function", "function": {"name": name,
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}})
        };
        let mut request = json!({"tools": [tool("get_weather"), tool("get_time")]});
        assert_eq!(calls(&request, "use get_weather and get_time").len(), 2);
        assert!(calls(&request, "hello").is_empty());
        request["tool_choice"] = json!("required");
        assert_eq!(calls(&request, "hello"), [("get_weather".into(), r#"{"city":"demo"}"#.into())]);
        request["tool_choice"] = json!({"function": {"name": "get_time"}});
        assert_eq!(calls(&request, "get_weather")[0].0, "get_time");
    }
}
