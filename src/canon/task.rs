//! The kinds of work that calls can be routed by.

use std::fmt;

/// What a call is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Task {
    Code,
    Reasoning,
    Classification,
    Extraction,
    Summarisation,
    Translation,
    Creative,
    /// Long texts.
    Document,
    Vision,
    /// Calls of tools.
    Tools,
    Chat,
}

/// Other words for them.
const SYNONYMS: &[(&str, Task)] = &[
    ("coding", Task::Code),
    ("programming", Task::Code),
    ("summarization", Task::Summarisation),
    ("summary", Task::Summarisation),
    ("creative_writing", Task::Creative),
    ("writing", Task::Creative),
    ("long", Task::Document),
    ("documents", Task::Document),
    ("image", Task::Vision),
    ("images", Task::Vision),
    ("tool_use", Task::Tools),
    ("tool", Task::Tools),
    ("function_calling", Task::Tools),
    ("classify", Task::Classification),
    ("extract", Task::Extraction),
    ("translate", Task::Translation),
    ("general", Task::Chat),
];

impl Task {
    pub const ALL: [Self; 11] = [
        Self::Code,
        Self::Reasoning,
        Self::Classification,
        Self::Extraction,
        Self::Summarisation,
        Self::Translation,
        Self::Creative,
        Self::Document,
        Self::Vision,
        Self::Tools,
        Self::Chat,
    ];

    /// Its name in configs, headers, logs and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Code => "code",
            Self::Reasoning => "reasoning",
            Self::Classification => "classification",
            Self::Extraction => "extraction",
            Self::Summarisation => "summarisation",
            Self::Translation => "translation",
            Self::Creative => "creative",
            Self::Document => "document",
            Self::Vision => "vision",
            Self::Tools => "tools",
            Self::Chat => "chat",
        }
    }

    /// The one that `text` names, in any of the usual words; case and hyphens make no difference.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase().replace(['-', ' '], "_");
        let named = Self::ALL.into_iter().find(|task| task.name() == text);
        named.or_else(|| SYNONYMS.iter().find(|(name, _)| *name == text).map(|(_, task)| *task))
    }
}

impl fmt::Display for Task {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_known_by_its_name_and_by_the_usual_others() {
        for task in Task::ALL {
            assert_eq!(Task::parse(task.name()), Some(task));
        }
        assert_eq!(Task::parse("Creative Writing"), Some(Task::Creative));
        assert_eq!(Task::parse("tool-use"), Some(Task::Tools));
        assert_eq!(Task::parse("cooking"), None);
    }
}
