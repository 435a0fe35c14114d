//! A stream is cut into the same events in whatever pieces it arrives.
#![no_main]

use libfuzzer_sys::fuzz_target;
use switchpoint_fuzz::{frames, passed, pieces};

fuzz_target!(|stream: &[u8]| {
    let whole = frames(&[stream]);
    assert_eq!(frames(&pieces(stream)), whole);
    assert_eq!(frames(&stream.chunks(1).collect::<Vec<_>>()), whole);

    // And whoever is given them reads the same.
    let ended = [stream, b"\n\n"].concat();
    let carried = |stream: &[u8]| frames(&[stream]).into_iter().filter(|(_, data)| data.is_some());
    // Behind a line end no bytes are a mark of their order.
    assert!(carried(&[b"\n", &*passed(&ended)].concat()).eq(carried(&ended)));
});
