//! Embeddings of Amazon's own models on Bedrock: one text a body.

use serde::Deserialize;
use serde_json::{Value, json};

use super::EmbedUpstream;
use crate::canon::{EmbedRequest, EmbedResponse};
use crate::dialect::legible::tokens;
use crate::dialect::{Inexpressible, Misread, Written};

/// What a Nova vector is for, by Cohere's names.
const PURPOSES: [(&str, &str); 4] = [
    ("search_document", "GENERIC_INDEX"),
    ("search_query", "TEXT_RETRIEVAL"),
    ("classification", "CLASSIFICATION"),
    ("clustering", "CLUSTERING"),
];

pub(super) struct Titan;

pub(super) struct Nova;

#[derive(Deserialize)]
struct TitanAnswer {
    embedding: Vec<f32>,
    #[serde(rename = "inputTextTokenCount", default, deserialize_with = "tokens")]
    tokens: Option<u64>,
}

#[derive(Deserialize)]
struct NovaAnswer {
    embeddings: Vec<NovaVector>,
}

#[derive(Deserialize)]
struct NovaVector {
    embedding: Vec<f32>,
}

// === impl Titan ===

impl EmbedUpstream for Titan {
    fn write_requests(&self, request: &EmbedRequest) -> Result<Vec<Written>, Inexpressible> {
        let mut dropped = super::dropped(request, &["normalize"]);
        dropped.extend(request.purpose.as_ref().map(|_| "input_type".into()));
        let mut common = json!({});
        let normalize = request.extras.get("normalize");
        // The first version has one size, and the one for images says it elsewhere.
        if request.model.contains("titan-embed-image") {
            if let Some(dimensions) = request.dimensions {
                common["embeddingConfig"] = json!({ "outputEmbeddingLength": dimensions });
            }
            dropped.extend(normalize.map(|_| "normalize".into()));
        } else if request.model.contains("titan-embed-text-v1")
            || request.model.contains("titan-embed-g1")
        {
            dropped.extend(request.dimensions.map(|_| "dimensions".into()));
            dropped.extend(normalize.map(|_| "normalize".into()));
        } else {
            if let Some(dimensions) = request.dimensions {
                common["dimensions"] = json!(dimensions);
            }
            if let Some(normalize) = normalize {
                common["normalize"] = normalize.clone();
            }
        }
        one_each(request, dropped, |text| {
            let mut body = common.clone();
            body["inputText"] = json!(text);
            body
        })
    }

    fn read_response(&self, bodies: &[&[u8]]) -> Result<EmbedResponse, Misread> {
        let mut response = EmbedResponse::default();
        for body in bodies {
            let answer: TitanAnswer = serde_json::from_slice(body)?;
            response.vectors.push(answer.embedding);
            super::add_usage(&mut response.usage, answer.tokens);
        }
        Ok(response)
    }
}

// === impl Nova ===

impl EmbedUpstream for Nova {
    fn write_requests(&self, request: &EmbedRequest) -> Result<Vec<Written>, Inexpressible> {
        let mut dropped = super::dropped(request, &[]);
        let asked = request.purpose.as_deref().unwrap_or(PURPOSES[0].0);
        let known = PURPOSES.iter().find(|(theirs, ours)| [*theirs, *ours].contains(&asked));
        if known.is_none() {
            dropped.push("input_type".into());
        }
        let (_, purpose) = known.unwrap_or(&PURPOSES[0]);
        one_each(request, dropped, |text| {
            let mut params = json!({ "embeddingPurpose": purpose });
            if let Some(dimensions) = request.dimensions {
                params["embeddingDimension"] = json!(dimensions);
            }
            // A text that is too long fails, as it does with OpenAI.
            params["text"] = json!({ "truncationMode": "NONE", "value": text });
            json!({ "taskType": "SINGLE_EMBEDDING", "singleEmbeddingParams": params })
        })
    }

    fn read_response(&self, bodies: &[&[u8]]) -> Result<EmbedResponse, Misread> {
        let mut response = EmbedResponse::default();
        for body in bodies {
            let answer: NovaAnswer = serde_json::from_slice(body)?;
            let first = answer.embeddings.into_iter().next();
            let vector = first.ok_or_else(|| Misread::new("`embeddings` is empty."))?;
            response.vectors.push(vector.embedding);
        }
        Ok(response)
    }
}

/// One body a text; what is dropped is told with the first.
fn one_each(
    request: &EmbedRequest,
    mut dropped: Vec<std::borrow::Cow<'static, str>>,
    write: impl Fn(&str) -> Value,
) -> Result<Vec<Written>, Inexpressible> {
    let bodies = super::texts(request)?.into_iter().map(|text| Written {
        body: write(text).to_string().into_bytes(),
        dropped: std::mem::take(&mut dropped),
    });
    Ok(bodies.collect())
}
