//! Walks the targets of a call until one answers: send, classify, go on. Only before the first
//! content is relayed.

use std::future::poll_fn;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use tokio::time::{Instant, timeout, timeout_at};

use super::arrival::Question;
use super::call::Call;
use super::flow::{Flow, Step};
use super::snapshot::{STREAM_HEADERS, Target};
use crate::canon::{Outcome, Surface};
use crate::dialect::openai::{Tap, read_usage};
use crate::dialect::passage::Passage;
use crate::dialect::splice::{self, Usage};
use crate::error::{Error, Kind, Upstream};
use crate::net::client::{Fault, Reply, ReplyBody};
use crate::provider::{Failure, Next, Order, Provider};

/// A longer whole answer is refused.
const LONGEST_ANSWER: usize = 256 * 1024 * 1024;
/// As much of an error's body is read, and for as long.
const LONGEST_ERROR: usize = 64 * 1024;
const ERROR_WAIT: Duration = Duration::from_secs(5);

/// What a target answered.
#[derive(Debug)]
pub(super) enum Answer {
    Whole {
        content_type: HeaderValue,
        body: Bytes,
    },
    /// A stream whose first content is there.
    Stream(Box<Flow>),
}

/// Tries the targets in order. The question is let go as soon as no further attempt can need it.
pub(super) async fn walk(
    mut call: Box<Call>,
    question: Question,
) -> (Box<Call>, Result<Answer, Error>) {
    let answer = try_targets(&mut call, &question).await;
    (call, answer)
}

async fn try_targets(call: &mut Call, question: &Question) -> Result<Answer, Error> {
    let Some(chain) = call.chain.clone() else {
        return Err(Error::new(Kind::Internal, "The call has no targets."));
    };
    let surface = call.surface();
    let mut left = chain.attempts;
    let mut last: Option<(Failure, &Target)> = None;
    let mut shortest_wait: Option<Duration> = None;
    for (place, target) in chain.targets.iter().enumerate() {
        if !target.provider.serves(surface) {
            continue;
        }
        let first = target.provider.first_credential();
        for credential in first..first + target.provider.credentials() {
            if left == 0 {
                break;
            }
            call.attempt_begins(place);
            let failure = match ask(call, question, target, credential).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            call.attempt_ended(failure.outcome, failure.status);
            shortest_wait = shortest_wait.into_iter().chain(failure.retry_after).min();
            let next = failure.next;
            // A key that is dead has cost nothing, so it does not count.
            left -= u32::from(next != Next::Key || failure.outcome == Outcome::RateLimited);
            tracing::debug!(
                provider = %target.provider.name, model = %target.model, status = failure.status,
                outcome = failure.outcome.name(), "an attempt failed"
            );
            last = Some((failure, target));
            match next {
                Next::Key => {}
                Next::Target => break,
                Next::Final => left = 0,
            }
        }
    }
    Err(match last {
        Some((failure, target)) => explain(call, failure, target, shortest_wait),
        None => Error::new(
            Kind::Unsupported,
            format!("No target of `{}` can answer {} requests.", chain.name, surface.name()),
        ),
    })
}

/// What the client is told when no target answered.
fn explain(call: &Call, failure: Failure, target: &Target, wait: Option<Duration>) -> Error {
    let Failure { status, kind, next, .. } = failure;
    let provider = &target.provider;
    // What is said of our own credentials is not for the client.
    let said = failure.message.filter(|_| !matches!(status, 401..=403));
    let said = said.map(|text| provider.redact(text));
    let mut error = if next == Next::Final {
        let mut error = Error::new(kind, said.unwrap_or_else(|| refusal(provider, status)));
        error.status = Some(status);
        let Upstream { kind, param, code } = failure.upstream;
        let shown = |field: Option<String>| field.map(|text| provider.redact(text));
        let upstream = Upstream { kind: shown(kind), param: shown(param), code: shown(code) };
        error.upstream = Some(Box::new(upstream));
        error
    } else {
        let tried = call.attempts().len();
        let mut text = match (kind, status) {
            (Kind::UpstreamTimeout, _) => format!("`{}` did not answer in time", provider.name),
            (Kind::UpstreamUnavailable, _) => format!("`{}` cannot be reached", provider.name),
            (_, 0 | 200..=299) => format!("`{}` broke its answer off", provider.name),
            _ => refusal(provider, status),
        };
        if tried > 1 {
            text = format!("All {tried} attempts failed; the last: {text}");
        }
        let said = said.map_or_else(|| ".".to_owned(), |said| format!(": {said}"));
        Error::new(kind, text + &said)
    };
    error.retry_after = wait.filter(|_| matches!(error.status(), 429 | 503));
    error
}

fn refusal(provider: &Provider, status: u16) -> String {
    match status {
        401..=403 => format!("`{}` refused the gateway's credentials", provider.name),
        _ => format!("`{}` answered with status {status}", provider.name),
    }
}

/// One attempt.
async fn ask(
    call: &mut Call,
    question: &Question,
    target: &Target,
    credential: usize,
) -> Result<Answer, Failure> {
    let mode = match call.surface() {
        Surface::Chat | Surface::Completions => target.provider.usage(),
        Surface::Embeddings => Usage::Leave,
    };
    match ask_so(call, question, target, (credential, mode)).await {
        // A server that does not know `stream_options` may refuse it: ask without, and remember.
        Err(failure) if mode == Usage::Ask && refuses_stream_options(&failure) => {
            target.provider.omit_stream_options();
            ask_so(call, question, target, (credential, Usage::Omit)).await
        }
        result => result,
    }
}

