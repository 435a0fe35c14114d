//! Reads along while an upstream's stream passes, in our own words, so that it can be remembered
//! and given to others.

use std::sync::Arc;

use crate::cache::Tape;
use crate::canon::{ChatResponse, Event};
use crate::dialect::ReadStream;
use crate::dialect::fold::Fold;
use crate::dialect::mend::Mender;
use crate::dialect::sse::Decoder;

/// One stream, read beside those who pass it on.
pub(in crate::gateway) struct Recorder {
    decoder: Decoder,
    reader: Box<dyn ReadStream>,
    mender: Mender,
    fold: Fold,
    /// What nobody was told yet.
    fresh: Vec<Event>,
    /// Answers that have begun, and those that have their finish.
    begun: u32,
    finished: u32,
    ended: bool,
    /// Something made no sense or went wrong, so that what was read is not the answer.
    spoilt: bool,
}

// === impl Recorder ===

impl Recorder {
    pub(in crate::gateway) fn new(reader: Box<dyn ReadStream>) -> Self {
        Self {
            decoder: Decoder::default(),
            reader,
            mender: Mender::default(),
            fold: Fold::default(),
            fresh: Vec::new(),
            begun: 0,
            finished: 0,
            ended: false,
            spoilt: false,
        }
    }

    /// Reads what has come.
    pub(in crate::gateway) fn feed(&mut self, bytes: &[u8]) {
        self.decoder.buffer().extend_from_slice(bytes);
        let first = self.fresh.len();
        while let Some(frame) = self.decoder.next_frame() {
            if let Some(data) = self.decoder.data(&frame) {
                let data = data.trim_ascii();
                let event = (self.decoder.event(&frame), data);
                let read = self.mender.read(&mut *self.reader, event, &mut self.fresh);
                self.spoilt |= read.is_err() && !data.is_empty();
            }
            self.decoder.discard(frame.range.len());
        }
        self.decoder.rest();
        self.note(first);
    }

    /// The upstream has nothing more to say.
    pub(super) fn close(&mut self) {
        let first = self.fresh.len();
        while let Some(frame) = self.decoder.last_frame() {
            let data = self.decoder.data(&frame).unwrap_or_default();
            // Half an event is none, and then the answer lacks its end.
            let event = (self.decoder.event(&frame), data.trim_ascii());
            let _ = self.mender.read(&mut *self.reader, event, &mut self.fresh);
        }
        if !self.ended {
            self.reader.end(&mut self.fresh);
        }
        self.note(first);
        if !self.ended && self.is_finished() {
            self.fresh.push(Event::End);
            self.ended = true;
        }
    }

    fn note(&mut self, first: usize) {
        for event in &self.fresh[first..] {
            self.fold.add(event);
            match event {
                Event::Open { choice, .. } | Event::Delta { choice, .. } => {
                    self.begun = self.begun.max(choice.saturating_add(1));
                }
                Event::Finish { .. } => self.finished += 1,
                Event::Failed(_) => self.spoilt = true,
                Event::End => self.ended = true,
                Event::Start(_) | Event::Close { .. } | Event::Usage(_) | Event::Aside(_) => {}
            }
        }
    }

    fn is_finished(&self) -> bool {
        self.finished > 0 && self.finished >= self.begun
    }

    /// Whether the last event has been read.
    pub(super) fn is_over(&self) -> bool {
        self.ended
    }

    /// Whether something went wrong in it, for all who listen.
    pub(super) fn is_spoilt(&self) -> bool {
        self.spoilt
    }

    /// Tells `tape` what is new.
    pub(super) fn tell(&mut self, tape: &Arc<Tape>, most: usize) {
        if !self.fresh.is_empty() {
            tape.push(std::mem::take(&mut self.fresh), most);
        }
    }

    /// The whole answer; `None` if it is not whole.
    pub(super) fn response(&mut self) -> Option<ChatResponse> {
        let whole = self.ended && self.is_finished() && !self.spoilt;
        let fold = std::mem::take(&mut self.fold);
        fold.finish().ok().filter(|_| whole)
    }
}
