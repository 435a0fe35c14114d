//! `[agent_engine]` and `[agents.NAME]`: loops of model and tool calls that run in the gateway.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use toml::de::DeValue;

use super::budget;
use super::limit::Pace;
use super::provider::texts;
use super::reader::Section;
use super::value;

pub(super) const ENGINE_KEYS: &[&str] = &[
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
    "defaults",
];
pub(super) const RETENTION_KEYS: &[&str] = &["completed", "failed"];
pub(super) const KEYS: &[&str] = &[
    "description",
    "version",
    "route",
    "prompt",
    "instructions",
    "tools",
    "client_tools",
    "client_system",
    "guards",
    "handoffs",
    "delegates",
    "max_handoffs",
    "handoff_input",
    "fallback_agent",
    "require_tools",
    "output_schema",
    "planner",
    "stream",
    "limits",
    "budget",
    "context",
    "confidence",
    "on_unknown_outcome",
    "on_failure",
    "degraded",
    "access",
    "rollout",
    "versions",
];
/// What `[agent_engine.defaults]` may say for all agents.
pub(super) const DEFAULT_KEYS: &[&str] =
    &["limits", "budget", "context", "confidence", "on_unknown_outcome", "degraded", "stream"];
pub(super) const LIMIT_KEYS: &[&str] = &[
    "steps",
    "expected_steps",
    "timeout",
    "step_timeout",
    "wait",
    "tool_concurrency",
    "repairs",
    "loop_warn",
    "loop_stop",
    "final_answer",
];
pub(super) const BUDGET_KEYS: &[&str] = &[
    "usd",
    "tokens",
    "model_calls",
    "tool_calls",
    "bytes",
    "output_tokens",
    "runs",
    "user_runs",
    "user_usd_per_day",
];
pub(super) const CONTEXT_KEYS: &[&str] =
    &["window", "reserve_output", "tool_result_tokens", "compact_at", "keep_turns", "summariser"];
pub(super) const CONFIDENCE_KEYS: &[&str] = &["field", "autonomous", "log", "approve", "missing"];
pub(super) const ACCESS_KEYS: &[&str] = &["keys", "users"];
pub(super) const ROLLOUT_KEYS: &[&str] = &["weights", "labels"];

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
    /// Where people find this gateway, for links in notices.
    pub public_url: Option<String>,
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

/// `[agents.NAME]`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Agent {
    pub description: String,
    /// The version whose definition this is.
    pub version: String,
    /// A route, or `provider/model`.
    pub route: String,
    /// A version of a prompt: `NAME@LABEL` or `NAME@3`.
    pub prompt: Option<String>,
    /// The prompt itself, where it needs no versions.
    pub instructions: Option<String>,
    /// Names of tools, or patterns with a trailing `*`; none is none.
    pub tools: Vec<String>,
    /// Whether clients may bring tools of their own.
    pub client_tools: bool,
    /// Whether clients' system messages are followed.
    pub client_system: bool,
    pub guards: Vec<String>,
    /// Agents that it may give the conversation to.
    pub handoffs: Vec<String>,
    /// Agents that it may ask.
    pub delegates: Vec<String>,
    pub max_handoffs: u32,
    pub handoff_input: HandoffInput,
    /// Who goes on when none of its models answers.
    pub fallback_agent: Option<String>,
    /// Without these it does not begin.
    pub require_tools: Vec<String>,
    /// JSON Schema of its answer.
    pub output_schema: Option<Json>,
    /// It says what it will do before it does it.
    pub plans: bool,
    pub stream: StreamMode,
    pub limits: AgentLimits,
    pub budget: AgentBudget,
    pub context: ContextTerms,
    pub confidence: Option<Confidence>,
    pub on_unknown: OnUnknown,
    /// What was done is undone when it fails.
    pub compensates: bool,
    /// What is said when no model answers; without it the run fails.
    pub degraded: Option<String>,
    /// Keys that may call it, besides what keys say themselves; patterns with a trailing `*`.
    pub access_keys: Option<Vec<String>>,
    pub access_users: Option<Vec<String>>,
    /// Of a hundred new sessions, so many go by each version.
    pub weights: BTreeMap<String, u32>,
    /// Names of versions that move.
    pub labels: BTreeMap<String, String>,
    /// The other versions, each whole.
    pub versions: BTreeMap<String, Agent>,
    /// As it was written.
    pub written: Json,
}

