//! Cards and bank accounts.

use std::ops::Range;

use super::{Candidate, continues, digits, is_uniform, luhn, number};

/// First digits, from and to, of those who give out cards, and how long their numbers are.
const ISSUERS: &[(u64, u64, &[usize])] = &[
    (4, 4, &[13, 16, 19]),
    (51, 55, &[16]),
    (2221, 2720, &[16]),
    (34, 34, &[15]),
    (37, 37, &[15]),
    (6011, 6011, &[16, 19]),
    (644, 649, &[16, 19]),
    (65, 65, &[16, 19]),
    (36, 36, &[14, 16, 19]),
    (300, 305, &[14, 16]),
    (38, 39, &[14, 16]),
    (3528, 3589, &[16, 17, 18, 19]),
    (62, 62, &[16, 17, 18, 19]),
    (81, 82, &[16]),
    (60, 60, &[16]),
    (508, 508, &[16]),
    (2200, 2204, &[16, 17, 18, 19]),
    (5018, 5018, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (5020, 5020, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (5038, 5038, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (5893, 5893, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (6304, 6304, &[12, 13, 14, 15, 16, 17, 18, 19]),
    (6759, 6763, &[12, 13, 14, 15, 16, 17, 18, 19]),
];

/// Countries, and how long an account is there.
const ACCOUNTS: &str = "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 \
    CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 \
    HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 \
    MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 \
    SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30";

/// The longest beginning that is a card's number: another number may follow it.
pub(super) fn card(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let joined = |side: Option<char>| side.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    if joined(candidate.last_before()) || continues(candidate) {
        return None;
    }
    let text = candidate.text;
    let ends = text.char_indices().filter(|(_, c)| c.is_ascii_digit()).map(|(at, _)| at + 1);
    let ends: Vec<usize> = ends.collect();
    let digits = digits(text);
    let sound = |length: &usize| {
        let digits = &digits[..*length];
        is_issued(digits) && luhn(digits) && !is_uniform(digits)
    };
    let length = (12..=digits.len()).rev().find(|length| {
        let end = ends[*length - 1];
        sound(length) && !joined(candidate.behind(end)) && is_even(&text[..end])
    })?;
    Some(0..ends[length - 1])
}

fn is_issued(digits: &[u32]) -> bool {
    ISSUERS.iter().any(|(from, to, lengths)| {
        let places = from.to_string().len();
        let begins = number(&digits[..places]);
        lengths.contains(&digits.len()) && (*from..=*to).contains(&begins)
    })
}

/// Groups are parted by one sign, and none is a digit or two, except the last.
fn is_even(text: &str) -> bool {
    if text.contains(' ') && text.contains('-') {
        return false;
    }
    let mut groups = text.split([' ', '-']).map(str::len).collect::<Vec<_>>();
    groups.pop();
    groups.iter().all(|length| *length >= 3)
}

pub(super) fn iban(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let joined = |side: Option<char>| side.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if joined(candidate.last_before()) {
        return None;
    }
    let text = candidate.text;
    let country = text.get(..2)?.to_ascii_uppercase();
    let known = ACCOUNTS.split_whitespace().find(|account| account.starts_with(&country))?;
    let length: usize = known[2..].parse().ok()?;
    let signs = text.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric());
    let (end, _) = signs.clone().nth(length - 1)?;
    let end = end + 1;
    let account: Vec<u32> = signs.take(length).filter_map(|(_, c)| c.to_digit(36)).collect();
    // Country and checksum go behind, letters count from ten on.
    let turned = account[4..].iter().chain(&account[..4]);
    let rest = turned.fold(0, |rest, sign| (rest * if *sign > 9 { 100 } else { 10 } + sign) % 97);
    (rest == 1 && !joined(candidate.behind(end))).then_some(0..end)
}
