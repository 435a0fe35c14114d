//! An answer's stream on its way to its client: looked at as it passes, or put into other words.
//!
//! Whatever both ends speak, the gateway sees one thing: `Sight`, cut from our own events. What it
//! decides on it (another target, a truncated end, the bill) is the same for every dialect.

use bytes::Bytes;

use super::keepsake::{Keeper, Keepsake};
use super::openai::Tap;
use super::sse::{Decoder, Frame};
use super::{ReadStream, WriteStream, openai};
use crate::canon::{Delta, Dialect, Event, FinishReason, Opening, StreamFailure, Usage};

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

/// What has been seen of a stream so far.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each seen or not")]
#[derive(Debug, Clone, Default)]
pub struct Sight {
    /// Some of the answer has passed: from here on no other target can take over.
    pub content: bool,
    /// Every answer asked for has its finish reason.
    pub finished: bool,
    /// The stream's own last word has passed.
    pub done: bool,
    pub usage: Option<Usage>,
    /// The client has been given the usage.
    pub usage_shown: bool,
    /// Events that carried some of the answer; about one token each.
    pub deltas: u64,
    /// Events that made no sense and were skipped.
    pub malformed: u32,
    pub failure: Option<StreamFailure>,
    /// Answers that have their finish reason.
    pub finishes: u32,
    /// The last of their reasons.
    pub finish: Option<FinishReason>,
}

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
    sight: Sight,
    choices: u32,
    /// The stream's last word, should the upstream owe it.
    closing: &'static [u8],
    /// The data of the event that ended the stream, until it is asked for.
    last_word: Option<Bytes>,
    events: Vec<Event>,
}

/// Reads, and writes anew.
pub struct Translated {
    reader: Box<dyn ReadStream>,
    writer: Box<dyn WriteStream>,
    /// What was said, where that may have to be carried on; and, where it is carried on here, what
    /// waits for the writer of what it follows.
    seam: Option<Box<Seam>>,
    sight: Sight,
    keeper: Keeper,
    choices: u32,
    /// What is said of usage where the upstream says nothing.
    input_estimate: u64,
    last_word: Option<Bytes>,
    events: Vec<Event>,
}

/// Where one answer may be carried on by another.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each true or not")]
#[derive(Debug, Default)]
struct Seam {
    /// The text so far, while there is nothing but text.
    said: Option<String>,
    /// Its part is still open.
    open: bool,
    /// This answer carries another one on, whose writer is not here yet.
    waiting: bool,
    held: Vec<Event>,
    /// Thoughts of a target that carries on are no part of the answer.
    thinking: bool,
    /// This answer carries another one on.
    follows: bool,
    /// White space that the answer had at its end, and the target was not shown.
    trimmed: String,
}

// === impl Sight ===

impl Sight {
    /// What was used, and whether its provider has said all of it. Before the end it has not: some
    /// tell at the beginning what they know then, and what was written since counts if it is more.
    /// The question is one of so many tokens.
    pub fn used(&self, question: u64) -> (Usage, bool) {
        let estimate = Usage { input: question, ..Usage::default() };
        match self.usage {
            Some(usage) if self.finished => (usage, true),
            told => {
                let told = told.unwrap_or(estimate);
                (Usage { output: told.output.max(self.deltas), ..told }, false)
            }
        }
    }

    /// Whether the stream said it was done without an answer or a reason.
    pub fn says_nothing(&self) -> bool {
        self.done && !self.content && self.finishes == 0
    }

    /// Whether the stream said it was done and gave no reason why its answer ends there.
    pub fn ends_short(&self) -> bool {
        self.done && !self.finished
    }

    fn note(&mut self, event: &Event, choices: u32) {
        match event {
            Event::Delta { delta, .. } if carries(delta) => {
                self.content = true;
                self.deltas += 1;
            }
            Event::Open { part, .. } => self.content |= is_content(part),
            Event::Finish { finish, .. } => {
                self.finish = Some(finish.reason);
                self.finishes += 1;
                self.finished = self.finishes >= choices;
            }
            Event::Usage(usage) => {
                self.usage = Some(*usage);
                self.usage_shown = true;
            }
            Event::Failed(failure) => self.failure = Some(failure.clone()),
            Event::End => {
                self.finished |= self.finishes > 0;
                self.done = true;
            }
            Event::Start(_) | Event::Delta { .. } | Event::Close { .. } => {}
        }
    }
}

fn carries(delta: &Delta) -> bool {
    match delta {
        Delta::Text(text)
        | Delta::Refusal(text)
        | Delta::Reasoning(text)
        | Delta::Arguments(text)
        | Delta::Audio(text)
        | Delta::Transcript(text) => !text.is_empty(),
        Delta::Opaque(_) => true,
        Delta::Citation(_) | Delta::Logprobs(_) => false,
    }
}

