//! OpenAI's Responses API: what Codex and the openai libraries speak, and what many servers offer.

mod content;
mod echo;
mod failure;
mod hosted;
mod item;
mod read;
pub mod state;
mod stream;
mod tools;
mod usage;
mod write;

#[cfg(test)]
mod questions;
#[cfg(test)]
mod tests;

pub(in crate::dialect) use failure::{Count, says_failed};
pub use usage::read as read_usage;

use serde_json::Value;

use super::fold::{Fold, unfold};
use super::{
    Aim, ClientSide, Context, Inexpressible, Misread, ReadStream, UpstreamSide, WriteStream,
    Written, custom,
};
use crate::canon::{ChatRequest, ChatResponse, Delta, Event};
use crate::error::Error;
use stream::{Reader, Writer};

/// Both sides of the dialect.
#[derive(Debug)]
pub struct Responses;

pub static CODEC: Responses = Responses;

impl ClientSide for Responses {
    fn read_request(&self, body: &[u8]) -> Result<ChatRequest, Misread> {
        read::read(body)
    }

    /// What the stream's last event holds, so that both kinds of answer are one.
    fn write_response(&self, response: &ChatResponse, context: &Context<'_>) -> Vec<u8> {
        let mut events = unfold(&custom::restored(response, context.request));
        state_first(&mut events);
        let mut writer = Writer::new(context);
        let mut unseen = Vec::new();
        for event in &events {
            writer.write(event, &mut unseen);
            unseen.clear();
        }
        writer.into_response()
    }

    fn writer(&self, context: &Context<'_>) -> Box<dyn WriteStream> {
        custom::restoring(Writer::new(context), context.request)
    }

    /// The libraries stop at `error`; Codex looks for `response.failed` alone.
    fn write_error_event(&self, error: &Error) -> Vec<u8> {
        failure::Count::default().ended(error)
    }
}

impl UpstreamSide for Responses {
    fn write_request(
        &self,
        request: &ChatRequest,
        aim: &Aim<'_>,
    ) -> Result<Written, Inexpressible> {
        write::write(request, aim)
    }

    fn read_whole(&self, body: &[u8]) -> Result<ChatResponse, Misread> {
        let response: Value = serde_json::from_slice(body)?;
        if !response["output"].is_array() {
            return Err(Misread::new("The answer has no `output`."));
        }
        let mut events = Vec::new();
        Reader::default().read_whole(&response, &mut events)?;
        let mut fold = Fold::default();
        for event in &events {
            fold.add(event);
        }
        fold.finish().map_err(|failure| {
            let said = failure.map(|failure| failure.message).unwrap_or_default();
            Misread::new(format!("The answer says that it failed: {said}"))
        })
    }

    fn reader(&self) -> Box<dyn ReadStream> {
        Box::new(Reader::default())
    }
}

/// Puts each part's state before its text: a whole item then keeps its own id.
fn state_first(events: &mut [Event]) {
    let mut opened = 0;
    for place in 0..events.len() {
        match &events[place] {
            Event::Open { .. } => opened = place,
            Event::Delta { delta: Delta::Opaque(_), .. } => {
                events[opened + 1..=place].rotate_right(1);
            }
            _ => {}
        }
    }
}
