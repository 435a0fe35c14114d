//! Answers that need not be asked for: what is remembered, and what somebody else is being answered
//! right now. Between the guards and the accounts, on every call's way.

mod fill;
mod follow;
mod lead;
mod literal;
mod news;
pub(super) mod pump;
pub(super) mod record;
mod replay;
mod shared;
mod similar;

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;

use super::arrival::Question;
use super::ask::Answer;
use super::build::Builder;
use super::call::Call;
use super::chain::Chain;
use super::errand::{Errand, Wording};
use super::{journey, till};
use crate::cache::key::{self, Setting};
use crate::cache::{Digest, Entry, Follower, Leave, Seat, may_be_asked};
use crate::canon::{CacheUse, Dialect, Surface, Usage};
use crate::config::{CacheTerms, Charge, Config, RouteCache, Share};
use crate::dialect::{self, embed};
use crate::error::Error;
use crate::provider::Operation;

pub(super) use follow::Nothing;
pub(super) use lead::Recording;
pub(super) use news::Together;
use record::Recorder;
use similar::Likeness;

/// Headers of a client that its provider is given and that change no answer.
const ONLY_TRACED: [&str; 3] = ["traceparent", "tracestate", "cdn-loop"];

/// What is remembered of one route's answers.
#[derive(Debug)]
pub(super) struct Remembering {
    pub(super) terms: CacheTerms,
    /// What the config says that changes answers.
    policy: Digest,
    coalesce: bool,
    charge: Charge,
    max_entry: usize,
}

/// An answer that was not asked for.
#[derive(Debug)]
pub(super) struct Recalled {
    /// The place of the target that gave it first.
    pub(super) place: Option<usize>,
    /// In seconds.
    pub(super) age: u64,
    /// Its caller pays all the same.
    pub(super) charged: bool,
}

/// What the cache may do for a call, and for whom.
#[derive(Debug)]
struct Terms {
    leave: Leave,
    tenant: String,
    remembering: Arc<Remembering>,
}

/// One question to the cache.
#[derive(Debug, Clone)]
struct Asking {
    digest: Digest,
    leave: Leave,
    tenant: String,
    remembering: Arc<Remembering>,
    /// What was said last, and the digest of all else, where similar questions are of interest.
    words: Option<(String, Digest)>,
    likeness: Option<Likeness>,
}

/// What a call comes to.
type Made = (Box<Call>, Result<Answer, Error>);

/// The answer as it is remembered or being given to somebody else; else it is asked for.
pub(super) async fn walk(mut call: Box<Call>, mut question: Box<Question>) -> Made {
    let terms = Terms::of(&call, &question);
    if let Some(terms) = &terms
        && let Some((literal, entry)) = literal::find(&call, &question, terms)
    {
        return literal::give(call, question, &literal, &entry).await;
    }
    let asking = match terms {
        Some(terms) => Asking::of(terms, &mut call, &question).await,
        None => None,
    };
    // What is not done for all of these is boxed: a call's future is as large as its largest part.
    let Some(mut asking) = asking else {
        if call.record.purpose.is_callers() {
            call.uses_cache(CacheUse::Off);
        }
        return Box::pin(journey::seek(call, question)).await;
    };
    let cache = Arc::clone(&call.gateway.cache);
    let mut before = None;
    loop {
        if let Some(entry) = asking.recall(&call) {
            return Box::pin(asking.give(call, &question, &entry, CacheUse::Hit)).await;
        }
        let lead = if asking.remembering.coalesce && asking.leave.read {
            match cache.flights.join(asking.digest, before.as_ref()) {
                Seat::Lead(lead) => lead,
                Seat::Follow(follower) => {
                    before = Some(follower.tape());
                    match Box::pin(asking.follow(&mut call, &mut question, follower)).await {
                        Ok(None) => continue,
                        Ok(Some(answer)) => return (call, Ok(answer)),
                        Err(error) => return (call, Err(error)),
                    }
                }
            }
        } else {
            cache.flights.alone(asking.digest)
        };
        let (found, cache_use) = Box::pin(asking.look_further(&mut call)).await;
        if let Some(entry) = found {
            lead::repeat(&lead, &entry, &asking);
            return Box::pin(asking.give(call, &question, &entry, cache_use)).await;
        }
        call.uses_cache(CacheUse::Miss);
        return Box::pin(lead::lead(call, question, lead, asking)).await;
    }
}

/// What reads an upstream's stream along, where its answer is to be remembered.
pub(super) fn recorder(call: &Call, errand: &Errand) -> Option<Box<Recorder>> {
    call.recording.as_ref()?;
    let dialect = match (&errand.wording, errand.operation) {
        (Wording::Translated { into, .. }, _) => *into,
        (Wording::Verbatim, Operation::Chat { dialect, .. }) => dialect,
        _ => return None,
    };
    Some(Box::new(Recorder::new(dialect::upstream(dialect).reader())))
}

// === impl Remembering ===