fn refuses_stream_options(failure: &Failure) -> bool {
    let names = |text: &String| text.contains("stream_options") || text.contains("include_usage");
    matches!(failure.status, 400 | 422)
        && (failure.message.as_ref().is_some_and(names)
            || failure.upstream.param.as_ref().is_some_and(names))
}

async fn ask_so(
    call: &mut Call,
    question: &Question,
    target: &Target,
    (credential, mode): (usize, Usage),
) -> Result<Answer, Failure> {
    let envelope = &question.envelope;
    let limits = &target.limits;
    let (edits, usage_added) = splice::edits(envelope, target.quoted.clone(), mode);
    let payload = question.payload.edited(&edits);
    let order = Order {
        surface: call.surface(),
        model: &target.model,
        payload: &payload,
        credential,
        extra: &question.extra,
        connect_limit: limits.connect,
    };
    let sent = Instant::now();
    let end = call.started + limits.total;
    let headers = limits.headers.or_else(|| envelope.stream.then_some(STREAM_HEADERS));
    let head_due = headers.map_or(end, |limit| (sent + limit).min(end));
    let reply = match timeout_at(head_due, target.provider.send(order)).await {
        Ok(Ok(reply)) => reply,
        Ok(Err(fault)) => return Err(unanswered(target, &fault)),
        Err(_) => return Err(Failure::timeout(0)),
    };
    if !(200..300).contains(&reply.status) {
        return Err(refused(target, reply).await);
    }
    let content_type = reply.headers.get(CONTENT_TYPE).cloned();
    let content_type = content_type.unwrap_or_else(|| HeaderValue::from_static("application/json"));
    if envelope.stream && content_type.as_bytes().starts_with(b"text/event-stream") {
        let passage = Passage::Tapped(Tap::new(envelope.choices, usage_added));
        let due = (sent + limits.first_token).min(end);
        let flow = Flow::new(reply.body, passage);
        return first_content(call, flow, reply.status, due).await;
    }
    let body = timeout_at(end, read_whole(reply.body, limits.idle, LONGEST_ANSWER))
        .await
        .map_err(|_| Failure::timeout(reply.status))?
        .map_err(|unread| unread.into_failure(reply.status))?;
    if says_error(&body) {
        return Err(Failure::in_band(reply.status, &body));
    }
    call.first_token();
    call.usage(read_usage(&body), body.len() as u64 / 4);
    Ok(Answer::Whole { content_type, body })
}

fn unanswered(target: &Target, fault: &Fault) -> Failure {
    // The cause is for the operator: it may name hosts that clients are not to know.
    tracing::warn!(provider = %target.provider.name, cause = %fault, "an upstream gave no answer");
    match fault {
        Fault::Connect(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
            Failure::timeout(0)
        }
        Fault::Connect(_) => Failure::unreachable(),
        Fault::Closed { .. } | Fault::Malformed(_) => Failure::truncated(0),
    }
}

async fn refused(target: &Target, reply: Reply) -> Failure {
    let read = read_whole(reply.body, ERROR_WAIT, LONGEST_ERROR);
    let body = timeout(ERROR_WAIT, read).await.ok().and_then(Result::ok).unwrap_or_default();
    target.provider.classify(reply.status, &reply.headers, &body)
}

/// Reads a stream up to its first content; until then another target can still take over.
async fn first_content(
    call: &mut Call,
    flow: Flow,
    status: u16,
    due: Instant,
) -> Result<Answer, Failure> {
    let mut flow = Box::new(flow);
    while !flow.passage.sight().content && !flow.passage.sight().finished {
        let step = timeout_at(due, poll_fn(|context| flow.poll_step(context)));
        match step.await.map_err(|_| Failure::timeout(status))? {
            Step::Data => {}
            Step::Failed(event) => return Err(in_band(status, &event)),
            Step::Ended if flow.passage.sight().finished => break,
            Step::Ended | Step::Cut(_) => return Err(Failure::truncated(status)),
        }
    }
    if flow.passage.sight().says_nothing() {
        return Err(Failure::truncated(status));
    }
    call.first_token();
    Ok(Answer::Stream(flow))
}

/// The failure that an event inside a stream reports.
fn in_band(status: u16, event: &Bytes) -> Failure {
    let data = event.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"data:"));
    Failure::in_band(status, data.unwrap_or_default().trim_ascii())
}

/// Whether what claims to be a success is an error: its first key is `error`, and not null.
fn says_error(body: &[u8]) -> bool {
    let inside = body.trim_ascii_start().strip_prefix(b"{").unwrap_or_default();
    let value = inside.trim_ascii_start().strip_prefix(b"\"error\"").unwrap_or_default();
    let value = value.trim_ascii_start().strip_prefix(b":").unwrap_or_default().trim_ascii_start();
    !value.is_empty() && !value.starts_with(b"null")
}

/// Why a whole answer could not be read.
enum Unread {
    Silent,
    Broken,
}

impl Unread {
    fn into_failure(self, status: u16) -> Failure {
        match self {
            Self::Silent => Failure::timeout(status),
            Self::Broken => Failure::truncated(status),
        }
    }
}

async fn read_whole(mut body: ReplyBody, idle: Duration, limit: usize) -> Result<Bytes, Unread> {
    let mut whole = BytesMut::new();
    loop {
        let more = timeout(idle, poll_fn(|context| body.poll_data(context, &mut whole)));
        match more.await.map_err(|_| Unread::Silent)? {
            Ok(true) if whole.len() > limit => return Err(Unread::Broken),
            Ok(true) => {}
            Ok(false) => return Ok(whole.freeze()),
            Err(_) => return Err(Unread::Broken),
        }
    }
}
