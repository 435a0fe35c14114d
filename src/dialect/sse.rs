//! Server-sent events on bytes: finds where events end, in any chunking, and what they carry.
//!
//! The format is the one of the WHATWG HTML standard, section 9.2: lines end with LF, CRLF or CR,
//! an empty line ends an event, a leading byte order mark is ignored. The decoder owns the bytes
//! that have arrived and not been taken; whole events are taken out as they came, without a copy.
//!
//! Some servers put one line end between events where there should be two. Data whose first line is
//! a whole JSON object, and whose second one is, too, is no JSON; these are events of their own.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use serde::de::IgnoredAny;

/// Cuts a stream of bytes into frames. Offsets count from the first byte not yet taken.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Where the event at hand begins.
    start: usize,
    /// Where its current line begins.
    line: usize,
    /// The next byte to look at.
    at: usize,
    fields: Fields,
    /// The first bytes have been looked at for a byte order mark.
    begun: bool,
}

/// One event as it stands in the decoder's buffer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its bytes, the empty line that ends it included.
    pub range: Range<usize>,
    fields: Fields,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Fields {
    /// The value of the first `data` line, or of llama.cpp's `error`, which is an event of that name.
    data: Option<Range<usize>>,
    more_data: bool,
    event: Option<Range<usize>>,
    /// The name behind the data: that of the next event, should this one end before it.
    late_event: Option<Range<usize>>,
    /// There is a line that is not for the client: an id or a comment.
    private: bool,
    /// The next event has begun without an empty line between them.
    is_cut: bool,
}

// === impl Decoder ===

impl Decoder {
    /// Where the next bytes are to be appended.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Bytes held: frames not taken and the event that is still incomplete.
    pub fn held(&self) -> usize {
        self.buffer.len()
    }

