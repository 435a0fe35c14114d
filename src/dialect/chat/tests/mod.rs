//! What this dialect promises, with what all of its tests need.

mod answers;
mod grammar;
mod properties;
mod questions;
mod recordings;

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::CODEC;
use crate::canon::{ChatRequest, ChatResponse, Event, StreamFailure};
use crate::dialect::fold::{Fold, unfold};
use crate::dialect::mend::Mender;
use crate::dialect::sse::Decoder;
use crate::dialect::{Aim, ClientSide, Context, Traits, UpstreamSide, Written};

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let path: PathBuf = folder.join(name);
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn context(request: &ChatRequest) -> Context<'_> {
    Context { id: "00112233", created: 7, model: "m", input_estimate: 3, previous: None, request }
}

/// The question as this server is asked it.
fn ask(request: &ChatRequest, traits: &Traits) -> Written {
    CODEC.write_request(request, &Aim { model: &request.model, traits, cache: None }).unwrap()
}

fn body(written: &Written) -> Value {
    serde_json::from_slice(&written.body).unwrap()
}

/// The events of a stream that arrives in pieces of this many bytes.
fn events(stream: &[u8], chunk: usize) -> Vec<Event> {
    let mut decoder = Decoder::default();
    let (mut reader, mut mender) = (CODEC.reader(), Mender::default());
    let mut events = Vec::new();
    for bytes in stream.chunks(chunk.max(1)) {
        decoder.buffer().extend_from_slice(bytes);
        while let Some(frame) = decoder.next_frame() {
            let Some(data) = decoder.data(&frame) else { continue };
            let data = data.trim_ascii();
            if !data.is_empty() {
                let _ = mender.read(&mut *reader, (decoder.event(&frame), data), &mut events);
            }
        }
    }
    reader.end(&mut events);
    grammar::check_events(&events);
    events
}

fn read_stream(stream: &[u8], chunk: usize) -> Result<ChatResponse, Option<StreamFailure>> {
    let mut fold = Fold::default();
    for event in events(stream, chunk) {
        fold.add(&event);
    }
    fold.finish()
}

/// The answer as a client's stream, checked against the dialect's own rules.
fn write_stream(response: &ChatResponse, request: &ChatRequest) -> Vec<u8> {
    let mut writer = CODEC.writer(&context(request));
    let mut out = Vec::new();
    for event in unfold(response) {
        writer.write(&event, &mut out);
    }
    grammar::check_stream(&out, request.include_usage);
    out
}

fn write_whole(response: &ChatResponse) -> Vec<u8> {
    CODEC.write_response(response, &context(&ChatRequest::default()))
}
