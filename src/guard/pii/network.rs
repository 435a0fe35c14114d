//! Addresses of machines, which lead to the people in front of them.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use super::{Candidate, is_called, stands_alone};

/// What four numbers with dots are called when they are no address.
const VERSIONS: &[&str] = &[
    "version",
    "v",
    "ver",
    "release",
    "build",
    "firmware",
    "section",
    "chapter",
    "abschnitt",
    "kapitel",
    "versión",
    "versão",
    "versione",
    "wersja",
    "версия",
    "版本",
    "clause",
    "rev",
];

/// The machine itself, nobody, and everybody are not personal.
pub(super) fn ipv4(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let last = candidate.last_before();
    let text = candidate.text;
    let alone = stands_alone(candidate) && !matches!(last, Some('.' | '-' | '+'));
    let leading = text.split('.').any(|part| part.len() > 1 && part.starts_with('0'));
    let address: Ipv4Addr = text.parse().ok()?;
    let general = address.is_loopback() || address.is_unspecified() || address.is_broadcast();
    let mask = address.octets()[0] == 255;
    let version = is_called(candidate, VERSIONS);
    (alone && !leading && !general && !mask && !version).then(|| candidate.whole())
}

pub(super) fn ipv6(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    // A sentence's colon may follow.
    let mut text = candidate.text;
    if text.ends_with(':') && !text.ends_with("::") {
        text = &text[..text.len() - 1];
    }
    let last = candidate.last_before();
    let joined = |side: Option<char>| {
        side.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '-'))
    };
    let behind = candidate.behind(text.len());
    if joined(last) || behind.is_some_and(|c| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let address: Ipv6Addr = text.parse().ok()?;
    let general = address.is_loopback() || address.is_unspecified();
    // `a::b` is also a path of names in a program.
    let groups = text.split(':').filter(|group| !group.is_empty()).count();
    let telling = groups > 2 || text.split(':').next().is_some_and(|first| first.len() > 2);
    let numbers = text.contains(|c: char| c.is_ascii_digit());
    (!general && telling && numbers).then_some(0..text.len())
}

pub(super) fn mac(candidate: &Candidate<'_>) -> Option<Range<usize>> {
    let text = candidate.text;
    let parted = |sign| text.matches(sign).count() == 5;
    let last = candidate.last_before();
    let alone = stands_alone(candidate)
        && !matches!(last, Some(':' | '-'))
        && !matches!(candidate.after, Some(':' | '-'));
    let plain = text.chars().all(|c| c == '0' || c == ':' || c == '-')
        || text.chars().all(|c| matches!(c, 'f' | 'F' | ':' | '-'));
    // Six pairs of digits with dashes are a date and a time.
    let dated = !text.contains(|c: char| c.is_ascii_alphabetic()) && text.contains('-');
    (alone && (parted(':') || parted('-')) && !plain && !dated).then(|| candidate.whole())
}
