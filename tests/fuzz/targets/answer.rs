//! Any answer that an upstream's dialect reads can be written for every door, and read there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use switchpoint::canon::{ChatRequest, Content, Dialect};
use switchpoint::dialect::fold::unfold;
use switchpoint::dialect::upstream;
use switchpoint_fuzz::{answering_doors, choose, context, read_stream, text};

fuzz_target!(|input: &[u8]| {
    let Some((dialect, body)) = choose(input, &Dialect::ALL) else { return };
    let Ok(response) = upstream(dialect).read_response(&body) else { return };
    // Where arguments are no object, the call is shown as text to those who could not say it.
    let whole = response.choices.iter().flat_map(|choice| &choice.parts).all(|part| {
        let Content::ToolCall(call) = &part.content else { return true };
        call.custom || serde_json::from_str::<Map<String, Value>>(&call.arguments).is_ok()
    });
    let request = ChatRequest::default();
    let context = context(&request);
    for (door, client) in answering_doors() {
        let written = client.write_response(&response, &context);
        let read = upstream(door).read_response(&written).unwrap_or_else(|error| {
            panic!("{door:?}: {error}: {}", String::from_utf8_lossy(&written));
        });
        assert!(!whole || text(&read) == text(&response), "{door:?}: {response:?}");

        let (mut writer, mut out) = (client.writer(&context), Vec::new());
        for event in unfold(&response) {
            writer.write(&event, &mut out);
        }
        let (_, malformed) = read_stream(upstream(door), &[&out]);
        assert_eq!(malformed, 0, "{door:?}: {}", String::from_utf8_lossy(&out));
    }
});
