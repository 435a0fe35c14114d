//! An answer that came whole: read, shown to its guards where there are some, and put into the
//! client's words.

use bytes::Bytes;
use http::HeaderValue;

use super::arrival::Question;
use super::ask::{Answer, Answered, JSON, with_context};
use super::call::Call;
use super::errand::{Errand, Wording};
use super::form;
use super::snapshot::Target;
use super::{guarding, reword};
use crate::canon::{ChatResponse, Choice, Dialect, FinishReason, Surface, Usage};
use crate::dialect::completions::NATIVE;
use crate::dialect::names::Aliases;
use crate::dialect::openai::{has_choices, has_data, may_be_broken, read_finish, read_usage};
use crate::dialect::passage::last_data;
use crate::dialect::{self, Misread, UpstreamSide, chat, estimate, keepsake};
use crate::provider::Operation;

/// A whole answer in the client's words.
pub(super) fn whole(
    call: &Call,
    question: &Question,
    target: &Target,
    errand: &Errand,
    content_type: HeaderValue,
    body: Bytes,
) -> Result<Answered, Misread> {
    let Wording::Translated { into, .. } = &errand.wording else {
        let body = if lacks_types(target, errand) { chat::with_call_types(body) } else { body };
        if let Some(dialect) = other_form(question, errand, &content_type) {
            // Nobody's words can be put into those of a client that is not understood.
            if let Err(misread) = question.chat() {
                return Err(Misread::new(misread.0.clone()));
            }
            let response = read(dialect::upstream(dialect), &content_type, &body)?;
            return Ok(Answered {
                usage: Some(used(target, &response)),
                canon: call.recording.is_some().then(|| Box::new(response.clone())),
                ..written(call, question, target, response)
            });
        }
        // Whatever it says, what is no JSON is nobody's answer.
        let (usage, finish) = match errand.operation {
            Operation::Chat { dialect, .. } if dialect != Dialect::Chat => {
                let read = match dialect::upstream(dialect).read_response(&body) {
                    Ok(read) => Some(read),
                    Err(_) if is_pending(dialect, &body) => None,
                    Err(misread) => return Err(misread),
                };
                (read.as_ref().and_then(|read| read.usage), read.as_ref().and_then(finish_of))
            }
            operation if !is_answer(operation, &body) => {
                return Err(Misread::new("There is nothing in the answer."));
            }
            // Nobody else asks why.
            _ if call.record.trace.is_some() => (read_usage(&body)?, read_finish(&body)),
            _ => (read_usage(&body)?, None),
        };
        let usage = told(usage);
        let estimate = usage.map_or_else(|| guess(target, errand.operation, &body), |_| 0);
        return Ok(Answered {
            // What was only counted has not been used.
            usage: (!call.surface().counts_tokens()).then_some((usage, estimate)),
            response: Some((body.clone(), true)),
            finish,
            canon: canon(call, errand.operation, &body),
            ..Answered::new(Answer::Whole { content_type, body })
        });
    };
    let mut response = read(dialect::upstream(*into), &content_type, &body)?;
    is_something(call, &response)?;
    aliases(question, *into).restore(&mut response);
    Ok(Answered {
        usage: Some(used(target, &response)),
        keepsakes: reword::keepsakes(&response),
        canon: call.recording.is_some().then(|| Box::new(response.clone())),
        ..written(call, question, target, response)
    })
}

/// Whether it is known not to say of which type tool calls are.
fn lacks_types(target: &Target, errand: &Errand) -> bool {
    let is_chat = matches!(errand.operation, Operation::Chat { dialect: Dialect::Chat, .. });
    is_chat && target.provider.kind.traits.bare_calls
}

/// What an answer has used, as it says or, where it does not, by what it says.
fn used(target: &Target, response: &ChatResponse) -> (Option<Usage>, u64) {
    let estimate = || estimate::answer(response, target.tokenizer());
    let usage = told(response.usage);
    (usage, usage.map_or_else(estimate, |_| 0))
}

/// Some servers count nothing and say so by zeros.
fn told(usage: Option<Usage>) -> Option<Usage> {
    usage.filter(|usage| usage.total() > 0)
}

/// Tokens of an answer that does not tell them.
fn guess(target: &Target, operation: Operation, body: &[u8]) -> u64 {
    let upstream: &dyn UpstreamSide = match operation {
        Operation::Chat { dialect, .. } => dialect::upstream(dialect),
        Operation::Completions => &NATIVE,
        // Vectors are no tokens.
        Operation::Embeddings => return 0,
        _ => return body.len() as u64 / 4,
    };
    let read = upstream.read_response(body).ok();
    read.map_or(body.len() as u64 / 4, |it| estimate::answer(&it, target.tokenizer()))
}

