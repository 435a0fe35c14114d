//! Everything known about one call; when it ends, by any road, it is recorded once.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use tokio::time::Instant;

use super::arrival::{Ask, Question};
use super::responses::Keeping;
use super::snapshot::{Chain, Snapshot, Target};
use super::{Body, Gateway};
use crate::canon::{Attempt, CallId, CallRecord, Outcome, Owner, Surface, Usage, UsageSource};
use crate::config::ToolPairs;
use crate::dialect::keepsake::Keepsake;
use crate::dialect::peek::StreamOptions;
use crate::dialect::{self, CacheInjection, ClientSide};
use crate::error::{Error, Kind};
use crate::net::patience::Busy;
use crate::net::shed::Permit;

/// One call. It travels from the door through the attempts into the body of the reply; dropping it
/// anywhere on that way settles it.
pub(super) struct Call {
    pub(super) gateway: Arc<Gateway>,
    pub(super) house: Arc<Snapshot>,
    pub(super) started: Instant,
    pub(super) chain: Option<Arc<Chain>>,
    /// The attempt under way: its target's place in the chain, and since when.
    current: Option<(usize, Instant)>,
    /// Bytes of the question, to estimate its tokens by.
    input_bytes: usize,
    /// The client wants a stream's usage itself.
    pub(super) usage_asked: bool,
    /// The response is to be kept.
    pub(super) keeping: Option<Keeping>,
    record: CallRecord,
    /// `None` until it is known; a call that is dropped before was left by its client.
    outcome: Option<Outcome>,
    _permit: Option<Permit>,
    /// Its client's connection is kept for it.
    busy: Option<Busy>,
}

/// So many fields that a target could not take are named, and no longer ones.
const MOST_DROPPED: usize = 32;
const LONGEST_DROPPED: usize = 64;

// === impl Call ===

impl Call {
    pub(super) fn open(
        gateway: Arc<Gateway>,
        ask: &Ask,
        permit: Option<Permit>,
        busy: Busy,
    ) -> Box<Self> {
        let house = gateway.snapshot();
        let record = CallRecord {
            id: CallId::new(),
            at: SystemTime::now(),
            surface: ask.surface,
            stream: false,
            key: None,
            route: None,
            attempts: Vec::new(),
            outcome: Outcome::ClientClosed,
            status: 0,
            usage: Usage::default(),
            usage_source: UsageSource::None,
            duration: Duration::ZERO,
            first_token: None,
            overhead: Duration::ZERO,
            generation: house.generation,
            dropped: Vec::new(),
            malformed_events: 0,
        };
        Box::new(Self {
            gateway,
            house,
            started: Instant::now(),
            chain: None,
            current: None,
            input_bytes: 0,
            usage_asked: false,
            keeping: None,
            record,
            outcome: None,
            _permit: permit,
            busy: Some(busy),
        })
    }

    pub(super) fn surface(&self) -> Surface {
        self.record.surface
    }

