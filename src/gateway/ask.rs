//! One attempt: a question in its target's words, sent, and the answer taken in.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
use tokio::time::{Instant, timeout, timeout_at};

use super::arrival::Question;
use super::bearings::ATTEMPT;
use super::call::Call;
use super::errand::{Errand, Wording};
use super::flow::{Flow, Step};
use super::form::{self, Label};
use super::relayed::Incoming;
use super::snapshot::{STREAM_HEADERS, Target};
use super::traced::Headers;
use super::{count, guarding, relayed, remember, reword, whole};
use crate::canon::{
    Attempt, ChatRequest, ChatResponse, Dialect, FinishReason, Outcome, Surface, Usage,
};
use crate::config::OnBreak;
use crate::dialect::completions::NATIVE;
use crate::dialect::keepsake::Keepsake;
use crate::dialect::openai::{MediaReader, Tap, read_error};
use crate::dialect::passage::{Passage, last_data};
use crate::dialect::splice::{self, Payload};
use crate::dialect::{self, Context, UpstreamSide, eventstream};
use crate::guard::Blocked;
use crate::net::client::{Fault, Reply, ReplyBody};
use crate::provider::{Cause, Failure, Operation, Order, Unanswered};

/// The longest whole answer and the longest error body that are read.
pub(super) const LONGEST_ANSWER: usize = 64 * 1024 * 1024;
const LONGEST_ERROR: usize = 64 * 1024;
const ERROR_WAIT: Duration = Duration::from_secs(5);

/// What a target answers.
#[derive(Debug)]
pub(super) enum Answer {
    Whole {
        content_type: HeaderValue,
        body: Bytes,
    },
    /// A stream whose first content is there.
    Stream(Box<Flow>),
    /// Bytes that are passed on as they come.
    Bytes(Box<Incoming>),
}

/// An answer, and what its call is to note of it.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) answer: Answer,
    /// When its first content was there.
    pub(super) first_token: Instant,
    /// What it used as its provider says, if it does, and its output by estimate. `None` where
    /// that is not known yet, or nothing was used.
    pub(super) usage: Option<(Option<Usage>, u64)>,
    /// What the provider will want back and the client may not carry.
    pub(super) keepsakes: Vec<Keepsake>,
    /// The whole response, should it be kept, and whether it is in the provider's own words.
    pub(super) response: Option<(Bytes, bool)>,
    /// Why it ended, where it is whole.
    pub(super) finish: Option<FinishReason>,
    /// A guard objects to it: it goes no further.
    pub(super) blocked: Option<Blocked>,
    /// The whole answer in our own words, should it be remembered.
    pub(super) canon: Option<Box<ChatResponse>>,
    /// Fields that it does without, besides those that its errand names.
    pub(super) lost: Vec<Cow<'static, str>>,
}

impl Answered {
    pub(super) fn new(answer: Answer) -> Self {
        let first_token = Instant::now();
        let (usage, keepsakes, response) = (None, Vec::new(), None);
        let (finish, blocked, canon, lost) = (None, None, None, Vec::new());
        Self { answer, first_token, usage, keepsakes, response, finish, blocked, canon, lost }
    }

    /// One that goes no further.
    pub(super) fn objected(blocked: Blocked) -> Self {
        let answer = Answer::Whole { content_type: JSON, body: Bytes::new() };
        Self { blocked: Some(blocked), ..Self::new(answer) }
    }
}

