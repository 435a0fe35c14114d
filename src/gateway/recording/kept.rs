//! One kept call: a line of a file.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::canon::{Outcome, Usage};

/// A call as it was asked, what became of it, and where it went.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Kept {
    /// Of this form of line.
    pub version: u32,
    pub id: String,
    pub at: String,
    pub surface: String,
    pub stream: bool,
    /// What the client named.
    pub model: String,
    pub key: Option<String>,
    pub team: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    pub form: Form,
    /// What the client sent; null where it was too long, or bodies are not kept.
    #[serde(default)]
    pub body: Json,
    pub generation: u64,
    pub route: Option<String>,
    pub task: Option<String>,
    pub outcome: Outcome,
    pub status: u16,
    pub attempts: Vec<Attempted>,
    pub usage: Usage,
    pub cost_usd: Option<String>,
    pub duration_ms: u64,
    pub first_token_ms: Option<u64>,
    /// What the client was given, in its API's words; a stream as its events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<String>,
}

/// In which form body and answer are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    None,
    Redacted,
    Whole,
}

/// One request to one target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempted {
    pub provider: String,
    pub model: String,
    pub outcome: Outcome,
    pub status: u16,
    pub ms: u64,
}

impl Kept {
    pub(super) const VERSION: u32 = 1;
}
