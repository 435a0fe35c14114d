//! Embeddings of those who follow OpenAI, where they depart from it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::EmbedUpstream;
use super::openai::OpenAi;
use crate::canon::{EmbedRequest, EmbedResponse};
use crate::dialect::legible::{object, tokens};
use crate::dialect::{Inexpressible, Misread, Written};

pub(super) struct Mistral;

/// Fields that only Mistral has, for clients that name them.
const MISTRALS_OWN: [&str; 3] = ["metadata", "output_dimension", "output_dtype"];

pub(super) struct Perplexity;

/// As many texts as Perplexity takes in one body.
const BATCH: usize = 512;

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
    /// Base64 of whole numbers of eight bits with their signs.
    embedding: String,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(default, deserialize_with = "tokens")]
    prompt_tokens: Option<u64>,
}

// === impl Mistral ===

impl EmbedUpstream for Mistral {
    fn write_requests(&self, request: &EmbedRequest) -> Result<Vec<Written>, Inexpressible> {
        let mut dropped = super::dropped(request, &MISTRALS_OWN);
        dropped.extend(request.purpose.as_ref().map(|_| "input_type".into()));
        let mut body = Map::new();
        body.insert("model".into(), json!(request.model));
        body.insert("input".into(), json!(super::texts(request)?));
        let own = request.extras.iter().filter(|(name, _)| MISTRALS_OWN.contains(&name.as_str()));
        body.extend(own.map(|(name, value)| (name.clone(), value.clone())));
        let dimensions = request.dimensions.map(|size| json!(size));
        body.extend(dimensions.map(|size| ("output_dimension".to_owned(), size)));
        Ok(vec![Written { body: Value::Object(body).to_string().into_bytes(), dropped }])
    }

    fn read_response(&self, bodies: &[&[u8]]) -> Result<EmbedResponse, Misread> {
        OpenAi.read_response(bodies)
    }
}

// === impl Perplexity ===

impl EmbedUpstream for Perplexity {
    fn write_requests(&self, request: &EmbedRequest) -> Result<Vec<Written>, Inexpressible> {
        let mut dropped = super::dropped(request, &[]);
        dropped.extend(request.purpose.as_ref().map(|_| "input_type".into()));
        let texts = super::texts(request)?;
        let bodies = texts.chunks(BATCH).map(|batch| {
            let mut body = json!({
                "model": request.model, "input": batch, "encoding_format": "base64_int8",
            });
            if let Some(dimensions) = request.dimensions {
                body["dimensions"] = json!(dimensions);
            }
            Written { body: body.to_string().into_bytes(), dropped: std::mem::take(&mut dropped) }
        });
        Ok(bodies.collect())
    }

    fn read_response(&self, bodies: &[&[u8]]) -> Result<EmbedResponse, Misread> {
        let mut response = EmbedResponse::default();
        for body in bodies {
            let mut answer: Answer = serde_json::from_slice(body)?;
            answer.data.sort_by_key(|item| item.index);
            for item in answer.data {
                response.vectors.push(read_vector(&item.embedding)?);
            }
            let input = answer.usage.and_then(|usage| usage.prompt_tokens);
            super::add_usage(&mut response.usage, input);
            response.model = answer.model;
        }
        Ok(response)
    }
}

fn read_vector(encoded: &str) -> Result<Vec<f32>, Misread> {
    let bytes = STANDARD.decode(encoded).ok().filter(|bytes| !bytes.is_empty());
    let bytes = bytes.ok_or_else(|| Misread::new("`data[].embedding` is not base64."))?;
    Ok(bytes.into_iter().map(|byte| f32::from(byte.cast_signed())).collect())
}
