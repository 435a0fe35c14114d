//! One streamed piece of an answer, in our own words.
//!
//! The rules of a stream, which every reader keeps and every writer may rely on:
//! `Start` comes first and once. Within a choice, parts follow one another: `Open`, any number of
//! `Delta`, `Close`; never two open at once. `Finish` comes once a choice, after its last `Close`.
//! `Usage` may come several times, each replacing the one before. `End` comes last; a stream that
//! stops without it was cut. `Failed` ends a stream.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Usage;
use super::chat::{Citation, Finish, Foreign, Opaque};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Event {
    Start(Start),
    Open {
        choice: u32,
        part: Opening,
    },
    Delta {
        choice: u32,
        delta: Delta,
    },
    Close {
        choice: u32,
    },
    Finish {
        choice: u32,
        finish: Finish,
    },
    Usage(Usage),
    /// The upstream reports a failure inside its stream.
    Failed(StreamFailure),
    /// What is told beside the answer and is no part of it: `step 2 execute_tool order_lookup`. It
    /// may come anywhere between `Start` and `End`.
    Aside(String),
    End,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// The upstream's id; empty where it gave none.
    pub id: String,
    /// The model as its provider spells it; empty where it did not say.
    pub model: String,
    /// Seconds since 1970.
    pub created: Option<u64>,
    pub service_tier: Option<String>,
}

/// What kind of part begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Opening {
    Text,
    Refusal,
    Reasoning {
        summary: bool,
        redacted: bool,
    },
    /// Id and name are known when it opens.
    ToolCall {
        id: String,
        name: String,
        custom: bool,
    },
    /// A sound; its data and transcript follow.
    Audio {
        media_type: String,
    },
    /// Whole already, and followed by its `Close`: an image, a hosted tool's block.
    Media(super::chat::Media),
    Foreign(Foreign),
}

/// More of the open part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Delta {
    Text(String),
    Refusal(String),
    Reasoning(String),
    /// Of a tool call: JSON text, or free text of a custom tool.
    Arguments(String),
    /// Base64.
    Audio(String),
    Transcript(String),
    Citation(Citation),
    /// The state that belongs to the open part; at most once a part.
    Opaque(Opaque),
    /// Log probabilities of the text since the last ones, as OpenAI spells them.
    Logprobs(Value),
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamFailure {
    pub message: String,
    /// The upstream's own word for it: `overloaded_error`, `throttlingException`.
    pub kind: Option<String>,
    pub code: Option<String>,
    /// The HTTP status it stands for, where it says one.
    pub status: Option<u16>,
}
