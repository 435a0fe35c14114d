//! One attempt: a question in its target's words, sent, and the answer taken in.

use std::borrow::Cow;
use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue};
use tokio::time::{Instant, timeout, timeout_at};

use super::arrival::{BETA, Question, VERSION};
use super::attempt::Answer;
use super::call::Call;
use super::embed::Vectors;
use super::flow::{Flow, Step};
use super::snapshot::{STREAM_HEADERS, Target};
use super::{relayed, reword};
use crate::canon::{ChatRequest, Dialect, Outcome, Surface};
use crate::dialect::marks::Mark;
use crate::dialect::messages::{self, betas};
use crate::dialect::openai::{MediaReader, Tap, read_usage};
use crate::dialect::passage::{Passage, last_data};
use crate::dialect::splice::{self, Payload, Usage};
use crate::dialect::{self, Aim, Context, Misread, estimate, gemini, marks};
use crate::error::{Error, Kind};
use crate::net::client::{Fault, Reply, ReplyBody};
use crate::provider::{Failure, Operation, Order, Unanswered, Way};

/// The longest whole answer and the longest error body that are read.
pub(super) const LONGEST_ANSWER: usize = 64 * 1024 * 1024;
const LONGEST_ERROR: usize = 64 * 1024;
const ERROR_WAIT: Duration = Duration::from_secs(5);

/// A question made ready for one target.
#[derive(Debug)]
pub(super) struct Errand {
    operation: Operation,
    wording: Wording,
    /// Fields that the target cannot take.
    pub(super) dropped: Vec<Cow<'static, str>>,
    /// Headers that the target's API wants, or the client wants it to have.
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Debug)]
enum Wording {
    /// As it came, but for what is spliced in when it is sent.
    Verbatim,
    Translated {
        body: Payload,
        into: Dialect,
    },
    /// Texts to be made vectors, in as many requests as that takes.
    Vectors(Vectors),
    /// The answer is made here.
    Local(Bytes),
}

/// Why a question is not sent to a target.
pub(super) enum Unfit {
    /// No target could take it.
    Question(Error),
    /// This one cannot; another may.
    Target(Error),
}

impl Errand {
    fn new(operation: Operation, wording: Wording) -> Self {
        Self { operation, wording, dropped: Vec::new(), headers: Vec::new() }
    }

    fn verbatim(question: &Question, surface: Surface, target: &Target) -> Self {
        let stream = question.envelope.stream;
        let operation = match (surface, surface.dialect()) {
            (Surface::Compact, _) => Operation::Compact,
            (_, Some(dialect)) if surface.is_chat() => Operation::Chat { dialect, stream },
            (_, Some(dialect)) => Operation::CountTokens(dialect),
            (Surface::Embeddings, None) => Operation::Embeddings,
            (_, None) => Operation::Completions,
        };
        let mut errand = Self::new(operation, Wording::Verbatim);
        if surface.dialect() != Some(Dialect::Messages) {
            return errand;
        }
        errand.says_version(target, question.version.clone());
        if let Some(header) = &question.betas {
            let (kept, lost) = betas(header, target.provider.kind.traits.betas);
            if let Some(kept) = HeaderValue::from_str(&kept).ok().filter(|kept| !kept.is_empty()) {
                errand.headers.push((HeaderName::from_static(BETA), kept));
            }
            errand.dropped = lost.into_iter().map(|lost| format!("{BETA}:{lost}").into()).collect();
        }
        errand
    }

    /// Anthropic's API demands a version: the client's own, or the one that our writers know.
    fn says_version(&mut self, target: &Target, version: Option<HeaderValue>) {
        if !target.provider.kind.traits.model_in_path {
            let version = version.unwrap_or(const { HeaderValue::from_static(messages::VERSION) });
            self.headers.push((HeaderName::from_static(VERSION), version));
        }
    }

    /// The answer, where no target is needed for it.
    pub(super) fn answer(&self) -> Option<Answer> {
        let Wording::Local(body) = &self.wording else { return None };
        Some(Answer::Whole { content_type: JSON, body: body.clone() })
    }
}

