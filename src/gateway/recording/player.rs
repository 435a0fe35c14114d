//! Plays kept calls against a config, in this process, with nobody real behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use http_body_util::{BodyExt, Full};
use serde_json::Value as Json;

use super::Work;
use super::kept::{Attempted, Form, Kept};
use super::stand_in::StandIn;
use crate::canon::{CallId, CallRecord, Money, Outcome, Surface, Usage};
use crate::config::{self, Bodies, Config, GuardKind, ModelOverride, Record, Secret, StoreUrl};
use crate::gateway::{Arrival, Ask, Gateway, Snapshot};
use crate::net::client::Client;
use crate::net::patience::Pulse;
use crate::provider::catalog::{self, Kind};
use crate::provider::models;
use crate::store::Store;
use crate::telemetry::{Format, Log, Telemetry};

/// The doors by which calls are kept.
const DOORS: [Surface; 6] = [
    Surface::Chat,
    Surface::Completions,
    Surface::Embeddings,
    Surface::Responses,
    Surface::Messages,
    Surface::Generate,
];
/// Who calls where the key of the record is not in the config.
const NOBODY: &str = "replay";
const TASK: &str = "x-switchpoint-task";
/// What targets say where nothing was kept of the answer.
const STAND_IN: &str = "This stands for an answer that was not kept.";

/// Plays calls, one after the other.
#[derive(Debug)]
pub struct Player {
    config: Config,
    /// What each provider really is.
    kinds: Kinds,
    stand_in: StandIn,
    store: Store,
    log: Arc<Log>,
}

type Kinds = BTreeMap<String, &'static Kind>;

/// What became of a call this time.
#[derive(Clone, Debug, PartialEq)]
pub struct Played {
    pub route: Option<String>,
    pub task: Option<String>,
    pub outcome: Outcome,
    pub status: u16,
    /// The code of the error that it was answered with.
    pub error: Option<String>,
    pub attempts: Vec<Attempted>,
    pub usage: Usage,
    pub cost_usd: Option<f64>,
}

// === impl Player ===

impl Player {
    /// Gets ready for a config. Its providers are never called, nor is anybody else it names.
    pub async fn new(config: Config) -> io::Result<Self> {
        let stand_in = StandIn::start().await?;
        let store = Store::open(&config::Store::at(StoreUrl::Memory)).map_err(io::Error::other)?;
        let log = Log::start(Format::Text, false, Box::new(io::sink()))?;
        let kind = |(name, provider): (&String, &config::Provider)| {
            Some((name.clone(), catalog::find(&provider.kind)?))
        };
        let kinds: Kinds = config.providers.iter().filter_map(kind).collect();
        let config = neutral(config, &kinds, stand_in.address);
        build(config.clone(), &Client::new(1)).map_err(io::Error::other)?;
        Ok(Self { config, kinds, stand_in, store, log })
    }

    /// Plays one call by itself: limits, budgets and the health of targets are as at the start.
    pub async fn play(&self, kept: &Kept) -> Result<Played, String> {
        let (ask, body) = ask(kept)?;
        let client = Client::new(1);
        let config = self.config_for(kept);
        let caller = kept.key.as_deref().filter(|name| self.config.keys.contains_key(*name));
        let headers = headers(kept, caller.unwrap_or(NOBODY))?;
        let snapshot = build(config, &client)?;
        let telemetry = Telemetry::new(Arc::clone(&self.log)).map_err(|error| error.to_string())?;
        let gateway = Gateway::new(snapshot, client, self.store.clone(), telemetry);
        let ended = gateway.recorder.listen();
        self.stand_in.recite(kept, said(kept));
        let (permit, busy) = (gateway.gauge.acquire(), Pulse::default().busy());
        let arrival = Arrival { ask, headers, body: Full::new(body), permit, busy };
        let (head, body) = Box::pin(gateway.answer(arrival)).await.into_parts();
        let head = Response::from_parts(head, ());
        // The call ends with its body.
        let _ = body.collect().await.map(drop);
        match ended.try_recv() {
            Ok(Work::Keep(entry)) => Ok(Played::of(&entry.record, &head)),
            Ok(Work::Flush(_)) | Err(_) => Ok(Played::refused(&head)),
        }
    }

    /// Whether the key of the call is in the config, so that it is played with what that may do.
    pub fn knows_key(&self, kept: &Kept) -> bool {
        kept.key.as_deref().is_some_and(|name| self.config.keys.contains_key(name))
    }

