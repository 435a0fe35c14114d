//! The rules of a stream: ours for events, and the dialect's for what clients are sent.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::canon::{Delta, Event};

/// Panics where events break the rules at the top of `canon::Event`.
pub(super) fn check_events(events: &[Event]) {
    let mut started = false;
    let mut open = BTreeSet::new();
    let mut opaque = BTreeSet::new();
    let mut finished = BTreeSet::new();
    let mut over = false;
    for event in events {
        assert!(!over, "{event:?} after the end of {events:?}");
        assert!(started || matches!(event, Event::Start(_) | Event::Failed(_) | Event::End));
        match event {
            Event::Start(_) => assert!(!std::mem::replace(&mut started, true), "two starts"),
            Event::Open { choice, .. } => {
                assert!(open.insert(*choice), "two parts open: {events:?}");
                assert!(!finished.contains(choice), "a part after the finish");
                opaque.remove(choice);
            }
            Event::Delta { choice, delta } => {
                assert!(open.contains(choice), "{delta:?} of no part in {events:?}");
                if matches!(delta, Delta::Opaque(_)) {
                    assert!(opaque.insert(*choice), "state twice");
                }
            }
            Event::Close { choice } => assert!(open.remove(choice), "closed twice"),
            Event::Finish { choice, .. } => {
                assert!(!open.contains(choice), "finished while a part is open");
                assert!(finished.insert(*choice), "finished twice");
            }
            Event::Usage(_) | Event::Aside(_) => {}
            Event::Failed(_) | Event::End => over = true,
        }
    }
}

/// How far one answer of a client's stream is.
#[derive(Default)]
struct Seen {
    finished: bool,
    calls: usize,
}

/// Panics where a stream is not what the official SDKs take.
pub(super) fn check_stream(stream: &[u8], include_usage: bool) {
    let text = std::str::from_utf8(stream).unwrap();
    let mut events: Vec<&str> = text.split_terminator("\n\n").collect();
    assert!(text.ends_with("\n\n"), "the last event is not ended");
    assert_eq!(events.pop(), Some("data: [DONE]"));
    let mut answers: BTreeMap<u64, Seen> = BTreeMap::new();
    let mut head: Option<Value> = None;
    let mut usage = 0;
    for event in events {
        assert_eq!(usage, 0, "{event} after the usage");
        assert_eq!(event.lines().count(), 1, "more than a data line: {event}");
        let chunk: Value = serde_json::from_str(event.strip_prefix("data: ").unwrap()).unwrap();
        let object = &chunk["object"];
        assert_eq!(object, "chat.completion.chunk");
        assert!(chunk["created"].is_u64() && chunk["model"].is_string());
        assert!(chunk["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")));
        let id = head.get_or_insert_with(|| chunk["id"].clone());
        assert_eq!(*id, chunk["id"], "the id changes");
        let choices = chunk["choices"].as_array().unwrap();
        assert_eq!(chunk.get("usage").is_some(), include_usage);
        if choices.is_empty() {
            assert!(chunk["usage"].is_object());
            usage += 1;
        }
        for choice in choices {
            check_choice(choice, &mut answers);
        }
    }
    assert!(answers.values().all(|seen| seen.finished), "an answer has no finish: {text}");
}

fn check_choice(choice: &Value, answers: &mut BTreeMap<u64, Seen>) {
    const REASONS: [&str; 4] = ["stop", "length", "tool_calls", "content_filter"];
    let index = choice["index"].as_u64().unwrap();
    let delta = choice["delta"].as_object().unwrap();
    let is_first = !answers.contains_key(&index);
    assert_eq!(delta.contains_key("role"), is_first, "the role comes first and once: {choice}");
    let seen = answers.entry(index).or_default();
    assert!(!seen.finished, "more after the finish: {choice}");
    if let Some(reason) = choice["finish_reason"].as_str() {
        assert!(REASONS.contains(&reason), "{reason}");
        seen.finished = true;
    }
    for call in delta.get("tool_calls").and_then(Value::as_array).into_iter().flatten() {
        let place = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
        if place == seen.calls {
            seen.calls += 1;
            let kind = call["type"].as_str().unwrap();
            let id = call["id"].as_str().unwrap();
            assert!(!id.is_empty() && crate::dialect::portable_id(id) == id, "{id}");
            assert!(call[kind]["name"].is_string());
        } else {
            assert_eq!(place + 1, seen.calls, "a call that is over goes on: {choice}");
            assert!(call.get("id").is_none());
        }
    }
}
