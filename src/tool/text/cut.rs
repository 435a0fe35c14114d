//! Cuts what is too long for a model: JSON stays JSON, with notes where something is missing, and
//! other texts keep their beginning and their end.

use serde_json::{Map, Value};

use super::{head, tail};

/// A token is hardly longer than this; longer texts need not be counted to be too long.
const LONGEST_TOKEN: usize = 16;
/// How much of lists and of texts is left, from generous to harsh.
const LEVELS: [(usize, usize); 9] = [
    (200, 4000),
    (100, 2000),
    (50, 1000),
    (25, 500),
    (12, 250),
    (6, 120),
    (3, 60),
    (2, 30),
    (1, 15),
];
/// Deeper than this is not looked.
const DEEPEST: usize = 64;

/// What is kept of a text that is cut, and as what.
#[derive(Debug, Clone, Copy)]
pub enum Kept<'a> {
    Whole(&'a str),
    /// There was more than may be kept.
    Beginning(&'a str),
}

/// What is left of a text of more than `most` tokens, with a note of what is missing and where the
/// more is kept; `None` where it fits as it is.
pub fn cut(text: &str, most: u64, kept: Kept<'_>, count: &dyn Fn(&str) -> u64) -> Option<String> {
    let room = usize::try_from(most).unwrap_or(usize::MAX);
    // No token is shorter than a byte.
    if text.len() <= room || (!is_far(text, room) && count(text) <= most) {
        return None;
    }
    let note = |shown: usize| {
        let (of, what) = match kept {
            Kept::Whole(place) => ("", format!("The whole result is kept as {place}.")),
            Kept::Beginning(place) => (
                "the first ",
                format!("The result is longer than `max_result`; so much is kept as {place}."),
            ),
        };
        format!("\n[Cut: about {shown} of {of}{} bytes are shown. {what}]", text.len())
    };
    let left = most.saturating_sub(count(&note(text.len()))).max(8);
    let left = cut_json(text, left, count).unwrap_or_else(|| cut_text(text, left, count));
    Some(format!("{left}{}", note(left.len())))
}

fn is_far(text: &str, room: usize) -> bool {
    text.len() / LONGEST_TOKEN > room
}

fn fits(text: &str, most: u64, count: &dyn Fn(&str) -> u64) -> bool {
    let room = usize::try_from(most).unwrap_or(usize::MAX);
    text.len() <= room || (!is_far(text, room) && count(text) <= most)
}

fn cut_json(text: &str, most: u64, count: &dyn Fn(&str) -> u64) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    if !value.is_array() && !value.is_object() {
        return None;
    }
    let shortened =
        |(items, chars): &(usize, usize)| shorten(&value, *items, *chars, 0).to_string();
    LEVELS.iter().map(shortened).find(|text| fits(text, most, count))
}

fn shorten(value: &Value, items: usize, chars: usize, depth: usize) -> Value {
    if depth > DEEPEST {
        return Value::from("[deeper]");
    }
    let inner = |value: &Value| shorten(value, items, chars, depth + 1);
    match value {
        Value::String(text) if text.len() > chars + 40 => {
            let kept = head(text, chars);
            Value::from(format!("{kept}… [{} more bytes]", text.len() - kept.len()))
        }
        Value::Array(list) if list.len() > items + 1 => {
            let note = format!("[{} more of {} items]", list.len() - items, list.len());
            list.iter().take(items).map(inner).chain([Value::from(note)]).collect()
        }
        Value::Array(list) => list.iter().map(inner).collect(),
        Value::Object(object) => {
            // Members say what a thing is, so more of them are kept than of a list.
            let most = items.saturating_mul(4).max(8);
            let kept = object.iter().take(most);
            let mut kept: Map<String, Value> =
                kept.map(|(name, it)| (name.clone(), inner(it))).collect();
            if object.len() > most {
                let note = format!("[{} more members]", object.len() - most);
                kept.insert("…".to_owned(), Value::from(note));
            }
            Value::Object(kept)
        }
        plain => plain.clone(),
    }
}

/// Two thirds from the beginning and one from the end, at line ends where there are some.
fn cut_text(text: &str, most: u64, count: &dyn Fn(&str) -> u64) -> String {
    let mut bytes = usize::try_from(most).unwrap_or(usize::MAX).saturating_mul(6).min(text.len());
    loop {
        let (mut first, mut last) = (head(text, bytes * 2 / 3), tail(text, bytes / 3));
        if let Some(end) = first.rfind('\n').filter(|end| *end > first.len() / 2) {
            first = &first[..end];
        }
        if let Some(start) = last.find('\n').filter(|start| *start < last.len() / 2) {
            last = &last[start + 1..];
        }
        let missing = text.len() - first.len() - last.len();
        let kept = format!("{first}\n[… {missing} bytes are missing here …]\n{last}");
        if bytes < 16 || fits(&kept, most, count) {
            return kept;
        }
        bytes = bytes / 4 * 3;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn words(text: &str) -> u64 {
        crate::dialect::estimate::text(text)
    }

    #[test]
    fn what_fits_stays_as_it_is() {
        assert_eq!(cut("{\"a\":1}", 100, Kept::Whole("blob_1"), &words), None);
        assert_eq!(cut("", 1, Kept::Whole("blob_1"), &words), None);
    }

    #[test]
    fn json_stays_json_and_says_what_is_missing() {
        let rows: Vec<Value> =
            (0..5000).map(|id| json!({"id": id, "text": "x y ".repeat(200)})).collect();
        let text = json!({"rows": rows, "total": 5000}).to_string();
        let kept = cut(&text, 1000, Kept::Whole("blob_7"), &words).unwrap();
        assert!(words(&kept) <= 1000, "{}", words(&kept));
        let (json, note) = kept.rsplit_once('\n').unwrap();
        let value: Value = serde_json::from_str(json).unwrap();
        assert_eq!(value["total"], 5000);
        assert_eq!(value["rows"][0]["id"], 0);
        assert!(json.contains("items]") && note.contains("blob_7"), "{json} {note}");
    }

    #[test]
    fn a_text_keeps_its_beginning_and_its_end() {
        let lines: Vec<String> = (0..20_000).map(|line| format!("line {line}\n")).collect();
        let text = lines.concat();
        let kept = cut(&text, 200, Kept::Whole("blob_7"), &words).unwrap();
        assert!(kept.starts_with("line 0\n") && kept.contains("line 19999"), "{kept}");
        assert!(words(&kept) <= 200, "{}", words(&kept));
    }

    #[test]
    fn one_huge_word_is_cut_too() {
        let kept = cut(&"é".repeat(1 << 20), 100, Kept::Whole("blob_7"), &words).unwrap();
        assert!(kept.len() < 2000);
        let deep = "[".repeat(100) + &"]".repeat(100);
        assert!(cut(&deep, 20, Kept::Whole("blob_7"), &words).is_some());
    }
}
