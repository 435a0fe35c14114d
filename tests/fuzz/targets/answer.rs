//! Any answer that an upstream's dialect reads can be written for every door, and read there.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchpoint::canon::{ChatRequest, Dialect};
use switchpoint::dialect::fold::unfold;
use switchpoint::dialect::upstream;
use switchpoint_fuzz::{answering_doors, choose, context, read_stream, text};

fuzz_target!(|input: &[u8]| {
    let Some((dialect, body)) = choose(input, &Dialect::ALL) else { return };
    let Ok(response) = upstream(dialect).read_response(&body) else { return };
    let request = ChatRequest::default();
    let context = context(&request);
    for (door, client) in answering_doors() {
        let written = client.write_response(&response, &context);
        let read = upstream(door).read_response(&written).unwrap_or_else(|error| {
            panic!("{door:?}: {error}: {}", String::from_utf8_lossy(&written));
        });
        assert_eq!(text(&read), text(&response), "{door:?}");

        let (mut writer, mut out) = (client.writer(&context), Vec::new());
        for event in unfold(&response) {
            writer.write(&event, &mut out);
        }
        let (_, malformed) = read_stream(upstream(door), &[&out]);
        assert_eq!(malformed, 0, "{door:?}: {}", String::from_utf8_lossy(&out));
    }
});
