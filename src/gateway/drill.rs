//! Asks each target of a route whether it answers, so that a fallback which is dead is known of
//! before it is needed.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::arrival::Question;
use super::ask::Answer;
use super::call::Call;
use super::chain::Chain;
use super::errand::{self, Unfit};
use super::journey::Attempt;
use super::snapshot::{Road, Snapshot, Target};
use super::{Gateway, verdict};
use crate::canon::{Outcome, Surface};
use crate::config::ClassifierKind;
use crate::error::{Error, Kind};

/// So many targets are asked at the same time.
const AT_ONCE: usize = 4;
/// A target has this long to answer, or less if its route says so.
const LONGEST: Duration = Duration::from_secs(30);

/// Whether each target of a route answered, by the route's name.
pub(super) type Drills = BTreeMap<String, Vec<Drilled>>;

/// A target, the group of its route that it stands in, and whether it answered.
#[derive(Debug)]
pub(super) struct Drilled {
    level: String,
    provider: Arc<str>,
    model: Arc<str>,
    up: bool,
}

/// A route's targets, and under which name of a route they are reached.
type Lead = (Option<String>, Arc<Chain>);

/// What came of asking one target.
#[derive(Debug, Clone)]
struct Probe {
    /// The status of its answer, if one came.
    status: Option<u16>,
    took: Option<Duration>,
    /// Why it is of no use.
    error: Option<String>,
}

impl Gateway {
    /// Asks every target of a route once, those that are left alone too, and tells of each group
    /// whether anybody in it answers. `surface`: what to ask for, if not what the names say.
    pub async fn drill(
        self: &Arc<Self>,
        route: &str,
        surface: Option<Surface>,
    ) -> Result<Value, Error> {
        let house = self.snapshot();
        let leads = leads(&house, route)?;
        let mut targets = BTreeMap::new();
        for (_, chain) in &leads {
            for (place, target) in chain.targets.iter().enumerate() {
                targets.entry(target.identity).or_insert_with(|| (Arc::clone(chain), place));
            }
        }
        let asked = targets.into_iter().map(|(identity, (chain, place))| {
            let surface = surface.unwrap_or_else(|| meant(&house, route, &chain.targets[place]));
            async move { (identity, Box::pin(probe(self, &chain, place, surface)).await) }
        });
        let asked = stream::iter(asked).buffer_unordered(AT_ONCE);
        let probes: BTreeMap<u64, Probe> = asked.collect().await;
        let mut levels = Vec::new();
        for (via, chain) in &leads {
            levels.extend(chain.groups.iter().map(|group| {
                let targets = chain.targets[group.range.clone()].iter();
                let targets = targets.map(|target| (target, &probes[&target.identity]));
                level(via.as_deref(), group.stage.name(), targets.collect())
            }));
        }
        let groups = leads.iter().flat_map(|(_, chain)| {
            chain.groups.iter().enumerate().map(move |(level, group)| (chain, level, group))
        });
        let known = groups.flat_map(|(chain, level, group)| {
            let drilled = |target: &Target| Drilled {
                level: level.to_string(),
                provider: Arc::clone(&target.provider.name),
                model: Arc::clone(&target.model),
                up: probes[&target.identity].error.is_none(),
            };
            chain.targets[group.range.clone()].iter().map(drilled).collect::<Vec<_>>()
        });
        let mut drills = self.drills.lock().unwrap_or_else(PoisonError::into_inner);
        drills.insert(route.to_owned(), known.collect());
        let ok = levels.iter().all(|level| level["ok"] == true);
        Ok(json!({"route": route, "ok": ok, "levels": levels}))
    }

    /// Puts into the metrics what the drills came to, and what the health of targets is, of all
    /// that are still configured.
    pub fn show_targets(&self) {
        let house = self.snapshot();
        let metrics = &self.telemetry.metrics;
        let now = Instant::now();
        let standings = house.standings();
        metrics.target_state.reset();
        for standing in &standings {
            let Some(status) = standing.status(now) else { continue };
            let labels = [standing.provider.as_str(), standing.model.as_str()];
            metrics.target_state.with_label_values(&labels).set(status.state.share());
        }
        metrics.drill_success.reset();
        let configured = |provider: &str, model: &str| {
            standings.iter().any(|one| one.provider == provider && one.model == model)
        };
        let drills = self.drills.lock().unwrap_or_else(PoisonError::into_inner);
        let routes = drills.iter().filter(|(route, _)| house.config.routes.contains_key(*route));
        for (route, drilled) in
            routes.flat_map(|(route, targets)| targets.iter().map(move |target| (route, target)))
        {
            let Drilled { level, provider, model, up } = drilled;
            if configured(provider, model) {
                let labels = [route.as_str(), level, provider, model];
                metrics.drill_success.with_label_values(&labels).set(f64::from(u8::from(*up)));
            }
        }
    }
}