impl Builder<'_> {
    /// What is remembered of a chain's answers; `None` where nothing is.
    pub(super) fn remembering(
        &self,
        chain: &Chain,
        route: Option<&RouteCache>,
    ) -> Option<Arc<Remembering>> {
        Remembering::of(self.config, chain, route)
    }
}

impl Remembering {
    pub(super) fn of(
        config: &Config,
        chain: &Chain,
        route: Option<&RouteCache>,
    ) -> Option<Arc<Self>> {
        let terms = config.cache.terms(route)?;
        Some(Arc::new(Self {
            terms,
            policy: policy(config, chain),
            coalesce: config.cache.coalesce,
            charge: config.cache.coalesce_charge,
            max_entry: config.cache.max_entry,
        }))
    }
}

/// All of the config that changes answers. What is secret is written as `***`.
fn policy(config: &Config, chain: &Chain) -> Digest {
    let wishes = &chain.wishes;
    let mut parts = vec![
        chain.name.to_string(),
        format!("{:?} {:?} {}", wishes.max_output_tokens, wishes.tool_pairs, wishes.strict),
    ];
    for target in &chain.targets {
        parts.push(format!("{}/{}", target.provider.name, target.model));
        if let Some(provider) = config.providers.get(&*target.provider.name) {
            let headers: Vec<_> = provider.headers.keys().collect();
            let (kind, base, version) = (&provider.kind, &provider.base_url, &provider.api_version);
            let cloud = &provider.cloud;
            parts.push(format!("{kind} {base:?} {version:?} {headers:?} {cloud:?}"));
        }
    }
    key::of_parts(parts.iter().map(String::as_bytes))
}

// === impl Terms ===

impl Terms {
    /// On which terms the cache has to do with this call; `None` if it has nothing to do with it.
    fn of(call: &Call, question: &Question) -> Option<Self> {
        let remembering = Arc::clone(call.wishes()?.cache.as_ref()?);
        let caller = call.caller.as_ref().filter(|_| call.record.purpose.is_callers())?;
        let leave = Leave::of(remembering.terms.mode).and(caller.cache()).and(call.bearings.cache);
        let is_alone = question.relayed.is_none()
            && question.keeper.is_none()
            && question.envelope.previous.is_none()
            && !question.envelope.background;
        if leave.is_none() || !is_alone {
            return None;
        }
        let tenant = match (remembering.terms.share, caller.team()) {
            (Share::All, _) => "all".to_owned(),
            (Share::Team, Some(team)) => ["team:", team].concat(),
            (Share::Team, None) | (Share::Key, _) => ["key:", caller.owner()].concat(),
        };
        Some(Self { leave, tenant, remembering })
    }

    /// Tells `make` of all that stands beside a question, and of its bytes.
    fn set<T>(
        &self,
        call: &Call,
        question: &Question,
        make: impl FnOnce(&Setting<'_>, &Bytes) -> T,
    ) -> Option<T> {
        let chain = call.chain.as_ref()?;
        let barred = &call.bearings.barred;
        let mut targets = Vec::with_capacity(chain.targets.len());
        for (place, target) in chain.targets.iter().enumerate() {
            if call.may_use(target) && !barred.contains(&place) {
                targets.push(target.identity);
            }
        }
        let said = question.extra.iter().filter(|(name, _)| !ONLY_TRACED.contains(&name.as_str()));
        let mut headers: Vec<(&str, &[u8])> =
            said.map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        headers.extend(question.betas.as_ref().map(|betas| ("beta", betas.as_bytes())));
        let (policy, bytes) = (&self.remembering.policy, question.payload.to_bytes());
        let body = (call.surface().dialect().unwrap_or(Dialect::Chat), &bytes[..]);
        let (tenant, targets) = (self.tenant.as_str(), &targets);
        Some(make(&Setting { tenant, policy, targets, headers: &headers, body }, &bytes))
    }
}

// === impl Asking ===

impl Asking {
    /// What is asked of the cache; `None` if the answer can be another one each time.
    async fn of(terms: Terms, call: &mut Call, question: &Question) -> Option<Self> {
        if call.surface().is_chat() {
            Box::pin(question.understand(call)).await;
        }
        let (digest, words) = terms
            .set(call, question, |setting, bytes| digest(call, question, setting, &terms, bytes))
            .flatten()?;
        let Terms { leave, tenant, remembering } = terms;
        Some(Self { digest, leave, tenant, remembering, words, likeness: None })
    }

    /// The answer that is remembered.
    fn recall(&self, call: &Call) -> Option<Arc<Entry>> {
        let (ttl, now) = (self.remembering.terms.ttl, SystemTime::now());
        let exact = &call.gateway.cache.exact;
        self.leave.read.then(|| exact.get(&self.digest, ttl, now)).flatten()
    }

