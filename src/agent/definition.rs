//! An agent as one run sees it from its beginning to its end, whatever the config says by then.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::admit::drawn;
use crate::canon::{Effect, Tool};
use crate::config::{
    self, AgentBudget, AgentLimits, Confidence, Config, ContextTerms, HandoffInput, OnFilter,
    OnUnknown, Planner, StreamMode, ToolKind,
};
use crate::store::hex;
use crate::tool::{DELEGATE, Toolbox, alias_of};

/// An agent and those that it may give the conversation to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    pub agent: String,
    pub version: String,
    /// By name; the agent itself among them.
    pub members: BTreeMap<String, Member>,
    pub limits: AgentLimits,
    pub budget: AgentBudget,
    pub max_handoffs: u32,
    pub max_depth: u32,
    pub client_tools: bool,
    pub client_system: bool,
    pub compensates: bool,
    pub degraded: Option<String>,
    #[serde(default)]
    pub planner: Planner,
    pub stream: StreamMode,
    pub require_tools: Vec<String>,
}

/// One agent of those that a run may come to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub version: String,
    pub description: String,
    pub route: String,
    pub prompt: String,
    /// SHA-256 of the prompt, in hex, and which version of it that is.
    pub prompt_digest: String,
    pub prompt_version: Option<String>,
    pub tools: Vec<ToolDefinition>,
    /// Names and patterns of tools whose servers could not be asked for them when the run began.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    pub handoffs: Vec<String>,
    pub handoff_input: HandoffInput,
    pub fallback: Option<String>,
    pub context: ContextTerms,
    pub confidence: Option<Confidence>,
    pub on_unknown: OnUnknown,
    #[serde(default)]
    pub on_filter: OnFilter,
    /// What guards it, by the names in the config, and what its answers must fit: of the agent
    /// that was asked always, of another one once it has the conversation.
    #[serde(default)]
    pub guards: Vec<String>,
    #[serde(default)]
    pub output_schema: Option<Value>,
}

/// What an agent is told to be.
#[derive(Debug, Clone)]
pub struct Prompt {
    pub text: String,
    /// SHA-256 of it, in hex.
    pub digest: String,
    /// Which version of which prompt it is: `support@3`.
    pub version: Option<String>,
}

/// A tool as it was when the run began.
#[expect(clippy::struct_excessive_bools, reason = "as the config says them, one by one")]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ToolDefinition {
    pub name: String,
    pub alias: String,
    pub version: String,
    pub description: String,
    pub effect: Effect,
    pub input: Value,
    pub high_risk: bool,
    pub untrusted: bool,
    pub repeatable: bool,
    /// It is no tool but a question to the user.
    pub asks_user: bool,
    /// It is this agent, which is asked by a run of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    pub approval: Option<config::Approval>,
    pub probe: Option<String>,
    pub undo: Option<config::Undo>,
    /// How often in one run.
    pub most: Option<u32>,
}

/// The tool by which a model asks the user, and by which others get the conversation.
pub const ASK_USER: &str = "ask_user";
pub const HANDOFF: &str = "handoff_";

// === impl Definition ===

impl Definition {
    /// The definition of a version of an agent, as config and tools are now; `sticky`: by what the
    /// versions of those are drawn that may get the conversation. The error is for whoever called
    /// it.
    pub fn resolve(
        (config, toolbox): (&Config, &Toolbox),
        name: &str,
        version: &str,
        sticky: Option<&str>,
    ) -> Result<Self, String> {
        let root = config.agents.get(name).ok_or_else(|| format!("There is no agent `{name}`."))?;
        let agent = root
            .at(version)
            .ok_or_else(|| format!("The agent `{name}` has no version `{version}`."))?;
        let mut members = BTreeMap::new();
        let mut open = vec![(name.to_owned(), agent)];
        while let Some((name, agent)) = open.pop() {
            let next = agent.handoffs.iter().chain(&agent.fallback_agent);
            let new = next.filter(|other| !members.contains_key(*other) && **other != name);
            let as_drawn = |other: &String| {
                let agent = config.agents.get(other)?;
                let drawn = sticky.and_then(|sticky| agent.at(&drawn(other, agent, sticky)));
                Some((other.clone(), drawn.unwrap_or(&**agent)))
            };
            open.extend(new.filter_map(as_drawn));
            let member = Member::resolve(config, toolbox, agent)?;
            members.insert(name, member);
        }
        Ok(Self {
            agent: name.to_owned(),
            version: agent.version.clone(),
            members,
            limits: agent.limits.clone(),
            budget: agent.budget.clone(),
            max_handoffs: agent.max_handoffs,
            max_depth: config.agent_engine.max_depth,
            client_tools: agent.client_tools,
            client_system: agent.client_system,
            compensates: agent.compensates,
            degraded: agent.degraded.clone(),
            planner: agent.planner,
            stream: agent.stream,
            require_tools: agent.require_tools.clone(),
        })
    }

