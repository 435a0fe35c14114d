//! Characters behind the escapes of URLs, JSON, programs and HTML, one by one.

use smallvec::SmallVec;

/// No escape is longer.
const LONGEST: usize = 10;

const ENTITIES: &[(&str, char)] = &[
    ("&lt;", '<'),
    ("&gt;", '>'),
    ("&amp;", '&'),
    ("&quot;", '"'),
    ("&apos;", '\''),
    ("&nbsp;", ' '),
    ("&shy;", '\u{ad}'),
];

/// What a character has come to, and whether it was escaped.
pub(super) type Out = SmallVec<[(char, bool); 12]>;

#[derive(Default)]
pub(super) struct Escapes {
    /// The beginning of what may become an escape.
    pending: String,
    bytes: Utf8,
    /// The first half of a pair of UTF-16.
    high: Option<u32>,
}

/// Characters out of bytes that come one by one. What is none becomes U+FFFD.
#[derive(Default)]
pub(super) struct Utf8 {
    bytes: SmallVec<[u8; 4]>,
}

enum State {
    /// It may still become one.
    Open,
    Byte(u8),
    Unit(u32),
    Sign(char),
    /// It is none.
    Plain,
}

// === impl Escapes ===

impl Escapes {
    /// Whether this character passes as it is.
    pub(super) fn passes(&self, character: char) -> bool {
        self.pending.is_empty()
            && self.bytes.bytes.is_empty()
            && self.high.is_none()
            && !matches!(character, '%' | '\\' | '&')
    }

    pub(super) fn push(&mut self, character: char, out: &mut Out) {
        if self.pending.is_empty() && !matches!(character, '%' | '\\' | '&') {
            self.broken(out);
            return out.push((character, false));
        }
        self.pending.push(character);
        match state(&self.pending) {
            State::Open if self.pending.len() < LONGEST => return,
            State::Byte(byte) => self.bytes.push(byte, |character| out.push((character, true))),
            State::Unit(unit) => self.unit(unit, out),
            State::Sign(sign) => {
                self.broken(out);
                out.push((sign, true));
            }
            State::Open | State::Plain => return self.undo(out),
        }
        self.pending.clear();
    }

    pub(super) fn finish(&mut self, out: &mut Out) {
        self.broken(out);
        out.extend(std::mem::take(&mut self.pending).chars().map(|character| (character, false)));
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.pending.len()
    }

    /// What was taken for an escape is none. Its last character may begin another.
    fn undo(&mut self, out: &mut Out) {
        self.broken(out);
        let last = if self.pending.chars().count() > 1 { self.pending.pop() } else { None };
        out.extend(self.pending.drain(..).map(|character| (character, false)));
        if let Some(last) = last {
            self.push(last, out);
        }
    }

    fn unit(&mut self, unit: u32, out: &mut Out) {
        if let (Some(high), 0xdc00..=0xdfff) = (self.high.take(), unit) {
            let whole = 0x10000 + ((high - 0xd800) << 10) + (unit - 0xdc00);
            out.extend(char::from_u32(whole).map(|character| (character, true)));
        } else if (0xd800..=0xdbff).contains(&unit) {
            self.high = Some(unit);
        } else {
            out.push((char::from_u32(unit).unwrap_or('\u{fffd}'), true));
        }
    }

    fn broken(&mut self, out: &mut Out) {
        self.bytes.finish(|character| out.push((character, true)));
        self.high = None;
    }
}

fn state(pending: &str) -> State {
    let hex = |digits: &str, length: usize| match u32::from_str_radix(digits, 16) {
        _ if digits.is_empty() => State::Open,
        Ok(value) if digits.len() == length => State::Unit(value),
        Ok(_) if digits.len() < length => State::Open,
        _ => State::Plain,
    };
    let byte = |digits: &str| match hex(digits, 2) {
        State::Unit(value) => u8::try_from(value).map_or(State::Plain, State::Byte),
        other => other,
    };
    if let Some(digits) = pending.strip_prefix('%').or_else(|| pending.strip_prefix("\\x")) {
        return byte(digits);
    }
    if let Some(digits) = pending.strip_prefix("\\u{") {
        let digits = digits.strip_suffix('}').ok_or(digits);
        return digits.map_or_else(|open| hex(open, LONGEST), |all| hex(all, all.len()));
    }
    if let Some(digits) = pending.strip_prefix("\\u") {
        return if digits == "{" { State::Open } else { hex(digits, 4) };
    }
    match pending {
        "\\" | "&" => State::Open,
        "\\n" => State::Sign('\n'),
        "\\t" | "\\r" => State::Sign(' '),
        "\\\"" => State::Sign('"'),
        "\\/" => State::Sign('/'),
        _ if pending.starts_with('&') => entity(pending),
        _ => State::Plain,
    }
}

fn entity(pending: &str) -> State {
    if let Some(number) = pending.strip_prefix("&#") {
        let open = number.trim_end_matches(';');
        let (digits, radix) = open.strip_prefix(['x', 'X']).map_or((open, 10), |hex| (hex, 16));
        return match u32::from_str_radix(digits, radix) {
            Ok(value) if number.ends_with(';') => State::Unit(value),
            Ok(_) => State::Open,
            Err(_) if digits.is_empty() && !number.ends_with(';') => State::Open,
            Err(_) => State::Plain,
        };
    }
    let named = ENTITIES.iter().find(|(name, _)| name.starts_with(pending));
    named.map_or(
        State::Plain,
        |(name, sign)| {
            if *name == pending { State::Sign(*sign) } else { State::Open }
        },
    )
}

// === impl Utf8 ===

impl Utf8 {
    pub(super) fn push(&mut self, byte: u8, mut out: impl FnMut(char)) {
        self.bytes.push(byte);
        match std::str::from_utf8(&self.bytes) {
            Ok(text) => text.chars().for_each(&mut out),
            Err(error) if error.error_len().is_none() => return,
            Err(_) => {
                out('\u{fffd}');
                let alone = self.bytes.len() == 1;
                self.bytes.clear();
                if !alone {
                    self.push(byte, out);
                }
                return;
            }
        }
        self.bytes.clear();
    }

    pub(super) fn finish(&mut self, mut out: impl FnMut(char)) {
        if !self.bytes.is_empty() {
            out('\u{fffd}');
            self.bytes.clear();
        }
    }
}
