//! `[mcp]`: which programs may be started as servers of tools, and what others are offered by ours.

use std::collections::BTreeSet;

use super::provider::texts;
use super::reader::Section;
use super::value;

pub(super) const KEYS: &[&str] = &["allowed_commands", "expose", "origins", "hosts"];
pub(super) const EXPOSE_KEYS: &[&str] = &["tools", "agents", "resources", "prompts", "prefix"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mcp {
    /// Absolute paths; nothing else is started.
    pub allowed_commands: Vec<String>,
    /// Tools that `/mcp` offers, names or patterns with a trailing `*`; none if nothing is said.
    pub tools: Vec<String>,
    /// And agents.
    pub agents: Vec<String>,
    /// And resources of servers: `SERVER.*`, or `SERVER.URI`.
    pub resources: Vec<String>,
    /// And their prompts: `SERVER.*`, or `SERVER.PROMPT`.
    pub prompts: Vec<String>,
    /// Of one server only, whose things keep their names.
    pub bare: bool,
    /// Of which pages in browsers calls may come; none if nothing is said.
    pub origins: Vec<String>,
    /// Under which names this server is called; any if nothing is said.
    pub hosts: Vec<String>,
}

// === impl Mcp ===

impl Mcp {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let expose = section.get("expose").and_then(|field| field.section(EXPOSE_KEYS));
        let exposed = |key| expose.as_ref().map(|it| texts(it, key)).unwrap_or_default();
        let commands = section.get("allowed_commands").and_then(|field| field.list());
        for field in commands.into_iter().flatten() {
            let path = field.read(value::text);
            if path.is_some_and(|path| !path.starts_with('/')) {
                field.fail("must be an absolute path");
            }
        }
        let prefix = expose.as_ref().and_then(|it| it.read("prefix", value::flag));
        let settings = Self {
            allowed_commands: texts(section, "allowed_commands"),
            tools: exposed("tools"),
            agents: exposed("agents"),
            resources: exposed("resources"),
            prompts: exposed("prompts"),
            bare: prefix == Some(false),
            origins: texts(section, "origins"),
            hosts: texts(section, "hosts"),
        };
        if settings.bare && settings.servers().len() > 1 {
            let message = "without prefixes, only what one server has can be offered";
            section.report.problem(&section.path, message);
        }
        settings
    }
    /// Whose things are offered: what stands before the first dot.
    fn servers(&self) -> BTreeSet<&str> {
        let patterns = self.tools.iter().chain(&self.resources).chain(&self.prompts);
        patterns.map(|it| it.split_once('.').map_or(it.as_str(), |(server, _)| server)).collect()
    }
}
