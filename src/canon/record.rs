//! The finished call as one row; the access log, the metrics and the ledger are all cut from it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use super::{CallId, Dialect, FinishReason, Money, Sampling, Task, Trace, Usage};

/// What kind of question a call asks: one door of ours each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Surface {
    Chat,
    Completions,
    Embeddings,
    /// The same at Google's doors.
    GoogleEmbeddings,
    Responses,
    Messages,
    Generate,
    /// The same, streamed as one JSON array.
    GenerateArray,
    /// How many tokens a question has, by Anthropic's, Google's and OpenAI's doors.
    CountTokens,
    Images,
    Speech,
    Transcriptions,
    Moderations,
    Rerank,
    Files,
    Batches,
    GoogleCountTokens,
    InputTokens,
    /// Makes a conversation of the responses API shorter.
    Compact,
    /// Asks how a call would go, whatever the door that it would come in by.
    Explain,
    /// No door: the run of an agent asks a model.
    Turn,
    /// A run is asked for otherwise than as a model.
    Run,
    /// A tool is called without a run.
    Tool,
}

impl Surface {
    pub const ALL: [Self; 23] = [
        Self::Chat,
        Self::Completions,
        Self::Embeddings,
        Self::GoogleEmbeddings,
        Self::Responses,
        Self::Messages,
        Self::Generate,
        Self::GenerateArray,
        Self::CountTokens,
        Self::Images,
        Self::Speech,
        Self::Transcriptions,
        Self::Moderations,
        Self::Rerank,
        Self::Files,
        Self::Batches,
        Self::GoogleCountTokens,
        Self::InputTokens,
        Self::Compact,
        Self::Explain,
        Self::Turn,
        Self::Run,
        Self::Tool,
    ];

    /// Its name in metrics, logs and the ledger.
    pub fn name(self) -> &'static str {
        match self {
            Self::Chat => "chat",
            Self::Completions => "completions",
            Self::Embeddings | Self::GoogleEmbeddings => "embeddings",
            Self::Responses => "responses",
            Self::Messages => "messages",
            Self::Generate | Self::GenerateArray => "generate_content",
            Self::CountTokens | Self::GoogleCountTokens | Self::InputTokens => "count_tokens",
            Self::Compact => "compact",
            Self::Explain => "explain",
            Self::Turn => "agent_turn",
            Self::Run => "agent_run",
            Self::Tool => "tool_call",
            Self::Images => "images",
            Self::Speech => "speech",
            Self::Transcriptions => "transcriptions",
            Self::Moderations => "moderations",
            Self::Rerank => "rerank",
            Self::Files => "files",
            Self::Batches => "batches",
        }
    }

    /// Whether a chat is asked for here, and not something about one.
    pub fn is_chat(self) -> bool {
        matches!(
            self,
            Self::Chat
                | Self::Responses
                | Self::Messages
                | Self::Generate
                | Self::GenerateArray
                | Self::Turn
                | Self::Run
        )
    }

    /// Whether a question is text that its target reads, so that its length tells what it used
    /// where nobody says so. What a form holds is not.
    pub fn reads_text(self) -> bool {
        let reads = matches!(
            self,
            Self::Completions
                | Self::Embeddings
                | Self::GoogleEmbeddings
                | Self::Compact
                | Self::Speech
                | Self::Moderations
                | Self::Rerank
        );
        reads || self.is_chat()
    }

    pub fn counts_tokens(self) -> bool {
        matches!(self, Self::CountTokens | Self::GoogleCountTokens | Self::InputTokens)
    }

    /// The dialect that questions come in here; `None` where they are no chats, or have a dialect
    /// of their own.
    pub fn dialect(self) -> Option<Dialect> {
        match self {
            Self::Chat => Some(Dialect::Chat),
            Self::Responses | Self::InputTokens | Self::Compact => Some(Dialect::Responses),
            Self::Messages | Self::CountTokens => Some(Dialect::Messages),
            Self::Generate | Self::GenerateArray | Self::GoogleCountTokens => Some(Dialect::Gemini),
            Self::Completions
            | Self::Embeddings
            | Self::GoogleEmbeddings
            | Self::Images
            | Self::Speech
            | Self::Transcriptions
            | Self::Moderations
            | Self::Rerank
            | Self::Files
            | Self::Batches
            | Self::Explain
            | Self::Turn
            | Self::Run
            | Self::Tool => None,
        }
    }
}

/// How a call, or one attempt of it, ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Ok,
    ClientClosed,
    UpstreamTruncated,
    UpstreamError,
    Timeout,
    RateLimited,
    BudgetExceeded,
    GuardBlocked,
    Refused,
    Internal,
}

