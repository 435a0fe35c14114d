//! `[routes.NAME]`: what clients may name as a model, and where such calls go.

use toml::de::DeValue;

use super::provider::Timeouts;
use super::reader::{Field, Section};
use super::value;

pub(super) const KEYS: &[&str] =
    &["targets", "attempts", "strict", "tool_pairs", "prompt_cache", "timeouts"];
pub(super) const PROMPT_CACHE_KEYS: &[&str] = &["system", "tools", "messages", "ttl"];
pub(super) const TARGET_KEYS: &[&str] = &["target"];

/// Targets in order of preference.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub targets: Vec<Target>,
    /// Over keys, retries and targets together.
    pub attempts: Option<u32>,
    /// A call is rather refused than sent without one of its fields.
    pub strict: bool,
    pub tool_pairs: Option<ToolPairs>,
    /// Where breakpoints of the provider's prompt cache are put, if the client set none.
    pub prompt_cache: Option<PromptCache>,
    pub timeouts: Timeouts,
}

/// What becomes of a history in which a tool call or a result stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolPairs {
    /// The call is refused.
    Strict,
    /// A stated placeholder completes the pair.
    Repair,
}

/// How long an entry of the prompt cache lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Five minutes.
    Short,
    /// An hour.
    Long,
}

/// Behind what a breakpoint of the prompt cache is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptCache {
    pub system: bool,
    pub tools: bool,
    /// The last two messages of the user.
    pub messages: bool,
    pub lifetime: Lifetime,
}

/// One model of one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub provider: String,
    pub model: String,
}

// === impl Route ===

impl Route {
    pub(super) fn read(section: &Section<'_>) -> Self {
        Self {
            targets: section.require("targets").map(|field| targets(&field)).unwrap_or_default(),
            attempts: section
                .read("attempts", |value| value::whole(value, 1..=20))
                .and_then(|attempts| u32::try_from(attempts).ok()),
            strict: section.read("strict", value::flag).unwrap_or(false),
            tool_pairs: section.read("tool_pairs", tool_pairs),
            prompt_cache: section.get("prompt_cache").and_then(|field| PromptCache::read(&field)),
            timeouts: Timeouts::read(section),
        }
    }
}

// === impl PromptCache ===

impl PromptCache {
    fn read(field: &Field<'_>) -> Option<Self> {
        let section = field.section(PROMPT_CACHE_KEYS)?;
        let flag = |key| section.read(key, value::flag).unwrap_or(true);
        Some(Self {
            system: flag("system"),
            tools: flag("tools"),
            messages: flag("messages"),
            lifetime: section.read("ttl", lifetime).unwrap_or(Lifetime::Short),
        })
    }
}

fn lifetime(value: &DeValue<'_>) -> Result<Lifetime, String> {
    match value::text(value)?.as_str() {
        "5m" => Ok(Lifetime::Short),
        "1h" => Ok(Lifetime::Long),
        other => Err(format!("{other:?} is neither \"5m\" nor \"1h\"")),
    }
}

fn tool_pairs(value: &DeValue<'_>) -> Result<ToolPairs, String> {
    match value::text(value)?.as_str() {
        "strict" => Ok(ToolPairs::Strict),
        "repair" => Ok(ToolPairs::Repair),
        other => Err(format!("{other:?} is neither \"strict\" nor \"repair\"")),
    }
}

fn targets(field: &Field<'_>) -> Vec<Target> {
    let Some(elements) = field.list() else { return Vec::new() };
    if elements.is_empty() {
        field.fail("must name at least one target");
    }
    let mut targets = Vec::new();
    for element in elements {
        let Some(target) = Target::read(&element) else { continue };
        if targets.contains(&target) {
            let Target { provider, model } = &target;
            element.fail(format!("\"{provider}/{model}\" is named twice in this route"));
        }
        targets.push(target);
    }
    targets
}

// === impl Target ===

impl Target {
    fn read(element: &Field<'_>) -> Option<Self> {
        let written = if element.is_table() {
            element.section(TARGET_KEYS)?.require("target")?.read(value::text)?
        } else {
            element.read(value::text)?
        };
        match written.split_once('/') {
            Some((provider, model)) if !provider.is_empty() && !model.is_empty() => {
                Some(Self { provider: provider.to_owned(), model: model.to_owned() })
            }
            _ => {
                element.fail(format!("{written:?} is not a target; write \"provider/model\""));
                None
            }
        }
    }
}
