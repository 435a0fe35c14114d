//! Where calls and the runs of agents meet: a call may ask for a run, and a run asks models by
//! calls like everybody's.

mod commission;
mod consulting;
mod forecast;
mod overheard;
mod perform;
mod show;
mod tooling;
mod turn;

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::access::Caller;
use crate::cache::Follower;
use crate::canon::{
    Attempt, CallId, ChatRequest, Money, Owner, RunId, RunState, Surface, Trace, Usage,
};
use crate::config::{CacheMode, OnLeave, StreamMode};
use crate::error::Error;

pub(super) use self::commission::is_asked;
pub use self::commission::{named, passed_on};
pub use self::consulting::{Attendance, Consultation};
pub use self::forecast::Forecast;
pub(super) use self::perform::answer;
pub(super) use self::show::{Frame, RUN, Show};
pub use self::tooling::Unmade;

/// Sets two texts of one answer apart, where an API has one text for all of it.
pub const GAP: &str = "\n\n";

/// Whoever runs agents. The room above this one gives itself in.
pub trait Conductor: Send + Sync + fmt::Debug {
    /// Begins a run, or goes on with one that waits for this client. What it says is followed from
    /// the beginning of this answer.
    fn conduct(&self, commission: Box<Commission>) -> Doing<Result<Performance, Error>>;

    /// Calls a run off. Nothing happens to one that is over.
    fn cancel(&self, run: RunId, owner: Owner) -> Doing<Result<(), Error>>;

    /// An answer of a run's once more, for whoever has lost it: all since this time, in
    /// milliseconds. What has been said is there at once. `None` where there is no such run of this
    /// owner's.
    fn rejoin(
        &self,
        run: RunId,
        since: u64,
        owner: Owner,
    ) -> Doing<Result<Option<Performance>, Error>>;
}

/// Work of the conductor's.
pub type Doing<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// What a client wants of an agent.
#[derive(Debug)]
pub struct Commission {
    /// What stands behind `agent/`: `support`, `support@7`, `support@candidate`.
    pub agent: String,
    pub caller: Caller,
    pub surface: Surface,
    /// The conversation as it was sent, in our own words.
    pub request: ChatRequest,
    pub wishes: RunWishes,
    /// The run whose answer its client goes on from.
    pub previous: Option<RunId>,
    /// What the answer will be called: 32 hexadecimal digits, and the run that it begins too.
    pub answer_id: String,
    pub trace: Option<Trace>,
    /// Its client does not wait: the run goes on by itself.
    pub background: bool,
    /// What it may use at most, where that is less than the agent's own budget.
    pub budget: Option<RunBudget>,
    /// What a guard has said against it: the run is to begin only to end as rejected.
    pub blocked: Option<String>,
}

/// A budget that a client makes lower.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunBudget {
    /// Nano-dollars.
    pub usd: Option<u64>,
    pub tokens: Option<u64>,
    pub steps: Option<u32>,
    pub tool_calls: Option<u32>,
    pub seconds: Option<u64>,
}

/// What headers and metadata say of a run.
#[derive(Debug, Clone, Default)]
pub struct RunWishes {
    pub session: Option<String>,
    pub user: Option<String>,
    pub idempotency_key: Option<String>,
    pub on_disconnect: Option<OnLeave>,
    /// How long a call waits for an approval before it says that one is needed.
    pub approval_wait: Duration,
    /// What a stream shows, if not what the agent says.
    pub stream: Option<StreamMode>,
    pub labels: BTreeMap<String, String>,
    /// What its client says of the calls of models, by the names of its headers.
    pub headers: Vec<(String, String)>,
    /// Where its client stands in a trace.
    pub trace: Option<Trace>,
    /// What it wants tools to know, as W3C Baggage spells it.
    pub baggage: Option<Box<str>>,
    pub budget: Option<RunBudget>,
    /// Who is told of its end: a hook of the config by its name, or a URL.
    pub webhook: Option<String>,
}

/// A run as its client follows it.
#[derive(Debug)]
pub struct Performance {
    pub run: RunId,
    pub version: Arc<str>,
    /// What it says: one answer, with the usage of all its calls before its end.
    pub follower: Follower,
    /// How it stands; the last word comes before the end of what it says.
    pub report: watch::Receiver<Report>,
    /// What a stream of it shows.
    pub stream: StreamMode,
    /// The same was asked before: the name of the answer that was begun then, and when.
    pub again: Option<(String, u64)>,
}

/// How a run stands.
#[derive(Debug, Clone)]
pub struct Report {
    pub state: RunState,
    /// Why it stopped before its time, if it did.
    pub reason: Option<&'static str>,
    pub steps: u32,
    pub model_calls: u32,
    pub tool_calls: u32,
    pub usage: Usage,
    pub cost: Option<Money>,
    /// What people must decide first, as the API shows it.
    pub approvals: Vec<Value>,
    pub degraded_tools: Vec<String>,
    /// It had to do with less than it is meant to have.
    pub degraded: bool,
    /// How sure it was at its least sure step, in thousandths.
    pub confidence: Option<u32>,
    pub fallback_level: u32,
    /// All that its models have said was remembered.
    pub recalled: bool,
}

/// An agent whose guards look at what a run asks.
#[derive(Debug, Clone)]
pub struct Guarded {
    pub agent: Arc<str>,
    pub version: Arc<str>,
    /// What guarded it when the run began, should the config not know it any more.
    pub guards: Vec<String>,
}

/// One call of a model for a run.
#[derive(Debug)]
pub struct Turn {
    pub caller: Caller,
    /// `model` names a route, or `provider/model`.
    pub request: ChatRequest,
    pub run: RunId,
    pub agent: Arc<str>,
    /// Of the agent, and the number of the step.
    pub version: Arc<str>,
    pub step: u32,
    /// Whose guards look at it.
    pub guarded: Vec<Guarded>,
    /// Whom the run's client has named.
    pub user: Option<Arc<str>>,
    /// What the run's client wants of it, by the names of its headers, and what it is marked with.
    pub headers: Vec<(String, String)>,
    pub labels: BTreeMap<String, String>,
    /// Calls of one run stay together.
    pub session: u64,
    pub trace: Option<Trace>,
    pub deadline: Instant,
    /// What the cache may do for it, if that is less than its route and key let it.
    pub cache: Option<CacheMode>,
    /// Whose answers are of no use to it, as `provider/model`: others are asked, if there are any.
    pub avoids: Option<String>,
    /// How often a target that limits its rate is asked before another one is.
    pub rate_limit_tries: u32,
    /// Where stands what it has come to, also when nobody waits for it any more.
    pub receipt: Arc<OnceLock<Receipt>>,
}

/// What a call of a model came to, besides its answer.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    /// As whom the access log and the ledger know the call.
    pub id: Option<CallId>,
    pub usage: Usage,
    /// The route that it went by, and the kind of work, where that decides.
    pub route: Option<Arc<str>>,
    pub task: Option<&'static str>,
    /// How long it took.
    pub took: Duration,
    /// The usage was guessed.
    pub estimated: bool,
    pub cost: Option<Money>,
    /// Who answered, or was asked last.
    pub provider: Option<Arc<str>>,
    pub model: Option<Arc<str>>,
    /// Requests that left.
    pub attempts: u32,
    /// How many targets had failed before the one that answered.
    pub fallback_level: u32,
    pub cached: bool,
    /// The attempts that failed, in order.
    pub failed: Vec<Attempt>,
}

#[cfg(test)]
mod tests;