impl Outcome {
    pub const ALL: [Self; 10] = [
        Self::Ok,
        Self::ClientClosed,
        Self::UpstreamTruncated,
        Self::UpstreamError,
        Self::Timeout,
        Self::RateLimited,
        Self::BudgetExceeded,
        Self::GuardBlocked,
        Self::Refused,
        Self::Internal,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::ClientClosed => "client_closed",
            Self::UpstreamTruncated => "upstream_truncated",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::RateLimited => "rate_limited",
            Self::BudgetExceeded => "budget_exceeded",
            Self::GuardBlocked => "guard_blocked",
            Self::Refused => "refused",
            Self::Internal => "internal",
        }
    }

    /// The one of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// Where the token counts of a record come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    Provider,
    /// Counted by the gateway: the provider reported nothing, or the call ended before it did.
    Estimated,
    None,
}

impl UsageSource {
    pub const ALL: [Self; 3] = [Self::Provider, Self::Estimated, Self::None];

    pub fn name(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Estimated => "estimated",
            Self::None => "none",
        }
    }

    /// The one of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.name() == name)
    }
}

/// One request to one upstream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub provider: Arc<str>,
    pub model: Arc<str>,
    pub outcome: Outcome,
    /// The upstream's HTTP status, 0 when none arrived.
    pub status: u16,
    pub elapsed: Duration,
    /// What it used, by estimate, where another attempt took its place: it lost a race, or its
    /// stream broke. What the last attempt used stands in the record.
    pub usage: Option<Usage>,
    /// What that cost; `None` where nothing was used or nobody knows the price.
    pub cost: Option<Money>,
    /// Only of a call that has just been made.
    #[serde(skip)]
    pub leg: Leg,
}

/// What a trace tells of an attempt besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Leg {
    /// The place of its target in the chain.
    pub place: u16,
    /// How long after the arrival of the call it left.
    pub began: Duration,
    /// What traces call providers of this kind.
    pub system: &'static str,
    /// Its host and port; only of what is traced.
    pub server: Option<(Arc<str>, u16)>,
}

/// What the cache had to do with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheUse {
    /// It was not asked.
    Off,
    /// It had no answer.
    Miss,
    /// The answer to the same question, or one that is being given to somebody else.
    Hit,
    /// The answer to a similar question.
    Semantic,
}

impl CacheUse {
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Miss => "miss",
            Self::Hit => "hit",
            Self::Semantic => "semantic",
        }
    }
}

/// Who wanted a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    Client,
    /// The gateway itself, to tell what kind of work another call is.
    Classifier,
    /// The gateway itself, to compare a target with the one that answered.
    Shadow,
    /// An operator, to know whether a target answers.
    Drill,
    /// The gateway itself, to have a text judged.
    Guard,
    /// The gateway itself, to find answers to similar questions.
    Cache,
    /// The run of an agent, for its caller.
    Agent,
}

impl Purpose {
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Classifier => "classifier",
            Self::Shadow => "shadow",
            Self::Drill => "drill",
            Self::Guard => "guard",
            Self::Cache => "cache",
            Self::Agent => "agent",
        }
    }

    /// Whether a caller wants it, at once or by a run: then all that is said of the caller holds.
    pub fn is_callers(self) -> bool {
        matches!(self, Self::Client | Self::Agent)
    }
}

/// What a guard had to say of a call. Never a word of the call itself.
#[derive(Debug, Clone, PartialEq)]
pub struct GuardNote {
    pub guard: String,
    /// Which texts it looked at.
    pub stage: &'static str,
    /// What was done: block, mask, log or flag; `dry_run` where it was not; `failed_closed` and
    /// `failed_open` where it could not look, `skipped` where nobody could.
    pub action: &'static str,
    /// How often each kind of thing was found.
    pub found: BTreeMap<String, u32>,
    pub score: Option<f32>,
    pub scanned_bytes: u64,
    pub failure: Option<String>,
}

/// What came of a guard that asked somebody, once.
#[derive(Debug, Clone, PartialEq)]
pub struct Consultation {
    /// Of this alone.
    pub note: GuardNote,
    /// Whom guards of this kind ask.
    pub kind: &'static str,
    /// Which one of the call's it is: its span is known by that.
    pub number: u32,
    /// How long after the arrival of the call it was asked.
    pub began: Duration,
    pub elapsed: Duration,
}

/// A place in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunPart {
    /// Of the agent.
    pub version: Arc<str>,
    /// The number of the step that asks; none where a client asks for the run.
    pub step: Option<u32>,
}