/// What of the conversation an agent is given that takes it over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandoffInput {
    Full,
    /// What the user wants, what was found out, and what was said last.
    #[default]
    Summary,
    Last,
    None,
}

/// What a stream shows of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StreamMode {
    /// The text of every turn as it comes.
    #[default]
    Live,
    /// Only the answer.
    Final,
}

/// What a run may take of turns and time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentLimits {
    /// Calls of a model.
    pub steps: u32,
    /// More are worth a look.
    pub expected_steps: u32,
    /// From its beginning to its end, without what it waits for people.
    pub timeout: Duration,
    pub step_timeout: Duration,
    /// How long it waits for people.
    pub wait: Duration,
    pub tool_concurrency: usize,
    /// How often a malformed answer or call is given back to be mended.
    pub repairs: u32,
    /// The same call so often is remarked on, and so often ends the run.
    pub loop_warn: u32,
    pub loop_stop: u32,
    /// The last step has no tools, so that there is an answer.
    pub final_answer: bool,
}

/// What a run and all that it starts may use together; `None` is no limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentBudget {
    /// In nano-dollars.
    pub usd: Option<u64>,
    pub tokens: Option<u64>,
    pub model_calls: u32,
    pub tool_calls: u32,
    /// Of results of tools.
    pub bytes: u64,
    /// Tokens of one answer of a model.
    pub output_tokens: u64,
    /// How often it may be begun, by all and by each user.
    pub runs: Vec<Pace>,
    pub user_runs: Vec<Pace>,
    /// What each user may spend with it in a day, in nano-dollars.
    pub user_usd_per_day: Option<u64>,
}

/// How a conversation is made to fit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContextTerms {
    /// Tokens, where it is less than what the model can read.
    pub window: Option<u64>,
    pub reserve_output: u64,
    /// Of one result; the rest is kept and not shown.
    pub tool_result_tokens: u64,
    /// At what share of the window older turns are made shorter, in thousandths.
    pub compact_at_permille: u32,
    /// Turns that stay as they are.
    pub keep_turns: u32,
    /// Who makes summaries: a route; without one, older results and then turns are left out.
    pub summariser: Option<String>,
}

/// What an agent may do as sure as it says it is, in thousandths.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confidence {
    /// Of calls' arguments and of answers.
    pub field: String,
    /// Above it, it acts.
    pub autonomous: u32,
    /// From here on it acts, and somebody looks at it later.
    pub log: u32,
    /// From here on somebody must let it. Below, a person takes over.
    pub approve: u32,
    /// What holds where it says nothing.
    pub missing: Band,
}

/// What an agent may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Band {
    Escalate,
    Approve,
    Log,
    Autonomous,
}

/// What becomes of a call whose outcome nobody knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnUnknown {
    /// A person says.
    #[default]
    Escalate,
    /// The tool's probe is asked; a person, if it does not know.
    Probe,
    TellModel,
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
        }
    }
}

impl AgentEngine {
    pub(super) fn read(section: &Section<'_>) -> Self {
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
        }
    }
}

