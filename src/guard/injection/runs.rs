//! Runs of base64 and of hex digits in a text, decoded while they pass by.

use smallvec::SmallVec;

use super::escapes::Utf8;

/// Shorter runs are words.
const LEAST_BASE64: usize = 16;
const LEAST_HEX: usize = 8;
/// Lines of base64 that were broken are at least this long.
const LINE: usize = 40;

/// What comes of a run.
pub(super) enum Decoded {
    Character(char),
    End,
}

#[derive(Default)]
pub(super) struct Base64 {
    length: usize,
    /// Digits that are held until the run is long enough.
    early: SmallVec<[u32; LEAST_BASE64]>,
    bits: u32,
    digits: u8,
    text: Utf8,
}

/// Pairs of hex digits, also with one or two signs between them.
#[derive(Default)]
pub(super) struct Hex {
    group: usize,
    gap: usize,
    half: Option<u8>,
    early: SmallVec<[u8; LEAST_HEX]>,
    begun: bool,
    text: Utf8,
}

// === impl Base64 ===

impl Base64 {
    pub(super) fn push(&mut self, character: char, out: &mut impl FnMut(Decoded)) {
        let Some(digit) = digit(character) else {
            let wraps = matches!(character, '\n' | '\r') && self.length >= LINE;
            if !wraps {
                self.finish(out);
            }
            return;
        };
        self.length += 1;
        if self.length < LEAST_BASE64 {
            return self.early.push(digit);
        }
        for early in std::mem::take(&mut self.early) {
            self.take(early, out);
        }
        self.take(digit, out);
    }

    pub(super) fn finish(&mut self, out: &mut impl FnMut(Decoded)) {
        if self.length >= LEAST_BASE64 {
            self.text.finish(|character| out(Decoded::Character(character)));
            out(Decoded::End);
        }
        if self.length > 0 {
            self.early.clear();
            (self.length, self.bits, self.digits) = (0, 0, 0);
        }
    }

    fn take(&mut self, digit: u32, out: &mut impl FnMut(Decoded)) {
        self.bits = self.bits << 6 | digit;
        self.digits += 1;
        if self.digits == 4 {
            let [_, bytes @ ..] = self.bits.to_be_bytes();
            for byte in bytes {
                self.text.push(byte, |character| out(Decoded::Character(character)));
            }
            (self.bits, self.digits) = (0, 0);
        } else if self.digits == 0 {
            self.bits = 0;
        }
    }
}

fn digit(character: char) -> Option<u32> {
    let code = u32::from(character);
    match character {
        'A'..='Z' => Some(code - 65),
        'a'..='z' => Some(code - 71),
        '0'..='9' => Some(code + 4),
        '+' | '-' => Some(62),
        '/' | '_' => Some(63),
        _ => None,
    }
}

// === impl Hex ===

impl Hex {
    pub(super) fn push(&mut self, character: char, out: &mut impl FnMut(Decoded)) {
        if let Some(digit) = character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()) {
            (self.group, self.gap) = (self.group + 1, 0);
            if let Some(half) = self.half.take() {
                self.byte(half << 4 | digit, out);
            } else {
                self.half = Some(digit);
            }
        } else if matches!(character, 'x' | 'X') && self.group == 1 && self.half == Some(0) {
            (self.group, self.half) = (0, None);
        } else if matches!(character, ' ' | ':' | ',' | '\\' | '\n')
            && self.half.is_none()
            && self.gap < 2
            && (self.begun || !self.early.is_empty())
        {
            (self.group, self.gap) = (0, self.gap + 1);
        } else {
            self.finish(out);
        }
    }

    pub(super) fn finish(&mut self, out: &mut impl FnMut(Decoded)) {
        if self.begun {
            self.text.finish(|character| out(Decoded::Character(character)));
            out(Decoded::End);
        }
        if self.begun || self.group > 0 || self.gap > 0 {
            *self = Self::default();
        }
    }

    fn byte(&mut self, byte: u8, out: &mut impl FnMut(Decoded)) {
        if !self.begun && self.early.len() + 1 < LEAST_HEX {
            return self.early.push(byte);
        }
        self.begun = true;
        for byte in std::mem::take(&mut self.early).into_iter().chain([byte]) {
            self.text.push(byte, |character| out(Decoded::Character(character)));
        }
    }
}
