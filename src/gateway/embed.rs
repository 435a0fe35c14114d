//! Vectors of a provider whose API for them is its own: one question in as many requests as it
//! takes, and their answers as one.

use std::borrow::Cow;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use http::{HeaderName, HeaderValue};
use tokio::time::{Instant, timeout_at};

use super::arrival::Question;
use super::ask::{self, Answer, Answered, JSON, LONGEST_ANSWER};
use super::call::Call;
use super::errand::{Unfit, misread};
use super::relayed;
use super::snapshot::Target;
use crate::canon::{EmbedRequest, EmbedResponse, Usage};
use crate::dialect::embed;
use crate::dialect::splice::Payload;
use crate::error::{Error, Kind};
use crate::provider::{Cause, Failure, Operation, Order};

/// As many requests for one question are under way at once.
const AT_ONCE: usize = 8;

/// A question for vectors in its target's words.
#[derive(Debug)]
pub(super) struct Vectors {
    request: EmbedRequest,
    form: embed::Form,
    spelling: embed::Upstream,
    bodies: Vec<Payload>,
}

/// The answer to one of the requests, and its tokens where they are told beside it.
type Piece = (Bytes, Option<u64>);

// === impl Vectors ===

impl Vectors {
    /// The question for this target, and what the target cannot take of it.
    pub(super) fn write(
        call: &Call,
        question: &Question,
        target: &Target,
        spelling: embed::Upstream,
    ) -> Result<(Self, Vec<Cow<'static, str>>), Unfit> {
        let (mut request, form) = embed::read(call.surface(), &question.payload.to_bytes())
            .map_err(|cause| misread(&cause))?;
        request.model = target.model.to_string();
        let mut dropped = Vec::new();
        if form != embed::Form::OpenAi && spelling == embed::Upstream::OpenAi {
            // Servers that follow OpenAI refuse fields that they do not know.
            dropped.extend(request.purpose.take().map(|_| Cow::Borrowed("taskType")));
            let extras = std::mem::take(&mut request.extras);
            dropped.extend(extras.into_iter().map(|(name, _)| Cow::Owned(name)));
        }
        let written = embed::upstream(spelling).write_requests(&request).map_err(|cause| {
            let message = format!("`{}` cannot be asked this: {cause}", target.provider.name);
            Unfit::Target(Error::new(Kind::Unsupported, message))
        })?;
        let mut bodies = Vec::new();
        for one in written {
            bodies.push(Payload::from(Bytes::from(one.body)));
            dropped.extend(one.dropped);
        }
        Ok((Self { request, form, spelling, bodies }, dropped))
    }

    /// Asks for all of them. The first failure is the attempt's, and drops those under way.
    pub(super) async fn ask(
        &self,
        call: &Call,
        question: &Question,
        target: &Target,
        credential: usize,
    ) -> Result<Answered, Box<Failure>> {
        let end = call.end(&target.limits);
        let extra = call.with_parent(target, Cow::Borrowed(&question.extra[..]));
        let pieces = self.bodies.iter().cloned().map(|body| {
            piece(question, target, body, credential, (&extra, call.left(target)), end)
        });
        let pieces: Vec<Piece> = stream::iter(pieces).buffered(AT_ONCE).try_collect().await?;
        let bodies: Vec<&[u8]> = pieces.iter().map(|(body, _)| &**body).collect();
        let read = embed::upstream(self.spelling).read_response(&bodies);
        let response = read.map_err(|_| {
            let mut failures = bodies.iter().filter_map(|body| ask::confessed(target, 200, body));
            failures.next().unwrap_or_else(|| Failure::truncated(200))
        })?;
        if response.vectors.len() != self.request.inputs.len() {
            return Err(Failure::truncated(200).into());
        }
        let beside: Option<u64> = pieces.iter().map(|(_, tokens)| *tokens).sum();
        let beside = beside.map(|input| Usage { input, ..Usage::default() });
        let usage = response.usage.or(beside);
        // Not every provider counts. The client has an estimate then, and the record says so.
        let guess = Usage { input: call.input_estimate(), ..Usage::default() };
        let response = EmbedResponse { usage: Some(usage.unwrap_or(guess)), ..response };
        let body = embed::write_response(&response, &self.request, self.form);
        let answer = Answer::Whole { content_type: JSON, body: body.into() };
        Ok(Answered { usage: Some((usage, 0)), ..Answered::new(answer) })
    }
}

/// Sends one of the requests and reads its answer.
async fn piece(
    question: &Question,
    target: &Target,
    payload: Payload,
    credential: usize,
    (extra, left): (&[(HeaderName, HeaderValue)], Option<&AtomicBool>),
    end: Instant,
) -> Result<Piece, Box<Failure>> {
    let order = Order {
        operation: Operation::Embeddings,
        model: &target.model,
        payload: &payload,
        credential,
        extra,
        connect_limit: target.limits.connect,
        form: relayed::form(None),
        left,
    };
    let reply = ask::send(question, target, order, end).await?;
    let status = reply.status;
    if !(200..300).contains(&status) {
        return Err(ask::refused(target, reply).await.into());
    }
    let tokens = target.provider.counted(&reply.headers);
    let body = ask::read_whole(reply.body, target.limits.idle, LONGEST_ANSWER);
    let body = timeout_at(end, body)
        .await
        .map_err(|_| Failure::of(Cause::TotalTimeout, status))?
        .map_err(|unread| unread.into_failure(status))?;
    if ask::says_error(&body) {
        return Err(target.provider.reported(status, &body).into());
    }
    Ok((body, tokens))
}
