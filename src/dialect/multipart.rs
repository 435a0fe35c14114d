//! Reads the small fields of a multipart form (RFC 7578) while its bytes pass by.
//!
//! The bytes are fed in any chunking and never kept, except for the fields that routing asks for.
//! Their places in the body are remembered, so that a value can be replaced by slicing.

use std::borrow::Cow;

use memchr::memchr;

use super::batch::{Contents, Lines};
use super::peek::Span;

/// The longest accepted value of a field that is looked at.
const MAX_VALUE: usize = 512;
/// The longest accepted headers of one part.
const MAX_HEADERS: usize = 8 * 1024;
/// More parts are refused.
const MAX_PARTS: usize = 1024;
/// RFC 2046, section 5.1.1.
const MAX_BOUNDARY: usize = 70;

/// The fields that are looked at; all others pass unread.
const WANTED: [&str; 3] = ["model", "stream", "n"];

/// The parser. Feed it every byte of the body, in order, then `finish`.
#[derive(Debug)]
pub struct Form {
    /// What ends a part: CR LF, two hyphens and the boundary.
    delimiter: Vec<u8>,
    state: State,
    /// Bytes consumed so far.
    at: usize,
    parts: usize,
    /// The headers, or the value of a wanted field, being read.
    captured: Vec<u8>,
    /// Which of `WANTED` is being read, and where its value begins.
    open: Option<(usize, usize)>,
    fields: [Option<Field>; WANTED.len()],
    /// Where a file may be that of a batch: what its lines say.
    lines: Option<Box<Lines>>,
    /// It is the file that passes.
    in_file: bool,
}

/// One field that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    pub value: String,
    /// Where the value stands in the body.
    pub span: Span,
}

