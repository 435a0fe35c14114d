//! Whether agents, tools and prompts fit together: whatever one of them names is there, and nothing
//! goes in a circle.

use std::collections::BTreeSet;

use super::check::find_model;
use super::problem::{Report, child, suggestion};
use super::{Agent, Config, Key, OnFilter, OnUnknown, Tool, ToolKind, guard, means, tool};
use crate::canon::Effect;

/// What stands behind `/v1/agents/` and is no agent.
const RESERVED: [&str; 4] = ["runs", "approvals", "dlq", "usage"];

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
        if RESERVED.contains(&name.as_str()) {
            report.problem(&path, "this name is taken by the API");
        }
        let first = Definition { name, path, agent, config, report, is_first: true };
        first.check();
        first.check_rollout();
        for (version, agent) in &agent.versions {
            let path = child(&format!("{}.versions", first.path), version);
            Definition { name, path, agent, config, report, is_first: false }.check();
        }
        check_fallback(config, name, report);
    }
    check_helpers(config, report);
    for (name, tool) in &config.tools {
        check_tool(config, name, tool, report);
    }
    check_exposed(config, report);
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
            guard::check_names(self.config, &self.path, &self.agent.guards, self.report);
        }
        let schema = self.agent.output_schema.as_ref();
        if schema.is_some_and(|schema| schema["type"] != "object") && self.says("output_schema") {
            self.problem("output_schema", "must be the schema of an object: type = \"object\"");
        }
        let falls_back = self.agent.on_filter == OnFilter::Fallback;
        if falls_back && self.agent.fallback_agent.is_none() && self.says("on_content_filter") {
            self.problem("on_content_filter", "`fallback` needs a `fallback_agent`");
        }
        let limits = &self.agent.limits;
        if limits.loop_warn > limits.loop_stop && self.says("limits") {
            self.problem("limits", "`loop_warn` must not be more than `loop_stop`");
        }
        self.check_use();
    }

    /// What is right by itself, and yet does not do what it is written for.
    fn check_use(&self) {
        let terms = &self.agent.context;
        let leaves_none = terms.window.is_some_and(|window| window <= terms.reserve_output);
        if leaves_none && self.says("context") {
            let message = "no run can be answered: `reserve_output` leaves nothing of the `window` \
                           for a question";
            self.report.warn(&self.at("context"), message);
        }
        let names = |tool: &str| {
            let mut patterns = self.agent.tools.iter();
            patterns.any(|pattern| means(pattern, tool) || source_of(pattern) == tool)
        };
        let mut tools = self.config.tools.iter();
        let has_probe = tools.any(|(name, tool)| tool.probe.is_some() && names(name));
        let probes = self.agent.on_unknown == OnUnknown::Probe;
        if probes && !has_probe && self.says("on_unknown_outcome") {
            let message = "none of its `tools` has a `probe`, so a person is asked, as with \
                           \"escalate\"";
            self.report.warn(&self.at("on_unknown_outcome"), message);
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
            self.agent.tools.iter().enumerate().for_each(|(place, it)| self.check_tool(place, it));
        }
        let key = match (self.says("require_tools"), self.says("tools")) {
            (true, _) => "require_tools",
            (false, true) => "tools",
            (false, false) => return,
        };
        let offered = |name: &str| self.agent.tools.iter().any(|pattern| means(pattern, name));
        let required = self.agent.require_tools.iter().enumerate();
        for (position, name) in required.filter(|(_, name)| !offered(name)) {
            let hint = suggestion(name, self.agent.tools.iter().map(String::as_str));
            let place = if key == "tools" { String::new() } else { format!("[{position}]") };
            let message = format!("\"{name}\" is none of its `tools`{hint}");
            self.problem(&format!("{key}{place}"), message);
        }
    }

    fn check_tool(&self, position: usize, pattern: &str) {
        let at = format!("tools[{position}]");
        if let Err(message) = find_tool(self.config, pattern) {
            self.problem(&at, message);
        } else if self.config.tools.get(pattern).is_some_and(|tool| tool.internal) {
            self.problem(&at, format!("\"{pattern}\" is internal: no model sees it"));
        } else if agent_of(self.config, pattern) == Some(self.name) {
            self.problem(&at, "is the agent itself");
        } else {
            self.check_decision(&at, pattern);
        }
    }

    /// What must not happen twice is not left to chance: somebody has said who lets it pass, or how
    /// risky it is. Where whoever has a token may ask for it, that is no mere advice.
    fn check_decision(&self, at: &str, pattern: &str) {
        let Some(name) = undecided(self.config, pattern) else { return };
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
            list.as_ref().is_none_or(|list| list.iter().any(|pattern| means(pattern, name)))
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
            self.check_list(key, names);
        }
        if let Some(name) = agent.fallback_agent.as_ref().filter(|_| self.says("fallback_agent")) {
            self.check_other("fallback_agent", name);
        }
    }

    fn check_list(&self, key: &str, names: &[String]) {
        for (position, name) in names.iter().enumerate() {
            let at = format!("{key}[{position}]");
            if names[..position].contains(name) {
                self.problem(&at, "is named twice");
            }
            self.check_other(&at, name);
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
fn check_helpers(config: &Config, report: &Report) {
    let mut told = BTreeSet::new();
    for (name, agent) in &config.agents {
        let path = child("agents", name);
        let first = (path.clone(), &**agent);
        let versions = agent
            .versions
            .iter()
            .map(|(version, agent)| (child(&format!("{path}.versions"), version), agent));
        let definitions = std::iter::once(first).chain(versions);
        let helpers = definitions.flat_map(|(path, agent)| {
            let terms = &agent.context;
            [("summariser", &terms.summariser), ("overflow", &terms.overflow)]
                .map(|(key, route)| (path.clone(), key, route))
        });
        for (path, key, route) in helpers {
            let Some(route) = route else { continue };
            let own = format!("{path}.context.{key}");
            let general = format!("agent_engine.defaults.context.{key}");
            let path = [own, general].into_iter().find(|path| report.mentions(path));
            if let Some(path) = path.filter(|path| told.insert(path.clone()))
                && let Err(message) = find_model(config, route)
            {
                report.problem(&path, message);
            }
        }
    }
}

/// Who knows what became of a call only looks, and nobody takes itself back.
fn check_tool(config: &Config, name: &str, tool: &Tool, report: &Report) {
    let path = child("tools", name);
    let probe = tool.probe.iter().map(|probe| ("probe", probe));
    let undo = tool.undo.iter().map(|undo| ("undo", &undo.tool));
    for (key, other) in probe.chain(undo) {
        let path = format!("{path}.{key}");
        let is_agent = |it: &Tool| matches!(it.kind, ToolKind::Agent(_));
        if other == name {
            report.problem(&path, "is the tool itself");
        } else if config.tools.get(other).is_some_and(is_agent) {
            report.problem(&path, format!("\"{other}\" is an agent, which only runs ask"));
        } else if key == "probe" && effect_of(config, other).is_some_and(|it| it != Effect::Read) {
            report.problem(&path, format!("\"{other}\" does more than to read"));
        }
    }
    if let ToolKind::Agent(tool) = &tool.kind
        && !tool.agent.is_empty()
        && !config.agents.contains_key(&tool.agent)
    {
        let hint = suggestion(&tool.agent, config.agents.keys().map(String::as_str));
        let message = format!("no agent is called \"{}\"{hint}", tool.agent);
        report.problem(&format!("{path}.agent"), message);
    }
    let clashes = |prefix| name.strip_prefix(prefix).filter(|it| config.agents.contains_key(*it));
    if let Some(agent) = clashes("delegate_").or_else(|| clashes("handoff_")) {
        report.problem(&path, format!("is what the agent \"{agent}\" is called as a tool"));
    }
}

/// What is offered to others is there.
fn check_exposed(config: &Config, report: &Report) {
    for (position, pattern) in config.mcp.agents.iter().enumerate() {
        if let Err(message) = find_agent(config, pattern) {
            report.problem(&format!("mcp.expose.agents[{position}]"), message);
        }
    }
    for (position, pattern) in config.mcp.tools.iter().enumerate() {
        let path = format!("mcp.expose.tools[{position}]");
        if let Err(message) = find_tool(config, pattern) {
            report.problem(&path, message);
        } else if let Some(ToolKind::Agent(tool)) = config.tools.get(pattern).map(|it| &it.kind) {
            let message = format!("is an agent: write \"{}\" among the `agents`", tool.agent);
            report.problem(&path, message);
        }
    }
    for (key, patterns) in [("resources", &config.mcp.resources), ("prompts", &config.mcp.prompts)]
    {
        for (position, pattern) in patterns.iter().enumerate() {
            let server = pattern.split_once('.').map_or("", |(server, _)| server);
            let is_there = config.tools.get(server).is_some_and(|it| it.kind.name() == "mcp");
            if !is_there {
                let message = format!("\"{pattern}\" is of no server: write \"SERVER.*\"");
                report.problem(&format!("mcp.expose.{key}[{position}]"), message);
            }
        }
    }
}

/// What a key may use that is not there does no harm, but it is hardly what was meant.
fn check_grants(config: &Config, path: &str, key: &Key, report: &Report) {
    for (position, pattern) in key.agents.iter().flatten().enumerate() {
        if let Err(message) = find_agent(config, pattern) {
            report.warn(&format!("{path}.agents[{position}]"), message);
        }
    }
    for (position, pattern) in key.tools.iter().flatten().enumerate() {
        if let Err(message) = find_tool(config, pattern) {
            report.warn(&format!("{path}.tools[{position}]"), message);
        }
    }
}

fn find_agent(config: &Config, pattern: &str) -> Result<(), String> {
    if config.agents.keys().any(|name| means(pattern, name)) {
        return Ok(());
    }
    let hint = suggestion(pattern, config.agents.keys().map(String::as_str));
    Err(format!("no agent is called \"{pattern}\"{hint}"))
}

/// Whether a name, or a pattern with a trailing `*`, can mean a tool. What a source has is known
/// only when it is asked, so it is enough that there is the source.
fn find_tool(config: &Config, pattern: &str) -> Result<(), String> {
    let prefix = pattern.strip_suffix('*').unwrap_or(pattern);
    if prefix.contains('*') {
        return Err(format!("{pattern:?}: a `*` may only stand at the end"));
    }
    if prefix == pattern {
        return tool::unknown(config, pattern).map_or(Ok(()), Err);
    }
    match prefix.split_once('.') {
        Some((source, _)) => tool::unknown(config, &format!("{source}.*")).map_or(Ok(()), Err),
        None if config.tools.keys().any(|name| name.starts_with(prefix)) => Ok(()),
        None => {
            let hint = suggestion(prefix, config.tools.keys().map(String::as_str));
            Err(format!("no tool begins with \"{prefix}\"{hint}"))
        }
    }
}

/// The agent that a tool of this name is.
fn agent_of<'a>(config: &'a Config, name: &str) -> Option<&'a str> {
    match &config.tools.get(name)?.kind {
        ToolKind::Agent(tool) => Some(&tool.agent),
        _ => None,
    }
}

