//! An answer's stream on its way to its client: looked at as it passes, or put into other words.
//!
//! Whatever both ends speak, the gateway sees one thing: `Sight`, cut from our own events. What it
//! decides on it (another target, a truncated end, the bill) is the same for every dialect.

use bytes::Bytes;

use super::keepsake::{Keeper, Keepsake};
use super::mend::Mender;
use super::openai::Tap;
use super::seam::Seam;
pub use super::sight::Sight;
use super::sse::{Decoder, Frame};
use super::{ReadStream, WriteStream, openai, responses};
use crate::canon::{Dialect, Event, Usage};
use crate::error::Error;

/// What is to be done with an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on as it came.
    Forward,
    /// The client is not to see it.
    Drop,
    /// Pass this on in its place.
    Replace(Bytes),
    /// The upstream reports a failure inside the stream. Where both ends speak the same dialect,
    /// the event says so in the client's words.
    Failed,
}

/// Stands between reader and writer: what it lets out is what the client is told. The keeper of the
/// stream's books sees what went in.
pub trait Screen: Send {
    /// Takes in one event, and adds to `out` what the client is told now.
    fn pass(&mut self, event: &Event, out: &mut Vec<Event>) -> Result<(), Stopped>;

    /// The client has been told this much by another stream, which this one carries on.
    fn follows(&mut self, said: &str);

    /// Somebody else objects: ends all that is open in `out`.
    fn stop(&mut self, out: &mut Vec<Event>);
}

/// A screen objects. All that is open has been ended in `out`; nothing passes any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// One stream's way through.
pub enum Passage {
    /// OpenAI's chat completions and completions as they are.
    Tapped(Tap),
    /// Any other dialect as it is.
    Watched(Watched),
    /// From one dialect into another.
    Translated(Translated),
}

/// Reads along; the bytes pass untouched.
pub struct Watched {
    reader: Box<dyn ReadStream>,
    mender: Mender,
    sight: Sight,
    choices: u32,
    /// The stream's last word, should the upstream owe it.
    closing: &'static [u8],
    /// The data of the event that ended the stream, until it is asked for.
    last_word: Option<Bytes>,
    /// How far the stream is, where its dialect counts events.
    count: Option<Box<responses::Count>>,
    events: Vec<Event>,
}

/// Reads, and writes anew.
pub struct Translated {
    reader: Box<dyn ReadStream>,
    mender: Mender,
    writer: Box<dyn WriteStream>,
    /// What was said, where that may have to be carried on; and, where it is carried on here, what
    /// waits for the writer of what it follows.
    seam: Option<Box<Seam>>,
    screen: Option<Box<dyn Screen>>,
    /// The end of the answer, where that is told only when somebody has let it.
    end: Option<Vec<Event>>,
    /// The screen has ended the answer.
    stopped: bool,
    /// The client has been told some of the answer.
    told: bool,
    sight: Sight,
    keeper: Keeper,
    choices: u32,
    /// What is said of usage where the upstream says nothing.
    input_estimate: u64,
    last_word: Option<Bytes>,
    events: Vec<Event>,
}

// === impl Passage ===

impl Passage {
    /// Passes a stream on as it is. `choices` is how many answers were asked for.
    pub fn watched(dialect: Dialect, reader: Box<dyn ReadStream>, choices: u32) -> Self {
        let closing = match dialect {
            Dialect::Chat => openai::DONE,
            Dialect::Messages => b"event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            Dialect::Responses | Dialect::Gemini | Dialect::Converse | Dialect::Cohere => b"",
        };
        Self::Watched(Watched {
            reader,
            mender: Mender::default(),
            sight: Sight::default(),
            choices: choices.max(1),
            closing,
            last_word: None,
            count: (dialect == Dialect::Responses).then(Box::default),
            events: Vec::new(),
        })
    }

    /// Puts a stream into the words of `writer`.
    pub fn translated(
        reader: Box<dyn ReadStream>,
        writer: Box<dyn WriteStream>,
        choices: u32,
        input_estimate: u64,
    ) -> Self {
        Self::Translated(Translated {
            reader,
            mender: Mender::default(),
            writer,
            seam: None,
            screen: None,
            end: None,
            stopped: false,
            told: false,
            sight: Sight::default(),
            keeper: Keeper::default(),
            choices: choices.max(1),
            input_estimate,
            last_word: None,
            events: Vec::new(),
        })
    }

    /// Keeps what is said, so that another answer can carry it on; `follows`: it does carry one on.
    #[must_use]
    pub fn with_seam(mut self, follows: bool) -> Self {
        if let Self::Translated(translated) = &mut self {
            let said = (translated.choices == 1).then(String::new);
            let seam = Seam { said, waiting: follows, ..Seam::default() };
            translated.seam = Some(Box::new(seam));
        }
        self
    }

