//! Answers that come whole where a stream was asked for, and the other way round.

use bytes::Bytes;

use crate::canon::ChatResponse;
use crate::dialect::fold::{Fold, unfold};
use crate::dialect::keepsake::{Keeper, Keepsake};
use crate::dialect::mend::Mender;
use crate::dialect::openai::says_failure;
use crate::dialect::sse::Decoder;
use crate::dialect::{Misread, UpstreamSide, WriteStream};

/// The whole answer that a streamed body makes.
pub(super) fn gather(upstream: &dyn UpstreamSide, body: &[u8]) -> Result<ChatResponse, Misread> {
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(body);
    let (mut reader, mut mender) = (upstream.reader(), Mender::default());
    let (mut fold, mut events) = (Fold::default(), Vec::new());
    loop {
        let frame = decoder.next_frame();
        let Some(frame) = frame.or_else(|| decoder.last_frame()) else { break };
        if let Some(data) = decoder.data(&frame) {
            // What makes no sense in a stream is skipped, here as there.
            let event = (decoder.event(&frame), data.trim_ascii());
            let _ = mender.read(&mut *reader, event, &mut events);
        }
    }
    reader.end(&mut events);
    for event in &events {
        fold.add(event);
    }
    fold.finish().map_err(|failure| {
        let text = failure.map_or_else(|| "it broke off".to_owned(), |failure| failure.message);
        Misread::new(format!("The streamed answer is not whole: {text}."))
    })
}

/// What the event says by which a streamed body tells of a failure.
pub(super) fn failure_in(body: &[u8]) -> Option<Bytes> {
    let mut decoder = Decoder::default();
    decoder.buffer().extend_from_slice(body);
    loop {
        let frame = decoder.next_frame();
        let frame = frame.or_else(|| decoder.last_frame())?;
        let data = decoder.data(&frame).unwrap_or_default();
        if decoder.event(&frame) == Some(b"error") || says_failure(&data) {
            return Some(Bytes::copy_from_slice(&data));
        }
    }
}

/// The stream that brings a whole answer.
pub(super) fn spread(response: &ChatResponse, mut writer: Box<dyn WriteStream>) -> Vec<u8> {
    let mut out = Vec::new();
    for event in unfold(response) {
        writer.write(&event, &mut out);
    }
    out
}

/// What its provider will want back of an answer.
pub(super) fn keepsakes(response: &ChatResponse) -> Vec<Keepsake> {
    let mut keeper = Keeper::default();
    for event in unfold(response) {
        keeper.note(&event);
    }
    keeper.finish()
}