    /// The side of the dialect that this client sees.
    pub(super) fn client(&self) -> &'static dyn ClientSide {
        dialect::client(self.record.surface)
    }

    /// Whose things this call may use; `None` until its key was admitted.
    pub(super) fn owner(&self) -> Option<Owner> {
        self.record.key.as_ref().map(|key| Owner::new(Arc::clone(key)))
    }

    /// Keeps what the provider wants back and the client may not carry.
    pub(super) fn keep(&self, keepsakes: Vec<Keepsake>) {
        if let Some(owner) = self.owner().filter(|_| !keepsakes.is_empty()) {
            self.gateway.shelf.keep(&owner, keepsakes);
        }
    }

    /// Keeps the response that the client is being given, if it is to be kept. `verbatim`: the
    /// provider gave it that id.
    pub(super) fn keep_response(&mut self, answer: &[u8], verbatim: bool) {
        let Some(keeping) = self.keeping.take() else { return };
        let provider = self.target().filter(|_| verbatim).map(|target| &*target.provider.name);
        self.gateway.keep_response(&keeping, answer, provider);
    }

    /// Keeps that the response, of which the client has the beginning, has failed.
    pub(super) fn keep_failure(&mut self, error: &Error) {
        let Some(keeping) = self.keeping.take() else { return };
        let (id, created) = self.stamp();
        let model = self.target().map_or_else(String::new, |target| target.model.to_string());
        self.gateway.keep_failure(&keeping, (format!("resp_{id}"), created, &model), error);
    }

    /// The provider that keeps the response which it is giving, too.
    pub(super) fn keeper(&self) -> Option<String> {
        self.target()?.keeper(self.surface()).map(str::to_owned)
    }

    /// Nobody waits for the answer any more.
    pub(super) fn goes_to_background(&mut self) -> Option<Busy> {
        self.busy.take()
    }

    /// Whether a question is rather refused than sent without one of its fields.
    pub(super) fn is_strict(&self) -> bool {
        self.chain.as_ref().is_some_and(|chain| chain.strict)
    }

    /// What becomes of tool calls and results that stand alone.
    pub(super) fn tool_pairs(&self) -> Option<ToolPairs> {
        self.chain.as_ref().and_then(|chain| chain.tool_pairs)
    }

    /// Where breakpoints of the prompt cache are put.
    pub(super) fn prompt_cache(&self) -> Option<CacheInjection> {
        self.chain.as_ref().and_then(|chain| chain.prompt_cache)
    }

    /// What a writer of answers must know of this call, besides question and model: its id as 32
    /// digits, and when it came, in seconds since 1970.
    pub(super) fn stamp(&self) -> (String, u64) {
        let since = self.record.at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        (self.record.id.simple(), since.as_secs())
    }

    pub(super) fn admitted(&mut self, key: &Arc<str>) {
        self.record.key = Some(Arc::clone(key));
    }

    pub(super) fn routed(&mut self, chain: &Arc<Chain>, question: &Question) {
        self.record.route = Some(Arc::clone(&chain.name));
        self.record.stream = question.envelope.stream;
        self.chain = Some(Arc::clone(chain));
        self.input_bytes = question.payload.len();
        self.usage_asked = question.envelope.stream_options == StreamOptions::Asked;
    }

    /// The target of the attempt under way.
    pub(super) fn target(&self) -> Option<&Target> {
        self.chain.as_ref()?.targets.get(self.current?.0)
    }

    /// A request to the target at `place` is about to leave, without the fields in `dropped`.
    pub(super) fn attempt_begins(&mut self, place: usize, dropped: &[Cow<'static, str>]) {
        // Some are named as the client wrote them, so there is no end of them.
        let shown = dropped.iter().filter(|name| name.len() <= LONGEST_DROPPED);
        self.record.dropped = shown.take(MOST_DROPPED).cloned().collect();
        let now = Instant::now();
        if self.record.attempts.is_empty() {
            self.record.overhead = now - self.started;
        }
        self.current = Some((place, now));
    }

    /// The attempt under way has ended; the last one may also end with the call.
    pub(super) fn attempt_ended(&mut self, outcome: Outcome, status: u16) {
        let ended = self
            .target()
            .map(|target| (Arc::clone(&target.provider.name), Arc::clone(&target.model)));
        if let (Some((provider, model)), Some((_, since))) = (ended, self.current.take()) {
            let elapsed = since.elapsed();
            self.record.attempts.push(Attempt { provider, model, outcome, status, elapsed });
        }
    }

    pub(super) fn attempts(&self) -> &[Attempt] {
        &self.record.attempts
    }

    pub(super) fn first_token(&mut self) {
        self.record.first_token = Some(self.started.elapsed());
    }

    pub(super) fn usage(&mut self, usage: Option<Usage>, output_estimate: u64) {
        let estimate =
            Usage { input: self.input_estimate(), output: output_estimate, ..Usage::default() };
        (self.record.usage, self.record.usage_source) = usage
            .map_or((estimate, UsageSource::Estimated), |usage| (usage, UsageSource::Provider));
    }

    /// About four bytes a token.
    pub(super) fn input_estimate(&self) -> u64 {
        (self.input_bytes as u64).div_ceil(4)
    }

    /// It is counted under another surface than its door's.
    pub(super) fn counts_as(&mut self, surface: Surface) {
        self.record.surface = surface;
    }

    pub(super) fn malformed(&mut self, events: u32) {
        self.record.malformed_events = events;
    }

    /// The call's end is known. Only the first word counts.
    pub(super) fn ends(&mut self, outcome: Outcome) {
        self.outcome.get_or_insert(outcome);
    }

    /// The reply that says what went wrong.
    pub(super) fn refuse(mut self: Box<Self>, mut error: Error) -> Response<Body> {
        self.ends(outcome_of(error.kind));
        error.attempts.clone_from(&self.record.attempts);
        let body = self.client().write_error(&error);
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut response = self.respond(status, HeaderValue::from_static("application/json"));
        if let Some(wait) = error.retry_after {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
            .headers_mut()
            .insert("x-switchpoint-error", HeaderValue::from_static(error.kind.code()));
        response.map(|()| Body::whole(body.into(), Some(self)))
    }

    /// The head of the reply.
    pub(super) fn respond(
        &mut self,
        status: StatusCode,
        content_type: HeaderValue,
    ) -> Response<()> {
        self.record.status = status.as_u16();
        let mut response = Response::new(());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.reserve(10);
        headers.insert(CONTENT_TYPE, content_type);
        let mut id = [0; 36];
        if let Ok(id) = HeaderValue::from_str(self.record.id.encode(&mut id)) {
            headers.insert("x-request-id", id);
        }
        let Some(chain) = &self.chain else { return response };
        if let Some(route) = &chain.header {
            headers.insert("x-switchpoint-route", route.clone());
        }
        let attempts = self.record.attempts.len() + usize::from(self.current.is_some());
        headers.insert("x-switchpoint-attempts", HeaderValue::from(attempts));
        let Some(target) = self.target() else { return response };
        if let Some(provider) = &target.provider_header {
            headers.insert("x-switchpoint-provider", provider.clone());
        }
        if let Some(model) = &target.model_header {
            headers.insert("x-switchpoint-model", model.clone());
        }
        if !self.record.dropped.is_empty()
            && let Ok(dropped) = HeaderValue::from_str(&self.record.dropped.join(","))
        {
            headers.insert("x-switchpoint-dropped", dropped);
        }
        let overhead = u64::try_from(self.record.overhead.as_micros()).unwrap_or(u64::MAX);
        headers.insert("x-switchpoint-overhead-us", HeaderValue::from(overhead));
        if self.record.usage_source == UsageSource::Provider {
            let tokens = HeaderValue::from(self.record.usage.total());
            headers.insert("x-switchpoint-tokens", tokens);
        }
        response
    }
}

/// How a call ends that is answered with an error of this kind.
pub(super) fn outcome_of(kind: Kind) -> Outcome {
    match kind {
        Kind::UpstreamTimeout => Outcome::Timeout,
        Kind::RateLimited => Outcome::RateLimited,
        Kind::UpstreamError | Kind::UpstreamUnavailable => Outcome::UpstreamError,
        Kind::StreamTruncated => Outcome::UpstreamTruncated,
        Kind::Internal => Outcome::Internal,
        Kind::InvalidRequest
        | Kind::TooLarge
        | Kind::MissingKey
        | Kind::InvalidKey
        | Kind::NotAllowed
        | Kind::NotFound
        | Kind::MethodNotAllowed
        | Kind::ModelNotFound
        | Kind::Unsupported
        | Kind::Overloaded => Outcome::Refused,
    }
}

impl Drop for Call {
    /// The one end of every call: whatever the road, one record leaves here.
    fn drop(&mut self) {
        let outcome = self.outcome.unwrap_or(Outcome::ClientClosed);
        let place = self.current.map(|(place, _)| place);
        let status = if outcome == Outcome::Ok { self.record.status } else { 0 };
        self.attempt_ended(outcome, status);
        self.record.outcome = outcome;
        self.record.duration = self.started.elapsed();
        let last = self.record.attempts.last();
        let chain = self.chain.as_deref();
        let target = chain.and_then(|chain| match (place, last) {
            (Some(place), _) => chain.targets.get(place),
            (None, Some(last)) => chain
                .targets
                .iter()
                .find(|target| target.model == last.model && target.provider.name == last.provider),
            (None, None) => None,
        });
        let meters = target.map_or(&self.house.refusals, |target| &target.meters);
        self.gateway.telemetry.finish(&self.record, meters);
    }
}
