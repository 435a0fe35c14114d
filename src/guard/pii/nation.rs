//! Numbers that countries give to people, each with its check digits.

use std::ops::Range;

use super::{
    Candidate, digits, is_called, is_date, is_own_number, is_uniform, luhn, number, stands_alone,
    weighed,
};

type Judged = Option<Range<usize>>;

fn whole(candidate: &Candidate<'_>, is_it: bool) -> Judged {
    is_it.then(|| candidate.whole())
}

fn has_signs(candidate: &Candidate<'_>, signs: &[char]) -> bool {
    candidate.text.contains(signs)
}

/// No checksum: area, group and serial are never zero, and some areas are never given.
pub(super) fn us_ssn(candidate: &Candidate<'_>) -> Judged {
    let digits = digits(candidate.text);
    let (area, group, serial) = (number(&digits[..3]), number(&digits[3..5]), number(&digits[5..]));
    let given = area != 0 && area != 666 && area < 900 && group != 0 && serial != 0;
    let signs = candidate.text.matches(['-', ' ']).count();
    let called =
        is_called(candidate, &["ssn", "social security", "social security number", "social"]);
    let shaped = candidate.text.matches('-').count() == 2;
    let known = shaped || (called && signs != 1);
    whole(candidate, given && known && is_own_number(candidate) && !is_uniform(&digits))
}

pub(super) fn ca_sin(candidate: &Candidate<'_>) -> Judged {
    let digits = digits(candidate.text);
    let names = ["sin", "social insurance", "social insurance number", "assurance sociale", "nas"];
    let given = !matches!(digits[0], 0 | 8) && luhn(&digits);
    whole(candidate, given && is_called(candidate, &names) && is_own_number(candidate))
}

/// No checksum: some pairs of letters are never given.
pub(super) fn uk_nino(candidate: &Candidate<'_>) -> Judged {
    let given = !["BG", "GB", "NK", "KN", "TN", "NT", "ZZ"].contains(&&candidate.text[..2]);
    whole(candidate, given && stands_alone(candidate))
}

/// Eleven digits; in the first ten, one comes twice or three times and others are missing.
pub(super) fn de_tax_id(candidate: &Candidate<'_>) -> Judged {
    let digits = digits(candidate.text);
    let mut counts = [0; 10];
    for digit in &digits[..10] {
        counts[*digit as usize] += 1;
    }
    let often = counts.iter().filter(|count| **count > 1).count();
    let most = counts.iter().max().copied().unwrap_or_default();
    let product = digits[..10].iter().fold(10, |product, digit| {
        let sum = (digit + product) % 10;
        (if sum == 0 { 10 } else { sum }) * 2 % 11
    });
    let check = (11 - product) % 10;
    let sound = often == 1 && most <= 3 && check == digits[10];
    whole(candidate, sound && is_own_number(candidate))
}

/// Nine signs and a check digit, which many other codes have by chance: it has to be called so.
pub(super) fn de_id_card(candidate: &Candidate<'_>) -> Judged {
    let names = [
        "ausweis",
        "personalausweis",
        "personalausweisnummer",
        "ausweisnummer",
        "ausweis-nr",
        "reisepass",
        "reisepassnummer",
        "pass",
        "passnummer",
        "id card",
        "identity card",
        "passport",
        "passport number",
        "ausweisnr",
    ];
    let text: Vec<char> = candidate.text.chars().collect();
    let sign = |sign: &char| sign.to_ascii_uppercase().to_digit(36);
    let signs: Vec<u32> = text[..9].iter().filter_map(sign).collect();
    let sum = weighed(&signs, &[7, 3, 1, 7, 3, 1, 7, 3, 1]);
    let sound = text[9].to_digit(10) == Some(sum % 10);
    let called = is_called(candidate, &names)
        || is_called(candidate, &["nr", "nummer", "no"])
            && is_called(candidate, &["ausweis", "personalausweis", "reisepass"]);
    (sound && called && stands_alone(candidate)).then_some(0..10)
}

/// Sex, year, month, place, order and a key: 97 less the rest.
pub(super) fn fr_nir(candidate: &Candidate<'_>) -> Judged {
    let text: String = candidate.text.chars().filter(char::is_ascii_alphanumeric).collect();
    // Corsica counts as 19 and 18.
    let text = text.to_ascii_uppercase().replace("2A", "19").replace("2B", "18");
    let digits = digits(&text);
    if digits.len() != 15 {
        return None;
    }
    let month = number(&digits[3..5]);
    let key = 97 - number(&digits[..13]) % 97;
    let sound = key == number(&digits[13..]) && matches!(month, 1..=12 | 20..=42 | 50..=99);
    whole(candidate, sound && is_own_number(candidate))
}

/// A number and the letter that its rest by 23 stands for; foreigners begin with a letter.
pub(super) fn es_dni(candidate: &Candidate<'_>) -> Judged {
    let text = candidate.text.to_ascii_uppercase();
    let first = match text.chars().next()? {
        'Y' => "1",
        'Z' => "2",
        'X' => "0",
        _ => "",
    };
    let digits = digits(&format!("{first}{text}"));
    let rest = usize::try_from(number(&digits) % 23).ok()?;
    let letter = "TRWAGMYFPDXBNJZSQVHLCKE".chars().nth(rest)?;
    let capital = candidate.text.ends_with(|c: char| c.is_ascii_uppercase());
    let called = is_called(candidate, &["dni", "nie", "nif"]);
    let sound = text.ends_with(letter) && (capital || called) && digits.iter().any(|d| *d > 0);
    whole(candidate, sound && is_own_number(candidate))
}

