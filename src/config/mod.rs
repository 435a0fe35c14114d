//! What the operator wrote, checked. Nothing here runs.
//!
//! Serde stops at the first fault, so the sections are read by hand from the spanned tree:
//! every problem is told at once, with its line and TOML path.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};

mod problem;
mod reader;
mod value;
mod secret;
mod text;
mod reference;
mod server;
mod limit;
mod budget;
mod cloud;
mod store;
mod provider;
mod secrets;
mod model;
mod cache;
mod route;
mod access;
mod agent;
mod prompt;
mod schemas;
mod tool;
mod mcp;
mod hook;
mod guard;
mod oidc;
pub mod entry;
mod otlp;
mod telemetry;
mod record;
mod check;
mod check_agents;
mod discover;
pub mod watch;

pub use access::{Key, Org, Role, Team, User, point_in_time};
pub use agent::{
    Agent, AgentBudget, AgentEngine, AgentLimits, Band, Confidence, ContextTerms, Durability,
    HandoffInput, OnFilter, OnLeave, OnUnknown, Planner, SessionConflict, StreamMode,
};
pub use budget::{Budget, Every, Unit, Weights, Window};
pub use cache::{Cache, CacheMode, CacheTerms, Charge, RouteCache, RouteSemantic, Semantic, Share};
pub use cloud::{
    AwsEnvironment, AzureEnvironment, Cloud, CloudEnvironment, CloudKeys, GoogleEnvironment,
};
pub use discover::Candidate;
pub use guard::{
    Action, Guard, GuardKind, INJECTION_CATEGORIES, Mode, OnError, PII_KINDS, Stage, together,
};
pub use hook::{Hook, HookEvent};
pub use limit::{Limits, Pace};
pub use mcp::Mcp;
pub use model::ModelOverride;
pub use oidc::{Algorithm, Oidc, is_loopback};
pub use otlp::{Attributes, Capture, Otlp, Protocol};
pub use problem::{Problem, located, suggestion};
pub use prompt::{LOCK, Prompt, PromptVersion};
pub use provider::{Provider, Timeouts};
pub use record::{Bodies, Record};
pub use reference::{Found, Known, Manager, Reference};
pub use route::{
    Classifier, ClassifierKind, Fallbacks, Hedge, HedgeAfter, Lifetime, OnBreak, OnDisconnect,
    PromptCache, Route, Shadow, Strategy, Target, ToolPairs,
};
pub use schemas::Schemas;
pub use secret::{Place, Secret, variable};
pub use secrets::{Login, Secrets, Vault};
pub use server::{Admin, Server, Tls};
pub use store::{Store, StoreUrl};
pub use telemetry::{LogFormat, Telemetry};
pub use text::{Difference, Text};
pub use tool::{
    AGENT_TIMEOUT, AgentTool, Approval, BUILTINS, Breaker, BuiltinTool, ClientCredentials,
    GraphQlTool, HttpTool, McpTool, McpTransport, OpenApiTool, Piece, Pin, Retry, SEARCH_TOOLS,
    SqlTemplate, SqlTool, TextTemplate, Tool, ToolAuth, ToolCache, ToolKind, ToolLimits, Undo,
    UrlTemplate, Web,
};
pub use value::{ALL_CALLS, is_name};

use problem::{Lines, Report};
use reader::{Field, Section};

/// The sections of a config, in the order in which they are written.
pub const SECTIONS: &[&str] = &[
    "server",
    "admin",
    "store",
    "providers",
    "models",
    "routes",
    "keys",
    "users",
    "teams",
    "orgs",
    "guards",
    "auth",
    "token_weights",
    "cache",
    "secrets",
    "telemetry",
    "record",
    "agent_engine",
    "mcp",
    "schemas",
    "tools",
    "prompts",
    "agents",
    "hooks",
];

/// Everything the gateway is told, with secrets resolved and names checked.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub server: Server,
    pub admin: Admin,
    pub store: Store,
    pub providers: BTreeMap<String, Provider>,
    /// By `provider/model`; what they name wins over the bundled table.
    pub models: BTreeMap<String, ModelOverride>,
    pub routes: BTreeMap<String, Route>,
    pub keys: BTreeMap<String, Key>,
    pub users: BTreeMap<String, User>,
    pub teams: BTreeMap<String, Team>,
    pub orgs: BTreeMap<String, Org>,
    /// What may be said; they hold where they are named.
    pub guards: BTreeMap<String, Guard>,
    /// Whose tokens are taken as keys.
    pub oidc: BTreeMap<String, Oidc>,
    /// What tokens count in limits and budgets.
    pub token_weights: Weights,
    /// Which answers are remembered.
    pub cache: Cache,
    /// How those are reached that keep secrets.
    pub secrets: Secrets,
    /// The secrets that they keep.
    pub references: BTreeMap<Reference, Found>,
    pub telemetry: Telemetry,
    /// What is kept of calls, if somebody consented.
    pub record: Option<Arc<Record>>,
    pub agent_engine: AgentEngine,
    pub mcp: Mcp,
    /// Documents that schemas refer to.
    pub schemas: Schemas,
    pub tools: BTreeMap<String, Tool>,
    pub prompts: BTreeMap<String, Prompt>,
    pub agents: BTreeMap<String, Arc<Agent>>,
    /// Who is told of their runs.
    pub hooks: BTreeMap<String, Hook>,
    pub source: Source,
    /// As it was written.
    pub text: Text,
    /// SHA-256 of the text, in hex.
    pub hash: String,
    /// What works but should not stay so.
    pub warnings: Vec<Problem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    File(PathBuf),
    Discovery,
}