    /// As it is stored, and the SHA-256 of that in hex.
    pub fn written(&self) -> (String, String) {
        let body = serde_json::to_string(self).unwrap_or_default();
        let hash = hex(&Sha256::digest(body.as_bytes()));
        (body, hash)
    }

    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.get(name)
    }

    /// The agent that was asked.
    pub fn root(&self) -> Option<&Member> {
        self.member(&self.agent)
    }

    /// What its agent names of tools that were not there when the run began.
    pub fn missing(&self) -> BTreeSet<String> {
        self.root().into_iter().flat_map(|member| member.missing.iter().cloned()).collect()
    }

    /// Whether an answer of it may be none, for what its agent demands of one.
    pub fn demands(&self) -> bool {
        self.members.values().any(|member| member.output_schema.is_some())
    }

    /// Whether anything that it can do changes something.
    pub fn changes_something(&self) -> bool {
        let mut tools = self.members.values().flat_map(|member| &member.tools);
        tools.any(|tool| tool.effect != Effect::Read)
    }
}

// === impl Member ===

impl Member {
    fn resolve(config: &Config, toolbox: &Toolbox, agent: &config::Agent) -> Result<Self, String> {
        let Prompt { text: prompt, digest: prompt_digest, version: prompt_version } =
            Prompt::of(config, agent)?;
        let tools = toolbox.named(&agent.tools).into_iter().filter(|tool| !tool.terms.internal);
        let delegate = |name: &String| toolbox.get(&format!("{DELEGATE}{name}"));
        let tools = tools.chain(agent.delegates.iter().filter_map(delegate));
        Ok(Self {
            version: agent.version.clone(),
            description: agent.description.clone(),
            route: agent.route.clone(),
            prompt,
            prompt_digest,
            prompt_version,
            tools: tools.map(|tool| ToolDefinition::of(&tool)).collect(),
            missing: toolbox.missing(&agent.tools),
            handoffs: agent.handoffs.clone(),
            handoff_input: agent.handoff_input,
            fallback: agent.fallback_agent.clone(),
            context: agent.context.clone(),
            confidence: agent.confidence.clone(),
            on_unknown: agent.on_unknown,
            on_filter: agent.on_filter,
            guards: agent.guards.clone(),
            output_schema: demanded(config, agent)?,
        })
    }

    /// What its models are offered, always in the same order, so that providers' prompt caches hold.
    pub fn offered(&self, members: &BTreeMap<String, Member>, client: &[Tool]) -> Vec<Tool> {
        let own = self.tools.iter().map(|tool| Tool::Function {
            name: tool.alias.clone(),
            description: Some(tool.description.clone()).filter(|text| !text.is_empty()),
            schema: Some(self.asked_for(&tool.input, tool.effect)),
            strict: None,
            cache: None,
        });
        let handoffs = self.handoffs.iter().map(|name| {
            let about = members.get(name).map(|member| member.description.as_str());
            let text = format!(
                "Gives the conversation to the agent `{name}`. {}",
                about.unwrap_or_default()
            );
            agent_tool(
                format!("{HANDOFF}{name}"),
                text,
                "reason",
                "Why, and what was found out so far.",
            )
        });
        own.chain(handoffs).chain(client.iter().cloned()).collect()
    }