/// Puts the question into the target's words, where it speaks others than the client.
pub(super) async fn prepare(
    call: &Call,
    question: &Question,
    target: &Target,
) -> Result<Errand, Unfit> {
    let name = &target.provider.name;
    if let Some(keeper) = question.keeper.as_ref().filter(|keeper| *keeper != name) {
        let message = format!("`{name}` does not have the files: `{keeper}` keeps them.");
        return Err(Unfit::Target(Error::new(Kind::Unsupported, message)));
    }
    if let Some(relayed) = &question.relayed {
        let operation = relayed.operation(target).map_err(Unfit::Target)?;
        return Ok(Errand::new(operation, Wording::Verbatim));
    }
    let surface = call.surface();
    let way = target.provider.way(surface, &target.model);
    let Some(way) = way else {
        if surface.counts_tokens() {
            let counted = Box::pin(count(call, question, target));
            return counted.await.map_err(Unfit::Question);
        }
        let message = format!("`{name}` cannot answer {} requests.", surface.name());
        return Err(Unfit::Target(Error::new(Kind::Unsupported, message)));
    };
    match (way, surface.dialect()) {
        (Way::Translated(into), _) => {
            Box::pin(question.understand(call)).await;
            translate(call, question, target, into)
        }
        (Way::Vectors(spelling), _) => {
            let (vectors, dropped) = Vectors::write(question, target, spelling)?;
            refuse_if_strict(call, target, &dropped)?;
            let wording = Wording::Vectors(vectors);
            Ok(Errand { dropped, ..Errand::new(Operation::Embeddings, wording) })
        }
        (Way::Verbatim, Some(dialect)) if must_be_rewritten(call, question, target).await? => {
            translate(call, question, target, dialect)
        }
        (Way::Verbatim, _) => Ok(Errand::verbatim(question, surface, target)),
    }
}

/// Bytes that pass as they are have not been read; a route may want them to be, and changed.
async fn must_be_rewritten(
    call: &Call,
    question: &Question,
    target: &Target,
) -> Result<bool, Unfit> {
    let surface = call.surface();
    let Some(dialect) = surface.dialect().filter(|_| surface.is_chat()) else { return Ok(false) };
    let (pairs, cache) = (call.tool_pairs(), call.prompt_cache());
    // What another provider gave the client to keep this one may refuse, and want its own instead.
    let bears = |mark: &Mark| question.payload.bears(mark);
    let strange = call.house.is_mixed() && marks::of_strangers(dialect).iter().any(bears);
    let odd = dialect == Dialect::Chat
        && call.house.is_mixed()
        && marks::of_traits(&target.provider.kind.traits).any(|mark| bears(&mark));
    let marked = strange || odd;
    if !marked && pairs.is_none() && cache.is_none() {
        return Ok(false);
    }
    Box::pin(question.understand(call)).await;
    let asked = question.chat().map_err(misread)?;
    let repaired = pairs.is_some() && asked.repaired;
    Ok(marked || repaired || (cache.is_some() && !asked.has_cache_marks()))
}

pub(super) fn misread(misread: &Misread) -> Unfit {
    Unfit::Question(Error::invalid(misread.0.clone()))
}

fn translate(
    call: &Call,
    question: &Question,
    target: &Target,
    into: Dialect,
) -> Result<Errand, Unfit> {
    let request = &question.chat().map_err(misread)?.request;
    let traits = &target.provider.kind.traits;
    let aim = Aim { model: &target.model, traits, cache: call.prompt_cache() };
    let written = dialect::upstream(into).write_request(request, &aim).map_err(|cause| {
        let message = format!("`{}` cannot be asked this: {cause}", target.provider.name);
        Unfit::Target(Error::new(Kind::Unsupported, message))
    })?;
    refuse_if_strict(call, target, &written.dropped)?;
    let body = Payload::from(Bytes::from(written.body));
    let operation = Operation::Chat { dialect: into, stream: question.envelope.stream };
    let wording = Wording::Translated { body, into };
    let mut errand = Errand { dropped: written.dropped, ..Errand::new(operation, wording) };
    if into == Dialect::Messages {
        errand.says_version(target, None);
    }
    Ok(errand)
}