    /// Whether guards are played that find nothing, for the words that they look for were not kept.
    pub fn is_blind(&self, kept: &Kept) -> bool {
        kept.form == Form::Redacted && !self.config.guards.is_empty()
    }

    /// The config with what is known of all models that this call could reach.
    fn config_for(&self, kept: &Kept) -> Config {
        let mut config = self.config.clone();
        let asked = kept.model.split_once('/').into_iter();
        let attempted = kept.attempts.iter().map(|it| (it.provider.as_str(), it.model.as_str()));
        for (provider, model) in asked.chain(attempted) {
            write_out(&mut config, &self.kinds, provider, model);
        }
        let named = kept.key.as_deref().filter(|name| config.keys.contains_key(*name));
        if named.is_none() {
            let secret = Some(Secret::new(secret_of(NOBODY)));
            config.keys.insert(NOBODY.to_owned(), config::Key { secret, ..config::Key::default() });
        }
        config
    }
}

/// A gateway's state as at its start.
fn build(config: Config, client: &Client) -> Result<Snapshot, String> {
    let told = |problems: Vec<(String, String)>| {
        let lines = problems.iter().map(|(place, what)| format!("{place}: {what}"));
        lines.collect::<Vec<_>>().join("; ")
    };
    Snapshot::build(config, 1, (client, Arc::default(), Arc::default())).map_err(told)
}

/// What it asked for, and its body.
fn ask(kept: &Kept) -> Result<(Ask, Bytes), String> {
    if kept.body.is_null() {
        return Err("its body was not kept".to_owned());
    }
    let surface = DOORS.into_iter().find(|surface| surface.name() == kept.surface);
    let surface =
        surface.ok_or_else(|| format!("nothing is played at the door `{}`", kept.surface))?;
    // Google's paths name the model, and say whether it is to be streamed.
    let by_path = surface == Surface::Generate;
    let ask = Ask {
        surface,
        model: by_path.then(|| kept.model.clone()),
        stream: by_path.then_some(kept.stream),
        relay: None,
        filed: None,
        explains: false,
        id: CallId::parse(&kept.id),
    };
    Ok((ask, kept.body.to_string().into()))
}

fn secret_of(key: &str) -> String {
    format!("sk-sp-replay-{key}")
}

fn headers(kept: &Kept, caller: &str) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, value) in &kept.headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|error| error.to_string())?;
        headers.insert(name, HeaderValue::try_from(value).map_err(|error| error.to_string())?);
    }
    // Words that are masked tell no kind of work; what they told then still holds.
    if kept.form == Form::Redacted
        && let Some(task) = &kept.task
    {
        let task = HeaderValue::try_from(task).map_err(|error| error.to_string())?;
        headers.entry(TASK).or_insert(task);
    }
    let bearer = HeaderValue::try_from(format!("Bearer {}", secret_of(caller)));
    headers.insert(AUTHORIZATION, bearer.map_err(|error| error.to_string())?);
    Ok(headers)
}

/// What the target is to say: the words of the kept answer, wherever they stand in it.
fn said(kept: &Kept) -> String {
    let Some(answer) = &kept.answer else { return STAND_IN.to_owned() };
    let mut text = String::new();
    if let Ok(whole) = serde_json::from_str::<Json>(answer) {
        words(&whole, &mut text);
    } else {
        let events = answer.lines().filter_map(|line| line.strip_prefix("data:"));
        for event in events.filter_map(|data| serde_json::from_str::<Json>(data.trim()).ok()) {
            // The responses API says everything again at the end.
            let again = event["type"].as_str().is_some_and(|it| {
                it.starts_with("response.") && !it.ends_with("output_text.delta")
            });
            if !again {
                words(&event, &mut text);
            }
        }
    }
    if text.is_empty() { STAND_IN.to_owned() } else { text }
}

fn words(value: &Json, text: &mut String) {
    match value {
        Json::Object(members) => {
            for (key, value) in members {
                match (key.as_str(), value) {
                    ("content" | "text" | "delta", Json::String(said)) => text.push_str(said),
                    ("usage" | "error" | "logprobs", _) => {}
                    (_, inner) => words(inner, text),
                }
            }
        }
        Json::Array(elements) => elements.iter().for_each(|element| words(element, text)),
        _ => {}
    }
}

// === impl Played ===

impl Played {
    fn of(record: &CallRecord, head: &Response<()>) -> Self {
        Self {
            route: record.route.as_ref().map(ToString::to_string),
            task: record.task.map(|task| task.name().to_owned()),
            outcome: record.outcome,
            status: head.status().as_u16(),
            error: error(head),
            attempts: record.attempts.iter().map(Attempted::of).collect(),
            usage: record.usage,
            cost_usd: record.cost.map(Money::usd),
        }
    }

