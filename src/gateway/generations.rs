//! The generations of the config that there have been: who brought each about, when, and its text.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Gateway;
use crate::canon::Owner;
use crate::config::Config;
use crate::store::{Draft, Failure, Object, ObjectKind, Store};

/// What the store has to take in or show a generation. No config waits longer for that.
const PATIENCE: Duration = Duration::from_secs(2);
/// So many are looked through for the newest one.
const LATEST: u32 = 32;

/// One config that was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    pub generation: u64,
    /// Milliseconds since 1970.
    at: u64,
    /// Who did it: `admin`, the name of a key, or what of the gateway did by itself.
    pub by: String,
    pub how: How,
    pub hash: String,
    /// As it was written; secrets that stood in it in clear are left out.
    pub text: String,
    /// Nothing had to be left out.
    pub is_whole: bool,
    /// It was not written to the config file.
    pub ephemeral: bool,
    /// The generation whose text it took up again.
    pub of: Option<u64>,
    /// How its trial ended, if it had one.
    pub fate: Option<Fate>,
}

/// How a config came to be loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Start,
    /// The file was changed, or asked to be read again.
    File,
    Apply,
    Rollback,
    /// A secret was changed where it is kept.
    Secrets,
}

/// How the trial of a config went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    pub outcome: Ending,
    pub why: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It is not over.
    Trial,
    Promoted,
    RolledBack,
    /// Somebody ended it, or its process ended.
    Aborted,
    /// Another config took its place.
    Replaced,
}

// === impl Generation ===

impl Generation {
    pub(super) fn new(generation: u64, config: &Config, how: How, by: &str) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            generation,
            at: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            by: by.to_owned(),
            how,
            hash: config.hash.clone(),
            text: config.text.shown(),
            is_whole: config.text.is_open(),
            ephemeral: false,
            of: None,
            fate: None,
        }
    }

    pub fn at(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.at.min(u64::from(u32::MAX) * 1000))
    }

    /// Whether it served all calls for a time.
    pub fn was_in_force(&self) -> bool {
        self.fate.as_ref().is_none_or(|fate| fate.outcome == Ending::Promoted)
    }

    /// Whether its trial is not over, as far as the history knows.
    pub(super) fn is_on_trial(&self) -> bool {
        self.fate.as_ref().is_some_and(|fate| fate.outcome == Ending::Trial)
    }

    fn of(object: &Object) -> Option<Self> {
        serde_json::from_slice(&object.value).ok()
    }
}

// === impl Ending ===

impl Ending {
    pub fn name(self) -> &'static str {
        match self {
            Self::Trial => "canary",
            Self::Promoted => "promoted",
            Self::RolledBack => "rolled_back",
            Self::Aborted => "aborted",
            Self::Replaced => "replaced",
        }
    }
}

/// The number under which `config` is to be served at the start: that of the last one if nothing
/// has changed since, else the next one.
pub async fn first(store: &Store, config: &Config) -> u64 {
    let found = list(store, None, LATEST);
    let Ok(Ok(known)) = tokio::time::timeout(PATIENCE, found).await else {
        // Without its past a gateway counts from one again.
        return 1;
    };
    let newest = known.iter().map(|known| known.generation).max().unwrap_or(0);
    let last = known.iter().filter(|known| known.was_in_force()).max_by_key(|it| it.generation);
    match last {
        Some(last) if last.hash == config.hash && !config.hash.is_empty() => last.generation,
        _ => newest + 1,
    }
}

async fn list(store: &Store, before: Option<u64>, limit: u32) -> Result<Vec<Generation>, Failure> {
    let owner = owner(store);
    // They are few and bounded, and a number says nothing of where one stands.
    let objects = store.list(&owner, ObjectKind::Config, None, 1000).await?;
    let mut all: Vec<Generation> = objects.iter().filter_map(Generation::of).collect();
    all.retain(|one| before.is_none_or(|before| one.generation < before));
    all.sort_by_key(|one| std::cmp::Reverse(one.generation));
    all.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(all)
}

/// Each process has generations of its own: a replica may be told another config, or later.
fn owner(store: &Store) -> Owner {
    Owner::new(format!("node:{}", store.node()))
}

// === impl Gateway ===

impl Gateway {
    /// Keeps a generation, or what became of it. A store that is away costs the note, and the log
    /// says so.
    pub(super) async fn keep_generation(&self, generation: &Generation) {
        let Ok(value) = serde_json::to_vec(generation) else { return };
        let id = generation.generation.to_string();
        let draft = Draft { id, value: Bytes::from(value), expires_at: None };
        let owner = owner(self.store());
        let kept = self.store().put(&owner, ObjectKind::Config, draft);
        if !matches!(tokio::time::timeout(PATIENCE, kept).await, Ok(Ok(()))) {
            let generation = generation.generation;
            tracing::error!(generation, "a generation of the config is not in the history");
        }
    }

    /// The newest generations first, at most `limit` before `before`.
    pub async fn generations(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<Generation>, Failure> {
        list(self.store(), before, limit).await
    }

    pub async fn generation(&self, number: u64) -> Result<Option<Generation>, Failure> {
        let owner = owner(self.store());
        let found = self.store().get(&owner, ObjectKind::Config, &number.to_string()).await?;
        Ok(found.as_ref().and_then(Generation::of))
    }
}
