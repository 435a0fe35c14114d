//! Any question that a door reads can be put into every upstream's words, and into its own again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use switchpoint::canon::{ChatRequest, Dialect, Surface};
use switchpoint::dialect::{Aim, Traits, client, upstream};
use switchpoint_fuzz::{DOORS, choose, number};

/// Some writers look at the model's name.
const MODELS: [&str; 5] = [
    "model",
    "claude-opus-4-5",
    "us.anthropic.claude-sonnet-4-v1:0",
    "amazon.nova-lite",
    "gemini-3-pro",
];

fn write(request: &ChatRequest, dialect: Dialect, aim: &Aim<'_>) -> Option<Vec<u8>> {
    let written = upstream(dialect).write_request(request, aim).ok()?;
    let body: Value = serde_json::from_slice(&written.body).unwrap();
    assert!(body.is_object(), "{body}");
    Some(written.body)
}

/// Read, written and read again, a question stays what it was when it was first written.
fn check_stable(request: &ChatRequest, door: Surface, dialect: Dialect, aim: &Aim<'_>) {
    let Some(first) = write(request, dialect, aim) else { return };
    let mut again = client(door).read_request(&first).unwrap_or_else(|error| {
        panic!("{error}: {}", String::from_utf8_lossy(&first));
    });
    // Gemini says these two in the path.
    (again.model, again.stream) = (request.model.clone(), request.stream);
    let second = write(&again, dialect, aim).unwrap();
    let (first, second): (Value, Value) =
        (serde_json::from_slice(&first).unwrap(), serde_json::from_slice(&second).unwrap());
    assert_eq!(second, first);
}

fuzz_target!(|input: &[u8]| {
    let Some((door, body)) = choose(input, &DOORS) else { return };
    let Ok(request) = client(door).read_request(&body) else { return };
    let model = MODELS[(number(&body) % 5) as usize];
    for dialect in Dialect::ALL {
        for traits in [&Traits::NONE, &Traits::FOLLOWER] {
            write(&request, dialect, &Aim { model, traits, cache: None });
        }
    }
    if let Some(dialect) = door.dialect() {
        check_stable(&request, door, dialect, &Aim { model, traits: &Traits::NONE, cache: None });
    }
});
