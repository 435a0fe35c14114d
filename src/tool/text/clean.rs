//! Takes out of texts what people do not see and models do: escapes of terminals, control and
//! format characters, hidden alphabets.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// A text without anything that is not seen. Line ends are `\n`.
pub fn clean(text: &str) -> Cow<'_, str> {
    let plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    if text.bytes().all(plain) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        match next {
            '\u{1b}' => skip_escape(&mut rest),
            // The same in one character.
            '\u{9b}' => skip_sequence(&mut rest),
            '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}' => skip_text(&mut rest),
            '\r' if rest.as_str().starts_with('\n') => {}
            '\r' | '\u{2028}' | '\u{2029}' | '\u{85}' => cleaned.push('\n'),
            _ if is_kept(next, cleaned.chars().next_back()) => cleaned.push(next),
            _ => {}
        }
    }
    if cleaned == text { Cow::Borrowed(text) } else { Cow::Owned(cleaned) }
}

/// `last` is what was kept before it.
fn is_kept(next: char, last: Option<char>) -> bool {
    match next {
        '\n' | '\t' => true,
        '\u{0}'..='\u{1f}' | '\u{7f}'..='\u{9f}' => false,
        // Joiners and the choice of a sign's look belong to scripts and emoji, one at a time.
        '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' => {
            last.is_some_and(|last| !last.is_ascii() && !is_hidden(last))
        }
        _ => !is_hidden(next),
    }
}

/// Soft hyphens, marks of direction, spaces without width, fillers, tags, and further variations:
/// whole alphabets of them are used to hide texts.
fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
        | '\u{fff0}'..='\u{fffb}' | '\u{fffe}'..='\u{ffff}' | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}')
}

/// Behind an ESC (ECMA-48).
fn skip_escape(rest: &mut std::str::Chars<'_>) {
    let behind = rest.clone().next();
    match behind {
        Some('[') => {
            rest.next();
            skip_sequence(rest);
        }
        Some(']' | 'P' | 'X' | '^' | '_') => {
            rest.next();
            skip_text(rest);
        }
        Some(' '..='/') => {
            // Intermediates, up to a final character.
            while rest.clone().next().is_some_and(|c| matches!(c, ' '..='/')) {
                rest.next();
            }
            rest.next();
        }
        Some('0'..='~') => {
            rest.next();
        }
        Some(_) | None => {}
    }
}

/// Parameters and intermediates, up to a final character. What is none of them ends it.
fn skip_sequence(rest: &mut std::str::Chars<'_>) {
    while rest.clone().next().is_some_and(|c| matches!(c, ' '..='?')) {
        rest.next();
    }
    if rest.clone().next().is_some_and(|c| matches!(c, '@'..='~')) {
        rest.next();
    }
}

/// A text for the terminal, up to its end; one without an end is only the marks before it.
fn skip_text(rest: &mut std::str::Chars<'_>) {
    let text = rest.as_str();
    let ends = ["\u{7}", "\u{1b}\\", "\u{9c}"];
    let end = ends.iter().filter_map(|end| Some(text.find(end)? + end.len())).min();
    // A title or a link is short. All else would let one sign swallow a page.
    if let Some(end) = end.filter(|end| *end <= 4096) {
        *rest = text[end..].chars();
    }
}

