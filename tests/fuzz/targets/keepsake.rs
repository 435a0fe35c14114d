//! Whatever is read as a keepsake is written and read to the same, and finds its place again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchpoint::canon::{Content, Message, Part, Role, ToolCall};
use switchpoint::dialect::keepsake::{Keepsake, restore};

fuzz_target!(|input: &[u8]| {
    let Ok(kept) = serde_json::from_slice::<Keepsake>(input) else { return };
    let again: Keepsake = serde_json::from_slice(&serde_json::to_vec(&kept).unwrap()).unwrap();
    assert_eq!(again, kept);
    let (id, name) = (kept.call.clone(), "look".to_owned());
    let call = ToolCall { id, name, arguments: "{}".to_owned(), custom: false };
    let call = Part::new(Content::ToolCall(call));
    let mut messages = [Message::new(Role::Assistant, vec![call])];
    restore(&mut messages, std::slice::from_ref(&kept));
    let parts = &messages[0].parts;
    assert_eq!(parts.len(), kept.thoughts.len() + 1);
    assert_eq!(parts.last().unwrap().opaque, kept.opaque);
});
