//! All tools of one config, found by name, and how they are made from it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::graphql::Query;
use super::http::Endpoint;
use super::kept::Net;
use super::{
    DELEGATE, Definition, Health, Runner, Source, Tool, agent, builtin, mcp, openapi, sql,
};
use crate::canon::Effect;
use crate::config::{self, Config, ToolKind};
use crate::store::Store;
use crate::store::shared::Turns;
use crate::telemetry::Metrics;

/// Of an alias, how much is kept of a name that is too long or too strange.
const LONGEST_ALIAS: usize = 64;
const DIGEST_DIGITS: usize = 10;

/// The tools of one config, by name: `order_lookup`, and `crm.getCustomer` of a source.
#[derive(Debug, Default)]
pub struct Toolbox {
    tools: BTreeMap<Arc<str>, Arc<Tool>>,
    sources: BTreeMap<Arc<str>, Entry>,
    /// The agents, as those have them who only name them.
    delegates: BTreeMap<Arc<str>, Arc<Tool>>,
    /// What is told of changes.
    board: mcp::Board,
}

/// One source, and the terms by which it was made.
#[derive(Debug)]
struct Entry {
    terms: Arc<config::Tool>,
    source: Arc<dyn Source>,
}

/// Tools of which there are always the same.
#[derive(Debug)]
struct Known(Arc<[Arc<Tool>]>);

/// What tools are made with.
#[derive(Debug)]
pub struct Kit<'a> {
    pub config: &'a Config,
    pub net: &'a Net,
    pub store: &'a Store,
    pub metrics: &'a Metrics,
    /// Where replicas count together.
    pub turns: Option<&'a Arc<Turns>>,
}

enum Made {
    One(Arc<Tool>),
    Several(Arc<dyn Source>),
}

// === impl Toolbox ===

impl Toolbox {
    /// The tools of a config. Those that `before` has by the same terms live on, with what they
    /// have counted and remembered. Fails with what is wrong with which.
    pub fn build(kit: &Kit<'_>, before: &Self) -> Result<Self, Vec<(String, String)>> {
        let (mut toolbox, mut faults) = (Self::default(), Vec::new());
        toolbox.board = before.board.clone();
        // What agents do to the world is what those tools do that they have.
        let mut written: Vec<_> = kit.config.tools.iter().collect();
        written.sort_by_key(|(_, terms)| is_agent(terms));
        for (name, terms) in written {
            let new = || make(name, terms, kit, before, &toolbox);
            match before.same(name, terms).map_or_else(new, Ok) {
                Ok(Made::One(tool)) => {
                    let tool = match before.tools.get(name.as_str()) {
                        Some(former) if !Arc::ptr_eq(former, &tool) => follow(tool, former),
                        _ => tool,
                    };
                    toolbox.tools.insert(Arc::clone(&tool.name), tool);
                }
                Ok(Made::Several(source)) => {
                    let terms = Arc::new(terms.clone());
                    toolbox.sources.insert(Arc::from(name.as_str()), Entry { terms, source });
                }
                Err(why) => faults.push((name.clone(), why)),
            }
        }
        for name in kit.config.agents.keys() {
            let terms = Arc::new(agent::usual_terms(name));
            let written = (&*format!("{DELEGATE}{name}"), &terms);
            if let Ok(tool) = agent::tool(written, name, (kit.config, &toolbox)) {
                toolbox.delegates.insert(Arc::clone(&tool.name), Arc::new(tool));
            }
        }
        if faults.is_empty() { Ok(toolbox) } else { Err(faults) }
    }

    /// Has every source learn what tools it has.
    pub async fn refresh(&self) {
        self.board.begin_anew();
        let sources = self.sources.values().map(|entry| entry.source.refresh());
        futures_util::future::join_all(sources).await;
    }

