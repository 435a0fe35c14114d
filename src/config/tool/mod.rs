//! `[tools.NAME]`: what agents can do, and what it does to the world.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::limit::{Pace, paces};
use super::problem::{Report, child, suggestion};
use super::provider::texts;
use super::reader::{self, Section};
use super::{Config, Schemas, value};
use crate::canon::Effect;

mod kind;
mod web;

pub use kind::{
    AgentTool, BUILTINS, BuiltinTool, GraphQlTool, HttpTool, McpTool, McpTransport, OpenApiTool,
    Pin, SEARCH_TOOLS, SqlTemplate, SqlTool, ToolKind,
};
pub(super) use web::AUTH_KEYS;
pub use web::{ClientCredentials, Piece, TextTemplate, ToolAuth, UrlTemplate, Web};

/// Of all kinds together; [`kind::KINDS`] says which have which.
pub(super) const KEYS: &[&str] = &[
    "kind",
    "version",
    "description",
    "effect",
    "effects",
    "risk",
    "timeout",
    "retry",
    "breaker",
    "cache",
    "limits",
    "error_when",
    "approval",
    "probe",
    "undo",
    "internal",
    "repeatable",
    "trust",
    "input",
    "output",
    "max_result",
    "result",
    "allow",
    "pin",
    "name",
    "agent",
    "method",
    "url",
    "query",
    "body",
    "headers",
    "auth",
    "idempotency",
    "proxy",
    "ca",
    "allow_private",
    "spec",
    "base_url",
    "include",
    "check_output",
    "transport",
    "command",
    "cwd",
    "env",
    "instances",
    "idle_kill",
    "connect_timeout",
    "total_timeout",
    "sampling",
    "dsn",
    "mode",
    "templates",
    "max_rows",
    "statement_timeout",
    "hosts",
];
/// Keys that every kind has.
const SHARED: &[&str] = &[
    "kind",
    "version",
    "description",
    "risk",
    "timeout",
    "limits",
    "approval",
    "internal",
    "repeatable",
];
/// Of a call of an agent that has limits of its own.
pub const AGENT_TIMEOUT: Duration = Duration::from_hours(24);
pub(super) const RETRY_KEYS: &[&str] = &["attempts", "base", "max"];
pub(super) const BREAKER_KEYS: &[&str] = &["failures", "cooldown"];
pub(super) const CACHE_KEYS: &[&str] = &["ttl", "scope"];
pub(super) const LIMIT_KEYS: &[&str] = &["tool", "user", "run", "max_wait"];
pub(super) const APPROVAL_KEYS: &[&str] = &["when", "roles", "expires", "on_expire", "tools"];
pub(super) const UNDO_KEYS: &[&str] = &["tool", "args"];

/// One tool, or one source of several.
#[expect(clippy::struct_excessive_bools, reason = "each is a key of its own")]
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub kind: ToolKind,
    pub version: String,
    pub description: String,
    /// What a call does to the world; where a source has several, of those that `effects` does not
    /// name.
    pub effect: Effect,
    /// Whether that is what was written, and not only what is safe.
    pub says_effect: bool,
    pub effects: BTreeMap<String, Effect>,
    pub high_risk: bool,
    /// Of one attempt.
    pub timeout: Duration,
    pub retry: Retry,
    pub breaker: Breaker,
    pub cache: Option<ToolCache>,
    pub limits: ToolLimits,
    /// A JSON pointer (RFC 6901): a result in which it leads to something else than null, false or
    /// nothing is a failure, whatever its status.
    pub error_when: Option<String>,
    pub approval: Option<Approval>,
    /// Which tool knows what became of a call.
    pub probe: Option<String>,
    pub undo: Option<Undo>,
    /// No model sees it.
    pub internal: bool,
    /// The same call as often as one likes is no loop.
    pub repeatable: bool,
    /// What it says was written by strangers.
    pub untrusted: bool,
    /// JSON Schema, draft 2020-12, of arguments and result.
    pub input: Option<Json>,
    pub output: Option<Json>,
    /// What they may refer to.
    pub schemas: Schemas,
    /// Bytes of a result that are kept; what an agent is shown of it is its own limit.
    pub max_result: usize,
    /// It is a list of texts with a score each: the best are shown, where they are read best.
    pub scored: bool,
    pub written: Json,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    pub attempts: u32,
    pub base: Duration,
    pub max: Duration,
}

