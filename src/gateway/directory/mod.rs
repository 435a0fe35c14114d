//! Keys, users, teams and orgs made at run time: who may change which, and what a change takes.
//!
//! What stands in the config file belongs to the file: it is shown here, and changed there.

mod change;
mod copy;
mod follow;
mod rights;
mod show;

use std::collections::{HashMap, HashSet};
use std::sync::Weak;
use std::time::SystemTime;

use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use crate::access::account::Scope;
use crate::config::{self, Role, Secret, Unit};
use crate::gateway::ledger::Doubt;

pub use crate::config::entry::Kind;

/// Entries of one page at most.
pub const PAGE: usize = 1000;

/// Who asks for something, as the audit trail names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub name: String,
    pub role: Role,
    /// Whose a team admin is; means nothing for others.
    pub team: Option<String>,
}

/// What is to be made.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// Made up for a key that has none.
    pub id: Option<String>,
    /// The same table as in the config, without `secret` and `hash`.
    pub settings: Json,
    /// The client's `Idempotency-Key`.
    pub idempotency: Option<String>,
}

/// A key, user, team or org as it is shown.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    pub id: String,
    #[serde(skip)]
    pub kind: Kind,
    pub source: Source,
    /// The team it belongs to, its own or its user's; of a team, itself.
    pub team: Option<String>,
    pub settings: Json,
    /// Nobody knows of those in the file.
    #[serde(serialize_with = "time")]
    pub created_at: Option<SystemTime>,
    #[serde(serialize_with = "time")]
    pub changed_at: Option<SystemTime>,
    /// Only keys are: who else goes is gone.
    #[serde(serialize_with = "time")]
    pub revoked_at: Option<SystemTime>,
    /// Until when its older secrets are valid.
    #[serde(serialize_with = "times")]
    pub rotating_until: Vec<SystemTime>,
}

/// Who owns an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    File,
    Api,
}

/// What was made. Its secret is shown this once and is nowhere kept.
#[derive(Debug)]
pub struct Created {
    pub entry: Entry,
    /// Of a key, unless it had been made before.
    pub secret: Option<Secret>,
    /// The same request had made it already.
    pub replayed: bool,
}

/// Which entries are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub struct Page<'a> {
    pub team: Option<&'a str>,
    /// The id behind which the page begins.
    pub after: Option<&'a str>,
    pub limit: usize,
}

/// What is added to a budget: until its window ends, or for good if it rolls or has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopUp {
    pub scope: Scope,
    pub name: String,
    pub unit: Unit,
    /// As the budget's `window` is written.
    pub window: String,
    /// In tokens or nano-dollars.
    pub amount: u64,
    /// The client's `Idempotency-Key`.
    pub idempotency: Option<String>,
}

#[expect(clippy::ref_option, reason = "serde hands over the field as it is")]
fn time<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| humantime::format_rfc3339_millis(time).to_string()).serialize(serializer)
}

fn times<S: Serializer>(times: &[SystemTime], serializer: S) -> Result<S::Ok, S::Error> {
    let shown = times.iter().map(|time| humantime::format_rfc3339_millis(*time).to_string());
    serializer.collect_seq(shown)
}

/// What this process knows of what is stored. Held over each change, so that they come one by one.
#[derive(Debug, Default)]
pub(super) struct Directory {
    known: tokio::sync::Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The newest change that was taken over.
    version: i64,
    /// Terms of keys by the digest of how they are written: equal ones are kept once.
    terms: HashMap<[u8; 32], Weak<config::Key>>,
    /// How many of these there may be before it is worth looking for those that nobody has.
    sweep_at: usize,
    /// Whether all that was stored before was taken over.
    is_loaded: bool,
    /// While that is done: who has ever spent something. Everybody may have, if nobody knows.
    spenders: Option<HashSet<String>>,
    /// Budgets that were changed could not be told what was spent of them before.
    lacks_past: bool,
    /// Or are not yet.
    doubt: Option<Doubt>,
}

// === impl Actor ===

impl Actor {
    pub fn owner(name: &str) -> Self {
        Self { name: name.to_owned(), role: Role::Owner, team: None }
    }
}

#[cfg(test)]
mod tests;
