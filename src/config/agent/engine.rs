//! `[agent_engine]`: what holds for all agents of one gateway.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;

use super::narrow;
use crate::config::reader::Section;
use crate::config::secret::{Literal, Secret};
use crate::config::value;

pub(in crate::config) const ENGINE_KEYS: &[&str] = &[
    "workers",
    "queue",
    "durability",
    "lease_ttl",
    "retention",
    "session_conflict",
    "on_disconnect",
    "max_depth",
    "max_takeovers",
    "public_url",
    "webhook_secret",
    "defaults",
];
pub(in crate::config) const RETENTION_KEYS: &[&str] = &["completed", "failed"];

/// `[agent_engine]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentEngine {
    /// Runs that one process executes at once.
    pub workers: usize,
    /// Runs that may wait for a place, in one process.
    pub queue: usize,
    pub durability: Durability,
    /// When another replica may take over a run whose owner is silent.
    pub lease: Duration,
    /// How long runs are kept that ended well.
    pub keep_completed: Duration,
    /// And those that did not.
    pub keep_failed: Duration,
    pub session_conflict: SessionConflict,
    pub on_disconnect: OnLeave,
    /// How deep agents may ask agents.
    pub max_depth: u32,
    /// A run that was taken over so often is given up.
    pub max_takeovers: u32,
    /// Where clients find this gateway: what links begin with.
    pub public_url: Option<String>,
    /// What is signed with it goes to URLs that runs were given; without it, none may be given.
    pub webhook_secret: Option<Secret>,
}

/// What is on the disk before an effect begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// `Strict` for runs that can change something, wait or go on in the background.
    #[default]
    Auto,
    /// The intent survives a power cut.
    Strict,
    /// It survives the process.
    Relaxed,
}

/// What becomes of a second turn of a session while the first one runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionConflict {
    /// It waits for the first.
    #[default]
    Enqueue,
    Reject,
    /// It cancels the first.
    Interrupt,
}

/// What becomes of a run whose client leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnLeave {
    #[default]
    Cancel,
    Continue,
}

// === impl AgentEngine ===

impl Default for AgentEngine {
    fn default() -> Self {
        Self {
            workers: 64,
            queue: 10_000,
            durability: Durability::Auto,
            lease: Duration::from_secs(15),
            keep_completed: Duration::from_hours(30 * 24),
            keep_failed: Duration::from_hours(90 * 24),
            session_conflict: SessionConflict::Enqueue,
            on_disconnect: OnLeave::Cancel,
            max_depth: 4,
            max_takeovers: 5,
            public_url: None,
            webhook_secret: None,
        }
    }
}

impl AgentEngine {
    pub(in crate::config) fn read(section: &Section<'_>) -> Self {
        let usual = Self::default();
        let durability = [
            ("auto", Durability::Auto),
            ("strict", Durability::Strict),
            ("relaxed", Durability::Relaxed),
        ];
        let conflict = [
            ("enqueue", SessionConflict::Enqueue),
            ("reject", SessionConflict::Reject),
            ("interrupt", SessionConflict::Interrupt),
        ];
        let leave = [("cancel", OnLeave::Cancel), ("continue", OnLeave::Continue)];
        let retention = section.get("retention").and_then(|field| field.section(RETENTION_KEYS));
        let kept = |key| retention.as_ref().and_then(|it| it.read(key, value::deadline));
        let small =
            |key, usual| section.read(key, |it| value::whole(it, 1..=100)).map_or(usual, narrow);
        Self {
            workers: section.read("workers", |it| value::count(it, 1)).unwrap_or(usual.workers),
            queue: section.read("queue", |it| value::count(it, 0)).unwrap_or(usual.queue),
            durability: section
                .read("durability", |it| value::one_of(it, &durability))
                .unwrap_or_default(),
            lease: section.read("lease_ttl", lease).unwrap_or(usual.lease),
            keep_completed: kept("completed").unwrap_or(usual.keep_completed),
            keep_failed: kept("failed").unwrap_or(usual.keep_failed),
            session_conflict: section
                .read("session_conflict", |it| value::one_of(it, &conflict))
                .unwrap_or_default(),
            on_disconnect: section
                .read("on_disconnect", |it| value::one_of(it, &leave))
                .unwrap_or_default(),
            max_depth: small("max_depth", usual.max_depth),
            max_takeovers: small("max_takeovers", usual.max_takeovers),
            public_url: section.read("public_url", value::url),
            webhook_secret: section
                .get("webhook_secret")
                .and_then(|field| Secret::read(&field, Literal::Warned)),
        }
    }
}

fn lease(written: &DeValue<'_>) -> Result<Duration, String> {
    let lease = value::deadline(written)?;
    if lease < Duration::from_secs(1) { Err("must be at least 1s".to_owned()) } else { Ok(lease) }
}
