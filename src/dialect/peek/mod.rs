//! Reads the few facts that routing needs from a JSON body without parsing it.
//!
//! The scanner checks the structure of the whole document (RFC 8259) in one pass over the bytes,
//! fed in any chunking, and remembers where the values lie that a route may change. String
//! contents are skipped sixty-four bytes at a time; only the top-level keys are looked at. One that
//! matters here and occurs twice is refused, because gateway and provider could disagree on which
//! counts.

mod beginnings;
mod envelope;
mod lexical;

use std::borrow::Cow;

pub use self::beginnings::Beginnings;
pub use self::envelope::{
    Envelope, Fault, MAX_DEPTH, MAX_MODEL, ModelPlace, Most, Span, StreamOptions,
};
use self::lexical::{Number, decode, plain_prefix};

/// The scanner. Feed it every byte of the body, in order and in any chunking, then `finish`.
#[expect(clippy::struct_excessive_bools, reason = "independent facts, each seen or not")]
#[derive(Debug)]
pub struct Scanner {
    state: State,
    /// Bytes consumed before the chunk at hand.
    base: usize,
    depth: usize,
    /// One bit a level: set when that level is an array.
    arrays: [u64; MAX_DEPTH / 64],
    purpose: Purpose,
    /// The bytes of a key or scalar that is looked at.
    captured: Vec<u8>,
    value_start: usize,
    top: Option<Field>,
    inside_options: bool,
    include_usage_next: bool,
    /// Which of `FIELDS` occurred.
    seen: [bool; FIELDS.len()],
    model: Option<(String, ModelPlace)>,
    /// Where the key of the top-level member at hand begins.
    key_start: usize,
    stream: bool,
    stream_unclear: bool,
    choices: u32,
    store: Option<bool>,
    background: bool,
    previous: Option<String>,
    conversation: bool,
    most: Most,
    beginnings: Beginnings,
    options: Option<StreamOptions>,
    options_open: usize,
    options_empty: bool,
    options_member: Option<Span>,
    /// The last comma at the top level, if there was one.
    comma: Option<usize>,
    /// Where the top-level member at hand begins, the comma before it included.
    member_start: usize,
    close: usize,
}

/// What the string or scalar being read is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// A key that may be one of ours.
    Key,
    /// A key that cannot be.
    SkippedKey,
    /// A value that is looked at.
    Value,
    SkippedValue,
}

/// The top-level keys that are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Model,
    Stream,
    StreamOptions,
    Choices,
    Store,
    Background,
    Previous,
    Conversation,
    MaxTokens,
    MaxCompletionTokens,
    MaxOutputTokens,
    Messages,
    Input,
    Contents,
    Prompt,
    System,
    Tools,
}

const FIELDS: &[(&str, Field)] = &[
    ("model", Field::Model),
    ("stream", Field::Stream),
    ("stream_options", Field::StreamOptions),
    ("n", Field::Choices),
    ("store", Field::Store),
    ("background", Field::Background),
    ("previous_response_id", Field::Previous),
    ("conversation", Field::Conversation),
    ("max_tokens", Field::MaxTokens),
    ("max_completion_tokens", Field::MaxCompletionTokens),
    ("max_output_tokens", Field::MaxOutputTokens),
    // What is said, and with what: guards must have seen what the provider reads.
    ("messages", Field::Messages),
    ("input", Field::Input),
    ("contents", Field::Contents),
    ("prompt", Field::Prompt),
    ("system", Field::System),
    ("tools", Field::Tools),
];

/// Longer keys cannot be one of `FIELDS`, even with every letter escaped.
const LONGEST_KEY: usize = 6 * "max_completion_tokens".len() + 1;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Value,
    /// Behind `[`.
    ValueOrEnd,
    /// Behind `{`.
    KeyOrEnd,
    /// Behind a comma in an object.
    Key,
    Colon,
    AfterValue,
    String,
    Escape,
    /// Hexadecimal digits still to come.
    Unicode(u8),
    Number(Number),
    /// The letters still to come of `true`, `false` or `null`.
    Literal(&'static [u8]),
    Done,
}

// === impl Scanner ===

impl Default for Scanner {
    fn default() -> Self {
        Self {
            state: State::Value,
            base: 0,
            depth: 0,
            arrays: [0; MAX_DEPTH / 64],
            purpose: Purpose::SkippedValue,
            captured: Vec::new(),
            value_start: 0,
            top: None,
            inside_options: false,
            include_usage_next: false,
            seen: [false; FIELDS.len()],
            model: None,
            key_start: 0,
            stream: false,
            stream_unclear: false,
            choices: 1,
            store: None,
            background: false,
            previous: None,
            conversation: false,
            most: Most::default(),
            beginnings: Beginnings::none(),
            options: None,
            options_open: 0,
            options_empty: true,
            options_member: None,
            comma: None,
            member_start: 0,
            close: 0,
        }
    }
}

