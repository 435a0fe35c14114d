//! A config made ready to serve: immutable, built whole, swapped whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use moka::sync::Cache;
use tokio::time::Instant;

use super::build;
use super::chain::Chain;
use super::fresh::Fresh;
use super::remember::Remembering;
use super::responses::Maker;
use super::task::ByTask;
use crate::access::account::{Moment, Scope};
use crate::access::roster::Roster;
use crate::access::{Access, Tab, Tabs, Tokens};
use crate::canon::{Feature, Model, Relay, Surface, Usage};
use crate::config::{self, Approval, CloudEnvironment, Config, GuardKind, Timeouts};
use crate::dialect::Traits;
use crate::dialect::openai::family;
use crate::dialect::splice::Limit;
use crate::dialect::tokenizer::{Encoding, Tokenizer};
use crate::guard::Guards;
use crate::net::client::{Client, Origin, Place};
use crate::provider::{Provider, Way};
use crate::route::condition::{Condition, Rule};
use crate::route::health::Reason;
use crate::route::health::board::{Board, Lane, Standing};
use crate::route::{Choice, Routes, Unknown};
use crate::store::Store;
use crate::store::shared::Turns;
use crate::telemetry::{Meters, Metrics};
use crate::tool::{self, Kit, Net, Toolbox};

/// What tools are made with, besides their config; the last is where replicas count together.
pub type Means<'a> = (&'a Client, &'a Store, &'a Metrics, Option<&'a Arc<Turns>>);

/// Everything a call needs to know of the config.
#[derive(Debug)]
pub struct Snapshot {
    pub config: Config,
    /// Rises with each accepted config.
    pub generation: u64,
    pub loaded_at: SystemTime,
    pub access: Access,
    /// Who shows a token in the place of a key.
    pub(super) tokens: Tokens,
    pub routes: Routes,
    pub(super) guards: Guards,
    /// The services that guards ask, by their addresses.
    hooks: Hooks,
    /// The health of targets and keys, which outlives this.
    pub board: Arc<Board>,
    /// Keys made at run time, and what is counted of everybody, which outlive this too.
    pub roster: Arc<Roster>,
    pub(super) tabs: Tabs,
    /// The series of calls that never got to a target.
    pub(super) refusals: Meters,
    providers: Providers,
    /// There are providers of several kinds.
    mixed: bool,
    /// In the order of the routes' names.
    roads: Vec<Road>,
    /// Of the models that providers are said to have, by provider and model.
    direct: BTreeMap<String, BTreeMap<String, Arc<Chain>>>,
    /// Of other models, by what clients call them: those that were asked for often or lately.
    unlisted: Cache<String, Arc<Chain>>,
    /// The health of each provider's keys, whatever the model.
    keys: BTreeMap<String, Arc<Standing>>,
    /// What agents can do. Empty until [`Snapshot::equip`].
    pub toolbox: Arc<Toolbox>,
    /// Who knows the secrets of tools, which outlives this.
    fresh: Option<Arc<Fresh>>,
    /// What its config says and does not hold before the next start.
    pub at_next_start: Vec<&'static str>,
}

/// Services by their addresses.
type Hooks = BTreeMap<String, Arc<Origin>>;

type Providers = BTreeMap<String, Arc<Provider>>;

/// What cannot be built, each with the section it stands in.
type Problems = Vec<(String, String)>;