/// A part that has begun with more than its kind.
fn is_content(part: &Opening) -> bool {
    match part {
        Opening::ToolCall { .. } | Opening::Media(_) | Opening::Foreign(_) => true,
        Opening::Text | Opening::Refusal | Opening::Reasoning { .. } | Opening::Audio { .. } => {
            false
        }
    }
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
            sight: Sight::default(),
            choices: choices.max(1),
            closing,
            last_word: None,
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
            writer,
            seam: None,
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

// === impl Seam ===

impl Seam {
    fn pass(&mut self, event: &Event, writer: &mut dyn WriteStream, out: &mut Vec<u8>) {
        if self.waiting {
            self.held.push(event.clone());
            return;
        }
        match event {
            Event::Start(_) if self.follows => return,
            Event::Open { part: Opening::Reasoning { .. }, .. } if self.follows => {
                self.thinking = true;
                return;
            }
            Event::Close { .. } if std::mem::take(&mut self.thinking) => return,
            Event::Delta { .. } if self.thinking => return,
            Event::Open { part: Opening::Text, .. } => {
                if std::mem::replace(&mut self.open, true) && self.follows {
                    return;
                }
            }
            Event::Open { choice, part } => {
                // What is more than text cannot be carried on.
                if !matches!(part, Opening::Reasoning { .. }) {
                    self.said = None;
                }
                if std::mem::take(&mut self.open) {
                    writer.write(&Event::Close { choice: *choice }, out);
                }
            }
            Event::Close { .. } => self.open = false,
            Event::Delta { choice, delta: Delta::Text(text) } => {
                return self.say((*choice, text), writer, out);
            }
            Event::Delta { .. }
            | Event::Start(_)
            | Event::Finish { .. }
            | Event::Usage(_)
            | Event::Failed(_)
            | Event::End => {}
        }
        writer.write(event, out);
    }

    /// The first words of what is carried on begin with the space that was there already, or with
    /// none.
    fn say(
        &mut self,
        (choice, text): (u32, &str),
        writer: &mut dyn WriteStream,
        out: &mut Vec<u8>,
    ) {
        let mut text = text;
        while let (Some(space), Some(first)) = (self.trimmed.chars().next(), text.chars().next()) {
            if space != first {
                self.trimmed.clear();
                break;
            }
            self.trimmed.drain(..space.len_utf8());
            text = &text[first.len_utf8()..];
        }
        if text.is_empty() {
            return;
        }
        if let Some(said) = &mut self.said {
            said.push_str(text);
        }
        let delta = Delta::Text(text.to_owned());
        writer.write(&Event::Delta { choice, delta }, out);
    }
}

// === impl Watched ===

impl Watched {
    fn inspect(&mut self, decoder: &Decoder, frame: &Frame) -> Verdict {
        let Some(data) = decoder.data(frame) else { return Verdict::Drop };
        let data = data.trim_ascii();
        self.events.clear();
        if self.reader.read(decoder.event(frame), data, &mut self.events).is_err() {
            self.sight.malformed += 1;
            // What is not understood still passes: a new kind of event is the client's to know.
            if serde_json::from_slice::<serde::de::IgnoredAny>(data).is_err() {
                return Verdict::Drop;
            }
        }
        for event in &self.events {
            self.sight.note(event, self.choices);
        }
        if self.sight.failure.is_some() {
            return Verdict::Failed;
        }
        if self.events.contains(&Event::End) {
            self.last_word = Some(Bytes::copy_from_slice(data));
        }
        if frame.is_private() {
            let event = decoder.bytes(frame.range.clone());
            return Verdict::Replace(super::sse::without_private(event));
        }
        Verdict::Forward
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
        self.events.clear();
        if self.reader.read(decoder.event(frame), data, &mut self.events).is_err() {
            self.sight.malformed += 1;
        }
        let out = self.write();
        if self.sight.failure.is_some() {
            return Verdict::Failed;
        }
        if out.is_empty() { Verdict::Drop } else { Verdict::Replace(out.into()) }
    }

    /// The client's bytes for the events at hand.
    fn write(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        for event in &self.events {
            if *event == Event::End && self.sight.usage.is_none() {
                // An estimate for the client; the record says for itself that it has none.
                let usage = Usage {
                    input: self.input_estimate,
                    output: self.sight.deltas,
                    ..Usage::default()
                };
                self.writer.write(&Event::Usage(usage), &mut out);
            }
            self.sight.note(event, self.choices);
            self.keeper.note(event);
            match &mut self.seam {
                _ if matches!(event, Event::Failed(_)) => {}
                None => self.writer.write(event, &mut out),
                Some(seam) => seam.pass(event, &mut *self.writer, &mut out),
            }
        }
        if self.events.contains(&Event::End) {
            self.last_word = last_data(&out);
        }
        out
    }

    fn carry_on(&mut self, before: Self) -> Vec<u8> {
        let mut out = Vec::new();
        self.writer = before.writer;
        let (Some(seam), Some(old)) = (&mut self.seam, before.seam) else { return out };
        let said = old.said.unwrap_or_default();
        let trimmed = said[said.trim_end().len()..].to_owned();
        let held = std::mem::take(&mut seam.held);
        **seam =
            Seam { said: Some(said), open: old.open, follows: true, trimmed, ..Seam::default() };
        for event in &held {
            seam.pass(event, &mut *self.writer, &mut out);
        }
        if held.contains(&Event::End) {
            self.last_word = last_data(&out);
        }
        out
    }

    fn complete(&mut self) -> Vec<u8> {
        self.events.clear();
        self.reader.end(&mut self.events);
        if !self.sight.done && self.sight.finished && !self.events.contains(&Event::End) {
            self.events.push(Event::End);
        }
        self.write()
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
