//! Agents as tools of agents: what they are called by, and what a call does to the world. Runs do
//! the work; whoever calls one without a run is told where runs are begun.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Attempt, Definition, Failure, FailureKind, Invocation, Runner, Tool, Toolbox};
use crate::canon::Effect;
use crate::config::{self, AgentTool, Config, ToolKind};

/// What stands before the name of an agent that others have without a section of its own.
pub const DELEGATE: &str = "delegate_";

/// The place of the agent of this name.
#[derive(Debug)]
struct Elsewhere(String);

/// A tool that is an agent.
pub(super) fn tool(
    (name, terms): (&str, &Arc<config::Tool>),
    agent: &str,
    house: (&Config, &Toolbox),
) -> Result<Tool, String> {
    let about = house.0.agents.get(agent).map(|agent| agent.description.as_str());
    let usual = || {
        let about = about.unwrap_or_default();
        format!("Has the agent `{agent}` do a piece of work and report. {about}")
    };
    let effect = if terms.says_effect {
        terms.effect
    } else if only_reads(house, agent, &mut BTreeSet::new()) {
        Effect::Read
    } else {
        // Its run is begun once, however often that is tried.
        Effect::Idempotent
    };
    let definition = Definition {
        name: name.to_owned(),
        description: Some(&terms.description)
            .filter(|it| !it.is_empty())
            .map_or_else(usual, Clone::clone),
        effect,
        input: terms.input.clone().unwrap_or_else(task),
        output: None,
        is_held_to_it: false,
        version: None,
        terms: Arc::clone(terms),
    };
    Tool::new(definition, Arc::new(Elsewhere(agent.to_owned())))
}

/// The terms by which others have an agent that has no section for it.
pub(super) fn usual_terms(agent: &str) -> config::Tool {
    let kind = ToolKind::Agent(AgentTool { agent: agent.to_owned() });
    config::Tool { kind, timeout: config::AGENT_TIMEOUT, ..config::Tool::default() }
}

/// Why it is not called by itself.
pub fn elsewhere(agent: &str) -> String {
    format!("it is the agent `{agent}`: begin a run by `POST /v1/agents/{agent}/runs`")
}

fn task() -> Value {
    let about = "The whole task, with all that must be known for it.";
    json!({
        "type": "object",
        "properties": {"input": {"type": "string", "description": about}},
        "required": ["input"],
        "additionalProperties": false,
    })
}

/// Whether nothing that an agent can do, or has others do, changes anything.
fn only_reads(house: (&Config, &Toolbox), name: &str, seen: &mut BTreeSet<String>) -> bool {
    if !seen.insert(name.to_owned()) {
        return true;
    }
    let Some(agent) = house.0.agents.get(name) else { return false };
    let others = agent.handoffs.iter().chain(&agent.delegates).chain(&agent.fallback_agent);
    agent.tools.iter().all(|pattern| reads(house, pattern, seen))
        && others.into_iter().all(|other| only_reads(house, other, seen))
}

fn reads(house: (&Config, &Toolbox), pattern: &str, seen: &mut BTreeSet<String>) -> bool {
    let (config, toolbox) = house;
    let prefix = pattern.strip_suffix('*');
    let covers = |name: &str| prefix.map_or(pattern == name, |prefix| name.starts_with(prefix));
    let own = toolbox.named(&[pattern.to_owned()]);
    let is_agent = |tool: &Arc<Tool>| matches!(tool.terms.kind, ToolKind::Agent(_));
    if own.iter().any(|tool| !is_agent(tool) && tool.effect != Effect::Read) {
        return false;
    }
    config.tools.iter().all(|(name, terms)| match &terms.kind {
        ToolKind::Agent(tool) if covers(name) => {
            if terms.says_effect {
                terms.effect == Effect::Read
            } else {
                only_reads(house, &tool.agent, seen)
            }
        }
        // What such a server has is known later; what it is not said to read counts as more.
        ToolKind::Mcp(_) => match (pattern.split_once('.'), prefix) {
            (Some((source, tool)), None) if source == name => {
                terms.effect_of(tool) == Some(Effect::Read)
            }
            (_, Some(prefix)) if may_cover(prefix, name) => {
                let named = terms.effects.values().all(|effect| *effect == Effect::Read);
                terms.effect == Effect::Read && named
            }
            _ => true,
        },
        _ => true,
    })
}

/// Whether what begins so can be a tool of this source.
fn may_cover(prefix: &str, source: &str) -> bool {
    source.starts_with(prefix)
        || prefix.strip_prefix(source).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl Runner for Elsewhere {
    fn attempt<'a>(&'a self, _call: &'a Invocation) -> Attempt<'a> {
        let failure = Failure::new(FailureKind::Refused, elsewhere(&self.0));
        Box::pin(std::future::ready(Err(failure)))
    }
}
