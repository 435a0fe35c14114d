//! What the scanner tells of a body: the facts that routing needs, or why it is refused.

use super::Beginnings;

/// A range of bytes in the body, from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub start: usize,
    pub end: usize,
}

/// The facts read from a body.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// The decoded value of `model`; empty where the body has none and none is needed.
    pub model: String,
    /// Where that value stands, its quotes included, and with its key.
    pub model_place: Option<ModelPlace>,
    /// `"stream": true`.
    pub stream: bool,
    pub stream_options: StreamOptions,
    /// Where `stream_options` stands with its key and the comma that goes with it.
    pub stream_options_member: Option<Span>,
    /// `n`, how many answers are asked for; 1 when absent.
    pub choices: u32,
    /// `store`, whether a response is kept for later; `None` when absent.
    pub store: Option<bool>,
    /// `"background": true`.
    pub background: bool,
    /// `previous_response_id`, where it is a string.
    pub previous: Option<String>,
    /// `conversation` is there, and not null.
    pub conversation: bool,
    /// How long an answer may be.
    pub most: Most,
    /// How its strings begin.
    pub beginnings: Beginnings,
    /// Where the closing brace of the body stands.
    pub close: usize,
}

/// Tokens that an answer may have, by each of the names that APIs have for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Most {
    /// `max_tokens`.
    pub tokens: Option<u64>,
    /// Where that key stands, its quotes included.
    pub key: Option<Span>,
    /// `max_completion_tokens`.
    pub completion: Option<u64>,
    /// Where that key stands.
    pub completion_key: Option<Span>,
    /// `max_output_tokens`.
    pub output: Option<u64>,
}

/// Where the body names its model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelPlace {
    pub value: Span,
    /// From the first quote of the key to the last of the value.
    pub member: Span,
}

/// What the body says of `stream_options.include_usage`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StreamOptions {
    #[default]
    Absent,
    /// `"stream_options": null`, and where.
    Null(Span),
    /// An object without `include_usage`: where its `{` ends, and whether anything follows it.
    Without { open: usize, empty: bool },
    /// `include_usage` is there, but is not `true`.
    Declined(Span),
    /// The client asked for usage itself.
    Asked,
}

/// Why a body was refused. The text is shown to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("The body is not valid JSON: {expected} expected at byte {at}.")]
    Syntax { expected: &'static str, at: usize },
    #[error("The body is not valid JSON: it ends too early, after {at} bytes.")]
    Truncated { at: usize },
    #[error("The body is empty; send a JSON object with a `model`.")]
    Empty,
    #[error("The body must be a JSON object.")]
    NotAnObject,
    #[error("The body nests deeper than {MAX_DEPTH} levels.")]
    TooDeep,
    #[error("`{0}` occurs twice in the body; send it once.")]
    Duplicate(&'static str),
    #[error("`model` must be a string of 1 to {MAX_MODEL} bytes.")]
    BadModel,
    #[error("`stream` must be true or false.")]
    BadStream,
}

/// Deeper nesting is refused.
pub const MAX_DEPTH: usize = 512;
/// The longest accepted model name in bytes, as written in the body.
pub const MAX_MODEL: usize = 512;
