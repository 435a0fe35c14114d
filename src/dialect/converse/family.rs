//! What each family of models takes of Converse, which promises more than any one of them keeps.

use crate::dialect::messages::{self, Thinks as Claude};

/// How a family is asked to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Thinks {
    /// Not at all, or as it likes.
    Unasked,
    /// As Anthropic's API has it.
    Claude(Claude),
    /// Nova 2: `reasoningConfig`.
    Nova,
    /// OpenAI's open models: `reasoning_effort`.
    OpenAi,
    /// Qwen: `reasoning_config`.
    Qwen,
}

/// Which `toolChoice` a family takes, besides `auto`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forces {
    Nothing,
    /// Some tool, but not which.
    Any,
    All,
}

/// Where `top_k` goes in `additionalModelRequestFields`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TopK {
    Nowhere,
    Field(&'static str),
    /// Below `inferenceConfig`, as Nova wants it.
    Inference,
}

/// Where prompt cache breakpoints may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Caches {
    Nothing,
    /// In what is said, for five minutes.
    Messages,
    /// Also behind tools, and for an hour.
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Family {
    /// What its models' ids contain.
    mark: &'static str,
    pub(super) thinks: Thinks,
    pub(super) forces: Forces,
    pub(super) top_k: TopK,
    pub(super) caches: Caches,
    /// Takes schemas to the letter, for answers and for tools.
    pub(super) strict: bool,
    /// Follows references within a tool's schema.
    pub(super) references: bool,
    /// Wants its own thoughts back without a signature.
    pub(super) unsigned_thoughts: bool,
}

/// What an unknown model is taken to be: able, and told nothing that only one family knows.
const OTHER: Family = Family {
    mark: "",
    thinks: Thinks::Unasked,
    forces: Forces::All,
    top_k: TopK::Nowhere,
    caches: Caches::All,
    strict: true,
    references: true,
    unsigned_thoughts: false,
};

/// Known families whose caches are not theirs to steer.
const PLAIN: Family = Family { caches: Caches::Nothing, ..OTHER };

const CLAUDE: Family = Family { mark: "anthropic.claude", top_k: TopK::Field("top_k"), ..OTHER };

const NOVA: Family = Family {
    mark: "amazon.nova",
    top_k: TopK::Inference,
    caches: Caches::Messages,
    strict: false,
    references: false,
    ..OTHER
};

/// The first that matches counts.
const FAMILIES: [Family; 13] = [
    CLAUDE,
    Family { mark: "amazon.nova-2", thinks: Thinks::Nova, ..NOVA },
    NOVA,
    Family { mark: "openai.", thinks: Thinks::OpenAi, ..PLAIN },
    Family { mark: "qwen.", thinks: Thinks::Qwen, ..PLAIN },
    Family {
        mark: "deepseek.r1",
        forces: Forces::Nothing,
        strict: false,
        unsigned_thoughts: true,
        ..PLAIN
    },
    Family { mark: "mistral.", forces: Forces::Any, top_k: TopK::Field("top_k"), ..PLAIN },
    Family { mark: "meta.llama", forces: Forces::Nothing, strict: false, ..PLAIN },
    Family {
        mark: "cohere.",
        forces: Forces::Nothing,
        top_k: TopK::Field("k"),
        strict: false,
        ..PLAIN
    },
    Family { mark: "ai21.", forces: Forces::Nothing, strict: false, ..PLAIN },
    Family { mark: "writer.", forces: Forces::Nothing, strict: false, ..PLAIN },
    Family { mark: "amazon.titan", forces: Forces::Nothing, strict: false, ..PLAIN },
    Family { mark: "kimi", ..PLAIN },
];

// === impl Family ===

impl Family {
    /// The family of a model, by its id or the ARN of one of its profiles.
    pub(super) fn of(model: &str) -> Self {
        let found = FAMILIES.iter().find(|family| model.contains(family.mark));
        let family = *found.unwrap_or(&OTHER);
        if !family.is_claude() {
            return family;
        }
        let known = messages::family(model);
        Self {
            thinks: Thinks::Claude(known.thinking),
            forces: if known.forced { Forces::All } else { Forces::Nothing },
            strict: claude_version(model) >= (4, 5),
            ..family
        }
    }

    pub(super) fn is_claude(&self) -> bool {
        self.mark == CLAUDE.mark
    }

    /// Refuses a temperature and `top_p` in one question.
    pub(super) fn wants_one_of_temperature_and_top_p(&self, model: &str) -> bool {
        self.is_claude() && claude_version(model) >= (4, 1)
    }

    /// Has given up temperature, `top_p` and `top_k`.
    pub(super) fn has_no_sampling(&self) -> bool {
        let Thinks::Claude(thinks) = self.thinks else { return false };
        !matches!(thinks, Claude::Never | Claude::Budget | Claude::Either)
    }
}

/// The version in a Claude's id: (3, 7) of `claude-3-7-sonnet-20250219-v1:0`, (4, 0) of
/// `claude-opus-4-20250514-v1:0`. One without numbers is newer than all that have them.
fn claude_version(model: &str) -> (u32, u32) {
    let name = model.rsplit("claude").next().unwrap_or_default();
    // Longer numbers are dates.
    let mut numbers = name
        .split(['-', ':', '.'])
        .skip_while(|word| !is_number(word))
        .map_while(|word| is_number(word).then(|| word.parse().ok())?);
    match (numbers.next(), numbers.next()) {
        (None, _) if name.starts_with("-v2") || name.starts_with("-instant") => (2, 0),
        (None, _) => (u32::MAX, 0),
        (Some(major), minor) => (major, minor.unwrap_or(0)),
    }
}

fn is_number(word: &str) -> bool {
    (1..=2).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claude_is_known_by_its_version_whatever_stands_around_it() {
        for (model, expected) in [
            ("us.anthropic.claude-3-7-sonnet-20250219-v1:0", (3, 7)),
            ("anthropic.claude-3-5-sonnet-20241022-v2:0", (3, 5)),
            ("anthropic.claude-3-sonnet-20240229-v1:0", (3, 0)),
            ("anthropic.claude-opus-4-20250514-v1:0", (4, 0)),
            ("global.anthropic.claude-sonnet-4-5-20250929-v1:0", (4, 5)),
            ("anthropic.claude-opus-4-6-v1", (4, 6)),
            ("anthropic.claude-mythos-preview", (u32::MAX, 0)),
        ] {
            assert_eq!(claude_version(model), expected, "{model}");
        }
        let thinks = |model| Family::of(model).thinks;
        assert_eq!(thinks("anthropic.claude-v2:1"), Thinks::Claude(Claude::Never));
        assert_eq!(thinks("us.anthropic.claude-opus-4-6-v1"), Thinks::Claude(Claude::Either));
        assert_eq!(Family::of("us.amazon.nova-2-lite-v1:0").thinks, Thinks::Nova);
        assert_eq!(Family::of("us.amazon.nova-lite-v1:0").thinks, Thinks::Unasked);
        assert_eq!(Family::of("brand-new.model").forces, Forces::All);
    }
}
