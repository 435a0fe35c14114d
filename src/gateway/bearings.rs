//! What decides about a call's way besides its question: who may go where, its session, conditions,
//! and what its client says of time and repetition.

use std::time::{Duration, SystemTime};

use http::HeaderMap;

use super::arrival::{Question, Unreadable};
use super::call::Call;
use super::snapshot::{Road, Snapshot};
use super::task::Decision;
use super::{needs, session};
use crate::access::Caller;
use crate::canon::{Feature, Task};
use crate::config::CacheMode;
use crate::error::{Error, Kind};
use crate::net::client::CDN_LOOP;
use crate::provider::MARK;
use crate::route::condition::{Condition, Facts};

/// How often a client, or a gateway before this one, has asked the same before.
const RETRY_COUNTS: [&str; 2] = ["x-stainless-retry-count", ATTEMPT];
pub(super) const ATTEMPT: &str = "x-gateway-attempt";
const TIMEOUT: &str = "x-switchpoint-timeout";
const EXPLAIN: &str = "x-switchpoint-explain";
const TAGS: &str = "x-switchpoint-tags";
pub(super) const CACHE: &str = "x-switchpoint-cache";
/// Through so many gateways like this one a call may come. Beyond that it goes in a circle.
const MOST_HOPS: usize = 5;
/// So many marks of a client are kept, and no longer ones, name and value together.
const MOST_TAGS: usize = 16;
const LONGEST_TAG: usize = 128;

/// What decides about a call's way besides its question.
#[derive(Debug, Default)]
pub(super) struct Bearings {
    /// Of its conversation; 0 where nothing depends on it.
    pub(super) session: u64,
    /// The targets whose condition it does not meet, or whose answers are of no use to it.
    pub(super) barred: Vec<usize>,
    /// How often its client has asked the same before.
    pub(super) retries: u32,
    /// What kind of work it is, and who said so.
    pub(super) task: Option<Decision>,
    /// The client's own limit.
    pub(super) timeout: Option<Duration>,
    /// What its client lets the cache do.
    pub(super) cache: Option<CacheMode>,
    /// How often a target that limits its rate is asked before another one is, for a run; others
    /// go on at once.
    pub(super) rate_limit_tries: Option<u32>,
}

/// Where a model leads to, if this caller may go there; and the kind of work that its name says, as
/// in `auto/code`.
pub(super) fn find(
    house: &Snapshot,
    caller: &Caller,
    model: &str,
) -> Result<(Road, Option<Task>), Unreadable> {
    let (road, task, name) = look_up(house, caller, model)?;
    let direct = match &road {
        Road::Chain(chain) => chain.targets.first().filter(|_| &*chain.name == "direct"),
        Road::ByTask(_) => None,
    };
    let allowed = caller.may_call(name)
        || direct.is_some_and(|target| {
            caller.may_call(&format!("{}/{}", target.provider.name, target.model))
        });
    if allowed {
        return Ok((road, task));
    }
    let message = format!("This key may not call `{model}`.");
    Err(Unreadable::Refused(Error::new(Kind::NotAllowed, message)))
}

/// The same for whoever may go there in any case, with the name of the route.
pub(super) fn look_up<'a>(
    house: &Snapshot,
    caller: &Caller,
    model: &'a str,
) -> Result<(Road, Option<Task>, &'a str), Unreadable> {
    let alias = || {
        let (route, task) = model.rsplit_once('/')?;
        let road = house.road(route).ok().filter(|road| matches!(road, Road::ByTask(_)))?;
        Some((road, Some(Task::parse(task)?), route))
    };
    let found = house.road(model).map(|road| (road, None, model));
    found.or_else(|unknown| alias().ok_or(unknown)).map_err(|unknown| {
        let mut message = format!("There is no route or model `{model}`");
        if let Some(nearest) = unknown.nearest.filter(|name| caller.may_call(name)) {
            message = format!("{message}; did you mean `{nearest}`?");
        } else {
            message.push_str("; `GET /v1/models` lists what this key may call.");
        }
        Unreadable::Refused(Error::new(Kind::ModelNotFound, message))
    })
}

/// Notes its session, and what the conditions of the route come to.
pub(super) async fn take(call: &mut Call, question: &Question, headers: &HeaderMap, road: &Road) {
    let Some(chain) = call.chain.clone() else { return };
    if chain.is_sticky() {
        call.bearings.session = match session::of_headers(headers) {
            Some(session) => session,
            None if call.surface().is_chat() => {
                Box::pin(question.understand(call)).await;
                question.chat().map_or(0, |asked| session::of_chat(&asked.request))
            }
            None => 0,
        };
    }
    let all = match road {
        Road::ByTask(by_task) => by_task.when.as_ref(),
        Road::Chain(_) => None,
    };
    if all.is_some() || chain.is_conditional() {
        if call.surface().is_chat() {
            Box::pin(question.understand(call)).await;
        }
        let subject = Subject { call, headers, question };
        let holds = |when: Option<&Condition>| when.is_none_or(|when| subject.meets(when));
        let own = |place| chain.stage(place) == crate::route::plan::Stage::Own;
        let mut barred = chain.barred(holds);
        if !holds(all) {
            barred.extend((0..chain.targets.len()).filter(|place| own(*place)));
        }
        call.bearings.barred = barred;
    }
}

