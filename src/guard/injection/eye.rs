//! One reading of a text, character by character: escapes are undone, letters folded, words parted,
//! and what is encoded in it is read by further eyes.

use super::escapes::{Escapes, Out};
use super::letters::{fold, is_wide};
use super::lexicon::Lexicon;
use super::runs::{Base64, Decoded, Hex};
use super::watch::{Sign, View, Watch};
use super::words::{Spelling, Words};

/// What is encoded in what is encoded is read too, and no deeper.
const DEEPEST: u8 = 2;
/// What an inner eye must find so that it counts as an attack that was encoded.
const PAYLOAD_LEAST: u32 = 400;
/// So many hidden characters in a row are no accident, and no flag of a region.
const HIDDEN_RUN: u32 = 16;
const TAG_RUN: u32 = 8;
/// So many letters that were escaped.
const ESCAPED_RUN: u32 = 4;
/// What the end of a sentence is worth, as distance.
const SENTENCE: u64 = 10;

pub(super) struct Eye {
    depth: u8,
    escapes: Escapes,
    words: Words,
    pub(super) watch: Watch,
    base64: Base64,
    hex: Hex,
    /// For base64 and for hex: made when they are first needed.
    inner: [Option<Box<Eye>>; 2],
    escaped: u32,
    hidden: u32,
    tags: u32,
    /// An ASCII letter stands here, or stood in front of what is hidden here.
    letter: bool,
}

// === impl Eye ===

impl Eye {
    pub(super) fn new(lexicon: &Lexicon) -> Self {
        Self::at(lexicon, 0)
    }

    fn at(lexicon: &Lexicon, depth: u8) -> Self {
        Self {
            depth,
            escapes: Escapes::default(),
            words: Words::default(),
            watch: Watch::new(lexicon),
            base64: Base64::default(),
            hex: Hex::default(),
            inner: [None, None],
            escaped: 0,
            hidden: 0,
            tags: 0,
            letter: false,
        }
    }

    pub(super) fn push(&mut self, character: char, lexicon: &Lexicon) {
        if self.escapes.passes(character) {
            return self.see(character, false, lexicon);
        }
        let mut out = Out::new();
        self.escapes.push(character, &mut out);
        for (character, escaped) in out {
            self.see(character, escaped, lexicon);
        }
    }

    /// The text is over: `watch.best` is what it comes to.
    pub(super) fn finish(&mut self, lexicon: &Lexicon) {
        let mut out = Out::new();
        self.escapes.finish(&mut out);
        for (character, escaped) in out {
            self.see(character, escaped, lexicon);
        }
        self.decode(None, lexicon);
        self.words.finish(&mut View { lexicon, watch: &mut self.watch });
        self.watch.finish(lexicon);
    }

    /// Ready for another text.
    pub(super) fn begin(&mut self, lexicon: &Lexicon) {
        View { lexicon, watch: &mut self.watch }.begin();
        (self.escaped, self.hidden, self.tags, self.letter) = (0, 0, 0, false);
    }

    fn see(&mut self, character: char, escaped: bool, lexicon: &Lexicon) {
        let Some(character) = self.unhide(character, lexicon) else { return };
        // Bytes that are no text part words, and are many where what is decoded is none.
        let character = if character == '\u{fffd}' { ' ' } else { character };
        if lexicon.decodes {
            self.decode(Some(character), lexicon);
        }
        if character.is_alphanumeric() {
            self.escaped = if escaped { self.escaped + 1 } else { 0 };
        }
        let mut view = View { lexicon, watch: &mut self.watch };
        if self.escaped >= ESCAPED_RUN {
            view.sign(Sign::Escapes);
        }
        let mut width = 0;
        fold(character, |letter| {
            // An accent on its own comes to nothing.
            width = self::width(character);
            view.mark(letter);
            self.words.push(letter, &mut view);
        });
        self.watch.advance(width, lexicon);
    }

    /// What is seen of a character: nothing of one that is invisible, ASCII of a tag.
    fn unhide(&mut self, character: char, lexicon: &Lexicon) -> Option<char> {
        let mut view = View { lexicon, watch: &mut self.watch };
        if let Some(tagged) = tag(character) {
            self.tags += 1;
            if self.tags == TAG_RUN {
                view.sign(Sign::Tags);
            }
            // Apart from what is seen, in both directions.
            if self.tags == 1 {
                self.words.push(' ', &mut view);
            }
            return Some(tagged);
        }
        if is_invisible(character) {
            self.hidden += 1;
            if self.hidden == HIDDEN_RUN {
                view.sign(Sign::InvisibleRun);
            }
            return None;
        }
        if matches!(character, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            if matches!(character, '\u{202d}' | '\u{202e}') {
                view.sign(Sign::Bidi);
            }
            return None;
        }
        if std::mem::take(&mut self.tags) > 0 {
            self.words.push(' ', &mut view);
        }
        let letter = character.is_ascii_alphabetic();
        if std::mem::take(&mut self.hidden) > 0 && self.letter && letter {
            view.sign(Sign::ZeroWidth);
        }
        self.letter = letter;
        Some(character)
    }

    /// A character, or the end, to whoever decodes.
    fn decode(&mut self, character: Option<char>, lexicon: &Lexicon) {
        if self.depth == DEEPEST {
            return;
        }
        let mut payload = false;
        let [base64, hex] = &mut self.inner;
        let depth = self.depth + 1;
        let mut read = |inner: &mut Option<Box<Self>>, decoded| {
            let eye = inner.get_or_insert_with(|| Box::new(Self::at(lexicon, depth)));
            match decoded {
                Decoded::Character(character) => eye.push(character, lexicon),
                Decoded::End => {
                    eye.finish(lexicon);
                    payload |= eye.watch.best.permille >= PAYLOAD_LEAST;
                    eye.begin(lexicon);
                }
            }
        };
        if let Some(character) = character {
            self.base64.push(character, &mut |decoded| read(base64, decoded));
            self.hex.push(character, &mut |decoded| read(hex, decoded));
        } else {
            self.base64.finish(&mut |decoded| read(base64, decoded));
            self.hex.finish(&mut |decoded| read(hex, decoded));
        }
        if payload {
            View { lexicon, watch: &mut self.watch }.sign(Sign::Payload);
        }
    }

    /// How many bytes wait for what comes next, inner eyes included.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        let inner = self.inner.iter().flatten().map(|inner| inner.held()).sum::<usize>();
        self.words.held() + self.escapes.held() + inner
    }

    /// How many steps the reading took, inner ones included.
    #[cfg(test)]
    pub(super) fn work(&self) -> u64 {
        self.watch.work + self.inner.iter().flatten().map(|inner| inner.work()).sum::<u64>()
    }
}

/// How far a character moves what is near. Those that mean more are further.
fn width(character: char) -> u64 {
    match character {
        '.' | '!' | '?' | '\n' | '。' | '！' | '？' | '।' | '؟' => SENTENCE,
        _ if is_wide(character) => 2,
        _ => 1,
    }
}

/// The ASCII character behind an invisible tag.
fn tag(character: char) -> Option<char> {
    let code = u32::from(character).checked_sub(0xe0000)?;
    u8::try_from(code).ok().filter(|code| (0x20..0x7f).contains(code)).map(char::from)
}

fn is_invisible(character: char) -> bool {
    matches!(u32::from(character),
        0xad | 0x34f | 0x115f | 0x1160 | 0x180b..=0x180e | 0x200b..=0x200d | 0x2060..=0x2064
        | 0x206a..=0x206f | 0x3164 | 0xfe00..=0xfe0f | 0xfeff | 0xffa0 | 0xe0000..=0xe01ef)
}
