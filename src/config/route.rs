//! `[routes.NAME]`: what clients may name as a model, and where such calls go.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::de::DeValue;

use super::cache::RouteCache;
use super::limit::Limits;
use super::problem::suggestion;
use super::provider::{Timeouts, texts};
use super::reader::{Field, Section};
use super::value;
use crate::canon::Task;

pub(super) const KEYS: &[&str] = &[
    "targets",
    "strategy",
    "attempts",
    "strict",
    "tool_pairs",
    "prompt_cache",
    "timeouts",
    "hold_back",
    "on_break",
    "on_disconnect",
    "hedge",
    "fallbacks",
    "shadow",
    "max_output_tokens",
    "regions",
    "when",
    "tasks",
    "default",
    "classifier",
    "limits",
    "guards",
    "cache",
];
pub(super) const PROMPT_CACHE_KEYS: &[&str] = &["system", "tools", "messages", "ttl"];
pub(super) const TARGET_KEYS: &[&str] = &["target", "weight", "region", "prefill", "when"];
pub(super) const HEDGE_KEYS: &[&str] = &["after", "max_extra_cost"];
pub(super) const SHADOW_KEYS: &[&str] = &["target", "sample", "concurrency", "tokens_per_hour"];
pub(super) const FALLBACK_KEYS: &[&str] =
    &["general", "context", "budget", "content_filter", "rate_limit"];
pub(super) const CLASSIFIER_KEYS: &[&str] =
    &["kind", "route", "examples", "timeout", "min_score", "ttl"];

/// All keys of the tables in a route.
#[cfg(test)]
pub(super) const NESTED_KEYS: &[&str] = &[
    "target",
    "weight",
    "region",
    "prefill",
    "when",
    "after",
    "max_extra_cost",
    "sample",
    "concurrency",
    "tokens_per_hour",
    "general",
    "context",
    "budget",
    "content_filter",
    "rate_limit",
    "kind",
    "route",
    "examples",
    "timeout",
    "min_score",
    "ttl",
    "mode",
    "share",
    "sampled",
    "tool_calls",
    "semantic",
    "threshold",
    "shadow",
    "max_entries",
];

/// Where calls go: to targets in an order, or by their kind of work to other routes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    pub targets: Vec<Target>,
    pub strategy: Strategy,
    /// Over keys, retries and targets together.
    pub attempts: Option<u32>,
    /// A call is rather refused than sent without one of its fields.
    pub strict: bool,
    pub tool_pairs: Option<ToolPairs>,
    /// Where breakpoints of the provider's prompt cache are put, if the client set none.
    pub prompt_cache: Option<PromptCache>,
    pub timeouts: Timeouts,
    /// How long the first content of a stream is held, to be able to switch silently.
    pub hold_back: Duration,
    pub on_break: OnBreak,
    pub on_disconnect: OnDisconnect,
    pub hedge: Option<Hedge>,
    pub fallbacks: Fallbacks,
    pub shadow: Option<Shadow>,
    /// What an answer may have at most, whatever its client asks for.
    pub max_output_tokens: Option<u64>,
    /// Targets elsewhere, or nobody knows where, are not used.
    pub regions: Vec<String>,
    /// A condition in CEL; calls for which it is false do not go this way.
    pub when: Option<String>,
    /// The route for each kind of work, if the strategy is `task`.
    pub tasks: BTreeMap<Task, String>,
    /// The route for the kinds that have none, and for what could not be told.
    pub default: Option<String>,
    pub classifier: Classifier,
    pub limits: Limits,
    /// What its calls are guarded by, besides those of the server and the key.
    pub guards: Vec<String>,
    /// Which of its answers are remembered, where that is not as `[cache]` says.
    pub cache: Option<RouteCache>,
}

/// In which order the targets of a route are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    #[default]
    Ordered,
    /// By chance, in proportion to their weights.
    Weighted,
    /// The one whose first token comes soonest, with regard to the calls it has already.
    Fastest,
    /// The one that will cost least.
    Cheapest,
    /// The same one for all calls of a session, in proportion to the weights.
    Sticky,
    /// By the kind of work; each kind has a route.
    Task,
}

/// What becomes of a stream that breaks after its first content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnBreak {
    /// The client is told.
    #[default]
    Error,
    /// Another target carries on where it broke off, if that can be done without a seam.
    Continue,
    /// Another target begins anew, as long as the client was given nothing.
    Restart,
}

