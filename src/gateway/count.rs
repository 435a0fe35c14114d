//! How many tokens a question has: as its target's provider counts them, or by estimate.

use std::borrow::Cow;

use bytes::Bytes;
use tokio::time::timeout_at;

use super::arrival::Question;
use super::ask::{self, Answer, Answered, JSON};
use super::call::Call;
use super::errand::{Errand, Wording, translate};
use super::relayed;
use super::snapshot::Target;
use crate::canon::Dialect;
use crate::dialect::splice::Payload;
use crate::dialect::{self, estimate};
use crate::error::Error;
use crate::provider::{Cause, Failure, Operation, Order};

/// The longest count that is read.
const LONGEST: usize = 64 * 1024;

/// A question of which the tokens are wanted, where its bytes cannot pass as they are.
pub(super) async fn count(
    call: &Call,
    question: &Question,
    target: &Target,
) -> Result<Errand, Error> {
    Box::pin(question.understand(call)).await;
    if let Some(errand) = there(call, question, target) {
        return Ok(errand);
    }
    let home = target.provider.home(&target.model).unwrap_or(Dialect::Chat);
    let body = Box::pin(estimate(call, question, target)).await?;
    Ok(Errand::new(Operation::CountTokens(home), Wording::Local(body)))
}

/// The answer by estimate, for a target that does not count, or did not.
pub(super) async fn estimate(
    call: &Call,
    question: &Question,
    target: &Target,
) -> Result<Bytes, Error> {
    Box::pin(question.understand(call)).await;
    let asked = question.chat().map_err(|misread| Error::invalid(misread.0.clone()))?;
    let home = target.provider.home(&target.model).unwrap_or(Dialect::Chat);
    let tokens = estimate::tokens(&asked.request, home, target.tokenizer());
    Ok(dialect::count::answer(call.surface(), tokens).into())
}

/// The same in the words of the provider that counts it, if it does and they have words for it.
fn there(call: &Call, question: &Question, target: &Target) -> Option<Errand> {
    let (into, at_home) = target.provider.counts(&target.model)?;
    let mut errand = translate(call, question, target, into).ok()?;
    let Wording::Translated { body, .. } = &errand.wording else { return None };
    let body = dialect::count::ask(&body.to_bytes(), into, &target.model, at_home)?;
    errand.wording = Wording::Counted(Payload::from(Bytes::from(body)));
    errand.operation = Operation::CountTokens(into);
    Some(errand)
}

/// Has it counted there.
pub(super) async fn ask(
    call: &Call,
    question: &Question,
    target: &Target,
    errand: &Errand,
    payload: &Payload,
    credential: usize,
) -> Result<Answered, Box<Failure>> {
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
        left: call.left(target),
    };
    let end = call.end(&target.limits);
    let reply = ask::send(question, target, order, end).await?;
    let status = reply.status;
    if !(200..300).contains(&status) {
        return Err(ask::refused(target, reply).await.into());
    }
    let body = ask::read_whole(reply.body, target.limits.idle, LONGEST);
    let body = timeout_at(end, body)
        .await
        .map_err(|_| Failure::of(Cause::TotalTimeout, status))?
        .map_err(|unread| unread.into_failure(status))?;
    let tokens = dialect::count::read(&body).ok_or_else(|| Failure::truncated(status))?;
    let body = dialect::count::answer(call.surface(), tokens).into();
    Ok(Answered::new(Answer::Whole { content_type: JSON, body }))
}