    pub fn get(&self, name: &str) -> Option<Arc<Tool>> {
        if let Some(tool) = self.tools.get(name).or_else(|| self.delegates.get(name)) {
            return Some(Arc::clone(tool));
        }
        let (source, _) = name.split_once('.')?;
        let tools = self.sources.get(source)?.source.tools();
        tools.iter().find(|tool| *tool.name == *name).cloned()
    }

    /// In the order of their names.
    pub fn all(&self) -> Vec<Arc<Tool>> {
        let mut tools: Vec<Arc<Tool>> = self.tools.values().cloned().collect();
        for entry in self.sources.values() {
            tools.extend(entry.source.tools().iter().cloned());
        }
        tools.sort_by(|one, other| one.name.cmp(&other.name));
        tools
    }

    /// Those that names or patterns with a trailing `*` mean, in the order of their names.
    pub fn named(&self, patterns: &[String]) -> Vec<Arc<Tool>> {
        let mut tools = self.all();
        tools.retain(|tool| patterns.iter().any(|pattern| config::means(pattern, &tool.name)));
        tools
    }

    /// The sources that could never be asked what tools they have, and why.
    pub fn unlisted(&self) -> impl Iterator<Item = (&str, &config::Tool, Health)> {
        self.sources.iter().filter_map(|(name, entry)| {
            let health = entry.source.health();
            let is_unlisted = entry.source.tools().is_empty() && health != Health::Up;
            is_unlisted.then_some((&**name, &*entry.terms, health))
        })
    }

    /// Which of these names and patterns mean tools of such sources; of a pattern that means others,
    /// too, `SOURCE.*`.
    pub fn missing(&self, patterns: &[String]) -> Vec<String> {
        let unlisted = self.unlisted().filter(|(_, terms, _)| !terms.internal);
        let meant = unlisted.flat_map(|(source, ..)| {
            patterns.iter().filter_map(move |pattern| meaning(pattern, source))
        });
        let mut missing: Vec<String> = meant.collect();
        missing.sort();
        missing.dedup();
        missing
    }

    pub fn source(&self, name: &str) -> Option<&Arc<dyn Source>> {
        self.sources.get(name).map(|entry| &entry.source)
    }

    /// The servers that have more than tools.
    pub fn servers(&self) -> impl Iterator<Item = Arc<mcp::Server>> {
        self.sources.values().filter_map(|entry| entry.source.server())
    }

    /// What changes at them from now on.
    pub fn news(&self) -> tokio::sync::broadcast::Receiver<mcp::Told> {
        self.board.subscribe()
    }

    /// Whether a tool of these can be called: it, and where it comes from.
    pub fn health(&self, tool: &Tool) -> Health {
        let source = tool.name.split_once('.').and_then(|(source, _)| self.source(source));
        match (tool.health(), source) {
            (Health::Up, Some(source)) => source.health(),
            (health, _) => health,
        }
    }

    fn same(&self, name: &str, terms: &config::Tool) -> Option<Made> {
        if is_agent(terms) {
            return None;
        }
        if let Some(tool) = self.tools.get(name) {
            return (*tool.terms == *terms).then(|| Made::One(Arc::clone(tool)));
        }
        let entry = self.sources.get(name).filter(|entry| *entry.terms == *terms)?;
        Some(Made::Several(Arc::clone(&entry.source)))
    }
}

/// What a name or a pattern means of a source.
fn meaning(pattern: &str, source: &str) -> Option<String> {
    let all = format!("{source}.");
    if pattern.starts_with(&all) {
        return Some(pattern.to_owned());
    }
    let is_wide = pattern.strip_suffix('*').is_some_and(|prefix| all.starts_with(prefix));
    is_wide.then(|| format!("{all}*"))
}

fn is_agent(terms: &config::Tool) -> bool {
    matches!(terms.kind, ToolKind::Agent(_))
}

fn follow(tool: Arc<Tool>, former: &Tool) -> Arc<Tool> {
    match Arc::try_unwrap(tool) {
        Ok(tool) => Arc::new(tool.following(former)),
        Err(shared) => shared,
    }
}