/// What becomes of an upstream's answer when the client has left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDisconnect {
    #[default]
    Cancel,
    /// It is read to its end, for the sake of its usage.
    Drain,
}

/// A second request for the same, when the first one is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    pub after: HedgeAfter,
    /// Its share of what the route costs, in thousandths.
    pub max_extra_permille: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HedgeAfter {
    /// When the target has been silent for longer than in 95 of 100 calls.
    P95,
    Fixed(Duration),
}

/// The routes and targets that calls go to for one reason each, when their own route has failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fallbacks {
    pub general: Vec<String>,
    pub context: Vec<String>,
    pub budget: Vec<String>,
    pub content_filter: Vec<String>,
    pub rate_limit: Vec<String>,
}

/// A target that is asked the same, for comparison; its answers are thrown away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    pub target: Target,
    /// Of a million calls, so many.
    pub sample: u32,
    /// At the same time.
    pub concurrency: u32,
    /// By estimate, input and output; `None` for no limit.
    pub tokens_per_hour: Option<u64>,
}

/// How the kind of work is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Classifier {
    pub kind: ClassifierKind,
    /// The route by which examples are embedded or the model is asked.
    pub route: Option<String>,
    /// Sentences of each kind of work.
    pub examples: BTreeMap<Task, Vec<String>>,
    pub timeout: Duration,
    /// What scores less is of no kind that can be told, in thousandths.
    pub min_permille: u32,
    /// How long a decision is remembered.
    pub ttl: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassifierKind {
    /// By structure and words, in this process.
    Rules,
    /// By the nearest of the examples.
    Examples,
    /// By asking a model.
    Model,
}

impl Default for Classifier {
    fn default() -> Self {
        Self {
            kind: ClassifierKind::Rules,
            route: None,
            examples: BTreeMap::new(),
            timeout: Duration::from_secs(2),
            min_permille: 0,
            ttl: Duration::from_hours(1),
        }
    }
}

/// What becomes of a history in which a tool call or a result stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolPairs {
    /// The call is refused.
    Strict,
    /// A stated placeholder completes the pair.
    Repair,
}

/// How long an entry of the prompt cache lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Five minutes.
    Short,
    /// An hour.
    Long,
}

/// Behind what a breakpoint of the prompt cache is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PromptCache {
    pub system: bool,
    pub tools: bool,
    /// The last two messages of the user.
    pub messages: bool,
    pub lifetime: Lifetime,
}

/// One model of one provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Target {
    pub provider: String,
    pub model: String,
    /// Its share of the calls; 0 for a last resort.
    pub weight: Option<u32>,
    pub region: Option<String>,
    /// Whether it carries on an assistant's message that ends the conversation; `None` for what
    /// the model is known for.
    pub prefill: Option<bool>,
    /// A condition in CEL; calls for which it is false do not go here.
    pub when: Option<String>,
}

// === impl Route ===

impl Route {
    pub(super) fn read(section: &Section<'_>) -> Self {
        let strategy = section.read("strategy", strategy).unwrap_or_default();
        let targets = if strategy == Strategy::Task {
            section.get("targets").inspect(|field| {
                field.fail("a route by task has `tasks` and `default` instead");
            })
        } else {
            section.require("targets")
        };
        let (tasks, default) = by_task(section, strategy);
        Self {
            targets: targets.map(|field| self::targets(&field)).unwrap_or_default(),
            strategy,
            attempts: section
                .read("attempts", |value| value::whole(value, 1..=20))
                .and_then(|attempts| u32::try_from(attempts).ok()),
            strict: section.read("strict", value::flag).unwrap_or(false),
            tool_pairs: section.read("tool_pairs", tool_pairs),
            prompt_cache: section.get("prompt_cache").and_then(|field| PromptCache::read(&field)),
            timeouts: Timeouts::read(section),
            hold_back: section.read("hold_back", value::pause).unwrap_or_default(),
            on_break: section.read("on_break", on_break).unwrap_or_default(),
            on_disconnect: section.read("on_disconnect", on_disconnect).unwrap_or_default(),
            hedge: section.get("hedge").and_then(|field| Hedge::read(&field)),
            fallbacks: section
                .get("fallbacks")
                .and_then(|field| Fallbacks::read(&field))
                .unwrap_or_default(),
            shadow: section.get("shadow").and_then(|field| Shadow::read(&field)),
            max_output_tokens: section
                .read("max_output_tokens", |value| value::whole(value, 1..=u64::from(u32::MAX))),
            regions: texts(section, "regions"),
            when: section.read("when", value::text),
            tasks,
            default,
            classifier: section
                .get("classifier")
                .and_then(|field| Classifier::read(&field))
                .unwrap_or_default(),
            limits: Limits::read(section),
            guards: texts(section, "guards"),
            cache: section.get("cache").and_then(|field| RouteCache::read(&field)),
        }
    }
}