/// A strict route has no use for a target that cannot take all of the question.
fn refuse_if_strict(
    call: &Call,
    target: &Target,
    dropped: &[Cow<'static, str>],
) -> Result<(), Unfit> {
    if !call.is_strict() || dropped.is_empty() {
        return Ok(());
    }
    let (name, fields) = (&target.provider.name, dropped.join("`, `"));
    let message = format!("`{name}` cannot take `{fields}`, and the route is strict.");
    Err(Unfit::Target(Error::new(Kind::Unsupported, message)))
}

/// Tokens by estimate, where the target's provider does not count them itself.
pub(super) async fn count(
    call: &Call,
    question: &Question,
    target: &Target,
) -> Result<Errand, Error> {
    Box::pin(question.understand(call)).await;
    let asked = question.chat().map_err(|misread| Error::invalid(misread.0.clone()))?;
    let home = target.provider.home(&target.model).unwrap_or(Dialect::Chat);
    let tokens = estimate::tokens(&asked.request, home);
    let body = match call.surface() {
        Surface::GoogleCountTokens => gemini::write_count(tokens).into(),
        Surface::InputTokens => {
            let count =
                serde_json::json!({"object": "response.input_tokens", "input_tokens": tokens});
            count.to_string().into()
        }
        _ => messages::write_token_count(tokens).into(),
    };
    Ok(Errand::new(Operation::CountTokens(home), Wording::Local(body)))
}

/// One attempt.
pub(super) async fn ask(
    call: &mut Call,
    question: &Question,
    target: &Target,
    (errand, credential): (&Errand, usize),
) -> Result<Answer, Failure> {
    if let Wording::Vectors(vectors) = &errand.wording {
        return Box::pin(vectors.ask(call, question, target, credential)).await;
    }
    let mode = match (&errand.wording, errand.operation) {
        (
            Wording::Verbatim,
            Operation::Completions | Operation::Chat { dialect: Dialect::Chat, .. },
        ) => target.provider.usage(),
        _ => Usage::Leave,
    };
    match ask_so(call, question, target, (errand, credential, mode)).await {
        // A server that does not know `stream_options` may refuse it: ask without, and remember.
        Err(failure) if mode == Usage::Ask && refuses_stream_options(&failure) => {
            target.provider.omit_stream_options();
            Box::pin(ask_so(call, question, target, (errand, credential, Usage::Omit))).await
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
    (errand, credential, mode): (&Errand, usize, Usage),
) -> Result<Answer, Failure> {
    let envelope = &question.envelope;
    let limits = &target.limits;
    let (payload, usage_added) = match &errand.wording {
        Wording::Translated { body, .. } => (body.clone(), false),
        Wording::Vectors(_) | Wording::Local(_) => (Payload::default(), false),
        Wording::Verbatim => {
            let model = match &question.relayed {
                Some(relayed) => relayed.model_edit(target),
                None => model_edit(errand.operation, target),
            };
            let (edits, usage_added) = splice::edits(envelope, model, mode);
            (question.payload.edited(&edits), usage_added)
        }
    };
    let extra: Cow<'_, [_]> = if errand.headers.is_empty() {
        Cow::Borrowed(&question.extra)
    } else {
        question.extra.iter().chain(&errand.headers).cloned().collect()
    };
    let order = Order {
        operation: errand.operation,
        model: &target.model,
        payload: &payload,
        credential,
        extra: &extra,
        connect_limit: limits.connect,
        form: relayed::form(question.relayed.as_ref()),
    };
    let sent = Instant::now();
    let end = call.started + limits.total;
    let reply = send(question, target, order, end).await?;
    if !(200..300).contains(&reply.status) {
        return Err(Box::pin(refused(target, reply)).await);
    }
    let content_type = reply.headers.get(CONTENT_TYPE).cloned();
    let content_type = content_type.unwrap_or(JSON);
    let binary = content_type.as_bytes().starts_with(b"application/vnd.amazon.eventstream");
    // A relayed question may ask for a stream under other names.
    let streams = envelope.stream || question.relayed.is_some();
    if streams && (binary || content_type.as_bytes().starts_with(b"text/event-stream")) {
        let passage = passage(call, question, target, (errand, usage_added));
        let due = (sent + limits.first_token).min(end);
        let flow = Flow::new(reply.body, binary, passage);
        return first_content(call, flow, reply.status, due).await;
    }
    if question.relayed.is_some() {
        let due = (Instant::now() + limits.first_token).min(end);
        return Box::pin(relayed::answer(call, reply, due)).await;
    }
    let body = timeout_at(end, read_whole(reply.body, limits.idle, LONGEST_ANSWER))
        .await
        .map_err(|_| Failure::timeout(reply.status))?
        .map_err(|unread| unread.into_failure(reply.status))?;
    if says_error(&body) {
        return Err(Failure::in_band(reply.status, &body));
    }
    call.first_token();
    whole(call, question, target, (errand, content_type, body))
        .map_err(|_| Failure::truncated(reply.status))
}

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Sends the question and waits for the head of the answer.
pub(super) async fn send(
    question: &Question,
    target: &Target,
    order: Order<'_>,
    end: Instant,
) -> Result<Reply, Failure> {
    let limits = &target.limits;
    // Pinned, so that neither road holds it a second time.
    let mut answer = pin!(target.provider.send(order));
    let answer = if let Some(rest) = question.rest() {
        Box::pin(rest.send(answer.as_mut(), (limits, end))).await
    } else {
        let headers = limits.headers.or_else(|| question.envelope.stream.then_some(STREAM_HEADERS));
        let due = headers.map_or(end, |limit| (Instant::now() + limit).min(end));
        timeout_at(due, answer.as_mut()).await.ok()
    };
    let answer = answer.ok_or_else(|| Failure::timeout(0))?;
    answer.map_err(|fault| unanswered(target, &fault))
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
    (errand, usage_added): (&Errand, bool),
) -> Passage {
    let choices = question.envelope.choices;
    if question.relayed.is_some() {
        return Passage::watched(Dialect::Responses, Box::new(MediaReader::default()), choices);
    }
    match (&errand.wording, errand.operation) {
        (Wording::Translated { into, .. }, _) => {
            let reader = dialect::upstream(*into).reader();
            let input = call.input_estimate();
            let writer =
                with_context(call, question, target, |context| call.client().writer(&context));
            match writer {
                Some((writer, request)) => {
                    let choices = request.sampling.choices.unwrap_or(1);
                    Passage::translated(reader, writer, choices, input)
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
        (Wording::Verbatim | Wording::Vectors(_) | Wording::Local(_), _) => {
            Passage::Tapped(Tap::new(choices, usage_added))
        }
    }
}

/// Calls `write` with what a writer of answers must know. `None` if the question was never read,
/// which a translated one always is.
fn with_context<'a, T>(
    call: &Call,
    question: &'a Question,
    target: &Target,
    write: impl FnOnce(Context<'_>) -> T,
) -> Option<(T, &'a ChatRequest)> {
    let request = &question.chat().ok()?.request;
    let (id, created) = call.stamp();
    let context = Context {
        id: &id,
        created,
        model: &target.model,
        input_estimate: call.input_estimate(),
        previous: question.envelope.previous.as_deref(),
        request,
    };
    Some((write(context), request))
}

/// A whole answer in the client's words.
fn whole(
    call: &mut Call,
    question: &Question,
    target: &Target,
    (errand, content_type, body): (&Errand, HeaderValue, Bytes),
) -> Result<Answer, Misread> {
    let estimate = body.len() as u64 / 4;
    let Wording::Translated { into, .. } = &errand.wording else {
        let usage = match errand.operation {
            Operation::Chat { dialect, .. } if dialect != Dialect::Chat => {
                dialect::upstream(dialect).read_response(&body).ok().and_then(|read| read.usage)
            }
            _ => read_usage(&body),
        };
        // What was only counted has not been used.
        if !call.surface().counts_tokens() {
            call.usage(usage, estimate);
        }
        call.keep_response(&body, true);
        return Ok(Answer::Whole { content_type, body });
    };
    let upstream = dialect::upstream(*into);
    let streamed = content_type.as_bytes().starts_with(b"text/event-stream");
    let response =
        if streamed { reword::gather(upstream, &body)? } else { upstream.read_response(&body)? };
    call.usage(response.usage, estimate);
    call.keep(reword::keepsakes(&response));
    let stream = question.envelope.stream;
    let client = call.client();
    let written = with_context(call, question, target, |context| {
        if stream {
            reword::spread(&response, client.writer(&context))
        } else {
            client.write_response(&response, &context)
        }
    });
    let body: Bytes = written.map(|(body, _)| body).unwrap_or_default().into();
    let last = if stream { last_data(&body) } else { Some(body.clone()) };
    call.keep_response(&last.unwrap_or_default(), false);
    Ok(Answer::Whole {
        content_type: if stream { HeaderValue::from_static(client.stream_type()) } else { JSON },
        body,
    })
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
            Failure::timeout(0)
        }
        Fault::Connect(_) => Failure::unreachable(),
        // The client's doing; whoever walks the targets asks the upload for the reason.
        Fault::Upload(_) => Failure { outcome: Outcome::ClientClosed, ..Failure::truncated(0) },
        Fault::Closed { .. } | Fault::Malformed(_) => Failure::truncated(0),
    }
}

pub(super) async fn refused(target: &Target, reply: Reply) -> Failure {
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
pub(super) fn says_error(body: &[u8]) -> bool {
    let inside = body.trim_ascii_start().strip_prefix(b"{").unwrap_or_default();
    let value = inside.trim_ascii_start().strip_prefix(b"\"error\"").unwrap_or_default();
    let value = value.trim_ascii_start().strip_prefix(b":").unwrap_or_default().trim_ascii_start();
    !value.is_empty() && !value.starts_with(b"null")
}

/// Why a whole answer could not be read.
pub(super) enum Unread {
    Silent,
    Broken,
}

impl Unread {
    pub(super) fn into_failure(self, status: u16) -> Failure {
        match self {
            Self::Silent => Failure::timeout(status),
            Self::Broken => Failure::truncated(status),
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
            Ok(true) if whole.len() > limit => return Err(Unread::Broken),
            Ok(true) => {}
            Ok(false) => return Ok(whole.freeze()),
            Err(_) => return Err(Unread::Broken),
        }
    }
}