fn lease(written: &DeValue<'_>) -> Result<Duration, String> {
    let lease = value::deadline(written)?;
    if lease < Duration::from_secs(1) { Err("must be at least 1s".to_owned()) } else { Ok(lease) }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

// === impl Agent ===

impl Agent {
    /// What holds where an agent says nothing: `[agent_engine.defaults]`.
    pub(super) fn defaults(engine: Option<&Section<'_>>) -> Self {
        let usual = Self {
            version: "1".to_owned(),
            max_handoffs: 5,
            client_tools: true,
            ..Self::default()
        };
        let section = engine.and_then(|engine| engine.get("defaults")?.section(DEFAULT_KEYS));
        section.map_or_else(|| usual.clone(), |section| usual.shared(&section))
    }

    /// What an agent and the defaults of all may say.
    fn shared(&self, section: &Section<'_>) -> Self {
        let unknown = [
            ("escalate", OnUnknown::Escalate),
            ("probe", OnUnknown::Probe),
            ("tell_model", OnUnknown::TellModel),
        ];
        let modes = [("live", StreamMode::Live), ("final", StreamMode::Final)];
        Self {
            limits: self.limits.over(section),
            budget: self.budget.over(section),
            context: self.context.over(section),
            confidence: Confidence::read(section).or_else(|| self.confidence.clone()),
            on_unknown: section
                .read("on_unknown_outcome", |it| value::one_of(it, &unknown))
                .unwrap_or(self.on_unknown),
            degraded: section.read("degraded", value::text).or_else(|| self.degraded.clone()),
            stream: section.read("stream", |it| value::one_of(it, &modes)).unwrap_or(self.stream),
            ..self.clone()
        }
    }

    /// The agent in `section`, whose version is `version` if that is known; `base` holds where it
    /// says nothing.
    pub(super) fn read(section: &Section<'_>, base: &Self, version: Option<&str>) -> Self {
        let inputs = [
            ("full", HandoffInput::Full),
            ("summary", HandoffInput::Summary),
            ("last", HandoffInput::Last),
            ("none", HandoffInput::None),
        ];
        let planners = [("none", false), ("plan_then_act", true)];
        let failures = [("keep", false), ("compensate", true)];
        let text =
            |key, base: &Option<String>| section.read(key, value::text).or_else(|| base.clone());
        let list = |key, base: &Vec<String>| {
            if section.get(key).is_some() { texts(section, key) } else { base.clone() }
        };
        let flag = |key, base| section.read(key, value::flag).unwrap_or(base);
        let access = section.get("access").and_then(|field| field.section(ACCESS_KEYS));
        let granted = |key: &'static str| {
            let access = access.as_ref()?;
            access.get(key).map(|_| texts(access, key))
        };
        let mut agent = Self {
            description: section
                .read("description", value::text)
                .unwrap_or_else(|| base.description.clone()),
            version: version
                .map(str::to_owned)
                .or_else(|| section.read("version", version_name))
                .unwrap_or_else(|| base.version.clone()),
            route: section.read("route", value::text).unwrap_or_else(|| base.route.clone()),
            prompt: text("prompt", &base.prompt),
            instructions: text("instructions", &base.instructions),
            tools: list("tools", &base.tools),
            client_tools: flag("client_tools", base.client_tools),
            client_system: flag("client_system", base.client_system),
            guards: list("guards", &base.guards),
            handoffs: list("handoffs", &base.handoffs),
            delegates: list("delegates", &base.delegates),
            max_handoffs: section
                .read("max_handoffs", |it| value::whole(it, 0..=100))
                .map_or(base.max_handoffs, narrow),
            handoff_input: section
                .read("handoff_input", |it| value::one_of(it, &inputs))
                .unwrap_or(base.handoff_input),
            fallback_agent: text("fallback_agent", &base.fallback_agent),
            require_tools: list("require_tools", &base.require_tools),
            output_schema: section
                .get("output_schema")
                .and_then(|field| field.read(super::reader::object))
                .or_else(|| base.output_schema.clone()),
            plans: section.read("planner", |it| value::one_of(it, &planners)).unwrap_or(base.plans),
            compensates: section
                .read("on_failure", |it| value::one_of(it, &failures))
                .unwrap_or(base.compensates),
            access_keys: granted("keys").or_else(|| base.access_keys.clone()),
            access_users: granted("users").or_else(|| base.access_users.clone()),
            written: section.written(&[]),
            ..base.shared(section)
        };
        if version.is_none() {
            agent.read_rollout(section);
            agent.read_versions(section);
        }
        agent
    }

    fn read_rollout(&mut self, section: &Section<'_>) {
        let Some(rollout) = section.get("rollout").and_then(|it| it.section(ROLLOUT_KEYS)) else {
            return;
        };
        let entries = |key| rollout.get(key).map(|field| field.entries()).unwrap_or_default();
        let weight = |(version, field): (&str, super::reader::Field<'_>)| {
            let weight = field.read(|it| value::whole(it, 0..=100))?;
            Some((version.to_owned(), narrow(weight)))
        };
        self.weights = entries("weights").into_iter().filter_map(weight).collect();
        let label = |(label, field): (&str, super::reader::Field<'_>)| {
            Some((label.to_owned(), field.read(version_name)?))
        };
        self.labels = entries("labels").into_iter().filter_map(label).collect();
    }

    fn read_versions(&mut self, section: &Section<'_>) {
        let versions = section.get("versions").map(|field| field.entries()).unwrap_or_default();
        let base = Self { versions: BTreeMap::new(), ..self.clone() };
        for (version, field) in versions {
            let Some(own) = field.section(KEYS) else { continue };
            self.versions.insert(version.to_owned(), Self::read(&own, &base, Some(version)));
        }
    }

    /// The definition of a version, if there is one.
    pub fn at(&self, version: &str) -> Option<&Self> {
        if version == self.version { Some(self) } else { self.versions.get(version) }
    }
}

