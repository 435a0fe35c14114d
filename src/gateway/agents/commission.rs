//! A call that asks for a run: whether its caller may have one, and what is wanted of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use serde_json::Value;

use super::{Commission, Performance, RunWishes};
use crate::access::Caller;
use crate::canon::{ChatRequest, Message, Outcome, Owner, Part, Role, RunId, RunPart, Surface};
use crate::config::{OnLeave, StreamMode};
use crate::error::{Error, Kind};
use crate::gateway::arrival::Question;
use crate::gateway::call::Call;
use crate::gateway::reply::outcome_of;
use crate::gateway::responses::Keeping;
use crate::gateway::{Gateway, Snapshot, baggage_in, bearings, guarding, task, trace_in, traced};
use crate::net::client::CDN_LOOP;
use crate::store::Audit;
use crate::tool::mcp::each_text;

/// How a model is called that is an agent.
const PREFIX: &str = "agent/";

const SESSION: &str = "x-switchpoint-session";
const ON_DISCONNECT: &str = "x-switchpoint-on-disconnect";
const APPROVAL_WAIT: &str = "x-switchpoint-approval-wait";
const STREAM: &str = "x-switchpoint-stream";
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longer names of sessions, users and repetitions are none.
const LONGEST_NAME: usize = 256;
/// No call is held open for longer for an approval.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// Whether a model is an agent.
pub(in crate::gateway) fn is_asked(model: &str) -> bool {
    model.starts_with(PREFIX)
}

impl Snapshot {
    /// The agents that this caller may run.
    pub fn agents(&self, caller: &Caller) -> impl Iterator<Item = &str> {
        let agents = self.config.agents.iter();
        agents.filter(|(name, _)| self.may_run(caller, name)).map(|(name, _)| name.as_str())
    }

    /// What guards this version of an agent now; `None` where there is no such agent any more.
    pub(super) fn guards_of(&self, agent: &str, version: &str) -> Option<&[String]> {
        Some(&self.config.agents.get(agent)?.at(version)?.guards)
    }

    pub fn may_run(&self, caller: &Caller, name: &str) -> bool {
        let agent = self.config.agents.get(name);
        agent.is_some_and(|agent| {
            caller.may_run(name, agent.access_keys.as_deref(), agent.access_users.as_deref())
        })
    }
}

impl Gateway {
    /// What the user of a run says in the middle of it, as the guards of what users say leave it:
    /// those of the server, of the key that says it, and of the agent.
    pub async fn hear(
        self: &Arc<Self>,
        caller: &Caller,
        agent: &str,
        version: &str,
        mut values: Value,
    ) -> Result<Value, Error> {
        let house = (Arc::clone(self), self.snapshot());
        let mut call = Call::open(house, Surface::Run, None, None);
        call.admitted(caller);
        let mut words = Vec::new();
        each_text(&mut values, &mut |text| words.push(Part::text(text.clone())));
        let messages = vec![Message::new(Role::User, words)];
        let model = format!("{PREFIX}{agent}");
        let mut question =
            Question::spoken(ChatRequest { model, messages, ..ChatRequest::default() });
        let heard = Box::pin(async {
            let house = Arc::clone(&call.house);
            let guards = house.guards_of(agent, version).unwrap_or_default();
            guarding::inspect(&mut call, &mut question, guards).await?;
            match call.take_late_guards() {
                Some(late) => late.ask().await,
                None => Ok(()),
            }
        });
        let heard = heard.await;
        call.ends(heard.as_ref().map_or_else(|error| outcome_of(error.kind), |()| Outcome::Ok));
        call.record.status = heard.as_ref().map_or_else(Error::status, |()| 200);
        heard?;
        let request = question.request_mut().map_err(|it| Error::invalid(it.0.clone()))?;
        let said = std::mem::take(&mut request.messages).into_iter().flat_map(|it| it.parts);
        let mut said = said.filter_map(|part| part.as_text().map(str::to_owned));
        each_text(&mut values, &mut |text| *text = said.next().unwrap_or_default());
        Ok(values)
    }

