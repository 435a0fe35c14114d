//! What may be said: guards look at the texts of a call, and block, mask or note what they find.
//!
//! Local guards are filters of text in pieces (`Filter`), so that they hold on streams as they do
//! on whole texts: a `Chain` names the guards of one surface of a call, and each text passes its
//! `Scan`. What was masked on the way in lies in the call's `Vault`, and a `Restorer` puts it back
//! into the answer. Arguments of tools are JSON, whose strings pass through `Arguments`. Guards
//! that ask somebody else say what to ask as data and read the reply; the asking is their caller's
//! (`Ask`).

mod arguments;
mod filter;
mod injection;
mod language;
mod length;
mod pattern;
mod pii;
mod prefix;
mod redact;
pub mod remote;
mod scan;
mod schema;
mod secrets;
mod sieve;
mod urls;
mod vault;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use arguments::Arguments;
pub use filter::Filter;
pub use redact::Redactor;
pub use scan::Scan;
pub use vault::{Restorer, Vault};
pub use verdict::{Blocked, Failure, Finding, Verdict};

use crate::config::{self, Action, GuardKind, Mode, OnError, Stage};
use remote::Remote;
use sieve::Sieve;

/// All guards of a config, made ready.
#[derive(Debug, Default)]
pub struct Guards(BTreeMap<String, Arc<Guard>>);

/// One guard, made ready. Shared by all calls.
pub struct Guard {
    pub name: String,
    pub action: Action,
    pub mode: Mode,
    pub on_error: OnError,
    pub timeout: Duration,
    dry_run: bool,
    restore: bool,
    stages: Vec<Stage>,
    engine: Engine,
}

/// The guards that look at one surface of a call, in their order.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    stage: Option<Stage>,
    local: Vec<Arc<Guard>>,
    remote: Vec<Arc<Guard>>,
}

enum Engine {
    Sieve(Sieve, Replace),
    /// Begins to read a text.
    Reader(Box<dyn Fn() -> Box<dyn Reader> + Send + Sync>),
    Schema(schema::Schema),
    Remote(Remote),
}

/// What stands where a finding stood.
#[derive(Clone, Copy)]
enum Replace {
    Placeholder,
    With(&'static str),
}

/// Reads along without holding anything, and says what it objects to. What it says must not depend
/// on how the text was cut.
trait Reader: Send {
    fn read(&mut self, piece: &str) -> Option<Finding>;
    /// The text is over; another may follow.
    fn end(&mut self) -> Option<Finding>;
}

impl std::fmt::Debug for Guard {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Guard({})", self.name)
    }
}

// === impl Guards ===

impl Guards {
    /// Makes every guard of a config ready, or says what cannot be, each with its section.
    pub fn build(configs: &BTreeMap<String, config::Guard>) -> Result<Self, Vec<(String, String)>> {
        let mut problems = Vec::new();
        let mut guards = BTreeMap::new();
        for (name, config) in configs {
            match Guard::new(name, config) {
                Ok(guard) => {
                    guards.insert(name.clone(), Arc::new(guard));
                }
                Err(message) => problems.push((format!("guards.{name}"), message)),
            }
        }
        if problems.is_empty() { Ok(Self(guards)) } else { Err(problems) }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&Arc<Guard>> {
        self.0.get(name)
    }

    /// Those of the named guards that look at this surface. The names are checked by `config`.
    pub fn chain(&self, names: &[&str], stage: Stage) -> Chain {
        let meant = names.iter().filter_map(|name| self.0.get(*name));
        let here = meant.filter(|guard| guard.stages.contains(&stage)).map(Arc::clone);
        let (remote, local) = here.partition(|guard| matches!(guard.engine, Engine::Remote(_)));
        Chain { stage: Some(stage), local, remote }
    }
}

// === impl Chain ===

impl Chain {
    /// Whether nobody looks at this surface, so that nothing need be done for it.
    pub fn is_empty(&self) -> bool {
        self.local.is_empty() && self.remote.is_empty()
    }

    /// Whether an answer has to be there whole before anything of it may leave.
    pub fn needs_whole(&self) -> bool {
        let schema = |guard: &Arc<Guard>| matches!(guard.engine, Engine::Schema(_));
        self.local.iter().filter(|guard| guard.acts()).any(schema) || self.holds()
    }

