//! A conversation and its answer in our own words, whichever API they came from.
//!
//! Every dialect is read into these types and written from them. What only one API knows is kept
//! beside what all share, under that API's name, so that it can go home unharmed and is never
//! shown to a stranger.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Dialect, Usage};

/// One question to a chat model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatRequest {
    pub model: String,
    pub stream: bool,
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    pub tool_choice: Option<ToolChoice>,
    /// `false`: at most one tool call a turn.
    pub parallel_tool_calls: Option<bool>,
    pub format: Format,
    pub sampling: Sampling,
    pub reasoning: Option<Thinking>,
    /// How wordy the answer should be, as OpenAI spells it: `low`, `medium`, `high`.
    pub verbosity: Option<String>,
    /// An answer that is spoken: OpenAI's `audio` object, with voice and format.
    pub audio: Option<Value>,
    /// Who is behind the call, for the provider's abuse checks.
    pub user: Option<String>,
    pub metadata: Option<Map<String, Value>>,
    pub service_tier: Option<String>,
    /// Groups calls that share a prefix (OpenAI's `prompt_cache_key`).
    pub cache_key: Option<String>,
    /// The last message is the model's and is to be carried on: the word that its client said so
    /// by, where its API has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// The client wants the usage as an event of the stream.
    pub include_usage: bool,
    /// Top-level fields that these types do not know, as the client's dialect spells them.
    pub extras: Extras,
}

/// Fields of one dialect that have no common meaning.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Extras {
    /// What the client speaks, whether it sent any such field or not.
    pub dialect: Option<Dialect>,
    pub fields: Map<String, Value>,
}

/// What one party said. Two messages of one role may follow each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    pub role: Role,
    pub parts: Vec<Part>,
    /// Which of several participants speaks (OpenAI's `name`).
    pub name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    System,
    /// OpenAI's successor of the system role; a system message everywhere else.
    Developer,
    User,
    Assistant,
    /// Holds tool results and nothing else.
    Tool,
}

/// A piece of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub content: Content,
    /// A prompt cache breakpoint stands behind this part.
    pub cache: Option<CacheMark>,
    /// What the provider wants back with this part, byte for byte.
    pub opaque: Option<Opaque>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Content {
    Text {
        text: String,
        citations: Vec<Citation>,
    },
    /// The model declined, in these words.
    Refusal(String),
    Media(Media),
    Reasoning(Reasoning),
    ToolCall(ToolCall),
    ToolResult(ToolResult),
    /// A block that only its own dialect has: the search of a hosted tool, a computer action.
    Foreign(Foreign),
}

/// A lifetime of a prompt cache entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheMark {
    /// Five minutes, the default everywhere.
    Short,
    /// One hour.
    Long,
}

/// State of a provider that travels with a part: a signature, encrypted thoughts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opaque {
    /// Who can read it.
    pub dialect: Dialect,
    pub data: Value,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Foreign {
    pub dialect: Dialect,
    /// The block as its dialect spells it.
    pub value: Value,
}

/// An image, a sound, a film or a document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Media {
    pub kind: MediaKind,
    pub source: Source,
    /// A file's name or a document's title.
    pub name: Option<String>,
    /// How closely to look: `low`, `high`, `auto`.
    pub detail: Option<String>,
    /// What is said in a sound that the model made.
    pub transcript: Option<String>,
    /// The model is to cite this document.
    pub citable: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MediaKind {
    Image,
    Audio,
    Video,
    /// A PDF, a text file and the like.
    Document,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Source {
    /// `media_type` where the dialect states one (`image/png`).
    Url {
        url: String,
        media_type: Option<String>,
    },
    Base64 {
        media_type: String,
        data: String,
    },
    /// A document's plain text.
    Text(String),
    /// Uploaded to this dialect's provider before; nobody else can open it.
    File {
        dialect: Dialect,
        id: String,
    },
}

/// What a model thought before it spoke.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reasoning {
    /// Empty where the provider shows nothing but the opaque state.
    pub text: String,
    /// The text is a summary that was made for readers.
    pub summary: bool,
    /// The provider withholds the text; the opaque state stands for it.
    pub redacted: bool,
    /// The client did not send it back: the gateway remembered it.
    #[serde(default)]
    pub recalled: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    /// JSON text for a function, free text for a custom tool; kept as the model wrote it.
    pub arguments: String,
    /// The tool takes free text (OpenAI's custom tools).
    pub custom: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolResult {
    /// The id of the call that this answers.
    pub id: String,
    /// The tool's name where the dialect says it.
    pub name: Option<String>,
    /// Text and media only.
    pub parts: Vec<Part>,
    pub is_error: bool,
    /// It answers a custom tool's call.
    pub custom: bool,
}

/// Where a claim comes from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Citation {
    pub url: Option<String>,
    pub title: Option<String>,
    /// The words cited.
    pub quote: Option<String>,
    /// The characters of the answer that it supports.
    pub start: Option<u64>,
    pub end: Option<u64>,
    /// The citation as its dialect spells it.
    pub original: Option<Opaque>,
}