/// After so many failures in a row nobody calls it for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breaker {
    pub failures: u32,
    pub cooldown: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolCache {
    pub ttl: Duration,
    /// One result for all users.
    pub shared: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToolLimits {
    /// By all, and by each user.
    pub tool: Vec<Pace>,
    pub user: Vec<Pace>,
    /// In one run.
    pub run: Option<u32>,
    /// How long a call waits for its turn.
    pub max_wait: Duration,
}

/// Who must let a call pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    /// When it is needed, in CEL over `args`, `run` and `tool`; always, if nothing is said.
    pub when: Option<String>,
    /// Tags `role` of keys that may decide; any key of the operator's may.
    pub roles: Vec<String>,
    pub expires: Duration,
    /// What nobody has decided in time passes.
    pub passes_unanswered: bool,
    /// Of a source, for which tools.
    pub tools: Option<Vec<String>>,
}

/// What takes a call back: a tool, and its arguments, in which texts that begin with `$.` are
/// places in the result, and those with `$args.` in the arguments.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Undo {
    pub tool: String,
    pub args: Json,
}

// === impl Tool ===

impl Default for Tool {
    fn default() -> Self {
        Self {
            kind: ToolKind::Builtin(BuiltinTool::default()),
            version: "1".to_owned(),
            description: String::new(),
            effect: Effect::Once,
            says_effect: false,
            effects: BTreeMap::new(),
            high_risk: false,
            timeout: Duration::from_secs(30),
            retry: Retry {
                attempts: 3,
                base: Duration::from_millis(200),
                max: Duration::from_secs(3),
            },
            breaker: Breaker { failures: 5, cooldown: Duration::from_secs(20) },
            cache: None,
            limits: ToolLimits::default(),
            error_when: None,
            approval: None,
            probe: None,
            undo: None,
            internal: false,
            repeatable: false,
            untrusted: false,
            input: None,
            output: None,
            schemas: Schemas::default(),
            max_result: 8 << 20,
            scored: false,
            written: Json::Null,
        }
    }
}

impl Tool {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let usual = Self::default();
        let Some(kind) = section.require("kind") else { return usual };
        let kinds: Vec<_> =
            kind::KINDS.iter().map(|(name, keys)| (*name, (*name, *keys))).collect();
        let Some((kind, keys)) = kind.read(|it| value::one_of(it, &kinds)) else { return usual };
        foreign(section, kind, &[&[SHARED], keys].concat());
        let table = |key| section.get(key).and_then(|field| field.read(reader::object));
        let text = |key| section.read(key, value::text);
        let flag = |key| section.read(key, value::flag).unwrap_or(false);
        let trusts = [("trusted", false), ("untrusted", true)];
        let results = [("whole", false), ("chunks", true)];
        let risks = [("normal", false), ("high", true)];
        let effect = section.read("effect", |it| value::one_of(it, &effects()));
        let trust = section.read("trust", |it| value::one_of(it, &trusts));
        let kind = ToolKind::read(kind, section);
        let fetches = matches!(&kind, ToolKind::Builtin(tool) if tool.name == "fetch");
        let builtin = matches!(&kind, ToolKind::Builtin(_));
        let is_agent = matches!(&kind, ToolKind::Agent(_));
        let timeout = if is_agent { AGENT_TIMEOUT } else { usual.timeout };
        let tool = Self {
            kind,
            version: text("version").unwrap_or(usual.version),
            description: text("description").unwrap_or_default(),
            effect: effect.unwrap_or(if builtin { Effect::Read } else { Effect::Once }),
            says_effect: effect.is_some(),
            effects: effects_of(section),
            high_risk: section.read("risk", |it| value::one_of(it, &risks)).unwrap_or(false),
            timeout: section.read("timeout", value::deadline).unwrap_or(timeout),
            retry: Retry::read(section).unwrap_or(usual.retry),
            breaker: Breaker::read(section).unwrap_or(usual.breaker),
            cache: ToolCache::read(section),
            limits: ToolLimits::read(section),
            error_when: section.read("error_when", pointer),
            approval: Approval::read(section),
            probe: text("probe"),
            undo: Undo::read(section),
            internal: flag("internal"),
            repeatable: flag("repeatable"),
            untrusted: trust.unwrap_or(fetches),
            input: table("input"),
            output: table("output"),
            schemas: usual.schemas,
            max_result: section.read("max_result", value::size).unwrap_or(usual.max_result),
            scored: section.read("result", |it| value::one_of(it, &results)).unwrap_or(false),
            // Without what may hold secrets.
            written: section.written(&["auth", "headers", "env", "dsn"]),
        };
        tool.check(section);
        tool
    }

    /// What a call of `tool` does, where this source says so.
    pub fn effect_of(&self, tool: &str) -> Option<Effect> {
        let usual = self.says_effect.then_some(self.effect);
        self.effects.get(tool).copied().map_or(usual, Some)
    }

    /// Whether a tool that only reads can be reached by this, as far as it says here.
    fn can_read(&self) -> bool {
        let reads = |effect: &Effect| *effect == Effect::Read;
        let (named, usual) = match &self.kind {
            ToolKind::Mcp(mcp) => (mcp.allow.as_deref(), reads(&self.effect)),
            // What its document says of methods is known when that is read.
            ToolKind::OpenApi(api) => {
                (api.include.as_deref(), self.effect_of("").as_ref().is_none_or(reads))
            }
            // So is what statements do.
            ToolKind::Sql(_) => return true,
            _ => return reads(&self.effect),
        };
        let of_some = |prefix: &str| {
            let mut named = self.effects.iter().filter(|(name, _)| name.starts_with(prefix));
            usual || named.any(|(_, effect)| reads(effect))
        };
        let Some(named) = named else { return of_some("") };
        named.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => of_some(prefix),
            None => self.effects.get(pattern).map_or(usual, reads),
        })
    }

    fn check(&self, section: &Section<'_>) {
        let fail = |key: &str, message: &str| {
            section.report.problem(&child(&section.path, key), message);
        };
        if matches!(self.kind, ToolKind::Http(_) | ToolKind::GraphQl(_)) && !self.says_effect {
            section.require("effect");
        }
        if self.cache.is_some() && !self.can_read() {
            let message = if self.kind.is_source() {
                "none of its tools only reads, and only that can be remembered: say which do in \
                 `effects`"
            } else {
                "only what `effect = \"read\"` says can be remembered"
            };
            fail("cache", message);
        }
        if let (ToolKind::Http(http), Some(input)) = (&self.kind, &self.input) {
            let known = input.get("properties").and_then(Json::as_object);
            let unknown = |place: &String| !known.is_some_and(|known| known.contains_key(place));
            for place in http.places().into_iter().filter(unknown) {
                fail("input", &format!("has no property \"{place}\", for which there is a place"));
            }
        }
    }
}