/// What a route's name leads to.
#[derive(Debug, Clone)]
pub(super) enum Road {
    Chain(Arc<Chain>),
    /// First the kind of work must be told.
    ByTask(Arc<ByTask>),
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
    /// What is known of the model.
    pub(super) info: Model,
    /// What it counts text by.
    pub(super) encoding: Option<Encoding>,
    /// Its health and load, which outlive the config.
    pub(super) standing: Arc<Standing>,
    /// The same for the same target, whatever the route.
    pub(super) identity: u64,
    /// Its share of the calls.
    pub(super) weight: u32,
    pub(super) in_region: bool,
    /// It is known to carry on an answer that was begun.
    pub(super) prefills: bool,
    /// What it calls the limit of its answer, where it refuses the other name or ignores it.
    pub(super) limit_name: Option<Limit>,
    /// It answers with thoughts where others have text, and without being asked to.
    pub(super) thinks_unasked: bool,
    /// For which calls it is.
    pub(super) when: Option<Condition>,
    /// Its own limits and its provider's.
    pub(super) tab: Tab,
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

/// Clients may name as many models as they like.
const MOST_UNLISTED: u64 = 1000;
/// Tokens of an answer, where nothing is known of it.
const USUAL_OUTPUT: u64 = 500;
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
    /// Builds what `config` describes and puts its terms in force; on failure says everything that
    /// cannot be built, each with the section it stands in.
    pub fn build(
        config: Config,
        generation: u64,
        outlasting: (&Client, Arc<Board>, Arc<Roster>),
    ) -> Result<Self, Problems> {
        let built = Self::draft(config, generation, outlasting)?;
        built.take_effect();
        Ok(built)
    }

    /// Whether `config` can be built, its tools too. Done among strangers, so that nothing hears of
    /// it.
    pub fn check(config: Config, means: Means<'_>) -> Result<(), Problems> {
        let mut problems = Problems::new();
        made(equipment(&config, means, None), &mut problems);
        made(Self::draft(config, 0, (means.0, Arc::default(), Arc::default())), &mut problems);
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// The same as `build` without its terms: limits and budgets, and who the users, teams and orgs are, stay
    /// as they were.
    pub(super) fn draft(
        config: Config,
        generation: u64,
        (client, board, roster): (&Client, Arc<Board>, Arc<Roster>),
    ) -> Result<Self, Problems> {
        let (providers, mut problems) = providers(&config, client);
        // Nothing can be said of routes to providers that are not there.
        let is_whole = problems.is_empty();
        if config.store.shared.is_some() {
            roster.accounts.share_among(config.store.replicas);
        }
        let tokens = Tokens::build(&config, generation, (client, &roster.accounts));
        let tokens = made(tokens, &mut problems);
        let guards = made(Guards::build(&config.guards), &mut problems);
        let hooks = made(hooks(&config, client), &mut problems);
        let tabs = Tabs::find(&config, &roster.accounts);
        let builder =
            build::Builder { config: &config, providers: &providers, board: &board, tabs: &tabs };
        let roads = is_whole.then(|| made(builder.roads(), &mut problems)).flatten();
        let direct = builder.direct();
        let keys = builder.keys();
        problems.extend(cannot_moderate(&config, &providers));
        let whole = (tokens, guards, hooks, roads);
        let ((Some(tokens), Some(guards), Some(hooks), Some(roads)), true) =
            (whole, problems.is_empty())
        else {
            return Err(problems);
        };
        let listed = providers
            .iter()
            .map(|(name, provider)| (name.clone(), provider.models.clone()))
            .collect();
        Ok(Self {
            access: Access::build(&config, &tabs, &roster),
            tokens,
            guards,
            hooks,
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
            board,
            roster,
            tabs,
            providers,
            roads,
            direct,
            unlisted: Cache::new(MOST_UNLISTED),
            keys,
            toolbox: Arc::default(),
            fresh: None,
            at_next_start: Vec::new(),
        })
    }

    /// Gives it the tools that its config describes. Those that `before` has in the same words live
    /// on; nobody is connected to before the snapshot is served.
    pub fn equip(&mut self, means: Means<'_>, before: Option<&Self>) -> Result<(), Problems> {
        let (toolbox, fresh) = equipment(&self.config, means, before)?;
        (self.toolbox, self.fresh) = (Arc::new(toolbox), Some(fresh));
        Ok(())
    }

    /// Puts its terms in force, once nothing can go wrong any more.
    pub(super) fn take_effect(&self) {
        self.tabs.apply(&self.config, Moment::now());
        self.roster.adopt(&self.config);
        self.tokens.follow(self.generation);
        self.fresh.iter().for_each(|fresh| fresh.follow(&self.config.secrets));
    }

    /// Is about to serve some calls beside `other`, whose terms stay in force: what is counted is
    /// counted once for both. Only whoever has no terms there has those from here.
    pub(super) fn stand_beside(&self, other: &Self) {
        self.tabs.apply_beside(&self.config, &other.tabs, Moment::now());
        self.tokens.follow(other.generation);
    }

    /// Whether conversations may move between providers of several kinds.
    pub(super) fn is_mixed(&self) -> bool {
        self.mixed
    }

    /// Where a model of this name leads to.
    pub(super) fn road(&self, name: &str) -> Result<Road, Unknown> {
        let unknown = Unknown { nearest: None };
        match self.routes.resolve(name)? {
            Choice::Route(place) => self.roads.get(place).cloned().ok_or(unknown),
            Choice::Direct { provider, model } => {
                let listed = self.direct.get(provider).and_then(|models| models.get(model));
                if let Some(chain) = listed.cloned().or_else(|| self.unlisted.get(name)) {
                    return Ok(Road::Chain(chain));
                }
                let provider = self.providers.get(provider).ok_or(unknown)?;
                let chain = Arc::new(self.account(provider, model));
                self.unlisted.insert(name.to_owned(), Arc::clone(&chain));
                Ok(Road::Chain(chain))
            }
        }
    }

    /// One model of a provider that is not said to have it; or, where no model is asked, the
    /// provider itself, with a word in the model's place.
    pub(super) fn account(&self, provider: &Arc<Provider>, what: &str) -> Chain {
        let standing = match self.keys.get(&*provider.name) {
            Some(keys) => Arc::new(keys.fresh(what)),
            None => self.board.standing(&provider.name, what, &[]),
        };
        let name = format!("{}/{what}", provider.name);
        let info = provider.model(what, self.config.models.get(&name));
        let about = (&Timeouts::default(), standing);
        let mut target = Target::new("direct", provider, what, info, about);
        target.tab = self.tabs.tab(&holders(&provider.name, &name));
        let mut chain = build::lone(target);
        chain.wishes.cache = Remembering::of(&self.config, &chain, None);
        chain
    }
}

impl Snapshot {
    /// Every target that is configured, by provider and model.
    pub fn standings(&self) -> Vec<Arc<Standing>> {
        let roads = self
            .roads
            .iter()
            .flat_map(Road::chains)
            .chain(self.direct.values().flat_map(BTreeMap::values));
        let shadows =
            |chain: &Arc<Chain>| chain.shadow.as_ref().map(|shadow| &shadow.chain).cloned();
        let chains = roads.flat_map(|chain| [Some(Arc::clone(chain)), shadows(chain)]).flatten();
        let mut all = BTreeMap::new();
        for chain in chains {
            for target in &chain.targets {
                let name = (Arc::clone(&target.provider.name), Arc::clone(&target.model));
                all.entry(name).or_insert_with(|| Arc::clone(&target.standing));
            }
        }
        all.into_values().collect()
    }

