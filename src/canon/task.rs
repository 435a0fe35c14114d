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

/// What the kinds are called, and what else people call them.
const NAMES: [(Task, &[&str]); Task::ALL.len()] = [
    (Task::Code, &["code", "coding", "programming", "code_generation"]),
    (Task::Reasoning, &["reasoning", "reason", "math", "maths", "analysis", "planning"]),
    (Task::Classification, &["classification", "classify", "labelling", "labeling", "sentiment"]),
    (Task::Extraction, &["extraction", "extract", "structured", "parsing"]),
    (Task::Summarisation, &["summarisation", "summarization", "summary", "summarise", "summarize"]),
    (Task::Translation, &["translation", "translate"]),
    (Task::Creative, &["creative", "creative_writing", "writing", "story"]),
    (Task::Document, &["document", "documents", "long", "long_context", "document_qa"]),
    (Task::Vision, &["vision", "image", "images", "multimodal"]),
    (Task::Tools, &["tools", "tool", "tool_use", "tool_calling", "function_calling", "agent"]),
    (Task::Chat, &["chat", "general", "conversation", "qa", "question_answering"]),
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
        self.names()[0]
    }

    /// Its name, and what else people call it.
    pub fn names(self) -> &'static [&'static str] {
        NAMES[self as usize].1
    }

    /// The one of this name or of a usual synonym, in any case, with `-`, `_` or a space.
    pub fn parse(name: &str) -> Option<Self> {
        let plain = name.trim().to_lowercase().replace(['-', ' '], "_");
        let known = NAMES.iter().find(|(_, names)| names.contains(&plain.as_str()));
        known.map(|(task, _)| *task)
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
            assert_eq!(NAMES[task as usize].0, task);
        }
        assert_eq!(Task::parse("Creative Writing"), Some(Task::Creative));
        assert_eq!(Task::parse("tool-use"), Some(Task::Tools));
        assert_eq!(Task::parse("cooking"), None);
    }
}
