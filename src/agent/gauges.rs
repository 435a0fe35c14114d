//! How much waits, for those who watch: read from the store now and then, and the same at every
//! replica.

use std::collections::{BTreeMap, BTreeSet};

use super::journal::now;
use super::staff::Staff;
use crate::store::runs::RunCounts;
use crate::telemetry::Gauges;
use crate::tool::Health;

/// The state of runs at work, and those in which a run waits for somebody.
pub(super) const RUNNING: &str = "running";
const STATES: [&str; 6] = [
    "waiting_approval",
    "waiting_input",
    "waiting_client",
    "waiting_child",
    "waiting_human",
    "paused",
];
/// What letters are about.
const LETTERS: [&str; 4] = ["tool", "unknown_outcome", "compensation", "run"];

/// The series that were shown: what is not there any more is shown as 0.
#[derive(Debug, Default)]
pub(super) struct Shown {
    queued: Series,
    oldest: Series,
    approvals: Series,
    oldest_approval: Series,
    waiting: Series,
    letters: Series,
    breakers: Series,
}

#[derive(Debug, Default)]
struct Series(BTreeSet<Vec<String>>);

// === impl Series ===

impl Series {
    fn show(&mut self, gauges: &Gauges, known: Vec<Vec<String>>, values: Vec<(Vec<String>, f64)>) {
        let set = |labels: &[String], value: f64| {
            let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
            gauges.with_label_values(&labels).set(value);
        };
        self.0.extend(known);
        let is_told = |labels: &Vec<String>| values.iter().any(|(told, _)| told == labels);
        self.0.iter().filter(|labels| !is_told(labels)).for_each(|labels| set(labels, 0.0));
        for (labels, value) in values {
            set(&labels, value);
            self.0.insert(labels);
        }
    }
}

impl Staff {
    /// Counts what waits, and shows it.
    pub(super) async fn show_what_waits(&self, shown: &mut Shown) {
        match self.gateway.store().run_counts().await {
            Ok(counts) => self.show(shown, counts),
            Err(error) => tracing::debug!(%error, "what waits could not be counted"),
        }
    }

    fn show(&self, shown: &mut Shown, counts: RunCounts) {
        let (metrics, house) = (&self.gateway.telemetry.metrics, self.gateway.snapshot());
        let agents = || house.config.agents.keys().map(|agent| vec![agent.clone()]).collect();
        let (queued, oldest) = parted(counts.queued);
        shown.queued.show(&metrics.agent_queue_depth, agents(), queued);
        shown.oldest.show(&metrics.agent_queue_oldest, agents(), oldest);
        metrics.agent_store_bytes.set(i64::try_from(counts.bytes).unwrap_or(i64::MAX));
        let asked = counts.approvals.iter();
        let asked = asked
            .map(|(agent, tool, count, _)| (vec![agent.clone(), tool.clone()], number(*count)));
        let known = house.config.agents.iter().flat_map(|(agent, terms)| {
            let tools = house.toolbox.named(&terms.tools).into_iter();
            let asked_for = tools.filter(|tool| tool.approval().is_some());
            asked_for.map(move |tool| vec![agent.clone(), tool.name.to_string()])
        });
        shown.approvals.show(&metrics.agent_approvals_pending, known.collect(), asked.collect());
        let (_, oldest) = parted(firsts(counts.approvals));
        shown.oldest_approval.show(&metrics.agent_approvals_oldest, agents(), oldest);
        let states = |agent: &String| STATES.map(|state| vec![agent.clone(), state.to_owned()]);
        let all = house.config.agents.keys().flat_map(states).collect();
        let waiting = counts.waiting.into_iter();
        let waiting = waiting.map(|(agent, state, count)| (vec![agent, state], number(count)));
        shown.waiting.show(&metrics.agent_runs_active, all, waiting.collect());
        let kinds = LETTERS.map(|kind| vec![kind.to_owned()]).to_vec();
        let letters = counts.letters.into_iter();
        let letters = letters.map(|(kind, count)| (vec![kind], number(count)));
        shown.letters.show(&metrics.agent_dlq_depth, kinds, letters.collect());
        let tools = house.toolbox.all();
        let breakers = tools.iter().map(|tool| {
            let is_open = matches!(tool.health(), Health::Down { .. });
            (vec![tool.name.to_string()], f64::from(u8::from(is_open)))
        });
        shown.breakers.show(&metrics.agent_tool_breaker, Vec::new(), breakers.collect());
    }
}

type Labelled = Vec<(Vec<String>, f64)>;

/// Since when the first of an agent's approvals waits, whichever tool it is for.
fn firsts(approvals: Vec<(String, String, u64, u64)>) -> Vec<(String, u64, u64)> {
    let mut first: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (agent, _, count, since) in approvals {
        let known = first.entry(agent).or_insert((0, u64::MAX));
        *known = (known.0 + count, known.1.min(since));
    }
    first.into_iter().map(|(agent, (count, since))| (agent, count, since)).collect()
}

/// How many, and for how many seconds the first of them.
fn parted(counts: Vec<(String, u64, u64)>) -> (Labelled, Labelled) {
    let now = now();
    let both = counts.into_iter().map(|(agent, count, since)| {
        let seconds = std::time::Duration::from_millis(now.saturating_sub(since)).as_secs_f64();
        ((vec![agent.clone()], number(count)), (vec![agent], seconds))
    });
    both.unzip()
}

fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
