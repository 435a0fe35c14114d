//! AWS frames become the same events in any chunking, and no payload breaks out of its event.
#![no_main]

use aws_smithy_eventstream::frame::write_message_to;
use aws_smithy_types::event_stream::{Header, HeaderValue, Message};
use bytes::{Bytes, BytesMut};
use libfuzzer_sys::fuzz_target;
use switchpoint::dialect::eventstream::{Fault, Transcoder};
use switchpoint_fuzz::{frames, pieces};

fn transcode(pieces: &[&[u8]]) -> (Result<(), Fault>, BytesMut, bool) {
    let (mut transcoder, mut out) = (Transcoder::default(), BytesMut::new());
    let told = pieces.iter().try_for_each(|piece| transcoder.feed(piece, &mut out));
    (told, out, transcoder.is_complete())
}

/// A frame with right checksums, which no mutation would come by.
fn framed(input: &[u8]) -> Option<Vec<u8>> {
    let (length, rest) = input.split_first()?;
    let (name, payload) = rest.split_at(rest.len().min(usize::from(*length) % 32));
    let kind =
        if length % 2 == 0 { ("event", ":event-type") } else { ("exception", ":exception-type") };
    let text = |text: String| HeaderValue::String(text.into());
    let message = Message::new(Bytes::copy_from_slice(payload))
        .add_header(Header::new(":message-type", text(kind.0.to_owned())))
        .add_header(Header::new(kind.1, text(String::from_utf8_lossy(name).into_owned())));
    let mut frame = Vec::new();
    write_message_to(&message, &mut frame).ok()?;
    Some(frame)
}

fuzz_target!(|input: &[u8]| {
    assert_eq!(transcode(&pieces(input)), transcode(&[input]));

    let Some(frame) = framed(input) else { return };
    let (told, out, complete) = transcode(&pieces(&frame));
    assert!(told.is_ok() && complete, "{told:?}");
    assert_eq!(frames(&[&out]).len(), 1, "{out:?}");
});