/// A version may be written as a number.
fn version_name(written: &DeValue<'_>) -> Result<String, String> {
    if written.is_integer() {
        return value::whole(written, 0..=u64::from(u32::MAX)).map(|number| number.to_string());
    }
    let text = value::text(written)?;
    if value::is_name(&text) { Ok(text) } else { Err("is not a name of a version".to_owned()) }
}

// === impl AgentLimits ===

impl Default for AgentLimits {
    fn default() -> Self {
        Self {
            steps: 10,
            expected_steps: 6,
            timeout: Duration::from_mins(2),
            step_timeout: Duration::from_mins(1),
            wait: Duration::from_hours(24),
            tool_concurrency: 8,
            repairs: 2,
            loop_warn: 3,
            loop_stop: 5,
            final_answer: true,
        }
    }
}

impl AgentLimits {
    fn over(&self, owner: &Section<'_>) -> Self {
        let Some(section) = owner.get("limits").and_then(|field| field.section(LIMIT_KEYS)) else {
            return self.clone();
        };
        let number = |key, most, base| {
            section.read(key, |it| value::whole(it, 1..=most)).map_or(base, narrow)
        };
        let time = |key, base| section.read(key, value::deadline).unwrap_or(base);
        Self {
            steps: number("steps", 1000, self.steps),
            expected_steps: number("expected_steps", 1000, self.expected_steps),
            timeout: time("timeout", self.timeout),
            step_timeout: time("step_timeout", self.step_timeout),
            wait: time("wait", self.wait),
            tool_concurrency: section
                .read("tool_concurrency", |it| value::count(it, 1))
                .unwrap_or(self.tool_concurrency),
            repairs: section
                .read("repairs", |it| value::whole(it, 0..=10))
                .map_or(self.repairs, narrow),
            loop_warn: number("loop_warn", 100, self.loop_warn),
            loop_stop: number("loop_stop", 100, self.loop_stop),
            final_answer: section.read("final_answer", value::flag).unwrap_or(self.final_answer),
        }
    }
}

// === impl AgentBudget ===

