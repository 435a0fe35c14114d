//! Arguments of tools on their way past guards: JSON in pieces, of which only what its strings and
//! numbers say is looked at, and which is JSON afterwards, too.
//!
//! A string is decoded, passes the filter as a text of its own, and is spelled anew. A number that
//! the filter changes becomes a string, for a placeholder is none. All else stays as it is.

use std::fmt::Write as _;

use super::filter::Filter;
use super::verdict::Blocked;

/// Puts the strings of a JSON text through `Inner`. What is not JSON passes as it comes, its
/// strings still looked at.
pub struct Arguments<Inner> {
    inner: Inner,
    place: Place,
    /// The escape or the number that has begun.
    begun: String,
    /// Decoded and not yet given to the filter.
    decoded: String,
    /// The first half of a character that two escapes spell.
    surrogate: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Outside,
    Number,
    Text,
    /// Behind a backslash.
    Escape,
}

/// No number that anyone means is longer.
const NUMBER_MOST: usize = 256;

// === impl Arguments ===

impl<Inner: Filter> Arguments<Inner> {
    pub fn new(inner: Inner) -> Self {
        let (begun, decoded) = (String::new(), String::new());
        Self { inner, place: Place::Outside, begun, decoded, surrogate: None }
    }

    pub fn inner(&self) -> &Inner {
        &self.inner
    }

    pub fn into_inner(self) -> Inner {
        self.inner
    }

    fn step(&mut self, character: char, out: &mut String) -> Result<(), Blocked> {
        match self.place {
            Place::Number if is_number(character) && self.begun.len() < NUMBER_MOST => {
                self.begun.push(character);
                Ok(())
            }
            Place::Number => {
                self.end_number(out)?;
                self.outside(character, out);
                Ok(())
            }
            Place::Outside => {
                self.outside(character, out);
                Ok(())
            }
            Place::Escape => {
                self.begun.push(character);
                self.escape();
                Ok(())
            }
            Place::Text => self.text(character, out),
        }
    }

    fn outside(&mut self, character: char, out: &mut String) {
        if character == '"' {
            self.place = Place::Text;
            out.push('"');
        } else if is_number(character) && !matches!(character, 'e' | 'E') {
            self.place = Place::Number;
            self.begun.push(character);
        } else {
            self.place = Place::Outside;
            out.push(character);
        }
    }

    fn text(&mut self, character: char, out: &mut String) -> Result<(), Blocked> {
        match character {
            '\\' => self.place = Place::Escape,
            '"' => {
                self.orphan();
                self.place = Place::Outside;
                self.flush(out)?;
                let mut rest = String::new();
                self.inner.finish(&mut rest)?;
                spell(&rest, out);
                out.push('"');
            }
            _ => {
                self.orphan();
                self.decoded.push(character);
            }
        }
        Ok(())
    }

    /// Ends the escape if it is whole. One that does not exist stands for what follows it.
    fn escape(&mut self) {
        let first = self.begun.chars().next().unwrap_or_default();
        let plain = match first {
            'u' if self.begun.chars().count() < 5 => return,
            'u' => {
                self.place = Place::Text;
                let unit = u16::from_str_radix(self.begun.get(1..).unwrap_or_default(), 16);
                self.begun.clear();
                return self.unit(unit.unwrap_or(0xFFFD));
            }
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            other => other,
        };
        self.place = Place::Text;
        self.begun.clear();
        self.orphan();
        self.decoded.push(plain);
    }

    /// Takes in a unit of UTF-16.
    fn unit(&mut self, unit: u16) {
        let first = self.surrogate.take();
        let units = first.into_iter().chain([unit]);
        if (0xD800..=0xDBFF).contains(&unit) {
            self.decoded.extend(first.map(|_| char::REPLACEMENT_CHARACTER));
            self.surrogate = Some(unit);
        } else {
            let decoded = char::decode_utf16(units);
            self.decoded.extend(decoded.map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)));
        }
    }

    /// Half a character stays alone.
    fn orphan(&mut self) {
        self.decoded.extend(self.surrogate.take().map(|_| char::REPLACEMENT_CHARACTER));
    }

    fn flush(&mut self, out: &mut String) -> Result<(), Blocked> {
        if self.decoded.is_empty() {
            return Ok(());
        }
        let mut passed = String::new();
        let result = self.inner.feed(&self.decoded, &mut passed);
        self.decoded.clear();
        spell(&passed, out);
        result
    }

    fn end_number(&mut self, out: &mut String) -> Result<(), Blocked> {
        self.place = Place::Outside;
        let number = std::mem::take(&mut self.begun);
        let passed = self.inner.whole(&number)?;
        if passed == number {
            out.push_str(&number);
        } else {
            out.push('"');
            spell(&passed, out);
            out.push('"');
        }
        Ok(())
    }
}

impl<Inner: Filter> Filter for Arguments<Inner> {
    fn feed(&mut self, piece: &str, out: &mut String) -> Result<(), Blocked> {
        for character in piece.chars() {
            self.step(character, out)?;
        }
        self.flush(out)
    }

    fn finish(&mut self, out: &mut String) -> Result<(), Blocked> {
        if self.place == Place::Number {
            self.end_number(out)?;
        }
        self.orphan();
        self.flush(out)?;
        let mut rest = String::new();
        self.inner.finish(&mut rest)?;
        spell(&rest, out);
        // Cut off within an escape: what it would have been is not known.
        (self.place, self.surrogate) = (Place::Outside, None);
        self.begun.clear();
        Ok(())
    }
}

fn is_number(character: char) -> bool {
    character.is_ascii_digit() || matches!(character, '-' | '+' | '.' | 'e' | 'E')
}

/// Writes a text as the inside of a JSON string.
fn spell(text: &str, out: &mut String) {
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if (control as u32) < 0x20 => {
                let _ = write!(out, "\\u{:04x}", control as u32);
            }
            plain => out.push(plain),
        }
    }
}
