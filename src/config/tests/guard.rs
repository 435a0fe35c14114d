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

const WRONG: &str = r#"10: guards.a.action: a guard of the kind "judge" cannot mask; pattern, pii, secrets, webhook, urls can
11: guards.a.route: no route is called "fats"; did you mean "fast"?
13: guards.a.mode: what was already sent on cannot be masked
13: guards.a.mode: in `tool_args` the verdict would come after the deed
16: guards.b.stage[0]: a guard of the kind "schema" works in output only
17: guards.b.schema: the schema is not JSON: EOF while parsing an object at line 1 column 1
20: guards.c.stage[1]: is named twice
21: guards.c.mode: `mode` does not belong to guards of the kind "pii"
22: guards.c.restore: nothing can be restored where nothing is masked
23: guards.c.kinds[0]: no kind of personal data is called "emial"; did you mean "email"?
24: guards.d: write `words`, `regex` or both
26: guards.d.stage: must name at least one stage
27: guards.d.label: "Big Words" is not a label; write up to 24 of a-z, 0-9 and _, a letter first
28: guards.e: write `max_chars`, `max_tokens` or both
30: guards.e.stage[0]: "nowhere" is none of "input", "output", "tool_args", "tool_results", "memory"
32: guards.f.kind: "url" is none of "pattern", "pii", "secrets", "injection", "judge", "moderation", "webhook", "schema", "language", "length", "urls"
36: guards.g.hosts[0]: "https://example.org" is not a host; write "example.com" or "*.example.com"
37: guards.g.word: "word" is not known; did you mean "words"?
41: guards.h.model: no provider is called "gorq"; did you mean "groq"?
44: keys.k.guards[1]: no guard is called "cc"; did you mean "c"?
44: keys.k.guards[2]: is named twice
"#;

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
    assert_eq!(complaints_beside_sound(text), WRONG);
}
