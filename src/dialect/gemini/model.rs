//! What Gemini's model families can do, told by their names.

use crate::canon::{Effort, Thinking};

/// How a family is told how much to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thought {
    /// It does not think.
    None,
    /// In tokens; `off` where none at all are allowed.
    Budget { least: u64, most: u64, off: bool },
    /// By words, the least first.
    Level(&'static [&'static str]),
}

#[expect(clippy::struct_excessive_bools, reason = "independent facts, written by name in rows")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Model {
    pub(super) thought: Thought,
    /// Takes JSON Schema in `parametersJsonSchema` and `responseJsonSchema`.
    pub(super) json_schema: bool,
    /// Has the mode `VALIDATED`: calls that keep to their schemas.
    pub(super) validated: bool,
    /// Takes functions or a shape for its answer, and refuses both together.
    pub(super) either: bool,
    /// Takes penalties for what was said already; the others refuse them.
    pub(super) penalties: bool,
    /// Wants a signature on every turn's first call, and takes media inside of tool results.
    pub(super) third: bool,
}

/// Families by what their names begin with, the more exact first.
const FAMILIES: [(&str, Model); 9] = [
    ("gemini-2.5-pro", second(Thought::Budget { least: 128, most: 32_768, off: false })),
    ("gemini-2.5-flash-lite", second(Thought::Budget { least: 512, most: 24_576, off: true })),
    ("gemini-2.5-flash-image", second(Thought::None)),
    ("gemini-2.5-flash", second(Thought::Budget { least: 1, most: 24_576, off: true })),
    ("gemini-2.5", second(Thought::None)),
    ("gemini-2", Model { validated: false, penalties: true, ..second(Thought::None) }),
    ("gemini-1", Model { penalties: true, ..OLD }),
    ("gemma", OLD),
    ("learnlm", OLD),
];

const OLD: Model = Model { json_schema: false, validated: false, ..second(Thought::None) };

/// A budget that every thinking model takes, for names that tell nothing.
const UNKNOWN: Model =
    Model { either: false, ..second(Thought::Budget { least: 512, most: 24_576, off: true }) };

const fn second(thought: Thought) -> Model {
    Model {
        thought,
        json_schema: true,
        validated: true,
        either: true,
        penalties: false,
        third: false,
    }
}

// === impl Model ===

impl Model {
    pub(super) fn of(name: &str) -> Self {
        let name = name.rsplit('/').next().unwrap_or(name);
        if let Some(levels) = levels(name) {
            return Self { thought: Thought::Level(levels), third: true, ..UNKNOWN };
        }
        let family = FAMILIES.iter().find(|(start, _)| name.starts_with(start));
        family.map_or(UNKNOWN, |(_, model)| *model)
    }
}

/// The levels of the third family and those after it.
fn levels(name: &str) -> Option<&'static [&'static str]> {
    let version = name.strip_prefix("gemini-")?;
    let other = |character: char| !character.is_ascii_digit() && character != '.';
    let end = version.find(other).unwrap_or(version.len());
    let mut numbers = version[..end].split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    let (major, minor) = (numbers.next()?, numbers.next().unwrap_or(0));
    match (major, minor, name.contains("-pro")) {
        (0..=2, ..) => None,
        (3, 0, true) => Some(&["low", "high"]),
        (_, _, true) => Some(&["low", "medium", "high"]),
        _ => Some(&["minimal", "low", "medium", "high"]),
    }
}

/// How the thinking that was asked for is said to a family; the second is whether some of it is
/// lost.
pub(super) fn thinking(asked: &Thinking, thought: Thought) -> (Option<(&'static str, Said)>, bool) {
    match (thought, asked.budget, asked.effort) {
        (_, None, None) => (None, false),
        (Thought::None, budget, effort) => {
            (None, budget != Some(0) && effort != Some(Effort::None))
        }
        // Newer families take a budget for older clients' sake, but none is only a level away.
        (Thought::Level(levels), Some(0), _)
        | (Thought::Level(levels), None, Some(Effort::None)) => {
            let least = levels.first().copied().unwrap_or("low");
            (Some(("thinkingLevel", Said::Word(least))), true)
        }
        (Thought::Level(_), Some(budget), _) => {
            (Some(("thinkingBudget", Said::Number(budget))), false)
        }
        (Thought::Level(levels), None, Some(effort)) => {
            let wanted = match effort {
                Effort::None | Effort::Minimal => "minimal",
                Effort::Low => "low",
                Effort::Medium => "medium",
                Effort::High | Effort::Highest | Effort::Max => "high",
            };
            let fallback = match wanted {
                "medium" => levels.last(),
                _ => levels.first(),
            };
            let level = levels.iter().find(|level| **level == wanted).or(fallback);
            (Some(("thinkingLevel", Said::Word(level.copied().unwrap_or("high")))), false)
        }
        (Thought::Budget { least, most, off }, budget, effort) => {
            let wanted = budget.or_else(|| effort.map(Effort::budget)).unwrap_or(most);
            if wanted == 0 && off {
                return (Some(("thinkingBudget", Said::Number(0))), false);
            }
            let given = wanted.clamp(least, most);
            (Some(("thinkingBudget", Said::Number(given))), wanted == 0)
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    Word(&'static str),
    Number(u64),
}