/// What a route leads to: its targets, or each route that it goes on to.
fn leads(house: &Snapshot, route: &str) -> Result<Vec<Lead>, Error> {
    let (Some(written), Ok(road)) = (house.config.routes.get(route), house.road(route)) else {
        let names: Vec<&str> = house.config.routes.keys().map(String::as_str).collect();
        let message = format!("There is no route `{route}`; there are: {}.", names.join(", "));
        return Err(Error::new(Kind::ModelNotFound, message));
    };
    Ok(match road {
        Road::Chain(chain) => vec![(None, chain)],
        Road::ByTask(by_task) => {
            let chains = by_task.chains.iter();
            let named = chains.filter_map(|(task, chain)| Some((written.tasks.get(task)?, chain)));
            let default = written.default.iter().map(|name| (name, &by_task.default));
            // Several kinds of work may go to the same route.
            let once: BTreeMap<&String, &Arc<Chain>> = named.chain(default).collect();
            once.into_iter().map(|(name, chain)| (Some(name.clone()), Arc::clone(chain))).collect()
        }
    })
}

/// What a target is asked for: vectors where its name, or what its route is used for, says so.
fn meant(house: &Snapshot, route: &str, target: &Target) -> Surface {
    let compares = house.config.routes.values().any(|other| {
        let classifier = &other.classifier;
        classifier.kind == ClassifierKind::Examples && classifier.route.as_deref() == Some(route)
    });
    let named = target.model.to_lowercase().contains("embed");
    if compares || named { Surface::Embeddings } else { Surface::Chat }
}

fn question(target: &Target, surface: Surface) -> Value {
    if surface == Surface::Embeddings {
        return json!({"model": &*target.model, "input": "OK"});
    }
    let mut body = json!({
        "model": &*target.model,
        "messages": [{"role": "user", "content": "Say OK."}],
    });
    // What passes as it is must be in this server's words.
    body[target.provider.kind.traits.max_tokens] = json!(16);
    body
}

async fn probe(
    gateway: &Arc<Gateway>,
    chain: &Arc<Chain>,
    place: usize,
    surface: Surface,
) -> Probe {
    let target = &chain.targets[place];
    if !target.in_region {
        return Probe::unasked("It is in no region that the route allows.".to_owned());
    }
    let question = match Question::made(question(target, surface).to_string().into()) {
        Ok(question) => question,
        Err(error) => return Probe::unasked(error.message.into_owned()),
    };
    let mut call = Call::open((Arc::clone(gateway), gateway.snapshot()), surface, None, None);
    call.drills(LONGEST);
    call.routed(chain, &question);
    let probe = ask(&mut call, &question, target, place).await;
    tracing::info!(
        route = %chain.name, provider = %target.provider.name, model = %target.model,
        ok = probe.error.is_none(), error = probe.error, "a target was drilled"
    );
    probe
}

async fn ask(call: &mut Call, question: &Question, target: &Target, place: usize) -> Probe {
    let errand = match errand::prepare(call, question, target).await {
        Ok(errand) => errand,
        Err(Unfit::Question(error) | Unfit::Target(error)) => {
            call.ends(Outcome::Refused);
            return Probe::unasked(error.message.into_owned());
        }
    };
    let sent = Instant::now();
    let credential = target.soonest_credential(sent);
    // One that is left alone is asked all the same: whether it is well again is the question.
    let pass = target.lane(credential).force(sent);
    call.attempt_begins(place, credential, &errand.dropped);
    let attempt = Attempt { place, credential, errand: &errand, pass };
    let result = Box::pin(attempt.make(call, question)).await;
    let took = Some(sent.elapsed());
    match result {
        Ok(made) => {
            let answer = call.takes(made);
            let sound = answer.is_ok_and(|answer| makes_sense(call.surface(), &answer));
            let error = (!sound).then(|| "Its answer makes no sense.".to_owned());
            let outcome = if error.is_none() { Outcome::Ok } else { Outcome::UpstreamError };
            call.attempt_ended(outcome, 200);
            call.ends(outcome);
            Probe { status: Some(200), took, error }
        }
        Err(failure) => {
            call.attempt_failed(&failure);
            call.ends(failure.outcome);
            let status = Some(failure.status).filter(|status| *status > 0);
            let confided = failure.confided.clone().map(|said| target.provider.redact(said));
            let told = verdict::refused(call, *failure, target, None);
            let error = confided.unwrap_or_else(|| told.message.into_owned());
            Probe { status, took, error: Some(error) }
        }
    }
}

fn makes_sense(surface: Surface, answer: &Answer) -> bool {
    let Answer::Whole { body, .. } = answer else { return false };
    let answer: Value = serde_json::from_slice(body).unwrap_or_default();
    match surface {
        Surface::Embeddings => !answer["data"][0]["embedding"].is_null(),
        _ => answer["choices"][0]["message"].is_object(),
    }
}

fn level(via: Option<&str>, group: &'static str, targets: Vec<(&Target, &Probe)>) -> Value {
    let ok = targets.iter().any(|(_, probe)| probe.error.is_none());
    let targets = targets.into_iter().map(|(target, probe)| {
        json!({
            "provider": &*target.provider.name,
            "model": &*target.model,
            "ok": probe.error.is_none(),
            "status": probe.status,
            "ms": probe.took.map(|took| took.as_millis()),
            "error": probe.error,
        })
    });
    let mut level = json!({"group": group, "ok": ok, "targets": targets.collect::<Vec<_>>()});
    if let Some(via) = via {
        level["via"] = json!(via);
    }
    level
}

// === impl Probe ===

impl Probe {
    fn unasked(error: String) -> Self {
        Self { status: None, took: None, error: Some(error) }
    }
}
