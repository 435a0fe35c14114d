//! How many tokens a question has: as its target's provider counts them, or by estimate.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::arrival::Question;
use super::ask::{self, Answer, Answered, JSON};
use super::call::Call;
use super::errand::{Errand, Wording, translate};
use super::relayed;
use super::snapshot::Target;
use crate::canon::{ChatRequest, Dialect};
use crate::dialect::splice::Payload;
use crate::dialect::{self, estimate};
use crate::error::Error;
use crate::provider::{Operation, Order};

/// The longest count that is read.
const LONGEST: usize = 64 * 1024;
/// Nobody waits longer for a count than an estimate is worth.
const PATIENCE: Duration = Duration::from_secs(5);

/// A question of which the tokens are wanted, where its bytes cannot pass as they are.
pub(super) async fn count(
    call: &Call,
    question: &Question,
    target: &Target,
) -> Result<Errand, Error> {
    Box::pin(question.understand(call)).await;
    let asked = question.chat().map_err(|misread| Error::invalid(misread.0.clone()))?;
    if let Some(errand) = there(call, question, target) {
        return Ok(errand);
    }
    let home = target.provider.home(&target.model).unwrap_or(Dialect::Chat);
    let body = answer(call, estimated(&asked.request, target));
    Ok(Errand::new(Operation::CountTokens(home), Wording::Local(body)))
}

/// The same in the words of the provider that counts it, if it does and they have words for it.
fn there(call: &Call, question: &Question, target: &Target) -> Option<Errand> {
    let into = target.provider.counts(&target.model)?;
    let mut errand = translate(call, question, target, into).ok()?;
    let Wording::Translated { body, .. } = &errand.wording else { return None };
    let traits = &target.provider.kind.traits;
    let about = (&*target.model, traits.model_in_path);
    let body = dialect::count::ask(&body.to_bytes(), into, about)?;
    errand.wording = Wording::Counted(Payload::from(Bytes::from(body)));
    errand.operation = Operation::CountTokens(into);
    Some(errand)
}

/// Has it counted; who does not answer that is not asked twice.
pub(super) async fn ask(
    call: &Call,
    question: &Question,
    target: &Target,
    (errand, payload, credential): (&Errand, &Payload, usize),
) -> Answered {
    let counted = counted(call, question, target, (errand, payload, credential));
    let counted = timeout(PATIENCE, counted).await.ok().flatten();
    let tokens = counted.unwrap_or_else(|| {
        tracing::debug!(provider = %target.provider.name, "a provider did not count tokens");
        question.chat().map_or(0, |asked| estimated(&asked.request, target))
    });
    Answered::new(Answer::Whole { content_type: JSON, body: answer(call, tokens) })
}

async fn counted(
    call: &Call,
    question: &Question,
    target: &Target,
    (errand, payload, credential): (&Errand, &Payload, usize),
) -> Option<u64> {
    let extra: Cow<'_, [_]> = question.extra.iter().chain(&errand.headers).cloned().collect();
    let extra = call.with_parent(target, extra);
    let order = Order {
        operation: errand.operation,
        model: &target.model,
        payload,
        credential,
        extra: &extra,
        connect_limit: target.limits.connect,
        form: relayed::form(None),
    };
    let reply = ask::send(question, target, order, call.end(&target.limits)).await.ok()?;
    if !(200..300).contains(&reply.status) {
        return None;
    }
    let body = ask::read_whole(reply.body, target.limits.idle, LONGEST).await.ok()?;
    dialect::count::read(&body)
}

fn estimated(request: &ChatRequest, target: &Target) -> u64 {
    let home = target.provider.home(&target.model).unwrap_or(Dialect::Chat);
    estimate::tokens(request, home, target.tokenizer())
}

fn answer(call: &Call, tokens: u64) -> Bytes {
    dialect::count::answer(call.surface(), tokens).into()
}
