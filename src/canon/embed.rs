//! Texts to vectors, in our own words.

use serde_json::{Map, Value};

use super::Usage;

/// One question to an embedding model.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbedRequest {
    pub model: String,
    pub inputs: Vec<EmbedInput>,
    pub dimensions: Option<u32>,
    /// Vectors are wanted as base64 of little-endian 32-bit floats, not as numbers.
    pub base64: bool,
    /// What the vectors are for, as Cohere spells it: `search_document`, `search_query` ….
    pub purpose: Option<String>,
    pub user: Option<String>,
    /// Fields without a common meaning, as OpenAI's dialect spells them.
    pub extras: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum EmbedInput {
    Text(String),
    /// Already cut into the model's own tokens.
    Tokens(Vec<u64>),
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct EmbedResponse {
    pub model: String,
    /// One vector for each input, in order.
    pub vectors: Vec<Vec<f32>>,
    pub usage: Option<Usage>,
}
