//! A stream is cut into the same events in whatever pieces it arrives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchpoint_fuzz::{frames, pieces};

fuzz_target!(|stream: &[u8]| {
    let whole = frames(&[stream]);
    assert_eq!(frames(&pieces(stream)), whole);
    assert_eq!(frames(&stream.chunks(1).collect::<Vec<_>>()), whole);
});
