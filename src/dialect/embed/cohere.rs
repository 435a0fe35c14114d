//! Embeddings as Cohere spells them, at its own door and on Bedrock.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::EmbedUpstream;
use crate::canon::{EmbedRequest, EmbedResponse};
use crate::dialect::legible::{object, tokens};
use crate::dialect::{Inexpressible, Misread, Written};

/// Cohere's limit of texts in one body.
const BATCH: usize = 96;

/// Every model since version 3 must be told what the vectors are for; this is what most of them
/// are made for.
const PURPOSE: &str = "search_document";

pub(super) struct Cohere {
    /// The model stands in the path, and the answer does not say what it cost.
    pub(super) on_bedrock: bool,
}

#[derive(Deserialize)]
struct Answer {
    embeddings: Vectors,
    meta: Option<Meta>,
}

/// By type, or bare where no type was asked for.
#[derive(Deserialize)]
#[serde(untagged)]
enum Vectors {
    ByType { float: Vec<Vec<f32>> },
    Bare(Vec<Vec<f32>>),
}

#[derive(Deserialize)]
struct Meta {
    #[serde(default, deserialize_with = "object")]
    billed_units: Option<Billed>,
}

#[derive(Deserialize)]
struct Billed {
    #[serde(default, deserialize_with = "tokens")]
    input_tokens: Option<u64>,
}

// === impl Cohere ===

impl EmbedUpstream for Cohere {
    fn write_requests(&self, request: &EmbedRequest) -> Result<Vec<Written>, Inexpressible> {
        let mut dropped = super::dropped(request, &["truncate"]);
        let texts = super::texts(request)?;
        let bodies = texts.chunks(BATCH).map(|batch| Written {
            body: self.write(request, batch),
            dropped: std::mem::take(&mut dropped),
        });
        Ok(bodies.collect())
    }

    fn read_response(&self, bodies: &[&[u8]]) -> Result<EmbedResponse, Misread> {
        let mut response = EmbedResponse::default();
        for body in bodies {
            let answer: Answer = serde_json::from_slice(body)?;
            let (Vectors::ByType { float: vectors } | Vectors::Bare(vectors)) = answer.embeddings;
            response.vectors.extend(vectors);
            let billed = answer.meta.and_then(|meta| meta.billed_units?.input_tokens);
            super::add_usage(&mut response.usage, billed);
        }
        Ok(response)
    }
}

impl Cohere {
    fn write(&self, request: &EmbedRequest, texts: &[&str]) -> Vec<u8> {
        let mut body = Map::new();
        if !self.on_bedrock {
            body.insert("model".into(), json!(request.model));
        }
        let purpose = request.purpose.as_deref().unwrap_or(PURPOSE);
        body.insert("input_type".into(), json!(purpose));
        body.insert("embedding_types".into(), json!(["float"]));
        if let Some(dimensions) = request.dimensions {
            body.insert("output_dimension".into(), json!(dimensions));
        }
        if let Some(truncate) = request.extras.get("truncate") {
            body.insert("truncate".into(), truncate.clone());
        }
        body.insert("texts".into(), json!(texts));
        Value::Object(body).to_string().into_bytes()
    }
}
