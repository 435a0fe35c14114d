//! What is said of guards: what they look for, where, and what cannot work.

use std::time::Duration;

use super::super::{Action, GuardKind, Mode, OnError, Stage, together};
use super::{complaints_beside_sound, parse};

#[test]
fn a_guard_is_read_with_its_defaults() {
    let text = r#"
[server]
guards = ["pii"]
[providers.groq]
kind = "groq"
[routes.fast]
targets = ["groq/llama"]
guards = ["topic", "pii"]
[keys.ci]
secret = "x"
guards = ["words"]
[guards.pii]
kind = "pii"
stage = ["input", "output", "tool_args"]
action = "mask"
[guards.topic]
kind = "judge"
stage = ["input"]
route = "fast"
prompt = "It is about orders."
mode = "parallel"
on_error = "allow"
timeout = "500ms"
[guards.words]
kind = "pattern"
words = ["aurora"]
stage = ["output"]
dry_run = true
"#;
    let config = parse(text).unwrap();
    let pii = &config.guards["pii"];
    assert_eq!(
        (pii.action, pii.mode, pii.on_error),
        (Action::Mask, Mode::Blocking, OnError::Block)
    );
    assert!(pii.restore && !pii.dry_run && pii.stages.contains(&Stage::ToolArgs));
    let topic = &config.guards["topic"];
    assert_eq!((topic.mode, topic.on_error), (Mode::Parallel, OnError::Allow));
    assert_eq!(topic.timeout, Duration::from_millis(500));
    assert!(matches!(&topic.kind, GuardKind::Judge { route, .. } if route == "fast"));
    assert!(config.guards["words"].dry_run);
    let lists =
        [&config.server.guards[..], &config.routes["fast"].guards, &config.keys["ci"].guards];
    assert_eq!(together(&lists), ["pii", "topic", "words"]);
}

#[test]
fn what_could_never_work_is_refused_and_not_silently_idle() {
    let text = r#"
[guards.a]
kind = "judge"
stage = ["input", "tool_args"]
action = "mask"
route = "fats"
prompt = "x"
mode = "parallel"
[guards.b]
kind = "schema"
stage = ["input"]
schema = '{'
[guards.c]
kind = "pii"
stage = ["output", "output"]
mode = "parallel"
restore = true
kinds = ["emial"]
[guards.d]
kind = "pattern"
stage = []
label = "Big Words"
[guards.e]
kind = "length"
stage = ["nowhere"]
[guards.f]
kind = "url"
[guards.g]
kind = "urls"
stage = ["output"]
hosts = ["https://example.org"]
word = ["x"]
[guards.h]
kind = "moderation"
stage = ["output"]
model = "gorq/omni"
[keys.k]
secret = "k"
guards = ["c", "cc", "c"]
"#;
    assert_eq!(complaints_beside_sound(text), "");
}
