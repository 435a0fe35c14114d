//! Gives an answer back as it comes, whatever it is: pulled, timed, and counted where it says so.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONTENT_DISPOSITION;
use http::{Response, StatusCode};
use tokio::time::{Instant, Sleep};

use super::Body;
use super::batches::Metering;
use super::call::Call;
use super::relayed::{self, Incoming};
use crate::canon::Outcome;
use crate::dialect::openai::Skim;
use crate::net::BoxError;
use crate::net::client::ReplyBody;

/// An answer on its way to a client. It is pulled, so a slow client slows its provider.
pub(super) struct Pass {
    /// `None` when all is over.
    call: Option<Box<Call>>,
    /// Why the answer broke off, until the client's connection is broken for it.
    broken: Option<&'static str>,
    body: ReplyBody,
    /// What came with the head.
    first: Bytes,
    /// Bytes the client still lacks, where that is known.
    left: Option<u64>,
    /// Bytes the client was given.
    passed: u64,
    /// Reads along, where usage may be found.
    skim: Option<Skim>,
    metering: Option<Box<Metering>>,
    idle: Duration,
    total: Instant,
    /// The upstream is waited for, and not the client.
    waiting: bool,
    timer: Pin<Box<Sleep>>,
    /// Ready when what is open has to end.
    ending: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Pass {
    pub(super) fn of(mut call: Box<Call>, incoming: Incoming) -> Response<Body> {
        let Incoming { content_type, disposition, first, body, length, metering } = incoming;
        let skim = relayed::is_json(&content_type).then(Skim::default);
        let mut response = call.respond(StatusCode::OK, content_type);
        if let Some(disposition) = disposition {
            response.headers_mut().insert(CONTENT_DISPOSITION, disposition);
        }
        let limits = call.target().map(|target| target.limits);
        let hour = Duration::from_hours(1);
        let idle = limits.map_or(hour, |limits| limits.idle);
        let ending = Box::pin(call.gateway.until_end());
        let pass = Self {
            body,
            first,
            left: length,
            passed: 0,
            skim,
            metering,
            idle,
            total: limits.map_or(call.started + hour, |limits| call.end(&limits)),
            timer: Box::pin(tokio::time::sleep(idle)),
            ending,
            waiting: false,
            broken: None,
            call: Some(call),
        };
        response.map(|()| Body::bytes(pass))
    }

    /// Bytes that are still to come, where that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.left
    }

    pub(super) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, BoxError>>> {
        if let Some(text) = self.broken.take() {
            return Poll::Ready(Some(Err(text.into())));
        }
        if self.call.is_none() {
            return Poll::Ready(None);
        }
        let mut data = BytesMut::from(std::mem::take(&mut self.first));
        if data.is_empty() {
            match self.body.poll_data(context, &mut data) {
                Poll::Ready(Ok(true)) => {}
                Poll::Ready(Ok(false)) if self.left.is_none_or(|left| left == 0) => {
                    self.settle(Outcome::Ok);
                    self.call = None;
                    return Poll::Ready(None);
                }
                Poll::Ready(end) => {
                    tracing::debug!(?end, "an upstream's answer broke");
                    let text = "the provider broke its answer off";
                    return self.stop(Outcome::UpstreamTruncated, text, context);
                }
                Poll::Pending => {
                    let (outcome, text) = ready!(self.poll_limits(context));
                    return self.stop(outcome, text, context);
                }
            }
        }
        if let Some(skim) = &mut self.skim {
            skim.feed(&data);
        }
        if let Some(metering) = &mut self.metering {
            metering.feed(&data);
        }
        self.waiting = false;
        self.passed += data.len() as u64;
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        if self.left == Some(0) {
            // Nobody may ask for more, so this is where it is known.
            self.settle(Outcome::Ok);
        }
        Poll::Ready(Some(Ok(data.freeze())))
    }

    fn poll_limits(&mut self, context: &mut Context<'_>) -> Poll<(Outcome, &'static str)> {
        if self.ending.as_mut().poll(context).is_ready() {
            return Poll::Ready((Outcome::UpstreamTruncated, "the gateway is shutting down"));
        }
        if !std::mem::replace(&mut self.waiting, true) {
            let until = (Instant::now() + self.idle).min(self.total);
            self.timer.as_mut().reset(until);
        }
        ready!(self.timer.as_mut().poll(context));
        Poll::Ready((Outcome::Timeout, "the provider fell silent in the middle of its answer"))
    }

    /// The client's connection is broken in turn: there is no other way to say it now. What it was
    /// given before leaves first.
    fn stop<T>(
        &mut self,
        outcome: Outcome,
        text: &'static str,
        context: &mut Context<'_>,
    ) -> Poll<T> {
        self.settle(outcome);
        self.call = None;
        self.broken = Some(text);
        context.waker().wake_by_ref();
        Poll::Pending
    }

    fn settle(&mut self, outcome: Outcome) {
        if outcome == Outcome::Ok
            && let Some(metering) = self.metering.take()
            && let Some(call) = self.call.take()
        {
            return metering.settle_later(call);
        }
        let Some(call) = &mut self.call else { return };
        call.ends(outcome);
        relayed::meter(call, self.skim.as_ref(), self.passed);
    }
}