/// One attempt.
pub(super) async fn ask(
    call: &Call,
    question: &Question,
    target: &Target,
    errand: &Errand,
    credential: usize,
) -> Result<Answered, Box<Failure>> {
    if let Wording::Vectors(vectors) = &errand.wording {
        return Box::pin(vectors.ask(call, question, target, credential)).await;
    }
    if let Wording::Counted(payload) = &errand.wording {
        let counted = count::ask(call, question, target, errand, payload, credential);
        return Box::pin(counted).await;
    }
    let mode = match (&errand.wording, errand.operation) {
        (
            Wording::Verbatim,
            Operation::Completions | Operation::Chat { dialect: Dialect::Chat, .. },
        ) => target.provider.usage(),
        _ => splice::Usage::Leave,
    };
    match ask_so(call, question, target, errand, credential, mode).await {
        // A server that does not know `stream_options` may refuse it: ask without, and remember.
        Err(failure) if mode == splice::Usage::Ask && refuses_stream_options(&failure) => {
            target.provider.omit_stream_options();
            Box::pin(ask_so(call, question, target, errand, credential, splice::Usage::Omit)).await
        }
        // So may a model of which nobody knows whether it thinks, or how it is told how much.
        Err(failure) if errand.asks_for_thoughts(question) && refuses_thoughts(&failure) => {
            if is_sober(&failure) {
                target.standing.sobers();
                let (provider, model) = (&target.provider.name, &target.model);
                tracing::info!(%provider, %model, "does not think, and is not asked to any more");
            }
            let plain = errand.without_thoughts(call, question, target);
            let Some(plain) = plain else { return Err(failure) };
            let again = ask_so(call, question, target, &plain, credential, mode);
            let answered = Box::pin(again).await?;
            let is_new = |name: &Cow<'static, str>| !errand.dropped.contains(name);
            Ok(Answered { lost: plain.dropped.into_iter().filter(is_new).collect(), ..answered })
        }
        result => result,
    }
}

/// How servers say that a model does not think: Ollama, OpenAI, Groq, xAI, and Gemini's.
const SOBER: [&str; 5] = [
    "does not support thinking",
    "request argument supplied: reasoning_effort",
    "`reasoning_effort` is not supported with this model",
    "does not support parameter reasoningeffort",
    "thinking is not supported by this model",
];

/// What servers call how much a model is to think, where they refuse what they are told of it.
const EFFORT: [&str; 4] =
    ["reasoning_effort", "reasoning.effort", "reasoning effort", "reasoningeffort"];

fn is_sober(failure: &Failure) -> bool {
    says(failure.message.as_ref(), &SOBER)
}

fn refuses_thoughts(failure: &Failure) -> bool {
    let (message, param) = (failure.message.as_ref(), failure.upstream.param.as_ref());
    matches!(failure.status, 400 | 422)
        && (is_sober(failure) || says(message, &EFFORT) || says(param, &EFFORT))
}

fn says(text: Option<&String>, words: &[&str]) -> bool {
    let text = text.map(|text| text.to_ascii_lowercase()).unwrap_or_default();
    words.iter().any(|words| text.contains(words))
}

fn refuses_stream_options(failure: &Failure) -> bool {
    let names = |text: &String| text.contains("stream_options") || text.contains("include_usage");
    matches!(failure.status, 400 | 422)
        && (failure.message.as_ref().is_some_and(names)
            || failure.upstream.param.as_ref().is_some_and(names))
}