    /// The next complete event, if it has arrived.
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.skip_mark(false)?;
        loop {
            let rest = &self.buffer[self.at..];
            let Some(found) = memchr::memchr2(b'\n', b'\r', rest) else {
                self.at = self.buffer.len();
                return None;
            };
            let end = self.at + found;
            let next = match (self.buffer[end], self.buffer.get(end + 1)) {
                (b'\n', _) => end + 1,
                (_, Some(b'\n')) => end + 2,
                (_, Some(_)) => end + 1,
                // Whether this is CR or CRLF, the next byte tells.
                (_, None) => {
                    self.at = end;
                    return None;
                }
            };
            if let Some(frame) = self.line_ended(end, next) {
                return Some(frame);
            }
        }
    }

    /// What is left when the stream has ended: an event whose empty line never came, or several.
    pub fn last_frame(&mut self) -> Option<Frame> {
        self.skip_mark(true)?;
        let length = self.buffer.len();
        let line_end = match self.buffer.last() {
            Some(b'\r') => length - 1,
            _ => length,
        };
        if self.line < line_end
            && let Some(frame) = self.line_ended(line_end, length)
        {
            return Some(frame);
        }
        let fields = std::mem::take(&mut self.fields);
        let range = self.start..length;
        (self.start, self.line, self.at) = (length, length, length);
        fields.data.is_some().then_some(Frame { range, fields })
    }

    /// The bytes of complete frames up to `end`, as they came.
    pub fn take(&mut self, end: usize) -> Bytes {
        debug_assert!(end <= self.start, "only complete frames are taken");
        self.shift(end);
        self.buffer.split_to(end).freeze()
    }

    /// Forgets the bytes of complete frames up to `end`.
    pub fn discard(&mut self, end: usize) {
        self.shift(end);
        self.buffer.advance(end);
    }

    /// Gives the memory back when nothing is held, so that a silent stream costs none.
    pub fn rest(&mut self) {
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
    }

    pub fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// The data of a frame, its lines joined by LF; `None` for comments and the like.
    pub fn data(&self, frame: &Frame) -> Option<Cow<'_, [u8]>> {
        let first = frame.fields.data.clone()?;
        if !frame.fields.more_data {
            return Some(Cow::Borrowed(&self.buffer[first]));
        }
        let lines = self.buffer[frame.range.clone()].split(|byte| matches!(byte, b'\n' | b'\r'));
        let data: Vec<&[u8]> = lines
            .filter_map(|line| field(line).filter(|(name, _)| matches!(*name, b"data" | b"error")))
            .map(|(_, value)| value)
            .collect();
        Some(Cow::Owned(data.join(&b'\n')))
    }

    /// The name in a frame's `event` line.
    pub fn event(&self, frame: &Frame) -> Option<&[u8]> {
        let name = frame.fields.late_event.as_ref().or(frame.fields.event.as_ref())?;
        Some(&self.buffer[name.clone()])
    }

    /// What is to be passed on in place of a frame that cannot pass as it is: without the lines that
    /// are not for the client, and with the empty line that is missing behind it.
    pub fn amended(&self, frame: &Frame) -> Option<Bytes> {
        let event = || &self.buffer[frame.range.clone()];
        match (frame.fields.private, frame.fields.is_cut) {
            (false, false) => None,
            (true, false) => Some(without_private(event())),
            (false, true) => Some(ended(event())),
            (true, true) => Some(ended(&without_private(event()))),
        }
    }

    fn shift(&mut self, by: usize) {
        self.start -= by;
        self.line -= by;
        self.at -= by;
        self.fields.shift(by);
    }

    /// Skips a leading byte order mark; `None` while too few bytes are there to tell.
    fn skip_mark(&mut self, ended: bool) -> Option<()> {
        const MARK: &[u8] = b"\xEF\xBB\xBF";
        if self.begun {
            return Some(());
        }
        let head = &self.buffer[..self.buffer.len().min(MARK.len())];
        if head == MARK {
            self.buffer.advance(MARK.len());
        } else if MARK.starts_with(head) && !ended {
            return None;
        }
        self.begun = true;
        Some(())
    }

    /// Notes the line `self.line..end`; the frame, when that line was empty.
    fn line_ended(&mut self, end: usize, next: usize) -> Option<Frame> {
        let line = self.line..end;
        self.line = next;
        self.at = next;
        if line.is_empty() {
            let range = self.start..next;
            self.start = next;
            return Some(Frame { range, fields: std::mem::take(&mut self.fields) });
        }
        let Some((name, value)) = field(&self.buffer[line.clone()]) else {
            self.fields.private = true;
            return None;
        };
        let value = end - value.len()..end;
        match name {
            b"data" => return self.note_data(value),
            b"error" => {
                self.note_name(line.start..line.start + name.len());
                return self.note_data(value);
            }
            b"event" => self.note_name(value),
            b"id" => self.fields.private = true,
            _ => {}
        }
        None
    }

    fn note_name(&mut self, name: Range<usize>) {
        let Fields { data, event, late_event, .. } = &mut self.fields;
        *(if data.is_some() { late_event } else { event }) = Some(name);
    }

    /// Notes the data of a line; the event before it, should this line begin another.
    fn note_data(&mut self, value: Range<usize>) -> Option<Frame> {
        let Some(first) = self.fields.data.clone() else {
            self.fields.data = Some(value);
            return None;
        };
        let begins = |line: &[u8]| is_object(line) || line.starts_with(b"[DONE]");
        if self.fields.more_data
            || !is_object(&self.buffer[first.clone()])
            || !begins(&self.buffer[value.clone()])
        {
            self.fields.more_data = true;
            return None;
        }
        let is_crlf = self.buffer[first.end..].starts_with(b"\r\n");
        let end = first.end + if is_crlf { 2 } else { 1 };
        let (event, private) = (self.fields.late_event.take(), self.fields.private);
        let next = Fields { data: Some(value), event, private, ..Fields::default() };
        let fields = Fields { is_cut: true, ..std::mem::replace(&mut self.fields, next) };
        let range = std::mem::replace(&mut self.start, end)..end;
        Some(Frame { range, fields })
    }
}

// === impl Frame ===

impl Frame {
    /// Whether the empty line that ends an event is missing behind it.
    pub fn is_cut(&self) -> bool {
        self.fields.is_cut
    }

    pub fn has_data(&self) -> bool {
        self.fields.data.is_some()
    }
}

// === impl Fields ===

impl Fields {
    fn shift(&mut self, by: usize) {
        let Self { data, event, late_event, .. } = self;
        for range in [data, event, late_event].into_iter().flatten() {
            *range = range.start - by..range.end - by;
        }
    }
}

/// The name and value of a line; `None` for a comment.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    match memchr::memchr(b':', line) {
        Some(0) => None,
        Some(colon) => {
            let value = &line[colon + 1..];
            Some((&line[..colon], value.strip_prefix(b" ").unwrap_or(value)))
        }
        None => Some((line, &line[line.len()..])),
    }
}

/// Appends a comment, which no client takes for a part of the answer.
pub fn comment(text: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b": ");
    // A line that ended here would begin one that is no comment.
    out.extend(text.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
    out.extend_from_slice(b"\n\n");
}

