//! JSON that is almost some, made whole: what one careless server writes must not cost an answer its
//! words. Nothing is looked at here that can be read as it is.
//!
//! Halves of a pair of surrogates (RFC 8259, section 8.2) come of texts that were cut between two
//! UTF-16 units: they are put together where the other half begins the next piece, and are U+FFFD
//! else. Bare control characters are escaped, numbers that are none are null, and of a key that
//! stands twice the last counts.

use std::borrow::Cow;

use serde_json::Value;

use super::{Misread, ReadStream};
use crate::canon::Event;

/// Mends the events of one stream.
#[derive(Debug, Default)]
pub struct Mender {
    /// The first half of a character whose second half is to come.
    half: Option<u16>,
}

/// Where an event's text stands.
enum State {
    Outside,
    /// In a string of which so many bytes are written.
    String(usize),
}

/// A whole body made legible; `None` if that is beyond mending.
pub fn whole(body: &[u8]) -> Option<Vec<u8>> {
    serde_json::to_vec(&value(body)?).ok()
}

/// The same as a value.
pub fn value(body: &[u8]) -> Option<Value> {
    Mender::default().value(body)
}

// === impl Mender ===

impl Mender {
    /// Has `reader` read an event, once more if it is only legible when mended.
    pub fn read(
        &mut self,
        reader: &mut dyn ReadStream,
        (name, data): (Option<&[u8]>, &[u8]),
        events: &mut Vec<Event>,
    ) -> Result<(), Misread> {
        let misread = match reader.read(name, data, events) {
            Err(misread) if data.starts_with(b"{") => misread,
            read => return read,
        };
        let mended = self.value(data).and_then(|value| serde_json::to_vec(&value).ok());
        mended.map_or(Err(misread), |mended| reader.read(name, &mended, events))
    }

    fn value(&mut self, body: &[u8]) -> Option<Value> {
        let text = String::from_utf8_lossy(body);
        let mended = self.text(&text);
        serde_json::from_slice(&mended).ok()
    }

    fn text(&mut self, text: &str) -> Vec<u8> {
        let (mut rest, mut out) = (text.as_bytes(), Vec::with_capacity(text.len()));
        let mut state = State::Outside;
        while let Some(&byte) = rest.first() {
            let length = match (&state, byte) {
                (State::Outside, b'"') => {
                    state = State::String(out.len() + 1);
                    1
                }
                (State::String(_), b'"') => {
                    state = State::Outside;
                    1
                }
                (State::String(begin), b'\\') => {
                    let is_first = *begin == out.len();
                    let (length, written) = self.escape(rest, is_first);
                    out.extend_from_slice(&written);
                    rest = rest.get(length..).unwrap_or_default();
                    continue;
                }
                (State::String(_), 0..0x20) => {
                    out.extend(format!("\\u{byte:04x}").bytes());
                    rest = &rest[1..];
                    continue;
                }
                (State::Outside, b'N' | b'I' | b'-') => match no_number(rest) {
                    Some(length) => {
                        out.extend_from_slice(b"null");
                        rest = &rest[length..];
                        continue;
                    }
                    None => 1,
                },
                (State::String(_) | State::Outside, _) => 1,
            };
            out.extend_from_slice(&rest[..length]);
            rest = &rest[length..];
        }
        out
    }

    /// How long the escape is that a string goes on with, and what stands in its place.
    fn escape<'a>(&mut self, rest: &'a [u8], is_first: bool) -> (usize, Cow<'a, [u8]>) {
        const UNKNOWN: &[u8] = b"\\ufffd";
        let Some(unit) = unit(rest) else {
            let length = rest.len().min(2);
            return (length, rest[..length].into());
        };
        let behind = &rest[6..];
        match unit {
            0xd800..0xdc00 if unit_in(behind, 0xdc00..0xe000) => (12, rest[..12].into()),
            0xd800..0xdc00 if behind.starts_with(b"\"") => {
                self.half = Some(unit);
                (6, Cow::Borrowed(b""))
            }
            0xdc00..0xe000 => match self.half.take().filter(|_| is_first) {
                Some(high) => (6, format!("\\u{high:04x}\\u{unit:04x}").into_bytes().into()),
                None => (6, UNKNOWN.into()),
            },
            0xd800..0xdc00 => (6, UNKNOWN.into()),
            _ => (6, rest[..6].into()),
        }
    }
}

/// The unit of UTF-16 that these bytes begin with as an escape.
fn unit(bytes: &[u8]) -> Option<u16> {
    let digits = bytes.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn unit_in(bytes: &[u8], range: std::ops::Range<u16>) -> bool {
    unit(bytes).is_some_and(|unit| range.contains(&unit))
}

/// How long the word is that stands for a number that JSON does not have.
fn no_number(rest: &[u8]) -> Option<usize> {
    ["NaN", "Infinity", "-Infinity"]
        .iter()
        .find(|word| rest.starts_with(word.as_bytes()))
        .map(|word| word.len())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mended(text: &str) -> String {
        value(text.as_bytes())
            .map_or_else(|| "beyond mending".to_owned(), |value| value.to_string())
    }

    #[test]
    fn what_is_almost_json_is_read() {
        for (text, expected) in [
            (r#"{"a":"x\ud83d y"}"#, "{\"a\":\"x\u{fffd} y\"}"),
            (r#"{"a":"\ude00"}"#, "{\"a\":\"\u{fffd}\"}"),
            (r#"{"a":"\ud83d\ude00\n\\u"}"#, r#"{"a":"😀\n\\u"}"#),
            (
                r#"{"a":NaN,"b":[-Infinity,Infinity,-1],"c":"NaN"}"#,
                r#"{"a":null,"b":[null,null,-1],"c":"NaN"}"#,
            ),
            ("{\"a\":\"x\ny\"}", r#"{"a":"x\ny"}"#),
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{"a":"\ud83"#, "beyond mending"),
            (r#"{"a":"\"#, "beyond mending"),
        ] {
            assert_eq!(mended(text), expected, "{text}");
        }
        assert_eq!(value(b"{\"a\":\"\xff\"}").unwrap()["a"], "\u{fffd}");
    }

    #[test]
    fn a_character_that_was_cut_is_put_together() {
        let mut mender = Mender::default();
        let first = mender.value(br#"{"a":"x\ud83d"}"#).unwrap();
        let second = mender.value(br#"{"a":"\ude00y"}"#).unwrap();
        assert_eq!((first["a"].as_str(), second["a"].as_str()), (Some("x"), Some("😀y")));
        assert_eq!(mender.value(br#"{"a":"\ude00"}"#).unwrap()["a"], "\u{fffd}");
    }

    proptest! {
        #[test]
        fn what_is_json_stays_what_it_is(text in ".{0,40}", number: i32) {
            let value = serde_json::json!({"text": text, "list": [number, null, {"text": text}]});
            prop_assert_eq!(&super::value(value.to_string().as_bytes()).unwrap(), &value);
        }

        #[test]
        fn any_bytes_are_taken(bytes in proptest::collection::vec(
            prop_oneof![Just(b'"'), Just(b'\\'), Just(b'u'), Just(b'd'), Just(b'8'), Just(b'{'), any::<u8>()],
            0..60,
        )) {
            super::value(&bytes);
        }
    }
}
