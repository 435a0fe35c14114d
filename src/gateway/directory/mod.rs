//! Keys, users, teams and orgs made at run time: who may change which, and what a change takes.
//!
//! What stands in the config file belongs to the file: it is shown here, and changed there.

use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use super::Gateway;
use crate::access::account::{BudgetStatus, Scope};
use crate::config::{Role, Secret, Unit};
use crate::error::{Error, Kind as Fault};

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
}

fn time<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| humantime::format_rfc3339_millis(time).to_string()).serialize(serializer)
}

fn times<S: Serializer>(times: &[SystemTime], serializer: S) -> Result<S::Ok, S::Error> {
    let shown = times.iter().map(|time| humantime::format_rfc3339_millis(*time).to_string());
    serializer.collect_seq(shown)
}

// === impl Gateway ===

impl Gateway {
    /// Makes a key, user, team or org. The same request again, by the same actor under the same
    /// idempotency key within a day, makes nothing and shows what the first has made.
    pub async fn create_entry(
        &self,
        by: &Actor,
        kind: Kind,
        draft: Draft,
    ) -> Result<Created, Error> {
        let _ = (by, kind, draft);
        Err(unbuilt().await)
    }

    /// One that exists, or a key that was revoked.
    pub fn entry(&self, by: &Actor, kind: Kind, id: &str) -> Result<Entry, Error> {
        let _ = (by, kind, id);
        Err(Error::new(Fault::NotFound, "Not built yet."))
    }

    /// Entries by id, those of the file among them, and behind which the next page begins.
    pub fn entries(
        &self,
        by: &Actor,
        kind: Kind,
        page: Page<'_>,
    ) -> Result<(Vec<Entry>, Option<String>), Error> {
        let _ = (by, kind, page);
        Err(Error::new(Fault::NotFound, "Not built yet."))
    }

    /// Merges a patch (RFC 7396) into the settings: what it does not name stays, null removes.
    pub async fn change_entry(
        &self,
        by: &Actor,
        (kind, id): (Kind, &str),
        patch: &Json,
    ) -> Result<Entry, Error> {
        let _ = (by, kind, id, patch);
        Err(unbuilt().await)
    }

    /// Gives a key a new secret. The old ones are valid for `overlap` more.
    pub async fn rotate_key(
        &self,
        by: &Actor,
        id: &str,
        overlap: Duration,
    ) -> Result<Created, Error> {
        let _ = (by, id, overlap);
        Err(unbuilt().await)
    }

    /// Revokes a key for good. When this returns, no call is admitted by it here.
    pub async fn revoke_key(&self, by: &Actor, id: &str) -> Result<Entry, Error> {
        let _ = (by, id);
        Err(unbuilt().await)
    }

    /// Removes a user, team or org, if nobody belongs to it any more.
    pub async fn remove_entry(&self, by: &Actor, kind: Kind, id: &str) -> Result<(), Error> {
        let _ = (by, kind, id);
        Err(unbuilt().await)
    }

    /// Adds to a budget of a key, user, team or org, in the file or not, and shows it.
    pub async fn top_up(&self, by: &Actor, top_up: TopUp) -> Result<BudgetStatus, Error> {
        let _ = (by, top_up);
        Err(unbuilt().await)
    }
}

async fn unbuilt() -> Error {
    std::future::ready(Error::new(Fault::Internal, "Not built yet.")).await
}
