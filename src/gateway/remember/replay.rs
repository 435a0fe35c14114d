//! Gives an answer once more, in the words of whoever asks this time.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use crate::cache::{Entry, Kept};
use crate::canon::ChatResponse;
use crate::dialect::passage::last_data;
use crate::dialect::{Context, WriteStream};
use crate::gateway::arrival::Question;
use crate::gateway::ask::{Answer, JSON};
use crate::gateway::call::Call;
use crate::gateway::reword;

/// Who answered first: provider and model.
pub(super) type By<'a> = Option<&'a (Arc<str>, Arc<str>)>;

/// The answer that was kept.
pub(super) fn entry(call: &mut Call, question: &Question, entry: &Entry) -> Answer {
    match &entry.kept {
        Kept::Chat(response) => chat(call, question, (response, &entry.model)),
        Kept::Body(body) => {
            Answer::Whole { content_type: JSON, body: Bytes::copy_from_slice(body.as_bytes()) }
        }
    }
}

/// An answer that somebody else was given just now.
pub(super) fn answer(
    call: &mut Call,
    question: &Question,
    (response, by): (&ChatResponse, By<'_>),
) -> Answer {
    let mut response = response.clone();
    response.id = String::new();
    response.created = None;
    chat(call, question, (&response, by.map_or("", |(_, model)| model)))
}

/// The one place where what is remembered turns into what a client is given.
fn chat(call: &mut Call, question: &Question, (response, model): (&ChatResponse, &str)) -> Answer {
    let client = call.client();
    let streamed = question.envelope.stream;
    let body = with_context(call, question, model, |context| {
        if streamed {
            reword::spread(response, client.writer(context))
        } else {
            client.write_response(response, context)
        }
    });
    let body = Bytes::from(body.unwrap_or_default());
    call.keep(reword::keepsakes(response));
    if call.keeping.is_some() {
        let last = if streamed { last_data(&body) } else { Some(body.clone()) };
        call.keep_response(&last.unwrap_or_default(), false);
    }
    let kind = HeaderValue::from_static(client.stream_type());
    Answer::Whole { content_type: if streamed { kind } else { JSON }, body }
}

/// A writer of this client's stream.
pub(super) fn writer(
    call: &Call,
    question: &Question,
    model: &str,
) -> Option<Box<dyn WriteStream>> {
    with_context(call, question, model, |context| call.client().writer(context))
}

fn with_context<T>(
    call: &Call,
    question: &Question,
    model: &str,
    write: impl FnOnce(&Context<'_>) -> T,
) -> Option<T> {
    let request = &question.chat().ok()?.request;
    let (id, created) = call.stamp();
    Some(write(&Context {
        id: &id,
        created,
        model,
        input_estimate: call.input_estimate(),
        previous: question.envelope.previous.as_deref(),
        request,
    }))
}