    /// The answer that came since, the one of another replica, or the one to a similar question.
    async fn look_further(&mut self, call: &mut Call) -> (Option<Arc<Entry>>, CacheUse) {
        if let Some(entry) = self.recall(call) {
            return (Some(entry), CacheUse::Hit);
        }
        if let Some(entry) = self.fetch(call, &self.digest).await {
            return (Some(entry), CacheUse::Hit);
        }
        if self.words.is_none() {
            return (None, CacheUse::Miss);
        }
        let (entry, likeness) = Box::pin(similar::find(call, self)).await;
        self.likeness = likeness;
        (entry, CacheUse::Semantic)
    }

    /// What somebody else is answered; `None` if this call is to ask itself.
    async fn follow(
        &self,
        call: &mut Call,
        question: &mut Question,
        follower: Follower,
    ) -> Result<Option<Answer>, Error> {
        let charged = self.remembering.charge == Charge::All;
        let held = call.is_counted() && !call.till.is_holding();
        if held && charged {
            Box::pin(till::hold(call, question)).await?;
        } else if held {
            Box::pin(till::hold_request(call)).await?;
        }
        let given = follow::follow(call, question, follower, charged).await;
        if held && matches!(given, Ok(None)) {
            // It holds anew, as much as asking takes.
            call.till.let_go();
        }
        given
    }

    async fn give(
        &self,
        mut call: Box<Call>,
        question: &Question,
        entry: &Arc<Entry>,
        cache_use: CacheUse,
    ) -> Made {
        if let Err(error) = call.note_given_entry(entry, cache_use).await {
            return (call, Err(error));
        }
        if cache_use == CacheUse::Hit {
            literal::note(&call, question, self, entry);
        }
        let answer = Box::pin(replay::entry(&mut call, question, entry)).await;
        (call, answer)
    }
}

/// The digest of a question and all that decides about its answer; `None` if that can be another
/// one each time.
fn digest(
    call: &Call,
    question: &Question,
    setting: &Setting<'_>,
    terms: &Terms,
    bytes: &Bytes,
) -> Option<(Digest, Option<(String, Digest)>)> {
    if call.surface() == Surface::Embeddings {
        let request = embed::read_request(bytes).ok()?;
        return Some((key::of_embeddings(setting, &request), None));
    }
    if !call.surface().is_chat() {
        return None;
    }
    let request = &question.chat().ok()?.request;
    let terms = &terms.remembering.terms;
    if !may_be_asked(request, terms.sampled) {
        return None;
    }
    let words = terms.semantic.as_ref().and_then(|_| key::of_last_words(setting, request));
    Some((key::of_chat(setting, request), words))
}

// === impl Call ===

impl Call {
    /// Whether its route has anything to do with the cache.
    pub(super) fn is_remembered(&self) -> bool {
        self.wishes().is_some_and(|wishes| wishes.cache.is_some())
    }

    /// What the cache has to do with it.
    fn uses_cache(&mut self, cache: CacheUse) {
        self.record.cache = Some(cache);
        self.gateway.telemetry.metrics.cache.with_label_values(&[cache.name()]).inc();
    }

    /// It is given an answer that is remembered, for which it pays nothing.
    async fn note_given_entry(&mut self, entry: &Entry, cache: CacheUse) -> Result<(), Error> {
        if self.is_counted() {
            Box::pin(till::hold_request(self)).await?;
        }
        self.note_given(Some((&entry.provider, &entry.model)), cache, false);
        if let Some(recalled) = &mut self.recalled {
            recalled.age = entry.age(SystemTime::now()).as_secs();
        }
        self.record.dropped = entry.dropped.iter().cloned().map(Into::into).collect();
        self.saves(entry.usage, entry.cost);
        Ok(())
    }

    /// It is given an answer that somebody else has asked for.
    fn note_given(&mut self, by: Option<(&str, &str)>, cache: CacheUse, charged: bool) {
        let targets = self.chain.as_ref().map(|chain| &chain.targets);
        let place = targets.zip(by).and_then(|(targets, (provider, model))| {
            let is_it = |target: &super::snapshot::Target| {
                *target.provider.name == *provider && *target.model == *model
            };
            targets.iter().position(is_it)
        });
        self.recalled = Some(Recalled { place, age: 0, charged });
        self.record.overhead = self.started.elapsed();
        self.uses_cache(cache);
    }

    /// So much was not used, for its answer was there already.
    pub(super) fn saves(&self, usage: Option<Usage>, cost: Option<crate::canon::Money>) {
        let route = self.chain.as_ref().map_or("", |chain| &chain.name);
        let metrics = &self.gateway.telemetry.metrics;
        if let Some(usage) = usage {
            metrics.cache_saved_tokens.with_label_values(&[route]).inc_by(usage.total());
        }
        let priced = || {
            let place = self.recalled.as_ref()?.place?;
            let target = self.chain.as_ref()?.targets.get(place)?;
            Some(target.info.price.as_ref()?.cost(&usage?))
        };
        if let Some(cost) = cost.or_else(priced) {
            metrics.cache_saved_usd.with_label_values(&[route]).inc_by(cost.usd());
        }
    }
}
