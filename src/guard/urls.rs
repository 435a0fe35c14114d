//! Addresses that lead to hosts nobody has allowed: pictures and links by which a text could carry
//! something out of the conversation, in their path or their query.

use std::ops::Range;
use std::sync::Arc;

use super::sieve::{Candidate, Check, Rule};

pub(super) const REMOVED: &str = "[link removed]";

/// An address, as far as it goes without a space: what is held of it is the name of its scheme and
/// what is written of it.
const BARE: &str = r#"(?i:(?:https?|ftp|wss?)(?::|%3a)[/\\]{1,3}|www\.)[^\s<>"'`)\]}|]+"#;
/// Where Markdown and HTML lead, with a scheme or without: `](//host/…`, `src=//host`.
const RELATIVE: &str =
    r#"(?:\]\(\s{0,8}<?|\]:\s{0,8}<?|(?i:src|href)\s{0,4}=\s{0,4}["']?)[/\\]{2}[^\s<>"'`)]+"#;
/// Schemes that run or hold something instead of leading somewhere.
const ACTIVE: &str = r#"(?:\]\(\s{0,8}<?|(?i:src|href)\s{0,4}=\s{0,4}["']?)(?i:javascript|vbscript|data|file):[^\s<>"'`)]+"#;

pub(super) fn rules(hosts: &[String]) -> Vec<Rule> {
    let hosts: Arc<[String]> = hosts.into();
    let bare = Arc::clone(&hosts);
    let rule = |expression: &str, check: Check| {
        let (label, expression) = ("url".to_owned(), expression.to_owned());
        Rule { label, expression, begins_words: false, check }
    };
    vec![
        rule(BARE, Box::new(move |candidate: &Candidate<'_>| unlisted(candidate, 0, &bare))),
        rule(
            RELATIVE,
            Box::new(move |candidate: &Candidate<'_>| {
                let start = candidate.text.find(['/', '\\'])?;
                unlisted(candidate, start, &hosts)
            }),
        ),
        rule(
            ACTIVE,
            Box::new(|candidate: &Candidate<'_>| {
                let colon = candidate.text.find(':')?;
                let word = candidate.text[..colon].rfind(|c: char| !c.is_ascii_alphabetic())?;
                Some(word + 1..candidate.text.len())
            }),
        ),
    ]
}

/// The address, if it leads to a host that is not in the list.
fn unlisted(candidate: &Candidate<'_>, start: usize, hosts: &[String]) -> Option<Range<usize>> {
    let text = &candidate.text[start..];
    let in_word = candidate.last_before().is_some_and(char::is_alphanumeric);
    if start == 0
        && in_word
        && text.get(..4).is_some_and(|begin| begin.eq_ignore_ascii_case("www."))
    {
        return None;
    }
    // A sentence goes on behind an address.
    let text = text.trim_end_matches(['.', ',', ';', ':', '!', '?', '*', '_']);
    let listed = host(text).is_some_and(|host| hosts.iter().any(|known| allows(known, &host)));
    (!listed && !text.is_empty()).then(|| start..start + text.len())
}

/// The host that a browser would go to; none where that is not certain.
fn host(address: &str) -> Option<String> {
    let rest = match address.find([':', '/', '\\']) {
        // `www.example.com/path:1` has no scheme; `https:` has.
        Some(at) if address[at..].starts_with(':') => {
            address[at + 1..].trim_start_matches(['/', '\\'])
        }
        Some(0) => address.trim_start_matches(['/', '\\']),
        _ => address,
    };
    let authority = rest.split(['/', '\\', '?', '#']).next()?;
    // What stands before an `@` looks like a host and is none.
    if authority.is_empty() || authority.contains(['@', '%']) {
        return None;
    }
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    };
    Some(host.trim_end_matches('.').to_lowercase())
}

/// `*.example.com` allows what is below it, but not itself.
fn allows(known: &str, host: &str) -> bool {
    match known.strip_prefix("*.") {
        Some(parent) => {
            host.strip_suffix(parent).is_some_and(|below| below.len() > 1 && below.ends_with('.'))
        }
        None => known == host,
    }
}