/// What only a route by task has.
fn by_task(section: &Section<'_>, strategy: Strategy) -> (BTreeMap<Task, String>, Option<String>) {
    if strategy != Strategy::Task {
        for key in ["tasks", "default", "classifier"] {
            if let Some(field) = section.get(key) {
                field.fail("belongs to routes with `strategy = \"task\"`");
            }
        }
        return (BTreeMap::new(), None);
    }
    let tasks =
        section.require("tasks").map(|field| per_task(&field, |field| field.read(value::text)));
    let default = section.require("default").and_then(|field| field.read(value::text));
    (tasks.unwrap_or_default(), default)
}

/// A table whose keys are tasks.
fn per_task<T>(field: &Field<'_>, read: impl Fn(&Field<'_>) -> Option<T>) -> BTreeMap<Task, T> {
    let mut read_so_far = BTreeMap::new();
    for (name, field) in field.entries() {
        let Some(task) = Task::parse(name) else {
            let hint = suggestion(name, Task::ALL.iter().map(|task| task.name()));
            field.fail(format!("no kind of work is called \"{name}\"{hint}"));
            continue;
        };
        if let Some(value) = read(&field) {
            read_so_far.insert(task, value);
        }
    }
    read_so_far
}

fn strategy(value: &DeValue<'_>) -> Result<Strategy, String> {
    value::one_of(
        value,
        &[
            ("ordered", Strategy::Ordered),
            ("weighted", Strategy::Weighted),
            ("fastest", Strategy::Fastest),
            ("cheapest", Strategy::Cheapest),
            ("sticky", Strategy::Sticky),
            ("task", Strategy::Task),
        ],
    )
}

fn on_break(value: &DeValue<'_>) -> Result<OnBreak, String> {
    let words =
        [("error", OnBreak::Error), ("continue", OnBreak::Continue), ("restart", OnBreak::Restart)];
    value::one_of(value, &words)
}

fn on_disconnect(value: &DeValue<'_>) -> Result<OnDisconnect, String> {
    let words = [("cancel", OnDisconnect::Cancel), ("drain", OnDisconnect::Drain)];
    value::one_of(value, &words)
}

// === impl Hedge ===

impl Hedge {
    fn read(field: &Field<'_>) -> Option<Self> {
        let section = field.section(HEDGE_KEYS)?;
        let after = |value: &DeValue<'_>| match value.as_str() {
            Some("p95") => Ok(HedgeAfter::P95),
            _ => value::deadline(value).map(HedgeAfter::Fixed),
        };
        Some(Self {
            after: section.read("after", after).unwrap_or(HedgeAfter::P95),
            max_extra_permille: section.read("max_extra_cost", value::permille).unwrap_or(50),
        })
    }
}

// === impl Fallbacks ===

impl Fallbacks {
    fn read(field: &Field<'_>) -> Option<Self> {
        let section = field.section(FALLBACK_KEYS)?;
        Some(Self {
            general: texts(&section, "general"),
            context: texts(&section, "context"),
            budget: texts(&section, "budget"),
            content_filter: texts(&section, "content_filter"),
            rate_limit: texts(&section, "rate_limit"),
        })
    }

