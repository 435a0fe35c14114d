//! Runs of agents: their journals, what waits for people, and who is at work on which.
//!
//! A journal is only appended to by the holder of its lease: each append says by which epoch of the
//! lease it is made, and comes to nothing when another holder has taken over since.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Failure, Store};
use crate::canon::{Owner, RunId, RunState};

/// A run that is to begin.
#[derive(Debug, Clone)]
pub struct NewRun {
    pub id: RunId,
    pub root: RunId,
    pub parent: Option<RunId>,
    pub agent: String,
    pub version: String,
    /// SHA-256 of the definition, in hex.
    pub definition: String,
    pub owner: Owner,
    /// The name of the key that pays.
    pub key: String,
    pub user: Option<String>,
    pub session: Option<String>,
    /// The client's key against doing things twice, and the digest of what it asked with it.
    pub idempotency: Option<(String, String)>,
    pub trigger: String,
    pub labels: BTreeMap<String, String>,
    /// `Running` with a lease of this process's, or `Queued` for whoever comes first.
    pub state: RunState,
    /// The first events, from number 1 on.
    pub events: Vec<NewEvent>,
    /// How long the lease holds, in milliseconds, where it begins to run at once.
    pub lease: u64,
}

/// What became of a run that was to begin.
#[derive(Debug, Clone)]
pub enum Begun {
    /// It is in the store; with the epoch of its lease, which is 0 where it is queued.
    New { epoch: u64 },
    /// The same was asked before, by the same idempotency key or id.
    Known(Box<RunRow>),
    /// Something else was asked before by the same idempotency key.
    Conflict,
}

/// One entry of a journal, before it is there.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// `model.completed` and the like.
    pub kind: &'static str,
    /// JSON.
    pub data: String,
}

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// From 1 on, without a gap.
    pub seq: u64,
    /// Milliseconds since 1970.
    pub at: u64,
    pub kind: String,
    pub data: String,
}

/// A run as lists show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    pub id: RunId,
    pub root: RunId,
    pub parent: Option<RunId>,
    pub agent: String,
    pub version: String,
    pub definition: String,
    pub owner: Owner,
    pub key: String,
    pub user: Option<String>,
    pub session: Option<String>,
    pub trigger: String,
    pub labels: BTreeMap<String, String>,
    pub state: RunState,
    pub reason: Option<String>,
    pub totals: Totals,
    /// Milliseconds since 1970.
    pub created_at: u64,
    pub started_at: Option<u64>,
    pub finished_at: Option<u64>,
    pub last_seq: u64,
    pub epoch: u64,
    pub takeovers: u32,
}

/// What a run has used so far, without its children.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    pub steps: u32,
    pub tool_calls: u32,
    pub tokens_in: u64,
    pub tokens_out: u64,
    /// Nano-dollars.
    pub cost: u64,
}

/// What one step adds to a run, all or nothing.
#[derive(Debug, Clone)]
pub struct Append {
    pub run: RunId,
    /// The lease by which it is made.
    pub epoch: u64,
    /// The number of the last entry before these.
    pub after: u64,
    pub events: Vec<NewEvent>,
    /// Where the run stands now; in a state that waits or is over, its lease is given back.
    pub state: RunState,
    pub reason: Option<String>,
    pub totals: Totals,
    /// When it is to be looked at even if nothing comes, in milliseconds since 1970.
    pub wake_at: Option<u64>,
    pub approvals: Vec<NewApproval>,
    pub letters: Vec<NewLetter>,
    /// Long results of tools, by the SHA-256 of their bytes, in hex.
    pub blobs: Vec<(String, Vec<u8>)>,
    /// The first approvals of the run that are still open are withdrawn, for it is over.
    pub withdraw: bool,
    /// Signals up to this number have been taken in.
    pub signals: u64,
    /// It must be on the disk, whatever the database does otherwise.
    pub durable: bool,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    Done,
    /// Another holder has taken the run over: nothing was added.
    LeaseLost,
}

