//! An upstream's stream on its way through: bytes in, events looked at, bytes out.

use std::collections::VecDeque;
use std::fmt;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use super::call::Call;
use super::guarding::After;
use super::onward::Onward;
use crate::dialect::eventstream::Transcoder;
use crate::dialect::passage::{Passage, Verdict, last_data};
use crate::dialect::sse::Decoder;
use crate::error::{Error, Kind};
use crate::net::client::{BodyError, ReplyBody};
use crate::provider::Failure;

/// A longer event is not waited for.
const LONGEST_EVENT: usize = 16 * 1024 * 1024;

/// One stream being relayed.
pub(super) struct Flow {
    body: ReplyBody,
    /// Bedrock frames its events in binary; here they become lines.
    binary: Option<Box<Binary>>,
    decoder: Decoder,
    pub(super) passage: Passage,
    /// What the client is to be given, in order.
    pub(super) ready: VecDeque<Bytes>,
    /// Who may go on should it break.
    pub(super) onward: Option<Box<Onward>>,
    /// Who has to let its end out.
    pub(super) after: Option<Box<After>>,
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
        Self {
            body,
            binary,
            decoder: Decoder::default(),
            passage,
            ready: VecDeque::new(),
            onward: None,
            after: None,
        }
    }

    /// Has the upstream's socket watched or not; false where that cannot be chosen.
    pub(super) fn watch(&mut self, watched: bool) -> bool {
        self.body.watch(watched)
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
        let Some(binary) = &mut self.binary else {
            return Poll::Ready(
                match ready!(self.body.poll_data(context, self.decoder.buffer())) {
                    Ok(true) => self.absorb(),
                    Ok(false) => self.finish(),
                    Err(error) => Step::Cut(error),
                },
            );
        };
        Poll::Ready(match ready!(self.body.poll_data(context, &mut binary.arrived)) {
            Ok(true) => {
                let arrived = binary.arrived.split();
                match binary.transcoder.feed(&arrived, self.decoder.buffer()) {
                    Ok(()) => self.absorb(),
                    Err(_) => Step::Cut(BodyError::Malformed),
                }
            }
            Ok(false) => self.finish(),
            Err(error) => Step::Cut(error),
        })
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
                Verdict::Failed => return Step::Failed(self.decoder.take(length)),
            }
        }
        self.pass(&mut passing);
        if self.decoder.held() > LONGEST_EVENT {
            return Step::Cut(BodyError::Malformed);
        }
        self.decoder.rest();
        Step::Data
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
        let Some(frame) = self.decoder.last_frame() else { return Step::Ended };
        let data = self.decoder.data(&frame).unwrap_or_default();
        let is_done = data.trim_ascii() == b"[DONE]";
        if is_done || serde_json::from_slice::<serde::de::IgnoredAny>(&data).is_ok() {
            let verdict = self.passage.inspect(&self.decoder, &frame);
            let mut event = self.decoder.take(frame.range.end).to_vec();
            event.extend_from_slice(b"\n\n");
            match verdict {
                Verdict::Forward => self.ready.push_back(event.into()),
                Verdict::Replace(bytes) => self.ready.push_back(bytes),
                Verdict::Failed => return Step::Failed(event.into()),
                Verdict::Drop => {}
            }
        }
        Step::Ended
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
