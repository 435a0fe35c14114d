//! A body that is changed on its way stays JSON, says what it is to say, and nothing else changes.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use switchpoint::dialect::peek::Scanner;
use switchpoint::dialect::splice::{Model, Payload, Usage, edits};
use switchpoint_fuzz::pieces;

fuzz_target!(|body: &[u8]| {
    let (mut scanner, mut payload) = (Scanner::default(), Payload::default());
    for piece in pieces(body) {
        if scanner.feed(piece).is_err() {
            return;
        }
        payload.push(Bytes::copy_from_slice(piece));
    }
    let Ok(envelope) = scanner.finish() else { return };
    let Ok(mut before) = serde_json::from_slice::<Value>(body) else { return };
    for usage in [Usage::Ask, Usage::Omit, Usage::Leave] {
        let (edits, asked) = edits(&envelope, Model::Value(Bytes::from_static(b"\"new\"")), usage);
        let edited = payload.edited(&edits).to_bytes();
        assert_eq!(Payload::from(Bytes::copy_from_slice(body)).edited(&edits).to_bytes(), edited);
        let mut after: Value = serde_json::from_slice(&edited).unwrap();
        if envelope.model_place.is_some() {
            assert_eq!(after["model"], "new");
        }
        if asked {
            assert_eq!(after["stream_options"]["include_usage"], true);
        }
        if usage == Usage::Omit {
            assert_eq!(after.get("stream_options"), None);
        }
        for value in [&mut before, &mut after] {
            let fields = value.as_object_mut().unwrap();
            fields.remove("model");
            fields.remove("stream_options");
        }
        assert_eq!(after, before);
    }
});
