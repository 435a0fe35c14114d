//! Whether agents, tools and prompts fit together: whatever one of them names is there, and nothing
//! goes in a circle.

use std::collections::BTreeSet;

use super::check::find_model;
use super::problem::{Report, child, suggestion};
use super::{Agent, Config, Key, Tool, guard};
use crate::canon::Effect;

/// One definition of an agent: the agent itself, or one of its versions.
struct Definition<'a> {
    name: &'a str,
    path: String,
    agent: &'a Agent,
    config: &'a Config,
    report: &'a Report,
    /// It is what holds where the versions say nothing.
    is_first: bool,
}

pub(super) fn check(config: &Config, report: &Report) {
    for (name, agent) in &config.agents {
        let path = child("agents", name);
        let first = Definition { name, path, agent, config, report, is_first: true };
        first.check();
        first.check_rollout();
        for (version, agent) in &agent.versions {
            let path = child(&format!("{}.versions", first.path), version);
            Definition { name, path, agent, config, report, is_first: false }.check();
        }
        check_fallback(config, name, report);
    }
    check_summarisers(config, report);
    for (name, tool) in &config.tools {
        check_tool(config, (name, tool), report);
    }
    for (name, key) in &config.keys {
        check_grants(config, &child("keys", name), key, report);
    }
}

// === impl Definition ===