/// A JSON pointer (RFC 6901); `$.a.b` is taken for `/a/b`.
fn pointer(written: &toml::de::DeValue<'_>) -> Result<String, String> {
    let text = value::text(written)?;
    match text.strip_prefix('$') {
        Some("") => Ok(String::new()),
        Some(path) if path.starts_with('.') && !path.contains([' ', '[', '*', '?', '/']) => {
            Ok(path.replace('.', "/"))
        }
        None if text.starts_with('/') => Ok(text),
        _ => Err(format!("{text:?} is not a JSON pointer; write one as in \"/error\"")),
    }
}

/// Complains of keys that this kind does not have.
fn foreign(section: &Section<'_>, kind: &str, keys: &[&[&str]]) {
    let keys = keys.concat();
    for (key, field) in section.fields().filter(|(key, _)| !keys.contains(key)) {
        let known = KEYS.contains(&key) || AUTH_KEYS.contains(&key);
        // The others were complained of already.
        if known {
            field.fail(format!("is no key of the kind \"{kind}\""));
        }
    }
}

/// What only shows when the sections are seen together.
pub(super) fn check(config: &Config, report: &Report) {
    for (name, tool) in &config.tools {
        let path = child("tools", name);
        if name.contains('.') {
            report.problem(&path, "must have no dot: that stands between a source and its tool");
        }
        if let ToolKind::Mcp(mcp) = &tool.kind
            && let McpTransport::Stdio { command, .. } = &mcp.transport
            && let Some(program) = command.first().filter(|program| program.starts_with('/'))
            && !config.mcp.allowed_commands.contains(program)
        {
            let message = format!("{program:?} is not among the `allowed_commands` of [mcp]");
            report.problem(&child(&path, "command"), message);
        }
        let undo = tool.undo.as_ref().map(|undo| &undo.tool);
        for (key, other) in [("probe", tool.probe.as_ref()), ("undo", undo)] {
            if let Some(message) = other.and_then(|other| unknown(config, other)) {
                report.problem(&child(&path, key), message);
            }
        }
    }
}

