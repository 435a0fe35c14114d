//! Whatever opens as a sealed state is sealed and opened to the same, and no text breaks the seal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchpoint::canon::{Dialect, Opaque};
use switchpoint::dialect::opaque::{open, seal};

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    if let Some(opaque) = open(&text) {
        assert_eq!(open(&seal(&opaque)), Some(opaque));
    }
    let Ok(data) = serde_json::from_slice(input) else { return };
    let opaque = Opaque { dialect: Dialect::ALL[input.len() % 6], data };
    assert_eq!(open(&seal(&opaque)), Some(opaque));
});