async fn ask_so(
    call: &Call,
    question: &Question,
    target: &Target,
    errand: &Errand,
    credential: usize,
    mode: splice::Usage,
) -> Result<Answered, Box<Failure>> {
    let limits = &target.limits;
    let (payload, usage_added) = payload(question, target, errand, mode);
    let extra = headers(call, question, target, errand);
    let order = Order {
        operation: errand.operation,
        model: &target.model,
        payload: &payload,
        credential,
        extra: &extra,
        connect_limit: limits.connect,
        form: relayed::form(question.relayed.as_ref()),
        left: call.left(target),
    };
    let sent = Instant::now();
    let end = call.end(limits);
    let mut reply = send(question, target, order, end).await?;
    if !(200..300).contains(&reply.status) {
        return Err(Box::pin(refused(target, reply)).await.into());
    }
    let label = Label::of(&reply);
    // A relayed question may ask for a stream under other names.
    let is_stream = if question.relayed.is_some() {
        label.says_events() && !call.gathers()
    } else {
        let wanted = question.envelope.stream && !call.gathers();
        wanted && label.streams(&mut reply, limits, sent, end).await?
    };
    if is_stream {
        let passage = passage(call, question, target, errand, usage_added);
        let flow = Flow::new(reply.body, label.is_binary, passage);
        let Some(mut flow) = guarding::screened(call, question, flow) else {
            return Err(guarding::unscreened(target, reply.status).into());
        };
        flow.recorder = remember::recorder(call, errand);
        let due = (sent + limits.first_token).min(end);
        let hold_back = call.wishes().map_or(Duration::ZERO, |wishes| wishes.hold_back);
        return first_content(call, target, flow, reply.status, due, hold_back).await;
    }
    if question.relayed.is_some() {
        let due = (Instant::now() + limits.first_token).min(end);
        return Box::pin(relayed::answer(call.surface(), reply, due)).await;
    }
    read_answer(call, question, target, errand, (reply, label), end).await
}

/// What stands in the head of this request alone. A gateway that is asked the same once more is told
/// so, and tries less often itself; to others that means nothing.
fn headers<'a>(
    call: &Call,
    question: &'a Question,
    target: &Target,
    errand: &Errand,
) -> Cow<'a, Headers> {
    let mut extra: Cow<'_, Headers> = if errand.headers.is_empty() {
        Cow::Borrowed(&question.extra)
    } else {
        question.extra.iter().chain(&errand.headers).cloned().collect()
    };
    let is_same = |before: &&Attempt| {
        *before.model == *target.model && *before.provider == *target.provider.name
    };
    let before = call.attempts().iter().filter(is_same).count();
    if before > 0 {
        extra.to_mut().push((HeaderName::from_static(ATTEMPT), HeaderValue::from(before)));
    }
    call.with_parent(target, extra)
}

/// Takes in a whole answer, or all of a stream.
async fn read_answer(
    call: &Call,
    question: &Question,
    target: &Target,
    errand: &Errand,
    (reply, label): (Reply, Label),
    end: Instant,
) -> Result<Answered, Box<Failure>> {
    let limits = &target.limits;
    let streams = label.says_events();
    let idle = if streams { limits.idle.max(limits.first_token) } else { limits.idle };
    let body = timeout_at(end, read_whole(reply.body, idle, LONGEST_ANSWER))
        .await
        .map_err(|_| Failure::of(Cause::TotalTimeout, reply.status))?
        .map_err(|unread| unread.into_failure(reply.status))?;
    if says_error(&body) {
        return Err(target.provider.reported(reply.status, &body).into());
    }
    let broken = |_| Box::new(Failure::of(Cause::Malformed, reply.status));
    let body = if label.is_binary { eventstream::lines(&body).map_err(broken)? } else { body };
    let (content_type, body) = label.mended(body);
    let (said, is_stream) = (body.clone(), form::is_events(&content_type));
    let malformed = |_| {
        let data = if is_stream { reword::failure_in(&said) } else { Some(said) };
        let confessed = data.and_then(|data| confessed(target, reply.status, &data));
        Box::new(confessed.unwrap_or_else(|| Failure::of(Cause::Malformed, reply.status)))
    };
    if call.screens() {
        let guarded = whole::guarded(call, question, target, errand, content_type, body);
        return Box::pin(guarded).await.map_err(malformed);
    }
    if whole::other_form(question, errand, &content_type).is_some() {
        Box::pin(question.understand(call)).await;
    }
    whole::whole(call, question, target, errand, content_type, body).map_err(malformed)
}

