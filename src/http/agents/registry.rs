//! The agents that there are: their definitions, their versions, and whether they begin new runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{Answer, Asked, Door, away, told, views};
use crate::agent;
use crate::agent::definition::{Definition, Prompt};
use crate::config::{self, Agent};
use crate::error::{Error, Kind};
use crate::store::runs::LabelRow;

pub(super) async fn list(door: Door, asked: Asked) -> Answer {
    asked.query(&[])?;
    let house = door.gateway.snapshot();
    let paused = paused(&door).await?;
    let names = names(&door, &asked);
    let agents = names.iter().filter_map(|name| Some((name, house.config.agents.get(name)?)));
    let mut shown = Vec::new();
    for (name, agent) in agents {
        let labels = labels_of(&door, name, agent).await?;
        shown.push(summary(name, agent, &paused, &labels));
    }
    told(&views::page(&shown, None))
}

pub(super) async fn get(door: Door, asked: Asked) -> Answer {
    asked.query(&[])?;
    let agent = find(&door, &asked)?;
    let paused = paused(&door).await?;
    let labels = labels_of(&door, &asked.id, &agent).await?;
    let mut shown = summary(&asked.id, &agent, &paused, &labels);
    shown["prompt"] = prompt(&door, &agent);
    shown["definition"] = definition(&agent);
    told(&shown)
}

pub(super) async fn versions(door: Door, asked: Asked) -> Answer {
    asked.query(&[])?;
    let agent = find(&door, &asked)?;
    let all = labels_of(&door, &asked.id, &agent).await?;
    let of = |version: &str, definition: &Agent| {
        let labels: Vec<&String> = all
            .iter()
            .filter(|(_, named)| named.as_str() == version)
            .map(|(label, _)| label)
            .collect();
        let weight = match agent.weights.get(version) {
            Some(weight) => *weight,
            None if agent.weights.is_empty() && version == agent.version => 100,
            None => 0,
        };
        json!({
            "version": version,
            "weight": weight,
            "labels": labels,
            "prompt": prompt(&door, definition),
            "route": definition.route,
            "tools": definition.tools,
        })
    };
    let first = std::iter::once(of(&agent.version, &agent));
    let others = agent.versions.iter().map(|(version, definition)| of(version, definition));
    let shown: Vec<Value> = first.chain(others).collect();
    told(&views::page(&shown, None))
}

/// Has a label name another version from here on, at every replica. It stays there until the config
/// says something else of it than it says now; without a `version`, it is where the config has it.
pub(super) async fn move_label(door: Door, asked: Asked) -> Answer {
    let agent = find(&door, &asked)?;
    asked.demand_operator()?;
    asked.says(&["label", "version"])?;
    let label = asked.needed("label")?;
    let version = match asked.body.get("version") {
        None => {
            let message = "`version` is missing: null takes the label to where the config has it.";
            return Err(Error::invalid(message));
        }
        Some(Value::Number(number)) => Some(number.to_string()),
        _ => asked.text("version")?,
    };
    if !config::is_name(&label) || agent.at(&label).is_some() {
        let message = format!("`{label}` is no label: it has other characters, or is a version.");
        return Err(Error::invalid(message));
    }
    if let Some(version) = version.as_ref().filter(|version| agent.at(version).is_none()) {
        let known = std::iter::once(&agent.version).chain(agent.versions.keys());
        let hint = config::suggestion(version, known.map(String::as_str));
        let message = format!("The agent `{}` has no version `{version}`{hint}.", asked.id);
        return Err(Error::invalid(message));
    }
    let before = labels_of(&door, &asked.id, &agent).await?;
    let store = door.gateway.store();
    let done = match version {
        Some(version) => {
            let file = agent.labels.get(&label).cloned();
            let row = LabelRow { label: label.clone(), version, file, by: asked.by(), at: 0 };
            store.move_label(&asked.id, row).await
        }
        None => store.reset_label(&asked.id, &label).await,
    };
    done.map_err(|failure| away(&failure))?;
    let labels = labels_of(&door, &asked.id, &agent).await?;
    let moved = json!({
        "label": label, "from": before.get(&label), "version": labels.get(&label),
    });
    door.notes(&asked, "agent.label", format!("agent:{}", asked.id), &moved).await?;
    told(&json!({"name": asked.id, "object": "agent", "labels": labels}))
}

/// Where the labels of an agent are now.
async fn labels_of(
    door: &Door,
    name: &str,
    agent: &Agent,
) -> Result<BTreeMap<String, String>, Error> {
    let moved = door.gateway.store().agent_labels(name).await;
    Ok(agent::labels(agent, &moved.map_err(|failure| away(&failure))?))
}

/// Runs that are at work go on; those that wait for their turn wait on.
pub(super) async fn pause(door: Door, asked: Asked) -> Answer {
    halt(&door, &asked, true).await
}

pub(super) async fn resume(door: Door, asked: Asked) -> Answer {
    halt(&door, &asked, false).await
}