/// An event with the empty line behind it.
pub fn ended(event: &[u8]) -> Bytes {
    let is_text = |byte: &u8| !matches!(byte, b'\n' | b'\r');
    let end = event.iter().rposition(is_text).map_or(0, |last| last + 1);
    [&event[..end], b"\n\n"].concat().into()
}

fn is_object(line: &[u8]) -> bool {
    line.starts_with(b"{") && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}

/// The lines of one event without its ids, which clients' reconnection logic would act on, and
/// comments.
fn without_private(event: &[u8]) -> Bytes {
    let mut kept = BytesMut::with_capacity(event.len());
    let mut dropping = false;
    for line in event.split_inclusive(|&byte| matches!(byte, b'\n' | b'\r')) {
        // The LF of a CRLF goes the way of its line.
        if line != b"\n" || !dropping {
            let bare = line.trim_ascii_end();
            dropping = !bare.is_empty() && field(bare).is_none_or(|(name, _)| name == b"id");
        }
        if !dropping {
            kept.extend_from_slice(line);
        }
        dropping &= line.ends_with(b"\r");
    }
    kept.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Event = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);
    /// Data and name of an event.
    type Carried = (Option<Vec<u8>>, Option<Vec<u8>>);

    fn decode(chunks: &[&[u8]]) -> Vec<Event> {
        let mut decoder = Decoder::default();
        let mut events = Vec::new();
        let mut note = |decoder: &mut Decoder, frame: Frame| {
            let data = decoder.data(&frame).map(Cow::into_owned);
            let event = decoder.event(&frame).map(<[u8]>::to_vec);
            assert_eq!(frame.range.start, 0);
            events.push((decoder.take(frame.range.end).to_vec(), data, event));
        };
        for chunk in chunks {
            decoder.buffer().extend_from_slice(chunk);
            while let Some(frame) = decoder.next_frame() {
                note(&mut decoder, frame);
            }
        }
        while let Some(frame) = decoder.next_frame() {
            note(&mut decoder, frame);
        }
        while let Some(frame) = decoder.last_frame() {
            note(&mut decoder, frame);
        }
        events
    }

    /// The bytes of a stream's events as they are passed on.
    fn passed(stream: &[u8]) -> Vec<u8> {
        let (mut decoder, mut out) = (Decoder::default(), Vec::new());
        decoder.buffer().extend_from_slice(stream);
        while let Some(frame) = decoder.next_frame().or_else(|| decoder.last_frame()) {
            let event = decoder.bytes(frame.range.clone());
            out.extend_from_slice(
                &decoder.amended(&frame).unwrap_or_else(|| event.to_vec().into()),
            );
        }
        out
    }

    /// What the events of a stream are called and carry, of those that carry something.
    fn carried(stream: &[u8]) -> Vec<Carried> {
        let events = decode(&[stream]).into_iter().filter(|(_, data, _)| data.is_some());
        events.map(|(_, data, event)| (data, event)).collect()
    }

    fn stays_when_cut(stream: &[u8]) {
        let whole = decode(&[stream]);
        for cut in 0..=stream.len() {
            let (left, right) = stream.split_at(cut);
            assert_eq!(decode(&[left, right]), whole, "cut at {cut}: {}", stream.escape_ascii());
        }
    }

    #[test]
    fn events_with_one_line_end_between_them_are_events_of_their_own() {
        for end in ["\n", "\r\n", "\r"] {
            let stream = "event: a\ndata: {\"a\":1}\nevent: b\n: hi\ndata: {\"b\":2}\n\ndata: {}\ndata: [DONE]\n\n";
            let stream = stream.replace('\n', end);
            let expected: Vec<Carried> = [
                (r#"{"a":1}"#, Some("a")),
                (r#"{"b":2}"#, Some("b")),
                ("{}", None),
                ("[DONE]", None),
            ]
            .map(|(data, event)| (Some(data.into()), event.map(Into::into)))
            .into();
            for stream in [&*stream, stream.trim_end(), &format!("{}{end}", stream.trim_end())] {
                assert_eq!(carried(stream.as_bytes()), expected, "{stream:?}");
                stays_when_cut(stream.as_bytes());
            }
            assert_eq!(carried(&passed(stream.as_bytes())), expected, "{end:?}");
        }
        assert_eq!(passed(b"data: {}\ndata: {\"a\":1}\n\n"), b"data: {}\n\ndata: {\"a\":1}\n\n");
    }

    #[test]
    fn data_in_several_lines_that_is_one_text_stays_as_it_is() {
        for event in [
            "data: {\ndata: \"a\": 1\ndata: }\n\n",
            "data: {\"a\":\ndata: {\"b\":1}\ndata: }\n\n",
            "data: [\ndata: {},\ndata: {}\ndata: ]\n\n",
            "data: Hello\ndata: there.\n\n",
            "data: {\"a\":1}\ndata: and more\n\n",
            "data: 1\ndata: 2\n\n",
        ] {
            assert_eq!(carried(event.as_bytes()).len(), 1, "{event}");
            assert_eq!(passed(event.as_bytes()), event.as_bytes());
        }
    }

    const ODD: &[u8] = "\u{feff}: hi\n\ndata: {\"a\":\"日本😀\"}\n\nevent: error\r\ndata: 1\r\ndata:2\r\n\r\ndata\n\nid: 7\rdata: x\r\rdata: :x\n\n:\n\nretry: 5\n\ndata: [DONE]".as_bytes();

    #[test]
    fn reads_every_line_end_comment_and_empty_field() {
        let events = decode(&[ODD]);
        let data: Vec<_> = events.iter().map(|(_, data, _)| data.as_deref()).collect();
        let expected: [Option<&[u8]>; 9] = [
            None,
            Some("{\"a\":\"日本😀\"}".as_bytes()),
            Some(b"1\n2"),
            Some(b""),
            Some(b"x"),
            Some(b":x"),
            None,
            None,
            Some(b"[DONE]"),
        ];
        assert_eq!(data, expected);
        assert_eq!(events[2].2.as_deref(), Some(&b"error"[..]));
    }

    #[test]
    fn gives_the_same_events_cut_at_every_byte_and_byte_by_byte() {
        let whole = decode(&[ODD]);
        for cut in 0..=ODD.len() {
            let (left, right) = ODD.split_at(cut);
            assert_eq!(decode(&[left, right]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = ODD.chunks(1).collect();
        assert_eq!(decode(&bytes), whole);
    }

    #[test]
    fn frames_that_are_not_taken_at_once_keep_their_places() {
        let mut decoder = Decoder::default();
        decoder.buffer().extend_from_slice(b"data: a\n\ndata: b\n\ndata: c");
        let first = decoder.next_frame().unwrap();
        let second = decoder.next_frame().unwrap();
        assert!(decoder.next_frame().is_none());
        decoder.discard(first.range.end);
        decoder.buffer().extend_from_slice(b"\n\n");
        assert_eq!(&decoder.take(second.range.end - first.range.end)[..], b"data: b\n\n");
        let third = decoder.next_frame().unwrap();
        assert_eq!(decoder.data(&third).unwrap(), &b"c"[..]);
    }

    #[test]
    fn strips_only_ids_and_comments_whatever_ends_their_lines() {
        let event = "id: 1\ndata: id: 2\n: a comment\nid\ndata: :3\n\n";
        for end in ["\n", "\r\n", "\r"] {
            let (event, expected) =
                (event.replace('\n', end), "data: id: 2\ndata: :3\n\n".replace('\n', end));
            assert_eq!(&without_private(event.as_bytes())[..], expected.as_bytes(), "{end:?}");
        }
    }

    proptest! {
        #[test]
        fn any_lines_in_any_chunking_give_the_same_frames_and_pass_as_such(
            lines in proptest::collection::vec(proptest::sample::select(vec![
                "data: {}", "data:{\"a\":[1]} ", "data: {", "data: }", "data: [DONE]", "data", "event: x",
                "error: {}", "id: 1", ": c", "",
            ]), 0..20),
            end in proptest::sample::select(vec!["\n", "\r\n", "\r"]),
            size in 1_usize..9,
        ) {
            let stream = lines.join(end).into_bytes();
            let whole = decode(&[&stream]);
            prop_assert_eq!(&decode(&stream.chunks(size).collect::<Vec<_>>()), &whole);
            let ended = [&stream[..], b"\n\n"].concat();
            prop_assert_eq!(carried(&passed(&ended)), carried(&ended));
        }

        #[test]
        fn any_bytes_in_any_chunking_give_the_same_frames(
            bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), Just(b':'), Just(b'd'), Just(b' '), any::<u8>()], 0..120),
            size in 1_usize..9,
        ) {
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(decode(&chunks), decode(&[&bytes]));
        }
    }
}