    /// Lets nothing out but through `screen`. Only what is written anew can be screened: false for
    /// a stream that passes as it is.
    #[must_use]
    pub fn screened(&mut self, screen: Box<dyn Screen>) -> bool {
        let Self::Translated(translated) = self else { return false };
        translated.screen = Some(screen);
        true
    }

    /// The end of the answer is not told before it is let out.
    pub fn withhold_end(&mut self) {
        if let Self::Translated(translated) = self {
            translated.end = Some(Vec::new());
        }
    }

    /// The upstream has nothing more to say: what its reader still holds back, in the client's
    /// words.
    pub fn close(&mut self) -> Vec<u8> {
        match self {
            Self::Translated(translated) => translated.close(),
            Self::Tapped(_) | Self::Watched(_) => Vec::new(),
        }
    }

    /// Whether all of the answer is told but its end, which waits to be let out.
    pub fn is_withheld(&self) -> bool {
        matches!(self, Self::Translated(translated) if translated.is_withheld())
    }

    /// Lets the end out, or ends the answer as filtered. Gives the client's bytes for that.
    pub fn let_out(&mut self, passed: bool) -> Vec<u8> {
        let Self::Translated(translated) = self else { return Vec::new() };
        translated.let_out(passed)
    }

    /// Whether a screen has ended the answer, and nothing of the upstream is wanted any more.
    pub fn is_stopped(&self) -> bool {
        matches!(self, Self::Translated(Translated { stopped: true, .. }))
    }

    /// Whether it has done so before the client was told anything.
    pub fn is_untold(&self) -> bool {
        matches!(self, Self::Translated(Translated { stopped: true, told: false, .. }))
    }

    /// The text so far, if it can be carried on: it is all that was said.
    pub fn said(&self) -> Option<&str> {
        let Self::Translated(Translated { seam: Some(seam), sight, .. }) = self else {
            return None;
        };
        let said = seam.said.as_deref().filter(|said| !said.trim_end().is_empty());
        said.filter(|_| sight.finishes == 0)
    }

    /// Carries on the stream that came through `before`: what has arrived goes through that one's
    /// writer, as will all that follows. Gives the bytes for what has arrived.
    pub fn carry_on(&mut self, before: Self) -> Vec<u8> {
        let (Self::Translated(here), Self::Translated(before)) = (self, before) else {
            return Vec::new();
        };
        here.carry_on(before)
    }

    pub fn sight(&self) -> &Sight {
        match self {
            Self::Tapped(tap) => tap.sight(),
            Self::Watched(watched) => &watched.sight,
            Self::Translated(translated) => &translated.sight,
        }
    }

    /// Whether events pass in the upstream's own words.
    pub fn is_verbatim(&self) -> bool {
        !matches!(self, Self::Translated(_))
    }

    /// Looks at one event of the stream.
    pub fn inspect(&mut self, decoder: &Decoder, frame: &Frame) -> Verdict {
        match self {
            Self::Tapped(tap) => tap.inspect(decoder, frame),
            Self::Watched(watched) => watched.inspect(decoder, frame),
            Self::Translated(translated) => translated.inspect(decoder, frame),
        }
    }

    /// Whether an event behind a failure says only once more that the answer failed.
    pub fn fails_again(&self, decoder: &Decoder, frame: &Frame) -> bool {
        let Self::Watched(Watched { count: Some(_), .. }) = self else { return false };
        decoder.data(frame).is_some_and(|data| responses::says_failed(&data))
    }

    /// The upstream's own event of a failure, with all that its dialect ends with then.
    pub fn failed(&self, event: Bytes) -> Bytes {
        if let Self::Tapped(_) = self {
            return openai::told(event);
        }
        let (Self::Watched(Watched { count: Some(count), .. }), Some(failure)) =
            (self, &self.sight().failure)
        else {
            return event;
        };
        if last_data(&event).is_some_and(|data| responses::says_failed(&data)) {
            return event;
        }
        let code = failure.code.as_deref().unwrap_or("server_error");
        let failed = count.failed(count.passed, code, &failure.message);
        [&*event, &*failed].concat().into()
    }

    /// What ends the stream with an error, where that depends on what has passed before.
    pub fn write_error(&self, error: &Error) -> Option<Vec<u8>> {
        match self {
            Self::Translated(translated) => translated.writer.write_error(error),
            Self::Watched(Watched { count: Some(count), .. }) => Some(count.ended(error)),
            Self::Tapped(_) | Self::Watched(_) => None,
        }
    }