async fn halt(door: &Door, asked: &Asked, is_paused: bool) -> Answer {
    find(door, asked)?;
    asked.demand_operator()?;
    asked.says(&[])?;
    let store = door.gateway.store();
    store.pause_agent(&asked.id, is_paused).await.map_err(|failure| away(&failure))?;
    door.agents.know_paused().await;
    let what = if is_paused { "agent.pause" } else { "agent.resume" };
    door.notes(asked, what, format!("agent:{}", asked.id), &Value::Null).await?;
    told(&json!({"name": asked.id, "object": "agent", "paused": is_paused}))
}

/// Those that this caller may call, and for whoever keeps the gateway all of them.
fn names(door: &Door, asked: &Asked) -> Vec<String> {
    if asked.sees_all() {
        return door.gateway.snapshot().config.agents.keys().cloned().collect();
    }
    door.gateway.snapshot().agents(&asked.caller).map(str::to_owned).collect()
}

/// That there is this agent, and that this caller may run it.
pub(super) fn demand(door: &Door, asked: &Asked) -> Result<(), Error> {
    let house = door.gateway.snapshot();
    if !house.config.agents.contains_key(&asked.id) {
        let known: Vec<&str> = house.agents(&asked.caller).collect();
        let hint = crate::config::suggestion(&asked.id, known);
        let message = format!("There is no agent `{}`{hint}.", asked.id);
        return Err(Error::new(Kind::AgentNotFound, message));
    }
    if house.agents(&asked.caller).any(|name| name == asked.id) {
        return Ok(());
    }
    door.gateway.notes_refused_agent(asked.caller.key(), &asked.id);
    let message = format!("This key may not run the agent `{}`.", asked.id);
    Err(Error::new(Kind::AgentNotAllowed, message))
}

/// An agent that this caller may call; nobody learns whether there is another one.
fn find(door: &Door, asked: &Asked) -> Result<Arc<Agent>, Error> {
    named(door, asked, &asked.id)
}

fn named(door: &Door, asked: &Asked, name: &str) -> Result<Arc<Agent>, Error> {
    let house = door.gateway.snapshot();
    let known = names(door, asked);
    let agent = house.config.agents.get(name).filter(|_| known.iter().any(|it| it == name));
    agent.cloned().ok_or_else(|| {
        let hint = crate::config::suggestion(name, known.iter().map(String::as_str));
        Error::new(Kind::AgentNotFound, format!("There is no agent `{name}`{hint}."))
    })
}

/// The names of the tools that the models of an agent are shown; `wanted` may name its version, or a
/// label.
pub(super) async fn tools(
    door: &Door,
    asked: &Asked,
    wanted: &str,
) -> Result<BTreeSet<String>, Error> {
    let (name, version) = wanted.split_once('@').unwrap_or((wanted, ""));
    let agent = named(door, asked, name)?;
    let labels = labels_of(door, name, &agent).await?;
    let version = match version {
        "" => agent.version.as_str(),
        version => labels.get(version).map_or(version, String::as_str),
    };
    let house = door.gateway.snapshot();
    let known = (&house.config, &*house.toolbox);
    if agent.at(version).is_none() {
        let message = format!("The agent `{name}` has no version or label `{version}`.");
        return Err(Error::new(Kind::AgentNotFound, message));
    }
    let definition = Definition::resolve(known, name, version, None);
    let definition = definition.map_err(|why| Error::new(Kind::Conflict, why))?;
    let Some(member) = definition.member(name) else { return Ok(BTreeSet::new()) };
    let known = member.tools.iter().map(|tool| &tool.name);
    Ok(known.chain(&member.missing).cloned().collect())
}

async fn paused(door: &Door) -> Result<Vec<String>, Error> {
    door.gateway.store().paused_agents().await.map_err(|failure| away(&failure))
}

fn summary(
    name: &str,
    agent: &Agent,
    paused: &[String],
    labels: &BTreeMap<String, String>,
) -> Value {
    let others = agent.versions.keys();
    let versions: Vec<&String> = std::iter::once(&agent.version).chain(others).collect();
    json!({
        "name": name,
        "object": "agent",
        "model": format!("agent/{name}"),
        "description": agent.description,
        "version": agent.version,
        "versions": versions,
        "labels": labels,
        "weights": agent.weights,
        "paused": paused.iter().any(|it| it == name),
    })
}

/// Which prompt it goes by now, and the digest by which runs keep it.
fn prompt(door: &Door, agent: &Agent) -> Value {
    let prompt = Prompt::of(&door.gateway.snapshot().config, agent);
    prompt.map_or(Value::Null, |prompt| prompt.shown())
}

/// As it was written. Agents name what has secrets, and have none themselves.
fn definition(agent: &Agent) -> Value {
    let mut shown: Map<String, Value> = agent.written.as_object().cloned().unwrap_or_default();
    let versions: BTreeMap<&String, &Value> =
        agent.versions.iter().map(|(version, definition)| (version, &definition.written)).collect();
    if !versions.is_empty() {
        shown.insert("versions".to_owned(), json!(versions));
    }
    Value::Object(shown)
}
