//! A config made ready to serve: immutable, built whole, swapped whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::HeaderValue;

use crate::access::Access;
use crate::canon::{CacheMark, Surface};
use crate::config::{CloudEnvironment, Config, Lifetime, PromptCache, Route, Timeouts, ToolPairs};
use crate::dialect::CacheInjection;
use crate::net::client::Client;
use crate::provider::{Provider, Way};
use crate::route::{Choice, Routes, Unknown};
use crate::telemetry::Meters;

/// Everything a call needs to know of the config.
#[derive(Debug)]
pub struct Snapshot {
    pub config: Config,
    /// Rises with each accepted config.
    pub generation: u64,
    pub loaded_at: SystemTime,
    pub access: Access,
    pub routes: Routes,
    /// The series of calls that never got to a target.
    pub(super) refusals: Meters,
    providers: BTreeMap<String, Arc<Provider>>,
    /// There are providers of several kinds.
    mixed: bool,
    chains: Vec<Arc<Chain>>,
}

/// The targets that a call may try, in order.
#[derive(Debug)]
pub(super) struct Chain {
    /// The route's name, or `direct`.
    pub(super) name: Arc<str>,
    pub(super) header: Option<HeaderValue>,
    pub(super) targets: Vec<Target>,
    /// A question is rather refused than sent without one of its fields.
    pub(super) strict: bool,
    pub(super) tool_pairs: Option<ToolPairs>,
    pub(super) prompt_cache: Option<CacheInjection>,
    /// Attempts one call may make, over keys and targets together.
    pub(super) attempts: u32,
}

/// One model of one provider.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) provider: Arc<Provider>,
    pub(super) model: Arc<str>,
    /// The model as a JSON string, to be spliced into bodies.
    pub(super) quoted: Bytes,
    pub(super) provider_header: Option<HeaderValue>,
    pub(super) model_header: Option<HeaderValue>,
    pub(super) limits: Limits,
    pub(super) meters: Meters,
}

/// How long each phase of an attempt may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connect: Duration,
    /// From the request being sent to the head of its answer. Without one, a stream has the
    /// default and a whole answer has until `total`, since its head comes when it is complete.
    pub(super) headers: Option<Duration>,
    /// From the request being sent to the first content of a stream.
    pub(super) first_token: Duration,
    /// Between two events of a stream.
    pub(super) idle: Duration,
    /// From the arrival of the call to its end.
    pub(super) total: Duration,
}

/// Attempts when a route names no number.
const ATTEMPTS: u32 = 3;
pub(super) const STREAM_HEADERS: Duration = Duration::from_mins(1);
const DEFAULTS: Limits = Limits {
    connect: Duration::from_secs(5),
    headers: None,
    first_token: Duration::from_mins(2),
    idle: Duration::from_mins(1),
    total: Duration::from_mins(10),
};

// === impl Snapshot ===