    /// Asks for a run in the name of `caller`, otherwise than as a model: past the same rights and
    /// guards, and with a record of its own. `agent` may name a version.
    pub async fn commission(
        self: &Arc<Self>,
        caller: &Caller,
        agent: &str,
        (request, wishes): (ChatRequest, RunWishes),
        background: bool,
    ) -> Result<Performance, Error> {
        let house = (Arc::clone(self), self.snapshot());
        let mut call = Call::open(house, Surface::Run, None, None);
        call.admitted(caller);
        call.set_trace(wishes.trace.clone());
        let request = ChatRequest { model: format!("{PREFIX}{agent}"), ..request };
        let mut question = Question::spoken(request);
        let performance = Box::pin(async {
            let name = find(&mut call, &question.envelope.model)?;
            let blocked = look_at(&mut call, &mut question, &name).await?;
            let mut commission = call.commission(&question, wishes, None, background)?;
            commission.set_blocked(blocked);
            call.conducted(commission).await
        });
        let performance = performance.await;
        let ended = performance.as_ref().err();
        call.record.status = ended.map_or(202, Error::status);
        call.ends(ended.map_or(Outcome::Ok, |error| outcome_of(error.kind)));
        performance
    }
}

impl Gateway {
    /// Ends a run that nobody waits for any more.
    pub fn call_off(self: &Arc<Self>, run: RunId, owner: Owner) {
        let Some(conductor) = self.conductor() else { return };
        self.tasks.spawn(async move {
            if let Err(error) = conductor.cancel(run, owner).await {
                tracing::warn!(run_id = %run, error = %error.message, "a run is not called off");
            }
        });
    }

    /// Who asks for what is not theirs stands in the audit trail.
    pub fn notes_refused_agent(self: &Arc<Self>, key: &str, name: &str) {
        self.telemetry.metrics.count_security_event("agent_not_allowed");
        let row = Audit {
            at: SystemTime::now(),
            who: key.to_owned(),
            what: "agent.refused".to_owned(),
            subject: format!("agent:{name}"),
            before: None,
            after: None,
        };
        let gateway = Arc::clone(self);
        self.tasks.spawn(async move {
            if let Err(error) = gateway.store().audit(row).await {
                tracing::warn!(%error, "a refusal could not be written into the audit trail");
            }
        });
    }
}

/// All that a call at a door wants of an agent.
pub(super) async fn read(
    call: &mut Call,
    question: &mut Question,
    headers: &HeaderMap,
) -> Result<Commission, Error> {
    let name = find(call, &question.envelope.model)?;
    if !call.surface().is_chat() || question.relayed.is_some() {
        let message = "Agents are asked as chats are: by chat completions, responses, messages or \
                       Google's `generateContent`.";
        return Err(Error::new(Kind::Unsupported, message));
    }
    call.record.stream = question.envelope.stream;
    call.measures(question);
    let previous = Box::pin(recall(call, question)).await?;
    question.read_as_it_is(call.client());
    let blocked = look_at(call, question, &name).await?;
    let request = asked(question)?;
    if question.envelope.previous.is_some() && conversation(request).is_some() {
        let message = "`conversation` and `previous_response_id` each name what was said before: \
                       send one of them.";
        return Err(Error::invalid(message));
    }
    let mut wishes = wishes(call, request, headers)?;
    (wishes.trace, wishes.baggage) = (trace_in(headers), baggage_in(headers));
    let background = question.envelope.background;
    let mut commission = call.commission(question, wishes, previous, background)?;
    commission.set_blocked(blocked);
    Ok(commission)
}

/// The name of the agent that is asked for, if its caller may run it.
fn find(call: &mut Call, model: &str) -> Result<String, Error> {
    let named = model.strip_prefix(PREFIX).unwrap_or_default();
    let name = named.split('@').next().unwrap_or_default();
    if !call.house.config.agents.contains_key(name) {
        let message =
            format!("There is no agent `{name}`; `GET /v1/models` lists what this key may call.");
        return Err(Error::new(Kind::AgentNotFound, message));
    }
    call.record.route = Some(format!("{PREFIX}{name}").into());
    let caller = call.caller.as_ref();
    if caller.is_some_and(|caller| call.house.may_run(caller, name)) {
        return Ok(name.to_owned());
    }
    let key = call.key().cloned().unwrap_or_default();
    call.gateway.notes_refused_agent(&key, name);
    let message = format!("This key may not run the agent `{name}`.");
    Err(Error::new(Kind::AgentNotAllowed, message))
}