/// What is wrong with the name of a tool. Which tools a source has, only the source knows.
pub(super) fn unknown(config: &Config, name: &str) -> Option<String> {
    let source = name.split_once('.').map_or(name, |(source, _)| source);
    let found = config.tools.get(source);
    match (found, source == name) {
        (Some(tool), true) if tool.kind.is_source() => {
            Some(format!("\"{name}\" is a source; write \"{name}.TOOL\" or \"{name}.*\""))
        }
        (Some(tool), false) if !tool.kind.is_source() => {
            Some(format!("\"{source}\" is one tool and has none inside"))
        }
        (Some(_), _) => None,
        (None, _) => {
            let hint = suggestion(source, config.tools.keys().map(String::as_str));
            Some(format!("no tool is called \"{source}\"{hint}"))
        }
    }
}

fn effects() -> [(&'static str, Effect); 3] {
    Effect::ALL.map(|(effect, name)| (name, effect))
}

fn effects_of(section: &Section<'_>) -> BTreeMap<String, Effect> {
    let fields = section.get("effects").map(|field| field.entries()).unwrap_or_default();
    let effect = |(name, field): (&str, reader::Field<'_>)| {
        Some((name.to_owned(), field.read(|it| value::one_of(it, &effects()))?))
    };
    fields.into_iter().filter_map(effect).collect()
}

impl Retry {
    fn read(owner: &Section<'_>) -> Option<Self> {
        let usual = Tool::default().retry;
        let section = owner.get("retry")?.section(RETRY_KEYS)?;
        let attempts = section.read("attempts", |it| value::whole(it, 1..=10));
        Some(Self {
            attempts: attempts.and_then(|it| u32::try_from(it).ok()).unwrap_or(usual.attempts),
            base: section.read("base", value::deadline).unwrap_or(usual.base),
            max: section.read("max", value::deadline).unwrap_or(usual.max),
        })
    }
}

impl Breaker {
    fn read(owner: &Section<'_>) -> Option<Self> {
        let usual = Tool::default().breaker;
        let section = owner.get("breaker")?.section(BREAKER_KEYS)?;
        let failures = section.read("failures", |it| value::whole(it, 1..=1000));
        Some(Self {
            failures: failures.and_then(|it| u32::try_from(it).ok()).unwrap_or(usual.failures),
            cooldown: section.read("cooldown", value::deadline).unwrap_or(usual.cooldown),
        })
    }
}

impl ToolCache {
    fn read(owner: &Section<'_>) -> Option<Self> {
        let section = owner.get("cache")?.section(CACHE_KEYS)?;
        let ttl = section.require("ttl").and_then(|field| field.read(value::deadline));
        let scopes = [("user", false), ("all", true)];
        Some(Self {
            ttl: ttl.unwrap_or_default(),
            shared: section.read("scope", |it| value::one_of(it, &scopes)).unwrap_or(false),
        })
    }
}

impl ToolLimits {
    fn read(owner: &Section<'_>) -> Self {
        let Some(section) = owner.get("limits").and_then(|field| field.section(LIMIT_KEYS)) else {
            return Self::default();
        };
        let rates = |key| section.get(key).map(|field| paces(&field)).unwrap_or_default();
        let run = section.read("run", |it| value::whole(it, 1..=10_000));
        Self {
            tool: rates("tool"),
            user: rates("user"),
            run: run.and_then(|run| u32::try_from(run).ok()),
            max_wait: section.read("max_wait", value::pause).unwrap_or_default(),
        }
    }
}

impl Approval {
    /// What `when` may speak of.
    pub const FACTS: [&str; 3] = ["args", "run", "tool"];

    fn read(owner: &Section<'_>) -> Option<Self> {
        let section = owner.get("approval")?.section(APPROVAL_KEYS)?;
        let answers = [("deny", false), ("allow", true)];
        Some(Self {
            when: section.read("when", value::text),
            roles: texts(&section, "roles"),
            expires: section.read("expires", value::deadline).unwrap_or(Duration::from_hours(24)),
            passes_unanswered: section
                .read("on_expire", |it| value::one_of(it, &answers))
                .unwrap_or(false),
            tools: section.get("tools").map(|_| texts(&section, "tools")),
        })
    }
}

impl Undo {
    fn read(owner: &Section<'_>) -> Option<Self> {
        let section = owner.get("undo")?.section(UNDO_KEYS)?;
        Some(Self {
            tool: section.require("tool").and_then(|it| it.read(value::text)).unwrap_or_default(),
            args: section
                .get("args")
                .and_then(|field| field.read(reader::object))
                .unwrap_or_else(|| Json::Object(serde_json::Map::new())),
        })
    }
}
