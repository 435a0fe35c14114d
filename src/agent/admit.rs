//! Whether an agent may be begun now, by this caller, and by which of its versions.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::begin::away;
use super::definition::Definition;
use super::journal::now;
use super::staff::Staff;
use crate::access::Caller;
use crate::access::account::{Account, Moment, Scope};
use crate::canon::{ChatRequest, Owner, RunId};
use crate::config::{Agent, Limits, Pace, suggestion};
use crate::error::{Error, Kind};
use crate::store::runs::{LabelRow, RunFilter, RunRow};
use crate::tool::Health;

/// Of one user, so many runs of a day are looked at.
const MOST_RUNS: u32 = 10_000;

/// From so many accounts on, those are looked for that nobody uses.
const SWEEP: usize = 10_000;

/// How often runs were begun lately, by agent, or by agent and user.
pub(super) type Begun = HashMap<String, Counted>;

/// One of those counts.
#[derive(Debug)]
pub(super) struct Counted {
    account: Arc<Account>,
    paces: Vec<Pace>,
    last: Instant,
}

/// What stands behind the name of an agent.
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) agent: &'a Arc<Agent>,
    pub(super) version: Option<&'a str>,
}

impl Staff {
    /// Whether an agent may be begun now for this user, in whatever way, which is counted then.
    pub(super) async fn admits(
        &self,
        (owner, user): (&Owner, Option<&str>),
        definition: &Definition,
    ) -> Result<(), Error> {
        let name = definition.agent.as_str();
        if let (Some(user), Some(most)) = (user, definition.budget.user_usd_per_day) {
            self.has_means(owner, user, name, most).await?;
        }
        self.has_tools(definition)?;
        let agent = self.gateway.snapshot().config.agents.get(name).cloned();
        match agent {
            Some(agent) => self.count_begin(name, &agent, user).await,
            None => Ok(()),
        }
    }

    /// Whether the key of a run may call a model at all.
    pub(super) async fn has_room(
        &self,
        caller: &Caller,
        definition: &Definition,
    ) -> Result<(), Error> {
        let Some(root) = definition.root() else { return Ok(()) };
        let asked = ChatRequest { model: root.route.clone(), ..ChatRequest::default() };
        self.gateway.has_room(caller, &self.gateway.forecast(caller, &asked)).await
    }

    /// Whether it may be begun so often, which is counted then.
    async fn count_begin(
        &self,
        name: &str,
        agent: &Agent,
        user: Option<&str>,
    ) -> Result<(), Error> {
        let budget = &agent.budget;
        let own = user.map(|user| (format!("{name} for {user}"), &budget.user_runs));
        let counted = [(name.to_owned(), &budget.runs)].into_iter().chain(own);
        let counted = counted.filter(|(_, paces)| !paces.is_empty());
        let accounts: Vec<Arc<Account>> =
            counted.map(|(whose, paces)| self.account(whose, paces)).collect();
        if accounts.is_empty() {
            return Ok(());
        }
        self.gateway.count_run(&accounts).await
    }

    /// Where runs are counted, here or together with other replicas.
    fn account(&self, whose: String, paces: &[Pace]) -> Arc<Account> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Moment::now();
        if begun.len() >= SWEEP {
            // Who has begun nothing for longer than is counted has no past.
            begun.retain(|_, it| now.steady.saturating_duration_since(it.last) < it.remembered());
        }
        let counted = begun.entry(whose).or_insert_with_key(|whose| {
            let accounts = &self.gateway.snapshot().roster.accounts;
            let account = accounts.account(Scope::Agent, whose);
            Counted { account, paces: Vec::new(), last: now.steady }
        });
        if counted.paces != paces {
            let limits = Limits { requests: paces.to_vec(), ..Limits::default() };
            counted.account.apply(&limits, &[], now);
            counted.paces = paces.to_vec();
        }
        counted.last = now.steady;
        Arc::clone(&counted.account)
    }

    /// Whether a user may spend more with an agent, and with all that it has begun, on this day, in
    /// UTC. `most`: nano-dollars.
    async fn has_means(
        &self,
        owner: &Owner,
        user: &str,
        agent: &str,
        most: u64,
    ) -> Result<(), Error> {
        const DAY: u64 = 86_400_000;
        let now = now();
        let filter = RunFilter {
            owner: Some(owner.clone()),
            user: Some(user.to_owned()),
            since: Some(now - now % DAY),
            ..RunFilter::default()
        };
        let rows = self.gateway.store().runs(filter, MOST_RUNS).await.map_err(away)?;
        let spent: u64 = of_agent(&rows, agent).map(|row| row.totals.cost).sum();
        if spent < most {
            return Ok(());
        }
        let message = format!("This user has spent what a day allows with the agent `{agent}`.");
        let mut error = Error::new(Kind::BudgetExceeded, message);
        error.retry_after = Some(Duration::from_millis(DAY - now % DAY));
        Err(error)
    }

    /// Without these tools it does not begin.
    fn has_tools(&self, definition: &Definition) -> Result<(), Error> {
        let toolbox = self.toolbox();
        for name in &definition.require_tools {
            let tool = toolbox.get(name);
            let retry_after = match tool.map(|tool| toolbox.health(&tool)) {
                Some(Health::Up) => continue,
                Some(Health::Down { retry_after, .. }) => retry_after,
                Some(Health::Blocked { .. }) | None => None,
            };
            let message = format!("The tool `{name}`, which the agent needs, is not there.");
            return Err(Error { retry_after, ..Error::new(Kind::Overloaded, message) });
        }
        Ok(())
    }
}

