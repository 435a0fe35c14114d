//! What the fuzz targets share: pieces to cut an input into, and the dialects with their two sides.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use bytes::BytesMut;
use switchpoint::canon::{ChatRequest, ChatResponse, Content, Dialect, Event, Surface};
use switchpoint::dialect::sse::{Decoder, Frame};
use switchpoint::dialect::{ClientSide, Context, UpstreamSide, client};

/// The doors that chats come in by.
pub const DOORS: [Surface; 5] =
    [Surface::Chat, Surface::Responses, Surface::Messages, Surface::Generate, Surface::Completions];

/// Each input says with its first byte whose bytes the rest are.
pub fn choose<T: Copy>(input: &[u8], among: &[T]) -> Option<(T, Vec<u8>)> {
    let (first, rest) = input.split_first()?;
    Some((among[usize::from(*first) % among.len()], rest.to_vec()))
}

/// A number that is always the same for the same input.
pub fn number(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The input cut into pieces of one to sixteen bytes, always at the same places.
pub fn pieces(bytes: &[u8]) -> Vec<&[u8]> {
    let (mut pieces, mut rest, mut dice) = (Vec::new(), bytes, number(bytes) | 1);
    while !rest.is_empty() {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let (piece, behind) = rest.split_at(rest.len().min(1 + (dice % 16) as usize));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// What a stream's events are called and carry, arriving in these pieces.
pub fn frames(pieces: &[&[u8]]) -> Vec<(Option<Vec<u8>>, Option<Vec<u8>>)> {
    let (mut decoder, mut frames) = (Decoder::default(), Vec::new());
    let mut note = |decoder: &Decoder, frame: &Frame| {
        let name = decoder.event(frame).map(<[u8]>::to_vec);
        frames.push((name, decoder.data(frame).map(|data| data.to_vec())));
    };
    for piece in pieces {
        BytesMut::extend_from_slice(decoder.buffer(), piece);
        while let Some(frame) = decoder.next_frame() {
            note(&decoder, &frame);
            decoder.discard(frame.range.end);
        }
    }
    while let Some(frame) = decoder.last_frame() {
        note(&decoder, &frame);
    }
    frames
}

/// The bytes of a stream's events as they are passed on.
pub fn passed(stream: &[u8]) -> Vec<u8> {
    let (mut decoder, mut passed) = (Decoder::default(), Vec::new());
    BytesMut::extend_from_slice(decoder.buffer(), stream);
    while let Some(frame) = decoder.next_frame() {
        let event = || decoder.bytes(frame.range.clone()).to_vec().into();
        passed.extend_from_slice(&decoder.amended(&frame).unwrap_or_else(event));
    }
    passed
}

/// What a dialect reads in a stream, and how many of its events made no sense.
pub fn read_stream(upstream: &dyn UpstreamSide, pieces: &[&[u8]]) -> (Vec<Event>, usize) {
    let (mut reader, mut events, mut malformed) = (upstream.reader(), Vec::new(), 0);
    for (name, data) in frames(pieces) {
        let Some(data) = data else { continue };
        if reader.read(name.as_deref(), data.trim_ascii(), &mut events).is_err() {
            malformed += 1;
        }
    }
    reader.end(&mut events);
    (events, malformed)
}

/// What an answer's writer is told of its question.
pub fn context(request: &ChatRequest) -> Context<'_> {
    Context {
        id: "0123456789abcdef0123456789abcdef",
        created: 1_700_000_000,
        model: "model",
        input_estimate: 7,
        request,
    }
}

/// The doors whose answers can be read back, with the dialect that does it.
pub fn answering_doors() -> impl Iterator<Item = (Dialect, &'static dyn ClientSide)> {
    DOORS.into_iter().filter_map(|door| Some((door.dialect()?, client(door))))
}

/// The words of the first answer.
pub fn text(response: &ChatResponse) -> String {
    let parts = response.choices.first().map(|choice| choice.parts.as_slice()).unwrap_or_default();
    let words = |content: &Content| match content {
        // Not every dialect tells a refusal from what else is said.
        Content::Text { text, .. } | Content::Refusal(text) => Some(text.clone()),
        _ => None,
    };
    parts.iter().filter_map(|part| words(&part.content)).collect()
}