/// The finished call.
#[derive(Debug, Clone)]
pub struct CallRecord {
    pub id: CallId,
    pub at: SystemTime,
    pub surface: Surface,
    pub stream: bool,
    /// The name of the virtual key in the config; never its secret.
    pub key: Option<Arc<str>>,
    /// Whose key it is, as far as the config says.
    pub team: Option<Arc<str>>,
    pub user: Option<Arc<str>>,
    pub org: Option<Arc<str>>,
    /// The route, or `direct` for `provider/model`; never what the client wrote.
    pub route: Option<Arc<str>>,
    pub attempts: Vec<Attempt>,
    pub outcome: Outcome,
    /// The HTTP status sent to the client, 0 when the client left before one was.
    pub status: u16,
    pub usage: Usage,
    pub usage_source: UsageSource,
    /// What all attempts cost together; `None` where nothing was used or nobody knows the price.
    pub cost: Option<Money>,
    /// The tokens of all attempts as budgets count them.
    pub counted: u64,
    /// When budgets counted it.
    pub settled_at: SystemTime,
    /// What its key and its client marked it with.
    pub tags: BTreeMap<Box<str>, Box<str>>,
    pub duration: Duration,
    pub first_token: Option<Duration>,
    /// Time spent in the gateway before the first request to an upstream left.
    pub overhead: Duration,
    pub generation: u64,
    /// Fields of the question that the target could not take.
    pub dropped: Vec<Cow<'static, str>>,
    /// Stream events that made no sense and were skipped.
    pub malformed_events: u32,
    /// What kind of work it was, where the route asked.
    pub task: Option<Task>,
    /// Where in a run it stands, if it has to do with one.
    pub part: Option<Box<RunPart>>,
    pub purpose: Purpose,
    /// Who said which kind of work it is.
    pub task_by: Option<&'static str>,
    /// Targets that were not asked.
    pub skipped: Vec<Skipped>,
    /// Why the answer ended, as far as anybody looked.
    pub finish: Option<FinishReason>,
    /// `None` where nothing is traced.
    pub trace: Option<Trace>,
    /// `None` where nothing is traced.
    pub exchange: Option<Box<Exchange>>,
    /// Only where traces show it.
    pub shown: Option<Box<Shown>>,
    /// What each guard said that looked at it.
    pub guards: Vec<GuardNote>,
    /// Those of them who asked somebody; only where traces show it.
    pub consulted: Vec<Consultation>,
    /// `None` where nothing is remembered in any case.
    pub cache: Option<CacheUse>,
    /// How similar the most similar question was that was answered before.
    pub similarity: Option<f32>,
}

/// What traces tell of a question and its answer, whatever was said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exchange {
    /// How the answer is drawn, and how many tokens it may have at most.
    pub sampling: Sampling,
    /// What its provider calls the answer.
    pub response: Option<String>,
    /// So many pieces of the answer were searched for that.
    pub looks: u8,
}

/// What was asked and answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// As JSON, and not as a digest of it.
    pub in_full: bool,
    pub question: Option<String>,
    pub answer: Option<String>,
}

/// A target of the route that was not asked, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    pub provider: Arc<str>,
    pub model: Arc<str>,
    pub reason: &'static str,
}

impl GuardNote {
    /// Whether there is something to count.
    pub fn is_clean(&self) -> bool {
        self.found.is_empty() && self.failure.is_none()
    }

    /// What came of it: its action where there was reason for it.
    pub fn result(&self) -> &'static str {
        if self.is_clean() { "pass" } else { self.action }
    }
}

impl CallRecord {
    /// The agent whose run has made the call.
    pub fn agent(&self) -> Option<Arc<str>> {
        let agent = self.tags.get("agent").filter(|_| self.purpose == Purpose::Agent)?;
        Some(Arc::from(&**agent))
    }

    /// Whether it asks for a run, or a run has made it.
    pub fn is_of_agent(&self) -> bool {
        let is_asked = || self.route.as_deref().is_some_and(|route| route.starts_with("agent/"));
        self.purpose == Purpose::Agent || is_asked()
    }

    /// Of a call that has just come in.
    pub fn new(id: CallId, at: SystemTime, surface: Surface, generation: u64) -> Self {
        Self {
            id,
            at,
            surface,
            stream: false,
            key: None,
            team: None,
            user: None,
            org: None,
            route: None,
            attempts: Vec::new(),
            outcome: Outcome::ClientClosed,
            status: 0,
            usage: Usage::default(),
            usage_source: UsageSource::None,
            cost: None,
            counted: 0,
            settled_at: SystemTime::UNIX_EPOCH,
            tags: BTreeMap::new(),
            duration: Duration::ZERO,
            first_token: None,
            overhead: Duration::ZERO,
            generation,
            dropped: Vec::new(),
            malformed_events: 0,
            task: None,
            purpose: Purpose::Client,
            part: None,
            guards: Vec::new(),
            consulted: Vec::new(),
            task_by: None,
            skipped: Vec::new(),
            finish: None,
            exchange: None,
            trace: None,
            shown: None,
            cache: None,
            similarity: None,
        }
    }

    /// What all attempts used together.
    pub fn usage_of_all(&self) -> Usage {
        let mut sum = self.usage;
        for usage in self.attempts.iter().filter_map(|attempt| attempt.usage) {
            sum += usage;
        }
        sum
    }

    /// The attempt that answered, or the last one that tried.
    pub fn served_by(&self) -> Option<&Attempt> {
        self.attempts.last()
    }
}
