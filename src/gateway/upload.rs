//! Takes in a form: its beginning is held until routing knows enough, the rest is passed on while
//! it arrives.

use std::fmt;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::{Instant, Sleep, timeout_at};

use super::arrival::{Question, Unreadable, refused};
use super::lease::ByteBudget;
use super::relayed::Relayed;
use super::snapshot::Limits;
use crate::canon::{Outcome, Relay};
use crate::config::Server;
use crate::dialect::batch::Contents;
use crate::dialect::multipart::{self, Fault, Form};
use crate::dialect::peek::{Envelope, ModelPlace};
use crate::dialect::splice::Payload;
use crate::error::{Error, Kind};
use crate::net::BoxError;
use crate::net::client::Feed;

/// So much of a form is held, for another target should the first one fail; what is longer can be
/// sent once.
const HELD: usize = 1024 * 1024;

/// The rest of a form, pulled while it is sent.
pub(super) struct Upload {
    source: Mutex<Source>,
    length: Option<u64>,
}

/// What the lines of a file want, once all of it has passed.
pub(super) type Manifest = Arc<OnceLock<Contents>>;

/// A form as it comes from the client.
struct Source {
    body: Pin<Box<dyn Body<Data = Bytes, Error = ()> + Send>>,
    form: Form,
    /// Bytes that may still come.
    allowed: usize,
    limit: usize,
    /// How long the client may be silent.
    patience: Duration,
    /// Runs while it is.
    silence: Option<Pin<Box<Sleep>>>,
    phase: Phase,
    /// Some of what is not held has been taken.
    spent: bool,
    broken: Option<Broken>,
    manifest: Manifest,
}

/// Who is waited for.
#[derive(Debug, Clone, Copy)]
enum Phase {
    /// The upstream, to take more, since then.
    Sending(Instant),
    /// The client, who has a limit of its own.
    Waiting,
    /// The upstream, to answer: all was sent.
    Sent(Instant),
}

/// Why a form did not come to its end.
#[derive(Debug, Clone)]
pub(super) enum Broken {
    Gone,
    Slow,
    TooLarge(usize),
    Malformed(Fault),
}

pub(super) fn is_form(headers: &HeaderMap) -> bool {
    multipart::is_form(content_type(headers))
}

