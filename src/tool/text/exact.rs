//! JSON whose whole numbers keep their digits, however many they are: ids that a model hands on.

use serde_json::Value;

/// What a double holds beyond this may have been a whole number that was rounded.
const LARGEST: f64 = 9_007_199_254_740_992.0;

/// Whole numbers of more than 64 bits, which would be rounded, become texts.
pub fn read_exact(text: &str) -> serde_json::Result<Value> {
    let value = serde_json::from_str(text)?;
    if has_large(&value) { serde_json::from_str(&quoted(text)) } else { Ok(value) }
}

fn has_large(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            number.is_f64() && number.as_f64().is_some_and(|double| double.abs() >= LARGEST)
        }
        Value::Array(list) => list.iter().any(has_large),
        Value::Object(object) => object.values().any(has_large),
        _ => false,
    }
}

/// The same document, with quotes around such numbers.
fn quoted(text: &str) -> String {
    let (mut written, mut rest) = (String::with_capacity(text.len() + 2), text);
    while let Some(start) = rest.find(|c: char| matches!(c, '"' | '-' | '0'..='9')) {
        let (before, token) = rest.split_at(start);
        let length = if token.starts_with('"') { string(token) } else { number(token) };
        let (token, after) = token.split_at(length);
        written.push_str(before);
        if is_too_long(token) {
            written.extend(["\"", token, "\""]);
        } else {
            written.push_str(token);
        }
        rest = after;
    }
    written.push_str(rest);
    written
}

/// The length of the string that begins here.
fn string(text: &str) -> usize {
    let mut is_escaped = false;
    let end = text.bytes().skip(1).position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    });
    end.map_or(text.len(), |end| end + 2)
}

fn number(text: &str) -> usize {
    text.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E')).unwrap_or(text.len())
}

fn is_too_long(token: &str) -> bool {
    let digits = token.strip_prefix('-').unwrap_or(token);
    let is_whole = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_whole && token.parse::<i64>().is_err() && token.parse::<u64>().is_err()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn whole_numbers_lose_no_digits() {
        let text = r#"{"id":123456789012345678901234,"list":[-9223372036854775809,1e30,2.5],
            "max":18446744073709551615,"min":-9223372036854775808,
            "text":"say \"99999999999999999999\" \\","odd\"":99999999999999999999}"#;
        let expected = json!({
            "id": "123456789012345678901234",
            "list": ["-9223372036854775809", 1e30, 2.5],
            "max": u64::MAX,
            "min": i64::MIN,
            "text": "say \"99999999999999999999\" \\",
            "odd\"": "99999999999999999999",
        });
        assert_eq!(read_exact(text).unwrap(), expected);
        assert_eq!(read_exact("99999999999999999999").unwrap(), json!("99999999999999999999"));
    }

    proptest::proptest! {
        #[test]
        fn what_has_no_such_numbers_is_read_as_ever(
            text in r#"(\{"[a-z"\\]{0,4}":|\[|\]|\}|,|-?[0-9]{1,25}|[0-9]\.[0-9]e[0-9]|"[0-9\\"é]{0,6}"| ){0,12}"#
        ) {
            let read = read_exact(&text).ok();
            let known: Option<Value> = serde_json::from_str(&text).ok();
            proptest::prop_assert_eq!(read.is_some(), known.is_some());
            if known.as_ref().is_some_and(|known| !has_large(known)) {
                proptest::prop_assert_eq!(read, known);
            }
        }
    }
}