impl Snapshot {
    /// Builds what `config` describes; on failure says everything that cannot be
    /// built, each with the section it stands in.
    pub fn build(
        config: Config,
        generation: u64,
        client: &Client,
    ) -> Result<Self, Vec<(String, String)>> {
        let mut problems = Vec::new();
        let mut providers = BTreeMap::new();
        let environment = CloudEnvironment::read();
        for (name, section) in &config.providers {
            match Provider::build(name, section, (&environment, client)) {
                Ok(provider) => {
                    providers.insert(name.clone(), Arc::new(provider));
                }
                Err(problem) => problems.push((format!("providers.{name}"), problem)),
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let chains = config
            .routes
            .iter()
            .map(|(name, route)| {
                let targets = route.targets.iter().filter_map(|target| {
                    let provider = providers.get(&target.provider)?;
                    Some(Target::new(name, provider, &target.model, &route.timeouts))
                });
                Arc::new(Chain::new(name, targets.collect(), Some(route)))
            })
            .collect();
        let listed = providers
            .iter()
            .map(|(name, provider)| (name.clone(), provider.models.clone()))
            .collect();
        Ok(Self {
            access: Access::build(config.keys.clone()),
            routes: Routes::new(config.routes.keys().cloned(), listed),
            refusals: Meters::new("", "", ""),
            generation,
            loaded_at: SystemTime::now(),
            config,
            mixed: {
                let mut kinds = providers.values().map(|provider| provider.kind.id);
                let first = kinds.next();
                kinds.any(|kind| Some(kind) != first)
            },
            providers,
            chains,
        })
    }

    /// Whether conversations may move between providers of several kinds.
    pub(super) fn is_mixed(&self) -> bool {
        self.mixed
    }

    /// The targets that `model` stands for.
    pub(super) fn chain(&self, model: &str) -> Result<Arc<Chain>, Unknown> {
        match self.routes.resolve(model)? {
            Choice::Route(place) => {
                self.chains.get(place).cloned().ok_or(Unknown { nearest: None })
            }
            Choice::Direct { provider, model } => {
                let provider = self.providers.get(provider).ok_or(Unknown { nearest: None })?;
                let target = Target::new("direct", provider, model, &Timeouts::default());
                Ok(Arc::new(Chain::new("direct", vec![target], None)))
            }
        }
    }
}

impl Snapshot {
    pub(super) fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.values()
    }

    pub(super) fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.get(name)
    }
}

// === impl Chain ===

impl Chain {
    /// The provider itself, where no model is asked; `what` stands in the model's place.
    pub(super) fn account(provider: &Arc<Provider>, what: &str) -> Self {
        let target = Target::new("direct", provider, what, &Timeouts::default());
        Self::new("direct", vec![target], None)
    }

    fn new(name: &str, targets: Vec<Target>, route: Option<&Route>) -> Self {
        Self {
            name: name.into(),
            header: HeaderValue::from_str(name).ok(),
            targets,
            strict: route.is_some_and(|route| route.strict),
            tool_pairs: route.and_then(|route| route.tool_pairs),
            prompt_cache: route.and_then(|route| route.prompt_cache).map(injection),
            attempts: route.and_then(|route| route.attempts).unwrap_or(ATTEMPTS),
        }
    }
}

fn injection(wanted: PromptCache) -> CacheInjection {
    CacheInjection {
        system: wanted.system,
        tools: wanted.tools,
        messages: wanted.messages,
        lifetime: match wanted.lifetime {
            Lifetime::Short => CacheMark::Short,
            Lifetime::Long => CacheMark::Long,
        },
    }
}

// === impl Target ===

impl Target {
    fn new(route: &str, provider: &Arc<Provider>, model: &str, timeouts: &Timeouts) -> Self {
        // A model that only a client named must not become a label: there is no end of them.
        let known = route != "direct" || provider.models.iter().any(|listed| listed == model);
        let label = if known { model } else { "other" };
        let theirs = &provider.timeouts;
        let limits = Limits {
            connect: timeouts.connect.or(theirs.connect).unwrap_or(DEFAULTS.connect),
            headers: timeouts.headers.or(theirs.headers).or(DEFAULTS.headers),
            first_token: timeouts
                .first_token
                .or(theirs.first_token)
                .unwrap_or(DEFAULTS.first_token),
            idle: timeouts.idle.or(theirs.idle).unwrap_or(DEFAULTS.idle),
            total: timeouts.total.or(theirs.total).unwrap_or(DEFAULTS.total),
        };
        Self {
            provider: Arc::clone(provider),
            model: model.into(),
            quoted: serde_json::Value::from(model).to_string().into(),
            provider_header: HeaderValue::from_str(&provider.name).ok(),
            model_header: HeaderValue::from_str(model).ok(),
            limits,
            meters: Meters::new(route, &provider.name, label),
        }
    }

    /// Its provider's name, where that is asked as it is and so may keep what it answers.
    pub(super) fn keeper(&self, surface: Surface) -> Option<&str> {
        let way = self.provider.way(surface, &self.model);
        (way == Some(Way::Verbatim)).then_some(&*self.provider.name)
    }
}
