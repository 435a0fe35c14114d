//! Embeddings as Gemini's API and Vertex AI spell them.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::EmbedUpstream;
use crate::canon::{EmbedRequest, EmbedResponse};
use crate::dialect::legible::{object, tokens};
use crate::dialect::{Inexpressible, Misread, Written};

/// What a vector is for, by Cohere's names and by Google's.
pub(super) const PURPOSES: [(&str, &str); 8] = [
    ("search_document", "RETRIEVAL_DOCUMENT"),
    ("search_query", "RETRIEVAL_QUERY"),
    ("classification", "CLASSIFICATION"),
    ("clustering", "CLUSTERING"),
    // Others have no word for these.
    ("SEMANTIC_SIMILARITY", "SEMANTIC_SIMILARITY"),
    ("QUESTION_ANSWERING", "QUESTION_ANSWERING"),
    ("FACT_VERIFICATION", "FACT_VERIFICATION"),
    ("CODE_RETRIEVAL_QUERY", "CODE_RETRIEVAL_QUERY"),
];

/// `batchEmbedContents`.
pub(super) struct Gemini;

/// As many texts as Gemini takes in one body.
const BATCH: usize = 100;

/// `predict`, for the models that make vectors of text.
pub(super) struct VertexPredict;

/// As many texts as Vertex AI takes in one body; of the newest models only one.
const PREDICT_BATCH: usize = 250;

#[derive(Deserialize)]
struct Answer {
    embeddings: Option<Vec<Values>>,
    /// Of `embedContent`, which makes one vector.
    embedding: Option<Values>,
    #[serde(rename = "usageMetadata", default, deserialize_with = "object")]
    usage: Option<Tokens>,
}

#[derive(Deserialize)]
struct Values {
    values: Vec<f32>,
    statistics: Option<Statistics>,
}

#[derive(Deserialize)]
struct Tokens {
    #[serde(rename = "promptTokenCount", default, deserialize_with = "tokens")]
    prompt: Option<u64>,
}

#[derive(Deserialize)]
struct Statistics {
    #[serde(default, deserialize_with = "tokens")]
    token_count: Option<u64>,
}

#[derive(Deserialize)]
struct Predicted {
    predictions: Vec<Prediction>,
}

#[derive(Deserialize)]
struct Prediction {
    embeddings: Values,
}

// === impl Gemini ===

impl EmbedUpstream for Gemini {
    fn write_requests(&self, request: &EmbedRequest) -> Result<Vec<Written>, Inexpressible> {
        let mut dropped = super::dropped(request, &["title"]);
        let purpose = purpose(request, &mut dropped);
        let model = request.model.strip_prefix("models/").unwrap_or(&request.model);
        let texts = super::texts(request)?;
        let bodies = texts.chunks(BATCH).map(|batch| {
            let requests = batch.iter().map(|text| {
                let mut one = Map::new();
                one.insert("model".into(), json!(format!("models/{model}")));
                one.insert("content".into(), json!({ "parts": [{ "text": text }] }));
                let purpose = purpose.map(|purpose| ("taskType".into(), json!(purpose)));
                one.extend(purpose);
                let title = request.extras.get("title");
                one.extend(title.map(|title| ("title".into(), title.clone())));
                let dimensions = request.dimensions;
                one.extend(dimensions.map(|size| ("outputDimensionality".into(), json!(size))));
                Value::Object(one)
            });
            let requests: Vec<Value> = requests.collect();
            Written {
                body: json!({ "requests": requests }).to_string().into_bytes(),
                dropped: std::mem::take(&mut dropped),
            }
        });
        Ok(bodies.collect())
    }

    fn read_response(&self, bodies: &[&[u8]]) -> Result<EmbedResponse, Misread> {
        let mut response = EmbedResponse::default();
        for body in bodies {
            let answer: Answer = serde_json::from_slice(body)?;
            let vectors = answer.embeddings.unwrap_or_default().into_iter().chain(answer.embedding);
            response.vectors.extend(vectors.map(|vector| vector.values));
            let tokens = answer.usage.and_then(|usage| usage.prompt);
            super::add_usage(&mut response.usage, tokens);
        }
        Ok(response)
    }
}

// === impl VertexPredict ===