/// A question to a person.
#[derive(Debug, Clone)]
pub struct NewApproval {
    pub id: String,
    /// The id of the call.
    pub call: String,
    pub tool: String,
    /// The arguments as canonical JSON (RFC 8785), and the SHA-256 of tool, version and arguments,
    /// in hex.
    pub args: String,
    pub hash: String,
    pub roles: Vec<String>,
    pub reason: String,
    /// Milliseconds since 1970.
    pub expires_at: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRow {
    pub id: String,
    pub run: RunId,
    pub agent: String,
    pub owner: Owner,
    pub call: String,
    pub tool: String,
    pub args: String,
    pub hash: String,
    pub roles: Vec<String>,
    pub reason: String,
    /// `pending`, `approved`, `denied`, `expired` or `withdrawn`.
    pub state: String,
    pub decided_by: Option<String>,
    pub decided_at: Option<u64>,
    pub comment: Option<String>,
    pub created_at: u64,
    pub expires_at: u64,
}

/// What somebody decides about an approval.
#[derive(Debug, Clone)]
pub struct Decision {
    pub approved: bool,
    /// Who, by the key that was shown.
    pub by: String,
    pub comment: Option<String>,
    /// The signal by which the run learns of it.
    pub signal: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decided {
    Done,
    /// Somebody was first, or its time is over: how it stands.
    Already(String),
    Missing,
}

/// Something from outside that a run is to know: a decision, an input, the wish to end it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalRow {
    /// Rises over all runs.
    pub number: u64,
    pub run: RunId,
    pub kind: String,
    /// JSON.
    pub data: String,
    pub at: u64,
}

/// Work that came to nothing, kept for a person.
#[derive(Debug, Clone)]
pub struct NewLetter {
    pub id: String,
    pub kind: String,
    /// JSON.
    pub payload: String,
    pub error: String,
    pub attempts: u32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterRow {
    pub id: String,
    pub run: Option<RunId>,
    pub owner: Owner,
    pub kind: String,
    pub payload: String,
    pub error: String,
    pub attempts: u32,
    pub at: u64,
    /// `open`, `retried` or `discarded`.
    pub state: String,
}

/// A session of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionRow {
    pub id: String,
    pub agent: String,
    pub version: String,
    /// The last run of it that was begun.
    pub head: RunId,
    pub updated_at: u64,
}

/// Which runs are wanted; the newest first.
#[derive(Debug, Clone, Default)]
pub struct RunFilter {
    /// `None`: everybody's.
    pub owner: Option<Owner>,
    pub agent: Option<String>,
    pub state: Option<RunState>,
    pub user: Option<String>,
    pub session: Option<String>,
    pub label: Option<(String, String)>,
    /// Milliseconds since 1970.
    pub since: Option<u64>,
    pub root: Option<RunId>,
    /// Only those that came before it.
    pub before: Option<RunId>,
}

/// What is known of a process that has leases.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewed {
    /// Runs that this process thought it held, and does not.
    pub lost: Vec<RunId>,
    /// Runs that it holds and that have signals it may not have seen.
    pub signalled: Vec<RunId>,
}

impl Store {
    /// Puts a run into the store. In a session it becomes its head.
    pub async fn begin_run(&self, run: NewRun) -> Result<Begun, Failure> {
        let _ = (self, run);
        Err(not_built())
    }

    /// Adds to a journal.
    pub async fn append_run(&self, append: Append) -> Result<Appended, Failure> {
        let _ = (self, append);
        Err(not_built())
    }

    /// Takes over at most `limit` runs that nobody works at and that have something to do: queued
    /// ones, running ones whose lease is over, waiting ones that have a signal or whose time has
    /// come. `lease`: for how many milliseconds.
    pub async fn claim_runs(&self, limit: u32, lease: u64) -> Result<Vec<RunRow>, Failure> {
        let _ = (self, limit, lease);
        Err(not_built())
    }

    /// The same for one run, whatever it waits for; `None` where somebody else holds it or it is
    /// over.
    pub async fn claim_run(&self, run: RunId, lease: u64) -> Result<Option<RunRow>, Failure> {
        let _ = (self, run, lease);
        Err(not_built())
    }

    /// Holds the leases of these runs for so many milliseconds more.
    pub async fn renew_runs(
        &self,
        held: Vec<(RunId, u64)>,
        lease: u64,
    ) -> Result<Renewed, Failure> {
        let _ = (self, held, lease);
        Err(not_built())
    }