impl Definition<'_> {
    fn check(&self) {
        self.check_route();
        self.check_prompt();
        self.check_tools();
        self.check_others();
        if self.says("guards") {
            guard::check_names(self.config, (&self.path, &self.agent.guards), self.report);
        }
        let schema = self.agent.output_schema.as_ref();
        if schema.is_some_and(|schema| schema["type"] != "object") && self.says("output_schema") {
            self.problem("output_schema", "must be the schema of an object: type = \"object\"");
        }
        let limits = &self.agent.limits;
        if limits.loop_warn > limits.loop_stop && self.says("limits") {
            self.problem("limits", "`loop_warn` must not be more than `loop_stop`");
        }
    }

    /// Whether a fault of this key is this definition's own, and not of what it builds on.
    fn says(&self, key: &str) -> bool {
        self.report.mentions(&self.at(key))
    }

    fn at(&self, key: &str) -> String {
        format!("{}.{key}", self.path)
    }

    fn problem(&self, key: &str, message: impl Into<String>) {
        self.report.problem(&self.at(key), message);
    }

    fn check_route(&self) {
        let route = &self.agent.route;
        if route.is_empty() {
            if self.is_first && !self.says("route") {
                self.report.problem(&self.path, "`route` is missing");
            }
        } else if self.says("route")
            && let Err(message) = find_model(self.config, route)
        {
            self.problem("route", message);
        }
    }

    fn check_prompt(&self) {
        match (&self.agent.prompt, &self.agent.instructions) {
            (Some(_), Some(_)) if self.says("prompt") && self.says("instructions") => {
                self.problem("instructions", "stands beside `prompt`; write one of them");
            }
            (None, None) if self.is_first && !self.says("prompt") && !self.says("instructions") => {
                self.report.problem(&self.path, "needs a `prompt` or `instructions`");
            }
            (Some(prompt), _) if self.says("prompt") => {
                let known = prompt.split_once('@').and_then(|(it, _)| self.config.prompts.get(it));
                // A folder that cannot be read was reported.
                let is_unread = known.is_some_and(|prompt| prompt.versions.is_empty());
                match self.config.prompt(prompt) {
                    Err(message) if !is_unread => self.problem("prompt", message),
                    Ok(_) | Err(_) => {}
                }
            }
            _ => {}
        }
    }

    fn check_tools(&self) {
        if self.says("tools") {
            for (position, pattern) in self.agent.tools.iter().enumerate() {
                let at = format!("tools[{position}]");
                if let Err(message) = find_tool(self.config, pattern) {
                    self.problem(&at, message);
                } else if self.config.tools.get(pattern).is_some_and(|tool| tool.internal) {
                    self.problem(&at, format!("\"{pattern}\" is internal: no model sees it"));
                } else {
                    self.check_decision(&at, pattern);
                }
            }
        }
        if !self.says("require_tools") && !self.says("tools") {
            return;
        }
        let offered = |name: &str| self.agent.tools.iter().any(|pattern| covers(pattern, name));
        for (position, name) in self.agent.require_tools.iter().enumerate() {
            if !offered(name) {
                let hint = suggestion(name, self.agent.tools.iter().map(String::as_str));
                let key = if self.says("require_tools") { "require_tools" } else { "tools" };
                let at = if key == "tools" { key.to_owned() } else { format!("{key}[{position}]") };
                self.problem(&at, format!("\"{name}\" is none of its `tools`{hint}"));
            }
        }
    }

    /// What must not happen twice is not left to chance: somebody has said who lets it pass, or how
    /// risky it is. Where whoever has a token may ask for it, that is no mere advice.
    fn check_decision(&self, at: &str, pattern: &str) {
        let mut undecided = meant(self.config, pattern).filter(|(_, tool, effect)| {
            *effect == Effect::Once && {
                tool.approval.is_none() && tool.written.get("risk").is_none()
            }
        });
        let Some((name, ..)) = undecided.next() else { return };
        let message = format!(
            "\"{name}\" does what must not happen twice; say in [tools.{name}] who lets it pass \
             (`approval`), or its `risk`"
        );
        if self.config.keys.iter().any(|key| self.is_open_by(key)) {
            self.problem(at, message);
        } else {
            self.report.warn(&self.at(at), message);
        }
    }

    /// Whether a key lets people in whom only an identity provider knows.
    fn is_open_by(&self, (name, key): (&String, &Key)) -> bool {
        let is_template = key.secret.is_none() && key.hash.is_none();
        let allows = |list: &Option<Vec<String>>, name: &str| {
            list.as_ref().is_none_or(|list| list.iter().any(|pattern| covers(pattern, name)))
        };
        is_template
            && allows(&self.agent.access_keys, name)
            && allows(&key.agents, self.name)
            && allows(&key.routes, &format!("agent/{}", self.name))
    }

    fn check_others(&self) {
        let agent = self.agent;
        let lists = [("handoffs", &agent.handoffs), ("delegates", &agent.delegates)];
        for (key, names) in lists.into_iter().filter(|(key, _)| self.says(key)) {
            for (position, name) in names.iter().enumerate() {
                let at = format!("{key}[{position}]");
                if names[..position].contains(name) {
                    self.problem(&at, "is named twice");
                }
                self.check_other(&at, name);
            }
        }
        if let Some(name) = agent.fallback_agent.as_ref().filter(|_| self.says("fallback_agent")) {
            self.check_other("fallback_agent", name);
        }
    }

    fn check_other(&self, key: &str, name: &str) {
        if name == self.name {
            self.problem(key, "is the agent itself");
        } else if !self.config.agents.contains_key(name) {
            let hint = suggestion(name, self.config.agents.keys().map(String::as_str));
            self.problem(key, format!("no agent is called \"{name}\"{hint}"));
        }
    }

    fn check_rollout(&self) {
        let agent = self.agent;
        let versions: Vec<&str> = std::iter::once(agent.version.as_str())
            .chain(agent.versions.keys().map(String::as_str))
            .collect();
        if agent.versions.contains_key(&agent.version) {
            let path = child(&self.at("versions"), &agent.version);
            self.report.problem(&path, "is the version that the agent itself is");
        }
        let check = |key: &str, name: &str, version: &str| {
            if !versions.contains(&version) {
                let hint = suggestion(version, versions.iter().copied());
                let path = child(&self.at(key), name);
                self.report.problem(&path, format!("there is no version \"{version}\"{hint}"));
            }
        };
        for (label, version) in &agent.labels {
            check("rollout.labels", label, version);
            if versions.contains(&label.as_str()) {
                let path = child(&self.at("rollout.labels"), label);
                self.report.problem(&path, "is the name of a version");
            }
        }
        for version in agent.weights.keys() {
            check("rollout.weights", version, version);
        }
        if !agent.weights.is_empty() && agent.weights.values().all(|weight| *weight == 0) {
            self.problem("rollout.weights", "must be more than 0 together");
        }
    }
}

/// No agent comes back to itself when those fall out that it falls back on.
fn check_fallback(config: &Config, name: &str, report: &Report) {
    let next = |name: &str| config.agents.get(name)?.fallback_agent.as_deref();
    let mut seen = BTreeSet::from([name]);
    let mut last = next(name);
    while let Some(fallback) = last.filter(|fallback| seen.insert(fallback)) {
        last = next(fallback);
    }
    // Whoever names itself was told so.
    if last == Some(name) && seen.len() > 1 {
        let path = format!("{}.fallback_agent", child("agents", name));
        report.problem(&path, "leads back to the agent itself");
    }
}

