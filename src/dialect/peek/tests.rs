//! Promises of the scanner.

use super::*;
use proptest::prelude::*;

/// How strings begin is told more coarsely where a piece ends in one.
fn evened(envelope: Envelope) -> Envelope {
    Envelope { beginnings: Beginnings::default(), ..envelope }
}

fn peek(body: &str) -> Result<Envelope, Fault> {
    let mut scanner = Scanner::default();
    scanner.feed(body.as_bytes())?;
    scanner.finish().map(evened)
}

fn peek_bytewise(body: &[u8]) -> Result<Envelope, Fault> {
    let mut scanner = Scanner::default();
    for byte in body {
        scanner.feed(&[*byte])?;
    }
    scanner.finish().map(evened)
}

fn span(span: Span) -> std::ops::Range<usize> {
    span.start..span.end
}

#[test]
fn reads_what_routing_needs_wherever_it_stands() {
    let body = r#" {"messages":[{"role":"user","content":"say \"model\": {[\\"}],
        "stream" : true, "n":2, "stream_options":{"x":1}, "model":"fast", "z":[1.5e-3,null]} "#;
    let envelope = peek(body).unwrap();
    assert_eq!(envelope.model, "fast");
    assert_eq!(&body[span(envelope.model_place.unwrap().value)], "\"fast\"");
    let member = span(envelope.model_place.unwrap().member);
    assert_eq!(&body[member], "\"model\":\"fast\"");
    assert!(envelope.stream);
    assert_eq!(envelope.choices, 2);
    assert_eq!(&body[envelope.close..], "} ");
    let StreamOptions::Without { open, empty: false } = envelope.stream_options else { panic!() };
    assert_eq!(&body[open - 1..=open], "{\"");
    assert_eq!(peek_bytewise(body.as_bytes()).unwrap(), envelope);
}