    /// `owner`: `None` for operators.
    pub async fn run(&self, owner: Option<&Owner>, run: RunId) -> Result<Option<RunRow>, Failure> {
        let _ = (self, owner, run);
        Err(not_built())
    }

    pub async fn runs(&self, filter: RunFilter, limit: u32) -> Result<Vec<RunRow>, Failure> {
        let _ = (self, filter, limit);
        Err(not_built())
    }

    /// The journal behind the entry `after`.
    pub async fn run_events(
        &self,
        run: RunId,
        after: u64,
        limit: u32,
    ) -> Result<Vec<EventRow>, Failure> {
        let _ = (self, run, after, limit);
        Err(not_built())
    }

    /// Tells a run something, once: a second signal of the same kind and `once` changes nothing and
    /// gives false.
    pub async fn signal_run(
        &self,
        run: RunId,
        kind: &'static str,
        data: String,
        once: Option<String>,
    ) -> Result<bool, Failure> {
        let _ = (self, run, kind, data, once);
        Err(not_built())
    }

    /// What a run was told behind the signal `after`.
    pub async fn run_signals(&self, run: RunId, after: u64) -> Result<Vec<SignalRow>, Failure> {
        let _ = (self, run, after);
        Err(not_built())
    }

    pub async fn approval(&self, id: &str) -> Result<Option<ApprovalRow>, Failure> {
        let _ = (self, id);
        Err(not_built())
    }

    /// Of one owner, or everybody's; in one state, or in all; the newest first.
    pub async fn approvals(
        &self,
        owner: Option<Owner>,
        state: Option<String>,
        limit: u32,
    ) -> Result<Vec<ApprovalRow>, Failure> {
        let _ = (self, owner, state, limit);
        Err(not_built())
    }

    /// Decides, once, and tells the run.
    pub async fn decide(&self, id: &str, decision: Decision) -> Result<Decided, Failure> {
        let _ = (self, id, decision);
        Err(not_built())
    }

    pub async fn put_definition(&self, hash: &str, body: String) -> Result<(), Failure> {
        let _ = (self, hash, body);
        Err(not_built())
    }

    pub async fn definition(&self, hash: &str) -> Result<Option<Arc<str>>, Failure> {
        let _ = (self, hash);
        Err(not_built())
    }

    pub async fn session(&self, owner: &Owner, id: &str) -> Result<Option<SessionRow>, Failure> {
        let _ = (self, owner, id);
        Err(not_built())
    }

    /// A result that was too long to be shown whole; only to its run's owner.
    pub async fn run_blob(&self, owner: &Owner, hash: &str) -> Result<Option<Vec<u8>>, Failure> {
        let _ = (self, owner, hash);
        Err(not_built())
    }

    pub async fn letters(
        &self,
        owner: Option<Owner>,
        limit: u32,
    ) -> Result<Vec<LetterRow>, Failure> {
        let _ = (self, owner, limit);
        Err(not_built())
    }

    /// Closes an open letter as `retried` or `discarded`; `None` where it is not open.
    pub async fn close_letter(
        &self,
        owner: Option<Owner>,
        id: &str,
        state: &'static str,
    ) -> Result<Option<LetterRow>, Failure> {
        let _ = (self, owner, id, state);
        Err(not_built())
    }

    /// Whether an agent's runs do not begin, and that they shall or shall not.
    pub async fn paused_agents(&self) -> Result<Vec<String>, Failure> {
        let _ = self;
        Err(not_built())
    }

    pub async fn pause_agent(&self, agent: &str, paused: bool) -> Result<(), Failure> {
        let _ = (self, agent, paused);
        Err(not_built())
    }

    /// Lets go of runs that are over since before these times, in milliseconds since 1970: of those
    /// that ended well, and of the others. Says how many.
    pub async fn prune_runs(&self, completed: u64, failed: u64) -> Result<u64, Failure> {
        let _ = (self, completed, failed);
        Err(not_built())
    }
}

fn not_built() -> Failure {
    Failure::new("not built".to_owned())
}