/// The runs of an agent, and those that these have begun.
fn of_agent<'a>(rows: &'a [RunRow], agent: &'a str) -> impl Iterator<Item = &'a RunRow> {
    let known: HashMap<RunId, &RunRow> = rows.iter().map(|row| (row.id, row)).collect();
    rows.iter().filter(move |row| {
        let mut here = Some(*row);
        while let Some(row) = here.filter(|row| row.agent != agent) {
            here = row.parent.and_then(|parent| known.get(&parent).copied());
        }
        here.is_some()
    })
}

// === impl Counted ===

impl Counted {
    fn remembered(&self) -> Duration {
        let longest = self.paces.iter().map(|pace| pace.seconds).max();
        Duration::from_secs(longest.unwrap_or_default())
    }
}

pub(super) fn find<'a>(
    agents: &'a BTreeMap<String, Arc<Agent>>,
    (written, moved): (&'a str, &[LabelRow]),
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
        Some(wanted) => {
            let labels = labels(agent, moved);
            let version = labels.get(wanted).map_or(wanted, String::as_str);
            Some(agent.at(version).map(|definition| definition.version.as_str()).ok_or_else(
                || {
                    let message = format!("The agent `{name}` has no version `{wanted}`.");
                    Error::new(Kind::ModelNotFound, message)
                },
            )?)
        }
    };
    Ok(Named { name, agent, version })
}

/// Where the labels of an agent are: where they were moved to, if the config has said nothing else
/// of them since and there is still such a version, and where the config has them otherwise.
pub fn labels(agent: &Agent, moved: &[LabelRow]) -> BTreeMap<String, String> {
    let mut labels = agent.labels.clone();
    for row in moved {
        if agent.labels.get(&row.label) == row.file.as_ref() && agent.at(&row.version).is_some() {
            labels.insert(row.label.clone(), row.version.clone());
        }
    }
    labels
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

#[cfg(test)]
mod tests {
    use super::*;

    fn agent() -> Agent {
        let version = |name: &str| Agent { version: name.to_owned(), ..Agent::default() };
        Agent {
            weights: [("7".to_owned(), 90), ("8".to_owned(), 10)].into(),
            labels: [("prod".to_owned(), "7".to_owned())].into(),
            versions: [("8".to_owned(), version("8"))].into(),
            ..version("7")
        }
    }

    #[test]
    fn sessions_are_shared_out_as_the_weights_say_and_stay() {
        let agent = agent();
        let draw = |number: u32| drawn("support", &agent, &format!("session-{number}"));
        let second = (0..2000).filter(|number| draw(*number) == "8").count();
        assert!((160..=240).contains(&second), "{second} of 2000 instead of 200");
        assert!((0..100).all(|number| draw(number) == draw(number)));
    }

    #[test]
    fn a_label_is_where_it_was_moved_as_long_as_the_config_says_nothing_new() {
        let moved = |version: &str, file: Option<&str>| LabelRow {
            label: "prod".to_owned(),
            version: version.to_owned(),
            file: file.map(str::to_owned),
            by: "ann".to_owned(),
            at: 0,
        };
        let of = |row| labels(&agent(), &[row]).remove("prod").unwrap();
        assert_eq!(of(moved("8", Some("7"))), "8");
        assert_eq!(of(moved("8", Some("6"))), "7", "the config has another word for it");
        assert_eq!(of(moved("8", None)), "7", "the config has a word for it now");
        assert_eq!(of(moved("9", Some("7"))), "7", "there is no such version any more");
    }
}