    /// Where a service is that a guard asks.
    pub(super) fn hook(&self, url: &str) -> Option<&Arc<Origin>> {
        self.hooks.get(url)
    }

    pub(super) fn providers(&self) -> impl Iterator<Item = &Arc<Provider>> {
        self.providers.values()
    }

    pub(super) fn provider(&self, name: &str) -> Option<&Arc<Provider>> {
        self.providers.get(name)
    }
}

/// The services that guards ask.
fn providers(config: &Config, client: &Client) -> (Providers, Problems) {
    let (mut providers, mut problems) = (BTreeMap::new(), Vec::new());
    let environment = CloudEnvironment::read();
    for (name, section) in &config.providers {
        match Provider::build(name, section, &environment, client) {
            Ok(provider) => {
                providers.insert(name.clone(), Arc::new(provider));
            }
            Err(problem) => problems.push((format!("providers.{name}"), problem)),
        }
    }
    (providers, problems)
}

/// What was built. What could not be is told with all else that could not.
fn made<T>(built: Result<T, Problems>, problems: &mut Problems) -> Option<T> {
    built.map_err(|more| problems.extend(more)).ok()
}

fn hooks(config: &Config, client: &Client) -> Result<Hooks, Problems> {
    let mut hooks = BTreeMap::new();
    for (name, guard) in &config.guards {
        let GuardKind::Webhook { url, .. } = &guard.kind else { continue };
        let problem = |cause: String| vec![(format!("guards.{name}.url"), cause)];
        let address = origin_of(url).ok_or_else(|| problem(format!("{url:?} is no address")))?;
        let origin = client.origin(&Place { address, proxy: None, ca: None });
        hooks.insert(url.clone(), origin.map_err(|error| problem(error.to_string()))?);
    }
    Ok(hooks)
}

/// The tools that a config describes, and who knows their secrets.
fn equipment(
    config: &Config,
    (client, store, metrics, turns): Means<'_>,
    before: Option<&Snapshot>,
) -> Result<(Toolbox, Arc<Fresh>), Problems> {
    let fresh = before.and_then(|before| before.fresh.clone());
    let fresh = fresh.unwrap_or_else(|| Arc::new(Fresh::new(client, metrics, &config.secrets)));
    let net = Net { client: client.clone(), keeper: Some(Arc::clone(&fresh) as _) };
    let kit = Kit { config, net: &net, store, metrics, turns };
    let mut problems = wrong_answers(config);
    problems.extend(wrong_approvals(config));
    let (nothing, before) = (Toolbox::default(), before.map(|before| &*before.toolbox));
    let toolbox = Toolbox::build(&kit, before.unwrap_or(&nothing)).map_err(|faults| {
        let named = |(name, fault)| (format!("tools.{name}"), fault);
        faults.into_iter().map(named).collect()
    });
    match made(toolbox, &mut problems) {
        Some(toolbox) if problems.is_empty() => Ok((toolbox, fresh)),
        _ => Err(problems),
    }
}

/// What would be asked for always, because nobody understands when.
fn wrong_approvals(config: &Config) -> Problems {
    let wrong = |(name, tool): (&String, &config::Tool)| {
        let when = tool.approval.as_ref()?.when.as_deref()?;
        let why = Rule::compile(when, &Approval::FACTS).err()?;
        Some((format!("tools.{name}.approval.when"), why))
    };
    config.tools.iter().filter_map(wrong).collect()
}

/// Answers of agents are held against schemas, which must be some.
fn wrong_answers(config: &Config) -> Problems {
    let mut faults = Vec::new();
    for (name, agent) in &config.agents {
        let path = format!("agents.{name}");
        // A version that says nothing of its own has the schema of its agent.
        let versions = agent.versions.iter();
        let own = versions.filter(|(_, version)| version.output_schema != agent.output_schema);
        let own = own.map(|(it, version)| (format!("{path}.versions.{it}"), version));
        for (path, one) in std::iter::once((path.clone(), &**agent)).chain(own) {
            let Some(schema) = &one.output_schema else { continue };
            if let Err(why) = tool::whole_schema(schema, &config.schemas) {
                faults.push((format!("{path}.output_schema"), why));
            }
        }
    }
    faults
}

/// Whoever is asked by a guard to moderate must be known to do that.
fn cannot_moderate(config: &Config, providers: &Providers) -> Problems {
    let mut problems = Vec::new();
    for (name, guard) in &config.guards {
        let GuardKind::Moderation { model, .. } = &guard.kind else { continue };
        let provider = model.split_once('/').and_then(|(provider, _)| providers.get(provider));
        if provider.is_some_and(|provider| !provider.relays(Relay::Moderation)) {
            let message = format!("the provider of `{model}` has no moderation");
            problems.push((format!("guards.{name}.model"), message));
        }
    }
    problems
}

/// The address without its path.
fn origin_of(url: &str) -> Option<Uri> {
    let mut parts = url.parse::<Uri>().ok()?.into_parts();
    parts.path_and_query = Some(PathAndQuery::from_static("/"));
    Uri::from_parts(parts).ok()
}

// === impl Road ===

impl Road {
    /// All that it may lead to.
    pub(super) fn chains(&self) -> Vec<&Arc<Chain>> {
        match self {
            Self::Chain(chain) => vec![chain],
            Self::ByTask(by_task) => by_task.chains.values().chain([&by_task.default]).collect(),
        }
    }
}

// === impl Target ===

impl Target {
    pub(super) fn new(
        route: &str,
        provider: &Arc<Provider>,
        model: &str,
        info: Model,
        (timeouts, standing): (&Timeouts, Arc<Standing>),
    ) -> Self {
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
            identity: identity(&provider.name, model),
            limit_name: limit_name(&provider.kind.traits, model),
            thinks_unasked: provider.kind.traits.thinkers.iter().any(|name| model.contains(name)),
            prefills: info.features.is_known() && info.features.has(Feature::Prefill),
            encoding: Encoding::of(model),
            info,
            standing,
            weight: 1,
            in_region: true,
            when: None,
            tab: Tab::default(),
        }
    }

