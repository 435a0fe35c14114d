//! Any stream is read alike in any chunking, by the rules of `canon::Event`, and every door can say it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchpoint::canon::{ChatRequest, Dialect, Event};
use switchpoint::dialect::fold::Fold;
use switchpoint::dialect::upstream;
use switchpoint_fuzz::{answering_doors, choose, context, pieces, read_stream};

/// The rules of a stream, as `canon::Event` states them.
fn check_rules(events: &[Event]) {
    let (mut started, mut open, mut finished) = (false, Vec::new(), Vec::new());
    for (at, event) in events.iter().enumerate() {
        assert!(
            started || matches!(event, Event::Start(_) | Event::Failed(_) | Event::End),
            "{events:?}"
        );
        match event {
            Event::Start(_) => assert!(!std::mem::replace(&mut started, true), "{events:?}"),
            Event::Open { choice, .. } => {
                assert!(!open.contains(choice) && !finished.contains(choice), "{events:?}");
                open.push(*choice);
            }
            Event::Delta { choice, .. } => assert!(open.contains(choice), "{events:?}"),
            Event::Close { choice } => {
                assert!(open.contains(choice), "{events:?}");
                open.retain(|other| other != choice);
            }
            Event::Finish { choice, .. } => {
                assert!(!open.contains(choice) && !finished.contains(choice), "{events:?}");
                finished.push(*choice);
            }
            Event::Usage(_) => {}
            Event::Failed(_) | Event::End => assert_eq!(at + 1, events.len(), "{events:?}"),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((dialect, stream)) = choose(input, &Dialect::ALL) else { return };
    let (events, malformed) = read_stream(upstream(dialect), &[&stream]);
    assert_eq!(read_stream(upstream(dialect), &pieces(&stream)), (events.clone(), malformed));
    check_rules(&events);

    let request = ChatRequest::default();
    let context = context(&request);
    let mut fold = Fold::default();
    for event in &events {
        fold.add(event);
    }
    let _ = fold.finish();
    for (door, client) in answering_doors() {
        let (mut writer, mut out) = (client.writer(&context), Vec::new());
        for event in events.iter().filter(|event| !matches!(event, Event::Failed(_))) {
            writer.write(event, &mut out);
        }
        let (_, malformed) = read_stream(upstream(door), &[&out]);
        assert_eq!(malformed, 0, "{door:?}: {}", String::from_utf8_lossy(&out));
    }
});