/// Something a model may call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Tool {
    Function {
        name: String,
        description: Option<String>,
        /// JSON Schema of the arguments; `None` when the client gave none.
        schema: Option<Value>,
        /// The arguments must follow the schema to the letter.
        strict: Option<bool>,
        cache: Option<CacheMark>,
    },
    /// A tool whose input is free text, perhaps by a grammar (OpenAI's custom tools).
    Custom { name: String, description: Option<String>, format: Option<Value> },
    /// Run by the provider itself: web search, code execution. Only its own dialect can say it.
    Hosted(Foreign),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum ToolChoice {
    Auto,
    None,
    /// Some tool must be called.
    Required,
    Named(String),
    /// One of these, and whether one must be called.
    Among {
        names: Vec<String>,
        required: bool,
    },
}

/// The shape that the answer must have.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum Format {
    #[default]
    Text,
    /// Any JSON object.
    JsonObject,
    JsonSchema {
        name: String,
        description: Option<String>,
        schema: Value,
        strict: Option<bool>,
    },
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    pub max_tokens: Option<u64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u64>,
    pub stop: Vec<String>,
    pub seed: Option<i64>,
    pub frequency_penalty: Option<f64>,
    pub presence_penalty: Option<f64>,
    /// How many answers are wanted.
    pub choices: Option<u32>,
    /// Log probabilities are wanted, with so many alternatives each.
    pub logprobs: Option<u32>,
    pub logit_bias: Option<Map<String, Value>>,
}

/// How much a model should think before it speaks.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Thinking {
    pub effort: Option<Effort>,
    /// Tokens it may think; where both are said, the budget is the more exact.
    pub budget: Option<u64>,
    /// The client wants to see thoughts or a summary of them. `None`: as the provider does.
    pub visible: Option<bool>,
    /// Which summary, as OpenAI spells it: `auto`, `concise`, `detailed`.
    pub summary: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Effort {
    /// Thinking is off.
    None,
    Minimal,
    Low,
    Medium,
    High,
    /// OpenAI's `xhigh`.
    Highest,
    /// Anthropic's `max`: no bound.
    Max,
}

/// A whole answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChatResponse {
    /// The upstream's id; empty where it gave none.
    pub id: String,
    /// The model that answered, as its provider spells it; empty where it did not say.
    pub model: String,
    /// Seconds since 1970.
    pub created: Option<u64>,
    pub choices: Vec<Choice>,
    pub usage: Option<Usage>,
    pub service_tier: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    pub parts: Vec<Part>,
    pub finish: Finish,
    /// As OpenAI spells them: `{"content": […], "refusal": …}`.
    pub logprobs: Option<Value>,
}