    /// What text is counted by, if that is known and at hand.
    pub(super) fn tokenizer(&self) -> Option<Tokenizer> {
        let encoding = self.encoding?;
        let open = encoding.tokenizer();
        if open.is_none() && encoding.claim() {
            let thread = std::thread::Builder::new().name("tokenizer".to_owned());
            // Without a thread there is the rule of thumb.
            let _ = thread.spawn(move || encoding.open());
        }
        open
    }

    /// What a question of so many tokens will cost here, in nano-dollars; `None` where nobody knows
    /// the price.
    pub(super) fn expected_cost(&self, tokens: u64) -> Option<u64> {
        let usage = Usage { input: tokens, output: USUAL_OUTPUT, ..Usage::default() };
        self.info.price.as_ref().map(|price| price.cost(&usage).nanos())
    }

    /// What is known of it by this credential of its provider.
    pub(super) fn lane(&self, credential: usize) -> &Lane {
        let lanes = &self.standing.lanes;
        &lanes[credential % lanes.len()]
    }

    /// Until when it is left alone by all credentials, and why.
    pub(super) fn shut(&self, now: Instant) -> Option<(Instant, Reason)> {
        let shut = |lane: &Arc<Lane>| {
            Some((lane.ready_at(now)?, lane.reason(now).unwrap_or(Reason::Errors)))
        };
        let mut soonest = None;
        for lane in &self.standing.lanes {
            let (until, reason) = shut(lane)?;
            if soonest.is_none_or(|(known, _)| until < known) {
                soonest = Some((until, reason));
            }
        }
        soonest
    }