/// Whether a name, or a pattern with a trailing `*`, means `name`.
pub fn means(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

// === impl Config ===

impl Config {
    /// Whether the same keys and people may do the same on the admin listener.
    pub fn has_roles_of(&self, other: &Self) -> bool {
        let keys = |config: &Self| -> Vec<_> {
            let keys = config.keys.clone().into_iter();
            keys.filter(|(_, key)| key.role.is_some()).collect()
        };
        let issuers = |config: &Self| -> Vec<_> {
            let issuers = config.oidc.clone().into_iter();
            issuers.filter(|(_, issuer)| !issuer.roles.is_empty()).collect()
        };
        self.admin.key == other.admin.key
            && keys(self) == keys(other)
            && issuers(self) == issuers(other)
    }

    /// Reads and checks the file at `path`. `kinds` are the provider kinds that exist.
    pub fn load(path: &Path, kinds: &[&str]) -> Result<Self, Vec<Problem>> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            vec![Problem::of_file(path, format!("the file cannot be read: {error}"))]
        })?;
        Self::parse(&text, path, kinds)
    }

    /// Checks `text` as if it stood in the file `origin`, beside which relative paths are sought.
    pub fn parse(text: &str, origin: &Path, kinds: &[&str]) -> Result<Self, Vec<Problem>> {
        Self::parse_knowing(text, origin, &Known::new(), kinds)
    }

    /// The same with the secrets that were fetched from where they are kept.
    pub fn parse_knowing(
        text: &str,
        origin: &Path,
        known: &Known,
        kinds: &[&str],
    ) -> Result<Self, Vec<Problem>> {
        let root = parse_toml(text, origin)?;
        let report = Report::new(origin, &Lines::of(text), &root).knowing(known);
        let section = Section::new(String::new(), &root, SECTIONS, &report);
        let mut config =
            Self { hash: digest(text), ..Self::read(&section, Source::File(origin.to_path_buf())) };
        config.text = Text::new(text, report.literals());
        config.references = report.references();
        check::check(&config, kinds, &report);
        config.warnings = report.close()?;
        Ok(config)
    }

    /// The text with its secrets marked, whatever else is wrong with it.
    pub fn sketch(text: &str, origin: &Path) -> Result<Text, Vec<Problem>> {
        let root = parse_toml(text, origin)?;
        let report = Report::new(origin, &Lines::of(text), &root);
        let section = Section::new(String::new(), &root, SECTIONS, &report);
        let _ = Self::read(&section, Source::File(origin.to_path_buf()));
        Ok(Text::new(text, report.literals()))
    }

    /// A config for those who wrote none: a provider per candidate whose variable is set, the
    /// servers found on loopback, and the built-in one. Waits up to 0.2 s for loopback.
    pub fn discover(candidates: &[Candidate<'_>]) -> Self {
        discover::discover(candidates)
    }

    /// That the secrets which are kept elsewhere could not be asked for.
    pub fn unfetched(&self) -> Vec<Problem> {
        let Source::File(file) = &self.source else { return Vec::new() };
        let problem = |(reference, found): (&Reference, &Found)| Problem {
            file: file.clone(),
            line: found.line,
            path: found.path.clone(),
            message: format!("{reference}: it could not be asked for"),
        };
        self.references.iter().map(problem).collect()
    }

    fn empty(source: Source) -> Self {
        Self {
            server: Server::default(),
            admin: Admin::default(),
            store: Store::default(),
            providers: BTreeMap::new(),
            models: BTreeMap::new(),
            routes: BTreeMap::new(),
            keys: BTreeMap::new(),
            users: BTreeMap::new(),
            teams: BTreeMap::new(),
            orgs: BTreeMap::new(),
            guards: BTreeMap::new(),
            oidc: BTreeMap::new(),
            token_weights: Weights::default(),
            cache: Cache::default(),
            secrets: Secrets::default(),
            references: BTreeMap::new(),
            telemetry: Telemetry::default(),
            record: None,
            agent_engine: AgentEngine::default(),
            mcp: Mcp::default(),
            schemas: Schemas::default(),
            tools: BTreeMap::new(),
            prompts: BTreeMap::new(),
            agents: BTreeMap::new(),
            hooks: BTreeMap::new(),
            source,
            text: Text::default(),
            hash: String::new(),
            warnings: Vec::new(),
        }
    }

    fn read(root: &Section<'_>, source: Source) -> Self {
        let section = |name, keys| root.get(name).and_then(|field| field.section(keys));
        let engine = section("agent_engine", agent::engine::ENGINE_KEYS);
        let usual = Agent::defaults(engine.as_ref());
        let schemas = section("schemas", schemas::KEYS).map(|section| Schemas::read(&section));
        let schemas = schemas.unwrap_or_default();
        Self {
            server: section("server", server::SERVER_KEYS)
                .map(|section| Server::read(&section))
                .unwrap_or_default(),
            admin: section("admin", server::ADMIN_KEYS)
                .map(|section| Admin::read(&section))
                .unwrap_or_default(),
            store: section("store", store::KEYS)
                .map(|section| Store::read(&section))
                .unwrap_or_default(),
            providers: named(root, "providers", provider::KEYS, Provider::read),
            models: model::read_all(root),
            routes: named(root, "routes", route::KEYS, Route::read),
            keys: named(root, "keys", access::KEYS, Key::read),
            users: named(root, "users", access::USER_KEYS, User::read),
            teams: named(root, "teams", access::TEAM_KEYS, Team::read),
            orgs: named(root, "orgs", access::ORG_KEYS, Org::read),
            guards: named(root, "guards", guard::KEYS, Guard::read),
            oidc: section("auth", oidc::AUTH_KEYS)
                .map(|auth| named(&auth, "oidc", oidc::KEYS, Oidc::read))
                .unwrap_or_default(),
            token_weights: section("token_weights", budget::WEIGHT_KEYS)
                .map(|section| Weights::read(&section))
                .unwrap_or_default(),
            cache: section("cache", cache::KEYS)
                .map(|section| Cache::read(&section))
                .unwrap_or_default(),
            secrets: section("secrets", secrets::KEYS)
                .map(|section| Secrets::read(&section))
                .unwrap_or_default(),
            telemetry: Telemetry::read(section("telemetry", telemetry::KEYS).as_ref(), root.report),
            record: section("record", record::KEYS)
                .and_then(|section| Record::read(&section))
                .map(Arc::new),
            agent_engine: engine.map(|it| AgentEngine::read(&it)).unwrap_or_default(),
            mcp: section("mcp", mcp::KEYS).map(|section| Mcp::read(&section)).unwrap_or_default(),
            tools: named(root, "tools", tool::KEYS, |section| Tool {
                schemas: schemas.clone(),
                ..Tool::read(section)
            }),
            schemas,
            prompts: named(root, "prompts", prompt::KEYS, Prompt::read),
            agents: named(root, "agents", agent::KEYS, |section| {
                Arc::new(Agent::read(section, &usual, None))
            }),
            hooks: named(root, "hooks", hook::KEYS, Hook::read),
            ..Self::empty(source)
        }
    }
}