/// What a call of this tool does to the world, where that can be told from here.
fn effect_of(config: &Config, name: &str) -> Option<Effect> {
    let (source, operation) = name.split_once('.').unwrap_or((name, ""));
    let tool = config.tools.get(source)?;
    match &tool.kind {
        // Its own tools do it, if nothing else is said.
        ToolKind::Agent(_) => tool.says_effect.then_some(tool.effect),
        kind if !kind.is_source() => Some(tool.effect),
        // Whatever such a server says of its tools itself is not believed.
        ToolKind::Mcp(_) => Some(tool.effect_of(operation).unwrap_or(Effect::Once)),
        _ => tool.effect_of(operation),
    }
}

/// The heading of a tool that this name or pattern means, that does what must not happen twice, and
/// of which nobody has said anything about it.
fn undecided<'a>(config: &'a Config, pattern: &'a str) -> Option<&'a str> {
    let is_undecided = |name: &str, tool: &Tool| {
        let operation = name.split_once('.').map_or("", |(_, operation)| operation);
        let asked = tool.approval.as_ref().is_some_and(|approval| {
            let tools = approval.tools.as_ref();
            tools.is_none_or(|tools| tools.iter().any(|pattern| means(pattern, operation)))
        });
        !asked && tool.written.get("risk").is_none()
    };
    let is_once = |name: &str| effect_of(config, name) == Some(Effect::Once);
    let Some(prefix) = pattern.strip_suffix('*') else {
        let (name, tool) = config.tools.get_key_value(source_of(pattern))?;
        return (is_once(pattern) && is_undecided(pattern, tool)).then_some(name);
    };
    let meant = |name: &&String| name.starts_with(prefix) || **name == source_of(prefix);
    config.tools.keys().filter(meant).map(String::as_str).find(|name| {
        let tool = &config.tools[*name];
        let named = tool.effects.keys().map(|operation| format!("{name}.{operation}"));
        let any = if tool.kind.is_source() { format!("{name}.*") } else { (*name).to_owned() };
        std::iter::once(any).chain(named).any(|name| is_once(&name) && is_undecided(&name, tool))
    })
}

fn source_of(name: &str) -> &str {
    name.split_once('.').map_or(name, |(source, _)| source)
}