    /// The credential that is to be tried again soonest.
    pub(super) fn soonest_credential(&self, now: Instant) -> usize {
        let lanes = self.standing.lanes.iter().enumerate();
        lanes.min_by_key(|(_, lane)| lane.ready_at(now)).map_or(0, |(place, _)| place)
    }

    /// Its provider, as who makes what it answers.
    pub(super) fn maker(&self, translated: bool) -> Maker {
        Maker { provider: self.provider.name.to_string(), translated }
    }

    /// The same, by how it is asked what comes in at this door.
    pub(super) fn maker_for(&self, surface: Surface) -> Maker {
        let way = self.provider.way(surface, &self.model);
        self.maker(way != Some(Way::Verbatim))
    }
}

/// Whose limits hold for a target.
pub(super) fn holders<'a>(provider: &'a str, name: &'a str) -> [(Scope, Option<&'a str>); 2] {
    [(Scope::Provider, Some(provider)), (Scope::Model, Some(name))]
}

/// What a model's limit must be called, where only one name will do.
fn limit_name(traits: &Traits, model: &str) -> Option<Limit> {
    match traits.max_tokens {
        "max_completion_tokens" => family::refuses_max_tokens(model).then_some(Limit::Completion),
        // One that leads to OpenAI's models takes what they take.
        _ => (!traits.lenient && !family::refuses_max_tokens(model)).then_some(Limit::Tokens),
    }
}

/// FNV-1a, so that it is the same in every process.
fn identity(provider: &str, model: &str) -> u64 {
    let bytes = provider.bytes().chain([b'/']).chain(model.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