/// Every fault of the syntax, at most one per line: what follows a slip is rarely its own fault.
fn parse_toml<'a>(text: &'a str, origin: &Path) -> Result<DeTable<'a>, Vec<Problem>> {
    let (root, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        return Ok(root.into_inner());
    }
    let lines = Lines::of(text);
    let mut problems: Vec<Problem> = errors
        .iter()
        .map(|error| {
            let span = error.span();
            // The span of a key that stands there twice is that of its name.
            let name = span.clone().filter(|_| error.message() == "duplicate key");
            let name = name.and_then(|span| text.get(span)).map(|name| format!(" `{name}`"));
            Problem {
                line: span.map_or(0, |span| lines.number(&span)),
                ..Problem::of_file(origin, error.message().to_owned() + &name.unwrap_or_default())
            }
        })
        .collect();
    problems.sort_by_key(|problem| problem.line);
    problems.dedup_by_key(|problem| problem.line);
    Err(problems)
}

/// Reads `[section.NAME]` for every name. One that cannot be read still counts as named, so
/// that references to it are not reported as well.
fn named<T: Default>(
    root: &Section<'_>,
    section: &str,
    keys: &'static [&'static str],
    read: impl Fn(&Section<'_>) -> T,
) -> BTreeMap<String, T> {
    let entries = root.get(section).map(|field| field.entries()).unwrap_or_default();
    let value = |field: &Field<'_>| field.section(keys).map(|section| read(&section));
    entries
        .into_iter()
        .map(|(name, field)| {
            if !value::is_name(name) {
                field.fail(format!("{name:?} is not a name; use letters, digits and . _ -"));
            }
            (name.to_owned(), value(&field).unwrap_or_default())
        })
        .collect()
}

/// A duration as it is written in a config, such as `90s` or `24h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    value::pause(&DeValue::String(text.into()))
}

/// SHA-256 in hex.
fn digest(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests;
