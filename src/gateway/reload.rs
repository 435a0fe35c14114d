//! Changes the config that is served, one change at a time: builds the next snapshot and swaps it
//! in, or keeps the old one and says why.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::at_start::{AtStart, are_for_next_start, at_next_start};
use super::generations::{Ending, Fate, Generation, How};
use super::secrets::Secrets;
use super::trial::Terms;
use super::{Gateway, Past, Snapshot, keep};
use crate::config::{self, Config, Difference, Problem, Text};
use crate::error::{Error, Kind};
use crate::store::Failure;

/// Adds to a freshly loaded config what the command line decided.
pub type Overrides = Box<dyn Fn(&mut Config) + Send + Sync>;

/// Generations whose text is remembered with its secrets, to be taken up again.
const REMEMBERED: usize = 16;
/// As whom the history knows a file that was changed.
pub const FILE: &str = "file";

/// Changes the config, one change at a time.
pub struct Reloader {
    gateway: Arc<Gateway>,
    /// `None` when there is no file: then there is nothing to reload.
    path: Option<PathBuf>,
    kinds: Vec<&'static str>,
    overrides: Overrides,
    started: AtStart,
    secrets: tokio::sync::Mutex<Secrets>,
    /// Held by whoever changes something.
    gate: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// What the last attempts came to.
#[derive(Debug, Clone, Default)]
pub struct ReloadStatus {
    /// Why the last load was refused, and when; `None` once one was accepted.
    pub last_error: Option<(SystemTime, Vec<String>)>,
    /// What is served stands in no file.
    pub ephemeral: bool,
}

#[derive(Debug, Default)]
struct State {
    status: ReloadStatus,
    /// The newest number that was handed out.
    newest: u64,
    recent: BTreeMap<u64, Text>,
}

/// A config that somebody wants to be served.
#[derive(Debug)]
pub struct Order {
    pub text: String,
    /// The generation that it was made from, if another one would be overwritten unseen.
    pub base: Option<u64>,
    /// Not to be written to the file.
    pub ephemeral: bool,
    /// How it is to be tried before.
    pub trial: Option<Terms>,
}

/// An earlier config that somebody wants to be served again.
#[derive(Debug)]
pub struct Return {
    /// Its generation, else the one before this.
    pub to: Option<u64>,
    /// Not to be written to the file.
    pub ephemeral: bool,
    /// Whether who wants it may change who has which role.
    pub by_owner: bool,
}

/// What a config would come to.
#[derive(Debug)]
pub struct Outlook {
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
    /// What would take effect at the next start only.
    pub at_next_start: Vec<&'static str>,
}

/// Where a config comes from, for the history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Origin<'a> {
    pub(super) how: How,
    pub(super) by: &'a str,
    pub(super) ephemeral: bool,
    pub(super) of: Option<u64>,
}

// === impl Reloader ===

impl Reloader {
    pub fn new(
        gateway: Arc<Gateway>,
        path: Option<PathBuf>,
        kinds: Vec<&'static str>,
        overrides: Overrides,
    ) -> Arc<Self> {
        let live = gateway.snapshot();
        let state = State {
            newest: live.generation,
            recent: BTreeMap::from([(live.generation, live.config.text.clone())]),
            status: ReloadStatus::default(),
        };
        let (gate, state) = (tokio::sync::Mutex::default(), Mutex::new(state));
        let secrets = tokio::sync::Mutex::new(Secrets::of(&live.config));
        let started = AtStart::of(&live.config);
        Arc::new(Self { gateway, path, kinds, overrides, started, secrets, gate, state })
    }

    /// Goes on counting where the history ends, and notes in it the config of the start, unless that
    /// is the one that was served before, and that a trial has ended with its process.
    pub async fn begin(&self) {
        let live = self.gateway.snapshot();
        let known = self.gateway.generations(None, u32::MAX).await.unwrap_or_default();
        let newest = known.first().map_or(0, |newest| newest.generation);
        self.lock().newest = newest.max(live.generation);
        let is_live = |known: &Generation| {
            (known.generation, &known.hash) == (live.generation, &live.config.hash)
        };
        if !known.iter().any(is_live) {
            let first = Generation::new(live.generation, &live.config, How::Start, "start");
            self.gateway.keep_generation(&first).await;
        }
        for mut known in known.into_iter().filter(Generation::is_on_trial) {
            let why = "its process ended before the trial did".to_owned();
            known.fate = Some(Fate { outcome: Ending::Aborted, why });
            self.gateway.keep_generation(&known).await;
        }
    }

