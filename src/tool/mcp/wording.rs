//! The texts in what a server says, wherever they stand in it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value};

/// Texts that are for machines, by the names of their fields.
const NO_WORDS: [&str; 8] = [
    "uri",
    "mimeType",
    "type",
    "role",
    "resultType",
    "requestState",
    "cacheScope",
    "progressToken",
];
/// Fields that hold bytes: of a resource, and of a picture or a sound.
const BYTES: [&str; 2] = ["blob", "data"];

/// Each text of a value, always in the same order. What is text behind base64 is one, too,
/// whatever kind it is said to be.
pub fn each_text(value: &mut Value, act: &mut dyn FnMut(&mut String)) {
    match value {
        Value::String(text) => act(text),
        Value::Array(list) => list.iter_mut().for_each(|value| each_text(value, act)),
        Value::Object(fields) => each_of(fields, act),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn each_of(fields: &mut Map<String, Value>, act: &mut dyn FnMut(&mut String)) {
    // The data of a line of a log is no bytes.
    let is_content = fields.contains_key("mimeType") || fields.contains_key("uri");
    for (name, value) in fields {
        match value {
            Value::String(_) if NO_WORDS.contains(&name.as_str()) => {}
            Value::String(bytes) if is_content && BYTES.contains(&name.as_str()) => {
                each_of_bytes(bytes, act);
            }
            value => each_text(value, act),
        }
    }
}

fn each_of_bytes(bytes: &mut String, act: &mut dyn FnMut(&mut String)) {
    let read = BASE64_STANDARD.decode(bytes.as_bytes()).ok();
    let Some(mut text) = read.and_then(|read| String::from_utf8(read).ok()) else { return };
    let before = text.clone();
    act(&mut text);
    if text != before {
        *bytes = BASE64_STANDARD.encode(text);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn texts(value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        each_text(&mut value.clone(), &mut |text| found.push(text.clone()));
        found
    }

    #[test]
    fn what_people_read_is_found_and_what_machines_read_is_left() {
        let said = json!({
            "contents": [
                {"uri": "a:/b", "mimeType": "text/plain", "text": "one"},
                {"uri": "a:/c", "mimeType": "application/pdf", "blob": BASE64_STANDARD.encode("two")},
                {"uri": "a:/d", "blob": BASE64_STANDARD.encode([0xff, 0xd8, 0xff])},
            ],
            "content": [{"type": "image", "mimeType": "image/svg+xml", "data":
                BASE64_STANDARD.encode("<svg>three</svg>")}],
        });
        assert_eq!(texts(&said), ["one", "two", "<svg>three</svg>"]);
        let log = json!({"level": "info", "logger": "db", "data": {"said": "four"}});
        assert_eq!(texts(&log), ["info", "db", "four"]);
        assert_eq!(texts(&json!({"level": "info", "data": "Zml2ZQ=="})), ["info", "Zml2ZQ=="]);
        assert_eq!(texts(&json!({"progressToken": "t", "message": "six"})), ["six"]);
    }

    #[test]
    fn text_behind_base64_is_put_back_as_base64() {
        let mut said = json!({"uri": "a:/b", "blob": BASE64_STANDARD.encode("a secret")});
        each_text(&mut said, &mut |text| *text = text.replace("secret", "***"));
        assert_eq!(said["blob"], BASE64_STANDARD.encode("a ***"));
    }
}
