//! Embeddings of those who follow OpenAI, where they depart from it.

use serde_json::{Map, Value, json};

use super::EmbedUpstream;
use super::openai::OpenAi;
use crate::canon::{EmbedRequest, EmbedResponse};
use crate::dialect::{Inexpressible, Misread, Written};

pub(super) struct Mistral;

/// Fields that only Mistral has, for clients that name them.
const MISTRALS_OWN: [&str; 3] = ["metadata", "output_dimension", "output_dtype"];

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
