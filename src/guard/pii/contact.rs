//! How to reach people: electronic mail and telephones.

use std::ops::Range;

use super::{Candidate, continues, digits, is_called};

/// Words that announce a telephone number, in lower case.
const TELEPHONE: &[&str] = &[
    "phone",
    "telephone",
    "tel",
    "mobile",
    "cell",
    "call",
    "fax",
    "whatsapp",
    "sms",
    "text",
    "telefon",
    "telefonnummer",
    "handy",
    "handynummer",
    "mobil",
    "rufnummer",
    "durchwahl",
    "téléphone",
    "portable",
    "tél",
    "teléfono",
    "móvil",
    "celular",
    "telefono",
    "cellulare",
    "telefone",
    "telemóvel",
    "telefoon",
    "mobiel",
    "komórka",
    "numer",
    "telefonu",
    "puhelin",
    "телефон",
    "тел",
    "телефону",
    "мобильный",
    "电话",
    "手机",
    "電話",
    "携帯",
    "फ़ोन",
    "मोबाइल",
    "telefonnumret",
    "telefonnummer",
    "ring",
];

pub(super) fn email(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let text = candidate.text;
    let at = text.find('@')?;
    let local = &text[..at];
    let start = local.len() - local.trim_start_matches(['.', '\'', '-', '%', '+']).len();
    let local = &local[start..];
    let begins = start > 0 || !candidate.last_before().is_some_and(is_local);
    if local.is_empty() || local.ends_with('.') || local.contains("..") || !begins {
        return None;
    }
    // A sentence may go on behind the address, and a name of a host ends in letters.
    let mut domain = text[at + 1..].trim_end_matches(['.', '-']);
    if let Some(end) = domain.find("..") {
        domain = &domain[..end];
    }
    let top = domain.rsplit('.').next()?;
    let labels = domain.split('.').collect::<Vec<_>>();
    let sound = |label: &&str| {
        !label.is_empty() && label.len() <= 63 && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_top = (2..=24).contains(&top.len())
        && (top.chars().all(|c| c.is_ascii_alphabetic()) || top.starts_with("xn--"));
    let known = labels.len() > 1 && labels.iter().all(sound) && is_top;
    // `user@host.ext:path` is an address of git, and pictures are called `icon@2x.png`.
    let end = at + 1 + domain.len();
    let is_file = matches!(top, "png" | "jpg" | "jpeg" | "gif" | "svg" | "webp" | "css" | "js");
    let is_remote = local == "git" && candidate.behind(end) == Some(':');
    (known && !is_file && !is_remote).then_some(start..end)
}

fn is_local(character: char) -> bool {
    character.is_ascii_alphanumeric()
        || matches!(character, '.' | '_' | '%' | '+' | '-' | '@' | '/' | ':')
}

/// `+49 30 901820`, `0044 (0)20 7946 0958`.
pub(super) fn international(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let text = candidate.text;
    let zeros = if text.starts_with("00") { 2 } else { 0 };
    let sign = |c: char| matches!(c, '.' | ',' | '-' | '+' | '/' | '=' | '_');
    let glued = candidate.last_before().is_some_and(|c| c.is_ascii_alphanumeric() || sign(c))
        || candidate.after.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    let count = digits(text).len() - zeros;
    // Without a plus, two zeros also begin ids: signs have to part it, or a word announce it.
    let parted = text.contains([' ', '-', '/', '(']) && !follows_digits(candidate);
    let told = zeros == 0 || parted || is_called(candidate, TELEPHONE);
    let sound = (8..=15).contains(&count) && !glued && told && parentheses(text);
    (sound && !is_timestamp(text)).then(|| candidate.whole())
}

/// It is a group, or several, of a longer number.
fn follows_digits(candidate: &Candidate<'_>) -> bool {
    let before = candidate.before.strip_suffix(' ');
    before.is_some_and(|before| before.ends_with(|c: char| c.is_ascii_digit()))
}

/// As people of one country write it to each other.
pub(super) fn national(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let text = candidate.text;
    let last = candidate.last_before();
    let glued = |side: Option<char>| {
        side.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '=' | '%'))
    };
    if glued(last) || glued(candidate.after) || continues(candidate) || last == Some('+') {
        return None;
    }
    let count = digits(text).len();
    let groups = shape(text);
    let announced = is_called(candidate, TELEPHONE) && (7..=12).contains(&count);
    let usual = is_usual(text, &groups) && !follows_digits(candidate);
    let sound = (announced || usual) && parentheses(text) && !is_timestamp(text);
    sound.then(|| candidate.whole())
}

/// The lengths of the groups of digits.
fn shape(text: &str) -> Vec<usize> {
    let groups = text.split(|c: char| !c.is_ascii_digit()).map(str::len);
    groups.filter(|length| *length > 0).collect()
}

/// Shapes that are telephones wherever they stand.
fn is_usual(text: &str, groups: &[usize]) -> bool {
    let first = text.trim_start_matches('(');
    let count: usize = groups.iter().sum();
    let spaced = !text.contains('.') && !text.contains('/');
    match groups {
        // North America: (212) 555-0123, 212-555-0123, 212.555.0123
        [3, 3, 4] if !first.starts_with(['0', '1']) => {
            let exchange =
                text.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty()).nth(1);
            let dotted = text.contains(['-', '.', ')']);
            dotted && exchange.is_some_and(|exchange| !exchange.starts_with(['0', '1']))
        }
        // France: 01 23 45 67 89
        [2, 2, 2, 2, 2] => {
            first.starts_with('0') && !first.starts_with("00") && !text.contains('/')
        }
        // Spain: 612 345 678, 912 34 56 78
        [3, 3, 3] | [3, 2, 2, 2] => {
            spaced && text.contains(' ') && first.starts_with(['6', '7', '9'])
        }
        // India: 98765 43210
        [5, 5] => spaced && first.starts_with(['6', '7', '8', '9']),
        // Brazil: (11) 91234-5678
        [2, 5 | 4, 4] if text.starts_with('(') => text.contains('-'),
        // With the zero that leads out of town: 020 7946 0958, 030/901820, 06-12345678
        [area, ..] => {
            (2..=6).contains(area)
                && groups.len() <= 5
                && first.starts_with('0')
                && !first.starts_with("00")
                && (9..=12).contains(&count)
                && groups.len() > 1
                && !text.contains('.')
        }
        [] => false,
    }
}

/// Opened and closed once at most, in this order.
fn parentheses(text: &str) -> bool {
    match (text.matches('(').count(), text.matches(')').count()) {
        (0, 0) => true,
        (1, 1) => text.find('(') < text.find(')'),
        _ => false,
    }
}

/// `2024-05-17 10:30`, `01.02.2024`, `12/31/1999 23`.
fn is_timestamp(text: &str) -> bool {
    let groups: Vec<&str> =
        text.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty()).collect();
    let value = |group: &str| group.parse::<u32>().unwrap_or(u32::MAX);
    let is_year = |group: &str| group.len() == 4 && (1800..=2200).contains(&value(group));
    match groups.as_slice() {
        [year, month, day, ..] if is_year(year) && month.len() <= 2 && day.len() <= 2 => {
            value(month) <= 12 && value(day) <= 31
        }
        [one, other, year, ..] if is_year(year) && one.len() <= 2 && other.len() <= 2 => {
            value(one).min(value(other)) <= 12 && value(one).max(value(other)) <= 31
        }
        [from, to] => is_year(from) && is_year(to),
        _ => false,
    }
}
