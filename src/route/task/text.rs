//! The part of a text that is looked at, and how much its places count: instructions stand at the
//! beginning or at the end, what lies between is mostly what they are about.

use std::borrow::Cow;

/// So much of a long text's beginning, and as much of its end.
const WINDOW: usize = 2048;

/// An instruction in front is no longer than this, nor is one behind.
const INSTRUCTION: usize = 400;

/// The first words count more: many an instruction begins with its verb.
const FIRST_WORDS: usize = 24;

/// Quotation marks, opening and closing.
const QUOTES: [(&str, &str); 6] =
    [("“", "”"), ("„", "“"), ("«", "»"), ("「", "」"), ("\"", "\""), ("『", "』")];

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zone {
    Head,
    Body,
    Tail,
}

/// A stretch of the text up to `end`, and what a word in it counts.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    end: usize,
    zone: Zone,
    factor: f32,
}

pub(super) struct Text<'a> {
    /// As it was written.
    pub(super) window: Cow<'a, str>,
    /// In lower case, without marks that people leave out.
    pub(super) folded: Cow<'a, str>,
    pub(super) head_end: usize,
    stretches: Vec<Stretch>,
}

impl<'a> Text<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let window = window(text.trim());
        let folded = match fold(&window) {
            Cow::Owned(folded) => Cow::Owned(folded),
            Cow::Borrowed(_) => window.clone(),
        };
        let head_end = head_end(&folded);
        let stretches = stretches(&folded, head_end);
        Self { window, folded, head_end, stretches }
    }

    /// The zone of a place in the folded text, and the factor there.
    pub(super) fn place(&self, at: usize) -> (Zone, f32) {
        let next = self.stretches.partition_point(|stretch| stretch.end <= at);
        self.stretches.get(next).map_or((Zone::Body, 0.0), |found| (found.zone, found.factor))
    }
}

fn window(text: &str) -> Cow<'_, str> {
    if text.len() <= 2 * WINDOW {
        return text.into();
    }
    let (first, last) =
        (text.floor_char_boundary(WINDOW), text.ceil_char_boundary(text.len() - WINDOW));
    format!("{}\n…\n{}", &text[..first], &text[last..]).into()
}

/// Lower case, one apostrophe, and Arabic without its optional marks. Nothing is copied where there
/// is nothing to do; ASCII is left to the search, which takes either case.
pub(super) fn fold(text: &str) -> Cow<'_, str> {
    let folds = |letter: char| !letter.is_ascii() && plain(letter).is_none_or(|now| now != letter);
    if text.is_ascii() || !text.chars().any(folds) {
        return text.into();
    }
    let mut folded = String::with_capacity(text.len() + 16);
    for letter in text.chars().filter_map(plain) {
        folded.push(letter);
    }
    folded.into()
}

/// One letter folded, or nothing where it is left out.
fn plain(letter: char) -> Option<char> {
    match letter {
        '’' | '‘' => Some('\''),
        'أ' | 'إ' | 'آ' => Some('ا'),
        '\u{64b}'..='\u{652}' => None,
        'İ' => Some('i'),
        // Most letters beyond ASCII are in scripts without case or already small: no look-up.
        'а'..='я'
        | 'ё'
        | '\u{627}'..='\u{64a}'
        | '\u{671}'..='\u{109f}'
        | '\u{3000}'..='\u{d7a3}' => Some(letter),
        other => other.to_lowercase().next(),
    }
}

/// Where the instruction in front ends at the latest.
fn head_end(text: &str) -> usize {
    let last = text.floor_char_boundary(INSTRUCTION);
    let front = &text[..text.ceil_char_boundary(INSTRUCTION + 4)];
    let breaks = ["\n\n", ":\n", "```", "\n---"].into_iter().filter_map(|mark| front.find(mark));
    breaks.filter(|at| *at > 0).min().unwrap_or(last).min(last)
}

/// Where the last paragraph begins, if it is short enough for an instruction.
fn last_paragraph(text: &str) -> Option<usize> {
    let from = text.floor_char_boundary(text.len().saturating_sub(INSTRUCTION));
    text[from..].rfind("\n\n").map(|at| from + at + 2)
}

/// Where an instruction behind may begin.
fn tail_start(text: &str, head_end: usize) -> usize {
    let earliest = text.floor_char_boundary(text.len().saturating_sub(INSTRUCTION));
    last_paragraph(text).unwrap_or(earliest).max(head_end)
}

/// What each place counts. In front: less inside of quotation marks, behind a colon and below the
/// first line, where what is worked on begins.
fn stretches(text: &str, head_end: usize) -> Vec<Stretch> {
    let head = &text[..head_end];
    let mut stretches = Vec::with_capacity(16);
    // A long paragraph in front and a short one behind: the instruction is the one behind.
    let pasted =
        last_paragraph(text).is_some() && head_end == text.floor_char_boundary(INSTRUCTION);
    let (mut outside, mut quoted) = (if pasted { 0.4_f32 } else { 1.0 }, 0);
    for (at, letter) in head.char_indices() {
        if at >= quoted {
            quoted = quoted_until(&head[at..]).map_or(quoted, |length| at + length);
        }
        let factor = match at {
            _ if at < quoted => 0.3,
            ..FIRST_WORDS => 1.3 * outside,
            _ => outside,
        };
        let end = at + letter.len_utf8();
        extend(&mut stretches, Stretch { end, zone: Zone::Head, factor });
        let payload = letter == '：' || (letter == ':' && head[end..].starts_with(' '));
        if payload {
            outside = outside.min(0.5);
        } else if letter == '\n' {
            outside = outside.min(0.7);
        }
    }
    let tail = tail_start(text, head_end);
    extend(&mut stretches, Stretch { end: tail, zone: Zone::Body, factor: 0.15 });
    extend(&mut stretches, Stretch { end: text.len(), zone: Zone::Tail, factor: 1.0 });
    stretches
}

/// Lengthens the last stretch where nothing changes, else begins another.
fn extend(stretches: &mut Vec<Stretch>, next: Stretch) {
    match stretches.last_mut() {
        #[expect(clippy::float_cmp, reason = "the same few constants")]
        Some(last) if last.factor == next.factor && last.zone == next.zone => last.end = next.end,
        _ => stretches.push(next),
    }
}

/// Up to where a text that begins with a quotation mark is quoted.
fn quoted_until(text: &str) -> Option<usize> {
    let (open, close) = QUOTES.into_iter().find(|(open, _)| text.starts_with(*open))?;
    text[open.len()..].find(close).map(|at| open.len() + at + close.len())
}
