//! The kinds of tools, and what is written for each.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value as Json;

use super::web::{TextTemplate, UrlTemplate, Web};
use crate::config::provider::texts;
use crate::config::reader::{self, Field, Section};
use crate::config::secret::Secret;
use crate::config::store::{StoreUrl, url as store_url};
use crate::config::value;

/// What the gateway can do itself.
pub const BUILTINS: &[&str] =
    &["ask_user", "calculator", "convert", "datetime", "fetch", "format", SEARCH_TOOLS];
/// The one of them that tells a model what else its agent has.
pub const SEARCH_TOOLS: &str = "search_tools";
pub(in crate::config) const TEMPLATE_KEYS: &[&str] = &["sql", "description", "params"];

const WEB: &[&str] = &["headers", "auth", "proxy", "ca", "allow_private"];
/// Of those that are one tool and not a source of several.
const SINGLE: &[&str] = &["effect", "input", "output", "probe", "undo", "cache", "error_when"];
const SEVERAL: &[&str] = &["effect", "effects", "cache", "error_when"];
/// Each kind, and the keys that only some have.
pub(super) const KINDS: &[(&str, &[&[&str]])] = &[
    ("http", &[SINGLE, CALLED, WEB, &["method", "url", "query", "body", "idempotency"]]),
    ("openapi", &[SEVERAL, CALLED, WEB, OPENAPI]),
    ("graphql", &[SINGLE, CALLED, WEB, &["url", "query", "idempotency"]]),
    ("mcp", &[SEVERAL, CALLED, WEB, MCP]),
    ("sql", &[SEVERAL, CALLED, &["dsn", "mode", "templates", "max_rows", "statement_timeout"]]),
    ("builtin", &[CALLED, &["name", "hosts", "allow_private", "cache"]]),
    ("agent", &[&["agent", "effect", "input"]]),
];
/// Of those that are asked by the gateway itself.
const CALLED: &[&str] = &["retry", "breaker", "max_result", "result", "trust"];
const OPENAPI: &[&str] = &["spec", "base_url", "include", "idempotency", "check_output"];
const MCP: &[&str] = &[
    "transport",
    "command",
    "cwd",
    "env",
    "url",
    "allow",
    "pin",
    "instances",
    "idle_kill",
    "connect_timeout",
    "total_timeout",
    "sampling",
];