    /// Loads the file again. A config with any fault is refused whole and the old one serves on.
    pub async fn reload(&self, by: &str) -> Result<u64, Vec<String>> {
        let _gate = self.gate.lock().await;
        Box::pin(self.load(by)).await
    }

    /// The same, unless the file says what is served already.
    pub async fn reload_changed(&self) -> Result<u64, Vec<String>> {
        let _gate = self.gate.lock().await;
        let live = self.gateway.snapshot();
        let text = self.path.as_deref().and_then(|path| std::fs::read_to_string(path).ok());
        if text.is_some_and(|text| text == live.config.text.whole()) {
            let mut state = self.lock();
            (state.status.last_error, state.status.ephemeral) = (None, false);
            return Ok(live.generation);
        }
        Box::pin(self.load(FILE)).await
    }

    async fn load(&self, by: &str) -> Result<u64, Vec<String>> {
        let origin = Origin { how: How::File, by, ephemeral: false, of: None };
        let read = self.read_file().await;
        match read.and_then(|config| self.draft(config).map_err(|problems| told(&problems))) {
            Ok(snapshot) => Ok(self.serve(snapshot, origin).await),
            Err(problems) => {
                self.refused(&problems);
                Err(problems)
            }
        }
    }

    async fn read_file(&self) -> Result<Config, Vec<String>> {
        let Some(path) = &self.path else {
            return Err(vec!["there is no config file to load".to_owned()]);
        };
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| {
            vec![format!("{}: the file cannot be read: {error}", path.display())]
        })?;
        let config = self.parse(&text).await.map_err(|problems| told(&problems))?;
        // A file that is just being written reads as empty, which is a config, but nobody's wish.
        if config.providers.is_empty() {
            return Err(vec![format!("{}: there is no provider in it", path.display())]);
        }
        Ok(config)
    }

    fn refused(&self, problems: &[String]) {
        self.lock().status.last_error = Some((SystemTime::now(), problems.to_vec()));
        self.gateway.telemetry.metrics.config_reloads.with_label_values(&["refused"]).inc();
        for problem in problems {
            tracing::error!(%problem, "the changed config is refused, the old one stays");
        }
    }

    pub fn status(&self) -> ReloadStatus {
        self.lock().status.clone()
    }

    /// The file that is read and written.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// What `text` would come to. Nothing is changed by asking.
    pub async fn check(&self, text: &str) -> Outlook {
        let read = self.read(text).await.and_then(|mut config| {
            (self.overrides)(&mut config);
            let told = (config.warnings.clone(), self.started.differs(&config));
            let text = config.text.clone();
            let checked = Snapshot::check(config, self.gateway.means());
            checked.map(|()| told).map_err(|problems| self.located(&text, problems))
        });
        match read {
            Ok((warnings, at_next_start)) => {
                Outlook { problems: Vec::new(), warnings, at_next_start }
            }
            Err(problems) => Outlook { problems, warnings: Vec::new(), at_next_start: Vec::new() },
        }
    }

    /// In which places `text` differs from what is served.
    pub fn diff(&self, text: &str) -> Result<Vec<Difference>, Vec<Problem>> {
        let live = self.gateway.snapshot();
        let served = &live.config.text;
        let text = Text::complete(text, self.origin(), &[served])?;
        Ok(served.differences(&Config::sketch(&text, self.origin())?))
    }

    /// The text of the file as it is now.
    pub fn file(&self) -> Result<String, Error> {
        let path = self.file_path()?;
        std::fs::read_to_string(path).map_err(|error| {
            Error::new(Kind::Conflict, format!("The file cannot be read: {error}."))
        })
    }

    /// Serves the config of `order` from the next call on, and writes it to the file first, so that
    /// a restart serves the same. One that is to be tried is written when it is promoted.
    pub async fn apply(self: &Arc<Self>, order: Order, by: &str) -> Result<u64, Error> {
        let _gate = self.gate.lock().await;
        self.is_based(order.base)?;
        if let Some(trial) = self.gateway.trial() {
            let message = format!(
                "Generation {} is on trial; promote it or take it back first.",
                trial.generation()
            );
            return Err(conflict(&message));
        }
        let origin = Origin { how: How::Apply, by, ephemeral: order.ephemeral, of: None };
        let Some(terms) = order.trial else {
            return Box::pin(self.serve_text(&order.text, origin)).await;
        };
        let changes = self.diff(&order.text).map_err(refusal)?;
        if are_for_next_start(&changes) {
            let names = at_next_start(&changes).join(", ");
            let message = format!(
                "{names}: read at the start only, so this cannot be tried; apply it without \
                 `canary` and start the gateway anew."
            );
            return Err(Error::invalid(message));
        }
        let (draft, _) = self.ready(&order.text, origin).await?;
        Ok(self.try_out(draft, terms, origin).await)
    }

    /// Serves again what an earlier generation was, else the one before this. While a config is on
    /// trial, that is what is taken back.
    pub async fn roll_back(&self, wanted: Return, by: &str) -> Result<u64, Error> {
        if wanted.to.is_none() && self.gateway.trial().is_some() {
            return self.abort(by).await;
        }
        let _gate = self.gate.lock().await;
        let generation = self.earlier(wanted.to).await?;
        let number = generation.generation;
        let known = self.lock().recent.get(&number).map(|text| text.whole().to_owned());
        let text = known.unwrap_or(generation.text);
        let ephemeral = wanted.ephemeral;
        let origin = Origin { how: How::Rollback, by, ephemeral, of: Some(number) };
        let (draft, file) = Box::pin(self.ready(&text, origin)).await?;
        if !wanted.by_owner && !self.gateway.snapshot().config.has_roles_of(&draft.config) {
            let message = format!(
                "Generation {number} gives roles to other keys or people than the config in \
                 force: an owner has to roll back to it."
            );
            return Err(Error::new(Kind::NotAllowed, message));
        }
        self.put_in_force(draft, file, origin).await
    }

    async fn earlier(&self, to: Option<u64>) -> Result<Generation, Error> {
        let live = self.gateway.snapshot();
        let found = if let Some(to) = to {
            self.gateway.generation(to).await.map_err(no_history)?
        } else {
            let earlier = self.gateway.generations(Some(live.generation), u32::MAX).await;
            let other = |one: &Generation| {
                one.was_in_force() && one.hash != live.config.hash && !one.text.is_empty()
            };
            earlier.map_err(no_history)?.into_iter().find(other)
        };
        let message = match to {
            Some(to) if found.as_ref().is_some_and(|found| !found.was_in_force()) => {
                format!("Generation {to} was on trial and never in force; apply it instead.")
            }
            Some(to) => format!("There is no generation {to} in the history."),
            None => "There is no other config before this one in the history.".to_owned(),
        };
        found
            .filter(|found| !found.text.is_empty() && found.was_in_force())
            .ok_or_else(|| Error::new(Kind::NotFound, message))
    }

    fn is_based(&self, base: Option<u64>) -> Result<(), Error> {
        let live = self.gateway.snapshot().generation;
        match base {
            Some(base) if base != live => {
                let message = format!(
                    "The config has changed since: generation {live} is served, and not {base}."
                );
                Err(conflict(&message))
            }
            _ => Ok(()),
        }
    }

    async fn serve_text(&self, text: &str, origin: Origin<'_>) -> Result<u64, Error> {
        let (draft, file) = self.ready(text, origin).await?;
        self.put_in_force(draft, file, origin).await
    }

    async fn put_in_force(
        &self,
        draft: Box<Snapshot>,
        file: Option<&Path>,
        origin: Origin<'_>,
    ) -> Result<u64, Error> {
        if let Some(path) = file {
            keep::write(path, draft.config.text.whole())?;
        }
        Ok(self.serve(draft, origin).await)
    }

    /// What is to be served next, and the file that it is to be written to.
    async fn ready(
        &self,
        text: &str,
        origin: Origin<'_>,
    ) -> Result<(Box<Snapshot>, Option<&Path>), Error> {
        let config = self.read(text).await.map_err(refusal)?;
        let file = if origin.ephemeral { None } else { Some(self.file_path()?) };
        // A number is not given to what will be refused.
        file.map_or(Ok(()), keep::may_write)?;
        Ok((self.draft(config).map_err(refusal)?, file))
    }

    /// Reads and checks `text`, with the secrets put in that were left out of it.
    async fn read(&self, text: &str) -> Result<Config, Vec<Problem>> {
        let live = self.gateway.snapshot();
        let recent: Vec<Text> = self.lock().recent.values().rev().cloned().collect();
        let donors: Vec<&Text> = std::iter::once(&live.config.text).chain(&recent).collect();
        let text = Text::complete(text, self.origin(), &donors)?;
        let config = self.parse(&text).await?;
        if config.providers.is_empty() {
            let problem = (String::new(), "there is no provider in it".to_owned());
            return Err(self.located(&config.text, vec![problem]));
        }
        Ok(config)
    }

    /// Checks `text` with the secrets that are kept elsewhere.
    pub(super) async fn parse(&self, text: &str) -> Result<Config, Vec<Problem>> {
        let mut secrets = self.secrets.lock().await;
        let config = secrets.load(text, self.origin(), &self.kinds).await;
        secrets.show(&self.gateway.telemetry.metrics);
        config
    }

    /// With what holds whatever is written.
    pub(super) fn settle(&self, config: Config) -> Config {
        let mut config = config;
        (self.overrides)(&mut config);
        config.store = self.gateway.snapshot().config.store.clone();
        config
    }

    /// Builds what is to be served next, under a number of its own.
    pub(super) fn draft(&self, mut config: Config) -> Result<Box<Snapshot>, Vec<Problem>> {
        (self.overrides)(&mut config);
        let live = self.gateway.snapshot();
        let at_next_start = self.started.differs(&config);
        for section in &at_next_start {
            tracing::warn!(section, "this change takes effect at the next start only");
        }
        config.store = live.config.store.clone();
        let outlasting = (&self.gateway.client, Arc::clone(&live.board), Arc::clone(&live.roster));
        let (number, text) = (self.lock().newest + 1, config.text.clone());
        let drafted = Snapshot::draft(config, number, outlasting).map(Box::new);
        let equipped = drafted.and_then(|mut snapshot| {
            snapshot.at_next_start = at_next_start;
            snapshot.equip(self.gateway.means(), Some(&live)).map(|()| snapshot)
        });
        equipped.map_err(|problems| self.located(&text, problems))
    }

    /// Serves `snapshot` from the next call on, and notes whence it came.
    pub(super) async fn serve(&self, snapshot: Box<Snapshot>, origin: Origin<'_>) -> u64 {
        self.replace_trial(origin.by).await;
        let noted = self.take_up(&snapshot, origin);
        let doubt = self.gateway.doubt();
        self.gateway.swap(self.gateway.adopt(snapshot));
        self.note_served(origin.ephemeral);
        self.gateway.seed_later(Past::Before, doubt);
        self.gateway.telemetry.metrics.config_reloads.with_label_values(&["accepted"]).inc();
        let (generation, hash) = (noted.generation, &noted.hash);
        tracing::info!(generation, %hash, by = origin.by, "a changed config is in force");
        self.gateway.keep_generation(&noted).await;
        generation
    }

    /// Remembers that there is such a generation.
    pub(super) fn take_up(&self, snapshot: &Snapshot, origin: Origin<'_>) -> Generation {
        let mut noted =
            Generation::new(snapshot.generation, &snapshot.config, origin.how, origin.by);
        (noted.ephemeral, noted.of) = (origin.ephemeral, origin.of);
        let mut state = self.lock();
        state.newest = snapshot.generation;
        state.recent.insert(snapshot.generation, snapshot.config.text.clone());
        while state.recent.len() > REMEMBERED {
            state.recent.pop_first();
        }
        noted
    }

    /// What was taken up last is in force.
    pub(super) fn note_served(&self, ephemeral: bool) {
        self.lock().status = ReloadStatus { last_error: None, ephemeral };
    }

    pub(super) fn gateway(&self) -> &Arc<Gateway> {
        &self.gateway
    }

    pub(super) fn gate(&self) -> &tokio::sync::Mutex<()> {
        &self.gate
    }

    pub(super) fn file_path(&self) -> Result<&Path, Error> {
        self.path.as_deref().ok_or_else(no_file)
    }

    /// Beside which relative paths are sought.
    fn origin(&self) -> &Path {
        self.path.as_deref().unwrap_or_else(|| Path::new("switchpoint.toml"))
    }

    fn located(&self, text: &Text, problems: Vec<(String, String)>) -> Vec<Problem> {
        config::located(text.whole(), self.origin(), problems)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn told(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

/// Every problem of a text that was sent, one a line. It is in no file of the gateway's.
pub fn refusal(mut problems: Vec<Problem>) -> Error {
    for problem in &mut problems {
        problem.file.clear();
    }
    Error::invalid(told(&problems).join("\n"))
}

pub(super) fn conflict(message: &str) -> Error {
    Error::new(Kind::Conflict, message.to_owned())
}

fn no_file() -> Error {
    let message = "The gateway runs without a config file, so there is none to write or read; \
                   apply with `ephemeral` to serve the config until the next start.";
    Error::new(Kind::Conflict, message)
}

fn no_history(_: Failure) -> Error {
    Error::new(Kind::Overloaded, "The history of the config cannot be read at the moment.")
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Reloader({:?})", self.path)
    }
}