/// Why an answer ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Finish {
    pub reason: FinishReason,
    /// The stop sequence that was met.
    pub stop_sequence: Option<String>,
    /// What else the provider says of the end (Anthropic's `stop_details`), as it spells it.
    pub details: Option<Opaque>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinishReason {
    /// The model was done, or met a stop sequence.
    #[default]
    Stop,
    /// `max_tokens` was reached.
    Length,
    /// The model's context is full.
    ContextFull,
    ToolCalls,
    /// The provider's filter stopped the answer.
    ContentFilter,
    /// The model declined.
    Refusal,
    /// A long turn paused; the client is to send it back to go on (Anthropic's `pause_turn`).
    Pause,
    /// The model broke its own rules of writing: a malformed tool call.
    Malformed,
}

// === impl FinishReason ===

impl FinishReason {
    /// What OpenTelemetry's conventions call it.
    pub fn traced_as(self) -> &'static str {
        match self {
            Self::Stop | Self::Pause => "stop",
            Self::Length | Self::ContextFull => "length",
            Self::ToolCalls => "tool_call",
            Self::ContentFilter | Self::Refusal => "content_filter",
            Self::Malformed => "error",
        }
    }
}

// === impl Part ===

impl Part {
    pub fn new(content: Content) -> Self {
        Self { content, cache: None, opaque: None }
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::new(Content::Text { text: text.into(), citations: Vec::new() })
    }

    pub fn as_text(&self) -> Option<&str> {
        match &self.content {
            Content::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The opaque state, if `dialect` can read it.
    pub fn opaque_for(&self, dialect: Dialect) -> Option<&Value> {
        self.opaque.as_ref().filter(|opaque| opaque.dialect == dialect).map(|opaque| &opaque.data)
    }
}

impl Message {
    pub fn new(role: Role, parts: Vec<Part>) -> Self {
        Self { role, parts, name: None }
    }

    /// All its text, pieces joined by nothing.
    pub fn text(&self) -> String {
        self.parts.iter().filter_map(Part::as_text).collect()
    }
}

impl Source {
    /// What the message itself holds. Pictures get the names that all providers know: clients also
    /// write `image/jpg`, or capitals.
    pub fn base64(media_type: &str, data: impl Into<String>) -> Self {
        let lower = media_type.to_ascii_lowercase();
        let media_type = match lower.as_str() {
            "image/jpg" => "image/jpeg".to_owned(),
            picture if picture.starts_with("image/") => lower,
            _ => media_type.to_owned(),
        };
        Self::Base64 { media_type, data: data.into() }
    }
}

impl Media {
    pub fn new(kind: MediaKind, source: Source) -> Self {
        Self { kind, source, name: None, detail: None, transcript: None, citable: false }
    }
}

// === impl Thinking ===

impl Thinking {
    /// The client wants no thinking.
    pub fn is_off(&self) -> bool {
        self.effort == Some(Effort::None) || self.budget == Some(0)
    }

    /// How much it may think, for an API that tells it by effort.
    pub fn as_effort(&self) -> Option<Effort> {
        if self.is_off() {
            return Some(Effort::None);
        }
        self.effort.or_else(|| self.budget.map(Effort::of_budget))
    }
}

// === impl Effort ===

impl Effort {
    pub const ALL: [(Self, &'static str); 7] = [
        (Self::None, "none"),
        (Self::Minimal, "minimal"),
        (Self::Low, "low"),
        (Self::Medium, "medium"),
        (Self::High, "high"),
        (Self::Highest, "xhigh"),
        (Self::Max, "max"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(effort, _)| *effort == self).map_or("medium", |(_, name)| name)
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == name).map(|(effort, _)| *effort)
    }

    /// Tokens of thought for an API that counts them; 0 turns it off.
    pub fn budget(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Minimal => 1024,
            Self::Low => 2048,
            Self::Medium => 8192,
            Self::High => 16_384,
            Self::Highest => 32_768,
            Self::Max => 65_536,
        }
    }

    /// The effort that comes closest to so many tokens of thought.
    pub fn of_budget(tokens: u64) -> Self {
        match tokens {
            0 => Self::None,
            1..=1535 => Self::Minimal,
            1536..=4096 => Self::Low,
            4097..=12_288 => Self::Medium,
            12_289..=24_576 => Self::High,
            24_577..=49_152 => Self::Highest,
            _ => Self::Max,
        }
    }
}
