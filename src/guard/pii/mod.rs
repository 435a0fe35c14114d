//! Personal data: what it looks like, and what makes sure of it.
//!
//! An expression finds what has the shape, and a check looks at checksums, ranges and surroundings.
//! Where a number is nothing but digits with a weak checksum, a word in front of it must say what
//! it is.

mod contact;
mod nation;
mod network;
mod payment;

use std::ops::Range;

use super::sieve::{Candidate, Rule};

/// Says which part of what the expression has matched is the thing.
type Judge = fn(&Candidate<'_>) -> Option<Range<usize>>;

/// In the order in which they win where two of them begin at the same place.
const TABLE: &[(&str, &str, Judge)] = &[
    ("email", r"[A-Za-z0-9._%+'-]{1,64}@[A-Za-z0-9.-]{3,190}", contact::email),
    ("iban", r"(?i:[A-Z]{2})[0-9]{2}(?:[ -]?[A-Za-z0-9]){11,34}", payment::iban),
    ("card", r"[0-9](?:[ -]?[0-9]){11,18}", payment::card),
    ("mac", r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5,7}", network::mac),
    ("ipv6", r"[0-9A-Fa-f:]{2,39}(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3})?", network::ipv6),
    ("ipv4", r"[0-9]{1,3}(?:\.[0-9]{1,3}){3,5}", network::ipv4),
    ("us_ssn", r"[0-9]{3}[ -]?[0-9]{2}[ -]?[0-9]{4}", nation::us_ssn),
    ("ca_sin", r"[0-9]{3}[ -]?[0-9]{3}[ -]?[0-9]{3}", nation::ca_sin),
    (
        "uk_nino",
        r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]",
        nation::uk_nino,
    ),
    ("se_personnummer", r"(?:[0-9]{2})?[0-9]{6}[-+]?[0-9]{4}", nation::se_personnummer),
    ("pl_pesel", r"[0-9]{11}", nation::pl_pesel),
    ("de_tax_id", r"[1-9][0-9](?:[ /]?[0-9]{3}){3}", nation::de_tax_id),
    (
        "de_id_card",
        r"(?i:[CFGHJ-NPRTV-Z])[0-9CFGHJ-NPRTV-Zcfghj-nprtv-z]{8}[0-9](?:D|[0-9])?",
        nation::de_id_card,
    ),
    (
        "fr_nir",
        r"[12](?:[ .]?[0-9]{2}){2}[ .]?(?:[0-9]{2}|2[ABab])(?:[ .]?[0-9]{3}){2}[ .]?[0-9]{2}",
        nation::fr_nir,
    ),
    (
        "es_dni",
        r"(?:[XYZ][ -]?[0-9]{7}|[0-9]{2}\.?[0-9]{3}\.?[0-9]{3})[ -]?(?i:[A-Z])",
        nation::es_dni,
    ),
    (
        "it_codice_fiscale",
        r"(?i:[A-Z]{6}[0-9LMNP-V]{2}[A-EHLMPRST][0-9LMNP-V]{2}[A-Z][0-9LMNP-V]{3}[A-Z])",
        nation::it_codice_fiscale,
    ),
    (
        "nl_bsn",
        r"[0-9]{4}[ .]?[0-9]{2}[ .]?[0-9]{3}|[0-9]{3}[ .][0-9]{3}[ .][0-9]{3}",
        nation::nl_bsn,
    ),
    ("br_cpf", r"[0-9]{3}\.?[0-9]{3}\.?[0-9]{3}[-/]?[0-9]{2}", nation::br_cpf),
    ("in_aadhaar", r"[2-9][0-9]{3}[ -]?[0-9]{4}[ -]?[0-9]{4}", nation::in_aadhaar),
    ("phone", r"(?:\+|00)[1-9](?:[ ()./-]{0,3}[0-9]){6,16}", contact::international),
    ("phone", r"\(?[0-9](?:[ ()./-]{0,3}[0-9]){6,13}", contact::national),
];

/// The rules of these kinds, of all that `config` knows.
pub(super) fn rules(kinds: &[String]) -> Vec<Rule> {
    let wanted = TABLE.iter().filter(|(label, ..)| kinds.iter().any(|kind| kind == label));
    wanted
        .map(|&(label, expression, judge)| Rule {
            label: label.to_owned(),
            expression: expression.to_owned(),
            begins_words: true,
            check: Box::new(judge),
        })
        .collect()
}

/// The decimal digits of a text.
fn digits(text: &str) -> Vec<u32> {
    text.chars().filter_map(|c| c.to_digit(10)).collect()
}

/// Neither letter nor digit on either side.
fn stands_alone(candidate: &Candidate<'_>) -> bool {
    let joined = |side: Option<char>| side.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    !joined(candidate.last_before()) && !joined(candidate.after)
}

/// Stands alone, and is no part of a longer number with signs in it: `1.234`, `12-34`.
fn is_own_number(candidate: &Candidate<'_>) -> bool {
    stands_alone(candidate) && !continues(candidate)
}

fn continues(candidate: &Candidate<'_>) -> bool {
    let mut before = candidate.before.chars().rev();
    let sign =
        |c: Option<char>| matches!(c, Some('.' | ',' | '-' | '/' | '+' | '$' | '€' | '£' | '#'));
    let (last, last_but_one) = (before.next(), before.next());
    let glued = sign(last) && last_but_one.is_some_and(|c| c.is_ascii_alphanumeric());
    glued || matches!(last, Some('$' | '€' | '£'))
}

/// Whether one of the words stands a little in front of the candidate.
fn is_called(candidate: &Candidate<'_>, names: &[&str]) -> bool {
    let before = candidate.before.to_lowercase();
    let near = before.ceil_char_boundary(before.len().saturating_sub(40));
    let near = &before[near..];
    // A word as such: "pan" is not found in "company".
    let found = |name: &&str| {
        near.rmatch_indices(*name).any(|(at, _)| {
            let left = near[..at].chars().next_back();
            let right = near[at + name.len()..].chars().next();
            !left.is_some_and(char::is_alphanumeric) && !right.is_some_and(char::is_alphanumeric)
        })
    };
    names.iter().any(found)
}

/// The checksum of cards and of several countries.
fn luhn(digits: &[u32]) -> bool {
    let doubled = |digit: u32| if digit > 4 { 2 * digit - 9 } else { 2 * digit };
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| if place % 2 == 1 { doubled(*digit) } else { *digit })
        .sum();
    sum.is_multiple_of(10)
}

/// The sum of digits times weights.
fn weighed(digits: &[u32], weights: &[u32]) -> u32 {
    digits.iter().zip(weights).map(|(digit, weight)| digit * weight).sum()
}

fn number(digits: &[u32]) -> u64 {
    digits.iter().fold(0, |number, digit| number * 10 + u64::from(*digit))
}

/// All digits are the same, as in examples and in forms.
fn is_uniform(digits: &[u32]) -> bool {
    digits.windows(2).all(|pair| pair[0] == pair[1])
}

fn is_date(month: u32, day: u32) -> bool {
    (1..=12).contains(&month) && (1..=31).contains(&day)
}

#[cfg(test)]
mod tests;
