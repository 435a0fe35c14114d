//! Which kind of work a call is, from how its conversation begins. By rules, so that the same
//! words get the same answer on every machine.

mod lexicon;
mod shape;
mod tally;
mod text;

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use self::tally::{Signal, Tally};
use self::text::Text;
pub use crate::canon::Task;

/// A name that is no task's, with the nearest that is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no task; the nearest is `{nearest}`")]
pub struct Unknown {
    pub name: String,
    pub nearest: &'static str,
}

/// What the classifier sees of a conversation's beginning.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts of a request, independent of one another")]
pub struct Prompt<'a> {
    pub system: &'a str,
    /// The text of the first message of the user.
    pub user: &'a str,
    pub tools: usize,
    pub tool_choice_forced: bool,
    /// A JSON schema or JSON mode is asked for.
    pub schema: bool,
    pub images: bool,
    pub audio: bool,
    pub files: bool,
    /// The whole request, estimated.
    pub tokens: u64,
    /// Effort is asked for, or a budget for thoughts.
    pub reasoning: bool,
}

/// What kind of work it is, how sure that is, and what said so.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub task: Task,
    /// From 0 to 1. Not a probability: `switchpoint tasks eval` says how often which score is right.
    pub score: f32,
    /// The strongest signal. It bears words of our lexicon, never others of the user.
    pub reason: Cow<'static, str>,
    pub runner_up: Option<Task>,
}

/// The task of this name or of a usual synonym, in any case, with `-`, `_` or a space.
pub fn parse(name: &str) -> Result<Task, Unknown> {
    Task::parse(name).ok_or_else(|| {
        let plain = name.trim().to_lowercase().replace(['-', ' '], "_");
        Unknown { name: name.to_owned(), nearest: nearest(&plain) }
    })
}

/// The name of the task that has the synonym most like this.
fn nearest(name: &str) -> &'static str {
    let likeness = |names: &[&str]| {
        names.iter().map(|known| strsim::jaro_winkler(known, name)).fold(0.0, f64::max)
    };
    let mut best = (0.0, Task::Chat.name());
    for task in Task::ALL {
        let found = likeness(task.names());
        if found > best.0 {
            best = (found, task.name());
        }
    }
    best.1
}

// === deciding ===

/// Says which kind of work this is. Reads the first and the last 2 KiB of each text, no more.
pub fn classify(prompt: &Prompt<'_>) -> Verdict {
    let mut tally = Tally::default();
    let user = Text::new(prompt.user);
    lexicon::weigh(&user, prompt, 1.0, &mut tally);
    shape::weigh(&user, &mut tally);
    if !prompt.system.is_empty() {
        // What an application says once holds for each of its calls, if the user says nothing else.
        let system = Text::new(prompt.system);
        lexicon::weigh(&system, prompt, 0.8, &mut tally);
        shape::weigh_system(&system, &mut tally);
    }
    features(prompt, &mut tally);
    tally.verdict()
}

/// Builds the automaton that the first verdict would otherwise wait for.
pub fn prepare() {
    lexicon::prepare();
}

/// Tokens from which a call is the more about its document.
const LONG: [(u64, f32); 5] =
    [(128_000, 6.0), (64_000, 4.5), (32_000, 3.5), (16_000, 2.0), (8_000, 1.0)];

/// What the request says besides its words.
fn features(prompt: &Prompt<'_>, tally: &mut Tally) {
    if prompt.images {
        // What is said of a picture is said in words of the other tasks: "describe", "read", "find".
        tally.damp(0.6);
        tally.add(Task::Vision, 5.5, Signal::Feature("images"));
    }
    if prompt.files {
        tally.add(Task::Document, 3.5, Signal::Feature("files"));
    }
    if let Some(&(_, weight)) = LONG.iter().find(|(tokens, _)| prompt.tokens >= *tokens) {
        tally.add(Task::Document, weight, Signal::Feature("tokens"));
    }
    if prompt.tools > 0 {
        tally.add(Task::Tools, 2.5, Signal::Feature("tools"));
    }
    if prompt.tools > 0 && prompt.tool_choice_forced {
        tally.add(Task::Tools, 2.5, Signal::Feature("tool choice"));
    }
    if prompt.schema {
        tally.add(Task::Extraction, 2.0, Signal::Feature("schema"));
        tally.add(Task::Classification, 1.2, Signal::Feature("schema"));
    }
    if prompt.reasoning {
        tally.add(Task::Reasoning, 2.0, Signal::Feature("reasoning"));
    }
    tally.add(Task::Chat, 1.0, Signal::Feature("nothing else"));
    if prompt.audio {
        // Half of what is asked is not among the words.
        tally.doubt(0.7);
    }
}