/// What a client says of time and repetition, and the marks that it gives its call. Most calls say
/// nothing of it, so the headers are looked through once and none is looked for.
pub(super) fn read(call: &mut Call, headers: &HeaderMap) -> Result<(), Error> {
    let mut timeout = None;
    for (name, value) in headers {
        match name.as_str() {
            name if !name.starts_with("x-") => {}
            EXPLAIN => call.explains = true,
            TAGS => note_tags(call, value.to_str().unwrap_or_default()),
            CACHE => call.bearings.cache = Some(cache_mode(value.to_str().unwrap_or_default())?),
            TIMEOUT => timeout = timeout.or_else(|| value.to_str().ok()),
            name if RETRY_COUNTS.contains(&name) => {
                let count = value.to_str().ok().and_then(|text| text.parse().ok());
                call.bearings.retries = call.bearings.retries.max(count.unwrap_or(0));
            }
            _ => {}
        }
    }
    call.bearings.timeout = timeout.map(duration).transpose()?;
    Ok(())
}

/// Refuses a call that a route has led back to us again and again. Whoever passed it on takes that
/// for the last word, and its client reads why.
pub(super) fn refuse_circles(headers: &HeaderMap) -> Result<(), Error> {
    let marks = headers.get_all(CDN_LOOP).iter();
    let marks = marks.flat_map(|marks| marks.as_bytes().split(|byte| *byte == b','));
    let hops = marks.filter(|mark| is_ours(mark)).count();
    if hops <= MOST_HOPS {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "This call has come through Switchpoint {hops} times already: a route leads back to where \
         it comes from. Look for a provider whose `base_url` is that of a gateway on its way."
    )))
}

/// Whether a gateway like this one has made a mark, whatever it says beside its name.
fn is_ours(mark: &[u8]) -> bool {
    let name = mark.split(|byte| *byte == b';').next().unwrap_or_default();
    name.trim_ascii().eq_ignore_ascii_case(MARK.as_bytes())
}

fn cache_mode(written: &str) -> Result<CacheMode, Error> {
    CacheMode::parse(written.trim()).ok_or_else(|| {
        let modes = "off, on, read_only, write_only or refresh";
        Error::invalid(format!("`{CACHE}` says none of {modes}."))
    })
}

/// `a=b,c=d`, within a bound.
fn note_tags(call: &mut Call, written: &str) {
    let pairs = written.split(',').filter_map(|pair| pair.split_once('='));
    for (name, value) in pairs.take(MOST_TAGS) {
        let (name, value) = (name.trim(), value.trim());
        if !name.is_empty() && name.len() + value.len() <= LONGEST_TAG {
            call.record.tags.entry(name.into()).or_insert_with(|| value.into());
        }
    }
}

/// Nobody waits longer, whatever they write.
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// `30s`, `500ms`, or a number of seconds.
pub(super) fn duration(written: &str) -> Result<Duration, Error> {
    let seconds =
        written.parse::<f64>().ok().and_then(|number| Duration::try_from_secs_f64(number).ok());
    let read = seconds.or_else(|| humantime::parse_duration(written).ok());
    let read = read.filter(|duration| !duration.is_zero());
    read.map(|duration| duration.min(LONGEST_WAIT)).ok_or_else(|| {
        Error::invalid(format!("`{TIMEOUT}` is no time; write seconds, or as in `500ms`."))
    })
}

/// A call as conditions see it.
struct Subject<'a> {
    call: &'a Call,
    headers: &'a HeaderMap,
    question: &'a Question,
}

impl Subject<'_> {
    fn meets(&self, when: &Condition) -> bool {
        let request = self.question.chat().ok().map(|asked| &asked.request);
        let features = request.map(needs::features).unwrap_or_default();
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let facts = Facts {
            model: &self.question.envelope.model,
            surface: self.call.surface().name(),
            stream: self.question.envelope.stream,
            images: features.contains(Feature::Vision),
            tools: request.map_or(0, |request| request.tools.len() as u64),
            max_tokens: request.and_then(|request| request.sampling.max_tokens).unwrap_or(0),
            tokens: &|| self.call.input_estimate(),
            header: &|name| self.headers.get(name).and_then(|value| value.to_str().ok()),
            tag: &|name| {
                let own = self.call.caller.as_ref().and_then(|caller| caller.tag(name));
                // What the config says of a key no client can gainsay.
                own.or_else(|| self.call.record.tags.get(name).map(|value| &**value))
            },
            task: &|| self.call.task().map(Task::name),
            key: self.call.key().map_or("", |key| key),
            team: self.call.caller.as_ref().and_then(Caller::team).map_or("", |team| team),
            budget_left: self.call.budget_left(),
            unix: since.as_secs(),
        };
        when.holds(&facts).unwrap_or_else(|problem| {
            tracing::warn!(%problem, "a condition could not be told, and so does not hold");
            false
        })
    }
}
