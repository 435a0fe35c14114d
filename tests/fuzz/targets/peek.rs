//! The scanner of bodies says the same in any chunking, and agrees with `serde_json` on what is JSON.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde::de::IgnoredAny;
use serde_json::Value;
use switchpoint::dialect::peek::{Envelope, Fault, Scanner};
use switchpoint_fuzz::pieces;

fn scan(pieces: &[&[u8]]) -> Result<Envelope, Fault> {
    let mut scanner = Scanner::default();
    for piece in pieces {
        scanner.feed(piece)?;
    }
    scanner.finish()
}

fuzz_target!(|body: &[u8]| {
    let whole = scan(&[body]);
    assert_eq!(whole, scan(&pieces(body)));

    let parsed = serde_json::from_slice::<IgnoredAny>(body);
    match &whole {
        Ok(envelope) => {
            if let Err(error) = parsed {
                assert!(error.to_string().starts_with("recursion limit"), "{error}");
            }
            let Ok(value) = serde_json::from_slice::<Value>(body) else { return };
            assert_eq!(value["model"].as_str().unwrap_or_default(), envelope.model);
            assert_eq!(value["stream"] == true, envelope.stream);
        }
        Err(Fault::Syntax { .. } | Fault::Truncated { .. } | Fault::Empty) => {
            assert!(parsed.is_err(), "{whole:?}");
        }
        Err(_) => {}
    }
});
