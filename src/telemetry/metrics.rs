//! The whole metric list in one table. Labels come from the config or from small enums only.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{
    Counter, CounterVec, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
    IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

use super::exemplars::{Exemplars, Series};
use super::openmetrics;
use super::process::Process;
use crate::canon::{CallRecord, Outcome, Surface};

/// Twelve buckets from half a millisecond to ten minutes.
const SECONDS: &[f64] = &[0.000_5, 0.002, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0];
/// Twelve buckets from ten microseconds to a second.
const SHORT_SECONDS: &[f64] = &[
    0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.005, 0.025, 0.1, 0.25, 1.0,
];

/// Closer where thresholds are.
const COSINES: &[f64] =
    &[0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.99, 0.995, 1.0];

const STEPS: &[f64] = &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 20.0, 50.0, 100.0];

const DOLLARS: &[f64] = &[0.000_1, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// From a second to a week: people take their time.
const WAITS: &[f64] = &[
    1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 259_200.0, 604_800.0,
];

const TOKENS: &[f64] = &[
    250.0,
    500.0,
    1000.0,
    2000.0,
    4000.0,
    8000.0,
    16_000.0,
    32_000.0,
    64_000.0,
    128_000.0,
    256_000.0,
    1_000_000.0,
];

const SHARES: &[f64] = &[0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 1.0];

/// Declares the metrics: a doc comment is the help text, brackets hold the labels.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:tt $name:literal [$($label:literal),*] $(in $buckets:ident)?;)+) => {
        /// Every series the gateway exposes.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            exemplars: Exemplars,
            $($(#[doc = $help])+ pub $field: metrics!(@type $kind),)+
        }

        impl Metrics {
            pub fn new() -> Result<Self, prometheus::Error> {
                let registry = Registry::new();
                registry.register(Box::new(Process::new()?))?;
                $(
                    let help = concat!($($help),+).trim();
                    let $field = metrics!(@make $kind $name, help, [$($label),*] $(, $buckets)?);
                    registry.register(Box::new($field.clone()))?;
                )+
                Ok(Self { registry, exemplars: Exemplars::default(), $($field,)+ })
            }

            /// The name and labels of each series.
            pub const NAMES: &'static [(&'static str, &'static [&'static str])] =
                &[$(($name, &[$($label),*])),+];
        }
    };
    (@type counter) => { IntCounter };
    (@type counters) => { IntCounterVec };
    (@type sums) => { CounterVec };
    (@type gauge) => { IntGauge };
    (@type gauges) => { GaugeVec };
    (@type histograms) => { HistogramVec };
    (@make counter $name:literal, $help:expr, []) => { IntCounter::new($name, $help)? };
    (@make gauge $name:literal, $help:expr, []) => { IntGauge::new($name, $help)? };
    (@make counters $name:literal, $help:expr, [$($label:literal),*]) => {
        IntCounterVec::new(Opts::new($name, $help), &[$($label),*])?
    };
    (@make sums $name:literal, $help:expr, [$($label:literal),*]) => {
        CounterVec::new(Opts::new($name, $help), &[$($label),*])?
    };
    (@make gauges $name:literal, $help:expr, [$($label:literal),*]) => {
        GaugeVec::new(Opts::new($name, $help), &[$($label),*])?
    };
    (@make histograms $name:literal, $help:expr, [$($label:literal),*], $buckets:ident) => {
        HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), &[$($label),*])?
    };
}