    /// Each list with its key, in the order in which they are tried: the general one comes last.
    pub fn lists(&self) -> [(&'static str, &[String]); 5] {
        [
            ("context", &self.context),
            ("content_filter", &self.content_filter),
            ("rate_limit", &self.rate_limit),
            ("budget", &self.budget),
            ("general", &self.general),
        ]
    }
}

// === impl Shadow ===

impl Shadow {
    fn read(field: &Field<'_>) -> Option<Self> {
        let section = field.section(SHADOW_KEYS)?;
        Some(Self {
            target: Target::read(&section.require("target")?)?,
            sample: section.read("sample", value::sample).unwrap_or(value::ALL_CALLS),
            concurrency: section
                .read("concurrency", |value| value::whole(value, 1..=10_000))
                .and_then(|count| u32::try_from(count).ok())
                .unwrap_or(8),
            tokens_per_hour: section
                .read("tokens_per_hour", |value| value::whole(value, 1..=u64::from(u32::MAX))),
        })
    }
}

// === impl Classifier ===

impl Classifier {
    fn read(field: &Field<'_>) -> Option<Self> {
        let section = field.section(CLASSIFIER_KEYS)?;
        let usual = Self::default();
        let kinds = [
            ("rules", ClassifierKind::Rules),
            ("examples", ClassifierKind::Examples),
            ("model", ClassifierKind::Model),
        ];
        let kind = section.read("kind", |value| value::one_of(value, &kinds)).unwrap_or(usual.kind);
        let route = match kind {
            ClassifierKind::Rules => section.get("route").inspect(|field| {
                field.fail("classifying by `rules` asks nobody");
            }),
            ClassifierKind::Examples | ClassifierKind::Model => section.require("route"),
        };
        let examples = match kind {
            ClassifierKind::Examples => section.require("examples"),
            ClassifierKind::Rules | ClassifierKind::Model => section
                .get("examples")
                .inspect(|field| field.fail("belongs to `kind = \"examples\"`")),
        };
        let sentences = |field: &Field<'_>| {
            let sentences: Vec<String> =
                field.list()?.iter().filter_map(|field| field.read(value::text)).collect();
            Some(sentences)
        };
        Some(Self {
            kind,
            route: route.and_then(|field| field.read(value::text)),
            examples: examples.map(|field| per_task(&field, sentences)).unwrap_or_default(),
            timeout: section.read("timeout", value::deadline).unwrap_or(usual.timeout),
            min_permille: section.read("min_score", value::permille).unwrap_or(usual.min_permille),
            ttl: section.read("ttl", value::deadline).unwrap_or(usual.ttl),
        })
    }
}

// === impl PromptCache ===

impl PromptCache {
    fn read(field: &Field<'_>) -> Option<Self> {
        let section = field.section(PROMPT_CACHE_KEYS)?;
        let flag = |key| section.read(key, value::flag).unwrap_or(true);
        Some(Self {
            system: flag("system"),
            tools: flag("tools"),
            messages: flag("messages"),
            lifetime: section.read("ttl", lifetime).unwrap_or(Lifetime::Short),
        })
    }
}

fn lifetime(value: &DeValue<'_>) -> Result<Lifetime, String> {
    value::one_of(value, &[("5m", Lifetime::Short), ("1h", Lifetime::Long)])
}

fn tool_pairs(value: &DeValue<'_>) -> Result<ToolPairs, String> {
    value::one_of(value, &[("strict", ToolPairs::Strict), ("repair", ToolPairs::Repair)])
}

fn targets(field: &Field<'_>) -> Vec<Target> {
    let Some(elements) = field.list() else { return Vec::new() };
    if elements.is_empty() {
        field.fail("must name at least one target");
    }
    let mut targets = Vec::new();
    for element in elements {
        let Some(target) = Target::read(&element) else { continue };
        let same =
            |other: &Target| (&other.provider, &other.model) == (&target.provider, &target.model);
        if targets.iter().any(same) {
            let Target { provider, model, .. } = &target;
            element.fail(format!("\"{provider}/{model}\" is named twice in this route"));
        }
        targets.push(target);
    }
    targets
}

// === impl Target ===

impl Target {
    fn read(element: &Field<'_>) -> Option<Self> {
        let (written, mut target) = if element.is_table() {
            let section = element.section(TARGET_KEYS)?;
            let target = Self {
                weight: section
                    .read("weight", |value| value::whole(value, 0..=1_000_000))
                    .and_then(|weight| u32::try_from(weight).ok()),
                region: section.read("region", value::text),
                prefill: section.read("prefill", value::flag),
                when: section.read("when", value::text),
                ..Self::default()
            };
            (section.require("target")?.read(value::text)?, target)
        } else {
            (element.read(value::text)?, Self::default())
        };
        let Some((provider, model)) = split(&written) else {
            element.fail(format!("{written:?} is not a target; write \"provider/model\""));
            return None;
        };
        (target.provider, target.model) = (provider.to_owned(), model.to_owned());
        Some(target)
    }
}

/// The two halves of `provider/model`.
pub(super) fn split(target: &str) -> Option<(&str, &str)> {
    target.split_once('/').filter(|(provider, model)| !provider.is_empty() && !model.is_empty())
}
