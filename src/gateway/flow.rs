//! An upstream's stream on its way through: bytes in, events looked at, bytes out.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use super::call::Call;
use super::guarding::After;
use super::onward::Onward;
use super::remember::pump::Pumped;
use super::remember::record::Recorder;
use crate::cache::{Follower, Next, Tape};
use crate::dialect::eventstream::Transcoder;
use crate::dialect::passage::{Passage, Verdict, last_data};
use crate::dialect::sse::{self, Decoder, Frame};
use crate::error::{Error, Kind};
use crate::net::client::{BodyError, ReplyBody};
use crate::provider::Failure;

/// A longer event is not waited for.
const LONGEST_EVENT: usize = 16 * 1024 * 1024;

/// One stream being relayed.
pub(super) struct Flow {
    source: Source,
    /// Reads along, where the answer is to be remembered.
    pub(super) recorder: Option<Box<Recorder>>,
    decoder: Decoder,
    pub(super) passage: Passage,
    /// What the client is to be given, in order.
    pub(super) ready: VecDeque<Bytes>,
    /// Who may go on should it break.
    pub(super) onward: Option<Box<Onward>>,
    /// Who has to let its end out.
    pub(super) after: Option<Box<After>>,
    /// Why whoever asked for others, too, has got no whole answer.
    pub(super) told: Option<Box<Error>>,
}

/// Where a stream comes from.
enum Source {
    Upstream(Upstream),
    /// From the upstream by way of a task that reads it for others, too.
    Pumped(Box<Pumped>),
    /// From the answer that somebody else is being given.
    Followed(Box<Follower>),
    Nowhere,
}

/// What a provider sends.
pub(super) struct Upstream {
    body: ReplyBody,
    /// Bedrock frames its events in binary; here they become lines.
    binary: Option<Box<Binary>>,
}

/// A stream in AWS's framing.
#[derive(Debug, Default)]
struct Binary {
    arrived: BytesMut,
    transcoder: Transcoder,
}

/// What the next look at the upstream brought.
#[derive(Debug)]
pub(super) enum Step {
    /// Some bytes; `ready` may hold something for the client.
    Data,
    /// The upstream's end, orderly as far as HTTP goes.
    Ended,
    /// The stream broke.
    Cut(BodyError),
    /// The upstream reports a failure inside its stream, with this event.
    Failed(Bytes),
}

impl Flow {
    /// `binary`: the events come in AWS's framing.
    pub(super) fn new(body: ReplyBody, binary: bool, passage: Passage) -> Self {
        let binary = binary.then(Box::default);
        Self::from(Source::Upstream(Upstream { body, binary }), passage)
    }

    /// What somebody else is being answered, in this client's words.
    pub(super) fn following(follower: Follower, passage: Passage) -> Self {
        Self::from(Source::Followed(Box::new(follower)), passage)
    }

    fn from(source: Source, passage: Passage) -> Self {
        Self {
            source,
            recorder: None,
            decoder: Decoder::default(),
            passage,
            ready: VecDeque::new(),
            onward: None,
            after: None,
            told: None,
        }
    }

    /// Has a task read the upstream from here on, with what has read along so far: it gives both
    /// to `split` and takes what the task will have read.
    pub(super) fn pump(&mut self, split: impl FnOnce(Upstream, Box<Recorder>) -> Pumped) {
        let Some(recorder) = self.recorder.take() else { return };
        self.source = match std::mem::replace(&mut self.source, Source::Nowhere) {
            Source::Upstream(upstream) => Source::Pumped(Box::new(split(upstream, recorder))),
            other => other,
        };
    }

    /// Who else waits for what is read here.
    pub(super) fn tape(&self) -> Option<&Arc<Tape>> {
        match &self.source {
            Source::Pumped(pumped) => Some(&pumped.tape),
            Source::Upstream(_) | Source::Followed(_) | Source::Nowhere => None,
        }
    }

    /// Whether others wait for it.
    pub(super) fn is_followed(&self) -> bool {
        self.tape().is_some_and(|tape| tape.followers() > 0)
    }

    /// Has the upstream's socket watched or not; false where that cannot be chosen.
    pub(super) fn watch(&mut self, watched: bool) -> bool {
        match &mut self.source {
            Source::Upstream(upstream) => upstream.body.watch(watched),
            Source::Pumped(_) | Source::Followed(_) | Source::Nowhere => false,
        }
    }

    /// Takes what the upstream has sent and looks at each event that is complete.
    pub(super) fn poll_step(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        if let Some(after) = self.after.as_mut().filter(|_| self.passage.is_withheld()) {
            let passed = ready!(after.poll(context));
            self.after = None;
            let end = self.passage.let_out(passed);
            if !end.is_empty() {
                self.ready.push_back(end.into());
            }
            return Poll::Ready(Step::Data);
        }
        let before = self.decoder.buffer().len();
        let more = match &mut self.source {
            Source::Upstream(upstream) => upstream.poll_data(context, self.decoder.buffer()),
            Source::Pumped(pumped) => pumped.poll_data(context, self.decoder.buffer()),
            Source::Followed(follower) => {
                let next = ready!(follower.poll_next(context));
                return Poll::Ready(self.repeat(next));
            }
            Source::Nowhere => return Poll::Ready(Step::Ended),
        };
        Poll::Ready(match ready!(more) {
            Ok(true) => {
                if let Some(recorder) = &mut self.recorder {
                    recorder.feed(&self.decoder.buffer()[before..]);
                }
                self.absorb()
            }
            Ok(false) => self.finish(),
            Err(error) => Step::Cut(error),
        })
    }