metrics! {
    /// Calls that ended, by how they ended.
    requests: counters "switchpoint_requests_total" ["surface", "route", "provider", "model", "outcome"];
    /// Time from the arrival of a call to its end, in seconds.
    request_seconds: histograms "switchpoint_request_seconds" ["surface", "route"] in SECONDS;
    /// Time from the arrival of a call to the first content of its answer, in seconds.
    first_token_seconds: histograms "switchpoint_first_token_seconds" ["provider", "model"] in SECONDS;
    /// Mean time between two content events of a stream, one observation a stream, in seconds.
    token_gap_seconds: histograms "switchpoint_token_gap_seconds" ["provider", "model"] in SECONDS;
    /// Time spent in the gateway before the first request to an upstream left, in seconds.
    overhead_seconds: histograms "switchpoint_overhead_seconds" ["surface"] in SHORT_SECONDS;
    /// Tokens by disjoint class: input, `cache_read`, `cache_write`, output, reasoning.
    tokens: counters "switchpoint_tokens_total" ["provider", "model", "class"];
    /// What calls cost, in USD, where the price is known; `team` is that of the key.
    cost: sums "switchpoint_cost_usd_total" ["provider", "model", "team"];
    /// Calls that used a model whose price nobody knows.
    unpriced: counter "switchpoint_unpriced_total" [];
    /// Calls, and attempts with one target, that a limit or budget had no room for.
    limited: counters "switchpoint_limited_total" ["kind"];
    /// Share of its budget that a team has used: of several, of the one nearest to its end.
    budget_used: gauges "switchpoint_budget_used_ratio" ["team"];
    /// Requests sent to upstreams, by how they ended.
    attempts: counters "switchpoint_attempts_total" ["provider", "outcome"];
    /// Calls that went on to a further target, by why the one before it failed.
    fallbacks: counters "switchpoint_fallbacks_total" ["route", "reason"];
    /// Requests that went to a target again after it had failed the same call, by why it had.
    retries: counters "switchpoint_retries_total" ["provider", "reason"];
    /// Calls that were to be kept in files: kept, dropped because the disk is slow, or failed.
    recordings: counters "switchpoint_recordings_total" ["result"];
    /// Whether a target is used: 1, is being probed: 0.5, or is left alone: 0.
    target_state: gauges "switchpoint_target_state" ["provider", "model"];
    /// Calls of routes by task, by kind of work and by what told it.
    tasks: counters "switchpoint_tasks_total" ["task", "by"];
    /// Calls of which a guard had something to say, by what was looked at and what was done.
    guards: counters "switchpoint_guard_total" ["guard", "stage", "action"];
    /// Whether a target answered the last drill of its route: 1 or 0. `level`: 0 for the targets that
    /// are meant to answer, 1 and on for those that take over, group by group.
    drill_success: gauges "switchpoint_fallback_drill_success" ["route", "level", "provider", "model"];
    /// Calls by what the cache had to do with them: hit, semantic, miss or off; and those of a
    /// shadow that similar questions would have answered.
    cache: counters "switchpoint_cache_total" ["result"];
    /// Tokens that were not used because an answer was there already.
    cache_saved_tokens: counters "switchpoint_cache_saved_tokens_total" ["route"];
    /// What those would have cost, in USD, where the price is known.
    cache_saved_usd: sums "switchpoint_cache_saved_usd_total" ["route"];
    /// How similar the most similar known question was, as a cosine.
    cache_similarity: histograms "switchpoint_cache_similarity" ["route"] in COSINES;
    /// Answers that are remembered in memory.
    cache_entries: gauge "switchpoint_cache_entries" [];
    /// Bytes that those take.
    cache_bytes: gauge "switchpoint_cache_bytes" [];
    /// Questions that those who ask similar ones can find.
    cache_questions: gauge "switchpoint_cache_questions" [];
    /// What other replicas have told of answers: a question that can be found, or a purge.
    cache_heard: counters "switchpoint_cache_heard_total" ["what"];
    /// Questions about remembered answers that the store which replicas share did not answer.
    cache_shared_failures: counters "switchpoint_cache_shared_failures_total" ["for"];
    /// Calls being answered now.
    in_flight: gauge "switchpoint_in_flight" [];
    /// Answers being streamed now.
    streams_open: gauge "switchpoint_streams_open" [];
    /// Client connections open now.
    connections_open: gauge "switchpoint_connections_open" [];
    /// Bytes of request bodies held now, which `body_budget` limits.
    body_bytes: gauge "switchpoint_body_bytes" [];
    /// Calls and connections refused because too much was in flight.
    shed: counter "switchpoint_shed_total" [];
    /// Stream events that made no sense and were skipped.
    events_skipped: counters "switchpoint_stream_events_skipped_total" ["provider"];
    /// The generation of the config that is served; it rises with each accepted one.
    config_generation: gauge "switchpoint_config_generation" [];
    /// Attempts to load a changed config, by outcome: accepted or refused.
    config_reloads: counters "switchpoint_config_reloads_total" ["outcome"];
    /// The generation of the config that is on trial; 0 without one.
    canary_generation: gauge "switchpoint_canary_generation" [];
    /// Calls that ended while a config was on trial, by the config that they went by.
    canary_calls: counters "switchpoint_canary_calls_total" ["side", "outcome"];
    /// Trials of configs, by how they ended.
    canaries: counters "switchpoint_canaries_total" ["outcome"];
    /// Whether a manager of secrets gave what it was asked for last: 1 or 0.
    secrets_up: gauges "switchpoint_secrets_up" ["manager"];
    /// Secrets that managers were asked for, by outcome: fetched or failed.
    secret_fetches: counters "switchpoint_secret_fetches_total" ["manager", "outcome"];
    /// Whether the last transaction of the store was committed: 1 or 0.
    store_up: gauge "switchpoint_store_up" [];
    /// Calls that were noted on disk and are not in the store yet.
    ledger_pending: gauge "switchpoint_ledger_pending" [];
    /// Calls that the ledger will never know of: the disk took them not, nor was there memory left.
    ledger_lost: counter "switchpoint_ledger_lost_total" [];
    /// Whether the store that replicas share answers: 1 or 0; 0 without one.
    shared_up: gauge "switchpoint_shared_up" [];
    /// Round trips to the store that replicas share, by what they were for, in seconds.
    shared_seconds: histograms "switchpoint_shared_seconds" ["for"] in SHORT_SECONDS;
    /// Questions for more of a limit that replicas share, by outcome: granted or refused.
    shared_leases: counters "switchpoint_shared_leases_total" ["outcome"];
    /// Spans by what became of them: sent to the collector, refused by it, or lost because it could
    /// not be reached in time.
    trace_spans: counters "switchpoint_trace_spans_total" ["outcome"];
    /// Calls whose spans were dropped because too many waited for the collector.
    traces_dropped: counter "switchpoint_traces_dropped_total" [];
    /// Runs of agents that ended, by their last state and why they stopped before their time.
    agent_runs: counters "switchpoint_agent_runs_total" ["agent", "version", "trigger", "outcome", "reason"];
    /// Runs that are not over: `running` are those at work in this process; those that wait, by what
    /// for, are counted in the store, so every replica says the same of them.
    agent_runs_active: gauges "switchpoint_agent_runs_active" ["agent", "state"];
    /// Runs that have not begun because there is no place for them; counted in the store.
    agent_queue_depth: gauges "switchpoint_agent_queue_depth" ["agent"];
    /// For how long the first of those has waited, in seconds.
    agent_queue_oldest: gauges "switchpoint_agent_queue_oldest_seconds" ["agent"];
    /// Time from when a run was asked for to when it began, in seconds.
    agent_queue_wait: histograms "switchpoint_agent_queue_wait_seconds" ["agent"] in SECONDS;
    /// Time that runs have worked, without what they waited for people, in seconds.
    agent_run_seconds: histograms "switchpoint_agent_run_duration_seconds" ["agent", "outcome"] in SECONDS;
    /// Calls of models that runs have made.
    agent_steps: histograms "switchpoint_agent_steps" ["agent"] in STEPS;
    /// Time that the gateway itself takes in a step, by what for: assemble, policy, journal or
    /// sanitise, in seconds.
    agent_step_overhead: histograms "switchpoint_agent_step_overhead_seconds" ["phase"] in SHORT_SECONDS;
    /// Calls of models by agents, by the route they went by, who answered, what for (reason, plan or
    /// summarise) and how it went.
    agent_model_calls: counters "switchpoint_agent_model_calls_total" ["agent", "route", "model", "purpose", "outcome"];
    /// Time that those took, in seconds.
    agent_model_seconds: histograms "switchpoint_agent_model_latency_seconds" ["agent", "route", "model", "purpose", "outcome"] in SECONDS;
    /// Tokens of the questions that agents put, by estimate.
    agent_context_tokens: histograms "switchpoint_agent_context_tokens" ["agent"] in TOKENS;
    /// Targets of a route that were meant to answer an agent and did not, by the level that took
    /// over: 1 is the first behind the one that was meant; `agent`, where another agent did.
    agent_fallbacks: counters "switchpoint_agent_fallbacks_total" ["agent", "route", "level"];
    /// Tokens of those, by disjoint type (input, cached, output, reasoning) and by the kind of work,
    /// where the route decides by it.
    agent_tokens: counters "switchpoint_agent_tokens_total" ["agent", "model", "type", "task"];
    /// What those cost, in USD, where the price is known; `key` is that of the config, or other.
    agent_cost: sums "switchpoint_agent_cost_usd_total" ["agent", "model", "key"];
    /// What whole runs cost, in USD.
    agent_run_cost: histograms "switchpoint_agent_run_cost_usd" ["agent"] in DOLLARS;
    /// Calls of tools, by what came of them.
    agent_tool_calls: counters "switchpoint_agent_tool_calls_total" ["agent", "tool", "outcome"];
    /// Time that tools took, retries included, in seconds.
    agent_tool_seconds: histograms "switchpoint_agent_tool_duration_seconds" ["agent", "tool"] in SECONDS;
    /// Calls of tools that were made again because they had come to nothing, by why.
    agent_tool_retries: counters "switchpoint_agent_tool_retries_total" ["tool", "reason"];
    /// Whether a tool is left alone because it has failed too often: 1 or 0.
    agent_tool_breaker: gauges "switchpoint_agent_tool_breaker_state" ["tool"];
    /// Results of tools that were known already.
    agent_tool_cache_hits: counters "switchpoint_agent_tool_cache_hits_total" ["tool"];
    /// Limits that ended runs, or their use of tools: steps, cost, tokens, time, loop, `tool_calls`,
    /// handoffs, depth, context; and `expected_steps`, which ends nothing.
    agent_limit_hits: counters "switchpoint_agent_limit_hits_total" ["agent", "limit"];
    /// Decisions about calls that people had to let: approved, edited, denied or expired.
    agent_approvals: counters "switchpoint_agent_approvals_total" ["agent", "tool", "decision"];
    /// Calls that people have not decided about; counted in the store.
    agent_approvals_pending: gauges "switchpoint_agent_approvals_pending" ["agent", "tool"];
    /// For how long the first of those has waited, in seconds.
    agent_approvals_oldest: gauges "switchpoint_agent_approvals_oldest_seconds" ["agent"];
    /// Time that people took to decide, in seconds.
    agent_approval_wait: histograms "switchpoint_agent_approval_wait_seconds" ["agent", "tool", "decision"] in WAITS;
    /// Work that came to nothing and that nobody has looked at, by kind; counted in the store.
    agent_dlq_depth: gauges "switchpoint_agent_dlq_depth" ["kind"];
    /// Runs that were handed to people.
    agent_escalations: counters "switchpoint_agent_escalations_total" ["agent", "reason"];
    /// How sure agents said they were of their answers.
    agent_confidence: histograms "switchpoint_agent_confidence" ["agent"] in SHARES;
    /// Conversations that were told in short to fit.
    agent_compactions: counters "switchpoint_agent_compactions_total" ["agent"];
    /// What guards had to say of calls of agents, of their turns and of what they were asked.
    agent_guardrail: counters "switchpoint_agent_guardrail_total" ["guardrail", "stage", "action"];
    /// What models, clients and servers of tools tried that they must not: `unknown_tool`,
    /// `tool_not_allowed`, `tool_refused` (an address, a limit of the operator's), `tool_drift`,
    /// `agent_not_allowed`, `approval_not_allowed`.
    agent_security_events: counters "switchpoint_agent_security_events_total" ["kind"];
    /// Entries that were added to journals.
    agent_journal_appends: counter "switchpoint_agent_journal_appends_total" [];
    /// Bytes of the database that runs are kept in; of all that it holds.
    agent_store_bytes: gauge "switchpoint_agent_store_bytes" [];
    /// Time that entries of journals took to be stored, in seconds: `strict` where they had to be on
    /// the disk.
    agent_journal_commit: histograms "switchpoint_agent_journal_commit_seconds" ["durability"] in SHORT_SECONDS;
    /// Runs that went on here after somebody else, or an earlier process, had left them.
    agent_takeovers: counter "switchpoint_agent_takeovers_total" [];
    /// Runs that another process has taken over from this one.
    agent_lease_lost: counter "switchpoint_agent_lease_lost_total" [];
    /// What hooks were told of runs, by the hook's name or "run" for one that a run has of its own,
    /// and what came of it: delivered, retried or failed.
    agent_webhook_deliveries: counters "switchpoint_agent_webhook_deliveries_total" ["hook", "outcome"];
    /// What users and operators said of runs.
    agent_feedback: counters "switchpoint_agent_feedback_total" ["agent", "label"];
    /// What was asked of runs that are not in a state for it, by where it was asked.
    agent_invalid_transitions: counters "switchpoint_agent_invalid_transitions_total" ["path"];
    /// Processes that serve tools over MCP.
    mcp_children: gauges "switchpoint_mcp_children" ["server"];
    /// Connections to servers of tools that were opened again.
    mcp_reconnects: counters "switchpoint_mcp_reconnects_total" ["server"];
    /// Tools that their server describes otherwise than they were approved.
    mcp_tool_drift: counters "switchpoint_mcp_tool_drift_total" ["server"];
    /// Lines of the log that were dropped because nobody took them.
    log_lines_dropped: counter "switchpoint_log_lines_dropped_total" [];
}

