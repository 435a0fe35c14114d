//! Words and expressions that an operator does not want to see.

use std::ops::Range;

use super::sieve::{Candidate, Rule};

pub(super) fn rules(words: &[String], regexes: &[String], label: &str) -> Vec<Rule> {
    let word = |word: &String| Rule {
        label: label.to_owned(),
        expression: format!("(?i:{})", regex_syntax::escape(word)),
        begins_words: false,
        check: Box::new(stands_alone),
    };
    let regex = |regex: &String| Rule {
        label: label.to_owned(),
        expression: regex.clone(),
        begins_words: false,
        check: Box::new(|candidate: &Candidate<'_>| Some(candidate.whole())),
    };
    words.iter().map(word).chain(regexes.iter().map(regex)).collect()
}

/// A word is not a part of a longer one, except in scripts that put nothing between words.
fn stands_alone(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let text = candidate.text;
    let parted = |inside: Option<char>, outside: Option<char>| match (inside, outside) {
        (Some(inside), Some(outside)) => {
            !is_word(inside) || !is_word(outside) || is_unspaced(inside) || is_unspaced(outside)
        }
        _ => true,
    };
    let alone = parted(text.chars().next(), candidate.last_before())
        && parted(text.chars().next_back(), candidate.after);
    alone.then(|| candidate.whole())
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Thai, Lao, Burmese, Khmer, Chinese and Japanese.
fn is_unspaced(character: char) -> bool {
    matches!(character,
        '\u{0E00}'..='\u{0EFF}'
        | '\u{1000}'..='\u{109F}'
        | '\u{1780}'..='\u{17FF}'
        | '\u{3040}'..='\u{30FF}'
        | '\u{3400}'..='\u{4DBF}'
        | '\u{4E00}'..='\u{9FFF}'
        | '\u{F900}'..='\u{FAFF}'
        | '\u{20000}'..='\u{3FFFF}')
}
