//! What families of Claude models take, where the API's answer depends on the model.

use crate::canon::{Effort, Thinking};

/// What one family takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dialect) struct Family {
    /// Any part of a model's name, with `-` for `.`.
    name: &'static str,
    /// What is sent where the client bounds nothing: the API requires a bound. Never above what
    /// the family can write.
    pub(super) max_tokens: u64,
    pub(in crate::dialect) thinking: Thinks,
    /// Can be made to call a tool.
    pub(in crate::dialect) forced: bool,
    pub(super) sampling: Samples,
    /// Takes a schema for its answer (`output_config.format`) and for tools (`strict`).
    pub(super) structured: bool,
    /// Takes system messages between the others.
    pub(super) system_role: bool,
}

/// How a family is told to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::dialect) enum Thinks {
    Never,
    /// With a budget of tokens; not at all unless asked to.
    Budget,
    /// By effort, or with a budget; not at all unless asked to.
    Either,
    /// By effort only, and not at all unless asked to.
    Effort,
    /// By effort only; thinks unless told not to.
    Default,
    /// The same, but told otherwise: it goes on to think between its calls of tools.
    BetweenTools,
    /// By effort only, and cannot be told not to.
    Always,
}

/// Which sampling parameters a family takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Samples {
    Any,
    /// `temperature` or `top_p`, not both.
    One,
    /// Neither, nor `top_k`.
    None,
}

/// The API's least budget of thought.
const LEAST_BUDGET: u64 = 1024;

// === impl Family ===

impl Family {
    /// The tokens to think with, within the limit of an answer; `None` where that has no room. The
    /// budget is part of the limit and must leave something for the answer.
    pub(in crate::dialect) fn budget(&self, asked: &Thinking, limit: Option<u64>) -> Option<u64> {
        let limit = limit.unwrap_or(self.max_tokens);
        let wanted = asked.budget.or_else(|| asked.effort.map(Effort::budget));
        let wanted = wanted.unwrap_or_else(|| Effort::Medium.budget()).max(LEAST_BUDGET);
        let budget = if wanted < limit { wanted } else { limit - limit / 4 };
        (LEAST_BUDGET..limit).contains(&budget).then_some(budget)
    }
}

/// The first that fits counts; the last fits every Claude model that is newer than this table.
const FAMILIES: &[Family] = &[
    old("claude-2", 4096, Thinks::Never),
    old("claude-v2", 4096, Thinks::Never),
    old("claude-instant", 4096, Thinks::Never),
    old("claude-3-5", 8192, Thinks::Never),
    old("claude-3-7", 32_000, Thinks::Budget),
    old("claude-3-", 4096, Thinks::Never),
    structured("opus-4-1", 32_000, Thinks::Budget),
    structured("opus-4-5", 64_000, Thinks::Budget),
    structured("sonnet-4-5", 64_000, Thinks::Budget),
    structured("haiku-4-5", 64_000, Thinks::Budget),
    structured("opus-4-6", 64_000, Thinks::Either),
    structured("sonnet-4-6", 64_000, Thinks::Either),
    Family { system_role: false, ..new("opus-4-7", Thinks::Effort) },
    new("opus-4-8", Thinks::Effort),
    // The same, as some hosts turn the name around.
    structured("claude-4-5", 64_000, Thinks::Budget),
    structured("claude-4-6", 64_000, Thinks::Either),
    old("claude-4-opus", 32_000, Thinks::Budget),
    old("claude-4-sonnet", 64_000, Thinks::Budget),
    old("opus-4", 32_000, Thinks::Budget),
    old("sonnet-4", 64_000, Thinks::Budget),
    newest("opus-5-5", Thinks::Always),
    newest("sonnet-5-5", Thinks::BetweenTools),
    new("haiku-5-5", Thinks::Default),
    new("opus-5", Thinks::Default),
    new("sonnet-5", Thinks::Default),
    newest("fable-5-1", Thinks::Always),
    newest("fable-5-2", Thinks::Always),
    newest("mythos-5-1", Thinks::Always),
    newest("mythos-5-2", Thinks::Always),
    new("fable-5", Thinks::Always),
    new("mythos-5", Thinks::Always),
    newest("claude", Thinks::Always),
];

/// Other makers' models behind the same API.
const STRANGER: Family = old("", 8192, Thinks::Budget);

const fn old(name: &'static str, max_tokens: u64, thinking: Thinks) -> Family {
    let structured = false;
    Family {
        max_tokens,
        sampling: Samples::Any,
        structured,
        system_role: false,
        ..new(name, thinking)
    }
}

const fn structured(name: &'static str, max_tokens: u64, thinking: Thinks) -> Family {
    Family { max_tokens, sampling: Samples::One, system_role: false, ..new(name, thinking) }
}

const fn new(name: &'static str, thinking: Thinks) -> Family {
    let (max_tokens, sampling, forced) = (64_000, Samples::None, true);
    Family { name, max_tokens, thinking, forced, sampling, structured: true, system_role: true }
}

const fn newest(name: &'static str, thinking: Thinks) -> Family {
    Family { forced: false, ..new(name, thinking) }
}

/// The family of a model, however its host spells the name: `claude-sonnet-4-5@20250929`,
/// `eu.anthropic.claude-haiku-4-5-20251001-v1:0`, `anthropic/claude-opus-4.6`.
pub(in crate::dialect) fn family(model: &str) -> &'static Family {
    let model = model.to_ascii_lowercase().replace('.', "-");
    FAMILIES.iter().find(|family| model.contains(family.name)).unwrap_or(&STRANGER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_its_family_however_its_host_spells_it() {
        for (model, name) in [
            ("claude-3-haiku-20240307", "claude-3-"),
            ("anthropic.claude-3-5-sonnet-20241022-v2:0", "claude-3-5"),
            ("claude-opus-4-20250514", "opus-4"),
            ("claude-opus-4-1@20250805", "opus-4-1"),
            ("eu.anthropic.claude-haiku-4-5-20251001-v1:0", "haiku-4-5"),
            ("anthropic/claude-opus-4.6", "opus-4-6"),
            ("anthropic/claude-4.6-opus", "claude-4-6"),
            ("claude-4-sonnet-20250514", "claude-4-sonnet"),
            ("claude-sonnet-5-5", "sonnet-5-5"),
            ("claude-opus-5", "opus-5"),
            ("claude-fable-5-1", "fable-5-1"),
            ("global.anthropic.claude-fable-5", "fable-5"),
            ("claude-haiku-5-5", "haiku-5-5"),
            ("anthropic.claude-v2:1", "claude-v2"),
            ("anthropic.claude-mythos-preview", "claude"),
            ("glm-5", ""),
        ] {
            assert_eq!(family(model).name, name, "{model}");
        }
    }
}
