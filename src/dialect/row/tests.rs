//! Rows of blocks, and what every reader's tests need: the rules of a stream, and recordings.

use std::path::Path;

use super::*;

fn call(id: &str) -> Opening {
    Opening::ToolCall { id: id.into(), name: "look".into(), custom: false }
}

fn arguments(text: &str) -> Delta {
    Delta::Arguments(text.into())
}

fn told(events: &[Event]) -> String {
    let word = |event: &Event| match event {
        Event::Open { part: Opening::ToolCall { id, .. }, .. } => format!("<{id}"),
        Event::Open { .. } => "<".to_owned(),
        Event::Delta { delta: Delta::Arguments(text) | Delta::Text(text), .. } => text.clone(),
        Event::Delta { delta: Delta::Opaque(opaque), .. } => opaque.data.to_string(),
        Event::Close { .. } => ">".to_owned(),
        _ => "?".to_owned(),
    };
    events.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[test]
fn calls_side_by_side_come_out_one_after_the_other() {
    let (mut row, mut events) = (Row::new(Dialect::Converse), Vec::new());
    row.start(1, call("a"), &mut events);
    row.start(2, call("b"), &mut events);
    row.start(3, Opening::Text, &mut events);
    assert!(row.add(2, arguments("2"), &mut events));
    assert!(row.add(1, arguments("1"), &mut events));
    assert!(row.add(3, Delta::Text("3".into()), &mut events));
    row.stop(2, &mut events);
    row.stop(1, &mut events);
    row.finish(&mut events);
    assert_eq!(told(&events), "<a 1 > <b 2 > < 3 >");
}

#[test]
fn a_text_ends_where_another_block_begins_and_a_used_key_is_a_new_call() {
    let (mut row, mut events) = (Row::new(Dialect::Converse), Vec::new());
    row.start(0, Opening::Text, &mut events);
    assert!(row.keep(0, "si") && row.keep(0, "g"));
    row.start(1, call("a"), &mut events);
    row.start(1, call("b"), &mut events);
    assert!(row.has(1) && !row.has(0));
    row.finish(&mut events);
    assert_eq!(told(&events), "< \"sig\" > <a {} > <b {} >");
}

/// Checks the rules that every stream of events keeps.
pub(in crate::dialect) fn assert_in_order(events: &[Event]) {
    let (mut open, mut finished, mut over) = (false, false, false);
    for (place, event) in events.iter().enumerate() {
        assert!(!over, "something follows the end: {events:#?}");
        assert_eq!(
            matches!(event, Event::Start(_)),
            place == 0 && !is_failure(event),
            "{events:#?}"
        );
        match event {
            Event::Open { .. } => {
                assert!(!std::mem::replace(&mut open, true) && !finished, "{events:#?}");
            }
            Event::Delta { .. } => assert!(open, "{events:#?}"),
            Event::Close { .. } => assert!(std::mem::replace(&mut open, false), "{events:#?}"),
            Event::Finish { .. } => {
                assert!(!open && !std::mem::replace(&mut finished, true), "{events:#?}");
            }
            Event::End => {
                assert!(finished, "{events:#?}");
                over = true;
            }
            Event::Failed(_) => over = true,
            Event::Start(_) | Event::Usage(_) | Event::Aside(_) => {}
        }
    }
}

fn is_failure(event: &Event) -> bool {
    matches!(event, Event::Failed(_))
}

/// What was recorded of real answers: what is known of each, and its bytes.
pub(in crate::dialect) fn recordings(folder: &str) -> Option<Vec<(Value, Vec<u8>)>> {
    let folder = Path::new(&std::env::var_os("SWITCHPOINT_RECORDINGS")?).join(folder);
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let facts = paths.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let read = |path: std::path::PathBuf| {
        let facts = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        (facts, std::fs::read(path.with_extension("body")).unwrap())
    };
    Some(facts.map(read).collect())
}
