//! Words out of folded characters: parted by one space each, and undone where they are disguised.

use super::letters::{is_leet_sign, is_wide, is_word, unconfused, unleet};
use super::watch::Sign;

/// What is longer than any word is not looked at as one.
const LONGEST: usize = 48;
/// So many single letters in a row are a word that was spaced out, and so many are looked at at once.
const SPACED_LEAST: usize = 5;
const SPACED_MOST: usize = 256;

/// Where words go.
pub(super) trait Spelling {
    /// A letter, or the space behind a word.
    fn letter(&mut self, letter: char);
    /// How the words around were disguised.
    fn sign(&mut self, sign: Sign);
    /// How many words were known so far.
    fn known(&self) -> u64;
    /// From here on words may have lost the spaces between them, or no longer.
    fn join(&mut self, joined: bool);
}

#[derive(Default)]
pub(super) struct Words {
    token: String,
    letters: usize,
    /// A sign that is a letter if one follows it.
    sign: Option<char>,
    /// Single letters in a row, and spaces where words seem to part.
    spaced: String,
    /// What stands between these letters.
    between: Option<char>,
    /// What has come since the last token.
    gap: usize,
    gap_sign: char,
    /// The last that was given out belongs to a script without spaces.
    wide: bool,
}

impl Words {
    pub(super) fn push(&mut self, character: char, out: &mut impl Spelling) {
        if let Some(sign) = self.sign.take() {
            if character.is_ascii_alphanumeric() {
                self.add(sign, out);
            } else {
                self.part(sign, out);
            }
        }
        if is_wide(character) {
            self.end_token(out);
            self.end_spaced(out);
            out.letter(character);
            (self.wide, self.gap) = (true, 0);
        } else if is_word(character) {
            self.add(character, out);
        } else if is_leet_sign(character) {
            self.sign = Some(character);
        } else {
            self.part(character, out);
        }
    }

    /// The text is over.
    pub(super) fn finish(&mut self, out: &mut impl Spelling) {
        self.end_token(out);
        self.end_spaced(out);
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.token.len() + self.spaced.len()
    }

    fn add(&mut self, character: char, out: &mut impl Spelling) {
        if self.letters == LONGEST {
            self.end_token(out);
        }
        self.token.push(character);
        self.letters += 1;
    }

    /// Something between words.
    fn part(&mut self, sign: char, out: &mut impl Spelling) {
        self.end_token(out);
        (self.gap, self.gap_sign) = (self.gap + 1, sign);
    }

    fn end_token(&mut self, out: &mut impl Spelling) {
        if self.letters == 0 {
            return;
        }
        let token = std::mem::take(&mut self.token);
        if self.letters == 1 {
            self.space_out(&token, out);
        } else {
            self.end_spaced(out);
            self.give(&token, out);
        }
        self.token = token;
        self.token.clear();
        (self.letters, self.gap) = (0, 0);
    }

    /// A single letter: perhaps of a word that is spaced out.
    fn space_out(&mut self, letter: &str, out: &mut impl Spelling) {
        if self.spaced.len() >= SPACED_MOST {
            self.end_spaced(out);
        }
        let same = self.between.is_none_or(|between| between == self.gap_sign);
        if self.spaced.is_empty() || (self.gap == 1 && same) {
            if !self.spaced.is_empty() {
                self.between = Some(self.gap_sign);
            }
        } else if self.gap <= 3 && self.between.is_some() {
            self.spaced.push(' ');
        } else {
            self.end_spaced(out);
        }
        self.spaced.push_str(letter);
    }

    fn end_spaced(&mut self, out: &mut impl Spelling) {
        if self.spaced.is_empty() {
            return;
        }
        let spaced = std::mem::take(&mut self.spaced);
        self.between = None;
        let letters = spaced.chars().filter(|letter| *letter != ' ');
        if letters.clone().count() < SPACED_LEAST {
            for letter in letters {
                self.give(letter.encode_utf8(&mut [0; 4]), out);
            }
            return;
        }
        out.sign(Sign::Spaced);
        out.join(true);
        for word in spaced.split(' ') {
            self.give(word, out);
        }
        out.join(false);
        out.sign(Sign::Spaced);
    }

    fn give(&mut self, word: &str, out: &mut impl Spelling) {
        if std::mem::take(&mut self.wide) {
            out.letter(' ');
        }
        if word.bytes().all(|byte| byte.is_ascii_lowercase()) {
            return spell(word.chars(), out);
        }
        let latin = word.chars().any(|letter| letter.is_ascii_lowercase());
        if latin && word.is_ascii() {
            return leet(word, out);
        }
        if latin && word.chars().any(|letter| unconfused(letter).is_some()) {
            let plain = word.chars().map(|letter| unconfused(letter).unwrap_or(letter));
            return disguised(plain, Sign::Homoglyphs, out);
        }
        spell(word.chars(), out);
    }
}

fn spell(word: impl Iterator<Item = char>, out: &mut impl Spelling) {
    word.for_each(|letter| out.letter(letter));
    out.letter(' ');
}

/// ASCII letters among digits and signs. A `1` may be an `l` as well.
fn leet(word: &str, out: &mut impl Spelling) {
    // `@name` calls somebody, `@ll` does not.
    let word = word.strip_prefix('@').filter(|rest| rest.len() > 3).unwrap_or(word);
    let plain = |letter: char| unleet(letter).unwrap_or(letter);
    // `base64` and `gpt4` are not in disguise.
    let end = word.trim_end_matches(|letter: char| !letter.is_ascii_lowercase());
    if end.chars().all(|letter| unleet(letter).is_none()) {
        return spell(word.chars().map(plain), out);
    }
    disguised(word.chars().map(plain), Sign::Leet, out);
    if word.contains('1') {
        let other = |letter: char| if letter == '1' { 'l' } else { plain(letter) };
        disguised(word.chars().map(other), Sign::Leet, out);
    }
}

/// It counts as a disguise only if a known word was behind it.
fn disguised(word: impl Iterator<Item = char>, sign: Sign, out: &mut impl Spelling) {
    let known = out.known();
    spell(word, out);
    if out.known() > known {
        out.sign(sign);
    }
}