fn make(
    name: &str,
    terms: &config::Tool,
    kit: &Kit<'_>,
    before: &Toolbox,
    others: &Toolbox,
) -> Result<Made, String> {
    let terms = Arc::new(terms.clone());
    match &terms.kind {
        ToolKind::Http(http) => {
            let input = terms.input.clone().unwrap_or_else(|| Endpoint::schema(http));
            let runner = Endpoint::new(kit.net, http, &terms)?;
            single(name, &terms, &terms.description, input, runner, kit)
        }
        ToolKind::Builtin(tool) => {
            let (runner, usual, input) = builtin::make(kit.net, tool, &terms)?;
            let written = terms.description.as_str();
            let description = if written.is_empty() { usual } else { written };
            single(name, &terms, description, input, runner, kit)
        }
        ToolKind::OpenApi(openapi) => {
            known(openapi::tools(name, &terms, openapi, kit.net)?, kit, before)
        }
        ToolKind::GraphQl(graphql) => {
            let query = Query::new(kit.net, graphql, &terms)?;
            let input = terms.input.clone().unwrap_or_else(|| query.schema());
            single(name, &terms, &terms.description, input, query, kit)
        }
        ToolKind::Mcp(mcp) => {
            let server = mcp::Server::new(&Arc::from(name), &terms, mcp, kit, &before.board)?;
            Ok(Made::Several(server))
        }
        ToolKind::Sql(sql) => known(sql::tools(name, &terms, sql, kit.net)?, kit, before),
        ToolKind::Agent(agent) => {
            let tool = agent::tool((name, &terms), &agent.agent, (kit.config, others))?;
            Ok(Made::One(Arc::new(tool.together(kit.turns))))
        }
    }
}

fn known(mut tools: Vec<Tool>, kit: &Kit<'_>, before: &Toolbox) -> Result<Made, String> {
    let is_useless = |tool: &Tool| tool.terms.cache.is_some() && tool.effect != Effect::Read;
    if !tools.is_empty() && tools.iter().all(is_useless) {
        return Err("`cache`: none of its tools only reads, and only that can be remembered".into());
    }
    tools.sort_by(|one, other| one.name.cmp(&other.name));
    let tools = tools.into_iter().map(|tool| tool.together(kit.turns));
    let tools = tools.map(|tool| match before.get(&tool.name) {
        Some(former) => Arc::new(tool.following(&former)),
        None => Arc::new(tool),
    });
    Ok(Made::Several(Arc::new(Known(tools.collect()))))
}

impl Source for Known {
    fn tools(&self) -> Arc<[Arc<Tool>]> {
        Arc::clone(&self.0)
    }
}

/// A tool that is all there is by its name.
fn single(
    name: &str,
    terms: &Arc<config::Tool>,
    description: &str,
    input: Value,
    runner: impl Runner + 'static,
    kit: &Kit<'_>,
) -> Result<Made, String> {
    let definition = Definition {
        name: name.to_owned(),
        description: description.to_owned(),
        effect: terms.effect,
        input,
        output: terms.output.clone(),
        is_held_to_it: true,
        version: None,
        terms: Arc::clone(terms),
    };
    let tool = Tool::new(definition, Arc::new(runner))?.together(kit.turns);
    Ok(Made::One(Arc::new(tool)))
}

/// What models call a tool of this name: the same for the same name, and never that of another.
pub fn alias_of(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let alias = name.replace('.', "__").replace(|c: char| !plain(c), "_");
    // Only then can the name be told from the alias.
    let faithful = alias.replace("__", ".") == name;
    if faithful && alias.len() <= LONGEST_ALIAS && !alias.is_empty() {
        return alias;
    }
    let mut digest = String::new();
    for byte in Sha256::digest(name) {
        let _ = write!(digest, "{byte:02x}");
    }
    let kept = alias.get(..LONGEST_ALIAS - DIGEST_DIGITS - 1).unwrap_or(&alias);
    format!("{kept}_{}", &digest[..DIGEST_DIGITS])
}
