//! The words of JSON: what a number may be, where a string stops, what its escapes say.

use std::borrow::Cow;

/// Where in the grammar of numbers the scanner stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Minus,
    Zero,
    Integer,
    Point,
    Fraction,
    Exponent,
    ExponentSign,
    ExponentDigits,
}

impl Number {
    /// Where `byte` leads: on in the number, `Some(None)` out of one that is whole, or nowhere.
    #[expect(clippy::option_option, reason = "three ends: on, over, and wrong")]
    pub(super) fn next(self, byte: u8) -> Option<Option<Self>> {
        let next = match (self, byte) {
            (Self::Minus, b'0') => Self::Zero,
            (Self::Minus, b'1'..=b'9') | (Self::Integer, b'0'..=b'9') => Self::Integer,
            (Self::Zero | Self::Integer, b'.') => Self::Point,
            (Self::Point | Self::Fraction, b'0'..=b'9') => Self::Fraction,
            (Self::Zero | Self::Integer | Self::Fraction, b'e' | b'E') => Self::Exponent,
            (Self::Exponent, b'+' | b'-') => Self::ExponentSign,
            (Self::Exponent | Self::ExponentSign | Self::ExponentDigits, b'0'..=b'9') => {
                Self::ExponentDigits
            }
            (
                Self::Zero | Self::Integer | Self::Fraction | Self::ExponentDigits,
                b' ' | b'\n' | b'\r' | b'\t' | b',' | b']' | b'}',
            ) => return Some(None),
            _ => return None,
        };
        Some(Some(next))
    }
}

/// The text of a captured string, its escapes resolved.
pub(super) fn decode(raw: &[u8]) -> Option<Cow<'_, str>> {
    let text = std::str::from_utf8(raw).ok()?;
    if !text.contains('\\') {
        return Some(Cow::Borrowed(text));
    }
    serde_json::from_str(&format!("\"{text}\"")).ok().map(Cow::Owned)
}

/// How many leading bytes are string content that needs no look: neither quote, backslash nor
/// control character. Written so that the compiler turns the blocks into vector instructions.
pub(super) fn plain_prefix(bytes: &[u8]) -> usize {
    let mut length = 0;
    for block in bytes.chunks_exact(64) {
        if block.iter().fold(false, |found, &byte| found | is_special(byte)) {
            break;
        }
        length += 64;
    }
    for block in bytes[length..].chunks_exact(16) {
        if block.iter().fold(false, |found, &byte| found | is_special(byte)) {
            break;
        }
        length += 16;
    }
    let rest = &bytes[length..];
    length + rest.iter().position(|&byte| is_special(byte)).unwrap_or(rest.len())
}

fn is_special(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || byte < 0x20
}
