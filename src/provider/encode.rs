//! Percent-encoding, so that a name can choose neither a path nor a field of a form.

use std::fmt::Write as _;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but the unreserved characters of RFC 3986.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Appends `text` as one segment of a path: a model's name can never choose another.
pub(super) fn push_segment(path: &mut String, text: &str) {
    if text.bytes().all(|byte| byte == b'.') {
        text.bytes().for_each(|_| path.push_str("%2E"));
    } else {
        path.extend(utf8_percent_encode(text, RESERVED));
    }
}

/// An `application/x-www-form-urlencoded` body.
pub(super) fn form(pairs: &[(&str, &str)]) -> String {
    let mut body = String::new();
    for (name, value) in pairs {
        let separator = if body.is_empty() { "" } else { "&" };
        // Writing to a string cannot fail.
        let _ = write!(body, "{separator}{name}={}", utf8_percent_encode(value, RESERVED));
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_encoded_leaves_its_place() {
        let mut path = "/a/".to_owned();
        push_segment(&mut path, "../b?c#d:é");
        assert_eq!(path, "/a/..%2Fb%3Fc%23d%3A%C3%A9");
        path.clear();
        push_segment(&mut path, "..");
        assert_eq!(path, "%2E%2E");
        assert_eq!(form(&[("a", "b&c=d"), ("e", "+ %")]), "a=b%26c%3Dd&e=%2B%20%25");
    }
}