impl Scanner {
    /// Reads the next bytes of the body.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            match self.state {
                State::String => at = self.string(bytes, at)?,
                State::Escape | State::Unicode(_) => {
                    self.escape(byte, at)?;
                    at += 1;
                }
                State::Number(number) => at = self.number(number, byte, at)?,
                State::Literal(rest) => {
                    self.literal(rest, byte, at)?;
                    at += 1;
                }
                _ if matches!(byte, b' ' | b'\n' | b'\r' | b'\t') => at += 1,
                _ => at = self.token(bytes, at)?,
            }
        }
        self.base += bytes.len();
        Ok(())
    }

    /// Says what was read, once the last byte was fed.
    pub fn finish(self) -> Result<Envelope, Fault> {
        match self.state {
            State::Done => {}
            State::Value if self.depth == 0 => return Err(Fault::Empty),
            _ => return Err(Fault::Truncated { at: self.base }),
        }
        if self.stream_unclear {
            return Err(Fault::BadStream);
        }
        let (model, model_place) =
            self.model.map(|(model, place)| (model, Some(place))).unwrap_or_default();
        Ok(Envelope {
            model,
            model_place,
            stream: self.stream,
            stream_options: self.options.unwrap_or_default(),
            stream_options_member: self.options_member,
            choices: self.choices,
            store: self.store,
            background: self.background,
            previous: self.previous,
            conversation: self.conversation,
            most: self.most,
            beginnings: self.beginnings,
            close: self.close,
        })
    }

    /// What stands outside strings, numbers and literals; returns where to go on.
    fn token(&mut self, bytes: &[u8], at: usize) -> Result<usize, Fault> {
        let (byte, next) = (bytes[at], at + 1);
        self.structure(byte, at)?;
        if byte == b'"' {
            self.beginnings.note(&bytes[next..]);
        }
        Ok(next)
    }

    /// One significant byte of that.
    fn structure(&mut self, byte: u8, at: usize) -> Result<(), Fault> {
        match (self.state, byte) {
            (State::KeyOrEnd, b'}') | (State::ValueOrEnd, b']') => self.close(at),
            (State::KeyOrEnd | State::Key, b'"') => {
                if self.depth == 1 {
                    self.key_start = self.base + at;
                    self.member_start = self.comma.unwrap_or(self.key_start);
                }
                let is_option = self.depth == 2 && self.inside_options;
                self.options_empty &= !is_option;
                let looked_at = self.depth == 1 || is_option;
                self.begin(at, if looked_at { Purpose::Key } else { Purpose::SkippedKey });
                self.state = State::String;
            }
            (State::Colon, b':') => self.state = State::Value,
            (State::Value | State::ValueOrEnd, _) => self.value(byte, at)?,
            (State::AfterValue, b',') => {
                if self.depth == 1 {
                    self.separator(self.base + at);
                }
                self.state = if self.in_array() { State::Value } else { State::Key };
            }
            (State::AfterValue, b'}') if !self.in_array() => self.close(at),
            (State::AfterValue, b']') if self.in_array() => self.close(at),
            _ => return Err(self.syntax(at)),
        }
        Ok(())
    }

    /// The first byte of a value.
    fn value(&mut self, byte: u8, at: usize) -> Result<(), Fault> {
        if self.depth == 0 && byte != b'{' {
            return Err(Fault::NotAnObject);
        }
        if self.top == Some(Field::Model) && self.depth == 1 && byte != b'"' {
            return Err(Fault::BadModel);
        }
        let state = match byte {
            b'{' | b'[' => return self.open(byte == b'[', at),
            b'"' => State::String,
            b't' => State::Literal(b"rue"),
            b'f' => State::Literal(b"alse"),
            b'n' => State::Literal(b"ull"),
            b'-' => State::Number(Number::Minus),
            b'0' => State::Number(Number::Zero),
            b'1'..=b'9' => State::Number(Number::Integer),
            _ => return Err(self.syntax(at)),
        };
        let looked_at = match self.depth {
            1 => self.top.is_some(),
            2 => self.include_usage_next,
            _ => false,
        };
        self.begin(at, if looked_at { Purpose::Value } else { Purpose::SkippedValue });
        if looked_at && byte != b'"' {
            self.captured.push(byte);
        }
        self.state = state;
        Ok(())
    }

    /// A comma at the top level. It goes with the member behind it, or with the one before it when
    /// that is the first.
    fn separator(&mut self, at: usize) {
        if let Some(member) = &mut self.options_member
            && self.comma.is_none()
        {
            member.end = at + 1;
        }
        self.comma = Some(at);
    }

    fn begin(&mut self, at: usize, purpose: Purpose) {
        self.value_start = self.base + at;
        self.purpose = purpose;
        self.captured.clear();
    }

    fn open(&mut self, array: bool, at: usize) -> Result<(), Fault> {
        if self.depth == MAX_DEPTH {
            return Err(Fault::TooDeep);
        }
        let (word, bit) = (self.depth / 64, 1_u64 << (self.depth % 64));
        if array {
            self.arrays[word] |= bit;
        } else {
            self.arrays[word] &= !bit;
        }
        if self.depth == 1 && self.top == Some(Field::StreamOptions) && !array {
            self.inside_options = true;
            self.options_open = self.base + at + 1;
        }
        self.depth += 1;
        self.state = if array { State::ValueOrEnd } else { State::KeyOrEnd };
        Ok(())
    }

    fn close(&mut self, at: usize) {
        self.depth -= 1;
        self.state = State::AfterValue;
        if self.depth == 0 {
            self.close = self.base + at;
            self.state = State::Done;
        } else if self.depth == 1 {
            self.conversation |= self.top == Some(Field::Conversation);
            if self.inside_options {
                self.inside_options = false;
                let (open, empty) = (self.options_open, self.options_empty);
                self.options.get_or_insert(StreamOptions::Without { open, empty });
                self.options_ended(self.base + at + 1);
            }
            self.top = None;
        } else if self.depth == 2 && self.include_usage_next {
            // An object or array is no boolean; the provider may refuse it as it stands.
            self.include_usage_next = false;
            self.options = Some(StreamOptions::Asked);
        }
    }

    /// Inside a string; returns where to go on.
    fn string(&mut self, bytes: &[u8], at: usize) -> Result<usize, Fault> {
        let end = at + plain_prefix(&bytes[at..]);
        self.capture(&bytes[at..end])?;
        match bytes.get(end) {
            None => return Ok(end),
            Some(b'"') => self.string_ended(end)?,
            Some(b'\\') => {
                self.capture(b"\\")?;
                self.state = State::Escape;
            }
            Some(_) => return Err(self.syntax(end)),
        }
        Ok(end + 1)
    }

    fn capture(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let length = self.captured.len() + bytes.len();
        match self.purpose {
            Purpose::SkippedKey | Purpose::SkippedValue => {}
            Purpose::Key if length > LONGEST_KEY => self.purpose = Purpose::SkippedKey,
            Purpose::Value if length > MAX_MODEL => {
                if self.top == Some(Field::Model) {
                    return Err(Fault::BadModel);
                }
                self.purpose = Purpose::SkippedValue;
            }
            Purpose::Key | Purpose::Value => self.captured.extend_from_slice(bytes),
        }
        Ok(())
    }

    fn escape(&mut self, byte: u8, at: usize) -> Result<(), Fault> {
        self.state = match (self.state, byte) {
            (State::Escape, b'u') => {
                self.beginnings.note_escape();
                State::Unicode(4)
            }
            (State::Escape, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                State::String
            }
            (State::Unicode(1), _) if byte.is_ascii_hexdigit() => State::String,
            (State::Unicode(left), _) if byte.is_ascii_hexdigit() => State::Unicode(left - 1),
            _ => return Err(self.syntax(at)),
        };
        self.capture(&[byte])
    }

    fn string_ended(&mut self, at: usize) -> Result<(), Fault> {
        match self.purpose {
            Purpose::Key => {
                self.state = State::Colon;
                self.key_ended()
            }
            Purpose::SkippedKey => {
                self.state = State::Colon;
                Ok(())
            }
            Purpose::Value | Purpose::SkippedValue => {
                let span = Span { start: self.value_start, end: self.base + at + 1 };
                if self.depth == 1 && self.top == Some(Field::Model) {
                    let model = decode(&self.captured).filter(|model| !model.is_empty());
                    let member = Span { start: self.key_start, end: span.end };
                    let place = ModelPlace { value: span, member };
                    self.model = Some((model.ok_or(Fault::BadModel)?.into_owned(), place));
                }
                self.scalar_ended(span, true);
                Ok(())
            }
        }
    }

    /// A key that is looked at has ended: is it one of ours?
    fn key_ended(&mut self) -> Result<(), Fault> {
        let key = decode(&self.captured);
        let key = key.as_deref().unwrap_or_default();
        if self.depth == 2 {
            self.include_usage_next = key == "include_usage";
            if self.include_usage_next && self.options.is_some() {
                return Err(Fault::Duplicate("stream_options.include_usage"));
            }
            return Ok(());
        }
        let Some(&(name, field)) = FIELDS.iter().find(|(name, _)| *name == key) else {
            return Ok(());
        };
        if self.seen[field as usize] {
            return Err(Fault::Duplicate(name));
        }
        self.seen[field as usize] = true;
        // Of those from here on it is enough that they stand there once.
        if field as usize >= Field::Messages as usize {
            return Ok(());
        }
        self.top = Some(field);
        // One that is spelled with escapes is left alone.
        let start = self.key_start;
        let place = Some(Span { start, end: start + name.len() + "\"\"".len() });
        match field {
            Field::MaxTokens if self.captured == name.as_bytes() => self.most.key = place,
            Field::MaxCompletionTokens if self.captured == name.as_bytes() => {
                self.most.completion_key = place;
            }
            _ => {}
        }
        Ok(())
    }

    /// A value that is no object or array has ended; `text` when it was a string.
    fn scalar_ended(&mut self, span: Span, text: bool) {
        self.state = State::AfterValue;
        if self.depth == 2 && self.include_usage_next {
            self.include_usage_next = false;
            let asked = !text && self.captured == b"true";
            self.options =
                Some(if asked { StreamOptions::Asked } else { StreamOptions::Declined(span) });
        }
        if self.depth != 1 {
            return;
        }
        match self.top.take() {
            Some(Field::Stream) => match (text, self.captured.as_slice()) {
                (false, b"true") => self.stream = true,
                (false, b"false" | b"null") => {}
                // Some servers take it for true, and would stream to who does not expect it.
                _ => self.stream_unclear = true,
            },
            Some(Field::StreamOptions) => {
                let null = !text && self.captured == b"null";
                self.options =
                    Some(if null { StreamOptions::Null(span) } else { StreamOptions::Asked });
                self.options_ended(span.end);
            }
            Some(Field::Choices) => self.choices = self.number_read(text).unwrap_or(1),
            Some(Field::MaxTokens) => self.most.tokens = self.number_read(text),
            Some(Field::MaxCompletionTokens) => self.most.completion = self.number_read(text),
            Some(Field::MaxOutputTokens) => self.most.output = self.number_read(text),
            Some(Field::Store) => {
                self.store = match (text, self.captured.as_slice()) {
                    (false, b"true") => Some(true),
                    (false, b"false") => Some(false),
                    _ => None,
                };
            }
            Some(Field::Background) => self.background = !text && self.captured == b"true",
            Some(Field::Previous) if text => {
                self.previous = decode(&self.captured).map(Cow::into_owned);
            }
            Some(Field::Conversation) => self.conversation = text || self.captured != b"null",
            Some(_) | None => {}
        }
    }

    /// The value that has ended, where it is a number of this kind.
    fn number_read<N: std::str::FromStr>(&self, text: bool) -> Option<N> {
        let number = std::str::from_utf8(&self.captured).ok().filter(|_| !text)?;
        number.parse().ok()
    }

    fn options_ended(&mut self, end: usize) {
        self.options_member = Some(Span { start: self.member_start, end });
    }

    /// Inside a number; returns where to go on. A number ends at the first byte beyond it.
    fn number(&mut self, number: Number, byte: u8, at: usize) -> Result<usize, Fault> {
        let Some(next) = number.next(byte) else {
            return Err(self.syntax(at));
        };
        let Some(next) = next else {
            self.scalar_ended(Span { start: self.value_start, end: self.base + at }, false);
            return Ok(at);
        };
        self.capture(&[byte])?;
        self.state = State::Number(next);
        Ok(at + 1)
    }

    fn literal(&mut self, rest: &'static [u8], byte: u8, at: usize) -> Result<(), Fault> {
        let Some((_, after)) = rest.split_first().filter(|(first, _)| **first == byte) else {
            return Err(self.syntax(at));
        };
        self.capture(&[byte])?;
        self.state = State::Literal(after);
        if after.is_empty() {
            let span = Span { start: self.value_start, end: self.base + at + 1 };
            self.scalar_ended(span, false);
        }
        Ok(())
    }

    fn in_array(&self) -> bool {
        let level = self.depth.saturating_sub(1);
        self.arrays[level / 64] & (1 << (level % 64)) != 0
    }

    fn syntax(&self, at: usize) -> Fault {
        let expected = match self.state {
            State::Value | State::Number(_) | State::Literal(_) => "a value",
            State::ValueOrEnd => "a value or `]`",
            State::KeyOrEnd => "a key or `}`",
            State::Key => "a key",
            State::Colon => "`:`",
            State::AfterValue if self.in_array() => "`,` or `]`",
            State::AfterValue => "`,` or `}`",
            State::String => "an escape, not a control character,",
            State::Escape | State::Unicode(_) => "a valid escape",
            State::Done => "nothing more",
        };
        Fault::Syntax { expected, at: self.base + at }
    }
}

#[cfg(test)]
mod tests;
