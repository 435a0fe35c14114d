//! Letters as they are meant: whatever case, accents, font or alphabet they are dressed up in.

use unicode_normalization::char::decompose_compatible;

/// From here on scripts write words without spaces, or join particles to them.
const FIRST_WIDE: char = '\u{2e80}';

/// Letters of other alphabets that look like those of ASCII, as lower case.
const CONFUSABLE: &[(char, char)] = &[
    ('а', 'a'),
    ('в', 'b'),
    ('е', 'e'),
    ('к', 'k'),
    ('м', 'm'),
    ('н', 'h'),
    ('о', 'o'),
    ('р', 'p'),
    ('с', 'c'),
    ('т', 't'),
    ('у', 'y'),
    ('х', 'x'),
    ('ѕ', 's'),
    ('і', 'i'),
    ('ј', 'j'),
    ('һ', 'h'),
    ('ԁ', 'd'),
    ('ԛ', 'q'),
    ('ԝ', 'w'),
    ('ӏ', 'l'),
    ('п', 'n'),
    ('г', 'r'),
    ('ո', 'n'),
    ('ս', 'u'),
    ('օ', 'o'),
    ('ց', 'g'),
    ('α', 'a'),
    ('β', 'b'),
    ('ε', 'e'),
    ('η', 'n'),
    ('ι', 'i'),
    ('κ', 'k'),
    ('ν', 'v'),
    ('ο', 'o'),
    ('ρ', 'p'),
    ('τ', 't'),
    ('υ', 'u'),
    ('χ', 'x'),
    ('ω', 'w'),
    ('γ', 'y'),
];

/// Latin letters that Unicode does not take apart.
const DRESSED: &[(char, char)] = &[
    ('ı', 'i'),
    ('ł', 'l'),
    ('ø', 'o'),
    ('đ', 'd'),
    ('ð', 'd'),
    ('ɑ', 'a'),
    ('ɡ', 'g'),
    ('ɩ', 'i'),
    ('ᴀ', 'a'),
    ('ʙ', 'b'),
    ('ᴄ', 'c'),
    ('ᴅ', 'd'),
    ('ᴇ', 'e'),
    ('ꜰ', 'f'),
    ('ɢ', 'g'),
    ('ʜ', 'h'),
    ('ɪ', 'i'),
    ('ᴊ', 'j'),
    ('ᴋ', 'k'),
    ('ʟ', 'l'),
    ('ᴍ', 'm'),
    ('ɴ', 'n'),
    ('ᴏ', 'o'),
    ('ᴘ', 'p'),
    ('ʀ', 'r'),
    ('ꜱ', 's'),
    ('ᴛ', 't'),
    ('ᴜ', 'u'),
    ('ᴠ', 'v'),
    ('ᴡ', 'w'),
    ('ʏ', 'y'),
    ('ᴢ', 'z'),
];

/// Digits and signs that stand for letters.
const LEET: &[(char, char)] = &[
    ('0', 'o'),
    ('1', 'i'),
    ('3', 'e'),
    ('4', 'a'),
    ('5', 's'),
    ('7', 't'),
    ('8', 'b'),
    ('@', 'a'),
    ('$', 's'),
    ('!', 'i'),
    ('€', 'e'),
];

/// Gives out what a character comes to: lower case, without accents, fonts and widths.
pub(super) fn fold(character: char, mut out: impl FnMut(char)) {
    if character.is_ascii() {
        return out(character.to_ascii_lowercase());
    }
    // Ligatures of whole phrases, which would make texts grow much.
    if matches!(character, '\u{fdf0}'..='\u{fdff}') {
        return out(' ');
    }
    if matches!(character, 'ß' | 'ẞ') {
        out('s');
        return out('s');
    }
    decompose_compatible(boxed(character), |part| {
        for lower in part.to_lowercase().filter(|lower| !is_ornament(*lower)) {
            out(look_up(DRESSED, lower).unwrap_or(lower));
        }
    });
}

/// White letters in black circles and squares.
fn boxed(character: char) -> char {
    let first = [0x1f150, 0x1f170].into_iter();
    let offset = first
        .filter_map(|first| u32::from(character).checked_sub(first))
        .filter(|offset| *offset < 26)
        .min();
    offset.and_then(|offset| char::from_u32(0x61 + offset)).unwrap_or(character)
}

/// Accents and vowel signs without which words are written too.
fn is_ornament(character: char) -> bool {
    matches!(u32::from(character),
        0x300..=0x36f | 0x483..=0x489 | 0x591..=0x5c7 | 0x610..=0x61a | 0x640 | 0x64b..=0x65f | 0x670
        | 0x6d6..=0x6ed | 0x93c | 0x20d0..=0x20ff | 0xfe20..=0xfe2f)
}

/// Of a folded character: whether it belongs to a script in which spaces do not part words.
pub(super) fn is_wide(character: char) -> bool {
    let jamo = matches!(character, '\u{1100}'..='\u{11ff}');
    jamo || (character >= FIRST_WIDE
        && !matches!(character, '\u{3000}'..='\u{3004}' | '\u{3008}'..='\u{3020}' | '\u{3030}' | '\u{30fb}' | '\u{fb00}'..))
}

pub(super) fn is_word(character: char) -> bool {
    let danda = matches!(character, '\u{964}' | '\u{965}');
    character.is_alphanumeric() || (matches!(character, '\u{900}'..='\u{dff}') && !danda)
}

/// A sign that counts as a letter where letters stand around it.
pub(super) fn is_leet_sign(character: char) -> bool {
    matches!(character, '@' | '$' | '!' | '€')
}

pub(super) fn unleet(character: char) -> Option<char> {
    look_up(LEET, character)
}

pub(super) fn unconfused(character: char) -> Option<char> {
    look_up(CONFUSABLE, character)
}

fn look_up(table: &[(char, char)], character: char) -> Option<char> {
    table.iter().find(|(from, _)| *from == character).map(|(_, to)| *to)
}
