//! What must hold of the screen of an answer, whatever guards it has and however its stream is cut.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;
use proptest::sample::Index;

use super::screen::{Sieve, Wants};
use super::{Guarding, Said};
use crate::canon::{Delta, Event, Finish, Opening, Start};
use crate::config::{Config, Stage};
use crate::dialect::passage::Screen;
use crate::guard::{Filter, Guards};

/// One of each kind that need not ask, masking and blocking.
const GUARDS: &str = r#"
[providers.demo]
kind = "demo"
[routes.fast]
targets = ["demo/demo"]
[guards.a_pattern]
kind = "pattern"
words = ["aurora"]
regex = ["x[0-9]{2,4}y"]
stage = ["output", "tool_args"]
action = "mask"
[guards.b_pii]
kind = "pii"
stage = ["output", "tool_args"]
action = "mask"
[guards.c_secrets]
kind = "secrets"
stage = ["output", "tool_args"]
action = "mask"
[guards.d_urls]
kind = "urls"
hosts = ["example.org"]
stage = ["output"]
action = "mask"
[guards.e_words]
kind = "pattern"
words = ["zounds"]
stage = ["output", "tool_args"]
action = "block"
[guards.f_length]
kind = "length"
max_chars = 120
stage = ["output"]
action = "block"
[guards.g_language]
kind = "language"
allowed = ["en"]
stage = ["output"]
action = "flag"
[guards.h_shape]
kind = "schema"
schema = '{"type": "string"}'
stage = ["output"]
action = "log"
[guards.z_in]
kind = "pii"
stage = ["input"]
action = "mask"
"#;

/// Texts that have something in them for some guard, or nearly.
const PIECES: &[&str] = &[
    "All is well. ",
    "aurora ",
    "Auror",
    "a, ",
    "x123y x1",
    "bob@example.org",
    " bob@exam",
    "4111 1111 1111 1111",
    "4111 1111 ",
    "[EMAIL_1]",
    "[EMAIL_",
    "1] ",
    "sk-proj-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ",
    "![p](https://evil.test/?q=1) ",
    "https://example.org/ ",
    "zounds ",
    "zoun",
    "Größe 🦀 ",
    "\\u0040 \"quoted\" ",
];

static MADE: LazyLock<(Config, Guards)> = LazyLock::new(|| {
    let config = Config::parse(GUARDS, Path::new("x.toml"), &["demo"]).unwrap();
    let guards = Guards::build(&config.guards).unwrap();
    (config, guards)
});

fn guarding() -> Guarding {
    let (config, guards) = &*MADE;
    let names: Vec<&str> = config.guards.keys().map(String::as_str).collect();
    let guarding = Guarding {
        output: guards.chain(&names, Stage::Output),
        tool_args: guards.chain(&names, Stage::ToolArgs),
        ..Guarding::default()
    };
    let mut scan = guards.chain(&["z_in"], Stage::Input).scan(&guarding.vault);
    assert_eq!(scan.whole("alice@example.org").unwrap(), "[EMAIL_1]");
    Guarding { said: Arc::<Said>::default(), ..guarding }
}

/// An answer of a text and a call, cut at these places.
fn answer(text: &str, arguments: &str, cuts: &[Index]) -> Vec<Event> {
    let mut events = vec![Event::Start(Start::default())];
    let parts: [(Opening, &str, Piece); 3] = [
        (Opening::Reasoning { summary: false, redacted: false }, text, Delta::Reasoning),
        (Opening::Text, text, Delta::Text),
        (
            Opening::ToolCall { id: "c".into(), name: "look".into(), custom: false },
            arguments,
            Delta::Arguments,
        ),
    ];
    for (part, text, delta) in parts {
        events.push(Event::Open { choice: 0, part });
        let places = cuts.iter().map(|cut| text.floor_char_boundary(cut.index(text.len() + 1)));
        let mut places: Vec<usize> = places.chain([0, text.len()]).collect();
        places.sort_unstable();
        for pair in places.windows(2) {
            let delta = delta(text[pair[0]..pair[1]].to_owned());
            events.push(Event::Delta { choice: 0, delta });
        }
        events.push(Event::Close { choice: 0 });
    }
    events.push(Event::Finish { choice: 0, finish: Finish::default() });
    events.push(Event::End);
    events
}