/// Letters of the name, birth and place, and a letter that checks them.
pub(super) fn it_codice_fiscale(candidate: &Candidate<'_>) -> Judged {
    const ODD: [u32; 36] = [
        1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3,
        6, 8, 12, 14, 16, 10, 22, 25, 24, 23,
    ];
    let signs: Vec<u32> = candidate.text.chars().filter_map(|c| c.to_digit(36)).collect();
    let even = |sign: u32| if sign > 9 { sign - 10 } else { sign };
    let value = |(place, sign): (usize, &u32)| match place % 2 {
        0 => ODD[*sign as usize],
        _ => even(*sign),
    };
    let sum: u32 = signs[..15].iter().enumerate().map(value).sum();
    whole(candidate, sum % 26 == signs[15] - 10 && stands_alone(candidate))
}

/// Nine digits that one in eleven numbers satisfies: it has to be called so.
pub(super) fn nl_bsn(candidate: &Candidate<'_>) -> Judged {
    let digits = digits(candidate.text);
    let names = [
        "bsn",
        "bsn-nummer",
        "burgerservicenummer",
        "sofinummer",
        "sofi-nummer",
        "citizen service number",
        "burger service nummer",
    ];
    let sum = weighed(&digits[..8], &[9, 8, 7, 6, 5, 4, 3, 2]);
    let sound = sum % 11 == digits[8] && !is_uniform(&digits);
    whole(candidate, sound && is_called(candidate, &names) && is_own_number(candidate))
}

/// The century is added to the month.
pub(super) fn pl_pesel(candidate: &Candidate<'_>) -> Judged {
    let digits = digits(candidate.text);
    let (month, day) = (digits[2] * 10 + digits[3], digits[4] * 10 + digits[5]);
    let sum = weighed(&digits[..10], &[1, 3, 7, 9, 1, 3, 7, 9, 1, 3]);
    let sound = (10 - sum % 10) % 10 == digits[10] && is_date(month % 20, day);
    whole(candidate, sound && is_own_number(candidate) && !is_uniform(&digits))
}

/// A date, three digits and a Luhn digit. Without a sign it has to be called so.
pub(super) fn se_personnummer(candidate: &Candidate<'_>) -> Judged {
    let digits = digits(candidate.text);
    let names = ["personnummer", "personnumret", "pnr", "samordningsnummer", "personal number"];
    let short = &digits[digits.len() - 10..];
    let (month, day) = (short[2] * 10 + short[3], short[4] * 10 + short[5]);
    let century = digits.len() == 10 || matches!(number(&digits[..2]), 18..=20);
    // Numbers of those who are there for a while have 60 added to the day.
    let sound = luhn(short) && is_date(month, if day > 60 { day - 60 } else { day }) && century;
    let known = has_signs(candidate, &['-', '+']) || is_called(candidate, &names);
    whole(candidate, sound && known && is_own_number(candidate))
}

/// Nine digits and two that check them. Without signs it has to be called so.
pub(super) fn br_cpf(candidate: &Candidate<'_>) -> Judged {
    let digits = digits(candidate.text);
    let check = |upto: usize, weights: &[u32]| match weighed(&digits[..upto], weights) * 10 % 11 {
        10 => 0,
        rest => rest,
    };
    let sound = check(9, &[10, 9, 8, 7, 6, 5, 4, 3, 2]) == digits[9]
        && check(10, &[11, 10, 9, 8, 7, 6, 5, 4, 3, 2]) == digits[10]
        && !is_uniform(&digits);
    let known = has_signs(candidate, &['.', '-', '/']) || is_called(candidate, &["cpf"]);
    whole(candidate, sound && known && is_own_number(candidate))
}

/// Twelve digits, the last of them by Verhoeff. Without spaces it has to be called so.
pub(super) fn in_aadhaar(candidate: &Candidate<'_>) -> Judged {
    let names = ["aadhaar", "aadhar", "adhaar", "uidai", "uid", "आधार"];
    let digits = digits(candidate.text);
    let spaced = candidate.text.matches([' ', '-']).count() == 2;
    let known = spaced || is_called(candidate, &names);
    whole(candidate, known && verhoeff(&digits) && is_own_number(candidate))
}

fn verhoeff(digits: &[u32]) -> bool {
    const PERMUTATION: [usize; 10] = [1, 5, 7, 6, 2, 8, 3, 0, 9, 4];
    // The product in the group of a pentagon's symmetries.
    let product = |left: usize, right: usize| match (left < 5, right < 5) {
        (true, true) => (left + right) % 5,
        (true, false) => 5 + (left + right) % 5,
        (false, true) => 5 + (left + 5 - right) % 5,
        (false, false) => (left + 5 - right) % 5,
    };
    let check = digits.iter().rev().enumerate().fold(0, |check, (place, digit)| {
        let permuted = (0..place % 8).fold(*digit as usize, |digit, _| PERMUTATION[digit]);
        product(check, permuted)
    });
    check == 0
}
