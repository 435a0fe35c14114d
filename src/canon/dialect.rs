//! The APIs that can be spoken.

use serde::{Deserialize, Serialize};

/// A spelling of chat calls. What a dialect's bytes mean is in the room of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Dialect {
    /// OpenAI chat completions.
    Chat,
    /// OpenAI responses.
    Responses,
    /// Anthropic messages.
    Messages,
    /// Gemini `generateContent`.
    Gemini,
    /// Bedrock Converse.
    Converse,
    /// Cohere chat, version 2.
    Cohere,
}

impl Dialect {
    pub const ALL: [Self; 6] =
        [Self::Chat, Self::Responses, Self::Messages, Self::Gemini, Self::Converse, Self::Cohere];

    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Gemini => "gemini",
            Self::Converse => "converse",
            Self::Cohere => "cohere",
        }
    }
}