/// Past the guards of the server, the key and the agent: what one of them has said against it.
async fn look_at(
    call: &mut Call,
    question: &mut Question,
    name: &str,
) -> Result<Option<String>, Error> {
    let house = Arc::clone(&call.house);
    let guards = house.config.agents.get(name).map(|agent| agent.guards.as_slice());
    match guarding::inspect(call, question, guards.unwrap_or_default()).await {
        Err(error) if error.kind == Kind::GuardBlocked => {
            // Whatever its run says of it.
            call.ends(Outcome::GuardBlocked);
            Ok(Some(error.message.into_owned()))
        }
        looked => looked.map(|()| None),
    }
}

fn asked(question: &Question) -> Result<&ChatRequest, Error> {
    let asked = question.chat().map_err(|misread| Error::invalid(misread.0.clone()))?;
    Ok(&asked.request)
}

/// What the responses API asks a gateway to remember. A run remembers its conversation itself, so
/// what it has said is not said again; that of others is put in front of the question.
async fn recall(call: &mut Call, question: &mut Question) -> Result<Option<RunId>, Error> {
    if call.surface() != Surface::Responses {
        // In other APIs the word means nothing.
        question.envelope.background = false;
        return Ok(None);
    }
    let Some(owner) = call.owner() else { return Ok(None) };
    let gateway = Arc::clone(&call.gateway);
    let previous = question.envelope.previous.clone();
    let background = question.envelope.background;
    if question.may_refer(call.surface()) {
        let turn = (&owner, &question.payload, previous.as_deref());
        if let Some(body) = gateway.dereferenced(turn, &[None]).await? {
            question.replace(body)?;
        }
    }
    let keeping = Keeping::new(owner.clone(), question.payload.clone(), previous.clone());
    let run = match &previous {
        Some(previous) => gateway.run_of(&owner, previous).await?,
        None => None,
    };
    if previous.is_some() && run.is_none() {
        let body = gateway.unrolled(&keeping, previous.as_deref(), &[None]).await?;
        question.replace(body)?;
        call.measures(question);
    }
    question.envelope.background = background;
    let kept = question.envelope.store != Some(false);
    if background && !kept {
        let message = "`background` needs `store`: the answer is fetched by its id.";
        return Err(Error::invalid(message));
    }
    call.keeping = kept.then_some(keeping);
    Ok(run)
}

/// What headers and metadata want of the run.
fn wishes(call: &Call, request: &ChatRequest, headers: &HeaderMap) -> Result<RunWishes, Error> {
    let header = |name: &'static str| match headers.get(name) {
        None => Ok(None),
        Some(value) => named(value.to_str().ok(), name),
    };
    let metadata = request.metadata.as_ref();
    let in_metadata = metadata.and_then(|metadata| metadata.get("session_id")?.as_str());
    let session = match header(SESSION)? {
        Some(session) => Some(session),
        None => match in_metadata.or_else(|| conversation(request)) {
            Some(session) => named(Some(session), "session_id")?,
            None => None,
        },
    };
    let on_disconnect = match header(ON_DISCONNECT)?.as_deref() {
        None => None,
        Some("cancel") => Some(OnLeave::Cancel),
        Some("continue") => Some(OnLeave::Continue),
        Some(_) => return Err(odd(ON_DISCONNECT, "neither `cancel` nor `continue`")),
    };
    let stream = match header(STREAM)?.as_deref() {
        None => None,
        Some("live") => Some(StreamMode::Live),
        Some("final") => Some(StreamMode::Final),
        Some("steps") => Some(StreamMode::Steps),
        Some(_) => return Err(odd(STREAM, "none of `live`, `final` and `steps`")),
    };
    let wait = header(APPROVAL_WAIT)?.map(|written| {
        let wait = bearings::duration(&written).map_err(|_| odd(APPROVAL_WAIT, "no time"))?;
        Ok::<_, Error>(wait.min(LONGEST_WAIT))
    });
    let labels = call.record.tags.iter();
    Ok(RunWishes {
        session,
        user: request.user.clone().filter(|user| user.len() <= LONGEST_NAME),
        idempotency_key: header(IDEMPOTENCY_KEY)?,
        on_disconnect,
        approval_wait: wait.transpose()?.unwrap_or_default(),
        stream,
        trace: None,
        baggage: None,
        labels: labels.map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        headers: passed_on(headers),
        budget: None,
        webhook: None,
    })
}

