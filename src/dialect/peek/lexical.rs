//! The words of JSON: what a number may be, where a string stops, what its escapes say.

use std::borrow::Cow;

use memchr::memchr2;

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

/// Strings longer than this are searched instead of looked at word by word.
const LONG: usize = 128;
/// What is searched at once: it is still in the nearest cache for the second look.
const STRETCH: usize = 8 * 1024;

/// How many leading bytes are string content that needs no look: neither quote, backslash nor
/// control character.
pub(super) fn plain_prefix(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks();
    let mut length = 0;
    for word in words {
        let special = first_special(u64::from_le_bytes(*word));
        if special < 8 {
            return length + special;
        }
        length += 8;
        if length == LONG {
            return length + long_prefix(&bytes[length..]);
        }
    }
    length + rest.iter().position(|&byte| is_special(byte)).unwrap_or(rest.len())
}

/// Which of eight bytes is the first that ends the run; eight, if none does. Subtraction sets the
/// highest bit of a byte that is too small, and what it borrows is wrong only behind the first:
/// <https://graphics.stanford.edu/~seander/bithacks.html#ZeroInWord>.
fn first_special(word: u64) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    let below = |word: u64, bound: u8| word.wrapping_sub(ONES * u64::from(bound)) & !word;
    let is = |byte: u8| below(word ^ (ONES * u64::from(byte)), 1);
    let special = (is(b'"') | is(b'\\') | below(word, 0x20)) & (ONES << 7);
    special.trailing_zeros() as usize / 8
}

/// The same for what is long: a search for the two that end a run, and the smallest byte of it,
/// which tells of control characters.
fn long_prefix(bytes: &[u8]) -> usize {
    let mut length = 0;
    for stretch in bytes.chunks(STRETCH) {
        let end = memchr2(b'"', b'\\', stretch).unwrap_or(stretch.len());
        let smallest = stretch[..end].iter().fold(u8::MAX, |smallest, &byte| smallest.min(byte));
        if smallest < 0x20 {
            let control = stretch.iter().position(|&byte| is_special(byte));
            return length + control.unwrap_or(end);
        }
        length += end;
        if end < stretch.len() {
            break;
        }
    }
    length
}

fn is_special(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || byte < 0x20
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_at_the_first_special_byte_however_long_it_is() {
        for length in (0..400).chain([8000, 8319, 8320, 8321, 20_000]) {
            let plain = vec![b'a'; length];
            assert_eq!(plain_prefix(&plain), length);
            for special in [b'"', b'\\', b'\n', 0, 0x1f] {
                let mut bytes = plain.clone();
                bytes.extend([special, b'x', b'"', b'\t']);
                assert_eq!(plain_prefix(&bytes), length, "{special} behind {length}");
            }
        }
        let every: Vec<u8> = (0x20..=u8::MAX).filter(|byte| !is_special(*byte)).collect();
        assert_eq!(plain_prefix(&every), every.len());
        let beyond = "\u{7f}é漢".repeat(100);
        assert_eq!(plain_prefix(beyond.as_bytes()), beyond.len());
    }
}