impl EmbedUpstream for VertexPredict {
    fn write_requests(&self, request: &EmbedRequest) -> Result<Vec<Written>, Inexpressible> {
        let mut dropped = super::dropped(request, &["title", "auto_truncate"]);
        let purpose = purpose(request, &mut dropped);
        let batch = if request.model.contains("gemini-embedding") { 1 } else { PREDICT_BATCH };
        let mut parameters = Map::new();
        let dimensions = request.dimensions;
        parameters.extend(dimensions.map(|size| ("outputDimensionality".into(), json!(size))));
        // A text that is too long fails, as it does with OpenAI.
        let truncate = request.extras.get("auto_truncate").cloned().unwrap_or(json!(false));
        parameters.insert("autoTruncate".into(), truncate);
        let texts = super::texts(request)?;
        let bodies = texts.chunks(batch).map(|batch| {
            let instances = batch.iter().map(|text| {
                let mut one = Map::new();
                one.insert("content".into(), json!(text));
                let purpose = purpose.map(|purpose| ("task_type".into(), json!(purpose)));
                one.extend(purpose);
                let title = request.extras.get("title");
                one.extend(title.map(|title| ("title".into(), title.clone())));
                Value::Object(one)
            });
            let instances: Vec<Value> = instances.collect();
            let body = json!({ "instances": instances, "parameters": parameters });
            Written { body: body.to_string().into_bytes(), dropped: std::mem::take(&mut dropped) }
        });
        Ok(bodies.collect())
    }

    fn read_response(&self, bodies: &[&[u8]]) -> Result<EmbedResponse, Misread> {
        let mut response = EmbedResponse::default();
        for body in bodies {
            let answer: Predicted = serde_json::from_slice(body)?;
            for Prediction { embeddings } in answer.predictions {
                let tokens = embeddings.statistics.and_then(|statistics| statistics.token_count);
                super::add_usage(&mut response.usage, tokens);
                response.vectors.push(embeddings.values);
            }
        }
        Ok(response)
    }
}

/// Google's name for the purpose, if there is one.
fn purpose(request: &EmbedRequest, dropped: &mut Vec<Cow<'static, str>>) -> Option<&'static str> {
    let asked = request.purpose.as_deref()?;
    let known = PURPOSES.iter().find(|(ours, theirs)| [*ours, *theirs].contains(&asked));
    dropped.extend(known.is_none().then_some("input_type".into()));
    known.map(|(_, theirs)| *theirs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canon::EmbedInput;

    fn question(texts: usize) -> EmbedRequest {
        EmbedRequest {
            model: "gemini-embedding-001".into(),
            inputs: (0..texts).map(|place| EmbedInput::Text(place.to_string())).collect(),
            dimensions: Some(256),
            purpose: Some("search_query".into()),
            user: Some("u".into()),
            ..EmbedRequest::default()
        }
    }

    #[test]
    fn asks_gemini_in_batches_and_joins_the_answers() {
        let written = Gemini.write_requests(&question(101)).unwrap();
        assert_eq!(written.len(), 2);
        assert_eq!(written[0].dropped, ["user"]);
        let last: Value = serde_json::from_slice(&written[1].body).unwrap();
        let expected = json!({"requests": [{
            "model": "models/gemini-embedding-001",
            "content": {"parts": [{"text": "100"}]},
            "taskType": "RETRIEVAL_QUERY",
            "outputDimensionality": 256,
        }]});
        assert_eq!(last, expected);
        let body =
            br#"{"embeddings":[{"values":[0.5,-1]}],"usageMetadata":{"promptTokenCount":3}}"#;
        let answer = Gemini.read_response(&[body, br#"{"embedding":{"values":[1]}}"#]).unwrap();
        assert_eq!(answer.vectors, [vec![0.5, -1.0], vec![1.0]]);
        assert_eq!(answer.usage.unwrap().input, 3);
    }

    #[test]
    fn asks_vertex_one_text_at_a_time_where_the_model_takes_no_more() {
        let written = VertexPredict.write_requests(&question(2)).unwrap();
        assert_eq!(written.len(), 2);
        let first: Value = serde_json::from_slice(&written[0].body).unwrap();
        let expected = json!({
            "instances": [{"content": "0", "task_type": "RETRIEVAL_QUERY"}],
            "parameters": {"outputDimensionality": 256, "autoTruncate": false},
        });
        assert_eq!(first, expected);
        let body = br#"{"predictions":[{"embeddings":{"values":[1],"statistics":{"token_count":2.0,"truncated":false}}}]}"#;
        let answer = VertexPredict.read_response(&[body, body]).unwrap();
        assert_eq!((answer.vectors.len(), answer.usage.unwrap().input), (2, 4));
        let other = EmbedRequest { model: "text-embedding-005".into(), ..question(2) };
        assert_eq!(VertexPredict.write_requests(&other).unwrap().len(), 1);
    }
}