impl Default for AgentBudget {
    fn default() -> Self {
        Self {
            usd: None,
            tokens: None,
            model_calls: 20,
            tool_calls: 40,
            bytes: 16 << 20,
            output_tokens: 4096,
            runs: Vec::new(),
            user_runs: Vec::new(),
            user_usd_per_day: None,
        }
    }
}

impl AgentBudget {
    fn over(&self, owner: &Section<'_>) -> Self {
        let Some(section) = owner.get("budget").and_then(|field| field.section(BUDGET_KEYS)) else {
            return self.clone();
        };
        let number = |key| section.read(key, |it| value::whole(it, 1..=1 << 40));
        let paces = |key, base: &Vec<Pace>| {
            section.get(key).map_or_else(|| base.clone(), |field| super::limit::paces(&field))
        };
        Self {
            usd: section.read("usd", budget::money).or(self.usd),
            tokens: number("tokens").or(self.tokens),
            model_calls: number("model_calls").map_or(self.model_calls, narrow),
            tool_calls: number("tool_calls").map_or(self.tool_calls, narrow),
            bytes: section.read("bytes", value::size).map_or(self.bytes, |bytes| bytes as u64),
            output_tokens: number("output_tokens").unwrap_or(self.output_tokens),
            runs: paces("runs", &self.runs),
            user_runs: paces("user_runs", &self.user_runs),
            user_usd_per_day: section
                .read("user_usd_per_day", budget::money)
                .or(self.user_usd_per_day),
        }
    }
}

// === impl ContextTerms ===

impl Default for ContextTerms {
    fn default() -> Self {
        Self {
            window: None,
            reserve_output: 4000,
            tool_result_tokens: 6000,
            compact_at_permille: 750,
            keep_turns: 6,
            summariser: None,
        }
    }
}

impl ContextTerms {
    fn over(&self, owner: &Section<'_>) -> Self {
        let Some(section) = owner.get("context").and_then(|field| field.section(CONTEXT_KEYS))
        else {
            return self.clone();
        };
        let number = |key| section.read(key, |it| value::whole(it, 1..=1 << 32));
        Self {
            window: number("window").or(self.window),
            reserve_output: number("reserve_output").unwrap_or(self.reserve_output),
            tool_result_tokens: number("tool_result_tokens").unwrap_or(self.tool_result_tokens),
            compact_at_permille: section
                .read("compact_at", value::permille)
                .unwrap_or(self.compact_at_permille),
            keep_turns: number("keep_turns").map_or(self.keep_turns, narrow),
            summariser: section.read("summariser", value::text).or_else(|| self.summariser.clone()),
        }
    }
}

// === impl Confidence ===

impl Confidence {
    fn read(owner: &Section<'_>) -> Option<Self> {
        let section = owner.get("confidence")?.section(CONFIDENCE_KEYS)?;
        let bands = [
            ("autonomous", Band::Autonomous),
            ("log", Band::Log),
            ("approve", Band::Approve),
            ("escalate", Band::Escalate),
        ];
        let share = |key, usual| section.read(key, value::permille).unwrap_or(usual);
        let confidence = Self {
            field: section.read("field", value::text).unwrap_or_else(|| "confidence".to_owned()),
            autonomous: share("autonomous", 900),
            log: share("log", 700),
            approve: share("approve", 500),
            missing: section
                .read("missing", |it| value::one_of(it, &bands))
                .unwrap_or(Band::Approve),
        };
        if confidence.autonomous < confidence.log || confidence.log < confidence.approve {
            let message = "must fall from `autonomous` over `log` to `approve`";
            section.report.problem(&section.path, message);
        }
        Some(confidence)
    }

    /// What it may do that is so sure, in thousandths.
    pub fn band(&self, sure: Option<u32>) -> Band {
        match sure {
            None => self.missing,
            Some(sure) if sure > self.autonomous => Band::Autonomous,
            Some(sure) if sure >= self.log => Band::Log,
            Some(sure) if sure >= self.approve => Band::Approve,
            Some(_) => Band::Escalate,
        }
    }
}