/// One that all agents have from the defaults is complained of once, where it stands.
fn check_summarisers(config: &Config, report: &Report) {
    let mut told = BTreeSet::new();
    for (name, agent) in &config.agents {
        let path = child("agents", name);
        let first = (path.clone(), &**agent);
        let versions = agent
            .versions
            .iter()
            .map(|(version, agent)| (child(&format!("{path}.versions"), version), agent));
        for (path, agent) in std::iter::once(first).chain(versions) {
            let Some(summariser) = &agent.context.summariser else { continue };
            let own = format!("{path}.context.summariser");
            let general = "agent_engine.defaults.context.summariser".to_owned();
            let path = [own, general].into_iter().find(|path| report.mentions(path));
            if let Some(path) = path.filter(|path| told.insert(path.clone()))
                && let Err(message) = find_model(config, summariser)
            {
                report.problem(&path, message);
            }
        }
    }
}

/// Who knows what became of a call, and who takes it back, are tools themselves.
fn check_tool(config: &Config, (name, tool): (&str, &Tool), report: &Report) {
    let path = child("tools", name);
    let probe = tool.probe.iter().map(|probe| ("probe", probe));
    let undo = tool.undo.iter().map(|undo| ("undo.tool", &undo.tool));
    for (key, other) in probe.chain(undo).filter(|(_, other)| !other.is_empty()) {
        let path = format!("{path}.{key}");
        if other == name {
            report.problem(&path, "is the tool itself");
        } else if other.contains('*') {
            report.problem(&path, "must be one tool");
        } else if let Err(message) = find_tool(config, other) {
            report.problem(&path, message);
        } else if key == "probe"
            && meant(config, other).any(|(_, _, effect)| effect != Effect::Read)
        {
            report.problem(&path, format!("\"{other}\" does more than to read"));
        }
    }
    let clashes = |prefix| name.strip_prefix(prefix).filter(|it| config.agents.contains_key(*it));
    if let Some(agent) = clashes("delegate_").or_else(|| clashes("handoff_")) {
        report.problem(&path, format!("is what the agent \"{agent}\" is called as a tool"));
    }
}

/// What a key may use that is not there does no harm, but it is hardly what was meant.
fn check_grants(config: &Config, path: &str, key: &Key, report: &Report) {
    for (position, pattern) in key.agents.iter().flatten().enumerate() {
        if !config.agents.keys().any(|name| covers(pattern, name)) {
            let hint = suggestion(pattern, config.agents.keys().map(String::as_str));
            let path = format!("{path}.agents[{position}]");
            report.warn(&path, format!("no agent is called \"{pattern}\"{hint}"));
        }
    }
    for (position, pattern) in key.tools.iter().flatten().enumerate() {
        if let Err(message) = find_tool(config, pattern) {
            report.warn(&format!("{path}.tools[{position}]"), message);
        }
    }
}

fn covers(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

/// Whether a name, or a pattern with a trailing `*`, can mean a tool. What a source has is known
/// only when it is asked, so it is enough that there is the source.
fn find_tool(config: &Config, pattern: &str) -> Result<(), String> {
    let prefix = pattern.strip_suffix('*').unwrap_or(pattern);
    if prefix.contains('*') {
        return Err(format!("{pattern:?}: a `*` may only stand at the end"));
    }
    if meant(config, pattern).next().is_some() {
        return Ok(());
    }
    let hint = suggestion(pattern, config.tools.keys().map(String::as_str));
    match pattern.split_once('.') {
        Some((source, _)) => {
            let hint = suggestion(source, config.tools.keys().map(String::as_str));
            Err(format!("\"{pattern}\" needs [tools.{source}], which is not there{hint}"))
        }
        None => Err(format!("no tool is called \"{pattern}\"{hint}")),
    }
}

/// The tools and sources that a name or pattern may mean, and what it does to the world.
fn meant<'a>(
    config: &'a Config,
    pattern: &'a str,
) -> impl Iterator<Item = (&'a str, &'a Tool, Effect)> {
    let prefix = pattern.strip_suffix('*');
    config.tools.iter().filter_map(move |(name, tool)| {
        let of_source = |text: &'a str| text.strip_prefix(name.as_str())?.strip_prefix('.');
        if covers(pattern, name) {
            return Some((name.as_str(), tool, tool.effect));
        }
        let operation = of_source(pattern)?;
        let effect = match prefix {
            None => tool.effects.get(operation).copied().unwrap_or(tool.effect),
            Some(_) => tool.effect,
        };
        Some((name.as_str(), tool, effect))
    })
}