    /// The client's bytes for what another one was given.
    pub fn repeat(&mut self, events: &[Event]) -> Vec<u8> {
        match self {
            Self::Translated(translated) if !translated.stopped => {
                translated.events.clear();
                translated.events.extend_from_slice(events);
                translated.write()
            }
            Self::Tapped(_) | Self::Watched(_) | Self::Translated(_) => Vec::new(),
        }
    }

    /// The data of the event that ended the stream, once, as the client is given it. Responses are
    /// whole in it.
    pub fn last_word(&mut self) -> Option<Bytes> {
        match self {
            Self::Tapped(_) => None,
            Self::Watched(watched) => watched.last_word.take(),
            Self::Translated(translated) => translated.last_word.take(),
        }
    }

    /// What the provider will want back and the client may not carry.
    pub fn keepsakes(&mut self) -> Vec<Keepsake> {
        match self {
            Self::Translated(translated) => std::mem::take(&mut translated.keeper).finish(),
            Self::Tapped(_) | Self::Watched(_) => Vec::new(),
        }
    }

    /// The upstream has ended: what the client still lacks of a finished answer. `usage_asked`
    /// tells whether it waits for usage, `input_estimate` what to say of the question's tokens
    /// where the upstream said nothing.
    pub fn complete(&mut self, usage_asked: bool, input_estimate: u64) -> Vec<u8> {
        match self {
            Self::Tapped(tap) => tap.complete(usage_asked, input_estimate),
            Self::Watched(watched) => watched.complete(),
            Self::Translated(translated) => translated.complete(),
        }
    }
}

impl std::fmt::Debug for Passage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_tuple("Passage").field(self.sight()).finish()
    }
}

// === impl Watched ===

impl Watched {
    fn inspect(&mut self, decoder: &Decoder, frame: &Frame) -> Verdict {
        let Some(data) = decoder.data(frame) else { return Verdict::Drop };
        let data = data.trim_ascii();
        self.events.clear();
        let event = (decoder.event(frame), data);
        let unread = self.mender.read(&mut *self.reader, event, &mut self.events).is_err();
        let is_json = || serde_json::from_slice::<serde::de::IgnoredAny>(data).is_ok();
        // What is not understood still passes: a new kind of event is the client's to know. But
        // each is an object, and nothing else is what a client can read.
        if !data.starts_with(b"{") || unread && !is_json() {
            self.sight.malformed += u32::from(!data.is_empty() && data != b"[DONE]");
            return Verdict::Drop;
        }
        for event in &self.events {
            self.sight.note(event, self.choices);
        }
        self.sight.note_endings(self.reader.endings(), self.choices);
        if let Some(count) = &mut self.count {
            count.note(&self.events);
        }
        if self.sight.failure.is_some() {
            return Verdict::Failed;
        }
        if self.events.contains(&Event::End) {
            self.last_word = Some(Bytes::copy_from_slice(data));
        }
        decoder.amended(frame).map_or(Verdict::Forward, Verdict::Replace)
    }

    fn complete(&mut self) -> Vec<u8> {
        self.events.clear();
        self.reader.end(&mut self.events);
        for event in &self.events {
            self.sight.note(event, self.choices);
        }
        if self.sight.finished && !std::mem::replace(&mut self.sight.done, true) {
            return self.closing.to_vec();
        }
        // The end that the reader adds is one that these bytes do not have yet.
        if self.events.contains(&Event::End) { self.closing.to_vec() } else { Vec::new() }
    }
}

// === impl Translated ===

impl Translated {
    fn inspect(&mut self, decoder: &Decoder, frame: &Frame) -> Verdict {
        let Some(data) = decoder.data(frame) else { return Verdict::Drop };
        let data = data.trim_ascii();
        if data.is_empty() {
            return Verdict::Drop;
        }
        if self.stopped {
            return Verdict::Drop;
        }
        self.events.clear();
        let event = (decoder.event(frame), data);
        if self.mender.read(&mut *self.reader, event, &mut self.events).is_err() {
            self.sight.malformed += 1;
        }
        let out = self.write();
        self.sight.note_endings(self.reader.endings(), self.choices);
        if self.sight.failure.is_some() {
            return Verdict::Failed;
        }
        if out.is_empty() { Verdict::Drop } else { Verdict::Replace(out.into()) }
    }