impl Metrics {
    /// All series in Prometheus' text format.
    pub fn expose(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }

    /// The same as OpenMetrics, with exemplars.
    pub fn expose_open(&self) -> String {
        let labels = |name: &str| {
            let declared = Self::NAMES.iter().find(|(known, _)| *known == name);
            declared.map_or(&[][..], |(_, labels)| labels)
        };
        openmetrics::write(&self.registry.gather(), &self.exemplars, &labels)
    }

    /// Notes what guards had to say of a call of an agent's.
    pub(super) fn finish_of_agent(&self, record: &CallRecord) {
        for note in record.guards.iter().filter(|note| !note.is_clean()) {
            let labels = [&*note.guard, note.stage, note.action];
            self.agent_guardrail.with_label_values(&labels).inc();
        }
    }

    /// Notes what somebody tried that they must not.
    pub fn count_security_event(&self, kind: &'static str) {
        self.agent_security_events.with_label_values(&[kind]).inc();
    }
}

/// One more in a gauge, until it is dropped.
#[derive(Debug)]
pub struct OneMore(Gauge);

impl OneMore {
    pub fn of(gauges: &GaugeVec, labels: &[&str]) -> Self {
        let gauge = gauges.with_label_values(labels);
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for OneMore {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The series of one target on one route, looked up once and then without a lock.
#[derive(Debug, Default)]
pub struct Meters {
    route: String,
    provider: String,
    model: String,
    surfaces: [PerSurface; Surface::ALL.len()],
    attempts: [OnceLock<IntCounter>; Outcome::ALL.len()],
    tokens: [OnceLock<IntCounter>; 8],
    first_token: OnceLock<Histogram>,
    first_token_exemplars: OnceLock<Arc<Series>>,
    token_gap: OnceLock<Histogram>,
    /// Of calls without a team.
    cost: OnceLock<Counter>,
}

#[derive(Debug, Default)]
struct PerSurface {
    requests: [OnceLock<IntCounter>; Outcome::ALL.len()],
    seconds: OnceLock<Histogram>,
    seconds_exemplars: OnceLock<Arc<Series>>,
    overhead: OnceLock<Histogram>,
}

impl Meters {
    pub fn new(route: &str, provider: &str, model: &str) -> Self {
        Self {
            route: route.to_owned(),
            provider: provider.to_owned(),
            model: model.to_owned(),
            ..Self::default()
        }
    }

    pub(super) fn finish(&self, metrics: &Metrics, record: &CallRecord) {
        let (route, provider, model) = (&*self.route, &*self.provider, &*self.model);
        let surface = record.surface.name();
        let series = &self.surfaces[record.surface as usize];
        let outcome = record.outcome;
        series.requests[outcome as usize]
            .get_or_init(|| {
                let labels = [surface, route, provider, model, outcome.name()];
                metrics.requests.with_label_values(&labels)
            })
            .inc();
        series
            .seconds
            .get_or_init(|| metrics.request_seconds.with_label_values(&[surface, route]))
            .observe(record.duration.as_secs_f64());
        for note in record.guards.iter().filter(|note| !note.is_clean()) {
            let labels = [&*note.guard, note.stage, note.action];
            metrics.guards.with_label_values(&labels).inc();
        }
        if record.attempts.is_empty() {
            return;
        }
        series
            .overhead
            .get_or_init(|| metrics.overhead_seconds.with_label_values(&[surface]))
            .observe(record.overhead.as_secs_f64());
        self.finish_attempts(metrics, record);
        for (class, (name, count)) in record.usage.classes().into_iter().enumerate() {
            if count > 0 {
                self.tokens[class]
                    .get_or_init(|| metrics.tokens.with_label_values(&[provider, model, name]))
                    .inc_by(count);
            }
        }
        if record.malformed_events > 0 {
            let skipped = metrics.events_skipped.with_label_values(&[provider]);
            skipped.inc_by(u64::from(record.malformed_events));
        }
        if let Some(first_token) = record.first_token {
            self.first_token
                .get_or_init(|| metrics.first_token_seconds.with_label_values(&[provider, model]))
                .observe(first_token.as_secs_f64());
        }
    }

    /// Keeps a call that left a trace as the example of the buckets that it fell into.
    pub(super) fn exemplify(&self, metrics: &Metrics, record: &CallRecord, trace: u128) {
        let surface = &self.surfaces[record.surface as usize];
        let known = &metrics.exemplars;
        surface
            .seconds_exemplars
            .get_or_init(|| {
                let labels = [record.surface.name(), &*self.route];
                known.series(&metrics.request_seconds, &labels, SECONDS)
            })
            .keep(trace, record.duration.as_secs_f64());
        if let (Some(first_token), false) = (record.first_token, record.attempts.is_empty()) {
            self.first_token_exemplars
                .get_or_init(|| {
                    let labels = [&*self.provider, &*self.model];
                    known.series(&metrics.first_token_seconds, &labels, SECONDS)
                })
                .keep(trace, first_token.as_secs_f64());
        }
    }

    /// The last attempt is this target's; the others are rare and are looked up.
    fn finish_attempts(&self, metrics: &Metrics, record: &CallRecord) {
        let Some((last, earlier)) = record.attempts.split_last() else { return };
        self.attempts[last.outcome as usize]
            .get_or_init(|| {
                metrics.attempts.with_label_values(&[&*self.provider, last.outcome.name()])
            })
            .inc();
        for (attempt, next) in earlier.iter().zip(record.attempts.iter().skip(1)) {
            let labels = [attempt.provider.as_ref(), attempt.outcome.name()];
            metrics.attempts.with_label_values(&labels).inc();
            if (&attempt.provider, &attempt.model) != (&next.provider, &next.model) {
                let labels = [&*self.route, attempt.outcome.name()];
                metrics.fallbacks.with_label_values(&labels).inc();
            }
            let used = attempt.usage.unwrap_or_default().classes();
            for (name, count) in used.into_iter().filter(|(_, count)| *count > 0) {
                let labels = [attempt.provider.as_ref(), attempt.model.as_ref(), name];
                metrics.tokens.with_label_values(&labels).inc_by(count);
            }
        }
    }

    /// Notes what was spent for a team, or for nobody's.
    pub fn cost(&self, metrics: &Metrics, team: &str, usd: f64) {
        let series = || metrics.cost.with_label_values(&[&*self.provider, &*self.model, team]);
        if team.is_empty() {
            self.cost.get_or_init(series).inc_by(usd);
        } else {
            series().inc_by(usd);
        }
    }

    /// Notes the mean time between two content events of a stream.
    pub fn token_gap(&self, metrics: &Metrics, gap: Duration) {
        self.token_gap
            .get_or_init(|| {
                metrics.token_gap_seconds.with_label_values(&[&*self.provider, &*self.model])
            })
            .observe(gap.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_registers_and_says_what_it_means() {
        let metrics = Metrics::new().unwrap();
        metrics.shed.inc();
        let text = metrics.expose();
        assert!(text.contains("# HELP switchpoint_shed_total Calls and connections refused"));
        for (name, _) in Metrics::NAMES {
            assert!(name.starts_with("switchpoint_"));
        }
    }

    #[test]
    fn an_exemplar_stands_behind_its_bucket_and_nowhere_else() {
        let metrics = Metrics::new().unwrap();
        metrics.requests.with_label_values(&["chat", "a\"b", "p", "m", "ok"]).inc();
        metrics.request_seconds.with_label_values(&["chat", "r"]).observe(0.03);
        let labels = ["chat", "r"];
        let series = metrics.exemplars.series(&metrics.request_seconds, &labels, SECONDS);
        series.keep(0xabc, 0.03);
        let text = metrics.expose_open();
        let examples: Vec<&str> = text.lines().filter(|line| line.contains(" # {")).collect();
        let [example] = examples[..] else { panic!("{examples:?}") };
        let bucket = "switchpoint_request_seconds_bucket{route=\"r\",surface=\"chat\",le=\"0.05\"} 1 \
                      # {trace_id=\"00000000000000000000000000000abc\"} 0.03 ";
        assert!(example.starts_with(bucket), "{example}");
        assert!(text.contains("# TYPE switchpoint_requests counter\n"));
        assert!(text.contains("switchpoint_requests_total{model=\"m\",outcome=\"ok\",provider=\"p\",route=\"a\\\"b\",surface=\"chat\"} 1.0\n"));
        assert!(text.contains("le=\"+Inf\"} 1\n") && text.ends_with("# EOF\n"));
    }
}
