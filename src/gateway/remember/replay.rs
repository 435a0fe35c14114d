//! Gives an answer once more, in the words of whoever asks this time.

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderValue;

use crate::cache::{Entry, Kept};
use crate::canon::ChatResponse;
use crate::dialect::passage::last_data;
use crate::dialect::{Context, WriteStream};
use crate::error::Error;
use crate::gateway::arrival::Question;
use crate::gateway::ask::{Answer, JSON};
use crate::gateway::call::Call;
use crate::gateway::{guarding, reword};

/// Who answered first: provider and model.
pub(super) type By<'a> = Option<&'a (Arc<str>, Arc<str>)>;

/// The answer that was kept.
pub(super) async fn entry(
    call: &mut Call,
    question: &Question,
    entry: &Entry,
) -> Result<Answer, Error> {
    match &entry.kept {
        Kept::Chat(response) => chat(call, question, response.clone(), &entry.model).await,
        Kept::Body(body) => {
            let body = Bytes::copy_from_slice(body.as_bytes());
            Ok(Answer::Whole { content_type: JSON, body })
        }
    }
}

/// An answer that somebody else was given just now.
pub(super) async fn answer(
    call: &mut Call,
    question: &Question,
    mut response: ChatResponse,
    by: By<'_>,
) -> Result<Answer, Error> {
    response.id = String::new();
    response.created = None;
    chat(call, question, response, by.map_or("", |(_, model)| model)).await
}

/// The one place where what is remembered turns into what a client is given: behind the guards of
/// this call, whatever those of the first one said.
async fn chat(
    call: &mut Call,
    question: &Question,
    mut response: ChatResponse,
    model: &str,
) -> Result<Answer, Error> {
    if call.screens() {
        let looked = guarding::look_at(call, &question.envelope.model, response).await;
        response = looked.map_err(|blocked| guarding::refusal(&blocked))?;
    }
    let (id, created) = call.stamp();
    let body = write(call, question, &response, model, (&id, created)).unwrap_or_default();
    call.keep(reword::keepsakes(&response));
    Ok(told(call, question, body.into()))
}

/// A body that was written before, for the same words.
pub(super) fn ready(call: &mut Call, question: &Question, body: Bytes, kept: &Kept) -> Answer {
    match kept {
        Kept::Chat(_) => told(call, question, body),
        Kept::Body(_) => Answer::Whole { content_type: JSON, body },
    }
}

/// Whether an answer brings more than what its client is told.
pub(super) fn leaves_more(kept: &Kept) -> bool {
    match kept {
        Kept::Chat(response) => !reword::keepsakes(response).is_empty(),
        Kept::Body(_) => false,
    }
}

/// The answer in the words of this client, as that of a call with this id and time.
pub(super) fn write(
    call: &Call,
    question: &Question,
    response: &ChatResponse,
    model: &str,
    stamp: (&str, u64),
) -> Option<Vec<u8>> {
    let client = call.client();
    with_context(call, question, (model, stamp), |context| {
        if question.envelope.stream {
            reword::spread(response, client.writer(context))
        } else {
            client.write_response(response, context)
        }
    })
}

fn told(call: &mut Call, question: &Question, body: Bytes) -> Answer {
    let streamed = question.envelope.stream;
    if call.keeping.is_some() {
        let last = if streamed { last_data(&body) } else { Some(body.clone()) };
        call.keep_response(&last.unwrap_or_default(), false);
    }
    let kind = HeaderValue::from_static(call.client().stream_type());
    Answer::Whole { content_type: if streamed { kind } else { JSON }, body }
}

/// A writer of this client's stream.
pub(super) fn writer(
    call: &Call,
    question: &Question,
    model: &str,
) -> Option<Box<dyn WriteStream>> {
    let (id, created) = call.stamp();
    with_context(call, question, (model, (&id, created)), |context| call.client().writer(context))
}

fn with_context<T>(
    call: &Call,
    question: &Question,
    (model, (id, created)): (&str, (&str, u64)),
    write: impl FnOnce(&Context<'_>) -> T,
) -> Option<T> {
    let request = &question.chat().ok()?.request;
    Some(write(&Context {
        id,
        created,
        model,
        input_estimate: call.input_estimate(),
        previous: question.envelope.previous.as_deref(),
        request,
    }))
}