/// Why a form was refused. The text is shown to the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("The `content-type` must be `multipart/form-data` with a `boundary`.")]
    NoBoundary,
    #[error("The form is malformed: {expected} expected at byte {at}.")]
    Syntax { expected: &'static str, at: usize },
    #[error("The form ends too early, after {at} bytes; its last boundary is missing.")]
    Truncated { at: usize },
    #[error("The form has more than {MAX_PARTS} parts.")]
    TooManyParts,
    #[error("`{0}` occurs twice in the form; send it once.")]
    Duplicate(&'static str),
    #[error("`{0}` must be text of at most {MAX_VALUE} bytes.")]
    BadValue(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a part, or before the first one, with so many bytes of the delimiter matched.
    Content {
        matched: usize,
    },
    /// Behind a delimiter: the end of its line, or two hyphens for the end of the form.
    Behind,
    Hyphen,
    LineFeed,
    Headers,
    /// Behind the last boundary; what follows is nobody's.
    Done,
}

// === impl Form ===

impl Form {
    /// A parser for a body of this `content-type`.
    pub fn new(content_type: &str) -> Result<Self, Fault> {
        let boundary = boundary(content_type).ok_or(Fault::NoBoundary)?;
        Ok(Self {
            delimiter: [b"\r\n--", boundary.as_bytes()].concat(),
            // The first delimiter needs no line end before it.
            state: State::Content { matched: 2 },
            at: 0,
            parts: 0,
            captured: Vec::new(),
            open: None,
            fields: [const { None }; WANTED.len()],
            lines: None,
            in_file: false,
        })
    }

    /// One that also reads what is in its file, line by line.
    pub fn with_lines(content_type: &str) -> Result<Self, Fault> {
        Ok(Self { lines: Some(Box::default()), ..Self::new(content_type)? })
    }

    /// What is in the file, once all of the form has passed.
    pub fn contents(&mut self) -> Option<Contents> {
        self.lines.take().filter(|_| self.state == State::Done).map(|lines| lines.finish())
    }

    /// A field, once all of it has passed.
    pub fn field(&self, name: &str) -> Option<&Field> {
        let place = WANTED.iter().position(|wanted| *wanted == name)?;
        self.fields[place].as_ref()
    }

    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        let mut rest = bytes;
        while let Some(byte) = rest.first() {
            let taken = match self.state {
                State::Content { matched: 0 } => self.skip(rest)?,
                State::Done => rest.len(),
                state => {
                    self.step(state, *byte)?;
                    1
                }
            };
            self.at += taken;
            rest = &rest[taken..];
        }
        Ok(())
    }

    /// The body has ended.
    pub fn finish(&self) -> Result<(), Fault> {
        if self.state == State::Done { Ok(()) } else { Err(Fault::Truncated { at: self.at }) }
    }

    /// Passes over content up to where a delimiter may begin: CR stands nowhere else in it.
    fn skip(&mut self, rest: &[u8]) -> Result<usize, Fault> {
        let end = memchr(b'\r', rest).unwrap_or(rest.len());
        if end > 0 {
            self.capture(&rest[..end])?;
            return Ok(end);
        }
        self.step(self.state, b'\r')?;
        Ok(1)
    }

    fn step(&mut self, state: State, byte: u8) -> Result<(), Fault> {
        self.state = match (state, byte) {
            (State::Content { matched }, _) => self.content(matched, byte)?,
            (State::Behind, b'-') => State::Hyphen,
            (State::Behind, b' ' | b'\t') => State::Behind,
            (State::Behind, b'\r') => State::LineFeed,
            (State::Hyphen, b'-') | (State::Done, _) => State::Done,
            (State::LineFeed, b'\n') => self.begin_part()?,
            (State::Headers, _) => self.header(byte)?,
            (State::Behind | State::Hyphen | State::LineFeed, _) => {
                return Err(Fault::Syntax { expected: "the end of a boundary", at: self.at });
            }
        };
        Ok(())
    }

    /// One byte of content that may belong to a delimiter.
    fn content(&mut self, matched: usize, byte: u8) -> Result<State, Fault> {
        self.capture(&[byte])?;
        let matched = if byte == self.delimiter[matched] {
            matched + 1
        } else {
            // The delimiter has its only CR at the front, so nothing shorter can be under way.
            usize::from(byte == b'\r')
        };
        if matched < self.delimiter.len() {
            return Ok(State::Content { matched });
        }
        self.end_part()?;
        Ok(State::Behind)
    }

    fn capture(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        if let Some(lines) = self.lines.as_mut().filter(|_| self.in_file) {
            lines.feed(bytes);
        }
        let Some((wanted, _)) = self.open else { return Ok(()) };
        self.captured.extend_from_slice(bytes);
        if self.captured.len() > MAX_VALUE + self.delimiter.len() {
            return Err(Fault::BadValue(WANTED[wanted]));
        }
        Ok(())
    }

    fn begin_part(&mut self) -> Result<State, Fault> {
        self.parts += 1;
        // A part without headers ends its headers with this very line.
        self.captured.extend_from_slice(b"\r\n");
        if self.parts > MAX_PARTS { Err(Fault::TooManyParts) } else { Ok(State::Headers) }
    }

    fn header(&mut self, byte: u8) -> Result<State, Fault> {
        self.captured.push(byte);
        if !self.captured.ends_with(b"\r\n\r\n") {
            let fits = self.captured.len() <= MAX_HEADERS;
            let fault = Fault::Syntax { expected: "the end of a part's headers", at: self.at };
            return if fits { Ok(State::Headers) } else { Err(fault) };
        }
        let headers = std::mem::take(&mut self.captured);
        let name = name(&headers).unwrap_or_default();
        self.in_file = name == "file";
        let wanted = WANTED.iter().position(|wanted| *wanted == name);
        self.open = wanted.map(|wanted| (wanted, self.at + 1));
        if let Some(wanted) = wanted.filter(|wanted| self.fields[*wanted].is_some()) {
            return Err(Fault::Duplicate(WANTED[wanted]));
        }
        Ok(State::Content { matched: 0 })
    }

    /// The delimiter behind a part has passed, up to the byte at hand.
    fn end_part(&mut self) -> Result<(), Fault> {
        if let Some(lines) = self.lines.as_mut().filter(|_| std::mem::take(&mut self.in_file)) {
            // The delimiter begins with a line end, so that all before it has been read.
            lines.forget_rest();
        }
        let captured = std::mem::take(&mut self.captured);
        let Some((wanted, start)) = self.open.take() else { return Ok(()) };
        let length = captured.len().saturating_sub(self.delimiter.len());
        let value = str::from_utf8(&captured[..length]);
        let value = value.map_err(|_| Fault::BadValue(WANTED[wanted]))?.to_owned();
        let span = Span { start, end: start + length };
        self.fields[wanted] = Some(Field { value, span });
        Ok(())
    }
}

/// Whether a body of this `content-type` is a form.
pub fn is_form(content_type: &str) -> bool {
    let media_type = content_type.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("multipart/form-data")
}

fn boundary(content_type: &str) -> Option<Cow<'_, str>> {
    let boundary = parameter(content_type, "boundary").filter(|_| is_form(content_type))?;
    let printable = boundary.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    (printable && (1..=MAX_BOUNDARY).contains(&boundary.len())).then_some(boundary)
}

/// The name of a part, from its `content-disposition`.
fn name(headers: &[u8]) -> Option<String> {
    let headers = str::from_utf8(headers).ok()?;
    let mut lines = headers.split("\r\n").filter_map(|line| line.split_once(':'));
    let (_, value) =
        lines.find(|(name, _)| name.trim().eq_ignore_ascii_case("content-disposition"))?;
    parameter(value, "name").map(Cow::into_owned)
}