    /// Whether somebody has to be asked before anything of an answer may leave.
    pub fn holds(&self) -> bool {
        self.remote.iter().any(|guard| guard.acts() && guard.mode == Mode::Blocking)
    }

    /// Those that look at all texts of the surface, and not only at what is the answer.
    #[must_use]
    pub fn beside_answer(&self) -> Self {
        let mut chain = self.clone();
        chain.local.retain(|guard| !matches!(guard.engine, Engine::Schema(_)));
        chain
    }

    /// Whether one of them may block or mask.
    pub fn acts(&self) -> bool {
        self.all().any(|guard| guard.acts())
    }

    /// The local ones, and behind them those that ask.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Guard>> {
        self.local.iter().chain(&self.remote)
    }

    /// A way past the local guards.
    pub fn scan(&self, vault: &Arc<Vault>) -> Scan {
        let stage = self.stage.unwrap_or(Stage::Input);
        Scan::new(&self.local, stage, Arc::clone(vault))
    }

    /// The guards that ask somebody else, to be asked about what the local ones have left.
    pub fn remote(&self) -> &[Arc<Guard>] {
        &self.remote
    }
}

// === impl Guard ===

impl Guard {
    fn new(name: &str, config: &config::Guard) -> Result<Self, String> {
        Ok(Self {
            name: name.to_owned(),
            action: config.action,
            mode: config.mode,
            on_error: config.on_error,
            timeout: config.timeout,
            dry_run: config.dry_run,
            restore: config.restore,
            stages: config.stages.iter().copied().collect(),
            engine: Engine::new(&config.kind)?,
        })
    }

    pub fn stages(&self) -> &[Stage] {
        &self.stages
    }

    /// Whether it may block or mask, and not only note.
    pub fn acts(&self) -> bool {
        !self.dry_run && matches!(self.action, Action::Block | Action::Mask)
    }

    pub fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// What it says of a text that it cannot look at.
    pub fn skips(&self, stage: Stage) -> Verdict {
        let failure = Some(Failure::Impossible);
        Verdict { failure, ..self.silence(stage) }
    }

    /// The verdict before anything was looked at.
    fn silence(&self, stage: Stage) -> Verdict {
        Verdict {
            guard: self.name.clone(),
            stage,
            action: self.action,
            dry_run: self.dry_run,
            findings: BTreeMap::new(),
            score: None,
            reasons: Vec::new(),
            scanned_bytes: 0,
            failure: None,
        }
    }

    fn blocks(&self, label: String) -> Blocked {
        Blocked { guard: self.name.clone(), label }
    }
}

// === impl Engine ===

impl Engine {
    fn new(kind: &GuardKind) -> Result<Self, String> {
        let placeholders = |rules| Ok(Self::Sieve(Sieve::new(rules)?, Replace::Placeholder));
        match kind {
            GuardKind::Pattern { words, regexes, label } => {
                placeholders(pattern::rules(words, regexes, label))
            }
            GuardKind::Pii { kinds } => placeholders(pii::rules(kinds)),
            GuardKind::Secrets => placeholders(secrets::rules()),
            GuardKind::Urls { hosts } => {
                Ok(Self::Sieve(Sieve::new(urls::rules(hosts))?, Replace::With(urls::REMOVED)))
            }
            GuardKind::Length { characters, tokens } => {
                let (characters, tokens) = (*characters, *tokens);
                Ok(Self::Reader(Box::new(move || {
                    Box::new(length::Length::new(characters, tokens))
                })))
            }
            GuardKind::Language { allowed } => {
                let allowed = language::allowed(allowed)?;
                Ok(Self::Reader(Box::new(move || Box::new(language::Language::new(&allowed)))))
            }
            GuardKind::Injection { threshold_permille, categories } => {
                injection::engine(*threshold_permille, categories)
            }
            GuardKind::Schema { schema } => Ok(Self::Schema(schema::Schema::new(schema)?)),
            GuardKind::Judge { .. } | GuardKind::Moderation { .. } | GuardKind::Webhook { .. } => {
                Ok(Self::Remote(Remote::new(kind)))
            }
        }
    }
}

#[cfg(test)]
mod tests;
