//! How one server departs from the dialect it speaks, as data of its catalogue row.

use super::marks::Mark;
use super::messages::Betas;
use super::openai::family::{self, Words};
use crate::canon::Effort;

/// What a question's writer must know of a server besides its dialect.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, written by name in rows")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traits {
    /// The model stands in the path and not in the body.
    pub model_in_path: bool,
    /// Which values of Anthropic's beta header it takes.
    pub betas: Betas,
    /// The header that says how urgent a question is, where Gemini's body may not.
    pub tier_header: Option<&'static str>,
    /// What the limit of the answer's tokens is called.
    pub max_tokens: &'static str,
    /// What the seed is called.
    pub seed: &'static str,
    /// The role `developer` is known; a system message says the same elsewhere.
    pub developer: bool,
    /// What OpenAI calls by newer names (`developer`, `max_completion_tokens`) is taken as well, or
    /// nobody knows which server it is.
    pub lenient: bool,
    /// A user may not speak right behind a tool, and a turn of the model that is to be carried on
    /// must say `prefix`.
    pub strict_turns: bool,
    /// The tool calls of whole answers do not say of which type they are.
    pub bare_calls: bool,
    /// Ids of tool calls must be nine letters and digits.
    pub short_ids: bool,
    /// The text of a message must be one string and not a list of parts.
    pub flat_text: bool,
    /// Tools that take free text are known; elsewhere they are functions with one string.
    pub custom_tools: bool,
    /// Images are fetched from URLs; where false only base64 is taken.
    pub image_urls: bool,
    /// Prompt cache breakpoints are taken as `cache_control` on parts and tools.
    pub cache_control: bool,
    pub json: JsonMode,
    pub documents: Documents,
    pub effort: EffortField,
    pub thoughts: Thoughts,
    /// Fields that are refused with an error or have no effect: left out and named to the client.
    pub refused: &'static [&'static str],
    /// What stands in a question that would be refused as it is, besides what the others tell.
    pub stumbles: &'static [Mark],
    /// Models that answer with thoughts unasked, by what their names hold.
    pub thinkers: &'static [&'static str],
}

/// Which shapes of answer can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonMode {
    /// `json_object` and `json_schema`.
    Both,
    /// `json_object`; a schema is told to the model in a system message.
    ObjectOnly,
    /// `json_schema`; any object is asked for by a schema that says so.
    SchemaOnly,
}

/// How documents are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Documents {
    /// `file` parts with the data inside.
    File,
    /// The same, and a URL in the data's place.
    FileOrUrl,
    /// Mistral's `document_url` parts.
    DocumentUrl,
}

/// How a server is told how much to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffortField {
    /// Not at all.
    Unknown,
    /// `reasoning_effort` with one of the words that the model takes; the nearest is taken. The
    /// first row counts that the model's name begins with.
    Effort(&'static [(&'static str, Words)]),
    /// OpenRouter's `reasoning` object.
    Reasoning,
    /// `thinking: {type: enabled | disabled}`, and `reasoning_effort` with one of these words.
    Thinking(Words),
    /// Alibaba's `enable_thinking` and `thinking_budget`.
    EnableThinking,
}

/// How a model's earlier thoughts are given back to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thoughts {
    /// Not at all.
    Unknown,
    /// As text in this field of the message.
    Field(&'static str),
    /// OpenRouter's `reasoning` and `reasoning_details`.
    Details,
    /// Mistral's `thinking` parts in the content.
    Parts,
}

/// The words that servers with one scale for all models take.
pub const EFFORTS: Words = &["none", "low", "medium", "high"];

// === impl EffortField ===

impl EffortField {
    /// The words that a model takes, where it is told by words alone.
    pub(super) fn words(self, model: &str) -> Option<Words> {
        let Self::Effort(rows) = self else { return None };
        let name = family::bare(model);
        let row = rows.iter().find(|(begins, _)| name.starts_with(begins));
        Some(row.map_or(EFFORTS, |(_, words)| words))
    }
}

/// The word that comes nearest to an effort: the next lower, else the next higher. Says besides
/// whether the wish is lost: there is no word at all, or none for no thinking.
pub(super) fn nearest(words: Words, effort: Effort) -> (Option<&'static str>, bool) {
    let known = words.iter().filter_map(|word| Some((Effort::parse(word)?, *word)));
    let off = effort == Effort::None;
    if off && words.contains(&"none") {
        return (Some("none"), false);
    }
    let thinking = known.filter(|(known, _)| *known != Effort::None);
    let lower = thinking.clone().filter(|(known, _)| *known <= effort).max_by_key(|(e, _)| *e);
    let found = lower.or_else(|| thinking.min_by_key(|(known, _)| *known)).map(|(_, word)| word);
    (found, off || found.is_none())
}

// === impl Traits ===

impl Traits {
    /// The dialect as its inventor speaks it.
    pub const NONE: Self = Self {
        model_in_path: false,
        betas: Betas::All,
        tier_header: None,
        max_tokens: "max_completion_tokens",
        seed: "seed",
        developer: true,
        lenient: true,
        strict_turns: false,
        bare_calls: false,
        short_ids: false,
        flat_text: false,
        custom_tools: true,
        image_urls: true,
        cache_control: false,
        json: JsonMode::Both,
        documents: Documents::File,
        effort: EffortField::Effort(family::EFFORTS),
        thoughts: Thoughts::Unknown,
        refused: &["top_k"],
        stumbles: &[],
        thinkers: &[],
    };

    /// What most servers that follow OpenAI have in common.
    pub const FOLLOWER: Self = Self {
        max_tokens: "max_tokens",
        developer: false,
        lenient: false,
        custom_tools: false,
        effort: EffortField::Effort(&[("", EFFORTS)]),
        refused: &[
            "allowed_tools",
            "refusal",
            "verbosity",
            "metadata",
            "service_tier",
            "prompt_cache_key",
            "audio",
        ],
        ..Self::NONE
    };

    /// A server of which nothing more is known, or one that takes what is new at OpenAI too.
    pub const LENIENT: Self = Self { lenient: true, ..Self::FOLLOWER };
}
