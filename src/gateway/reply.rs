//! The head of a call's reply, and the reply that says what went wrong.

use http::header::{AGE, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use super::Body;
use super::call::Call;
use super::chain::Chain;
use crate::canon::{Dialect, Outcome, UsageSource};
use crate::error::{Error, Kind, retry_after_seconds};
use crate::route::plan::Stage;

// Checked when this is compiled, and not each time that one is said.
static SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
static ERROR: HeaderName = HeaderName::from_static("x-switchpoint-error");
static ANTHROPIC_ID: HeaderName = HeaderName::from_static("request-id");
static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static ROUTE: HeaderName = HeaderName::from_static("x-switchpoint-route");
pub(super) static ATTEMPTS: HeaderName = HeaderName::from_static("x-switchpoint-attempts");
static TASK: HeaderName = HeaderName::from_static("x-switchpoint-task");
static EXPLAIN: HeaderName = HeaderName::from_static("x-switchpoint-explain");
static PROVIDER: HeaderName = HeaderName::from_static("x-switchpoint-provider");
static MODEL: HeaderName = HeaderName::from_static("x-switchpoint-model");
static DROPPED: HeaderName = HeaderName::from_static("x-switchpoint-dropped");
static FLAGGED: HeaderName = HeaderName::from_static("x-switchpoint-flagged");
static DEGRADED: HeaderName = HeaderName::from_static("x-switchpoint-degraded");
static OVERHEAD_US: HeaderName = HeaderName::from_static("x-switchpoint-overhead-us");
static TOKENS: HeaderName = HeaderName::from_static("x-switchpoint-tokens");
static CACHE: HeaderName = HeaderName::from_static("x-switchpoint-cache");
static COST_USD: HeaderName = HeaderName::from_static("x-switchpoint-cost-usd");

impl Call {
    /// The reply that says what went wrong.
    pub(super) fn refuse(mut self: Box<Self>, mut error: Error) -> Response<Body> {
        self.ends(outcome_of(error.kind));
        error.attempts.clone_from(&self.record.attempts);
        let body = self.client().write_error(&error);
        let status = StatusCode::from_u16(error.status()).unwrap_or(StatusCode::BAD_GATEWAY);
        let mut response = self.respond(status, HeaderValue::from_static("application/json"));
        if let Some(wait) = error.retry_after {
            let seconds = HeaderValue::from(retry_after_seconds(wait));
            response.headers_mut().insert(RETRY_AFTER, seconds);
        }
        if error.is_final {
            response.headers_mut().insert(&SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        response.headers_mut().insert(&ERROR, HeaderValue::from_static(error.kind.code()));
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
        headers.reserve(if self.is_counted() { 20 } else { 10 });
        headers.insert(CONTENT_TYPE, content_type);
        let mut id = [0; 36];
        if let Ok(id) = HeaderValue::from_str(self.record.id.encode(&mut id)) {
            if self.surface().dialect() == Some(Dialect::Messages) {
                headers.insert(&ANTHROPIC_ID, id.clone());
            }
            headers.insert(&REQUEST_ID, id);
        }
        self.say_limits(headers);
        if let Some(flagged) = self.guarding.as_ref().and_then(|guarding| guarding.flagged())
            && let Ok(flagged) = HeaderValue::from_str(&flagged)
        {
            headers.insert(&FLAGGED, flagged);
        }
        let Some(chain) = &self.chain else { return response };
        if let Some(route) = &chain.header {
            headers.insert(&ROUTE, route.clone());
        }
        let attempts = self.record.attempts.len() + usize::from(self.place().is_some());
        headers.insert(&ATTEMPTS, HeaderValue::from(attempts));
        if let Some(task) = self.record.task {
            headers.insert(&TASK, HeaderValue::from_static(task.name()));
        }
        if let Some(explanation) = &self.explanation {
            headers.insert(&EXPLAIN, explanation.clone());
        }
        if let Some(cache) = self.record.cache {
            headers.insert(&CACHE, HeaderValue::from_static(cache.name()));
        }
        if let Some(recalled) = &self.recalled {
            headers.insert(AGE, HeaderValue::from(recalled.age));
        }
        self.say_target(chain, headers);
        response
    }

    /// Who answers, and what that came to.
    fn say_target(&self, chain: &Chain, headers: &mut HeaderMap) {
        let recalled = || self.last_target().filter(|_| self.recalled.is_some());
        let Some(target) = self.target().or_else(recalled) else { return };
        if let Some(provider) = &target.provider_header {
            headers.insert(&PROVIDER, provider.clone());
        }
        if let Some(model) = &target.model_header {
            headers.insert(&MODEL, model.clone());
        }
        if !self.record.dropped.is_empty()
            && let Ok(dropped) = HeaderValue::from_str(&self.record.dropped.join(","))
        {
            headers.insert(&DROPPED, dropped);
        }
        let stage = self.place().map_or(Stage::Own, |place| chain.stage(place));
        if stage != Stage::Own {
            headers.insert(&DEGRADED, HeaderValue::from_static(stage.name()));
        }
        let overhead = u64::try_from(self.record.overhead.as_micros()).unwrap_or(u64::MAX);
        headers.insert(&OVERHEAD_US, HeaderValue::from(overhead));
        if self.record.usage_source == UsageSource::Provider {
            let tokens = HeaderValue::from(self.record.usage.total());
            headers.insert(&TOKENS, tokens);
        }
        if let Some(cost) = self.record.cost.map(|cost| cost.to_string())
            && let Ok(cost) = HeaderValue::from_str(&cost)
        {
            headers.insert(&COST_USD, cost);
        }
    }
}

/// How a call ends that is answered with an error of this kind.
pub(super) fn outcome_of(kind: Kind) -> Outcome {
    match kind {
        Kind::UpstreamTimeout => Outcome::Timeout,
        Kind::RateLimited => Outcome::RateLimited,
        Kind::BudgetExceeded => Outcome::BudgetExceeded,
        Kind::UpstreamError | Kind::UpstreamUnavailable | Kind::ToolFailed => {
            Outcome::UpstreamError
        }
        Kind::StreamTruncated => Outcome::UpstreamTruncated,
        Kind::Internal => Outcome::Internal,
        Kind::GuardBlocked => Outcome::GuardBlocked,
        Kind::InvalidRequest
        | Kind::TooLarge
        | Kind::MissingKey
        | Kind::InvalidKey
        | Kind::ExpiredKey
        | Kind::UnpricedModel
        | Kind::NotAllowed
        | Kind::NotFound
        | Kind::Missing
        | Kind::MethodNotAllowed
        | Kind::ModelNotFound
        | Kind::Unsupported
        | Kind::ContextTooLong
        | Kind::ContentFiltered
        | Kind::Unprocessable
        | Kind::KeyRevoked
        | Kind::Conflict
        | Kind::OwnedByFile
        | Kind::AgentNotFound
        | Kind::AgentNotAllowed
        | Kind::RunNotFound
        | Kind::InvalidTransition
        | Kind::AlreadyDecided
        | Kind::ArgsChanged
        | Kind::PreconditionRequired
        | Kind::ToolNotFound
        | Kind::ApprovalRequired
        | Kind::Overloaded => Outcome::Refused,
    }
}