/// Whether a success in name is one, as far as that is seen without reading all of it: some servers
/// tell with 200 that they have failed.
fn is_answer(operation: Operation, body: &[u8]) -> bool {
    match operation {
        Operation::Chat { .. } => {
            let read = || dialect::upstream(Dialect::Chat).read_response(body);
            has_choices(body) && (!may_be_broken(body) || read().is_ok())
        }
        Operation::Completions => has_choices(body),
        Operation::Embeddings => has_data(body),
        _ => true,
    }
}

/// Whether it is a response that is still made, of which nothing is to be read yet.
fn is_pending(dialect: Dialect, body: &[u8]) -> bool {
    let Ok(response) = serde_json::from_slice::<serde_json::Value>(body) else { return false };
    let status = response["status"].as_str().unwrap_or_default();
    dialect == Dialect::Responses && matches!(status, "queued" | "in_progress" | "cancelled")
}

/// The dialect of an answer that came in another form than it was asked for: some servers stream to
/// whoever did not ask for it, and some do not to whoever did.
pub(super) fn other_form(
    question: &Question,
    errand: &Errand,
    content_type: &HeaderValue,
) -> Option<Dialect> {
    let streamed = form::is_events(content_type);
    let Operation::Chat { dialect, .. } = errand.operation else { return None };
    let is_verbatim = matches!(errand.wording, Wording::Verbatim);
    (is_verbatim && streamed != question.envelope.stream).then_some(dialect)
}

/// A call that its model did not get right, and nothing else, is no answer: other dialects have no
/// word for it, so it would look like one. An agent asks again.
fn is_something(call: &Call, response: &ChatResponse) -> Result<(), Misread> {
    let is_lost = |choice: &Choice| {
        choice.parts.is_empty() && choice.finish.reason == FinishReason::Malformed
    };
    if call.surface() != Surface::Turn
        && !response.choices.is_empty()
        && response.choices.iter().all(is_lost)
    {
        return Err(Misread::new("The model's tool call was malformed."));
    }
    Ok(())
}

/// What the target may call the question's tools.
pub(super) fn aliases(question: &Question, into: Dialect) -> Aliases {
    question.chat().map(|asked| Aliases::of(&asked.request, into)).unwrap_or_default()
}

/// An answer in our own words, however it came.
fn read(
    upstream: &dyn UpstreamSide,
    content_type: &HeaderValue,
    body: &Bytes,
) -> Result<ChatResponse, Misread> {
    let streamed = form::is_events(content_type);
    if streamed { reword::gather(upstream, body) } else { upstream.read_response(body) }
}

/// An answer in the client's words, and as the client wants it.
fn written(
    call: &Call,
    question: &Question,
    target: &Target,
    mut response: ChatResponse,
) -> Answered {
    keepsake::bind(&mut response);
    let response = &response;
    let stream = question.envelope.stream;
    let client = call.client();
    let written = with_context(call, question, target, |context| {
        if stream {
            reword::spread(response, client.writer(&context))
        } else {
            client.write_response(response, &context)
        }
    });
    let body: Bytes = written.unwrap_or_default().into();
    let last = if stream { last_data(&body) } else { Some(body.clone()) };
    let content_type = if stream { HeaderValue::from_static(client.stream_type()) } else { JSON };
    Answered {
        finish: finish_of(response),
        response: Some((last.unwrap_or_default(), false)),
        ..Answered::new(Answer::Whole { content_type, body })
    }
}

/// The same for an answer that guards look at first.
pub(super) async fn guarded(
    call: &Call,
    question: &Question,
    target: &Target,
    errand: &Errand,
    content_type: HeaderValue,
    body: Bytes,
) -> Result<Answered, Misread> {
    let upstream: &dyn UpstreamSide = match (&errand.wording, errand.operation) {
        (Wording::Translated { into, .. }, _) => dialect::upstream(*into),
        (Wording::Verbatim, Operation::Completions) => &NATIVE,
        _ => return Err(Misread::new("The answer cannot be shown to its guards.")),
    };
    let mut response = read(upstream, &content_type, &body)?;
    if let Wording::Translated { into, .. } = &errand.wording {
        is_something(call, &response)?;
        aliases(question, *into).restore(&mut response);
    }
    let usage = Some(used(target, &response));
    let keepsakes = reword::keepsakes(&response);
    // Whoever is given it again has guards of their own.
    let canon = call.recording.is_some().then(|| Box::new(response.clone()));
    match guarding::look_at(call, &question.envelope.model, response).await {
        Ok(response) => {
            Ok(Answered { usage, keepsakes, canon, ..written(call, question, target, response) })
        }
        Err(blocked) => Ok(Answered { usage, ..Answered::objected(blocked) }),
    }
}

fn finish_of(response: &ChatResponse) -> Option<FinishReason> {
    response.choices.first().map(|choice| choice.finish.reason)
}

/// A whole answer in our own words, where it is to be remembered.
fn canon(call: &Call, operation: Operation, body: &[u8]) -> Option<Box<ChatResponse>> {
    call.recording.as_ref()?;
    let Operation::Chat { dialect, .. } = operation else { return None };
    dialect::upstream(dialect).read_response(body).ok().map(Box::new)
}
