//! `[cache]`, and what routes say of it: which answers are remembered, for whom and for how long.

use std::time::Duration;

use toml::de::DeValue;

use super::reader::{Field, Section};
use super::value;

pub(super) const KEYS: &[&str] = &[
    "mode",
    "ttl",
    "share",
    "sampled",
    "tool_calls",
    "semantic",
    "max_bytes",
    "max_entry",
    "coalesce",
    "coalesce_charge",
];
/// What a route may say for itself.
pub(super) const ROUTE_KEYS: &[&str] =
    &["mode", "ttl", "share", "sampled", "tool_calls", "semantic"];
pub(super) const SEMANTIC_KEYS: &[&str] = &["route", "threshold", "shadow", "max_entries"];

/// What the cache may do for a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// Nothing.
    #[default]
    Off,
    On,
    /// Answers are taken from it, and none is put in.
    ReadOnly,
    /// Answers are put in where there is none, and none is taken.
    WriteOnly,
    /// None is taken, and a new one is put in the place of the one that is there.
    Refresh,
}

/// Whose questions one answer is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// Those of the key, or the user, that asked.
    #[default]
    Key,
    /// Those of all keys of its team.
    Team,
    /// Everybody's.
    All,
}

/// Who pays for an answer that several wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Charge {
    /// Whoever asked first.
    #[default]
    Owner,
    /// Each of them, as if alone.
    All,
}

/// `[cache]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// All answers in memory together.
    pub max_bytes: usize,
    /// A longer answer is not kept.
    pub max_entry: usize,
    /// Identical calls at the same time wait for one answer.
    pub coalesce: bool,
    pub coalesce_charge: Charge,
    /// What holds where a route says nothing.
    usual: RouteCache,
}

/// What is said of the answers of a route; what is absent is as `[cache]` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteCache {
    pub mode: Option<CacheMode>,
    pub ttl: Option<Duration>,
    pub share: Option<Share>,
    /// Also what was drawn by chance, because the temperature is not 0.
    pub sampled: Option<bool>,
    /// Also answers that call tools.
    pub tool_calls: Option<bool>,
    pub semantic: Option<RouteSemantic>,
}

/// How answers to similar questions are found, as far as it is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RouteSemantic {
    pub wanted: bool,
    pub route: Option<String>,
    pub threshold_permille: Option<u32>,
    pub shadow: Option<bool>,
    pub max_entries: Option<usize>,
}

/// All that holds for the answers of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheTerms {
    pub mode: CacheMode,
    pub ttl: Duration,
    pub share: Share,
    pub sampled: bool,
    pub tool_calls: bool,
    pub semantic: Option<Semantic>,
}

/// How answers to similar questions are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semantic {
    /// By which questions are embedded: a route, or `provider/model`.
    pub route: String,
    /// How similar two questions must be, in thousandths.
    pub threshold_permille: u32,
    /// What would have been found is only told.
    pub shadow: bool,
    /// Questions that are compared with each other.
    pub max_entries: usize,
}

// === impl Cache ===

impl Default for Cache {
    fn default() -> Self {
        Self {
            max_bytes: 256 << 20,
            max_entry: 1 << 20,
            coalesce: true,
            coalesce_charge: Charge::Owner,
            usual: RouteCache::default(),
        }
    }
}

impl Cache {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let usual = Self::default();
        Self {
            max_bytes: section.read("max_bytes", value::size).unwrap_or(usual.max_bytes),
            max_entry: section.read("max_entry", value::size).unwrap_or(usual.max_entry),
            coalesce: section.read("coalesce", value::flag).unwrap_or(usual.coalesce),
            coalesce_charge: section.read("coalesce_charge", charge).unwrap_or_default(),
            usual: RouteCache::of(section),
        }
    }

    /// What holds for a route, or for a model that is asked for without one. `None`: nothing is
    /// remembered there.
    pub fn terms(&self, route: Option<&RouteCache>) -> Option<CacheTerms> {
        let own = |read: fn(&RouteCache) -> bool| {
            route.filter(|route| read(route)).unwrap_or(&self.usual)
        };
        let mode = own(|said| said.mode.is_some()).mode.unwrap_or_default();
        if mode == CacheMode::Off {
            return None;
        }
        Some(CacheTerms {
            mode,
            ttl: own(|said| said.ttl.is_some()).ttl.unwrap_or(Duration::from_hours(1)),
            share: own(|said| said.share.is_some()).share.unwrap_or_default(),
            sampled: own(|said| said.sampled.is_some()).sampled.unwrap_or(false),
            tool_calls: own(|said| said.tool_calls.is_some()).tool_calls.unwrap_or(false),
            semantic: self.semantic(route),
        })
    }

    /// By which route or model questions are embedded, where a route says nothing.
    pub(super) fn embedder(&self) -> Option<&str> {
        self.usual.semantic.as_ref()?.route.as_deref()
    }

    /// Similar questions are for routes that say so.
    pub(super) fn semantic(&self, route: Option<&RouteCache>) -> Option<Semantic> {
        let own = route?.semantic.as_ref().filter(|own| own.wanted)?;
        let usual = self.usual.semantic.clone().unwrap_or_default();
        Some(Semantic {
            route: own.route.clone().or(usual.route)?,
            threshold_permille: own.threshold_permille.or(usual.threshold_permille).unwrap_or(950),
            shadow: own.shadow.or(usual.shadow).unwrap_or(false),
            max_entries: own.max_entries.or(usual.max_entries).unwrap_or(10_000),
        })
    }
}

// === impl RouteCache ===

impl RouteCache {
    /// A mode, or a table.
    pub(super) fn read(field: &Field<'_>) -> Option<Self> {
        if field.is_table() {
            return field.section(ROUTE_KEYS).map(|section| Self::of(&section));
        }
        Some(Self { mode: field.read(mode), ..Self::default() })
    }

    fn of(section: &Section<'_>) -> Self {
        Self {
            mode: section.read("mode", mode),
            ttl: section.read("ttl", value::deadline),
            share: section.read("share", share),
            sampled: section.read("sampled", value::flag),
            tool_calls: section.read("tool_calls", value::flag),
            semantic: section.get("semantic").and_then(|field| RouteSemantic::read(&field)),
        }
    }
}

// === impl RouteSemantic ===

impl RouteSemantic {
    /// Whether it is wanted, or a table.
    fn read(field: &Field<'_>) -> Option<Self> {
        if !field.is_table() {
            return Some(Self { wanted: field.read(value::flag)?, ..Self::default() });
        }
        let section = field.section(SEMANTIC_KEYS)?;
        Some(Self {
            wanted: true,
            route: section.read("route", value::text),
            threshold_permille: section.read("threshold", value::permille),
            shadow: section.read("shadow", value::flag),
            max_entries: section.read("max_entries", |value| value::count(value, 1)),
        })
    }
}

// === impl CacheMode ===

impl CacheMode {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("off", Self::Off),
        ("on", Self::On),
        ("read_only", Self::ReadOnly),
        ("write_only", Self::WriteOnly),
        ("refresh", Self::Refresh),
    ];

    pub fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, mode)| *mode)
    }
}

pub(super) fn mode(value: &DeValue<'_>) -> Result<CacheMode, String> {
    value::one_of(value, CacheMode::NAMES)
}

fn share(value: &DeValue<'_>) -> Result<Share, String> {
    value::one_of(value, &[("key", Share::Key), ("team", Share::Team), ("all", Share::All)])
}

fn charge(value: &DeValue<'_>) -> Result<Charge, String> {
    value::one_of(value, &[("owner", Charge::Owner), ("all", Charge::All)])
}