#[test]
fn knows_every_way_to_ask_for_usage() {
    let options = |text: &str| {
        peek(&format!(r#"{{"model":"m","stream_options":{text}}}"#)).unwrap().stream_options
    };
    assert!(matches!(options("null"), StreamOptions::Null(_)));
    assert!(matches!(options("{}"), StreamOptions::Without { empty: true, .. }));
    assert!(matches!(options(r#"{"include_usage":false}"#), StreamOptions::Declined(_)));
    assert_eq!(
        options(r#"{"a":{"include_usage":false},"include_usage":true}"#),
        StreamOptions::Asked
    );
    assert_eq!(peek(r#"{"model":"m"}"#).unwrap().stream_options, StreamOptions::Absent);
}

#[test]
fn knows_what_to_cut_out_to_be_rid_of_stream_options() {
    for (body, rest) in [
        (r#"{"model":"m" , "stream_options":{"a":[1]} ,"n":1}"#, r#"{"model":"m"  ,"n":1}"#),
        (r#"{"stream_options":null, "model":"m"}"#, r#"{ "model":"m"}"#),
        (r#"{"model":"m","stream_options":{}}"#, r#"{"model":"m"}"#),
    ] {
        let span = peek(body).unwrap().stream_options_member.unwrap();
        assert_eq!(format!("{}{}", &body[..span.start], &body[span.end..]), rest);
    }
}

#[test]
fn refuses_a_key_that_could_be_read_two_ways() {
    assert_eq!(peek(r#"{"model":"a","model":"b"}"#), Err(Fault::Duplicate("model")));
    assert_eq!(peek(r#"{"model":"a","mod\u0065l":"b"}"#), Err(Fault::Duplicate("model")));
    let twice = r#"{"model":"a","messages":[{"messages":1,"messages":2}],"messages":[]}"#;
    assert_eq!(peek(twice), Err(Fault::Duplicate("messages")));
    assert_eq!(
        peek(r#"{"stream":false,"model":"a","stream":true}"#),
        Err(Fault::Duplicate("stream"))
    );
}

#[test]
fn a_model_elsewhere_than_at_the_top_does_not_count() {
    assert_eq!(
        peek(r#"{"metadata":{"model":"x"},"tools":[{"model":"y"}]}"#)
            .map(|envelope| envelope.model),
        Ok(String::new())
    );
}

#[test]
fn decodes_the_model_and_refuses_what_is_no_name() {
    assert_eq!(peek(r#"{"model":"gpt\u002d4\/o"}"#).unwrap().model, "gpt-4/o");
    for body in [r#"{"model":1}"#, r#"{"model":""}"#, r#"{"model":null}"#, r#"{"model":["a"]}"#] {
        assert_eq!(peek(body), Err(Fault::BadModel), "{body}");
    }
    let long = format!(r#"{{"model":"{}"}}"#, "x".repeat(MAX_MODEL + 1));
    assert_eq!(peek(&long), Err(Fault::BadModel));
}

#[test]
fn says_where_a_body_stops_being_json() {
    assert_eq!(peek(""), Err(Fault::Empty));
    assert_eq!(peek("[1]"), Err(Fault::NotAnObject));
    assert_eq!(peek(r#"{"model":"m""#), Err(Fault::Truncated { at: 12 }));
    assert_eq!(peek(r#"{"model":"m",}"#), Err(Fault::Syntax { expected: "a key", at: 13 }));
    assert_eq!(peek(r#"{"model":"m"} x"#), Err(Fault::Syntax { expected: "nothing more", at: 14 }));
    assert_eq!(peek(&"{\"a\":".repeat(600)), Err(Fault::TooDeep));
}

#[test]
fn accepts_and_refuses_just_what_a_json_parser_does() {
    let values = [
        "01",
        "1.",
        "-",
        "-0",
        "0.5e+10",
        "1e",
        ".5",
        "+1",
        "tru",
        "true",
        "nul",
        "null",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u1234\"",
        "\"a\u{1}b\"",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\" 1}",
        "{\"a\":}",
        "{a:1}",
        "[]",
        "{}",
        "[[[]]]",
        "}",
        "]",
        "1]",
        "{]",
        "[}",
        "\"unfinished",
        "'x'",
        "NaN",
        "\t1\n",
    ];
    for value in values {
        let body = format!("{{\"model\":\"m\",\"x\":{value}}}");
        let parser = serde_json::from_str::<serde_json::Value>(&body).is_ok();
        assert_eq!(peek(&body).is_ok(), parser, "{body}");
        assert_eq!(peek_bytewise(body.as_bytes()), peek(&body), "{body}");
    }
}

proptest! {
    #[test]
    fn agrees_with_a_json_parser_on_mangled_documents(
        cut in 0_usize..200, byte in any::<u8>(), split in 0_usize..200
    ) {
        let document = br#"{"messages":[{"role":"user","content":"h\u00e4\n\"x\" \\"},{"a":[1,2.5e3,-0,true,false,null,{}]}],"stream_options":{"include_usage":true},"model":"openai/gpt-5","n":3,"stream":true}"#;
        let mut bytes = document.to_vec();
        let place = cut % bytes.len();
        bytes[place] = byte;
        let mut halves = Scanner::default();
        let (left, right) = bytes.split_at(split % bytes.len());
        let halves = halves.feed(left).and_then(|()| halves.feed(right)).and_then(|()| halves.finish().map(evened));
        prop_assert_eq!(&halves, &peek_bytewise(&bytes));
        if let Ok(text) = std::str::from_utf8(&bytes) {
            let parsed = serde_json::from_str::<serde_json::Value>(text);
            if halves.is_ok() {
                prop_assert!(parsed.is_ok(), "{}", text);
            }
            if matches!(halves, Err(Fault::Syntax { .. } | Fault::Truncated { .. })) {
                prop_assert!(parsed.is_err(), "{}", text);
            }
        }
    }

    #[test]
    fn never_panics_on_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = peek_bytewise(&bytes);
    }
}
