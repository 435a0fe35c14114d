//! Runs of agents: their journals, what waits for people, and who is at work on which.
//!
//! A journal is only appended to by the holder of its lease: each append says by which epoch of the
//! lease it is made, and comes to nothing when another holder has taken over since.

mod approvals;
mod blobs;
mod claims;
mod counts;
mod deliveries;
mod journal;
mod labels;
mod letters;
mod prune;
mod rows;
mod sessions;
mod signals;

use std::collections::BTreeMap;

pub use self::counts::RunCounts;
use crate::canon::{Owner, RunId, RunState};
use crate::store::Audit;

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
    /// The run that its session ends with so far; with another one, it does not begin.
    pub head: Option<RunId>,
    /// The client's key against doing things twice, and the digest of what it asked with it.
    pub idempotency: Option<(String, String)>,
    pub trigger: String,
    pub labels: BTreeMap<String, String>,
    /// `Running` with a lease of this process's, or `Queued` for whoever comes first.
    pub state: RunState,
    /// The first events, from number 1 on.
    pub events: Vec<NewEvent>,
    /// What it is told before it begins: kinds of signals, and their data.
    pub told: Vec<(String, String)>,
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
    /// Another turn of its session has begun meanwhile.
    Overtaken,
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
    /// Of what tools have given.
    pub bytes: u64,
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
    /// Calls of which it is known now what became of them: their letters are closed.
    pub settled: Vec<String>,
    /// What was done and decided.
    pub audits: Vec<Audit>,
    /// Long results of tools, by the SHA-256 of their bytes, in hex.
    pub blobs: Vec<(String, Vec<u8>)>,
    /// What others are to be told of it.
    pub deliveries: Vec<NewDelivery>,
    /// Approvals that were open before are withdrawn, for the run is over or does something else.
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

/// Which questions are wanted; the newest first.
#[derive(Debug, Clone, Default)]
pub struct ApprovalFilter {
    /// Of the runs of this owner, and those that are for whoever has this role; `None`: everybody's.
    pub seen_by: Option<(Owner, Option<String>)>,
    /// Those that are for this role.
    pub role: Option<String>,
    pub state: Option<String>,
    pub run: Option<RunId>,
    /// Of the whole tree of this run.
    pub root: Option<RunId>,
    /// Only those that came before it.
    pub before: Option<String>,
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

/// A label of an agent that was moved at run time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRow {
    pub label: String,
    pub version: String,
    /// What the config said of it then.
    pub file: Option<String>,
    pub by: String,
    /// Milliseconds since 1970.
    pub at: u64,
}

/// What somebody decides about an approval.
#[derive(Debug, Clone)]
pub struct Decision {
    pub approved: bool,
    /// Who, by the key that was shown.
    pub by: String,
    pub comment: Option<String>,
    /// What was let pass in the place of what was asked about: arguments, and their digest.
    pub edited: Option<(String, String)>,
    /// The data, as JSON, of the signal `decision` by which the run learns of it.
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

/// Which letters are wanted; the newest first.
#[derive(Debug, Clone, Default)]
pub struct LetterFilter {
    /// `None`: everybody's.
    pub owner: Option<Owner>,
    pub state: Option<String>,
    /// Only those that came before it.
    pub before: Option<String>,
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
    /// `open`, `retried`, `settled` or `discarded`.
    pub state: String,
}

/// Something that a hook is to be told of a run. The same `id` is told once.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    pub id: String,
    /// A name of the config, or a URL.
    pub hook: String,
    /// JSON.
    pub body: String,
}

/// One that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryRow {
    pub id: String,
    pub hook: String,
    pub body: String,
    /// The one that is about to be made among them.
    pub attempts: u32,
}

/// What became of an attempt to tell a hook something.
#[derive(Debug, Clone)]
pub enum Sending {
    Delivered,
    /// It is made again after so many milliseconds.
    Later(u64),
    GivenUp {
        letter: NewLetter,
    },
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