    /// The upstream has nothing more to say. Whether the end of its answer waits for guards now.
    pub(super) fn close(&mut self) -> bool {
        if self.after.is_none() {
            return false;
        }
        let last = self.passage.close();
        if !last.is_empty() {
            self.ready.push_back(last.into());
        }
        self.passage.is_withheld()
    }

    /// What somebody else was given.
    fn repeat(&mut self, next: Next) -> Step {
        match next {
            Next::Events(events) => {
                let bytes = self.passage.repeat(&events);
                if !bytes.is_empty() {
                    self.ready.push_back(bytes.into());
                }
                Step::Data
            }
            Next::End => Step::Ended,
            Next::Failed(error) => {
                self.told = error;
                Step::Cut(BodyError::Malformed)
            }
        }
    }

    fn absorb(&mut self) -> Step {
        // Events that pass as they are lie at the front, up to here, and leave in one piece.
        let mut passing = 0;
        while let Some(frame) = self.decoder.next_frame() {
            let length = frame.range.len();
            let verdict = self.passage.inspect(&self.decoder, &frame);
            if verdict == Verdict::Forward {
                passing += length;
                continue;
            }
            self.pass(&mut passing);
            match verdict {
                Verdict::Forward | Verdict::Drop => self.decoder.discard(length),
                Verdict::Replace(bytes) => {
                    self.decoder.discard(length);
                    self.ready.push_back(bytes);
                }
                Verdict::Failed => return Step::Failed(self.failure_of(&frame)),
            }
        }
        self.pass(&mut passing);
        if self.decoder.held() > LONGEST_EVENT {
            return Step::Cut(BodyError::Malformed);
        }
        self.decoder.rest();
        Step::Data
    }

    /// This event, which reports a failure, and the next one if that says the same in another way.
    fn failure_of(&mut self, frame: &Frame) -> Bytes {
        let length = frame.range.len();
        if frame.is_cut() {
            return sse::ended(&self.decoder.take(length));
        }
        let next = self.decoder.next_frame();
        let more = next.filter(|next| self.passage.fails_again(&self.decoder, next));
        self.decoder.take(length + more.map_or(0, |next| next.range.len()))
    }

    fn pass(&mut self, passing: &mut usize) {
        if *passing > 0 {
            self.ready.push_back(self.decoder.take(*passing));
            *passing = 0;
        }
    }

    /// The upstream has ended, perhaps without the empty line behind its last event. An event that
    /// is not whole is not passed on.
    fn finish(&mut self) -> Step {
        if let Step::Failed(event) = self.absorb() {
            return Step::Failed(event);
        }
        while let Some(frame) = self.decoder.last_frame() {
            let data = self.decoder.data(&frame).unwrap_or_default();
            let is_done = data.trim_ascii() == b"[DONE]";
            if !is_done && serde_json::from_slice::<serde::de::IgnoredAny>(&data).is_err() {
                break;
            }
            let verdict = self.passage.inspect(&self.decoder, &frame);
            let event = [&*self.decoder.take(frame.range.end), b"\n\n"].concat().into();
            match verdict {
                Verdict::Forward => self.ready.push_back(event),
                Verdict::Replace(bytes) => self.ready.push_back(bytes),
                Verdict::Failed => return Step::Failed(event),
                Verdict::Drop => {}
            }
        }
        Step::Ended
    }
}

// === impl Upstream ===

impl Upstream {
    /// Appends what has come, as lines; false at the end.
    pub(super) fn poll_data(
        &mut self,
        context: &mut Context<'_>,
        into: &mut BytesMut,
    ) -> Poll<Result<bool, BodyError>> {
        let Some(binary) = &mut self.binary else { return self.body.poll_data(context, into) };
        let more = ready!(self.body.poll_data(context, &mut binary.arrived));
        Poll::Ready(match more {
            Ok(true) => {
                let arrived = binary.arrived.split();
                let fed = binary.transcoder.feed(&arrived, into);
                fed.map(|()| true).map_err(|_| BodyError::Malformed)
            }
            other => other,
        })
    }
}

impl Flow {
    /// What the failure means that the upstream reports inside its stream.
    pub(super) fn failure(&self, call: &Call, event: &Bytes) -> Option<Failure> {
        let provider = &call.target()?.provider;
        tracing::debug!(provider = %provider.name, bytes = event.len(), "a stream reported a failure");
        Some(match &self.passage.sight().failure {
            Some(heard) => provider.heard(200, heard),
            None => provider.reported(200, &last_data(event)?),
        })
    }
}

/// The same in our words, with as much of the upstream's as the client may know.
pub(super) fn reported(call: &Call, said: Option<String>) -> Error {
    let provider = call.target().map(|target| &target.provider);
    let name = provider.map_or("provider", |provider| &provider.name);
    let said = said.zip(provider).map(|(said, provider)| provider.redact(said));
    let said = said.map_or_else(|| ".".to_owned(), |said| format!(": {said}"));
    Error::new(Kind::UpstreamError, format!("`{name}` broke its answer off{said}"))
}

impl fmt::Debug for Flow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Flow({:?})", self.passage)
    }
}