/// The bytes that leave, and whether they ask for usage that the client did not ask for.
fn payload(
    question: &Question,
    target: &Target,
    errand: &Errand,
    mode: splice::Usage,
) -> (Payload, bool) {
    match &errand.wording {
        Wording::Translated { body, .. } => (body.clone(), false),
        Wording::Vectors(_) | Wording::Counted(_) | Wording::Local(_) => {
            (Payload::default(), false)
        }
        Wording::Verbatim => {
            let model = match &question.relayed {
                Some(relayed) => relayed.model_edit(target),
                None => model_edit(errand.operation, target),
            };
            let (mut edits, usage_added) = splice::edits(&question.envelope, model, mode);
            let is_chat =
                matches!(errand.operation, Operation::Chat { dialect: Dialect::Chat, .. });
            if let Some(limit) = target.limit_name.filter(|_| is_chat) {
                edits.extend(splice::rename_limit(&question.envelope, limit));
                edits.sort_unstable_by_key(|edit| edit.span.start);
            }
            (question.payload.edited(&edits), usage_added)
        }
    }
}

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Sends the question and waits for the head of the answer.
pub(super) async fn send(
    question: &Question,
    target: &Target,
    order: Order<'_>,
    end: Instant,
) -> Result<Reply, Box<Failure>> {
    let limits = &target.limits;
    // Pinned, so that neither road holds it a second time.
    let mut answer = pin!(target.provider.send(order));
    let answer = if let Some(rest) = question.rest() {
        Box::pin(rest.send(answer.as_mut(), limits, end)).await
    } else {
        let headers = limits.headers.or_else(|| question.envelope.stream.then_some(STREAM_HEADERS));
        let due = headers.map_or(end, |limit| (Instant::now() + limit).min(end));
        timeout_at(due, answer.as_mut()).await.ok()
    };
    let answer = answer.ok_or_else(|| Failure::timeout(0))?;
    answer.map_err(|fault| unanswered(target, &fault).into())
}

/// What becomes of the model in a body that is passed on.
fn model_edit(operation: Operation, target: &Target) -> splice::Model {
    match operation {
        Operation::Chat { dialect: Dialect::Gemini | Dialect::Converse, .. } => {
            splice::Model::Leave
        }
        Operation::Chat { dialect: Dialect::Messages, .. }
            if target.provider.kind.traits.model_in_path =>
        {
            splice::Model::Member(dialect::VERTEX_VERSION)
        }
        _ => splice::Model::Value(target.quoted.clone()),
    }
}

/// How the stream that begins gets to the client.
fn passage(
    call: &Call,
    question: &Question,
    target: &Target,
    errand: &Errand,
    usage_added: bool,
) -> Passage {
    let choices = question.envelope.choices;
    if question.relayed.is_some() {
        return Passage::watched(Dialect::Responses, Box::new(MediaReader::default()), choices);
    }
    match (&errand.wording, errand.operation) {
        (Wording::Translated { into, .. }, _) => {
            let reader =
                whole::aliases(question, *into).restoring(dialect::upstream(*into).reader());
            let input = call.input_estimate();
            let writer =
                with_context(call, question, target, |context| call.client().writer(&context));
            match writer {
                Some(writer) => {
                    let chat = question.chat().ok();
                    let choices = chat.and_then(|asked| asked.request.sampling.choices);
                    let choices = choices.unwrap_or(1);
                    let passage = Passage::translated(reader, writer, choices, input);
                    let seam =
                        call.wishes().is_some_and(|wishes| wishes.on_break == OnBreak::Continue);
                    if seam { passage.with_seam(question.is_carried_on()) } else { passage }
                }
                None => Passage::watched(*into, reader, 1),
            }
        }
        (
            Wording::Verbatim,
            Operation::Chat {
                dialect:
                    dialect @ (Dialect::Responses
                    | Dialect::Messages
                    | Dialect::Gemini
                    | Dialect::Converse
                    | Dialect::Cohere),
                ..
            },
        ) => Passage::watched(dialect, dialect::upstream(dialect).reader(), choices),
        (Wording::Verbatim, Operation::Completions) if call.screens() => {
            let writer =
                with_context(call, question, target, |context| call.client().writer(&context));
            match writer {
                Some(writer) => {
                    let (reader, input) = (NATIVE.reader(), call.input_estimate());
                    Passage::translated(reader, writer, choices, input)
                }
                None => Passage::Tapped(Tap::new(choices, usage_added)),
            }
        }
        (_, _) => Passage::Tapped(Tap::new(choices, usage_added)),
    }
}

