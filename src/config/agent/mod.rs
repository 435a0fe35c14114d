//! `[agents.NAME]`: loops of model and tool calls that run in the gateway.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;
use toml::de::DeValue;

use super::provider::texts;
use super::reader::{Field, Section};
use super::value;

pub(super) mod engine;
pub(super) mod terms;

pub use engine::{AgentEngine, Durability, OnLeave, SessionConflict};
pub use terms::{AgentBudget, AgentLimits, Band, Confidence, ContextTerms};

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
    "on_content_filter",
    "on_failure",
    "degraded",
    "access",
    "rollout",
    "versions",
];
/// What a version of an agent may say that is not the first.
pub(super) const VERSION_KEYS: &[&str] = &[
    "description",
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
    "on_content_filter",
    "on_failure",
    "degraded",
];
/// What `[agent_engine.defaults]` may say for all agents.
pub(super) const DEFAULT_KEYS: &[&str] = &[
    "limits",
    "budget",
    "context",
    "confidence",
    "on_unknown_outcome",
    "on_content_filter",
    "degraded",
    "stream",
];
pub(super) const ACCESS_KEYS: &[&str] = &["keys", "users"];
pub(super) const ROLLOUT_KEYS: &[&str] = &["weights", "labels"];

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
    pub planner: Planner,
    pub stream: StreamMode,
    pub limits: AgentLimits,
    pub budget: AgentBudget,
    pub context: ContextTerms,
    pub confidence: Option<Confidence>,
    pub on_unknown: OnUnknown,
    pub on_filter: OnFilter,
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
    /// As `Live`, and each thing that is done in between, as a chunk of its own.
    Steps,
}

/// What comes before the first step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Planner {
    #[default]
    None,
    /// A list of steps, which the model is shown from then on.
    PlanThenAct,
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

/// What becomes of a run whose model's provider has filtered its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFilter {
    /// It is rejected.
    #[default]
    Reject,
    /// The agent that goes on when no model answers does so here, too.
    Fallback,
    /// It is over, and its user is told why there is no answer.
    TellUser,
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
        let filters = [
            ("reject", OnFilter::Reject),
            ("fallback", OnFilter::Fallback),
            ("tell_user", OnFilter::TellUser),
        ];
        let modes = [
            ("live", StreamMode::Live),
            ("final", StreamMode::Final),
            ("steps", StreamMode::Steps),
        ];
        Self {
            limits: self.limits.over(section),
            budget: self.budget.over(section),
            context: self.context.over(section),
            confidence: Confidence::read(section).or_else(|| self.confidence.clone()),
            on_unknown: section
                .read("on_unknown_outcome", |it| value::one_of(it, &unknown))
                .unwrap_or(self.on_unknown),
            on_filter: section
                .read("on_content_filter", |it| value::one_of(it, &filters))
                .unwrap_or(self.on_filter),
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
        let planners = [("none", Planner::None), ("plan_then_act", Planner::PlanThenAct)];
        let failures = [("keep", false), ("compensate", true)];
        let list = |key, base: &Vec<String>| {
            if section.get(key).is_some() { texts(section, key) } else { base.clone() }
        };
        let flag = |key, base| section.read(key, value::flag).unwrap_or(base);
        let (prompt, instructions) = base.instructed(section);
        let mut agent = Self {
            description: section
                .read("description", value::text)
                .unwrap_or_else(|| base.description.clone()),
            version: version
                .map(str::to_owned)
                .or_else(|| section.read("version", version_name))
                .unwrap_or_else(|| base.version.clone()),
            route: section.read("route", value::text).unwrap_or_else(|| base.route.clone()),
            prompt,
            instructions,
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
            fallback_agent: section
                .read("fallback_agent", value::text)
                .or_else(|| base.fallback_agent.clone()),
            require_tools: list("require_tools", &base.require_tools),
            output_schema: section
                .get("output_schema")
                .and_then(|field| field.read(super::reader::object))
                .or_else(|| base.output_schema.clone()),
            planner: section
                .read("planner", |it| value::one_of(it, &planners))
                .unwrap_or(base.planner),
            compensates: section
                .read("on_failure", |it| value::one_of(it, &failures))
                .unwrap_or(base.compensates),
            written: section.written(&[]),
            ..base.shared(section)
        };
        if version.is_none() {
            agent.read_access(section);
            agent.read_rollout(section);
            agent.read_versions(section);
        }
        agent
    }

    /// Its prompt and its instructions: whoever writes one of them does not want the other's.
    fn instructed(&self, section: &Section<'_>) -> (Option<String>, Option<String>) {
        let written = |key| section.read(key, value::text);
        match (written("prompt"), written("instructions")) {
            (None, None) => (self.prompt.clone(), self.instructions.clone()),
            written => written,
        }
    }

    fn read_access(&mut self, section: &Section<'_>) {
        let Some(access) = section.get("access").and_then(|it| it.section(ACCESS_KEYS)) else {
            return;
        };
        let granted = |key| access.get(key).map(|_| texts(&access, key));
        (self.access_keys, self.access_users) = (granted("keys"), granted("users"));
    }

    fn read_rollout(&mut self, section: &Section<'_>) {
        let Some(rollout) = section.get("rollout").and_then(|it| it.section(ROLLOUT_KEYS)) else {
            return;
        };
        let entries = |key| rollout.get(key).map(|field| field.entries()).unwrap_or_default();
        let weight = |(version, field): (&str, Field<'_>)| {
            let weight = field.read(|it| value::whole(it, 0..=100))?;
            Some((version.to_owned(), narrow(weight)))
        };
        self.weights = entries("weights").into_iter().filter_map(weight).collect();
        let label =
            |(label, field): (&str, Field<'_>)| Some((label.to_owned(), field.read(version_name)?));
        self.labels = entries("labels").into_iter().filter_map(label).collect();
    }

    fn read_versions(&mut self, section: &Section<'_>) {
        let versions = section.get("versions").map(|field| field.entries()).unwrap_or_default();
        let base = Self { versions: BTreeMap::new(), ..self.clone() };
        for (version, field) in versions {
            let Some(own) = field.section(VERSION_KEYS) else { continue };
            self.versions.insert(version.to_owned(), Self::read(&own, &base, Some(version)));
        }
    }

    /// The definition of a version, if there is one.
    pub fn at(&self, version: &str) -> Option<&Self> {
        if version == self.version { Some(self) } else { self.versions.get(version) }
    }
}

fn narrow(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A version may be written as a number.
fn version_name(written: &DeValue<'_>) -> Result<String, String> {
    if written.is_integer() {
        return value::whole(written, 0..=u64::from(u32::MAX)).map(|number| number.to_string());
    }
    let text = value::text(written)?;
    if value::is_name(&text) { Ok(text) } else { Err("is not a name of a version".to_owned()) }
}
