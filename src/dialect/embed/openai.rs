//! Embeddings as OpenAI's API spells them: both sides.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::EmbedUpstream;
use crate::canon::{EmbedInput, EmbedRequest, EmbedResponse, Usage};
use crate::dialect::legible::{object, tokens};
use crate::dialect::{Inexpressible, Misread, Written};

/// OpenAI's own limit. Some targets are sent one request a text.
const MOST_INPUTS: usize = 2048;

pub(super) struct OpenAi;

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    model: String,
    data: Vec<Item>,
    #[serde(default, deserialize_with = "object")]
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(default)]
    index: usize,
    embedding: Vector,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default, deserialize_with = "tokens")]
    prompt_tokens: Option<u64>,
    #[serde(default, deserialize_with = "tokens")]
    total_tokens: Option<u64>,
}

#[derive(Serialize)]
struct WrittenAnswer<'a> {
    object: &'static str,
    data: Vec<WrittenItem<'a>>,
    model: &'a str,
    usage: WrittenTokens,
}

#[derive(Serialize)]
struct WrittenItem<'a> {
    object: &'static str,
    index: usize,
    embedding: WrittenVector<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WrittenVector<'a> {
    Numbers(&'a [f32]),
    Base64(String),
}

#[derive(Serialize)]
struct WrittenTokens {
    prompt_tokens: u64,
    total_tokens: u64,
}

// === impl OpenAi ===

impl EmbedUpstream for OpenAi {
    fn write_requests(&self, request: &EmbedRequest) -> Result<Vec<Written>, Inexpressible> {
        let mut body = Map::new();
        body.insert("model".into(), json!(request.model));
        body.insert("input".into(), request.inputs.iter().map(write_input).collect());
        if request.base64 {
            body.insert("encoding_format".into(), json!("base64"));
        }
        let known = [
            ("dimensions", request.dimensions.map(|dimensions| json!(dimensions))),
            ("input_type", request.purpose.as_ref().map(|purpose| json!(purpose))),
            ("user", request.user.as_ref().map(|user| json!(user))),
        ];
        for (name, value) in known {
            body.extend(value.map(|value| (name.to_owned(), value)));
        }
        body.extend(request.extras.clone());
        let body = Value::Object(body).to_string().into_bytes();
        Ok(vec![Written { body, dropped: Vec::new() }])
    }

    fn read_response(&self, bodies: &[&[u8]]) -> Result<EmbedResponse, Misread> {
        let mut response = EmbedResponse::default();
        for body in bodies {
            let mut answer: Answer = serde_json::from_slice(body)?;
            // Some servers answer in the order in which they were done.
            answer.data.sort_by_key(|item| item.index);
            for item in answer.data {
                response.vectors.push(item.embedding.read()?);
            }
            let input = answer.usage.and_then(|usage| usage.prompt_tokens.or(usage.total_tokens));
            super::add_usage(&mut response.usage, input);
            response.model = answer.model;
        }
        Ok(response)
    }
}

// === impl Vector ===

impl Vector {
    fn read(self) -> Result<Vec<f32>, Misread> {
        let text = match self {
            Self::Numbers(numbers) => return Ok(numbers),
            Self::Base64(text) => text,
        };
        let bytes = STANDARD.decode(text).unwrap_or_default();
        let (numbers, rest) = bytes.as_chunks::<4>();
        if numbers.is_empty() || !rest.is_empty() {
            return Err(Misread::new("`data[].embedding` is not base64 of 32-bit numbers."));
        }
        Ok(numbers.iter().map(|number| f32::from_le_bytes(*number)).collect())
    }
}

/// Reads a client's question.
pub fn read_request(body: &[u8]) -> Result<EmbedRequest, Misread> {
    let mut fields: Map<String, Value> = serde_json::from_slice(body)?;
    let base64 = match text(&mut fields, "encoding_format")?.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            return Err(Misread::new("`encoding_format` must be `float` or `base64`."));
        }
    };
    let dimensions = match fields.shift_remove("dimensions") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            let number = number.filter(|number| *number > 0);
            Some(
                number
                    .ok_or_else(|| Misread::new("`dimensions` must be a whole number above 0."))?,
            )
        }
    };
    Ok(EmbedRequest {
        model: text(&mut fields, "model")?
            .ok_or_else(|| Misread::new("`model` is missing, and must be a string."))?,
        inputs: read_inputs(fields.shift_remove("input"))?,
        dimensions,
        base64,
        purpose: text(&mut fields, "input_type")?,
        user: text(&mut fields, "user")?,
        extras: fields,
    })
}

fn text(fields: &mut Map<String, Value>, name: &str) -> Result<Option<String>, Misread> {
    match fields.shift_remove(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(Misread::new(format!("`{name}` must be a string."))),
    }
}

/// A text, tokens, or a list of either.
fn read_inputs(input: Option<Value>) -> Result<Vec<EmbedInput>, Misread> {
    match input {
        Some(Value::Array(list)) if list.is_empty() => {
            Err(Misread::new("`input` is empty: there is nothing to embed."))
        }
        // Tokens are one text, however many there are.
        Some(Value::Array(list)) if list.iter().all(Value::is_u64) => {
            Ok(vec![EmbedInput::Tokens(list.iter().filter_map(Value::as_u64).collect())])
        }
        Some(Value::Array(list)) if list.len() > MOST_INPUTS => {
            let said = format!("`input` has {} texts; the most is {MOST_INPUTS}.", list.len());
            Err(Misread::new(said))
        }
        Some(Value::Array(list)) => {
            list.into_iter().enumerate().map(|(place, value)| read_input(place, value)).collect()
        }
        Some(Value::String(text)) => Ok(vec![EmbedInput::Text(text)]),
        _ => Err(Misread::new("`input` is missing, or neither a string nor an array.")),
    }
}

fn read_input(place: usize, value: Value) -> Result<EmbedInput, Misread> {
    match value {
        Value::String(text) => Ok(EmbedInput::Text(text)),
        Value::Array(list) if list.iter().all(Value::is_u64) => {
            Ok(EmbedInput::Tokens(list.iter().filter_map(Value::as_u64).collect()))
        }
        _ => {
            let said = format!("`input[{place}]` must be a string or an array of token numbers.");
            Err(Misread::new(said))
        }
    }
}

fn write_input(input: &EmbedInput) -> Value {
    match input {
        EmbedInput::Text(text) => json!(text),
        EmbedInput::Tokens(tokens) => json!(tokens),
    }
}

/// Writes the answer for a client; its question says how the vectors are to be spelled.
pub(super) fn write_response(response: &EmbedResponse, request: &EmbedRequest) -> Vec<u8> {
    let data = response.vectors.iter().enumerate().map(|(index, vector)| WrittenItem {
        object: "embedding",
        index,
        embedding: if request.base64 {
            let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
            WrittenVector::Base64(STANDARD.encode(bytes))
        } else {
            WrittenVector::Numbers(vector)
        },
    });
    let usage: Usage = response.usage.unwrap_or_default();
    let model = if response.model.is_empty() { &request.model } else { &response.model };
    let answer = WrittenAnswer {
        object: "list",
        data: data.collect(),
        model,
        usage: WrittenTokens { prompt_tokens: usage.input_total(), total_tokens: usage.total() },
    };
    serde_json::to_vec(&answer).unwrap_or_default()
}