type Piece = fn(String) -> Delta;

/// What came out of each kind of part, who ended it, and what each guard found.
type Outcome = ([String; 3], Option<String>, Vec<(String, String)>);

fn pass(events: &[Event]) -> Outcome {
    let guarding = guarding();
    let mut sieve = Sieve::new(&guarding, Wants::ALL);
    let (mut texts, mut out) = (<[String; 3]>::default(), Vec::new());
    for event in events {
        if sieve.pass(event, &mut out).is_err() {
            break;
        }
    }
    for event in out {
        if let Event::Delta { delta, .. } = event {
            match delta {
                Delta::Reasoning(text) => texts[0].push_str(&text),
                Delta::Text(text) => texts[1].push_str(&text),
                Delta::Arguments(text) => texts[2].push_str(&text),
                _ => {}
            }
        }
    }
    drop(sieve);
    let notes = guarding.notes().into_iter();
    let found =
        notes.map(|note| (format!("{}/{}", note.guard, note.stage), format!("{:?}", note.found)));
    let blocked = guarding.blocked().map(|blocked| blocked.to_string());
    (texts, blocked, found.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_verdict_on_a_stream_is_the_verdict_on_the_whole(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..8),
        cuts in proptest::collection::vec(any::<Index>(), 0..40),
    ) {
        let text = pieces.concat();
        let arguments = serde_json::json!({"at": text, "n": [1, 4_111_111_111_111_111_u64]}).to_string();
        let (whole, blocked, found) = pass(&answer(&text, &arguments, &[]));
        let (cut, cut_blocked, cut_found) = pass(&answer(&text, &arguments, &cuts));
        // Where several object, a stream names the one whose words came first.
        prop_assert_eq!(blocked.is_some(), cut_blocked.is_some());
        if blocked.is_none() {
            prop_assert_eq!(found, cut_found);
            prop_assert_eq!(&whole, &cut);
            prop_assert!(serde_json::from_str::<serde_json::Value>(&cut[2]).is_ok(), "{}", cut[2]);
            for text in &cut[..2] {
                prop_assert!(!text.contains("[EMAIL_1]"), "{}", text);
            }
        }
    }
}

#[test]
fn an_answer_that_is_ended_is_ended_properly() {
    let open = |choice, part| Event::Open { choice, part };
    let delta = |choice, text: &str| Event::Delta { choice, delta: Delta::Text(text.to_owned()) };
    let guarding = guarding();
    let mut sieve = Sieve::new(&guarding, Wants::ALL);
    let mut out = Vec::new();
    for event in [open(0, Opening::Text), delta(0, "fine "), open(1, Opening::Text)] {
        sieve.pass(&event, &mut out).unwrap();
    }
    out.clear();
    sieve.pass(&delta(1, "zounds !"), &mut out).unwrap_err();
    let kinds: Vec<String> = out
        .iter()
        .map(|event| match event {
            Event::Close { choice } => format!("close {choice}"),
            Event::Finish { choice, finish } => format!("finish {choice} {:?}", finish.reason),
            other => format!("{other:?}"),
        })
        .collect();
    let expected = ["close 0", "finish 0 ContentFilter", "close 1", "finish 1 ContentFilter"];
    assert_eq!(kinds, expected);
}

#[test]
fn what_was_told_by_the_stream_before_is_not_told_twice_and_not_forgotten() {
    let guarding = guarding();
    let mut sieve = Sieve::new(&guarding, Wants::ALL);
    // Told by another stream, whose next words would have been a match.
    sieve.follows("Write to alice@example.org about x12");
    let mut out = Vec::new();
    let events = [
        Event::Open { choice: 0, part: Opening::Text },
        Event::Delta { choice: 0, delta: Delta::Text(" and to [EMAIL_".into()) },
        Event::Delta { choice: 0, delta: Delta::Text("1], bob@example.org.".into()) },
        Event::Close { choice: 0 },
    ];
    for event in &events {
        sieve.pass(event, &mut out).unwrap();
    }
    let texts = out.iter().filter_map(|event| match event {
        Event::Delta { delta: Delta::Text(text), .. } => Some(text.as_str()),
        _ => None,
    });
    assert_eq!(texts.collect::<String>(), " and to alice@example.org, [EMAIL_2].");
}