/// The parameter of a header's value, with or without quotes.
fn parameter<'a>(value: &'a str, wanted: &str) -> Option<Cow<'a, str>> {
    let mut rest = value.split_once(';')?.1;
    loop {
        let (name, behind) = rest.split_once('=')?;
        let found = name.trim().eq_ignore_ascii_case(wanted);
        let behind = behind.trim_start();
        let (text, after) = match behind.strip_prefix('"') {
            Some(quoted) => unquoted(quoted)?,
            None => match behind.split_once(';') {
                Some((token, after)) => (Cow::Borrowed(token.trim()), after),
                None => (Cow::Borrowed(behind.trim()), ""),
            },
        };
        if found {
            return Some(text);
        }
        rest = after.trim_start().trim_start_matches(';');
    }
}

/// The text up to the closing quote, and what stands behind it.
fn unquoted(quoted: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut text = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((text.into(), &quoted[at + 1..])),
            // Browsers escape quotes as %22, and leave backslashes of file names alone.
            '\\' => match letters.next()? {
                (_, escaped @ ('"' | '\\')) => text.push(escaped),
                (_, other) => text.extend(['\\', other]),
            },
            letter => text.push(letter),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TYPE: &str = "multipart/form-data; boundary=\"b-1\"";
    const BODY: &[u8] = b"preamble\r\n--b-1\r\nContent-Disposition: form-data; name=\"file\"; \
        filename=\"a;name=\\\"model\\\".wav\"\r\nContent-Type: audio/wav\r\n\r\n\r\r\n--b-\r\n-\0\xff\r\n--b-1 \r\n\
        content-disposition: form-data; name=model\r\n\r\nwhisper\r\n--b-1\r\n\
        Content-Disposition: form-data; name=\"stream\"\r\n\r\n\r\n--b-1--\r\nepilogue";

    fn parse(parts: &[&[u8]]) -> Result<[Option<Field>; WANTED.len()], Fault> {
        let mut form = Form::new(TYPE)?;
        for part in parts {
            form.feed(part)?;
        }
        form.finish()?;
        Ok(form.fields)
    }

    #[test]
    fn finds_the_fields_it_is_asked_for_and_their_places() {
        let [model, stream, number] = parse(&[BODY]).unwrap();
        let model = model.unwrap();
        assert_eq!((model.value.as_str(), number), ("whisper", None));
        assert_eq!(&BODY[model.span.start..model.span.end], b"whisper");
        let stream = stream.unwrap();
        assert_eq!((stream.value.as_str(), stream.span.start), ("", stream.span.end));
    }

    #[test]
    fn a_form_that_breaks_off_is_noticed() {
        let end = BODY.len() - b"--\r\nepilogue".len();
        for cut in 0..end {
            let result = parse(&[&BODY[..cut]]);
            assert!(matches!(result, Err(Fault::Truncated { .. })), "{cut}: {result:?}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        let form = |text: &str| parse(&[text.as_bytes()]).unwrap_err();
        let part = |name: &str, value: &str| {
            format!("--b-1\r\ncontent-disposition: form-data; name={name}\r\n\r\n{value}\r\n")
        };
        assert!(matches!(form("--b-1X"), Fault::Syntax { .. }));
        assert!(matches!(form(&format!("--b-1\r\n{}", "x".repeat(9000))), Fault::Syntax { .. }));
        assert_eq!(form(&part("model", "a").repeat(2)), Fault::Duplicate("model"));
        assert_eq!(form(&part("model", &"a".repeat(600))), Fault::BadValue("model"));
        assert_eq!(form(&part("x", "a").repeat(1025)), Fault::TooManyParts);
        for content_type in [
            "multipart/form-data",
            "multipart/form-data; boundary=",
            "application/json; boundary=b",
            "multipart/form-data; boundary=\"a\rb\"",
        ] {
            assert_eq!(Form::new(content_type).unwrap_err(), Fault::NoBoundary, "{content_type}");
        }
    }

    #[test]
    fn a_part_may_have_no_headers() {
        assert_eq!(parse(&[b"--b-1\r\n\r\nx\r\n--b-1--"]).unwrap(), [const { None }; 3]);
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_fields(mut cuts in proptest::collection::vec(0..BODY.len(), 0..8)) {
            cuts.sort_unstable();
            cuts.insert(0, 0);
            cuts.push(BODY.len());
            let parts: Vec<&[u8]> = cuts.windows(2).map(|pair| &BODY[pair[0]..pair[1]]).collect();
            prop_assert_eq!(parse(&parts), parse(&[BODY]));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = parse(&[b"--b-1\r\n", &bytes]);
            let _ = parse(&[b"--b-1\r\n\r\n", &bytes, b"\r\n--b-1--"]);
        }
    }
}