/// Calls `write` with what a writer of answers must know. `None` if the question was never read,
/// which a translated one always is.
pub(super) fn with_context<T>(
    call: &Call,
    question: &Question,
    target: &Target,
    write: impl FnOnce(Context<'_>) -> T,
) -> Option<T> {
    let completion;
    let request = match question.chat() {
        Ok(asked) => &asked.request,
        // Nobody has read it, for its target takes it as it is.
        Err(_) if call.surface() == Surface::Completions => {
            completion = ChatRequest { include_usage: call.usage_asked, ..ChatRequest::default() };
            &completion
        }
        Err(_) => return None,
    };
    let (id, created) = call.stamp();
    let context = Context {
        id: &id,
        created,
        model: &target.model,
        input_estimate: call.input_estimate(),
        previous: question.envelope.previous.as_deref(),
        request,
    };
    Some(write(context))
}

fn unanswered(target: &Target, unanswered: &Unanswered) -> Failure {
    // The cause is for the operator: it may name hosts that clients are not to know.
    tracing::warn!(provider = %target.provider.name, cause = %unanswered, "an upstream gave no answer");
    let fault = match unanswered {
        Unanswered::Net(fault) => fault,
        Unanswered::Unproven(_) => return Failure::unreachable(),
    };
    match fault {
        Fault::Connect(cause) if cause.kind() == std::io::ErrorKind::TimedOut => {
            Failure::of(Cause::ConnectTimeout, 0)
        }
        Fault::Connect(_) => Failure::unreachable(),
        // The client's doing; whoever walks the targets asks the upload for the reason.
        Fault::Upload(_) => Failure { outcome: Outcome::ClientClosed, ..Failure::truncated(0) },
        Fault::Closed { .. } => Failure::of(Cause::Closed, 0),
        Fault::Malformed(_) => Failure::of(Cause::Malformed, 0),
    }
}

pub(super) async fn refused(target: &Target, reply: Reply) -> Failure {
    let read = read_whole(reply.body, ERROR_WAIT, LONGEST_ERROR);
    let body = timeout(ERROR_WAIT, read).await.ok().and_then(Result::ok).unwrap_or_default();
    target.provider.classify(reply.status, &reply.headers, &body)
}

/// Reads a stream up to its first content, and on for as long as that is held back: until then
/// another target can still take over.
async fn first_content(
    call: &Call,
    target: &Target,
    flow: Flow,
    status: u16,
    due: Instant,
    hold_back: Duration,
) -> Result<Answered, Box<Failure>> {
    let mut flow = Box::new(flow);
    let mut first_token = None;
    loop {
        let sight = flow.passage.sight();
        if sight.finished || sight.done || flow.passage.is_stopped() {
            break;
        }
        if sight.content && first_token.is_none() {
            first_token = Some(Instant::now());
        }
        let held = first_token.map(|since: Instant| since + hold_back);
        if held.is_some_and(|held| hold_back.is_zero() || held <= Instant::now()) {
            break;
        }
        let step = timeout_at(held.unwrap_or(due), poll_fn(|context| flow.poll_step(context)));
        match step.await {
            Err(_) if held.is_some() => break,
            Err(_) => return Err(Failure::of(Cause::FirstTokenTimeout, status).into()),
            Ok(Step::Data) => {}
            Ok(Step::Failed(event)) => {
                return Err(broke(call, &flow, reported(target, &flow, status, &event)));
            }
            Ok(Step::Ended) if flow.passage.sight().finished => break,
            Ok(Step::Ended | Step::Cut(_)) => {
                return Err(broke(call, &flow, Failure::truncated(status)));
            }
        }
    }
    let (sight, stopped) = (flow.passage.sight(), flow.passage.is_stopped());
    if !stopped && sight.says_nothing() {
        return Err(Failure::of(Cause::EmptyStream, status).into());
    }
    if !stopped && sight.ends_short() {
        return Err(Failure::truncated(status).into());
    }
    // As with whole answers: a call that its model did not get right is none.
    let is_lost = !sight.content && sight.finish == Some(FinishReason::Malformed);
    if !stopped && is_lost && !flow.passage.is_verbatim() && call.surface() != Surface::Turn {
        return Err(Failure::of(Cause::Malformed, status).into());
    }
    if flow.passage.is_untold() {
        let (usage, told) = flow.passage.sight().used(call.input_estimate());
        let blocked = call.guarding.as_ref().and_then(|guarding| guarding.blocked());
        let usage = Some((Some(usage).filter(|_| told), usage.output));
        return Ok(Answered { usage, ..Answered::objected(blocked.unwrap_or_default()) });
    }
    let answered = Answered::new(Answer::Stream(flow));
    Ok(Answered { first_token: first_token.unwrap_or(answered.first_token), ..answered })
}

/// The failure of an answer, which counts what was said of it, though nobody has heard that.
fn broke(call: &Call, flow: &Flow, failure: Failure) -> Box<Failure> {
    let sight = flow.passage.sight();
    let used = sight.content.then(|| Box::new(sight.used(call.input_estimate()).0));
    Failure { used, ..failure }.into()
}

/// The failure that a stream reports with this event.
fn reported(target: &Target, flow: &Flow, status: u16, event: &Bytes) -> Failure {
    if let Some(heard) = &flow.passage.sight().failure {
        return target.provider.heard(status, heard);
    }
    target.provider.reported(status, last_data(event).unwrap_or_default().trim_ascii())
}

/// The failure that a success in name tells of, if what is no answer is that.
pub(super) fn confessed(target: &Target, status: u16, body: &[u8]) -> Option<Failure> {
    read_error(body).map(|_| target.provider.reported(status, body))
}

/// Whether what claims to be a success is an error: its first key is `error`, and not null, or its
/// `type` or `object` is that.
pub(super) fn says_error(body: &[u8]) -> bool {
    let inside = body.trim_ascii_start().strip_prefix(b"{").unwrap_or_default();
    let value = |key: &[u8]| {
        let rest = inside.trim_ascii_start().strip_prefix(key)?.trim_ascii_start();
        Some(rest.strip_prefix(b":")?.trim_ascii_start())
    };
    let error =
        value(b"\"error\"").is_some_and(|value| !value.is_empty() && !value.starts_with(b"null"));
    let is_error = |key| value(key).is_some_and(|value| value.starts_with(b"\"error\""));
    error || is_error(b"\"type\"") || is_error(b"\"object\"")
}

/// Why a whole answer could not be read.
pub(super) enum Unread {
    Silent,
    Broken,
    TooLong,
}

impl Unread {
    pub(super) fn into_failure(self, status: u16) -> Failure {
        match self {
            Self::Silent => Failure::of(Cause::IdleTimeout, status),
            Self::Broken => Failure::truncated(status),
            Self::TooLong => Failure::of(Cause::TooLong, status),
        }
    }
}

pub(super) async fn read_whole(
    mut body: ReplyBody,
    idle: Duration,
    limit: usize,
) -> Result<Bytes, Unread> {
    let mut whole = BytesMut::new();
    loop {
        let more = timeout(idle, poll_fn(|context| body.poll_data(context, &mut whole)));
        match more.await.map_err(|_| Unread::Silent)? {
            Ok(true) if whole.len() > limit => return Err(Unread::TooLong),
            Ok(true) => {}
            Ok(false) => return Ok(whole.freeze()),
            Err(_) => return Err(Unread::Broken),
        }
    }
}
