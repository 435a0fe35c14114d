//! One event of a server, most of it borrowed from its bytes.

use serde_json::Value;

use crate::dialect::legible::{Said, integer};

/// One event; of the rare fields those that its type has.
#[derive(serde::Deserialize)]
pub(super) struct Chunk<'a> {
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Said<'a>,
    #[serde(borrow, default)]
    pub(super) delta: Said<'a>,
    #[serde(borrow, default)]
    pub(super) item_id: Said<'a>,
    #[serde(default, deserialize_with = "integer")]
    pub(super) output_index: Option<i64>,
    #[serde(default, deserialize_with = "integer")]
    pub(super) content_index: Option<i64>,
    #[serde(default, deserialize_with = "integer")]
    pub(super) summary_index: Option<i64>,
    #[serde(default)]
    pub(super) logprobs: Value,
    #[serde(borrow, default)]
    pub(super) text: Said<'a>,
    #[serde(borrow, default)]
    pub(super) refusal: Said<'a>,
    #[serde(borrow, default)]
    pub(super) arguments: Said<'a>,
    #[serde(borrow, default)]
    pub(super) input: Said<'a>,
    #[serde(borrow, default)]
    pub(super) name: Said<'a>,
    #[serde(borrow, default)]
    pub(super) message: Said<'a>,
    #[serde(default)]
    pub(super) code: Value,
    #[serde(default)]
    pub(super) error: Value,
    #[serde(default)]
    pub(super) annotation: Value,
    #[serde(default)]
    pub(super) item: Value,
    #[serde(default)]
    pub(super) part: Value,
    #[serde(default)]
    pub(super) response: Value,
}