fn content_type(headers: &HeaderMap) -> &str {
    headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// Reads a form up to where its target is known, and a little further.
pub(super) async fn read<B>(
    body: B,
    (relay, headers): (Relay, &HeaderMap),
    server: &Server,
    budget: &ByteBudget,
) -> Result<Box<Question>, Unreadable>
where
    B: Body<Data = Bytes> + Send + 'static,
{
    let declared = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let declared = declared.and_then(|text| text.parse::<usize>().ok());
    if declared.is_some_and(|length| length > server.max_upload) {
        return Err(Broken::TooLarge(server.max_upload).into());
    }
    let new = if relay == Relay::UploadFile { Form::with_lines } else { Form::new };
    let form = new(content_type(headers)).map_err(Broken::Malformed)?;
    let mut source = Source::new(body, form, server);
    let manifest = Arc::clone(&source.manifest);
    let (lease, mut payload) = (budget.lease(), Payload::default());
    let whole = loop {
        let known = !relay.has_model() || source.form.field("model").is_some();
        if known && payload.len() >= HELD {
            break false;
        }
        if payload.len() > server.max_body {
            let limit = server.max_body;
            let message = format!(
                "`model` must stand in the first {limit} bytes of the form; send it before the file."
            );
            return Err(refused(Kind::TooLarge, message));
        }
        let Some(data) = poll_fn(|context| source.poll(context)).await else { break true };
        let data = data?;
        lease.grow(data.len()).map_err(Unreadable::Refused)?;
        payload.gather(data);
    };
    let envelope = envelope(&source.form);
    if relay.has_model() && envelope.model.is_empty() {
        let message = "`model` is missing; name a route or `provider/model`.";
        return Err(refused(Kind::InvalidRequest, message));
    }
    let length = declared.map(|length| length.saturating_sub(payload.len()) as u64);
    let rest = (!whole).then(|| Upload { source: Mutex::new(source), length });
    let relayed = Relayed::form(relay, headers.get(CONTENT_TYPE).cloned(), rest);
    let relayed = relayed.known_by(manifest);
    Ok(Question::new((payload, lease), envelope, headers, Some(relayed)))
}

/// What a form says to routing.
fn envelope(form: &Form) -> Envelope {
    let text = |name| form.field(name).map(|field| field.value.trim());
    let model = form.field("model");
    Envelope {
        model: model.map_or(String::new(), |field| field.value.clone()),
        model_place: model.map(|field| ModelPlace { value: field.span, member: field.span }),
        stream: text("stream").is_some_and(|text| text.eq_ignore_ascii_case("true") || text == "1"),
        choices: text("n").and_then(|text| text.parse().ok()).unwrap_or(1),
        ..Envelope::default()
    }
}

// === impl Upload ===

impl Upload {
    /// Waits for `send`, which pulls this. The upstream's limits hold only while it is the one
    /// that is waited for. `None` when one of them is reached.
    pub(super) async fn send<F>(&self, send: F, limits: &Limits, end: Instant) -> Option<F::Output>
    where
        F: Future,
    {
        self.source().phase = Phase::Sending(Instant::now());
        let mut send = pin!(send);
        loop {
            let look = self.due(limits, end).min(Instant::now() + limits.idle);
            if let Ok(sent) = timeout_at(look, &mut send).await {
                return Some(sent);
            }
            if self.due(limits, end) <= Instant::now() {
                return None;
            }
        }
    }

    fn due(&self, limits: &Limits, end: Instant) -> Instant {
        let due = match self.source().phase {
            Phase::Sending(since) => since + limits.idle,
            Phase::Waiting => end,
            Phase::Sent(since) => limits.headers.map_or(end, |limit| since + limit),
        };
        due.min(end)
    }

    /// Whether it can no longer be sent from its beginning.
    pub(super) fn is_spent(&self) -> bool {
        self.source().spent
    }

    /// Why it did not come to its end, if it did not.
    pub(super) fn broken(&self) -> Option<Broken> {
        self.source().broken.clone()
    }

    fn source(&self) -> MutexGuard<'_, Source> {
        self.source.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed for Upload {
    fn poll_next(&self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, BoxError>>> {
        let mut source = self.source();
        source.phase = Phase::Waiting;
        let next = ready!(source.poll(context));
        let now = Instant::now();
        source.phase = if next.is_some() { Phase::Sending(now) } else { Phase::Sent(now) };
        source.spent |= matches!(next, Some(Ok(_)));
        Poll::Ready(next.map(|data| data.map_err(|broken| Error::from(broken).into())))
    }

    fn length(&self) -> Option<u64> {
        self.length
    }
}

impl fmt::Debug for Upload {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Upload({:?} bytes)", self.length)
    }
}

// === impl Source ===

impl Source {
    fn new<B>(body: B, form: Form, server: &Server) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
    {
        Self {
            body: Box::pin(body.map_err(|_| ())),
            form,
            allowed: server.max_upload,
            limit: server.max_upload,
            patience: server.body_timeout,
            silence: None,
            phase: Phase::Waiting,
            spent: false,
            broken: None,
            manifest: Manifest::default(),
        }
    }

    /// The next bytes, looked through; `None` at the end of a form that is whole.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        let next = match self.body.as_mut().poll_frame(context) {
            Poll::Ready(next) => next,
            Poll::Pending => {
                let until = Instant::now() + self.patience;
                let silence =
                    self.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(until)));
                ready!(silence.as_mut().poll(context));
                return Poll::Ready(Some(self.breaks(Broken::Slow)));
            }
        };
        self.silence = None;
        Poll::Ready(match next {
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                Some(self.look(&data).map(|()| data).or_else(|broken| self.breaks(broken)))
            }
            Some(Err(())) => Some(self.breaks(Broken::Gone)),
            None => self.end().err().map(|fault| self.breaks(Broken::Malformed(fault))),
        })
    }

    fn end(&mut self) -> Result<(), Fault> {
        self.form.finish()?;
        if let Some(contents) = self.form.contents() {
            // Nobody else sets it.
            let _ = self.manifest.set(contents);
        }
        Ok(())
    }

    fn look(&mut self, data: &[u8]) -> Result<(), Broken> {
        let left = self.allowed.checked_sub(data.len());
        self.allowed = left.ok_or(Broken::TooLarge(self.limit))?;
        self.form.feed(data).map_err(Broken::Malformed)
    }

    fn breaks<T>(&mut self, broken: Broken) -> Result<T, Broken> {
        self.broken = Some(broken.clone());
        Err(broken)
    }
}

// === impl Broken ===

impl Broken {
    /// How the call ends.
    pub(super) fn outcome(&self) -> Outcome {
        if matches!(self, Self::Gone) { Outcome::ClientClosed } else { Outcome::Refused }
    }
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Gone => Self::invalid("The body was cut off, or its framing is malformed."),
            Broken::Slow => Self::invalid("The body arrived too slowly."),
            Broken::TooLarge(limit) => {
                let message = format!("The body has more than {limit} bytes, which is the limit.");
                Self::new(Kind::TooLarge, message)
            }
            Broken::Malformed(fault) => Self::invalid(fault.to_string()),
        }
    }
}

impl From<Broken> for Unreadable {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Gone => Self::Gone,
            broken => Self::Refused(broken.into()),
        }
    }
}
