//! Whether an agent may be begun now, by this caller, and by which of its versions.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::begin::away;
use super::definition::Definition;
use super::journal::now;
use super::staff::Staff;
use crate::access::Caller;
use crate::canon::Owner;
use crate::config::{Agent, Pace, suggestion};
use crate::error::{Error, Kind};
use crate::store::runs::RunFilter;
use crate::tool::Health;

/// Of one user with one agent, so many runs of a day are looked at.
const MOST_RUNS: u32 = 10_000;

/// How often runs were begun lately, by agent and user.
pub(super) type Begun = HashMap<(String, Option<String>), VecDeque<Instant>>;

/// What stands behind the name of an agent.
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) agent: &'a Arc<Agent>,
    pub(super) version: Option<&'a str>,
}

impl Staff {
    /// Whether an agent may be begun now.
    pub(super) fn may_begin(&self, named: &Named<'_>, user: Option<&str>) -> Result<(), Error> {
        let budget = &named.agent.budget;
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let all = (named.name.to_owned(), None);
        let own = (named.name.to_owned(), user.map(str::to_owned));
        let mut wait = room(begun.entry(all.clone()).or_default(), &budget.runs);
        if user.is_some() && wait.is_none() {
            wait = room(begun.entry(own.clone()).or_default(), &budget.user_runs);
        }
        if let Some(wait) = wait {
            let message = format!("The agent `{}` was begun too often.", named.name);
            let mut error = Error::new(Kind::RateLimited, message);
            error.retry_after = Some(wait);
            return Err(error);
        }
        let now = Instant::now();
        begun.entry(all).or_default().push_back(now);
        if user.is_some() {
            begun.entry(own).or_default().push_back(now);
        }
        begun.retain(|_, times| !times.is_empty());
        Ok(())
    }

    /// Whether a user may spend more with an agent on this day, in UTC. `most`: nano-dollars.
    pub(super) async fn has_means(
        &self,
        (owner, user): (&Owner, &str),
        (agent, most): (&str, u64),
    ) -> Result<(), Error> {
        const DAY: u64 = 86_400_000;
        let now = now();
        let filter = RunFilter {
            owner: Some(owner.clone()),
            agent: Some(agent.to_owned()),
            user: Some(user.to_owned()),
            since: Some(now - now % DAY),
            ..RunFilter::default()
        };
        let rows = self.gateway.store().runs(filter, MOST_RUNS).await.map_err(away)?;
        let spent: u64 = rows.iter().map(|row| row.totals.cost).sum();
        if spent < most {
            return Ok(());
        }
        let message = format!("This user has spent what a day allows with the agent `{agent}`.");
        let mut error = Error::new(Kind::BudgetExceeded, message);
        error.retry_after = Some(Duration::from_millis(DAY - now % DAY));
        Err(error)
    }

    /// Without these tools it does not begin.
    pub(super) fn has_tools(&self, definition: &Definition) -> Result<(), Error> {
        let toolbox = self.toolbox();
        for name in &definition.require_tools {
            let tool = toolbox.get(name);
            let is_up = tool.is_some_and(|tool| matches!(toolbox.health(&tool), Health::Up));
            if !is_up {
                let message = format!("The tool `{name}`, which the agent needs, is not there.");
                return Err(Error::new(Kind::Overloaded, message));
            }
        }
        Ok(())
    }
}

/// When there is room for one more, if not now.
fn room(times: &mut VecDeque<Instant>, paces: &[Pace]) -> Option<Duration> {
    let now = Instant::now();
    let longest = paces.iter().map(|pace| pace.seconds).max().unwrap_or(0);
    while times
        .front()
        .is_some_and(|time| now.duration_since(*time) >= Duration::from_secs(longest))
    {
        times.pop_front();
    }
    let mut wait = None;
    for pace in paces {
        let span = Duration::from_secs(pace.seconds);
        let within: Vec<&Instant> =
            times.iter().filter(|time| now.duration_since(**time) < span).collect();
        let amount = usize::try_from(pace.amount).unwrap_or(usize::MAX);
        if within.len() >= amount {
            let free = within[within.len() - amount];
            let own = span.saturating_sub(now.duration_since(*free));
            wait = Some(wait.map_or(own, |wait: Duration| wait.max(own)));
        }
    }
    wait
}

pub(super) fn find<'a>(
    agents: &'a std::collections::BTreeMap<String, Arc<Agent>>,
    written: &'a str,
    caller: &Caller,
) -> Result<Named<'a>, Error> {
    let (name, version) = match written.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (written, None),
    };
    let Some(agent) = agents.get(name).filter(|_| caller.may_run_agent(name)) else {
        let names = agents.keys().filter(|name| caller.may_run_agent(name));
        let hint = suggestion(name, names.map(String::as_str));
        let message = format!("There is no agent `{name}` for this key{hint}");
        return Err(Error::new(Kind::ModelNotFound, message));
    };
    if !granted(agent, caller) {
        let message = format!("This key may not run the agent `{name}`.");
        return Err(Error::new(Kind::NotAllowed, message));
    }
    let version = match version {
        None => None,
        Some(wanted) => Some(agent.version_named(wanted).ok_or_else(|| {
            let message = format!("The agent `{name}` has no version `{wanted}`.");
            Error::new(Kind::ModelNotFound, message)
        })?),
    };
    Ok(Named { name, agent, version })
}

/// Whether the agent's own list has this caller.
pub(super) fn granted(agent: &Agent, caller: &Caller) -> bool {
    let covers = |patterns: &Option<Vec<String>>, name: Option<&str>| {
        let Some(patterns) = patterns else { return true };
        patterns.iter().any(|pattern| match (pattern.strip_suffix('*'), name) {
            (Some(""), _) => true,
            (Some(prefix), Some(name)) => name.starts_with(prefix),
            (None, Some(name)) => pattern == name,
            (_, None) => false,
        })
    };
    covers(&agent.access_keys, Some(caller.key()))
        && covers(&agent.access_users, caller.user().map(|user| &**user))
}

/// The version by which a session goes: always the same for the same session.
pub(super) fn drawn(name: &str, agent: &Agent, sticky: &str) -> String {
    let sum: u32 = agent.weights.values().sum();
    if sum == 0 {
        return agent.version.clone();
    }
    let digest = Sha256::digest(format!("{name}\n{sticky}"));
    let draw = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]) % sum;
    let mut before = 0;
    for (version, weight) in &agent.weights {
        before += weight;
        if draw < before {
            return version.clone();
        }
    }
    agent.version.clone()
}
