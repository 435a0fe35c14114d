//! Guards ask: a model through a route, a provider's moderation, somebody's own service. In the
//! name and on the bill of the call that is guarded, and not guarded themselves.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Uri};

use tokio::time::Instant;

use super::notes::{self, Said};
use crate::access::Caller;
use crate::canon::{Consultation, Outcome, Purpose, Relay, Surface, Trace, span_of_guard};
use crate::config::Stage;
use crate::error::{Error, Kind};
use crate::gateway::Gateway;
use crate::gateway::arrival::Question;
use crate::gateway::ask::{Answer, read_whole};
use crate::gateway::call::Call;
use crate::gateway::journey;
use crate::gateway::relayed::Relayed;
use crate::gateway::reply::outcome_of;
use crate::gateway::snapshot::{Road, Snapshot};
use crate::gateway::traced::PARENT;
use crate::guard::remote::{Ask, Asking, Inquiry, Reply, Ruling, Subject};
use crate::guard::{Blocked, Failure, Guard};
use crate::net::client::{Outgoing, Template};

/// The guard's own limit is shorter, or as long as its operator wants.
const PATIENCE: Duration = Duration::from_secs(30);
const LONGEST_ANSWER: usize = 4 * 1024 * 1024;

/// Who asks for a call, without holding it.
#[derive(Debug, Clone)]
pub(in crate::gateway) struct Asker {
    deputy: Deputy,
    call: String,
    model: String,
    traced: Option<Place>,
}

/// Where a call stands in a trace that is told of it.
#[derive(Debug, Clone)]
struct Place {
    trace: Trace,
    /// The call's own.
    span: u64,
    sampled: bool,
    started: Instant,
}

/// One guard's asking.
struct Errand<'a> {
    asker: &'a Asker,
    /// By which its span is known.
    number: Option<u32>,
}

/// Who asks in the name of a call.
#[derive(Debug, Clone)]
struct Deputy {
    gateway: Arc<Gateway>,
    house: Arc<Snapshot>,
    key: Option<Arc<str>>,
    caller: Option<Caller>,
    owner: Option<Arc<str>>,
}

// === impl Asker ===

impl Asker {
    pub(super) fn of(call: &Call, model: &str) -> Self {
        let traces = call.gateway.telemetry.traces.as_ref();
        let place = traces.zip(call.record.trace.as_ref()).map(|(traces, trace)| Place {
            trace: trace.clone(),
            span: call.record.id.span(),
            sampled: traces.samples(trace, call.record.route.as_deref()),
            started: call.started,
        });
        let (deputy, model) = (call.deputy(), model.to_owned());
        Self { deputy, call: call.record.id.to_string(), model, traced: place }
    }

    /// Has a guard ask about these texts, and notes what it says. What it wants in their place, if
    /// anything.
    pub(super) async fn consult(
        &self,
        guard: &Guard,
        stage: Stage,
        texts: &[String],
        said: &Said,
    ) -> Result<Option<Vec<String>>, Blocked> {
        let number = self.traced.as_ref().map(|_| said.number());
        let (errand, since) = (Errand { asker: self, number }, Instant::now());
        let Some(ruling) = guard.consult(&errand, &self.subject(stage, texts)).await else {
            return Ok(None);
        };
        if let (Some(place), Some(number)) = (&self.traced, number) {
            said.consulted(place.tells(number, since, (guard, &ruling)));
        }
        said.rule(&ruling)?;
        Ok(ruling.texts)
    }

    /// What a guard is shown.
    fn subject<'a>(&'a self, stage: Stage, texts: &'a [String]) -> Subject<'a> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Subject {
            stage,
            texts,
            call: &self.call,
            model: &self.model,
            key: self.deputy.key(),
            now: since.as_secs(),
        }
    }
}

// === impl Place ===

impl Place {
    /// What a trace tells of it.
    fn tells(&self, number: u32, since: Instant, said: (&Guard, &Ruling)) -> Consultation {
        let (guard, Ruling { verdict, blocked, .. }) = said;
        Consultation {
            note: notes::note(verdict, blocked.is_some()),
            kind: guard.asks_by().unwrap_or_default(),
            number,
            began: since - self.started,
            elapsed: since.elapsed(),
        }
    }
}

// === impl Errand ===