/// The same for every text in a value, names of members included; whether anything was taken out.
pub fn clean_value(value: &mut Value) -> bool {
    match value {
        Value::String(text) => match clean(text) {
            Cow::Borrowed(_) => false,
            Cow::Owned(cleaned) => {
                *text = cleaned;
                true
            }
        },
        Value::Array(list) => list.iter_mut().fold(false, |changed, it| clean_value(it) | changed),
        Value::Object(object) => clean_object(object),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn clean_object(object: &mut Map<String, Value>) -> bool {
    let mut changed = object.values_mut().fold(false, |changed, it| clean_value(it) | changed);
    if object.keys().any(|name| matches!(clean(name), Cow::Owned(_))) {
        let members = std::mem::take(object).into_iter();
        *object = members.map(|(name, value)| (clean(&name).into_owned(), value)).collect();
        changed = true;
    }
    changed
}

/// JSON, even where halves of surrogate pairs stand alone in it, which some servers write: they
/// become the replacement character.
pub fn read_json(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().or_else(|| {
        let whole = whole_surrogates(text)?;
        serde_json::from_str(&whole).ok()
    })
}

/// `None` where none stands alone.
fn whole_surrogates(text: &str) -> Option<String> {
    let (mut whole, mut rest, mut found) = (String::with_capacity(text.len()), text, false);
    while let Some(position) = rest.find('\\') {
        let (before, escape) = rest.split_at(position);
        whole.push_str(before);
        let unit = unit(escape);
        let pair = |low: u16| (0xdc00..0xe000).contains(&low);
        let length = match unit {
            Some(0xd800..0xdc00) if escape.get(6..).and_then(self::unit).is_some_and(pair) => 12,
            Some(0xd800..0xe000) => {
                whole.push_str("\\ufffd");
                found = true;
                rest = &escape[6..];
                continue;
            }
            _ => 2,
        };
        let length = escape.ceil_char_boundary(length);
        whole.push_str(&escape[..length]);
        rest = &escape[length..];
    }
    whole.push_str(rest);
    found.then_some(whole)
}

/// What `\uXXXX` at the beginning stands for.
fn unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    u16::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_people_do_not_see_models_do_not_see() {
        for (dirty, clean_text) in [
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]8;;https://evil.example\u{7}link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{9b}1;31mred", "red"),
            ("\u{1b}(Bx\u{1b}7y", "xy"),
            ("a\u{0}b\u{8}c\u{7f}d\u{80}e", "abcde"),
            ("pay\u{200b}pal \u{202e}txt.exe\u{202c}", "paypal txt.exe"),
            ("hi\u{e0041}\u{e0042}", "hi"),
            ("x\u{fe0f}\u{fe0f}\u{e0101}", "x"),
            ("one\r\ntwo\rthree\u{2028}four", "one\ntwo\nthree\nfour"),
            ("\u{feff}text\u{ad}", "text"),
            ("cut off \u{1b}[", "cut off "),
            ("\u{1b}]never ends", "never ends"),
        ] {
            assert_eq!(clean(dirty), clean_text, "{dirty:?}");
        }
    }

    #[test]
    fn what_belongs_to_a_script_or_an_emoji_stays() {
        for text in
            ["naïve", "می\u{200c}خواهم", "👩\u{200d}💻 ❤\u{fe0f}", "tab\tand\nline", "日本語"]
        {
            assert!(matches!(clean(text), Cow::Borrowed(_)), "{text}");
        }
        assert_eq!(clean("é\u{200d}\u{200d}\u{200d}"), "é\u{200d}");
        // What was taken out holds no joiner either.
        assert_eq!(clean("\u{80}\u{200d}"), "");
    }

    #[test]
    fn values_are_cleaned_to_their_leaves() {
        let mut value = json!({"a\u{200b}": ["\u{1b}[1mx", {"b": "y"}], "n": 1});
        assert!(clean_value(&mut value));
        assert_eq!(value, json!({"a": ["x", {"b": "y"}], "n": 1}));
        assert!(!clean_value(&mut value));
    }

    #[test]
    fn halves_of_surrogate_pairs_are_replaced_and_pairs_are_not() {
        let value = read_json(r#"{"a":"\ud800x","b":"\ud83d\ude00","c":"\\ud800","d":"\udc00"}"#);
        assert_eq!(
            value,
            Some(json!({"a": "\u{fffd}x", "b": "😀", "c": "\\ud800", "d": "\u{fffd}"}))
        );
        assert_eq!(read_json("{nothing"), None);
        assert_eq!(read_json(r#""\"#), None);
        assert_eq!(read_json("\"\\é"), None);
    }

    proptest::proptest! {
        #[test]
        fn cleaning_twice_is_cleaning_once(text in "(\\PC|[\u{0}-\u{9f}]|[\u{1b}\\[\\]mP0-9;\u{7}\u{200d}\u{fe0f}é\u{e0041}]){0,40}") {
            let once = clean(&text).into_owned();
            proptest::prop_assert_eq!(clean(&once), once.as_str());
        }
    }
}
