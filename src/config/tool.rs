//! `[tools.NAME]`: what agents can do, and what it does to the world.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::limit::{Pace, paces};
use super::provider::texts;
use super::reader::{self, Section};
use super::value;
use crate::canon::Effect;

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
    "allow",
    "pin",
    "name",
];
pub(super) const RETRY_KEYS: &[&str] = &["attempts", "base", "max"];
pub(super) const BREAKER_KEYS: &[&str] = &["failures", "cooldown"];
pub(super) const CACHE_KEYS: &[&str] = &["ttl", "scope"];
pub(super) const LIMIT_KEYS: &[&str] = &["tool", "user", "run", "max_wait"];
pub(super) const APPROVAL_KEYS: &[&str] = &["when", "roles", "expires", "on_expire", "tools"];
pub(super) const UNDO_KEYS: &[&str] = &["tool", "args"];

/// One tool, or one source of several.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub kind: ToolKind,
    pub version: String,
    pub description: String,
    /// What a call does to the world; where a source has several, of those that `effects` does not
    /// name.
    pub effect: Effect,
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
    /// Bytes of a result that are kept; what an agent is shown of it is its own limit.
    pub max_result: usize,
    /// Of a source, what is meant; names, or patterns with a trailing `*`.
    pub allow: Option<Vec<String>>,
    pub pin: Pin,
    pub written: Json,
}

/// How it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolKind {
    /// What the gateway can do itself, by its name there.
    Builtin(String),
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

/// What becomes of a tool whose schema is not the one that was known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pin {
    #[default]
    Off,
    /// The first one is trusted; another one is not called before somebody allows it.
    FirstUse,
}

// === impl Tool ===

impl Default for Tool {
    fn default() -> Self {
        Self {
            kind: ToolKind::Builtin(String::new()),
            version: "1".to_owned(),
            description: String::new(),
            effect: Effect::Once,
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
            max_result: 8 << 20,
            allow: None,
            pin: Pin::Off,
            written: Json::Null,
        }
    }
}

impl Tool {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let usual = Self::default();
        let table = |key| section.get(key).and_then(|field| field.read(reader::object));
        let text = |key| section.read(key, value::text);
        let flag = |key| section.read(key, value::flag).unwrap_or(false);
        let effect = section.read("effect", |it| value::one_of(it, &effects()));
        let builtin = text("name").unwrap_or_default();
        Self {
            kind: ToolKind::Builtin(builtin),
            version: text("version").unwrap_or(usual.version),
            description: text("description").unwrap_or_default(),
            effect: effect.unwrap_or(usual.effect),
            effects: effects_of(section),
            high_risk: section
                .read("risk", |it| value::one_of(it, &[("normal", false), ("high", true)]))
                .unwrap_or(false),
            timeout: section.read("timeout", value::deadline).unwrap_or(usual.timeout),
            retry: Retry::read(section).unwrap_or(usual.retry),
            breaker: Breaker::read(section).unwrap_or(usual.breaker),
            cache: ToolCache::read(section),
            limits: ToolLimits::read(section),
            error_when: text("error_when"),
            approval: Approval::read(section),
            probe: text("probe"),
            undo: Undo::read(section),
            internal: flag("internal"),
            repeatable: flag("repeatable"),
            untrusted: section
                .read("trust", |it| value::one_of(it, &[("trusted", false), ("untrusted", true)]))
                .unwrap_or(false),
            input: table("input"),
            output: table("output"),
            max_result: section.read("max_result", value::size).unwrap_or(usual.max_result),
            allow: section.get("allow").map(|_| texts(section, "allow")),
            pin: section
                .read("pin", |it| value::one_of(it, &[("off", Pin::Off), ("tofu", Pin::FirstUse)]))
                .unwrap_or_default(),
            written: section.written(&[]),
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
