//! What became of each setting of the other gateway that is not simply the same here.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::config::Secret;

/// What became of a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Somebody has to do something before it works.
    Todo,
    /// It is here, and means something else or is named otherwise.
    Changed,
    /// It is not here; the line says what to do instead.
    Lost,
    /// Nobody here has heard of it.
    Unknown,
}

/// Gathers the lines, in the order in which the file is read. They name settings by their path and
/// never repeat a value that could be secret.
#[derive(Debug, Default)]
pub(super) struct Report {
    lines: RefCell<Vec<(Fate, String, String)>>,
    variables: RefCell<BTreeSet<String>>,
    /// Secrets that stood in the file, and the variables that are to hold them.
    secrets: RefCell<Vec<(Secret, String)>>,
}

// === impl Fate ===

impl Fate {
    const ALL: [Self; 4] = [Self::Todo, Self::Changed, Self::Lost, Self::Unknown];

    fn name(self) -> &'static str {
        match self {
            Self::Todo => "todo",
            Self::Changed => "changed",
            Self::Lost => "lost",
            Self::Unknown => "unknown",
        }
    }
}

// === impl Report ===

impl Report {
    pub(super) fn todo(&self, path: &str, text: impl Into<String>) {
        self.note(Fate::Todo, path, text.into());
    }

    pub(super) fn changed(&self, path: &str, text: impl Into<String>) {
        self.note(Fate::Changed, path, text.into());
    }

    pub(super) fn lost(&self, path: &str, text: impl Into<String>) {
        self.note(Fate::Lost, path, text.into());
    }

    pub(super) fn unknown(&self, path: &str) {
        let text = "this importer does not know it, so nothing came of it";
        self.note(Fate::Unknown, path, text.to_owned());
    }

    fn note(&self, fate: Fate, path: &str, text: String) {
        let mut lines = self.lines.borrow_mut();
        let line = (fate, path.to_owned(), text);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }

    /// The config reads this environment variable.
    pub(super) fn needs(&self, variable: &str) {
        self.variables.borrow_mut().insert(variable.to_owned());
    }

    /// The variable for a secret that stood in the file: the same for the same secret.
    pub(super) fn variable_for(&self, secret: &str, usual: &str) -> String {
        let mut secrets = self.secrets.borrow_mut();
        let known = secrets.iter().find(|(known, _)| known.expose() == secret);
        if let Some((_, variable)) = known {
            return variable.clone();
        }
        let first = format!("IMPORTED_{usual}");
        let others = (2..).map(|number| format!("{first}_{number}"));
        let taken = |name: &String| secrets.iter().any(|(_, variable)| variable == name);
        let free = std::iter::once(first.clone()).chain(others).find(|name| !taken(name));
        let variable = free.unwrap_or(first);
        secrets.push((Secret::new(secret), variable.clone()));
        variable
    }

    /// The variables that the config reads.
    pub(super) fn variables(&self) -> Vec<String> {
        self.variables.borrow().iter().cloned().collect()
    }

    /// A line for each, and what they come to.
    pub(super) fn write(&self) -> String {
        let mut text = String::new();
        let lines = self.lines.borrow();
        for (fate, path, what) in lines.iter() {
            let _ = writeln!(text, "{:<8} {path}: {what}", fate.name());
        }
        let counts = Fate::ALL.map(|fate| {
            let count = lines.iter().filter(|(other, ..)| *other == fate).count();
            format!("{count} {}", fate.name())
        });
        let _ = writeln!(text, "{}", counts.join(", "));
        let variables = self.variables();
        if !variables.is_empty() {
            let _ = writeln!(text, "set before it starts: {}", variables.join(", "));
        }
        text
    }
}