/// What the responses API calls a session.
pub(super) fn conversation(request: &ChatRequest) -> Option<&str> {
    let named = request.extras.fields.get("conversation")?;
    named.as_str().or_else(|| named.get("id")?.as_str())
}

/// What a client says that is meant for each call of a model.
pub fn passed_on(headers: &HeaderMap) -> Vec<(String, String)> {
    let said = [task::HEADER, bearings::CACHE].into_iter().filter_map(|name| {
        let value = headers.get(name)?.to_str().ok()?;
        Some((name.to_owned(), value.to_owned()))
    });
    let marks = traced::list(headers, &CDN_LOOP).map(|marks| (CDN_LOOP.to_string(), marks));
    let short =
        |(name, value): (String, String)| (name, value.chars().take(LONGEST_NAME).collect());
    said.chain(marks).map(short).collect()
}

/// What somebody calls something: a short text.
pub fn named(written: Option<&str>, what: &str) -> Result<Option<String>, Error> {
    let written = written.map(str::trim).filter(|written| {
        !written.is_empty() && written.len() <= LONGEST_NAME && !written.contains(char::is_control)
    });
    match written {
        Some(written) => Ok(Some(written.to_owned())),
        None => Err(odd(what, "empty, too long or no text")),
    }
}

fn odd(what: &str, how: &str) -> Error {
    Error::invalid(format!("`{what}` is {how}."))
}

// === impl Commission ===

impl Commission {
    /// What a guard objects to is no turn of its conversation, or each that follows would be
    /// refused for it.
    fn set_blocked(&mut self, by: Option<String>) {
        if by.is_some() {
            (self.previous, self.wishes.session) = (None, None);
        }
        self.blocked = by;
    }
}

// === impl Call ===

impl Call {
    /// What it wants of its agent.
    fn commission(
        &self,
        question: &Question,
        wishes: RunWishes,
        previous: Option<RunId>,
        background: bool,
    ) -> Result<Commission, Error> {
        let request = asked(question)?.clone();
        if request.sampling.choices.is_some_and(|choices| choices > 1) {
            return Err(Error::invalid("`n` must be 1: an agent gives one answer."));
        }
        let Some(caller) = self.caller.clone() else {
            return Err(Error::new(Kind::Internal, "The call has no caller."));
        };
        let client_trace = wishes.trace.clone();
        let trace = self.record.trace.as_ref();
        let trace = trace.map(|trace| trace.below(self.record.id.span()));
        Ok(Commission {
            agent: request.model.strip_prefix(PREFIX).unwrap_or_default().to_owned(),
            caller,
            surface: self.surface(),
            request,
            budget: wishes.budget,
            wishes: RunWishes { trace: None, ..wishes },
            previous,
            answer_id: self.record.id.simple(),
            // Without a collector, its tools stand in its client's trace all the same.
            trace: trace.or(client_trace),
            background,
            blocked: None,
        })
    }

    /// The run that was asked for. Its name goes into the record.
    pub(super) async fn conducted(&mut self, commission: Commission) -> Result<Performance, Error> {
        let Some(conductor) = self.gateway.conductor() else {
            let mut error = Error::new(Kind::Overloaded, "Agents are not at work yet; try again.");
            error.retry_after = Some(Duration::from_secs(1));
            return Err(error);
        };
        let agent = commission.agent.clone();
        let performance = conductor.conduct(Box::new(commission)).await?;
        let agent = agent.split('@').next().unwrap_or_default();
        let version = Arc::clone(&performance.version);
        self.record.part = Some(Box::new(RunPart { version, step: None }));
        self.record.tags.insert("run".into(), performance.run.to_string().into());
        self.record.tags.insert("agent".into(), agent.into());
        self.run = Some(performance.report.clone());
        if let Some(keeping) = &mut self.keeping {
            keeping.set_run(&performance);
        }
        Ok(performance)
    }
}
