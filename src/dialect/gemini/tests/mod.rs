//! What the codec promises, kept on fixtures, on made-up values and on recordings.

mod golden;
mod machine;
mod property;
mod recording;

use super::{ARRAY, CODEC};
use crate::canon::{ChatRequest, ChatResponse, Event};
use crate::dialect::fold::Fold;
use crate::dialect::sse::Decoder;
use crate::dialect::{Context, Misread, ReadStream, UpstreamSide};

fn context(request: &ChatRequest) -> Context<'_> {
    Context {
        id: "0123456789abcdef0123456789abcdef",
        created: 1,
        model: "gemini-2.5-flash",
        input_estimate: 7,
        previous: None,
        request,
    }
}

/// Reads a stream's bytes in chunks of `size`.
fn events(bytes: &[u8], size: usize) -> Result<Vec<Event>, Misread> {
    let mut decoder = Decoder::default();
    let mut reader = CODEC.reader();
    let mut events = Vec::new();
    for chunk in bytes.chunks(size.max(1)) {
        decoder.buffer().extend_from_slice(chunk);
        while let Some(frame) = decoder.next_frame() {
            take(&mut decoder, &frame, reader.as_mut(), &mut events)?;
        }
    }
    if let Some(frame) = decoder.last_frame() {
        take(&mut decoder, &frame, reader.as_mut(), &mut events)?;
    }
    reader.end(&mut events);
    Ok(events)
}

fn take(
    decoder: &mut Decoder,
    frame: &crate::dialect::sse::Frame,
    reader: &mut dyn ReadStream,
    events: &mut Vec<Event>,
) -> Result<(), Misread> {
    if let Some(data) = decoder.data(frame).filter(|data| !data.is_empty()) {
        reader.read(None, &data, events)?;
    }
    decoder.discard(frame.range.end);
    Ok(())
}

fn fold(events: &[Event]) -> ChatResponse {
    let mut fold = Fold::default();
    for event in events {
        fold.add(event);
    }
    fold.finish().unwrap()
}

/// The stream's bytes for these events, checked by the machine that knows the API's rules.
fn written(events: &[Event], array: bool) -> Vec<u8> {
    use crate::dialect::ClientSide;
    let request = ChatRequest::default();
    let context = context(&request);
    let mut writer = if array { ARRAY.writer(&context) } else { CODEC.writer(&context) };
    let mut out = Vec::new();
    for event in events {
        writer.write(event, &mut out);
    }
    if array {
        machine::check_array(&out);
    } else {
        machine::check(&out);
    }
    out
}