impl Errand<'_> {
    /// Where that stands which is asked: below the guard's own span.
    fn place(&self) -> Option<(&Place, u64)> {
        let place = self.asker.traced.as_ref()?;
        Some((place, span_of_guard(place.span, self.number?)))
    }

    /// A call of the gateway's own.
    async fn call(
        &self,
        surface: Surface,
        question: Result<Box<Question>, Error>,
    ) -> Result<Reply, Failure> {
        let question = question.map_err(|error| unreachable_for(&error))?;
        let deputy = &self.asker.deputy;
        let Ok(Road::Chain(chain)) = deputy.house.road(&question.envelope.model) else {
            return Err(Failure::Unreachable("the route is gone".to_owned()));
        };
        let house = (Arc::clone(&deputy.gateway), Arc::clone(&deputy.house));
        let mut call = Call::open(house, surface, None, None);
        call.judges_for(deputy);
        call.record.trace = self.place().map(|(place, span)| place.trace.below(span));
        call.routed(&chain, &question);
        let (mut call, answer) = journey::walk(call, question).await;
        let (outcome, reply) = match answer {
            Ok(Answer::Whole { body, .. }) => (Outcome::Ok, Ok(Reply { status: 200, body })),
            Ok(Answer::Stream(_) | Answer::Bytes(_)) => {
                (Outcome::UpstreamError, Err(Failure::Answer("it is a stream".to_owned())))
            }
            Err(error) => (outcome_of(error.kind), Err(unreachable_for(&error))),
        };
        call.ends(outcome);
        reply
    }

    async fn post(
        &self,
        url: &str,
        headers: Vec<(&'static str, String)>,
        body: Bytes,
    ) -> Result<Reply, Failure> {
        let origin = self.asker.deputy.house.hook(url);
        let origin = origin.ok_or_else(|| Failure::Unreachable("no address".to_owned()))?;
        let path = url.parse::<Uri>().ok();
        let path = path.as_ref().and_then(Uri::path_and_query).map_or("/", |path| path.as_str());
        let (mut extra, mut content_type) = (Vec::new(), None);
        if let Some((place, span)) = self.place() {
            let parent = place.trace.parent_of_next(span, place.sampled);
            extra.extend(HeaderValue::from_bytes(&parent).ok().map(|parent| (PARENT, parent)));
        }
        for (name, value) in headers {
            let Ok(value) = HeaderValue::from_str(&value) else { continue };
            if name == CONTENT_TYPE.as_str() {
                content_type = Some(value);
            } else {
                extra.push((HeaderName::from_static(name), value));
            }
        }
        let (template, body) = (Template::new(http::HeaderMap::new()), body.into());
        let outgoing = Outgoing {
            method: "POST",
            path,
            headers: &template,
            extra: &extra,
            content_type: content_type.as_ref(),
            body: &body,
            rest: None,
            left: None,
        };
        let reply = origin.send(outgoing, PATIENCE).await;
        let reply = reply.map_err(|fault| Failure::Unreachable(fault.to_string()))?;
        let status = reply.status;
        let body = read_whole(reply.body, PATIENCE, LONGEST_ANSWER).await;
        let body = body.map_err(|_| Failure::Answer("it broke off".to_owned()))?;
        Ok(Reply { status, body })
    }
}

impl Ask for Errand<'_> {
    fn ask(&self, inquiry: Inquiry) -> Asking<'_> {
        match inquiry {
            Inquiry::Chat { body, .. } => {
                let question = Question::made(body.to_string().into());
                Box::pin(self.call(Surface::Chat, question))
            }
            Inquiry::Moderation { model, mut body } => {
                body["model"] = model.into();
                let question = Question::made(body.to_string().into()).map(|mut question| {
                    question.relayed = Some(Relayed::json(Relay::Moderation));
                    question
                });
                Box::pin(self.call(Surface::Moderations, question))
            }
            Inquiry::Webhook { url, headers, body } => {
                Box::pin(async move { self.post(&url, headers, body).await })
            }
        }
    }
}

/// What the call came to, without words of its provider.
fn unreachable_for(error: &Error) -> Failure {
    match error.kind {
        Kind::UpstreamTimeout => Failure::Timeout,
        kind => Failure::Unreachable(kind.code().to_owned()),
    }
}

// === impl Deputy ===

impl Deputy {
    /// The name of the key.
    fn key(&self) -> &str {
        self.key.as_deref().unwrap_or_default()
    }
}

impl Call {
    /// Who can ask in its name, without holding it.
    fn deputy(&self) -> Deputy {
        Deputy {
            gateway: Arc::clone(&self.gateway),
            house: Arc::clone(&self.house),
            key: self.record.key.clone(),
            caller: self.caller.clone(),
            owner: self.owner.clone(),
        }
    }

    /// The call is made to have a text judged, by the key of another one.
    fn judges_for(&mut self, deputy: &Deputy) {
        self.record.key.clone_from(&deputy.key);
        self.caller.clone_from(&deputy.caller);
        self.owner.clone_from(&deputy.owner);
        self.record.purpose = Purpose::Guard;
    }
}
