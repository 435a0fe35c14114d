//! The body of every reply: whole, or a stream that is pulled.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Frame, SizeHint};

use super::call::Call;
use super::pass::Pass;
use super::relay::Relay;
use super::responses::Follower;
use crate::canon::Outcome;
use crate::net::BoxError;

/// What goes back to a client. The call it answers is settled when this is dropped.
pub struct Body(Inner);

enum Inner {
    Whole(Option<Bytes>, Option<Box<Call>>),
    Stream(Box<Relay>),
    Bytes(Box<Pass>),
    Followed(Follower),
    Pulled(Pulled),
}

type Pulled = Pin<Box<dyn Stream<Item = Result<Bytes, BoxError>> + Send>>;

impl Body {
    pub(super) fn whole(bytes: Bytes, mut call: Option<Box<Call>>) -> Self {
        if let Some(call) = &mut call {
            call.says(&bytes);
            if bytes.is_empty() {
                // Nobody will ask for it.
                call.ends(Outcome::Ok);
            }
        }
        Self(Inner::Whole(Some(bytes), call))
    }

    pub(super) fn stream(relay: Relay) -> Self {
        Self(Inner::Stream(Box::new(relay)))
    }

    pub(super) fn followed(follower: Follower) -> Self {
        Self(Inner::Followed(follower))
    }

    /// Pieces that are made when the client has taken those before.
    pub fn pulled(pieces: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static) -> Self {
        Self(Inner::Pulled(Box::pin(pieces)))
    }

    pub(super) fn bytes(pass: Pass) -> Self {
        Self(Inner::Bytes(Box::new(pass)))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self::whole(bytes.into(), None)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match &mut self.0 {
            Inner::Whole(bytes, call) => {
                if let Some(call) = call {
                    call.ends(Outcome::Ok);
                }
                let bytes = bytes.take().filter(|bytes| !bytes.is_empty());
                Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Inner::Stream(relay) => {
                let next = std::task::ready!(relay.poll_next(context));
                if let Some(bytes) = &next {
                    relay.tapes(bytes);
                }
                Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
            }
            Inner::Bytes(pass) => pass.poll_next(context).map_ok(Frame::data),
            Inner::Pulled(pieces) => pieces.as_mut().poll_next(context).map_ok(Frame::data),
            Inner::Followed(follower) => {
                let next = std::task::ready!(follower.poll_next(context));
                Poll::Ready(next.map(|bytes| Ok(Frame::data(bytes))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole(bytes, _) => bytes.as_ref().is_none_or(Bytes::is_empty),
            Inner::Stream(_) | Inner::Followed(_) | Inner::Pulled(_) => false,
            Inner::Bytes(pass) => pass.left() == Some(0),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes, _) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Inner::Stream(_) | Inner::Followed(_) | Inner::Pulled(_) => SizeHint::default(),
            Inner::Bytes(pass) => pass.left().map_or_else(SizeHint::default, SizeHint::with_exact),
        }
    }
}
