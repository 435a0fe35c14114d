//! The one spelling of a JSON value (RFC 8785), so that equal values have equal digests.

use serde_json::{Map, Number, Value};

/// Members in the order of their UTF-16 code units, numbers as ECMAScript writes them, no spaces.
///
/// Integers beyond 2^53 keep their digits, which the RFC would have rounded: two orders with
/// different numbers must never look the same to somebody who approves one of them.
pub fn canonical(value: &Value) -> String {
    let mut written = String::new();
    write(value, &mut written);
    written
}

fn write(value: &Value, into: &mut String) {
    match value {
        Value::Null => into.push_str("null"),
        Value::Bool(flag) => into.push_str(if *flag { "true" } else { "false" }),
        Value::Number(number) => write_number(number, into),
        Value::String(text) => write_text(text, into),
        Value::Array(list) => {
            into.push('[');
            for (position, value) in list.iter().enumerate() {
                if position > 0 {
                    into.push(',');
                }
                write(value, into);
            }
            into.push(']');
        }
        Value::Object(object) => write_object(object, into),
    }
}

fn write_object(object: &Map<String, Value>, into: &mut String) {
    let mut members: Vec<(&String, &Value)> = object.iter().collect();
    members.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
    into.push('{');
    for (position, (name, value)) in members.into_iter().enumerate() {
        if position > 0 {
            into.push(',');
        }
        write_text(name, into);
        into.push(':');
        write(value, into);
    }
    into.push('}');
}

/// Escapes are those of `serde_json`, which are the shortest, as the RFC wants them.
fn write_text(text: &str, into: &mut String) {
    into.push_str(&Value::from(text).to_string());
}

fn write_number(number: &Number, into: &mut String) {
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(double) => into.push_str(ryu_js::Buffer::new().format(double)),
        None => into.push_str(&number.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(text: &str) -> String {
        canonical(&serde_json::from_str(text).unwrap())
    }

    #[test]
    fn numbers_are_written_as_ecmascript_writes_them() {
        // RFC 8785, appendix B and section 3.2.2.
        for (text, written) in [
            ("333333333.33333329", "333333333.3333333"),
            ("1E30", "1e+30"),
            ("4.50", "4.5"),
            ("2e-3", "0.002"),
            ("0.000000000000000000000000001", "1e-27"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
            ("9007199254740992", "9007199254740992"),
            ("295147905179352830000", "295147905179352830000"),
            ("1e21", "1e+21"),
            ("999999999999999900000.0", "999999999999999900000"),
            ("1.0", "1"),
            ("100", "100"),
            ("1e2", "100"),
        ] {
            assert_eq!(of(text), written, "{text}");
        }
    }

    #[test]
    fn members_stand_in_the_order_of_their_code_units() {
        // RFC 8785, section 3.2.3.
        let text = r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh",
            "1":"One","\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#;
        let values: Vec<String> = serde_json::from_str::<Map<String, Value>>(&of(text))
            .unwrap()
            .values()
            .map(|value| value.as_str().unwrap().to_owned())
            .collect();
        let expected = [
            "Carriage Return",
            "One",
            "Control",
            "Latin Small Letter O With Diaeresis",
            "Euro Sign",
            "Emoji: Grinning Face",
            "Hebrew Letter Dalet With Dagesh",
        ];
        assert_eq!(values, expected);
    }

    #[test]
    fn texts_have_the_shortest_escapes() {
        let text = json!("\u{20ac}$\u{f}\nA'B\"\\\\\"/\u{7f}");
        assert_eq!(canonical(&text), "\"\u{20ac}$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\u{7f}\"");
    }

    #[test]
    fn what_differs_is_never_spelled_the_same() {
        assert_ne!(of("9007199254740993"), of("9007199254740992"));
        assert_ne!(of("{\"a\":null}"), of("{}"));
        assert_ne!(of("\"1\""), of("1"));
    }

    #[test]
    fn the_order_in_which_members_were_written_makes_no_difference() {
        assert_eq!(
            of("{\"b\":[1,{\"d\":1,\"c\":2}], \"a\":{}}"),
            "{\"a\":{},\"b\":[1,{\"c\":2,\"d\":1}]}"
        );
    }
}