    /// The schema of a tool's arguments, with the model's confidence where that decides.
    fn asked_for(&self, input: &Value, effect: Effect) -> Value {
        let mut schema = input.clone();
        let Some(confidence) = self.confidence.as_ref().filter(|_| effect != Effect::Read) else {
            return schema;
        };
        if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
            let about = "How sure you are that this is right, from 0 to 1.";
            properties.entry(&confidence.field).or_insert_with(
                || json!({"type": "number", "minimum": 0, "maximum": 1, "description": about}),
            );
        }
        schema
    }

    /// Which prompt it goes by, as the API shows it.
    pub fn shown_prompt(&self) -> Value {
        shown(&self.prompt_digest, self.prompt_version.as_deref())
    }

    pub fn tool(&self, name: &str) -> Option<&ToolDefinition> {
        self.tools.iter().find(|tool| tool.name == name)
    }

    /// Whether models may know a tool by this name that was not there when the run began.
    pub fn misses(&self, alias: &str) -> bool {
        self.missing.iter().any(|name| match name.strip_suffix('*') {
            Some(prefix) => alias.starts_with(&prefix.replace('.', "__")),
            None => alias == alias_of(name),
        })
    }
}

/// What an agent's answers must fit, with all that it refers to.
fn demanded(config: &Config, agent: &config::Agent) -> Result<Option<Value>, String> {
    let schema = agent.output_schema.as_ref();
    schema.map(|schema| crate::tool::whole_schema(schema, &config.schemas)).transpose()
}

fn agent_tool(name: String, description: String, field: &str, about: &str) -> Tool {
    let schema = json!({
        "type": "object",
        "properties": {field: {"type": "string", "description": about}},
        "required": [field],
        "additionalProperties": false,
    });
    Tool::Function {
        name,
        description: Some(description),
        schema: Some(schema),
        strict: None,
        cache: None,
    }
}

// === impl Prompt ===

impl Prompt {
    /// That of an agent, as the config is now.
    pub fn of(config: &Config, agent: &config::Agent) -> Result<Self, String> {
        let Some(wanted) = &agent.prompt else {
            let text = agent.instructions.clone().unwrap_or_default();
            let digest = hex(&Sha256::digest(text.as_bytes()));
            return Ok(Self { text, digest, version: None });
        };
        let (text, digest, version) = config.prompt(wanted)?;
        let name = wanted.split_once('@').map_or(wanted.as_str(), |(name, _)| name);
        let version = Some(format!("{name}@{version}"));
        Ok(Self { text: text.to_owned(), digest: digest.to_owned(), version })
    }

    /// Which one it is, without what it says. Instructions in the config have no name.
    pub fn shown(&self) -> Value {
        shown(&self.digest, self.version.as_deref())
    }
}

fn shown(digest: &str, version: Option<&str>) -> Value {
    let named = version.and_then(|version| version.rsplit_once('@'));
    json!({
        "name": named.map(|(name, _)| name),
        "version": named.and_then(|(_, version)| version.parse::<u32>().ok()),
        "sha256": digest,
    })
}

// === impl ToolDefinition ===

impl ToolDefinition {
    /// It is there because its agent names the other one, and not a tool: no list of a key's has it.
    pub fn is_delegate(&self) -> bool {
        self.agent.is_some() && self.name.starts_with(DELEGATE)
    }

    fn of(tool: &crate::tool::Tool) -> Self {
        let terms = &tool.terms;
        Self {
            name: tool.name.to_string(),
            alias: tool.alias.to_string(),
            version: tool.version.clone(),
            description: tool.description.clone(),
            effect: tool.effect,
            input: tool.input.clone(),
            high_risk: terms.high_risk,
            untrusted: terms.untrusted,
            repeatable: terms.repeatable,
            asks_user: matches!(&terms.kind, ToolKind::Builtin(it) if it.name == ASK_USER),
            agent: match &terms.kind {
                ToolKind::Agent(it) => Some(it.agent.clone()),
                _ => None,
            },
            approval: tool.approval().cloned(),
            probe: terms.probe.clone(),
            undo: terms.undo.clone(),
            most: terms.limits.run,
        }
    }
}
