//! The short way to an answer that is remembered: of a question that came before, word for word,
//! nothing has to be read, and its answer lies ready.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Asking, Made, Terms, replay};
use crate::cache::{Entry, Kept, Literal, Template, Wording};
use crate::canon::{CacheUse, Surface};
use crate::gateway::arrival::Question;
use crate::gateway::call::Call;

/// The words of a question, and all that decides about its answer; `None` where its bytes do not
/// say all of it, or its answer is to be looked at before it is given.
fn wording(call: &Call, question: &Question, terms: &Terms) -> Option<Wording> {
    let surface = call.surface();
    let is_read = surface.is_chat() || surface == Surface::Embeddings;
    if !is_read || question.is_rewritten() || call.screens() {
        return None;
    }
    let envelope = &question.envelope;
    let flags = [u8::from(envelope.stream), u8::from(terms.remembering.terms.sampled)];
    let more = [
        surface.name().as_bytes(),
        &flags,
        // A path may say these two, and not the body.
        envelope.model.as_bytes(),
        &call.house.generation.to_be_bytes(),
        &call.input_estimate().to_be_bytes(),
    ];
    terms.set(call, question, |setting, bytes| Wording::new(setting, &more, bytes.clone()))
}

/// What the same words were given before, if that may be given again.
pub(super) fn find(
    call: &Call,
    question: &Question,
    terms: &Terms,
) -> Option<(Arc<Literal>, Arc<Entry>)> {
    let wording = terms.leave.read.then(|| wording(call, question, terms)).flatten()?;
    let ttl = terms.remembering.terms.ttl;
    let (literal, entry) = call.gateway.cache.recall(&wording, ttl, SystemTime::now())?;
    literal.answer.is_some().then_some((literal, entry))
}

/// Gives what was found.
pub(super) async fn give(
    mut call: Box<Call>,
    question: Box<Question>,
    literal: &Literal,
    entry: &Arc<Entry>,
) -> Made {
    if let Err(error) = call.note_given_entry(entry, CacheUse::Hit).await {
        return (call, Err(error));
    }
    let (id, created) = call.stamp();
    let ready = literal.answer.as_ref().and_then(|answer| answer.fill(&id, created));
    let answer = if let Some(body) = ready {
        Ok(replay::ready(&mut call, &question, body, &entry.kept))
    } else {
        Box::pin(question.understand(&call)).await;
        Box::pin(replay::entry(&mut call, &question, entry)).await
    };
    (call, answer)
}

/// Remembers what these words are given, if they were not known.
pub(super) fn note(call: &Call, question: &Question, asking: &Asking, entry: &Arc<Entry>) {
    // What was put back from elsewhere need not be there the next time.
    if question.chat().is_ok_and(|asked| asked.restored) {
        return;
    }
    let terms = Terms {
        leave: asking.leave,
        tenant: asking.tenant.clone(),
        remembering: Arc::clone(&asking.remembering),
    };
    let Some(wording) = wording(call, question, &terms) else { return };
    let literals = &call.gateway.cache.literals;
    if literals.find(&wording).is_some_and(|known| known.is_given(entry)) {
        return;
    }
    let answer = match &entry.kept {
        Kept::Body(body) => Template::find(|_, _| Some(body.clone().into_bytes())),
        Kept::Chat(response) => Template::find(|id, created| {
            replay::write(call, question, response, &entry.model, (id, created))
        }),
    };
    // What is to be kept of the answer itself is found when it is given as ever.
    let answer = answer.filter(|_| !replay::leaves_more(&entry.kept));
    literals.note(wording, (asking.digest, entry), answer);
}