    /// It was refused before anybody knew where it would go.
    fn refused(head: &Response<()>) -> Self {
        Self {
            route: None,
            task: None,
            outcome: Outcome::Refused,
            status: head.status().as_u16(),
            error: error(head),
            attempts: Vec::new(),
            usage: Usage::default(),
            cost_usd: None,
        }
    }
}

fn error(head: &Response<()>) -> Option<String> {
    let code = head.headers().get("x-switchpoint-error")?.to_str().ok()?;
    Some(code.to_owned())
}

/// The config with a stand-in behind each provider. All of them speak one API here; what their
/// models cost and can do is written out, for that went by their kind.
fn neutral(mut config: Config, kinds: &Kinds, address: SocketAddr) -> Config {
    write_models_out(&mut config, kinds);
    for route in config.routes.values_mut() {
        for target in &mut route.targets {
            let provider = config.providers.get(&target.provider);
            let region = provider.and_then(|provider| {
                provider.cloud.region.clone().or_else(|| provider.cloud.location.clone())
            });
            target.region = target.region.take().or(region);
        }
    }
    for (name, provider) in &mut config.providers {
        let keys = provider.api_keys.len().max(1);
        *provider = config::Provider {
            kind: catalog::ANY.to_owned(),
            base_url: Some(format!("http://{address}/{name}/v1")),
            api_keys: (0..keys).map(|key| Secret::new(format!("replay-{key}"))).collect(),
            models: std::mem::take(&mut provider.models),
            timeouts: provider.timeouts.clone(),
            limits: provider.limits.clone(),
            ..config::Provider::default()
        };
    }
    for (name, key) in &mut config.keys {
        (key.secret, key.hash) = (Some(Secret::new(secret_of(name))), None);
        (key.ips, key.expires) = (None, None);
    }
    config.oidc.clear();
    without_askers(&mut config);
    config.store = config::Store::at(StoreUrl::Memory);
    config.record = Some(Arc::new(listening()));
    config
}

/// Guards that ask somebody else are left out: nobody is asked.
fn without_askers(config: &mut Config) {
    config.guards.retain(|_, guard| {
        !matches!(
            guard.kind,
            GuardKind::Judge { .. } | GuardKind::Moderation { .. } | GuardKind::Webhook { .. }
        )
    });
    let routes = config.routes.values_mut().map(|route| &mut route.guards);
    let keys = config.keys.values_mut().map(|key| &mut key.guards);
    for named in routes.chain(keys).chain([&mut config.server.guards]) {
        named.retain(|name| config.guards.contains_key(name));
    }
}

/// Every call is given to the player.
fn listening() -> Record {
    Record {
        folder: std::path::PathBuf::new(),
        routes: Vec::new(),
        keys: Vec::new(),
        sample: config::ALL_CALLS,
        bodies: Bodies::None,
        answers: false,
        headers: Vec::new(),
        max_body: 0,
        max_file: 0,
        max_files: 1,
    }
}

fn write_models_out(config: &mut Config, kinds: &Kinds) {
    let mut named: BTreeSet<(String, String)> = BTreeSet::new();
    for route in config.routes.values() {
        let targets = route.targets.iter().chain(route.shadow.as_ref().map(|it| &it.target));
        named.extend(targets.map(|it| (it.provider.clone(), it.model.clone())));
        let direct = route.fallbacks.lists().into_iter().flat_map(|(_, names)| names);
        named.extend(direct.filter_map(|name| {
            name.split_once('/').map(|(provider, model)| (provider.to_owned(), model.to_owned()))
        }));
    }
    for (name, provider) in &config.providers {
        named.extend(provider.models.iter().map(|model| (name.clone(), model.clone())));
    }
    for (provider, model) in named {
        write_out(config, kinds, &provider, &model);
    }
}

fn write_out(config: &mut Config, kinds: &Kinds, provider: &str, model: &str) {
    let Some(kind) = kinds.get(provider) else { return };
    let name = format!("{provider}/{model}");
    let written = config.models.get(&name);
    let known = models::resolve(kind, model, written);
    let limits = written.map(|written| written.limits.clone()).unwrap_or_default();
    let (price, context, max_output) = (known.price, known.context, known.max_output);
    let features = known.features.is_known().then_some(known.features);
    config.models.insert(name, ModelOverride { price, context, max_output, features, limits });
}