/// How a tool is called.
#[derive(Clone, Debug, PartialEq)]
pub enum ToolKind {
    Http(Box<HttpTool>),
    /// Each operation of a document is a tool.
    OpenApi(Box<OpenApiTool>),
    GraphQl(Box<GraphQlTool>),
    /// Each tool of a server that speaks the Model Context Protocol.
    Mcp(Box<McpTool>),
    /// Each statement that is written, or any that only reads.
    Sql(Box<SqlTool>),
    /// What the gateway can do itself.
    Builtin(BuiltinTool),
    /// Another agent.
    Agent(AgentTool),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentTool {
    pub agent: String,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct HttpTool {
    pub method: String,
    pub url: UrlTemplate,
    /// Parameters of the query, besides those in `url`.
    pub query: BTreeMap<String, TextTemplate>,
    /// JSON, in which a text that is one `{place}` is the argument itself. Without it the arguments
    /// that stand nowhere else are the body; or the query, where the method has no body.
    pub body: Option<Json>,
    /// `Idempotency-Key` is sent.
    pub idempotency: bool,
    pub web: Web,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct OpenApiTool {
    /// Where the document lies, for messages; and its text, JSON or YAML.
    pub spec: PathBuf,
    pub document: Arc<str>,
    /// Before the servers that the document names.
    pub base_url: Option<String>,
    /// Operations that are meant, or patterns with a trailing `*`; all, if nothing is said.
    pub include: Option<Vec<String>>,
    pub idempotency: bool,
    /// Whether results must be what the document says.
    pub check_output: bool,
    pub web: Web,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct GraphQlTool {
    pub url: String,
    /// The one document that is sent; arguments are its variables.
    pub query: String,
    pub idempotency: bool,
    pub web: Web,
}

#[derive(Clone, Debug, PartialEq)]
pub struct McpTool {
    pub transport: McpTransport,
    /// What is meant of its tools, names or patterns with a trailing `*`; all, if nothing is said.
    pub allow: Option<Vec<String>>,
    pub pin: Pin,
    /// Sessions or processes at the same time.
    pub instances: usize,
    /// One that was not called for so long is ended.
    pub idle_kill: Option<Duration>,
    /// From its start to its list of tools.
    pub connect_timeout: Duration,
    /// Of one call, however much progress it reports; `timeout` is its longest silence.
    pub total_timeout: Duration,
    /// Clients of `/mcp` may be asked for what a model says.
    pub sampling: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum McpTransport {
    /// A process, by its absolute path and its arguments, with these variables and no others.
    Stdio {
        command: Vec<String>,
        env: BTreeMap<String, Secret>,
        /// Where it starts; where the gateway was started, if nothing is said.
        cwd: Option<PathBuf>,
    },
    /// Streamable HTTP.
    Http { url: String, web: Web },
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct SqlTool {
    /// SQLite or Postgres. Files lie beside the config.
    pub database: StoreUrl,
    /// One statement from who calls, which only reads; or else `templates`.
    pub select_only: bool,
    pub templates: BTreeMap<String, SqlTemplate>,
    pub max_rows: usize,
    pub statement_timeout: Duration,
}

/// A statement with `:name` for its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlTemplate {
    pub sql: String,
    pub description: String,
    /// JSON Schema types of parameters, where they are more than text, number, true, false or null.
    pub params: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuiltinTool {
    /// One of [`BUILTINS`].
    pub name: String,
    /// Which hosts may be fetched from: names, or `*.example.com` for those below one.
    pub hosts: Vec<String>,
    pub allow_private: bool,
}

/// What becomes of a tool whose schema is not the one that was known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pin {
    #[default]
    Off,
    /// The first one is trusted; another one is not called before somebody allows it.
    FirstUse,
}

// === impl ToolKind ===

impl ToolKind {
    pub(super) fn read(kind: &str, section: &Section<'_>) -> Self {
        match kind {
            "http" => Self::Http(Box::new(HttpTool::read(section))),
            "openapi" => Self::OpenApi(Box::new(OpenApiTool::read(section))),
            "graphql" => Self::GraphQl(Box::new(GraphQlTool::read(section))),
            "mcp" => Self::Mcp(Box::new(McpTool::read(section))),
            "sql" => Self::Sql(Box::new(SqlTool::read(section))),
            "agent" => {
                let agent = section.require("agent").and_then(|field| field.read(value::text));
                Self::Agent(AgentTool { agent: agent.unwrap_or_default() })
            }
            _ => Self::Builtin(BuiltinTool::read(section)),
        }
    }

    /// As it is written.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http(_) => "http",
            Self::OpenApi(_) => "openapi",
            Self::GraphQl(_) => "graphql",
            Self::Mcp(_) => "mcp",
            Self::Sql(_) => "sql",
            Self::Builtin(_) => "builtin",
            Self::Agent(_) => "agent",
        }
    }

    /// Whether it is several tools, named `SOURCE.TOOL`.
    pub fn is_source(&self) -> bool {
        matches!(self, Self::OpenApi(_) | Self::Mcp(_) | Self::Sql(_))
    }
}

// === impl HttpTool ===

const METHODS: [(&str, &str); 6] = [
    ("GET", "GET"),
    ("HEAD", "HEAD"),
    ("POST", "POST"),
    ("PUT", "PUT"),
    ("PATCH", "PATCH"),
    ("DELETE", "DELETE"),
];

impl HttpTool {
    fn read(section: &Section<'_>) -> Self {
        let method = section.require("method");
        let method = method.and_then(|field| field.read(|it| value::one_of(it, &METHODS)));
        let fields = section.get("query").map(|field| field.entries()).unwrap_or_default();
        let template = |(name, field): (&str, Field<'_>)| {
            let template = field.read(|it| TextTemplate::parse(&value::text(it)?))?;
            Some((name.to_owned(), template))
        };
        let body = section.get("body").and_then(|field| field.read(reader::object));
        if body.is_some() && matches!(method, Some("GET" | "HEAD")) {
            section.report.problem(&section.path, "`body`: this method has none");
        }
        Self {
            method: method.unwrap_or("GET").to_owned(),
            url: section
                .require("url")
                .and_then(|field| field.read(UrlTemplate::read))
                .unwrap_or_default(),
            query: fields.into_iter().filter_map(template).collect(),
            body,
            idempotency: idempotency(section),
            web: Web::read(section, true),
        }
    }

    /// The arguments that stand in the address or in the body.
    pub fn places(&self) -> BTreeSet<String> {
        let mut places: BTreeSet<String> =
            self.url.places().into_iter().map(str::to_owned).collect();
        places.extend(self.query.values().flat_map(TextTemplate::places).map(str::to_owned));
        if let Some(body) = &self.body {
            collect(body, &mut places);
        }
        places
    }
}

fn collect(body: &Json, places: &mut BTreeSet<String>) {
    match body {
        Json::String(text) => {
            let template = TextTemplate::parse(text).unwrap_or_default();
            places.extend(template.places().map(str::to_owned));
        }
        Json::Array(list) => list.iter().for_each(|value| collect(value, places)),
        Json::Object(object) => object.values().for_each(|value| collect(value, places)),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
}

fn idempotency(section: &Section<'_>) -> bool {
    let words = [("header", true), ("none", false)];
    section.read("idempotency", |it| value::one_of(it, &words)).unwrap_or(true)
}

// === impl OpenApiTool ===

impl OpenApiTool {
    fn read(section: &Section<'_>) -> Self {
        let (spec, document) =
            section.require("spec").and_then(|it| document(&it)).unwrap_or_default();
        Self {
            spec,
            document,
            base_url: section.read("base_url", value::url),
            include: section.get("include").map(|_| texts(section, "include")),
            idempotency: idempotency(section),
            check_output: section.read("check_output", value::flag).unwrap_or(false),
            web: Web::read(section, true),
        }
    }
}

/// A file beside the config, with or without `file:` before its path.
fn document(field: &Field<'_>) -> Option<(PathBuf, Arc<str>)> {
    let written = field.read(value::text)?;
    let path = field.report.beside(written.strip_prefix("file:").unwrap_or(&written));
    match std::fs::read_to_string(&path) {
        Ok(text) => Some((path, Arc::from(text))),
        Err(error) => {
            field.fail(format!("{} cannot be read: {error}", path.display()));
            None
        }
    }
}

// === impl GraphQlTool ===

impl GraphQlTool {
    fn read(section: &Section<'_>) -> Self {
        let query = section.require("query").and_then(|field| field.read(value::text));
        Self {
            url: url(section),
            query: query.unwrap_or_default(),
            idempotency: idempotency(section),
            web: Web::read(section, true),
        }
    }
}

fn url(section: &Section<'_>) -> String {
    section.require("url").and_then(|field| field.read(value::url)).unwrap_or_default()
}

// === impl McpTool ===

impl McpTool {
    fn read(section: &Section<'_>) -> Self {
        let transports = [("stdio", true), ("streamable-http", false)];
        let transport = section.require("transport");
        let stdio = transport.and_then(|field| field.read(|it| value::one_of(it, &transports)));
        let pins = [("off", Pin::Off), ("tofu", Pin::FirstUse)];
        let deadline = |key, usual| section.read(key, value::deadline).unwrap_or(usual);
        let instances = section.read("instances", |it| value::whole(it, 1..=64));
        Self {
            transport: McpTransport::read(stdio.unwrap_or(false), section),
            allow: section.get("allow").map(|_| texts(section, "allow")),
            pin: section.read("pin", |it| value::one_of(it, &pins)).unwrap_or_default(),
            instances: instances.and_then(|it| usize::try_from(it).ok()).unwrap_or(1),
            idle_kill: section.read("idle_kill", value::deadline),
            connect_timeout: deadline("connect_timeout", Duration::from_secs(20)),
            total_timeout: deadline("total_timeout", Duration::from_mins(10)),
            sampling: section.read("sampling", value::flag).unwrap_or(false),
        }
    }
}

impl McpTransport {
    fn read(stdio: bool, section: &Section<'_>) -> Self {
        let others: &[&str] = if stdio {
            &["url", "headers", "auth", "proxy", "ca", "allow_private"]
        } else {
            &["command", "cwd", "env", "idle_kill"]
        };
        let transport = if stdio { "stdio" } else { "streamable-http" };
        for field in others.iter().filter_map(|key| section.get(key)) {
            field.fail(format!("has no meaning with `transport = \"{transport}\"`"));
        }
        if !stdio {
            return Self::Http { url: url(section), web: Web::read(section, true) };
        }
        let command = texts(section, "command");
        match (section.require("command"), command.first()) {
            (Some(field), None) => field.fail("must name a program"),
            (Some(field), Some(program)) if !program.starts_with('/') => {
                field.fail("must begin with the absolute path of a program");
            }
            _ => {}
        }
        Self::Stdio { command, env: environment(section), cwd: folder(section) }
    }
}

fn folder(section: &Section<'_>) -> Option<PathBuf> {
    let field = section.get("cwd")?;
    let folder = field.report.beside(&field.read(value::text)?);
    if !folder.is_dir() {
        field.fail(format!("{} is no folder", folder.display()));
    }
    Some(folder)
}

fn environment(section: &Section<'_>) -> BTreeMap<String, Secret> {
    let fields = section.get("env").map(|field| field.entries()).unwrap_or_default();
    let variable = |(name, field): (&str, Field<'_>)| {
        if name.is_empty() || name.contains(['=', '\0']) {
            field.fail(format!("{name:?} is not the name of a variable"));
            return None;
        }
        // Without a value it is set nevertheless.
        if field.read(|value| Ok(value.as_str() == Some(""))) == Some(true) {
            return Some((name.to_owned(), Secret::new("")));
        }
        let literal = crate::config::secret::Literal::Fine;
        Some((name.to_owned(), Secret::read(&field, literal)?))
    };
    fields.into_iter().filter_map(variable).collect()
}

// === impl SqlTool ===

impl SqlTool {
    fn read(section: &Section<'_>) -> Self {
        let modes = [("templates", false), ("select_only", true)];
        let select_only = section.read("mode", |it| value::one_of(it, &modes)).unwrap_or(false);
        let templates = templates(section);
        if select_only == section.get("templates").is_some() {
            let message = "`templates` goes with `mode = \"templates\"`, and only with it";
            section.report.problem(&section.path, message);
        }
        Self {
            database: section.require("dsn").and_then(|it| database(&it)).unwrap_or_default(),
            select_only,
            templates,
            max_rows: section.read("max_rows", |it| value::count(it, 1)).unwrap_or(200),
            statement_timeout: section
                .read("statement_timeout", value::deadline)
                .unwrap_or(Duration::from_secs(5)),
        }
    }
}

fn database(field: &Field<'_>) -> Option<StoreUrl> {
    match store_url(field)? {
        StoreUrl::Memory => {
            field.fail("is empty in every process: name a file or a server");
            None
        }
        StoreUrl::Sqlite(path) => {
            Some(StoreUrl::Sqlite(field.report.beside(&path.to_string_lossy())))
        }
        postgres @ StoreUrl::Postgres(_) => Some(postgres),
    }
}

fn templates(section: &Section<'_>) -> BTreeMap<String, SqlTemplate> {
    let fields = section.get("templates").map(|field| field.entries()).unwrap_or_default();
    let template = |(name, field): (&str, Field<'_>)| {
        if !value::is_name(name) {
            field.fail(format!("{name:?} is not a name; use letters, digits and . _ -"));
        }
        Some((name.to_owned(), SqlTemplate::read(&field)?))
    };
    fields.into_iter().filter_map(template).collect()
}

const TYPES: [(&str, &str); 5] = [
    ("string", "string"),
    ("integer", "integer"),
    ("number", "number"),
    ("boolean", "boolean"),
    ("null", "null"),
];

impl SqlTemplate {
    /// A statement, or a table of it with more.
    fn read(field: &Field<'_>) -> Option<Self> {
        if !field.is_table() {
            return Some(Self { sql: field.read(value::text)?, ..Self::default() });
        }
        let section = field.section(TEMPLATE_KEYS)?;
        let params = section.get("params").map(|field| field.entries()).unwrap_or_default();
        let param = |(name, field): (&str, Field<'_>)| {
            let kind = field.read(|it| value::one_of(it, &TYPES))?;
            Some((name.to_owned(), kind.to_owned()))
        };
        Some(Self {
            sql: section.require("sql")?.read(value::text)?,
            description: section.read("description", value::text).unwrap_or_default(),
            params: params.into_iter().filter_map(param).collect(),
        })
    }
}

// === impl BuiltinTool ===

impl BuiltinTool {
    fn read(section: &Section<'_>) -> Self {
        let words: Vec<(&str, &str)> = BUILTINS.iter().map(|name| (*name, *name)).collect();
        let name = section.require("name");
        let name = name.and_then(|field| field.read(|it| value::one_of(it, &words)));
        let fetches = name == Some("fetch");
        for key in ["hosts", "allow_private", "cache"] {
            if let Some(field) = section.get(key).filter(|_| name.is_some() && !fetches) {
                field.fail("has a meaning only with `name = \"fetch\"`");
            }
        }
        let hosts = texts(section, "hosts");
        if fetches && hosts.is_empty() {
            let message = "`hosts` must name those that may be fetched from";
            section.report.problem(&section.path, message);
        }
        Self {
            name: name.unwrap_or_default().to_owned(),
            hosts: hosts.into_iter().map(|host| host.to_ascii_lowercase()).collect(),
            allow_private: section.read("allow_private", value::flag).unwrap_or(false),
        }
    }
}