    /// The client's bytes for the events at hand.
    fn write(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            let Some(mut event) = self.withhold(event) else { continue };
            if event == Event::End && self.sight.usage.is_none() {
                // An estimate for the client; the record says for itself that it has none.
                let usage = Usage {
                    input: self.input_estimate,
                    output: self.sight.written,
                    ..Usage::default()
                };
                self.writer.write(&Event::Usage(usage), &mut out);
            }
            self.sight.note(&event, self.choices);
            self.keeper.note(&event);
            self.keeper.bind(&mut event);
            let ends = event == Event::End;
            self.tell(&event, &mut out);
            if ends {
                self.last_word = last_data(&out);
            }
            if self.stopped {
                break;
            }
        }
        self.events = events;
        out
    }

    /// Keeps what belongs to the end of the answer, if that has to wait; else gives it back.
    fn withhold(&mut self, event: Event) -> Option<Event> {
        let Some(end) = &mut self.end else { return Some(event) };
        if end.is_empty() && !matches!(event, Event::Finish { .. }) {
            return Some(event);
        }
        match event {
            Event::Finish { .. } | Event::Usage(_) | Event::End => end.push(event),
            event => return Some(event),
        }
        None
    }

    fn is_withheld(&self) -> bool {
        let finish = |event: &&Event| matches!(event, Event::Finish { .. });
        let finishes = self.end.iter().flatten().filter(finish).count();
        finishes >= self.choices as usize
    }

    fn let_out(&mut self, passed: bool) -> Vec<u8> {
        self.events = self.end.take().unwrap_or_default();
        if passed {
            return self.write();
        }
        let (mut out, mut ended) = (Vec::new(), Vec::new());
        for event in self.events.drain(..).filter(|event| matches!(event, Event::Usage(_))) {
            self.sight.note(&event, self.choices);
        }
        if let Some(screen) = &mut self.screen {
            screen.stop(&mut ended);
        }
        for event in &ended {
            self.give(event, &mut out);
        }
        self.stop(&mut out);
        out
    }

    /// Passes an event on to the writer, through the screen if there is one.
    fn tell(&mut self, event: &Event, out: &mut Vec<u8>) {
        if matches!(event, Event::Failed(_)) {
            return;
        }
        if let Some(seam) = self.seam.as_mut().filter(|seam| seam.waiting) {
            return seam.held.push(event.clone());
        }
        let Some(screen) = &mut self.screen else { return self.give(event, out) };
        let mut passed = Vec::new();
        let stopped = screen.pass(event, &mut passed);
        for event in &passed {
            self.told |= matches!(event, Event::Delta { .. });
            self.give(event, out);
        }
        if stopped.is_err() {
            self.stop(out);
        }
    }

    fn give(&mut self, event: &Event, out: &mut Vec<u8>) {
        match &mut self.seam {
            None => self.writer.write(event, out),
            Some(seam) => seam.pass(event, &mut *self.writer, out),
        }
    }

    /// The answer ends here, properly: with what was used until now.
    fn stop(&mut self, out: &mut Vec<u8>) {
        self.stopped = true;
        let (usage, _) = self.sight.used(self.input_estimate);
        self.give(&Event::Usage(usage), out);
        self.give(&Event::End, out);
        self.last_word = last_data(out);
    }

    fn carry_on(&mut self, before: Self) -> Vec<u8> {
        let mut out = Vec::new();
        self.writer = before.writer;
        let (Some(seam), Some(old)) = (&mut self.seam, before.seam) else { return out };
        let said = old.said.unwrap_or_default();
        let trimmed = said[said.trim_end().len()..].to_owned();
        let held = std::mem::take(&mut seam.held);
        if let Some(screen) = &mut self.screen {
            screen.follows(&said);
        }
        **seam =
            Seam { said: Some(said), open: old.open, follows: true, trimmed, ..Seam::default() };
        for event in &held {
            if !self.stopped {
                self.tell(event, &mut out);
            }
        }
        if held.contains(&Event::End) {
            self.last_word = last_data(&out);
        }
        out
    }

    fn close(&mut self) -> Vec<u8> {
        self.events.clear();
        self.reader.end(&mut self.events);
        self.write()
    }

    fn complete(&mut self) -> Vec<u8> {
        if self.stopped {
            return Vec::new();
        }
        self.events.clear();
        self.reader.end(&mut self.events);
        if !self.sight.done && self.sight.finished && !self.events.contains(&Event::End) {
            self.events.push(Event::End);
        }
        let last = self.write();
        // What stands there at the end may be a call that nobody can make.
        self.sight.finished &= self.sight.failure.is_none();
        last
    }
}

/// The data of the last event in a stream's bytes.
pub fn last_data(stream: &[u8]) -> Option<Bytes> {
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(stream);
    let mut last = None;
    while let Some(frame) = decoder.next_frame() {
        last = decoder.data(&frame).map(|data| Bytes::copy_from_slice(&data)).or(last);
    }
    last
}
